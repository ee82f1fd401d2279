//! Position embeddings of grids of patches: fixed tables, and stored tables resized to another grid.

use burn::tensor::Tensor;
use ndarray::Array2;

use super::resample::resample;

/// Sinusoidal position embeddings [Vaswani et al., arXiv 1706.03762]: [positions, width], where row p is sin(p w_0), sin(p
/// w_1), … and then cos(p w_0), cos(p w_1), … with w_j = 10000^(-2j / width). `width` is even.
pub fn sines(positions: usize, width: usize) -> Array2<f64> {
    let half = width / 2;
    Array2::from_shape_fn((positions, width), |(position, i)| {
        let frequency = 10000_f64.powf(-((i % half) as f64) / half as f64);
        let angle = position as f64 * frequency;
        if i < half { angle.sin() } else { angle.cos() }
    })
}

/// Weights [to, from] of bicubic resizing along one axis: half-pixel centres, border repeated, no antialiasing [PyTorch,
/// `interpolate` with `mode="bicubic"`, `size=to`].
pub fn half_pixel(from: usize, to: usize) -> Array2<f64> {
    // Keys' cubic convolution with a = -0.75, PyTorch's choice, for a sample at distance x.
    const A: f64 = -0.75;
    let kernel = |x: f64| match x.abs() {
        x if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
        _ => 0.0,
    };
    let step = from as f64 / to as f64;
    let mut weights = Array2::zeros((to, from));
    for (i, mut row) in weights.rows_mut().into_iter().enumerate() {
        let position = (i as f64 + 0.5) * step - 0.5;
        for offset in -1..=2 {
            let sample = position.floor() + f64::from(offset);
            row[sample.clamp(0.0, (from - 1) as f64) as usize] += kernel(position - sample);
        }
    }
    weights
}

/// Resizes position embeddings from a `side` x `side` grid to a grid of [rows, columns] patches: [1, side² + 1, d] to
/// [1, rows * columns + 1, d]. The class token's embedding comes first and stays unchanged. `weights` returns the weights [to,
/// from] of resizing along one axis.
pub fn resize(
    positions: Tensor<3>,
    side: usize,
    [rows, columns]: [usize; 2],
    weights: fn(usize, usize) -> Array2<f64>,
) -> Tensor<3> {
    if [rows, columns] == [side; 2] {
        return positions;
    }
    let along = |to: usize| weights(side, to).mapv(|weight| weight as f32);
    let d = positions.dims()[2];
    let class = positions.clone().slice_dim(1, 0..1);
    let grid = positions.slice_dim(1, 1..).reshape([1, side, side, d]);
    let grid = resample(grid, &along(rows), &along(columns)); // [1, rows, columns, d]
    Tensor::cat(vec![class, grid.reshape([1, rows * columns, d])], 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sines_come_before_cosines() {
        let table = sines(3, 4);
        let expected = [0.0, 0.0, 1.0, 1.0, 1_f64.sin(), 0.01_f64.sin(), 1_f64.cos(), 0.01_f64.cos()];
        for (found, expected) in table.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "expected {expected}, found {found}");
        }
    }

    #[test]
    fn half_pixel_rows_sum_to_one() {
        for (from, to) in [(12, 15), (12, 12), (12, 4), (14, 1)] {
            for row in half_pixel(from, to).rows() {
                assert!((row.sum() - 1.0).abs() < 1e-12, "{from} to {to}: {}", row.sum());
            }
        }
        assert_eq!(half_pixel(12, 12), Array2::<f64>::eye(12));
    }
}
