//! Galileo [Tseng et al., arXiv 2502.09356; nasaharvest/galileo]: a vision transformer with one token per group of bands,
//! patch and date.
//!
//! Sentinel-2 gives 5 tokens per patch and date, Sentinel-1 gives 1; images of both sensors go through the blocks together.
//! Images keep their size; the kernels of the patch embedding are resized to the patch size instead.
//!
//! Fields are named as in the published files, so that a parameter's path is its name there. d is the width, q a
//! quarter of it, g the number of groups, p the patch size, t = rows * columns * dates * g the number of tokens.

#![expect(non_snake_case, reason = "groups are named as in the published files")]

mod check;

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use self::check::check_alike;
use super::encoder::{Batch, Encoded, Encoder, Input, Map, Pooling, Want};
use super::groups::{Group, GroupChannels};
use super::network::{Network, Sizes};
use super::sensor_input::SensorInput;
use super::{months, requests, stand_ins};
use crate::nn::attention::{Logits, attention};
use crate::nn::flexi::resize_kernel;
use crate::nn::heads::upernet::MapLevel;
use crate::nn::kernels;
use crate::nn::patch::patches;
use crate::nn::vit::Mlp;
use crate::task::{Metadata, MetadataKind, Sensor};
use crate::{Error, Result};

const NAME: &str = "Galileo";

/// Supported poolings.
const POOLINGS: &[Pooling] = &[Pooling::Mean];

/// The epsilon of every norm.
const EPSILON: f64 = 1e-5;

/// Hidden width of a block's MLP, in multiples of the width.
const MLP_RATIO: usize = 4;

/// Side in pixels of the trained kernels.
const SIDE: usize = 8;

/// Maximum number of dates.
const DATES: usize = 24;

/// Rows of the table of channel embeddings: those of [`Group`], and NDVI's, which no sensor uses.
const CHANNELS: usize = 7;

/// The sizes of a Galileo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GalileoConfig {
    /// Length of a token, d. A multiple of 16.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Side of a patch in pixels, from 1 to 8.
    pub patch: usize,
    /// Blocks (0-based) whose tokens are the feature maps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub map_layers: Vec<usize>,
}

impl Sizes for GalileoConfig {
    fn problem(&self) -> Option<String> {
        let GalileoConfig { width, depth, heads, patch, ref map_layers } = *self;
        if [width, depth, heads].contains(&0) {
            Some("expected width, depth and heads above 0".to_owned())
        } else if !width.is_multiple_of(heads) {
            Some(format!("expected a width that is a multiple of heads {heads}, found {width}"))
        } else if !width.is_multiple_of(16) {
            Some(format!("expected a width that is a multiple of 16, found {width}"))
        } else if !(1..=SIDE).contains(&patch) {
            Some(format!("expected a patch from 1 to {SIDE} pixels, found {patch}"))
        } else {
            requests::layer_beyond("map-layers", map_layers, depth)
        }
    }

    fn poolings(&self) -> &'static [Pooling] {
        POOLINGS
    }

    fn maps(&self) -> Vec<MapLevel> {
        vec![MapLevel { width: self.width, stride: self.patch }; self.map_layers.len()]
    }

    /// Upstream's evaluation builds the encoder without its final norm for fine-tuning [nasaharvest/galileo, eval.py,
    /// `add_layernorm_on_exit`].
    fn finetuned_pooling(&self, pooling: Pooling) -> Pooling {
        if pooling == Pooling::Mean { Pooling::MeanUnnormed } else { pooling }
    }

    fn metadata(&self) -> &[MetadataKind] {
        &[MetadataKind::Date]
    }

    /// Upstream's evaluation masks all inputs but the images of one sensor and the month.
    fn stand_ins(&self, given: Metadata, sensors: &[Sensor]) -> Vec<String> {
        let others = ["place", "NDVI, elevation, land cover, weather, night lights, population"];
        let date = stand_ins::date(given, "July").into_iter();
        date.chain(stand_ins::sensors(sensors)).chain(others.map(stand_ins::masked)).collect()
    }

    /// Sentinel-1 with Sentinel-2 at either level, as in training.
    fn fuses(&self, sensors: &[Sensor]) -> bool {
        let count = |is_of: fn(&Sensor) -> bool| sensors.iter().filter(|sensor| is_of(sensor)).count();
        sensors.len() == 2 && count(|s| *s == Sensor::S1) == 1 && count(|s| s.is_sentinel2()) == 1
    }

    fn blocks(&self) -> Option<usize> {
        Some(self.depth)
    }

    fn keep_blocks(&mut self, count: usize) {
        self.depth = count;
        self.map_layers.retain(|layer| *layer < count);
    }
}

