//! A protocol's configuration.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::segmentation::{SegmentationProbeConfig, UpernetConfig};
use super::training::{
    Augmentation, BatchNormConfig, Initialization, IntervalConfig, KeptEpoch, Optimizer, Schedule,
    Shortening, Training, TrainingOrder, fraction, positive,
};
use crate::home::{Home, config_name, read_toml};
use crate::metrics::Metric;
use crate::task::Split;
use crate::task::{TargetKind, Task};
use crate::{Error, Result};

/// A protocol with all its hyper-parameters (`configs/protocols/*.toml`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Protocol {
    Knn(KnnConfig),
    LinearProbe(LinearProbeConfig),
    Logistic(LogisticConfig),
    Ridge(RidgeConfig),
    Finetune(FinetuneConfig),
    SegmentationProbe(SegmentationProbeConfig),
    Upernet(UpernetConfig),
}

/// k nearest neighbours; see [`crate::protocol::knn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KnnConfig {
    /// Number of neighbours, at most the number of training samples.
    pub k: usize,
    /// A neighbour's vote weighs exp(cosine similarity / temperature).
    pub temperature: f32,
    pub embedding_dtype: EmbeddingDtype,
    pub interval: IntervalConfig,
}

/// The precision in which embeddings reach a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmbeddingDtype {
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
    pub epochs: usize,
    /// Samples a step, at least 2: BatchNorm has no variance of one.
    pub batch_size: usize,
    /// Whether an epoch's last, incomplete batch is left out.
    pub drop_last: bool,
    /// All are trained; the best on validation is reported.
    pub learning_rates: Vec<f64>,
    /// Tasks whose learning rates are others.
    #[serde(default)]
    pub task_learning_rates: BTreeMap<String, Vec<f64>>,
    pub augmentation: Augmentation,
    pub keep: KeptEpoch,
    /// Whether epochs are compared by the mean over batches of the metric, and that is recorded beside the metric of the
    /// whole test split.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub report_batches: bool,
    pub batch_norm: BatchNormConfig,
    pub initialization: Initialization,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub interval: IntervalConfig,
}

impl LinearProbeConfig {
    /// The learning rates to train on `task`.
    pub fn rates(&self, task: &str) -> &[f64] {
        self.task_learning_rates.get(task).unwrap_or(&self.learning_rates)
    }

    fn problem(&self) -> Option<String> {
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
        } else if !positive(self.batch_norm.eps) {
            Some("batch-norm.eps is not above 0".to_owned())
        } else if !fraction(self.batch_norm.momentum) {
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
    /// Whether validation samples join the training samples once C is chosen.
    pub refit_with_validation: bool,
    /// What chooses C and is reported where a sample may have several labels: `micro_f1` or `micro_map`. Without it the
    /// task's metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_label_metric: Option<Metric>,
    pub solver: SolverConfig,
    pub interval: IntervalConfig,
}

impl LogisticConfig {
    /// What chooses C on `task` and is reported.
    pub fn metric(&self, task: &Task) -> Metric {
        match task.target {
            TargetKind::Labels => self.multi_label_metric.unwrap_or(task.metric),
            _ => task.metric,
        }
    }

    fn problem(&self) -> Option<String> {
        let misfit = |metric: &Metric| !metric.about().fits.contains(&TargetKind::Labels);
        if let Some(metric) = self.multi_label_metric.filter(misfit) {
            Some(format!("multi-label-metric is {metric}; expected micro_f1 or micro_map"))
        } else if let Some(problem) = self.c.problem("c") {
            Some(problem)
        } else if self.solver.history == 0 {
            Some("solver.history is 0".to_owned())
        } else if self.solver.max_iterations == 0 {
            Some("solver.max-iterations is 0".to_owned())
        } else if !positive(self.solver.tolerance) {
            Some("solver.tolerance is not above 0".to_owned())
        } else {
            self.interval.problem()
        }
    }
}

/// Ridge regression on frozen features; see [`crate::protocol::ridge`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RidgeConfig {
    /// Strengths of the regularisation (scikit-learn's alpha); the best on validation is used.
    pub strengths: LogSpaced,
    /// Whether validation samples join the training samples once the strength is chosen.
    pub refit_with_validation: bool,
    pub interval: IntervalConfig,
}

