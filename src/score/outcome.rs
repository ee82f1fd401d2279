//! The result of a protocol for one cell.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2};

use super::supplement::{Supplement, probabilities};
use super::{Parts, Predictions, Scoring, Targets};
use crate::config::IntervalConfig;
use crate::metrics::regression::ErrorSums;
use crate::metrics::segmentation::Confusion;
use crate::metrics::{Interval, Metric};
use crate::task::Task;
use crate::{Error, Result};

/// The result of a protocol for one cell.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The task's metric on the test split, in its unit.
    pub value: f64,
    /// Bootstrap interval of `value`.
    pub interval: Option<Interval>,
    /// Metric on validation of the chosen candidate, if the protocol chose one.
    pub validation: Option<f64>,
    /// Further scores by name.
    pub scores: BTreeMap<String, f64>,
    /// Hyperparameters by name, chosen on validation or fixed.
    pub selected: BTreeMap<String, String>,
    /// Predictions for the test split.
    pub predictions: Predictions,
    /// What is needed, besides the predictions, to recompute the scores.
    pub scoring: Scoring,
    /// What a report shows beside the scores.
    pub supplement: Supplement,
    /// Predicted masks of a few test images for display: see [`to_show`].
    pub masks: Vec<Shown>,
}

/// The predicted classes of one image's pixels.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Index among the test images used.
    pub image: usize,
    /// Predicted class of each pixel, [h, w].
    pub prediction: Array2<i32>,
}

/// Number of images to keep, of which some are displayed.
const TO_SHOW: usize = 24;

/// Returns the indices of images whose predicted masks are kept: evenly spread, the same for every model.
pub fn to_show(images: usize) -> Vec<usize> {
    let kept = images.min(TO_SHOW);
    (0..kept).map(|i| i * images / kept).collect()
}

impl Outcome {
    /// Scores `predictions` for the test split: the task's metric with its bootstrap interval, and in addition macro F1
    /// if a class occurs, or the other regression metrics.
    ///
    /// # Errors
    /// Like [`super::score`].
    pub fn new<const N: usize>(
        metric: Metric,
        predictions: &Targets,
        truth: &Targets,
        config: &IntervalConfig,
        seed: u64,
        selected: [(&str, String); N],
    ) -> Result<Self> {
        let parts = Parts::new(metric, predictions, truth)?;
        let predictions = Predictions::Targets { predicted: predictions.clone(), truth: truth.clone() };
        Self::of_parts(metric, &parts, predictions, config, seed, selected)
    }

    /// Like [`Outcome::new`] with the predictions made from logits [n, outputs]; a metric that ranks uses the logits themselves.
    /// The logits are those of a head trained with cross-entropy, whose softmax or sigmoids are probabilities.
    ///
    /// # Errors
    /// Like [`super::score_logits`].
    pub fn of_logits<const N: usize>(
        metric: Metric,
        logits: ArrayView2<f32>,
        truth: &Targets,
        config: &IntervalConfig,
        seed: u64,
        selected: [(&str, String); N],
    ) -> Result<Self> {
        let parts = Parts::of_logits(metric, logits, truth)?;
        let predictions = match (metric, truth) {
            (Metric::MicroMap, Targets::Labels(truth)) => {
                Predictions::Scores { logits: logits.to_owned(), truth: truth.clone() }
            }
            _ => Predictions::Targets { predicted: truth.predicted(logits), truth: truth.clone() },
        };
        let outcome = Self::of_parts(metric, &parts, predictions, config, seed, selected)?;
        let supplement = Supplement { probabilities: probabilities(logits, truth), map: None };
        Ok(Outcome { supplement, ..outcome })
    }

    /// Scores predictions that are neither classes, labels nor numbers, such as rankings or clusters.
    ///
    /// # Errors
    /// Like [`Predictions::scorer`].
    pub fn of_predictions<const N: usize>(
        metric: Metric,
        predictions: Predictions,
        config: &IntervalConfig,
        seed: u64,
        selected: [(&str, String); N],
    ) -> Result<Self> {
        let parts = predictions.scorer(metric)?.into_parts();
        Self::of_parts(metric, &parts, predictions, config, seed, selected)
    }

