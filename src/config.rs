//! How things are measured, read from `configs/`: models and protocols.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data::Split;
use crate::data::bands::Band;
use crate::home::{Home, read_toml};
use crate::model::Stem;
use crate::{Error, Result};

/// A model: its architecture, the bands it wants and where its weights come from (`configs/models/*.toml`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModelConfig {
    /// As in the tables: `TerraFM`.
    pub name: String,
    /// As in the tables: `ViT-Base`.
    pub backbone: String,
    /// Which code of [`crate::model`] builds it.
    pub kind: ModelKind,
    pub architecture: Architecture,
    pub stems: BTreeMap<Stem, StemConfig>,
    /// Where the published weights are; a model without them has random ones.
    pub weights: Option<WeightsSource>,
    /// The published row to compare with.
    pub published: Option<PublishedRow>,
}

/// The backbones there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    Terrafm,
}

/// The shape of a vision transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Architecture {
    /// Length of a token, d.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads a block; divides `width`.
    pub heads: usize,
    /// Hidden width of a block's MLP, in multiples of `width`.
    pub mlp_ratio: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side of the image at pre-training in pixels: fixes the stored position embedding, and is the
    /// size that images are resized to.
    pub image: usize,
    /// Blocks (0-based) whose tokens are the feature maps.
    pub map_layers: Vec<usize>,
}

/// What a patch embedding takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StemConfig {
    /// In the order of the input channels.
    pub bands: Vec<Band>,
}

/// A file of weights on the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsSource {
    pub repository: String,
    pub file: String,
    /// A commit of the repository, or a branch where no commit is known.
    #[serde(default = "main_branch")]
    pub revision: String,
}

fn main_branch() -> String {
    "main".to_owned()
}

/// A row of the published tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRow {
    pub model: String,
    pub backbone: String,
}

impl ModelConfig {
    /// Reads `configs/models/<name>.toml`, or the file at the path `name`.
    ///
    /// # Errors
    /// Where there is no such file, it has unknown keys, or the architecture contradicts itself.
    pub fn load(home: &Home, name: &str) -> Result<Self> {
        let path = home.config("models", name)?;
        let config: ModelConfig = read_toml(&path)?;
        let a = &config.architecture;
        let problem = if a.width == 0 || a.depth == 0 || a.heads == 0 || a.patch == 0 || a.mlp_ratio == 0 {
            Some("a size is 0".to_owned())
        } else if !a.width.is_multiple_of(a.heads) {
            Some(format!("width {} is no multiple of heads {}", a.width, a.heads))
        } else if a.image == 0 || !a.image.is_multiple_of(a.patch) {
            Some(format!("image {} is no multiple of patch {}", a.image, a.patch))
        } else if let Some(layer) = a.map_layers.iter().find(|layer| **layer >= a.depth) {
            Some(format!("map-layers names block {layer} of {} (0-based)", a.depth))
        } else {
            config
                .stems
                .iter()
                .find(|(_, stem)| stem.bands.is_empty())
                .map(|(stem, _)| format!("stem {stem} has no bands"))
        };
        match problem {
            Some(problem) => Err(Error::file(path, problem)),
            None => Ok(config),
        }
    }

    /// The bands that `stem` takes.
    ///
    /// # Errors
    /// Where the model has no such stem.
    pub fn stem(&self, stem: Stem) -> Result<&StemConfig> {
        self.stems.get(&stem).ok_or_else(|| {
            let known: Vec<String> = self.stems.keys().map(Stem::to_string).collect();
            Error::request(format!("{} {} has no stem `{stem}`", self.name, self.backbone))
                .help(format!("its stems are {}", known.join(", ")))
        })
    }
}

/// A protocol with all its hyper-parameters (`configs/protocols/*.toml`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Protocol {
    Knn(KnnConfig),
    LinearProbe(LinearProbeConfig),
    Logistic(LogisticConfig),
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

/// The percentile bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntervalConfig {
    /// Coverage, between 0 and 1.
    pub level: f64,
    /// Number of resamples.
    pub resamples: usize,
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

/// What happens to training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// Nothing.
    None,
    /// A horizontal and a vertical flip, each with probability 1/2, drawn for each sample and epoch.
    Flips,
}

