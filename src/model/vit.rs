//! A plain vision transformer [Dosovitskiy et al., arXiv 2010.11929], as built by timm. Untrained or trained from scratch,
//! it is the baseline of the published tables. It takes any sensor and any number of bands.
//!
//! Fields are named as in timm, so that a parameter's path is its name in a weight file. n is the number of images,
//! t = rows * columns the number of patches, d the width.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Input, Map, Pooling, Want};
use super::network::{Network, Sizes};
use super::requests::{check_bands, check_patches, known_input, layer_beyond};
use super::sensor_input::SensorInput;
use crate::Result;
use crate::nn::heads::upernet::MapLevel;
use crate::nn::patch::PatchConv;
use crate::nn::vit::{self, Block};
use crate::nn::{cubic, positions, tokens};
use crate::task::Sensor;
use crate::task::bands::Band;

/// Model name in error messages.
const NAME: &str = "vit";

/// The sizes of a [`Vit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VitConfig {
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
    /// Rows and columns of the stored position embedding. For other grids, positions are resized.
    pub positions: usize,
    /// Blocks (0-based) whose tokens are the feature maps, in ascending order.
    #[serde(default)]
    pub map_layers: Vec<usize>,
}

impl Sizes for VitConfig {
    fn problem(&self) -> Option<String> {
        let VitConfig { width, depth, heads, mlp_ratio, patch, positions, ref map_layers } = *self;
        if [width, depth, heads, mlp_ratio, patch, positions].contains(&0) {
            Some("expected width, depth, heads, mlp-ratio, patch and positions above 0, found a 0".to_owned())
        } else if !width.is_multiple_of(heads) {
            Some(format!("width: expected a multiple of the {heads} heads, found {width}"))
        } else if !map_layers.is_sorted_by(|one, next| one < next) {
            Some(format!("map-layers: expected blocks in ascending order, found {map_layers:?}"))
        } else {
            layer_beyond("map-layers", map_layers, depth)
        }
    }

    fn poolings(&self) -> &'static [Pooling] {
        &[Pooling::Class, Pooling::Mean, Pooling::MeanAll, Pooling::Head]
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

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: PatchConv,
}

/// A plain vision transformer without a head. With several sensors its patch embedding has one channel per distinct band;
/// bands that a sensor lacks are zero.
#[derive(Module, Debug)]
pub struct Vit {
    /// [1, 1, d].
    cls_token: Param<Tensor<3>>,
    /// [1, 1 + side², d], class token first.
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    config: VitConfig,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
    /// The band of each channel of the patch embedding.
    #[module(skip)]
    channels: Vec<Band>,
}

impl Network for Vit {
    type Config = VitConfig;

    fn new(config: &VitConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let VitConfig { width, depth, heads, mlp_ratio, patch, positions, .. } = *config;
        let channels = distinct_bands(sensors);
        Vit {
            cls_token: Initializer::Zeros.init([1, 1, width], device),
            pos_embed: Initializer::Zeros.init([1, 1 + positions * positions, width], device),
            patch_embed: PatchEmbed { proj: PatchConv::new(channels.len(), width, patch, device) },
            blocks: (0..depth).map(|_| Block::new(width, heads, mlp_ratio, device)).collect(),
            norm: vit::norm(width, device),
            config: config.clone(),
            sensors: sensors.clone(),
            channels,
        }
    }
}

impl Vit {
    /// Embeds patches of images that suit the model: [n, bands, h, w] to [n, t, d].
    fn embed(&self, input: &Input) -> Tensor<3> {
        let bands = &self.sensors[&input.sensor].bands;
        self.patch_embed.proj.forward(spread(input.pixels.clone(), bands, &self.channels))
    }

    /// Position embeddings of a grid of [rows, columns] patches: [1, 1 + t, d], class token first.
    pub fn positions(&self, grid: [usize; 2]) -> Tensor<3> {
        positions::resize(self.pos_embed.val(), self.config.positions, grid, cubic::antialiased)
    }

    /// Returns the input of the first block: [n, bands, h, w] to [n, 1 + t, d].
    fn first_tokens(&self, input: &Input, grid: [usize; 2]) -> Tensor<3> {
        tokens::with_class(self.cls_token.val(), self.embed(input)) + self.positions(grid)
    }

    /// Pools the input of the first block into one vector per image: [n, 1 + t, d] to [n, d].
    fn pool(&self, first: Tensor<3>, pooling: Pooling) -> Tensor<2> {
        let all = |first| tokens::after_all(&self.blocks, first); // [n, 1 + t, d]
        let pooled = match pooling {
            Pooling::Class => self.norm.forward(tokens::first_after_all(&self.blocks, first)),
            Pooling::Mean => self.norm.forward(all(first)).slice_dim(1, 1..).mean_dim(1),
            Pooling::MeanUnnormed => all(first).slice_dim(1, 1..).mean_dim(1),
            Pooling::MeanAll => self.norm.forward(all(first)).mean_dim(1),
            // timm's `fc_norm`: the norm comes after the mean.
            Pooling::Head => self.norm.forward(all(first).slice_dim(1, 1..).mean_dim(1)),
        };
        pooled.squeeze_dim(1) // [n, 1, d] to [n, d]
    }
}

impl Encoder for Vit {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.width
    }

    /// Tokens are taken after the final norm. Maps are taken without it, as in Copernicus-Bench's baseline.
    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let VitConfig { patch, ref map_layers, .. } = self.config;
        let input = known_input(NAME, batch, &self.sensors)?;
        check_bands(NAME, input, self.sensors[&input.sensor].bands.len())?;
        check_patches(NAME, input, patch)?;
        let [_, _, h, w] = input.pixels.dims();
        let grid = [h / patch, w / patch];
        let first = self.first_tokens(input, grid); // [n, 1 + t, d]
        Ok(match want {
            Want::Pooled(pooling) => Encoded::Pooled(self.pool(first, pooling)),
            Want::Tokens => {
                let tokens = self.norm.forward(tokens::after_all(&self.blocks, first));
                Encoded::Tokens { tokens: tokens.slice_dim(1, 1..), grid }
            }
            Want::Maps => {
                let layers = tokens::after_layers(&self.blocks, first, map_layers).into_iter();
                let map = |tokens: Tensor<3>| tokens::as_map(tokens.slice_dim(1, 1..), grid);
                Encoded::Maps(layers.map(|tokens| Map { values: map(tokens), stride: patch }).collect())
            }
        })
    }
}

/// Returns the bands of all sensors, each once, in the order of their first occurrence.
fn distinct_bands(sensors: &BTreeMap<Sensor, SensorInput>) -> Vec<Band> {
    let mut distinct = Vec::new();
    for band in sensors.values().flat_map(|sensor| &sensor.bands) {
        if !distinct.contains(band) {
            distinct.push(*band);
        }
    }
    distinct
}

/// Distributes bands to channels; channels without a band become zero: [n, bands, h, w] to [n, channels, h, w].
fn spread(images: Tensor<4>, bands: &[Band], channels: &[Band]) -> Tensor<4> {
    if bands == channels {
        return images;
    }
    let device = images.device();
    let zeros = images.zeros_like().slice_dim(1, 0..1);
    let source = |channel| bands.iter().position(|band| band == channel).unwrap_or(bands.len());
    let sources: Vec<i32> = channels.iter().map(|channel| source(channel) as i32).collect();
    let sources = Tensor::<1, Int>::from_data(TensorData::new(sources, [channels.len()]), &device);
    Tensor::cat(vec![images, zeros], 1).select(1, sources)
}