    fn of_parts<const N: usize>(
        metric: Metric,
        parts: &Parts,
        predictions: Predictions,
        config: &IntervalConfig,
        seed: u64,
        selected: [(&str, String); N],
    ) -> Result<Self> {
        Ok(Outcome {
            value: parts.score(0..parts.len()),
            interval: Some(parts.interval(config, seed)?),
            validation: None,
            scores: beside(metric, &predictions, &[]),
            selected: selected.map(|(name, value)| (name.to_owned(), value)).into(),
            predictions,
            scoring: Scoring {
                resamples: Some(config.resamples),
                resampling: config.resampling,
                ..Scoring::default()
            },
            supplement: Supplement::default(),
            masks: Vec::new(),
        })
    }

    /// Records a sweep over normalisation strategies: the chosen one, each one's score on validation, and the names
    /// of those that diverged and so have no score.
    pub(crate) fn of_sweep(mut self, strategies: &[&str], chosen: usize, validation: &[Option<f64>]) -> Self {
        self.selected.insert("normalization".to_owned(), strategies[chosen].to_owned());
        let scores = || strategies.iter().zip(validation);
        let diverged: Vec<&str> =
            scores().filter(|(_, score)| score.is_none()).map(|(strategy, _)| *strategy).collect();
        if !diverged.is_empty() {
            self.selected.insert("diverged-normalizations".to_owned(), diverged.join(", "));
        }
        let scores = scores().filter_map(|(strategy, score)| Some((format!("valid/{strategy}"), (*score)?)));
        self.scores.extend(scores);
        self
    }

    /// Records a setting that a reader of the record should see beside the chosen ones.
    pub(crate) fn with_selected(mut self, name: &str, value: &str) -> Self {
        self.selected.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Records the candidates (such as learning rates) that diverged and were excluded from the choice.
    pub(crate) fn with_diverged<C: ToString>(mut self, candidates: impl IntoIterator<Item = C>) -> Self {
        let diverged: Vec<String> = candidates.into_iter().map(|candidate| candidate.to_string()).collect();
        if !diverged.is_empty() {
            self.selected.insert("diverged".to_owned(), diverged.join(", "));
        }
        self
    }
}

/// Scores of predictions other than the metric itself.
fn beside(metric: Metric, predictions: &Predictions, class_names: &[String]) -> BTreeMap<String, f64> {
    let mut scores = predictions.scores(class_names);
    scores.remove(metric.about().name);
    scores
}

/// Scores the predicted masks of the test split, one per image: the mean IoU over all pixels with its bootstrap interval
/// over images, the IoU of each class that occurs (`iou_<name>`, or `iou_<index>` without names) and the pixel
/// accuracy.
///
/// A class that occurs neither in the labels nor in the predictions has no IoU and is not part of the mean. Images
/// without counted pixels are not drawn.
///
/// # Errors
/// If no pixel counts, the task's metric is not mIoU, or like [`crate::metrics::bootstrap::interval`].
pub(crate) fn of_masks(
    task: &Task,
    images: &[Confusion],
    config: &IntervalConfig,
    seed: u64,
) -> Result<Outcome> {
    if task.metric != Metric::Miou {
        return Err(Error::mismatch(format!("{} does not fit the masks of {}", task.metric, task.name))
            .help("set the task's `metric` to miou in benchmarks/"));
    }
    of_pixels(task, Predictions::Masks(images.to_vec()), config, seed)
}

/// Scores the predicted value maps of the test split, given as sums of errors per image: the task's metric over all
/// measured pixels with its bootstrap interval over images, and the other regression metrics. Images without measured
/// pixels are not drawn.
///
/// # Errors
/// If nothing was measured, the task's metric is not a regression metric, or like [`crate::metrics::bootstrap::interval`].
pub(crate) fn of_value_maps(
    task: &Task,
    images: &[ErrorSums],
    config: &IntervalConfig,
    seed: u64,
) -> Result<Outcome> {
    of_pixels(task, Predictions::ValueMaps(images.to_vec()), config, seed)
}

fn of_pixels(task: &Task, predictions: Predictions, config: &IntervalConfig, seed: u64) -> Result<Outcome> {
    let scorer = predictions.scorer(task.metric)?;
    let interval = scorer.interval(config, seed)?;
    let value = scorer.all();
    let scores = beside(task.metric, &predictions, &task.class_names);
    let scoring = Scoring {
        class_names: task.class_names.clone(),
        resamples: Some(config.resamples),
        resampling: config.resampling,
        report_batch: None,
    };
    Ok(Outcome {
        value,
        interval: Some(interval),
        validation: None,
        scores,
        selected: BTreeMap::new(),
        predictions,
        scoring,
        supplement: Supplement::default(),
        masks: Vec::new(),
    })
}
