//! The order in which a seed shows the samples.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::random::stream;

/// Epoch e draws from stream `EPOCHS` + e of its seed; the initial weights from another.
const EPOCHS: u64 = 1;

/// One sample of one epoch: which of its augmented variants is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrawnSample {
    /// Its place among the training samples.
    pub sample: usize,
    /// The place of its augmentation.
    pub variant: usize,
}

/// The order of an epoch (from 0): every sample once, shuffled, each as one of its `variants`.
pub fn shuffled(seed: u64, epoch: usize, samples: usize, variants: usize) -> Vec<DrawnSample> {
    let mut rng = stream(seed, EPOCHS + epoch as u64);
    let mut order: Vec<usize> = (0..samples).collect();
    order.shuffle(&mut rng);
    let mut variant = || if variants > 1 { rng.random_range(0..variants) } else { 0 };
    order.into_iter().map(|sample| DrawnSample { sample, variant: variant() }).collect()
}
