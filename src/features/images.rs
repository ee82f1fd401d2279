//! Prepares the images of a task's samples for a model: maps stored bands to channels, and builds batches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::InputOptions;
use super::stages::{Stage, timed};
use crate::data::{Image, Sample};
use crate::model::config::{BandMatch, ModelConfig, Taken};
use crate::model::encoder::Context;
use crate::model::remote::Unstacked;
use crate::model::{Batch, InputSpec};
use crate::nn::kernels::upload;
use crate::task::bands::{self, Band, Channels, Imputation, Selection};
use crate::task::{Sensor, Suite, Task, TaskImage};
use crate::transform::augment::Dihedral;
use crate::transform::on_device::DevicePreprocess;
use crate::{Error, Result, device};

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
    /// The bands that the model takes as its own, if the images are of another sensor than it is told.
    pub matches: Vec<BandMatch>,
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
        taken.extend(&model.taken(task, source)?.input.bands);
    }
    options.channels.check(&taken)?;
    let mut images = Vec::new();
    for ((source, label), present) in sources.iter().zip(task.image_labels()).zip(present) {
        let (bands, selection) = channels(suite, task, source, present, model, options)?;
        let date = source.date.clone();
        let Taken { sensor, matches, .. } = model.taken(task, source)?;
        let matches = matches.iter().filter(|pair| options.channels.keeps(pair.target)).copied().collect();
        images.push(ImageInput { label, date, sensor, bands: bands.into(), selection, matches });
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
    let Taken { input, matches, .. } = model.taken(task, source)?;
    let mut names = suite.band_names(task).clone();
    if !matches.is_empty() {
        let stored = |pair: &BandMatch| Some((pair.target, names.get(&pair.source)?.clone()));
        names = matches.iter().filter_map(stored).collect();
    }
    if options.by_content {
        names.extend(task.by_content.clone());
        names.retain(|band, _| !task.absent_by_content.contains(band));
    }
    let taken = &input.bands;
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
        if !matches.is_empty() {
            // Bands that neither have a match nor a substitute with one are zeros.
            impute.retain(|pair| pair.source == Band::ZEROS || names.contains_key(&pair.source));
            let unmatched = taken.iter().copied().filter(|band| !names.contains_key(band));
            impute.extend(unmatched.map(|target| Imputation { source: Band::ZEROS, target }));
        }
        taken.clone()
    };
    if wanted.is_empty() {
        let problem = format!("{}: found none of the model's bands in the files", task.name);
        return Err(Error::request(problem).help("change --channels, or choose another model"));
    }
    let selection = bands::select(&wanted, &names, present, &impute)?;
    Ok((wanted, selection))
}

/// Red, green and blue: of Sentinel-2, and of sensors that name them so.
const RGB: [Band; 3] = [Band::B04, Band::B03, Band::B02];
const RGB_NAMES: [&str; 3] = ["red", "green", "blue"];

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
        let names = suite.band_names(task);
        let known: Vec<Band> = names.keys().copied().collect();
        options.channels.check(&known)?;
        let kept = |name: &String| {
            names.iter().any(|(band, stored)| stored == name && options.channels.keeps(*band))
        };
        present.iter_mut().for_each(|stored| stored.retain(kept));
        // Red, green, blue, not the order of the files: the features of patterns depend on it.
        if options.channels == Channels::Rgb {
            let is_at = |rank: usize, name: &String| {
                names.iter().any(|(band, stored)| {
                    stored == name && (*band == RGB[rank] || band.name() == RGB_NAMES[rank])
                })
            };
            let place = |name: &String| (0..RGB.len()).find(|rank| is_at(*rank, name));
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
        matches: Vec::new(),
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
    let all = places(spec, samples)?.into_iter().map(|images| {
        check_sizes(&images)?;
        // The tensor keeps the numbers if the device is the CPU, so that no buffer can serve again.
        let mut pixels = Vec::new();
        let shape = timed(Stage::Assemble, || stack_into(&mut pixels, &images));
        let upload = || Tensor::from_data(TensorData::new(pixels, shape), device);
        let pixels = timed(Stage::Upload, upload);
        Ok((pixels, context(&images)))
    });
    Ok(spec.batch(all.collect::<Result<_>>()?))
}

/// Returns the images of all samples, as [`batch`] does, without joining their pixels.
///
/// # Errors
/// Like [`batch`].
pub(super) fn unstacked(spec: &InputSpec, samples: Vec<Vec<Image>>) -> Result<Vec<Unstacked>> {
    let mut contexts = Vec::new();
    for images in places(spec, samples.iter().map(Vec::as_slice))? {
        check_sizes(&images)?;
        contexts.push(Context { gsd_m: spec.gsd_m, ..context(&images) });
    }
    let mut inputs: Vec<Unstacked> =
        contexts.into_iter().map(|context| Unstacked { pixels: Vec::new(), context }).collect();
    for images in samples {
        inputs.iter_mut().zip(images).for_each(|(input, image)| input.pixels.push(image.pixels));
    }
    Ok(inputs)
}

