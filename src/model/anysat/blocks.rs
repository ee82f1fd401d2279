//! The blocks of AnySat's two transformers.
//!
//! Attention within a patch, and in the last block of the outer transformer, has a relative position term [Wu et al., arXiv
//! 2107.14222, contextual, on keys]. All heads get the term of the first head's query: upstream's index has a single head.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};

use super::places::{BUCKETS, Square};
use crate::nn::attention::{self, Logits, attention};
use crate::nn::kernels::linear;
use crate::nn::vit::{self, Block, Mlp};

/// The epsilon of the inner transformer's norms.
const INNER_EPSILON: f64 = 1e-5;

/// Hidden width of a block's MLP, in multiples of the width.
const MLP_RATIO: usize = 4;

/// Maximum number of the last block's logits per head that are computed at once: 64 MiB.
const LOGITS_AT_ONCE: usize = 1 << 24;

/// A norm of the inner transformer.
pub(super) fn inner_norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_epsilon(INNER_EPSILON).init(device)
}

/// The relative position term of keys.
#[derive(Module, Debug)]
struct RelativeKeys {
    /// [1, d / heads, 8].
    lookup_table_weight: Param<Tensor<3>>,
}

impl RelativeKeys {
    fn new(each: usize, device: &Device) -> Self {
        RelativeKeys { lookup_table_weight: Initializer::Zeros.init([1, each, BUCKETS], device) }
    }

    /// What is added to the logits of all heads, for their queries, heads side by side, [n, q, d] and the bucket of each
    /// query and key [q, t]: [n, 1, q, t].
    fn forward(&self, queries: Tensor<3>, buckets: &Tensor<2, Int>) -> Tensor<4> {
        let ([n, count, _], [_, each, _]) = (queries.dims(), self.lookup_table_weight.dims());
        let first = queries.slice_dim(2, 0..each).reshape([n * count, each]);
        let terms = first.matmul(self.lookup_table_weight.val().squeeze_dim::<2>(0)); // [n * q, 8]
        let t = buckets.dims()[1];
        let index = buckets.clone().unsqueeze::<3>().expand([n, count, t]);
        terms.reshape([n, count, BUCKETS]).gather(2, index).unsqueeze_dim(1)
    }
}

/// Self-attention within a patch.
#[derive(Module, Debug)]
struct InnerAttention {
    qkv: Linear,
    proj: Linear,
    rpe_k: RelativeKeys,
    #[module(skip)]
    heads: usize,
}

impl InnerAttention {
    /// The attention of the first `count` tokens to all tokens: [n, t, d] to [n, count, d].
    fn forward(&self, x: Tensor<3>, buckets: &Tensor<2, Int>, count: usize) -> Tensor<3> {
        let each = x.dims()[2] / self.heads;
        let qkv = linear(x, &self.qkv); // queries, keys and values side by side
        let first_head = qkv.clone().slice_dim(1, 0..count).slice_dim(2, 0..each);
        // The query is scaled before both products.
        let scale = (each as f64).sqrt().recip();
        let relative = self.rpe_k.forward(first_head * scale, &buckets.clone().slice_dim(0, 0..count));
        // softmax(q kᵀ / sqrt(d / heads) + relative) v
        let x = attention::of_packed(qkv, self.heads, count, Logits::biased(relative));
        linear(x, &self.proj)
    }
}

