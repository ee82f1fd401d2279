//! Prithvi-EO-2.0 [Szwarcman et al., arXiv 2412.02732; NASA-IMPACT/Prithvi-EO-2.0] without time and location embeddings: a
//! plain vision transformer for a single date with fixed position embeddings.
//!
//! Fields are named as in the checkpoint, so that a parameter's path is its name there. n is the number of images,
//! t = rows * columns the number of patches, d the width.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Map, Pooling, Want, no_pooling};
use super::network::{Network, Sizes};
use super::requests::{check_bands, check_patches, known_input};
use super::sensor_input::SensorInput;
use super::vit::VitConfig;
use crate::Result;
use crate::nn::heads::upernet::MapLevel;
use crate::nn::kernels::biased_product;
use crate::nn::patch::patches;
use crate::nn::positions::sines;
use crate::nn::tokens;
use crate::nn::vit::{self, Block};
use crate::task::Sensor;

/// Model name in error messages.
const NAME: &str = "prithvi2";

/// The sizes of a [`Prithvi2`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Prithvi2Config {
    /// Length of a token, d, a multiple of 16.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Hidden width of a block's MLP, in multiples of `width`.
    pub mlp_ratio: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Blocks (0-based) whose tokens are the feature maps, in ascending order.
    #[serde(default)]
    pub map_layers: Vec<usize>,
}

