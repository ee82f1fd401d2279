//! Tasks packed by `cargo xtask prepare`: one HDF5 file per split, one row per sample, instead of many small files.
//!
//! ```text
//! <task>/<split>.h5    images    stored type; one chunk per sample, [bands, rows, columns]
//!                      labels    int32; one row per sample: the class, or one number per label or per pixel
//!                      contents  32 bytes per sample: the hash of what it was read from
//!                      metadata  float64; three numbers per image: day, longitude, latitude; NaN where unknown. Only if
//!                                the task's files say them
//!                      sizes     int32; rows and columns of each sample's image, and of its label or 1, 1. Only if the task
//!                                resamples images, which then differ in size and stand one after another
//!                      names     JSON list
//!                      attribute `terrabench`: JSON, see [`Header`]
//! <task>/index.json    partitions, statistics and file sizes; written last, so an unfinished folder has no index
//! ```
//!
//! Values, names, hashes and statistics equal those of the source files, so packing does not change any record.
//!
//! Damage is reported as an error. Each chunk of images and labels has a Fletcher-32 checksum, tested on every read. The
//! partition's fingerprint covers names and hashes and is tested on opening. The index contains its own hash, and it
//! records the length of each file. HDF5's checksums cover everything else, such as the positions of chunks. One kind of
//! damage goes unnoticed: an all-zero word that became all ones, because Fletcher-32 gives both the same sum. Files of
//! format 1 have neither Fletcher-32 checksums nor the hash of the index.
//!
//! Pixels and labels are packed as decoded ([`Decoding`]). Index and headers record the decoding, and files whose decoding
//! differs from the suite's current one are refused. Formats 1 and 2 do not record it; they are read only if their header
//! leaves one possible decoding.

mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3, Axis};
use serde::{Deserialize, Serialize};

pub use self::write::{Packed as Written, pack};
use super::decoding::Decoding;
use super::{
    Dataset, RawBand, RawSample, Sample, Split, Target, clip, computed, fingerprint, indices_of_wanted,
    raw_images, resample, wanted_images,
};
use crate::error::AtPath;
use crate::formats::hdf5::{Chunked, Dtype, Rows};
use crate::task::images::full_name;
use crate::task::{MetadataKind, TargetKind, Task};
use crate::transform::normalize::BandStatistics;
use crate::{Error, Result};

/// Version of the file format that is written; [`FORMATS`] are the ones that can be read. Format 1 has no checksums of
/// pixels, labels and index; formats 1 and 2 do not record the decoding.
const FORMAT: u32 = 3;
const FORMATS: std::ops::RangeInclusive<u32> = 1..=FORMAT;

const INDEX: &str = "index.json";
const ATTRIBUTE: &str = "terrabench";
const AGAIN: &str = "pack the task again with `cargo xtask prepare`";

/// The contents of `index.json` in a packed task's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Index {
    format: u32,
    suite: String,
    task: String,
    /// Fingerprint of the source over all splits, per partition.
    fingerprints: BTreeMap<String, String>,
    /// Rows of the split's file in the partition's order, per partition and split.
    partitions: BTreeMap<String, BTreeMap<Split, Vec<usize>>>,
    /// The source's own statistics: mean and standard deviation per band, as text that keeps every digit.
    statistics: BTreeMap<String, [String; 2]>,
    /// Name and hash of the file that the statistics come from.
    statistics_content: Option<(String, String)>,
    /// Size of each split's file in bytes.
    sizes: BTreeMap<Split, u64>,
    /// [`Decoding::json`] of the pixels and labels in the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decoding: Option<String>,
    /// blake3 hash of this index with `checksum` unset.
    #[serde(default)]
    checksum: Option<String>,
}

impl Index {
    /// The value that [`Index::checksum`] must have.
    fn hash(&self) -> serde_json::Result<String> {
        let text = serde_json::to_vec(&Index { checksum: None, ..self.clone() })?;
        Ok(blake3::hash(&text).to_hex().to_string())
    }
}

