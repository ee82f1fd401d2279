//! Galileo's segmentation head: a linear map from each patch token to the logits of the patch's pixels
//! [nasaharvest/galileo, src/eval/linear_probe.py].

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::nn::resample::{Corners, resize};
use crate::{Error, Result};

/// A linear layer from a token to classes x patch x patch logits. Unlike the classification probe it has no batch norm.
#[derive(Module, Debug)]
pub struct PixelLinear {
    linear: Linear,
    classes: usize,
    patch: usize,
}

impl PixelLinear {
    /// Creates a head for tokens of width `width`, each representing `patch` x `patch` pixels of the mask.
    pub fn new(width: usize, classes: usize, patch: usize, device: &Device) -> Self {
        let linear = LinearConfig::new(width, classes * patch * patch).init(device);
        PixelLinear { linear, classes, patch }
    }

    /// Maps tokens [n, t, width] of a square grid to logits [n, side, side, classes]. If the grid's size in pixels differs
    /// from `side`, the logits are resized bilinearly with aligned corners.
    ///
    /// # Errors
    /// If the tokens do not form a square grid.
    pub fn forward(&self, tokens: Tensor<3>, side: usize) -> Result<Tensor<4>> {
        let [_, count, _] = tokens.dims();
        let grid = count.isqrt();
        if grid * grid != count {
            return Err(Error::mismatch(format!(
                "expected a square grid of patch tokens, found {count} tokens"
            )));
        }
        let logits = unpatch(self.linear.forward(tokens), [grid, grid], self.classes, self.patch);
        Ok(resize(logits, [side, side], Corners::Aligned))
    }
}

/// Returns the side in mask pixels of the patch that one token of a grid represents. If the grid does not divide the mask's
/// side, it is rounded up, and the logits are resized.
pub fn patch_side(label_side: usize, grid: usize) -> usize {
    label_side.div_ceil(grid)
}

/// Rearranges [n, h * w, c * p * p] to [n, h * p, w * p, c]. Among a token's numbers the class varies slowest, then the row
/// and the column within the patch (`b (h w) (c i j) -> b c (h i) (w j)`, channels last).
pub fn unpatch(tokens: Tensor<3>, [h, w]: [usize; 2], classes: usize, patch: usize) -> Tensor<4> {
    let [n, _, _] = tokens.dims();
    let pixels = tokens.reshape([n, h, w, classes, patch, patch]);
    pixels.permute([0, 1, 4, 2, 5, 3]).reshape([n, h * patch, w * patch, classes])
}
