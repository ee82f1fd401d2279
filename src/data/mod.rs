//! Datasets: from the official files to samples in memory. Depends on the types of [`crate::transform`], not on any model.

mod computed;
pub(crate) mod copernicus;
pub mod decoding;
pub mod fingerprint;
pub mod geobench;
mod geobench2;
pub mod landslide4sense;
pub mod loader;
pub mod packed;
mod resample;

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3};
use serde::Serialize;

use self::decoding::Decoding;
pub use crate::task::Split;
use crate::task::{Family, Sensor, Suite, Task, TaskImage, images};
use crate::transform::normalize::BandStatistics;
use crate::{Error, Result};

/// Opens a partition of a task, packed if available, otherwise with the reader of the suite's family. `root` is the folder
/// of the suite's data.
///
/// # Errors
/// If the task or the partition does not exist, or the packed files' decoding differs from the suite's current one.
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
        Family::Geobench2 => Ok(Box::new(geobench2::Geobench2::open(suite, task, root, partition)?)),
    }
}

/// Returns the folder (or the archive) of a task's files below `root`, the folder of the suite's data, if it exists.
pub fn task_folder(suite: &Suite, task: &Task, root: &Path) -> Option<PathBuf> {
    if let Some(folder) = packed::folder(task, root) {
        return Some(folder);
    }
    match suite.family {
        Family::Geobench => geobench::task_folder(task, root),
        Family::Landslide4sense => landslide4sense::folder(root),
        Family::CopernicusBench => copernicus::place(task, root),
        Family::Geobench2 => geobench2::folder(task, root),
    }
}

/// Lists the partitions in a task's folder, sorted.
///
/// # Errors
/// If the folder cannot be read.
pub fn partitions(suite: &Suite, task_folder: &Path) -> Result<Vec<String>> {
    if let Some(packed) = packed::partitions(task_folder) {
        return packed;
    }
    match suite.family {
        Family::Geobench => geobench::partitions(task_folder),
        Family::Landslide4sense => Ok(vec![landslide4sense::PARTITION.to_owned()]),
        Family::CopernicusBench => Ok(vec![copernicus::PARTITION.to_owned()]),
        Family::Geobench2 => Ok(vec![geobench2::PARTITION.to_owned()]),
    }
}

/// The label of a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Index of the class, from 0.
    Class(usize),
    /// Whether each label applies, in the task's order.
    Labels(Vec<bool>),
    /// Class of each pixel, [h, w].
    Mask(Array2<i32>),
    /// A number in the task's unit.
    Value(f32),
    /// One number per pixel, [h, w], in the task's unit; NaN where nothing was measured.
    ValueMap(Array2<f32>),
}

/// What one sensor saw at one date, in stored values converted to `f32`.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Sensor of the pixels.
    pub sensor: Sensor,
    /// Label of its date, such as `before`, if a sample has several images of the sensor.
    pub date: Option<String>,
    /// Stored name of each band.
    pub bands: Vec<String>,
    /// [bands, h, w] in the requested order; digital numbers (stored value times the task's scale).
    pub pixels: Array3<f32>,
    /// Acquisition time in days since 1970-01-01, if known.
    pub day: Option<f64>,
    /// Longitude and latitude of the centre in degrees, if known.
    pub place: Option<[f32; 2]>,
}

impl Image {
    /// Makes an image of one of a task's sources from the pixels [bands, h, w] of these stored bands, time and place unknown.
    pub fn new(source: &TaskImage, bands: &[String], pixels: Array3<f32>) -> Self {
        let TaskImage { sensor, date, .. } = source;
        let (date, bands) = (date.clone(), bands.to_vec());
        Image { sensor: *sensor, date, bands, pixels, day: None, place: None }
    }

    /// Returns this image with other pixels of the same bands, such as a crop.
    #[must_use]
    pub fn with_pixels(&self, pixels: Array3<f32>) -> Self {
        let (date, bands) = (self.date.clone(), self.bands.clone());
        Image { sensor: self.sensor, date, bands, pixels, day: self.day, place: self.place }
    }
}

/// A labelled piece of land.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the sample, unique in its split.
    pub name: String,
    /// The requested images, in the task's order.
    pub images: Vec<Image>,
    /// The label.
    pub target: Target,
}

impl Sample {
    /// Applies `change` to the pixels [bands, h, w] of each image.
    #[must_use]
    pub fn turned(mut self, change: impl Fn(Array3<f32>) -> Array3<f32>) -> Self {
        for image in &mut self.images {
            image.pixels = change(std::mem::take(&mut image.pixels));
        }
        self
    }
}

/// A band as stored in a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RawBand {
    /// Stored name, without the date that some files append.
    pub name: String,
    /// Stored type in numpy's notation: `int16`, `uint8`, `float32`, …
    pub dtype: String,
    /// [rows, columns], unscaled; NaN is kept.
    #[serde(skip)]
    pub pixels: Array2<f64>,
}

/// What one sensor saw at one date, with every stored band.
#[derive(Debug, Clone, PartialEq)]
pub struct RawImage {
    /// Sensor of the pixels.
    pub sensor: Sensor,
    /// Like [`Image::date`].
    pub date: Option<String>,
    /// In the order of the file's `bands_order` if it has one.
    pub bands: Vec<RawBand>,
    /// Like [`Image::day`].
    pub day: Option<f64>,
    /// Like [`Image::place`].
    pub place: Option<[f32; 2]>,
}

