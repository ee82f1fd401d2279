//! The images of a task's samples on their way into a model: which stored band feeds which channel of each, and batches of
//! them.

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

/// One of the images of each sample, and what a model is given of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInput {
    /// What tells it from the sample's other images: `s1`, `before`; none of a single one.
    pub label: Option<String>,
    /// What its date is called, if anything.
    pub date: Option<String>,
    /// That the model is told.
    pub sensor: Sensor,
    /// The band of each channel that the model is given; empty where it takes bands by no name.
    pub bands: Arc<[Band]>,
    /// The stored band behind each channel.
    pub selection: Selection,
}

impl ImageInput {
    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.selection.stored.len()
    }
}

/// Decides for each image of `task`, whose files hold the bands `present` of it, which stored band feeds which channel of
/// `model`.
///
/// # Errors
/// Where the model lacks a sensor, or a band is missing.
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

/// The bands of one image that the model is given, and what is stored of them.
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
        let problem = format!("{}: the files store none of the bands that the model takes", task.name);
        return Err(Error::request(problem).help("choose other --channels, or another model"));
    }
    let selection = bands::select(&wanted, &names, present, &impute)?;
    Ok((wanted, selection))
}

/// Every band of each image, as it is stored, for models that look at no band's name.
///
/// # Errors
/// Where an image has none of the bands that were asked for.
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
    }
    if present.iter().any(Vec::is_empty) {
        return Err(Error::request(format!("{} stores none of the bands {}", task.name, options.channels)));
    }
    let input = |((source, label), stored): ((TaskImage, Option<String>), Vec<String>)| ImageInput {
        label,
        date: source.date,
        sensor: source.input_sensor,
        // Files may name bands that no model knows.
        bands: Arc::new([]),
        selection: Selection { stored, imputed: Vec::new(), zeroed: Vec::new() },
    };
    Ok(task.sources().into_iter().zip(task.image_labels()).zip(present).map(input).collect())
}

/// A batch of samples on a device: for each image in order the pixels [n, c, h, w] of all samples, as the model takes them,
/// and when and where they were taken as far as it is known.
///
/// # Errors
/// Where samples differ in their number of images, or the images of one place in their size.
pub fn batch<'s>(
    spec: &InputSpec,
    samples: impl Iterator<Item = &'s [Image]>,
    device: &Device,
) -> Result<Batch> {
    let samples: Vec<&[Image]> = samples.collect();
    let expected = spec.images.len();
    if let Some(other) = samples.iter().map(|images| images.len()).find(|found| *found != expected) {
        return Err(Error::request(format!("a sample of {other} images, expected {expected}")));
    }
    let images = (0..expected).map(|place| stacked(samples.iter().map(|images| &images[place]), device));
    Ok(spec.batch(images.collect::<Result<_>>()?))
}

/// The pixels [n, c, h, w] of images of one size, and their context.
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
            return Err(Error::request(format!("images of {:?} and of {found:?} in one batch", (c, h, w)))
                .help("images of one batch must have one number of bands, height and width"));
        }
        pixels.extend(image.pixels.iter());
    }
    let pixels = Tensor::from_data(TensorData::new(pixels, [n, c, h, w]), device);
    // Where nothing is known of any image there is nothing to say.
    fn known<T>(all: Vec<Option<T>>) -> Vec<Option<T>> {
        if all.iter().any(Option::is_some) { all } else { Vec::new() }
    }
    let days = known(images.clone().map(|image| image.day).collect());
    let places = known(images.map(|image| image.place).collect());
    Ok((pixels, Context { days, places, gsd_m: None }))
}

/// The pixels of a sample's label alone: of the first image one band, of the others none.
pub(super) fn one_band(images: &[ImageInput]) -> Vec<Vec<String>> {
    let first = images.first().and_then(|image| image.selection.stored.first());
    vec![first.into_iter().cloned().collect()]
}

/// The images of a sample that [`batch`] takes, of many.
pub fn of_samples(samples: &[Sample]) -> impl Iterator<Item = &[Image]> {
    samples.iter().map(|sample| sample.images.as_slice())
}