/// The header stored in a split's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Header {
    format: u32,
    task: String,
    samples: usize,
    /// Full names of the bands: see [`full_name`].
    bands: Vec<String>,
    /// Type of the pixels, such as `uint16`.
    dtype: String,
    rows: usize,
    columns: usize,
    label: TargetKind,
    /// Numbers per label.
    label_width: usize,
    /// Type in which the source stores its masks.
    label_dtype: Option<String>,
    /// [`Decoding::hash`] of the decoding of pixels and labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decoding: Option<String>,
    /// Number of images per sample whose days and places are in the file; 0 if they are not.
    #[serde(default, skip_serializing_if = "is_zero")]
    dated_images: usize,
    /// Whether samples differ in size. `rows`, `columns` and `label_width` are then the first one's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_of_many_sizes: bool,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Numbers per image in `metadata`.
const METADATA_WIDTH: usize = 3;

/// Number of images per sample of `task` whose days and places are packed.
fn dated_images(task: &Task) -> usize {
    let known = task.known_metadata();
    let is_told = known.contains(&MetadataKind::Place) || known.contains(&MetadataKind::Date);
    if is_told { task.sources().len() } else { 0 }
}

impl Header {
    /// Numbers of the first sample's image.
    fn image_width(&self) -> usize {
        self.bands.len().saturating_mul(self.rows).saturating_mul(self.columns)
    }
}

/// Numbers per sample in `sizes`.
const SIZES_WIDTH: usize = 4;

/// Where the pixels and the label of each row of a split's file are, in numbers.
#[derive(Debug)]
struct Extents {
    bands: usize,
    /// Rows and columns of a sample whose size is that of all.
    size: [usize; 2],
    label_width: usize,
    /// Of each row, if they differ in size: the first numbers of image and label, and the sizes of both.
    of_rows: Vec<RowExtent>,
}

/// Where the pixels and the label of one row are.
#[derive(Debug, Clone, Copy)]
struct RowExtent {
    image: usize,
    label: usize,
    size: [usize; 2],
    label_size: [usize; 2],
}

impl Extents {
    /// Reads the sizes of the samples of the file at `path`, if they differ.
    ///
    /// # Errors
    /// If the sizes are missing or damaged.
    fn open(path: &Path, header: &Header) -> Result<Self> {
        let bands = header.bands.len();
        let size = [header.rows, header.columns];
        let mut extents = Extents { bands, size, label_width: header.label_width, of_rows: Vec::new() };
        if !header.is_of_many_sizes {
            return Ok(extents);
        }
        let column = Chunked::open(path, "sizes")?;
        let expected = header.samples.checked_mul(SIZES_WIDTH);
        if column.dtype() != Dtype::Int32 || Some(column.length()) != expected {
            return Err(column
                .error(format!("expected the sizes of {} samples", header.samples))
                .help(AGAIN));
        }
        let number = |bytes: &[u8; 4]| usize::try_from(i32::from_le_bytes(*bytes)).unwrap_or(0);
        let numbers: Vec<usize> = column
            .read(0, column.length(), |bytes| bytes.as_chunks().0.iter().map(number).collect())
            .map_err(|error| error.help(AGAIN))?;
        let (mut image, mut label) = (0_usize, 0_usize);
        for [rows, columns, label_rows, label_columns] in numbers.as_chunks::<SIZES_WIDTH>().0 {
            let (size, label_size) = ([*rows, *columns], [*label_rows, *label_columns]);
            extents.of_rows.push(RowExtent { image, label, size, label_size });
            let width = |[rows, columns]: [usize; 2]| rows.checked_mul(columns);
            let next = |first: usize, width: Option<usize>| first.checked_add(width?);
            let pixels = width(size).and_then(|plane| plane.checked_mul(bands));
            let one_label =
                if Self::is_of_pixels(header.label) { width(label_size) } else { Some(header.label_width) };
            match (next(image, pixels), next(label, one_label)) {
                (Some(next_image), Some(next_label)) => (image, label) = (next_image, next_label),
                _ => return Err(column.error("implausible sizes").help(AGAIN)),
            }
        }
        Ok(extents)
    }

    fn is_of_pixels(label: TargetKind) -> bool {
        matches!(label, TargetKind::Mask | TargetKind::ValueMap)
    }

