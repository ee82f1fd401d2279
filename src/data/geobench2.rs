//! GEO-Bench-2 as released: a container per task, or several parts of it [PyPI geobenchv2 0.9; hub data sets aialliance/*].
//!
//! ```text
//! <task>/geobench_<task>.tortilla            every sample: a container with a file per sensor, date and label
//! <task>/geobench_<task>.0000.part.tortilla  parts, each with samples of its own
//! ```
//!
//! Which file holds what is said by [`Container`] in the suite. Files are GeoTIFF, or HDF5 with the dataset `data`
//! [steps, bands, rows, columns].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ndarray::{Array2, Array3, Axis};

use super::copernicus::{check_finite, class_of, of, place_of, unknown};
use super::decoding::Decoding;
use super::{Dataset, RawBand, RawSample, Sample, Split, Target, fingerprint, raw_images, wanted_images};
use crate::formats::geotiff;
use crate::formats::hdf5::{self, Dtype};
use crate::formats::parquet::Values;
use crate::formats::tortilla::{Entry, Tortilla};
use crate::task::{BlankPixels, Container, ContainerFile, Suite, TargetKind, Task, TaskImage};
use crate::transform::normalize::BandStatistics;
use crate::{Error, Result, remedy};

/// The only partition.
pub(super) const PARTITION: &str = "default";

/// The column that tells the files of a sample apart.
const MODALITY: &str = "modality";

/// Added to standard deviations before dividing by them [geobench_v2/datasets/normalization.py].
const EPSILON: f64 = 1e-6;

const DAMAGED: &str = "the file is damaged or belongs to another data set: fetch it again";

/// An opened task.
#[derive(Debug)]
pub(super) struct Geobench2 {
    task: Task,
    container: Container,
    decoding: Decoding,
    folder: PathBuf,
    parts: Vec<PathBuf>,
    samples: [Vec<ContainedSample>; 3],
    names: [Vec<String>; 3],
}

/// A sample in one of the parts.
#[derive(Debug)]
struct ContainedSample {
    part: usize,
    entry: Entry,
    /// The label, unless a file holds it.
    target: Option<Target>,
    /// Its index, read once.
    files: OnceLock<Arc<SampleFiles>>,
}

/// The files of a sample with the modality of each, if the index says it.
#[derive(Debug)]
struct SampleFiles {
    entries: Vec<Entry>,
    modalities: Option<Values>,
}

/// One step of a file: bands [bands, rows, columns] and their stored type.
struct Planes {
    dtype: String,
    pixels: Array3<f64>,
}

/// A decoded file: one step, or all steps of a series.
enum Decoded {
    Image(Arc<Planes>),
    Series(Series),
}

/// The dataset of an HDF5 file: numbers [steps, bands, rows, columns] and their stored type.
struct Series {
    dtype: Dtype,
    steps: usize,
    bands: [usize; 3],
    numbers: Vec<f32>,
}

/// The files of one sample that were decoded so far, by their place in the container: several images may share one.
type Cache = RefCell<BTreeMap<u64, Arc<Decoded>>>;

/// Finds the folder with a task's container below `root`, or `root` itself.
pub(super) fn folder(task: &Task, root: &Path) -> Option<PathBuf> {
    let container = task.container.as_ref()?;
    let candidates = [root.join(&task.directory), root.to_owned()];
    candidates.into_iter().find(|folder| !parts(folder, &container.name).is_empty())
}

/// Lists the files of a container, in the order of their numbers.
fn parts(folder: &Path, name: &str) -> Vec<PathBuf> {
    let whole = folder.join(format!("{name}.tortilla"));
    if whole.is_file() {
        return vec![whole];
    }
    let number = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_prefix(name)?;
        let number = name.strip_prefix('.')?.strip_suffix(".part.tortilla")?;
        number.bytes().all(|digit| digit.is_ascii_digit()).then(|| number.parse::<u32>().ok()).flatten()
    };
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts: BTreeMap<u32, PathBuf> = listed.filter_map(|path| Some((number(&path)?, path))).collect();
    parts.into_values().collect()
}

