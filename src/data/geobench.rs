//! GEO-Bench v1: one HDF5 file per sample, partitions and statistics in JSON
//! [github.com/ServiceNow/geo-bench, geobench/dataset.py].
//!
//! ```text
//! <task>/<partition>_partition.json   {"train": [names], "valid": […], "test": […]}
//! <task>/band_stats.json              {band: {"mean": …, "std": …, …}}
//! <task>/<sample>.hdf5                one dataset per band, `label` for masks; everything else in the attribute `pickle`
//!
//! A dataset [h, w, n] holds n bands: `Neon_001` to `Neon_369`, or that of its own name if n is 1. Bands and masks may have a
//! date after their name, `04 - Red_2014-03-05`, which differs from sample to sample. Names of samples may have any characters
//! of file names: dots, commas, brackets, a minus sign first.
//! ```

mod sample;
mod zoom;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::decoding::Decoding;
use super::{Dataset, RawSample, Sample, Split, fingerprint, raw_images, wanted_images};
use crate::error::AtPath;
use crate::formats::hdf5::with_file;
use crate::formats::text;
use crate::task::{Suite, Task, TaskImage};
use crate::transform::normalize::BandStatistics;
use crate::{Error, Result, remedy};

use sample::{SampleFile, undated};

/// Usual locations of the data relative to the folder that the user names: that folder itself or one of these below it.
const USUAL_FOLDERS: [&str; 3] = ["", "geobench", "geo-bench-1.0"];

const STATISTICS: &str = "band_stats.json";

/// One partition of a task.
#[derive(Debug, Clone)]
pub struct Geobench {
    task: Task,
    decoding: Decoding,
    folder: PathBuf,
    partition: PathBuf,
    names: Names,
}

/// The contents of a partition file: the samples of each split.
#[derive(Debug, Clone, Deserialize)]
struct Names {
    train: Vec<String>,
    valid: Vec<String>,
    test: Vec<String>,
}

impl Geobench {
    /// Opens a partition (`default`, `0.01x_train`, …) of a task. `root` holds `classification_v1.0/` and
    /// `segmentation_v1.0/`, or is one of these, or holds a folder `geobench` or `geo-bench-1.0` that does.
    ///
    /// # Errors
    /// If the task or the partition does not exist, or the partition file is damaged.
    pub fn open(suite: &Suite, task: &Task, root: &Path, partition: &str) -> Result<Self> {
        let folder = task_folder(task, root).ok_or_else(|| missing_task(suite, task, root))?;
        let partition = partition_file(&folder, partition)?;
        let names: Names = read_json(&partition)?;
        for name in [&names.train, &names.valid, &names.test].into_iter().flatten() {
            if !is_plain(name) {
                let problem = format!("sample {name:?} is not a plain file name");
                return Err(Error::damaged(&partition, problem));
            }
        }
        let decoding = Decoding::of(suite.family, task);
        Ok(Geobench { task: task.clone(), decoding, folder, partition, names })
    }

