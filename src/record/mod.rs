//! Records: the result of one finished cell and everything that decides its number. [`Store`] keeps one atomically written
//! file per record, [`predictions`] the predictions behind it; [`frame()`] lays records out as a data frame.

mod collection;
pub mod contribution;
mod frame;
mod listing;
pub mod merge;
mod migrate;
mod note;
pub mod predictions;
mod setting;
mod store;
pub(crate) mod unreadable;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

pub use self::collection::{Collection, StoredRecord, collect, collect_usable};
pub use self::frame::frame;
pub use self::note::Note;
pub use self::setting::{Aspect, SettingKey, protocol_settings, short};
pub use self::store::{Staged, Store, Usable, read_record};
pub use self::unreadable::{Reason, Unreadable};
use crate::device::Precision;
use crate::features::Preparation;
use crate::features::vectors::{PREFIX, UNKNOWN};
pub use crate::metrics::Interval;
use crate::model::config::{BandMatch, DecidingModel, Inputs};
use crate::model::{Coverage, Pooling};
use crate::protocol::ProtocolConfig;
use crate::task::ResizeRule;
use crate::task::Sensor;
use crate::task::bands::{Channels, Imputation};
use crate::task::{DecidingTask, Metadata, MetadataKind, Metric};
use crate::{Error, Result};

/// Version of the record files that are written. Raise it when a field changes, and upgrade older records in
/// `migrate.rs`.
pub const SCHEMA: u32 = 2;

/// Version of the code that computes the numbers. Raise it with every change that moves one: cells recorded under
/// an older version are then recomputed.
pub const PROTOCOL_VERSION: u32 = 2;

/// Hexadecimal digits of a fingerprint: 128 bits.
const FINGERPRINT_DIGITS: usize = 32;

/// One cell of a table: the unit of work, of resuming and of recording.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cell {
    /// Name of the suite.
    pub suite: String,
    /// Name of the task.
    pub task: String,
    /// Name of the partition.
    pub partition: String,
    /// Name of the protocol.
    pub protocol: String,
    /// Name of the model, as shown in tables.
    pub model: String,
    /// Name of its backbone, as shown in tables.
    pub backbone: String,
    /// Seed of the run.
    pub seed: u64,
}

/// A finished cell: scores, interval, hyperparameters selected on validation, provenance.
///
/// In JSON, numbers have 15 significant digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// Version of the file format: [`SCHEMA`] once read.
    pub schema: u32,
    /// Identifies the record: [`Deciding::fingerprint`].
    pub fingerprint: String,
    /// [`Deciding::settings`]: equal in records that may be averaged over seeds.
    pub settings: String,
    /// [`Deciding::request`]: what was requested. Finds finished cells when data or weights are not
    /// available. Empty in older records.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// [`predictions::digest`] of the predictions that the value was computed from; a file with another digest does not
    /// belong to this record. `None` in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<String>,
    /// Whether the data were generated: never a benchmark number.
    pub demo: bool,
    /// Whether the protocol was shortened on the command line: never a benchmark number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
    /// The cell.
    pub cell: Cell,
    /// The metric shown in the tables.
    pub metric: Metric,
    /// Value of the metric on the test split, in the metric's unit ([`Metric::about`]).
    pub value: f64,
    /// Bootstrap interval of `value`, if the protocol computes one.
    pub interval: Option<Interval>,
    /// Further scores by name, each in its unit ([`crate::metrics::Scale::of_score`]).
    pub scores: BTreeMap<String, f64>,
    /// Hyperparameters by name, chosen on validation or fixed.
    pub selected: BTreeMap<String, String>,
    /// Number of samples used per split.
    pub samples: BTreeMap<String, usize>,
    /// The protocol's settings: see [`protocol_settings`]. Empty if unknown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub protocol_settings: BTreeMap<String, String>,
    /// What a reader must know about the value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// Where the value comes from.
    pub provenance: Provenance,
}

