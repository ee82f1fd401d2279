//! Galileo's segmentation head: a linear map from each patch token to the logits of the patch's pixels
//! [nasaharvest/galileo, src/eval/linear_probe.py].

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::nn::resample::{Corners, resize};
use crate::{Error, Result};

/// A linear layer from a token to classes x patch x patch logits. No batch norm, unlike the classification probe.
#[derive(Module, Debug)]
pub struct PixelLinear {
    linear: Linear,
    classes: usize,
    patch: usize,
}

impl PixelLinear {
    /// For tokens of `width` numbers that stand for `patch` x `patch` pixels of the mask.
    pub fn new(width: usize, classes: usize, patch: usize, device: &Device) -> Self {
        let linear = LinearConfig::new(width, classes * patch * patch).init(device);
        PixelLinear { linear, classes, patch }
    }

    /// Tokens [n, t, width] of a square grid to logits [n, side, side, classes]: the side of the grid in pixels,
    /// then resized bilinearly with aligned corners to `side` where that differs.
    ///
    /// # Errors
    /// Where the tokens are no square grid.
    pub fn forward(&self, tokens: Tensor<3>, side: usize) -> Result<Tensor<4>> {
        let [_, count, _] = tokens.dims();
        let grid = count.isqrt();
        if grid * grid != count {
            return Err(Error::mismatch(format!("{count} patch tokens are no square grid")));
        }
        let logits = unpatch(self.linear.forward(tokens), [grid, grid], self.classes, self.patch);
        Ok(resize(logits, [side, side], Corners::Aligned))
    }
}

/// Side of the patch of a mask's pixels that one token of a grid stands for: sides that the grid does not divide
/// are rounded up, and the logits resized.
pub fn patch_side(label_side: usize, grid: usize) -> usize {
    label_side.div_ceil(grid)
}

/// [n, h * w, c * p * p] to [n, h * p, w * p, c]: the class is the slowest of a token's numbers, then the row and
/// the column inside the patch (`b (h w) (c i j) -> b c (h i) (w j)`, channels last).
pub fn unpatch(tokens: Tensor<3>, [h, w]: [usize; 2], classes: usize, patch: usize) -> Tensor<4> {
    let [n, _, _] = tokens.dims();
    let pixels = tokens.reshape([n, h, w, classes, patch, patch]);
    pixels.permute([0, 1, 4, 2, 5, 3]).reshape([n, h * patch, w * patch, classes])
}
