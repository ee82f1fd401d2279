//! Compares two models on the same cells by their predictions for the same samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::choice::{Several, Wanted, ask, is_weights, model_name, newest_of_each};
use super::recompute::{Recomputed, Score, recompute};
use super::samples::pair_samples;
use super::suites::Suites;
use crate::metrics::paired::{Paired, discordant, mcnemar};
use crate::metrics::{Better, Metric, Unit};
use crate::record::{Aspect, Cell, Collection, Reason, SettingKey, StoredRecord, Unreadable, collect_usable};
use crate::report::tables::paired::{interval, p_value, paired, probability};
use crate::report::tables::text::{escape, escape_sentence, grid};
use crate::score::Predictions;
use crate::{Error, Result};

/// Coverage of the intervals.
const LEVEL: f64 = 0.95;

/// Resamples per bootstrap: p-values are then accurate to about 0.002.
const RESAMPLES: usize = 10_000;

/// Names of the sides in remarks.
const SIDES: [&str; 2] = ["A", "B"];

/// Everything that identifies a cell except the model: suite, task, partition, protocol, seed.
type CellIdentity = (String, String, String, String, u64);

/// One cell of the comparison.
#[derive(Debug, Clone)]
pub struct ComparedCell {
    /// Identifies the cell: suite, task, partition, protocol, seed.
    pub place: CellIdentity,
    /// Model and weights of both sides: `TerraFM ViT-Base, weights 5f3c9a1be204`.
    pub models: [String; 2],
    /// The metric of both sides.
    pub metric: Metric,
    /// Recorded value of side A, in the metric's unit.
    pub a: f64,
    /// Recorded value of side B, in the metric's unit.
    pub b: f64,
    /// Paired statistics, or why there are none.
    pub paired: Result<Statistics, &'static str>,
    /// Further facts that a reader must know, one sentence each: settings that differ, records left out.
    pub remarks: Vec<String>,
    /// Whether one side's value contradicts its predictions. (Contradictions in other scores, not shown here, are only remarks.)
    pub is_contradictory: bool,
}

/// Paired statistics of one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// Difference a - b with its interval; if too few samples differ, with the sign test.
    pub bootstrap: Paired,
    /// Number of samples that only A and only B has right (for several labels: all of them).
    pub only: (u64, u64),
    /// p-value of McNemar's exact test on `only`; `None` for masks and numbers, which are hardly ever entirely right.
    pub mcnemar: Option<f64>,
}

/// The cells that both sides have, and the files left out.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// One row per cell.
    pub rows: Vec<ComparedCell>,
    /// Predictions that cannot be used.
    pub unreadable: Vec<Unreadable>,
}

/// Collects the records of `side`: the path of a folder, or else the name of a model in `results` (`TerraFM`,
/// `TerraFM ViT-B`) or the first digits of a hash of weights.
///
/// # Errors
/// If there are no such records: the message lists the models.
pub fn side(side: &str, results: &Path) -> Result<Collection> {
    if Path::new(side).is_dir() {
        return collect_usable(Path::new(side));
    }
    let Collection { kept: all, unreadable } = collect_usable(results)?;
    let is_meant = |kept: &&StoredRecord| {
        let (cell, weights) = (&kept.record.cell, &kept.record.provenance.weights);
        cell.model == side || model_name(cell) == side || (side.len() >= 6 && is_weights(weights, side))
    };
    let meant: Vec<StoredRecord> = all.iter().filter(is_meant).cloned().collect();
    if meant.is_empty() {
        let models: BTreeSet<String> =
            all.iter().map(|kept| format!("`{}`", model_name(&kept.record.cell))).collect();
        let models: Vec<String> = models.into_iter().collect();
        return Err(Error::damaged(results, format!("no records of `{side}` found")).help(format!(
            "name a folder of records, the first digits of the weights' hash, or one of these models: {}",
            models.join(", ")
        )));
    }
    Ok(Collection { kept: meant, unreadable })
}

