//! Pure functions on arrays: normalisation, resizing, flips and rotations.

pub mod augment;
pub mod bandspec;
pub mod normalize;
pub mod on_device;
pub mod resize;
pub mod rotate;
pub mod strategies;
pub mod turn_on_device;

use ndarray::Array3;
use serde::{Deserialize, Serialize};

use crate::Result;
use normalize::Normalization;

/// The steps from digital numbers to model input: normalise, then resize.
///
/// Its serialised form contains everything that affects the pixels a model sees, so it can be fingerprinted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Preprocess {
    /// The normalisation of each band.
    pub normalization: Normalization,
    /// Height of the model's input in pixels.
    pub height: usize,
    /// Width of the model's input in pixels.
    pub width: usize,
    /// Whether the centres of the corner pixels stay fixed; see [`resize::bilinear`].
    pub align_corners: bool,
    /// Indices of the bands that are set to zero after normalisation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zeroed: Vec<usize>,
}

impl Preprocess {
    /// Turns an image [bands, h, w] of digital numbers into the model's input [bands, height, width].
    ///
    /// # Errors
    /// If the number of bands differs from that of the normalisation, or a side has 0 pixels.
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
