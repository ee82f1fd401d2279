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
pub use crate::task::Split;
use crate::task::{Family, Sensor, Suite, Task, TaskImage, images};
use crate::transform::normalize::BandStatistics;
use crate::{Error, Result};

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

/// What one sensor saw at one date, as stored but for the type.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub sensor: Sensor,
    /// What its date is called where a sample has several: `before`.
    pub date: Option<String>,
    /// The stored name of each band.
    pub bands: Vec<String>,
    /// [bands, h, w] in the order that was asked for; digital numbers (stored value times the task's scale).
    pub pixels: Array3<f32>,
    /// When it was taken, in days since 1970-01-01, where the reader knows.
    pub day: Option<f64>,
    /// Longitude and latitude of its centre in degrees, where the reader knows.
    pub place: Option<[f32; 2]>,
}

impl Image {
    /// The pixels [bands, h, w] of these stored bands of one of a task's images, taken nobody knows when and where.
    pub fn new(source: &TaskImage, bands: &[String], pixels: Array3<f32>) -> Self {
        let TaskImage { sensor, date, .. } = source;
        let (date, bands) = (date.clone(), bands.to_vec());
        Image { sensor: *sensor, date, bands, pixels, day: None, place: None }
    }

    /// The same with other pixels of the same bands, such as a part of them.
    #[must_use]
    pub fn with_pixels(&self, pixels: Array3<f32>) -> Self {
        let (date, bands) = (self.date.clone(), self.bands.clone());
        Image { sensor: self.sensor, date, bands, pixels, day: self.day, place: self.place }
    }
}

/// A labelled piece of land.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    /// Those that were asked for, in the task's order.
    pub images: Vec<Image>,
    pub target: Target,
}

impl Sample {
    /// The same with `change` made to the pixels [bands, h, w] of each image.
    #[must_use]
    pub fn turned(mut self, change: impl Fn(Array3<f32>) -> Array3<f32>) -> Self {
        for image in &mut self.images {
            image.pixels = change(std::mem::take(&mut image.pixels));
        }
        self
    }
}

/// A band as it stands in a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RawBand {
    /// As stored, but without the date that dated samples append.
    pub name: String,
    /// `int16`, `uint8`, `float32`, … (numpy's names).
    pub dtype: String,
    /// [rows, columns], unscaled, NaN left in place.
    #[serde(skip)]
    pub pixels: Array2<f64>,
}

/// What one sensor saw at one date, with every stored band.
#[derive(Debug, Clone, PartialEq)]
pub struct RawImage {
    pub sensor: Sensor,
    /// As [`Image::date`].
    pub date: Option<String>,
    /// In the order of the file's `bands_order` where it has one.
    pub bands: Vec<RawBand>,
}

/// A sample with every stored band, for `inspect`.
#[derive(Debug, Clone)]
pub struct RawSample {
    pub name: String,
    /// In the task's order.
    pub images: Vec<RawImage>,
    pub target: Target,
    /// The type in which a mask is stored.
    pub label_dtype: Option<String>,
}

impl RawSample {
    /// Each band by its [`images::full_name`], image by image.
    pub fn bands(&self) -> impl Iterator<Item = (String, &RawBand)> {
        let labels =
            images::image_labels(self.images.iter().map(|image| (image.sensor, image.date.as_deref())));
        self.images.iter().zip(labels).flat_map(|(image, label)| {
            image.bands.iter().map(move |band| (images::full_name(&band.name, label.as_deref()), band))
        })
    }
}

/// The images of a task, each with its bands as `bands` gives them.
fn raw_images(
    task: &Task,
    mut bands: impl FnMut(usize, &TaskImage) -> Result<Vec<RawBand>>,
) -> Result<Vec<RawImage>> {
    let sources = task.sources().into_iter().enumerate();
    sources
        .map(|(place, source)| {
            let bands = bands(place, &source)?;
            Ok(RawImage { sensor: source.sensor, date: source.date, bands })
        })
        .collect()
}

/// The images of a task that `bands` asks for: those with a band in it, each with its pixels as `pixels` gives them.
///
/// # Errors
/// Where `bands` has more images than the task, or asks for no band at all.
fn wanted_images(
    task: &Task,
    bands: &[Vec<String>],
    mut pixels: impl FnMut(usize, &TaskImage, &[String]) -> Result<Array3<f32>>,
) -> Result<Vec<Image>> {
    let sources = task.sources();
    if bands.len() > sources.len() {
        let (found, expected) = (bands.len(), sources.len());
        return Err(Error::mismatch(format!("bands of {found} images; {} has {expected}", task.name)));
    }
    if bands.iter().all(Vec::is_empty) {
        return Err(Error::mismatch("no band to read"));
    }
    let wanted = sources.iter().zip(bands).enumerate().filter(|(_, (_, bands))| !bands.is_empty());
    wanted
        .map(|(place, (source, bands))| Ok(Image::new(source, bands, pixels(place, source, bands)?)))
        .collect()
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

    /// The bands that the files hold of each image, by their stored names.
    ///
    /// # Errors
    /// Where the first sample cannot be read.
    fn bands(&self) -> Result<Vec<Vec<String>>>;

    /// Reads one sample: of each image the bands of these stored names, in this order. An image of which no band is asked
    /// for is left out.
    ///
    /// # Errors
    /// Where the file is absent, damaged or lacks a band, a pixel is not finite, the label does not fit the task, or no
    /// band is asked for.
    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample>;

    /// Reads one sample with all that the file holds.
    ///
    /// # Errors
    /// As [`Dataset::read`], but for pixels that are not finite.
    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample>;

    /// The dataset's own statistics of these stored bands of the image at that place.
    ///
    /// # Errors
    /// Where the statistics are missing or lack a band.
    fn statistics(&self, image: usize, bands: &[String]) -> Result<Vec<BandStatistics>>;

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