/// The patch embedding of one group.
#[derive(Module, Debug)]
pub struct GroupEmbed {
    proj: Conv,
}

/// A convolution whose stride equals the side of its kernel.
#[derive(Module, Debug)]
pub struct Conv {
    /// [d, bands, 8, 8].
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

impl GroupEmbed {
    fn new(group: Group, width: usize, device: &Device) -> Self {
        let bands = group.bands().len();
        let weight = Initializer::Zeros.init([width, bands, SIDE, SIDE], device);
        GroupEmbed { proj: Conv { weight, bias: Initializer::Zeros.init([width], device) } }
    }

    /// Embeds the group's bands: [n, bands, h, w] to [n, h / p * w / p, d].
    fn forward(&self, images: Tensor<4>, patch: usize) -> Tensor<3> {
        // [d, bands, 8, 8] to [bands * p * p, d]
        let weight = resize_kernel(self.proj.weight.val(), patch).flatten::<2>(1, 3).transpose();
        kernels::biased_product(patches(images, patch), weight, self.proj.bias.val())
    }
}

/// Embeds patches, with one convolution per group.
#[derive(Module, Debug)]
pub struct SpaceTimeEmbed {
    S1: Option<GroupEmbed>,
    S2_RGB: Option<GroupEmbed>,
    S2_Red_Edge: Option<GroupEmbed>,
    S2_NIR_10m: Option<GroupEmbed>,
    S2_NIR_20m: Option<GroupEmbed>,
    S2_SWIR: Option<GroupEmbed>,
}

impl SpaceTimeEmbed {
    fn new(groups: &BTreeMap<Sensor, Vec<GroupChannels>>, width: usize, device: &Device) -> Self {
        let embed = |group: Group| {
            let used = groups.values().flatten().any(|known| known.group == group);
            used.then(|| GroupEmbed::new(group, width, device))
        };
        SpaceTimeEmbed {
            S1: embed(Group::S1),
            S2_RGB: embed(Group::Rgb),
            S2_Red_Edge: embed(Group::RedEdge),
            S2_NIR_10m: embed(Group::Nir10m),
            S2_NIR_20m: embed(Group::Nir20m),
            S2_SWIR: embed(Group::Swir),
        }
    }

    fn group(&self, group: Group) -> Option<&GroupEmbed> {
        match group {
            Group::S1 => self.S1.as_ref(),
            Group::Rgb => self.S2_RGB.as_ref(),
            Group::RedEdge => self.S2_Red_Edge.as_ref(),
            Group::Nir10m => self.S2_NIR_10m.as_ref(),
            Group::Nir20m => self.S2_NIR_20m.as_ref(),
            Group::Swir => self.S2_SWIR.as_ref(),
        }
    }
}

/// Multi-head self-attention with separate layers for queries, keys and values.
#[derive(Module, Debug)]
pub struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        let layer = || LinearConfig::new(width, width).init(device);
        Attention { q: layer(), k: layer(), v: layer(), proj: layer(), heads }
    }

    /// [n, t, d] to [n, t, d].
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|layer| kernels::linear(x.clone(), layer));
        // softmax(q kᵀ / sqrt(d / heads)) v
        kernels::linear(attention(q, k, v, self.heads, Logits::default()), &self.proj)
    }
}

/// A transformer block: attention and MLP, each with a pre-norm and a residual connection.
#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(width: usize, heads: usize, device: &Device) -> Self {
        Block {
            norm1: norm(width, device),
            attn: Attention::new(width, heads, device),
            norm2: norm(width, device),
            mlp: Mlp::new(width, MLP_RATIO * width, device),
        }
    }

    /// [n, t, d] to [n, t, d].
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x));
        x.clone() + self.mlp.forward(self.norm2.forward(x))
    }
}

fn norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_epsilon(EPSILON).init(device)
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Galileo {
    /// [7, q].
    s_t_channel_embed: Param<Tensor<2>>,
    space_time_embed: SpaceTimeEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    config: GalileoConfig,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
    #[module(skip)]
    groups: BTreeMap<Sensor, Vec<GroupChannels>>,
    /// Whether pooled features are of tokens after the final norm.
    #[module(skip)]
    norms_pooled: bool,
}

impl Network for Galileo {
    type Config = GalileoConfig;

