//! The accuracy gate: records against a committed reference, cell by cell.

mod junit;
mod summary;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

pub use self::junit::junit;
pub use self::summary::summary;
use super::paired::paired;
use crate::home::read_toml;
use crate::metrics::Metric;
use crate::metrics::paired::Paired;
use crate::model::Stem;
use crate::record::{Cell, Kept, Record, Store, latest};
use crate::{Error, Result};

/// When a cell counts as worse: `configs/check.toml`, or `check.toml` of a reference.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Thresholds {
    /// Coverage of the paired bootstrap's interval, between 0 and 1.
    pub level: f64,
    pub resamples: usize,
    /// Points that a significant drop must exceed.
    pub drop: BTreeMap<Metric, f64>,
    /// Points that a value may differ where predictions are missing.
    pub tolerance: BTreeMap<Metric, f64>,
    /// The share of samples, in percent, that must be predicted as in the reference, whether right or wrong: for
    /// references of which every run should give the same. Without it, any share will do.
    #[serde(default)]
    pub agreement: Option<f64>,
}

impl Thresholds {
    /// # Errors
    /// Where the file cannot be read, has unknown keys or a number that makes no sense.
    pub fn load(path: &Path) -> Result<Self> {
        let thresholds: Thresholds = read_toml(path)?;
        let points = thresholds.drop.values().chain(thresholds.tolerance.values()).copied();
        let mut shares = thresholds.agreement.into_iter().chain(points);
        if let Some(wrong) = shares.find(|number| !(0.0..=100.0).contains(number)) {
            return Err(Error::file(path, format!("{wrong} is not between 0 and 100")));
        }
        if !(thresholds.level > 0.0 && thresholds.level < 1.0) || thresholds.resamples == 0 {
            return Err(Error::file(path, "`level` must lie between 0 and 1, `resamples` be at least 1"));
        }
        Ok(thresholds)
    }

    fn of(thresholds: &BTreeMap<Metric, f64>, metric: Metric) -> Result<f64> {
        thresholds.get(&metric).copied().ok_or_else(|| {
            Error::request(format!("the thresholds have no {metric}"))
                .help("add it under [drop] and [tolerance] of check.toml")
        })
    }
}

/// What makes two records those of one cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    cell: Cell,
    demo: bool,
    short: bool,
    normalization: String,
    band_names: String,
    stem: Stem,
}

impl Key {
    fn of(record: &Record) -> Self {
        let made = &record.provenance;
        Key {
            cell: record.cell.clone(),
            demo: record.demo,
            short: record.short,
            normalization: made.normalization.clone(),
            band_names: made.band_names.clone(),
            stem: made.stem,
        }
    }
}

/// How a cell stands against its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Significantly worse, by more than the threshold.
    Fell,
    /// Fewer samples than asked for are predicted as in the reference.
    Changed,
    /// In the reference only.
    Missing,
    /// Significantly better, by more than the threshold.
    Rose,
    /// In the records only.
    New,
    Same,
}

impl Verdict {
    /// Whether it fails the gate.
    pub fn fails(self) -> bool {
        matches!(self, Verdict::Fell | Verdict::Changed | Verdict::Missing)
    }

    /// As in the table.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Fell => "fell",
            Verdict::Changed => "changed",
            Verdict::Missing => "missing",
            Verdict::Rose => "rose",
            Verdict::New => "new",
            Verdict::Same => "same",
        }
    }
}

/// How two values were compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum How {
    /// Over the test samples of both; `agreement` is the share predicted alike, in percent.
    Samples { paired: Paired, agreement: f64 },
    /// By the values alone, and why.
    Values(&'static str),
}

/// A cell's record now beside that of the reference.
#[derive(Debug, Clone)]
pub struct Row {
    pub cell: Cell,
    pub metric: Metric,
    pub reference: Option<f64>,
    pub now: Option<f64>,
    /// Where both are there.
    pub how: Option<How>,
    pub verdict: Verdict,
}

impl Row {
    /// In points of percent.
    pub fn difference(&self) -> Option<f64> {
        Some(self.now? - self.reference?)
    }

    /// `geobench m-eurosat default knn, Demo ViT-192, untrained, seed 0`.
    pub fn name(&self) -> String {
        let Cell { suite, task, partition, protocol, model, backbone, seed } = &self.cell;
        format!("{suite} {task} {partition} {protocol}, {model} {backbone}, seed {seed}")
    }
}

