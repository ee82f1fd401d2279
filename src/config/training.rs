//! How something is trained: what several protocols have in common.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::metrics::Resampling;
use crate::transform::augment::Dihedral;

/// How the command line shortens a training, to try something out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shortening {
    /// In place of the protocol's.
    pub epochs: Option<usize>,
    /// Replace the protocol's, if any are given.
    pub learning_rates: Vec<f64>,
    /// Samples of each split.
    pub limit: Option<usize>,
}

/// The order in which an epoch sees the training samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainingOrder {
    /// As the partition lists them: every epoch has the same batches.
    #[default]
    AsListed,
    /// Drawn anew for each epoch.
    Shuffled,
}

impl fmt::Display for TrainingOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrainingOrder::AsListed => "as-listed",
            TrainingOrder::Shuffled => "shuffled",
        })
    }
}

/// What happens to training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// Nothing.
    None,
    /// A horizontal and a vertical flip, each with probability 1/2, drawn for each sample and epoch.
    Flips,
    /// One of the eight flips and rotations by quarter turns, drawn for each sample and epoch.
    Dihedral,
    /// Flips, and with probability 1/2 a rotation by an angle uniform within ±90 degrees, whose corners are 0 in the
    /// image and class 0 in the mask [Copernicus-Bench].
    FlipsAndRotation,
}

impl Augmentation {
    /// The flips and quarter turns that it draws from, all equally likely.
    pub fn transforms(self) -> &'static [Dihedral] {
        match self {
            Augmentation::None => &[Dihedral::Identity],
            Augmentation::Flips | Augmentation::FlipsAndRotation => &Dihedral::FLIPS,
            Augmentation::Dihedral => &Dihedral::ALL,
        }
    }

    /// Whether images are rotated by free angles too.
    pub fn rotates(self) -> bool {
        self == Augmentation::FlipsAndRotation
    }
}

/// A training over a list of learning rates: the part of a protocol's file that all protocols with gradients share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainingConfig {
    /// Passes over the training samples per learning rate.
    pub epochs: usize,
    /// Samples per batch: images, or tiles for the segmentation probe.
    pub batch_size: usize,
    /// All are trained; the best on validation is reported.
    pub learning_rates: Vec<f64>,
    /// Tasks whose learning rates are others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub task_learning_rates: BTreeMap<String, Vec<f64>>,
    /// How a gradient becomes a step.
    pub optimizer: Optimizer,
    /// How the learning rate runs over a training.
    pub schedule: Schedule,
    /// The confidence interval over the samples of the test split.
    pub interval: IntervalConfig,
    /// The largest number of samples per split, to try something out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Whether the command line made it shorter than the file says: its numbers enter no table.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
}

impl TrainingConfig {
    /// Keeps the learning rates of `task` alone.
    pub(crate) fn keep_rates_of(&mut self, task: &str) {
        if let Some(own) = self.task_learning_rates.remove(task) {
            self.learning_rates = own;
        }
        self.task_learning_rates.clear();
    }

    /// Why a value is out of its range. A batch must hold `least` samples, because of `why`.
    pub(crate) fn problem(&self, least: usize, why: &str) -> Option<String> {
        let mut rates = [&self.learning_rates].into_iter().chain(self.task_learning_rates.values());
        if self.epochs == 0 {
            Some("epochs is 0".to_owned())
        } else if self.batch_size < least {
            Some(format!("batch-size is {}; {why}", self.batch_size))
        } else if rates.clone().any(Vec::is_empty) {
            Some("there is a list of learning rates without any".to_owned())
        } else if let Some(rate) = rates.find_map(|rates| rates.iter().find(|rate| !positive(**rate))) {
            Some(format!("the learning rate {rate} is not above 0"))
        } else if self.limit == Some(0) {
            Some("limit is 0".to_owned())
        } else {
            (self.optimizer.problem())
                .or_else(|| self.schedule.problem(self.epochs))
                .or_else(|| self.interval.problem())
        }
    }
}

/// Which epoch's weights are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptEpoch {
    /// That of the last epoch.
    Last,
    /// The best on validation, the first of equal ones.
    Best,
}

/// torch's `BatchNorm1d`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNormConfig {
    /// Whether a scale and a shift per feature are learned.
    pub affine: bool,
    /// Added to the variance.
    pub eps: f64,
    /// Weight of a new batch in the running statistics.
    pub momentum: f64,
}

/// How the linear layer begins. Biases are uniform within ±1/sqrt(features), as in torch's `Linear`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Initialization {
    /// Weights like biases: torch's default. (Serde finds unknown keys only where there are braces.)
    Uniform {},
    /// Weights normal with mean 0, none beyond ±2.
    TruncatedNormal {
        /// Standard deviation.
        std: f64,
    },
}

