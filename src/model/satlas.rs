//! Satlas [Bastani et al., arXiv 2211.15660; allenai/satlas]: a Swin Transformer V2 [Liu et al., arXiv 2111.09883] for
//! single Sentinel-2 images.
//!
//! Fields are named as in torchvision's model, so that a parameter's path is its name in the published files. Maps are
//! channels-last internally. C is the number of channels of a stage, s = 8 the side of a window, k its 64 positions.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Map, Pooling, Want};
use super::network::{Network, Sizes};
use super::requests;
use super::sensor_input::SensorInput;
use crate::nn::attention::{self, Logits};
use crate::nn::heads::upernet::MapLevel;
use crate::nn::kernels;
use crate::nn::patch::PatchConv;
use crate::nn::windows::Windows;
use crate::task::Sensor;
use crate::{Error, Result, device};

const NAME: &str = "Satlas";

/// Supported poolings.
const POOLINGS: &[Pooling] = &[Pooling::Mean];

/// The epsilon of every norm.
const EPSILON: f64 = 1e-5;

/// Hidden width of a block's MLP, in multiples of C.
const MLP_RATIO: usize = 4;

/// Side of a patch in pixels.
const PATCH: usize = 4;

/// Side of a window, s.
const WINDOW: usize = 8;

/// Hidden width of the position bias's MLP.
const BIAS_WIDTH: usize = 512;

/// Sides of images must be multiples of this, so that every map can be divided into windows.
const MULTIPLE: usize = 8 * PATCH * WINDOW;

/// The sizes of a Satlas encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SatlasConfig {
    /// Channels of the first stage. Each subsequent stage has twice as many.
    pub width: usize,
    /// Number of blocks per stage.
    pub depths: [usize; 4],
    /// Attention heads per stage; each divides the stage's channels.
    pub heads: [usize; 4],
}

impl Sizes for SatlasConfig {
    fn problem(&self) -> Option<String> {
        if self.width == 0 || self.depths.contains(&0) || self.heads.contains(&0) {
            return Some("expected width, depths and heads above 0".to_owned());
        }
        (0..4).find(|stage| !self.channels(*stage).is_multiple_of(self.heads[*stage])).map(|stage| {
            let (channels, heads) = (self.channels(stage), self.heads[stage]);
            format!("expected heads that divide the {channels} channels of stage {stage}, found {heads}")
        })
    }

    fn poolings(&self) -> &'static [Pooling] {
        POOLINGS
    }

    fn maps(&self) -> Vec<MapLevel> {
        (0..4).map(|stage| MapLevel { width: self.channels(stage), stride: PATCH << stage }).collect()
    }
}

impl SatlasConfig {
    fn channels(&self, stage: usize) -> usize {
        self.width << stage
    }
}

/// A layer without parameters. It only counts in the names of the layers after it.
#[derive(Module, Debug)]
pub struct Unnamed;

/// Windowed self-attention by cosine similarity, with a bias for the relative position.
#[derive(Module, Debug)]
pub struct Attention {
    /// [heads, 1, 1].
    logit_scale: Param<Tensor<3>>,
    qkv: Linear,
    proj: Linear,
    cpb_mlp: (Linear, Unnamed, Linear),
}

impl Attention {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        Attention {
            logit_scale: Initializer::Zeros.init([heads, 1, 1], device),
            qkv: LinearConfig::new(width, 3 * width).init(device),
            proj: LinearConfig::new(width, width).init(device),
            cpb_mlp: (
                LinearConfig::new(2, BIAS_WIDTH).init(device),
                Unnamed,
                LinearConfig::new(BIAS_WIDTH, heads).with_bias(false).init(device),
            ),
        }
    }

    /// Returns the bias that is added to the logits of a query and a key for their positions in the window: [1, heads, k,
    /// k].
    fn position_bias(&self) -> Tensor<4> {
        let device = self.logit_scale.val().device();
        let offsets = 2 * WINDOW - 1;
        let table = TensorData::new(coordinates(), [offsets * offsets, 2]);
        let hidden = relu(self.cpb_mlp.0.forward(Tensor::<2>::from_data(table, &device)));
        let bias = sigmoid(self.cpb_mlp.2.forward(hidden)) * 16.0; // [225, heads]
        let heads = bias.dims()[1];
        let places = WINDOW * WINDOW;
        let index = TensorData::new(offset_indices(), [places * places]);
        let bias = bias.select(0, Tensor::<1, Int>::from_data(index, &device)); // [k * k, heads]
        bias.transpose().reshape([1, heads, places, places])
    }

    /// Attention within windows [m, k, C]. `mask` [4, 1, k, k] is added to the logits: to those of window i the one of
    /// `kinds`, entry i mod the length.
    fn forward(&self, x: Tensor<3>, mask: Option<(Tensor<4>, Vec<usize>)>) -> Tensor<3> {
        let [_, k, c] = x.dims();
        let heads = self.logit_scale.dims()[0];
        let device = x.device();

        // The key's bias is ignored, whatever the file contains.
        let bias = self.qkv.bias.as_ref().map(|bias| {
            let [ones, zeros] = [Tensor::<1>::ones([c], &device), Tensor::<1>::zeros([c], &device)];
            bias.val() * Tensor::cat(vec![ones.clone(), zeros, ones], 0)
        });
        let qkv = match bias {
            Some(bias) => kernels::biased_product(x, self.qkv.weight.val(), bias),
            None => kernels::linear(x, &self.qkv),
        };
        let scale = self.logit_scale.val().clamp_max(100_f32.ln()).exp().reshape([heads]);
        let position = self.position_bias();
        let (bias, kinds) = match mask {
            Some((mask, kinds)) => (position + mask, kinds),
            None => (position, Vec::new()),
        };
        let logits = Logits { scale: Some(1.0), bias: Some(bias), kinds };
        let x = attention::of_packed(with_unit_vectors(qkv, heads, scale), heads, k, logits); // [m, k, C]
        kernels::linear(x, &self.proj)
    }
}

