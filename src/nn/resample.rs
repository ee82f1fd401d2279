//! Resampling of maps as products with small matrices: bilinear resizing as in PyTorch, and adaptive average pooling. A
//! product is differentiable on every device; its gradient is the product with the transpose.

use burn::tensor::{Tensor, TensorData};
use ndarray::Array2;

use crate::transform::resize::taps;

/// Position of the first and the last sample of a resized row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corners {
    /// At the centres of the corner pixels (`align_corners=True`).
    Aligned,
    /// Half a pixel inside the row's ends (`align_corners=False`), even if that is outside all centres.
    HalfPixel,
}

/// Weights [to, from] of bilinear resizing along one axis without antialiasing; both lengths must be above 0.
pub fn bilinear(from: usize, to: usize, corners: Corners) -> Array2<f32> {
    let mut weights = Array2::zeros((to, from));
    let taps = taps(from, to, corners == Corners::Aligned);
    for (mut row, tap) in weights.rows_mut().into_iter().zip(taps) {
        row[tap.before] += tap.weight_before;
        row[tap.after] += tap.weight_after;
    }
    weights
}

/// Weights [to, from] of adaptive average pooling along one axis. Bin i averages the samples from floor(i * from / to) to
/// ceil((i + 1) * from / to) - 1; neighbouring bins overlap if `to` does not divide `from` [torch.nn.AdaptiveAvgPool2d].
pub fn average(from: usize, to: usize) -> Array2<f32> {
    Array2::from_shape_fn((to, from), |(i, j)| {
        let (start, end) = (i * from / to, ((i + 1) * from).div_ceil(to));
        if (start..end).contains(&j) { 1.0 / (end - start) as f32 } else { 0.0 }
    })
}

/// Applies weights [h', h] to the rows and weights [w', w] to the columns: [n, h, w, c] to [n, h', w', c].
pub fn resample(x: Tensor<4>, rows: &Array2<f32>, columns: &Array2<f32>) -> Tensor<4> {
    let [n, h, w, c] = x.dims();
    let (new_h, new_w) = (rows.nrows(), columns.nrows());
    let device = x.device();
    let matrix = |weights: &Array2<f32>| {
        let data = TensorData::new(weights.iter().copied().collect(), [1, weights.nrows(), weights.ncols()]);
        Tensor::<3>::from_data(data, &device)
    };
    let x = matrix(columns).matmul(x.reshape([n * h, w, c]));
    let x = matrix(rows).matmul(x.reshape([n, h, new_w * c]));
    x.reshape([n, new_h, new_w, c])
}

/// Resizes bilinearly: [n, h, w, c] to [n, size[0], size[1], c].
pub fn resize(x: Tensor<4>, size: [usize; 2], corners: Corners) -> Tensor<4> {
    let [_, h, w, _] = x.dims();
    if [h, w] == size {
        return x;
    }
    resample(x, &bilinear(h, size[0], corners), &bilinear(w, size[1], corners))
}

/// Applies adaptive average pooling: [n, h, w, c] to [n, side, side, c].
pub fn average_pool(x: Tensor<4>, side: usize) -> Tensor<4> {
    let [_, h, w, _] = x.dims();
    resample(x, &average(h, side), &average(w, side))
}
