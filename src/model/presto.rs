//! Presto [Tseng et al., arXiv 2304.14065; nasaharvest/presto]: a transformer for the time series of a single pixel.
//!
//! An image is first averaged over its pixels, so its size does not matter, and there are no patch tokens or feature maps.
//! There is one token per group of bands and date. The published numbers were computed without B11 and B12, which Galileo's
//! wrapper passes in the wrong channels; their group is therefore not built here.
//!
//! Fields are named as in the published file, so that a parameter's path is its name there. d is the width, g the
//! number of groups.

#![expect(non_snake_case, reason = "groups are named as in the published files")]

use std::collections::BTreeMap;
use std::slice;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Input, Pooling, Want};
use super::groups::{Group, GroupChannels};
use super::network::{Network, Sizes};
use super::sensor_input::SensorInput;
use super::{months, requests, stand_ins};
use crate::nn::heads::upernet::MapLevel;
use crate::nn::vit::{Attention, Mlp};
use crate::task::{Metadata, MetadataKind, Sensor};
use crate::{Error, Result};

const NAME: &str = "Presto";

/// Supported poolings.
const POOLINGS: &[Pooling] = &[Pooling::Mean];

/// The epsilon of every norm.
const EPSILON: f64 = 1e-5;

/// Hidden width of a block's MLP, in multiples of the width.
const MLP_RATIO: usize = 4;

/// Maximum number of dates.
const DATES: usize = 24;

/// Rows of the table of channel embeddings: those of [`Group`], and four more that no sensor uses.
const CHANNELS: usize = 10;

/// The sizes of a Presto.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PrestoConfig {
    /// Length of a token, d. A multiple of 8.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
}

impl Sizes for PrestoConfig {
    fn problem(&self) -> Option<String> {
        let PrestoConfig { width, depth, heads } = *self;
        if [width, depth, heads].contains(&0) {
            Some("expected width, depth and heads above 0".to_owned())
        } else if !width.is_multiple_of(heads) {
            Some(format!("expected a width that is a multiple of heads {heads}, found {width}"))
        } else if !width.is_multiple_of(8) {
            Some(format!("expected a width that is a multiple of 8, found {width}"))
        } else {
            None
        }
    }

    fn poolings(&self) -> &'static [Pooling] {
        POOLINGS
    }

    fn maps(&self) -> Vec<MapLevel> {
        Vec::new()
    }

    fn metadata(&self) -> &[MetadataKind] {
        &[MetadataKind::Date]
    }

    /// Galileo's evaluation masks all inputs but the images of one sensor and the month.
    fn stand_ins(&self, given: Metadata, sensors: &[Sensor]) -> Vec<String> {
        let others = ["place", "B11, B12", "NDVI, elevation, land cover, weather"];
        let date = stand_ins::date(given, "July").into_iter();
        date.chain(stand_ins::sensors(sensors)).chain(others.map(stand_ins::masked)).collect()
    }

    fn blocks(&self) -> Option<usize> {
        Some(self.depth)
    }

    fn keep_blocks(&mut self, count: usize) {
        self.depth = count;
    }
}

/// Embeds mean spectra, with one layer per group.
#[derive(Module, Debug)]
pub struct EoPatchEmbed {
    S1: Option<Linear>,
    S2_RGB: Option<Linear>,
    S2_Red_Edge: Option<Linear>,
    S2_NIR_10m: Option<Linear>,
    S2_NIR_20m: Option<Linear>,
}

impl EoPatchEmbed {
    fn new(groups: &BTreeMap<Sensor, Vec<GroupChannels>>, width: usize, device: &Device) -> Self {
        let embed = |group: Group| {
            let used = groups.values().flatten().any(|known| known.group == group);
            used.then(|| LinearConfig::new(group.bands().len(), width).init(device))
        };
        EoPatchEmbed {
            S1: embed(Group::S1),
            S2_RGB: embed(Group::Rgb),
            S2_Red_Edge: embed(Group::RedEdge),
            S2_NIR_10m: embed(Group::Nir10m),
            S2_NIR_20m: embed(Group::Nir20m),
        }
    }

