//! Extraction: a dataset's split through an encoder, in batches read ahead while the device computes.

mod bank;
pub mod cache;
pub mod change;
pub mod maps;
mod scratch;
pub mod source;
pub mod tiles;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array2;
use serde::Serialize;

pub use self::bank::{CHUNK, FeatureBank};
use self::cache::About;
pub use self::scratch::Scratch;
use crate::audit::observed::{Log, Observed, PixelSummary};
use crate::data::{self, Dataset, Sample, Split, Target, loader};
use crate::device;
use crate::model::architecture::ArchitectureConfig;
use crate::model::config::{DecidingModel, ImageSize, ModelConfig};
use crate::model::{Batch, Encoder, InputSpec, Pooling, Want};
use crate::task::Sensor;
use crate::task::bands::{self, Band, Channels, Imputation, Selection};
use crate::task::{Suite, Task};
use crate::transform::Preprocess;
use crate::transform::augment::Dihedral;
use crate::transform::normalize::Normalization;
use crate::transform::strategies::{self, Strategies};
use crate::{Error, Result};

/// Of the code between a sample's file and its features. Raise it with every change that moves a feature: the
/// features in the cache are then computed again, and so are the records made of them.
pub const FEATURES_VERSION: u32 = 1;

/// The features of a split with what they belong to, in the partition's order.
#[derive(Debug, Clone)]
pub struct Features {
    /// Names of the samples.
    pub samples: Vec<String>,
    /// [n, d].
    pub matrix: Array2<f32>,
    pub labels: Vec<Target>,
}

/// How a task's pixels are taken.
#[derive(Debug, Clone)]
pub struct InputOptions {
    /// Bands by what they hold where the files name them wrongly, not by their names.
    pub by_content: bool,
    /// `default` (see [`InputOptions::normalization_of`]), or what [`Strategies::asked`] takes.
    pub normalization: String,
    pub strategies: Strategies,
    /// Which of the model's bands it is given.
    pub channels: Channels,
    /// Whether bands that the files lack are zeros, and not what the task puts there.
    pub zeros: bool,
}

impl InputOptions {
    /// The normalisation that was asked for: by default the task's, else the suite's, else by the data set's own
    /// statistics.
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
        task.normalization
            .as_ref()
            .or(suite.normalization.as_ref())
            .map_or(strategies::DATASET, String::as_str)
    }

    /// What stands in for bands that the files of `task` may lack.
    pub fn impute(&self, task: &Task) -> Vec<Imputation> {
        let source = |pair: &Imputation| {
            let keeps = |band| self.channels.keeps(band);
            if self.zeros || !keeps(pair.source) || !keeps(pair.target) { Band::ZEROS } else { pair.source }
        };
        task.impute.iter().map(|pair| Imputation { source: source(pair), target: pair.target }).collect()
    }

    /// How the bands of `task` are taken, for its records.
    pub fn band_names(&self, task: &Task) -> &'static str {
        if self.by_content && !task.by_content.is_empty() { "by-content" } else { "as-named" }
    }
}

/// A task's files, opened, and what happens to their pixels on the way into a model.
pub struct Input {
    pub dataset: Box<dyn Dataset>,
    pub task: Task,
    pub sensor: Sensor,
    /// The band of each channel that a model is given.
    pub bands: Arc<[Band]>,
    pub selection: Selection,
    /// How the model's tokens become one vector.
    pub pooling: Pooling,
    /// Whether the model takes tiles of images in their own size.
    pub keeps_size: bool,
    /// As it was asked for, or the default.
    pub normalization: String,
    /// At least one: what may happen to the pixels, in the order in which they are tried.
    pub strategies: Vec<Preparation>,
    /// What the samples were like that were read so far, or whose features were cached.
    pub seen: Log,
}

/// A normalisation strategy, by name, and all that happens to pixels with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Preparation {
    pub name: String,
    pub preprocess: Preprocess,
}

