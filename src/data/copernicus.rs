//! Copernicus-Bench as released: GeoTIFF images with one list per split, in a folder or in the release's zip archive
//! [hub data set wangyi111/Copernicus-Bench; zhu-xlab/Copernicus-FM, Copernicus-Bench/src/datasets].
//!
//! ```text
//! cloud_s2/{train,val,test}.csv            names; s2_toa/<name>.tif, cloud/<name>.tif
//! cloud_s3/{train,val,test}.csv            <name>.tif; s3_olci/<name>.tif, cloud_multi/<name>.tif
//! eurosat_s1/eurosat-{train,val,test}.txt  <Class>_N.jpg; all_imgs/<Class>/<Class>_N.tif
//! eurosat-spatial-{train,val,test}.txt     the same names, by longitude; beside eurosat_s2 or in it
//! bigearthnet_s1s2/multilabel-{split}.csv  s1_path, s2_path, 19 labels; below BigEarthNet-S1-5%/ and BigEarthNet-S2-5%/
//! dfc2020_s1s2/dfc-{split}-new.csv         <a>_dfc_<b>.tif; dfc/<a>_dfc_<b>.tif, s1/<a>_s1_<b>.tif, s2/<a>_s2_<b>.tif
//! flood_s1/grid_dict_{train,val,test}.json one object per sample; one file per band and date: see `flood`
//! lcz_s2/lcz_{train,val,test}.h5           rows of HDF5 datasets: see `lcz`
//! lc100_s3/multilabel-{split}.csv          <place>, 23 labels; the image is named in the next list
//! lc100_s3/static_fnames-{split}.csv       <place>,<file>; s3_olci/<place>/<file>, one file per date, lc100/<place>.tif
//! biomass_s3/static_fnames-{split}.csv     the same with biomass/<place>.tif
//! airquality_s5p/{no2,o3}/{split}.csv      <place>; s5p_annual/<place>/, s5p_seasonal/<place>/, label_annual/<place>.tif
//! ```
//!
//! The images of the last three folders differ in size, and from their labels; `resample` in the suite makes them equal.

mod files;
mod flood;
mod item;
mod lcz;
mod lists;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3};

use self::files::Files;
use self::item::{ListedSample, TargetPlace};
use super::decoding::Decoding;
use super::{
    Dataset, RawBand, RawSample, Sample, Split, Target, clip, computed, indices_of_wanted, raw_images,
    resample, wanted_images,
};
use crate::formats::geotiff::Image;
use crate::formats::hdf5::Dtype;
use crate::task::{DatasetLayout, Suite, TargetKind, Task, TaskImage};
use crate::transform::normalize::BandStatistics;
use crate::{Error, Result, remedy};

/// The only partition.
pub const PARTITION: &str = "default";

/// Alternative name of the LCZ-S2 folder.
const LCZ_WITH_S1: &str = "lcz_s1s2";

/// The first of torchgeo's lists, which are not part of the release: see [`DatasetLayout::EurosatSpatial`].
const SPATIAL_LIST: &str = "eurosat-spatial-train.txt";

/// Opens a task. `root` contains the folder named in the suite or its archive, or is that folder itself.
///
/// # Errors
/// If neither folder nor archive exists, a list is missing or damaged, or `partition` is not `default`.
pub fn open(suite: &Suite, task: &Task, root: &Path, partition: &str) -> Result<Box<dyn Dataset>> {
    if partition != PARTITION {
        return Err(Error::mismatch(format!("{} has no partition `{partition}`", suite.title))
            .help(format!("its only partition is `{PARTITION}`")));
    }
    let place = place(task, root).ok_or_else(|| {
        let problem = match task.layout {
            Some(DatasetLayout::EurosatSpatial) => {
                format!(
                    "expected this folder or its archive, and torchgeo's {SPATIAL_LIST} in it or beside it"
                )
            }
            _ => format!("no such folder; expected the data of {}", task.name),
        };
        Error::damaged(root.join(&task.directory), problem).help(remedy::get_data(
            suite,
            &[&task.name],
            Some(root),
        ))
    })?;
    let decoding = Decoding::of(suite.family, task);
    match task.layout {
        Some(DatasetLayout::Lcz) => Ok(Box::new(lcz::Lcz::open(task, decoding, &place)?)),
        Some(layout) => Ok(Box::new(Copernicus::open(task, decoding, layout, place)?)),
        None => Err(Error::mismatch(format!("task {} has no `layout`", task.name))),
    }
}

