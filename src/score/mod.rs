//! Targets, predictions and their scores, the outcome of a protocol, and the choice of candidates on validation.

mod clusters;
pub mod decision;
pub(crate) mod outcome;
pub mod predictions;
mod ranked;
mod scoring;
pub(crate) mod subset;
pub mod supplement;

use ndarray::{Array2, ArrayView2, s};

use self::clusters::Clusters;
use self::decision::are_usable;
use crate::config::IntervalConfig;
use crate::data::Target;
use crate::metrics::accuracy::accuracy;
use crate::metrics::f1::{Counts, count_samples};
use crate::metrics::regression::ErrorSums;
use crate::metrics::retrieval::RankedQuery;
use crate::metrics::segmentation::Confusion;
use crate::metrics::{Interval, Metric, bootstrap, check_shapes, mean_over_batches};
pub use outcome::{Outcome, Shown};
pub use predictions::Predictions;
use ranked::Ranked;
pub use scoring::Scoring;
pub use supplement::Supplement;

use crate::{Error, Result};

/// Labels or predictions of a set of samples.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// One class per sample.
    Classes {
        /// Index of each sample's class, below `count`.
        classes: Vec<usize>,
        /// Number of classes.
        count: usize,
    },
    /// Whether each label applies, [n, labels].
    Labels(Array2<bool>),
    /// One number per sample, in the task's unit.
    Values(Vec<f32>),
}

