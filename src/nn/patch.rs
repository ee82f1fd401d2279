//! Cuts images into patches, and embeds them with a convolution.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use super::kernels::biased_product;

/// Cuts images into one row of pixels per patch: [n, bands, h, w] to [n, t, bands * patch * patch], where t = h / patch * w
/// / patch. A row is ordered by band, then by row, then by column.
pub fn patches(images: Tensor<4>, patch: usize) -> Tensor<3> {
    let [n, bands, h, w] = images.dims();
    let (rows, columns) = (h / patch, w / patch);
    images.reshape([n, bands, rows, patch, columns, patch]).permute([0, 2, 4, 1, 3, 5]).reshape([
        n,
        rows * columns,
        bands * patch * patch,
    ])
}

/// A convolution whose stride equals its kernel: a linear map of patches.
#[derive(Module, Debug)]
pub struct PatchConv {
    /// [d, bands, patch, patch].
    weight: Param<Tensor<4>>,
    /// [d].
    bias: Param<Tensor<1>>,
}

impl PatchConv {
    /// Creates a map from patches of `patch` x `patch` pixels to vectors of length `width`.
    pub fn new(bands: usize, width: usize, patch: usize, device: &Device) -> Self {
        PatchConv {
            weight: Initializer::Zeros.init([width, bands, patch, patch], device),
            bias: Initializer::Zeros.init([width], device),
        }
    }

    /// Returns the number of bands that an image must have.
    pub fn bands(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Returns the map as a matrix [bands * patch * patch, d] and its bias [d].
    pub(crate) fn as_linear(&self) -> (Tensor<2>, Tensor<1>) {
        (self.weight.val().flatten::<2>(1, 3).transpose(), self.bias.val())
    }

    /// Embeds patches: [n, bands, h, w] to [n, t, d].
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let patch = self.weight.dims()[3];
        let (weight, bias) = self.as_linear();
        biased_product(patches(images, patch), weight, bias)
    }
}
