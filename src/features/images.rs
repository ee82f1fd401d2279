//! Prepares the images of a task's samples for a model: maps stored bands to channels, and builds batches.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use super::InputOptions;
use crate::data::{Image, Sample};
use crate::model::config::ModelConfig;
use crate::model::encoder::Context;
use crate::model::{Batch, InputSpec};
use crate::task::bands::{self, Band, Channels, Imputation, Selection};
use crate::task::{Sensor, Suite, Task, TaskImage};
use crate::{Error, Result};

/// One of the images of each sample, and the part of it that a model receives.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInput {
    /// Distinguishes it from the sample's other images: `s1`, `before`; `None` for a single image.
    pub label: Option<String>,
    /// Name of its date, if it has one: `before`.
    pub date: Option<String>,
    /// The sensor that the model is told.
    pub sensor: Sensor,
    /// The band of each channel; empty if the model ignores the bands' names.
    pub bands: Arc<[Band]>,
    /// The stored band behind each channel.
    pub selection: Selection,
}

impl ImageInput {
    /// Returns the number of channels.
    pub fn channels(&self) -> usize {
        self.selection.stored.len()
    }
}

/// Decides for each image of `task` which of its stored bands, `present`, feeds which channel of `model`.
///
/// # Errors
/// If the model lacks a sensor, or a band is missing.
pub(super) fn select(
    suite: &Suite,
    task: &Task,
    present: &[Vec<String>],
    model: &ModelConfig,
    options: &InputOptions,
) -> Result<Vec<ImageInput>> {
    let sources = task.sources();
    let mut taken: Vec<Band> = Vec::new();
    for source in &sources {
        taken.extend(&model.sensor(source.input_sensor)?.bands);
    }
    options.channels.check(&taken)?;
    let mut images = Vec::new();
    for ((source, label), present) in sources.iter().zip(task.image_labels()).zip(present) {
        let (bands, selection) = channels(suite, task, source, present, model, options)?;
        let date = source.date.clone();
        images.push(ImageInput { label, date, sensor: source.input_sensor, bands: bands.into(), selection });
    }
    Ok(images)
}

/// Returns the bands of one image that the model receives, and the stored band behind each.
fn channels(
    suite: &Suite,
    task: &Task,
    source: &TaskImage,
    present: &[String],
    model: &ModelConfig,
    options: &InputOptions,
) -> Result<(Vec<Band>, Selection)> {
    let mut names = suite.bands.clone();
    if options.by_content {
        names.extend(task.by_content.clone());
        names.retain(|band, _| !task.absent_by_content.contains(band));
    }
    let taken = &model.sensor(source.input_sensor)?.bands;
    let keeps = |band: &Band| options.channels.keeps(*band);
    names.retain(|band, _| keeps(band));
    let mut impute = options.impute(task);
    impute.extend(&model.impute);
    let wanted: Vec<Band> = if model.architecture.takes_any_bands() {
        let stored = |band: &Band| names.get(band).is_some_and(|name| present.contains(name));
        taken.iter().copied().filter(|band| keeps(band) && stored(band)).collect()
    } else {
        let left_out = taken.iter().copied().filter(|band| !keeps(band));
        impute.splice(0..0, left_out.map(|target| Imputation { source: Band::ZEROS, target }));
        taken.clone()
    };
    if wanted.is_empty() {
        let problem = format!("{}: found none of the model's bands in the files", task.name);
        return Err(Error::request(problem).help("change --channels, or choose another model"));
    }
    let selection = bands::select(&wanted, &names, present, &impute)?;
    Ok((wanted, selection))
}

const RGB: [Band; 3] = [Band::B04, Band::B03, Band::B02];

