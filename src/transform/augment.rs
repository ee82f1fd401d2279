//! What happens to training images: the eight ways to lay a square on itself, and rotation.

use ndarray::{Array2, Array3, Axis};
use serde::{Deserialize, Serialize};

use super::rotate;
use crate::task::TargetInterpolation;

/// A flip or rotation by quarter turns. On an image that is not square, those that swap rows and columns swap its
/// sides too (the reference would resample; no benchmark has such images).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dihedral {
    Identity,
    /// Counter-clockwise.
    Rotate90,
    Rotate180,
    /// Counter-clockwise, so a quarter turn clockwise.
    Rotate270,
    /// Left and right change places.
    FlipHorizontal,
    /// Top and bottom change places.
    FlipVertical,
    /// Mirrored at the diagonal from the lower left: a horizontal flip, then a quarter turn.
    AntiTranspose,
    /// Mirrored at the diagonal from the upper left: a vertical flip, then a quarter turn.
    Transpose,
}

impl Dihedral {
    /// In the reference's order [nasaharvest/galileo, DownstreamAugs].
    pub const ALL: [Dihedral; 8] = [
        Dihedral::Identity,
        Dihedral::Rotate90,
        Dihedral::Rotate180,
        Dihedral::Rotate270,
        Dihedral::FlipHorizontal,
        Dihedral::FlipVertical,
        Dihedral::AntiTranspose,
        Dihedral::Transpose,
    ];

    /// A horizontal and a vertical flip, each done or not.
    pub const FLIPS: [Dihedral; 4] =
        [Dihedral::Identity, Dihedral::FlipHorizontal, Dihedral::FlipVertical, Dihedral::Rotate180];

    /// The image [c, h, w] so turned: [c, h, w], or [c, w, h] where rows and columns change places.
    pub fn apply<T: Clone>(self, image: Array3<T>) -> Array3<T> {
        // Every one is a transposition or not, then rows and then columns reversed or not.
        let (transpose, rows, columns) = match self {
            Dihedral::Identity => return image,
            Dihedral::Rotate90 => (true, true, false),
            Dihedral::Rotate180 => (false, true, true),
            Dihedral::Rotate270 => (true, false, true),
            Dihedral::FlipHorizontal => (false, false, true),
            Dihedral::FlipVertical => (false, true, false),
            Dihedral::AntiTranspose => (true, true, true),
            Dihedral::Transpose => (true, false, false),
        };
        let mut view = image.view();
        if transpose {
            view.swap_axes(1, 2);
        }
        if rows {
            view.invert_axis(Axis(1));
        }
        if columns {
            view.invert_axis(Axis(2));
        }
        view.as_standard_layout().into_owned()
    }
}

/// What happens to one image and its mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    pub dihedral: Dihedral,
    /// And then a rotation, counter-clockwise; see [`rotate`].
    pub degrees: Option<f64>,
}

impl Turn {
    /// Nothing happens.
    pub const NONE: Turn = Turn { dihedral: Dihedral::Identity, degrees: None };

    /// The image [c, h, w]; 0 where a rotation brings nothing.
    pub fn image(self, image: Array3<f32>) -> Array3<f32> {
        let image = self.dihedral.apply(image);
        match self.degrees {
            Some(degrees) => rotate::image(&image, degrees),
            None => image,
        }
    }

    /// The map of numbers [h, w], NaN where nothing is measured; 0 where a rotation brings nothing.
    pub fn values(self, map: Array2<f32>, interpolation: TargetInterpolation) -> Array2<f32> {
        match interpolation {
            TargetInterpolation::Nearest => self.mask(map, 0.0),
            TargetInterpolation::Bilinear => self.image(map.insert_axis(Axis(0))).remove_axis(Axis(0)),
        }
    }

    /// The mask [h, w], whose labels stay labels; `fill` where a rotation brings nothing.
    pub fn mask<T: Copy>(self, mask: Array2<T>, fill: T) -> Array2<T> {
        let mask = self.dihedral.apply(mask.insert_axis(Axis(0))).remove_axis(Axis(0));
        match self.degrees {
            Some(degrees) => rotate::mask(&mask, degrees, fill),
            None => mask,
        }
    }
}
