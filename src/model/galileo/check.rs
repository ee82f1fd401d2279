//! What Galileo checks before it computes: dates, sensors, bands and sizes.

use super::{DATES, Galileo, NAME};
use crate::model::encoder::Input;
use crate::model::requests;
use crate::{Error, Result};

impl Galileo {
    /// Checks that the model can take the images of one sensor, one per date.
    pub(super) fn check(&self, dates: &[Input]) -> Result<()> {
        if !(1..=DATES).contains(&dates.len()) {
            let problem = format!("{NAME}: expected 1 to {DATES} dates, found {}", dates.len());
            return Err(Error::mismatch(problem).help("choose some of the dates"));
        }
        let first = &dates[0];
        requests::check_dates(NAME, dates, &self.sensors, self.config.patch)?;
        if self.groups[&first.sensor].is_empty() {
            let problem =
                format!("{NAME}, sensor {}: expected all bands of some group, found none", first.sensor);
            return Err(Error::mismatch(problem).help("list B02 B03 B04, or VV VH, in the model's file"));
        }
        Ok(())
    }
}

/// Checks that each sensor has one series of images, and that all images, at least one per series, are of one size.
pub(super) fn check_alike(sensors: &[&[Input]]) -> Result<()> {
    let of = |dates: &[Input]| {
        let [n, _, h, w] = dates[0].pixels.dims();
        (dates[0].sensor, [n, h, w])
    };
    for (place, dates) in sensors.iter().enumerate() {
        let (sensor, size) = of(dates);
        let known = sensors[..place].iter().map(|dates| of(dates));
        if let Some((other, found)) = known.into_iter().find(|known| known.0 == sensor || known.1 != size) {
            let problem = format!(
                "{NAME}: expected one series per sensor, all of one size, found {other} {found:?} and {sensor} {size:?}"
            );
            return Err(Error::mismatch(problem).help("resize the images of all sensors to one size"));
        }
    }
    Ok(())
}
