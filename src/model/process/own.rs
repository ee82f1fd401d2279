//! A model that is described by a command and a few options, without a TOML.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use super::{Command, ProcessConfig};
use crate::model::architecture::{ArchitectureConfig, Outside};
use crate::model::config::{ImageSize, ModelConfig, SensorInput};
use crate::model::matching::matched_sensors;
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
        self.config_with(BTreeMap::new(), Vec::new(), sensors)
    }

    /// Like [`OwnEncoder::config`], with other bands for some sensors, and with bands that replace those that files lack.
    ///
    /// # Errors
    /// Like [`OwnEncoder::config`].
    pub fn config_with(
        self,
        of_sensors: BTreeMap<Sensor, Vec<Band>>,
        impute: Vec<Imputation>,
        sensors: &Sensors,
    ) -> Result<ModelConfig> {
        let takes_any = self.bands.is_none() && of_sensors.is_empty();
        let mut takes = match &self.bands {
            None if takes_any => every_band(sensors),
            None => BTreeMap::new(),
            Some(bands) => of_bands(bands, &impute, sensors)?,
        };
        for (sensor, bands) in of_sensors {
            check_distinct(&bands)?;
            // The error lists the sensors or the bands that there are.
            bands
                .iter()
                .filter(|band| !replaces(&impute, **band))
                .try_for_each(|band| sensors.band(sensor, *band).map(drop))?;
            takes.insert(sensor, SensorInput { bands, ..SensorInput::default() });
        }
        let mut process = ProcessConfig::new(self.command.clone(), takes_any, self.time_limit);
        process.complete(Path::new(""), sensors)?;
        let matched = matched_sensors(&takes, sensors);
        Ok(ModelConfig {
            name: self.name.unwrap_or_else(|| self.command.name()),
            backbone: self.backbone.unwrap_or_else(|| "own encoder".to_owned()),
            image: self.size,
            images: BTreeMap::new(),
            pooling: None,
            architecture: ArchitectureConfig::Process(process),
            sensors: takes,
            impute,
            suites: BTreeMap::new(),
            normalization: NormalizationKind::NormNoClip,
            weights: None,
            published: None,
            parity: None,
            route: crate::model::config::SuiteRoute::default(),
            matched,
            depth: None,
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

/// Whether something replaces a missing `band`.
fn replaces(impute: &[Imputation], band: Band) -> bool {
    impute.iter().any(|pair| pair.target == band)
}

fn check_distinct(bands: &[Band]) -> Result<()> {
    match (1..bands.len()).find(|place| bands[..*place].contains(&bands[*place])) {
        None => Ok(()),
        Some(twice) => Err(Error::request(format!("--input-bands names {} twice", bands[twice]))
            .help("name every band once")),
    }
}

/// Returns these bands of each sensor that has all of them. A band that another replaces need not be among the sensor's.
fn of_bands(
    bands: &[Band],
    impute: &[Imputation],
    sensors: &Sensors,
) -> Result<BTreeMap<Sensor, SensorInput>> {
    check_distinct(bands)?;
    let mut takes = every_band(sensors);
    takes.retain(|_, input| {
        let has = |band: &Band| input.bands.contains(band);
        bands.iter().any(has) && bands.iter().all(|band| has(band) || replaces(impute, *band))
    });
    if takes.is_empty() {
        let names: Vec<&str> = bands.iter().map(|band| band.name()).collect();
        return Err(Error::request(format!("no sensor has all of the bands {}", names.join(","))).help(
            "benchmarks/sensors.toml lists the bands of each sensor; repeat --input-bands for several: s1:VV,VH",
        ));
    }
    takes.values_mut().for_each(|input| input.bands = bands.to_vec());
    Ok(takes)
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
        let bands = names.split(',').map(|name| name.trim().parse()).collect::<Result<_>>()?;
        Ok(TakenBands { sensor, bands })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    /// Returns the bands of each Sentinel with these bands for any sensor and for single ones.
    fn taken(any: &str, single: &[&str], impute: &[(&str, &str)]) -> Result<BTreeMap<String, String>> {
        let sensors = Sensors::load(&Home::find()?)?;
        let bands = |text: &str| text.parse::<TakenBands>();
        let own = OwnEncoder {
            command: "encode".parse()?,
            name: None,
            backbone: None,
            bands: if any.is_empty() { None } else { Some(bands(any)?.bands) },
            size: OwnEncoder::SIZE,
            time_limit: 1,
        };
        let single = single.iter().map(|text| {
            let TakenBands { sensor, bands } = bands(text)?;
            Ok((sensor.ok_or_else(|| Error::request("no sensor"))?, bands))
        });
        let pair = |(source, target): &(&str, &str)| {
            Ok(Imputation { source: source.parse()?, target: target.parse()? })
        };
        let impute = impute.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let config = own.config_with(single.collect::<Result<_>>()?, impute, &sensors)?;
        let names =
            |input: &SensorInput| input.bands.iter().map(|band| band.name()).collect::<Vec<_>>().join(",");
        let sentinels =
            config.sensors.iter().filter(|(sensor, _)| ["s1", "s2-l1c", "s2-l2a"].contains(&sensor.name()));
        Ok(sentinels.map(|(sensor, input)| (sensor.to_string(), names(input))).collect())
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(sensor, bands)| ((*sensor).to_owned(), (*bands).to_owned())).collect()
    }

    #[test]
    fn plain_bands_are_those_of_every_sensor_that_has_them() {
        assert_eq!(taken("B04,B03", &[], &[]).unwrap(), map(&[("s2-l1c", "B04,B03"), ("s2-l2a", "B04,B03")]));
        assert_eq!(taken("B10,B03", &[], &[]).unwrap(), map(&[("s2-l1c", "B10,B03")]));
    }

    #[test]
    fn a_replaced_band_need_not_be_a_sensors() {
        let both = map(&[("s2-l1c", "B10,B03"), ("s2-l2a", "B10,B03")]);
        assert_eq!(taken("B10,B03", &[], &[("zeros", "B10")]).unwrap(), both);
        let single = taken("", &["s2-l2a:B10,B03"], &[("zeros", "B10")]).unwrap();
        assert_eq!(single, map(&[("s2-l2a", "B10,B03")]));
    }

    #[test]
    fn bands_of_single_sensors_take_precedence_or_stand_alone() {
        let single = ["s1:VV", "s2-l2a:B04,B02"];
        let both = map(&[("s1", "VV"), ("s2-l1c", "B03"), ("s2-l2a", "B04,B02")]);
        assert_eq!(taken("B03", &single, &[]).unwrap(), both);
        assert_eq!(taken("", &single, &[]).unwrap(), map(&[("s1", "VV"), ("s2-l2a", "B04,B02")]));
    }

    #[test]
    fn unknown_bands_and_sensors_are_errors() {
        for (any, single, expected) in [
            ("B99", "s1:VV", "no sensor has all of the bands B99"),
            ("VV,B02", "s1:VV", "no sensor has all of the bands VV,B02"),
            ("B02,B02", "s1:VV", "names B02 twice"),
            ("B02", "s1:VV,VV", "names VV twice"),
            ("B02", "s1:B02", "sensor s1 has no band B02"),
            ("B02", "s9:B02", "s9"),
            ("B02,", "s1:VV", "``"),
        ] {
            let error = taken(any, &[single], &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{any} {single}: {error}");
        }
    }
}
