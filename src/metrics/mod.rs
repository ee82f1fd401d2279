//! Scores of predictions, in percent or, for numbers, in their own unit. Works on plain arrays.
//!
//! An empty set of samples is an error, never NaN.

mod about;
pub mod accuracy;
pub mod average_precision;
pub mod bootstrap;
pub mod calibration;
pub mod f1;
pub mod kendall;
pub mod mutual_information;
mod numpy_random;
pub mod paired;
pub mod regression;
pub mod retrieval;
pub mod segmentation;
mod target;

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use self::about::{Better, MetricInfo, Scale, Unit};
pub use self::target::TargetKind;
use crate::{Error, Result};
pub use bootstrap::{Interval, Resampling};

/// A metric; [`Metric::about`] describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Percentage of samples whose class is right.
    Accuracy,
    /// F1 over all samples and labels at once.
    MicroF1,
    /// Intersection over union, averaged over classes.
    Miou,
    /// Average precision over all samples and labels at once.
    MicroMap,
    /// Root mean squared error.
    Rmse,
    /// Mean absolute error.
    Mae,
    /// Coefficient of determination.
    R2,
    /// Mean over queries of the average precision of a ranked gallery.
    RetrievalMap,
    /// Mutual information of clusters and classes, less what chance explains.
    AdjustedMutualInformation,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.about().name)
    }
}

/// Computes a metric per batch and averages the results, weighted by batch size.
///
/// References that log a metric per step report this value instead of the metric of the whole split; it depends
/// on the batch size and the order of the samples. `of` scores a range of samples; the last batch may be
/// smaller.
///
/// # Errors
/// If there are no samples, `batch_size` is 0 or a batch cannot be scored.
pub fn mean_over_batches(
    samples: usize,
    batch_size: usize,
    mut of: impl FnMut(Range<usize>) -> Result<f64>,
) -> Result<f64> {
    if samples == 0 || batch_size == 0 {
        return Err(Error::mismatch(format!("cannot score {samples} samples in batches of {batch_size}")));
    }
    let mut sum = 0.0;
    for start in (0..samples).step_by(batch_size) {
        let batch = start..samples.min(start.saturating_add(batch_size));
        let size = batch.len();
        sum += of(batch)? * size as f64;
    }
    Ok(sum / samples as f64)
}

/// Checks that predictions and truth have the same shape and are not empty.
pub(crate) fn check_shapes(predictions: &[usize], truth: &[usize]) -> Result<()> {
    if predictions != truth {
        return Err(Error::mismatch(format!(
            "predictions have shape {predictions:?}; expected {truth:?}, as the truth"
        )));
    }
    if predictions.contains(&0) {
        return Err(
            Error::mismatch("no samples to score").help("the split is empty; check the partition's file")
        );
    }
    Ok(())
}
