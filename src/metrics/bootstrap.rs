//! The percentile bootstrap.

use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::numpy_random::NumpyRandom;
use crate::{Error, Result};

/// How resamples are drawn, and what is kept of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resampling {
    /// Each resample has its own ChaCha8 stream.
    #[default]
    Streams,
    /// numpy's default generator draws one resample after the other. Resamples without a score are skipped, scores are
    /// kept as float32 shares of 1 [torchgeo/torchgeo-bench, src/torchgeo_bench/main.py].
    Numpy,
}

impl Resampling {
    /// Whether this is the default, which older files do not name.
    pub fn is_default(&self) -> bool {
        *self == Resampling::Streams
    }
}

/// A confidence interval, in the unit of its score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Coverage, between 0 and 1.
    pub level: f64,
}

/// Computes the percentile interval of `statistic` over samples drawn with replacement.
///
/// `statistic` is called once per resample with `samples` indices below `samples`. Each resample has its own
/// ChaCha8 stream under `seed`, so the interval does not depend on the number of threads or the machine. The
/// percentiles interpolate linearly between the two nearest resamples [numpy.percentile].
///
/// # Errors
/// If there are no samples or no resamples, `level` is not between 0 and 1, or the statistic of a resample is
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

/// Like [`interval`], with the given way of drawing. With [`Resampling::Numpy`], `statistic` is a percentage, and NaN where
/// a resample has none.
///
/// # Errors
/// Like [`interval`], or if no resample has a score.
pub fn interval_by(
    resampling: Resampling,
    samples: usize,
    level: f64,
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[usize]) -> f64 + Sync,
) -> Result<Interval> {
    match resampling {
        Resampling::Streams => interval(samples, level, resamples, seed, statistic),
        Resampling::Numpy => numpy_interval(samples, level, resamples, seed, &statistic),
    }
}

/// Resamples drawn before they are scored together, which bounds memory.
const DRAWN_AT_A_TIME: usize = 64;

fn numpy_interval(
    samples: usize,
    level: f64,
    resamples: usize,
    seed: u64,
    statistic: &(impl Fn(&[usize]) -> f64 + Sync),
) -> Result<Interval> {
    check(samples, level, resamples)?;
    let limit =
        u32::try_from(samples).map_err(|_| Error::mismatch(format!("{samples} samples to resample")))?;
    let mut random = NumpyRandom::new(seed);
    let mut values: Vec<f64> = Vec::with_capacity(resamples);
    while values.len() < resamples {
        let count = DRAWN_AT_A_TIME.min(resamples - values.len());
        let drawn: Vec<Vec<usize>> =
            (0..count).map(|_| (0..samples).map(|_| random.below(limit) as usize).collect()).collect();
        values.par_extend(
            drawn.par_iter().map(|indices| 100.0 * f64::from((statistic(indices) / 100.0) as f32)),
        );
    }
    values.retain(|value| !value.is_nan());
    if values.is_empty() {
        return Err(Error::mismatch("no resample has a score").help("the test split has no positive label"));
    }
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Ok(Interval { low: quantile(&values, tail), high: quantile(&values, 1.0 - tail), level })
}

fn check(samples: usize, level: f64, resamples: usize) -> Result<()> {
    if samples == 0 {
        return Err(Error::mismatch("no samples to resample"));
    }
    if !(level > 0.0 && level < 1.0) || resamples == 0 {
        return Err(Error::mismatch(format!(
            "cannot compute an interval of level {level} from {resamples} resamples"
        ))
        .help("use a level between 0 and 1 and at least 1 resample"));
    }
    Ok(())
}

/// Statistic of each resample, ascending.
pub(crate) fn resampled(
    samples: usize,
    level: f64,
    resamples: usize,
    seed: u64,
    statistic: &(impl Fn(&[usize]) -> f64 + Sync),
) -> Result<Vec<f64>> {
    check(samples, level, resamples)?;
    let any_sample = Uniform::new(0, samples).map_err(Error::mismatch)?;
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
        return Err(Error::mismatch(format!("the statistic of a resample is not finite: {value}")));
    }
    values.sort_unstable_by(f64::total_cmp);
    Ok(values)
}

/// Quantile `q` (0 to 1) of at least one value in ascending order.
pub(crate) fn quantile(ascending: &[f64], q: f64) -> f64 {
    let place = q * (ascending.len() - 1) as f64;
    let before = place.floor() as usize;
    let after = (before + 1).min(ascending.len() - 1);
    ascending[before] + (place - before as f64) * (ascending[after] - ascending[before])
}
