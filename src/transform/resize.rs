//! Resizing: bilinear for images, nearest for masks, with PyTorch's float32 arithmetic [ATen/native/UpSample.h].

use ndarray::{Array2, Array3, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Resizes an image [c, h, w] to [c, height, width] by bilinear interpolation, without antialiasing even when shrinking.
///
/// With `align_corners` the centres of the corner pixels stay fixed (step (old - 1) / (new - 1)); otherwise their outer
/// edges do (step old / new, half-pixel centres). Resizing to the same size returns the image unchanged.
///
/// # Errors
/// If a side is 0, before or after.
pub fn bilinear(image: Array3<f32>, height: usize, width: usize, align_corners: bool) -> Result<Array3<f32>> {
    let (channels, old_height, old_width) = image.dim();
    check_sides([old_height, old_width], [height, width])?;
    if (old_height, old_width) == (height, width) {
        return Ok(image);
    }
    let columns = taps(old_width, width, align_corners);
    let rows = taps(old_height, height, align_corners);

    // First widen the rows to the output's width, then blend two of them per output row.
    let image = image.as_standard_layout();
    let mut resized = Array3::zeros((channels, height, width));
    let mut widened = vec![0.0f32; old_height * width];
    for (channel, mut resized) in image.outer_iter().zip(resized.outer_iter_mut()) {
        for (row, widened) in channel.rows().into_iter().zip(widened.chunks_exact_mut(width)) {
            for (value, tap) in widened.iter_mut().zip(&columns) {
                *value = row[tap.before] * tap.weight_before + row[tap.after] * tap.weight_after;
            }
        }
        for (mut row, tap) in resized.rows_mut().into_iter().zip(&rows) {
            let before = &widened[tap.before * width..][..width];
            let after = &widened[tap.after * width..][..width];
            for ((value, before), after) in row.iter_mut().zip(before).zip(after) {
                *value = before * tap.weight_before + after * tap.weight_after;
            }
        }
    }
    Ok(resized)
}

/// The two source positions that a position of the resized axis lies between, and their weights.
pub(crate) struct Tap {
    pub before: usize,
    pub after: usize,
    pub weight_before: f32,
    pub weight_after: f32,
}

/// Returns the taps for resizing an axis from `old` to `new` positions, both above 0.
pub(crate) fn taps(old: usize, new: usize, align_corners: bool) -> Vec<Tap> {
    let step = match (align_corners, new) {
        (true, 1) => 0.0,
        (true, _) => (old - 1) as f32 / (new - 1) as f32,
        (false, _) => old as f32 / new as f32,
    };
    let tap = |place: usize| {
        let source =
            if align_corners { step * place as f32 } else { (step * (place as f32 + 0.5) - 0.5).max(0.0) };
        let before = (source.floor() as usize).min(old - 1);
        let weight_after = (source - before as f32).clamp(0.0, 1.0);
        Tap { before, after: (before + 1).min(old - 1), weight_before: 1.0 - weight_after, weight_after }
    };
    (0..new).map(tap).collect()
}

/// The rule by which a position of the new axis selects its source on the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nearest {
    /// floor(index * old / new): PyTorch's `nearest`; kornia's masks up to version 0.8.
    Floor,
    /// floor((index + 0.5) * old / new): PyTorch's `nearest-exact`; kornia's masks from version 0.9.
    Exact,
}

/// Returns the source of each position of an axis that is resized from `old` to `new` positions.
///
/// # Errors
/// If `old` or `new` is 0.
pub fn nearest_indices(old: usize, new: usize, rule: Nearest) -> Result<Vec<usize>> {
    check_sides([old], [new])?;
    let step = old as f32 / new as f32;
    let offset = match rule {
        Nearest::Floor => 0.0,
        Nearest::Exact => 0.5,
    };
    Ok((0..new).map(|place| (((place as f32 + offset) * step) as usize).min(old - 1)).collect())
}

/// Resizes a mask [h, w] to [height, width]. Each value is copied from one position, so no new label can appear.
///
/// # Errors
/// If a side is 0, before or after.
pub fn nearest<T: Copy>(
    mask: ArrayView2<'_, T>,
    height: usize,
    width: usize,
    rule: Nearest,
) -> Result<Array2<T>> {
    let rows = nearest_indices(mask.nrows(), height, rule)?;
    let columns = nearest_indices(mask.ncols(), width, rule)?;
    Ok(Array2::from_shape_fn((height, width), |(y, x)| mask[[rows[y], columns[x]]]))
}

pub(super) fn check_sides<const N: usize>(old: [usize; N], new: [usize; N]) -> Result<()> {
    if old.contains(&0) || new.contains(&0) {
        return Err(Error::mismatch(format!(
            "cannot resize from {old:?} to {new:?} pixels: expected sides above 0"
        )));
    }
    Ok(())
}