impl Geobench2 {
    /// Opens a task. `root` contains the task's folder, or is that folder.
    ///
    /// # Errors
    /// If the container or one of its parts is missing or damaged, or `partition` is not `default`.
    pub fn open(suite: &Suite, task: &Task, root: &Path, partition: &str) -> Result<Self> {
        if partition != PARTITION {
            return Err(Error::mismatch(format!("{} has no partition `{partition}`", suite.title))
                .help(format!("its only partition is `{PARTITION}`")));
        }
        let lacking = || Error::mismatch(format!("task {} has no `container`", task.name));
        let container = task.container.clone().ok_or_else(lacking)?;
        let folder = folder(task, root).ok_or_else(|| {
            let file = root.join(&task.directory).join(format!("{}.tortilla", container.name));
            Error::not_found(file, format!("no such file or parts of it; expected the data of {}", task.name))
                .help(remedy::get_data(suite, &[&task.name], Some(root)))
        })?;
        let parts = parts(&folder, &container.name);
        for (number, part) in parts.iter().enumerate() {
            let expected = folder.join(format!("{}.{number:04}.part.tortilla", container.name));
            if parts.len() > 1 && *part != expected {
                let problem = "no such file, but later parts are there";
                return Err(Error::not_found(expected, problem).help(remedy::get_data(
                    suite,
                    &[&task.name],
                    Some(root),
                )));
            }
        }
        let mut samples: [Vec<ContainedSample>; 3] = Default::default();
        let columns: Vec<&str> = container.label_column.iter().map(String::as_str).collect();
        for (number, part) in parts.iter().enumerate() {
            let index = Tortilla::open(part, &columns)?;
            let labels = container.label_column.as_ref().map(|name| (name, index.columns.get(name)));
            for (row, entry) in index.entries.into_iter().enumerate() {
                let wrong = |problem: String| Error::damaged(entry.path_in(part), problem).help(DAMAGED);
                let place = match entry.split.as_deref() {
                    Some("train") => 0,
                    Some("validation" | "val" | "valid") => 1,
                    Some("test") => 2,
                    other => {
                        let found = other.unwrap_or("none");
                        return Err(wrong(format!(
                            "expected the split train, validation or test, found {found}"
                        )));
                    }
                };
                let target = match labels {
                    None => None,
                    Some((name, column)) => {
                        let target = column.and_then(|column| label(task, column, row));
                        let expected = || {
                            let classes = task.classes.saturating_sub(1);
                            wrong(format!(
                                "column `{name}`: expected a class from 0 to {classes} or its name"
                            ))
                        };
                        Some(target.ok_or_else(expected)?)
                    }
                };
                samples[place].push(ContainedSample { part: number, entry, target, files: OnceLock::new() });
            }
        }
        let names = samples
            .each_ref()
            .map(|samples| samples.iter().map(|sample| sample.entry.id.clone()).collect::<Vec<String>>());
        for names in &names {
            let mut seen = BTreeSet::new();
            if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
                return Err(Error::damaged(&folder, format!("two samples of a split are called `{twice}`"))
                    .help("a part of another release lies there: remove it, and fetch the data set again"));
            }
        }
        let decoding = Decoding::of(suite.family, task);
        Ok(Geobench2 { task: task.clone(), container, decoding, folder, parts, samples, names })
    }

    fn sample(&self, split: Split, index: usize) -> Result<&ContainedSample> {
        let samples = of(&self.samples, split);
        samples.get(index).ok_or_else(|| {
            let problem = format!("no sample {index}; split {split} has {} samples", samples.len());
            Error::damaged(&self.folder, problem)
        })
    }

    fn part(&self, sample: &ContainedSample) -> &Path {
        self.parts.get(sample.part).map_or(self.folder.as_path(), PathBuf::as_path)
    }

    fn files(&self, sample: &ContainedSample) -> Result<Arc<SampleFiles>> {
        if let Some(files) = sample.files.get() {
            return Ok(Arc::clone(files));
        }
        let mut index = Tortilla::nested(self.part(sample), &sample.entry, &[MODALITY])?;
        let files = SampleFiles { entries: index.entries, modalities: index.columns.remove(MODALITY) };
        Ok(Arc::clone(sample.files.get_or_init(|| Arc::new(files))))
    }

    /// Makes an error about a file of a sample.
    fn wrong(&self, sample: &ContainedSample, entry: &Entry, problem: impl ToString) -> Error {
        let path = sample.entry.path_in(self.part(sample)).join(&entry.id);
        Error::damaged(path, problem).help(DAMAGED)
    }

    /// Finds a file of a sample; `None` if it is one that zeros may stand for.
    fn find<'f>(
        &self,
        sample: &ContainedSample,
        files: &'f SampleFiles,
        wanted: &ContainerFile,
    ) -> Result<Option<&'f Entry>> {
        let entries: Vec<&Entry> = match &wanted.modality {
            None => files.entries.iter().collect(),
            Some(modality) => {
                let is_it = |row: usize| {
                    files.modalities.as_ref().and_then(|names| names.text(row)) == Some(modality)
                };
                files
                    .entries
                    .iter()
                    .enumerate()
                    .filter(|(row, _)| is_it(*row))
                    .map(|(_, entry)| entry)
                    .collect()
            }
        };
        if wanted.if_there.as_ref().is_some_and(|id| files.entries.iter().all(|entry| entry.id != *id)) {
            return Ok(None);
        }
        let row = match (&wanted.modality, wanted.step) {
            (Some(_), Some([step, steps])) => match step_of(entries.len(), step, steps, Steps::First) {
                Some(row) => i64::try_from(row).unwrap_or(i64::MAX),
                None => return Ok(None),
            },
            _ => wanted.row,
        };
        let row = if row < 0 { i64::try_from(entries.len()).unwrap_or(0) + row } else { row };
        let found = usize::try_from(row).ok().and_then(|row| entries.get(row).copied());
        found.map(Some).ok_or_else(|| {
            let kind = wanted.modality.as_ref().map(|name| format!(" of `{name}`")).unwrap_or_default();
            let path = sample.entry.path_in(self.part(sample));
            let problem = format!("no file {}{kind}; found {}", wanted.row, entries.len());
            Error::damaged(path, problem).help(DAMAGED)
        })
    }

    /// Decodes one step of a file; `None` if it is one that zeros stand for.
    fn decode(
        &self,
        sample: &ContainedSample,
        entry: &Entry,
        wanted: &ContainerFile,
        cache: &Cache,
    ) -> Result<Option<Arc<Planes>>> {
        let known = cache.borrow().get(&entry.offset).cloned();
        let decoded = match known {
            Some(decoded) => decoded,
            None => {
                let path = sample.entry.path_in(self.part(sample)).join(&entry.id);
                let bytes = entry.bytes(self.part(sample))?;
                let decoded = Arc::new(match entry.format.as_str() {
                    "HDF5" => Decoded::Series(series(&path, bytes)?),
                    _ => Decoded::Image(Arc::new(image(&path, bytes)?)),
                });
                cache.borrow_mut().insert(entry.offset, Arc::clone(&decoded));
                decoded
            }
        };
        let planes = match decoded.as_ref() {
            Decoded::Image(planes) => Some(Arc::clone(planes)),
            Decoded::Series(series) => {
                let [step, steps] = wanted.step.filter(|_| wanted.modality.is_none()).unwrap_or([0, 1]);
                let found = step_of(series.steps, step, steps, Steps::EvenlySpaced);
                found.map(|step| series.planes(step)).transpose()?.map(Arc::new)
            }
        };
        Ok(planes.map(|planes| match wanted.transposed {
            true => {
                let pixels = planes.pixels.view().permuted_axes([0, 2, 1]).to_owned();
                Arc::new(Planes { dtype: planes.dtype.clone(), pixels })
            }
            false => planes,
        }))
    }

    /// Reads the file of an image; `None` if zeros stand for it.
    fn image(
        &self,
        sample: &ContainedSample,
        place: usize,
        source: &TaskImage,
        cache: &Cache,
    ) -> Result<Option<Arc<Planes>>> {
        let Some(wanted) = self.container.images.get(place) else { return Ok(None) };
        let files = self.files(sample)?;
        let Some(entry) = self.find(sample, &files, wanted)? else { return Ok(None) };
        let Some(planes) = self.decode(sample, entry, wanted, cache)? else { return Ok(None) };
        let (found, needed) = (planes.pixels.len_of(Axis(0)), wanted.first_band + source.stored_bands.len());
        if found < needed {
            return Err(self.wrong(sample, entry, format!("expected {needed} bands, found {found}")));
        }
        Ok(Some(planes))
    }

    /// Height and width of the images, from whichever file there is.
    fn size(&self, sample: &ContainedSample, cache: &Cache) -> Result<[usize; 2]> {
        for (place, source) in self.task.sources().iter().enumerate() {
            if let Some(planes) = self.image(sample, place, source, cache)? {
                let (_, rows, columns) = planes.pixels.dim();
                return Ok([rows, columns]);
            }
        }
        let files = self.files(sample)?;
        if let Some(label) = &self.container.label
            && let Some(entry) = self.find(sample, &files, label)?
            && let Some(planes) = self.decode(sample, entry, label, cache)?
        {
            let (_, rows, columns) = planes.pixels.dim();
            return Ok([rows, columns]);
        }
        let path = sample.entry.path_in(self.part(sample));
        Err(Error::damaged(path, "found none of the sample's images").help(DAMAGED))
    }

    /// Finds the pixels that are blank in the image at `place` [rows, columns]; `None` if the task has none.
    fn blank(
        &self,
        sample: &ContainedSample,
        place: usize,
        size: [usize; 2],
        cache: &Cache,
    ) -> Result<Option<Array2<bool>>> {
        let Some(BlankPixels { value, modality, zeros_of }) = &self.container.blank else { return Ok(None) };
        let mut blank = Array2::from_elem(size, false);
        let mut mark = |file: &ContainerFile, is_blank: &dyn Fn(f64) -> bool| -> Result<()> {
            let files = self.files(sample)?;
            let Some(entry) = self.find(sample, &files, file)? else { return Ok(()) };
            let Some(planes) = self.decode(sample, entry, file, cache)? else { return Ok(()) };
            for plane in planes.pixels.outer_iter() {
                if plane.dim() != blank.dim() {
                    let problem = format!("is {:?} pixels, but the image is {size:?}", plane.dim());
                    return Err(self.wrong(sample, entry, problem));
                }
                blank.zip_mut_with(&plane, |blank, pixel| *blank |= is_blank(*pixel));
            }
            Ok(())
        };
        if let (Some(value), Some(modality)) = (value, modality) {
            let step = self.container.images.get(place).and_then(|file| file.step).unwrap_or([0, 1]);
            let file = ContainerFile { modality: Some(modality.clone()), step: Some(step), ..file_at(0) };
            mark(&file, &|pixel| pixel as f32 == *value)?;
        }
        if let Some(row) = zeros_of {
            mark(&file_at(*row), &|pixel| pixel == 0.0)?;
        }
        Ok(Some(blank))
    }

    /// The number that blank pixels of a band are read as, in stored units: its mean.
    fn fill(&self, band: &str, label: Option<&str>) -> f32 {
        self.container.statistics_of(band, label).map_or(0.0, |of| of.mean)
    }

    /// Reads a sample's label, and its stored type if there is one per pixel.
    fn label(
        &self,
        sample: &ContainedSample,
        size: [usize; 2],
        cache: &Cache,
    ) -> Result<(Target, Option<String>)> {
        if let Some(target) = &sample.target {
            return Ok((target.clone(), None));
        }
        let missing = || Error::mismatch(format!("task {} has no label", self.task.name));
        let wanted = self.container.label.as_ref().ok_or_else(missing)?;
        let files = self.files(sample)?;
        let entry = self.find(sample, &files, wanted)?.ok_or_else(missing)?;
        let planes = self.decode(sample, entry, wanted, cache)?.ok_or_else(missing)?;
        let (bands, rows, columns) = planes.pixels.dim();
        if [rows, columns] != size || bands == 0 {
            let problem = format!(
                "the label has {bands} bands of {rows} x {columns} pixels; the image is {} x {}",
                size[0], size[1]
            );
            return Err(self.wrong(sample, entry, problem));
        }
        let plane = planes.pixels.index_axis(Axis(0), 0);
        let target = if self.task.target == TargetKind::ValueMap {
            Target::ValueMap(plane.mapv(|number| number as f32))
        } else {
            let class = |stored: &f64| {
                class_of(&self.task, *stored).ok_or_else(|| {
                    let problem = format!("{}: {}", self.task.name, unknown(&self.task, *stored));
                    self.wrong(sample, entry, problem)
                })
            };
            let classes = plane.iter().map(class).collect::<Result<Vec<i32>>>()?;
            Target::Mask(Array2::from_shape_vec(plane.dim(), classes).map_err(Error::mismatch)?)
        };
        Ok((target, Some(planes.dtype.clone())))
    }

    /// Files, and the parts that they lie in, for the fingerprint.
    fn sources(&self) -> Vec<fingerprint::Source> {
        let source = |path: &PathBuf| fingerprint::Source {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            path: path.clone(),
        };
        self.parts.iter().map(source).collect()
    }
}

