//! Suites, tasks and the tables they fill, read from `benchmarks/*.toml`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::home::{Home, read_toml};
pub use crate::metrics::{Metric, TargetKind};
use crate::task::bands::{Band, Imputation};
use crate::task::capabilities::Capabilities;
use crate::task::container::Container;
use crate::task::images::{self, Combine, TaskImage};
use crate::task::target::{self, MaskResize, Resample, TargetInterpolation, TargetStatistics};
use crate::task::{ResizeRule, Sensor};
use crate::{Error, Result, suggest};

/// A benchmark: its tasks and the published tables.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Suite {
    /// Name on the command line: `geobench`.
    pub name: String,
    /// Name in prose: `GEO-Bench`.
    pub title: String,
    /// Selects the reader in [`crate::data`].
    pub family: Family,
    /// Environment variable with the path of the data folder.
    pub environment: String,
    /// Data set on the Hugging Face hub; empty if all data are generated (`--demo`).
    #[serde(default)]
    pub repository: String,
    /// Name of each band in the files, unless a task overrides it.
    pub bands: BTreeMap<Band, String>,
    /// Protocols that `bench` runs if none is named.
    pub default_protocols: Vec<String>,
    /// The same with `--demo`, where the default protocols would take too long; empty for the default ones.
    #[serde(default)]
    pub demo_protocols: Vec<String>,
    /// Models that `--demo` runs one after the other if none is chosen: those that together take all sensors. Empty for `demo`.
    #[serde(default)]
    pub demo_models: Vec<String>,
    /// Normalisation used if neither the command line nor the task chooses one; if unset, the data set's own
    /// statistics.
    #[serde(default)]
    pub normalization: Option<String>,
    /// How images are resized to the model's input; see [`crate::transform::resize::bilinear`].
    #[serde(default)]
    pub align_corners: bool,
    /// The tasks, in the order of the tables.
    pub tasks: Vec<Task>,
    /// Data sets of the benchmark that this program does not measure, each with the reason.
    #[serde(default)]
    pub unsupported: BTreeMap<String, String>,
    /// The published tables that this suite fills.
    pub tables: Vec<Table>,
    /// Spider plot over all tables, drawn if there are enough columns.
    #[serde(default)]
    pub spider: Option<Spider>,
    /// Further spider plots, by the names of their files.
    #[serde(default)]
    pub spiders: BTreeMap<String, Spider>,
    /// Scores over several tasks.
    #[serde(default)]
    pub aggregates: Vec<Aggregate>,
    /// The benchmark's scores over groups of tasks.
    #[serde(default)]
    pub capabilities: Option<Capabilities>,
    /// The rule of [`Suite::with_resize`], if it is not the suite's own.
    #[serde(skip)]
    pub resize: Option<ResizeRule>,
    /// The other suites and their tasks, for hints when a task belongs to another suite.
    #[serde(skip)]
    others: OtherSuites,
}

/// A family of datasets with the same layout on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// One HDF5 file per sample, partitions in JSON.
    Geobench,
    /// HDF5 images and masks in separate folders, with one subfolder per split.
    Landslide4sense,
    /// GeoTIFF files with one list per split, or HDF5 with one row per sample, depending on the task.
    CopernicusBench,
    /// Containers with the files of all samples, see [`Container`].
    Geobench2,
}

/// Layout of a Copernicus-Bench task: its lists, images and labels; see [`crate::data::copernicus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetLayout {
    /// Cloud-S2.
    Cloud,
    /// Cloud-S3.
    CloudS3,
    /// EuroSAT-S1 and EuroSAT-S2.
    Eurosat,
    /// EuroSAT-S2's files with torchgeo's lists, which split by longitude.
    EurosatSpatial,
    /// The Sentinel-1 images of BigEarthNet.
    BigearthnetS1,
    /// The Sentinel-2 images of BigEarthNet.
    BigearthnetS2,
    /// The Sentinel-1 images of DFC2020.
    Dfc2020S1,
    /// The Sentinel-2 images of DFC2020.
    Dfc2020S2,
    /// Flood-S1.
    Flood,
    /// LCZ-S2.
    Lcz,
    /// LC100Cls-S3: the labels of LC100 per image.
    Lc100Cls,
    /// LC100Seg-S3: the classes of LC100 per pixel.
    Lc100Seg,
    /// Biomass-S3.
    BiomassS3,
    /// AQ-NO2-S5P and AQ-O3-S5P.
    AirQuality,
}

