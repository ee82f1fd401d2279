//! DeCUR [Wang et al., arXiv 2309.05300; zhu-xlab/DeCUR]: timm's plain vision transformer, one per sensor.
//!
//! The weights for Sentinel-2 (13 bands) and Sentinel-1 (VV, VH) are separate files, so a model has one patch embedding and
//! takes the sensors that share it. Images always have the size used in pre-training. d is the width, t the number of
//! patches.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Pooling, Want};
use super::network::{Network, Sizes};
use super::plain_vit;
use super::requests::{check_bands, check_square, known_input, layer_beyond};
use super::sensor_input::SensorInput;
use crate::Result;
use crate::nn::heads::upernet::MapLevel;
use crate::nn::plain_vit::{PlainVit, PlainVitConfig};
use crate::task::Sensor;

const NAME: &str = "DeCUR";
/// Side of a patch in pixels.
const PATCH: usize = 16;

/// The sizes that differ between variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DecurConfig {
    /// Length of a token, d.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Rows and columns of the stored position embedding.
    pub positions: usize,
    /// Blocks (0-based) whose tokens are the feature maps.
    pub map_layers: Vec<usize>,
}

impl DecurConfig {
    fn vit(&self) -> PlainVitConfig {
        let DecurConfig { width, depth, heads, positions, map_layers: _ } = *self;
        PlainVitConfig { width, depth, heads, patch: PATCH, positions, layer_scale: false }
    }
}

impl Sizes for DecurConfig {
    fn problem(&self) -> Option<String> {
        self.vit().problem().or_else(|| layer_beyond("map-layers", &self.map_layers, self.depth))
    }

    fn poolings(&self) -> &'static [Pooling] {
        // Galileo's evaluation uses the mean of all tokens.
        &[Pooling::MeanAll, Pooling::Mean, Pooling::Class]
    }

    fn maps(&self) -> Vec<MapLevel> {
        vec![MapLevel { width: self.width, stride: PATCH }; self.map_layers.len()]
    }

    fn blocks(&self) -> Option<usize> {
        Some(self.depth)
    }

    fn keep_blocks(&mut self, count: usize) {
        self.depth = count;
        self.map_layers.retain(|layer| *layer < count);
    }
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Decur {
    encoder: PlainVit,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
    /// Side of the images in pixels.
    #[module(skip)]
    side: usize,
    #[module(skip)]
    map_layers: Vec<usize>,
}

impl Network for Decur {
    type Config = DecurConfig;

    /// Builds the network. All sensors share the patch embedding and have the same number of bands.
    fn new(config: &DecurConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let bands = sensors.values().next().map_or(0, |sensor| sensor.bands.len());
        Decur {
            encoder: PlainVit::new(&config.vit(), bands, device),
            sensors: sensors.clone(),
            side: PATCH * config.positions,
            map_layers: config.map_layers.clone(),
        }
    }

    fn checkpoint_name(name: &str) -> String {
        name.strip_prefix("encoder.").unwrap_or(name).to_owned()
    }
}

impl Decur {
    /// Embeds patches, without class token and positions: [n, bands, h, w] to [n, t, d].
    pub fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        self.encoder.embed(images)
    }
}

impl Encoder for Decur {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.encoder.width()
    }

    /// Maps are taken after the final norm, like SoftCon's: no benchmark publishes results with DeCUR's maps.
    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let input = known_input(NAME, batch, &self.sensors)?;
        check_bands(NAME, input, self.encoder.bands())?;
        check_square(NAME, input, self.side)?;
        plain_vit::encode(NAME, &self.encoder, input, want, &self.map_layers)
    }
}