fn file_at(row: i64) -> ContainerFile {
    ContainerFile { row, modality: None, step: None, first_band: 0, if_there: None, transposed: false }
}

/// How the steps of a shorter series are chosen from a longer one.
enum Steps {
    First,
    EvenlySpaced,
}

/// Returns the stored step behind step `step` of `steps`; `None` where zeros stand in front of a series of `stored` steps that
/// is too short.
fn step_of(stored: usize, step: usize, steps: usize, how: Steps) -> Option<usize> {
    if stored < steps {
        return step.checked_sub(steps - stored);
    }
    Some(match how {
        Steps::First => step,
        // The reference's arithmetic: a product of floats, cut.
        Steps::EvenlySpaced => (step as f64 * (stored as f64 / steps as f64)) as usize,
    })
}

/// Decodes an image.
fn image(path: &Path, bytes: Vec<u8>) -> Result<Planes> {
    let image = geotiff::Image::decode(path, bytes)?;
    let mut pixels = Array3::zeros((image.bands, image.rows, image.columns));
    for (band, mut plane) in pixels.outer_iter_mut().enumerate() {
        plane.assign(&image.band(band));
    }
    Ok(Planes { dtype: image.dtype().to_string(), pixels })
}

/// Decodes the dataset `data` [steps, bands, rows, columns], or without steps, or of one band.
fn series(path: &Path, bytes: Vec<u8>) -> Result<Series> {
    let file = hdf5::File::from_bytes(path, bytes)?;
    let datasets = file.datasets()?;
    let data = datasets.iter().find(|dataset| dataset.name() == "data");
    let data = data.ok_or_else(|| Error::damaged(path, "no dataset `data` found").help(DAMAGED))?;
    let (dtype, shape, numbers) = data.elements()?;
    let (steps, bands) = match shape[..] {
        [steps, bands, rows, columns] => (steps, [bands, rows, columns]),
        [bands, rows, columns] => (1, [bands, rows, columns]),
        [rows, columns] => (1, [1, rows, columns]),
        _ => return Err(data.error(format!("has shape {shape:?}; expected steps, bands, rows and columns"))),
    };
    if numbers.is_empty() {
        return Err(data.error(format!("has shape {shape:?}; expected at least one pixel")));
    }
    Ok(Series { dtype, steps, bands, numbers })
}