    fn group(&self, group: Group) -> Option<&Linear> {
        match group {
            Group::S1 => self.S1.as_ref(),
            Group::Rgb => self.S2_RGB.as_ref(),
            Group::RedEdge => self.S2_Red_Edge.as_ref(),
            Group::Nir10m => self.S2_NIR_10m.as_ref(),
            Group::Nir20m => self.S2_NIR_20m.as_ref(),
            Group::Swir => None,
        }
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
        let tokens = x.dims()[1];
        let x = x.clone() + self.attn.forward(self.norm1.forward(x), tokens);
        x.clone() + self.mlp.forward(self.norm2.forward(x))
    }
}

fn norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_epsilon(EPSILON).init(device)
}

/// A learned vector per group.
#[derive(Module, Debug)]
pub struct ChannelEmbed {
    /// [10, d / 4].
    weight: Param<Tensor<2>>,
}

/// The part of the published file other than the decoder.
#[derive(Module, Debug)]
pub struct PrestoEncoder {
    eo_patch_embed: EoPatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    channel_embed: ChannelEmbed,
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Presto {
    encoder: PrestoEncoder,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
    #[module(skip)]
    groups: BTreeMap<Sensor, Vec<GroupChannels>>,
}

impl Network for Presto {
    type Config = PrestoConfig;

    /// Builds the network for the groups of bands that `sensors` contains completely.
    fn new(config: &PrestoConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let PrestoConfig { width, depth, heads } = *config;
        let reached = |input: &SensorInput| {
            let mut groups = GroupChannels::of(input);
            groups.retain(|known| known.group != Group::Swir);
            groups
        };
        let groups: BTreeMap<Sensor, Vec<GroupChannels>> =
            sensors.iter().map(|(sensor, input)| (*sensor, reached(input))).collect();
        let channel_embed = ChannelEmbed { weight: Initializer::Zeros.init([CHANNELS, width / 4], device) };
        Presto {
            encoder: PrestoEncoder {
                eo_patch_embed: EoPatchEmbed::new(&groups, width, device),
                blocks: (0..depth).map(|_| Block::new(width, heads, device)).collect(),
                norm: norm(width, device),
                channel_embed,
            },
            sensors: sensors.clone(),
            groups,
        }
    }
}

impl Presto {
    /// Returns the input of the first block for images of one sensor, one input per date: [n, g * dates, d], ordered by
    /// group, then date.
    ///
    /// # Errors
    /// If the model was built without the sensor, or the images do not suit it.
    /// If the model was built without the sensor, or the images do not suit it.
    pub fn tokens(&self, dates: &[Input]) -> Result<Tensor<3>> {
        self.check(dates)?;
        let encoder = &self.encoder;
        let channels = encoder.channel_embed.weight.val();
        let (quarter, device) = (channels.dims()[1], channels.device());
        let table = |values: Vec<f32>, width: usize| {
            let height = values.len() / width;
            Tensor::<2>::from_data(TensorData::new(values, [height, width]), &device)
        };
        let [n, count] = [dates[0].pixels.dims()[0], dates.len()];

        // Mean spectra: [n, bands, h, w] to [n, bands].
        let spectra: Vec<Tensor<2>> =
            dates.iter().map(|date| date.pixels.clone().mean_dims(&[2, 3]).flatten(1, 3)).collect();
        // Months of all images at one date, then the next: to [n, dates, d / 4].
        let months = dates.iter().flat_map(|date| months::months(&date.context, n));
        let month = months.flat_map(|month| months::encoding(month, quarter)).collect();
        let month = table(month, quarter).reshape([count, n, quarter]).swap_dims(0, 1);
        // [dates, d / 2]
        let position = table(positions(count, 2 * quarter), 2 * quarter);
        let position = position.unsqueeze::<3>().expand([n, count, 2 * quarter]);

        let group = |group: &GroupChannels| {
            let layer = encoder.eo_patch_embed.group(group.group)?;
            // [n, its bands] per date to [n, dates, d]
            let date = |spectra: &Tensor<2>| layer.forward(group.pick(spectra));
            let embedded = Tensor::stack::<3>(spectra.iter().map(date).collect(), 1);
            let row = Tensor::<1, Int>::from_data([group.group as i32], &device);
            let channel = channels.clone().select(0, row).unsqueeze::<3>().expand([n, count, quarter]);
            Some(embedded + Tensor::cat(vec![month.clone(), channel, position.clone()], 2))
        };
        let groups = self.groups[&dates[0].sensor].iter().filter_map(group);
        Ok(Tensor::cat(groups.collect(), 1))
    }