impl Targets {
    /// Collects the labels of a task with `classes` classes (or labels), one per sample.
    ///
    /// # Errors
    /// If there are none, kinds are mixed, a label is per pixel, does not fit the number of classes or is not finite.
    pub fn from_labels(labels: &[Target], classes: usize) -> Result<Self> {
        let wrong = |sample: usize, label: &Target, wanted: &str| {
            let found = match label {
                Target::Class(class) => format!("class {class}"),
                Target::Labels(labels) => format!("{} labels", labels.len()),
                Target::Mask(mask) => format!("a mask of {} x {} pixels", mask.nrows(), mask.ncols()),
                Target::Value(value) => format!("the number {value}"),
                Target::ValueMap(map) => format!("a map of {} x {} numbers", map.nrows(), map.ncols()),
            };
            Error::mismatch(format!("label of sample {sample}: expected {wanted}, found {found}"))
                .help("check the task's `target` and `classes` in benchmarks/")
        };
        match labels.first() {
            None => Err(Error::mismatch("no labels found").help("the split is empty")),
            Some(Target::Class(_)) => {
                let class = |(sample, label): (usize, &Target)| match label {
                    Target::Class(class) if *class < classes => Ok(*class),
                    _ => Err(wrong(sample, label, &format!("a class below {classes}"))),
                };
                let classes_of = labels.iter().enumerate().map(class).collect::<Result<_>>()?;
                Ok(Targets::Classes { classes: classes_of, count: classes })
            }
            Some(Target::Labels(_)) => {
                let mut targets = Array2::from_elem((labels.len(), classes), false);
                for ((sample, label), mut row) in labels.iter().enumerate().zip(targets.rows_mut()) {
                    match label {
                        Target::Labels(labels) if labels.len() == classes => {
                            row.iter_mut().zip(labels).for_each(|(target, label)| *target = *label);
                        }
                        _ => return Err(wrong(sample, label, &format!("{classes} labels"))),
                    }
                }
                Ok(Targets::Labels(targets))
            }
            Some(Target::Value(_)) => {
                let value = |(sample, label): (usize, &Target)| match label {
                    Target::Value(value) if value.is_finite() => Ok(*value),
                    _ => Err(wrong(sample, label, "a finite number")),
                };
                labels.iter().enumerate().map(value).collect::<Result<_>>().map(Targets::Values)
            }
            Some(other) => Err(wrong(0, other, "one class, several labels or a number per image")),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Targets::Classes { classes, .. } => classes.len(),
            Targets::Labels(labels) => labels.nrows(),
            Targets::Values(values) => values.len(),
        }
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Per-sample parts of a metric; adding them up scores a resample.
enum Parts {
    Right(Vec<bool>),
    Counts(Vec<Counts>),
    Ranked(Ranked),
    Pixels(Vec<Confusion>),
    Errors(Metric, Vec<ErrorSums>),
    /// Average precision of queries with relevant images, in percent.
    Precisions(Vec<f64>),
    Clusters(Clusters),
}

impl Parts {
    fn new(metric: Metric, predictions: &Targets, truth: &Targets) -> Result<Self> {
        match (metric, predictions, truth) {
            (
                Metric::Accuracy,
                Targets::Classes { classes: predictions, .. },
                Targets::Classes { classes: truth, .. },
            ) => {
                accuracy(predictions, truth)?; // Checks that the lengths agree and are not 0.
                Ok(Parts::Right(predictions.iter().zip(truth).map(|(a, b)| a == b).collect()))
            }
            (Metric::MicroF1, Targets::Labels(predictions), Targets::Labels(truth)) => {
                Ok(Parts::Counts(count_samples(predictions.view(), truth.view())?))
            }
            (Metric::Rmse | Metric::Mae | Metric::R2, Targets::Values(predictions), Targets::Values(truth)) => {
                Parts::of_errors(metric, value_errors(predictions, truth)?)
            }
            (Metric::RetrievalMap, ..) => {
                Err(Error::mismatch("retrieval_map needs rankings, found predictions").help("choose --protocol retrieval"))
            }
            (Metric::AdjustedMutualInformation, ..) => {
                Err(Error::mismatch("adjusted_mutual_information needs clusters, found predictions")
                    .help("choose --protocol clustering"))
            }
            (Metric::MicroMap, ..) => Err(Error::mismatch("micro_map needs scores, found only decisions")
                .help("choose a protocol that trains a head, or another metric in benchmarks/")),
            _ => Err(Error::mismatch(format!("{metric} does not fit this kind of target")).help(
                "accuracy is for one class per sample, micro_f1 and micro_map for several labels, rmse, mae and r2 for \
                 numbers; see benchmarks/",
            )),
        }
    }

    /// Takes the rankings of all queries; those without relevant images do not count.
    fn of_rankings(queries: &[RankedQuery]) -> Result<Self> {
        let counting = queries.iter().filter(|query| query.relevant > 0);
        let precisions: Vec<f64> = counting.map(|query| 100.0 * query.average_precision).collect();
        match precisions.is_empty() {
            true => Err(Error::mismatch(
                "no mean average precision: no query has a relevant image in the gallery",
            )
            .help("check the labels of the training split, the gallery, and of the test split, the queries")),
            false => Ok(Parts::Precisions(precisions)),
        }
    }

    /// Takes the error sums of one sample each; samples without measured values must be left out.
    fn of_errors(metric: Metric, samples: Vec<ErrorSums>) -> Result<Self> {
        samples.iter().sum::<ErrorSums>().score(metric)?; // Checks that there is something to score.
        Ok(Parts::Errors(metric, samples))
    }

    /// Like [`Parts::new`] for the predictions made from logits [n, outputs]; a metric that ranks uses the logits themselves.
    fn of_logits(metric: Metric, logits: ArrayView2<f32>, truth: &Targets) -> Result<Self> {
        if !are_usable(logits) {
            return Err(Error::not_finite("the logits are not finite").help(
                "the training diverged, or the features are too large: check weights and normalisation",
            ));
        }
        match (metric, truth) {
            (Metric::MicroMap, Targets::Labels(truth)) => {
                Ranked::new(logits, truth.view()).map(Parts::Ranked)
            }
            _ => Parts::new(metric, &truth.predicted(logits), truth),
        }
    }

    fn len(&self) -> usize {
        match self {
            Parts::Right(right) => right.len(),
            Parts::Counts(counts) => counts.len(),
            Parts::Ranked(ranked) => ranked.len(),
            Parts::Pixels(images) => images.len(),
            Parts::Errors(_, samples) => samples.len(),
            Parts::Precisions(queries) => queries.len(),
            Parts::Clusters(clusters) => clusters.len(),
        }
    }

    /// Computes the metric of the samples at `indices`; NaN if no pixel counts. R² of a single number is 0, as for any
    /// other constant truth.
    fn score(&self, indices: impl ExactSizeIterator<Item = usize>) -> f64 {
        match self {
            Parts::Right(right) => {
                let samples = indices.len();
                100.0 * indices.filter(|sample| right[*sample]).count() as f64 / samples as f64
            }
            Parts::Counts(counts) => indices.map(|sample| counts[sample]).sum::<Counts>().f1(),
            Parts::Ranked(ranked) => ranked.average_precision(indices),
            Parts::Pixels(images) => Confusion::sum(indices.map(|image| &images[image]))
                .and_then(|all| all.mean_iou().ok())
                .unwrap_or(f64::NAN),
            Parts::Errors(metric, samples) => {
                let sums: ErrorSums = indices.map(|sample| &samples[sample]).sum();
                match metric {
                    Metric::R2 if sums.count == 1 => 0.0,
                    metric => sums.score(*metric).unwrap_or(f64::NAN),
                }
            }
            Parts::Precisions(queries) => {
                let count = indices.len();
                indices.map(|query| queries[query]).sum::<f64>() / count as f64
            }
            Parts::Clusters(clusters) => clusters.adjusted_mutual_information(indices),
        }
    }

    /// Computes the metric of each sample alone; NaN if no pixel counts. R², undefined for one sample, is replaced by minus
    /// its mean squared error, which ranks resamples of the same truth identically; the mutual information, undefined for one
    /// sample too, by the percentage of the other samples that are with it, or apart from it, in cluster and class alike.
    fn each(&self) -> Vec<f64> {
        match self {
            Parts::Errors(Metric::R2, samples) => {
                samples.iter().map(|sums| -sums.squared / sums.count as f64).collect()
            }
            Parts::Ranked(ranked) => ranked.each(),
            Parts::Clusters(clusters) => clusters.each(),
            others => (0..others.len()).map(|sample| others.score(std::iter::once(sample))).collect(),
        }
    }

    fn interval(&self, config: &IntervalConfig, seed: u64) -> Result<Interval> {
        let IntervalConfig { level, resamples, resampling } = *config;
        bootstrap::interval_by(resampling, self.len(), level, resamples, seed, |indices| {
            let score = self.score(indices.iter().copied());
            // Average precision is 0 only without positives, which numpy's way skips.
            let has_none = matches!(self, Parts::Ranked(_)) && score == 0.0 && !resampling.is_default();
            if has_none { f64::NAN } else { score }
        })
    }
}

/// Computes the error of each number.
///
/// # Errors
/// If there are none, the counts differ, or a prediction is not finite.
fn value_errors(predictions: &[f32], truth: &[f32]) -> Result<Vec<ErrorSums>> {
    check_shapes(&[predictions.len()], &[truth.len()])?;
    if let Some(sample) = predictions.iter().position(|prediction| !prediction.is_finite()) {
        return Err(Error::not_finite(format!("the prediction of sample {sample} is not finite"))
            .help("check that the weights fit the model and the normalisation fits the pixels"));
    }
    let error = |(prediction, truth): (&f32, &f32)| ErrorSums::of(f64::from(*prediction), f64::from(*truth));
    Ok(predictions.iter().zip(truth).map(error).collect())
}

/// Computes the metric of these predictions.
///
/// # Errors
/// If there are no samples, predictions and truth differ in number or kind, or the metric is for another kind of
/// target.
pub fn score(metric: Metric, predictions: &Targets, truth: &Targets) -> Result<f64> {
    let parts = Parts::new(metric, predictions, truth)?;
    Ok(parts.score(0..parts.len()))
}

/// Bootstrap interval of the metric over the samples; the result does not depend on the number of threads.
///
/// # Errors
/// Like [`score`] and [`bootstrap::interval`].
pub fn interval(
    metric: Metric,
    predictions: &Targets,
    truth: &Targets,
    config: &IntervalConfig,
    seed: u64,
) -> Result<Interval> {
    Parts::new(metric, predictions, truth)?.interval(config, seed)
}

/// Computes the metric from the logits [n, outputs] of these samples.
///
/// # Errors
/// Like [`score`], or if a logit is NaN or infinite.
pub fn score_logits(metric: Metric, logits: ArrayView2<f32>, truth: &Targets) -> Result<f64> {
    let parts = Parts::of_logits(metric, logits, truth)?;
    Ok(parts.score(0..parts.len()))
}

/// Mean over batches of the metric, weighted by batch size: the value reported by references that log it per batch.
///
/// # Errors
/// Like [`score_logits`] and [`mean_over_batches`].
pub fn reported_score(
    metric: Metric,
    logits: ArrayView2<f32>,
    truth: &Targets,
    batch_size: usize,
) -> Result<f64> {
    mean_over_batches(truth.len(), batch_size, |batch| {
        let truth = truth.only(batch.clone());
        score_logits(metric, logits.slice(s![batch, ..]), &truth)
    })
}
