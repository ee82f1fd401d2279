//! Two records' predictions of the same samples.

use crate::metrics::Metric;
use crate::metrics::paired::Paired;
use crate::protocol::Predictions;
use crate::{Error, Result};

/// The difference `a` - `b` of the metric, in points, by a bootstrap over the samples that count.
///
/// # Errors
/// Where the samples or their labels differ, or as [`Predictions::scorer`] and [`Paired::new`].
pub fn paired(
    metric: Metric,
    a: &Predictions,
    b: &Predictions,
    level: f64,
    resamples: usize,
    seed: u64,
) -> Result<Paired> {
    if !a.same_labels(b) {
        return Err(Error::request("the predictions are of other samples"));
    }
    let (a, b) = (a.scorer(metric)?, b.scorer(metric)?);
    Paired::new(a.samples(), level, resamples, seed, |indices| a.score(indices) - b.score(indices))
}
