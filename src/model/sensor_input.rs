//! What a model takes of one sensor.

use serde::{Deserialize, Serialize};

use crate::task::bands::Band;
use crate::task::{BandSpec, Sensor, Sensors};

/// What a model takes of one sensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SensorInput {
    /// Bands in the order of the input channels.
    pub bands: Vec<Band>,
    /// Central wavelength per band in micrometres, for models that look at it: the numbers that the model was trained with,
    /// or none for those of `benchmarks/sensors.toml`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wavelengths: Vec<f64>,
    /// Bandwidth per band in micrometres, for models that use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidths: Vec<f64>,
    /// Ground sampling distance of the images in metres, for models that look at it: a number, or none for the finest of the
    /// bands in `benchmarks/sensors.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gsd_m: Option<f64>,
    /// Name of the sensor's only band in the file of language vectors, for models that read the name of a variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
}

impl SensorInput {
    /// Fills in the wavelengths that `sensors` gives for all of the bands, and their bandwidths, if it has none of its own.
    pub(super) fn complete(&mut self, sensor: Sensor, sensors: &Sensors) {
        if !self.wavelengths.is_empty() {
            return;
        }
        let of_bands = |number: fn(&BandSpec) -> Option<f64>| -> Vec<f64> {
            let numbers = self.bands.iter().map(|band| number(sensors.band(sensor, *band).ok()?));
            numbers.collect::<Option<_>>().unwrap_or_default()
        };
        (self.wavelengths, self.bandwidths) =
            (of_bands(|band| band.wavelength_um), of_bands(|band| band.bandwidth_um));
    }

    /// Fills in the finest ground sampling distance that `sensors` gives for the bands, if it has none of its own.
    pub(super) fn complete_gsd(&mut self, sensor: Sensor, sensors: &Sensors) {
        let of_bands = self.bands.iter().filter_map(|band| Some(sensors.band(sensor, *band).ok()?.gsd_m));
        self.gsd_m = self.gsd_m.or(of_bands.reduce(f64::min));
    }

    /// Describes an inconsistency, if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        let count = self.bands.len();
        if count == 0 {
            return Some("has no bands".to_owned());
        }
        if self.gsd_m.is_some_and(|gsd| !gsd.is_finite() || gsd <= 0.0) {
            return Some("has a gsd-m that is not above 0".to_owned());
        }
        let per_band = [("wavelengths", &self.wavelengths), ("bandwidths", &self.bandwidths)];
        per_band.into_iter().find_map(|(what, values)| {
            if !values.is_empty() && values.len() != count {
                Some(format!("has {count} bands, but {} {what}", values.len()))
            } else {
                let wrong = values.iter().find(|value| !value.is_finite() || **value < 0.0)?;
                Some(format!("has {what} of {wrong} micrometres"))
            }
        })
    }
}
