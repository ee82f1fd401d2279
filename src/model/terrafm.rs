//! TerraFM [Danish et al., arXiv 2506.06281; mbzuai-oryx/TerraFM, terrafm.py]: a vision transformer with one patch
//! embedding per sensor.
//!
//! Fields are named as in upstream's code, so that a parameter's path is its name in a weight file. d is the width, t = h /
//! patch * w / patch the number of patches.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::encoder::{self, Batch, Encoded, Encoder, Input, Map, Pooling, Want};
use super::frozen::Frozen;
use super::network::{Network, Sizes};
use super::sensor_input::SensorInput;
use crate::nn::heads::upernet::MapLevel;
use crate::nn::patch::PatchConv;
use crate::nn::vit::{self, Block, resize_positions};
use crate::task::Sensor;
use crate::{Error, Result};

/// The sizes of a TerraFM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TerraFmConfig {
    /// Length of a token, d.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Hidden width of a block's MLP, in multiples of `width`.
    pub mlp_ratio: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Rows and columns of the stored position embedding.
    pub positions: usize,
    /// Blocks (0-based) whose tokens are the feature maps.
    #[serde(default)]
    pub map_layers: Vec<usize>,
}

impl Sizes for TerraFmConfig {
    fn problem(&self) -> Option<String> {
        let sizes = [self.width, self.depth, self.heads, self.mlp_ratio, self.patch, self.positions];
        if sizes.contains(&0) {
            return Some(
                "expected width, depth, heads, mlp-ratio, patch and positions above 0, found a 0".to_owned(),
            );
        }
        if !self.width.is_multiple_of(self.heads) {
            return Some(format!(
                "width: expected a multiple of the {} heads, found {}",
                self.heads, self.width
            ));
        }
        let layer = self.map_layers.iter().find(|layer| **layer >= self.depth)?;
        Some(format!("map-layers: expected blocks below {} (0-based), found {layer}", self.depth))
    }

    fn poolings(&self) -> &'static [Pooling] {
        POOLINGS
    }

    fn maps(&self) -> Vec<MapLevel> {
        vec![MapLevel { width: self.width, stride: self.patch }; self.map_layers.len()]
    }

    fn blocks(&self) -> Option<usize> {
        Some(self.depth)
    }

    fn keep_blocks(&mut self, count: usize) {
        self.depth = count;
        self.map_layers.retain(|layer| *layer < count);
    }
}

const POOLINGS: &[Pooling] = &[Pooling::Class, Pooling::Mean];

/// The projection shared by all stems.
#[derive(Module, Debug)]
pub struct TokenProjection {
    pub(crate) proj1: Linear,
    pub(crate) norm_input: LayerNorm,
    pub(crate) proj2: Linear,
    pub(crate) proj3: Linear,
}

impl TokenProjection {
    fn new(stem_width: usize, width: usize, device: &Device) -> Self {
        TokenProjection {
            proj1: LinearConfig::new(stem_width, stem_width).with_bias(false).init(device),
            // Upstream builds this norm, unlike those of the blocks, with PyTorch's default epsilon.
            norm_input: LayerNormConfig::new(stem_width).with_epsilon(1e-5).init(device),
            proj2: LinearConfig::new(stem_width, stem_width).init(device),
            proj3: LinearConfig::new(stem_width, width).init(device),
        }
    }

    /// [n, t, 3d] to [n, t, d].
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.norm_input.forward(self.proj1.forward(x));
        self.proj3.forward(self.proj2.forward(x))
    }
}

/// Embeds patches with the stem of their sensor.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    s2_l2a_embed: Option<Param<Tensor<2>>>,
    s2_l1c_embed: Option<Param<Tensor<2>>>,
    s1_embed: Option<Param<Tensor<2>>>,
    conv2d_s2_l2a: Option<PatchConv>,
    conv2d_s2_l1c: Option<PatchConv>,
    conv2d_s1: Option<PatchConv>,
    pub(crate) projection: TokenProjection,
}

