//! MMEarth [Nedungadi et al., arXiv 2405.02771; vishalned/MMEarth-train]: a ConvNeXt V2 [Woo et al., arXiv
//! 2301.00808] with a stem of its own, pre-trained on masked images.
//!
//! The published file contains the sparse encoder used in pre-training. Parameters have the same names and layout as there;
//! the dense convolutions used here derive their kernels from them. C is the number of channels of a stage.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Map, Pooling, Want};
use super::network::{Network, Sizes};
use super::requests;
use super::sensor_input::SensorInput;
use crate::nn::gelu::gelu;
use crate::nn::heads::upernet::MapLevel;
use crate::nn::kernels::{gelu_of_linear, linear};
use crate::task::Sensor;
use crate::{Error, Result};

const NAME: &str = "MMEarth";

/// Supported poolings.
const POOLINGS: &[Pooling] = &[Pooling::Mean];

/// The epsilon of every layer norm.
const EPSILON: f64 = 1e-6;

/// Epsilon of the response normalisation. Pre-training used 1e-6; the published features use this value.
const RESPONSE_EPSILON: f64 = 1e-4;

/// Pixels of the input per position of each stage's map.
const STRIDES: [usize; 4] = [2, 4, 8, 16];

/// Smallest side of an image in pixels for which the last map is not empty.
const SMALLEST: usize = 16;

/// The sizes of an MMEarth encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MmEarthConfig {
    /// Number of channels per stage.
    pub widths: [usize; 4],
    /// Number of blocks per stage.
    pub depths: [usize; 4],
}

impl Sizes for MmEarthConfig {
    fn problem(&self) -> Option<String> {
        let zero = self.widths.contains(&0) || self.depths.contains(&0);
        zero.then(|| "expected widths and depths above 0".to_owned())
    }

    fn poolings(&self) -> &'static [Pooling] {
        POOLINGS
    }

    fn maps(&self) -> Vec<MapLevel> {
        self.widths.into_iter().zip(STRIDES).map(|(width, stride)| MapLevel { width, stride }).collect()
    }
}

/// A convolution. Its kernel lists positions column by column.
#[derive(Module, Debug)]
pub struct Conv {
    /// [side * side, in, out].
    kernel: Param<Tensor<3>>,
    /// [1, out].
    bias: Param<Tensor<2>>,
    #[module(skip)]
    stride: usize,
}

impl Conv {
    fn new(side: usize, [into, out]: [usize; 2], stride: usize, device: &Device) -> Self {
        Conv {
            kernel: Initializer::Zeros.init([side * side, into, out], device),
            bias: Initializer::Zeros.init([1, out], device),
            stride,
        }
    }

    /// [n, in, h, w] to [n, out, (h - side) / stride + 1, (w - side) / stride + 1].
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [places, into, out] = self.kernel.dims();
        let side = places.isqrt();
        // [column, row, in, out] to [out, in, row, column]
        let kernel = self.kernel.val().reshape([side, side, into, out]).permute([3, 2, 1, 0]);
        let options = ConvOptions::new([self.stride; 2], [0; 2], [1; 2], 1);
        conv2d(x, kernel, Some(self.bias.val().squeeze_dim(0)), options)
    }
}

/// A depthwise convolution with zero padding.
#[derive(Module, Debug)]
pub struct DepthwiseConv {
    /// [side * side, C].
    kernel: Param<Tensor<2>>,
    /// [1, C].
    bias: Param<Tensor<2>>,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: usize,
}

impl DepthwiseConv {
    fn new(side: usize, width: usize, stride: usize, padding: usize, device: &Device) -> Self {
        DepthwiseConv {
            kernel: Initializer::Zeros.init([side * side, width], device),
            bias: Initializer::Zeros.init([1, width], device),
            stride,
            padding,
        }
    }

