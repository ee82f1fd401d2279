//! Resampling of maps as products with small matrices: bilinear resizing as PyTorch does it, and adaptive
//! average pooling. A product is differentiable on every device, its gradient the product with the transpose.

use burn::tensor::{Tensor, TensorData};
use ndarray::Array2;

/// Where the first and the last sample of a resized row lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corners {
    /// On the corner pixels' centres (`align_corners=True`).
    Aligned,
    /// Half a pixel inside the row's ends (`align_corners=False`), also when that is outside all centres.
    HalfPixel,
}

/// [to, from]: the weights of bilinear resizing along one side, in the float32 arithmetic of
/// PyTorch's `interpolate` (no antialiasing; neighbours beyond the border are the border).
pub fn bilinear(from: usize, to: usize, corners: Corners) -> Array2<f32> {
    let mut weights = Array2::zeros((to, from));
    let Some(last) = from.checked_sub(1) else { return weights };
    let step = match corners {
        Corners::HalfPixel => from as f32 / to as f32,
        Corners::Aligned if to > 1 => last as f32 / (to - 1) as f32,
        Corners::Aligned => 0.0,
    };
    for (i, mut row) in weights.rows_mut().into_iter().enumerate() {
        let at = match corners {
            Corners::HalfPixel => (step * (i as f32 + 0.5) - 0.5).max(0.0),
            Corners::Aligned => step * i as f32,
        };
        let low = (at as usize).min(last);
        let share = (at - low as f32).clamp(0.0, 1.0);
        row[low] += 1.0 - share;
        row[(low + 1).min(last)] += share;
    }
    weights
}

/// [to, from]: the weights of adaptive average pooling along one side. Bin i averages the samples from
/// floor(i * from / to) to ceil((i + 1) * from / to) - 1; neighbouring bins overlap where `to` does not
/// divide `from` [torch.nn.AdaptiveAvgPool2d].
pub fn average(from: usize, to: usize) -> Array2<f32> {
    Array2::from_shape_fn((to, from), |(i, j)| {
        let (start, end) = (i * from / to, ((i + 1) * from).div_ceil(to));
        if (start..end).contains(&j) { 1.0 / (end - start) as f32 } else { 0.0 }
    })
}

/// Applies [h', h] weights to the rows and [w', w] weights to the columns: [n, h, w, c] to [n, h', w', c].
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

/// Bilinear resizing: [n, h, w, c] to [n, size[0], size[1], c].
pub fn resize(x: Tensor<4>, size: [usize; 2], corners: Corners) -> Tensor<4> {
    let [_, h, w, _] = x.dims();
    if [h, w] == size {
        return x;
    }
    resample(x, &bilinear(h, size[0], corners), &bilinear(w, size[1], corners))
}

/// Adaptive average pooling: [n, h, w, c] to [n, side, side, c].
pub fn average_pool(x: Tensor<4>, side: usize) -> Tensor<4> {
    let [_, h, w, _] = x.dims();
    resample(x, &average(h, side), &average(w, side))
}
