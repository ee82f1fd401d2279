//! The metadata that the official `geobench` package pickles: descriptions of bands, labels and tasks.

use std::path::Path;

use crate::task::bands::Band;
use crate::task::{TargetKind, Task};

use super::brightness::{Channel, SPECTRAL};
use super::pickle::Value;
use super::tasks::Content;

/// Year, month and day.
pub type Date = (u16, u8, u8);

/// Ground sampling distance of a Sentinel-2 image in metres.
const RESOLUTION: i32 = 10;

/// Ground sampling distance of a task's images in metres.
pub fn resolution(task: &Task) -> Value {
    match task.gsd_m {
        None => Value::Int(RESOLUTION),
        Some(metres) if metres.fract() == 0.0 => Value::Int(metres as i32),
        // Through its shortest decimal form: 0.1 is 0.1 in double precision too.
        Some(metres) => Value::Float(metres.to_string().parse().unwrap_or(f64::from(metres))),
    }
}

pub const CLOUD_PROBABILITY: &str = "Cloud Probability";

/// Contents of `task_specs.pkl`; `bands` describes all bands.
pub fn specifications(task: &Task, content: &Content, bands: Vec<Value>) -> Value {
    let side = Value::Int(task.image_size as i32);
    let benchmark = task.directory.parent().and_then(Path::to_str).unwrap_or_default();
    Value::object(
        "geobench.task",
        "TaskSpecifications",
        [
            ("dataset_name", task.name.as_str().into()),
            ("benchmark_name", benchmark.into()),
            ("patch_size", Value::Tuple(vec![side.clone(), side])),
            ("n_time_steps", Value::Int(1)),
            ("bands_info", Value::List(bands)),
            ("label_type", label_type(task, content)),
            ("spatial_resolution", resolution(task)),
        ],
    )
}

/// Describes the kind of label and its classes; for a mask also its band.
pub fn label_type(task: &Task, content: &Content) -> Value {
    let count = ("n_classes", Value::Int(task.classes as i32));
    let names = Value::List(content.class_names.iter().map(|name| (*name).into()).collect());
    match task.target {
        TargetKind::Class => {
            Value::object("geobench.label", "Classification", [count, ("_class_names", names)])
        }
        TargetKind::Labels => {
            Value::object("geobench.label", "MultiLabelClassification", [count, ("class_name", names)])
        }
        TargetKind::Value | TargetKind::ValueMap => {
            let bound = |name| (name, Value::None);
            Value::object("geobench.label", "Regression", [bound("min_val"), bound("max_val")])
        }
        TargetKind::Mask => Value::object(
            "geobench.dataset",
            "SegmentationClasses",
            [
                ("name", "label".into()),
                ("alt_names", Value::Tuple(Vec::new())),
                ("spatial_resolution", resolution(task)),
                count,
                ("_class_names", names),
            ],
        ),
    }
}

/// Entry of a sample's attribute for one of its datasets; `info` describes the band, whose pixels are `resolution` metres wide.
pub fn dataset(info: Value, resolution: Value, date: Option<Date>) -> Value {
    let date = date.map_or(Value::None, python_date);
    Value::dict([
        ("date", date.clone()),
        ("date_id", date),
        ("spatial_resolution", resolution),
        ("band_info", info),
        ("meta_info", Value::None),
        ("transform", Value::None),
        ("crs", Value::None),
    ])
}

fn python_date((year, month, day): Date) -> Value {
    let [century, rest] = year.to_be_bytes();
    let state = Value::Bytes(vec![century, rest, month, day]);
    Value::Call(Box::new(Value::Global("datetime", "date")), vec![state])
}

/// Describes a Sentinel-1 plane.
pub fn radar_info(name: &str) -> Value {
    band_info("Sentinel1", name, &[], Value::Int(RESOLUTION), [("wavelength", Value::None)])
}

/// Describes the Sentinel-2 band that a name says.
pub fn optical_info(band: Band, name: &str) -> Value {
    let (alternatives, resolution, wavelength): (&[&str], i32, f64) = match band {
        Band::B01 => (&["1", "01"], 60, 0.443),
        Band::B02 => (&["2", "02", "blue"], 10, 0.49),
        Band::B03 => (&["3", "03", "green"], 10, 0.56),
        Band::B04 => (&["4", "04", "red"], 10, 0.665),
        Band::B05 => (&["5", "05"], 20, 0.705),
        Band::B06 => (&["6", "06"], 20, 0.74),
        Band::B07 => (&["7", "07"], 20, 0.783),
        Band::B08 => (&["8", "08", "NIR"], 10, 0.842),
        Band::B8A => (&["8A", "08A"], 20, 0.865),
        Band::B09 => (&["9", "09"], 60, 0.945),
        Band::B10 => (&["10"], 60, 1.375),
        Band::B11 => (&["11"], 20, 1.61),
        _ => (&["12"], 20, 2.19),
    };
    let resolution = Value::Int(resolution);
    band_info("Sentinel2", name, alternatives, resolution, [("wavelength", Value::Float(wavelength))])
}

/// Describes the cloud mask.
pub fn cloud_info() -> Value {
    band_info("CloudProbability", CLOUD_PROBABILITY, &["CPL"], Value::Int(RESOLUTION), [])
}

/// Describes a band of Landsat (`is_landsat`) or of a camera in an aeroplane.
pub fn channel_info(channel: &Channel, is_landsat: bool, task: &Task) -> Value {
    let wavelength = [("wavelength", Value::Float(channel.wavelength))];
    if !is_landsat {
        return band_info("SpectralBand", channel.name, &[channel.common], resolution(task), wavelength);
    }
    let number = channel.name.get(1..2).unwrap_or_default();
    let (long, short) = (format!("0{number}"), format!("B{number}"));
    let resolution = Value::Int(15 * channel.pixel as i32);
    band_info("Landsat8", channel.name, &[number, &long, &short, channel.common], resolution, wavelength)
}

pub const HEIGHTS: &str = "Canopy Height Model";

/// Describes tree heights.
pub fn heights_info() -> Value {
    band_info("ElevationBand", HEIGHTS, &["lidar", "CHM"], Value::Float(0.1), [])
}

pub const SPECTRA: &str = "Neon";

/// Describes the hyperspectral bands.
pub fn spectra_info() -> Value {
    let further = [("n_bands", Value::Int(SPECTRAL as i32)), ("wavelength_range", Value::None)];
    band_info("HyperSpectralBands", SPECTRA, &[], Value::Int(1), further)
}

fn band_info<'a>(
    class: &'static str,
    name: &str,
    alternatives: &[&str],
    resolution: Value,
    further: impl IntoIterator<Item = (&'a str, Value)>,
) -> Value {
    let alternatives = alternatives.iter().map(|name| (*name).into()).collect();
    let attributes = [
        ("name", name.into()),
        ("alt_names", Value::Tuple(alternatives)),
        ("spatial_resolution", resolution),
    ];
    Value::object("geobench.dataset", class, attributes.into_iter().chain(further))
}
