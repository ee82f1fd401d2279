//! bfloat16 in the products of a training whose weights and norms are float32, as `torch.autocast` has it.
//!
//! It is switched on for the whole program, before a model is loaded. Products and convolutions of this module then round their
//! factors to bfloat16 and give float32; gradients pass through the same products. Weights, their gradients, the optimiser, norms,
//! losses and sums of residuals stay float32. Products of models that call none of these functions stay float32 too.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::module::attention as burn_attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{FloatDType, Tensor};

static ON: AtomicBool = AtomicBool::new(false);

/// Switches bfloat16 products on or off.
pub fn switch(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// Whether products round to bfloat16.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// x [.., i] times weight [i, o], plus bias [o].
pub(super) fn product<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let device = x.device();
    let bias = bias.unwrap_or_else(|| Tensor::zeros([weight.dims()[1]], &device));
    super::plain_biased_product(narrow(x), narrow(weight), narrow(bias)).cast(FloatDType::F32)
}

/// x [.., r, i] times [.., i, o].
pub(super) fn matmul<const D: usize>(x: Tensor<D>, weight: Tensor<D>) -> Tensor<D> {
    narrow(x).matmul(narrow(weight)).cast(FloatDType::F32)
}

/// See [`super::conv3x3`].
pub(super) fn conv3x3(x: Tensor<4>, weight: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    super::plain_conv3x3(narrow(x), narrow(weight), size).cast(FloatDType::F32)
}

/// Attention: queries [n, heads, t, d], keys and values [n, heads, s, d], bias of the logits [n, 1 or heads, t, s].
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Option<Tensor<4>>,
    options: AttentionModuleOptions,
) -> Tensor<4> {
    if is_on() {
        let bias = bias.map(narrow);
        return burn_attention(narrow(q), narrow(k), narrow(v), None, bias, options).cast(FloatDType::F32);
    }
    burn_attention(q, k, v, None, bias, options)
}

fn narrow<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.cast(FloatDType::BF16)
}