impl Input {
    /// Opens `task` under the suite's folder `root` and decides which stored band feeds which channel of
    /// `model`, how it is normalised and to which size it is resized.
    ///
    /// # Errors
    /// Where the files are not there, the model lacks the task's sensor, a band is missing, or the
    /// normalisation is unknown.
    pub fn open(
        suite: &Suite,
        task: &Task,
        partition: &str,
        root: &Path,
        model: &ModelConfig,
        options: &InputOptions,
    ) -> Result<Self> {
        if model.architecture.takes_stored_pixels() {
            return Self::as_stored(suite, task, partition, root, model, options);
        }
        let dataset = data::open(suite, task, root, partition)?;
        let mut names = suite.bands.clone();
        if options.by_content {
            names.extend(task.by_content.clone());
            names.retain(|band, _| !task.absent_by_content.contains(band));
        }
        let present = dataset.bands()?;
        let taken = &model.sensor(task.input_sensor)?.bands;
        options.channels.check(taken)?;
        let keeps = |band: &Band| options.channels.keeps(*band);
        names.retain(|band, _| keeps(band));
        let mut impute = options.impute(task);
        impute.extend(&model.impute);
        let wanted: Vec<Band> = if model.architecture.takes_any_bands() {
            let stored = |band: &Band| {
                let first_date = task.dates.as_ref().map(|[first, _]| first);
                names.get(band).is_some_and(|name| match first_date {
                    Some(date) => present.contains(&bands::dated(name, date)),
                    None => present.contains(name),
                })
            };
            taken.iter().copied().filter(|band| keeps(band) && stored(band)).collect()
        } else {
            let left_out = taken.iter().copied().filter(|band| !keeps(band));
            impute.splice(0..0, left_out.map(|target| Imputation { source: Band::ZEROS, target }));
            taken.clone()
        };
        if wanted.is_empty() {
            let problem = format!("{}: the files store none of the bands that the model takes", task.name);
            return Err(Error::mismatch(problem).help("choose other --channels, or another model"));
        }
        let wanted = &wanted;
        let (selection, channels) = match &task.dates {
            None => (
                bands::select(wanted, &names, &present, &impute)?,
                wanted.iter().map(Band::to_string).collect::<Vec<_>>(),
            ),
            Some(dates) => (
                bands::select_dated(dates, wanted, &names, &present, &impute)?,
                dates
                    .iter()
                    .flat_map(|date| wanted.iter().map(move |band| bands::dated(band, date)))
                    .collect(),
            ),
        };
        let side = model.side(task);
        let prepare = |strategy: &_| {
            let statistics = || dataset.statistics(&selection.stored);
            let normalization = options.strategies.resolve(strategy, &channels, statistics)?;
            Ok(Preparation {
                name: format!("{strategy}"),
                preprocess: Preprocess {
                    normalization,
                    height: side,
                    width: side,
                    align_corners: suite.align_corners,
                    zeroed: selection.zeroed.clone(),
                },
            })
        };
        let normalization = options.normalization_of(suite, task, &model.architecture);
        let asked = options.strategies.asked(normalization, task.input_sensor, model.normalization)?;
        let strategies = asked.iter().map(prepare).collect::<Result<_>>()?;
        Ok(Input {
            dataset,
            task: task.clone(),
            sensor: task.input_sensor,
            bands: wanted.as_slice().into(),
            selection,
            pooling: model.pooling(),
            keeps_size: task.input_size.is_none() && model.image == ImageSize::Native,
            normalization: normalization.to_owned(),
            strategies,
            seen: Log::default(),
        })
    }