impl DatasetLayout {
    /// Whether the files of a sample may be images of several dates.
    pub(crate) fn has_several_dates(self) -> bool {
        matches!(
            self,
            DatasetLayout::Flood
                | DatasetLayout::Lc100Cls
                | DatasetLayout::Lc100Seg
                | DatasetLayout::BiomassS3
                | DatasetLayout::AirQuality
        )
    }
}

/// One dataset of a suite with its kind of target, classes and reported metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Task {
    /// Name on the command line and in the files: `m-eurosat`.
    pub name: String,
    /// Name in the tables: `m-EuroSat`.
    pub title: String,
    /// Path relative to the suite's data folder.
    pub directory: PathBuf,
    /// What is predicted.
    pub target: TargetKind,
    /// Number of classes, of labels for multi-label tasks, or 1 for regression tasks.
    #[serde(default)]
    pub classes: usize,
    /// Names of the classes as shown in tables and pictures: one per class, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// The metric that the tables report.
    pub metric: Metric,
    /// Unit of the numbers of `value` and `value-map` tasks as shown in tables: `Mg/ha`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Standardises these numbers to mean 0 and standard deviation 1 for training; if unset, they are used as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_statistics: Option<TargetStatistics>,
    /// How a value map is rotated together with its image; bilinear by default.
    #[serde(default, skip_serializing_if = "TargetInterpolation::is_default")]
    pub target_interpolation: TargetInterpolation,
    /// Sensor of the stored pixels: `s1`, `s2-l1c` or `s2-l2a`.
    pub sensor: Sensor,
    /// Sensor passed to the model; `sensor` by default.
    pub input_sensor: Sensor,
    /// Height and width of the stored images in pixels.
    pub image_size: usize,
    /// Ground sampling distance of the stored images in metres, for models that use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gsd_m: Option<f32>,
    /// Number of samples in the official release.
    pub samples: SampleCounts,
    /// Factor from stored values to digital numbers, applied to pixels and statistics on reading.
    #[serde(default = "one")]
    pub scale: f32,
    /// Bands missing from the files, and the band that replaces each.
    #[serde(default)]
    pub impute: Vec<Imputation>,
    /// Name of each band in the task's files, in place of the suite's names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bands: BTreeMap<Band, String>,
    /// For files whose band names are wrong: the name under which each band's pixels are actually stored.
    #[serde(default)]
    pub by_content: BTreeMap<Band, String>,
    /// Bands that the files do not contain under any name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_by_content: Vec<Band>,
    /// How to recognise files whose band names are wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick_look: Option<QuickLook>,
    /// Layout of the files, if the family has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<DatasetLayout>,
    /// The release's archive of the folder, read in place if the folder does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<PathBuf>,
    /// Band names in stored order, if the files do not name their bands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored_bands: Vec<String>,
    /// The images of a sample if it has several, one per sensor and date, earlier dates first; `sensor` and
    /// `input-sensor` then equal those of the first image. If empty, see [`Task::sources`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<TaskImage>,
    /// How the features of several images are combined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<Combine>,
    /// Clip stored pixels to `[min, max]`; NaN becomes `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<[f32; 2]>,
    /// Stored pixels that are NaN become this number, before scaling and resampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nan_pixels: Option<f32>,
    /// A further factor per stored band of an image, in stored order, where bands have their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub band_scales: Vec<f32>,
    /// Resample images and their labels to one size on reading, before normalisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resample: Option<Resample>,
    /// Resample bands that are smaller than the largest one that is read, such as those of another camera, to its size, by cubic
    /// splines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resample_bands: bool,
    /// Numbers of a value map whose absolute value exceeds this count as not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_value: Option<f32>,
    /// Pairs of a stored mask code and its replacement; codes not listed stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remap: Vec<(i32, i32)>,
    /// Replacement of every whole mask code that `remap` does not list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remap_others: Option<i32>,
    /// Label (after `remap`) of pixels excluded from training and scoring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<i32>,
    /// Normalisation for this task, overriding the suite's; the command line overrides both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<String>,
    /// Height and width of the model's input in pixels, if the task sets it instead of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_size: Option<usize>,
    /// How UPerNet resizes masks to the model's input, to train and score at that size; by default masks keep theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_resize: Option<MaskResize>,
    /// Where images and labels lie in the container of the family [`Family::Geobench2`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// The fields of a [`Task`] that affect results and are not in the keys otherwise. The decoding of files
