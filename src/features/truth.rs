//! What a dense head is trained and scored against: the class or the number of each pixel.

use ndarray::Array2;

use super::tiles::{Mask, mask_of};
use crate::data::{Sample, Target};
use crate::task::{TargetKind, Task};
use crate::transform::augment::Turn;
use crate::{Error, Result};

/// The class of the corners that a rotation leaves empty: the reference's, not ignored.
const CORNER: i16 = 0;

/// What is known of the pixels of a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum PixelTruth {
    Classes(Mask),
    /// [h, w], normalised by the task's statistics; NaN where nothing is measured.
    Values(Array2<f32>),
}

impl PixelTruth {
    /// That of a sample.
    ///
    /// # Errors
    /// Where it is labelled with something else, or of another size than the image.
    pub fn of(sample: &Sample, task: &Task) -> Result<Self> {
        if task.target != TargetKind::ValueMap {
            return mask_of(sample, task).map(PixelTruth::Classes);
        }
        let name = &sample.name;
        let Target::ValueMap(map) = &sample.target else {
            return Err(Error::mismatch(format!("{name}: the label is no map of numbers"))
                .help("check the task's `target` in benchmarks/"));
        };
        let (h, w) = map.dim();
        let sizes = sample.images.iter().map(|image| (image.pixels.dim().1, image.pixels.dim().2));
        if let Some((rows, columns)) = sizes.into_iter().find(|size| *size != (h, w)) {
            return Err(Error::mismatch(format!(
                "{name}: the image is {rows} x {columns} pixels, its map {h} x {w}"
            ))
            .help("the file is damaged: fetch it again, or leave the sample out of the partition"));
        }
        if let Some(infinite) = map.iter().find(|value| value.is_infinite()) {
            return Err(Error::mismatch(format!("{name}: the map holds {infinite}"))
                .help("numbers that are not measured must be NaN; fetch the file again"));
        }
        let statistics = task.target_statistics();
        Ok(PixelTruth::Values(map.mapv(|value| statistics.normalize(value))))
    }

    /// The same, turned with its image. Corners that a rotation leaves empty hold the first class, or 0, the mean of the
    /// numbers: both count, as in the reference.
    pub fn turned(self, turn: Turn, task: &Task) -> Self {
        match self {
            PixelTruth::Classes(mask) => PixelTruth::Classes(turn.mask(mask, CORNER)),
            PixelTruth::Values(map) => PixelTruth::Values(turn.values(map, task.target_interpolation)),
        }
    }

    /// Its height and width.
    pub fn dim(&self) -> (usize, usize) {
        match self {
            PixelTruth::Classes(mask) => mask.dim(),
            PixelTruth::Values(map) => map.dim(),
        }
    }
}
