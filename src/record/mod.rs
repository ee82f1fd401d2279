//! Records: what one finished cell is, and what decides its number. [`Store`] keeps one atomic file a
//! cell, [`predictions`] what lies behind it, [`frame()`] lays records out as a data frame.

mod collection;
mod frame;
mod migrate;
mod note;
pub mod predictions;
mod setting;
mod store;
pub mod unreadable;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

pub use self::collection::{Collection, Kept, collect, collect_usable};
pub use self::frame::frame;
pub use self::note::Note;
pub use self::setting::{Aspect, SettingKey, protocol_settings, short};
pub use self::store::{Staged, Store, Usable};
pub use self::unreadable::{Reason, Unreadable};
use crate::features::Preparation;
pub use crate::metrics::Interval;
use crate::model::config::{DecidingModel, Inputs};
use crate::model::{Coverage, Pooling};
use crate::protocol::ProtocolConfig;
use crate::task::Sensor;
use crate::task::bands::{Channels, Imputation};
use crate::task::{DecidingTask, Metric};
use crate::{Error, Result};

/// The form of the record files that this version writes. Raise it when a field changes, and bring older records to it in
/// `migrate.rs`.
pub const SCHEMA: u32 = 2;

/// Of the code that makes the numbers. Raise it with every change that moves one: cells recorded under
/// an older version are then computed again.
pub const PROTOCOL_VERSION: u32 = 2;

/// Hexadecimal digits of a fingerprint: 128 bits.
const FINGERPRINT_DIGITS: usize = 32;

/// One cell of a table: the unit of work, of resuming and of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cell {
    pub suite: String,
    pub task: String,
    pub partition: String,
    pub protocol: String,
    /// Name and backbone as in the tables.
    pub model: String,
    pub backbone: String,
    pub seed: u64,
}

/// A finished cell: scores, interval, what was selected on validation, provenance.
///
/// As JSON its numbers keep 15 significant digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// Of this file's form.
    pub schema: u32,
    /// Names the record: [`Deciding::fingerprint`].
    pub fingerprint: String,
    /// [`Deciding::settings`]: equal in records that may be averaged over their seeds.
    pub settings: String,
    /// [`Deciding::request`]: what was asked for, by which finished cells are found where data or weights are not at
    /// hand. Empty in records from before it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// [`predictions::digest`] of the predictions that the value was made of: others beside the record are not its own.
    /// Records from before it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<String>,
    /// Generated data: never a benchmark number.
    pub demo: bool,
    /// The protocol was shortened on the command line: never a benchmark number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
    pub cell: Cell,
    /// The metric that the tables report.
    pub metric: Metric,
    /// Its value on the test split, in the metric's unit ([`Metric::about`]).
    pub value: f64,
    pub interval: Option<Interval>,
    /// Further scores, by name, each in its unit ([`crate::metrics::Scale::of_score`]).
    pub scores: BTreeMap<String, f64>,
    /// What was chosen (on validation, or fixed), by name.
    pub selected: BTreeMap<String, String>,
    /// Samples of each split that were used.
    pub samples: BTreeMap<String, usize>,
    /// How the protocol was set: see [`protocol_settings`]. Empty where it is not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub protocol_settings: BTreeMap<String, String>,
    /// What a reader of the value must know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    pub provenance: Provenance,
}

/// Where a number comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Provenance {
    /// The program's version.
    pub terrabench: String,
    /// The revision that the program was built from, where that was a git checkout.
    pub git_revision: Option<String>,
    /// Whether the program's sources differed from that revision when it was built.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub git_dirty: bool,
    /// blake3 of each config file that was read, by `suite`, `model`, `protocol`, `normalization`. (A record of schema 1 has
    /// only `checkout`: the git revision of their folder.)
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, String>,
    /// blake3 of the weights' file, `random:<seed>` (see [`Provenance::random_weights`]), or `none` of a model without
    /// parameters.
    pub weights: String,
    /// How much of the model they cover: see [`Provenance::coverage`].
    pub coverage: Coverage,
    /// blake3 of the samples and statistics that were read.
    pub data: String,
    /// blake3 of the test features, of protocols on frozen features: equal where a setting had no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
    /// That the model was told. Records before version 0.2 call it `stem`.
    #[serde(alias = "stem")]
    pub sensor: Sensor,
    /// The images of each sample, in order, where it has several; `sensor` is then the first one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<RecordedImage>,
    /// How tokens became the vector of an image; records before schema 3 do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Which of the model's bands it was given: `all`, `rgb` or names.
    #[serde(default = "all_channels")]
    pub channels: String,
    /// Whether the model was fed the bands of the published numbers or those that it was trained on.
    #[serde(default)]
    pub inputs: Inputs,
    /// The stored band behind each input band, in order; of several images each with what tells its image from the others:
    /// `VV before`, `02 - Blue s2-l1c`.
    pub bands: Vec<String>,
    /// `as-named` or `by-content`.
    pub band_names: String,
    pub imputed: Vec<Imputation>,
    /// `dataset`, `sweep` (what was chosen then stands in [`Record::selected`]) or a strategy's name.
    pub normalization: String,
    /// Height and width of the model's input in pixels.
    pub image_size: usize,
    pub device: String,
    pub threads: usize,
    /// Unix time in seconds.
    pub finished: u64,
    pub wall_seconds: f64,
}

