//! Convolution kernels for other patch sizes than the trained one: FlexiViT's resize by the pseudo-inverse
//! [Beyer et al., arXiv 2212.08013].

use burn::tensor::Tensor;
use ndarray::Array2;

use super::resample::resample;

/// Kernels [out, in, side, side] for patches of `patch` pixels: [out, in, patch, patch], with `patch` from 1 to
/// `side`.
///
/// The product of the new kernel with a patch that was shrunk from `side` to `patch` pixels is as near as possible
/// to that of the trained kernel with the patch before.
pub fn resize_kernel(kernel: Tensor<4>, patch: usize) -> Tensor<4> {
    let [out, into, side, _] = kernel.dims();
    if patch == side {
        return kernel;
    }
    let inverse = pseudo_inverse(side, patch);
    let kernel = kernel.reshape([out * into, side, side, 1]);
    resample(kernel, &inverse, &inverse).reshape([out, into, patch, patch])
}

/// [to, from]: the pseudo-inverse of antialiased bicubic resizing along one side, with `to` from 1 to `from`.
///
/// Images are resized along both sides by the same weights r [to, from], so that the pseudo-inverse for the image is
/// this one along each side. r has independent rows: its transpose's pseudo-inverse is (r rᵀ)⁻¹ r.
pub fn pseudo_inverse(from: usize, to: usize) -> Array2<f32> {
    let r = antialiased_bicubic(from, to);
    solve(r.dot(&r.t()), r).mapv(|weight| weight as f32)
}

/// [to, from]: weights of bicubic resizing along one side as PyTorch does it with `antialias=True`: half-pixel
/// centres, samples outside left out.
pub fn antialiased_bicubic(from: usize, to: usize) -> Array2<f64> {
    let scale = (from as f64 / to as f64).max(1.0);
    let mut weights = Array2::zeros((to, from));
    for (i, mut row) in weights.rows_mut().into_iter().enumerate() {
        let centre = from as f64 / to as f64 * (i as f64 + 0.5);
        let first = (centre - 2.0 * scale + 0.5).floor().max(0.0) as usize;
        let end = ((centre + 2.0 * scale + 0.5).floor() as usize).min(from);
        for j in first..end {
            row[j] = keys((j as f64 - centre + 0.5) / scale);
        }
        let sum = row.sum();
        row /= sum;
    }
    weights
}

/// Keys' cubic convolution with a = -0.5, PyTorch's choice where it antialiases. Its plain bicubic has -0.75.
fn keys(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
        _ => 0.0,
    }
}

/// The solution x of a x = b for a positive definite a, by elimination without pivoting.
fn solve(mut a: Array2<f64>, mut b: Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    for pivot in 0..n {
        let (pivot_a, pivot_b) = (a.row(pivot).to_owned(), b.row(pivot).to_owned());
        for row in (0..n).filter(|row| *row != pivot) {
            let factor = a[[row, pivot]] / pivot_a[pivot];
            a.row_mut(row).scaled_add(-factor, &pivot_a);
            b.row_mut(row).scaled_add(-factor, &pivot_b);
        }
    }
    for (row, mut values) in b.rows_mut().into_iter().enumerate() {
        values /= a[[row, row]];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudo_inverse_undoes_resizing() {
        for to in 1..=8 {
            let product = antialiased_bicubic(8, to).dot(&pseudo_inverse(8, to).mapv(f64::from).t());
            for ((row, column), value) in product.indexed_iter() {
                let expected = if row == column { 1.0 } else { 0.0 };
                assert!((value - expected).abs() < 1e-6, "{to}: [{row}, {column}] is {value}");
            }
        }
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing() {
        assert_eq!(antialiased_bicubic(8, 8), Array2::<f64>::eye(8));
    }
}