    /// Every band of the files, as stored, resized to the model's size.
    fn as_stored(
        suite: &Suite,
        task: &Task,
        partition: &str,
        root: &Path,
        model: &ModelConfig,
        options: &InputOptions,
    ) -> Result<Self> {
        if options.normalization != strategies::DEFAULT {
            let problem = format!("{} takes pixels as they are stored, never normalised", model.name);
            return Err(Error::mismatch(problem).help("leave out --normalization"));
        }
        let task = Task { scale: 1.0, ..task.clone() };
        let dataset = data::open(suite, &task, root, partition)?;
        let mut stored = dataset.bands()?;
        if options.channels != Channels::All {
            let known: Vec<Band> = suite.bands.keys().copied().collect();
            options.channels.check(&known)?;
            let kept = |name: &String| {
                suite.bands.iter().any(|(band, stored)| stored == name && options.channels.keeps(*band))
            };
            stored.retain(kept);
        }
        if stored.is_empty() {
            return Err(Error::mismatch(format!(
                "{} stores none of the bands {}",
                task.name, options.channels
            )));
        }
        let side = model.side(&task);
        let preprocess = Preprocess {
            normalization: Normalization::Identity,
            height: side,
            width: side,
            align_corners: false,
            zeroed: Vec::new(),
        };
        Ok(Input {
            dataset,
            sensor: task.input_sensor,
            // Files may name bands that no model knows.
            bands: Arc::new([]),
            pooling: model.pooling(),
            keeps_size: task.input_size.is_none() && model.image == ImageSize::Native,
            task,
            selection: Selection { stored, imputed: Vec::new(), zeroed: Vec::new() },
            normalization: strategies::NONE.to_owned(),
            strategies: vec![Preparation { name: strategies::NONE.to_owned(), preprocess }],
            seen: Log::default(),
        })
    }

    /// A sample as stored, in the bands that the model takes. What it is like is noted in [`Input::seen`].
    ///
    /// # Errors
    /// Where the sample cannot be read.
    pub fn stored(&self, split: Split, index: usize) -> Result<Sample> {
        let sample = self.dataset.read(split, index, &self.selection.stored)?;
        if !self.seen.holds(split, index) {
            let pixels = PixelSummary::of(sample.image.view());
            self.seen.note(split, index, Observed::new(pixels, &sample.target));
        }
        Ok(sample)
    }

    /// A sample as the model takes it.
    ///
    /// # Errors
    /// Where the sample cannot be read.
    pub fn read(&self, preprocess: &Preprocess, split: Split, index: usize) -> Result<Sample> {
        let sample = self.stored(split, index)?;
        Ok(Sample { image: preprocess.apply(sample.image)?, ..sample })
    }

    /// Normalised and resized images [n, c, h, w] as a model takes them.
    pub fn batch(&self, pixels: Tensor<4>) -> Batch {
        self.spec().batch(pixels)
    }

    /// How its images go into an encoder.
    pub fn spec(&self) -> InputSpec {
        InputSpec { sensor: self.sensor, bands: Arc::clone(&self.bands), pooling: self.pooling }
    }

    /// Height and width of the model's input in pixels.
    pub fn image_size(&self) -> usize {
        self.strategies.first().map_or(0, |strategy| strategy.preprocess.height)
    }

    /// The strategies' names, in their order.
    pub fn strategy_names(&self) -> Vec<&str> {
        self.strategies.iter().map(|strategy| strategy.name.as_str()).collect()
    }

    /// The one strategy, for what cannot choose among several.
    ///
    /// # Errors
    /// Where there are several.
    pub fn only(&self) -> Result<&Preparation> {
        match self.strategies.as_slice() {
            [only] => Ok(only),
            several => {
                Err(Error::mismatch(format!("here one normalisation is needed, not {}", several.len()))
                    .help("name one with --normalization, as OURS-2.0-norm_no_clip"))
            }
        }
    }
}

/// What the features of an encoder are known by.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    pub model: &'a ModelConfig,
    /// [`crate::model::LoadedModel::weights_id`].
    pub weights: &'a str,
    /// As on the command line: features differ by their rounding between kinds of devices ([`device::kind`]).
    pub device: &'a str,
}