impl PatchEmbed {
    fn new(config: &TerraFmConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let TerraFmConfig { width, patch, .. } = *config;
        let stem_width = 3 * width;
        let embed = |sensor| sensors.get(&sensor).map(|_| Initializer::Zeros.init([1, stem_width], device));
        let conv = |sensor| {
            let bands = sensors.get(&sensor)?.bands.len();
            Some(PatchConv::new(bands, stem_width, patch, device))
        };
        PatchEmbed {
            s2_l2a_embed: embed(Sensor::S2_L2A),
            s2_l1c_embed: embed(Sensor::S2_L1C),
            s1_embed: embed(Sensor::S1),
            conv2d_s2_l2a: conv(Sensor::S2_L2A),
            conv2d_s2_l1c: conv(Sensor::S2_L1C),
            conv2d_s1: conv(Sensor::S1),
            projection: TokenProjection::new(stem_width, width, device),
        }
    }

    /// Returns the stem's convolution and its learned vector [1, 3d].
    pub(crate) fn stem(&self, sensor: Sensor) -> Option<(&PatchConv, Tensor<2>)> {
        let (conv, embed) = match sensor {
            Sensor::S2_L2A => (&self.conv2d_s2_l2a, &self.s2_l2a_embed),
            Sensor::S2_L1C => (&self.conv2d_s2_l1c, &self.s2_l1c_embed),
            Sensor::S1 => (&self.conv2d_s1, &self.s1_embed),
            _ => return None,
        };
        Some((conv.as_ref()?, embed.as_ref()?.val()))
    }
}

/// The trainable encoder with all its parameters. [`super::frozen`] provides the faster one for inference.
#[derive(Module, Debug)]
pub struct TerraFm {
    cls_token: Param<Tensor<3>>,
    pos_embed: Param<Tensor<3>>,
    pub(crate) patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    pub(crate) config: TerraFmConfig,
    #[module(skip)]
    pub(crate) sensors: BTreeMap<Sensor, SensorInput>,
}

impl Network for TerraFm {
    type Config = TerraFmConfig;

    /// Builds the network with one patch embedding per sensor.
    fn new(config: &TerraFmConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let TerraFmConfig { width, depth, heads, mlp_ratio, positions, .. } = *config;
        TerraFm {
            cls_token: Initializer::Zeros.init([1, 1, width], device),
            pos_embed: Initializer::Zeros.init([1, 1 + positions * positions, width], device),
            patch_embed: PatchEmbed::new(config, sensors, device),
            blocks: (0..depth).map(|_| Block::new(width, heads, mlp_ratio, device)).collect(),
            norm: vit::norm(width, device),
            config: config.clone(),
            sensors: sensors.clone(),
        }
    }

    fn frozen(self) -> Box<dyn Encoder> {
        Box::new(Frozen::new(self))
    }
}

impl TerraFm {
    /// Embeds patches: [n, bands, h, w] to [n, t, d].
    ///
    /// # Errors
    /// If the model lacks the stem, or the images' bands or size do not suit it.
    pub fn embed(&self, images: Tensor<4>, sensor: Sensor) -> Result<Tensor<3>> {
        self.check(&images, sensor)?;
        let (conv, embed) = self.patch_embed.stem(sensor).ok_or_else(|| no_stem(sensor))?;
        Ok(self.patch_embed.projection.forward(conv.forward(images) + embed.unsqueeze::<3>()))
    }

    /// Position embeddings of h x w images: [1, 1 + t, d], class token first.
    pub fn positions(&self, h: usize, w: usize) -> Tensor<3> {
        let TerraFmConfig { patch, positions, .. } = self.config;
        if (h, w) == (positions * patch, positions * patch) {
            return self.pos_embed.val();
        }
        resize_positions(self.pos_embed.val(), positions, h / patch, w / patch)
    }

    /// Prepends the class token to embedded patches of h x w images and adds positions: [n, t, d] to [n, 1 + t, d].
    fn tokens(&self, embedded: Tensor<3>, [h, w]: [usize; 2]) -> Tensor<3> {
        let [n, _, d] = embedded.dims();
        let class = self.cls_token.val().expand([n, 1, d]);
        Tensor::cat(vec![class, embedded], 1) + self.positions(h, w)
    }

    /// Returns the class token after the last block and the final norm: embedded patches [n, t, d] of h x w images to [n,
    /// d].
    pub(crate) fn class_features(&self, embedded: Tensor<3>, size: [usize; 2]) -> Tensor<2> {
        let mut tokens = self.tokens(embedded, size);
        if let Some((last, blocks)) = self.blocks.split_last() {
            tokens = blocks.iter().fold(tokens, |tokens, block| block.forward(tokens));
            // The last block's other tokens are not used.
            tokens = last.forward_first(tokens, 1);
        }
        self.norm.forward(tokens).squeeze_dim(1)
    }

