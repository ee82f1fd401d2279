//! Tensor operations that are slow when composed of Burn's operations, with dedicated CPU kernels.
//!
//! [`Kernels`] contains a portable form of each operation, composed of Burn's, and its gradient. A backend without anything
//! better needs one line here; `flex` has its own kernels (see benches/NOTES.md for what they save). The functions of this
//! module are the interface for the rest of the program: differentiable, on any device.
//!
//! Maps are [n, h, w, c], channels last: a pixel's channels are contiguous, so a convolution is a matrix product without a
//! copy.

#![cfg_attr(
    feature = "libtorch",
    expect(deprecated, reason = "the only way to NVIDIA GPUs that builds from the registry alone")
)]

pub mod autocast;
mod autodiff;
pub(crate) mod flex;
#[cfg(feature = "libtorch")]
mod libtorch;
mod portable;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::nn::Linear;
use burn::tensor::Tensor;

use super::gelu::gelu;

/// The operations on a backend's own tensors.
#[backend_extension(Flex, LibTorch: cfg(feature = "libtorch"), Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Kernels: Backend {
    /// See [`conv3x3`].
    fn conv3x3(x: FloatTensor<Self>, weight: FloatTensor<Self>, size: [usize; 2]) -> FloatTensor<Self> {
        portable::conv3x3::<Self>(x, weight, size)
    }

    /// Gradients of [`Kernels::conv3x3`] with respect to x (if `wants_x`) and the weight, given the gradient of the output.
    fn conv3x3_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        wants_x: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        portable::conv3x3_backward::<Self>(x, weight, gradient, wants_x)
    }

    /// See [`batch_norm`]: the output, the mean and the biased variance.
    fn normalize_batch(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        norm: Norm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::batch_norm::<Self>(x, gamma, beta, norm)
    }

    /// Gradients of [`Kernels::normalize_batch`] with respect to x, gamma and beta, given its output, the statistics it
    /// returned, and the gradient of the output.
    fn normalize_batch_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        norm: Norm,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::batch_norm_backward::<Self>(x, gamma, beta, mean, variance, norm, gradient)
    }

    /// See [`linear`]: x is [.., i], the weight [i, o], the bias [o].
    fn biased_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        portable::biased_product::<Self>(x, weight, bias)
    }

    /// See [`gelu_of_linear`]: x is [.., i], the weight [i, o], the bias [o].
    fn gelu_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::exact_gelu(Self::biased_product(x, weight, bias))
    }

    /// x Φ(x), with the normal distribution's Φ.
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu(x)
    }

    /// The gradient of [`Kernels::exact_gelu`] with respect to x, given that of the output.
    fn exact_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu_backward(x, gradient)
    }

    /// See [`upload`]; `beside` is any tensor of the device.
    fn upload(beside: FloatTensor<Self>, values: Arc<Vec<f32>>, shape: [usize; 4]) -> FloatTensor<Self> {
        portable::upload::<Self>(beside, values, shape)
    }

    /// See [`adamw`].
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamwStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::adamw::<Self>(parameter, gradient, first, second, step)
    }
}

#[cfg(feature = "vulkan")]
impl Kernels for burn::backend::Cube {}

/// Resizes x bilinearly to `size` (half-pixel centres, like [`super::resample::resize`]) and convolves it: [n, h, w, i] to
/// [n, size[0], size[1], o], kernel 3, stride 1, zero padding 1, no bias. The weight is [3, 3, i, o]: row, column, input,
/// output.
pub fn conv3x3(x: Tensor<4>, weight: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    if autocast::is_on() {
        return autocast::conv3x3(x, weight, size);
    }
    plain_conv3x3(x, weight, size)
}

/// Like [`conv3x3`], in the format that its factors have.
fn plain_conv3x3(x: Tensor<4>, weight: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Kernels>::conv3x3(x.into_dispatch(), weight.into_dispatch(), size))
}

/// Options of [`batch_norm`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// Added to the variance.
    pub epsilon: f64,
    /// Whether to set negative values to 0 afterwards.
    pub relu: bool,
}

/// Normalises each channel over all pixels of the batch, scales by gamma and shifts by beta. x is [n, h, w, c], gamma and
/// beta are [c]. Returns the output, the mean and the biased variance, [c] each. Gradients flow only through the output.
pub fn batch_norm(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    norm: Norm,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
    let (y, mean, variance) = <Dispatch as Kernels>::normalize_batch(x.into_dispatch(), gamma, beta, norm);
    (Tensor::from_dispatch(y), Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
}

/// Applies a linear layer: [.., i] to [.., o]. The bias is added in the product where the backend can.
pub fn linear<const D: usize>(x: Tensor<D>, layer: &Linear) -> Tensor<D> {
    match &layer.bias {
        Some(bias) => biased_product(x, layer.weight.val(), bias.val()),
        None if autocast::is_on() => autocast::product(x, layer.weight.val(), None),
        None => layer.forward(x),
    }
}

/// Applies a linear layer with a bias, then the exact GELU: [.., i] to [.., o]; in one go where the backend can.
pub fn gelu_of_linear<const D: usize>(x: Tensor<D>, layer: &Linear) -> Tensor<D> {
    match &layer.bias {
        Some(bias) if !autocast::is_on() => {
            let (weight, bias) = (layer.weight.val().into_dispatch(), bias.val().into_dispatch());
            Tensor::from_dispatch(<Dispatch as Kernels>::gelu_product(x.into_dispatch(), weight, bias))
        }
        _ => gelu(linear(x, layer)),
    }
}

/// Multiplies x [.., i] by a weight [i, o] and adds a bias [o]; in one go where the backend can.
pub fn biased_product<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    if autocast::is_on() {
        return autocast::product(x, weight, Some(bias));
    }
    plain_biased_product(x, weight, bias)
}

/// Like [`biased_product`], in the format that its factors have.
fn plain_biased_product<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Kernels>::biased_product(x.into_dispatch(), weight, bias))
}

/// Multiplies x [.., r, i] by [.., i, o].
pub fn matmul<const D: usize>(x: Tensor<D>, weight: Tensor<D>) -> Tensor<D> {
    if autocast::is_on() { autocast::matmul(x, weight) } else { x.matmul(weight) }
}

/// Copies numbers to a device: float32 [n, c, h, w], whatever format the device computes in. `beside` is any tensor of the
/// device. `values` stay as they are, so that their memory serves again.
pub fn upload(beside: &Tensor<1>, values: &mut Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
    let shared = Arc::new(std::mem::take(values));
    let uploaded = <Dispatch as Kernels>::upload(beside.clone().into_dispatch(), Arc::clone(&shared), shape);
    // Backends copy before they return.
    *values = Arc::try_unwrap(shared).unwrap_or_default();
    Tensor::from_dispatch(uploaded)
}

/// Constants of one AdamW step, including the bias corrections of the moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamwStep {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// 1 - learning rate * weight decay.
    pub keep: f64,
    /// Learning rate / (1 - beta1^t).
    pub rate: f64,
    /// sqrt(1 - beta2^t).
    pub root: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

/// Applies one AdamW step to a parameter, given its gradient and moments. Returns the new parameter and moments. Not
/// differentiable: the tensors must not be on an autodiff device.
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    step: AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let (parameter, first, second) = <Dispatch as Kernels>::adamw(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        step,
    );
    (Tensor::from_dispatch(parameter), [Tensor::from_dispatch(first), Tensor::from_dispatch(second)])
}