/// A sample with every stored band, for `inspect`.
#[derive(Debug, Clone)]
pub struct RawSample {
    /// Name of the sample, unique in its split.
    pub name: String,
    /// The images in the task's order.
    pub images: Vec<RawImage>,
    /// The label.
    pub target: Target,
    /// Type in which a mask is stored; `None` for other targets.
    pub label_dtype: Option<String>,
}

impl RawSample {
    /// Iterates over the bands of all images with their [`images::full_name`]s.
    pub fn bands(&self) -> impl Iterator<Item = (String, &RawBand)> {
        let labels =
            images::image_labels(self.images.iter().map(|image| (image.sensor, image.date.as_deref())));
        self.images.iter().zip(labels).flat_map(|(image, label)| {
            image.bands.iter().map(move |band| (images::full_name(&band.name, label.as_deref()), band))
        })
    }
}

/// Makes the images of a task from the bands that `bands` returns for each.
fn raw_images(
    task: &Task,
    mut bands: impl FnMut(usize, &TaskImage) -> Result<Vec<RawBand>>,
) -> Result<Vec<RawImage>> {
    let sources = task.sources().into_iter().enumerate();
    sources
        .map(|(place, source)| {
            let bands = bands(place, &source)?;
            Ok(RawImage { sensor: source.sensor, date: source.date, bands, day: None, place: None })
        })
        .collect()
}

/// Makes the images of a task that `bands` requests, those with at least one band, from the pixels that `pixels` returns.
///
/// # Errors
/// If `bands` has more images than the task, or requests no band at all.
fn wanted_images(
    task: &Task,
    bands: &[Vec<String>],
    mut pixels: impl FnMut(usize, &TaskImage, &[String]) -> Result<Array3<f32>>,
) -> Result<Vec<Image>> {
    let sources = task.sources();
    if bands.len() > sources.len() {
        let (found, expected) = (bands.len(), sources.len());
        return Err(Error::mismatch(format!(
            "bands requested for {found} images; {} has {expected}",
            task.name
        )));
    }
    if bands.iter().all(Vec::is_empty) {
        return Err(Error::mismatch("no band to read"));
    }
    let wanted = sources.iter().zip(bands).enumerate().filter(|(_, (_, bands))| !bands.is_empty());
    wanted
        .map(|(place, (source, bands))| Ok(Image::new(source, bands, pixels(place, source, bands)?)))
        .collect()
}

/// Lists the images that [`wanted_images`] makes, by their index in the task.
fn indices_of_wanted(bands: &[Vec<String>]) -> impl Iterator<Item = usize> {
    bands.iter().enumerate().filter(|(_, bands)| !bands.is_empty()).map(|(index, _)| index)
}

/// Clips stored pixels to the task's range, if it has one.
fn clip<'a>(task: &Task, pixels: impl IntoIterator<Item = &'a mut f32>) {
    if let Some([low, high]) = task.clip {
        for pixel in pixels {
            *pixel = if pixel.is_nan() { high } else { pixel.clamp(low, high) };
        }
    }
}

/// One partition of a task's files.
pub trait Dataset: Send + Sync {
    /// Names of the samples of a split, in the partition's order.
    fn samples(&self, split: Split) -> &[String];

    /// How stored bytes become pixels and labels.
    fn decoding(&self) -> &Decoding;

    /// The files that the samples of a split are read from, whether they exist or not.
    fn files(&self, split: Split) -> Vec<PathBuf>;

    /// Lists the stored names of the bands that the files contain, per image.
    ///
    /// # Errors
    /// If the first sample cannot be read.
    fn bands(&self) -> Result<Vec<Vec<String>>>;

    /// Reads one sample. `bands` lists the stored names of the bands to read per image, in the order to return them; an image
    /// with no bands in the list is left out.
    ///
    /// # Errors
    /// If the file does not exist, is damaged or lacks a band, a pixel is not finite, the label does not fit the task, or no
    /// band is requested.
    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample>;

    /// Reads one sample with everything that the file contains.
    ///
    /// # Errors
    /// Like [`Dataset::read`], except that pixels need not be finite.
    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample>;

    /// Reads one sample as packed files hold it: as stored, but for what the files' reader alone can do.
    ///
    /// # Errors
    /// Like [`Dataset::read_raw`].
    fn read_to_pack(&self, split: Split, index: usize) -> Result<RawSample> {
        self.read_raw(split, index)
    }

    /// Returns the dataset's own statistics of these stored bands of the `image`th image.
    ///
    /// # Errors
    /// If the statistics are missing or lack a band.
    fn statistics(&self, image: usize, bands: &[String]) -> Result<Vec<BandStatistics>>;

    /// Returns, for each sample of a split in order, a hash of everything it is read from, including its label. Equal hashes
    /// mean equal samples, whatever partition or data set they belong to.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>>;

    /// Lists the acquisition times of the images of each sample of a split, in days since 1970-01-01, `None` where unknown;
    /// empty if none is known. [`Dataset::contents`] need not cover them.
    fn days(&self, _split: Split) -> Vec<Vec<Option<f64>>> {
        Vec::new()
    }

    /// Returns the name and the hash of the file with the data set's own statistics, if it has one.
    ///
    /// # Errors
    /// If the file cannot be read.
    fn statistics_content(&self) -> Result<Option<(String, blake3::Hash)>> {
        Ok(None)
    }

    /// Returns a hash of everything that the samples of these splits and the statistics are read from.
    ///
    /// # Errors
    /// If a file cannot be read.
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
