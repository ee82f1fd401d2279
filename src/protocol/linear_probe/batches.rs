//! Which samples a step sees, and the part of BatchNorm that has no parameters.
//!
//! Features are frozen, so a batch's mean and variance depend on the batch alone: its normalised features are
//! computed once and serve the heads of all learning rates.

use ndarray::{Array1, Array2, ArrayView2, ArrayView3, Axis, Zip};
use rayon::prelude::*;

use super::draws::DrawnSample;

/// Cuts an epoch's order into batches.
///
/// A last batch of a single sample is left out even if incomplete batches are kept: BatchNorm has no
/// variance of one (torch stops with an error there).
pub(crate) fn cut(order: &[DrawnSample], size: usize, drop_last: bool) -> Vec<&[DrawnSample]> {
    let least = if drop_last { size } else { 2 };
    order.chunks(size).filter(|batch| batch.len() >= least).collect()
}

/// A batch after BatchNorm's normalisation, if there is one.
pub(crate) struct Batch {
    /// In the batch's order.
    pub(crate) samples: Vec<usize>,
    /// [n, d]: mean 0, variance (nearly) 1 in each column.
    pub(crate) normalized: Array2<f32>,
    /// [d], before the normalisation.
    mean: Array1<f32>,
    /// [d], before the normalisation, over n - 1.
    variance: Array1<f32>,
}

impl Batch {
    /// Gathers `rows` from features [variants, n, d] as they are.
    fn unchanged(features: ArrayView3<f32>, rows: &[DrawnSample]) -> Self {
        let d = features.len_of(Axis(2));
        let mut normalized = Array2::zeros((rows.len(), d));
        for (mut to, row) in normalized.outer_iter_mut().zip(rows) {
            to.assign(&features.index_axis(Axis(0), row.variant).row(row.sample));
        }
        let samples = rows.iter().map(|row| row.sample).collect();
        Self { samples, normalized, mean: Array1::zeros(d), variance: Array1::ones(d) }
    }

    /// Gathers `rows` from features [variants, n, d] and normalises them by their own statistics.
    pub(crate) fn new(features: ArrayView3<f32>, rows: &[DrawnSample], eps: f64) -> Self {
        let (n, d) = (rows.len(), features.len_of(Axis(2)));
        let mut normalized = Array2::zeros((n, d));
        let mut sums = Array1::<f64>::zeros(d);
        for (mut to, row) in normalized.outer_iter_mut().zip(rows) {
            to.assign(&features.index_axis(Axis(0), row.variant).row(row.sample));
            Zip::from(&mut sums).and(&to).for_each(|sum, &x| *sum += f64::from(x));
        }
        let mean = sums.mapv(|sum| (sum / n as f64) as f32);
        let mut squares = Array1::<f64>::zeros(d);
        for mut row in normalized.outer_iter_mut() {
            row -= &mean;
            Zip::from(&mut squares).and(&row).for_each(|sum, &x| *sum += f64::from(x) * f64::from(x));
        }
        let factor = squares.mapv(|sum| (sum / n as f64 + eps).sqrt().recip() as f32);
        for mut row in normalized.outer_iter_mut() {
            row *= &factor;
        }
        let variance = squares.mapv(|sum| (sum / (n as f64 - 1.0)) as f32);
        Self { samples: rows.iter().map(|row| row.sample).collect(), normalized, mean, variance }
    }
}

/// Normalises several batches at once; without `eps` they stay as they are.
pub(crate) fn normalize(
    features: ArrayView3<f32>,
    batches: &[&[DrawnSample]],
    eps: Option<f64>,
) -> Vec<Batch> {
    let of = |rows: &&[DrawnSample]| match eps {
        Some(eps) => Batch::new(features, rows, eps),
        None => Batch::unchanged(features, rows),
    };
    batches.par_iter().map(of).collect()
}

/// BatchNorm's running statistics, which stand for the batch's when a head is used.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningStatistics {
    /// [d]
    pub mean: Array1<f32>,
    /// [d], unbiased.
    pub variance: Array1<f32>,
    eps: f64,
}

impl RunningStatistics {
    /// torch's beginning: mean 0, variance 1.
    pub(crate) fn new(width: usize, eps: f64) -> Self {
        Self { mean: Array1::zeros(width), variance: Array1::ones(width), eps }
    }

    /// Moves towards a batch's statistics by the share `momentum`.
    pub(crate) fn update(&mut self, batch: &Batch, momentum: f64) {
        let (old, new) = ((1.0 - momentum) as f32, momentum as f32);
        Zip::from(&mut self.mean).and(&batch.mean).for_each(|r, &b| *r = old * *r + new * b);
        Zip::from(&mut self.variance).and(&batch.variance).for_each(|r, &b| *r = old * *r + new * b);
    }

    /// [d]: by what a feature less its mean is multiplied.
    pub(crate) fn factor(&self) -> Array1<f32> {
        self.variance.mapv(|v| (f64::from(v) + self.eps).sqrt().recip() as f32)
    }

    /// Features [n, d], normalised.
    pub(crate) fn normalize(&self, features: ArrayView2<f32>) -> Array2<f32> {
        let mut normalized = &features - &self.mean;
        normalized *= &self.factor();
        normalized
    }
}
