//! LCZ-S2: one HDF5 file per split, one row per sample.
//!
//! ```text
//! sen2   [n, 32, 32, 10] float32: B02 to B08, B8A, B11, B12 as reflectance
//! sen1   [n, 32, 32, 8] float32: not read
//! label  [n, 17]: one-hot rows
//! ```

use std::path::{Path, PathBuf};

use ndarray::{Array3, ArrayView2, ArrayView3, Axis};

use super::lists::split_name;
use super::{check_finite, clip, of, place_of};
use crate::data::decoding::Decoding;
use crate::data::{
    Dataset, RawBand, RawSample, Sample, Split, Target, computed, fingerprint, raw_images, wanted_images,
};
use crate::formats::hdf5::{Element, Rows};
use crate::task::Task;
use crate::transform::normalize::BandStatistics;
use crate::{Error, Result};

const IMAGES: &str = "sen2";
const LABELS: &str = "label";

/// The files of the three splits.
#[derive(Debug)]
pub struct Lcz {
    task: Task,
    decoding: Decoding,
    splits: [LczSplit; 3],
    names: [Vec<String>; 3],
}

/// The file of one split.
#[derive(Debug)]
struct LczSplit {
    path: PathBuf,
    images: Rows,
    labels: Rows,
    rows: usize,
    columns: usize,
}

impl LczSplit {
    fn open(task: &Task, path: PathBuf) -> Result<Self> {
        let (images, labels) = (Rows::open(&path, IMAGES)?, Rows::open(&path, LABELS)?);
        let (count, rows, columns) = match *images.shape() {
            [count, rows, columns, bands] if bands == task.stored_bands.len() && rows > 0 && columns > 0 => {
                (count, rows, columns)
            }
            ref other => {
                let expected = format!("samples, rows, columns and {} bands", task.stored_bands.len());
                return Err(images.error(format!("has shape {other:?}; expected {expected}")));
            }
        };
        if labels.shape() != [count, task.classes] {
            let problem = format!("has shape {:?}; expected [{count}, {}]", labels.shape(), task.classes);
            return Err(labels.error(problem));
        }
        Ok(LczSplit { path, images, labels, rows, columns })
    }

    fn count(&self) -> usize {
        self.images.shape().first().copied().unwrap_or(0)
    }

    /// Reads an image, [rows, columns, bands], and its class.
    fn read<T: Element>(&self, index: usize, bands: usize) -> Result<(Array3<T>, Target)> {
        let image = Array3::from_shape_vec((self.rows, self.columns, bands), self.images.read(index)?);
        let image = image.map_err(|error| self.images.error(error))?;
        let label: Vec<f32> = self.labels.read(index)?;
        let class = label.iter().position(|label| *label == 1.0);
        match class {
            Some(class) if label.iter().filter(|label| **label == 0.0).count() + 1 == label.len() => {
                Ok((image, Target::Class(class)))
            }
            _ => Err(self
                .labels
                .error(format!("row {index} is {label:?}; expected one 1 and zeros otherwise"))
                .help("the file is damaged or belongs to another data set: fetch it again")),
        }
    }
}

impl Lcz {
    /// Opens the folder with `lcz_train.h5`, `lcz_val.h5` and `lcz_test.h5`.
    ///
    /// # Errors
    /// If a file does not exist or does not have the expected layout.
    pub fn open(task: &Task, decoding: Decoding, folder: &Path) -> Result<Self> {
        let part = |split| LczSplit::open(task, folder.join(format!("lcz_{}.h5", split_name(split))));
        let splits = [part(Split::Train)?, part(Split::Valid)?, part(Split::Test)?];
        let names = splits.each_ref().map(|part| (0..part.count()).map(|row| format!("row-{row}")).collect());
        Ok(Lcz { task: task.clone(), decoding, splits, names })
    }

    fn part(&self, split: Split, index: usize) -> Result<&LczSplit> {
        let part = of(&self.splits, split);
        match index < part.count() {
            true => Ok(part),
            false => Err(Error::damaged(
                &part.path,
                format!("no sample {index}; the file has {} samples", part.count()),
            )),
        }
    }
}

impl Dataset for Lcz {
    fn samples(&self, split: Split) -> &[String] {
        of(&self.names, split).as_slice()
    }

    fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    fn files(&self, split: Split) -> Vec<PathBuf> {
        vec![of(&self.splits, split).path.clone()]
    }

    fn bands(&self) -> Result<Vec<Vec<String>>> {
        Ok(vec![self.task.stored_bands.clone()])
    }

    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample> {
        let part = self.part(split, index)?;
        let (stored, target) = part.read::<f32>(index, self.task.stored_bands.len())?;
        let images = wanted_images(&self.task, bands, |_, source, bands| {
            let mut image = Array3::zeros((bands.len(), part.rows, part.columns));
            for (band, mut plane) in bands.iter().zip(image.outer_iter_mut()) {
                plane.assign(&plane_of(&stored.view(), place_of(&self.task, source, band)?));
            }
            clip(&self.task, &mut image);
            check_finite(&part.path, bands, &image)?;
            image.mapv_inplace(|pixel| pixel * self.task.scale);
            Ok(image)
        })?;
        Ok(Sample { name: self.samples(split)[index].clone(), images, target })
    }

    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample> {
        let part = self.part(split, index)?;
        let (stored, target) = part.read::<f64>(index, self.task.stored_bands.len())?;
        let band = |(place, name): (usize, &String)| RawBand {
            name: name.clone(),
            dtype: part.images.dtype().to_string(),
            pixels: plane_of(&stored.view(), place).to_owned(),
        };
        let images = raw_images(&self.task, |_, source| {
            Ok(source.stored_bands.iter().enumerate().map(band).collect())
        })?;
        let name = self.samples(split)[index].clone();
        Ok(RawSample { name, images, target, label_dtype: None })
    }

    fn statistics(&self, image: usize, bands: &[String]) -> Result<Vec<BandStatistics>> {
        computed::statistics(self, &self.task, image, bands)
    }

    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        let part = of(&self.splits, split);
        let source =
            fingerprint::Source { name: format!("rows of {IMAGES}, {LABELS}"), path: part.path.clone() };
        let hash = |row: usize| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&part.images.bytes(row, 1)?).update(&part.labels.bytes(row, 1)?);
            Ok(hasher.finalize())
        };
        fingerprint::contents_of(&[source], part.count(), fingerprint::memo().as_deref(), hash)
    }
}

fn plane_of<'a, T>(image: &ArrayView3<'a, T>, band: usize) -> ArrayView2<'a, T> {
    image.index_axis_move(Axis(2), band)
}
