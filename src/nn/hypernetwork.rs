//! Patch embeddings whose kernel is generated at run time by a small network, from one row of numbers per band [Xiong et
//! al., DOFA, arXiv 2403.15356].
//!
//! Fields are named as in the checkpoints of DOFA and Copernicus-FM, so that a parameter's path is its name in a
//! weight file. p is the width of the network, d that of a token, c the number of bands, t = 128 + c + 1.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::module::{attention, linear};
use burn::tensor::{Device, Tensor, activation};

use super::gelu::gelu;
use super::kernels::biased_product;
use super::{cubic, resample};

/// Side in pixels of the generated kernels.
pub const SIDE: usize = 16;

/// Attention heads of the network.
pub const HEADS: usize = 4;

/// Number of learned rows that are mixed with the rows of the bands.
const WEIGHT_TOKENS: usize = 128;

/// Hidden width of the transformer layer's MLP.
const HIDDEN: usize = 2048;

/// Factor applied to both the kernel and its bias.
const SCALE: f64 = 0.01;

/// Two linear layers, each followed by a ReLU, with a residual connection.
#[derive(Module, Debug)]
pub struct FcLayer {
    w1: Linear,
    w2: Linear,
}

impl FcLayer {
    fn new(p: usize, device: &Device) -> Self {
        FcLayer { w1: LinearConfig::new(p, p).init(device), w2: LinearConfig::new(p, p).init(device) }
    }

    /// [c, p] to [c, p].
    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let hidden = activation::relu(self.w1.forward(rows.clone()));
        rows + activation::relu(self.w2.forward(hidden))
    }
}

/// Multi-head self-attention of a single sequence.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// [3p, p]: queries, keys, values.
    in_proj_weight: Param<Tensor<2>>,
    in_proj_bias: Param<Tensor<1>>,
    out_proj: Linear,
}

impl SelfAttention {
    fn new(p: usize, device: &Device) -> Self {
        SelfAttention {
            in_proj_weight: Initializer::Zeros.init([3 * p, p], device),
            in_proj_bias: Initializer::Zeros.init([3 * p], device),
            out_proj: LinearConfig::new(p, p).init(device),
        }
    }

    /// [t, p] to [t, p].
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [t, p] = x.dims();
        let qkv = linear(x, self.in_proj_weight.val().transpose(), Some(self.in_proj_bias.val()));
        let qkv = qkv.reshape([t, 3, HEADS, p / HEADS]).permute([1, 2, 0, 3]);
        // [1, heads, t, p / heads] each.
        let [q, k, v] = [0, 1, 2].map(|i| qkv.clone().slice_dim(0, i..i + 1));
        let x = attention(q, k, v, None, None, Default::default());
        self.out_proj.forward(x.squeeze_dim::<3>(0).swap_dims(0, 1).reshape([t, p]))
    }
}

/// A transformer layer with post-norms.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    self_attn: SelfAttention,
    linear1: Linear,
    linear2: Linear,
    norm1: LayerNorm,
    norm2: LayerNorm,
}

impl EncoderLayer {
    fn new(p: usize, device: &Device) -> Self {
        // PyTorch's default epsilon, unlike that of the vision transformer's blocks.
        let norm = || LayerNormConfig::new(p).with_epsilon(1e-5).init(device);
        EncoderLayer {
            self_attn: SelfAttention::new(p, device),
            linear1: LinearConfig::new(p, HIDDEN).init(device),
            linear2: LinearConfig::new(HIDDEN, p).init(device),
            norm1: norm(),
            norm2: norm(),
        }
    }

    /// [t, p] to [t, p].
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.norm1.forward(x.clone() + self.self_attn.forward(x));
        let hidden = gelu(self.linear1.forward(x.clone()));
        self.norm2.forward(x + self.linear2.forward(hidden))
    }
}

/// The transformer of a [`WeightGenerator`]: a single layer.
#[derive(Module, Debug)]
pub struct TransformerEncoder {
    layers: Vec<EncoderLayer>,
}

/// The network that generates a kernel and its bias.
#[derive(Module, Debug)]
pub struct WeightGenerator {
    /// [128, p].
    weight_tokens: Param<Tensor<2>>,
    /// [1, p].
    bias_token: Param<Tensor<2>>,
    transformer_encoder: TransformerEncoder,
    fc_weight: Linear,
    fc_bias: Linear,
}

impl WeightGenerator {
    fn new(p: usize, d: usize, device: &Device) -> Self {
        WeightGenerator {
            weight_tokens: Initializer::Zeros.init([WEIGHT_TOKENS, p], device),
            bias_token: Initializer::Zeros.init([1, p], device),
            transformer_encoder: TransformerEncoder { layers: vec![EncoderLayer::new(p, device)] },
            fc_weight: LinearConfig::new(p, SIDE * SIDE * d).init(device),
            fc_bias: LinearConfig::new(p, d).init(device),
        }
    }

    /// Generates the numbers of a kernel and its bias: [c, p] to [c, 256 d] and [d].
    fn forward(&self, bands: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
        let [c, _] = bands.dims();
        // There are no position embeddings: only the position at which the output is read distinguishes the rows.
        let x = Tensor::cat(vec![self.weight_tokens.val(), bands.clone(), self.bias_token.val()], 0);
        let x = self.transformer_encoder.layers.iter().fold(x, |x, layer| layer.forward(x));
        let end = WEIGHT_TOKENS + c;
        let kernel = self.fc_weight.forward(x.clone().slice_dim(0, WEIGHT_TOKENS..end) + bands);
        let bias = self.fc_bias.forward(x.slice_dim(0, end..end + 1));
        (kernel, bias.squeeze_dim(0))
    }
}

