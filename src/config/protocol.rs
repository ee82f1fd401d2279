//! Protocols on one vector per image.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::training::{
    Augmentation, BatchNormConfig, Initialization, IntervalConfig, KeptEpoch, Optimizer, Schedule,
    TrainingConfig, TrainingOrder, fraction, positive,
};
use crate::metrics::Metric;
use crate::task::{TargetKind, Task};

/// k nearest neighbours; see [`crate::protocol::knn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KnnConfig {
    /// Number of neighbours, at most the number of training samples.
    pub k: usize,
    /// A neighbour's vote weighs exp(cosine similarity / temperature). Without it, every neighbour has one vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// What makes samples neighbours.
    #[serde(default, skip_serializing_if = "Distance::is_default")]
    pub distance: Distance,
    /// The precision of the features.
    pub embedding_dtype: EmbeddingDtype,
    /// What is reported if a sample may have several labels: `micro_f1` or `micro_map`. Without it the task's metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_label_metric: Option<Metric>,
    /// The confidence interval over the samples of the test split.
    pub interval: IntervalConfig,
}

/// What makes samples neighbours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distance {
    /// Cosine similarity.
    #[default]
    Cosine,
    /// Euclidean distance.
    Euclidean,
}

impl Distance {
    /// Whether this is the default, which older records do not name.
    fn is_default(&self) -> bool {
        *self == Distance::Cosine
    }
}

/// The precision in which embeddings reach a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmbeddingDtype {
    /// As they come.
    F32,
    /// Rounded to bfloat16, and similarities too, as Galileo's loader and k-NN do.
    Bf16,
}

impl fmt::Display for EmbeddingDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EmbeddingDtype::F32 => "f32",
            EmbeddingDtype::Bf16 => "bf16",
        })
    }
}

/// BatchNorm and a linear layer on frozen features; see [`crate::protocol::linear_probe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LinearProbeConfig {
    /// Passes over the training samples per learning rate.
    pub epochs: usize,
    /// Samples per step, at least 2: BatchNorm has no variance of one.
    pub batch_size: usize,
    /// Whether an epoch's last, incomplete batch is left out.
    pub drop_last: bool,
    /// All are trained; the best on validation is reported.
    pub learning_rates: Vec<f64>,
    /// Tasks whose learning rates are others.
    #[serde(default)]
    pub task_learning_rates: BTreeMap<String, Vec<f64>>,
    /// What happens to training images.
    pub augmentation: Augmentation,
    /// Which epoch's weights are used.
    pub keep: KeptEpoch,
    /// Whether epochs are compared by the mean over batches of the metric, and that is recorded beside the metric of the
    /// whole test split.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub report_batches: bool,
    /// The normalisation in front of the linear layer, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<BatchNormConfig>,
    /// How the linear layer begins.
    pub initialization: Initialization,
    /// How a gradient becomes a step.
    pub optimizer: Optimizer,
    /// How the learning rate runs over a training.
    pub schedule: Schedule,
    /// The confidence interval over the samples of the test split.
    pub interval: IntervalConfig,
}

impl LinearProbeConfig {
    /// The learning rates to train on `task`.
    pub fn rates(&self, task: &str) -> &[f64] {
        self.task_learning_rates.get(task).unwrap_or(&self.learning_rates)
    }

    pub(crate) fn problem(&self) -> Option<String> {
        let sweeps = || [&self.learning_rates].into_iter().chain(self.task_learning_rates.values());
        if self.epochs == 0 {
            Some("epochs is 0".to_owned())
        } else if self.batch_size < 2 {
            Some(format!("batch-size is {}; BatchNorm needs at least 2 samples", self.batch_size))
        } else if sweeps().any(Vec::is_empty) {
            Some("there is a list of learning rates without any".to_owned())
        } else if let Some(rate) = sweeps().flatten().find(|rate| !positive(**rate)) {
            Some(format!("the learning rate {rate} is not above 0"))
        } else if self.augmentation.rotates() {
            Some(
                "augmentation rotates by free angles, but features are computed once for each turn"
                    .to_owned(),
            )
        } else if self.batch_norm.is_some_and(|norm| !positive(norm.eps)) {
            Some("batch-norm.eps is not above 0".to_owned())
        } else if self.batch_norm.is_some_and(|norm| !fraction(norm.momentum)) {
            Some("batch-norm.momentum is not between 0 and 1".to_owned())
        } else {
            (self.initialization.problem())
                .or_else(|| self.optimizer.problem())
                .or_else(|| self.schedule.problem(self.epochs))
                .or_else(|| self.interval.problem())
        }
    }
}

