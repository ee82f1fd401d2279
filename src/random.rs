//! Random numbers of a seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Augmentation;
use crate::transform::augment::Turn;

/// One of a seed's streams, so that no draw depends on how many others there were. The same on every machine.
pub fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// What happens to a sample of the train split in an epoch; threads and order do not matter.
pub fn turn(augmentation: Augmentation, seed: u64, epoch: usize, sample: usize) -> Turn {
    let key = blake3::hash(format!("terrabench augmentation {seed} {epoch} {sample}").as_bytes());
    let mut random = ChaCha8Rng::from_seed(*key.as_bytes());
    let transforms = augmentation.transforms();
    let dihedral = transforms[random.random_range(0..transforms.len())];
    let rotated = augmentation.rotates() && random.random_bool(0.5);
    Turn { dihedral, degrees: rotated.then(|| random.random_range(-90.0..=90.0)) }
}
