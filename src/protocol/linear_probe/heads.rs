//! What a head is and how it is used: BatchNorm's scale γ and shift β and a linear layer W, b on normalised
//! features x.
//!
//! ```text
//! z = W (γ ∘ x + β) + b = (W diag γ) x + (W β + b)
//! ```

use std::f64::consts::TAU;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array, Array1, Array2, ArrayView1, ArrayView2, Axis, Dimension};
use rand::Rng;
use rayon::prelude::*;

use super::batches::RunningStatistics;
use crate::config::Initialization;
use crate::random::stream;

/// How many rows are normalised at a time when a head is used: enough to fill a thread, few enough for the cache.
const ROWS_AT_A_TIME: usize = 256;

/// The stream of a seed that decides the initial weights.
const INITIALIZATION: u64 = 0;

/// A linear layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// [outputs, d]
    pub weight: Array2<f32>,
    /// [outputs]
    pub bias: Array1<f32>,
}

impl Linear {
    /// The initial layer of `seed`.
    pub fn initial(how: Initialization, outputs: usize, width: usize, seed: u64) -> Self {
        let mut rng = stream(seed, INITIALIZATION);
        // Not `random::linear_bound`: its last digit differs for some widths, and so would the numbers of old records.
        let bound = (width.max(1) as f64).sqrt().recip() as f32;
        let bias = Array1::from_shape_simple_fn(outputs, || rng.random_range(-bound..=bound));
        let weight = match how {
            Initialization::Uniform {} => {
                Array2::from_shape_simple_fn((outputs, width), || rng.random_range(-bound..=bound))
            }
            Initialization::TruncatedNormal { std } => {
                Array2::from_shape_simple_fn((outputs, width), || truncated_normal(&mut rng, std))
            }
        };
        Self { weight, bias }
    }
}

/// Where the parameters of a head lie in its vector: W [outputs, d], b [outputs], γ [d], β [d].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadLayout {
    pub(crate) outputs: usize,
    pub(crate) width: usize,
    /// Whether γ and β are learnt; otherwise they stay 1 and 0.
    pub(crate) affine: bool,
}

/// The parameters of a head, or their gradients.
pub(crate) struct Parts<T> {
    pub(crate) weight: T,
    pub(crate) bias: T,
    pub(crate) scale: T,
    pub(crate) shift: T,
}

impl HeadLayout {
    pub(crate) fn len(self) -> usize {
        self.linear() + 2 * self.width
    }

    fn linear(self) -> usize {
        self.outputs * self.width + self.outputs
    }

    /// How many parameters, from the first, are learnt.
    pub(crate) fn learnt(self) -> usize {
        if self.affine { self.len() } else { self.linear() }
    }

    pub(crate) fn parts(self, head: &[f32]) -> Parts<&[f32]> {
        let (weight, rest) = head.split_at(self.outputs * self.width);
        let (bias, rest) = rest.split_at(self.outputs);
        let (scale, shift) = rest.split_at(self.width);
        Parts { weight, bias, scale, shift }
    }

    pub(crate) fn parts_mut(self, head: &mut [f32]) -> Parts<&mut [f32]> {
        let (weight, rest) = head.split_at_mut(self.outputs * self.width);
        let (bias, rest) = rest.split_at_mut(self.outputs);
        let (scale, shift) = rest.split_at_mut(self.width);
        Parts { weight, bias, scale, shift }
    }

    /// Writes W diag γ into `weight` [outputs, d] and W β + b into `bias` [outputs]: the head as one linear
    /// layer on normalised features.
    pub(crate) fn fold(self, head: &[f32], weight: &mut [f32], bias: &mut [f32]) {
        let of = self.parts(head);
        let shift = ArrayView1::from(of.shift);
        let rows = of.weight.chunks_exact(self.width).zip(weight.chunks_exact_mut(self.width));
        for ((w, folded), (b, folded_bias)) in rows.zip(of.bias.iter().zip(bias)) {
            for ((to, w), scale) in folded.iter_mut().zip(w).zip(of.scale) {
                *to = w * scale;
            }
            *folded_bias = b + ArrayView1::from(w).dot(&shift);
        }
    }

    /// The parameters of a head that begins with `linear`.
    pub(crate) fn head(self, linear: &Linear) -> Vec<f32> {
        let scale_and_shift = [vec![1.0; self.width], vec![0.0; self.width]].concat();
        linear.weight.iter().chain(&linear.bias).copied().chain(scale_and_shift).collect()
    }
}

/// The heads of a list of learning rates after the same number of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Heads {
    pub(crate) layout: HeadLayout,
    /// One vector of parameters per learning rate.
    pub(crate) parameters: Vec<Vec<f32>>,
    pub(crate) running: RunningStatistics,
}

impl Heads {
    /// Number of learning rates.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Whether there are no heads.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// The head of the learning rate at `rate` alone.
    #[must_use]
    pub fn only(&self, rate: usize) -> Self {
        Self {
            layout: self.layout,
            parameters: vec![self.parameters[rate].clone()],
            running: self.running.clone(),
        }
    }

    /// The linear layer of the learning rate at `rate`.
    pub fn linear(&self, rate: usize) -> Linear {
        let of = self.layout.parts(&self.parameters[rate]);
        let mut weight = Array2::zeros((self.layout.outputs, self.layout.width));
        flat(&mut weight).copy_from_slice(of.weight);
        Linear { weight, bias: of.bias.to_vec().into() }
    }

    /// BatchNorm's scale and shift, [d] each, of the learning rate at `rate`.
    pub fn affine(&self, rate: usize) -> (ArrayView1<'_, f32>, ArrayView1<'_, f32>) {
        let of = self.layout.parts(&self.parameters[rate]);
        (of.scale.into(), of.shift.into())
    }

    /// BatchNorm's running statistics, which all heads share.
    pub fn running(&self) -> &RunningStatistics {
        &self.running
    }

    /// Logits [n, outputs] of features [n, d] by the head of the learning rate at `rate`.
    pub fn logits(&self, rate: usize, features: ArrayView2<f32>) -> Array2<f32> {
        let HeadLayout { outputs, width, .. } = self.layout;
        let (mut weight, mut bias) = (Array2::zeros((outputs, width)), Array1::zeros(outputs));
        self.layout.fold(&self.parameters[rate], flat(&mut weight), flat(&mut bias));
        let mut logits = Array2::zeros((features.nrows(), outputs));
        let blocks = logits.axis_chunks_iter_mut(Axis(0), ROWS_AT_A_TIME).into_par_iter();
        blocks.zip(features.axis_chunks_iter(Axis(0), ROWS_AT_A_TIME)).for_each(|(mut logits, features)| {
            logits.assign(&bias);
            general_mat_mul(1.0, &self.running.normalize(features), &weight.t(), 1.0, &mut logits);
        });
        logits
    }
}

/// The elements of an array that was made in standard layout.
pub(crate) fn flat<D: Dimension>(array: &mut Array<f32, D>) -> &mut [f32] {
    array.as_slice_mut().expect("arrays of a group are made in standard layout")
}

/// Normal with mean 0, cut at ±2, where torch's `trunc_normal_` cuts by default, whatever `std` is.
fn truncated_normal(rng: &mut impl Rng, std: f64) -> f32 {
    loop {
        // Box and Muller's transform; 1 - u is above 0.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let x = std * radius * (TAU * rng.random::<f64>()).cos();
        if x.abs() <= 2.0 {
            return x as f32;
        }
    }
}
