//! What encoders check of a request before they start.

use std::fmt::Display;

use super::encoder::Pooling;
use crate::{Error, Result};

/// Refuses a pooling that a model does not have.
pub(crate) fn pooling(model: &str, asked: Pooling, has: &[Pooling]) -> Result<()> {
    if has.contains(&asked) {
        return Ok(());
    }
    let known: Vec<&str> = has.iter().copied().map(pooling_name).collect();
    let asked = pooling_name(asked);
    let problem = format!("{model}: expected one of its poolings ({}), got `{asked}`", known.join(", "));
    Err(Error::request(problem).help(format!("set the pooling to `{}`", known[0])))
}

fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Class => "class",
        Pooling::Mean => "mean",
        Pooling::MeanAll => "mean-all",
        Pooling::Head => "head",
    }
}

/// A sensor that the model was built without.
pub(crate) fn unknown_sensor(
    model: &str,
    asked: impl Display,
    has: impl IntoIterator<Item = impl Display>,
) -> Error {
    let known: Vec<String> = has.into_iter().map(|sensor| sensor.to_string()).collect();
    let problem = format!("{model}: expected one of its sensors ({}), got `{asked}`", known.join(", "));
    Error::request(problem).help(format!("choose a task of these sensors, or add [sensors.{asked}] to the model"))
}

/// Refuses images of another number of bands, or none at all.
pub(crate) fn bands(model: &str, sensor: impl Display, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let problem = format!("{model}: expected {expected} bands of sensor `{sensor}`, got {found}");
    Err(Error::request(problem).help("pick the bands that the model's TOML lists, in its order"))
}
