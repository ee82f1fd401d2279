//! Galileo [Tseng et al., arXiv 2502.09356; nasaharvest/galileo]: a vision transformer whose tokens are groups of
//! bands at a place and a date.
//!
//! Sentinel-2 gives 5 tokens per patch and date, Sentinel-1 gives 1. The encoder takes images in their own size;
//! the kernels of its patch embedding are resized to the patch size instead.
//!
//! Fields are named as in the published files, so that a parameter's path is its name there. d is the width, q a
//! quarter of it, g the number of groups, p the patch size, t = rows * columns * dates * g the number of tokens.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::module::{attention, linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::checks;
use super::config::SensorInput;
use super::encoder::{Batch, Encoded, Encoder, Map, Pooling, Want};
use super::months::months;
use super::terrafm::patches;
use crate::nn::flexi::resize_kernel;
use crate::nn::vit::Mlp;
use crate::task::Sensor;
use crate::task::bands::Band;
use crate::{Error, Result};

const NAME: &str = "Galileo";

/// The epsilon of every norm.
const EPSILON: f64 = 1e-5;

/// Hidden width of a block's MLP, in multiples of the width.
const MLP_RATIO: usize = 4;

/// Side in pixels of the trained kernels.
const SIDE: usize = 8;

/// Longest series, in dates.
const DATES: usize = 24;

/// Rows of the table of channel embeddings. Two more groups than [`Group`] has: none of the sensors reaches NDVI.
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

impl GalileoConfig {
    /// The first contradiction between the sizes.
    pub fn problem(&self) -> Option<String> {
        let GalileoConfig { width, depth, heads, patch, ref map_layers } = *self;
        if [width, depth, heads].contains(&0) {
            Some("expected width, depth and heads above 0".to_owned())
        } else if !width.is_multiple_of(heads) {
            Some(format!("expected a width that is a multiple of heads {heads}, got {width}"))
        } else if !width.is_multiple_of(16) {
            Some(format!("expected a width that is a multiple of 16, got {width}"))
        } else if !(1..=SIDE).contains(&patch) {
            Some(format!("expected a patch from 1 to {SIDE} pixels, got {patch}"))
        } else {
            let layer = map_layers.iter().find(|layer| **layer >= depth)?;
            Some(format!("expected map-layers below depth {depth}, got {layer}"))
        }
    }
}

/// A group of bands that become one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
enum Group {
    S1 = 0,
    Rgb = 1,
    RedEdge = 2,
    Nir10m = 3,
    Nir20m = 4,
    Swir = 5,
}

impl Group {
    const ALL: [Group; 6] =
        [Group::S1, Group::Rgb, Group::RedEdge, Group::Nir10m, Group::Nir20m, Group::Swir];

    fn bands(self) -> &'static [Band] {
        match self {
            Group::S1 => &[Band::VV, Band::VH],
            Group::Rgb => &[Band::B02, Band::B03, Band::B04],
            Group::RedEdge => &[Band::B05, Band::B06, Band::B07],
            Group::Nir10m => &[Band::B08],
            Group::Nir20m => &[Band::B8A],
            Group::Swir => &[Band::B11, Band::B12],
        }
    }
}

/// The bands of a sensor, and which of them feed which group.
#[derive(Debug, Clone)]
struct SensorGroups {
    /// Number of bands.
    bands: usize,
    /// Groups in their order, with the channel of each of their bands.
    groups: Vec<(Group, Vec<usize>)>,
}

impl SensorGroups {
    /// The groups whose bands are all there. The others are masked in upstream's code too.
    fn new(input: &SensorInput) -> Self {
        let channel = |band: &Band| input.bands.iter().position(|known| known == band);
        let channels = |group: Group| group.bands().iter().map(channel).collect::<Option<Vec<usize>>>();
        let groups = Group::ALL.into_iter().filter_map(|group| Some((group, channels(group)?)));
        SensorGroups { bands: input.bands.len(), groups: groups.collect() }
    }
}

/// The convolution of one group.
#[derive(Module, Debug)]
pub struct GroupEmbed {
    proj: Conv,
}