/// How the network's output [c, 256 d] is arranged into a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelOrder {
    /// Read as [d, c, row, column], which mixes the bands' outputs.
    OutFirst,
    /// Read as [c, row, column, d].
    OutLast,
}

/// Generates the kernel of a patch embedding from one row of numbers per band.
#[derive(Module, Debug)]
pub struct KernelMaker {
    weight_generator: WeightGenerator,
    fclayer: FcLayer,
}

impl KernelMaker {
    /// Creates a network for rows of width p and tokens of width d. [`HEADS`] must divide p.
    pub fn new(p: usize, d: usize, device: &Device) -> Self {
        KernelMaker { weight_generator: WeightGenerator::new(p, d, device), fclayer: FcLayer::new(p, device) }
    }

    /// Generates the kernel for patches of [`SIDE`] pixels from rows [c, p].
    pub fn kernel(&self, rows: Tensor<2>, order: KernelOrder) -> Kernel {
        make_kernel(&self.fclayer, &self.weight_generator, rows, order)
    }
}

/// Like [`KernelMaker`], but for a single channel described by a language embedding of length v.
#[derive(Module, Debug)]
pub struct LanguageKernelMaker {
    language_proj: Linear,
    weight_generator: WeightGenerator,
    fclayer: FcLayer,
}

impl LanguageKernelMaker {
    /// Creates a network for vectors of length v, rows of width p and tokens of width d. [`HEADS`] must divide p.
    pub fn new(v: usize, p: usize, d: usize, device: &Device) -> Self {
        LanguageKernelMaker {
            language_proj: LinearConfig::new(v, p).init(device),
            weight_generator: WeightGenerator::new(p, d, device),
            fclayer: FcLayer::new(p, device),
        }
    }

    /// Generates the kernel for patches of [`SIDE`] pixels from a vector [1, v].
    pub fn kernel(&self, vector: Tensor<2>, order: KernelOrder) -> Kernel {
        make_kernel(&self.fclayer, &self.weight_generator, self.language_proj.forward(vector), order)
    }
}

fn make_kernel(
    fclayer: &FcLayer,
    generator: &WeightGenerator,
    rows: Tensor<2>,
    order: KernelOrder,
) -> Kernel {
    let [c, _] = rows.dims();
    let (weight, bias) = generator.forward(fclayer.forward(rows));
    let [d] = bias.dims();
    let taps = c * SIDE * SIDE;
    let weight = match order {
        KernelOrder::OutFirst => weight.reshape([d, taps]).transpose(),
        KernelOrder::OutLast => weight.reshape([taps, d]),
    };
    Kernel { weight: weight * SCALE, bias: bias * SCALE, patch: SIDE }
}

/// The kernel of a patch embedding: a convolution whose stride equals its side, with a zero padding of one pixel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// [c * patch * patch, d].
    weight: Tensor<2>,
    /// [d].
    bias: Tensor<1>,
    patch: usize,
}

impl Kernel {
    /// Resizes the kernel to another patch size; see [`resize_taps`].
    pub fn resize(self, patch: usize) -> Kernel {
        if patch == self.patch {
            return self;
        }
        let Kernel { weight, bias, patch: from } = self;
        let [taps, d] = weight.dims();
        let weight = resize_taps(weight.reshape([taps / (from * from), from, from, d]), patch);
        Kernel { weight: weight.flatten(0, 2), bias, patch }
    }

    /// Returns the number of patches along a side of `pixels`.
    pub fn patches(patch: usize, pixels: usize) -> usize {
        (pixels + 2) / patch
    }

    /// Embeds patches row by row: [n, c, h, w] to [n, rows * columns, d].
    pub fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let [n, c, h, w] = images.dims();
        let patch = self.patch;
        let [rows, columns] = [h, w].map(|side| Self::patches(patch, side));
        // The padding shifts patches by one pixel; remaining pixels at the bottom and right are dropped.
        let [height, width] = [rows * patch, columns * patch];
        let (bottom, right) = (h.min(height - 1), w.min(width - 1));
        let images = images.slice([0..n, 0..c, 0..bottom, 0..right]);
        let padded = Tensor::zeros([n, c, height, width], &images.device());
        let padded = padded.slice_assign([0..n, 0..c, 1..1 + bottom, 1..1 + right], images);
        // [n, rows * columns, c * patch * patch].
        let patches = padded.reshape([n, c, rows, patch, columns, patch]).permute([0, 2, 4, 1, 3, 5]);
        let patches = patches.reshape([n, rows * columns, c * patch * patch]);
        biased_product(patches, self.weight.clone(), self.bias.clone())
    }
}

/// Resizes the weight of a convolution to another patch size so that products stay the same: [c, side, side, d] to [c,
/// patch, patch, d]; see [`cubic::pseudo_inverse`].
pub fn resize_taps(weight: Tensor<4>, patch: usize) -> Tensor<4> {
    let side = weight.dims()[1];
    let along = cubic::pseudo_inverse(side, patch).mapv(|weight| weight as f32);
    resample::resample(weight, &along, &along)
}