/// ([`crate::data::decoding`]), bands, statistics and the input size are in the keys already.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DecidingTask<'a> {
    /// Like [`Task::name`].
    pub name: &'a str,
    /// Like [`Task::target`].
    pub label: TargetKind,
    /// Like [`Task::classes`].
    pub classes: usize,
    /// Like [`Task::metric`].
    pub metric: Metric,
    /// The images' input sensors, unless all are the same.
    #[serde(
        rename = "sensors",
        skip_serializing_if = "images::is_of_one_sensor",
        serialize_with = "images::input_sensors"
    )]
    pub images: &'a [TaskImage],
    /// Like [`Task::combine`].
    #[serde(skip_serializing_if = "Combine::is_unwritten")]
    pub combine: Option<Combine>,
    /// Like [`Task::target_statistics`](field@Task::target_statistics).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_statistics: Option<TargetStatistics>,
    /// Like [`Task::target_interpolation`].
    #[serde(skip_serializing_if = "TargetInterpolation::is_default")]
    pub target_interpolation: TargetInterpolation,
    /// Like [`Task::mask_resize`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_resize: Option<MaskResize>,
}

impl Task {
    /// Returns the fields that affect results. A new field of [`Task`] must be assigned to one side here.
    pub fn deciding(&self) -> DecidingTask<'_> {
        let Task {
            name,
            target,
            classes,
            metric,
            images,
            combine,
            target_statistics,
            target_interpolation,
            mask_resize,
            // Decide how bytes become arrays; part of `Decoding`.
            container: _,
            layout: _,
            stored_bands: _,
            scale: _,
            clip: _,
            nan_pixels: _,
            band_scales: _,
            resample: _,
            resample_bands: _,
            largest_value: _,
            remap: _,
            remap_others: _,
            ignore: _,
            // Decide which part of these arrays is used; part of the keys as sensor, bands, strategies, input size.
            input_sensor: _,
            impute: _,
            bands: _,
            by_content: _,
            absent_by_content: _,
            normalization: _,
            input_size: _,
            // Part of the keys as metadata, if the model uses it.
            gsd_m: _,
            // Locate the files; the keys contain their content.
            directory: _,
            archive: _,
            // Only shown.
            title: _,
            class_names: _,
            unit: _,
            sensor: _,
            // Only recognises files and leads to a note.
            quick_look: _,
            image_size: _,
            samples: _,
        } = self;
        DecidingTask {
            name,
            label: *target,
            classes: *classes,
            metric: *metric,
            images,
            combine: *combine,
            target_statistics: *target_statistics,
            target_interpolation: *target_interpolation,
            mask_resize: *mask_resize,
        }
    }

    /// Describes a setting of the decoding that the family's reader does not support, or that contradicts another one.
    fn decoding_problem(&self, family: Family) -> Option<String> {
        let Task { clip, nan_pixels, band_scales, resample, largest_value, remap_others, .. } = self;
        if self.resample_bands && family != Family::Geobench {
            return Some("the reader of this family does not support `resample-bands`".to_owned());
        }
        if family != Family::CopernicusBench || self.layout == Some(DatasetLayout::Lcz) {
            let used = [
                ("clip", clip.is_some() && family != Family::CopernicusBench),
                ("nan-pixels", nan_pixels.is_some()),
                ("band-scales", !band_scales.is_empty()),
                ("resample", resample.is_some()),
                ("largest-value", largest_value.is_some()),
                ("remap-others", remap_others.is_some() && family != Family::Geobench2),
            ];
            let (setting, _) = used.into_iter().find(|(_, used)| *used)?;
            return Some(format!("the reader of this family does not support `{setting}`"));
        }
        let bands = self.sources().into_iter().map(|image| image.stored_bands.len());
        let mut others = bands.filter(|bands| !band_scales.is_empty() && *bands != band_scales.len());
        if let Some(bands) = others.next() {
            return Some(format!(
                "expected {bands} `band-scales`, one per stored band, found {}",
                band_scales.len()
            ));
        }
        if resample.is_some_and(|resample| resample.side == 0) {
            return Some("`resample` needs a `side` above 0".to_owned());
        }
        if resample.is_some_and(|resample| resample.side != self.image_size) {
            return Some(format!(
                "expected the `image-size` that `resample` gives, found {}",
                self.image_size
            ));
        }
        let finite = |number: &f32| number.is_finite();
        (!(nan_pixels.iter().all(finite)
            && band_scales.iter().all(finite)
            && largest_value.iter().all(finite)))
        .then(|| "`nan-pixels`, `band-scales` and `largest-value` must be finite".to_owned())
    }

    /// Returns the statistics that standardise the target for training.
    pub fn target_statistics(&self) -> TargetStatistics {
        self.target_statistics.unwrap_or(TargetStatistics::NONE)
    }

    /// Returns the label of each class, in order: its name, or `class <index>` if classes have no names.
    pub fn class_labels(&self) -> Vec<String> {
        let name = |class: usize| self.class_names.get(class).cloned();
        (0..self.classes).map(|class| name(class).unwrap_or_else(|| format!("class {class}"))).collect()
    }
}

