//! Protocols on the features of an encoder that does not change: which one, and with which normalisation.

use super::decision::first_best;
use super::{Outcome, knn, linear_probe, logistic};
use crate::config::Protocol;
use crate::data::Split;
use crate::features::Features;
use crate::suite::Task;
use crate::transform::augment::Dihedral;
use crate::{Error, Result};

/// Whose features: which of the normalisation strategies, which split, its images turned how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// A place in the list of strategies.
    pub strategy: usize,
    pub split: Split,
    pub turn: Dihedral,
}

/// Scores a backbone on a task with each of the named normalisation `strategies` on validation, and with the best
/// of them (the first of equal ones) on test. A single one is taken as it is.
///
/// # Errors
/// As `features` and the protocol; or where it is no protocol on frozen features.
pub fn run(
    protocol: &Protocol,
    task: &Task,
    seed: u64,
    strategies: &[&str],
    mut features: impl FnMut(Wanted) -> Result<Features>,
) -> Result<Outcome> {
    if strategies.len() < 2 {
        return with(protocol, task, seed, 0, &mut features);
    }
    let mut validation = Vec::new();
    for strategy in 0..strategies.len() {
        // Tested on validation: the test split is extracted for the chosen strategy only.
        let mut held_back = |wanted: Wanted| {
            let split = if wanted.split == Split::Test { Split::Valid } else { wanted.split };
            features(Wanted { split, ..wanted })
        };
        let outcome = with(protocol, task, seed, strategy, &mut held_back)?;
        validation.push(outcome.validation.unwrap_or(outcome.value));
    }
    let chosen = first_best(validation.iter().copied()).unwrap_or(0);
    Ok(with(protocol, task, seed, chosen, &mut features)?.of_sweep(strategies, chosen, validation))
}

fn with(
    protocol: &Protocol,
    task: &Task,
    seed: u64,
    strategy: usize,
    features: &mut impl FnMut(Wanted) -> Result<Features>,
) -> Result<Outcome> {
    let upright = |split| features(Wanted { strategy, split, turn: Dihedral::Identity });
    match protocol {
        Protocol::Knn(config) => knn::run(config, task, seed, upright),
        Protocol::Logistic(config) => logistic::run(config, task, seed, upright),
        Protocol::LinearProbe(config) => {
            linear_probe::run(config, task, seed, |split, turn| features(Wanted { strategy, split, turn }))
        }
        Protocol::Finetune(_) | Protocol::SegmentationProbe(_) | Protocol::Upernet(_) => {
            Err(Error::request("the protocol has no features of whole images"))
        }
    }
}