/// Everything between a sample on disk and its feature vector.
pub struct Extractor<'a> {
    pub encoder: &'a dyn Encoder,
    pub device: &'a Device,
    pub input: &'a Input,
    /// One of the input's.
    pub strategy: &'a Preparation,
    /// What images are turned by.
    pub turn: Dihedral,
    /// Images a batch.
    pub batch_size: usize,
    /// Threads that read and preprocess.
    pub readers: usize,
}

impl Extractor<'_> {
    /// Length of a feature vector, d.
    pub fn width(&self) -> usize {
        self.encoder.width(self.input.pooling, self.input.selection.stored.len())
    }

    /// Encodes the samples at `indices` of a split and hands each batch's features to `take`, in order. Returns the
    /// time spent in the encoder.
    ///
    /// Memory: at most three batches of images.
    ///
    /// # Errors
    /// Where a sample cannot be read, a feature is not finite, or `take` fails.
    pub fn extract(
        &self,
        split: Split,
        indices: &[usize],
        take: &mut dyn FnMut(Features) -> Result<()>,
    ) -> Result<Duration> {
        let read = |i: usize| {
            let sample = self.input.read(&self.strategy.preprocess, split, indices[i])?;
            Ok(Sample { image: self.turn.apply(sample.image), ..sample })
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

    /// The features of a batch of preprocessed samples, and the time that the encoder took.
    fn encode(&self, split: Split, batch: Vec<Sample>) -> Result<(Features, Duration)> {
        let width = self.width();
        let Preprocess { height, width: image_width, .. } = self.strategy.preprocess;
        let n = batch.len();
        let channels = self.input.selection.stored.len();
        let mut pixels: Vec<f32> = Vec::with_capacity(n * channels * height * image_width);
        let (mut samples, mut labels) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for sample in batch {
            pixels.extend(sample.image.iter());
            samples.push(sample.name);
            labels.push(sample.target);
        }
        let images = TensorData::new(pixels, [n, channels, height, image_width]);
        let start = Instant::now();
        let batch = self.input.batch(Tensor::from_data(images, self.device));
        let vectors = self.encoder.encode(&batch, Want::Pooled(self.input.pooling))?.pooled()?;
        let vectors = vectors.into_data().convert::<f32>().try_into_vec::<f32>().map_err(|error| {
            Error::mismatch(format!("the device returned features that are not float32: {error:?}"))
        })?;
        let time = start.elapsed();
        let matrix = Array2::from_shape_vec((n, width), vectors).map_err(|error| {
            Error::mismatch(format!("the model returned other features than [n, d]: {error}"))
        })?;
        for (name, vector) in samples.iter().zip(matrix.rows()) {
            if vector.iter().any(|value| !value.is_finite()) {
                return Err(Error::not_finite(format!(
                    "{split} {name}: the model's features are not finite"
                ))
                .help("check that the weights fit the model and the normalisation fits the pixels"));
            }
        }
        Ok((Features { samples, matrix, labels }, time))
    }

    /// Cache key: a hash of everything that decides a feature except the sample.
    ///
    /// # Errors
    /// Where a value has no JSON form.
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
            pooling: Pooling,
            bands: &'a [String],
            preprocess: &'a Preprocess,
            turn: Dihedral,
        }
        let Input { dataset, sensor, selection, .. } = self.input;
        let ingredients = Ingredients {
            version: FEATURES_VERSION,
            form: cache::FORM,
            decoding: dataset.decoding().hash(),
            model: identity.model.deciding(),
            weights: identity.weights,
            device: device::kind(identity.device),
            sensor: *sensor,
            pooling: self.input.pooling,
            bands: &selection.stored,
            preprocess: &self.strategy.preprocess,
            turn: self.turn,
        };
        let json = serde_json::to_vec(&ingredients)
            .map_err(|error| Error::mismatch(format!("settings without a JSON form: {error}")))?;
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
