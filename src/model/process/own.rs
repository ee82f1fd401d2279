//! A model that is described by a command and a few options, without a TOML.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Command, ProcessConfig};
use crate::model::architecture::{ArchitectureConfig, Outside};
use crate::model::config::{ImageSize, ModelConfig, SensorInput};
use crate::task::bands::Band;
use crate::task::{Sensor, Sensors};
use crate::transform::normalize::NormalizationKind;
use crate::{Error, Result};

/// What is known of an encoder process on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnEncoder {
    /// What to start.
    pub command: Command,
    /// Name of the model; that of the script if there is none.
    pub name: Option<String>,
    /// Second part of the name.
    pub backbone: Option<String>,
    /// The bands that it takes, in its order; every band that the files have if there are none.
    pub bands: Option<Vec<Band>>,
    /// Size to which images are resized.
    pub size: ImageSize,
    /// Seconds without an answer after which it counts as hanging.
    pub time_limit: u64,
}

impl OwnEncoder {
    /// The usual size of images: that of most models' pre-training.
    pub const SIZE: ImageSize = ImageSize::Side(224);

    /// Describes the encoder as a model's TOML does.
    ///
    /// # Errors
    /// If no sensor has all of its bands, or a band is named twice.
    pub fn config(self, sensors: &Sensors) -> Result<ModelConfig> {
        let takes = match &self.bands {
            None => every_band(sensors),
            Some(bands) => of_bands(bands, sensors)?,
        };
        let mut process = ProcessConfig::new(self.command.clone(), self.bands.is_none(), self.time_limit);
        process.complete(Path::new(""), sensors)?;
        Ok(ModelConfig {
            name: self.name.unwrap_or_else(|| self.command.name()),
            backbone: self.backbone.unwrap_or_else(|| "own encoder".to_owned()),
            image: self.size,
            images: BTreeMap::new(),
            pooling: None,
            architecture: ArchitectureConfig::Process(process),
            sensors: takes,
            impute: Vec::new(),
            suites: BTreeMap::new(),
            normalization: NormalizationKind::NormNoClip,
            weights: None,
            published: None,
        })
    }
}

/// Returns every band of every sensor.
pub(in crate::model) fn every_band(sensors: &Sensors) -> BTreeMap<Sensor, SensorInput> {
    let of = |bands: Vec<Band>| SensorInput { bands, ..SensorInput::default() };
    sensors
        .iter()
        .map(|(sensor, spec)| (sensor, of(spec.bands.iter().map(|band| band.name).collect())))
        .collect()
}

/// Returns these bands of each sensor that has all of them.
fn of_bands(bands: &[Band], sensors: &Sensors) -> Result<BTreeMap<Sensor, SensorInput>> {
    if let Some(twice) = (1..bands.len()).find(|place| bands[..*place].contains(&bands[*place])) {
        return Err(Error::request(format!("--input-bands names {} twice", bands[twice]))
            .help("name every band once"));
    }
    let mut takes = every_band(sensors);
    takes.retain(|_, input| bands.iter().all(|band| input.bands.contains(band)));
    if takes.is_empty() {
        let names: Vec<&str> = bands.iter().map(|band| band.name()).collect();
        return Err(Error::request(format!("no sensor has all of the bands {}", names.join(",")))
            .help("benchmarks/sensors.toml lists the bands of each sensor; for several sensors write a model's TOML"));
    }
    takes.values_mut().for_each(|input| input.bands = bands.to_vec());
    Ok(takes)
}