fn one() -> f32 {
    1.0
}

fn yes() -> bool {
    true
}

/// Bands to show as red, green and blue in a picture stretched to the full range, whatever they are called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct QuickLook {
    /// Stored names of the bands shown as red, green and blue.
    pub bands: Vec<String>,
    /// Upper limit of the pixels.
    pub maximum: f64,
}

/// The official number of samples per split in the `default` partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleCounts {
    /// Training samples.
    pub train: usize,
    /// Validation samples.
    pub valid: usize,
    /// Test samples.
    pub test: usize,
}

impl SampleCounts {
    /// Returns the count of one split.
    pub fn of(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train,
            Split::Valid => self.valid,
            Split::Test => self.test,
        }
    }
}

/// A published table and the cells that fill it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Table {
    /// File name without extension: the results contain `<file>.md` and `<file>.csv`.
    pub file: String,
    /// Heading above the table.
    pub title: String,
    /// A file in `benchmarks/published/`; empty if nothing is published.
    #[serde(default)]
    pub published: String,
    /// Protocols of our rows, files in `configs/protocols/`.
    pub protocols: Vec<String>,
    /// Whether runs take tasks and partitions from this table. If not, it only shows what was measured of its tasks.
    #[serde(default = "yes")]
    pub is_run: bool,
    /// Protocols that stand for another one for some models, by name: a row's label names the one that it uses.
    #[serde(default)]
    pub in_place_of: BTreeMap<String, String>,
    /// Tasks, the outer level of the columns.
    pub tasks: Vec<String>,
    /// Partitions, the inner level of the columns.
    pub partitions: Vec<String>,
    /// The metric of a task's columns where the table reports another one than the task.
    #[serde(default)]
    pub metrics: BTreeMap<String, Metric>,
    /// Further scores of a record, such as `iou_landslide`, each shown in a column after the metric.
    #[serde(default)]
    pub scores: Vec<String>,
    /// Whether models are rows or columns.
    #[serde(default)]
    pub layout: TableLayout,
    /// Whether the published values are the mean of the metric over batches, as the reference reports it. If so, our value
    /// is the same mean if the record has it.
    #[serde(default)]
    pub reported: bool,
    /// Published names of models, protocols and backbones, if they differ from ours.
    #[serde(default)]
    pub published_as: PublishedAs,
}