/// A convolution whose stride is its kernel's side.
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

    /// The group's bands [n, bands, h, w] to [n, h / p * w / p, d].
    fn forward(&self, images: Tensor<4>, patch: usize) -> Tensor<3> {
        // [d, bands, 8, 8] to [bands * p * p, d]
        let weight = resize_kernel(self.proj.weight.val(), patch).flatten::<2>(1, 3).transpose();
        linear(patches(images, patch), weight, Some(self.proj.bias.val()))
    }
}

/// Patches to tokens, one convolution per group.
#[derive(Module, Debug)]
#[expect(non_snake_case, reason = "as in the published files")]
pub struct SpaceTimeEmbed {
    S1: Option<GroupEmbed>,
    S2_RGB: Option<GroupEmbed>,
    S2_Red_Edge: Option<GroupEmbed>,
    S2_NIR_10m: Option<GroupEmbed>,
    S2_NIR_20m: Option<GroupEmbed>,
    S2_SWIR: Option<GroupEmbed>,
}

impl SpaceTimeEmbed {
    fn new(sensors: &BTreeMap<Sensor, SensorGroups>, width: usize, device: &Device) -> Self {
        let embed = |group: Group| {
            let used = sensors.values().any(|sensor| sensor.groups.iter().any(|(known, _)| *known == group));
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

/// Multi-head self-attention with a layer each for queries, keys and values.
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
        let [n, t, d] = x.dims();
        // [n, t, d] to [n, heads, t, d / heads]
        let heads = |x: Tensor<3>| x.reshape([n, t, self.heads, d / self.heads]).swap_dims(1, 2);
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|layer| heads(layer.forward(x.clone())));
        // softmax(q kᵀ / sqrt(d / heads)) v
        let x = attention(q, k, v, None, None, Default::default());
        self.proj.forward(x.swap_dims(1, 2).reshape([n, t, d]))
    }
}

/// A transformer block: attention and MLP, each behind its norm and beside a residual connection.
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

/// Images of one sensor at one or more dates.
#[derive(Debug, Clone)]
pub struct Series {
    pub sensor: Sensor,
    /// [n, bands, h, w] per date.
    pub dates: Vec<Tensor<4>>,
    /// The month of each date, counted from 0: one list per image.
    pub months: Vec<Vec<usize>>,
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
    sensors: BTreeMap<Sensor, SensorGroups>,
}

impl Galileo {
    /// The encoder that `config` describes, with the groups of bands that `sensors` holds completely. Its weights
    /// are still to be filled in.
    pub fn new(config: &GalileoConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let GalileoConfig { width, depth, heads, .. } = *config;
        let sensors: BTreeMap<Sensor, SensorGroups> =
            sensors.iter().map(|(sensor, input)| (*sensor, SensorGroups::new(input))).collect();
        Galileo {
            s_t_channel_embed: Initializer::Zeros.init([CHANNELS, width / 4], device),
            space_time_embed: SpaceTimeEmbed::new(&sensors, width, device),
            blocks: (0..depth).map(|_| Block::new(width, heads, device)).collect(),
            norm: norm(width, device),
            config: config.clone(),
            sensors,
        }
    }

    /// The patch embedding: [n, rows * columns, dates, g, d].
    ///
    /// # Errors
    /// If the model was built without the sensor, or the images' bands or sizes do not suit it.
    pub fn patch_embed(&self, series: &Series) -> Result<Tensor<5>> {
        self.check(series)?;
        let sensor = self.sensor(series.sensor)?;
        let date = |images: &Tensor<4>| {
            let group = |(group, channels): &(Group, Vec<usize>)| {
                let embed = self.space_time_embed.group(*group)?;
                Some(embed.forward(pick(images.clone(), channels), self.config.patch))
            };
            let groups: Vec<Tensor<3>> = sensor.groups.iter().filter_map(group).collect();
            Tensor::stack::<4>(groups, 2)
        };
        Ok(Tensor::stack::<5>(series.dates.iter().map(date).collect(), 2))
    }