/// Returns a task's folder below `root`, or its archive; `None` if neither exists.
pub(crate) fn place(task: &Task, root: &Path) -> Option<PathBuf> {
    let lists = [root.join(SPATIAL_LIST), root.join(&task.directory).join(SPATIAL_LIST)];
    if task.layout == Some(DatasetLayout::EurosatSpatial) && !lists.iter().any(|list| list.is_file()) {
        return None;
    }
    let other = (task.layout == Some(DatasetLayout::Lcz)).then_some(Path::new(LCZ_WITH_S1));
    let mut folders = [Some(task.directory.as_path()), other].into_iter().flatten();
    folders
        .clone()
        .map(|folder| root.join(folder))
        .find(|folder| folder.is_dir())
        .or_else(|| task.archive.iter().map(|archive| root.join(archive)).find(|archive| archive.is_file()))
        // `root` may be the task's folder itself.
        .or_else(|| folders.any(|folder| root.ends_with(folder) && root.is_dir()).then(|| root.to_owned()))
}

/// A task made of GeoTIFF images.
#[derive(Debug)]
struct Copernicus {
    task: Task,
    decoding: Decoding,
    files: Files,
    items: [Vec<ListedSample>; 3],
    names: [Vec<String>; 3],
}

pub(super) fn of<T>(splits: &[T; 3], split: Split) -> &T {
    let [train, valid, test] = splits;
    match split {
        Split::Train => train,
        Split::Valid => valid,
        Split::Test => test,
    }
}

impl Copernicus {
    fn open(task: &Task, decoding: Decoding, layout: DatasetLayout, place: PathBuf) -> Result<Self> {
        let files = match place.is_dir() {
            true => Files::folder(place),
            false => Files::archive(place, &task.directory.to_string_lossy())?,
        };
        let read = |split| lists::read(task, layout, &files, split);
        let items = [read(Split::Train)?, read(Split::Valid)?, read(Split::Test)?];
        let names = items.each_ref().map(|items| items.iter().map(|item| item.name.clone()).collect());
        Ok(Copernicus { task: task.clone(), decoding, files, items, names })
    }

    fn item(&self, split: Split, index: usize) -> Result<&ListedSample> {
        let items = of(&self.items, split);
        items.get(index).ok_or_else(|| {
            Error::damaged(
                self.files.root(),
                format!("no sample {index}; split {split} has {} samples", items.len()),
            )
        })
    }

    fn decode(&self, split: Split, name: &str) -> Result<Image> {
        let path = self.files.path(name);
        let bytes = self.files.read(name).map_err(|error| match self.files.has(name) {
            true => error,
            false => Error::not_found(&path, format!("no such file, but the list of split {split} names it")).help(
                "the data set is incomplete or damaged: `cargo xtask doctor` lists every problem and says how to fetch it again",
            ),
        })?;
        Image::decode(&path, bytes)
    }

    /// Makes an error about the contents of a file.
    fn wrong(&self, name: &str, problem: String) -> Error {
        Error::damaged(self.files.path(name), problem)
            .help("the file is damaged or belongs to another data set: fetch it again")
    }

    /// The task's images, each with the index of its first band among all bands of the sample.
    fn sources(&self) -> Vec<(usize, TaskImage)> {
        let mut first = 0;
        let mut placed = |image: TaskImage| {
            let place = first;
            first += image.stored_bands.len();
            (place, image)
        };
        self.task.sources().into_iter().map(&mut placed).collect()
    }

