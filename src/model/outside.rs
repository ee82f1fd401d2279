//! Models that are not computed by a network of this program: another process, or an engine that runs a model file.
//!
//! Such a model has no parameters here and cannot be trained. Its configuration says which bands it takes and what it gives;
//! its identity takes the place of the weights in records, fingerprints and cache keys.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;

use super::encoder::Encoder;
use super::network::Sizes;
use super::sensor_input::SensorInput;
use crate::Result;
use crate::task::{Sensor, Sensors};

/// The configuration of a model that is computed outside this program's networks, as given in its TOML.
///
/// To add a kind: write a file in `src/model/` with a config struct that implements this trait and [`Sizes`], and add one line
/// to the second list at the end of `architecture.rs`.
pub trait Outside: Sizes {
    /// Fills in what the model's TOML leaves to its surroundings: files relative to `folder`, the TOML's own, and the
    /// descriptions of the bands. Called once, after reading the TOML.
    ///
    /// # Errors
    /// If a file is missing, or a sensor or band is not described.
    fn complete(&mut self, _folder: &Path, _sensors: &Sensors) -> Result<()> {
        Ok(())
    }

    /// Is told the device named on the command line, for engines that compute on devices of their own.
    fn run_on(&mut self, _device: &str) {}

    /// Returns what stands for the weights in records and keys, such as `onnx:<hash of the file>`: a text that changes
    /// whenever the features may change. None if only the opened encoder knows it.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn identity(&self) -> Result<Option<String>>;

    /// Opens the encoder. `sensors` holds the bands that it takes; `device` is where its features are wanted.
    ///
    /// # Errors
    /// If it cannot be started or read.
    fn open(&self, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Result<Box<dyn Encoder>>;
}
