//! Landslide4Sense as published on the Hugging Face hub: one HDF5 file per image and one per mask
//! [ibm-nasa-geospatial/Landslide4sense].
//!
//! ```text
//! images/<train|validation|test>/image_N.h5      `img` [rows, columns, 14]: 12 bands, slope, DEM
//! annotations/<train|validation|test>/mask_N.h5  `mask` [rows, columns]
//! ```
//!
//! A split's samples are its images in lexicographic order of their names: 1, 10, 11, 2 [terratorch,
//! Landslide4SenseNonGeo].

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3, ArrayView2, Axis};

use super::decoding::Decoding;
use super::{
    Dataset, RawBand, RawSample, Sample, Split, Target, computed, fingerprint, raw_images, wanted_images,
};
use crate::error::AtPath;
use crate::formats::hdf5::{Dtype, Element, File, with_file};
use crate::task::{Suite, Task};
use crate::transform::normalize::BandStatistics;
use crate::{Error, Result, remedy};

/// The planes of an image, in stored order.
pub const PLANES: [&str; 14] =
    ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "slope", "DEM"];

/// The only partition.
pub const PARTITION: &str = "default";

/// The opened data set.
#[derive(Debug, Clone)]
pub struct Landslide4Sense {
    task: Task,
    decoding: Decoding,
    folder: PathBuf,
    /// Image names per split: `image_1`, …
    names: [Vec<String>; 3],
}

impl Landslide4Sense {
    /// Opens the folder that contains `images/` and `annotations/`: `root`, or `landslide4sense` below it.
    ///
    /// # Errors
    /// If a folder or an image's mask does not exist, or `partition` is not `default`.
    pub fn open(suite: &Suite, task: &Task, root: &Path, partition: &str) -> Result<Self> {
        if partition != PARTITION {
            return Err(Error::mismatch(format!("{} has no partition `{partition}`", suite.title))
                .help(format!("its only partition is `{PARTITION}`")));
        }
        let folder = folder(root).ok_or_else(|| {
            Error::not_found(
                root.join("images"),
                format!("no such folder; expected the data of {}", task.name),
            )
            .help(remedy::get_data(suite, &[], Some(root)))
        })?;
        let names = |split| image_names(&folder.join("images").join(folder_of(split)));
        let names = [names(Split::Train)?, names(Split::Valid)?, names(Split::Test)?];
        let decoding = Decoding::of(suite.family, task);
        let dataset = Landslide4Sense { task: task.clone(), decoding, folder, names };
        for split in Split::ALL {
            for name in dataset.samples(split) {
                let mask = dataset.mask_path(split, name);
                if !mask.is_file() {
                    let image = dataset.image_path(split, name);
                    return Err(Error::not_found(
                        mask,
                        format!("no such file, but its image {} exists", image.display()),
                    )
                    .help("the data set is incomplete: fetch it again, or remove the image"));
                }
            }
        }
        Ok(dataset)
    }

    fn image_path(&self, split: Split, name: &str) -> PathBuf {
        self.folder.join("images").join(folder_of(split)).join(format!("{name}.h5"))
    }

    fn mask_path(&self, split: Split, name: &str) -> PathBuf {
        let number = name.strip_prefix(IMAGE).unwrap_or(name);
        self.folder.join("annotations").join(folder_of(split)).join(format!("mask_{number}.h5"))
    }

    fn name(&self, split: Split, index: usize) -> Result<&str> {
        let names = self.samples(split);
        names.get(index).map(String::as_str).ok_or_else(|| {
            Error::damaged(
                &self.folder,
                format!("no sample {index}; split {split} has {} samples", names.len()),
            )
        })
    }

    /// Reads an image [rows, columns, planes] and its stored type.
    fn image<T: Element>(&self, split: Split, name: &str) -> Result<(Dtype, Array3<T>)> {
        let (dtype, dimensions, pixels) = elements(&self.image_path(split, name), "img")?;
        let wrong = || {
            Error::damaged(
                self.image_path(split, name),
                format!("`img` has shape {dimensions:?}; expected rows, columns and {} planes", PLANES.len()),
            )
            .help("the file is damaged or belongs to another data set: fetch it again")
        };
        match dimensions[..] {
            [rows, columns, planes] if planes == PLANES.len() => {
                let image = Array3::from_shape_vec((rows, columns, planes), pixels).map_err(|_| wrong())?;
                Ok((dtype, image))
            }
            _ => Err(wrong()),
        }
    }

    /// Reads the mask of an image of this size, and its stored type.
    fn mask(&self, split: Split, name: &str, size: [usize; 2]) -> Result<(Dtype, Array2<i32>)> {
        let path = self.mask_path(split, name);
        let (dtype, dimensions, stored) = elements::<f64>(&path, "mask")?;
        if dimensions != size {
            let [rows, columns] = size;
            let problem =
                format!("`mask` has shape {dimensions:?}, but the image is {rows} x {columns} pixels");
            return Err(Error::damaged(path, problem).help("fetch image and mask again"));
        }
        let class = |stored: f64| {
            // The cast saturates for values outside i32; the comparison below rejects them.
            let class = stored as i32;
            if f64::from(class) == stored && usize::try_from(class).is_ok_and(|c| c < self.task.classes) {
                return Ok(class);
            }
            let last = self.task.classes.saturating_sub(1);
            let problem = format!("`mask` contains {stored}; {} has the classes 0 to {last}", self.task.name);
            Err(Error::damaged(&path, problem)
                .help("the file is damaged or belongs to another data set: fetch it again"))
        };
        let classes = stored.into_iter().map(class).collect::<Result<Vec<i32>>>()?;
        Ok((dtype, Array2::from_shape_vec(size, classes).at(&path)?))
    }