    /// Reads the files that hold the bands at `places`, indices among the bands of all the sample's images.
    fn stored(&self, split: Split, item: &ListedSample, places: &[usize]) -> Result<Stored> {
        let bands = self.task.sources().iter().map(|image| image.stored_bands.len()).sum::<usize>();
        let bands_a_file = bands / item.images.len().max(1);
        let mut stored = Stored { bands_a_file, files: BTreeMap::new() };
        for place in places {
            let file = place / bands_a_file.max(1);
            if stored.files.contains_key(&file) {
                continue;
            }
            let name = item.images.get(file).map_or("", String::as_str);
            let wrong = |problem| self.wrong(name, problem);
            let image = self.decode(split, name)?;
            if image.bands != bands_a_file {
                let found = image.bands;
                return Err(wrong(format!(
                    "expected {bands_a_file} bands for {}, found {found}",
                    self.task.name
                )));
            }
            let [rows, columns] = [image.rows, image.columns];
            // Images of several dates that are resampled anyway may differ; the bands of one image may not.
            let is_one_image =
                bands_a_file >= self.task.sources().first().map_or(0, |image| image.stored_bands.len());
            let may_differ = self.task.resample.is_some() && is_one_image;
            if let Some(first) = stored.files.values().next()
                && [rows, columns] != [first.rows, first.columns]
                && !may_differ
            {
                return Err(wrong(format!(
                    "is {rows} x {columns} pixels, but the sample's other files are {} x {}",
                    first.rows, first.columns
                )));
            }
            stored.files.insert(file, image);
        }
        Ok(stored)
    }

    /// Reads a sample's label as stored, and its stored type if there is one per pixel. It must have the size of the image,
    /// `size`, unless the task resamples both.
    fn label(
        &self,
        split: Split,
        item: &ListedSample,
        size: Option<[usize; 2]>,
    ) -> Result<(Target, Option<Dtype>)> {
        let name = match &item.target {
            TargetPlace::Known(target) => return Ok((target.clone(), None)),
            TargetPlace::File(name) => name,
        };
        let stored = self.decode(split, name)?;
        let wrong = |problem| self.wrong(name, problem);
        let what = if self.task.target == TargetKind::ValueMap { "map" } else { "mask" };
        let expected = match size {
            Some(size) if self.task.resample.is_none() => size,
            _ => [stored.rows, stored.columns],
        };
        if (stored.bands, [stored.rows, stored.columns]) != (1, expected) {
            let found = format!("{} bands of {} x {} pixels", stored.bands, stored.rows, stored.columns);
            let [rows, columns] = expected;
            return Err(wrong(format!(
                "the {what} has {found}; the image needs 1 band of {rows} x {columns} pixels"
            )));
        }
        let dtype = Some(stored.dtype());
        let pixels = stored.band(0);
        if self.task.target == TargetKind::ValueMap {
            let largest = self.task.largest_value.map_or(f64::INFINITY, f64::from);
            let number = |stored: f64| if stored.abs() > largest { f32::NAN } else { stored as f32 };
            return Ok((Target::ValueMap(pixels.mapv(number)), dtype));
        }
        let class = |stored: &f64| {
            class_of(&self.task, *stored)
                .ok_or_else(|| wrong(format!("{}: {}", self.task.name, unknown(&self.task, *stored))))
        };
        let classes = pixels.iter().map(class).collect::<Result<Vec<i32>>>()?;
        let mask = Array2::from_shape_vec(pixels.dim(), classes).map_err(Error::mismatch)?;
        Ok((Target::Mask(mask), dtype))
    }

    /// Converts the requested bands of each image to indices among the bands of all images.
    fn places_of(&self, bands: &[Vec<String>]) -> Result<Vec<Vec<usize>>> {
        let sources = self.sources();
        let of_image = |(bands, (first, source)): (&Vec<String>, &(usize, TaskImage))| {
            bands.iter().map(|band| Ok(first + place_of(&self.task, source, band)?)).collect()
        };
        bands.iter().zip(&sources).map(of_image).collect()
    }
}