impl Table {
    /// Whether the label of a row names `protocol`; `is_used` says which protocols the row's records have.
    pub fn names(&self, protocol: &str, is_used: impl Fn(&str) -> bool) -> bool {
        let is_replaced = || {
            let others = self.in_place_of.iter().filter(|(_, replaced)| *replaced == protocol);
            others.map(|(other, _)| other).any(|other| is_used(other))
        };
        is_used(protocol) || (!self.in_place_of.contains_key(protocol) && !is_replaced())
    }
}

/// What the rows of a table are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableLayout {
    #[default]
    /// One row per model, one column per task and partition.
    ModelsAsRows,
    /// One row per task, one column per model.
    DatasetsAsRows,
}

/// Maps our names to those in a table's published values. Names not listed are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PublishedAs {
    #[serde(default)]
    /// Published name of each model.
    pub models: BTreeMap<String, String>,
    /// Published name of each protocol. Protocols with the same published name share one row (or column).
    #[serde(default)]
    pub protocols: BTreeMap<String, String>,
    #[serde(default)]
    /// Published name of each backbone, or of the backbone of one model: `SoftCon ViT-Base`.
    pub backbones: BTreeMap<String, String>,
}

impl PublishedAs {
    /// Returns the published name of `ours`.
    pub fn name<'a>(names: &'a BTreeMap<String, String>, ours: &'a str) -> &'a str {
        names.get(ours).map_or(ours, String::as_str)
    }

    /// Returns the published name of the backbone of `model`.
    pub fn backbone<'a>(&'a self, model: &str, ours: &'a str) -> &'a str {
        match self.backbones.get(&format!("{model} {ours}")) {
            Some(own) => own,
            None => Self::name(&self.backbones, ours),
        }
    }
}

/// A spider plot whose axes are columns of the suite's tables.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Spider {
    /// Title above the plot.
    pub title: String,
    /// The axes, clockwise from the top.
    pub axes: Vec<SpiderAxes>,
    /// Published models shown by default.
    pub models: Vec<String>,
}

/// A score over the tasks of a table: each value scaled between the task's lowest and highest, then the interquartile mean over
/// tasks and seeds [ServiceNow/geo-bench, geobench/plot_tools.py].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Aggregate {
    /// File name without extension of its picture.
    pub file: String,
    /// Title above the picture.
    pub title: String,
    /// The table's [`Table::file`], of which the columns of partition `default` count.
    pub table: String,
    /// Tasks of the table.
    pub tasks: Vec<String>,
    /// File in `benchmarks/published/` with the lowest and highest value of each task.
    pub ranges: String,
    /// File in `benchmarks/published/` with values of single runs of published models; empty if there is none.
    #[serde(default)]
    pub runs: String,
}

/// Columns of one table used as axes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SpiderAxes {
    /// The table's [`Table::file`].
    pub table: String,
    /// Partition whose columns are used.
    pub partition: String,
    /// Suffix that distinguishes the axis from others of the same task: `k-NN`.
    #[serde(default)]
    pub label: String,
}

impl Suite {
    /// Returns the name of each band in the files of `task`.
    pub fn band_names<'a>(&'a self, task: &'a Task) -> &'a BTreeMap<Band, String> {
        if task.bands.is_empty() { &self.bands } else { &task.bands }
    }