/// Logistic regression on frozen features; see [`crate::protocol::logistic`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogisticConfig {
    /// Inverse strengths of the regularisation; the best on validation is used.
    pub c: LogSpaced,
    /// Whether features are brought to mean 0 and standard deviation 1 (of the training samples) first.
    pub standardize: bool,
    /// Whether two classes get a row of coefficients each, as more classes do. Otherwise they share one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub row_per_class: bool,
    /// Whether validation samples join the training samples once C is chosen.
    pub refit_with_validation: bool,
    /// What chooses C and is reported if a sample may have several labels: `micro_f1` or `micro_map`. Without it the
    /// task's metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_label_metric: Option<Metric>,
    /// How the loss is minimised.
    pub solver: SolverConfig,
    /// The confidence interval over the samples of the test split.
    pub interval: IntervalConfig,
}

impl LogisticConfig {
    /// What chooses C on `task` and is reported.
    pub fn metric(&self, task: &Task) -> Metric {
        metric_on(task, self.multi_label_metric)
    }

    pub(crate) fn problem(&self) -> Option<String> {
        if let Some(problem) = multi_label_problem(self.multi_label_metric) {
            Some(problem)
        } else if let Some(problem) = self.c.problem("c") {
            Some(problem)
        } else if self.solver.history == 0 && self.solver.kind != SolverKind::Newton {
            Some("solver.history is 0".to_owned())
        } else if self.solver.max_iterations == 0 {
            Some("solver.max-iterations is 0".to_owned())
        } else if self.solver.final_max_iterations == Some(0) {
            Some("solver.final-max-iterations is 0".to_owned())
        } else if !positive(self.solver.tolerance) {
            Some("solver.tolerance is not above 0".to_owned())
        } else {
            self.interval.problem()
        }
    }
}

/// The metric of `task`, or `of_labels` if a sample may have several labels.
fn metric_on(task: &Task, of_labels: Option<Metric>) -> Metric {
    match task.target {
        TargetKind::Labels => of_labels.unwrap_or(task.metric),
        _ => task.metric,
    }
}

fn multi_label_problem(metric: Option<Metric>) -> Option<String> {
    let misfit =
        |metric: &Metric| !(metric.about().is_of_tasks && metric.about().fits.contains(&TargetKind::Labels));
    let metric = metric.filter(misfit)?;
    Some(format!("multi-label-metric is {metric}; expected micro_f1 or micro_map"))
}

/// Ridge regression on frozen features; see [`crate::protocol::ridge`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RidgeConfig {
    /// Strengths of the regularisation (scikit-learn's alpha); the best on validation is used.
    pub strengths: LogSpaced,
    /// Whether validation samples join the training samples once the strength is chosen.
    pub refit_with_validation: bool,
    /// The confidence interval over the samples of the test split.
    pub interval: IntervalConfig,
}

impl RidgeConfig {
    pub(crate) fn problem(&self) -> Option<String> {
        self.strengths.problem("strengths").or_else(|| self.interval.problem())
    }
}

/// Numbers whose logarithms are evenly spaced, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSpaced {
    /// The smallest number, above 0.
    pub start: f64,
    /// The largest number.
    pub stop: f64,
    /// How many numbers, at least 1.
    pub count: usize,
}

impl LogSpaced {
    fn problem(self, name: &str) -> Option<String> {
        if !(positive(self.start) && self.stop.is_finite() && self.start <= self.stop) {
            Some(format!("{name}: not 0 < start <= stop"))
        } else {
            (self.count == 0).then(|| format!("{name}.count is 0"))
        }
    }

    /// The numbers, ascending; only `start` if `count` is 1.
    pub fn values(self) -> Vec<f64> {
        let (low, high) = (self.start.log10(), self.stop.log10());
        let gaps = self.count.saturating_sub(1).max(1) as f64;
        (0..self.count).map(|i| 10f64.powf(low + (high - low) * i as f64 / gaps)).collect()
    }
}

/// What minimises the loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SolverKind {
    /// In float64 until the gradient is within the tolerance, each fit from the previous one: [`crate::solve::lbfgs`].
    #[default]
    Converged,
    /// PyTorch's in float32, each fit from 0: [`crate::solve::torch_lbfgs`]. It stops at small steps too, which may be far
    /// from the minimum.
    Torch,
    /// Newton's method in float64 on scaled features, each fit from the previous one, for features on which L-BFGS stalls:
    /// `protocol/logistic/newton.rs`.
    Newton,
}