    /// [n, C, h, w] to [n, C, (h + 2 padding - side) / stride + 1, (w + 2 padding - side) / stride + 1].
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [places, width] = self.kernel.dims();
        let side = places.isqrt();
        // [column, row, C] to [C, 1, row, column]
        let kernel = self.kernel.val().reshape([side, side, 1, width]).permute([3, 2, 1, 0]);
        let options = ConvOptions::new([self.stride; 2], [self.padding; 2], [1; 2], width);
        conv2d(x, kernel, Some(self.bias.val().squeeze_dim(0)), options)
    }
}

/// A layer norm over channels.
#[derive(Module, Debug)]
pub struct ChannelNorm {
    ln: LayerNorm,
}

impl ChannelNorm {
    fn new(width: usize, device: &Device) -> Self {
        ChannelNorm { ln: LayerNormConfig::new(width).with_epsilon(EPSILON).init(device) }
    }

    /// [n, C, h, w] to [n, C, h, w].
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        channels_first(self.ln.forward(channels_last(x)))
    }
}

fn channels_last(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 2, 3, 1])
}

fn channels_first(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}

/// A linear layer over channels.
#[derive(Module, Debug)]
pub struct PointwiseConv {
    linear: Linear,
}

impl PointwiseConv {
    fn new(into: usize, out: usize, device: &Device) -> Self {
        PointwiseConv { linear: LinearConfig::new(into, out).init(device) }
    }
}

/// Global response normalisation: scales each channel by its norm over the image, relative to the other channels'.
#[derive(Module, Debug)]
pub struct ResponseNorm {
    /// [1, 4C].
    gamma: Param<Tensor<2>>,
    /// [1, 4C].
    beta: Param<Tensor<2>>,
}

impl ResponseNorm {
    fn new(width: usize, device: &Device) -> Self {
        ResponseNorm {
            gamma: Initializer::Zeros.init([1, width], device),
            beta: Initializer::Zeros.init([1, width], device),
        }
    }

    /// [n, h, w, 4C] to [n, h, w, 4C].
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        // The gradient of a channel that is zero everywhere would be NaN.
        let squares = x.clone().square().sum_dims(&[1, 2]).clamp_min(f32::MIN_POSITIVE);
        let norms = squares.sqrt(); // [n, 1, 1, 4C]
        let relative = norms.clone() / (norms.mean_dim(3) + RESPONSE_EPSILON);
        let [gamma, beta] = [&self.gamma, &self.beta].map(|values| values.val().unsqueeze::<4>());
        // gamma * (x * relative) + beta + x, with fewer passes over the map.
        x * (gamma * relative + 1.0) + beta
    }
}

/// A ConvNeXt V2 block.
#[derive(Module, Debug)]
pub struct Block {
    dwconv: DepthwiseConv,
    norm: ChannelNorm,
    pwconv1: PointwiseConv,
    grn: ResponseNorm,
    pwconv2: PointwiseConv,
}

impl Block {
    fn new(width: usize, device: &Device) -> Self {
        Block {
            dwconv: DepthwiseConv::new(7, width, 1, 3, device),
            norm: ChannelNorm::new(width, device),
            pwconv1: PointwiseConv::new(width, 4 * width, device),
            grn: ResponseNorm::new(4 * width, device),
            pwconv2: PointwiseConv::new(4 * width, width, device),
        }
    }

    /// [n, C, h, w] to [n, C, h, w].
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = channels_last(self.dwconv.forward(x.clone()));
        let y = gelu_of_linear(self.norm.ln.forward(y), &self.pwconv1.linear); // [n, h, w, 4C]
        x + channels_first(linear(self.grn.forward(y), &self.pwconv2.linear))
    }
}

/// The part of the published file other than decoders.
#[derive(Module, Debug)]
pub struct MmEarthEncoder {
    /// The layers before stages 1, 2 and 3.
    downsample_layers: Vec<(ChannelNorm, Conv)>,
    initial_conv: (Conv, ChannelNorm),
    stem: (DepthwiseConv, ChannelNorm),
    stages: Vec<Vec<Block>>,
}

/// The encoder. There is no norm after its last block: the published features have none.
#[derive(Module, Debug)]
pub struct MmEarth {
    encoder: MmEarthEncoder,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
}

