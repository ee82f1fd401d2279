//! What AnySat checks before it computes: dates, sensors, bands and sizes.

use super::projector::Projector;
use super::{AnySat, NAME};
use crate::model::encoder::{Batch, Input};
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
        for date in dates {
            let batch = Batch { inputs: vec![date.clone()] };
            let input = requests::known_input(NAME, &batch, &self.sensors)?;
            requests::check_bands(NAME, input, self.sensors[&input.sensor].bands.len())?;
            if (date.sensor, date.pixels.dims()) != (first.sensor, first.pixels.dims()) {
                let problem = format!(
                    "{NAME}: expected the same sensor and size at each date, found {} {:?} and {} {:?}",
                    first.sensor,
                    first.pixels.dims(),
                    date.sensor,
                    date.pixels.dims()
                );
                return Err(Error::mismatch(problem).help("resize the images of all dates to one size"));
            }
        }
        requests::check_patches(NAME, first, 1)?;
        let [_, _, h, w] = first.pixels.dims();
        if h != w {
            let problem = format!("{NAME}: expected as many rows as columns, found {h} x {w} pixels");
            return Err(Error::mismatch(problem).help("crop the images to squares"));
        }
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
