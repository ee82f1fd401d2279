//! Layers of dense heads on channels-last maps [n, h, w, c].
//!
//! Fields are named as in PyTorch's code, so that a parameter's path is its name there. Weights are stored in the layout
//! that makes a layer a matrix product; [`crate::train::state`] converts them to PyTorch's layout.

use burn::module::{Module, Param, RunningState};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::nn::kernels::{self, Norm};
use crate::random::linear_bound;

/// Mode of a forward pass.
#[derive(Debug)]
pub enum Pass<'a> {
    /// Uses running statistics and drops nothing.
    Eval,
    /// Uses the statistics of the batch and updates the running ones; the generator draws what is dropped.
    Train(&'a mut ChaCha8Rng),
}

/// Creates a parameter from independent draws.
fn drawn<const D: usize>(
    shape: [usize; D],
    device: &Device,
    mut draw: impl FnMut() -> f32,
) -> Param<Tensor<D>> {
    let values = (0..shape.iter().product()).map(|_| draw()).collect();
    Param::from_data(TensorData::new(values, Shape::from(shape)), device)
}

fn constant<const D: usize>(shape: [usize; D], value: f32, device: &Device) -> Param<Tensor<D>> {
    drawn(shape, device, || value)
}

/// Draws a uniform number between -bound and bound.
fn uniform(bound: f32, random: &mut ChaCha8Rng) -> f32 {
    bound * (2.0 * random.random::<f32>() - 1.0)
}

/// Draws a normal number [Box and Muller].
fn normal(deviation: f64, random: &mut ChaCha8Rng) -> f32 {
    let (radius, angle): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
    (deviation * (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
}

/// Standard deviation of Kaiming's initialisation before a ReLU, by fan-out [He et al., 2015].
fn kaiming(fan_out: usize) -> f64 {
    (2.0 / fan_out as f64).sqrt()
}

/// A 1x1 convolution: [n, h, w, i] to [n, h, w, o].
#[derive(Module, Debug)]
pub struct Pointwise {
    /// [i, o]; PyTorch's is [o, i, 1, 1].
    weight: Param<Tensor<2>>,
    /// [o].
    bias: Option<Param<Tensor<1>>>,
}

impl Pointwise {
    /// Creates a layer without bias, initialised for a subsequent ReLU.
    pub fn before_relu(i: usize, o: usize, random: &mut ChaCha8Rng, device: &Device) -> Self {
        let deviation = kaiming(o);
        Pointwise { weight: drawn([i, o], device, || normal(deviation, random)), bias: None }
    }

    /// Creates a layer with bias, initialised as in PyTorch by default.
    pub fn with_bias(i: usize, o: usize, random: &mut ChaCha8Rng, device: &Device) -> Self {
        let bound = linear_bound(i);
        Pointwise {
            weight: drawn([i, o], device, || uniform(bound, random)),
            bias: Some(drawn([o], device, || uniform(bound, random))),
        }
    }

    /// Applies the layer: [n, h, w, i] to [n, h, w, o].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, h, w, i] = x.dims();
        let x = x.reshape([n * h * w, i]);
        let y = match &self.bias {
            Some(bias) => kernels::biased_product(x, self.weight.val(), bias.val()),
            None => kernels::matmul(x, self.weight.val()),
        };
        let o = y.dims()[1];
        y.reshape([n, h, w, o])
    }

    /// Like [`Pointwise::forward`] after `dropout` has dropped channels of x.
    pub fn forward_dropped(&self, x: Tensor<4>, dropout: Dropout2d, pass: &mut Pass) -> Tensor<4> {
        let [n, h, w, i] = x.dims();
        let device = x.device();
        match dropout.factors(n * i, pass) {
            None => self.forward(x),
            Some(factors) => {
                // Dropping a channel is the same as zeroing its weights: weights [n, i, o] are cheaper than a second map
                // [n, h, w, i].
                let factors = Tensor::<3>::from_data(TensorData::new(factors, [n, i, 1]), &device);
                let weight = self.weight.val().unsqueeze::<3>() * factors;
                let y = kernels::matmul(x.reshape([n, h * w, i]), weight);
                let o = y.dims()[2];
                let y = match &self.bias {
                    Some(bias) => y + bias.val().unsqueeze(),
                    None => y,
                };
                y.reshape([n, h, w, o])
            }
        }
    }
}

/// Drops whole channels of an image in training and scales the others up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout2d {
    /// Share of channels that are dropped, below 1.
    pub probability: f64,
}

impl Dropout2d {
    /// Returns the factor of each channel; none if nothing is dropped.
    fn factors(self, count: usize, pass: &mut Pass) -> Option<Vec<f32>> {
        let Pass::Train(random) = pass else { return None };
        let keep = 1.0 - self.probability;
        let factor = || if random.random::<f64>() < keep { keep.recip() as f32 } else { 0.0 };
        (keep < 1.0).then(|| std::iter::repeat_with(factor).take(count).collect())
    }
}

/// A 3x3 convolution, with zero padding and without bias, of several concatenated maps that are first resized to the same
/// size.
#[derive(Module, Debug)]
pub struct Conv3x3 {
    /// One weight [3, 3, i, o] per map; PyTorch has a single one, [o, sum of i, 3, 3].
    weight: Vec<Param<Tensor<4>>>,
}

impl Conv3x3 {
    /// Creates a layer for maps with these numbers of channels, initialised for a subsequent ReLU.
    pub fn before_relu(channels: &[usize], o: usize, random: &mut ChaCha8Rng, device: &Device) -> Self {
        let deviation = kaiming(9 * o);
        let block = |i: &usize| drawn([3, 3, *i, o], device, || normal(deviation, random));
        Conv3x3 { weight: channels.iter().map(block).collect() }
    }

