//! Backbones: images in, features out. Knows tensors, no data.
//!
//! A new backbone is one file beside `terrafm.rs`, one variant of [`ModelKind`] and one line in [`load`].

pub mod config;
mod coverage;
pub mod encoder;
pub mod frozen;
pub mod galileo;
mod groups;
pub mod image_stats;
pub mod init;
pub mod mmearth;
pub mod months;
pub mod parameters;
pub mod presto;
mod requests;
pub mod satlas;
pub mod subtree;
pub mod terrafm;
pub mod weights;

use burn::tensor::{Device, Tensor};

pub use self::coverage::Coverage;
use self::frozen::Frozen;
use self::image_stats::ImageStats;
use self::terrafm::TerraFm;
use self::weights::{Report, Weights};
use crate::model::config::{ModelConfig, ModelKind};
use crate::task::Sensor;
use crate::{Error, Result};

/// An encoder.
pub trait Backbone: Send + Sync {
    /// Length of a feature vector, d.
    fn width(&self) -> usize;

    /// The same for images of that many bands, where it depends on them.
    fn width_for(&self, bands: usize) -> usize {
        let _ = bands;
        self.width()
    }

    /// One vector an image: [n, bands, h, w] normalised pixels to [n, d].
    ///
    /// # Errors
    /// Where the model lacks the sensor, or the images' bands or size do not suit it.
    fn features(&self, images: Tensor<4>, sensor: Sensor) -> Result<Tensor<2>>;

    /// Feature maps of the configured layers: [n, bands, h, w] to [n, d, h / patch, w / patch] each.
    ///
    /// # Errors
    /// As [`Backbone::features`].
    fn feature_maps(&self, images: Tensor<4>, sensor: Sensor) -> Result<Vec<Tensor<4>>>;
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
        ModelKind::ImageStats => Ok(LoadedModel {
            backbone: Box::new(ImageStats),
            weights_id: Weights::None.id()?,
            report: Report::default(),
        }),
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
        ModelKind::ImageStats => Err(Error::request(format!("{} has nothing to train", config.name))
            .help("choose a protocol on frozen features: knn, linear-probe or logistic")),
    }
}
