//! The accuracy gate: compares records with a committed reference, cell by cell.

mod further;
mod junit;
mod pairs;
mod summary;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

pub use self::junit::junit;
use self::pairs::{Pair, pairs};
pub use self::summary::summary;
use super::choice::model_name;
use super::recompute::{Recomputed, recompute};
use super::samples::pair_samples;
use super::suites::Suites;
use crate::home::read_toml;
use crate::metrics::paired::Paired;
use crate::metrics::{Better, Metric, Scale};
use crate::record::{Aspect, Cell, Reason, SettingKey, Store, StoredRecord, Unreadable};
use crate::report::tables::paired::paired;
use crate::{Error, Result};

/// Limits beyond which a cell counts as worse: `configs/check.toml`, or `check.toml` in a reference.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Thresholds {
    /// Coverage of the paired bootstrap's interval, between 0 and 1.
    pub level: f64,
    /// Resamples per bootstrap, at least 1.
    pub resamples: usize,
    /// Threshold that a significant deterioration must exceed: in points for percentages, in percent of the reference's value for
    /// metrics in a task's unit, and as a plain number for R² ([`crate::metrics::Scale::tolerated`]).
    pub drop: BTreeMap<Metric, f64>,
    /// Tolerated difference of values if predictions are missing, in the same units as `drop`.
    pub tolerance: BTreeMap<Metric, f64>,
    /// Minimum percentage of samples that must be predicted as in the reference, right or wrong, for references that every
    /// run should reproduce exactly. If unset, any percentage is accepted.
    #[serde(default)]
    pub agreement: Option<f64>,
}

impl Thresholds {
    /// # Errors
    /// If the file cannot be read, has unknown keys or contains a number out of range.
    pub fn load(path: &Path) -> Result<Self> {
        let thresholds: Thresholds = read_toml(path)?;
        let points = thresholds.drop.values().chain(thresholds.tolerance.values()).copied();
        let mut shares = thresholds.agreement.into_iter().chain(points);
        if let Some(wrong) = shares.find(|number| !(0.0..=100.0).contains(number)) {
            return Err(Error::damaged(path, format!("{wrong} is not between 0 and 100")));
        }
        if !(thresholds.level > 0.0 && thresholds.level < 1.0) || thresholds.resamples == 0 {
            return Err(Error::damaged(path, "`level` must be between 0 and 1, and `resamples` at least 1"));
        }
        Ok(thresholds)
    }

    /// Returns the threshold of `metric` in the unit of `scale`, for a value whose reference is `reference`.
    fn of(thresholds: &BTreeMap<Metric, f64>, metric: Metric, scale: Scale, reference: f64) -> Result<f64> {
        let threshold = thresholds.get(&metric).copied().ok_or_else(|| {
            Error::request(format!("no threshold for {metric}"))
                .help("add it under [drop] and [tolerance] of check.toml")
        })?;
        Ok(scale.tolerated(threshold, reference))
    }
}

/// The result of comparing a cell with its reference, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// On one side, the record states something that its predictions contradict.
    Contradictory,
    /// Significantly worse, by more than the threshold.
    Fell,
    /// Test samples are missing, duplicated or labelled differently.
    OtherSamples,
    /// Fewer samples than required are predicted as in the reference.
    Changed,
    /// On one side, predictions are damaged or cannot be scored.
    Unusable,
    /// Only in the reference.
    Missing,
    /// Significantly better, by more than the threshold.
    Rose,
    /// Only in the records.
    New,
    /// No significant change.
    Same,
}

impl Verdict {
    /// Whether this verdict fails the gate.
    pub fn fails(self) -> bool {
        !matches!(self, Verdict::Rose | Verdict::New | Verdict::Same)
    }