/// Everything about where a number comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Provenance {
    /// Version of the program.
    pub terrabench: String,
    /// Git revision that the program was built from, if it was built in a checkout.
    pub git_revision: Option<String>,
    /// Whether the sources differed from that revision at build time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub git_dirty: bool,
    /// blake3 hash of each config file read, by `suite`, `model`, `protocol`, `normalization`. (Records of schema 1 have
    /// only `checkout`: the git revision of the configs' folder.)
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, String>,
    /// blake3 hash of the weights file, `random:<seed>` (see [`Provenance::random_weights`]), `none` for a model without
    /// parameters, or `vectors:blake3:<hash>` of the files with the task's features (see [`Provenance::is_vectors`]).
    pub weights: String,
    /// How much of the model the weights cover: see [`Provenance::coverage`].
    pub coverage: Coverage,
    /// blake3 hash of the samples and statistics that were read.
    pub data: String,
    /// blake3 hash of the test features, for protocols on frozen features: equal hashes show that a setting had no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
    /// Sensor passed to the model. Called `stem` in records before version 0.2.
    #[serde(alias = "stem")]
    pub sensor: Sensor,
    /// The images of each sample, in order, if it has several; `sensor` is then that of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<RecordedImage>,
    /// How tokens were pooled to one vector per image; `None` in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// The subset of the model's bands that it received: `all`, `rgb` or names.
    #[serde(default = "all_channels")]
    pub channels: String,
    /// Whether the model received the bands of the published numbers or the bands it was trained on.
    #[serde(default)]
    pub inputs: Inputs,
    /// The stored band behind each input band, in order; with several images each is followed by its image's label:
    /// `VV before`, `02 - Blue s2-l1c`.
    pub bands: Vec<String>,
    /// How bands were identified: `as-named` or `by-content`.
    pub band_names: String,
    /// Bands replaced by others.
    pub imputed: Vec<Imputation>,
    /// Bands of the images that the model took as its own, with its bands, if it lacks the images' sensor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matched: Vec<BandMatch>,
    /// `dataset`, `sweep` (the chosen strategy is then in [`Record::selected`]) or the name of a strategy.
    pub normalization: String,
    /// Height and width of the model's input in pixels; 0 if unknown.
    pub image_size: usize,
    /// Number of blocks that the features come after; `None` for the whole model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// How images were resized, if not as the suite's code does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<ResizeRule>,
    /// The model whose features stand beside each of this model's: its name, and its weights as in [`Provenance::weights`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
    /// How fast the model was and how much memory it took, if the run computed features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// The number format in which the frozen model computed.
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    /// What files of features, or the user, say about how the features were made, by name. Nothing of it is checked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declared: BTreeMap<String, String>,
    /// Name of the contributor whose contribution the record was read from; `None` for own records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// What the model was given about each image besides its pixels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<MetadataKind>,
    /// What the model's original takes about an image and the task did not give, each with what stood in for it: `date (July
    /// assumed)`. Follows from model and task. Empty in older records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stand_ins: Vec<String>,
    /// The command that computes the value again: see [`crate::run::command`]. Empty in older records.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// Device of the run.
    pub device: String,
    /// Name of the graphics processor, as its driver says it, where that is known; several are joined by ` + `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Version of the graphics driver, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Number of threads.
    pub threads: usize,
    /// Time of completion, Unix time in seconds.
    pub finished: u64,
    /// Duration in seconds of wall-clock time.
    pub wall_seconds: f64,
}

/// A second model whose features stand beside each of the first one's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Beside {
    /// Its name and backbone.
    pub model: String,
    /// Its weights, like [`Provenance::weights`].
    pub weights: String,
}

/// How fast a frozen model gave features on the device of the run. Says nothing about the value, so it is not part of the
/// fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Speed {
    /// Images encoded per second of work in the encoder, without reading and preprocessing.
    pub images_per_second: f64,
    /// The most memory that the program had taken by the end: of the process on the CPU, of the processors on NVIDIA's. `None`
    /// where the system does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

/// One of several images per sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecordedImage {
    /// Sensor passed to the model.
    pub sensor: Sensor,
    /// Label of its date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

fn all_channels() -> String {
    "all".to_owned()
}

impl Provenance {
    /// Lists the sensors passed to the model without duplicates: `s2-l1c`, `s1 + s2-l1c`.
    pub fn sensors(&self) -> String {
        let mut names = vec![self.sensor.name()];
        for image in &self.images {
            if !names.contains(&image.sensor.name()) {
                names.push(image.sensor.name());
            }
        }
        names.join(" + ")
    }

    /// How much of the model the weights cover. Weights called `random:<seed>` always count as random.
    pub fn coverage(&self) -> Coverage {
        if self.weights.starts_with("random:") { Coverage::Random } else { self.coverage }
    }

    /// Whether another program computed the features, so that no model ran.
    pub fn is_vectors(&self) -> bool {
        self.weights.starts_with(PREFIX)
    }

    /// The weights as a setting: equal in records that may share a row. The files with the features of each task have a
    /// hash of their own, so for these it is what was declared of the weights.
    pub fn weights_setting(&self) -> String {
        match (self.is_vectors(), self.declared.get("weights")) {
            // A model's variants for several sensors share the weights, and only some read language vectors.
            (false, _) => self.weights.split("+language:").next().unwrap_or_default().to_owned(),
            (true, Some(declared)) => format!("{PREFIX}{declared}"),
            (true, None) => format!("{PREFIX}{UNKNOWN}"),
        }
    }