impl Series {
    fn planes(&self, step: usize) -> Result<Planes> {
        let size = self.bands.iter().product::<usize>();
        let numbers = self.numbers.get(step * size..(step + 1) * size);
        let numbers = numbers.ok_or_else(|| Error::mismatch(format!("no step {step} of {}", self.steps)))?;
        let numbers = numbers.iter().map(|number| f64::from(*number)).collect();
        let pixels = Array3::from_shape_vec(self.bands, numbers).map_err(Error::mismatch)?;
        Ok(Planes { dtype: self.dtype.to_string(), pixels })
    }
}

/// The label in a row of a column of the index.
fn label(task: &Task, column: &Values, row: usize) -> Option<Target> {
    let class = |name: &str| task.class_names.iter().position(|known| known == name);
    match (task.target, column) {
        (TargetKind::Class, Values::Texts(_)) => Some(Target::Class(class(column.text(row)?)?)),
        (TargetKind::Class, _) => {
            let number = column.number(row)?;
            let class = number as usize;
            (class as f64 == number && class < task.classes).then_some(Target::Class(class))
        }
        (TargetKind::Labels, Values::Lists(lists)) => {
            let mut labels = vec![false; task.classes];
            for name in lists.get(row)? {
                *labels.get_mut(class(name)?)? = true;
            }
            Some(Target::Labels(labels))
        }
        _ => None,
    }
}

