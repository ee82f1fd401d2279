//! What a protocol found for one cell.

use std::collections::BTreeMap;

use super::{Targets, interval, score};
use crate::config::IntervalConfig;
use crate::metrics::f1::{Counts, count_classes, count_labels, macro_f1};
use crate::metrics::{Interval, Metric};
use crate::{Error, Result};

/// What a protocol found for one cell.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The task's metric on the test split, in percent.
    pub value: f64,
    pub interval: Option<Interval>,
    /// Further scores, in percent, by name.
    pub scores: BTreeMap<String, f64>,
    /// What was chosen (on validation, or fixed), by name.
    pub selected: BTreeMap<String, String>,
}

impl Outcome {
    /// Scores `predictions` of the test split: the task's metric with its bootstrap interval, and macro F1
    /// where a class occurs.
    ///
    /// # Errors
    /// As [`score`].
    pub fn new<const N: usize>(
        metric: Metric,
        predictions: &Targets,
        truth: &Targets,
        config: &IntervalConfig,
        seed: u64,
        selected: [(&str, String); N],
    ) -> Result<Self> {
        Ok(Outcome {
            value: score(metric, predictions, truth)?,
            interval: Some(interval(metric, predictions, truth, config, seed)?),
            scores: class_counts(predictions, truth)
                .and_then(|counts| macro_f1(&counts))
                .map(|score| ("macro_f1".to_owned(), score))
                .into_iter()
                .collect(),
            selected: selected.map(|(name, value)| (name.to_owned(), value)).into(),
        })
    }
}

/// The counts of each class or label.
fn class_counts(predictions: &Targets, truth: &Targets) -> Result<Vec<Counts>> {
    match (predictions, truth) {
        (Targets::Classes { classes: predictions, .. }, Targets::Classes { classes: truth, count }) => {
            count_classes(predictions, truth, *count)
        }
        (Targets::MultiLabel(predictions), Targets::MultiLabel(truth)) => {
            count_labels(predictions.view(), truth.view())
        }
        _ => Err(Error::request("predictions and labels are of different kinds")),
    }
}
