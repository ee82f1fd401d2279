//! What a task asks for between a sample's stored numbers and its arrays: missing pixels, factors, and one size for all, with
//! OpenCV's arithmetic [opencv, modules/imgproc/src/resize.cpp: `resizeNN`, `HResizeCubic`, `VResizeCubic`].

use ndarray::{Array2, Array3, ArrayView2};

use super::Target;
use crate::formats::hdf5::Dtype;
use crate::task::{Resample, Task, ValueResampling};
use crate::{Error, Result};

/// Replaces missing pixels by the task's number for them, before anything else is done with them.
pub(super) fn fill_missing<'a>(task: &Task, pixels: impl IntoIterator<Item = &'a mut f32>) {
    if let Some(number) = task.nan_pixels {
        pixels.into_iter().filter(|pixel| pixel.is_nan()).for_each(|pixel| *pixel = number);
    }
}

/// Multiplies the bands of an image [bands, h, w] by the task's factors, then resamples it to the task's size. `places` are
/// the bands' indices among the stored ones of the image.
///
/// # Errors
/// If a side has 0 pixels.
pub(super) fn scaled_and_resampled(
    task: &Task,
    places: &[usize],
    mut pixels: Array3<f32>,
) -> Result<Array3<f32>> {
    if task.scale != 1.0 {
        pixels.mapv_inplace(|pixel| pixel * task.scale);
    }
    for (place, mut band) in places.iter().zip(pixels.outer_iter_mut()) {
        if let Some(factor) = task.band_scales.get(*place) {
            band.mapv_inplace(|pixel| pixel * factor);
        }
    }
    let Some(Resample { side, .. }) = task.resample else { return Ok(pixels) };
    let (bands, rows, columns) = pixels.dim();
    check([rows, columns])?;
    if (rows, columns) == (side, side) {
        return Ok(pixels);
    }
    let taps = [cubic_taps(rows, side), cubic_taps(columns, side)];
    let mut resampled = Vec::with_capacity(bands * side * side);
    pixels.outer_iter().for_each(|band| cubic_into(&mut resampled, band, &taps));
    Array3::from_shape_vec((bands, side, side), resampled).map_err(Error::mismatch)
}

/// Resamples a label per pixel to the task's size; other labels stay. `dtype` is the type in which the label is stored.
///
/// # Errors
/// If a side has 0 pixels.
pub(super) fn resampled(task: &Task, target: Target, dtype: Option<Dtype>) -> Result<Target> {
    let Some(Resample { side, values }) = task.resample else { return Ok(target) };
    Ok(match target {
        Target::Mask(mask) if mask.dim() != (side, side) => Target::Mask(nearest(mask.view(), side)?),
        Target::ValueMap(map) if map.dim() != (side, side) => {
            check([map.nrows(), map.ncols()])?;
            Target::ValueMap(match values {
                ValueResampling::Nearest => nearest(map.view(), side)?,
                ValueResampling::Cubic => within(dtype, cubic(map.view(), side)),
            })
        }
        other => other,
    })
}

/// Rounds half to even and limits numbers to the range of `dtype`, if that is a type of integers.
fn within(dtype: Option<Dtype>, mut map: Array2<f32>) -> Array2<f32> {
    let [low, high] = match dtype {
        Some(Dtype::Uint8) => [0.0, f32::from(u8::MAX)],
        Some(Dtype::Uint16) => [0.0, f32::from(u16::MAX)],
        Some(Dtype::Int16) => [f32::from(i16::MIN), f32::from(i16::MAX)],
        _ => return map,
    };
    map.mapv_inplace(|number| number.round_ties_even().clamp(low, high));
    map
}

fn check(sides: [usize; 2]) -> Result<()> {
    match sides.contains(&0) {
        true => Err(Error::mismatch(format!("expected sides above 0 pixels, found {sides:?}"))),
        false => Ok(()),
    }
}

/// Resamples a map [h, w] to [side, side]. Each number is copied from one position.
fn nearest<T: Copy>(map: ArrayView2<'_, T>, side: usize) -> Result<Array2<T>> {
    check([map.nrows(), map.ncols()])?;
    let sources = |old: usize| -> Vec<usize> {
        // OpenCV's two divisions: a product of the index with old / side may round to another position.
        let step = 1.0 / (side as f64 / old as f64);
        (0..side).map(|place| ((place as f64 * step).floor() as usize).min(old - 1)).collect()
    };
    let (rows, columns) = (sources(map.nrows()), sources(map.ncols()));
    Ok(Array2::from_shape_fn((side, side), |(row, column)| map[[rows[row], columns[column]]]))
}

/// The four source positions that a position of the new axis is a weighted sum of.
struct CubicTaps {
    places: [usize; 4],
    weights: [f32; 4],
}

/// Returns the taps for resampling an axis from `old` to `new` positions, both above 0. Positions beyond an end are the end.
fn cubic_taps(old: usize, new: usize) -> Vec<CubicTaps> {
    const A: f64 = -0.75;
    let step = 1.0 / (new as f64 / old as f64);
    let tap = |place: usize| {
        // In float64: rounding the position first would move values by 1e-5 of their differences.
        let source = (place as f64 + 0.5) * step - 0.5;
        let (before, x) = (source.floor(), source - source.floor());
        let first = ((A * (x + 1.0) - 5.0 * A) * (x + 1.0) + 8.0 * A) * (x + 1.0) - 4.0 * A;
        let inner = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
        let (second, third) = (inner(x), inner(1.0 - x));
        let weights = [first, second, third, 1.0 - first - second - third];
        let at = |offset: i64| (before as i64 + offset).clamp(0, old as i64 - 1) as usize;
        CubicTaps { places: [-1, 0, 1, 2].map(at), weights: weights.map(|weight| weight as f32) }
    };
    (0..new).map(tap).collect()
}