    /// Index of a row's first pixel value, and the number of its values.
    fn image(&self, row: usize) -> (usize, usize) {
        let [rows, columns] = self.size(row);
        let width = self.bands.saturating_mul(rows).saturating_mul(columns);
        (self.of_rows.get(row).map_or(row.saturating_mul(width), |extent| extent.image), width)
    }

    /// Index of a row's first label value, and the number of its values.
    fn label(&self, row: usize, kind: TargetKind) -> (usize, usize) {
        let width = match self.of_rows.get(row) {
            Some(extent) if Self::is_of_pixels(kind) => {
                extent.label_size[0].saturating_mul(extent.label_size[1])
            }
            _ => self.label_width,
        };
        (self.of_rows.get(row).map_or(row.saturating_mul(width), |extent| extent.label), width)
    }

    /// Height and width of a row's image in pixels.
    fn size(&self, row: usize) -> [usize; 2] {
        self.of_rows.get(row).map_or(self.size, |extent| extent.size)
    }

    /// Height and width of a row's label map in pixels.
    fn label_size(&self, row: usize) -> [usize; 2] {
        self.of_rows.get(row).map_or(self.size, |extent| extent.label_size)
    }

    /// The numbers of all images and of all labels of `rows` rows.
    fn totals(&self, rows: usize, kind: TargetKind) -> (Option<usize>, Option<usize>) {
        let Some(last) = rows.checked_sub(1) else { return (Some(0), Some(0)) };
        let end = |(first, width): (usize, usize)| first.checked_add(width);
        (end(self.image(last)), end(self.label(last, kind)))
    }
}

/// Returns the folder of a packed task below `root` if it exists and has an index.
pub fn folder(task: &Task, root: &Path) -> Option<PathBuf> {
    let folders = [root.join(&task.name), root.to_owned()];
    folders.into_iter().find(|folder| folder.ends_with(&task.name) && folder.join(INDEX).is_file())
}

fn index(folder: &Path) -> Result<Index> {
    let path = folder.join(INDEX);
    let text = std::fs::read(&path).at(&path)?;
    let index: Index = serde_json::from_slice(&text).at(&path).map_err(|error| error.help(AGAIN))?;
    let wrong = |problem: String| Err(Error::unsupported(&path, problem).help(AGAIN));
    if !FORMATS.contains(&index.format) {
        return wrong(format!("has format {}; this version reads formats {FORMATS:?}", index.format));
    }
    if index.format > 1 && index.checksum != Some(index.hash().at(&path)?) {
        return wrong("is damaged: its checksum does not match its contents".to_owned());
    }
    Ok(index)
}

/// Describes how the packed files' decoding differs from `decoding`; `None` if they agree.
fn decoded_otherwise(index: &Index, decoding: &Decoding) -> Option<String> {
    match &index.decoding {
        Some(packed) if *packed == decoding.json() => None,
        Some(packed) => Some(decoding.changes_since(packed).join("; ")),
        None if decoding.is_implied_by_header() => None,
        None => Some(format!("format {} does not record how pixels and labels were decoded", index.format)),
    }
}

/// Lists the partitions of a packed task; `None` if `folder` is not one.
pub fn partitions(folder: &Path) -> Option<Result<Vec<String>>> {
    folder.join(INDEX).is_file().then(|| Ok(index(folder)?.partitions.into_keys().collect()))
}

/// One partition of a packed task.
#[derive(Debug)]
pub struct Packed {
    task: Task,
    decoding: Decoding,
    folder: PathBuf,
    index: Index,
    parts: BTreeMap<Split, PackedSplit>,
}

/// A split's file and the rows of it that belong to the partition.
#[derive(Debug)]
struct PackedSplit {
    path: PathBuf,
    header: Header,
    extents: Extents,
    dtype: Dtype,
    images: Chunked,
    labels: Labels,
    /// The partition's rows of the file, in its order.
    rows: Vec<usize>,
    names: Vec<String>,
    contents: Vec<blake3::Hash>,
    /// Day, longitude and latitude of each image of all rows of the file.
    metadata: Vec<f64>,
}