    fn name(&self, split: Split, index: usize) -> Result<&str> {
        let names = self.samples(split);
        names.get(index).map(String::as_str).ok_or_else(|| {
            Error::damaged(
                &self.partition,
                format!("no sample {index}; split {split} has {} samples", names.len()),
            )
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.hdf5"))
    }

    /// The files of a split's samples, named for the fingerprint.
    fn sources(&self, split: Split) -> Vec<fingerprint::Source> {
        let source =
            |name: &String| fingerprint::Source { name: format!("{split}/{name}"), path: self.path(name) };
        self.samples(split).iter().map(source).collect()
    }

    /// Opens a sample's file and calls `read` with it.
    fn with_sample<T>(
        &self,
        split: Split,
        index: usize,
        read: impl Fn(&str, &SampleFile) -> Result<T>,
    ) -> Result<T> {
        let name = self.name(split, index)?;
        let path = self.path(name);
        let result = with_file(&path, |file| read(name, &SampleFile::new(file)?));
        if result.is_err() && !path.exists() {
            let partition = self.partition.display();
            let problem = format!("no such file, but {partition} lists it in split {split}");
            return Err(incomplete(Error::damaged(&path, problem)));
        }
        result
    }
}

impl Dataset for Geobench {
    fn samples(&self, split: Split) -> &[String] {
        match split {
            Split::Train => &self.names.train,
            Split::Valid => &self.names.valid,
            Split::Test => &self.names.test,
        }
    }

    fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    fn files(&self, split: Split) -> Vec<PathBuf> {
        self.samples(split).iter().map(|name| self.path(name)).collect()
    }

    fn bands(&self) -> Result<Vec<Vec<String>>> {
        let first = Split::ALL.into_iter().find(|split| !self.samples(*split).is_empty());
        let split = first.ok_or_else(|| Error::damaged(&self.partition, "lists no samples"))?;
        let there = self.with_sample(split, 0, |_, file| Ok(file.band_names()))?;
        let of_image = |image: TaskImage| match image.stored_bands.is_empty() {
            true => there.clone(),
            false => image.stored_bands.into_iter().filter(|name| there.contains(name)).collect(),
        };
        Ok(self.task.sources().into_iter().map(of_image).collect())
    }

    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample> {
        self.with_sample(split, index, |name, file| {
            let images = wanted_images(&self.task, bands, |_, _, bands| file.image(bands, &self.task))?;
            let (target, _) = file.target(&self.task)?;
            Ok(Sample { name: name.to_owned(), images, target })
        })
    }

    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample> {
        self.with_sample(split, index, |name, file| {
            // A single image is shown with all bands of its file, also those that the task leaves aside.
            let shown = |image: &TaskImage| match self.task.images.is_empty() {
                true => Vec::new(),
                false => image.stored_bands.clone(),
            };
            let images = raw_images(&self.task, |_, image| file.raw_bands(&shown(image)))?;
            let (target, dtype) = file.target(&self.task)?;
            let label_dtype = dtype.map(|dtype| dtype.to_string());
            Ok(RawSample { name: name.to_owned(), images, target, label_dtype })
        })
    }

    fn statistics(&self, _: usize, bands: &[String]) -> Result<Vec<BandStatistics>> {
        let path = self.folder.join(STATISTICS);
        let stored: BTreeMap<String, serde_json::Value> = read_json(&path)?;
        let scale = f64::from(self.task.scale);
        let scaled = |band: &String| {
            let named = |wanted: &str| stored.iter().find(|(name, _)| undated(name) == wanted);
            // The bands of one dataset share their statistics.
            let found = named(band).or_else(|| named(sample::channel(band)?.0));
            let (_, found) = found.ok_or_else(|| {
                let known: Vec<&str> = stored.keys().map(String::as_str).collect();
                Error::damaged(&path, format!("no band `{band}`; bands found: {}", known.join(", ")))
            })?;
            // NaN fails the check below, as do statistics that are missing or not numbers.
            let number = |key| found.get(key).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
            let (mean, std) = (number("mean"), number("std"));
            if !mean.is_finite() || !std.is_finite() || std <= 0.0 {
                let problem =
                    format!("unusable statistics for band `{band}`: mean {mean}, standard deviation {std}");
                return Err(Error::damaged(&path, problem)
                    .help("expected finite numbers, the deviation above 0: fetch the data set again"));
            }
            Ok(BandStatistics { mean: mean * scale, std: std * scale })
        };
        bands.iter().map(scaled).collect()
    }

    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        fingerprint::contents(&self.sources(split), fingerprint::memo().as_deref())
    }

    fn statistics_content(&self) -> Result<Option<(String, blake3::Hash)>> {
        let source = fingerprint::Source { name: STATISTICS.to_owned(), path: self.folder.join(STATISTICS) };
        let content = fingerprint::contents(std::slice::from_ref(&source), None)?;
        Ok(content.first().map(|content| (source.name, *content)))
    }
}

/// Returns the folder of the task's files, or an error if it does not exist.
pub(crate) fn task_folder(task: &Task, root: &Path) -> Option<PathBuf> {
    // `root` may be the folder `classification_v1.0` itself.
    let below = [Some(task.directory.as_path()), task.directory.file_name().map(Path::new)];
    let candidates =
        USUAL_FOLDERS.iter().flat_map(|usual| below.into_iter().flatten().map(move |path| (usual, path)));
    candidates.map(|(usual, path)| root.join(usual).join(path)).find(|folder| folder.is_dir())
}

fn missing_task(suite: &Suite, task: &Task, root: &Path) -> Error {
    Error::not_found(
        root.join(&task.directory),
        format!("no such folder; expected the data of {}", task.name),
    )
    .help(remedy::get_data(suite, &[&task.name], Some(root)))
}

/// Suffix of a partition file's name.
const PARTITION: &str = "_partition.json";

/// Lists the partitions in a task's folder.
pub(crate) fn partitions(folder: &Path) -> Result<Vec<String>> {
    let mut known: Vec<String> = std::fs::read_dir(folder)
        .at(folder)?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(PARTITION)?.to_owned()))
        .collect();
    known.sort();
    Ok(known)
}

/// Path of a partition's file.
fn partition_file(folder: &Path, partition: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{partition}{PARTITION}"));
    if is_plain(partition) && path.is_file() {
        return Ok(path);
    }
    let known = partitions(folder)?;
    let error = Error::not_found(folder, format!("no partition `{partition}`"));
    Err(match known.is_empty() {
        true => error.help("no file `<partition>_partition.json` found: fetch the data set again"),
        false => error.help(format!("available partitions: {}", known.join(", "))),
    })
}

fn incomplete(error: Error) -> Error {
    error.help("the data set is incomplete or damaged: `cargo xtask doctor` lists every problem and says how to fetch it again")
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).at(path).map_err(incomplete)?;
    text::json(&text).at(path).map_err(incomplete)
}

/// Whether `name` is a plain file name, without any path.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(only)) if only == name)
        && components.next().is_none()
        && !name.contains(['\\', '\0'])
}
