//! How things are measured, read from `configs/`: models and protocols.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data::Split;
use crate::data::bands::Band;
use crate::home::{Home, read_toml};
use crate::model::Stem;
use crate::transform::augment::Dihedral;
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
    Finetune(FinetuneConfig),
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
        let batch_size = self.batch_size;
        if self.epochs == 0 {
            Some("epochs is 0".to_owned())
        } else if batch_size == 0 {
            Some("batch-size is 0".to_owned())
        } else if self.effective_batch_size == 0 || !self.effective_batch_size.is_multiple_of(batch_size) {
            let effective = self.effective_batch_size;
            Some(format!("effective-batch-size {effective} is no multiple of batch-size {batch_size}"))
        } else if self.learning_rates.is_empty() {
            Some("learning-rates is empty".to_owned())
        } else if let Some(rate) = self.learning_rates.iter().find(|rate| !positive(**rate)) {
            Some(format!("the learning rate {rate} is not above 0"))
        } else if !positive(self.clip_norm) {
            Some("clip-norm is not above 0".to_owned())
        } else if self.limit == Some(0) {
            Some("limit is 0".to_owned())
        } else {
            (self.optimizer.problem())
                .or_else(|| self.schedule.problem(self.epochs))
                .or_else(|| self.interval.problem())
        }
    }
}

/// What the command line takes off a training, to try something out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shortening {
    pub epochs: Option<usize>,
    /// In place of the protocol's, where there are any.
    pub learning_rates: Vec<f64>,
    /// Samples of each split.
    pub limit: Option<usize>,
}

/// What happens to training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augmentation {
    /// Nothing.
    None,
    /// One of the eight flips and rotations by quarter turns, drawn for each sample and epoch.
    Dihedral,
}

impl Augmentation {
    /// What it draws from, all equally likely.
    pub fn transforms(self) -> &'static [Dihedral] {
        match self {
            Augmentation::None => &[Dihedral::Identity],
            Augmentation::Dihedral => &Dihedral::ALL,
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

fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
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
        match protocol.problem() {
            Some(problem) => Err(Error::file(path, problem)),
            None => Ok(protocol),
        }
    }

    fn problem(&self) -> Option<String> {
        match self {
            Protocol::Knn(config) => config.problem(),
            Protocol::Finetune(config) => config.problem(),
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
        let Protocol::Finetune(full) = self else {
            return Err(Error::request(format!("protocol `{name}` cannot be shortened"))
                .help("--epochs, --learning-rates and --limit are for --protocol finetune"));
        };
        let Shortening { epochs, learning_rates, limit } = shortening.clone();
        let rates = if learning_rates.is_empty() { full.learning_rates.clone() } else { learning_rates };
        let mut shorter = FinetuneConfig {
            epochs: epochs.unwrap_or(full.epochs),
            learning_rates: rates,
            limit: limit.or(full.limit),
            ..full.clone()
        };
        shorter.short |= shorter != full;
        let protocol = Protocol::Finetune(shorter);
        match protocol.problem() {
            Some(problem) => Err(Error::request(format!("protocol `{name}`, shortened: {problem}"))),
            None => Ok(protocol),
        }
    }

    /// Whether the command line made it shorter than its file says.
    pub fn is_short(&self) -> bool {
        matches!(self, Protocol::Finetune(FinetuneConfig { short: true, .. }))
    }

    /// The most samples of a split that it looks at.
    pub fn limit(&self) -> Option<usize> {
        match self {
            Protocol::Knn(_) => None,
            Protocol::Finetune(config) => config.limit,
        }
    }

    /// The splits whose samples decide the protocol's number.
    pub fn splits(&self) -> &'static [Split] {
        match self {
            Protocol::Knn(_) => &[Split::Train, Split::Test],
            Protocol::Finetune(_) => &Split::ALL,
        }
    }
}