/// Selects every band of each image as stored, for models that ignore the bands' names.
///
/// # Errors
/// If an image has none of the requested bands.
pub(super) fn as_stored(
    suite: &Suite,
    task: &Task,
    mut present: Vec<Vec<String>>,
    options: &InputOptions,
) -> Result<Vec<ImageInput>> {
    if options.channels != Channels::All {
        let known: Vec<Band> = suite.bands.keys().copied().collect();
        options.channels.check(&known)?;
        let kept = |name: &String| {
            suite.bands.iter().any(|(band, stored)| stored == name && options.channels.keeps(*band))
        };
        present.iter_mut().for_each(|stored| stored.retain(kept));
        // Red, green, blue, not the order of the files: the features of patterns depend on it.
        if options.channels == Channels::Rgb {
            let place = |name: &String| RGB.iter().position(|band| suite.bands.get(band) == Some(name));
            present.iter_mut().for_each(|stored| stored.sort_by_key(place));
        }
    }
    if present.iter().any(Vec::is_empty) {
        return Err(Error::request(format!("{}: found none of the bands {}", task.name, options.channels))
            .help("change --channels"));
    }
    let input = |((source, label), stored): ((TaskImage, Option<String>), Vec<String>)| ImageInput {
        label,
        date: source.date,
        sensor: source.input_sensor,
        // Files may contain bands that no model knows.
        bands: Arc::new([]),
        selection: Selection { stored, imputed: Vec::new(), zeroed: Vec::new() },
    };
    Ok(task.sources().into_iter().zip(task.image_labels()).zip(present).map(input).collect())
}

/// Builds a batch on a device: per image, the preprocessed pixels [n, c, h, w] of all samples, with their dates and
/// locations if known.
///
/// # Errors
/// If samples differ in their number of images, or corresponding images differ in size.
pub fn batch<'s>(
    spec: &InputSpec,
    samples: impl Iterator<Item = &'s [Image]>,
    device: &Device,
) -> Result<Batch> {
    let samples: Vec<&[Image]> = samples.collect();
    let expected = spec.images.len();
    if let Some(other) = samples.iter().map(|images| images.len()).find(|found| *found != expected) {
        return Err(Error::request(format!("expected samples of {expected} images, found one of {other}")));
    }
    let images = (0..expected).map(|place| stacked(samples.iter().map(|images| &images[place]), device));
    Ok(spec.batch(images.collect::<Result<_>>()?))
}

/// Stacks images of one size into [n, c, h, w], and collects their context.
fn stacked<'s>(
    images: impl Iterator<Item = &'s Image> + Clone,
    device: &Device,
) -> Result<(Tensor<4>, Context)> {
    let (c, h, w) = images.clone().next().map_or((0, 0, 0), |image| image.pixels.dim());
    let n = images.clone().count();
    let mut pixels: Vec<f32> = Vec::with_capacity(n * c * h * w);
    for image in images.clone() {
        if image.pixels.dim() != (c, h, w) {
            let found = image.pixels.dim();
            return Err(Error::request(format!(
                "expected images of {:?} in this batch, found {found:?}",
                (c, h, w)
            ))
            .help("all images of a batch must have the same number of bands, height and width"));
        }
        pixels.extend(image.pixels.iter());
    }
    let pixels = Tensor::from_data(TensorData::new(pixels, [n, c, h, w]), device);
    // An empty list says that no image of the batch has the value.
    fn known<T>(all: Vec<Option<T>>) -> Vec<Option<T>> {
        if all.iter().any(Option::is_some) { all } else { Vec::new() }
    }
    let days = known(images.clone().map(|image| image.day).collect());
    let places = known(images.map(|image| image.place).collect());
    Ok((pixels, Context { days, places, gsd_m: None }))
}

/// Returns the bands to read for a label alone: one band of the first image, none of the others.
pub(super) fn one_band(images: &[ImageInput]) -> Vec<Vec<String>> {
    let first = images.first().and_then(|image| image.selection.stored.first());
    vec![first.into_iter().cloned().collect()]
}

/// Returns the images of each sample, as [`batch`] takes them.
pub fn of_samples(samples: &[Sample]) -> impl Iterator<Item = &[Image]> {
    samples.iter().map(|sample| sample.images.as_slice())
}