impl Dataset for Geobench2 {
    fn samples(&self, split: Split) -> &[String] {
        of(&self.names, split).as_slice()
    }

    fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    fn files(&self, _: Split) -> Vec<PathBuf> {
        self.parts.clone()
    }

    fn bands(&self) -> Result<Vec<Vec<String>>> {
        Ok(self.task.sources().into_iter().map(|image| image.stored_bands).collect())
    }

    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample> {
        let sample = self.sample(split, index)?;
        let labels = self.task.image_labels();
        let cache = Cache::default();
        let mut size = None;
        let images = wanted_images(&self.task, bands, |place, source, bands| {
            let planes = self.image(sample, place, source, &cache)?;
            let [rows, columns] = match &planes {
                Some(planes) => [planes.pixels.len_of(Axis(1)), planes.pixels.len_of(Axis(2))],
                None => self.size(sample, &cache)?,
            };
            size.get_or_insert([rows, columns]);
            let blank = self.blank(sample, place, [rows, columns], &cache)?;
            let first = self.container.images.get(place).map_or(0, |file| file.first_band);
            let label = labels.get(place).and_then(Option::as_deref);
            let mut pixels = Array3::zeros((bands.len(), rows, columns));
            for (band, mut plane) in bands.iter().zip(pixels.outer_iter_mut()) {
                if let Some(planes) = &planes {
                    let stored =
                        planes.pixels.index_axis(Axis(0), first + place_of(&self.task, source, band)?);
                    plane.zip_mut_with(&stored, |pixel, stored| *pixel = *stored as f32);
                }
                if let Some(blank) = &blank {
                    let fill = self.fill(band, label);
                    plane.zip_mut_with(blank, |pixel, blank| {
                        if *blank || pixel.is_nan() {
                            *pixel = fill;
                        }
                    });
                }
                plane.mapv_inplace(|pixel| pixel * self.task.scale);
            }
            check_finite(&sample.entry.path_in(self.part(sample)), bands, &pixels)?;
            Ok(pixels)
        })?;
        let (target, _) = self.label(sample, size.unwrap_or_default(), &cache)?;
        Ok(Sample { name: sample.entry.id.clone(), images, target })
    }

    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample> {
        let sample = self.sample(split, index)?;
        let cache = Cache::default();
        let images = raw_images(&self.task, |place, source| {
            let planes = self.image(sample, place, source, &cache)?;
            let first = self.container.images.get(place).map_or(0, |file| file.first_band);
            let size = if planes.is_none() { self.size(sample, &cache)? } else { [0; 2] };
            let band = |(offset, name): (usize, &String)| RawBand {
                name: name.clone(),
                dtype: planes.as_ref().map_or_else(|| "uint8".to_owned(), |planes| planes.dtype.clone()),
                pixels: match &planes {
                    Some(planes) => planes.pixels.index_axis(Axis(0), first + offset).to_owned(),
                    None => Array2::zeros(size),
                },
            };
            Ok(source.stored_bands.iter().enumerate().map(band).collect())
        })?;
        let first = images.first().and_then(|image| image.bands.first());
        let size = first.map_or([0; 2], |band| [band.pixels.nrows(), band.pixels.ncols()]);
        let (target, label_dtype) = self.label(sample, size, &cache)?;
        Ok(RawSample { name: sample.entry.id.clone(), images, target, label_dtype })
    }

