//! Protocols on frozen features with several normalisation strategies: which one is reported.

use crate::Result;
use crate::features::Features;
use crate::features::source::{FeatureSource, FeatureView};
use crate::metrics::Better;
use crate::score::Outcome;
use crate::score::decision::choose;
use crate::task::Split;
use crate::transform::augment::Dihedral;

/// The features of one strategy.
pub struct StrategyFeatures<'s> {
    source: &'s mut dyn FeatureSource,
    strategy: usize,
    /// While strategies are compared, validation stands in for test, so that test features are extracted for the
    /// chosen one only.
    is_test_held_back: bool,
}

impl<'s> StrategyFeatures<'s> {
    /// Of the strategy at that place of the source's list.
    pub fn new(source: &'s mut dyn FeatureSource, strategy: usize) -> Self {
        StrategyFeatures { source, strategy, is_test_held_back: false }
    }

    /// One vector per sample of a split.
    ///
    /// # Errors
    /// Like [`FeatureSource::pooled`].
    pub fn of(&mut self, split: Split) -> Result<Features> {
        self.turned(split, Dihedral::Identity)
    }

    /// One vector per turned image of a split.
    ///
    /// # Errors
    /// Like [`FeatureSource::pooled`].
    pub fn turned(&mut self, split: Split, turn: Dihedral) -> Result<Features> {
        let split = if self.is_test_held_back && split == Split::Test { Split::Valid } else { split };
        self.source.pooled(FeatureView { strategy: self.strategy, split, turn })
    }
}

/// Scores an encoder with each normalisation strategy of the source on validation, and with the best of them (the first
/// of equal ones) on test. A single strategy is taken as it is. One of several whose features or training are not finite
/// is never chosen. `better` is the direction of the metric that the outcomes hold.
///
/// # Errors
/// Like `score`.
pub fn run(
    better: Better,
    source: &mut dyn FeatureSource,
    score: impl Fn(&mut StrategyFeatures) -> Result<Outcome>,
) -> Result<Outcome> {
    let strategies = source.strategies();
    if strategies.len() < 2 {
        return score(&mut StrategyFeatures::new(source, 0));
    }
    // A state that both closures use in turn.
    let mut state = source;
    let validate = |source: &mut &mut dyn FeatureSource, strategy| {
        let mut features =
            StrategyFeatures { is_test_held_back: true, ..StrategyFeatures::new(*source, strategy) };
        let outcome = score(&mut features)?;
        Ok((outcome.validation.unwrap_or(outcome.value), ()))
    };
    let test = |source: &mut &mut dyn FeatureSource, strategy, (): &()| {
        score(&mut StrategyFeatures::new(*source, strategy))
    };
    let choice = choose(better, strategies.len(), &mut state, validate, test)?;
    let names: Vec<&str> = strategies.iter().map(String::as_str).collect();
    Ok(choice.tested.of_sweep(&names, choice.place, &choice.validation))
}