    /// Word shown in the table, for a metric of which `better` values are better.
    pub fn word(self, better: Better) -> &'static str {
        match self {
            Verdict::Fell if better == Better::Lower => "worse",
            Verdict::Rose if better == Better::Lower => "better",
            Verdict::Contradictory => "contradictory",
            Verdict::Fell => "fell",
            Verdict::OtherSamples => "other samples",
            Verdict::Changed => "changed",
            Verdict::Unusable => "unusable",
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
    /// Over the test samples of both.
    Samples {
        /// The paired test.
        paired: Paired,
        /// Percentage of samples predicted the same.
        agreement: f64,
    },
    /// By the values alone, with the reason.
    Values(&'static str),
}

/// A cell's record and that of the reference.
#[derive(Debug, Clone)]
pub struct CheckedCell {
    /// The cell.
    pub cell: Cell,
    /// What distinguishes the settings from others of the cell; empty if there is only one.
    pub setting: String,
    /// The metric of the record, or of the reference if there is no record.
    pub metric: Metric,
    /// Recorded value of the reference, in the metric's unit.
    pub reference: Option<f64>,
    /// Recorded value of the record, in the metric's unit.
    pub now: Option<f64>,
    /// How the values were compared, if both exist.
    pub how: Option<How>,
    /// The result.
    pub verdict: Verdict,
    /// Further facts that a reader must know, one sentence each: values that predictions contradict, missing samples,
    /// scores that fell, settings that differ.
    pub findings: Vec<String>,
    /// Predictions that cannot be used.
    pub unreadable: Vec<Unreadable>,
}

impl CheckedCell {
    /// Change from the reference, in percentage points or the metric's own unit.
    pub fn difference(&self) -> Option<f64> {
        Some(self.now? - self.reference?)
    }

    /// The verdict in a word or two.
    pub fn word(&self) -> &'static str {
        self.verdict.word(self.metric.better())
    }

    /// Full name of the row: `geobench m-eurosat default knn, Demo ViT-192, untrained, seed 0`.
    pub fn name(&self) -> String {
        let Cell { suite, task, partition, protocol, seed, .. } = &self.cell;
        let setting = if self.setting.is_empty() { String::new() } else { format!(", {}", self.setting) };
        format!("{suite} {task} {partition} {protocol}, {}{setting}, seed {seed}", model_name(&self.cell))
    }
}

/// Compares each cell with its reference and returns the worst first.
///
/// Records of a cell are compared if their settings agree. If one record per side remains and the two differ only in
/// weights or settings of the protocol, these are compared too, and a finding says so. Of several runs with the same
/// settings the most recent counts.
///
/// # Errors
/// If several records match, a metric has no threshold or a side has no records.
pub fn check(
    records: &[StoredRecord],
    reference: &[StoredRecord],
    thresholds: &Thresholds,
    suites: &Suites,
) -> Result<Vec<CheckedCell>> {
    for (side, name) in [(records, "the records"), (reference, "the reference")] {
        if side.is_empty() {
            return Err(Error::request(format!("no records found in {name}"))
                .help("run `bench` first; `check --update` creates a reference"));
        }
    }
    let pairs = pairs(records, reference)?;
    let mut rows = Vec::new();
    for of_cell in pairs.chunk_by(|a, b| a.cell == b.cell) {
        let keys: Vec<SettingKey> =
            of_cell.iter().flat_map(Pair::records).map(|kept| SettingKey::of(&kept.record)).collect();
        for pair in of_cell {
            rows.push(examine(pair, &keys, thresholds, suites)?);
        }
    }
    rows.sort_by_key(|row| row.verdict);
    Ok(rows)
}

/// A record with its recomputed scores if it has predictions.
struct Side<'k> {
    /// Name of the side in findings.
    name: &'static str,
    kept: &'k StoredRecord,
    recomputed: Option<Recomputed>,
}

/// Intermediate results of the comparison of two records.
struct Examined {
    verdict: Verdict,
    findings: Vec<String>,
    unreadable: Vec<Unreadable>,
}

impl Examined {
    /// Adds a finding and makes the verdict at least as bad as `verdict`.
    fn find(&mut self, verdict: Verdict, finding: String) {
        self.verdict = self.verdict.min(verdict);
        self.findings.push(finding);
    }

    /// Recomputes the record's scores; `None` if its predictions cannot be used.
    fn side<'k>(&mut self, name: &'static str, kept: &'k StoredRecord, suites: &Suites) -> Option<Side<'k>> {
        match recompute(kept, suites, &[]) {
            Ok(recomputed) => {
                for claim in recomputed.iter().flat_map(Recomputed::contradictions) {
                    self.find(Verdict::Contradictory, format!("{name}: {claim}"));
                }
                let shown = suites.shown_scores(&kept.record);
                let unknown = recomputed.as_ref().and_then(|recomputed| recomputed.unknown(&shown));
                self.findings.extend(unknown.map(|told| format!("{name}: not recomputed: {told}")));
                Some(Side { name, kept, recomputed })
            }
            Err(error) => {
                self.find(Verdict::Unusable, format!("{name}: {error}"));
                let path = kept.store.predictions_path(&kept.record);
                self.unreadable.push(Unreadable { path, reason: Reason::Damaged, error });
                None
            }
        }
    }
}

