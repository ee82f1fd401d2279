//! The kernels composed of Burn's operations.

use std::sync::Arc;

use burn::backend::ops::ConvOptions;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorData, TensorMetadata};
use burn::tensor::{Shape, Slice};
use ndarray::Array2;

use super::{AdamwStep, Norm};
use crate::nn::resample::{Corners, bilinear};

const OPTIONS: fn() -> ConvOptions<2> = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);

pub fn conv3x3<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, size: [usize; 2]) -> FloatTensor<B> {
    let x = channels_first::<B>(resize::<B>(x, size));
    channels_last::<B>(B::conv2d(x, outputs_first::<B>(weight), None, OPTIONS()))
}

pub fn conv3x3_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
    wants_x: bool,
) -> (Option<FloatTensor<B>>, FloatTensor<B>) {
    let [_, h, w, _] = x.shape().dims();
    let [_, height, width, _] = gradient.shape().dims();
    let x = resize::<B>(x, [height, width]);
    let for_weight = conv3x3_weight_backward::<B>(x.clone(), gradient.clone());
    let for_x = wants_x.then(|| {
        let (x, gradient) = (channels_first::<B>(x), channels_first::<B>(gradient));
        let resized = B::conv2d_x_backward(x, outputs_first::<B>(weight), gradient, OPTIONS());
        resize_backward::<B>(channels_last::<B>(resized), [h, w])
    });
    (for_x, for_weight)
}

/// Gradient of the weight. x is [n, h, w, i], the gradient [n, h, w, o].
///
/// Computes one product per kernel position. Burn's own gradient is a convolution whose kernel has the size of the map,
/// which takes LibTorch twice as long. In padded maps, stepping to a neighbour is the same number of rows for every pixel.
fn conv3x3_weight_backward<B: Backend>(x: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let [n, h, w, i] = x.shape().dims();
    let [_, _, _, o] = gradient.shape().dims();
    let (x, gradient) = (pixels::<B>(border::<B>(x)), pixels::<B>(border::<B>(gradient)));
    let line = w + 2;
    // Number of padding cells before the first pixel and after the last one.
    let around = line + 1;
    let inner = n * (h + 2) * line - 2 * around;
    let rows = |map: FloatTensor<B>, from: usize, count: usize| {
        B::float_slice(map, &[Slice::from(from..from + count), Slice::full()])
    };
    let gradient = rows(gradient, around, inner);
    let product = |row: usize, column: usize| {
        let neighbours = rows(x.clone(), row * line + column, inner);
        B::float_matmul(B::float_transpose(neighbours), gradient.clone())
    };
    let products = (0..3).flat_map(|row| (0..3).map(move |column| (row, column)));
    let products = products.map(|(row, column)| product(row, column)).collect();
    B::float_reshape(B::float_cat(products, 0), Shape::from([3, 3, i, o]))
}

/// Pads a map with zeros: [n, h, w, c] to [n, h + 2, w + 2, c].
fn border<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [n, h, w, c] = x.shape().dims();
    let zeros = B::float_zeros(Shape::from([n, h + 2, w + 2, c]), &x.device(), x.dtype().into());
    let inside = [Slice::full(), Slice::from(1..h + 1), Slice::from(1..w + 1), Slice::full()];
    B::float_slice_assign(zeros, &inside, x)
}

fn channels_first<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_permute(x, &[0, 3, 1, 2])
}

fn channels_last<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_permute(x, &[0, 2, 3, 1])
}

/// [3, 3, i, o] to [o, i, 3, 3].
fn outputs_first<B: Backend>(weight: FloatTensor<B>) -> FloatTensor<B> {
    B::float_permute(weight, &[3, 2, 0, 1])
}

fn resize<B: Backend>(x: FloatTensor<B>, [height, width]: [usize; 2]) -> FloatTensor<B> {
    let [_, h, w, _] = x.shape().dims();
    if [h, w] == [height, width] {
        return x;
    }
    let rows = bilinear(h, height, Corners::HalfPixel);
    let columns = bilinear(w, width, Corners::HalfPixel);
    resample::<B>(x, &rows, &columns)
}

/// Gradient of resizing from `size`: the product with the transposed weights.
fn resize_backward<B: Backend>(x: FloatTensor<B>, [h, w]: [usize; 2]) -> FloatTensor<B> {
    let [_, height, width, _] = x.shape().dims();
    if [h, w] == [height, width] {
        return x;
    }
    let rows = bilinear(h, height, Corners::HalfPixel).reversed_axes();
    let columns = bilinear(w, width, Corners::HalfPixel).reversed_axes();
    resample::<B>(x, &rows, &columns)
}