impl Network for MmEarth {
    type Config = MmEarthConfig;

    /// Builds the network for sensors with the same number of bands.
    fn new(config: &MmEarthConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let MmEarthConfig { widths, depths } = config;
        let bands = sensors.values().map(|input| input.bands.len()).max().unwrap_or(0);
        let downsample =
            |from: usize, to: usize| (ChannelNorm::new(from, device), Conv::new(2, [from, to], 2, device));
        let stage =
            |(width, depth): (&usize, &usize)| (0..*depth).map(|_| Block::new(*width, device)).collect();
        MmEarth {
            encoder: MmEarthEncoder {
                downsample_layers: widths.windows(2).map(|pair| downsample(pair[0], pair[1])).collect(),
                initial_conv: (
                    Conv::new(3, [bands, widths[0]], 1, device),
                    ChannelNorm::new(widths[0], device),
                ),
                stem: (DepthwiseConv::new(2, widths[0], 2, 1, device), ChannelNorm::new(widths[0], device)),
                stages: widths.iter().zip(depths).map(stage).collect(),
            },
            sensors: sensors.clone(),
        }
    }
}

impl MmEarth {
    /// Applies the first convolution: [n, bands, h, w] to [n, C, h - 2, w - 2].
    pub fn initial(&self, images: Tensor<4>) -> Tensor<4> {
        let (conv, norm) = &self.encoder.initial_conv;
        gelu(norm.forward(conv.forward(images)))
    }

    /// Applies the second convolution: [n, C, h - 2, w - 2] to [n, C, h / 2, w / 2].
    pub fn stem(&self, x: Tensor<4>) -> Tensor<4> {
        let (conv, norm) = &self.encoder.stem;
        norm.forward(conv.forward(x))
    }

    /// Returns the maps after each stage: [n, bands, h, w] to [n, C, h / s, w / s] for s = 2, 4, 8, 16.
    fn maps(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = self.stem(self.initial(images));
        let mut maps = Vec::with_capacity(self.encoder.stages.len());
        for (index, stage) in self.encoder.stages.iter().enumerate() {
            if let Some((norm, conv)) =
                index.checked_sub(1).map(|before| &self.encoder.downsample_layers[before])
            {
                x = conv.forward(norm.forward(x));
            }
            x = stage.iter().fold(x, |x, block| block.forward(x));
            maps.push(x.clone());
        }
        maps
    }
}

impl Encoder for MmEarth {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.encoder.downsample_layers.last().map_or(0, |(_, conv)| conv.kernel.dims()[2])
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        if let Want::Pooled(other) = want
            && other != Pooling::Mean
        {
            return Err(requests::lacks_pooling(NAME, other, POOLINGS));
        }
        let input = requests::known_input(NAME, batch, &self.sensors)?;
        requests::check_bands(NAME, input, self.sensors[&input.sensor].bands.len())?;
        requests::check_patches(NAME, input, 1)?;
        let [_, _, h, w] = input.pixels.dims();
        if h < SMALLEST || w < SMALLEST {
            let problem = format!("{NAME}: expected sides of at least {SMALLEST} pixels, found {h} x {w}");
            return Err(Error::mismatch(problem).help("resize the images, for example to 112 x 112"));
        }
        let mut maps = self.maps(input.pixels.clone());
        if want == Want::Maps {
            let maps = maps.into_iter().zip(STRIDES).map(|(values, stride)| Map { values, stride });
            return Ok(Encoded::Maps(maps.collect()));
        }
        let last = maps.remove(maps.len() - 1);
        let [_, _, rows, columns] = last.dims();
        let tokens = last.flatten::<3>(2, 3).swap_dims(1, 2); // [n, rows * columns, C]
        Ok(match want {
            Want::Tokens => Encoded::Tokens { tokens, grid: [rows, columns] },
            _ => Encoded::Pooled(tokens.mean_dim(1).squeeze_dim(1)),
        })
    }
}
