//! Resampling as the official package does it if asked (`pack_to_3d(resample=True)`): interpolation by cubic splines, corner to
//! corner [scipy, ndimage: `zoom` with order 3, ni_splines.c and ni_interpolation.c].

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

use crate::formats::hdf5::Dtype;

/// The pole of the cubic spline's prefilter: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;

/// Resamples a band [h, w] to [rows, columns], all above 0. Numbers of an integer type are rounded half away from zero and limited
/// to the type's range.
pub(super) fn zoom(band: ArrayView2<'_, f32>, [rows, columns]: [usize; 2], dtype: Dtype) -> Array2<f32> {
    let along_rows = resampled(band.mapv(f64::from).view(), columns);
    let both = resampled(along_rows.t(), rows);
    let limits = match dtype {
        Dtype::Int8 => Some([f64::from(i8::MIN), f64::from(i8::MAX)]),
        Dtype::Uint8 => Some([0.0, f64::from(u8::MAX)]),
        Dtype::Int16 => Some([f64::from(i16::MIN), f64::from(i16::MAX)]),
        Dtype::Uint16 => Some([0.0, f64::from(u16::MAX)]),
        Dtype::Int32 | Dtype::Int64 => Some([f64::from(i32::MIN), f64::from(i32::MAX)]),
        Dtype::Uint32 | Dtype::Uint64 => Some([0.0, f64::from(u32::MAX)]),
        Dtype::Float16 | Dtype::Float32 | Dtype::Float64 => None,
    };
    let stored = |number: f64| match limits {
        Some([low, high]) => number.round().clamp(low, high) as f32,
        None => number as f32,
    };
    both.t().mapv(stored)
}

/// Resamples each row of [n, old] to [n, new].
fn resampled(rows: ArrayView2<'_, f64>, new: usize) -> Array2<f64> {
    let old = rows.ncols();
    let taps: Vec<_> = (0..new).map(|place| taps(place, old, new)).collect();
    let mut result = Array2::zeros((rows.nrows(), new));
    for (row, mut to) in rows.axis_iter(Axis(0)).zip(result.rows_mut()) {
        let coefficients = prefiltered(row);
        for (value, (places, weights)) in to.iter_mut().zip(&taps) {
            *value = places.iter().zip(weights).map(|(place, weight)| coefficients[*place] * weight).sum();
        }
    }
    result
}

/// Returns the coefficients of the cubic spline through these numbers, which are mirrored at both ends.
fn prefiltered(numbers: ArrayView1<'_, f64>) -> Vec<f64> {
    let mut c: Vec<f64> = numbers.to_vec();
    let n = c.len();
    if n < 2 {
        return c;
    }
    // (1 - pole) (1 - 1 / pole)
    let gain = (1.0 - POLE) * (1.0 - 1.0 / POLE);
    c.iter_mut().for_each(|number| *number *= gain);
    // The sum over the mirrored numbers before the first.
    let (mut power, last) = (POLE, POLE.powi((n - 1) as i32));
    let mut first = c[0] + last * c[n - 1];
    let mut mirrored = last * last / POLE;
    for number in &c[1..n - 1] {
        first += power * (1.0 + mirrored / power) * number;
        power *= POLE;
        mirrored /= POLE;
    }
    c[0] = first / (1.0 - last * last);
    for i in 1..n {
        c[i] += POLE * c[i - 1];
    }
    c[n - 1] = (POLE * c[n - 2] + c[n - 1]) * POLE / (POLE * POLE - 1.0);
    for i in (0..n - 1).rev() {
        c[i] = POLE * (c[i + 1] - c[i]);
    }
    c
}

/// Returns the four coefficients, with their weights, whose sum is the number at `place` of the new axis. Places beyond an end are
/// mirrored.
fn taps(place: usize, old: usize, new: usize) -> ([usize; 4], [f64; 4]) {
    let step = if new > 1 { (old - 1) as f64 / (new - 1) as f64 } else { 1.0 };
    let source = (step * place as f64).min((old - 1) as f64);
    let before = source.floor();
    let (t, rest) = (source - before, 1.0 - (source - before));
    let second = (t * t * (t - 2.0) * 3.0 + 4.0) / 6.0;
    let third = (rest * rest * (rest - 2.0) * 3.0 + 4.0) / 6.0;
    let first = rest * rest * rest / 6.0;
    let weights = [first, second, third, 1.0 - first - second - third];
    let mirrored = |offset: i64| {
        let last = old as i64 - 1;
        if last == 0 {
            return 0;
        }
        let at = (before as i64 + offset).rem_euclid(2 * last);
        at.min(2 * last - at) as usize
    };
    ([-1, 0, 1, 2].map(mirrored), weights)
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    const X: [[f32; 4]; 4] =
        [[0.0, 3.0, 1.0, 5.0], [7.0, 4.0, 7.0, 5.0], [6.0, 8.0, 5.0, 8.0], [2.0, 9.0, 4.0, 1.0]];

    /// scipy 1.17.1, `scipy.ndimage.zoom(x, 1.5, order=3)`.
    #[test]
    fn floats_are_those_of_scipy() {
        let found = zoom(arr2(&X).view(), [6, 6], Dtype::Float32);
        let expected = arr2(&[
            [0.0, 1.8864, 2.7984, 1.0416, 2.6096, 5.0],
            [3.7008, 3.35103, 3.334863, 4.112625, 4.544637, 4.5392],
            [7.8048, 5.877135, 4.877929, 6.956759, 6.983012, 5.8432],
            [6.9552, 7.344368, 6.951575, 5.732137, 6.780444, 8.2768],
            [3.8432, 6.895908, 8.537674, 5.095798, 4.022249, 4.9888],
            [2.0, 6.0752, 9.1072, 5.4928, 1.9648, 1.0],
        ]);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found}, expected {expected}");
        }
        let ten = zoom(arr2(&X).view(), [10, 40], Dtype::Float32);
        assert_eq!(ten.dim(), (10, 40));
    }

    /// scipy 1.17.1, the same of `int16`.
    #[test]
    fn integers_are_those_of_scipy() {
        let found = zoom(arr2(&X).mapv(|x| 100.0 * x).view(), [6, 6], Dtype::Int16);
        let expected: [[f32; 6]; 6] = [
            [0.0, 189.0, 280.0, 104.0, 261.0, 500.0],
            [370.0, 335.0, 333.0, 411.0, 454.0, 454.0],
            [780.0, 588.0, 488.0, 696.0, 698.0, 584.0],
            [696.0, 734.0, 695.0, 573.0, 678.0, 828.0],
            [384.0, 690.0, 854.0, 510.0, 402.0, 499.0],
            [200.0, 608.0, 911.0, 549.0, 196.0, 100.0],
        ];
        assert_eq!(found, arr2(&expected));
        let bytes = zoom(arr2(&X).mapv(|x| 30.0 * x).view(), [6, 6], Dtype::Uint8);
        assert_eq!(bytes.row(2).to_vec(), [234.0, 176.0, 146.0, 209.0, 209.0, 175.0]);
        assert_eq!(bytes.row(5)[2], 255.0, "limited to the largest byte");
    }

    #[test]
    fn sides_of_one_pixel_are_repeated() {
        assert_eq!(zoom(arr2(&[[4.0]]).view(), [2, 3], Dtype::Float32), arr2(&[[4.0; 3]; 2]));
    }
}