    /// Returns the band that the files of `task` call `stored`; one of that name if neither suite nor task lists it, with hyphens
    /// in the place of characters that names of bands cannot have.
    ///
    /// # Errors
    /// If the name is empty or too long.
    pub fn band_of(&self, task: &Task, stored: &str) -> Result<Band> {
        let known = self.band_names(task).iter().find(|(_, name)| *name == stored).map(|(band, _)| *band);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        known.map_or_else(|| stored.chars().map(plain).collect::<String>().parse(), Ok)
    }

    /// Reads `benchmarks/<name>.toml`.
    ///
    /// # Errors
    /// If the suite does not exist, or the file has unknown keys, duplicate tasks or inconsistent settings.
    pub fn load(home: &Home, name: &str) -> Result<Self> {
        let path = home.suite(name);
        if !path.is_file() {
            let help = suggest::help(name, &home.suites()?, "suites");
            return Err(Error::request(format!("no suite `{name}`")).help(help));
        }
        let mut suite: Suite = read_toml(&path)?;
        suite.others = OtherSuites { home: Some(home.clone()) };
        let of_numbers = |task: &&mut Task| task.target.is_numeric() && task.classes == 0;
        suite.tasks.iter_mut().filter(of_numbers).for_each(|task| task.classes = 1);
        for (i, task) in suite.tasks.iter().enumerate() {
            if suite.tasks[..i].iter().any(|other| other.name == task.name) {
                return Err(Error::damaged(&path, format!("duplicate task `{}`", task.name)));
            }
            if let Some(problem) = target::problem(task) {
                return Err(Error::damaged(&path, problem));
            }
            let named = task.class_names.len();
            if named != 0 && named != task.classes {
                let problem = format!(
                    "task `{}` has {named} class names; expected {} or none",
                    task.name, task.classes
                );
                return Err(Error::damaged(&path, problem));
            }
            if suite.family == Family::CopernicusBench
                && (task.layout.is_none() || (task.stored_bands.is_empty() && task.images.is_empty()))
            {
                let problem = format!("task `{}` needs `layout` and `stored-bands`", task.name);
                return Err(Error::damaged(&path, problem));
            }
            if let Some(problem) = task.container_problem(suite.family) {
                return Err(Error::damaged(&path, format!("task `{}`: {problem}", task.name)));
            }
            if let Some(problem) = task.decoding_problem(suite.family) {
                return Err(Error::damaged(&path, format!("task `{}`: {problem}", task.name)));
            }
            if task.gsd_m.is_some_and(|gsd| !(gsd > 0.0 && gsd.is_finite())) {
                let problem = format!("task `{}`: `gsd-m` must be a number of metres above 0", task.name);
                return Err(Error::damaged(&path, problem));
            }
            if let Some(problem) = task.image_problem(suite.family) {
                return Err(Error::damaged(&path, format!("task `{}` {problem}", task.name)));
            }
            if task.clip.is_some_and(|[low, high]| low.partial_cmp(&high) != Some(Ordering::Less)) {
                let problem = format!("task `{}`: `clip` must be `[min, max]` with min below max", task.name);
                return Err(Error::damaged(&path, problem));
            }
        }
        for table in &suite.tables {
            for task in &table.tasks {
                suite.task(task).map_err(|_| {
                    Error::damaged(
                        &path,
                        format!("table `{}` refers to the unknown task `{task}`", table.file),
                    )
                })?;
            }
        }
        for (table, name, metric) in suite
            .tables
            .iter()
            .flat_map(|table| table.metrics.iter().map(move |(task, metric)| (&table.file, task, *metric)))
        {
            let task = suite.tasks.iter().find(|task| task.name == *name);
            if !task.is_some_and(|task| metric.about().fits.contains(&task.target)) {
                let problem = format!("table `{table}`: {metric} is no metric of a task `{name}`");
                return Err(Error::damaged(&path, problem));
            }
        }
        for aggregate in &suite.aggregates {
            let table = suite.tables.iter().find(|table| table.file == aggregate.table);
            let is_there = |task: &&String| table.is_some_and(|table| table.tasks.contains(task));
            if table.is_none()
                || aggregate.tasks.is_empty()
                || !aggregate.tasks.iter().all(|task| is_there(&task))
            {
                let problem = format!(
                    "aggregate `{}`: expected a table with all of its tasks, at least one",
                    aggregate.file
                );
                return Err(Error::damaged(&path, problem));
            }
        }
        let tables: Vec<&str> = suite.tables.iter().map(|table| table.file.as_str()).collect();
        let tasks: Vec<&str> = suite.tasks.iter().map(|task| task.name.as_str()).collect();
        let capabilities = suite.capabilities.as_ref();
        if let Some(problem) = capabilities.and_then(|found| found.problem(&tables, &tasks)) {
            return Err(Error::damaged(&path, problem));
        }
        for axes in suite.spider.iter().chain(suite.spiders.values()).flat_map(|spider| &spider.axes) {
            if !suite.tables.iter().any(|table| table.file == axes.table) {
                let problem = format!("the spider plot refers to the unknown table `{}`", axes.table);
                return Err(Error::damaged(&path, problem));
            }
        }
        Ok(suite)
    }

