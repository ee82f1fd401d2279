//! What is measured, read from `benchmarks/*.toml`: suites, tasks and the tables they fill.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::home::{Home, read_toml};
pub use crate::metrics::{Metric, TargetKind};
use crate::task::Sensor;
use crate::task::bands::{Band, Imputation};
use crate::task::images::{self, Combine, TaskImage};
use crate::task::target::{self, TargetInterpolation, TargetStatistics};
use crate::{Error, Result, suggest};

/// A benchmark: its tasks and the tables that are published of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Suite {
    /// As on the command line: `geobench`.
    pub name: String,
    /// As in prose: `GEO-Bench`.
    pub title: String,
    /// Which reader of [`crate::data`] understands the files.
    pub family: Family,
    /// The environment variable that names the folder of the data.
    pub environment: String,
    /// The data set on the Hugging Face hub; empty where all data are generated (`--demo`).
    #[serde(default)]
    pub repository: String,
    /// What a band is called in the files, unless a task says otherwise.
    pub bands: BTreeMap<Band, String>,
    /// What `bench` runs where no protocol is named.
    pub default_protocols: Vec<String>,
    /// How pixels are normalised where neither the command line nor the task says so; without it by the data set's
    /// own statistics.
    #[serde(default)]
    pub normalization: Option<String>,
    /// How images are resized to the model's input; see [`crate::transform::resize::bilinear`].
    #[serde(default)]
    pub align_corners: bool,
    /// In the order of the tables.
    pub tasks: Vec<Task>,
    /// The published tables that this suite fills.
    pub tables: Vec<Table>,
    /// The picture of all of them, where there are enough columns for one.
    #[serde(default)]
    pub spider: Option<Spider>,
    /// The other suites and their tasks, for those who name the wrong suite.
    #[serde(skip)]
    others: OtherSuites,
}

/// A family of datasets that share a layout on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// One HDF5 file a sample, partitions in JSON.
    Geobench,
    /// HDF5 images and masks in folders of their own, a folder a split.
    Landslide4sense,
    /// GeoTIFF files with a list a split, or HDF5 with a row a sample; each task says which.
    CopernicusBench,
}

/// Where a task of Copernicus-Bench has its lists, images and labels; see [`crate::data::copernicus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetLayout {
    Cloud,
    Eurosat,
    BigearthnetS1,
    BigearthnetS2,
    Dfc2020S1,
    Dfc2020S2,
    Flood,
    Lcz,
}

/// One dataset of a suite with its label kind, classes and reported metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Task {
    /// As on the command line and in the files: `m-eurosat`.
    pub name: String,
    /// As in the tables: `m-EuroSat`.
    pub title: String,
    /// Relative to the suite's data folder.
    pub directory: PathBuf,
    pub target: TargetKind,
    /// Number of classes; for multi-label tasks the number of labels, for tasks of numbers 1.
    #[serde(default)]
    pub classes: usize,
    /// Names of the classes, where tables or pictures show them: as many as there are classes, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// The metric that the tables report.
    pub metric: Metric,
    /// What the numbers of `value` and `value-map` are counted in, as in tables: `Mg/ha`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Brings these numbers to mean 0 and standard deviation 1 for training; without it they are trained as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_statistics: Option<TargetStatistics>,
    /// How a map of numbers is rotated with its image; bilinear, where it is not given.
    #[serde(default, skip_serializing_if = "TargetInterpolation::is_default")]
    pub target_interpolation: TargetInterpolation,
    /// What the pixels are: `s1`, `s2-l1c` or `s2-l2a`.
    pub sensor: Sensor,
    /// The sensor that a model is told: `sensor`, where it is not given.
    pub input_sensor: Sensor,
    /// Height and width of the stored images in pixels.
    pub image_size: usize,
    /// How many samples the official release has.
    pub samples: SampleCounts,
    /// Stored values are multiplied by this on reading, statistics too, to give digital numbers.
    #[serde(default = "one")]
    pub scale: f32,
    /// Bands that the files lack and which band stands in for each.
    #[serde(default)]
    pub impute: Vec<Imputation>,
    /// Where names and contents of bands differ: the name under which each band's pixels are stored.
    #[serde(default)]
    pub by_content: BTreeMap<Band, String>,
    /// Bands that none of the stored ones holds, whatever the names say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_by_content: Vec<Band>,
    /// How files whose names and contents differ are recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick_look: Option<QuickLook>,
    /// Which of the family's layouts the files have, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<DatasetLayout>,
    /// The release's archive of the folder, which is read in place where the folder is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<PathBuf>,
    /// Where the files do not name their bands: the names in the order in which they are stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored_bands: Vec<String>,
    /// The images of a sample where it has several, one per sensor and date, the earlier date first; `sensor` and
    /// `input-sensor` are then the first one's. Without them see [`Task::sources`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<TaskImage>,
    /// How the features of several images become one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<Combine>,
    /// Stored pixels below the first become it, those above the second become that, and so do those that are no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<[f32; 2]>,
    /// Stored codes of a mask and what each becomes; others stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remap: Vec<(i32, i32)>,
    /// The label (after `remap`) of pixels that count for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<i32>,
    /// How pixels are normalised where the command line does not say so and the suite says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<String>,
    /// Height and width of the model's input in pixels, where the protocols set it and not the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_size: Option<usize>,
}