/// Decoded files of a sample. Files that form one image have the same size.
struct Stored {
    /// Bands per file: a band's index among the task's divided by this is its file, the remainder its place in that file.
    bands_a_file: usize,
    files: BTreeMap<usize, Image>,
}

impl Stored {
    /// Returns longitude and latitude of the file of a requested band, as the reference computes them: of the pixel at half
    /// the height and width, rounded down.
    fn place(&self, place: usize) -> Option<[f32; 2]> {
        let (file, _) = self.band(place);
        let degrees = file.georeference?.degrees(file.rows / 2, file.columns / 2);
        Some(degrees.map(|degrees| degrees as f32)).filter(|place| place.iter().all(|x| x.is_finite()))
    }

    /// Returns rows and columns of the file of a requested band.
    fn size(&self, place: usize) -> [usize; 2] {
        let (file, _) = self.band(place);
        [file.rows, file.columns]
    }

    /// Returns the file of a requested band and the band's index in that file.
    fn band(&self, place: usize) -> (&Image, usize) {
        (&self.files[&(place / self.bands_a_file)], place % self.bands_a_file)
    }
}

/// Index of a stored band among the bands of its image.
pub(super) fn place_of(task: &Task, image: &TaskImage, band: &str) -> Result<usize> {
    image.stored_bands.iter().position(|stored| stored == band).ok_or_else(|| {
        Error::mismatch(format!("{} has no band `{band}`", task.name))
            .help(format!("available bands: {}", image.stored_bands.join(", ")))
    })
}

/// Maps a stored mask code to a class or to the task's ignored label; `None` if the code is unknown.
pub(super) fn class_of(task: &Task, stored: f64) -> Option<i32> {
    // The cast saturates for values outside i32; the comparison below rejects them.
    let code = stored as i32;
    if f64::from(code) != stored {
        return None;
    }
    let mapped = task.remap.iter().find(|(from, _)| *from == code).map(|(_, to)| *to).or(task.remap_others);
    let class = mapped.unwrap_or(code);
    let known = task.ignore == Some(class) || usize::try_from(class).is_ok_and(|class| class < task.classes);
    // If the task maps codes, only mapped codes are classes.
    (known && (task.remap.is_empty() || mapped.is_some())).then_some(class)
}

pub(super) fn unknown(task: &Task, stored: f64) -> String {
    let codes: Vec<String> = match task.remap.as_slice() {
        [] => vec![format!("0 to {}", task.classes.saturating_sub(1))],
        remap => remap.iter().map(|(from, _)| from.to_string()).collect(),
    };
    format!("the mask contains {stored}; expected one of {}", codes.join(", "))
}

/// Checks that every pixel of a band is finite.
pub(super) fn check_finite(path: &Path, bands: &[String], image: &Array3<f32>) -> Result<()> {
    for (band, plane) in bands.iter().zip(image.outer_iter()) {
        if let Some(((row, column), pixel)) = plane.indexed_iter().find(|(_, pixel)| !pixel.is_finite()) {
            let problem = format!("band {band}: the pixel at row {row}, column {column} is {pixel}");
            return Err(Error::damaged(path, problem).help("the file is damaged: fetch it again"));
        }
    }
    Ok(())
}

impl Dataset for Copernicus {
    fn samples(&self, split: Split) -> &[String] {
        of(&self.names, split).as_slice()
    }

    fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    fn files(&self, split: Split) -> Vec<PathBuf> {
        let names = of(&self.items, split).iter().flat_map(ListedSample::files);
        let mut paths: Vec<PathBuf> = names.map(|name| self.files.on_disk(name)).collect();
        paths.dedup();
        paths
    }