    /// Returns the patch tokens after each of the configured layers and the final norm, in the order of the layers:
    /// embedded patches [n, t, d] of h x w images to [n, d, h / patch, w / patch] each.
    pub(crate) fn maps(&self, embedded: Tensor<3>, [h, w]: [usize; 2]) -> Vec<Tensor<4>> {
        let TerraFmConfig { patch, ref map_layers, .. } = self.config;
        let [n, _, d] = embedded.dims();
        let needed = map_layers.iter().max().map_or(0, |last| last + 1);
        let mut tokens = self.tokens(embedded, [h, w]);
        let mut maps = Vec::with_capacity(map_layers.len());
        for (layer, block) in self.blocks.iter().enumerate().take(needed) {
            tokens = block.forward(tokens);
            if map_layers.contains(&layer) {
                let patches = self.norm.forward(tokens.clone().slice_dim(1, 1..));
                maps.push(patches.swap_dims(1, 2).reshape([n, d, h / patch, w / patch]));
            }
        }
        maps
    }

    /// Checks that `images` suit the patch embedding of `sensor`.
    pub(crate) fn check(&self, images: &Tensor<4>, sensor: Sensor) -> Result<()> {
        let [n, bands, h, w] = images.dims();
        let known = || self.sensors.keys().map(Sensor::to_string).collect::<Vec<_>>().join(", ");
        let Some(input) = self.sensors.get(&sensor) else {
            let problem = format!("no patch embedding for sensor {sensor} found");
            return Err(
                Error::mismatch(problem).help(format!("the model has patch embeddings for {}", known()))
            );
        };
        let (expected, patch) = (input.bands.len(), self.config.patch);
        if bands != expected {
            Err(Error::mismatch(format!("sensor {sensor}: expected {expected} bands, found {bands}")))
        } else if n == 0 || h < patch || w < patch || h % patch != 0 || w % patch != 0 {
            let problem = format!(
                "expected images with sides that are multiples of {patch} pixels, found {n} of {h} x {w}"
            );
            let side = patch * self.config.positions;
            Err(Error::mismatch(problem)
                .help(format!("resize the images to a multiple of {patch}, such as {side} x {side}")))
        } else {
            Ok(())
        }
    }

    /// Fulfils a request for embedded patches [n, t, d] of h x w images.
    pub(crate) fn give(&self, embedded: Tensor<3>, size: [usize; 2], want: Want) -> Result<Encoded> {
        let patch = self.config.patch;
        Ok(match want {
            Want::Pooled(Pooling::Class) => Encoded::Pooled(self.class_features(embedded, size)),
            Want::Pooled(Pooling::Mean) => {
                let tokens = self.last_tokens(embedded, size).slice_dim(1, 1..);
                Encoded::Pooled(tokens.mean_dim(1).squeeze_dim(1))
            }
            Want::Pooled(other) => return Err(encoder::no_pooling(other, POOLINGS)),
            Want::Tokens => {
                let tokens = self.last_tokens(embedded, size).slice_dim(1, 1..);
                Encoded::Tokens { tokens, grid: size.map(|side| side / patch) }
            }
            Want::Maps => {
                let maps = self.maps(embedded, size);
                Encoded::Maps(maps.into_iter().map(|values| Map { values, stride: patch }).collect())
            }
        })
    }

    /// Returns all tokens after the last block and the final norm: embedded patches [n, t, d] to [n, 1 + t, d].
    fn last_tokens(&self, embedded: Tensor<3>, size: [usize; 2]) -> Tensor<3> {
        let tokens = self.tokens(embedded, size);
        self.norm.forward(self.blocks.iter().fold(tokens, |tokens, block| block.forward(tokens)))
    }
}

fn no_stem(sensor: Sensor) -> Error {
    Error::mismatch(format!("no patch embedding for sensor {sensor} found in the model"))
}

impl Encoder for TerraFm {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.width
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let Input { sensor, pixels, .. } = batch.only()?;
        let [_, _, h, w] = pixels.dims();
        self.give(self.embed(pixels.clone(), *sensor)?, [h, w], want)
    }
}