    /// Builds the network for the groups of bands that `sensors` contains completely.
    fn new(config: &GalileoConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let GalileoConfig { width, depth, heads, .. } = *config;
        let groups: BTreeMap<Sensor, Vec<GroupChannels>> =
            sensors.iter().map(|(sensor, input)| (*sensor, GroupChannels::of(input))).collect();
        Galileo {
            s_t_channel_embed: Initializer::Zeros.init([CHANNELS, width / 4], device),
            space_time_embed: SpaceTimeEmbed::new(&groups, width, device),
            blocks: (0..depth).map(|_| Block::new(width, heads, device)).collect(),
            norm: norm(width, device),
            config: config.clone(),
            sensors: sensors.clone(),
            groups,
            norms_pooled: true,
        }
    }

    /// Without the final norm: see [`Sizes::finetuned_pooling`]. Patch tokens and maps keep it.
    fn for_finetuning(self) -> Self {
        Galileo { norms_pooled: false, ..self }
    }
}

impl Galileo {
    /// Embeds patches of images of one sensor, one input per date: [n, rows * columns, dates, g, d].
    ///
    /// # Errors
    /// If the model was built without the sensor, or the images' bands or sizes do not suit it.
    pub fn patch_embed(&self, dates: &[Input]) -> Result<Tensor<5>> {
        self.check(dates)?;
        let groups = self.groups.get(&dates[0].sensor).map_or(&[][..], Vec::as_slice);
        let date = |date: &Input| {
            let group = |group: &GroupChannels| {
                let embed = self.space_time_embed.group(group.group)?;
                Some(embed.forward(group.pick(&date.pixels), self.config.patch))
            };
            // [n, rows * columns, d] per group to [n, rows * columns, g, d]
            Tensor::stack::<4>(groups.iter().filter_map(group).collect(), 2)
        };
        Ok(Tensor::stack::<5>(dates.iter().map(date).collect(), 2))
    }