    fn bands(&self) -> Result<Vec<Vec<String>>> {
        Ok(self.task.sources().into_iter().map(|image| image.stored_bands).collect())
    }

    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample> {
        let item = self.item(split, index)?;
        let places = self.places_of(bands)?;
        let requested = places.concat();
        let stored = self.stored(split, item, &requested)?;
        let sources = self.sources();
        let mut images = wanted_images(&self.task, bands, |image, _, bands| {
            let places = &places[image];
            let [rows, columns] = stored.size(places[0]);
            let mut pixels = Array3::zeros((places.len(), rows, columns));
            for (place, plane) in places.iter().zip(pixels.outer_iter_mut()) {
                let (file, band) = stored.band(*place);
                file.copy_to(&[band], &mut [plane]);
            }
            clip(&self.task, &mut pixels);
            resample::fill_missing(&self.task, &mut pixels);
            if stored.files.values().any(|file| file.dtype().is_float()) {
                let first = item.images.first().map_or("", String::as_str);
                check_finite(&self.files.path(first), bands, &pixels)?;
            }
            let first = sources[image].0;
            let in_image: Vec<usize> = places.iter().map(|place| place - first).collect();
            resample::scaled_and_resampled(&self.task, &in_image, pixels)
        })?;
        for (image, index) in images.iter_mut().zip(indices_of_wanted(bands)) {
            image.day = item.days.get(index).copied().flatten();
            image.place = places[index].first().and_then(|place| stored.place(*place));
        }
        let (target, dtype) = self.label(split, item, requested.first().map(|place| stored.size(*place)))?;
        let target = resample::resampled(&self.task, target, dtype)?;
        Ok(Sample { name: item.name.clone(), images, target })
    }

    fn days(&self, split: Split) -> Vec<Vec<Option<f64>>> {
        of(&self.items, split).iter().map(|item| item.days.clone()).collect()
    }

    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample> {
        let item = self.item(split, index)?;
        let sources = self.sources();
        let all: usize = sources.iter().map(|(_, image)| image.stored_bands.len()).sum();
        let stored = self.stored(split, item, &(0..all).collect::<Vec<usize>>())?;
        let (target, label_dtype) = self.label(split, item, (all > 0).then(|| stored.size(0)))?;
        let mut images = raw_images(&self.task, |image, source| {
            let bands = source.stored_bands.iter().zip(sources[image].0..).map(|(name, place)| {
                let (file, band) = stored.band(place);
                RawBand { name: name.clone(), dtype: file.dtype().to_string(), pixels: file.band(band) }
            });
            Ok(bands.collect())
        })?;
        for (index, image) in images.iter_mut().enumerate() {
            image.day = item.days.get(index).copied().flatten();
            image.place = sources.get(index).and_then(|(first, _)| stored.place(*first));
        }
        Ok(RawSample {
            name: item.name.clone(),
            images,
            target,
            label_dtype: label_dtype.map(|dtype| dtype.to_string()),
        })
    }

    fn statistics(&self, image: usize, bands: &[String]) -> Result<Vec<BandStatistics>> {
        computed::statistics(self, &self.task, image, bands)
    }

    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        let items = of(&self.items, split);
        let names: Vec<&str> = items.iter().flat_map(ListedSample::files).map(String::as_str).collect();
        let mut contents = self.files.contents(&names)?.into_iter();
        let both = items.iter().map(|item| {
            let mut hasher = blake3::Hasher::new();
            for content in contents.by_ref().take(item.files().count()) {
                hasher.update(content.as_bytes());
            }
            match &item.target {
                TargetPlace::Known(Target::Class(class)) => hasher.update(&(*class as u64).to_le_bytes()),
                TargetPlace::Known(Target::Labels(labels)) => {
                    hasher.update(&labels.iter().map(|label| u8::from(*label)).collect::<Vec<u8>>())
                }
                TargetPlace::Known(Target::Value(value)) => hasher.update(&value.to_le_bytes()),
                TargetPlace::Known(Target::Mask(_) | Target::ValueMap(_)) | TargetPlace::File(_) => {
                    &mut hasher
                }
            };
            hasher.finalize()
        });
        Ok(both.collect())
    }
}