    /// Replaces the sensor of all Sentinel-2 tasks, and of those whose bands may be matched with Sentinel-2's, by `sensor`.
    #[must_use]
    pub fn with_input_sensor(mut self, sensor: Sensor) -> Self {
        let both = |a: Sensor, b: Sensor| (a.has_alternatives() || a.is_camera()) && b.has_alternatives();
        let inputs = self.tasks.iter_mut().flat_map(|task| {
            let images = task.images.iter_mut().map(|image| &mut image.input_sensor);
            std::iter::once(&mut task.input_sensor).chain(images)
        });
        inputs.filter(|input| both(**input, sensor)).for_each(|input| *input = sensor);
        self
    }

    /// Resizes images by another rule than the suite's code does.
    #[must_use]
    pub fn with_resize(mut self, rule: ResizeRule) -> Self {
        if ResizeRule::of(self.align_corners) != rule {
            self.align_corners = rule == ResizeRule::AlignCorners;
            self.resize = Some(rule);
        }
        self
    }

    /// Finds a task by name.
    ///
    /// # Errors
    /// If the suite has no such task: the message lists its tasks.
    pub fn task(&self, name: &str) -> Result<&Task> {
        self.tasks.iter().find(|task| task.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
            if let Some(reason) = self.unsupported.get(name) {
                let problem = format!("{}: `{name}` is not supported: {reason}", self.title);
                return Error::request(problem).help(format!("its other tasks: {}", known.join(", ")));
            }
            let help = match self.others.with_task(name) {
                Some(suite) => format!(
                    "the task belongs to suite `{suite}`; tasks of {}: {}",
                    self.name,
                    known.join(", ")
                ),
                None => suggest::help(name, &known, "its tasks"),
            };
            Error::request(format!("{} has no task `{name}`", self.title)).help(help)
        })
    }
}

/// All suites, read only if a task is not found in one.
#[derive(Debug, Clone, Default)]
struct OtherSuites {
    home: Option<Home>,
}

/// The part of a suite's file that is needed to find a task.
#[derive(Deserialize)]
struct Named {
    tasks: Vec<NamedTask>,
}

#[derive(Deserialize)]
struct NamedTask {
    name: String,
}

impl OtherSuites {
    /// Finds the suite that has a task of this name.
    fn with_task(&self, name: &str) -> Option<String> {
        let home = self.home.as_ref()?;
        let has = |suite: &String| {
            let named = read_toml::<Named>(&home.suite(suite));
            named.is_ok_and(|suite| suite.tasks.iter().any(|task| task.name == name))
        };
        home.suites().ok()?.into_iter().find(has)
    }
}

/// A split of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Training samples.
    Train,
    /// Validation samples, used to select hyperparameters.
    Valid,
    /// Test samples, on which scores are reported.
    Test,
}

impl Split {
    /// All splits, in the order of partition files.
    pub const ALL: [Split; 3] = [Split::Train, Split::Valid, Split::Test];
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        })
    }
}
