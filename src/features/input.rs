//! A task's opened files, and how their pixels are prepared for a model.

use std::path::Path;

use serde::Serialize;

use super::images::{self, ImageInput};
use crate::audit::observed::{Log, Observed, PixelSummary};
use crate::data::{self, Dataset, Image, Sample, Split};
use crate::model::config::{ImageSize, ModelConfig};
use crate::model::{ImageSpec, InputSpec, Pooling};
use crate::task::Sensor;
use crate::task::bands::{Band, Channels, Imputation};
use crate::task::images::full_name;
use crate::task::{Metadata, MetadataKind, Suite, Task};
use crate::transform::Preprocess;
use crate::transform::strategies::{self, Channel, StoredBands, Strategies, Strategy};
use crate::{Error, Result, stop};

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
    /// Returns the requested normalisation. The default is what the suite's code does for the model, else the task's, else the
    /// suite's, else the data set's own statistics; none for models that take pixels as stored, and torchgeo-bench's for those
    /// that take every stored band.
    pub fn normalization_of<'a>(
        &'a self,
        suite: &'a Suite,
        task: &'a Task,
        model: &'a ModelConfig,
    ) -> &'a str {
        if self.normalization != strategies::DEFAULT {
            return &self.normalization;
        }
        if model.architecture.takes_stored_pixels() {
            return strategies::NONE;
        }
        if model.architecture.takes_every_stored_band() {
            let is_known = self.strategies.knows_bands_of(&task.name);
            return if is_known { strategies::BANDSPEC_ZSCORE } else { strategies::DATASET };
        }
        let of_files = task.normalization.as_ref().or(suite.normalization.as_ref());
        model.suite_normalization(task).or(of_files.map(String::as_str)).unwrap_or(strategies::DATASET)
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
    /// What the model is given besides the pixels.
    pub metadata: Metadata,
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
                image.bands.iter().enumerate().map(move |(place, band)| Channel {
                    band: *band,
                    date,
                    is_zeroed: image.selection.zeroed.contains(&place),
                })
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
        let normalization = options.normalization_of(suite, task, model);
        let sensors: Vec<Sensor> = images.iter().map(|image| image.sensor).collect();
        let asked = options.strategies.asked_of_all(normalization, &sensors, model.normalization)?;
        let strategies = asked.iter().map(prepare).collect::<Result<_>>()?;
        Ok(Input {
            dataset,
            task: task.clone(),
            images,
            fused: model.fuses(&sensors),
            pooling: model.pooling(),
            metadata: Metadata::of(task, model.architecture.metadata()),
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
        let normalization = options.normalization_of(suite, task, model).to_owned();
        let task = Task { scale: 1.0, ..task.clone() };
        let dataset = data::open(suite, &task, root, partition)?;
        let images = images::as_stored(suite, &task, dataset.bands()?, options)?;
        let side = model.side(&task);
        let asked = if takes_stored_pixels {
            vec![(strategies::NONE.to_owned(), Strategy::None)]
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
            metadata: Metadata::default(),
            keeps_size: task.input_size.is_none() && model.image == ImageSize::Native,
            task,
            normalization,
            strategies,
            seen: Log::default(),
        })
    }

    /// Lets a panic name the sample.
    fn note_sample(&self, split: Split, index: usize) {
        if let Some(name) = self.dataset.samples(split).get(index) {
            stop::note_sample(format_args!("{} {split} {name}", self.task.name));
        }
    }

    /// Reads the model's bands of a sample as stored, with the metadata that the model is given, and logs a summary of it in
    /// [`Input::seen`].
    ///
    /// # Errors
    /// If the sample cannot be read, or lacks metadata that the task's files should have.
    pub fn stored(&self, split: Split, index: usize) -> Result<Sample> {
        self.note_sample(split, index);
        let mut sample = self.dataset.read(split, index, &self.stored_bands())?;
        for image in &mut sample.images {
            image.day = self.given(MetadataKind::Date, &sample.name, image.day)?;
            image.place = self.given(MetadataKind::Place, &sample.name, image.place)?;
        }
        if !self.seen.holds(split, index) {
            let pixels = PixelSummary::of(sample.images.iter().map(|image| image.pixels.view()));
            self.seen.note(split, index, Observed::new(pixels, &sample.target));
        }
        Ok(sample)
    }

    /// Returns what the model is given of `known`: nothing unless it uses this kind.
    fn given<T>(&self, kind: MetadataKind, sample: &str, known: Option<T>) -> Result<Option<T>> {
        match known {
            _ if !self.metadata.has(kind) => Ok(None),
            Some(known) => Ok(Some(known)),
            None => {
                let expected = match kind {
                    MetadataKind::Date => "a date in the name of its file",
                    _ => "a georeference in degrees (EPSG:4326), UTM or web Mercator (EPSG:3857)",
                };
                let problem = format!(
                    "{} {sample}: the model uses the {kind}; expected {expected}, found none",
                    self.task.name
                );
                Err(Error::mismatch(problem).help(
                    "fetch the data set again; if it is packed, pack it again with `cargo xtask prepare`",
                ))
            }
        }
    }

    /// Returns a hash per sample of a split of everything that its features depend on besides the settings.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        let contents = self.dataset.contents(split)?;
        if !self.metadata.has(MetadataKind::Date) {
            return Ok(contents);
        }
        // Dates are in the files' names, which the hashes of their contents do not cover.
        let days = self.dataset.days(split);
        let with_days = |(index, content): (usize, blake3::Hash)| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(content.as_bytes());
            for day in days.get(index).into_iter().flatten() {
                hasher.update(&day.unwrap_or(f64::NAN).to_le_bytes());
            }
            hasher.finalize()
        };
        Ok(contents.into_iter().enumerate().map(with_days).collect())
    }

    /// Returns a hash of everything that the samples of these splits and the statistics are read from, dates included if the
    /// model is given them.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn fingerprint(&self, splits: &[Split]) -> Result<String> {
        let files = self.dataset.fingerprint(splits)?;
        if !self.metadata.has(MetadataKind::Date) {
            return Ok(files);
        }
        let days = splits.iter().map(|split| self.dataset.days(*split)).collect::<Vec<_>>();
        digest(&(files, days))
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
        self.note_sample(split, index);
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
            gsd_m: self.metadata.gsd_m,
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

/// Hashes a value by its JSON.
fn digest(value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_vec(value)
        .map_err(|error| Error::mismatch(format!("the dates cannot be written as JSON: {error}")))?;
    Ok(blake3::hash(&json).to_hex().to_string())
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