/// # Errors
/// If images differ in size.
fn check_sizes(images: &[&Image]) -> Result<()> {
    let size = images.first().map(|image| image.pixels.dim());
    match images.iter().map(|image| image.pixels.dim()).find(|dim| Some(*dim) != size) {
        None => Ok(()),
        Some(other) => Err(Error::request(format!(
            "expected images of {:?} in this batch, found {other:?}",
            size.unwrap_or_default()
        ))
        .help("all images of a batch must have the same number of bands, height and width")),
    }
}

/// The images of a batch as stored, on a device. Clones share the numbers.
#[derive(Clone)]
pub struct StoredBatch {
    /// Per image of a sample: the pixels [n, c, h, w] of samples that follow one another and have one size, in float32.
    pixels: Vec<Vec<Tensor<4>>>,
    contexts: Vec<Context>,
}

/// Memory of the program in which batches are put together, used again for the next ones.
#[derive(Debug, Default)]
pub struct BatchBuffers {
    idle: Mutex<Vec<Vec<f32>>>,
    made: AtomicUsize,
}

impl BatchBuffers {
    /// Runs `work` with an empty buffer, which keeps the room that earlier batches needed.
    fn lend<T>(&self, work: impl FnOnce(&mut Vec<f32>) -> T) -> T {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = idle.unwrap_or_else(|| {
            self.made.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        });
        buffer.clear();
        let done = work(&mut buffer);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        done
    }

    /// How many buffers were needed so far: one per thread that makes batches.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }
}

/// Uploads the images of a batch as stored, which may differ in size.
///
/// # Errors
/// If samples differ in their number of images.
pub(super) fn upload_stored<'s>(
    spec: &InputSpec,
    samples: impl Iterator<Item = &'s [Image]>,
    device: &Device,
    buffers: &BatchBuffers,
) -> Result<StoredBatch> {
    // Stored pixels need float32, in whichever format the model computes.
    let beside = Tensor::<1>::zeros([1], (device, DType::F32));
    let (mut pixels, mut contexts) = (Vec::new(), Vec::new());
    for images in places(spec, samples)? {
        let equal = images.chunk_by(|a, b| a.pixels.dim() == b.pixels.dim());
        let uploaded = |images: &[&Image]| {
            buffers.lend(|buffer| {
                let shape = timed(Stage::Assemble, || stack_into(buffer, images));
                timed(Stage::Upload, || upload(&beside, buffer, shape))
            })
        };
        pixels.push(equal.map(uploaded).collect());
        contexts.push(context(&images));
    }
    Ok(StoredBatch { pixels, contexts })
}

/// Builds a batch of uploaded images, preprocessed on the device with one of `parts` per image of a sample.
///
/// # Errors
/// If an image does not fit its preprocessing.
pub(super) fn batch_of_stored(
    spec: &InputSpec,
    stored: &StoredBatch,
    parts: &[DevicePreprocess],
    turn: Dihedral,
) -> Result<Batch> {
    let all = stored.pixels.iter().zip(&stored.contexts).zip(parts).map(|((pixels, context), part)| {
        let prepared = |pixels: &Tensor<4>| timed(Stage::Upload, || part.apply(pixels.clone(), turn));
        let ready = pixels.iter().map(prepared).collect::<Result<Vec<_>>>()?;
        let device = pixels.first().map(Tensor::device).unwrap_or_else(device::host);
        Ok((Tensor::cat(ready, 0).cast(device.settings().float_dtype), context.clone()))
    });
    Ok(spec.batch(all.collect::<Result<_>>()?))
}

/// Groups the images of all samples by their index in a sample.
fn places<'s>(spec: &InputSpec, samples: impl Iterator<Item = &'s [Image]>) -> Result<Vec<Vec<&'s Image>>> {
    let expected = spec.images.len();
    let mut places = vec![Vec::new(); expected];
    for images in samples {
        if images.len() != expected {
            let found = images.len();
            return Err(Error::request(format!(
                "expected samples of {expected} images, found one of {found}"
            )));
        }
        places.iter_mut().zip(images).for_each(|(place, image)| place.push(image));
    }
    Ok(places)
}

/// Copies the pixels of images of one size behind one another. Returns their shape [n, c, h, w].
fn stack_into(pixels: &mut Vec<f32>, images: &[&Image]) -> [usize; 4] {
    let (c, h, w) = images.first().map_or((0, 0, 0), |image| image.pixels.dim());
    pixels.reserve_exact(images.len() * c * h * w);
    for image in images {
        match image.pixels.as_slice() {
            Some(contiguous) => pixels.extend_from_slice(contiguous),
            None => pixels.extend(image.pixels.iter()),
        }
    }
    [images.len(), c, h, w]
}

/// Collects when and where images were taken.
fn context(images: &[&Image]) -> Context {
    // An empty list says that no image of the batch has the value.
    fn known<T>(all: Vec<Option<T>>) -> Vec<Option<T>> {
        if all.iter().any(Option::is_some) { all } else { Vec::new() }
    }
    let days = known(images.iter().map(|image| image.day).collect());
    let places = known(images.iter().map(|image| image.place).collect());
    Context { days, places, gsd_m: None }
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