    /// Image files and mask files of a split.
    fn sources(&self, split: Split) -> (Vec<fingerprint::Source>, Vec<fingerprint::Source>) {
        let source = |kind: &str, name: &String, path| fingerprint::Source {
            name: format!("{split}/{kind}/{name}"),
            path,
        };
        let names = self.samples(split).iter();
        names
            .map(|name| {
                let image = source("images", name, self.image_path(split, name));
                (image, source("annotations", name, self.mask_path(split, name)))
            })
            .unzip()
    }
}

impl Dataset for Landslide4Sense {
    fn samples(&self, split: Split) -> &[String] {
        let [train, valid, test] = &self.names;
        match split {
            Split::Train => train,
            Split::Valid => valid,
            Split::Test => test,
        }
    }

    fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    fn files(&self, split: Split) -> Vec<PathBuf> {
        let (images, masks) = self.sources(split);
        images.into_iter().chain(masks).map(|source| source.path).collect()
    }

    fn bands(&self) -> Result<Vec<Vec<String>>> {
        Ok(vec![PLANES.map(str::to_owned).to_vec()])
    }

    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample> {
        let name = self.name(split, index)?;
        let (_, stored) = self.image::<f32>(split, name)?;
        let (rows, columns, _) = stored.dim();
        let images = wanted_images(&self.task, bands, |_, _, bands| {
            let mut image = Array3::zeros((bands.len(), rows, columns));
            for (band, mut plane) in bands.iter().zip(image.outer_iter_mut()) {
                plane.assign(&stored.index_axis(Axis(2), plane_of(band)?));
                let bad = plane.indexed_iter().find(|(_, pixel)| !pixel.is_finite());
                if let Some(((row, column), pixel)) = bad {
                    let problem = format!("band {band}: the pixel at row {row}, column {column} is {pixel}");
                    return Err(Error::damaged(self.image_path(split, name), problem)
                        .help("the file is damaged: fetch it again"));
                }
            }
            image.mapv_inplace(|pixel| pixel * self.task.scale);
            Ok(image)
        })?;
        let (_, mask) = self.mask(split, name, [rows, columns])?;
        Ok(Sample { name: name.to_owned(), images, target: Target::Mask(mask) })
    }

    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample> {
        let name = self.name(split, index)?;
        let (dtype, image) = self.image::<f64>(split, name)?;
        let (rows, columns, _) = image.dim();
        let (mask_dtype, mask) = self.mask(split, name, [rows, columns])?;
        let band = |(plane, pixels): (&&str, ArrayView2<f64>)| RawBand {
            name: (*plane).to_owned(),
            dtype: dtype.to_string(),
            pixels: pixels.to_owned(),
        };
        let bands = || PLANES.iter().zip(image.axis_iter(Axis(2))).map(band);
        Ok(RawSample {
            name: name.to_owned(),
            images: raw_images(&self.task, |_, _| Ok(bands().collect()))?,
            target: Target::Mask(mask),
            label_dtype: Some(mask_dtype.to_string()),
        })
    }

    fn statistics(&self, image: usize, bands: &[String]) -> Result<Vec<BandStatistics>> {
        computed::statistics(self, &self.task, image, bands)
    }

    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        let (images, masks) = self.sources(split);
        let memo = fingerprint::memo();
        let images = fingerprint::contents(&images, memo.as_deref())?;
        let masks = fingerprint::contents(&masks, memo.as_deref())?;
        let both = |(image, mask): (&blake3::Hash, &blake3::Hash)| {
            blake3::hash(&[image.as_bytes().as_slice(), mask.as_bytes()].concat())
        };
        Ok(images.iter().zip(&masks).map(both).collect())
    }
}

const IMAGE: &str = "image_";

fn folder_of(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Valid => "validation",
        Split::Test => "test",
    }
}

/// Lists the images of a folder by name, in lexicographic order.
fn image_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let listed = std::fs::read_dir(folder).at(folder);
    for entry in listed.map_err(|error| error.help("the data set is incomplete: fetch it again"))? {
        let path = entry.at(folder)?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if let Some(name) = stem.filter(|stem| stem.starts_with(IMAGE))
            && path.extension().is_some_and(|extension| extension == "h5")
        {
            names.push(name.to_owned());
        }
    }
    // Sorting names and file names agrees: `image_1.h5` precedes `image_10.h5` (`.` before `0`), `image_1` precedes `image_10`.
    names.sort();
    Ok(names)
}

fn plane_of(band: &str) -> Result<usize> {
    PLANES.iter().position(|plane| *plane == band).ok_or_else(|| {
        Error::mismatch(format!("Landslide4Sense has no band `{band}`"))
            .help(format!("available planes: {}", PLANES.join(", ")))
    })
}

/// Reads a dataset of an HDF5 file: type, shape, elements.
fn elements<T: Element>(path: &Path, name: &str) -> Result<(Dtype, Vec<usize>, Vec<T>)> {
    with_file(path, |file: &File| {
        let datasets = file.datasets()?;
        let found = datasets.iter().find(|dataset| dataset.name() == name).ok_or_else(|| {
            let known: Vec<&str> = datasets.iter().map(|dataset| dataset.name()).collect();
            Error::damaged(path, format!("no dataset `{name}`; datasets found: {}", known.join(", ")))
                .help("the file is damaged or belongs to another data set: fetch it again")
        })?;
        found.elements()
    })
}

/// Finds the folder with `images/` and `annotations/`: `root`, or one named after the data set below it.
pub(crate) fn folder(root: &Path) -> Option<PathBuf> {
    let candidates = ["", "landslide4sense", "Landslide4sense"].map(|below| root.join(below));
    candidates.into_iter().find(|folder| folder.join("images").is_dir())
}
