//! Features of a data set's samples: which pixels an encoder is given (`input.rs`), how batches are made and encoded
//! (`feed.rs`, `extractor.rs`), and what is kept of it.

mod agreed;
mod bank;
pub(crate) mod batch_size;
pub mod cache;
mod extractor;
pub mod feed;
pub(crate) mod images;
mod input;
pub mod maps;
mod scratch;
pub mod source;
pub(crate) mod stages;
mod sweep;
pub mod tiles;
pub mod truth;
pub mod vectors;

use burn::tensor::Device;
use ndarray::Array2;

pub use self::agreed::Agreed;
pub use self::bank::{CHUNK, FeatureBank, Waiting};
pub use self::batch_size::BatchSize;
pub use self::extractor::{Extractor, Identity, Replica};
pub use self::images::{BatchBuffers, ImageInput, StoredBatch};
pub use self::input::{Input, InputOptions, Preparation};
pub use self::scratch::Scratch;
use crate::data::Target;
use crate::device;
use crate::model::Encoder;
use crate::model::remote::RemoteEncoder;
use crate::{Error, Result};

/// Version of the code between a sample's file and its features. Raise it with every change that alters a feature: cached
/// features, and the records made from them, are then computed again.
pub const FEATURES_VERSION: u32 = 1;

/// The pooled features of a split with their samples and labels, in the partition's order.
#[derive(Debug, Clone)]
pub struct Features {
    /// Names of the samples, n of them.
    pub samples: Vec<String>,
    /// [n, d]: one feature vector per sample.
    pub matrix: Array2<f32>,
    /// The target of each sample.
    pub labels: Vec<Target>,
}

/// Returns how many batches an encoder works on at a time. A device that computes by itself gets the next batch before the last
/// one's features are waited for.
fn in_flight(encoder: &dyn Encoder, device: &Device) -> usize {
    encoder.remote().map_or(if device::is_host(device) { 1 } else { 2 }, RemoteEncoder::in_flight)
}

/// Returns where an encoder takes batches from: the program's own memory if it passes them on, else `device`.
fn batch_device(encoder: &dyn Encoder, device: &Device) -> Device {
    if encoder.remote().is_some() { device::host() } else { device.clone() }
}

/// Checks what a model gave for one sample, named by `sample`.
///
/// # Errors
/// If a number is not finite.
fn check_finite<'n>(
    sample: impl std::fmt::Display,
    numbers: impl IntoIterator<Item = &'n f32>,
) -> Result<()> {
    if numbers.into_iter().all(|number| number.is_finite()) {
        return Ok(());
    }
    Err(Error::not_finite(format!("{sample}: the model's features are not finite"))
        .help("check that the weights match the model and the normalisation matches the pixels"))
}