    /// What is added to the tokens of [rows, columns] patches: [m, rows * columns, dates, g, d] for m lists of
    /// months.
    ///
    /// # Errors
    /// If the model was built without the sensor.
    pub fn encodings(
        &self,
        sensor: Sensor,
        [rows, columns]: [usize; 2],
        months: &[Vec<usize>],
    ) -> Result<Tensor<5>> {
        let groups = &self.sensor(sensor)?.groups;
        let device = self.s_t_channel_embed.val().device();
        let quarter = self.config.width / 4;
        let table = |values: Vec<f32>, width: usize| {
            let height = values.len() / width;
            Tensor::<2>::from_data(TensorData::new(values, [height, width]), &device)
        };
        let [m, dates, g] = [months.len(), months.first().map_or(0, Vec::len), groups.len()];
        let places = rows * columns;
        let shape = [m, places, dates, g, quarter];

        // [7, q] to [g, q]
        let index: Vec<i32> = groups.iter().map(|(group, _)| *group as i32).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [g]), &device);
        let channel = self.s_t_channel_embed.val().select(0, index).reshape([1, 1, 1, g, quarter]);

        let date = table(sines(dates, 1, quarter), quarter).reshape([1, 1, dates, 1, quarter]);

        let month: Vec<f32> =
            months.iter().flatten().flat_map(|month| month_encoding(*month, quarter)).collect();
        let month = table(month, quarter).reshape([m, 1, dates, 1, quarter]);

        // Positions count in pixels: a patch further on is `patch` more.
        let half = quarter / 2;
        let along = |n: usize| table(sines(n, self.config.patch, half), half);
        let column = along(columns).reshape([1, columns, half]).expand([rows, columns, half]);
        let row = along(rows).reshape([rows, 1, half]).expand([rows, columns, half]);
        let place = Tensor::cat(vec![column, row], 2).reshape([1, places, 1, 1, quarter]);

        Ok(Tensor::cat([channel, date, month, place].map(|part| part.expand(shape)).to_vec(), 4))
    }

    /// Tokens before the first block: [n, t, d].
    fn embed(&self, series: &Series) -> Result<Tensor<3>> {
        let embedded = self.patch_embed(series)?;
        let [n, places, dates, groups, d] = embedded.dims();
        let [_, _, h, w] = series.dates[0].dims();
        let grid = [h, w].map(|side| side / self.config.patch);
        let same = series.months.windows(2).all(|pair| pair[0] == pair[1]);
        let months = if same { &series.months[..1] } else { &series.months };
        let encodings = self.encodings(series.sensor, grid, months)?;
        Ok((embedded + encodings).reshape([n, places * dates * groups, d]))
    }

    /// Tokens after the last block and before the final norm: [n, t, d], place by place, date by date.
    ///
    /// # Errors
    /// As [`Galileo::patch_embed`].
    pub fn tokens(&self, series: &Series) -> Result<Tensor<3>> {
        Ok(self.blocks.iter().fold(self.embed(series)?, |tokens, block| block.forward(tokens)))
    }

    /// Encodes a series.
    ///
    /// # Errors
    /// As [`Galileo::patch_embed`], and if the model cannot give what is wanted.
    pub fn encode_series(&self, series: &Series, want: Want) -> Result<Encoded> {
        if let Want::Pooled(asked) = want {
            checks::pooling(NAME, asked, &[Pooling::Mean])?;
            // [n, t, d] to [n, d]
            return Ok(Encoded::Pooled(self.norm.forward(self.tokens(series)?).mean_dim(1).squeeze_dim(1)));
        }
        self.check(series)?;
        let [n, _, h, w] = series.dates[0].dims();
        let patch = self.config.patch;
        let [rows, columns] = [h, w].map(|side| side / patch);
        // The mean of a place's dates and groups: [n, t, d] to [n, rows * columns, d].
        let places = |tokens: Tensor<3>| {
            let [_, t, d] = tokens.dims();
            let tokens = self.norm.forward(tokens).reshape([n, rows * columns, t / (rows * columns), d]);
            tokens.mean_dim(2).squeeze_dim::<3>(2)
        };
        if want == Want::Tokens {
            return Ok(Encoded::Tokens { tokens: places(self.tokens(series)?), grid: [rows, columns] });
        }
        let layers = &self.config.map_layers;
        let Some(last) = layers.iter().max() else {
            return Err(Error::request(format!("{NAME}: expected layers for the feature maps, got none"))
                .help("set map-layers in the model's TOML"));
        };
        let mut tokens = self.embed(series)?;
        let mut maps = Vec::with_capacity(layers.len());
        for (layer, block) in self.blocks.iter().enumerate().take(last + 1) {
            tokens = block.forward(tokens);
            if layers.contains(&layer) {
                let values = places(tokens.clone()).swap_dims(1, 2);
                let values = values.reshape([n, self.config.width, rows, columns]);
                maps.push(Map { values, stride: patch });
            }
        }
        Ok(Encoded::Maps(maps))
    }

    fn sensor(&self, sensor: Sensor) -> Result<&SensorGroups> {
        self.sensors.get(&sensor).ok_or_else(|| checks::unknown_sensor(NAME, sensor, self.sensors.keys()))
    }

    /// Whether the model can take the series.
    fn check(&self, series: &Series) -> Result<()> {
        let sensor = self.sensor(series.sensor)?;
        if sensor.groups.is_empty() {
            let problem =
                format!("{NAME}: expected the bands of at least one group for `{}`, got none", series.sensor);
            return Err(Error::request(problem).help("list the bands B02 B03 B04, or VV VH, in the model's TOML"));
        }
        let Some([n, _, h, w]) = series.dates.first().map(Tensor::dims) else {
            return Err(Error::request(format!("{NAME}: expected images of at least one date, got none")));
        };
        if series.dates.len() > DATES {
            let problem = format!("{NAME}: expected at most {DATES} dates, got {}", series.dates.len());
            return Err(Error::request(problem).help("choose fewer dates"));
        }
        let patch = self.config.patch;
        if n == 0 || h == 0 || h != w || !h.is_multiple_of(patch) {
            let problem = format!("{NAME}: expected square images of a multiple of {patch} pixels, got {n} of {h} x {w}");
            return Err(Error::request(problem).help(format!("crop or resize the images to multiples of {patch}")));
        }
        for images in &series.dates {
            checks::bands(NAME, series.sensor, sensor.bands, images.dims()[1])?;
            if images.dims() != series.dates[0].dims() {
                let problem = format!("{NAME}: expected {n} images of {h} x {w} pixels at each date, got {:?}", images.dims());
                return Err(Error::request(problem));
            }
        }
        if series.months.len() != n || series.months.iter().any(|months| months.len() != series.dates.len()) {
            return Err(Error::request(format!("{NAME}: expected a month for each image and date")));
        }
        Ok(())
    }
}

