//! Extraction: a dataset's split through an encoder, in batches read ahead while the device computes.

mod bank;
pub mod cache;
pub(crate) mod images;
pub mod maps;
mod scratch;
pub mod source;
pub mod tiles;
pub mod truth;

use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use ndarray::Array2;
use serde::Serialize;

pub use self::bank::{CHUNK, FeatureBank};
use self::cache::About;
pub use self::images::ImageInput;
pub use self::scratch::Scratch;
use crate::audit::observed::{Log, Observed, PixelSummary};
use crate::data::{self, Dataset, Image, Sample, Split, Target, loader};
use crate::device;
use crate::model::architecture::ArchitectureConfig;
use crate::model::config::{DecidingModel, ImageSize, ModelConfig};
use crate::model::{Encoder, ImageSpec, InputSpec, Pooling, Want};
use crate::task::Sensor;
use crate::task::bands::{Band, Channels, Imputation};
use crate::task::images::full_name;
use crate::task::{Combine, Suite, Task};
use crate::transform::Preprocess;
use crate::transform::augment::Dihedral;
use crate::transform::strategies::{self, Channel, StoredBands, Strategies, Strategy};
use crate::{Error, Result};

/// Version of the code between a sample's file and its features. Raise it with every change that alters a feature: cached
/// features, and the records made from them, are then computed again.
pub const FEATURES_VERSION: u32 = 1;

/// The pooled features of a split with their samples and labels, in the partition's order.
#[derive(Debug, Clone)]
pub struct Features {
    /// Names of the samples, n of them.
    pub samples: Vec<String>,
    /// [n, d]: one feature vector per sample.
    pub matrix: Array2<f32>,
    /// The target of each sample.
    pub labels: Vec<Target>,
}

/// The user's choices about a task's bands and their normalisation.
#[derive(Debug, Clone)]
pub struct InputOptions {
    /// Select bands by content instead of by name where the file's names are known to be wrong.
    pub by_content: bool,
    /// `default` (see [`InputOptions::normalization_of`]), or a name that [`Strategies::asked`] accepts.
    pub normalization: String,
    /// The known normalisation strategies, read from `configs/normalization.toml`.
    pub strategies: Strategies,
    /// The subset of the model's bands that it receives.
    pub channels: Channels,
    /// Whether bands missing from the files become zeros instead of the task's substitutes.
    pub zeros: bool,
}

impl InputOptions {
    /// Returns the requested normalisation. The default is the task's, else the suite's, else the data set's own
    /// statistics; none for models that take pixels as stored, and torchgeo-bench's for those that take every stored band.
    pub fn normalization_of<'a>(
        &'a self,
        suite: &'a Suite,
        task: &'a Task,
        architecture: &ArchitectureConfig,
    ) -> &'a str {
        if self.normalization != strategies::DEFAULT {
            return &self.normalization;
        }
        if architecture.takes_stored_pixels() {
            return strategies::NONE;
        }
        if architecture.takes_every_stored_band() {
            let is_known = self.strategies.knows_bands_of(&task.name);
            return if is_known { strategies::BANDSPEC_ZSCORE } else { strategies::DATASET };
        }
        task.normalization
            .as_ref()
            .or(suite.normalization.as_ref())
            .map_or(strategies::DATASET, String::as_str)
    }

    /// Returns the substitutes for bands that the files of `task` may lack.
    pub fn impute(&self, task: &Task) -> Vec<Imputation> {
        let source = |pair: &Imputation| {
            let keeps = |band| self.channels.keeps(band);
            if self.zeros || !keeps(pair.source) || !keeps(pair.target) { Band::ZEROS } else { pair.source }
        };
        task.impute.iter().map(|pair| Imputation { source: source(pair), target: pair.target }).collect()
    }

    /// Returns how the bands of `task` are selected, as its records name it: `by-content` or `as-named`.
    pub fn band_names(&self, task: &Task) -> &'static str {
        if self.by_content && !task.by_content.is_empty() { "by-content" } else { "as-named" }
    }
}