impl Initialization {
    pub(crate) fn problem(self) -> Option<String> {
        match self {
            Initialization::TruncatedNormal { std } if !(positive(std) && std <= 1.0) => {
                Some("initialization.std is not above 0 and at most 1".to_owned())
            }
            _ => None,
        }
    }
}

/// How a gradient becomes a step. Weight decay acts on every parameter, biases and BatchNorm's included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Optimizer {
    /// Adam with decoupled weight decay [Loshchilov & Hutter, 2019], in torch's arithmetic.
    Adamw {
        /// Decay of the gradient's and the squared gradient's running means.
        betas: [f64; 2],
        /// Added to the root of the squared gradient's mean.
        eps: f64,
        /// Share of the learning rate by which parameters shrink per step.
        weight_decay: f64,
    },
    /// Gradient descent with momentum, without dampening or Nesterov's step; the decay is part of the gradient.
    Sgd {
        /// Share of the last step that the next one keeps.
        momentum: f64,
        /// Share of the parameters that is added to the gradient.
        weight_decay: f64,
    },
}

impl Optimizer {
    pub(crate) fn problem(self) -> Option<String> {
        let (momenta, weight_decay) = match self {
            Optimizer::Adamw { eps, .. } if !positive(eps) => {
                return Some("optimizer.eps is not above 0".to_owned());
            }
            Optimizer::Adamw { betas, weight_decay, .. } => (betas, weight_decay),
            Optimizer::Sgd { momentum, weight_decay } => ([momentum; 2], weight_decay),
        };
        if !momenta.iter().all(|momentum| (0.0..1.0).contains(momentum)) {
            Some("optimizer: a momentum or beta is not at least 0 and below 1".to_owned())
        } else if !(weight_decay.is_finite() && weight_decay >= 0.0) {
            Some("optimizer.weight-decay is negative".to_owned())
        } else {
            None
        }
    }
}

/// How the learning rate runs over a training; see [`crate::train::schedule`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Linear from 0, then half a cosine.
    WarmupCosine {
        /// Share of the epochs that warm up, rounded down to whole epochs.
        warmup: f64,
        /// The learning rate at which the cosine would end.
        min_learning_rate: f64,
    },
    /// torch's `OneCycleLR` with cosines.
    OneCycle {
        /// Epochs in which the learning rate rises.
        warmup_epochs: usize,
        /// The first learning rate is the highest divided by this.
        start_divisor: f64,
        /// The last learning rate is the first divided by this.
        final_divisor: f64,
        /// Lowest and highest momentum (AdamW: first beta), cycled against the learning rate; in place of
        /// the optimizer's own.
        momentum: [f64; 2],
    },
}

impl Schedule {
    pub(crate) fn problem(self, epochs: usize) -> Option<String> {
        match self {
            Schedule::WarmupCosine { warmup, min_learning_rate } => {
                if !(0.0..1.0).contains(&warmup) {
                    Some("schedule.warmup is not at least 0 and below 1".to_owned())
                } else if !(min_learning_rate.is_finite() && min_learning_rate >= 0.0) {
                    Some("schedule.min-learning-rate is negative".to_owned())
                } else {
                    None
                }
            }
            Schedule::OneCycle { warmup_epochs, start_divisor, final_divisor, momentum } => {
                if warmup_epochs >= epochs {
                    Some(format!("schedule.warmup-epochs is {warmup_epochs} of {epochs} epochs"))
                } else if !(positive(start_divisor) && positive(final_divisor)) {
                    Some("a divisor of the schedule is not above 0".to_owned())
                } else if !(momentum[0] >= 0.0 && momentum[0] <= momentum[1] && momentum[1] < 1.0) {
                    Some("schedule.momentum is not [lowest, highest], at least 0 and below 1".to_owned())
                } else {
                    None
                }
            }
        }
    }
}

pub(crate) fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

pub(crate) fn fraction(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

/// The percentile bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntervalConfig {
    /// Coverage, between 0 and 1.
    pub level: f64,
    /// Number of resamples.
    pub resamples: usize,
    /// How they are drawn.
    #[serde(default, skip_serializing_if = "Resampling::is_default")]
    pub resampling: Resampling,
}

impl IntervalConfig {
    /// An interval of that coverage from that many resamples, drawn the default way.
    pub const fn new(level: f64, resamples: usize) -> Self {
        IntervalConfig { level, resamples, resampling: Resampling::Streams }
    }

    pub(crate) fn problem(self) -> Option<String> {
        if !(self.level > 0.0 && self.level < 1.0) {
            Some("interval.level is not between 0 and 1".to_owned())
        } else if self.resamples == 0 {
            Some("interval.resamples is 0".to_owned())
        } else {
            None
        }
    }
}
