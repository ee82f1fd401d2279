//! Protocols on the features of an encoder that does not change: which one, and with which normalisation.

use super::{knn, linear_probe, logistic, ridge};
use crate::config::Protocol;
use crate::features::Features;
use crate::score::Outcome;
use crate::score::decision::choose;
use crate::task::Split;
use crate::task::Task;
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
/// of them (the first of equal ones) on test. A single one is taken as it is. One of several whose features or training
/// are not finite is never chosen.
///
/// # Errors
/// As `features` and the protocol; or where it is no protocol on frozen features.
pub fn run<F: FnMut(Wanted) -> Result<Features>>(
    protocol: &Protocol,
    task: &Task,
    seed: u64,
    strategies: &[&str],
    mut features: F,
) -> Result<Outcome> {
    if strategies.len() < 2 {
        return with(protocol, task, seed, 0, &mut features);
    }
    let validate = |features: &mut F, strategy| {
        // Tested on validation: the test split is extracted for the chosen strategy only.
        let mut held_back = |wanted: Wanted| {
            let split = if wanted.split == Split::Test { Split::Valid } else { wanted.split };
            features(Wanted { split, ..wanted })
        };
        let outcome = with(protocol, task, seed, strategy, &mut held_back)?;
        Ok((outcome.validation.unwrap_or(outcome.value), ()))
    };
    let test = |features: &mut F, strategy, (): &()| with(protocol, task, seed, strategy, features);
    let choice = choose(protocol.metric(task).better(), strategies.len(), &mut features, validate, test)?;
    Ok(choice.tested.of_sweep(strategies, choice.place, &choice.validation))
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
        Protocol::Ridge(config) => ridge::run(config, task, seed, upright),
        Protocol::LinearProbe(config) => {
            linear_probe::run(config, task, seed, |split, turn| features(Wanted { strategy, split, turn }))
        }
        Protocol::Finetune(_) | Protocol::SegmentationProbe(_) | Protocol::Upernet(_) => {
            Err(Error::request("the protocol has no features of whole images"))
        }
    }
}