/// A task's opened files, and how their pixels are prepared for a model.
pub struct Input {
    /// The opened files.
    pub dataset: Box<dyn Dataset>,
    /// The task that the files belong to.
    pub task: Task,
    /// The images of each sample, at least one.
    pub images: Vec<ImageInput>,
    /// Whether the model takes all of a sample's images at once.
    pub fused: bool,
    /// How the model's tokens become one vector.
    pub pooling: Pooling,
    /// Whether the model takes tiles at their native size instead of resized to its input.
    pub keeps_size: bool,
    /// The requested normalisation, or the default.
    pub normalization: String,
    /// The candidate preparations, at least one, in the order in which they are tried.
    pub strategies: Vec<Preparation>,
    /// Summaries of the samples that were read so far or whose features were cached.
    pub seen: Log,
}

/// A normalisation strategy and the preprocessing that applies it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Preparation {
    /// The strategy's name, such as `OURS-2.0-norm_no_clip`.
    pub name: String,
    /// The preprocessing of the channels of all images, one image after the other.
    pub preprocess: Preprocess,
}

impl Input {
    /// Opens `task` under the suite's folder `root` and decides which stored band feeds which channel of
    /// `model`, how each is normalised and to which size it is resized.
    ///
    /// # Errors
    /// If the files are missing, the model lacks the task's sensor, a band is missing, or the
    /// normalisation is unknown.
    pub fn open(
        suite: &Suite,
        task: &Task,
        partition: &str,
        root: &Path,
        model: &ModelConfig,
        options: &InputOptions,
    ) -> Result<Self> {
        if model.architecture.takes_every_stored_band() {
            return Self::of_every_band(suite, task, partition, root, model, options);
        }
        let dataset = data::open(suite, task, root, partition)?;
        let images = images::select(suite, task, &dataset.bands()?, model, options)?;
        let channels: Vec<Channel> = images
            .iter()
            .flat_map(|image| {
                let date = image.date.as_deref();
                image.bands.iter().map(move |band| Channel { band: *band, date })
            })
            .collect();
        let zeroed = zeroed(&images);
        let side = model.side(task);
        let prepare = |strategy: &_| {
            let statistics = || {
                let of_image =
                    |(place, image): (usize, &ImageInput)| dataset.statistics(place, &image.selection.stored);
                let all = images.iter().enumerate().map(of_image).collect::<Result<Vec<_>>>()?;
                Ok(all.concat())
            };
            let normalization = match strategy {
                Strategy::Bandspec(_) => {
                    let names: Vec<String> =
                        images.iter().flat_map(|image| image.selection.stored.clone()).collect();
                    let bands = StoredBands { task: &task.name, scale: task.scale, names: &names };
                    options.strategies.of_stored(strategy, bands, statistics)?
                }
                _ => options.strategies.resolve(strategy, &channels, statistics)?,
            };
            Ok(Preparation {
                name: format!("{strategy}"),
                preprocess: Preprocess {
                    normalization,
                    height: side,
                    width: side,
                    align_corners: suite.align_corners,
                    zeroed: zeroed.clone(),
                },
            })
        };
        let normalization = options.normalization_of(suite, task, &model.architecture);
        let sensors: Vec<Sensor> = images.iter().map(|image| image.sensor).collect();
        let asked = options.strategies.asked_of_all(normalization, &sensors, model.normalization)?;
        let strategies = asked.iter().map(prepare).collect::<Result<_>>()?;
        Ok(Input {
            dataset,
            task: task.clone(),
            images,
            fused: model.fuses(&sensors),
            pooling: model.pooling(),
            keeps_size: task.input_size.is_none() && model.image == ImageSize::Native,
            normalization: normalization.to_owned(),
            strategies,
            seen: Log::default(),
        })
    }

