//! What Galileo checks before it computes: dates, sensors, bands and sizes.

use super::{DATES, Galileo, NAME};
use crate::model::encoder::{Batch, Input};
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
        requests::check_patches(NAME, first, self.config.patch)?;
        let [_, _, h, w] = first.pixels.dims();
        if h != w {
            let problem = format!("{NAME}: expected as many rows as columns, found {h} x {w} pixels");
            return Err(Error::mismatch(problem).help("crop the images to squares"));
        }
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
