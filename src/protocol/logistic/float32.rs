//! The same regression in float32 with PyTorch's solver, as torchgeo-bench fits it [torchgeo/torchgeo-bench,
//! src/torchgeo_bench/linear.py].
//!
//! Mean cross entropy + |W|² / (2 C n); for labels the mean binary cross entropy over samples and labels + |W|² / (2 C n L).

use burn::tensor::FloatDType;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis, Zip};
use rayon::prelude::*;

use super::{Labels, ROWS_AT_A_TIME};
use crate::Error;
use crate::config::SolverConfig;
use crate::protocol::on_device::regression::{DeviceFeatures, DeviceLabels};
use crate::solve::torch_lbfgs::{TorchMinimum, minimize};

/// Minimises the loss of `labels` for features [n, d], from 0. The point holds coefficients [rows, d] and intercepts [rows].
pub(super) fn fit(
    features: ArrayView2<f64>,
    labels: &Labels,
    rows: usize,
    c: f64,
    solver: SolverConfig,
) -> TorchMinimum {
    let features = features.mapv(|x| x as f32);
    let start = vec![0.0; rows * (features.ncols() + 1)];
    minimize(objective(features.view(), labels, rows, c), start, solver)
}

/// Like [`fit`], with the sums of a device. What the device fails with is put into `failure`, and ends the fit.
pub(super) fn fit_on_device(
    features: &DeviceFeatures,
    uploaded: &DeviceLabels,
    labels: &Labels,
    rows: usize,
    c: f64,
    solver: SolverConfig,
    failure: &mut Option<Error>,
) -> TorchMinimum {
    let (n, d) = features.dim();
    let (terms, penalty) = terms_and_penalty(labels, n, c);
    let objective = |point: &[f32]| {
        let (weights, intercepts) = point.split_at(rows * d);
        let weights = Array2::from_shape_fn((rows, d), |(row, column)| weights[row * d + column]);
        let intercepts = ArrayView1::from(intercepts).mapv(f64::from);
        let scale = f64::from(1.0 / terms as f32);
        let wide = weights.mapv(f64::from);
        match features.sums(uploaded, wide.view(), intercepts.view(), scale, FloatDType::F32) {
            Ok(sums) => {
                let squares = weights.iter().map(|w| f64::from(w * w)).sum::<f64>() as f32;
                let mut gradient = sums.weights.mapv(|g| g as f32);
                gradient.zip_mut_with(&weights, |g, w| *g += 2.0 * penalty * w);
                let value = (sums.loss / terms as f64) as f32 + penalty * squares;
                let intercepts = sums.intercepts.into_iter().map(|g| g as f32);
                (value, gradient.into_iter().chain(intercepts).collect())
            }
            Err(error) => {
                *failure = Some(error);
                (f32::NAN, vec![f32::NAN; point.len()])
            }
        }
    };
    minimize(objective, vec![0.0; rows * (d + 1)], solver)
}

/// How many terms the mean loss has, and the factor of the sum of squares.
fn terms_and_penalty(labels: &Labels, n: usize, c: f64) -> (usize, f32) {
    let terms = match labels {
        Labels::Softmax(_) => n,
        Labels::Logistic(labels) => labels.len(),
    };
    // Half the decay, as float32 multiplies the sum of squares.
    (terms, (0.5 / c / terms as f64) as f32)
}

/// The loss and its gradient at a point.
fn objective<'a>(
    features: ArrayView2<'a, f32>,
    labels: &'a Labels,
    rows: usize,
    c: f64,
) -> impl FnMut(&[f32]) -> (f32, Vec<f32>) + 'a {
    let (n, d) = features.dim();
    let (terms, penalty) = terms_and_penalty(labels, n, c);
    let scale = 1.0 / terms as f32;
    move |point: &[f32]| {
        let (weights, intercepts) = point.split_at(rows * d);
        // The point has rows * (d + 1) numbers.
        let weights =
            ArrayView2::from_shape((rows, d), weights).expect("a point holds rows * (d + 1) numbers");
        let intercepts = ArrayView1::from(intercepts);
        let blocks: Vec<(f64, Array2<f32>, Vec<f32>)> = features
            .axis_chunks_iter(Axis(0), ROWS_AT_A_TIME)
            .into_par_iter()
            .enumerate()
            .map(|(block, x)| {
                let mut z = Array2::zeros((x.nrows(), rows));
                z.assign(&intercepts);
                general_mat_mul(1.0, &x, &weights.t(), 1.0, &mut z);
                let samples = z.outer_iter_mut().zip(block * ROWS_AT_A_TIME..);
                let loss = samples.map(|(z, sample)| loss_and_gradient(labels, sample, z)).sum();
                z *= scale;
                (loss, z.t().dot(&x), z.sum_axis(Axis(0)).to_vec())
            })
            .collect();
        let (mut loss, mut gradient) = (0.0, Array2::<f32>::zeros((rows, d)));
        let mut sums = vec![0.0f32; rows];
        for (of_block, of_weights, of_intercepts) in &blocks {
            loss += of_block;
            gradient += of_weights;
            sums.iter_mut().zip(of_intercepts).for_each(|(sum, g)| *sum += g);
        }
        let squares = weights.iter().map(|w| f64::from(w * w)).sum::<f64>() as f32;
        gradient.zip_mut_with(&weights, |g, w| *g += 2.0 * penalty * w);
        let value = (loss / terms as f64) as f32 + penalty * squares;
        (value, gradient.into_iter().chain(sums).collect())
    }
}

/// Replaces a sample's logits [rows] by the gradient of its loss; returns the loss.
fn loss_and_gradient(labels: &Labels, sample: usize, mut z: ArrayViewMut1<f32>) -> f64 {
    match labels {
        Labels::Softmax(rows) => {
            let largest = z.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            let right = z[rows[sample]] - largest;
            z.mapv_inplace(|z| (z - largest).exp());
            let sum = z.sum();
            z /= sum;
            z[rows[sample]] -= 1.0;
            f64::from(sum.ln() - right)
        }
        Labels::Logistic(labels) => {
            let mut loss = 0.0;
            Zip::from(&mut z).and(labels.row(sample)).for_each(|z, &applies| {
                let small = (-z.abs()).exp();
                loss += f64::from(small.ln_1p() + if applies { -*z } else { *z }.max(0.0));
                let probability = if *z >= 0.0 { 1.0 } else { small } / (1.0 + small);
                *z = probability - f32::from(u8::from(applies));
            });
            loss
        }
    }
}