/// The labels of all rows of a split's file.
#[derive(Debug)]
enum Labels {
    /// Classes and lists of labels, small enough to keep in memory.
    Read(Vec<u8>),
    /// Masks and value maps, read one by one.
    Masks(Chunked),
}

impl Labels {
    fn open(path: &Path, kind: TargetKind) -> Result<Self> {
        let labels = Chunked::open(path, "labels")?;
        if labels.dtype() != Dtype::Int32 {
            return Err(labels.error(format!("is {}; expected {}", labels.dtype(), Dtype::Int32)));
        }
        match kind {
            TargetKind::Mask | TargetKind::ValueMap => Ok(Labels::Masks(labels)),
            TargetKind::Class | TargetKind::Labels | TargetKind::Value => {
                Ok(Labels::Read(labels.read(0, labels.length(), <[u8]>::to_vec)?))
            }
        }
    }

    /// Total count of numbers over all rows.
    fn length(&self) -> usize {
        match self {
            Labels::Read(all) => all.len() / Dtype::Int32.size(),
            Labels::Masks(masks) => masks.length(),
        }
    }

    /// Calls `take` with the bytes of `width` numbers from the one at `first` on.
    fn read<T>(&self, (first, width): (usize, usize), take: impl FnOnce(&[u8]) -> T) -> Result<T> {
        match self {
            Labels::Read(all) => {
                let size = Dtype::Int32.size();
                Ok(take(all.get(first * size..(first + width) * size).unwrap_or_default()))
            }
            Labels::Masks(masks) => masks.read(first, width, take),
        }
    }
}

impl PackedSplit {
    fn open(
        task: &Task,
        path: PathBuf,
        rows: &[usize],
        size: Option<&u64>,
        decoding: Option<&String>,
    ) -> Result<Self> {
        let wrong = |problem: String| Error::damaged(&path, problem);
        let found = std::fs::metadata(&path).at(&path)?.len();
        if Some(&found) != size {
            return Err(wrong(format!("expected {size:?} bytes (from {INDEX}), found {found}")));
        }
        let text = Rows::attribute(&path, ATTRIBUTE)?;
        let header: Header = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let dtype = Dtype::named(&header.dtype).ok_or_else(|| wrong(format!("type {}", header.dtype)))?;
        let open = |name: &str| Rows::open(&path, name);
        let images = Chunked::open(&path, "images")?;
        let labels = Labels::open(&path, header.label)?;
        let contents = open("contents")?;
        let names: Vec<String> = {
            let names = open("names")?;
            let length = names.shape().first().copied().unwrap_or(0);
            serde_json::from_slice(&names.bytes(0, length)?).map_err(|error| wrong(error.to_string()))?
        };
        let n = header.samples;
        let extents = Extents::open(&path, &header)?;
        let (pixels, label_numbers) = extents.totals(n, header.label);
        let fits = FORMATS.contains(&header.format)
            && header.task == task.name
            && header.label == task.target
            && header.decoding.as_ref() == decoding
            && (header.label != TargetKind::Labels || header.label_width == task.classes)
            && names.len() == n
            && images.dtype() == dtype
            && header.is_of_many_sizes == task.resample.is_some()
            && Some(images.length()) == pixels
            && Some(labels.length()) == label_numbers
            && Some(contents.shape()) == n.checked_mul(32).as_ref().map(std::slice::from_ref);
        let metadata = match header.dated_images {
            0 => Vec::new(),
            images => {
                let column = Chunked::open(&path, "metadata")?;
                let expected = images.checked_mul(METADATA_WIDTH).and_then(|width| width.checked_mul(n));
                if column.dtype() != Dtype::Float64 || Some(column.length()) != expected {
                    return Err(column.error(format!("expected {n} rows of {images} images")).help(AGAIN));
                }
                let number = |bytes: &[u8; 8]| f64::from_le_bytes(*bytes);
                let all = column.read(0, column.length(), |bytes| {
                    bytes.as_chunks().0.iter().map(number).collect::<Vec<f64>>()
                });
                all.map_err(|error| error.help(AGAIN))?
            }
        };
        if !fits || rows.iter().any(|row| *row >= n) {
            return Err(wrong(format!("its contents do not match {INDEX} and its own header")));
        }
        let hashes = contents.bytes(0, 32 * n)?;
        let hashes: Vec<blake3::Hash> =
            hashes.as_chunks().0.iter().map(|bytes| blake3::Hash::from_bytes(*bytes)).collect();
        Ok(PackedSplit {
            dtype,
            images,
            labels,
            rows: rows.to_vec(),
            names: rows.iter().map(|row| names[*row].clone()).collect(),
            contents: rows.iter().map(|row| hashes[*row]).collect(),
            metadata,
            header,
            extents,
            path,
        })
    }