/// A block of the inner transformer: attention and MLP, each with a pre-norm and a residual connection.
#[derive(Module, Debug)]
pub struct InnerBlock {
    norm1: LayerNorm,
    attn: InnerAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl InnerBlock {
    pub(super) fn new(width: usize, heads: usize, device: &Device) -> Self {
        InnerBlock {
            norm1: inner_norm(width, device),
            attn: InnerAttention {
                qkv: LinearConfig::new(width, 3 * width).init(device),
                proj: LinearConfig::new(width, width).init(device),
                rpe_k: RelativeKeys::new(width / heads, device),
                heads,
            },
            norm2: inner_norm(width, device),
            mlp: Mlp::new(width, MLP_RATIO * width, device),
        }
    }

    /// The first `count` tokens: [n, t, d] to [n, count, d]. `buckets` are [t, t].
    pub(super) fn forward(&self, x: Tensor<3>, buckets: &Tensor<2, Int>, count: usize) -> Tensor<3> {
        let attended = self.attn.forward(self.norm1.forward(x.clone()), buckets, count);
        let x = x.slice_dim(1, 0..count) + attended;
        x.clone() + self.mlp.forward(self.norm2.forward(x))
    }
}

/// Attention of learned queries, the same for every image, to the tokens.
#[derive(Module, Debug)]
struct CrossAttention {
    /// [1, 1, d].
    q_learned: Param<Tensor<3>>,
    wk: Linear,
    wv: Linear,
    proj: Linear,
    rpe_k: RelativeKeys,
    #[module(skip)]
    heads: usize,
}

impl CrossAttention {
    /// The attention of the queries of the first `count` places to all tokens: [n, 1 + t, d] to [n, count, d].
    fn forward(&self, x: Tensor<3>, square: &Square, count: usize) -> Tensor<3> {
        let [n, all, d] = x.dims();
        let device = x.device();
        let places = square.codes(d, &device).slice_dim(1, 0..count);
        let queries = self.q_learned.val() + places; // [1, count, d]
        let (k, v) = (linear(x.clone(), &self.wk), linear(x, &self.wv));
        // softmax(q kᵀ / sqrt(d / heads) + relative) v, where the relative term's query is not scaled.
        let attend = |queries: Tensor<3>, start: usize| {
            let part = queries.dims()[1];
            let relative = self.rpe_k.forward(queries.clone(), &square.buckets(start..start + part, &device));
            attention(
                queries.expand([n, part, d]),
                k.clone(),
                v.clone(),
                self.heads,
                Logits::biased(relative),
            )
        };
        let at_once = (LOGITS_AT_ONCE / all).clamp(1, count);
        let part = |start: usize| {
            let end = (start + at_once).min(count);
            attend(queries.clone().slice_dim(1, start..end), start)
        };
        let x = Tensor::cat((0..count).step_by(at_once).map(part).collect(), 1);
        linear(x, &self.proj)
    }
}

/// The last block of the outer transformer. There is no residual connection around its attention.
#[derive(Module, Debug)]
pub struct CrossBlock {
    norm1: LayerNorm,
    attn: CrossAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

/// A block of the outer transformer.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are few")]
pub enum OuterBlock {
    /// Self-attention, without a relative position term.
    Plain(Block),
    /// The last block.
    Cross(CrossBlock),
}

impl OuterBlock {
    pub(super) fn plain(width: usize, heads: usize, device: &Device) -> Self {
        OuterBlock::Plain(Block::new(width, heads, MLP_RATIO, device))
    }

    pub(super) fn cross(width: usize, heads: usize, device: &Device) -> Self {
        let layer = || LinearConfig::new(width, width).init(device);
        OuterBlock::Cross(CrossBlock {
            norm1: vit::norm(width, device),
            attn: CrossAttention {
                q_learned: Initializer::Zeros.init([1, 1, width], device),
                wk: layer(),
                wv: layer(),
                proj: layer(),
                rpe_k: RelativeKeys::new(width / heads, device),
                heads,
            },
            norm2: vit::norm(width, device),
            mlp: Mlp::new(width, MLP_RATIO * width, device),
        })
    }

    /// [n, 1 + t, d] to [n, 1 + t, d]; the last block gives only the first `count` tokens, [n, count, d].
    pub(super) fn forward(&self, x: Tensor<3>, square: &Square, count: usize) -> Tensor<3> {
        match self {
            OuterBlock::Plain(block) => block.forward(x),
            OuterBlock::Cross(CrossBlock { norm1, attn, norm2, mlp }) => {
                let x = attn.forward(norm1.forward(x), square, count);
                x.clone() + mlp.forward(norm2.forward(x))
            }
        }
    }
}
