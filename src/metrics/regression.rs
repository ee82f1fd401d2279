//! Scores of predicted numbers, from sums over the measured values.
//!
//! Sums of parts add up to the sums of the whole, so resamples, batches and images are scored the same way.

use std::collections::BTreeMap;

use ndarray::{ArrayView, Dimension};

use super::Metric;
use crate::{Error, Result};

/// Sums over the measured values of some samples and their predictions.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ErrorSums {
    /// Number of measured values.
    pub count: u64,
    /// Sum of |prediction - truth|.
    pub absolute: f64,
    /// Sum of (prediction - truth)².
    pub squared: f64,
    /// Sum of the truth.
    pub truth: f64,
    /// Sum of truth².
    pub truth_squared: f64,
}

impl ErrorSums {
    /// Sums of a single value; empty if `truth` is NaN, which means not measured.
    pub fn of(prediction: f64, truth: f64) -> Self {
        if truth.is_nan() {
            return ErrorSums::default();
        }
        let error = prediction - truth;
        ErrorSums {
            count: 1,
            absolute: error.abs(),
            squared: error * error,
            truth,
            truth_squared: truth * truth,
        }
    }

    /// Sums over two arrays of the same shape, such as one map per image; NaN in `truth` means not measured. `in_unit` converts
    /// the values of both, which may be standardised, to the unit of the sums.
    ///
    /// # Errors
    /// If the shapes differ, or the prediction of a measured value is not finite.
    pub fn of_arrays<D: Dimension>(
        predictions: ArrayView<f32, D>,
        truth: ArrayView<f32, D>,
        in_unit: impl Fn(f64) -> f64,
    ) -> Result<Self> {
        if predictions.shape() != truth.shape() {
            let (found, expected) = (predictions.shape(), truth.shape());
            return Err(Error::mismatch(format!(
                "predictions have shape {found:?}; expected {expected:?}, as the truth"
            )));
        }
        let sums: ErrorSums = (predictions.iter().zip(&truth))
            .map(|(p, t)| ErrorSums::of(in_unit(f64::from(*p)), in_unit(f64::from(*t))))
            .sum();
        match sums.is_finite() {
            true => Ok(sums),
            false => Err(Error::not_finite("a predicted number is not finite").help(
                "the training diverged, or the features are too large: check weights and normalisation",
            )),
        }
    }

    /// Whether every sum is finite.
    pub fn is_finite(&self) -> bool {
        [self.absolute, self.squared, self.truth, self.truth_squared].iter().all(|sum| sum.is_finite())
    }

    /// Whether there are no measured values.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Root mean squared error, in the truth's unit [sklearn.metrics.root_mean_squared_error].
    ///
    /// # Errors
    /// If there are no measured values.
    pub fn rmse(&self) -> Result<f64> {
        Ok((self.squared / self.measured("RMSE")?).sqrt())
    }

    /// Mean absolute error, in the truth's unit [sklearn.metrics.mean_absolute_error].
    ///
    /// # Errors
    /// If there are no measured values.
    pub fn mae(&self) -> Result<f64> {
        Ok(self.absolute / self.measured("MAE")?)
    }

    /// Coefficient of determination: 1 - sum of squared errors / sum of squared deviations of the truth from its mean
    /// [sklearn.metrics.r2_score]. For a constant truth it is 1 if all predictions are exact and otherwise 0, as in scikit-learn.
    ///
    /// # Errors
    /// If there are fewer than two measured values. (scikit-learn returns NaN.)
    pub fn r2(&self) -> Result<f64> {
        let count = self.measured("R²")?;
        if self.count < 2 {
            return Err(Error::mismatch("R² needs at least two measured values, found one"));
        }
        let deviations = self.truth_squared - self.truth * self.truth / count;
        // Rounding errors leave a small deviation even for a constant truth.
        let is_constant = deviations <= self.truth_squared * count * f64::EPSILON;
        Ok(match (is_constant, self.squared == 0.0) {
            (false, _) => 1.0 - self.squared / deviations,
            (true, true) => 1.0,
            (true, false) => 0.0,
        })
    }

    /// Computes a regression metric.
    ///
    /// # Errors
    /// Like [`ErrorSums::rmse`] and [`ErrorSums::r2`], or if `metric` is not a regression metric.
    pub fn score(&self, metric: Metric) -> Result<f64> {
        match metric {
            Metric::Rmse => self.rmse(),
            Metric::Mae => self.mae(),
            Metric::R2 => self.r2(),
            Metric::Accuracy
            | Metric::MicroF1
            | Metric::Miou
            | Metric::MicroMap
            | Metric::RetrievalMap
            | Metric::AdjustedMutualInformation => {
                Err(Error::mismatch(format!("{metric} is not a regression metric"))
                    .help("choose rmse, mae or r2 in benchmarks/"))
            }
        }
    }

    /// Returns every metric that can be computed, by name.
    pub fn scores(&self) -> BTreeMap<String, f64> {
        let metrics = [Metric::Rmse, Metric::Mae, Metric::R2];
        metrics.iter().filter_map(|metric| Some((metric.to_string(), self.score(*metric).ok()?))).collect()
    }

    /// Whether `other` has the same sums of the truth, which suggests the same truth.
    pub fn same_truth(&self, other: &Self) -> bool {
        (self.count, self.truth, self.truth_squared) == (other.count, other.truth, other.truth_squared)
    }

    fn measured(&self, name: &str) -> Result<f64> {
        match self.count {
            0 => Err(Error::mismatch(format!("no {name}: no measured values"))
                .help("check whether the split is empty or its maps contain only NaN")),
            count => Ok(count as f64),
        }
    }
}

impl std::ops::Add for ErrorSums {
    type Output = ErrorSums;

    fn add(self, other: Self) -> Self {
        ErrorSums {
            count: self.count + other.count,
            absolute: self.absolute + other.absolute,
            squared: self.squared + other.squared,
            truth: self.truth + other.truth,
            truth_squared: self.truth_squared + other.truth_squared,
        }
    }
}

impl std::iter::Sum for ErrorSums {
    fn sum<I: Iterator<Item = Self>>(sums: I) -> Self {
        sums.fold(ErrorSums::default(), |a, b| a + b)
    }
}

impl<'a> std::iter::Sum<&'a ErrorSums> for ErrorSums {
    fn sum<I: Iterator<Item = &'a Self>>(sums: I) -> Self {
        sums.copied().sum()
    }
}

/// The metric as Copernicus-Bench reports it: computed per batch, then averaged, weighted by the number of images. Batches
/// without measured values are left out; the original returns NaN if there is one.
///
/// # Errors
/// If no batch can be scored, or `batch_size` is 0.
pub fn mean_over_batches(metric: Metric, images: &[ErrorSums], batch_size: usize) -> Result<f64> {
    if batch_size == 0 {
        return Err(Error::mismatch("cannot score batches of 0 images"));
    }
    let score = |batch: &[ErrorSums]| batch.iter().sum::<ErrorSums>().score(metric);
    let scored: Vec<(f64, usize)> =
        images.chunks(batch_size).filter_map(|batch| Some((score(batch).ok()?, batch.len()))).collect();
    match scored.iter().map(|(_, images)| images).sum::<usize>() {
        0 => Err(images.iter().sum::<ErrorSums>().score(metric).err().unwrap_or_else(|| {
            Error::mismatch(format!(
                "no batch of {batch_size} images has enough measured values for {metric}"
            ))
        })),
        all => Ok(scored.iter().map(|(score, images)| score * *images as f64).sum::<f64>() / all as f64),
    }
}