fn resample<B: Backend>(x: FloatTensor<B>, rows: &Array2<f32>, columns: &Array2<f32>) -> FloatTensor<B> {
    let [n, h, w, c] = x.shape().dims();
    let (new_h, new_w) = (rows.nrows(), columns.nrows());
    let device = x.device();
    let matrix = |weights: &Array2<f32>| {
        let data = TensorData::new(weights.iter().copied().collect(), [1, weights.nrows(), weights.ncols()]);
        let weights = B::float_from_data(data, &device);
        if weights.dtype() == x.dtype() { weights } else { B::float_cast(weights, x.dtype().into()) }
    };
    let (rows, columns) = (matrix(rows), matrix(columns));
    let x = B::float_reshape(x, Shape::from([n * h, w, c]));
    let x = B::float_reshape(B::float_matmul(columns, x), Shape::from([n, h, new_w * c]));
    B::float_reshape(B::float_matmul(rows, x), Shape::from([n, new_h, new_w, c]))
}

pub fn batch_norm<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    norm: Norm,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let rows = pixels::<B>(x);
    let mean = B::float_mean_dim(rows.clone(), 0);
    let centred = B::float_sub(rows, mean.clone());
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 0);
    let scale = B::float_div(row::<B>(gamma), deviation::<B>(variance.clone(), norm.epsilon));
    let y = B::float_add(B::float_mul(centred, scale), row::<B>(beta));
    let y = if norm.relu { B::relu(y) } else { y };
    (B::float_reshape(y, shape), flat::<B>(mean), flat::<B>(variance))
}

pub fn batch_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    norm: Norm,
    gradient: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let centred = B::float_sub(pixels::<B>(x), row::<B>(mean));
    let deviation = deviation::<B>(variance, norm.epsilon);
    let scale = B::float_div(row::<B>(gamma), deviation.clone());
    let mut gradient = pixels::<B>(gradient);
    if norm.relu {
        let y = B::float_add(B::float_mul(centred.clone(), scale.clone()), row::<B>(beta));
        gradient = B::relu_backward(B::relu(y), gradient);
    }
    let for_beta = B::float_sum_dim(gradient.clone(), 0);
    let product = B::float_sum_dim(B::float_mul(gradient.clone(), centred.clone()), 0);
    let for_gamma = B::float_div(product, deviation.clone());
    // scale * (gradient - its mean - centred / deviation * the mean of gradient * centred / deviation), with all
    // per-channel factors combined, because passes over the map dominate the cost.
    let mean =
        |sum: &FloatTensor<B>| B::float_div_scalar(sum.clone(), Scalar::from(shape[0] * shape[1] * shape[2]));
    let along = B::float_div(mean(&for_gamma), deviation);
    let rest = B::float_sub(B::float_sub(gradient, B::float_mul(centred, along)), mean(&for_beta));
    let for_x = B::float_reshape(B::float_mul(rest, scale), shape);
    (for_x, flat::<B>(for_gamma), flat::<B>(for_beta))
}

/// Returns sqrt(variance + epsilon), [1, c].
fn deviation<B: Backend>(variance: FloatTensor<B>, epsilon: f64) -> FloatTensor<B> {
    B::float_sqrt(B::float_add_scalar(row::<B>(variance), Scalar::from(epsilon)))
}

/// [n, h, w, c] to [n * h * w, c].
fn pixels<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [n, h, w, c] = x.shape().dims();
    B::float_reshape(x, Shape::from([n * h * w, c]))
}

/// [c] or [1, c] to [1, c].
fn row<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let c = x.shape().num_elements();
    B::float_reshape(x, Shape::from([1, c]))
}

/// [1, c] to [c].
fn flat<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let c = x.shape().num_elements();
    B::float_reshape(x, Shape::from([c]))
}

pub fn biased_product<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    B::linear(x, weight, Some(bias))
}

pub fn upload<B: Backend>(
    beside: FloatTensor<B>,
    values: Arc<Vec<f32>>,
    shape: [usize; 4],
) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(values.to_vec(), shape), &beside.device())
}

pub fn adamw<B: Backend>(
    parameter: FloatTensor<B>,
    gradient: FloatTensor<B>,
    first: FloatTensor<B>,
    second: FloatTensor<B>,
    step: AdamwStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let times = |x, factor: f64| B::float_mul_scalar(x, Scalar::from(factor));
    let first = B::float_add(times(first, step.beta1), times(gradient.clone(), 1.0 - step.beta1));
    let square = B::float_mul(gradient.clone(), gradient);
    let second = B::float_add(times(second, step.beta2), times(square, 1.0 - step.beta2));
    let root = times(B::float_sqrt(second.clone()), step.root.recip());
    let change = B::float_div(first.clone(), B::float_add_scalar(root, Scalar::from(step.epsilon)));
    (B::float_sub(times(parameter, step.keep), times(change, step.rate)), first, second)
}
