//! What a seed decides: the initial weights and the order of the samples. The same on every machine.

use std::f64::consts::TAU;

use ndarray::{Array1, Array2};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::heads::Linear;
use crate::config::Initialization;

/// Streams of a seed's random numbers, so that no draw depends on how many others there were. Epoch e draws from
/// `EPOCHS` + e.
const INITIALIZATION: u64 = 0;
const EPOCHS: u64 = 1;

fn random(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// One sample of one epoch: which of its augmented variants is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub sample: usize,
    pub variant: usize,
}

/// The order of an epoch (from 0): every sample once, shuffled, each as one of its `variants`.
pub fn shuffled(seed: u64, epoch: usize, samples: usize, variants: usize) -> Vec<Row> {
    let mut rng = random(seed, EPOCHS + epoch as u64);
    let mut order: Vec<usize> = (0..samples).collect();
    order.shuffle(&mut rng);
    let mut variant = || if variants > 1 { rng.random_range(0..variants) } else { 0 };
    order.into_iter().map(|sample| Row { sample, variant: variant() }).collect()
}

impl Linear {
    /// The initial layer of `seed`.
    pub fn initial(how: Initialization, outputs: usize, width: usize, seed: u64) -> Self {
        let mut rng = random(seed, INITIALIZATION);
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

/// Normal with mean 0, none beyond ±2: where torch's `trunc_normal_` cuts by default, whatever `std` is.
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
