//! The blocks of a vision transformer [Dosovitskiy et al., arXiv 2010.11929].
//!
//! Fields are named as in the state dicts of DINO and timm, so that a parameter's path is its name in a
//! weight file. d is the width, t the number of tokens.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};

use super::attention::{self, Logits};
use super::kernels::{gelu_of_linear, linear};

/// Epsilon of the norms in and after the blocks.
pub const EPSILON: f64 = 1e-6;

/// Creates a layer norm over d with the blocks' epsilon.
pub fn norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_epsilon(EPSILON).init(device)
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    /// Creates the layer. `heads` must divide `width`.
    pub fn new(width: usize, heads: usize, device: &Device) -> Self {
        Attention {
            qkv: LinearConfig::new(width, 3 * width).init(device),
            proj: LinearConfig::new(width, width).init(device),
            heads,
        }
    }

    /// Computes the attention of the first `queries` tokens to all tokens: [n, t, d] to [n, queries, d].
    pub fn forward(&self, x: Tensor<3>, queries: usize) -> Tensor<3> {
        // softmax(q kᵀ / sqrt(d / heads)) v
        let x = attention::of_packed(linear(x, &self.qkv), self.heads, queries, Logits::default());
        linear(x, &self.proj)
    }
}

/// Two linear layers with a GELU in between.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// Creates the layers, with `hidden` values in between.
    pub fn new(width: usize, hidden: usize, device: &Device) -> Self {
        Mlp {
            fc1: LinearConfig::new(width, hidden).init(device),
            fc2: LinearConfig::new(hidden, width).init(device),
        }
    }

    /// [n, t, d] to [n, t, d].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        linear(gelu_of_linear(x, &self.fc1), &self.fc2)
    }
}

/// A learned factor per channel [Touvron et al., arXiv 2103.17239].
#[derive(Module, Debug)]
struct LayerScale {
    /// [d].
    gamma: Param<Tensor<1>>,
}

impl LayerScale {
    fn new(width: usize, device: &Device) -> Self {
        LayerScale { gamma: Initializer::Ones.init([width], device) }
    }

    /// [n, t, d] to [n, t, d].
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        x * self.gamma.val().unsqueeze::<3>()
    }
}

/// A transformer block: attention and MLP, each with a pre-norm and a residual connection.
#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Mlp,
    ls2: Option<LayerScale>,
}

impl Block {
    /// Creates a block whose MLP has a hidden width of `mlp_ratio` times `width`.
    pub fn new(width: usize, heads: usize, mlp_ratio: usize, device: &Device) -> Self {
        Block {
            norm1: norm(width, device),
            attn: Attention::new(width, heads, device),
            ls1: None,
            norm2: norm(width, device),
            mlp: Mlp::new(width, mlp_ratio * width, device),
            ls2: None,
        }
    }

    /// Adds a learned factor per channel after attention and MLP.
    pub fn with_layer_scale(self, width: usize, device: &Device) -> Self {
        let scale = || Some(LayerScale::new(width, device));
        Block { ls1: scale(), ls2: scale(), ..self }
    }

    /// [n, t, d] to [n, t, d].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let tokens = x.dims()[1];
        self.forward_first(x, tokens)
    }

    /// Computes only the first `queries` tokens of [`Block::forward`]: [n, t, d] to [n, queries, d].
    pub fn forward_first(&self, x: Tensor<3>, queries: usize) -> Tensor<3> {
        let asked = self.attn.forward(self.norm1.forward(x.clone()), queries);
        let x = x.slice_dim(1, 0..queries) + scaled(&self.ls1, asked);
        x.clone() + scaled(&self.ls2, self.mlp.forward(self.norm2.forward(x)))
    }
}

fn scaled(scale: &Option<LayerScale>, x: Tensor<3>) -> Tensor<3> {
    match scale {
        Some(scale) => scale.forward(x),
        None => x,
    }
}

/// Resizes position embeddings from a `side` x `side` grid to a grid of `rows` x `columns` patches: [1, 1 + side², d] to
/// [1, 1 + rows * columns, d], class token first.
///
/// The grid is resized as in DINO with PyTorch [facebookresearch/dino, vision_transformer.py]: bicubic, half-pixel centres,
/// border repeated, and a step between samples of side / (n + 0.1) instead of side / n.
pub fn resize_positions(positions: Tensor<3>, side: usize, rows: usize, columns: usize) -> Tensor<3> {
    let device = positions.device();
    let d = positions.dims()[2];
    let class = positions.clone().slice_dim(1, 0..1);
    let grid = positions.slice_dim(1, 1..).reshape([side, side * d]);
    let along =
        |n: usize| Tensor::<2>::from_data(TensorData::new(bicubic_weights(side, n), [n, side]), &device);
    let grid = along(rows).matmul(grid).reshape([rows, side, d]);
    let grid = along(columns).unsqueeze::<3>().expand([rows, columns, side]).matmul(grid);
    Tensor::cat(vec![class, grid.reshape([1, rows * columns, d])], 1)
}

/// Returns the weight of each of `from` samples in each of `to` samples: [to, from]; rows sum to 1.
fn bicubic_weights(from: usize, to: usize) -> Vec<f32> {
    // Keys' cubic convolution with a = -0.75, PyTorch's choice, for a sample at distance x.
    const A: f64 = -0.75;
    let kernel = |x: f64| match x.abs() {
        x if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
        _ => 0.0,
    };
    let step = from as f64 / (to as f64 + 0.1);
    let mut weights = vec![0.0; to * from];
    for (index, row) in weights.chunks_exact_mut(from).enumerate() {
        let position = (index as f64 + 0.5) * step - 0.5;
        for offset in -1..=2 {
            let sample = position.floor() + f64::from(offset);
            let inside = sample.clamp(0.0, (from - 1) as f64);
            row[inside as usize] += kernel(position - sample) as f32;
        }
    }
    weights
}