    /// With the numbers of blank pixels, and in one type: packed files know neither the blank ones nor several types.
    fn read_to_pack(&self, split: Split, index: usize) -> Result<RawSample> {
        let (sample, cache) = (self.sample(split, index)?, Cache::default());
        let mut raw = self.read_raw(split, index)?;
        let labels = self.task.image_labels();
        for (place, image) in raw.images.iter_mut().enumerate() {
            let label = labels.get(place).and_then(Option::as_deref);
            for band in &mut image.bands {
                let size = [band.pixels.nrows(), band.pixels.ncols()];
                let Some(blank) = self.blank(sample, place, size, &cache)? else { continue };
                let fill = f64::from(self.fill(&band.name, label));
                band.pixels.zip_mut_with(&blank, |pixel, blank| {
                    if *blank || pixel.is_nan() {
                        *pixel = fill;
                    }
                });
            }
        }
        let bands = || raw.images.iter().flat_map(|image| &image.bands);
        let first = bands().next().map(|band| band.dtype.clone());
        if self.container.blank.is_some() || bands().any(|band| Some(&band.dtype) != first.as_ref()) {
            let all = raw.images.iter_mut().flat_map(|image| &mut image.bands);
            all.for_each(|band| band.dtype = Dtype::Float32.to_string());
        }
        Ok(raw)
    }