/// Compares each cell with its reference, the worst first.
///
/// Where a side holds several records of a cell (of other weights, say), the one that was finished last counts.
///
/// # Errors
/// Where a metric has no threshold, a side has no records, or predictions cannot be read.
pub fn check(records: &[Kept], reference: &[Kept], thresholds: &Thresholds) -> Result<Vec<Row>> {
    for (side, name) in [(records, "the records"), (reference, "the reference")] {
        if side.is_empty() {
            return Err(Error::request(format!("{name} are none"))
                .help("run `bench` first; `check --update` makes a reference"));
        }
    }
    let (now, before) = (latest(records, Key::of), latest(reference, Key::of));
    let keys: BTreeSet<&Key> = now.keys().chain(before.keys()).collect();
    let row = |key: &Key| -> Result<Row> {
        let (now, before) = (now.get(key).copied(), before.get(key).copied());
        let metric = now.or(before).map(|kept| kept.record.metric);
        let metric = metric.ok_or_else(|| Error::request("a cell without a record"))?;
        let (how, verdict) = match (now, before) {
            (Some(now), Some(before)) => {
                let how = compare(now, before, thresholds)?;
                (Some(how), verdict(how, now, before, thresholds)?)
            }
            (None, _) => (None, Verdict::Missing),
            (_, None) => (None, Verdict::New),
        };
        let value = |kept: Option<&Kept>| kept.map(|kept| kept.record.value);
        Ok(Row { cell: key.cell.clone(), metric, reference: value(before), now: value(now), how, verdict })
    };
    let mut rows = keys.into_iter().map(row).collect::<Result<Vec<Row>>>()?;
    rows.sort_by_key(|row| row.verdict);
    Ok(rows)
}

fn compare(now: &Kept, before: &Kept, thresholds: &Thresholds) -> Result<How> {
    if now.record.metric != before.record.metric {
        return Ok(How::Values("the metric is another one"));
    }
    let (Some(a), Some(b)) = (now.store.predictions(&now.record)?, before.store.predictions(&before.record)?)
    else {
        return Ok(How::Values("no predictions"));
    };
    let agreement = match a.samples == b.samples {
        true => a.predictions.agreement(&b.predictions),
        false => None,
    };
    let Some(agreement) = agreement else { return Ok(How::Values("other test samples")) };
    let Thresholds { level, resamples, .. } = *thresholds;
    let metric = now.record.metric;
    let paired = paired(metric, &a.predictions, &b.predictions, level, resamples, now.record.cell.seed)?;
    Ok(How::Samples { paired, agreement })
}

fn verdict(how: How, now: &Kept, before: &Kept, thresholds: &Thresholds) -> Result<Verdict> {
    let metric = now.record.metric;
    let difference = now.record.value - before.record.value;
    let (fell, rose) = match how {
        How::Samples { paired, .. } => {
            let drop = Thresholds::of(&thresholds.drop, metric)?;
            let told = paired.verdict();
            (told == Ordering::Less && difference < -drop, told == Ordering::Greater && difference > drop)
        }
        How::Values(_) => {
            let tolerance = Thresholds::of(&thresholds.tolerance, metric)?;
            (difference < -tolerance, difference > tolerance)
        }
    };
    let enough = match (how, thresholds.agreement) {
        (How::Samples { agreement, .. }, Some(enough)) => agreement >= enough,
        (How::Values(_), Some(_)) => false, // What must agree sample by sample has to be shown to.
        (_, None) => true,
    };
    Ok(match (fell, enough, rose) {
        (true, ..) => Verdict::Fell,
        (_, false, _) => Verdict::Changed,
        (.., true) => Verdict::Rose,
        _ => Verdict::Same,
    })
}

/// Makes the records the new reference in `folder`: those of cells it has take the place of the old ones, others are
/// added (where `folder` holds a store a suite, to that of their suite). Cells that only the reference has are kept.
///
/// # Errors
/// Where a file cannot be written or removed.
pub fn update(records: &[Kept], reference: &[Kept], folder: &Path) -> Result<()> {
    let (now, before) = (latest(records, Key::of), latest(reference, Key::of));
    let below = !reference.is_empty() && Store::existing(folder).is_none();
    for (key, kept) in &now {
        let old = before.get(key);
        let store = match old {
            Some(old) => old.store.clone(),
            None if below => Store::open(folder.join(&key.cell.suite))?,
            None => Store::open(folder)?,
        };
        if let Some(named) = kept.store.predictions(&kept.record)? {
            store.put_predictions(&kept.record, &named)?;
        }
        store.put(&kept.record)?;
        if let Some(old) = old.filter(|old| old.record.fingerprint != kept.record.fingerprint) {
            old.store.remove(&old.record)?;
        }
    }
    Ok(())
}
