//! Augmentations of training images: the eight symmetries of a square, and rotation by any angle.

use ndarray::{Array2, Array3, Axis};
use serde::{Deserialize, Serialize};

use super::rotate;
use crate::task::TargetInterpolation;

/// A flip or a rotation by quarter turns. On an image that is not square, those that swap rows and columns also swap its
/// sides. (The reference would resample; no benchmark has such images.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dihedral {
    /// Leaves the image unchanged.
    Identity,
    /// A quarter turn counter-clockwise.
    Rotate90,
    /// Half a turn.
    Rotate180,
    /// Three quarter turns counter-clockwise, which is one quarter turn clockwise.
    Rotate270,
    /// Swaps left and right.
    FlipHorizontal,
    /// Swaps top and bottom.
    FlipVertical,
    /// Mirrors along the diagonal from the lower left: a horizontal flip, then a quarter turn.
    AntiTranspose,
    /// Mirrors along the diagonal from the upper left: a vertical flip, then a quarter turn.
    Transpose,
}

impl Dihedral {
    /// All eight, in the reference's order [nasaharvest/galileo, DownstreamAugs].
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

    /// All combinations of a horizontal and a vertical flip.
    pub const FLIPS: [Dihedral; 4] =
        [Dihedral::Identity, Dihedral::FlipHorizontal, Dihedral::FlipVertical, Dihedral::Rotate180];

    /// Returns whether to transpose, and then whether to reverse the rows and the columns.
    pub(super) fn steps(self) -> (bool, bool, bool) {
        match self {
            Dihedral::Identity => (false, false, false),
            Dihedral::Rotate90 => (true, true, false),
            Dihedral::Rotate180 => (false, true, true),
            Dihedral::Rotate270 => (true, false, true),
            Dihedral::FlipHorizontal => (false, false, true),
            Dihedral::FlipVertical => (false, true, false),
            Dihedral::AntiTranspose => (true, true, true),
            Dihedral::Transpose => (true, false, false),
        }
    }

    /// Applies the symmetry to an image [c, h, w]. Returns [c, h, w], or [c, w, h] if rows and columns are swapped.
    pub fn apply<T: Clone>(self, image: Array3<T>) -> Array3<T> {
        if self == Dihedral::Identity {
            return image;
        }
        let (transpose, rows, columns) = self.steps();
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

/// The augmentation of one image and its mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// The flip or quarter turns, which come first.
    pub dihedral: Dihedral,
    /// Degrees of a subsequent counter-clockwise rotation; see [`rotate`].
    pub degrees: Option<f64>,
}

impl Turn {
    /// No augmentation.
    pub const NONE: Turn = Turn { dihedral: Dihedral::Identity, degrees: None };

    /// Applies the augmentation to an image [c, h, w]. Pixels that a rotation leaves empty become 0.
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

    /// Applies the augmentation to a mask [h, w]. Labels are not interpolated; pixels that a rotation leaves empty become
    /// `fill`.
    pub fn mask<T: Copy>(self, mask: Array2<T>, fill: T) -> Array2<T> {
        let mask = self.dihedral.apply(mask.insert_axis(Axis(0))).remove_axis(Axis(0));
        match self.degrees {
            Some(degrees) => rotate::mask(&mask, degrees, fill),
            None => mask,
        }
    }
}