    fn row(&self, index: usize) -> Result<usize> {
        self.rows.get(index).copied().ok_or_else(|| {
            Error::damaged(
                &self.path,
                format!("no sample {index}; the partition has {} samples in this file", self.rows.len()),
            )
        })
    }

    /// Returns day and place of each image of a row of the file; empty if they were not packed.
    fn metadata(&self, row: usize) -> Vec<(Option<f64>, Option<[f32; 2]>)> {
        let width = self.header.dated_images * METADATA_WIDTH;
        let numbers = self.metadata.get(row * width..(row + 1) * width).unwrap_or_default();
        let known = |number: f64| (!number.is_nan()).then_some(number);
        let of_image = |[day, longitude, latitude]: &[f64; METADATA_WIDTH]| {
            let place = known(*longitude).zip(known(*latitude));
            (known(*day), place.map(|(longitude, latitude)| [longitude as f32, latitude as f32]))
        };
        numbers.as_chunks().0.iter().map(of_image).collect()
    }

    /// Calls `take` with the bytes of one image.
    fn image<T>(&self, index: usize, take: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let (first, width) = self.extents.image(self.row(index)?);
        self.images.read(first, width, take).map_err(|error| error.help(AGAIN))
    }

    fn label(&self, index: usize) -> Result<Target> {
        let numbers =
            |bytes: &[u8]| bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
        let row = self.row(index)?;
        let numbers = self.labels.read(self.extents.label(row, self.header.label), numbers);
        let numbers: Vec<i32> = numbers.map_err(|error| error.help(AGAIN))?;
        let wrong = |problem: &dyn std::fmt::Display| {
            Error::damaged(&self.path, format!("label of sample {index}: {problem}")).help(AGAIN)
        };
        let size: (usize, usize) = self.extents.label_size(row).into();
        match self.header.label {
            TargetKind::Class => {
                let class = numbers.first().and_then(|class| usize::try_from(*class).ok());
                class.map(Target::Class).ok_or_else(|| wrong(&"no class"))
            }
            TargetKind::Labels => Ok(Target::Labels(numbers.iter().map(|label| *label != 0).collect())),
            TargetKind::Mask => {
                let mask = Array2::from_shape_vec(size, numbers);
                mask.map(Target::Mask).map_err(|error| wrong(&error))
            }
            TargetKind::Value => {
                let value = numbers.first().map(|bits| Target::Value(real(*bits)));
                value.ok_or_else(|| wrong(&"no number"))
            }
            TargetKind::ValueMap => {
                let map = Array2::from_shape_vec(size, numbers.into_iter().map(real).collect());
                map.map(Target::ValueMap).map_err(|error| wrong(&error))
            }
        }
    }
}

/// Reinterprets the 32 bits of a stored label as a real number.
fn real(bits: i32) -> f32 {
    f32::from_bits(bits.cast_unsigned())
}