/// One of several images of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecordedImage {
    /// That the model was told.
    pub sensor: Sensor,
    /// What its date is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

fn all_channels() -> String {
    "all".to_owned()
}

impl Provenance {
    /// The sensors that the model was told, in the order of the images, each once: `s2-l1c`, `s1 + s2-l1c`.
    pub fn sensors(&self) -> String {
        let mut names = vec![self.sensor.name()];
        for image in &self.images {
            if !names.contains(&image.sensor.name()) {
                names.push(image.sensor.name());
            }
        }
        names.join(" + ")
    }

    /// How much of the model the weights cover. Weights called `random:<seed>` are random in any case.
    pub fn coverage(&self) -> Coverage {
        if self.weights.starts_with("random:") { Coverage::Random } else { self.coverage }
    }

    /// Whether the model was left at its random initial weights.
    pub fn random_weights(&self) -> bool {
        self.coverage() == Coverage::Random
    }

    /// Whether part of the model was left at random weights: the value is compared with nothing.
    pub fn partial_weights(&self) -> bool {
        matches!(self.coverage(), Coverage::Partial { .. })
    }
}

/// Everything that decides the number of a cell, and nothing else: device, threads, time, the program's version and what
/// only labels (titles, names of models and of protocols' files) are left out.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deciding<'a> {
    /// [`PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// [`crate::features::FEATURES_VERSION`].
    pub features_version: u32,
    pub demo: bool,
    /// Its suite, task, partition and seed: its other names are labels.
    #[serde(serialize_with = "deciding_cell")]
    pub cell: &'a Cell,
    pub task: DecidingTask<'a>,
    /// As [`ProtocolConfig::deciding`] gives it.
    pub protocol: &'a ProtocolConfig,
    pub model: DecidingModel<'a>,
    /// [`crate::data::decoding::Decoding::hash`] of the samples.
    pub decoding: &'a str,
    /// As in [`Provenance`], here and below.
    pub weights: &'a str,
    pub data: &'a str,
    pub sensor: Sensor,
    /// None where the protocol takes no pooled vectors.
    pub pooling: Option<Pooling>,
    pub channels: &'a Channels,
    pub bands: &'a [String],
    pub band_names: &'a str,
    pub imputed: &'a [Imputation],
    pub normalization: &'a str,
    /// What may happen to the pixels, in the order in which it is tried.
    pub strategies: &'a [Preparation],
    pub image_size: usize,
}

fn deciding_cell<S: Serializer>(cell: &Cell, serializer: S) -> Result<S::Ok, S::Error> {
    // A new field must be told here on which side it is.
    let Cell { suite, task, partition, seed, protocol: _, model: _, backbone: _ } = cell;
    (suite, task, partition, seed).serialize(serializer)
}

impl Deciding<'_> {
    /// Names the record of the cell.
    ///
    /// # Errors
    /// Where a value has no JSON form, as a path that is not UTF-8.
    pub fn fingerprint(&self) -> Result<String> {
        fingerprint(self)
    }

    /// What decides the number but for the seed: the fingerprint of the same cell at seed 0.
    ///
    /// # Errors
    /// As [`Deciding::fingerprint`].
    pub fn settings(&self) -> Result<String> {
        fingerprint(&Deciding { cell: &Cell { seed: 0, ..self.cell.clone() }, ..*self })
    }

    /// What was asked for: all that is known without data and weights, with the bands to stand in for missing ones.
    ///
    /// # Errors
    /// As [`Deciding::fingerprint`].
    pub fn request(&self, impute: &[Imputation]) -> Result<String> {
        let blank = Deciding { weights: "", data: "", bands: &[], imputed: impute, strategies: &[], ..*self };
        fingerprint(&blank)
    }
}

/// The first 128 bits of the blake3 hash, as 32 hexadecimal digits, of the value's canonical JSON: keys
/// sorted, no white space.
///
/// # Errors
/// Where the value has no JSON form.
pub fn fingerprint(value: &impl Serialize) -> Result<String> {
    let mut json = serde_json::to_value(value)
        .map_err(|e| Error::mismatch(format!("settings without a JSON form: {e}")))?;
    json.sort_all_objects();
    let mut hash = blake3::hash(json.to_string().as_bytes()).to_hex().to_string();
    hash.truncate(FINGERPRINT_DIGITS);
    Ok(hash)
}
