//! Images cut into patches, and the convolution that embeds them.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};

/// Images as rows of pixels, one row per patch: [n, bands, h, w] to [n, t, bands * patch * patch], where
/// t = h / patch * w / patch. A row is ordered by band, then by row, then by column.
pub fn patches(images: Tensor<4>, patch: usize) -> Tensor<3> {
    let [n, bands, h, w] = images.dims();
    let (rows, columns) = (h / patch, w / patch);
    images.reshape([n, bands, rows, patch, columns, patch]).permute([0, 2, 4, 1, 3, 5]).reshape([
        n,
        rows * columns,
        bands * patch * patch,
    ])
}

/// A convolution whose stride is its kernel: a linear map of patches.
#[derive(Module, Debug)]
pub struct PatchConv {
    /// [d, bands, patch, patch].
    weight: Param<Tensor<4>>,
    /// [d].
    bias: Param<Tensor<1>>,
}

impl PatchConv {
    /// Maps patches of `patch` x `patch` pixels to vectors of length `width`.
    pub fn new(bands: usize, width: usize, patch: usize, device: &Device) -> Self {
        PatchConv {
            weight: Initializer::Zeros.init([width, bands, patch, patch], device),
            bias: Initializer::Zeros.init([width], device),
        }
    }

    /// Number of bands that an image needs.
    pub fn bands(&self) -> usize {
        self.weight.dims()[1]
    }

    /// The map as a matrix of [bands * patch * patch, d], and its bias.
    pub(crate) fn as_linear(&self) -> (Tensor<2>, Tensor<1>) {
        (self.weight.val().flatten::<2>(1, 3).transpose(), self.bias.val())
    }

    /// [n, bands, h, w] to [n, t, d].
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let patch = self.weight.dims()[3];
        let (weight, bias) = self.as_linear();
        linear(patches(images, patch), weight, Some(bias))
    }
}
