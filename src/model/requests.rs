//! Checks that encoders make before computing: the sensor, the bands, the size and the pooling.

use std::collections::BTreeMap;

use super::encoder::{Batch, Input, Pooling};
use super::sensor_input::SensorInput;
use crate::task::Sensor;
use crate::{Error, Result};

/// Returns the only input of a batch. `model` is the name in error messages.
///
/// # Errors
/// If the batch has inputs of several sensors, or its sensor is not one of `sensors`.
pub(crate) fn known_input<'b>(
    model: &str,
    batch: &'b Batch,
    sensors: &BTreeMap<Sensor, SensorInput>,
) -> Result<&'b Input> {
    let input = batch.only()?;
    if sensors.contains_key(&input.sensor) {
        return Ok(input);
    }
    let known: Vec<&str> = sensors.keys().map(|sensor| sensor.name()).collect();
    let known =
        if known.is_empty() { "no sensor".to_owned() } else { format!("sensor {}", known.join(" or ")) };
    Err(Error::mismatch(format!("{model}: expected {known}, found {}", input.sensor))
        .help("use a task of such a sensor, or the model's variant for this sensor"))
}

/// # Errors
/// If the number of bands differs from `expected`.
pub(crate) fn check_bands(model: &str, input: &Input, expected: usize) -> Result<()> {
    let found = input.pixels.dims()[1];
    if found == expected {
        return Ok(());
    }
    Err(Error::mismatch(format!(
        "{model}, sensor {}: expected {expected} bands, found {found}",
        input.sensor
    ))
    .help("in the model's file in configs/models/, list the bands in the order of the weights"))
}

/// # Errors
/// If there are no images, or they cannot be cut into patches of `patch` x `patch` pixels.
pub(crate) fn check_patches(model: &str, input: &Input, patch: usize) -> Result<()> {
    let [n, _, h, w] = input.pixels.dims();
    if n == 0 {
        return Err(Error::mismatch(format!("{model}: expected images, found none")));
    }
    if h > 0 && w > 0 && h.is_multiple_of(patch) && w.is_multiple_of(patch) {
        return Ok(());
    }
    let problem = format!("{model}: expected sides that are multiples of {patch} pixels, found {h} x {w}");
    Err(Error::mismatch(problem)
        .help(format!("resize the images to a multiple of {patch}, such as {0} x {0}", 16 * patch)))
}

/// # Errors
/// If there are no images, or they are not `side` x `side` pixels.
pub(crate) fn check_square(model: &str, input: &Input, side: usize) -> Result<()> {
    let [n, _, h, w] = input.pixels.dims();
    if n == 0 {
        return Err(Error::mismatch(format!("{model}: expected images, found none")));
    }
    if [h, w] == [side; 2] {
        return Ok(());
    }
    let problem = format!("{model}: expected {side} x {side} pixels, found {h} x {w}");
    Err(Error::mismatch(problem).help(format!("resize the images to {side} x {side}")))
}

/// Creates the error for a pooling that the model lacks.
pub(crate) fn lacks_pooling(model: &str, found: Pooling, has: &[Pooling]) -> Error {
    let has: Vec<String> = has.iter().map(Pooling::to_string).collect();
    let problem = format!("{model}: expected pooling {}, found {}", has.join(" or "), found);
    Error::mismatch(problem).help("set `pooling` to one of these")
}

/// Reports a block listed under `key` that is not below `depth`, if there is one.
pub(crate) fn layer_beyond(key: &str, layers: &[usize], depth: usize) -> Option<String> {
    let beyond = layers.iter().find(|layer| **layer >= depth)?;
    Some(format!("{key}: expected blocks below {depth} (0-based), found {beyond}"))
}

/// Checks the images of one sensor at several dates: bands as listed in `sensors`, one size, square, whole patches.
///
/// # Errors
/// If there is no image, or one of them does not fit.
pub(crate) fn check_dates(
    name: &str,
    dates: &[Input],
    sensors: &BTreeMap<Sensor, SensorInput>,
    patch: usize,
) -> Result<()> {
    let Some(first) = dates.first() else {
        return Err(Error::mismatch(format!("{name}: expected images of at least 1 date, found none")));
    };
    for date in dates {
        let batch = Batch { inputs: vec![date.clone()] };
        let input = known_input(name, &batch, sensors)?;
        check_bands(name, input, sensors[&input.sensor].bands.len())?;
        if (date.sensor, date.pixels.dims()) != (first.sensor, first.pixels.dims()) {
            let problem = format!(
                "{name}: expected the same sensor and size at each date, found {} {:?} and {} {:?}",
                first.sensor,
                first.pixels.dims(),
                date.sensor,
                date.pixels.dims()
            );
            return Err(Error::mismatch(problem).help("resize the images of all dates to one size"));
        }
    }
    check_patches(name, first, patch)?;
    let [_, _, h, w] = first.pixels.dims();
    if h != w {
        let problem = format!("{name}: expected as many rows as columns, found {h} x {w} pixels");
        return Err(Error::mismatch(problem).help("crop the images to squares"));
    }
    Ok(())
}
