//! Random numbers of a seed.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// One of a seed's streams, so that no draw depends on how many others there were. The same on every machine.
pub fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}