    /// Encodings to add to the tokens of [rows, columns] patches of a sensor: [m, rows * columns, dates, g, d] for m lists
    /// of months, counted from 0, one per date.
    pub fn encodings(&self, sensor: Sensor, [rows, columns]: [usize; 2], months: &[Vec<usize>]) -> Tensor<5> {
        let groups = self.groups.get(&sensor).map_or(&[][..], Vec::as_slice);
        let device = self.s_t_channel_embed.val().device();
        let quarter = self.config.width / 4;
        let table = |values: Vec<f32>, width: usize| {
            let height = values.len() / width;
            Tensor::<2>::from_data(TensorData::new(values, [height, width]), &device)
        };
        let [m, dates, g] = [months.len(), months.first().map_or(0, Vec::len), groups.len()];

        // [7, q] to [g, q]
        let index: Vec<i32> = groups.iter().map(|group| group.group as i32).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [g]), &device);
        let channel = self.s_t_channel_embed.val().select(0, index).reshape([1, 1, 1, g, quarter]);

        let date = table(sines(dates, 1, quarter), quarter).reshape([1, 1, dates, 1, quarter]);

        let month = months.iter().flatten().flat_map(|month| months::encoding(*month, quarter)).collect();
        let month = table(month, quarter).reshape([m, 1, dates, 1, quarter]);

        // Positions count in pixels: neighbouring patches are `patch` apart.
        let half = quarter / 2;
        let along = |n: usize| table(sines(n, self.config.patch, half), half);
        let column = along(columns).reshape([1, columns, half]).expand([rows, columns, half]);
        let row = along(rows).reshape([rows, 1, half]).expand([rows, columns, half]);
        let place = Tensor::cat(vec![column, row], 2).reshape([1, rows * columns, 1, 1, quarter]);

        let shape = [m, rows * columns, dates, g, quarter];
        Tensor::cat([channel, date, month, place].map(|part| part.expand(shape)).to_vec(), 4)
    }

    /// Tokens before the first block: [n, t, d].
    fn embed(&self, inputs: &[Input]) -> Result<Tensor<3>> {
        let sensors: Vec<&[Input]> = inputs.chunk_by(|a, b| a.sensor == b.sensor).collect();
        let mut parts = sensors.iter().map(|dates| self.embed_sensor(dates)).collect::<Result<Vec<_>>>()?;
        check_alike(&sensors)?;
        let tokens = match parts.len() {
            0 => return Err(Error::mismatch(format!("{NAME}: expected images, found none"))),
            1 => parts.remove(0),
            _ => Tensor::cat(parts, 2), // [n, rows * columns, tokens of all sensors, d]
        };
        let [n, places, each, d] = tokens.dims();
        Ok(tokens.reshape([n, places * each, d]))
    }

    /// Those of one sensor: [n, rows * columns, dates * g, d].
    fn embed_sensor(&self, dates: &[Input]) -> Result<Tensor<4>> {
        let embedded = self.patch_embed(dates)?;
        let [n, places, count, g, d] = embedded.dims();
        let by_date: Vec<Vec<usize>> = dates.iter().map(|date| months::months(&date.context, n)).collect();
        let mut months: Vec<Vec<usize>> =
            (0..n).map(|image| by_date.iter().map(|months| months[image]).collect()).collect();
        if months.iter().all(|other| *other == months[0]) {
            // All images share the encodings of the first.
            months.truncate(1);
        }
        let encodings = self.encodings(dates[0].sensor, self.grid(dates), &months);
        Ok((embedded + encodings).reshape([n, places, count * g, d]))
    }

    /// Tokens after the last block and before the final norm: [n, t, d], by place, then sensor, date and group.
    ///
    /// # Errors
    /// As for [`Galileo::patch_embed`].
    pub fn tokens(&self, dates: &[Input]) -> Result<Tensor<3>> {
        Ok(self.blocks.iter().fold(self.embed(dates)?, |tokens, block| block.forward(tokens)))
    }

    /// Encodes images, one input per sensor and date; those of one sensor stand side by side, and all are of one size.
    ///
    /// # Errors
    /// As for [`Galileo::patch_embed`], and if the model cannot fulfil the request.
    pub fn encode_dates(&self, dates: &[Input], want: Want) -> Result<Encoded> {
        match want {
            Want::Pooled(Pooling::Mean) => {
                let tokens = self.tokens(dates)?;
                let tokens = if self.norms_pooled { self.norm.forward(tokens) } else { tokens };
                // [n, t, d] to [n, d]
                Ok(Encoded::Pooled(tokens.mean_dim(1).squeeze_dim(1)))
            }
            Want::Pooled(other) => Err(requests::lacks_pooling(NAME, other, POOLINGS)),
            Want::Tokens => {
                let tokens = self.tokens(dates)?;
                Ok(Encoded::Tokens { tokens: self.places(tokens, dates), grid: self.grid(dates) })
            }
            Want::Maps => self.maps(dates).map(Encoded::Maps),
        }
    }

    fn maps(&self, dates: &[Input]) -> Result<Vec<Map>> {
        let layers = &self.config.map_layers;
        let Some(last) = layers.iter().max() else {
            let problem = format!("{NAME}: expected blocks whose tokens are the feature maps, found none");
            return Err(Error::mismatch(problem).help("list some as `map-layers` in the model's file"));
        };
        let mut tokens = self.embed(dates)?;
        let [rows, columns] = self.grid(dates);
        let [n, _, d] = tokens.dims();
        let mut maps = Vec::with_capacity(layers.len());
        for (layer, block) in self.blocks.iter().enumerate().take(last + 1) {
            tokens = block.forward(tokens);
            if layers.contains(&layer) {
                let values = self.places(tokens.clone(), dates).swap_dims(1, 2);
                maps.push(Map { values: values.reshape([n, d, rows, columns]), stride: self.config.patch });
            }
        }
        Ok(maps)
    }

    /// The final norm, and the mean over the sensors, dates and groups of a place: [n, t, d] to [n, rows * columns, d].
    fn places(&self, tokens: Tensor<3>, dates: &[Input]) -> Tensor<3> {
        let [n, t, d] = tokens.dims();
        let [rows, columns] = self.grid(dates);
        let tokens = self.norm.forward(tokens).reshape([n, rows * columns, t / (rows * columns), d]);
        tokens.mean_dim(2).squeeze_dim(2)
    }

    /// [rows, columns] of patches.
    fn grid(&self, dates: &[Input]) -> [usize; 2] {
        let [_, _, h, w] = dates[0].pixels.dims();
        [h / self.config.patch, w / self.config.patch]
    }
}

impl Encoder for Galileo {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.width
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        self.encode_dates(&batch.inputs, want)
    }
}

/// Encodings of `n` positions that are `step` apart, [n, entries]: sines, then cosines of `entries / 2` frequencies.
///
/// The lowest frequency is about 10000^(-1/4) instead of the usual 1/10000: upstream halves the exponent twice.
fn sines(n: usize, step: usize, entries: usize) -> Vec<f32> {
    let frequency = |i: usize| 10_000_f64.powf(-(i as f64) / (2 * entries) as f64);
    let angles = |position: usize| {
        let position = (position * step) as f64;
        (0..entries / 2).map(move |i| position * frequency(i))
    };
    let position =
        |i: usize| angles(i).map(|angle| angle.sin() as f32).chain(angles(i).map(|angle| angle.cos() as f32));
    (0..n).flat_map(position).collect()
}
