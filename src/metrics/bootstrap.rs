//! The percentile bootstrap.

use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A confidence interval, in the unit of its score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    /// Coverage, between 0 and 1.
    pub level: f64,
}

/// The percentile interval of `statistic` over samples drawn with replacement.
///
/// `statistic` gets `samples` indices below `samples`, once a resample. Each resample has its own stream of
/// ChaCha8 under `seed`, so the interval is the same with any number of threads and on any machine. The
/// percentiles interpolate linearly between the two nearest resamples [numpy.percentile].
///
/// # Errors
/// Where there are no samples or no resamples, `level` is not between 0 and 1, or the statistic of a resample is
/// not finite.
pub fn interval(
    samples: usize,
    level: f64,
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[usize]) -> f64 + Sync,
) -> Result<Interval> {
    let values = resampled(samples, level, resamples, seed, &statistic)?;
    let tail = (1.0 - level) / 2.0;
    Ok(Interval { low: quantile(&values, tail), high: quantile(&values, 1.0 - tail), level })
}

/// The statistic of each resample, ascending.
pub(crate) fn resampled(
    samples: usize,
    level: f64,
    resamples: usize,
    seed: u64,
    statistic: &(impl Fn(&[usize]) -> f64 + Sync),
) -> Result<Vec<f64>> {
    let Ok(any_sample) = Uniform::new(0, samples) else {
        return Err(Error::mismatch("there is nothing to resample"));
    };
    if !(level > 0.0 && level < 1.0) || resamples == 0 {
        return Err(Error::mismatch(format!("no interval of level {level} from {resamples} resamples"))
            .help("give a level between 0 and 1 and at least 1 resample"));
    }
    let source = ChaCha8Rng::seed_from_u64(seed);
    let resample = |indices: &mut Vec<usize>, stream: u64| {
        let mut source = source.clone();
        source.set_stream(stream);
        indices.clear();
        indices.extend(any_sample.sample_iter(source).take(samples));
        statistic(indices)
    };
    let mut values: Vec<f64> =
        (0..resamples as u64).into_par_iter().map_init(|| Vec::with_capacity(samples), resample).collect();
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::mismatch(format!("the statistic of a resample is {value}")));
    }
    values.sort_unstable_by(f64::total_cmp);
    Ok(values)
}

/// The quantile `q` (0 to 1) of ascending values, at least one.
pub(crate) fn quantile(ascending: &[f64], q: f64) -> f64 {
    let place = q * (ascending.len() - 1) as f64;
    let before = place.floor() as usize;
    let after = (before + 1).min(ascending.len() - 1);
    ascending[before] + (place - before as f64) * (ascending[after] - ascending[before])
}
