//! Records: what one finished cell is, and the store that keeps one atomic file a cell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::bands::Imputation;
use crate::model::Stem;
use crate::suite::Metric;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// Of this file's form.
    pub schema: u32,
    /// Names the record: a hash of everything that decides the number.
    pub fingerprint: String,
    /// Generated data: never a benchmark number.
    pub demo: bool,
    pub cell: Cell,
    /// The metric that the tables report.
    pub metric: Metric,
    /// Its value on the test split, in percent.
    pub value: f64,
    pub interval: Option<Interval>,
    /// Further scores, in percent, by name.
    pub scores: BTreeMap<String, f64>,
    /// What was chosen (on validation, or fixed), by name.
    pub selected: BTreeMap<String, String>,
    /// Samples of each split that were used.
    pub samples: BTreeMap<String, usize>,
    pub provenance: Provenance,
}

/// A confidence interval in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    /// Coverage, between 0 and 1.
    pub level: f64,
}

/// Where a number comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Provenance {
    pub terrabench: String,
    /// Where a git checkout built the program.
    pub git_revision: Option<String>,
    /// blake3 of the weights' file, or `random:<seed>`.
    pub weights: String,
    /// blake3 of the samples and statistics that were read.
    pub data: String,
    pub stem: Stem,
    /// The stored band behind each input band, in order.
    pub bands: Vec<String>,
    /// `as-named` or `by-content`.
    pub band_names: String,
    pub imputed: Vec<Imputation>,
    pub normalization: String,
    /// Height and width of the model's input in pixels.
    pub image_size: usize,
    pub device: String,
    pub threads: usize,
    /// Unix time in seconds.
    pub finished: u64,
    pub wall_seconds: f64,
}