impl Packed {
    /// Opens a partition of the task that was packed into `folder`.
    ///
    /// # Errors
    /// If the partition does not exist, a file is damaged or is not the one that was packed, or the files were packed with
    /// a decoding other than `decoding`.
    pub fn open(task: &Task, decoding: Decoding, folder: &Path, partition: &str) -> Result<Self> {
        let index = index(folder)?;
        if let Some(problem) = decoded_otherwise(&index, &decoding) {
            let problem = format!("packed with other settings of the task: {problem}");
            return Err(Error::damaged(folder.join(INDEX), problem)
                .help(format!("{AGAIN}, or undo the change in benchmarks/{}.toml", index.suite)));
        }
        let splits = index.partitions.get(partition).ok_or_else(|| {
            let known: Vec<&str> = index.partitions.keys().map(String::as_str).collect();
            Error::not_found(folder, format!("no partition `{partition}`"))
                .help(format!("available partitions: {}", known.join(", ")))
        })?;
        if index.task != task.name {
            return Err(Error::damaged(
                folder.join(INDEX),
                format!("belongs to task {}, not to {}", index.task, task.name),
            ));
        }
        let hash = index.decoding.as_ref().map(|_| decoding.hash());
        let part = |split: Split| {
            let rows = splits.get(&split).map_or(&[][..], Vec::as_slice);
            let path = folder.join(format!("{split}.h5"));
            if fingerprint::is_verifying() {
                write::read_once(&path).map_err(|error| error.help(AGAIN))?;
            }
            let part = PackedSplit::open(task, path, rows, index.sizes.get(&split), hash.as_ref());
            Ok((split, part.map_err(|error| error.help(AGAIN))?))
        };
        let parts = Split::ALL.into_iter().map(part).collect::<Result<_>>()?;
        let packed = Packed { task: task.clone(), decoding, folder: folder.to_owned(), index, parts };
        // Names and hashes have no checksums of their own; the fingerprint covers them.
        match packed.index.fingerprints.get(partition) == Some(&packed.fingerprint(&Split::ALL)?) {
            true => Ok(packed),
            false => Err(Error::damaged(
                folder,
                format!("names or hashes do not match the fingerprint in {INDEX}"),
            )
            .help(AGAIN)),
        }
    }

    /// Number of samples in the files, over all partitions.
    fn rows(&self) -> usize {
        self.parts.values().map(|part| part.header.samples).sum()
    }

    /// Lists, per image, the names of its bands and their positions in the file.
    fn bands_of(&self, header: &Header) -> Vec<Vec<(String, usize)>> {
        let labels = self.task.image_labels();
        let ours = |label: &Option<String>| -> Vec<(String, usize)> {
            let name = |full: &String| match label {
                None => Some(full.clone()),
                Some(label) => Some(full.strip_suffix(label.as_str())?.strip_suffix(' ')?.to_owned()),
            };
            let placed = header.bands.iter().enumerate();
            placed.filter_map(|(place, full)| Some((name(full)?, place))).collect()
        };
        labels.iter().map(ours).collect()
    }

    fn part(&self, split: Split) -> Result<&PackedSplit> {
        self.parts.get(&split).ok_or_else(|| Error::damaged(&self.folder, format!("has no split {split}")))
    }
}

impl Dataset for Packed {
    fn samples(&self, split: Split) -> &[String] {
        self.parts.get(&split).map_or(&[], |part| &part.names)
    }

    fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    fn files(&self, split: Split) -> Vec<PathBuf> {
        self.parts.get(&split).map(|part| part.path.clone()).into_iter().collect()
    }