impl RidgeConfig {
    fn problem(&self) -> Option<String> {
        self.strengths.problem("strengths").or_else(|| self.interval.problem())
    }
}

/// Numbers whose logarithms are evenly spaced, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSpaced {
    pub start: f64,
    pub stop: f64,
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

    /// The numbers, ascending; only `start` where `count` is 1.
    pub fn values(self) -> Vec<f64> {
        let (low, high) = (self.start.log10(), self.stop.log10());
        let gaps = self.count.saturating_sub(1).max(1) as f64;
        (0..self.count).map(|i| 10f64.powf(low + (high - low) * i as f64 / gaps)).collect()
    }
}

/// L-BFGS; see [`crate::solve::lbfgs`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SolverConfig {
    /// Number of past steps that stand for the curvature.
    pub history: usize,
    /// Stops where no component of the gradient is larger.
    pub tolerance: f64,
    /// Stops after so many steps at the latest.
    pub max_iterations: usize,
}

impl KnnConfig {
    fn problem(&self) -> Option<String> {
        if self.k == 0 {
            Some("k is 0; at least 1 neighbour must vote".to_owned())
        } else if self.temperature.is_nan() || self.temperature <= 0.0 {
            Some("temperature is not above 0".to_owned())
        } else {
            self.interval.problem()
        }
    }
}

/// The whole encoder and a linear layer on it, trained; see [`crate::protocol::finetune`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FinetuneConfig {
    pub epochs: usize,
    /// Samples a batch: the unit of the schedule and of the loss's mean.
    pub batch_size: usize,
    /// Samples a step, a multiple of `batch_size`: the gradients of so many batches are added up.
    pub effective_batch_size: usize,
    /// All are trained; the best on validation is reported.
    pub learning_rates: Vec<f64>,
    /// Which samples an epoch's batches hold.
    #[serde(default)]
    pub order: TrainingOrder,
    pub augmentation: Augmentation,
    /// Longer gradients (over all parameters) are shrunk to this norm.
    pub clip_norm: f64,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub interval: IntervalConfig,
    /// At most so many samples of each split, to try something out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The command line made this shorter than the file says: its numbers enter no table.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
}

impl FinetuneConfig {
    /// Batches a step.
    pub fn accumulated(&self) -> usize {
        self.effective_batch_size / self.batch_size
    }

    fn problem(&self) -> Option<String> {
        let training = Training {
            epochs: self.epochs,
            batch_size: self.batch_size,
            least: (1, "a batch must hold a sample"),
            learning_rates: &self.learning_rates,
            limit: self.limit,
            optimizer: self.optimizer,
            schedule: self.schedule,
            interval: self.interval,
        };
        let (batch_size, effective) = (self.batch_size, self.effective_batch_size);
        training.problem().or_else(|| {
            if effective == 0 || !effective.is_multiple_of(batch_size) {
                Some(format!("effective-batch-size {effective} is no multiple of batch-size {batch_size}"))
            } else if !positive(self.clip_norm) {
                Some("clip-norm is not above 0".to_owned())
            } else {
                None
            }
        })
    }
}

impl Protocol {
    /// Reads `configs/protocols/<name>.toml`, or the file at the path `name`.
    ///
    /// # Errors
    /// Where there is no such file, it has unknown keys, or a value is out of its range.
    pub fn load(home: &Home, name: &str) -> Result<Self> {
        Self::load_named(home, name).map(|(_, protocol)| protocol)
    }

    /// Like [`Protocol::load`], with the protocol's name: that of its file, whichever path was typed.
    ///
    /// # Errors
    /// As [`Protocol::load`].
    pub fn load_named(home: &Home, name: &str) -> Result<(String, Self)> {
        let path = home.config("protocols", name)?;
        let protocol: Protocol = read_toml(&path)?;
        match protocol.problem() {
            Some(problem) => Err(Error::file(path, problem)),
            None => Ok((config_name(&path), protocol)),
        }
    }

    fn problem(&self) -> Option<String> {
        match self {
            Protocol::Knn(config) => config.problem(),
            Protocol::LinearProbe(config) => config.problem(),
            Protocol::Logistic(config) => config.problem(),
            Protocol::Ridge(config) => config.problem(),
            Protocol::Finetune(config) => config.problem(),
            Protocol::SegmentationProbe(config) => config.problem(),
            Protocol::Upernet(config) => config.problem(),
        }
    }