impl Encoder for Galileo {
    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let input = batch.only()?;
        let months = months(&input.context, batch.len()).into_iter().map(|month| vec![month]).collect();
        self.encode_series(&Series { sensor: input.sensor, dates: vec![input.pixels.clone()], months }, want)
    }
}

/// Channels of images: [n, bands, h, w] to [n, channels, h, w].
fn pick(images: Tensor<4>, channels: &[usize]) -> Tensor<4> {
    let channel = |channel: &usize| images.clone().slice_dim(1, *channel..*channel + 1);
    Tensor::cat(channels.iter().map(channel).collect(), 1)
}

/// Position encodings of `n` positions `step` apart, [n, entries]: sines, then cosines of `entries / 2` frequencies.
///
/// The slowest frequency is 10000^(-1/4) and a bit, not the usual 1/10000: upstream halves the exponent twice.
fn sines(n: usize, step: usize, entries: usize) -> Vec<f32> {
    let frequencies: Vec<f64> =
        (0..entries / 2).map(|i| 10_000_f64.powf(-(i as f64) / (2 * entries) as f64)).collect();
    let position = |i: usize| {
        let angles: Vec<f64> = frequencies.iter().map(|frequency| (i * step) as f64 * frequency).collect();
        let sines: Vec<f32> = angles.iter().map(|angle| angle.sin() as f32).collect();
        sines.into_iter().chain(angles.into_iter().map(|angle| angle.cos() as f32))
    };
    (0..n).flat_map(position).collect()
}

/// The encoding of a month counted from 0: its sine `entries / 2` times, then its cosine.
fn month_encoding(month: usize, entries: usize) -> impl Iterator<Item = f32> {
    let angle = TAU * month as f64 / 12.0;
    let half = entries / 2;
    std::iter::repeat_n(angle.sin() as f32, half).chain(std::iter::repeat_n(angle.cos() as f32, half))
}
