//! Compares a model's TOML with the header of its ONNX file, before anything is computed.

use std::collections::BTreeMap;
use std::path::Path;

use super::extra::ExtraInput;
use super::{OnnxConfig, PixelInputs};
use crate::formats::onnx::{Dimension, Element, OnnxFile, OnnxValue};
use crate::model::encoder::Pooling;
use crate::model::sensor_input::SensorInput;
use crate::task::Sensor;
use crate::{Error, Result, suggest};

/// Checks inputs and outputs.
///
/// # Errors
/// If the file lacks a name or requires another input, or if a shape or type cannot be what the TOML says.
pub fn check(
    config: &OnnxConfig,
    header: &OnnxFile,
    path: &Path,
    sensors: &BTreeMap<Sensor, SensorInput>,
) -> Result<()> {
    let at = |error: Error| error.in_file(path);
    if sensors.is_empty() {
        return Err(at(Error::mismatch("expected the bands that the model takes, found none").help(
            "add them to the model's TOML, such as: [sensors.s2-l2a] bands = [\"B02\", \"B03\", \"B04\"]",
        )));
    }
    if let PixelInputs::PerSensor(names) = &config.pixels
        && let Some(sensor) = names.keys().find(|sensor| !sensors.contains_key(sensor))
    {
        let known: Vec<&str> = sensors.keys().map(|sensor| sensor.name()).collect();
        let help = suggest::help(sensor.name(), &known, "sensors with bands in the model's TOML");
        return Err(at(Error::mismatch(format!("pixels: sensor {sensor} has no bands"))
            .help(format!("{help}; or add [sensors.{sensor}] bands = […]"))));
    }
    for name in config.pixels.names() {
        pixels(input(header, name, "pixels").map_err(at)?).map_err(at)?;
    }
    let batch = batch_size(config, header).map_err(at)?;
    for extra in &config.inputs {
        let declared = input(header, &extra.name, "inputs").map_err(at)?;
        extra.arrangement(declared, batch).map_err(at)?;
    }
    let known = |value: &&OnnxValue| {
        config.pixels.names().contains(&value.name.as_str())
            || config.inputs.iter().any(|extra: &ExtraInput| extra.name == value.name)
    };
    if let Some(other) = header.inputs.iter().find(|value| !known(value)) {
        return Err(at(Error::mismatch(format!(
            "the file has an input that the model's TOML does not name: {other}"
        ))
        .help("add it as [[architecture.inputs]] with `name` and `value`; docs/onnx.md lists the values")));
    }
    if let Some(name) = &config.pooled {
        let is_row = |shape: &[Dimension]| {
            shape.len() >= 2 && shape[2..].iter().all(|size| size.fixed().is_none_or(|size| size == 1))
        };
        expect(output(header, name, "pooled").map_err(at)?, is_row, "[n, d]").map_err(at)?;
    }
    if let Some(tokens) = &config.tokens {
        let is_grid = |shape: &[Dimension]| matches!(shape.len(), 3 | 4);
        let value = output(header, &tokens.name, "tokens").map_err(at)?;
        expect(value, is_grid, "[n, tokens, d] or [n, d, rows, columns]").map_err(at)?;
    }
    for map in &config.maps {
        let has_width = |shape: &[Dimension]| {
            let width = match shape.len() {
                3 => &shape[2],
                4 => &shape[1],
                _ => return false,
            };
            width.fixed().is_none_or(|width| width == map.width)
        };
        let value = output(header, &map.name, "maps").map_err(at)?;
        let width = map.width;
        let forms = format!("[n, {width}, rows, columns] or [n, tokens, {width}]");
        expect(value, has_width, &forms).map_err(at)?;
    }
    Ok(())
}

/// Returns the length d of a pooled vector.
///
/// # Errors
/// If neither the file nor the TOML states it, or they state different ones.
pub fn width(config: &OnnxConfig, header: &OnnxFile, path: &Path, pooling: Pooling) -> Result<usize> {
    let (name, from_end) = match (pooling, &config.pooled, &config.tokens) {
        (Pooling::Head, Some(pooled), _) => (pooled, None),
        (_, _, Some(tokens)) => (&tokens.name, Some(())),
        _ => return Ok(0),
    };
    let value = output(header, name, "pooled")?;
    let stated = value.shape.as_deref().and_then(|shape| match (from_end, shape) {
        (Some(()), [_, _, d]) | (_, [_, d, ..]) => d.fixed(),
        _ => None,
    });
    match (stated, config.width) {
        (Some(stated), Some(width)) if stated != width => {
            Err(Error::mismatch(format!("width: expected that of the file's output {value}, found {width}"))
                .in_file(path)
                .help(format!("set `width = {stated}`, or remove it")))
        }
        (Some(width), _) | (None, Some(width)) => Ok(width),
        (None, None) => {
            Err(Error::mismatch(format!("the file leaves open how long a vector of its output is: {value}"))
                .in_file(path)
                .help("add `width = NUMBER` to [architecture] in the model's TOML"))
        }
    }
}

/// Returns the number of images that the file takes at once, if it fixes it.
///
/// # Errors
/// If the file lacks an input for pixels.
pub fn batch_size(config: &OnnxConfig, header: &OnnxFile) -> Result<Option<usize>> {
    let fixed = config.pixels.names().into_iter().map(|name| {
        let declared = input(header, name, "pixels")?;
        Ok(declared.shape.as_ref().and_then(|shape| shape.first()?.fixed()))
    });
    Ok(fixed.collect::<Result<Vec<_>>>()?.into_iter().flatten().next())
}

/// Returns the input called `name`; `key` is the TOML's key that names it.
///
/// # Errors
/// If there is none.
pub fn input<'h>(header: &'h OnnxFile, name: &str, key: &str) -> Result<&'h OnnxValue> {
    find(&header.inputs, name, key, "input")
}

fn output<'h>(header: &'h OnnxFile, name: &str, key: &str) -> Result<&'h OnnxValue> {
    let value = find(&header.outputs, name, key, "output")?;
    match value.element {
        Element::F32 | Element::F16 | Element::Bf16 | Element::F64 => Ok(value),
        _ => Err(Error::mismatch(format!(
            "{key}: expected an output of floating-point numbers, found {value}"
        ))
        .help("name another output, or convert it when you export the model")),
    }
}

fn find<'h>(values: &'h [OnnxValue], name: &str, key: &str, what: &str) -> Result<&'h OnnxValue> {
    values.iter().find(|value| value.name == name).ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
        let all: Vec<String> = values.iter().map(OnnxValue::to_string).collect();
        let help = suggest::help(name, &names, &format!("the file's {what}s"));
        Error::mismatch(format!("{key}: the file has no {what} `{name}`; it has {}", all.join("; ")))
            .help(help)
    })
}

/// Checks an input for pixels.
fn pixels(value: &OnnxValue) -> Result<()> {
    if !matches!(value.element, Element::F32 | Element::F16 | Element::Bf16 | Element::F64) {
        return Err(Error::mismatch(format!(
            "pixels: expected an input of floating-point numbers, found {value}"
        ))
        .help("convert the input to floating point when you export the model"));
    }
    expect(value, |shape| shape.len() == 4, "[n, bands, height, width]")
}

/// Checks the shape of an input or output, if the file states it.
fn expect(value: &OnnxValue, fits: impl Fn(&[Dimension]) -> bool, form: &str) -> Result<()> {
    if value.shape.as_deref().is_none_or(fits) {
        return Ok(());
    }
    Err(Error::mismatch(format!("expected {form}, found {value}"))
        .help("correct the model's TOML, or reshape it when you export the model"))
}