    /// The same protocol, shorter. It is marked as short where that makes any difference.
    ///
    /// # Errors
    /// Where the protocol (called `name`) trains nothing, or a value is out of its range.
    pub fn shortened(self, name: &str, shortening: &Shortening) -> Result<Self> {
        if *shortening == Shortening::default() {
            return Ok(self);
        }
        let mut protocol = self.clone();
        let Some(length) = protocol.length() else {
            return Err(Error::request(format!("protocol `{name}` cannot be shortened")).help(
                "--epochs, --learning-rates and --limit are for finetune, segmentation-probe and upernet",
            ));
        };
        let Shortening { epochs, learning_rates, limit } = shortening.clone();
        *length.epochs = epochs.unwrap_or(*length.epochs);
        if !learning_rates.is_empty() {
            *length.learning_rates = learning_rates;
        }
        *length.limit = limit.or(*length.limit);
        let shorter = protocol != self;
        if let Some(length) = protocol.length() {
            *length.short |= shorter;
        }
        match protocol.problem() {
            Some(problem) => Err(Error::request(format!("protocol `{name}`, shortened: {problem}"))),
            None => Ok(protocol),
        }
    }

    /// What can be shortened, where anything can.
    fn length(&mut self) -> Option<Length<'_>> {
        match self {
            Protocol::Finetune(FinetuneConfig { epochs, learning_rates, limit, short, .. })
            | Protocol::Upernet(UpernetConfig { epochs, learning_rates, limit, short, .. })
            | Protocol::SegmentationProbe(SegmentationProbeConfig {
                epochs,
                learning_rates,
                limit,
                short,
                ..
            }) => Some(Length { epochs, learning_rates, limit, short }),
            Protocol::Knn(_) | Protocol::LinearProbe(_) | Protocol::Logistic(_) | Protocol::Ridge(_) => None,
        }
    }

    /// Whether the command line made it shorter than its file says.
    pub fn is_short(&self) -> bool {
        match self {
            Protocol::Finetune(config) => config.short,
            Protocol::SegmentationProbe(config) => config.short,
            Protocol::Upernet(config) => config.short,
            Protocol::Knn(_) | Protocol::LinearProbe(_) | Protocol::Logistic(_) | Protocol::Ridge(_) => false,
        }
    }

    /// The most samples of a split that it looks at.
    pub fn limit(&self) -> Option<usize> {
        match self {
            Protocol::Finetune(config) => config.limit,
            Protocol::SegmentationProbe(config) => config.limit,
            Protocol::Upernet(config) => config.limit,
            Protocol::Knn(_) | Protocol::LinearProbe(_) | Protocol::Logistic(_) | Protocol::Ridge(_) => None,
        }
    }

    /// The metric that a record of `task` holds.
    pub fn metric(&self, task: &Task) -> Metric {
        match self {
            Protocol::Logistic(config) => config.metric(task),
            _ => task.metric,
        }
    }

    /// Whether it scores images, by one vector each, and not their pixels.
    pub fn scores_images(&self) -> bool {
        match self {
            Protocol::Knn(_)
            | Protocol::LinearProbe(_)
            | Protocol::Logistic(_)
            | Protocol::Ridge(_)
            | Protocol::Finetune(_) => true,
            Protocol::SegmentationProbe(_) | Protocol::Upernet(_) => false,
        }
    }

    /// The part that decides numbers on `task`: all but the learning rates of other tasks.
    #[must_use]
    pub fn deciding(&self, task: &str) -> Self {
        let mut protocol = self.clone();
        if let Protocol::LinearProbe(config) = &mut protocol {
            config.learning_rates = config.rates(task).to_vec();
            config.task_learning_rates.clear();
        }
        protocol
    }

    /// The splits whose samples decide the protocol's number.
    pub fn splits(&self) -> &'static [Split] {
        match self {
            Protocol::Knn(_) => &[Split::Train, Split::Test],
            _ => &Split::ALL,
        }
    }
}

/// What [`Protocol::shortened`] changes.
struct Length<'p> {
    epochs: &'p mut usize,
    learning_rates: &'p mut Vec<f64>,
    limit: &'p mut Option<usize>,
    short: &'p mut bool,
}