    /// Applies the layer to one map [n, h, w, i] per weight: [n, size[0], size[1], o].
    pub fn forward(&self, maps: impl IntoIterator<Item = Tensor<4>>, size: [usize; 2]) -> Tensor<4> {
        let products = self.weight.iter().zip(maps);
        let products = products.map(|(weight, map)| kernels::conv3x3(map, weight.val(), size));
        products.reduce(|sum, product| sum + product).expect("a convolution has a map")
    }
}

/// A transposed convolution with kernel 2 and stride 2: [n, h, w, i] to [n, 2h, 2w, o].
#[derive(Module, Debug)]
pub struct Upsample {
    /// [i, 2, 2, o]; PyTorch's is [i, o, 2, 2].
    weight: Param<Tensor<4>>,
    /// [o].
    bias: Param<Tensor<1>>,
}

impl Upsample {
    /// Creates a layer, initialised as in PyTorch by default, which uses the outputs in place of the inputs.
    pub fn new(i: usize, o: usize, random: &mut ChaCha8Rng, device: &Device) -> Self {
        let bound = linear_bound(4 * o);
        Upsample {
            weight: drawn([i, 2, 2, o], device, || uniform(bound, random)),
            bias: drawn([o], device, || uniform(bound, random)),
        }
    }

    /// Applies the layer: [n, h, w, i] to [n, 2h, 2w, o].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, h, w, i] = x.dims();
        let [_, _, _, o] = self.weight.dims();
        let weight = self.weight.val().reshape([i, 4 * o]);
        let bias = self.bias.val().repeat_dim(0, 4);
        let y = kernels::biased_product(x.reshape([n * h * w, i]), weight, bias);
        y.reshape([n, h, w, 2, 2, o]).permute([0, 1, 3, 2, 4, 5]).reshape([n, 2 * h, 2 * w, o])
    }
}

/// Batch normalisation as in PyTorch: momentum 0.1, and a running variance that uses the unbiased estimate.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// [c].
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: RunningState<Tensor<1>>,
    running_var: RunningState<Tensor<1>>,
}

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

impl BatchNorm {
    /// Creates a layer for c channels with scale 1 and shift 0.
    pub fn new(c: usize, device: &Device) -> Self {
        BatchNorm {
            weight: constant([c], 1.0, device),
            bias: constant([c], 0.0, device),
            running_mean: RunningState::new(Tensor::zeros([c], device)),
            running_var: RunningState::new(Tensor::ones([c], device)),
        }
    }

    /// Normalises a map [n, h, w, c] and sets negative values to 0 if `relu`. A training batch must have more than one
    /// pixel.
    pub fn forward(&self, x: Tensor<4>, relu: bool, pass: &Pass) -> Tensor<4> {
        match pass {
            Pass::Train(_) => {
                let [n, h, w, _] = x.dims();
                let pixels = (n * h * w) as f32;
                let (y, mean, variance) = kernels::batch_norm(
                    x,
                    self.weight.val(),
                    self.bias.val(),
                    Norm { epsilon: EPSILON, relu },
                );
                update(&self.running_mean, mean);
                update(&self.running_var, variance * (pixels / (pixels - 1.0)));
                y
            }
            Pass::Eval => {
                let deviation = (self.running_var.value_sync() + EPSILON).sqrt();
                let scale = self.weight.val() / deviation;
                let shift = self.bias.val() - self.running_mean.value_sync() * scale.clone();
                let y = x * scale.unsqueeze() + shift.unsqueeze();
                if relu { burn::tensor::activation::relu(y) } else { y }
            }
        }
    }
}

fn update(running: &RunningState<Tensor<1>>, batch: Tensor<1>) {
    let value = running.value_sync() * (1.0 - MOMENTUM) + batch.detach() * MOMENTUM;
    running.update(value.detach());
    running.value_sync();
}

/// Pointwise convolution, batch norm and ReLU.
#[derive(Module, Debug)]
pub struct PointwiseNorm {
    conv: Pointwise,
    bn: BatchNorm,
}

impl PointwiseNorm {
    /// Creates the layers, from i to o channels.
    pub fn new(i: usize, o: usize, random: &mut ChaCha8Rng, device: &Device) -> Self {
        PointwiseNorm { conv: Pointwise::before_relu(i, o, random, device), bn: BatchNorm::new(o, device) }
    }

    /// Applies the layers: [n, h, w, i] to [n, h, w, o].
    pub fn forward(&self, x: Tensor<4>, pass: &Pass) -> Tensor<4> {
        self.bn.forward(self.conv.forward(x), true, pass)
    }
}

/// 3x3 convolution, batch norm and ReLU.
#[derive(Module, Debug)]
pub struct ConvNorm {
    conv: Conv3x3,
    bn: BatchNorm,
}

impl ConvNorm {
    /// Creates the layers for maps with these numbers of channels.
    pub fn new(channels: &[usize], o: usize, random: &mut ChaCha8Rng, device: &Device) -> Self {
        ConvNorm { conv: Conv3x3::before_relu(channels, o, random, device), bn: BatchNorm::new(o, device) }
    }

    /// Applies the layers, after resizing the maps to `size`.
    pub fn forward(
        &self,
        maps: impl IntoIterator<Item = Tensor<4>>,
        size: [usize; 2],
        pass: &Pass,
    ) -> Tensor<4> {
        self.bn.forward(self.conv.forward(maps, size), true, pass)
    }
}
