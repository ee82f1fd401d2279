//! Backbones: images in, features out. Knows tensors, no data.
//!
//! A new backbone is one file beside `terrafm.rs`, one variant of [`ModelKind`] and one line in [`load`].

pub mod checkpoint;
mod coverage;
pub mod device;
pub mod frozen;
pub mod gelu;
pub mod init;
pub mod parameters;
pub mod terrafm;
pub mod vit;
pub mod weights;

use std::fmt;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use self::coverage::Coverage;
use self::frozen::Frozen;
use self::terrafm::TerraFm;
use self::weights::{Report, Weights};
use crate::Result;
use crate::config::{ModelConfig, ModelKind};

/// A model's patch embedding for one sensor; also the name of the sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stem {
    /// Sentinel-1, VV and VH in dB.
    #[serde(rename = "s1")]
    S1,
    /// Sentinel-2 top of atmosphere.
    #[serde(rename = "s2-l1c")]
    S2L1c,
    /// Sentinel-2 surface reflectance.
    #[serde(rename = "s2-l2a")]
    S2L2a,
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stem::S1 => "s1",
            Stem::S2L1c => "s2-l1c",
            Stem::S2L2a => "s2-l2a",
        })
    }
}

/// An encoder.
pub trait Backbone: Send + Sync {
    /// Length of a feature vector, d.
    fn width(&self) -> usize;

    /// One vector an image: [n, bands, h, w] normalised pixels to [n, d].
    ///
    /// # Errors
    /// Where the model lacks the stem, or the images' bands or size do not suit it.
    fn features(&self, images: Tensor<4>, stem: Stem) -> Result<Tensor<2>>;

    /// Feature maps of the configured layers: [n, bands, h, w] to [n, d, h / patch, w / patch] each.
    ///
    /// # Errors
    /// As [`Backbone::features`].
    fn feature_maps(&self, images: Tensor<4>, stem: Stem) -> Result<Vec<Tensor<4>>>;
}

/// A backbone with its weights, and what a record says of them.
pub struct LoadedModel {
    pub backbone: Box<dyn Backbone>,
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
    match config.kind {
        ModelKind::Terrafm => {
            let (model, weights_id, report) =
                weights::load(TerraFm::new(config, device), weights, allow_partial)?;
            Ok(LoadedModel { backbone: Box::new(Frozen::new(model)), weights_id, report })
        }
    }
}

/// The same model with all its parameters as they are trained, on `device` (with autodiff, for training).
///
/// # Errors
/// As [`load`].
pub fn trainable(
    config: &ModelConfig,
    weights: &Weights,
    allow_partial: bool,
    device: &Device,
) -> Result<TerraFm> {
    match config.kind {
        ModelKind::Terrafm => {
            weights::load(TerraFm::new(config, device), weights, allow_partial).map(|(model, _, _)| model)
        }
    }
}
