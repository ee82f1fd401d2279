//! Average precision over many resamples: sorted once, counted per resample.

use ndarray::{ArrayView2, Axis};

use crate::{Error, Result};

/// The decisions of all samples and labels, sorted by descending score.
#[derive(Debug, Clone)]
pub(crate) struct Ranked {
    samples: usize,
    decisions: Vec<Decision>,
}

#[derive(Debug, Clone, Copy)]
struct Decision {
    score: f32,
    sample: usize,
    positive: bool,
}

impl Ranked {
    /// Sorts logits and truth, [n, labels]. Scores are sigmoids in float32, as the reference passes them to torchmetrics, so
    /// very large logits tie.
    ///
    /// # Errors
    /// If there are no samples, the shapes differ or a logit is NaN.
    pub(crate) fn new(logits: ArrayView2<f32>, truth: ArrayView2<bool>) -> Result<Self> {
        if logits.dim() != truth.dim() || logits.is_empty() {
            let (found, expected) = (logits.dim(), truth.dim());
            return Err(Error::mismatch(format!(
                "scores have shape {found:?}; expected {expected:?}, as the labels"
            )));
        }
        let mut decisions = Vec::with_capacity(logits.len());
        for (sample, (logits, truth)) in logits.outer_iter().zip(truth.outer_iter()).enumerate() {
            for (logit, positive) in logits.iter().zip(truth) {
                if logit.is_nan() {
                    return Err(Error::not_finite(format!("a score of sample {sample} is NaN")));
                }
                let score = 1.0 / (1.0 + (-logit).exp());
                decisions.push(Decision { score, sample, positive: *positive });
            }
        }
        decisions.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(Ranked { samples: logits.len_of(Axis(0)), decisions })
    }

    pub(crate) fn len(&self) -> usize {
        self.samples
    }

    /// Micro-averaged average precision of the samples at `indices`, in percent, equal to
    /// [`crate::metrics::average_precision::micro_average_precision`] of these samples; 0 if there are no positives.
    pub(crate) fn average_precision(&self, indices: impl Iterator<Item = usize>) -> f64 {
        let mut times = vec![0_u64; self.samples];
        indices.for_each(|sample| times[sample] += 1);
        let (mut area, mut taken, mut found) = (0.0, 0, 0);
        for equal in self.decisions.chunk_by(|a, b| a.score == b.score) {
            let mut gained = 0;
            for decision in equal {
                let times = times[decision.sample];
                taken += times;
                gained += if decision.positive { times } else { 0 };
            }
            if gained > 0 {
                found += gained;
                area += gained as f64 * found as f64 / taken as f64;
            }
        }
        if found == 0 { 0.0 } else { 100.0 * area / found as f64 }
    }

    /// Average precision of each sample's labels on its own, in percent, like [`Ranked::average_precision`].
    pub(crate) fn each(&self) -> Vec<f64> {
        let mut samples = vec![Ranked { samples: 1, decisions: Vec::new() }; self.samples];
        for decision in &self.decisions {
            samples[decision.sample].decisions.push(Decision { sample: 0, ..*decision });
        }
        samples.iter().map(|sample| sample.average_precision(std::iter::once(0))).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::metrics::average_precision::micro_average_precision;

    #[test]
    fn resamples_are_scored_as_their_samples_would_be() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        // Few distinct logits, so that there are many ties.
        let logits = Array2::from_shape_fn((40, 5), |_| random.random_range(-4..4) as f32 / 2.0);
        let truth = Array2::from_shape_fn((40, 5), |_| random.random_bool(0.3));
        let ranked = Ranked::new(logits.view(), truth.view()).unwrap();
        let indices: Vec<usize> = (0..40).map(|_| random.random_range(0..40)).collect();
        let resampled = (logits.select(Axis(0), &indices), truth.select(Axis(0), &indices));
        let expected = micro_average_precision(resampled.0.view(), resampled.1.view()).unwrap();
        assert!((ranked.average_precision(indices.into_iter()) - expected).abs() < 1e-10);
        let each: Vec<f64> =
            (0..40).map(|sample| ranked.average_precision(std::iter::once(sample))).collect();
        assert_eq!(ranked.each(), each);
        assert!(Ranked::new(logits.slice(s![..3, ..]), truth.view()).is_err());
        let nothing = Array2::from_elem((40, 5), false);
        let ranked = Ranked::new(logits.view(), nothing.view()).unwrap();
        assert_eq!(ranked.average_precision(0..40), 0.0);
    }
}