/// Compares the cells that both sides have, sorted.
///
/// Complete runs on real data take precedence: shortened runs and generated data are used only if a side has nothing
/// else, and each row lists what was left out. Of several runs with the same settings the most recent counts.
///
/// # Errors
/// If the sides share no cell, or several settings of a cell remain after `wanted`: the message lists them.
pub fn compare(
    a: Vec<StoredRecord>,
    b: Vec<StoredRecord>,
    wanted: &Wanted,
    suites: &Suites,
) -> Result<Comparison> {
    let (a, b) = (wanted.narrow(a, SIDES[0])?, wanted.narrow(b, SIDES[1])?);
    let (a, b) = (by_place(&a), by_place(&b));
    let (mut chosen, mut several) = (Vec::new(), Vec::new());
    for (place, of_a) in &a {
        let Some(of_b) = b.get(place) else { continue };
        let sides = [preferred(of_a), preferred(of_b)];
        for (side, name) in sides.iter().zip(SIDES) {
            if side.fitting.len() > 1 {
                let (_, task, partition, protocol, seed) = place;
                let of = format!("{task} {partition} {protocol} seed {seed}, of {name}");
                several.push(Several { of, records: side.fitting.clone() });
            }
        }
        chosen.push((place, sides));
    }
    if !several.is_empty() {
        return Err(ask(&several));
    }
    if chosen.is_empty() {
        return Err(Error::request("the two sides share no cell")
            .help("run the same tasks, partitions, protocols and seeds for both"));
    }
    let mut comparison = Comparison::default();
    for (place, [a, b]) in chosen {
        let row = row(place, &a, &b, suites, &mut comparison.unreadable)?;
        comparison.rows.extend(row);
    }
    Ok(comparison)
}

fn by_place(records: &[StoredRecord]) -> BTreeMap<CellIdentity, Vec<&StoredRecord>> {
    let mut places: BTreeMap<CellIdentity, Vec<&StoredRecord>> = BTreeMap::new();
    for kept in records {
        let Cell { suite, task, partition, protocol, seed, .. } = kept.record.cell.clone();
        places.entry((suite, task, partition, protocol, seed)).or_default().push(kept);
    }
    places
}

/// The records of one cell on one side.
struct Preferred<'k> {
    /// Candidates, one per setting.
    fitting: Vec<&'k StoredRecord>,
    /// Shortened runs and generated data that were left out.
    left_out: Vec<&'k StoredRecord>,
}

/// Selects complete runs on real data if there are any.
fn preferred<'k>(records: &[&'k StoredRecord]) -> Preferred<'k> {
    let (whole, others): (Vec<&StoredRecord>, Vec<&StoredRecord>) = newest_of_each(records.iter().copied())
        .into_iter()
        .partition(|kept| !kept.record.short && !kept.record.demo);
    match whole.is_empty() {
        true => Preferred { fitting: others, left_out: Vec::new() },
        false => Preferred { fitting: whole, left_out: others },
    }
}

fn row(
    place: &CellIdentity,
    a: &Preferred,
    b: &Preferred,
    suites: &Suites,
    unreadable: &mut Vec<Unreadable>,
) -> Result<Option<ComparedCell>> {
    let ([a_kept], [b_kept]) = (&a.fitting[..], &b.fitting[..]) else { return Ok(None) };
    let (metric, other) = (a_kept.record.metric, b_kept.record.metric);
    let mut remarks = Vec::new();
    let keys = [a_kept, b_kept].map(|kept| SettingKey::of(&kept.record));
    let mut differing = keys[0].differences(&keys[1]);
    differing.retain(|aspect| *aspect != Aspect::Weights); // Two models always differ in weights.
    if !differing.is_empty() {
        let [a, b] = keys.each_ref().map(|key| key.tell(&differing));
        remarks.push(format!("settings differ: A {a}; B {b}"));
    }
    if differing.is_empty() && a_kept.record.short {
        remarks.push("both are shortened runs".to_owned());
    }
    for (name, side) in SIDES.iter().zip([a, b]) {
        remarks.extend(side.left_out.iter().map(|kept| {
            let key = SettingKey::of(&kept.record);
            let why = key.tell(&[Aspect::Data, Aspect::Length]);
            let metric = kept.record.metric;
            format!("left out of {name}: {metric} {}, {why}", metric.about().scale.fine(kept.record.value))
        }));
    }
    let mut is_contradictory = false;
    let mut recomputed = |name: &str, kept: &StoredRecord| match recompute(kept, suites, &[]) {
        Ok(recomputed) => {
            let claims = recomputed.iter().flat_map(Recomputed::contradictions);
            let claims: Vec<String> = claims.map(|claim| format!("{name}: {claim}")).collect();
            let value = recomputed.iter().filter_map(|recomputed| recomputed.scores.first());
            is_contradictory |= value.into_iter().any(Score::differs);
            remarks.extend(claims);
            Ok(recomputed)
        }
        Err(error) => {
            let path = kept.store.predictions_path(&kept.record);
            unreadable.push(Unreadable { path, reason: Reason::Damaged, error });
            Err("predictions cannot be used")
        }
    };
    let predictions = (recomputed(SIDES[0], a_kept), recomputed(SIDES[1], b_kept));
    let statistics = match predictions {
        (Err(why), _) | (_, Err(why)) => Err(why),
        _ if metric != other => Err("metrics differ"),
        (Ok(Some(a)), Ok(Some(b))) => {
            let pairs = pair_samples(&a.named, &b.named, SIDES);
            remarks.extend(pairs.remarks.iter().map(|remark| format!("test samples {remark}")));
            match pairs.predictions {
                Some(b) => Ok(statistics(metric, &a.named.predictions, &b, place.4)?),
                None => Err("test samples differ"),
            }
        }
        _ => Err("no predictions"),
    };
    Ok(Some(ComparedCell {
        place: place.clone(),
        models: [model(a_kept), model(b_kept)],
        metric,
        a: a_kept.record.value,
        b: b_kept.record.value,
        paired: statistics,
        remarks,
        is_contradictory,
    }))
}

