//! Bicubic resizing along one axis as a matrix, in float64. Apply it with [`super::resample::resample`].

use burn::tensor::Tensor;
use ndarray::Array2;

use super::resample;

/// Keys' cubic convolution for a sample at distance `t`; `a` is its slope at distance 1.
fn keys(a: f64, t: f64) -> f64 {
    match t.abs() {
        t if t < 1.0 => ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
        t if t < 2.0 => ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a,
        _ => 0.0,
    }
}

/// Weights [to, from] of bicubic resizing: the first and the last sample stay fixed, the border is repeated, no
/// antialiasing [PyTorch, `interpolate` with `mode="bicubic"`, `align_corners=True`].
pub fn corners_aligned(from: usize, to: usize) -> Array2<f64> {
    let step = if to > 1 { (from - 1) as f64 / (to - 1) as f64 } else { 0.0 };
    let mut weights = Array2::zeros((to, from));
    for (i, mut row) in weights.rows_mut().into_iter().enumerate() {
        let position = step * i as f64;
        for offset in -1..=2 {
            let sample = position.floor() + f64::from(offset);
            row[sample.clamp(0.0, (from - 1) as f64) as usize] += keys(-0.75, position - sample);
        }
    }
    weights
}

/// Weights [to, from] of bicubic resizing: half-pixel centres, antialiased when shrinking, cut off at the border [PyTorch,
/// `interpolate` with `mode="bicubic"`, `antialias=True`].
pub fn antialiased(from: usize, to: usize) -> Array2<f64> {
    let step = from as f64 / to as f64;
    // Factor by which the kernel is stretched.
    let stretch = step.max(1.0);
    let mut weights = Array2::zeros((to, from));
    for (i, mut row) in weights.rows_mut().into_iter().enumerate() {
        let centre = step * (i as f64 + 0.5);
        let first = (centre - 2.0 * stretch + 0.5).max(0.0) as usize;
        let end = ((centre + 2.0 * stretch + 0.5) as usize).min(from);
        for j in first..end {
            row[j] = keys(-0.5, (j as f64 + 0.5 - centre) / stretch);
        }
        let sum = row.sum();
        row /= sum;
    }
    weights
}

/// The transposed pseudo-inverse [to, from] of [`antialiased`]. It resizes a patch embedding's kernel so that its product
/// with a resized patch stays the same [Beyer et al., FlexiViT, arXiv 2212.08013].
pub fn pseudo_inverse(from: usize, to: usize) -> Array2<f64> {
    let a = antialiased(from, to);
    if to == from {
        a // The identity.
    } else if to < from {
        solve(a.dot(&a.t()), a) // (A Aᵀ)⁻¹ A
    } else {
        let square = a.t().dot(&a);
        solve(square, a.reversed_axes()).reversed_axes() // A (Aᵀ A)⁻¹
    }
}

/// Applies weights [m, side] along both axes of a grid of position embeddings: [1, 1 + side², d] to [1, 1 + m², d]. The
/// class token's embedding comes first and stays unchanged.
pub fn resize_positions(positions: Tensor<3>, along: &Array2<f64>) -> Tensor<3> {
    let (m, side) = along.dim();
    let d = positions.dims()[2];
    let class = positions.clone().slice_dim(1, 0..1);
    let grid = positions.slice_dim(1, 1..).reshape([1, side, side, d]);
    let along = along.mapv(|weight| weight as f32);
    let grid = resample::resample(grid, &along, &along).reshape([1, m * m, d]);
    Tensor::cat(vec![class, grid], 1)
}

/// Solves a x = b for a symmetric, positive definite `a`, which needs no pivoting.
fn solve(mut a: Array2<f64>, mut b: Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    for i in 0..n {
        let (row, right) = (a.row(i).to_owned(), b.row(i).to_owned());
        for j in (0..n).filter(|j| *j != i) {
            let factor = a[[j, i]] / row[i];
            a.row_mut(j).scaled_add(-factor, &row);
            b.row_mut(j).scaled_add(-factor, &right);
        }
    }
    for (mut row, pivot) in b.rows_mut().into_iter().zip(a.diag()) {
        row /= *pivot;
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sum_to_one() {
        for (from, to) in [(14, 7), (14, 16), (14, 32), (16, 4), (16, 64), (14, 1)] {
            for weights in [antialiased(from, to), corners_aligned(from, to)] {
                assert_eq!(weights.dim(), (to, from));
                for row in weights.rows() {
                    assert!((row.sum() - 1.0).abs() < 1e-12, "{from} to {to}: {}", row.sum());
                }
            }
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        for weights in [antialiased(16, 16), corners_aligned(16, 16), pseudo_inverse(16, 16)] {
            assert_eq!(weights, Array2::<f64>::eye(16));
        }
    }

    #[test]
    fn pseudo_inverse_undoes_an_enlargement() {
        let product = antialiased(16, 24).t().dot(&pseudo_inverse(16, 24));
        let error = (product - Array2::<f64>::eye(16)).mapv(f64::abs).into_iter().fold(0.0, f64::max);
        assert!(error < 1e-10, "{error:e}");
    }
}
