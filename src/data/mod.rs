//! Datasets: from the official files to samples in memory. Knows transform's types and no model.

mod computed;
pub mod copernicus;
pub mod decoding;
pub mod fingerprint;
pub mod geobench;
pub mod landslide4sense;
pub mod loader;
pub mod packed;

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3};
use serde::Serialize;

use self::decoding::Decoding;
use crate::Result;
pub use crate::task::Split;
use crate::task::{Family, Suite, Task};
use crate::transform::normalize::BandStatistics;

/// Opens a partition of a task with the reader of the suite's family, or packed where it is. `root` is the folder of the suite's data.
///
/// # Errors
/// Where the task or the partition is not there, or what is packed was decoded otherwise than the suite says now.
pub fn open(suite: &Suite, task: &Task, root: &Path, partition: &str) -> Result<Box<dyn Dataset>> {
    if let Some(folder) = packed::folder(task, root) {
        let decoding = Decoding::of(suite.family, task);
        return Ok(Box::new(packed::Packed::open(task, decoding, &folder, partition)?));
    }
    match suite.family {
        Family::Geobench => Ok(Box::new(geobench::Geobench::open(suite, task, root, partition)?)),
        Family::Landslide4sense => {
            Ok(Box::new(landslide4sense::Landslide4Sense::open(suite, task, root, partition)?))
        }
        Family::CopernicusBench => copernicus::open(suite, task, root, partition),
    }
}

/// The folder (or the archive) of a task's files below `root`, the folder of the suite's data, if it is there.
pub fn task_folder(suite: &Suite, task: &Task, root: &Path) -> Option<PathBuf> {
    if let Some(folder) = packed::folder(task, root) {
        return Some(folder);
    }
    match suite.family {
        Family::Geobench => geobench::task_folder(task, root),
        Family::Landslide4sense => landslide4sense::folder(root),
        Family::CopernicusBench => copernicus::place(task, root),
    }
}

/// The partitions that lie in a task's folder, sorted.
///
/// # Errors
/// Where the folder cannot be read.
pub fn partitions(suite: &Suite, task_folder: &Path) -> Result<Vec<String>> {
    if let Some(packed) = packed::partitions(task_folder) {
        return packed;
    }
    match suite.family {
        Family::Geobench => geobench::partitions(task_folder),
        Family::Landslide4sense => Ok(vec![landslide4sense::PARTITION.to_owned()]),
        Family::CopernicusBench => Ok(vec![copernicus::PARTITION.to_owned()]),
    }
}

/// What a sample is labelled with.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The class's index.
    Class(usize),
    /// Whether each label applies.
    Labels(Vec<bool>),
    /// The class of each pixel, [h, w], as stored.
    Mask(Array2<i32>),
    /// A number, in the task's unit.
    Value(f32),
    /// A number for each pixel, [h, w], in the task's unit; NaN where nothing is measured.
    ValueMap(Array2<f32>),
}

/// One labelled image, as stored but for the type.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    /// [bands, h, w] in the order that was asked for; digital numbers (stored value times the task's scale).
    pub image: Array3<f32>,
    pub target: Target,
}

/// A band as it stands in a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RawBand {
    /// Without the date that dated samples append.
    pub name: String,
    /// `int16`, `uint8`, `float32`, … (numpy's names).
    pub dtype: String,
    /// [rows, columns], unscaled, NaN left in place.
    #[serde(skip)]
    pub pixels: Array2<f64>,
}

/// A sample with every stored band, for `inspect`.
#[derive(Debug, Clone)]
pub struct RawSample {
    pub name: String,
    /// In the order of the file's `bands_order` where it has one.
    pub bands: Vec<RawBand>,
    pub target: Target,
    /// The type in which a mask is stored.
    pub label_dtype: Option<String>,
}

/// Brings stored pixels into the range that the task gives them, if it gives one.
fn clip<'a>(task: &Task, pixels: impl IntoIterator<Item = &'a mut f32>) {
    if let Some([low, high]) = task.clip {
        for pixel in pixels {
            *pixel = if pixel.is_nan() { high } else { pixel.clamp(low, high) };
        }
    }
}

/// One task's files, opened for one partition.
pub trait Dataset: Send + Sync {
    /// The samples of a split, in the partition's order.
    fn samples(&self, split: Split) -> &[String];

    /// How stored bytes become the samples' arrays.
    fn decoding(&self) -> &Decoding;

    /// The files that the samples of a split are read from, whether they are there or not.
    fn files(&self, split: Split) -> Vec<PathBuf>;

    /// The bands that the files hold, by their stored names without dates.
    ///
    /// # Errors
    /// Where the first sample cannot be read.
    fn bands(&self) -> Result<Vec<String>>;

    /// Reads one sample: the bands of these stored names, in this order.
    ///
    /// # Errors
    /// Where the file is absent, damaged or lacks a band, a pixel is not finite or the label does not fit the task.
    fn read(&self, split: Split, index: usize, bands: &[String]) -> Result<Sample>;

    /// Reads one sample with all that the file holds.
    ///
    /// # Errors
    /// As [`Dataset::read`], but for pixels that are not finite.
    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample>;

    /// The dataset's own statistics of these stored bands.
    ///
    /// # Errors
    /// Where the statistics are missing or lack a band.
    fn statistics(&self, bands: &[String]) -> Result<Vec<BandStatistics>>;

    /// For each sample of a split, in order: a hash of everything that it is read from, its label included. Samples
    /// of the same hash are the same, whatever partition or data set they stand in.
    ///
    /// # Errors
    /// Where a file cannot be read.
    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>>;

    /// The name and the hash of the file of the data set's own statistics, where it has one.
    ///
    /// # Errors
    /// Where the file cannot be read.
    fn statistics_content(&self) -> Result<Option<(String, blake3::Hash)>> {
        Ok(None)
    }

    /// A hash of everything that the samples of these splits and the statistics are read from.
    ///
    /// # Errors
    /// Where a file cannot be read.
    fn fingerprint(&self, splits: &[Split]) -> Result<String> {
        let mut names = Vec::new();
        let mut contents = Vec::new();
        for split in splits {
            names.extend(self.samples(*split).iter().map(|name| format!("{split}/{name}")));
            contents.extend(self.contents(*split)?);
        }
        if let Some((name, content)) = self.statistics_content()? {
            names.push(name);
            contents.push(content);
        }
        Ok(fingerprint::combine(names, &contents))
    }
}
