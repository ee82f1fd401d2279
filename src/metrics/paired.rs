//! Compares two sets of predictions for the same samples, sample by sample.

use std::cmp::Ordering;

use super::bootstrap::{quantile, resampled};
use crate::metrics::{Better, Interval};
use crate::{Error, Result};

/// With fewer differing samples than this, the exact sign test decides: resamples of a few differences all agree, however
/// weak the evidence is. (The usual limit below which McNemar's test is computed exactly.)
pub const FEWEST: usize = 25;

/// The difference of two scores on the same samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paired {
    /// In percentage points, or the metric's own unit.
    pub difference: f64,
    /// Interval of the difference; `None` with fewer than [`FEWEST`] samples.
    pub interval: Option<Interval>,
    /// Two-sided p-value of `test`.
    pub p: f64,
    /// The test that `p` comes from.
    pub test: Test,
    /// Confidence level that [`Paired::verdict`] requires, 0 to 1.
    pub level: f64,
}

/// The source of a p-value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Test {
    /// Share of resamples on the other side of 0; at least 1 / (resamples + 1).
    Bootstrap,
    /// The exact sign test.
    Sign {
        /// Samples with the higher score on side a.
        a: u64,
        /// Samples with the higher score on side b.
        b: u64,
    },
}

impl Paired {
    /// Computes the percentile interval and the p-value of `difference` over samples drawn with replacement, the same
    /// samples on both sides [Efron and Tibshirani, An Introduction to the Bootstrap, chapters 13 and 15]. `each` contains
    /// the difference of each sample's own scores; if fewer than [`FEWEST`] of them differ from 0, p is from the sign test.
    ///
    /// # Errors
    /// Like [`super::bootstrap::interval`].
    pub fn new(
        each: &[f64],
        level: f64,
        resamples: usize,
        seed: u64,
        difference: impl Fn(&[usize]) -> f64 + Sync,
    ) -> Result<Self> {
        let samples = each.len();
        let values = resampled(samples, level, resamples, seed, &difference)?;
        let all: Vec<usize> = (0..samples).collect();
        let share = |on_a_side: &dyn Fn(f64) -> bool| {
            let count = values.iter().filter(|value| on_a_side(**value)).count();
            (count + 1) as f64 / (values.len() + 1) as f64
        };
        let p = 2.0 * share(&|value| value <= 0.0).min(share(&|value| value >= 0.0));
        let tail = (1.0 - level) / 2.0;
        let interval = Interval { low: quantile(&values, tail), high: quantile(&values, 1.0 - tail), level };
        let higher = |side: Ordering| each.iter().filter(|d| d.partial_cmp(&&0.0) == Some(side)).count();
        let (a, b) = (higher(Ordering::Greater), higher(Ordering::Less));
        let (p, test) = match a + b < FEWEST {
            true => (mcnemar(a as u64, b as u64), Test::Sign { a: a as u64, b: b as u64 }),
            false => (p.min(1.0), Test::Bootstrap),
        };
        let interval = (samples >= FEWEST).then_some(interval);
        Ok(Paired { difference: difference(&all), interval, p, test, level })
    }

    /// Which side is significantly higher, `Greater` for a: judged by the interval if `test` is the bootstrap, otherwise by the
    /// sign test. `Equal` if the difference is not significant.
    pub fn verdict(&self) -> Ordering {
        match (self.test, self.interval) {
            (Test::Bootstrap, Some(Interval { low, .. })) if low > 0.0 => Ordering::Greater,
            (Test::Bootstrap, Some(Interval { high, .. })) if high < 0.0 => Ordering::Less,
            (Test::Sign { a, b }, _) if self.p < 1.0 - self.level => a.cmp(&b),
            _ => Ordering::Equal,
        }
    }

    /// Which side is significantly better, `Greater` for a: [`Paired::verdict`], reversed if lower is better.
    pub fn winner(&self, better: Better) -> Ordering {
        better.turned(self.verdict())
    }
}

/// McNemar's exact test, a sign test: two-sided p-value, by the binomial distribution with probability 1/2, of `only_a`
/// samples that only one side has right against `only_b` samples that only the other side has right.
pub fn mcnemar(only_a: u64, only_b: u64) -> f64 {
    let n = only_a + only_b;
    let fewer = only_a.min(only_b);
    // Logarithms of the binomial coefficients, computed incrementally: powers of 1/2 soon underflow f64.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = term.exp();
    for k in 1..=fewer {
        term += ((n - k + 1) as f64).ln() - (k as f64).ln();
        sum += term.exp();
    }
    (2.0 * sum).min(1.0)
}

/// Counts the samples that only `a` and only `b` has right.
///
/// # Errors
/// If the lengths differ.
pub fn discordant(a: &[bool], b: &[bool]) -> Result<(u64, u64)> {
    if a.len() != b.len() {
        return Err(Error::mismatch(format!("cannot compare {} samples with {}", a.len(), b.len())));
    }
    let count = |wanted: (bool, bool)| a.iter().zip(b).filter(|(a, b)| (**a, **b) == wanted).count() as u64;
    Ok((count((true, false)), count((false, true))))
}
