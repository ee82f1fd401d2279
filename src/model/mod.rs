//! Models: images in, features out. This module knows tensors, but not data.
//!
//! [`encoder`] defines the interface between data and models. [`architecture`] lists the architectures, one file each.

pub mod anysat;
pub mod architecture;
pub mod arithmetic;
pub(crate) mod combine;
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
pub(crate) mod image_stats;
mod in_parts;
pub(crate) mod init;
mod language;
mod matching;
pub mod mmearth;
pub(crate) mod months;
mod network;
pub mod onnx;
mod outside;
pub mod parameters;
mod plain_vit;
pub mod presto;
pub mod prithvi2;
pub mod process;
mod published;
pub mod rcf;
pub mod remote;
pub(crate) mod requests;
pub mod satlas;
pub mod satmae;
mod sensor_input;
pub mod softcon;
pub(crate) mod spectral;
mod stand_ins;
pub(crate) mod subtree;
pub mod terrafm;
pub mod vit;
pub mod weights;

use burn::tensor::Device;

pub use self::architecture::Architecture;
use self::architecture::ArchitectureConfig;
pub use self::combine::{ImageSpec, InputSpec};
use self::config::ModelConfig;
pub use self::coverage::Coverage;
pub use self::encoder::{Batch, Encoded, Encoder, Pooling, Want};
use self::image_stats::ImageStats;
use self::rcf::Rcf;
use self::weights::{Report, Weights};
use crate::{Error, Result};

/// An encoder with its weights, and what a record says about them.
pub struct LoadedModel {
    /// The encoder.
    pub encoder: Box<dyn Encoder>,
    /// Identity of the weights: `blake3:<hash of the file>`, `random:<seed>`, or that of a model computed outside this program's
    /// networks.
    pub weights_id: String,
    /// Which parameters the weights contained.
    pub report: Report,
}

/// Builds the model described by `config` on `device` and loads `weights` into it.
///
/// # Errors
/// If the file cannot be read, or if parameters are missing or have a different shape and `allow_partial` is off.
pub fn load(
    config: &ModelConfig,
    weights: &Weights,
    allow_partial: bool,
    device: &Device,
) -> Result<LoadedModel> {
    if let Some(outside) = config.architecture.outside() {
        let encoder = outside.open(&config.sensors, device)?;
        let weights_id = outside.identity()?.unwrap_or_default();
        return Ok(LoadedModel { encoder, weights_id, report: Report::default() });
    }
    if config.architecture.is_vectors() {
        let problem = format!("{} is no model that runs: its features are in files", config.name);
        return Err(Error::request(problem).help("pass --features DIR instead of --model"));
    }
    let without_parameters: Option<Box<dyn Encoder>> = match &config.architecture {
        ArchitectureConfig::ImageStats => Some(Box::new(ImageStats)),
        ArchitectureConfig::Rcf(config) => Some(Box::new(Rcf::new(config))),
        _ => None,
    };
    if let Some(encoder) = without_parameters {
        return Ok(LoadedModel { encoder, weights_id: Weights::None.id()?, report: Report::default() });
    }
    let network = Architecture::new(&config.architecture, &config.sensors, device)?;
    let (network, weights_id, report) = weights::load(network, weights, allow_partial)?;
    let network = language::with_vectors(network, config, weights)?;
    let weights_id = language::identity(config, weights)?.unwrap_or(weights_id);
    Ok(LoadedModel { encoder: network.frozen(), weights_id, report })
}

/// Returns the identity of the model's weights for records. None if only the opened encoder knows it.
///
/// # Errors
/// If a file cannot be read.
pub fn identity(config: &ModelConfig, weights: &Weights) -> Result<Option<String>> {
    match config.architecture.outside() {
        Some(outside) => outside.identity(),
        None => match language::identity(config, weights)? {
            Some(both) => Ok(Some(both)),
            None => weights.id().map(Some),
        },
    }
}

/// Like [`load`], but returns the trainable network with all its parameters. `device` must support autodiff for training.
///
/// # Errors
/// As for [`load`], or if the model has no parameters.
pub fn trainable(
    config: &ModelConfig,
    weights: &Weights,
    allow_partial: bool,
    device: &Device,
) -> Result<Architecture> {
    let network = Architecture::new(&config.architecture, &config.sensors, device)?;
    let (network, _, _) = weights::load(network, weights, allow_partial)?;
    language::with_vectors(network, config, weights)
}