/// Resamples [h, w] to [side, side] by bicubic interpolation without antialiasing.
fn cubic(map: ArrayView2<'_, f32>, side: usize) -> Array2<f32> {
    let taps = [cubic_taps(map.nrows(), side), cubic_taps(map.ncols(), side)];
    let mut resampled = Vec::with_capacity(side * side);
    cubic_into(&mut resampled, map, &taps);
    Array2::from_shape_vec((side, side), resampled)
        .expect("a row per tap of rows, of a number per tap of columns")
}

/// Appends what [`cubic`] returns: along rows first, then along columns, so that the inner loop runs over neighbours.
fn cubic_into(to: &mut Vec<f32>, map: ArrayView2<'_, f32>, [rows, columns]: &[Vec<CubicTaps>; 2]) {
    let (map, width) = (map.as_standard_layout(), columns.len());
    let mut widened = Vec::with_capacity(map.nrows() * width);
    for row in map.rows() {
        let row = row.to_slice().unwrap_or_default();
        widened.extend(columns.iter().map(|tap| {
            let [a, b, c, d] = tap.places.map(|place| row[place]);
            weighted([a, b, c, d], tap.weights)
        }));
    }
    for tap in rows {
        let [a, b, c, d] = tap.places.map(|place| &widened[place * width..][..width]);
        let numbers = a.iter().zip(b).zip(c.iter().zip(d));
        to.extend(numbers.map(|((a, b), (c, d))| weighted([*a, *b, *c, *d], tap.weights)));
    }
}

fn weighted([a, b, c, d]: [f32; 4], [wa, wb, wc, wd]: [f32; 4]) -> f32 {
    a * wa + b * wb + c * wc + d * wd
}

#[cfg(test)]
mod tests {
    use ndarray::{arr2, array};

    use super::*;

    /// [3, 4] of the numbers 10 x - 20 or 6500 x.
    const X: [[f32; 4]; 3] = [[0.0, 3.0, 1.0, 5.0], [7.0, 4.0, 7.0, 5.0], [6.0, 8.0, 5.0, 8.0]];

    /// OpenCV 4.11, `cv2.resize(x, (6, 6), interpolation=cv2.INTER_CUBIC)`. Numbers go beyond those of the input.
    #[test]
    fn cubic_numbers_are_those_of_opencv() {
        let found = cubic(arr2(&X).mapv(|x| 10.0 * x - 20.0).view(), 6);
        let expected = array![
            [-30.5363, -6.84937, 7.66728, -16.0918, 4.46655, 34.0215],
            [-5.06063, 4.15039, 10.7612, 3.35339, 16.0059, 31.0849],
            [37.0772, 22.0117, 15.4244, 35.5651, 35.0195, 25.8221],
            [57.2873, 40.5847, 31.3189, 49.5535, 46.3293, 35.4948],
            [44.1569, 49.3811, 49.4689, 37.4192, 43.5486, 54.6408],
            [36.7514, 54.9878, 60.5865, 30.4812, 42.1216, 66.226],
        ];
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
        }
    }

    /// The same of `uint16`: whole numbers, none below 0.
    #[test]
    fn cubic_integers_are_those_of_opencv() {
        let found = within(Some(Dtype::Uint16), cubic(arr2(&X).mapv(|x| 6500.0 * x).view(), 6));
        let expected: [[f32; 6]; 6] = [
            [0.0, 8548.0, 17984.0, 2540.0, 15903.0, 35114.0],
            [9711.0, 15698.0, 19995.0, 15180.0, 23404.0, 33205.0],
            [37100.0, 27308.0, 23026.0, 36117.0, 35763.0, 29784.0],
            [50237.0, 39380.0, 33357.0, 45210.0, 43114.0, 36072.0],
            [41702.0, 45098.0, 45155.0, 37322.0, 41307.0, 48517.0],
            [36888.0, 48742.0, 52381.0, 32813.0, 40379.0, 56047.0],
        ];
        assert_eq!(found, arr2(&expected));
        let floats = within(Some(Dtype::Float32), array![[-0.25_f32, 0.5]]);
        assert_eq!(floats, array![[-0.25_f32, 0.5]]);
    }

    /// OpenCV's `INTER_NEAREST`, [3, 4] to [6, 6]; and 68 to 96, where floor(i * 68 / 96) would take 51 at 72.
    #[test]
    fn nearest_positions_are_those_of_opencv() {
        let found = nearest(Array2::from_shape_fn((3, 4), |(y, x)| 4 * y + x).view(), 6).unwrap();
        assert_eq!(found.row(2).to_vec(), [4, 4, 5, 6, 6, 7]);
        assert_eq!(found.column(0).to_vec(), [0, 0, 4, 4, 8, 8]);
        let found = nearest(Array2::from_shape_fn((1, 68), |(_, x)| x).view(), 96).unwrap();
        assert_eq!(found[[0, 72]], 50);
        assert!(nearest(Array2::<i32>::zeros((0, 3)).view(), 6).is_err());
    }
}
