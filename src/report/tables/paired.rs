//! Compares two records' predictions of the same samples.

use std::cmp::Ordering;

use crate::metrics::paired::{Paired, Test};
use crate::metrics::{Interval, Metric, Scale};
use crate::score::Predictions;
use crate::{Error, Result};

/// Tests the difference `a` - `b` of the metric, in its unit, with a bootstrap over the scored samples; if too few samples
/// differ, with the sign test of the per-sample scores.
///
/// # Errors
/// If the samples or their labels differ. Otherwise like [`Predictions::scorer`] and [`Paired::new`].
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
    let each: Vec<f64> = a.each().iter().zip(b.each()).map(|(a, b)| a - b).collect();
    Paired::new(&each, level, resamples, seed, |indices| a.score(indices) - b.score(indices))
}

/// Formats the interval as `[-1.20, +0.30]`, or says why there is none.
pub(crate) fn interval(paired: &Paired, scale: Scale) -> String {
    match paired.interval {
        Some(Interval { low, high, .. }) => {
            format!("[{}, {}]", scale.fine_difference(low), scale.fine_difference(high))
        }
        None => "too few samples".to_owned(),
    }
}

/// Formats the p-value as `< 0.001`, or as `0.250 (sign test, differing samples: 3; nothing can be told)`.
pub(crate) fn p_value(paired: &Paired) -> String {
    let p = probability(paired.p);
    match paired.test {
        Test::Bootstrap => p,
        Test::Sign { a, b } => {
            let told = match paired.verdict() {
                Ordering::Equal => "; nothing can be told",
                Ordering::Less | Ordering::Greater => "",
            };
            format!("{p} (sign test, differing samples: {}{told})", a + b)
        }
    }
}

/// Formats a p-value with three decimals.
pub(crate) fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}