fn examine(
    pair: &Pair,
    keys: &[SettingKey],
    thresholds: &Thresholds,
    suites: &Suites,
) -> Result<CheckedCell> {
    let start = match (pair.now, pair.before) {
        (Some(_), Some(_)) => Verdict::Same,
        (Some(_), None) => Verdict::New,
        (None, _) => Verdict::Missing,
    };
    let findings = pair.differences().into_iter().collect();
    let mut found = Examined { verdict: start, findings, unreadable: Vec::new() };
    let now = pair.now.and_then(|kept| found.side("the records", kept, suites));
    let before = pair.before.and_then(|kept| found.side("the reference", kept, suites));
    let how = match (now, before) {
        (Some(now), Some(before)) => Some(compare(&now, &before, thresholds, suites, &mut found)?),
        _ => None,
    };
    let metric = pair.records().next().map(|kept| kept.record.metric);
    let value = |kept: Option<&StoredRecord>| kept.map(|kept| kept.record.value);
    // A shortened run is marked even if it is alone.
    let own = pair.records().next().map(|kept| (kept.record.short, SettingKey::of(&kept.record)));
    let setting = match own {
        Some((short, key)) => match key.among(keys) {
            setting if short && setting.is_empty() => key.tell(&[Aspect::Length]),
            setting => setting,
        },
        None => String::new(),
    };
    Ok(CheckedCell {
        cell: pair.cell.clone(),
        setting,
        metric: metric.ok_or_else(|| Error::request("a cell has no record"))?,
        reference: value(pair.before),
        now: value(pair.now),
        how,
        verdict: found.verdict,
        findings: found.findings,
        unreadable: found.unreadable,
    })
}

/// Compares the values of both sides, then the further scores that tables show.
fn compare(
    now: &Side,
    before: &Side,
    thresholds: &Thresholds,
    suites: &Suites,
    found: &mut Examined,
) -> Result<How> {
    let metric = now.kept.record.metric;
    if metric != before.kept.record.metric {
        let how = How::Values("metrics differ");
        found.verdict = found.verdict.min(verdict(how, now, before, thresholds)?);
        return Ok(how);
    }
    let pairs = match (&now.recomputed, &before.recomputed) {
        (Some(a), Some(b)) => Some((a, pair_samples(&a.named, &b.named, [now.name, before.name]))),
        _ => None,
    };
    let mut how = How::Values("no predictions");
    if let Some((a, pairs)) = &pairs {
        let remark = pairs.remarks.iter().map(|remark| format!("test samples {remark}"));
        match &pairs.predictions {
            None => {
                how = How::Values("test samples differ");
                remark.for_each(|remark| found.find(Verdict::OtherSamples, remark));
            }
            Some(b) => {
                found.findings.extend(remark);
                if let Some(agreement) = a.named.predictions.agreement(b) {
                    let Thresholds { level, resamples, .. } = *thresholds;
                    let seed = now.kept.record.cell.seed;
                    let paired = paired(metric, &a.named.predictions, b, level, resamples, seed)?;
                    how = How::Samples { paired, agreement };
                }
            }
        }
    }
    found.verdict = found.verdict.min(verdict(how, now, before, thresholds)?);
    let in_order = pairs.is_some_and(|(_, pairs)| pairs.predictions.is_some() && !pairs.reordered);
    further_scores(now, before, in_order, thresholds, suites, found)?;
    Ok(how)
}

