//! Resizes convolution kernels to patch sizes other than the trained one [Beyer et al., FlexiViT, arXiv 2212.08013].

use burn::tensor::Tensor;

use super::cubic::pseudo_inverse;
use super::resample::resample;

/// Resizes kernels [out, in, side, side] for patches of `patch` pixels: [out, in, patch, patch].
///
/// The product of a resized kernel with a resized patch is as close as possible to that of the trained kernel with the
/// original patch. Both axes are resized by the same weights, so one pseudo-inverse serves both.
pub fn resize_kernel(kernel: Tensor<4>, patch: usize) -> Tensor<4> {
    let [out, into, side, _] = kernel.dims();
    if patch == side {
        return kernel;
    }
    let inverse = pseudo_inverse(side, patch).mapv(|weight| weight as f32);
    let kernel = kernel.reshape([out * into, side, side, 1]);
    resample(kernel, &inverse, &inverse).reshape([out, into, patch, patch])
}
