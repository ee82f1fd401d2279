//! Scores clusters against classes, also of many resamples.

use ndarray::{Array2, Axis};

use crate::Result;
use crate::metrics::check_shapes;
use crate::metrics::mutual_information::{LogFactorials, adjusted};

/// The cluster and the class of each sample.
pub(crate) struct Clusters {
    clusters: Vec<usize>,
    classes: Vec<usize>,
    /// Number of clusters, and of classes.
    shape: (usize, usize),
    logarithms: LogFactorials,
}

impl Clusters {
    /// # Errors
    /// If there are no samples or the lengths differ.
    pub(crate) fn new(clusters: &[usize], classes: &[usize]) -> Result<Self> {
        check_shapes(&[clusters.len()], &[classes.len()])?;
        let count = |groups: &[usize]| groups.iter().max().map_or(0, |last| last + 1);
        Ok(Clusters {
            clusters: clusters.to_vec(),
            classes: classes.to_vec(),
            shape: (count(clusters), count(classes)),
            logarithms: LogFactorials::up_to(clusters.len()),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.clusters.len()
    }

    /// Counts the samples at `indices` by cluster and class.
    fn counts(&self, indices: impl Iterator<Item = usize>) -> Array2<u64> {
        let mut counts = Array2::zeros(self.shape);
        indices.for_each(|sample| counts[(self.clusters[sample], self.classes[sample])] += 1);
        counts
    }

    /// Adjusted mutual information of the samples at `indices`, of which there are at most as many as samples; NaN if there are more.
    pub(crate) fn adjusted_mutual_information(&self, indices: impl ExactSizeIterator<Item = usize>) -> f64 {
        if indices.len() > self.len() {
            return f64::NAN;
        }
        adjusted(&self.counts(indices), &self.logarithms)
    }

    /// For each sample the percentage of the other samples that share both its cluster and its class, or neither; 100 if it is
    /// alone.
    pub(crate) fn each(&self) -> Vec<f64> {
        let counts = self.counts(0..self.len());
        let (clusters, classes) = (counts.sum_axis(Axis(1)), counts.sum_axis(Axis(0)));
        let all = self.len() as u64;
        let alike = |(cluster, class): (&usize, &usize)| {
            let both = counts[(*cluster, *class)];
            let neither = all + both - clusters[*cluster] - classes[*class];
            if all == 1 { 100.0 } else { 100.0 * (both - 1 + neither) as f64 / (all - 1) as f64 }
        };
        self.clusters.iter().zip(&self.classes).map(alike).collect()
    }
}

/// Returns for each sample whether its class is the most common one of its cluster, the lowest of equally common ones.
pub(crate) fn is_majority(clusters: &[usize], classes: &[usize]) -> Result<Vec<bool>> {
    let all = Clusters::new(clusters, classes)?;
    let counts = all.counts(0..all.len());
    let majority: Vec<usize> = counts
        .rows()
        .into_iter()
        .map(|row| (0..row.len()).rev().max_by_key(|class| row[*class]).unwrap_or(0))
        .collect();
    Ok(clusters.iter().zip(classes).map(|(cluster, class)| majority[*cluster] == *class).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_scored_by_its_pairs_with_the_others() {
        let parts = Clusters::new(&[0, 0, 1, 1], &[0, 0, 1, 0]).unwrap();
        // The last one is wrongly with the third, and wrongly apart from the first two.
        assert_eq!(parts.each(), [200.0 / 3.0, 200.0 / 3.0, 200.0 / 3.0, 0.0]);
        assert_eq!(is_majority(&[0, 0, 1, 1], &[0, 0, 1, 0]).unwrap(), [true, true, false, true]);
        assert_eq!(Clusters::new(&[0], &[0]).unwrap().each(), [100.0]);
    }
}