    /// Encodes images of one sensor, one input per date.
    ///
    /// # Errors
    /// As for [`Presto::tokens`], and if the model cannot fulfil the request.
    pub fn encode_dates(&self, dates: &[Input], want: Want) -> Result<Encoded> {
        match want {
            Want::Pooled(Pooling::Mean) => {
                let tokens = self.tokens(dates)?;
                let tokens = self.encoder.blocks.iter().fold(tokens, |tokens, block| block.forward(tokens));
                // The mean comes before the norm: [n, t, d] to [n, d].
                Ok(Encoded::Pooled(self.encoder.norm.forward(tokens.mean_dim(1).squeeze_dim::<2>(1))))
            }
            Want::Pooled(other) => Err(requests::lacks_pooling(NAME, other, POOLINGS)),
            Want::Tokens | Want::Maps => {
                let problem = format!(
                    "{NAME}: expected a request for pooled vectors, found one for patch tokens or feature maps"
                );
                Err(Error::mismatch(problem).help("use a task with one label per image"))
            }
        }
    }

    /// Checks that the model can take the images.
    fn check(&self, dates: &[Input]) -> Result<()> {
        if !(1..=DATES).contains(&dates.len()) {
            let problem = format!("{NAME}: expected 1 to {DATES} dates, found {}", dates.len());
            return Err(Error::mismatch(problem).help("select fewer dates"));
        }
        let first = &dates[0];
        for date in dates {
            let batch = Batch { inputs: vec![date.clone()] };
            let input = requests::known_input(NAME, &batch, &self.sensors)?;
            requests::check_bands(NAME, input, self.sensors[&input.sensor].bands.len())?;
            requests::check_patches(NAME, input, 1)?;
            let (found, expected) = (date.pixels.dims()[0], first.pixels.dims()[0]);
            if (date.sensor, found) != (first.sensor, expected) {
                let problem = format!(
                    "{NAME}: expected {expected} images of {} at each date, found {found} of {}",
                    first.sensor, date.sensor
                );
                return Err(Error::mismatch(problem));
            }
        }
        if self.groups[&first.sensor].is_empty() {
            let problem =
                format!("{NAME}, sensor {}: expected all bands of some group, found none", first.sensor);
            return Err(Error::mismatch(problem).help("list B02 B03 B04, or VV VH, in the model's file"));
        }
        Ok(())
    }
}

impl Encoder for Presto {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.encoder.channel_embed.weight.dims()[1] * 4
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        self.encode_dates(slice::from_ref(batch.only()?), want)
    }
}

/// Encodings of `n` positions, [n, entries]: alternating sines and cosines, with frequencies down to 1/1000.
fn positions(n: usize, entries: usize) -> Vec<f32> {
    let entry = |position: usize, i: usize| {
        let angle = position as f64 / 1000_f64.powf((i - i % 2) as f64 / entries as f64);
        (if i.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
    };
    (0..n).flat_map(|position| (0..entries).map(move |i| entry(position, i))).collect()
}
