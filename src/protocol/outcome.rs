//! What a protocol found for one cell.

use std::collections::BTreeMap;

use ndarray::ArrayView2;

use super::{Parts, Targets};
use crate::config::IntervalConfig;
use crate::metrics::f1::{Counts, count_classes, count_labels, macro_f1};
use crate::metrics::segmentation::Confusion;
use crate::metrics::{Interval, Metric, bootstrap};
use crate::suite::Task;
use crate::{Error, Result};

/// What a protocol found for one cell.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The task's metric on the test split, in percent.
    pub value: f64,
    pub interval: Option<Interval>,
    /// The metric on validation of what was chosen there, in percent; where the protocol chose anything.
    pub validation: Option<f64>,
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
    /// As [`super::score`].
    pub fn new<const N: usize>(
        metric: Metric,
        predictions: &Targets,
        truth: &Targets,
        config: &IntervalConfig,
        seed: u64,
        selected: [(&str, String); N],
    ) -> Result<Self> {
        Self::of_parts(&Parts::new(metric, predictions, truth)?, predictions, truth, config, seed, selected)
    }

    /// The same of logits [n, outputs]: what they predict, and for a metric that ranks scores themselves.
    ///
    /// # Errors
    /// As [`super::score_logits`].
    pub fn of_logits<const N: usize>(
        metric: Metric,
        logits: ArrayView2<f32>,
        truth: &Targets,
        config: &IntervalConfig,
        seed: u64,
        selected: [(&str, String); N],
    ) -> Result<Self> {
        let parts = Parts::of_logits(metric, logits, truth)?;
        Self::of_parts(&parts, &truth.predicted(logits), truth, config, seed, selected)
    }

    fn of_parts<const N: usize>(
        parts: &Parts,
        predictions: &Targets,
        truth: &Targets,
        config: &IntervalConfig,
        seed: u64,
        selected: [(&str, String); N],
    ) -> Result<Self> {
        Ok(Outcome {
            value: parts.score(0..parts.len()),
            interval: Some(parts.interval(config, seed)?),
            validation: None,
            scores: class_counts(predictions, truth)
                .and_then(|counts| macro_f1(&counts))
                .map(|score| ("macro_f1".to_owned(), score))
                .into_iter()
                .collect(),
            selected: selected.map(|(name, value)| (name.to_owned(), value)).into(),
        })
    }

    /// The same, found with the `chosen` of these normalisation strategies, whose scores on validation, in percent,
    /// are told too.
    pub(super) fn of_sweep(mut self, strategies: &[&str], chosen: usize, validation: Vec<f64>) -> Self {
        self.selected.insert("normalization".to_owned(), strategies[chosen].to_owned());
        let scores = strategies.iter().zip(validation);
        self.scores.extend(scores.map(|(strategy, score)| (format!("valid/{strategy}"), score)));
        self
    }
}

/// Scores the predicted masks of the test split, an image each: the mean IoU over all pixels with its bootstrap
/// interval over images, the IoU of each class that occurs (`iou_<name>`, without names `iou_<index>`) and the share
/// of pixels that are right.
///
/// A class that is neither in labels nor in predictions has no IoU and no part in the mean. Resamples in which no
/// pixel counts are drawn from the images where some do.
///
/// # Errors
/// Where no pixel counts, the task's metric is another one, or as [`bootstrap::interval`].
pub(super) fn of_masks(
    task: &Task,
    images: &[Confusion],
    config: &IntervalConfig,
    seed: u64,
) -> Result<Outcome> {
    if task.metric != Metric::Miou {
        return Err(Error::request(format!("{} does not fit the masks of {}", task.metric, task.name))
            .help("set the task's `metric` to miou in benchmarks/"));
    }
    let sum = |images: &mut dyn Iterator<Item = &Confusion>| {
        images.next().cloned().map(|mut sum| {
            images.for_each(|image| sum.merge(image));
            sum
        })
    };
    let nothing = || Error::request("there are no test images to score").help("the split is empty");
    let all = sum(&mut images.iter()).ok_or_else(nothing)?;
    let value = all.mean_iou()?;
    // An image of which every pixel is ignored adds nothing to any sum.
    let counting: Vec<&Confusion> = images.iter().filter(|image| image.pixel_accuracy().is_ok()).collect();
    let interval = bootstrap::interval(counting.len(), config.level, config.resamples, seed, |indices| {
        let resample = sum(&mut indices.iter().map(|index| counting[*index]));
        resample.and_then(|resample| resample.mean_iou().ok()).unwrap_or(f64::NAN)
    })?;
    let mut scores = BTreeMap::from([("pixel_accuracy".to_owned(), all.pixel_accuracy()?)]);
    for (class, iou) in all.iou().into_iter().enumerate() {
        let name = task.class_names.get(class).cloned().unwrap_or_else(|| class.to_string());
        scores.extend(iou.map(|iou| (format!("iou_{name}"), iou)));
    }
    let selected = BTreeMap::new();
    Ok(Outcome { value, interval: Some(interval), validation: None, scores, selected })
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