fn model(kept: &StoredRecord) -> String {
    format!("{}, {}", model_name(&kept.record.cell), SettingKey::of(&kept.record).tell(&[Aspect::Weights]))
}

fn statistics(metric: Metric, a: &Predictions, b: &Predictions, seed: u64) -> Result<Statistics> {
    let bootstrap = paired(metric, a, b, LEVEL, RESAMPLES, seed)?;
    let only = discordant(&a.right(), &b.right())?;
    let is_decided = metric.about().scale.unit == Unit::Percent && !matches!(a, Predictions::Masks(_));
    Ok(Statistics { bootstrap, only, mcnemar: is_decided.then(|| mcnemar(only.0, only.1)) })
}

/// Formats the comparison as Markdown.
pub fn markdown(rows: &[ComparedCell], a: &str, b: &str) -> String {
    let header = [
        "Task",
        "Partition",
        "Protocol",
        "Seed",
        "Metric",
        "A",
        "B",
        "A - B",
        "95 % interval",
        "p",
        "Only A right",
        "Only B right",
        "p (McNemar)",
    ]
    .map(String::from);
    let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    // If a side has several models or weights, each row names its own.
    let one =
        [0, 1].map(|side| rows.first().filter(|row| rows.iter().all(|r| r.models[side] == row.models[side])));
    let mut text = String::new();
    for (side, typed) in [a, b].into_iter().enumerate() {
        let model = match one[side] {
            Some(row) => format!("({})", row.models[side]),
            None => "(several models or weights, see below)".to_owned(),
        };
        let end = if side == 0 { "  \n" } else { "\n\n" };
        text += &format!("{}: {} {}{end}", SIDES[side], escape(typed), escape_sentence(&model));
    }
    text += &grid(&header, &lines);
    let lower: BTreeSet<Metric> =
        rows.iter().map(|row| row.metric).filter(|metric| metric.better() == Better::Lower).collect();
    for metric in lower {
        text += &format!("\nLower is better: {metric}.\n");
    }
    let several: Vec<usize> = [0, 1].into_iter().filter(|side| one[*side].is_none()).collect();
    let remarks: Vec<String> = rows.iter().flat_map(|row| remarks(row, &several)).collect();
    if !remarks.is_empty() {
        text += &format!("\n{}", remarks.concat());
    }
    text
}

/// Formats one line per remark. `several` lists the sides whose rows have several models or weights.
fn remarks(row: &ComparedCell, several: &[usize]) -> Vec<String> {
    let (_, task, partition, protocol, seed) = &row.place;
    let cell = escape_sentence(&format!("{task} {partition} {protocol}, seed {seed}"));
    let models = several.iter().map(|side| format!("{} is {}", SIDES[*side], row.models[*side]));
    let all = models.chain(row.remarks.iter().cloned());
    all.map(|remark| format!("- {cell}: {}\n", escape_sentence(&remark))).collect()
}

fn line(row: &ComparedCell) -> Vec<String> {
    let (_, task, partition, protocol, seed) = &row.place;
    let mut line =
        vec![escape(task), escape(partition), escape(protocol), seed.to_string(), row.metric.to_string()];
    let scale = row.metric.about().scale;
    line.extend([scale.fine(row.a), scale.fine(row.b), scale.fine_difference(row.a - row.b)]);
    match &row.paired {
        Ok(Statistics { bootstrap, only, mcnemar }) => {
            line.extend([interval(bootstrap, scale), p_value(bootstrap)]);
            match mcnemar {
                Some(p) => line.extend([only.0.to_string(), only.1.to_string(), probability(*p)]),
                None => line.extend(["-"; 3].map(String::from)),
            }
        }
        Err(why) => line.extend([why, "-", "-", "-", "-"].map(|text| (*text).to_owned())),
    }
    line
}