impl Augmentation {
    /// How many variants of each image it draws from, all equally likely.
    pub fn variants(self) -> usize {
        match self {
            Augmentation::None => 1,
            Augmentation::Flips => 4,
        }
    }
}

/// Which epoch's weights are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptEpoch {
    Last,
    /// The best on validation, the first of equal ones.
    Best,
}

/// torch's `BatchNorm1d`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNormConfig {
    /// Whether a scale and a shift a feature are learnt.
    pub affine: bool,
    /// Added to the variance.
    pub eps: f64,
    /// Weight of a new batch in the running statistics.
    pub momentum: f64,
}

/// How the linear layer begins. Biases are uniform within ±1/sqrt(features), as torch's `Linear`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Initialization {
    /// Weights as biases: torch's default. (Serde finds unknown keys only where there are braces.)
    Uniform {},
    /// Weights normal with mean 0, none beyond ±2.
    TruncatedNormal {
        /// Standard deviation.
        std: f64,
    },
}

impl Initialization {
    fn problem(self) -> Option<String> {
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
        weight_decay: f64,
    },
    /// Gradient descent with momentum, without dampening or Nesterov's step; the decay is part of the gradient.
    Sgd { momentum: f64, weight_decay: f64 },
}

impl Optimizer {
    fn problem(self) -> Option<String> {
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

/// How the learning rate runs over a training; see [`crate::protocol::schedule`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Linear from 0, then half a cosine.
    WarmupCosine {
        /// Share of the epochs that warm up, rounded down to whole epochs.
        warmup: f64,
        /// Where the cosine would end.
        min_learning_rate: f64,
    },
    /// torch's `OneCycleLR` with cosines.
    OneCycle {
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
    fn problem(self, epochs: usize) -> Option<String> {
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
    pub solver: SolverConfig,
    pub interval: IntervalConfig,
}

impl LogisticConfig {
    fn problem(&self) -> Option<String> {
        if !(positive(self.c.start) && self.c.stop.is_finite() && self.c.start <= self.c.stop) {
            Some("c: not 0 < start <= stop".to_owned())
        } else if self.c.count == 0 {
            Some("c.count is 0".to_owned())
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

/// Numbers whose logarithms are evenly spaced, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSpaced {
    pub start: f64,
    pub stop: f64,
    pub count: usize,
}

impl LogSpaced {
    /// The numbers, ascending; only `start` where `count` is 1.
    pub fn values(self) -> Vec<f64> {
        let (low, high) = (self.start.log10(), self.stop.log10());
        let gaps = self.count.saturating_sub(1).max(1) as f64;
        (0..self.count).map(|i| 10f64.powf(low + (high - low) * i as f64 / gaps)).collect()
    }
}

/// L-BFGS; see [`crate::protocol::lbfgs`].
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

fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

fn fraction(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
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

impl IntervalConfig {
    fn problem(self) -> Option<String> {
        if !(self.level > 0.0 && self.level < 1.0) {
            Some("interval.level is not between 0 and 1".to_owned())
        } else if self.resamples == 0 {
            Some("interval.resamples is 0".to_owned())
        } else {
            None
        }
    }
}

impl Protocol {
    /// Reads `configs/protocols/<name>.toml`, or the file at the path `name`.
    ///
    /// # Errors
    /// Where there is no such file, it has unknown keys, or a value is out of its range.
    pub fn load(home: &Home, name: &str) -> Result<Self> {
        let path = home.config("protocols", name)?;
        let protocol: Protocol = read_toml(&path)?;
        let problem = match &protocol {
            Protocol::Knn(config) => config.problem(),
            Protocol::LinearProbe(config) => config.problem(),
            Protocol::Logistic(config) => config.problem(),
        };
        match problem {
            Some(problem) => Err(Error::file(path, problem)),
            None => Ok(protocol),
        }
    }

    /// The splits whose samples decide the protocol's number.
    pub fn splits(&self) -> &'static [Split] {
        match self {
            Protocol::Knn(_) => &[Split::Train, Split::Test],
            Protocol::LinearProbe(_) | Protocol::Logistic(_) => &Split::ALL,
        }
    }
}