/// Scales each head's queries to the length given for the head, and its keys to length 1: [m, k, 3C], with queries, keys and
/// values side by side.
fn with_unit_vectors(qkv: Tensor<3>, heads: usize, lengths: Tensor<1>) -> Tensor<3> {
    let [m, k, whole] = qkv.dims();
    let (c, device) = (whole / 3, qkv.device());
    if !device::is_host(&device) || device.is_autodiff() || qkv.dtype() != DType::F32 {
        let part = |i: usize| qkv.clone().slice_dim(2, i * c..(i + 1) * c).reshape([m, k, heads, c / heads]);
        let [q, keys, v] = [unit(part(0)) * lengths.reshape([1, 1, heads, 1]), unit(part(1)), part(2)];
        return Tensor::cat([q, keys, v].map(|x| x.reshape([m, k, c])).to_vec(), 2);
    }
    let (mut data, lengths) = (qkv.into_data(), lengths.into_data());
    // The type was checked.
    let lengths = lengths.as_slice::<f32>().unwrap_or_default();
    let (each, arch) = (c / heads, pulp::Arch::new());
    let window = (k * whole).max(1);
    data.as_mut_slice::<f32>().unwrap_or_default().par_chunks_mut(window).for_each(|values| {
        arch.dispatch(|| {
            for token in values.chunks_exact_mut(whole) {
                let (q, further) = token.split_at_mut(c);
                for (vector, length) in q.chunks_exact_mut(each).zip(lengths) {
                    rescale(vector, *length);
                }
                further[..c].chunks_exact_mut(each).for_each(|vector| rescale(vector, 1.0));
            }
        });
    });
    Tensor::from_data(data, &device)
}

/// Scales a vector to a length.
#[inline(always)]
fn rescale(vector: &mut [f32], length: f32) {
    let (chunks, rest) = vector.as_chunks::<8>();
    let mut squares = [0.0_f32; 8];
    for chunk in chunks {
        squares.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x * x);
    }
    let squares = squares.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>();
    // Not `max`, which would hide NaN.
    let squares = if squares < SMALLEST_SQUARE { SMALLEST_SQUARE } else { squares };
    let factor = length / squares.sqrt();
    vector.iter_mut().for_each(|x| *x *= factor);
}

/// Squares of lengths below it count as it, as in PyTorch's `normalize`.
const SMALLEST_SQUARE: f32 = 1e-24;

/// Scales vectors along the last dimension to length 1.
fn unit(x: Tensor<4>) -> Tensor<4> {
    let squares = x.clone().square().sum_dim(3);
    x / squares.clamp_min(SMALLEST_SQUARE).sqrt()
}

/// A block: attention and MLP, each with a post-norm and a residual connection.
#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: (Linear, Unnamed, Unnamed, Linear),
    /// Whether windows are shifted by half a window.
    #[module(skip)]
    is_shifted: bool,
}

impl Block {
    fn new(width: usize, heads: usize, is_shifted: bool, device: &Device) -> Self {
        let hidden = MLP_RATIO * width;
        Block {
            norm1: norm(width, device),
            attn: Attention::new(width, heads, device),
            norm2: norm(width, device),
            mlp: (
                LinearConfig::new(width, hidden).init(device),
                Unnamed,
                Unnamed,
                LinearConfig::new(hidden, width).init(device),
            ),
            is_shifted,
        }
    }