    fn bands(&self) -> Result<Vec<Vec<String>>> {
        let names = |bands: Vec<(String, usize)>| bands.into_iter().map(|(name, _)| name).collect();
        Ok(self.bands_of(&self.part(Split::Train)?.header).into_iter().map(names).collect())
    }

    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample> {
        let part = self.part(split)?;
        let row = part.row(index)?;
        let [rows, columns] = part.extents.size(row);
        let plane = rows * columns * part.dtype.size();
        let place = |full: String| {
            part.header.bands.iter().position(|known| *known == full).ok_or_else(|| {
                part.images.error(format!("no band `{full}`; bands found: {}", part.header.bands.join(", ")))
            })
        };
        let places: Vec<usize> = self.task.full_names(bands).into_iter().map(place).collect::<Result<_>>()?;
        let mut pixels: Vec<f32> = Vec::with_capacity(places.len() * rows * columns);
        part.image(index, |bytes| {
            for place in places {
                let stored = bytes.get(place * plane..(place + 1) * plane).unwrap_or_default();
                part.dtype.decode(stored, &mut pixels);
            }
        })?;
        clip(&self.task, &mut pixels);
        resample::fill_missing(&self.task, &mut pixels);
        let name = part.names[index].clone();
        if part.dtype.is_float()
            && let Some(pixel) = pixels.iter().find(|pixel| !pixel.is_finite())
        {
            return Err(part.images.error(format!("{name}: a pixel is {pixel}")).help(AGAIN));
        }
        let mut rest = pixels;
        let mut images = wanted_images(&self.task, bands, |_, source, bands| {
            let later = rest.split_off(bands.len() * rows * columns);
            let pixels = std::mem::replace(&mut rest, later);
            let image = Array3::from_shape_vec((bands.len(), rows, columns), pixels);
            let image = image.map_err(|error| part.images.error(error))?;
            let place = |band: &String| source.stored_bands.iter().position(|stored| stored == band);
            // Tasks whose files name their bands have no factors per band.
            let places: Vec<usize> = bands.iter().map(|band| place(band).unwrap_or(usize::MAX)).collect();
            resample::scaled_and_resampled(&self.task, &places, image)
        })?;
        let metadata = part.metadata(row);
        for (image, index) in images.iter_mut().zip(indices_of_wanted(bands)) {
            (image.day, image.place) = metadata.get(index).copied().unwrap_or_default();
        }
        let label_dtype = part.header.label_dtype.as_deref().and_then(Dtype::named);
        let target = resample::resampled(&self.task, part.label(index)?, label_dtype)?;
        Ok(Sample { name, images, target })
    }

    fn days(&self, split: Split) -> Vec<Vec<Option<f64>>> {
        let Some(part) = self.parts.get(&split).filter(|part| part.header.dated_images > 0) else {
            return Vec::new();
        };
        let days = |row: &usize| part.metadata(*row).into_iter().map(|(day, _)| day).collect();
        part.rows.iter().map(days).collect()
    }

    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample> {
        let part = self.part(split)?;
        let header = &part.header;
        let mut pixels: Vec<f64> = Vec::with_capacity(header.image_width());
        part.image(index, |bytes| part.dtype.decode(bytes, &mut pixels))?;
        let [rows, columns] = part.extents.size(part.row(index)?);
        let image = Array3::from_shape_vec((header.bands.len(), rows, columns), pixels);
        let image = image.map_err(|error| part.images.error(error))?;
        let bands = self.bands_of(header);
        let band = |(name, place): &(String, usize)| RawBand {
            name: name.clone(),
            dtype: header.dtype.clone(),
            pixels: image.index_axis(Axis(0), *place).to_owned(),
        };
        let mut images = raw_images(&self.task, |image, _| Ok(bands[image].iter().map(band).collect()))?;
        for (image, known) in images.iter_mut().zip(part.metadata(part.row(index)?)) {
            (image.day, image.place) = known;
        }
        Ok(RawSample {
            name: part.names[index].clone(),
            images,
            target: part.label(index)?,
            label_dtype: header.label_dtype.clone(),
        })
    }

    fn statistics(&self, image: usize, bands: &[String]) -> Result<Vec<BandStatistics>> {
        if self.index.statistics_content.is_none() {
            return computed::statistics(self, &self.task, image, bands);
        }
        let label = self.task.image_labels().into_iter().nth(image).flatten();
        let of = |band: &String| {
            let [mean, std] = self.index.statistics.get(&full_name(band, label.as_deref()))?;
            Some(BandStatistics { mean: mean.parse().ok()?, std: std.parse().ok()? })
        };
        let path = self.folder.join(INDEX);
        let found = |band: &String| {
            of(band).ok_or_else(|| Error::damaged(&path, format!("no usable statistics for band `{band}`")))
        };
        bands.iter().map(found).collect()
    }

    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        Ok(self.part(split)?.contents.clone())
    }

    fn statistics_content(&self) -> Result<Option<(String, blake3::Hash)>> {
        let path = self.folder.join(INDEX);
        let parsed = self.index.statistics_content.as_ref();
        parsed.map(|(name, hash)| Ok((name.clone(), blake3::Hash::from_hex(hash).at(&path)?))).transpose()
    }
}