    /// Opens `task` for a model that takes every stored band, resized to the model's size.
    fn of_every_band(
        suite: &Suite,
        task: &Task,
        partition: &str,
        root: &Path,
        model: &ModelConfig,
        options: &InputOptions,
    ) -> Result<Self> {
        let takes_stored_pixels = model.architecture.takes_stored_pixels();
        if takes_stored_pixels && options.normalization != strategies::DEFAULT {
            let problem = format!("{} takes pixels as stored, never normalised", model.name);
            return Err(Error::mismatch(problem).help("leave out --normalization"));
        }
        let normalization = options.normalization_of(suite, task, &model.architecture).to_owned();
        let task = Task { scale: 1.0, ..task.clone() };
        let dataset = data::open(suite, &task, root, partition)?;
        let images = images::as_stored(suite, &task, dataset.bands()?, options)?;
        let side = model.side(&task);
        let asked = if takes_stored_pixels {
            vec![(strategies::NONE.to_owned(), Strategy::Identity)]
        } else {
            let sensors: Vec<Sensor> = images.iter().map(|image| image.sensor).collect();
            let asked = options.strategies.asked_of_all(&normalization, &sensors, model.normalization)?;
            asked.into_iter().map(|strategy| (strategy.to_string(), strategy)).collect()
        };
        let names: Vec<String> = images.iter().flat_map(|image| image.selection.stored.clone()).collect();
        let bands = StoredBands { task: &task.name, scale: task.scale, names: &names };
        let prepare = |(name, strategy): (String, Strategy)| {
            let statistics = || {
                let of_image =
                    |(place, image): (usize, &ImageInput)| dataset.statistics(place, &image.selection.stored);
                let all = images.iter().enumerate().map(of_image).collect::<Result<Vec<_>>>()?;
                Ok(all.concat())
            };
            let normalization = options.strategies.of_stored(&strategy, bands, statistics)?;
            let align_corners = false;
            let preprocess =
                Preprocess { normalization, height: side, width: side, align_corners, zeroed: Vec::new() };
            Ok(Preparation { name, preprocess })
        };
        let strategies = asked.into_iter().map(prepare).collect::<Result<_>>()?;
        Ok(Input {
            dataset,
            images,
            fused: false,
            pooling: model.pooling(),
            keeps_size: task.input_size.is_none() && model.image == ImageSize::Native,
            task,
            normalization,
            strategies,
            seen: Log::default(),
        })
    }

    /// Reads the model's bands of a sample as stored, and logs a summary of it in [`Input::seen`].
    ///
    /// # Errors
    /// If the sample cannot be read.
    pub fn stored(&self, split: Split, index: usize) -> Result<Sample> {
        let sample = self.dataset.read(split, index, &self.stored_bands())?;
        if !self.seen.holds(split, index) {
            let pixels = PixelSummary::of(sample.images.iter().map(|image| image.pixels.view()));
            self.seen.note(split, index, Observed::new(pixels, &sample.target));
        }
        Ok(sample)
    }

    /// Reads a sample and preprocesses its images for the model.
    ///
    /// # Errors
    /// If the sample cannot be read or preprocessed.
    pub fn read(&self, preprocess: &Preprocess, split: Split, index: usize) -> Result<Sample> {
        let sample = self.stored(split, index)?;
        Ok(Sample { images: self.prepared(preprocess, sample.images)?, ..sample })
    }

    /// Preprocesses a sample's images for the model. `preprocess` covers the channels of all images, one image after the other.
    ///
    /// # Errors
    /// Like [`Preprocess::apply`].
    pub fn prepared(&self, preprocess: &Preprocess, mut images: Vec<Image>) -> Result<Vec<Image>> {
        if let [only] = images.as_mut_slice() {
            only.pixels = preprocess.apply(std::mem::take(&mut only.pixels))?;
            return Ok(images);
        }
        let mut first = 0;
        for image in &mut images {
            let channels = image.pixels.dim().0;
            image.pixels = preprocess.part(first, channels).apply(std::mem::take(&mut image.pixels))?;
            first += channels;
        }
        Ok(images)
    }

    /// Reads a sample for its label, with a single band of pixels.
    ///
    /// # Errors
    /// If the sample cannot be read.
    pub fn labelled(&self, split: Split, index: usize) -> Result<Sample> {
        self.dataset.read(split, index, &images::one_band(&self.images))
    }

    /// Returns the stored names of the bands that the model receives, per image.
    pub fn stored_bands(&self) -> Vec<Vec<String>> {
        self.images.iter().map(|image| image.selection.stored.clone()).collect()
    }