    /// [n, h, w, C] to [n, h, w, C], with h and w multiples of s.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, h, w, _] = x.dims();
        // A map that consists of a single window is not shifted.
        let shift = |side: usize| if self.is_shifted && side > WINDOW { WINDOW / 2 } else { 0 };
        let shift = [shift(h), shift(w)];
        let windows = Windows { size: [h, w], side: WINDOW, shift };
        let mask = (shift != [0, 0]).then(|| (shift_masks(shift, &x.device()), kinds([h, w])));
        let attended = windows.join(self.attn.forward(windows.cut(x.clone()), mask));

        let x = x + self.norm1.forward(attended);
        let [n, _, _, c] = x.dims();
        let y = kernels::gelu_of_linear(x.clone().reshape([1, n * h * w, c]), &self.mlp.0);
        x + self.norm2.forward(kernels::linear(y, &self.mlp.3).reshape([n, h, w, c]))
    }
}

fn norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_epsilon(EPSILON).init(device)
}

/// Merges 2 x 2 positions into one with twice the channels.
#[derive(Module, Debug)]
pub struct Merging {
    reduction: Linear,
    norm: LayerNorm,
}

impl Merging {
    fn new(width: usize, device: &Device) -> Self {
        Merging {
            reduction: LinearConfig::new(4 * width, 2 * width).with_bias(false).init(device),
            norm: norm(2 * width, device),
        }
    }

    /// [n, h, w, C] to [n, h / 2, w / 2, 2C].
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, h, w, c] = x.dims();
        let [rows, columns] = [h / 2, w / 2];
        // The four positions are ordered top left, bottom left, top right, bottom right.
        let x = x.reshape([n, rows, 2, columns, 2, c]).permute([0, 1, 3, 4, 2, 5]);
        self.norm.forward(self.reduction.forward(x.reshape([n, rows, columns, 4 * c])))
    }
}

/// The patch embedding, then stages with merging between them.
type Features = (
    (PatchConv, Unnamed, LayerNorm),
    Vec<Block>,
    Merging,
    Vec<Block>,
    Merging,
    Vec<Block>,
    Merging,
    Vec<Block>,
);

/// The part of the published file other than heads.
#[derive(Module, Debug)]
pub struct Backbone {
    features: Features,
}

/// The encoder. The final norm in the published file is not applied.
#[derive(Module, Debug)]
pub struct Satlas {
    backbone: Backbone,
    #[module(skip)]
    config: SatlasConfig,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
}

impl Network for Satlas {
    type Config = SatlasConfig;

    /// Builds the network for sensors with the same number of bands.
    fn new(config: &SatlasConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let bands = sensors.values().map(|input| input.bands.len()).max().unwrap_or(0);
        let embed = (PatchConv::new(bands, config.width, PATCH, device), Unnamed, norm(config.width, device));
        let stage = |stage: usize| -> Vec<Block> {
            let (channels, heads) = (config.channels(stage), config.heads[stage]);
            (0..config.depths[stage])
                .map(|block| Block::new(channels, heads, block % 2 == 1, device))
                .collect()
        };
        let merging = |stage: usize| Merging::new(config.channels(stage), device);
        let features = (embed, stage(0), merging(0), stage(1), merging(1), stage(2), merging(2), stage(3));
        Satlas { backbone: Backbone { features }, config: config.clone(), sensors: sensors.clone() }
    }
}

impl Satlas {
    /// Embeds patches: [n, bands, h, w] to [n, h / 4, w / 4, C].
    pub fn patch_embed(&self, images: Tensor<4>) -> Tensor<4> {
        let [n, _, h, w] = images.dims();
        let (conv, _, norm) = &self.backbone.features.0;
        let tokens = norm.forward(conv.forward(images)); // [n, h / 4 * w / 4, C]
        let width = tokens.dims()[2];
        tokens.reshape([n, h / PATCH, w / PATCH, width])
    }

    /// Returns the bias that the first block adds to the logits of a query and a key: [1, heads, k, k].
    pub fn first_position_bias(&self) -> Option<Tensor<4>> {
        Some(self.backbone.features.1.first()?.attn.position_bias())
    }

    /// Returns the maps after each stage: [n, bands, h, w] to [n, h / p, w / p, C] for p = 4, 8, 16, 32.
    fn maps(&self, images: Tensor<4>) -> [Tensor<4>; 4] {
        let (_, stage0, merging0, stage1, merging1, stage2, merging2, stage3) = &self.backbone.features;
        let stage = |blocks: &[Block], x: Tensor<4>| blocks.iter().fold(x, |x, block| block.forward(x));
        let map0 = stage(stage0, self.patch_embed(images));
        let map1 = stage(stage1, merging0.forward(map0.clone()));
        let map2 = stage(stage2, merging1.forward(map1.clone()));
        let map3 = stage(stage3, merging2.forward(map2.clone()));
        [map0, map1, map2, map3]
    }
}

