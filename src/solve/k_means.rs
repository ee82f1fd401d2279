//! k-means by linfa-clustering, from several seeded starts.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_clustering::{KMeans, KMeansInit};
use linfa_nn::distance::L2Dist;
use ndarray::{Array2, ArrayView2, Axis};
use rand_xoshiro::Xoshiro256Plus;
use rand_xoshiro::rand_core::SeedableRng;

use crate::{Error, Result};

/// How clusters are sought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeansSettings {
    /// Number of clusters, at least 1.
    pub clusters: usize,
    /// Number of k-means++ starts; the one with the least inertia counts. At least 1.
    pub starts: usize,
    /// Greatest number of steps per start, at least 1.
    pub max_iterations: usize,
    /// A start has converged if the centres together move less than this share of the features' spread. Above 0.
    pub tolerance: f64,
    /// Decides the starts.
    pub seed: u64,
}

/// The clusters of some samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// Index of each sample's cluster.
    pub clusters: Vec<usize>,
    /// Sum over the samples of the squared distance to the centre of their cluster, in the features' unit squared.
    pub inertia: f64,
}

/// Groups features [n, d] by Euclidean distance. The same seed gives the same clusters, with any number of threads.
///
/// # Errors
/// If there are fewer samples than clusters, a feature is not finite, or a setting is out of its range.
pub fn k_means(features: ArrayView2<f32>, settings: KMeansSettings) -> Result<Clustering> {
    let KMeansSettings { clusters, starts, max_iterations, tolerance, seed } = settings;
    let (n, d) = features.dim();
    if n < clusters || d == 0 || clusters == 0 {
        return Err(Error::mismatch(format!("k-means: {n} samples of {d} features for {clusters} clusters"))
            .help("the test split must have at least as many samples as the task has classes"));
    }
    if let Some(sample) = features.outer_iter().position(|row| row.iter().any(|x| !x.is_finite())) {
        return Err(Error::not_finite(format!("k-means: a feature of test sample {sample} is not finite"))
            .help("check that the weights fit the model and the normalisation fits the pixels"));
    }
    // linfa's tolerance is a distance, so the unit of the features must not matter.
    let (scaled, spread) = scaled(features);
    let random = Xoshiro256Plus::seed_from_u64(seed);
    let failed = |problem: &dyn std::fmt::Display| Error::mismatch(format!("k-means: {problem}"));
    let data = DatasetBase::from(scaled);
    let model = KMeans::params_with(clusters, random, L2Dist)
        .init_method(KMeansInit::KMeansPlusPlus)
        .n_runs(starts)
        .max_n_iterations(max_iterations as u64)
        .tolerance(tolerance)
        .fit(&data)
        .map_err(|problem| failed(&problem))?;
    let clusters: Vec<usize> = model.predict(data.records()).to_vec();
    let inertia = inertia(data.records(), &clusters) * spread * spread;
    Ok(Clustering { clusters, inertia })
}

/// Moves features [n, d] to mean 0 and divides them by their root mean square, one number for all, which is returned too. Distances
/// keep their proportions.
fn scaled(features: ArrayView2<f32>) -> (Array2<f64>, f64) {
    let features = features.mapv(f64::from);
    let centred = match features.mean_axis(Axis(0)) {
        Some(mean) => features - &mean,
        None => features,
    };
    let spread = (centred.iter().map(|x| x * x).sum::<f64>() / centred.len().max(1) as f64).sqrt();
    let spread = if spread > 0.0 { spread } else { 1.0 };
    (centred / spread, spread)
}

/// Sum of the squared distances of samples [n, d] to the mean of their cluster.
fn inertia(features: &Array2<f64>, clusters: &[usize]) -> f64 {
    let count = clusters.iter().max().map_or(0, |last| last + 1);
    let mut centres: Array2<f64> = Array2::zeros((count, features.ncols()));
    let mut sizes = vec![0_usize; count];
    for (row, cluster) in features.outer_iter().zip(clusters) {
        let mut centre = centres.row_mut(*cluster);
        centre += &row;
        sizes[*cluster] += 1;
    }
    for (mut centre, size) in centres.outer_iter_mut().zip(sizes) {
        centre /= size.max(1) as f64;
    }
    let distance = |(row, cluster): (ndarray::ArrayView1<f64>, &usize)| {
        row.iter().zip(centres.row(*cluster)).map(|(x, centre)| (x - centre).powi(2)).sum::<f64>()
    };
    features.outer_iter().zip(clusters).map(distance).sum()
}
