//! Sensors that a model lacks, taken as another one that it has: each band becomes the model's band of the nearest wavelength
//! ([`SensorSpec::matched_with`]).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::sensor_input::SensorInput;
use crate::task::bands::Band;
use crate::task::{Sensor, SensorSpec, Sensors};

/// The largest distance in micrometres between the centres of two matched bands. It tells the near infrared from the red edge.
const FARTHEST: f64 = 0.05;

/// A band that a model takes as one of its own. Displayed as `nir as B8A`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Band, Band)", into = "(Band, Band)")]
pub struct BandMatch {
    /// The band of the images.
    pub source: Band,
    /// The band of the model.
    pub target: Band,
}

impl From<(Band, Band)> for BandMatch {
    fn from((source, target): (Band, Band)) -> Self {
        BandMatch { source, target }
    }
}

impl From<BandMatch> for (Band, Band) {
    fn from(pair: BandMatch) -> Self {
        (pair.source, pair.target)
    }
}

impl fmt::Display for BandMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.source, self.target)
    }
}

/// A sensor of a model, as which it takes the images of another sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchedSensor {
    /// The sensor that the model is told.
    pub sensor: Sensor,
    /// The bands that the model was trained on, in its order.
    pub input: SensorInput,
    /// The bands that the images have, at least one, in the order of the model's bands.
    pub matches: Vec<BandMatch>,
}

/// Lists, for each sensor that a model with `own` sensors lacks, those as which it takes it, by preference.
pub(super) fn matched_sensors(
    own: &BTreeMap<Sensor, SensorInput>,
    sensors: &Sensors,
) -> BTreeMap<Sensor, Vec<MatchedSensor>> {
    let of_sensor = |spec: &SensorSpec| -> Vec<MatchedSensor> {
        let targets = spec.matched_with.iter().filter_map(|target| Some((*target, own.get(target)?)));
        targets
            .filter_map(|(sensor, input)| {
                let matches = matches(spec, &input.bands, sensors.get(sensor).ok()?);
                (!matches.is_empty()).then(|| MatchedSensor { sensor, input: input.clone(), matches })
            })
            .collect()
    };
    let lacking = sensors.iter().filter(|(sensor, _)| !own.contains_key(sensor));
    lacking
        .map(|(sensor, spec)| (sensor, of_sensor(spec)))
        .filter(|(_, matched)| !matched.is_empty())
        .collect()
}

/// Matches the bands of `from` with `bands`, which `to` describes: the nearest pairs first, each band once.
fn matches(from: &SensorSpec, bands: &[Band], to: &SensorSpec) -> Vec<BandMatch> {
    let wavelength = |spec: &SensorSpec, name: Band| {
        spec.bands.iter().find(|band| band.name == name).and_then(|band| band.wavelength_um)
    };
    let mut pairs: Vec<(f64, BandMatch)> = Vec::new();
    for source in from.bands.iter().map(|band| band.name) {
        for target in bands {
            if let (Some(a), Some(b)) = (wavelength(from, source), wavelength(to, *target))
                && (a - b).abs() <= FARTHEST
            {
                pairs.push(((a - b).abs(), BandMatch { source, target: *target }));
            }
        }
    }
    pairs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut chosen: Vec<BandMatch> = Vec::new();
    for (_, pair) in pairs {
        if chosen.iter().all(|other| other.source != pair.source && other.target != pair.target) {
            chosen.push(pair);
        }
    }
    chosen.sort_by_key(|pair| bands.iter().position(|band| *band == pair.target));
    chosen
}