    /// Returns the full name of the stored band behind each channel, over all images: `VV`, or `VV before` if a sample has
    /// several images.
    pub fn channel_names(&self) -> Vec<String> {
        let of_image = |image: &ImageInput| {
            let name = |band: &String| full_name(band, image.label.as_deref());
            image.selection.stored.iter().map(name).collect::<Vec<_>>()
        };
        self.images.iter().flat_map(of_image).collect()
    }

    /// Returns the substitutions among the bands, each once even if several images share it.
    pub fn imputed(&self) -> Vec<Imputation> {
        if let [only] = self.images.as_slice() {
            return only.selection.imputed.clone();
        }
        let mut distinct = Vec::new();
        for pair in self.images.iter().flat_map(|image| &image.selection.imputed) {
            if !distinct.contains(pair) {
                distinct.push(*pair);
            }
        }
        distinct
    }

    /// Describes how a sample's images enter an encoder, and how its outputs become one feature.
    pub fn spec(&self) -> InputSpec {
        let image = |image: &ImageInput| ImageSpec {
            sensor: image.sensor,
            bands: image.bands.clone(),
            channels: image.channels(),
        };
        InputSpec {
            images: self.images.iter().map(image).collect(),
            combine: if self.fused { None } else { self.task.combine },
            pooling: self.pooling,
        }
    }

    /// Returns the height and width of the model's input in pixels.
    pub fn image_size(&self) -> usize {
        self.strategies.first().map_or(0, |strategy| strategy.preprocess.height)
    }

    /// Returns the strategies' names, in order.
    pub fn strategy_names(&self) -> Vec<&str> {
        self.strategies.iter().map(|strategy| strategy.name.as_str()).collect()
    }

    /// Returns the only strategy, for protocols that cannot choose among several.
    ///
    /// # Errors
    /// If there are several.
    pub fn only(&self) -> Result<&Preparation> {
        match self.strategies.as_slice() {
            [only] => Ok(only),
            several => {
                Err(Error::mismatch(format!("expected exactly one normalisation, got {}", several.len()))
                    .help("choose one with --normalization, such as OURS-2.0-norm_no_clip"))
            }
        }
    }
}

/// Returns the channels, counted over all images, that are set to zero after normalisation.
fn zeroed(images: &[ImageInput]) -> Vec<usize> {
    let mut first = 0;
    let mut all = Vec::new();
    for image in images {
        all.extend(image.selection.zeroed.iter().map(|channel| first + channel));
        first += image.channels();
    }
    all
}

/// Identifies an encoder in the cache key of its features.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The model's configuration.
    pub model: &'a ModelConfig,
    /// [`crate::model::LoadedModel::weights_id`].
    pub weights: &'a str,
    /// The device as on the command line. Rounding differs between kinds of devices ([`device::kind`]).
    pub device: &'a str,
}

/// Turns samples on disk into feature vectors.
pub struct Extractor<'a> {
    /// The encoder to run.
    pub encoder: &'a dyn Encoder,
    /// The device that holds the encoder.
    pub device: &'a Device,
    /// The samples to encode.
    pub input: &'a Input,
    /// One of the input's strategies.
    pub strategy: &'a Preparation,
    /// The flip or rotation applied to each image.
    pub turn: Dihedral,
    /// Samples per batch.
    pub batch_size: usize,
    /// Number of threads that read and preprocess.
    pub readers: usize,
}