/// What of a [`Task`] decides numbers but for what is in the keys already: how its files are decoded
/// ([`crate::data::decoding`]), which bands and statistics are taken, and the input's size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DecidingTask<'a> {
    pub name: &'a str,
    pub label: TargetKind,
    pub classes: usize,
    pub metric: Metric,
    /// The sensors of several images, where they differ.
    #[serde(
        rename = "sensors",
        skip_serializing_if = "images::is_of_one_sensor",
        serialize_with = "images::input_sensors"
    )]
    pub images: &'a [TaskImage],
    #[serde(skip_serializing_if = "Combine::is_unwritten")]
    pub combine: Option<Combine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_statistics: Option<TargetStatistics>,
    #[serde(skip_serializing_if = "TargetInterpolation::is_default")]
    pub target_interpolation: TargetInterpolation,
}

impl Task {
    /// The part that decides. A new field must be told here on which side it is.
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
            // Decide how bytes become arrays: `Decoding`.
            layout: _,
            stored_bands: _,
            scale: _,
            clip: _,
            remap: _,
            ignore: _,
            // Decide what is taken of these arrays, which is in the keys: sensor, bands, strategies, size of the input.
            input_sensor: _,
            impute: _,
            by_content: _,
            absent_by_content: _,
            normalization: _,
            input_size: _,
            // Say where the files are, whose content is in the keys.
            directory: _,
            archive: _,
            // Labels.
            title: _,
            class_names: _,
            unit: _,
            sensor: _,
            // Only recognises files, and notes it.
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
        }
    }

    /// How its numbers are normalised for training.
    pub fn target_statistics(&self) -> TargetStatistics {
        self.target_statistics.unwrap_or(TargetStatistics::NONE)
    }

    /// What each class is called, in order: its name, without names `class <index>`.
    pub fn class_labels(&self) -> Vec<String> {
        let name = |class: usize| self.class_names.get(class).cloned();
        (0..self.classes).map(|class| name(class).unwrap_or_else(|| format!("class {class}"))).collect()
    }
}

fn one() -> f32 {
    1.0
}

/// Stored bands that are red, green and blue of a stretched picture, whatever they are called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct QuickLook {
    /// Stored names.
    pub bands: Vec<String>,
    /// No pixel is above it.
    pub maximum: f64,
}

/// The official number of samples of each split of the `default` partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleCounts {
    pub train: usize,
    pub valid: usize,
    pub test: usize,
}

impl SampleCounts {
    /// The count of one split.
    pub fn of(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train,
            Split::Valid => self.valid,
            Split::Test => self.test,
        }
    }
}

/// A table of the papers: which cells fill it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Table {
    /// `<file>.md` and `<file>.csv` among the results.
    pub file: String,
    pub title: String,
    /// A file of `benchmarks/published/`; empty where nothing is published.
    #[serde(default)]
    pub published: String,
    /// The protocols of our rows, files of `configs/protocols/`.
    pub protocols: Vec<String>,
    /// Columns, outer.
    pub tasks: Vec<String>,
    /// Columns, inner.
    pub partitions: Vec<String>,
    /// Further scores of a record, each a column behind that of the metric: `iou_landslide`.
    #[serde(default)]
    pub scores: Vec<String>,
    /// Whether models are the rows or the columns.
    #[serde(default)]
    pub layout: TableLayout,
    /// Whether the published values are the metric as the reference reports it, the mean over batches, where a record
    /// has that too.
    #[serde(default)]
    pub reported: bool,
    /// How the published values name what ours are compared with, where they name it otherwise.
    #[serde(default)]
    pub published_as: PublishedAs,
}

/// What the rows of a table are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableLayout {
    #[default]
    ModelsAsRows,
    DatasetsAsRows,
}

/// Our names, and those of a table's published values. What is not named here is called alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PublishedAs {
    #[serde(default)]
    pub models: BTreeMap<String, String>,
    /// Protocols of the same published name fill one row (or column) together.
    #[serde(default)]
    pub protocols: BTreeMap<String, String>,
    #[serde(default)]
    pub backbones: BTreeMap<String, String>,
}

