//! What it cost that the code behind published rows feeds some models other bands than they were trained on: each cell
//! that was measured both ways (`bench --inputs as-published` and `--inputs corrected`).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::add_unreadable;
use super::gather::Section;
use super::plain::PlainTable;
use super::tables::paired;
use crate::metrics::Scale;
use crate::metrics::paired::Paired;
use crate::model::config::Inputs;
use crate::record::{Aspect, Cell, Record, SettingKey, Unreadable};

/// The table's heading.
pub const TITLE: &str = "What the mistaken bands cost";

/// Coverage of the intervals.
const LEVEL: f64 = 0.95;

/// Resamples per interval.
const RESAMPLES: usize = 1000;

/// Identifies what both records of a pair share: the cell, the contributor and every setting but the bands.
type PairKey<'a> = (&'a Cell, Option<&'a str>, SettingKey);

/// The newest record with the bands of the published numbers, and with those of the model's training.
#[derive(Default)]
struct Pair<'a> {
    as_published: Option<&'a Record>,
    corrected: Option<&'a Record>,
}

/// Compares both kinds of inputs, one row per cell of the section that was measured with both; `None` if none was. Adds
/// predictions that cannot be used to `unreadable`.
pub fn mistaken_bands(section: &Section, unreadable: &mut Vec<Unreadable>) -> Option<PlainTable> {
    let mut pairs: BTreeMap<PairKey, Pair> = BTreeMap::new();
    for record in section.records.iter().filter(|record| !record.short) {
        // Other bands may need other replacements for missing ones.
        let is_of_bands =
            |aspect: &Aspect| matches!(aspect, Aspect::Inputs | Aspect::Imputation | Aspect::Matching);
        let setting = SettingKey::of(record).without(is_of_bands);
        let pair = pairs.entry((&record.cell, record.provenance.origin.as_deref(), setting)).or_default();
        let place = match record.provenance.inputs {
            Inputs::AsPublished => &mut pair.as_published,
            Inputs::Corrected => &mut pair.corrected,
        };
        let newest = |record: &Record| Reverse(record.provenance.finished);
        if place.is_none_or(|known| newest(record) < newest(known)) {
            *place = Some(record);
        }
    }
    let mut table = PlainTable {
        header: ["Model", "Task", "Protocol", "As published", "Corrected", "Difference", "95 % interval"]
            .map(str::to_owned)
            .into(),
        ..PlainTable::default()
    };
    for ((_, origin, _), pair) in pairs {
        // Models without a mistake are given the same bands both ways.
        if let (Some(published), Some(corrected)) = (pair.as_published, pair.corrected)
            && published.provenance.bands != corrected.provenance.bands
        {
            table.rows.push(row(section, origin, published, corrected, unreadable));
        }
    }
    if table.rows.is_empty() {
        return None;
    }
    table.notes = vec![
        "As published: with the bands that the code behind the published values gives the model. Corrected: with those that \
         the model was trained on."
            .to_owned(),
        "Difference: corrected minus as published, with the interval of a paired bootstrap over the test samples.".to_owned(),
    ];
    Some(table)
}

fn row(
    section: &Section,
    origin: Option<&str>,
    published: &Record,
    corrected: &Record,
    unreadable: &mut Vec<Unreadable>,
) -> Vec<String> {
    let Cell { task, partition, protocol, model, backbone, seed, .. } = &published.cell;
    let about = published.metric.about();
    let scale: Scale = about.scale;
    let by = origin.map_or_else(String::new, |name| format!(", by {name}"));
    let partition = if partition == "default" { String::new() } else { format!(", {partition}") };
    let seed = if *seed == 0 { String::new() } else { format!(", seed {seed}") };
    let difference = corrected.value - published.value;
    let tested = tested(section, published, corrected, unreadable);
    vec![
        format!("{model} {backbone}{by}"),
        format!("{task}{partition}"),
        format!("{protocol}, {}{seed}", about.title),
        scale.shown(published.value),
        scale.shown(corrected.value),
        scale.fine_difference(difference),
        tested.map_or_else(|| "no predictions".to_owned(), |paired| paired::interval(&paired, scale)),
    ]
}

/// Compares the predictions sample by sample; `None` if one side has none, or they are of other samples.
fn tested(
    section: &Section,
    published: &Record,
    corrected: &Record,
    unreadable: &mut Vec<Unreadable>,
) -> Option<Paired> {
    let mut read = |record: &Record| match section.store.predictions(record) {
        Ok(named) => named,
        Err(error) => {
            let path: PathBuf = section.store.predictions_path(record);
            add_unreadable(unreadable, path, error);
            None
        }
    };
    let (published_ones, corrected_ones) = (read(published)?, read(corrected)?);
    if published_ones.samples != corrected_ones.samples {
        return None;
    }
    let (a, b) = (&corrected_ones.predictions, &published_ones.predictions);
    paired::paired(published.metric, a, b, LEVEL, RESAMPLES, published.cell.seed).ok()
}
