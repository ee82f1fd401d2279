//! A model's configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::home::{Home, read_toml};
use crate::task::Sensor;
use crate::task::bands::Band;
use crate::transform::normalize::NormalizationKind;
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sensors: BTreeMap<Sensor, SensorInput>,
    /// Which arithmetic the normalisation sweep uses for this model, as in Galileo's table of models, where a
    /// model that is not listed has `norm_no_clip`.
    #[serde(default = "no_clip")]
    pub normalization: NormalizationKind,
    /// Where the published weights are; a model without them has random ones.
    pub weights: Option<WeightsSource>,
    /// The published row to compare with.
    pub published: Option<PublishedRow>,
}

fn no_clip() -> NormalizationKind {
    NormalizationKind::NormNoClip
}

/// The backbones there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    Terrafm,
    /// [`crate::model::image_stats`]: plain pixel statistics, without parameters.
    ImageStats,
}

impl ModelKind {
    /// Whether it takes every band of the files as it is stored, and not those of a sensor, normalised.
    pub fn takes_stored_pixels(self) -> bool {
        self == ModelKind::ImageStats
    }

    /// Whether it has parameters, which come from weights and can be trained.
    pub fn has_parameters(self) -> bool {
        self != ModelKind::ImageStats
    }
}

/// The shape of a vision transformer; of a model without parameters only `image`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Architecture {
    /// Length of a token, d.
    #[serde(default)]
    pub width: usize,
    /// Number of blocks.
    #[serde(default)]
    pub depth: usize,
    /// Attention heads a block; divides `width`.
    #[serde(default)]
    pub heads: usize,
    /// Hidden width of a block's MLP, in multiples of `width`.
    #[serde(default)]
    pub mlp_ratio: usize,
    /// Side of a patch in pixels.
    #[serde(default)]
    pub patch: usize,
    /// Side of the image at pre-training in pixels: fixes the stored position embedding, and is the
    /// size that images are resized to.
    pub image: usize,
    /// Blocks (0-based) whose tokens are the feature maps.
    #[serde(default)]
    pub map_layers: Vec<usize>,
}

/// What a patch embedding takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensorInput {
    /// In the order of the input channels.
    pub bands: Vec<Band>,
    /// Central wavelength per band in micrometres, for models that look at it: the numbers that the model was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wavelengths: Vec<f64>,
    /// Bandwidth per band in micrometres, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidths: Vec<f64>,
}

impl SensorInput {
    /// What contradicts itself, if anything.
    fn problem(&self) -> Option<String> {
        let count = self.bands.len();
        if count == 0 {
            return Some("has no bands".to_owned());
        }
        let per_band = [("wavelengths", &self.wavelengths), ("bandwidths", &self.bandwidths)];
        per_band.into_iter().find_map(|(what, values)| {
            if !values.is_empty() && values.len() != count {
                Some(format!("has {count} bands, but {} {what}", values.len()))
            } else {
                let wrong = values.iter().find(|value| !value.is_finite() || **value < 0.0)?;
                Some(format!("has {what} of {wrong} micrometres"))
            }
        })
    }
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

/// What of a [`ModelConfig`] decides features and numbers. Everything else labels them, or decides through something
/// that is in the keys itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DecidingModel<'a> {
    pub kind: ModelKind,
    pub architecture: &'a Architecture,
    /// Keeps its old name in the hash.
    #[serde(rename = "stems")]
    pub sensors: &'a BTreeMap<Sensor, SensorInput>,
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
        let sizes = [a.width, a.depth, a.heads, a.mlp_ratio, a.patch];
        let problem = if !config.kind.has_parameters() {
            (a.image == 0
                || sizes != [0; 5]
                || !a.map_layers.is_empty()
                || !config.sensors.is_empty()
                || config.weights.is_some())
            .then(|| {
                "a model without parameters has an `image` above 0, and no other size, sensor or weights"
                    .to_owned()
            })
        } else if sizes.contains(&0) {
            Some("width, depth, heads, mlp-ratio and patch must be above 0".to_owned())
        } else if !a.width.is_multiple_of(a.heads) {
            Some(format!("width {} is no multiple of heads {}", a.width, a.heads))
        } else if a.image == 0 || !a.image.is_multiple_of(a.patch) {
            Some(format!("image {} is no multiple of patch {}", a.image, a.patch))
        } else if let Some(layer) = a.map_layers.iter().find(|layer| **layer >= a.depth) {
            Some(format!("map-layers names block {layer} of {} (0-based)", a.depth))
        } else if config.normalization == NormalizationKind::Satlas {
            Some("normalization is satlas, which has no statistics to sweep over".to_owned())
        } else {
            config
                .sensors
                .iter()
                .find_map(|(sensor, input)| Some(format!("sensor {sensor} {}", input.problem()?)))
        };
        match problem {
            Some(problem) => Err(Error::file(path, problem)),
            None => Ok(config),
        }
    }

    /// The part that decides. A new field must be told here on which side it is.
    pub fn deciding(&self) -> DecidingModel<'_> {
        let ModelConfig {
            kind,
            architecture,
            sensors,
            // Decides which strategies a sweep tries, and these are in the keys.
            normalization: _,
            // Labels; the weights themselves are in the keys by their hash.
            name: _,
            backbone: _,
            weights: _,
            published: _,
        } = self;
        DecidingModel { kind: *kind, architecture, sensors }
    }

    /// The bands that `sensor` takes.
    ///
    /// # Errors
    /// Where the model has no such sensor.
    pub fn sensor(&self, sensor: Sensor) -> Result<&SensorInput> {
        self.sensors.get(&sensor).ok_or_else(|| {
            let known: Vec<String> = self.sensors.keys().map(Sensor::to_string).collect();
            Error::request(format!("{} {} has no sensor `{sensor}`", self.name, self.backbone))
                .help(format!("its sensors are {}", known.join(", ")))
        })
    }
}
