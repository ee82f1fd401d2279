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

impl Protocol {
    /// Reads `configs/protocols/<name>.toml`, or the file at the path `name`.
    ///
    /// # Errors
    /// Where there is no such file, it has unknown keys, or a value is out of its range.
    pub fn load(home: &Home, name: &str) -> Result<Self> {
        let path = home.config("protocols", name)?;
        let protocol: Protocol = read_toml(&path)?;
        let Protocol::Knn(knn) = &protocol;
        let problem = if knn.k == 0 {
            "k is 0; at least 1 neighbour must vote"
        } else if knn.temperature.is_nan() || knn.temperature <= 0.0 {
            "temperature is not above 0"
        } else if !(knn.interval.level > 0.0 && knn.interval.level < 1.0) {
            "interval.level is not between 0 and 1"
        } else if knn.interval.resamples == 0 {
            "interval.resamples is 0"
        } else {
            return Ok(protocol);
        };
        Err(Error::file(path, problem))
    }

    /// The splits whose samples decide the protocol's number.
    pub fn splits(&self) -> &'static [Split] {
        match self {
            Protocol::Knn(_) => &[Split::Train, Split::Test],
        }
    }
}
