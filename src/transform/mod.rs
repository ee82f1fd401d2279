//! Pure functions of arrays: normalisation, resizing, flips and rotations.

pub mod augment;
pub mod normalize;
pub mod resize;
pub mod rotate;
pub mod strategies;

use ndarray::Array3;
use serde::{Deserialize, Serialize};

use crate::Result;
use normalize::Normalization;

/// From digital numbers to what a model takes: normalise, then resize.
///
/// Its serialised form says everything that decides the pixels a model sees, so it can be fingerprinted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Preprocess {
    pub normalization: Normalization,
    /// Of the model's input, in pixels.
    pub height: usize,
    pub width: usize,
    /// See [`resize::bilinear`].
    pub align_corners: bool,
    /// Bands, by place, that are zeros once they are normalised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zeroed: Vec<usize>,
}

impl Preprocess {
    /// An image [bands, h, w] in digital numbers to the model's input [bands, height, width].
    ///
    /// # Errors
    /// Where the image has another number of bands than the normalisation, or a side of 0 pixels.
    pub fn apply(&self, mut image: Array3<f32>) -> Result<Array3<f32>> {
        self.normalization.apply(&mut image)?;
        for (_, mut band) in image.outer_iter_mut().enumerate().filter(|(band, _)| self.zeroed.contains(band))
        {
            band.fill(0.0);
        }
        resize::bilinear(image, self.height, self.width, self.align_corners)
    }

    /// The same for `count` channels from `first` on: of several images whose channels it has side by side, one image's.
    #[must_use]
    pub fn part(&self, first: usize, count: usize) -> Self {
        let zeroed = self.zeroed.iter().filter(|channel| (first..first + count).contains(*channel));
        Preprocess {
            normalization: self.normalization.part(first, count),
            zeroed: zeroed.map(|channel| channel - first).collect(),
            ..*self
        }
    }
}
