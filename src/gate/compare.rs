//! Two models on the same cells, by their predictions of the same samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::choice::{Several, Wanted, ask, is_weights, model_name, newest_of_each};
use super::recompute::{Recomputed, Score, recompute};
use super::samples::pair_samples;
use super::suites::Suites;
use crate::metrics::paired::{Paired, discordant, mcnemar};
use crate::metrics::{Better, Metric, Unit};
use crate::record::{Aspect, Cell, Collection, Kept, Reason, SettingKey, Unreadable, collect_usable};
use crate::report::tables::paired::{interval, p_value, paired, probability};
use crate::report::tables::text::{escape, escape_sentence, grid};
use crate::score::Predictions;
use crate::{Error, Result};

/// Coverage of the intervals.
const LEVEL: f64 = 0.95;

/// Resamples of each bootstrap: p-values are then known to some 0.002.
const RESAMPLES: usize = 10_000;

/// What remarks call the sides.
const SIDES: [&str; 2] = ["A", "B"];

/// What a cell's model is exchanged in: suite, task, partition, protocol, seed.
type CellIdentity = (String, String, String, String, u64);

/// A cell of both.
#[derive(Debug, Clone)]
pub struct ComparedCell {
    pub place: CellIdentity,
    /// Model and weights of both: `TerraFM ViT-Base, weights 5f3c9a1be204`.
    pub models: [String; 2],
    pub metric: Metric,
    /// As recorded, in the metric's unit.
    pub a: f64,
    pub b: f64,
    /// Why there is nothing further, else the paired statistics.
    pub paired: Result<Statistics, &'static str>,
    /// What a reader must know beside the numbers, a sentence each: settings that differ, records left out.
    pub remarks: Vec<String>,
    /// Whether a side's value is not what its predictions give. (Other scores, which do not show here, only make remarks.)
    pub is_contradictory: bool,
}

/// Of one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// a - b: by a bootstrap, or where too few samples differ by the sign test.
    pub bootstrap: Paired,
    /// Samples that only a, and only b, has right (several labels: all of them).
    pub only: (u64, u64),
    /// McNemar's exact test of these; none for masks and numbers, of which no two are wholly right.
    pub mcnemar: Option<f64>,
}

/// The cells of both sides, and what was left out.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    pub rows: Vec<ComparedCell>,
    /// Predictions that cannot be used.
    pub unreadable: Vec<Unreadable>,
}

/// The records of `side`: an existing folder's, else those in `results` of the model of that name (`TerraFM`,
/// `TerraFM ViT-B`) or of weights whose hash begins so.
///
/// # Errors
/// Where there are none: the message lists the models.
pub fn side(side: &str, results: &Path) -> Result<Collection> {
    if Path::new(side).is_dir() {
        return collect_usable(Path::new(side));
    }
    let Collection { kept: all, unreadable } = collect_usable(results)?;
    let is_meant = |kept: &&Kept| {
        let (cell, weights) = (&kept.record.cell, &kept.record.provenance.weights);
        cell.model == side || model_name(cell) == side || (side.len() >= 6 && is_weights(weights, side))
    };
    let meant: Vec<Kept> = all.iter().filter(is_meant).cloned().collect();
    if meant.is_empty() {
        let models: BTreeSet<String> =
            all.iter().map(|kept| format!("`{}`", model_name(&kept.record.cell))).collect();
        let models: Vec<String> = models.into_iter().collect();
        return Err(Error::damaged(results, format!("has no records of `{side}`")).help(format!(
            "name a folder of records, the beginning of the weights' hash, or one of the models there: {}",
            models.join(", ")
        )));
    }
    Ok(Collection { kept: meant, unreadable })
}

/// The cells that both sides have, sorted.
///
/// Records of whole runs on real data come first: shortened runs and generated data are only taken where a side has nothing
/// else, and each row names what was left out. Of several runs of one setting the one that was finished last counts.
///
/// # Errors
/// Where the sides share no cell, or where several settings of a cell are left after `wanted`: the message lists them.
pub fn compare(a: Vec<Kept>, b: Vec<Kept>, wanted: &Wanted, suites: &Suites) -> Result<Comparison> {
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

fn by_place(records: &[Kept]) -> BTreeMap<CellIdentity, Vec<&Kept>> {
    let mut places: BTreeMap<CellIdentity, Vec<&Kept>> = BTreeMap::new();
    for kept in records {
        let Cell { suite, task, partition, protocol, seed, .. } = kept.record.cell.clone();
        places.entry((suite, task, partition, protocol, seed)).or_default().push(kept);
    }
    places
}

/// A side's records of one cell.
struct Preferred<'k> {
    /// One per setting.
    fitting: Vec<&'k Kept>,
    /// Shortened runs and generated data beside them.
    left_out: Vec<&'k Kept>,
}

/// Takes whole runs on real data, where there are any.
fn preferred<'k>(records: &[&'k Kept]) -> Preferred<'k> {
    let (whole, others): (Vec<&Kept>, Vec<&Kept>) = newest_of_each(records.iter().copied())
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
    differing.retain(|aspect| *aspect != Aspect::Weights); // Two models have their own.
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
    let mut recomputed = |name: &str, kept: &Kept| match recompute(kept, suites, &[]) {
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
        _ if metric != other => Err("other metrics"),
        (Ok(Some(a)), Ok(Some(b))) => {
            let pairs = pair_samples(&a.named, &b.named, SIDES);
            remarks.extend(pairs.remarks.iter().map(|remark| format!("test samples {remark}")));
            match pairs.predictions {
                Some(b) => Ok(statistics(metric, &a.named.predictions, &b, place.4)?),
                None => Err("other test samples"),
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

fn model(kept: &Kept) -> String {
    format!("{}, {}", model_name(&kept.record.cell), SettingKey::of(&kept.record).tell(&[Aspect::Weights]))
}

fn statistics(metric: Metric, a: &Predictions, b: &Predictions, seed: u64) -> Result<Statistics> {
    let bootstrap = paired(metric, a, b, LEVEL, RESAMPLES, seed)?;
    let only = discordant(&a.right(), &b.right())?;
    let is_decided = metric.about().scale.unit == Unit::Percent && !matches!(a, Predictions::Masks(_));
    Ok(Statistics { bootstrap, only, mcnemar: is_decided.then(|| mcnemar(only.0, only.1)) })
}

/// The comparison as Markdown.
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
    // Rows of several models, or weights, say so one by one.
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

/// A line per remark. `several` has the sides whose rows are of several models or weights.
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
