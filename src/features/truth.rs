//! The ground truth of a dense head: the class or the value of each pixel.

use ndarray::Array2;

use super::tiles::{Mask, mask_of};
use crate::data::{Sample, Target};
use crate::task::{MaskResize, TargetKind, Task};
use crate::transform::augment::Turn;
use crate::transform::resize::{self, Nearest};
use crate::{Error, Result};

/// The class of the corners that a rotation leaves empty. Like in the reference, they are class 0 and not ignored.
const CORNER: i16 = 0;

/// The ground truth of a sample's pixels.
#[derive(Debug, Clone, PartialEq)]
pub enum PixelTruth {
    /// [h, w]: the class of each pixel.
    Classes(Mask),
    /// [h, w]: the value of each pixel, normalised by the task's statistics; NaN if nothing was measured.
    Values(Array2<f32>),
}

impl PixelTruth {
    /// Returns the ground truth of a sample whose images are `[rows, columns]` pixels large once they are prepared for the
    /// model. Masks have that size if the task says so (`mask-resize`), else their stored one.
    ///
    /// # Errors
    /// If the label is of another kind than the task's, or differs in size from the image.
    pub fn of(sample: &Sample, task: &Task, [rows, columns]: [usize; 2]) -> Result<Self> {
        if task.target != TargetKind::ValueMap {
            let mask = mask_of(sample, task)?;
            let rule = match task.mask_resize {
                None => return Ok(PixelTruth::Classes(mask)),
                Some(MaskResize::Floor) => Nearest::Floor,
                Some(MaskResize::Exact) => Nearest::Exact,
            };
            return resize::nearest(mask.view(), rows, columns, rule).map(PixelTruth::Classes);
        }
        let name = &sample.name;
        let Target::ValueMap(map) = &sample.target else {
            return Err(Error::mismatch(format!("{name}: expected a map of numbers as label"))
                .help("check the task's `target` in benchmarks/"));
        };
        let (h, w) = map.dim();
        let sizes = sample.images.iter().map(|image| (image.pixels.dim().1, image.pixels.dim().2));
        if let Some((rows, columns)) = sizes.into_iter().find(|size| *size != (h, w)) {
            return Err(Error::mismatch(format!(
                "{name}: the image has {rows} x {columns} pixels, but its map {h} x {w}"
            ))
            .help("fetch the file again, or leave the sample out of the partition"));
        }
        if let Some(infinite) = map.iter().find(|value| value.is_infinite()) {
            return Err(Error::mismatch(format!(
                "{name}: expected finite numbers or NaN in the map, found {infinite}"
            ))
            .help("fetch the file again; unmeasured pixels must be NaN"));
        }
        let statistics = task.target_statistics();
        Ok(PixelTruth::Values(map.mapv(|value| statistics.normalize(value))))
    }

    /// Applies the transform of the image. Corners that a rotation leaves empty become class 0, or the value 0, which is the
    /// mean after normalisation; both count towards the loss, as in the reference.
    pub fn turned(self, turn: Turn, task: &Task) -> Self {
        match self {
            PixelTruth::Classes(mask) => PixelTruth::Classes(turn.mask(mask, CORNER)),
            PixelTruth::Values(map) => PixelTruth::Values(turn.values(map, task.target_interpolation)),
        }
    }

    /// Returns the height and width.
    pub fn dim(&self) -> (usize, usize) {
        match self {
            PixelTruth::Classes(mask) => mask.dim(),
            PixelTruth::Values(map) => map.dim(),
        }
    }
}
