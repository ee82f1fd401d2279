//! SatMAE [Cong et al., arXiv 2207.08051; sustainlab-group/SatMAE] and SatMAE++ [Noman et al., arXiv 2403.05419;
//! techmn/satmae_pp]: a vision transformer with one patch embedding per group of Sentinel-2 bands. Both have the same
//! encoder.
//!
//! Fields are named as in the checkpoints, so that a parameter's path is its name there. n is the number of images, g = 3
//! the number of groups, t = rows * columns the number of patches, d the width.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Input, Map, Pooling, Want, no_pooling};
use super::network::{Network, Sizes};
use super::requests::{check_bands, check_patches, known_input};
use super::sensor_input::SensorInput;
use super::vit::VitConfig;
use crate::nn::heads::upernet::MapLevel;
use crate::nn::patch::PatchConv;
use crate::nn::vit::{self, Block};
use crate::nn::{positions, tokens};
use crate::task::Sensor;
use crate::{Error, Result};

/// Model name in error messages.
const NAME: &str = "satmae";

/// Channels of each group. The model was trained on B02 B03 B04 B05 B06 B07 B08 B8A B11 B12.
const GROUPS: [&[usize]; 3] = [&[0, 1, 2, 6], &[3, 4, 5, 7], &[8, 9]];

/// Number of channels in [`GROUPS`].
const BANDS: usize = 10;

/// The sizes of a [`SatMae`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SatMaeConfig {
    /// Length of a token, d.
    pub width: usize,
    /// Number of a token's last values that hold the embedding of the group; the others hold that of the position.
    pub group_width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Hidden width of a block's MLP, in multiples of `width`.
    pub mlp_ratio: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Rows and columns of the stored position embedding. For other grids, positions are resized.
    pub positions: usize,
    /// Blocks (0-based) whose tokens are the feature maps, in ascending order.
    #[serde(default)]
    pub map_layers: Vec<usize>,
}

impl Sizes for SatMaeConfig {
    fn problem(&self) -> Option<String> {
        let SatMaeConfig { width, group_width, depth, heads, mlp_ratio, patch, positions, ref map_layers } =
            *self;
        let map_layers = map_layers.clone();
        let plain = VitConfig { width, depth, heads, mlp_ratio, patch, positions, map_layers };
        plain.problem().or_else(|| {
            (group_width == 0 || group_width >= width)
                .then(|| format!("group-width: expected 1 to {}, found {group_width}", width - 1))
        })
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

const POOLINGS: &[Pooling] = &[Pooling::Mean, Pooling::Class];

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: PatchConv,
}

/// SatMAE's encoder.
#[derive(Module, Debug)]
pub struct SatMae {
    /// [1, 1, d].
    cls_token: Param<Tensor<3>>,
    /// [1, 1 + side², d - group-width], class token first.
    pos_embed: Param<Tensor<3>>,
    /// [1, g, group-width].
    channel_embed: Param<Tensor<3>>,
    /// One patch embedding per group.
    patch_embed: Vec<PatchEmbed>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    config: SatMaeConfig,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
}

impl Network for SatMae {
    type Config = SatMaeConfig;

    /// Builds the network. All sensors share all parameters.
    fn new(config: &SatMaeConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let SatMaeConfig { width, group_width, depth, heads, mlp_ratio, patch, positions, .. } = *config;
        let embed = |bands: &[usize]| PatchEmbed { proj: PatchConv::new(bands.len(), width, patch, device) };
        SatMae {
            cls_token: Initializer::Zeros.init([1, 1, width], device),
            pos_embed: Initializer::Zeros.init([1, 1 + positions * positions, width - group_width], device),
            channel_embed: Initializer::Zeros.init([1, GROUPS.len(), group_width], device),
            patch_embed: GROUPS.map(embed).into(),
            blocks: (0..depth).map(|_| Block::new(width, heads, mlp_ratio, device)).collect(),
            norm: vit::norm(width, device),
            config: config.clone(),
            sensors: sensors.clone(),
        }
    }
}

impl SatMae {
    /// Embeds patches group by group: [n, 10, h, w] to [n, g t, d].
    pub fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let group = |(embed, bands): (&PatchEmbed, &[usize])| {
            let bands = bands.iter().map(|band| images.clone().slice_dim(1, *band..band + 1)).collect();
            embed.proj.forward(Tensor::cat(bands, 1)) // [n, t, d]
        };
        Tensor::cat(self.patch_embed.iter().zip(GROUPS).map(group).collect(), 1)
    }