    /// The size of the model's input: `224 x 224`, or `unknown`.
    pub fn input_size(&self) -> String {
        match self.image_size {
            0 => UNKNOWN.to_owned(),
            side => format!("{side} x {side}"),
        }
    }

    /// Whether the model kept its random initial weights.
    pub fn random_weights(&self) -> bool {
        self.coverage() == Coverage::Random
    }

    /// Whether part of the model kept random weights, so that the value must not be compared with others.
    pub fn partial_weights(&self) -> bool {
        matches!(self.coverage(), Coverage::Partial { .. })
    }
}

/// Everything that decides the number of a cell, and nothing else: excludes device, threads, time, the program's version and
/// mere labels (titles, names of models and of protocol files).
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deciding<'a> {
    /// [`PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// [`crate::features::FEATURES_VERSION`].
    pub features_version: u32,
    /// Whether the data are generated.
    pub demo: bool,
    /// The cell, of which suite, task, partition and seed count; the other names are labels.
    #[serde(serialize_with = "deciding_cell")]
    pub cell: &'a Cell,
    /// The fields of the task that affect results.
    pub task: DecidingTask<'a>,
    /// The protocol, reduced by [`ProtocolConfig::deciding`].
    pub protocol: &'a ProtocolConfig,
    /// The fields of the model that affect results.
    pub model: DecidingModel<'a>,
    /// [`crate::data::decoding::Decoding::hash`] of the samples.
    pub decoding: &'a str,
    /// Like [`Provenance::weights`].
    pub weights: &'a str,
    /// Like [`Provenance::data`].
    pub data: &'a str,
    /// Like [`Provenance::sensor`].
    pub sensor: Sensor,
    /// Like [`Provenance::pooling`]; `None` if the protocol does not use pooled features.
    pub pooling: Option<Pooling>,
    /// Like [`Provenance::channels`].
    pub channels: &'a Channels,
    /// Like [`Provenance::bands`].
    pub bands: &'a [String],
    /// Like [`Provenance::band_names`].
    pub band_names: &'a str,
    /// Like [`Provenance::imputed`].
    pub imputed: &'a [Imputation],
    /// Like [`Provenance::normalization`].
    pub normalization: &'a str,
    /// Candidate preparations of the pixels, in the order in which they are tried.
    pub strategies: &'a [Preparation],
    /// Like [`Provenance::image_size`].
    pub image_size: usize,
    /// Like [`Provenance::resize`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<ResizeRule>,
    /// Fingerprint of the same cell of the model beside this one; empty without one.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub beside: &'a str,
    /// Like [`Provenance::precision`].
    #[serde(skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    /// What the model is given besides the pixels.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

fn deciding_cell<S: Serializer>(cell: &Cell, serializer: S) -> Result<S::Ok, S::Error> {
    // A new field must be assigned to one side here.
    let Cell { suite, task, partition, seed, protocol: _, model: _, backbone: _ } = cell;
    (suite, task, partition, seed).serialize(serializer)
}

impl Deciding<'_> {
    /// Identifies the record of the cell.
    ///
    /// # Errors
    /// If a value has no JSON form, such as a path that is not UTF-8.
    pub fn fingerprint(&self) -> Result<String> {
        fingerprint(self)
    }

    /// Everything that decides the number except the seed: the fingerprint of the same cell at seed 0.
    ///
    /// # Errors
    /// Like [`Deciding::fingerprint`].
    pub fn settings(&self) -> Result<String> {
        fingerprint(&Deciding { cell: &Cell { seed: 0, ..self.cell.clone() }, ..*self })
    }

    /// What was requested: everything known without data and weights, with the replacements for missing bands.
    ///
    /// # Errors
    /// Like [`Deciding::fingerprint`].
    pub fn request(&self, impute: &[Imputation]) -> Result<String> {
        let blank = Deciding { weights: "", data: "", bands: &[], imputed: impute, strategies: &[], ..*self };
        fingerprint(&blank)
    }
}

/// The first 128 bits of the blake3 hash of the value's canonical JSON (keys sorted, no whitespace), as 32
/// hexadecimal digits.
///
/// # Errors
/// If the value has no JSON form.
pub fn fingerprint(value: &impl Serialize) -> Result<String> {
    let mut json = serde_json::to_value(value)
        .map_err(|e| Error::mismatch(format!("settings without a JSON form: {e}")))?;
    json.sort_all_objects();
    let mut hash = blake3::hash(json.to_string().as_bytes()).to_hex().to_string();
    hash.truncate(FINGERPRINT_DIGITS);
    Ok(hash)
}