impl Encoder for Satlas {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.channels(3)
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        if let Want::Pooled(other) = want
            && other != Pooling::Mean
        {
            return Err(requests::lacks_pooling(NAME, other, POOLINGS));
        }
        let input = requests::known_input(NAME, batch, &self.sensors)?;
        requests::check_bands(NAME, input, self.sensors[&input.sensor].bands.len())?;
        let [n, _, h, w] = input.pixels.dims();
        if n == 0 || h == 0 || w == 0 || !h.is_multiple_of(MULTIPLE) || !w.is_multiple_of(MULTIPLE) {
            let problem = format!(
                "{NAME}: expected images with sides that are multiples of {MULTIPLE} pixels, found {n} of {h} x {w}"
            );
            return Err(Error::mismatch(problem).help("resize the images to 512 x 512"));
        }
        let maps = self.maps(input.pixels.clone());
        if want == Want::Maps {
            let map = |(stage, map): (usize, Tensor<4>)| Map {
                values: map.permute([0, 3, 1, 2]),
                stride: PATCH << stage,
            };
            return Ok(Encoded::Maps(maps.into_iter().enumerate().map(map).collect()));
        }
        let [.., last] = maps;
        let [_, rows, columns, _] = last.dims();
        let tokens = last.flatten::<3>(1, 2); // [n, rows * columns, C]
        Ok(match want {
            Want::Tokens => Encoded::Tokens { tokens, grid: [rows, columns] },
            _ => Encoded::Pooled(tokens.mean_dim(1).squeeze_dim(1)),
        })
    }
}

/// Relative positions from -7 to 7 along both sides, on a logarithmic scale: [225, 2], row by row.
pub fn coordinates() -> Vec<f32> {
    let far = WINDOW as f64 - 1.0;
    let place = |offset: usize| {
        let distance = offset as f64 - far;
        // In units of log2(8) = 3.
        (distance.signum() * (distance.abs() / far * 8.0 + 1.0).log2() / 3.0) as f32
    };
    let offsets = 2 * WINDOW - 1;
    (0..offsets).flat_map(|row| (0..offsets).flat_map(move |column| [place(row), place(column)])).collect()
}

/// Returns the row of [`coordinates`] for each query and key of a window: [k * k], query by query.
fn offset_indices() -> Vec<i32> {
    let places = || (0..WINDOW).flat_map(|row| (0..WINDOW).map(move |column| (row, column)));
    let index = |(query, key): ((usize, usize), (usize, usize))| {
        let [row, column] = [query.0 + WINDOW - 1 - key.0, query.1 + WINDOW - 1 - key.1];
        (row * (2 * WINDOW - 1) + column) as i32
    };
    places().flat_map(|query| places().map(move |key| index((query, key)))).collect()
}

/// Separates what shifting brought together: -100 for a query and a key from different sides of the map, otherwise 0. [4, 1,
/// k, k]: for windows inside the map, in its last column, in its last row, and in both.
fn shift_masks([down, right]: [usize; 2], device: &Device) -> Tensor<4> {
    // Of every kind there is one in a map of 2 x 2 windows.
    let [h, w] = [2 * WINDOW; 2];
    // Regions of a rolled map's rows (or columns): before the last window, in its first part, in its second part.
    let region = |at: usize, side: usize, shift: usize| match at {
        _ if shift == 0 || at < side - WINDOW => 0,
        _ if at < side - shift => 1,
        _ => 2,
    };
    let [rows, columns] = [h / WINDOW, w / WINDOW];
    let places = WINDOW * WINDOW;
    let mut mask = Vec::with_capacity(rows * columns * places * places);
    for (window_row, window_column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)))
    {
        let regions: Vec<(i32, i32)> = (0..places)
            .map(|place| {
                let row = window_row * WINDOW + place / WINDOW;
                let column = window_column * WINDOW + place % WINDOW;
                (region(row, h, down), region(column, w, right))
            })
            .collect();
        for query in &regions {
            mask.extend(regions.iter().map(|key| if query == key { 0.0_f32 } else { -100.0 }));
        }
    }
    Tensor::from_data(TensorData::new(mask, [4, 1, places, places]), device)
}

/// Which of [`shift_masks`] each window of a map gets.
fn kinds([h, w]: [usize; 2]) -> Vec<usize> {
    let [rows, columns] = [h / WINDOW, w / WINDOW];
    let kind = |row, column| 2 * usize::from(row + 1 == rows) + usize::from(column + 1 == columns);
    (0..rows).flat_map(|row| (0..columns).map(move |column| kind(row, column))).collect()
}
