//! What AnySat checks before it computes: dates, sensors, bands and sizes.

use super::projector::Projector;
use super::{AnySat, NAME};
use crate::model::encoder::Input;
use crate::model::requests;
use crate::task::Sensor;
use crate::task::bands::Band;
use crate::{Error, Result};

impl AnySat {
    /// Checks that the model can take the images of one sensor, one input per date. Returns the sensor's projector.
    pub(super) fn check(&self, dates: &[Input]) -> Result<&Projector> {
        let Some(first) = dates.first() else {
            return Err(Error::mismatch(format!("{NAME}: expected images of at least 1 date, found none")));
        };
        requests::check_dates(NAME, dates, &self.sensors, 1)?;
        let bands = &self.sensors[&first.sensor].bands;
        if first.sensor == Sensor::S1 && bands.as_slice() != [Band::VV, Band::VH] {
            let names: Vec<String> = bands.iter().map(Band::to_string).collect();
            let problem = format!("{NAME}, sensor s1: expected bands VV VH, found {}", names.join(" "));
            return Err(Error::mismatch(problem).help("list VV VH in the model's file in configs/models/"));
        }
        let projector = if first.sensor == Sensor::S1 { &self.projector_s1 } else { &self.projector_s2 };
        projector.as_ref().ok_or_else(|| {
            let problem = format!("{NAME}: expected Sentinel-1 or Sentinel-2, found sensor {}", first.sensor);
            Error::mismatch(problem).help("remove the sensor from the model's file in configs/models/")
        })
    }
}