    /// The constants of the benchmark's code, with what it adds to deviations.
    fn statistics(&self, image: usize, bands: &[String]) -> Result<Vec<BandStatistics>> {
        let label = self.task.image_labels().into_iter().nth(image).flatten();
        let scale = f64::from(self.task.scale);
        let of = |band: &String| {
            let known = self.container.statistics_of(band, label.as_deref());
            let known = known.ok_or_else(|| {
                Error::mismatch(format!("{}: no statistics of band {band}", self.task.name))
            })?;
            let (mean, std) = (f64::from(known.mean), f64::from(known.std));
            Ok(BandStatistics { mean: mean * scale, std: (std + EPSILON) * scale })
        };
        bands.iter().map(of).collect()
    }

    fn statistics_content(&self) -> Result<Option<(String, blake3::Hash)>> {
        let text = serde_json::to_vec(&self.container.statistics).map_err(Error::mismatch)?;
        Ok(Some(("constants".to_owned(), blake3::hash(&text))))
    }

    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        let samples = of(&self.samples, split);
        let hash = |index: usize| {
            let sample = &samples[index];
            let mut hasher = blake3::Hasher::new();
            sample.entry.hash_into(self.part(sample), &mut hasher)?;
            match &sample.target {
                Some(Target::Class(class)) => {
                    hasher.update(&(*class as u64).to_le_bytes());
                }
                Some(Target::Labels(labels)) => {
                    hasher.update(&labels.iter().map(|label| u8::from(*label)).collect::<Vec<u8>>());
                }
                _ => {}
            }
            Ok(hasher.finalize())
        };
        // Hashes are remembered per split: the list of files alone does not tell them apart.
        let mut sources = self.sources();
        for source in &mut sources {
            source.name = format!("{split}/{}/{}", self.container.name, source.name);
        }
        fingerprint::contents_of(&sources, samples.len(), fingerprint::memo().as_deref(), hash)
    }
}
