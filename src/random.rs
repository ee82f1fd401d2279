//! Seeded random numbers.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Augmentation;
use crate::transform::augment::Turn;

/// Returns one of a seed's independent streams, so that no draw depends on the number of other draws. The numbers are the
/// same on every machine.
pub fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// The bound within which the weights and biases of PyTorch's linear layers and convolutions begin, uniformly: one over the
/// root of the number of inputs [torch.nn.Linear's `reset_parameters`].
pub fn linear_bound(inputs: usize) -> f32 {
    (inputs.max(1) as f32).sqrt().recip()
}

/// Draws the augmentation of a train sample for one epoch, independently of threads and order.
pub fn turn(augmentation: Augmentation, seed: u64, epoch: usize, sample: usize) -> Turn {
    let key = blake3::hash(format!("terrabench augmentation {seed} {epoch} {sample}").as_bytes());
    let mut random = ChaCha8Rng::from_seed(*key.as_bytes());
    let transforms = augmentation.transforms();
    let dihedral = transforms[random.random_range(0..transforms.len())];
    let rotated = augmentation.rotates() && random.random_bool(0.5);
    Turn { dihedral, degrees: rotated.then(|| random.random_range(-90.0..=90.0)) }
}