fn verdict(how: How, now: &Side, before: &Side, thresholds: &Thresholds) -> Result<Verdict> {
    let metric = now.kept.record.metric;
    let (scale, reference) = (metric.about().scale, before.kept.record.value);
    let gain = scale.better.gain(now.kept.record.value - reference);
    let (fell, rose) = match how {
        How::Samples { paired, .. } => {
            let drop = Thresholds::of(&thresholds.drop, metric, scale, reference)?;
            let told = paired.winner(scale.better);
            (told == Ordering::Less && gain < -drop, told == Ordering::Greater && gain > drop)
        }
        How::Values(_) => {
            let tolerance = Thresholds::of(&thresholds.tolerance, metric, scale, reference)?;
            (gain < -tolerance, gain > tolerance)
        }
    };
    let enough = match (how, thresholds.agreement) {
        (How::Samples { agreement, .. }, Some(enough)) => agreement >= enough,
        (How::Values(_), Some(_)) => false, // Without predictions, agreement is not proven.
        (_, None) => true,
    };
    Ok(match (fell, enough, rose) {
        (true, ..) => Verdict::Fell,
        (_, false, _) => Verdict::Changed,
        (.., true) => Verdict::Rose,
        _ => Verdict::Same,
    })
}

/// Compares the further scores that tables show. `in_order` says whether both sides have the same samples in the same order;
/// otherwise only values are compared.
fn further_scores(
    now: &Side,
    before: &Side,
    in_order: bool,
    thresholds: &Thresholds,
    suites: &Suites,
    found: &mut Examined,
) -> Result<()> {
    let metric = now.kept.record.metric;
    for name in suites.shown_scores(&before.kept.record) {
        let scores = [now, before].map(|side| side.kept.record.scores.get(&name).copied());
        let [Some(value), Some(reference)] = scores else {
            found.find(Verdict::Missing, format!("{name} is only in the reference"));
            continue;
        };
        let scale = Scale::of_score(&name, metric);
        let gain = scale.better.gain(value - reference);
        let threshold = |of| Thresholds::of(of, Scale::metric_of(&name, metric), scale, reference);
        let paired = match (in_order, &now.recomputed, &before.recomputed) {
            (true, Some(a), Some(b)) => further::paired(&name, &now.kept.record, a, b, thresholds)?,
            _ => None,
        };
        let word = if scale.better == Better::Lower { "rose" } else { "fell" };
        let told = format!("{name} {word} from {} to {}", scale.fine(reference), scale.fine(value));
        match paired {
            Some(paired) => {
                let drop = threshold(&thresholds.drop)?;
                if paired.winner(scale.better) == Ordering::Less && gain < -drop {
                    found.find(Verdict::Fell, told);
                }
            }
            None if gain < -threshold(&thresholds.tolerance)? => {
                found.find(Verdict::Fell, format!("{told} (values only)"));
            }
            None => {}
        }
    }
    Ok(())
}

/// Makes the records the new reference in `folder`: each replaces the one that it was compared with; others are
/// added (to their suite's store if `folder` has one store per suite). Settings found only in the reference are kept.
///
/// # Errors
/// If several records match, a record contradicts its predictions, or a file cannot be written or removed.
pub fn update(
    records: &[StoredRecord],
    reference: &[StoredRecord],
    folder: &Path,
    suites: &Suites,
) -> Result<()> {
    let pairs = pairs(records, reference)?;
    let mut contradictions = Vec::new();
    for kept in pairs.iter().filter_map(|pair| pair.now) {
        let recomputed = recompute(kept, suites, &[])?;
        let path = kept.store.path(&kept.record);
        let claims = recomputed.iter().flat_map(Recomputed::contradictions);
        contradictions.extend(claims.map(|claim| format!("\n  {}: {claim}", path.display())));
    }
    if !contradictions.is_empty() {
        return Err(Error::request(format!(
            "records that contradict their predictions cannot be a reference:{}",
            contradictions.concat()
        ))
        .help("delete them and their predictions, and run the cells again with `bench --fresh`"));
    }
    let below = !reference.is_empty() && Store::existing(folder).is_none();
    for Pair { cell, now, before } in pairs {
        let Some(kept) = now else { continue };
        let store = match before {
            Some(old) => old.store.clone(),
            None if below => Store::open(folder.join(&cell.suite))?,
            None => Store::open(folder)?,
        };
        if let Some(named) = kept.store.predictions(&kept.record)? {
            store.put_predictions(&kept.record, &named)?;
        }
        store.put(&kept.record)?;
        if let Some(old) = before.filter(|old| old.record.fingerprint != kept.record.fingerprint) {
            old.store.remove(&old.record)?;
        }
    }
    Ok(())
}