impl Sizes for Prithvi2Config {
    fn problem(&self) -> Option<String> {
        let Prithvi2Config { width, depth, heads, mlp_ratio, patch, ref map_layers } = *self;
        let map_layers = map_layers.clone();
        let plain = VitConfig { width, depth, heads, mlp_ratio, patch, positions: 1, map_layers };
        plain.problem().or_else(|| {
            (!width.is_multiple_of(16)).then(|| format!("width: expected a multiple of 16, found {width}"))
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

const POOLINGS: &[Pooling] = &[Pooling::Mean, Pooling::MeanAll, Pooling::Class];

/// A convolution over one date whose stride equals its kernel.
#[derive(Module, Debug)]
struct DateConv {
    /// [d, bands, 1, patch, patch].
    weight: Param<Tensor<5>>,
    /// [d].
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: DateConv,
}

/// The transformer.
#[derive(Module, Debug)]
struct Transformer {
    /// [1, 1, d].
    cls_token: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

/// Prithvi's encoder.
#[derive(Module, Debug)]
pub struct Prithvi2 {
    encoder: Transformer,
    #[module(skip)]
    config: Prithvi2Config,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
}

impl Network for Prithvi2 {
    type Config = Prithvi2Config;

    /// Builds the network. All sensors share all parameters and have the same number of bands.
    fn new(config: &Prithvi2Config, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let Prithvi2Config { width, depth, heads, mlp_ratio, patch, .. } = *config;
        let bands = sensors.values().map(|sensor| sensor.bands.len()).max().unwrap_or(0);
        let proj = DateConv {
            weight: Initializer::Zeros.init([width, bands, 1, patch, patch], device),
            bias: Initializer::Zeros.init([width], device),
        };
        Prithvi2 {
            encoder: Transformer {
                cls_token: Initializer::Zeros.init([1, 1, width], device),
                patch_embed: PatchEmbed { proj },
                blocks: (0..depth).map(|_| Block::new(width, heads, mlp_ratio, device)).collect(),
                norm: vit::norm(width, device),
            },
            config: config.clone(),
            sensors: sensors.clone(),
        }
    }
}

impl Prithvi2 {
    /// Embeds patches: [n, bands, h, w] to [n, t, d].
    pub fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let DateConv { weight, bias } = &self.encoder.patch_embed.proj;
        let weight = weight.val().flatten::<2>(1, 4).transpose(); // [bands * patch * patch, d]
        biased_product(patches(images, self.config.patch), weight, bias.val())
    }

    /// Position embeddings of a grid of [rows, columns] patches: [1, 1 + t, d], class token first.
    pub fn positions(&self, [rows, columns]: [usize; 2], device: &Device) -> Tensor<3> {
        let width = self.config.width;
        let table = position_table([rows, columns], width);
        Tensor::from_data(TensorData::new(table, [1, 1 + rows * columns, width]), device)
    }

    /// Returns the input of the first block: [n, bands, h, w] to [n, 1 + t, d].
    fn first_tokens(&self, images: Tensor<4>) -> Tensor<3> {
        let [_, _, h, w] = images.dims();
        let positions = self.positions(self.grid([h, w]), &images.device());
        tokens::with_class(self.encoder.cls_token.val(), self.embed(images)) + positions
    }

    /// Returns all tokens, class token first, after each of the blocks (0-based) in `layers`: [n, bands, h, w] to [n, 1 +
    /// t, d] each. The final norm is applied to those of the last block only.
    pub fn layers(&self, images: Tensor<4>, layers: &[usize]) -> Vec<Tensor<3>> {
        let Transformer { blocks, norm, .. } = &self.encoder;
        let mut found = tokens::after_layers(blocks, self.first_tokens(images), layers);
        if layers.contains(&(blocks.len() - 1)) {
            let last = found.pop().map(|tokens| norm.forward(tokens));
            found.extend(last);
        }
        found
    }

    fn grid(&self, [h, w]: [usize; 2]) -> [usize; 2] {
        [h / self.config.patch, w / self.config.patch]
    }
}

impl Encoder for Prithvi2 {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.width
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let Prithvi2Config { patch, ref map_layers, .. } = self.config;
        let input = known_input(NAME, batch, &self.sensors)?;
        check_bands(NAME, input, self.encoder.patch_embed.proj.weight.dims()[1])?;
        check_patches(NAME, input, patch)?;
        let images = input.pixels.clone();
        let [_, _, h, w] = images.dims();
        let Transformer { blocks, norm, .. } = &self.encoder;
        let normed = |images| norm.forward(tokens::after_all(blocks, self.first_tokens(images))); // [n, 1 + t, d]
        Ok(match want {
            Want::Pooled(pooling) => {
                let pooled = match pooling {
                    Pooling::Mean => normed(images).slice_dim(1, 1..).mean_dim(1),
                    Pooling::MeanAll => normed(images).mean_dim(1),
                    Pooling::Class => {
                        norm.forward(tokens::first_after_all(blocks, self.first_tokens(images)))
                    }
                    Pooling::MeanUnnormed | Pooling::Head => return Err(no_pooling(pooling, POOLINGS)),
                };
                Encoded::Pooled(pooled.squeeze_dim(1)) // [n, 1, d] to [n, d]
            }
            Want::Tokens => {
                Encoded::Tokens { tokens: normed(images).slice_dim(1, 1..), grid: self.grid([h, w]) }
            }
            Want::Maps => {
                let map = |tokens: Tensor<3>| tokens::as_map(tokens.slice_dim(1, 1..), self.grid([h, w]));
                let layers = self.layers(images, map_layers).into_iter();
                Encoded::Maps(layers.map(|tokens| Map { values: map(tokens), stride: patch }).collect())
            }
        })
    }
}

/// Position embeddings [1 + rows * columns, width]: zeros for the class token; then for each patch 6/16 of the width for
/// its column, 6/16 for its row, and 4/16 for its date, which is the first.
fn position_table([rows, columns]: [usize; 2], width: usize) -> Vec<f32> {
    let place = width / 16 * 6;
    let (by_row, by_column) = (sines(rows, place), sines(columns, place));
    let date = sines(1, width - 2 * place);
    let mut table = vec![0.0; width];
    for row in by_row.rows() {
        for column in by_column.rows() {
            let parts = [column, row, date.row(0)];
            table.extend(parts.iter().flatten().map(|value| *value as f32));
        }
    }
    table
}
