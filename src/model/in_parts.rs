//! Batches that are encoded image by image, on all threads, on devices where that is faster.

use rayon::prelude::*;

use super::encoder::{Batch, Encoded, Encoder, Pooling, Want};
use crate::{Result, device};

/// Runs `encode` on the batch, or image by image on all threads if that is faster on the device.
///
/// In the latter case an image's features depend neither on the other images nor on the number of threads.
pub(super) fn in_parts(
    batch: &Batch,
    encode: impl Fn(&Batch) -> Result<Encoded> + Send + Sync,
) -> Result<Encoded> {
    let single =
        batch.inputs.first().is_some_and(|input| device::prefers_single_images(&input.pixels.device()));
    if !single || batch.len() < 2 {
        return encode(batch);
    }
    let parts = batch.clone().split();
    Encoded::join(parts.par_iter().with_max_len(1).map(encode).collect::<Result<_>>()?)
}

/// An encoder that processes a batch image by image on all threads if that is faster on the device.
pub struct InParts<E>(pub E);

impl<E: Encoder> Encoder for InParts<E> {
    fn width(&self, pooling: Pooling, bands: usize) -> usize {
        self.0.width(pooling, bands)
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        in_parts(batch, |part| self.0.encode(part, want))
    }
}