impl Extractor<'_> {
    /// Returns the length d of a feature vector.
    pub fn width(&self) -> usize {
        self.input.spec().width(self.encoder)
    }

    /// Encodes the samples at `indices` of a split and hands each batch's features to `take`, in order. Returns the
    /// time spent in the encoder.
    ///
    /// Memory: at most three batches of images.
    ///
    /// # Errors
    /// If a sample cannot be read, a feature is not finite, or `take` fails.
    pub fn extract(
        &self,
        split: Split,
        indices: &[usize],
        take: &mut dyn FnMut(Features) -> Result<()>,
    ) -> Result<Duration> {
        let read = |i: usize| {
            let sample = self.input.read(&self.strategy.preprocess, split, indices[i])?;
            Ok(sample.turned(|pixels| self.turn.apply(pixels)))
        };
        let mut busy = Duration::ZERO;
        loader::ordered(indices.len(), self.readers, 2 * self.batch_size, read, |mut samples| {
            loop {
                let batch: Vec<Sample> = samples.by_ref().take(self.batch_size).collect::<Result<_>>()?;
                if batch.is_empty() {
                    return Ok(());
                }
                let (features, time) = self.encode(split, batch)?;
                busy += time;
                take(features)?;
            }
        })?;
        Ok(busy)
    }

    /// Returns the features of a batch of preprocessed samples, and the time that the encoder took.
    fn encode(&self, split: Split, batch: Vec<Sample>) -> Result<(Features, Duration)> {
        let (width, n) = (self.width(), batch.len());
        let spec = self.input.spec();
        let images = images::batch(&spec, images::of_samples(&batch), self.device)?;
        let (samples, labels): (Vec<String>, Vec<Target>) =
            batch.into_iter().map(|sample| (sample.name, sample.target)).unzip();
        let start = Instant::now();
        let vectors = spec.encode(self.encoder, &images, Want::Pooled(spec.pooling))?.pooled()?;
        let vectors = vectors.into_data().convert::<f32>().try_into_vec::<f32>().map_err(|error| {
            Error::mismatch(format!("the device returned features that are not float32: {error:?}"))
        })?;
        let time = start.elapsed();
        let matrix = Array2::from_shape_vec((n, width), vectors).map_err(|error| {
            Error::mismatch(format!("expected features [{n}, {width}] from the model: {error}"))
        })?;
        for (name, vector) in samples.iter().zip(matrix.rows()) {
            check_finite(format_args!("{split} {name}"), vector)?;
        }
        Ok((Features { samples, matrix, labels }, time))
    }

    /// Returns the cache key: a hash of everything that affects a feature except the sample.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn key(&self, identity: Identity) -> Result<String> {
        #[derive(Serialize)]
        struct Ingredients<'a> {
            version: u32,
            form: u32,
            decoding: String,
            model: DecidingModel<'a>,
            weights: &'a str,
            device: &'a str,
            sensor: Sensor,
            /// The sensor of each image if they differ, else empty.
            #[serde(skip_serializing_if = "Vec::is_empty")]
            sensors: Vec<Sensor>,
            #[serde(skip_serializing_if = "Combine::is_unwritten")]
            combine: Option<Combine>,
            pooling: Pooling,
            bands: &'a [String],
            preprocess: &'a Preprocess,
            turn: Dihedral,
        }
        let Input { dataset, images, task, .. } = self.input;
        let mut sensors: Vec<Sensor> = images.iter().map(|image| image.sensor).collect();
        let sensor = sensors.first().copied().unwrap_or(task.input_sensor);
        if sensors.iter().all(|other| *other == sensor) {
            sensors.clear();
        }
        let ingredients = Ingredients {
            version: FEATURES_VERSION,
            form: cache::FORM,
            decoding: dataset.decoding().hash(),
            model: identity.model.deciding(),
            weights: identity.weights,
            device: device::kind(identity.device),
            sensor,
            sensors,
            combine: task.combine,
            pooling: self.input.pooling,
            bands: &self.input.channel_names(),
            preprocess: &self.strategy.preprocess,
            turn: self.turn,
        };
        let json = serde_json::to_vec(&ingredients)
            .map_err(|error| Error::mismatch(format!("the settings cannot be written as JSON: {error}")))?;
        Ok(blake3::hash(&json).to_hex()[..32].to_owned())
    }

    fn about(&self, identity: Identity) -> About {
        let model = identity.model;
        About {
            task: self.input.task.name.clone(),
            model: format!("{} {}", model.name, model.backbone),
            weights: identity.weights.to_owned(),
            normalization: self.strategy.name.clone(),
            device: identity.device.to_owned(),
        }
    }
}

/// Checks what a model gave for one sample, named by `sample`.
///
/// # Errors
/// If a number is not finite.
fn check_finite<'n>(
    sample: impl std::fmt::Display,
    numbers: impl IntoIterator<Item = &'n f32>,
) -> Result<()> {
    if numbers.into_iter().all(|number| number.is_finite()) {
        return Ok(());
    }
    Err(Error::not_finite(format!("{sample}: the model's features are not finite"))
        .help("check that the weights match the model and the normalisation matches the pixels"))
}