impl PublishedAs {
    /// What `ours` is called there.
    pub fn name<'a>(names: &'a BTreeMap<String, String>, ours: &'a str) -> &'a str {
        names.get(ours).map_or(ours, String::as_str)
    }
}

/// A spider plot: columns of the suite's tables as axes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Spider {
    pub title: String,
    /// In the order of the axes, clockwise from above.
    pub axes: Vec<SpiderAxes>,
    /// The published models that are shown unless others are asked for.
    pub models: Vec<String>,
}

/// The columns of one table as axes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SpiderAxes {
    /// The table's `file`.
    pub table: String,
    /// Only the columns of this partition.
    pub partition: String,
    /// What tells the axis from another of the same task: `k-NN`.
    #[serde(default)]
    pub label: String,
}

impl Suite {
    /// Reads `benchmarks/<name>.toml`.
    ///
    /// # Errors
    /// Where there is no such suite, or the file has unknown keys or names a task twice or not at all.
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
                return Err(Error::damaged(&path, format!("task `{}` stands there twice", task.name)));
            }
            if let Some(problem) = target::problem(task) {
                return Err(Error::damaged(&path, problem));
            }
            let named = task.class_names.len();
            if named != 0 && named != task.classes {
                let problem = format!("task `{}` names {named} of its {} classes", task.name, task.classes);
                return Err(Error::damaged(&path, problem));
            }
            if suite.family == Family::CopernicusBench
                && (task.layout.is_none() || (task.stored_bands.is_empty() && task.images.is_empty()))
            {
                let problem = format!("task `{}` lacks `layout` or `stored-bands`", task.name);
                return Err(Error::damaged(&path, problem));
            }
            if suite.family != Family::CopernicusBench && task.clip.is_some() {
                let problem = format!("task `{}`: this family's reader knows no `clip`", task.name);
                return Err(Error::damaged(&path, problem));
            }
            if let Some(problem) = task.image_problem(suite.family) {
                return Err(Error::damaged(&path, format!("task `{}` {problem}", task.name)));
            }
            if task.clip.is_some_and(|[low, high]| low.partial_cmp(&high) != Some(Ordering::Less)) {
                let problem =
                    format!("task `{}`: `clip` must be two numbers, the lower one first", task.name);
                return Err(Error::damaged(&path, problem));
            }
        }
        for table in &suite.tables {
            for task in &table.tasks {
                suite.task(task).map_err(|_| {
                    Error::damaged(&path, format!("table `{}` names the unknown task `{task}`", table.file))
                })?;
            }
        }
        for axes in suite.spider.iter().flat_map(|spider| &spider.axes) {
            if !suite.tables.iter().any(|table| table.file == axes.table) {
                let problem = format!("the spider plot names the unknown table `{}`", axes.table);
                return Err(Error::damaged(&path, problem));
            }
        }
        Ok(suite)
    }

    /// The same with `sensor` in the place of another one of Sentinel-2.
    #[must_use]
    pub fn with_input_sensor(mut self, sensor: Sensor) -> Self {
        let both = |a: Sensor, b: Sensor| (a == Sensor::S1) == (b == Sensor::S1);
        let inputs = self.tasks.iter_mut().flat_map(|task| {
            let images = task.images.iter_mut().map(|image| &mut image.input_sensor);
            std::iter::once(&mut task.input_sensor).chain(images)
        });
        inputs.filter(|input| both(**input, sensor)).for_each(|input| *input = sensor);
        self
    }

    /// The task of that name.
    ///
    /// # Errors
    /// Where the suite has none: the message lists the names.
    pub fn task(&self, name: &str) -> Result<&Task> {
        self.tasks.iter().find(|task| task.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
            let help = match self.others.with_task(name) {
                Some(suite) => format!("suite `{suite}` has it; {} has {}", self.name, known.join(", ")),
                None => suggest::help(name, &known, "its tasks"),
            };
            Error::request(format!("{} has no task `{name}`", self.title)).help(help)
        })
    }
}

/// All suites, looked at only once a task is not found in one.
#[derive(Debug, Clone, Default)]
struct OtherSuites {
    home: Option<Home>,
}

/// What of a suite is looked at.
#[derive(Deserialize)]
struct Named {
    tasks: Vec<NamedTask>,
}

#[derive(Deserialize)]
struct NamedTask {
    name: String,
}

impl OtherSuites {
    /// The suite that has a task of that name.
    fn with_task(&self, name: &str) -> Option<String> {
        let home = self.home.as_ref()?;
        let has = |suite: &String| {
            let named = read_toml::<Named>(&home.suite(suite));
            named.is_ok_and(|suite| suite.tasks.iter().any(|task| task.name == name))
        };
        home.suites().ok()?.into_iter().find(has)
    }
}

/// A part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    Train,
    Valid,
    Test,
}

impl Split {
    /// In the order of partition files.
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
