//! Extraction: a dataset's split through a backbone, in batches read ahead while the device computes.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, ArrayView1};

use crate::config::ModelConfig;
use crate::data::bands::{self, Selection};
use crate::data::{self, Dataset, Label, Sample, Split, loader};
use crate::model::{Backbone, Stem};
use crate::progress::Progress;
use crate::suite::{Suite, Task};
use crate::transform::Preprocess;
use crate::transform::normalize::Normalization;
use crate::{Error, Result};

/// The features of a split with what they belong to, in the partition's order.
#[derive(Debug, Clone)]
pub struct Features {
    /// Names of the samples.
    pub samples: Vec<String>,
    /// [n, d].
    pub matrix: Array2<f32>,
    pub labels: Vec<Label>,
}

/// How a task's pixels are taken.
#[derive(Debug, Clone)]
pub struct InputOptions {
    /// Bands by what they hold where the files name them wrongly, not by their names.
    pub by_content: bool,
    /// `dataset`: by the dataset's own statistics.
    pub normalization: String,
}

impl InputOptions {
    /// How the bands of `task` are taken, for its records.
    pub fn band_names(&self, task: &Task) -> &'static str {
        if self.by_content && !task.by_content.is_empty() { "by-content" } else { "as-named" }
    }
}

/// A task's files, opened, and what happens to their pixels on the way into a model.
pub struct Input {
    pub dataset: Box<dyn Dataset>,
    pub stem: Stem,
    pub selection: Selection,
    pub preprocess: Preprocess,
}

impl Input {
    /// Opens `task` under the suite's folder `root` and decides which stored band feeds which channel of
    /// `model`, how it is normalised and to which size it is resized.
    ///
    /// # Errors
    /// Where the files are not there, the model lacks the task's stem, a band is missing, or the
    /// normalisation is unknown.
    pub fn open(
        suite: &Suite,
        task: &Task,
        partition: &str,
        root: &Path,
        model: &ModelConfig,
        options: &InputOptions,
    ) -> Result<Self> {
        let dataset = data::open(suite, task, root, partition)?;
        let mut names = suite.bands.clone();
        if options.by_content {
            names.extend(task.by_content.clone());
        }
        let wanted = &model.stem(task.stem)?.bands;
        let selection = bands::select(wanted, &names, &dataset.bands()?, &task.impute)?;
        if options.normalization != "dataset" {
            return Err(Error::request(format!("unknown normalisation `{}`", options.normalization))
                .help("choose dataset: the dataset's own mean and standard deviation"));
        }
        let statistics = dataset.statistics(&selection.stored)?;
        let side = model.architecture.image;
        let preprocess = Preprocess {
            normalization: Normalization::standardize(&statistics)?,
            height: side,
            width: side,
            align_corners: false,
        };
        Ok(Input { dataset, stem: task.stem, selection, preprocess })
    }
}

/// Everything between a sample on disk and its feature vector.
pub struct Extractor<'a> {
    pub backbone: &'a dyn Backbone,
    pub device: &'a Device,
    pub input: &'a Input,
    /// Images a batch.
    pub batch_size: usize,
    /// Threads that read and preprocess.
    pub readers: usize,
}

impl Extractor<'_> {
    /// Encodes the samples at `indices` of a split; calls `advance` with the number of images after each batch.
    ///
    /// Memory: the features, and at most three batches of images.
    ///
    /// # Errors
    /// Where a sample cannot be read, or a feature is not finite.
    pub fn extract(
        &self,
        split: Split,
        indices: &[usize],
        advance: &mut dyn FnMut(usize),
    ) -> Result<Features> {
        let width = self.backbone.width();
        let mut features = Features {
            samples: Vec::with_capacity(indices.len()),
            matrix: Array2::zeros((indices.len(), width)),
            labels: Vec::with_capacity(indices.len()),
        };
        let Input { dataset, stem, selection, preprocess } = self.input;
        let (height, image_width) = (preprocess.height, preprocess.width);
        let channels = selection.stored.len();
        let mut pixels: Vec<f32> = Vec::new();
        let read = |i: usize| {
            let mut sample = dataset.read(split, indices[i], &selection.stored)?;
            sample.image = preprocess.apply(sample.image)?;
            Ok(sample)
        };
        let mut take = |i: usize, sample: Sample| {
            pixels.extend(sample.image.iter());
            features.samples.push(sample.name);
            features.labels.push(sample.label);
            let batch = i % self.batch_size + 1;
            if batch < self.batch_size && i + 1 < indices.len() {
                return Ok(());
            }
            let images = TensorData::new(std::mem::take(&mut pixels), [batch, channels, height, image_width]);
            let vectors = self.backbone.features(Tensor::<4>::from_data(images, self.device), *stem)?;
            let vectors = vectors.into_data().convert::<f32>().try_into_vec::<f32>().map_err(|error| {
                Error::request(format!("the device returned features that are not float32: {error:?}"))
            })?;
            let first = i + 1 - batch;
            for (row, vector) in vectors.chunks_exact(width).enumerate() {
                if vector.iter().any(|value| !value.is_finite()) {
                    return Err(Error::request(format!(
                        "{}: the model's features are not finite",
                        features.samples[first + row]
                    ))
                    .help("check that the weights fit the model and the normalisation fits the pixels"));
                }
                features
                    .matrix
                    .row_mut(first + row)
                    .as_slice_mut()
                    .expect("rows are contiguous")
                    .copy_from_slice(vector);
            }
            advance(batch);
            Ok(())
        };
        loader::ordered(indices.len(), self.readers, 2 * self.batch_size, read, |mut samples| {
            samples.by_ref().enumerate().try_for_each(|(i, sample)| take(i, sample?))
        })?;
        Ok(features)
    }
}

/// The features of one task that were extracted so far: partitions share samples, and so their features.
#[derive(Debug, Default)]
pub struct FeatureBank {
    rows: HashMap<String, usize>,
    vectors: Vec<f32>,
    labels: Vec<Label>,
}

impl FeatureBank {
    /// The features of a whole split; only samples that are not in the bank yet are extracted.
    ///
    /// # Errors
    /// As [`Extractor::extract`].
    pub fn features(
        &mut self,
        extractor: &Extractor,
        split: Split,
        progress: &dyn Progress,
    ) -> Result<Features> {
        let samples = extractor.input.dataset.samples(split);
        let missing: Vec<usize> =
            (0..samples.len()).filter(|&i| !self.rows.contains_key(&samples[i])).collect();
        if !missing.is_empty() {
            let step = progress.begin(&split.to_string(), missing.len());
            let fresh = extractor.extract(split, &missing, &mut |images| step.advance(images))?;
            for (name, label) in fresh.samples.into_iter().zip(fresh.labels) {
                self.rows.insert(name, self.labels.len());
                self.labels.push(label);
            }
            self.vectors.extend(fresh.matrix.iter());
        }
        let width = extractor.backbone.width();
        let mut matrix = Array2::zeros((samples.len(), width));
        let mut labels = Vec::with_capacity(samples.len());
        for (name, mut out) in samples.iter().zip(matrix.rows_mut()) {
            let row = self.rows[name];
            out.assign(&ArrayView1::from(&self.vectors[row * width..(row + 1) * width]));
            labels.push(self.labels[row].clone());
        }
        Ok(Features { samples: samples.to_vec(), matrix, labels })
    }
}
