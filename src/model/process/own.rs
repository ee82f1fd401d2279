//! A model that is described by a command and a few options, without a TOML.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use super::{Command, ProcessConfig};
use crate::model::architecture::{ArchitectureConfig, Outside};
use crate::model::config::{ImageSize, ModelConfig, SensorInput};
use crate::task::bands::{Band, Imputation};
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
    /// The bands that it takes; every band that the files have if there are none.
    pub bands: Vec<TakenBands>,
    /// What replaces bands that the files lack.
    pub impute: Vec<Imputation>,
    /// Size to which images are resized.
    pub size: ImageSize,
    /// Seconds without an answer after which it counts as hanging.
    pub time_limit: u64,
}

/// Bands that an encoder takes, in its order.
///
/// ```
/// use terrabench::model::process::TakenBands;
/// use terrabench::task::Sensor;
///
/// let radar: TakenBands = "s1:VV,VH".parse()?;
/// assert_eq!((radar.sensor, radar.bands.len()), (Some(Sensor::S1), 2));
/// let visible: TakenBands = "B04,B03,B02".parse()?;
/// assert_eq!((visible.sensor, visible.bands.len()), (None, 3));
/// # Ok::<(), terrabench::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBands {
    /// The sensor; every sensor that has all of the bands if there is none.
    pub sensor: Option<Sensor>,
    /// The bands.
    pub bands: Vec<Band>,
}

impl FromStr for TakenBands {
    type Err = Error;

    /// Parses `B04,B03,B02` or `s1:VV,VH`.
    fn from_str(text: &str) -> Result<Self> {
        let (sensor, names) = match text.split_once(':') {
            Some((sensor, names)) => (Some(sensor.trim().parse()?), names),
            None => (None, text),
        };
        let bands = names.split(',').map(|name| name.trim().parse()).collect::<Result<Vec<Band>>>()?;
        if let Some(twice) = (1..bands.len()).find(|place| bands[..*place].contains(&bands[*place])) {
            return Err(Error::request(format!("--input-bands names {} twice", bands[twice]))
                .help("name every band once"));
        }
        Ok(TakenBands { sensor, bands })
    }
}

impl OwnEncoder {
    /// The usual size of images: that of most models' pre-training.
    pub const SIZE: ImageSize = ImageSize::Side(224);

    /// Describes the encoder as a model's TOML does.
    ///
    /// # Errors
    /// If no sensor has all of its bands.
    pub fn config(self, sensors: &Sensors) -> Result<ModelConfig> {
        let takes = match self.bands.as_slice() {
            [] => every_band(sensors),
            some => of_bands(some, &self.impute, sensors)?,
        };
        let mut process = ProcessConfig::new(self.command.clone(), self.bands.is_empty(), self.time_limit);
        process.complete(Path::new(""), sensors)?;
        Ok(ModelConfig {
            name: self.name.unwrap_or_else(|| self.command.name()),
            backbone: self.backbone.unwrap_or_else(|| "own encoder".to_owned()),
            image: self.size,
            images: BTreeMap::new(),
            pooling: None,
            architecture: ArchitectureConfig::Process(process),
            sensors: takes,
            impute: self.impute,
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

/// Returns the bands of each sensor. Bands for one sensor take precedence over bands for any.
fn of_bands(
    all: &[TakenBands],
    impute: &[Imputation],
    sensors: &Sensors,
) -> Result<BTreeMap<Sensor, SensorInput>> {
    let replaced = |band: &Band| impute.iter().any(|pair| pair.target == *band);
    let known = every_band(sensors);
    let mut takes = BTreeMap::new();
    for TakenBands { sensor, bands } in all {
        let input = SensorInput { bands: bands.clone(), ..SensorInput::default() };
        let fits = |known: &SensorInput| {
            bands.iter().all(|band| known.bands.contains(band) || replaced(band))
                && bands.iter().any(|band| known.bands.contains(band))
        };
        match sensor {
            Some(sensor) => {
                // The error names the sensors or bands that there are.
                for band in bands.iter().filter(|band| !replaced(band)) {
                    sensors.band(*sensor, *band)?;
                }
                takes.insert(*sensor, input);
            }
            None => {
                for (sensor, _) in known.iter().filter(|(_, known)| fits(known)) {
                    let named = |taken: &TakenBands| taken.sensor == Some(*sensor);
                    if !all.iter().any(named) {
                        takes.insert(*sensor, input.clone());
                    }
                }
            }
        }
    }
    if takes.is_empty() {
        let names: Vec<&str> = all.iter().flat_map(|taken| &taken.bands).map(|band| band.name()).collect();
        return Err(Error::request(format!("no sensor has all of the bands {}", names.join(","))).help(
            "benchmarks/sensors.toml lists the bands of each sensor; for several sensors repeat --input-bands: s1:VV,VH",
        ));
    }
    Ok(takes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    fn taken(bands: &[&str], impute: &[(&str, &str)]) -> Result<BTreeMap<String, String>> {
        let sensors = Sensors::load(&Home::find()?)?;
        let all = bands.iter().map(|text| text.parse()).collect::<Result<Vec<_>>>()?;
        let pair = |(source, target): &(&str, &str)| {
            Ok(Imputation { source: source.parse()?, target: target.parse()? })
        };
        let impute = impute.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let names = |input: &SensorInput| input.bands.iter().map(|band| band.name()).collect::<Vec<_>>().join(",");
        let takes = of_bands(&all, &impute, &sensors)?;
        let sentinels = takes.iter().filter(|(sensor, _)| ["s1", "s2-l1c", "s2-l2a"].contains(&sensor.name()));
        Ok(sentinels.map(|(sensor, input)| (sensor.to_string(), names(input))).collect())
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(sensor, bands)| ((*sensor).to_owned(), (*bands).to_owned())).collect()
    }

    #[test]
    fn plain_bands_are_those_of_every_sensor_that_has_them() {
        assert_eq!(taken(&["B04,B03"], &[]).unwrap(), map(&[("s2-l1c", "B04,B03"), ("s2-l2a", "B04,B03")]));
        assert_eq!(taken(&["B10,B03"], &[]).unwrap(), map(&[("s2-l1c", "B10,B03")]));
    }

    #[test]
    fn a_replaced_band_need_not_be_a_sensors() {
        let both = map(&[("s2-l1c", "B10,B03"), ("s2-l2a", "B10,B03")]);
        assert_eq!(taken(&["B10,B03"], &[("zeros", "B10")]).unwrap(), both);
    }

    #[test]
    fn bands_of_one_sensor_take_precedence() {
        let found = taken(&["B03", "s1:VV", "s2-l2a:B04,B02"], &[]).unwrap();
        assert_eq!(found, map(&[("s1", "VV"), ("s2-l1c", "B03"), ("s2-l2a", "B04,B02")]));
    }

    #[test]
    fn unknown_bands_and_sensors_are_errors() {
        for (bands, expected) in [
            ("B99", "no sensor has all of the bands B99"),
            ("VV,B02", "no sensor has all of the bands VV,B02"),
            ("B02,B02", "names B02 twice"),
            ("s1:B02", "sensor s1 has no band B02"),
            ("s9:B02", "s9"),
            ("B02,", "``"),
        ] {
            let error = taken(&[bands], &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{bands}: {error}");
        }
    }
}
