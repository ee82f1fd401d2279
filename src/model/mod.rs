//! Models: images in, features out. Knows tensors, no data.
//!
//! [`encoder`] is the boundary. [`architecture`] lists the architectures, each a file of its own.

pub mod architecture;
pub mod combine;
pub mod config;
pub mod copernicus_fm;
mod coverage;
pub mod croma;
pub mod decur;
pub mod dofa;
pub mod encoder;
pub mod frozen;
pub mod galileo;
mod groups;
pub mod image_stats;
pub mod init;
pub mod mmearth;
pub mod months;
pub mod parameters;
mod plain_vit;
pub mod presto;
pub mod prithvi2;
pub(crate) mod requests;
pub mod satlas;
pub mod satmae;
pub mod softcon;
pub(crate) mod spectral;
pub mod subtree;
pub mod terrafm;
pub mod vit;
pub mod weights;

use burn::tensor::Device;

pub use self::architecture::Architecture;
pub use self::combine::{ImageSpec, InputSpec};
use self::config::ModelConfig;
pub use self::coverage::Coverage;
pub use self::encoder::{Batch, Encoded, Encoder, Pooling, Want};
use self::image_stats::ImageStats;
use self::weights::{Report, Weights};
use crate::Result;

/// An encoder with its weights, and what a record says of them.
pub struct LoadedModel {
    pub encoder: Box<dyn Encoder>,
    /// What the weights are: `blake3:<hash of the file>` or `random:<seed>`.
    pub weights_id: String,
    /// Which parameters were found.
    pub report: Report,
}

/// Builds the model that `config` describes on `device` and fills it with `weights`.
///
/// # Errors
/// Where the file cannot be read, or parameters are missing or of another shape and `allow_partial` is off.
pub fn load(
    config: &ModelConfig,
    weights: &Weights,
    allow_partial: bool,
    device: &Device,
) -> Result<LoadedModel> {
    if !config.architecture.has_parameters() {
        let weights_id = Weights::None.id()?;
        return Ok(LoadedModel { encoder: Box::new(ImageStats), weights_id, report: Report::default() });
    }
    let network = Architecture::new(&config.architecture, &config.sensors, device)?;
    let (network, weights_id, report) = weights::load(network, weights, allow_partial)?;
    Ok(LoadedModel { encoder: network.frozen(), weights_id, report })
}

/// The same model with all its parameters as they are trained, on `device` (with autodiff, for training).
///
/// # Errors
/// As [`load`], or where the model has no parameters.
pub fn trainable(
    config: &ModelConfig,
    weights: &Weights,
    allow_partial: bool,
    device: &Device,
) -> Result<Architecture> {
    let network = Architecture::new(&config.architecture, &config.sensors, device)?;
    weights::load(network, weights, allow_partial).map(|(network, _, _)| network)
}