    /// Position embeddings of a grid of [rows, columns] patches: [1, 1 + t, d - group-width], class token first.
    pub fn positions(&self, grid: [usize; 2]) -> Tensor<3> {
        positions::resize(self.pos_embed.val(), self.config.positions, grid, positions::half_pixel)
    }

    /// Position and group embeddings of all tokens: [1, 1 + g t, d], class token first.
    fn added(&self, grid: [usize; 2]) -> Tensor<3> {
        let positions = self.positions(grid);
        let groups = self.channel_embed.val();
        let [_, count, group_width] = groups.dims();
        let class = positions.clone().slice_dim(1, 0..1);
        let places = positions.slice_dim(1, 1..);
        let t = places.dims()[1];
        // The checkpoint has no group embedding for the class token.
        let none = groups.zeros_like().slice_dim(1, 0..1);
        let mut parts = vec![Tensor::cat(vec![class, none], 2)]; // [1, 1, d]
        for group in 0..count {
            let group = groups.clone().slice_dim(1, group..group + 1).expand([1, t, group_width]);
            parts.push(Tensor::cat(vec![places.clone(), group], 2)); // [1, t, d]
        }
        Tensor::cat(parts, 1)
    }

    /// Returns the input of the first block: [n, 10, h, w] to [n, 1 + g t, d].
    fn first_tokens(&self, images: Tensor<4>, grid: [usize; 2]) -> Tensor<3> {
        tokens::with_class(self.cls_token.val(), self.embed(images)) + self.added(grid)
    }

    /// Returns all tokens, class token first, after each of the blocks (0-based) in `layers`, without the final norm: [n,
    /// 10, h, w] to [n, 1 + g t, d] each.
    pub fn layers(&self, images: Tensor<4>, layers: &[usize]) -> Vec<Tensor<3>> {
        let [_, _, h, w] = images.dims();
        let grid = [h / self.config.patch, w / self.config.patch];
        tokens::after_layers(&self.blocks, self.first_tokens(images, grid), layers)
    }

    /// Checks that the batch can be encoded.
    fn check<'b>(&self, batch: &'b Batch) -> Result<&'b Input> {
        let input = known_input(NAME, batch, &self.sensors)?;
        let listed = self.sensors[&input.sensor].bands.len();
        if listed != BANDS {
            let problem =
                format!("{NAME}, sensor {}: expected {BANDS} listed bands, found {listed}", input.sensor);
            return Err(
                Error::mismatch(problem).help("list ten bands in the model's file in configs/models/")
            );
        }
        check_bands(NAME, input, BANDS)?;
        check_patches(NAME, input, self.config.patch)?;
        Ok(input)
    }
}

/// Averages over the groups of each patch, without the class token: [n, 1 + g t, d] to [n, t, d].
fn places(tokens: Tensor<3>) -> Tensor<3> {
    let [n, all, d] = tokens.dims();
    let groups = tokens.slice_dim(1, 1..).reshape([n, GROUPS.len(), (all - 1) / GROUPS.len(), d]);
    groups.mean_dim(1).squeeze_dim(1)
}

impl Encoder for SatMae {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.width
    }

    /// As in the published evaluations, the norm is only applied to the class token.
    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let input = self.check(batch)?;
        let SatMaeConfig { patch, ref map_layers, .. } = self.config;
        let [_, _, h, w] = input.pixels.dims();
        let grid = [h / patch, w / patch];
        let first = || self.first_tokens(input.pixels.clone(), grid); // [n, 1 + g t, d]
        Ok(match want {
            Want::Pooled(Pooling::Mean) => {
                let tokens = tokens::after_all(&self.blocks, first());
                Encoded::Pooled(tokens.slice_dim(1, 1..).mean_dim(1).squeeze_dim(1))
            }
            Want::Pooled(Pooling::Class) => {
                let class = tokens::first_after_all(&self.blocks, first());
                Encoded::Pooled(self.norm.forward(class).squeeze_dim(1))
            }
            Want::Pooled(other) => {
                return Err(no_pooling(other, POOLINGS));
            }
            Want::Tokens => {
                Encoded::Tokens { tokens: places(tokens::after_all(&self.blocks, first())), grid }
            }
            Want::Maps => {
                let layers = tokens::after_layers(&self.blocks, first(), map_layers).into_iter();
                let map = |tokens| Map { values: tokens::as_map(places(tokens), grid), stride: patch };
                Encoded::Maps(layers.map(map).collect())
            }
        })
    }
}