impl SolverKind {
    /// Whether this is the default, which older records do not name.
    fn is_default(&self) -> bool {
        *self == SolverKind::Converged
    }
}

/// A minimiser and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SolverConfig {
    /// Which minimiser.
    #[serde(default, skip_serializing_if = "SolverKind::is_default")]
    pub kind: SolverKind,
    /// Number of past steps that stand for the curvature; not for Newton's method.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub history: usize,
    /// Stops when no component of the gradient is larger. PyTorch's also stops when the slope, the largest component of a
    /// step or the change of the loss is not larger. Newton's method stops when the loss is not farther from its minimum, as a
    /// share of it.
    pub tolerance: f64,
    /// Stops after so many steps at the latest.
    pub max_iterations: usize,
    /// The same of the fit on training and validation samples; `max_iterations` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_max_iterations: Option<usize>,
}

fn is_zero(history: &usize) -> bool {
    *history == 0
}

impl SolverConfig {
    /// The default solver.
    pub const fn converged(history: usize, tolerance: f64, max_iterations: usize) -> Self {
        let kind = SolverKind::Converged;
        SolverConfig { kind, history, tolerance, max_iterations, final_max_iterations: None }
    }

    /// The solver of the last fit.
    #[must_use]
    pub fn of_final_fit(self) -> Self {
        SolverConfig { max_iterations: self.final_max_iterations.unwrap_or(self.max_iterations), ..self }
    }
}

impl KnnConfig {
    /// Neighbours by cosine similarity whose votes weigh exp(similarity / temperature).
    pub fn weighted(k: usize, temperature: f32, dtype: EmbeddingDtype, interval: IntervalConfig) -> Self {
        KnnConfig {
            k,
            temperature: Some(temperature),
            distance: Distance::Cosine,
            embedding_dtype: dtype,
            multi_label_metric: None,
            interval,
        }
    }

    /// What is reported on `task`.
    pub fn metric(&self, task: &Task) -> Metric {
        metric_on(task, self.multi_label_metric)
    }

    pub(crate) fn problem(&self) -> Option<String> {
        let is_euclidean = self.distance == Distance::Euclidean;
        if self.k == 0 {
            Some("k is 0; at least 1 neighbour must vote".to_owned())
        } else if self.temperature.is_some_and(|temperature| temperature.is_nan() || temperature <= 0.0) {
            Some("temperature is not above 0".to_owned())
        } else if is_euclidean && self.temperature.is_some() {
            Some(
                "temperature weighs votes by cosine similarity; leave it out with distance euclidean"
                    .to_owned(),
            )
        } else if is_euclidean && self.embedding_dtype != EmbeddingDtype::F32 {
            Some("embedding-dtype must be f32 with distance euclidean".to_owned())
        } else if let Some(problem) = multi_label_problem(self.multi_label_metric) {
            Some(problem)
        } else {
            self.interval.problem()
        }
    }
}

/// The whole encoder and a linear layer on it, trained; see [`crate::protocol::finetune`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FinetuneConfig {
    /// A batch is the unit of the schedule and of the loss's mean.
    #[serde(flatten)]
    pub training: TrainingConfig,
    /// Samples per step, a multiple of the batch size: the gradients of so many batches are added up.
    pub effective_batch_size: usize,
    /// The order of the samples in an epoch.
    #[serde(default)]
    pub order: TrainingOrder,
    /// What happens to training images.
    pub augmentation: Augmentation,
    /// Longer gradients (over all parameters) are shrunk to this norm.
    pub clip_norm: f64,
    /// A learning rate's training ends after so many epochs without a better one on validation, and its best epoch counts.
    /// Without it every training runs to its end, and the last epoch counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
}

impl FinetuneConfig {
    /// Batches per step.
    pub fn accumulated(&self) -> usize {
        self.effective_batch_size / self.training.batch_size
    }

    pub(crate) fn problem(&self) -> Option<String> {
        let (batch_size, effective) = (self.training.batch_size, self.effective_batch_size);
        self.training.problem(1, "a batch must hold a sample").or_else(|| {
            if effective == 0 || !effective.is_multiple_of(batch_size) {
                Some(format!("effective-batch-size {effective} is no multiple of batch-size {batch_size}"))
            } else if !positive(self.clip_norm) {
                Some("clip-norm is not above 0".to_owned())
            } else if self.patience == Some(0) {
                Some("patience is 0: no training would go beyond its first epoch".to_owned())
            } else {
                None
            }
        })
    }
}
