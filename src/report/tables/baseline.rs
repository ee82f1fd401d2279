//! Marks records and published values worse than plain pixel statistics. This happens whenever tables are made, because the
//! baseline may be recorded later than the records.

use std::collections::BTreeMap;

use super::table::{ALL, Origin, TableRow, Value};
use crate::audit::{Check, baseline};
use crate::model::weights::NO_WEIGHTS;
use crate::record::{Aspect, Note, Record};
use crate::transform::strategies;

/// Adds a note to each record whose value is worse than that of image statistics on the same task, partition and protocol (the
/// mean over seeds). Records of partial weights are not compared.
pub(crate) fn mark(records: &mut [Record]) {
    let mut baselines: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for record in records.iter().filter(|record| is_baseline(record)) {
        baselines.entry(key(record)).or_default().push(record.value);
    }
    for record in records.iter_mut().filter(|r| !is_baseline(r) && !r.provenance.partial_weights()) {
        let Some(values) = baselines.get(&key(record)) else { continue };
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        if let Some(finding) = baseline::check(record.value, mean, record.metric.about().scale) {
            let note = Note::new(finding.check.to_string(), format!("{}; {}", finding.found, finding.remedy));
            // A record may have been written with the note.
            if !record.notes.contains(&note) {
                record.notes.push(note);
            }
        }
    }
}

/// The name of image statistics in published values and in `configs/models/`.
const PUBLISHED_NAME: &str = "Image statistics";

/// Whether these are image statistics: the only features without weights from pixels as stored.
fn is_baseline(record: &Record) -> bool {
    record.provenance.weights == NO_WEIGHTS && record.provenance.normalization == strategies::NONE
}

/// Adds a footnote to each value of a table that is worse than image statistics in the same column from the same bands: for a measured
/// value those measured, or else those published in the same table; for a published one those published. A value whose records say so already gets none, nor does a row of
/// partial weights.
pub(super) fn mark_rows<'a>(
    published: &mut [TableRow<'a>],
    measured: &mut [TableRow<'a>],
    footnotes: &mut Vec<Note>,
) {
    let columns = published.iter().chain(&*measured).map(|row| row.cells.len()).max().unwrap_or(0);
    for column in 0..columns {
        // A measured value may be of other samples than the published ones, such as part of the data.
        let of = |rows: &mut dyn Iterator<Item = &TableRow<'a>>| {
            let mut baselines: BTreeMap<String, (Value<'a>, Origin)> = BTreeMap::new();
            for row in rows.filter(|row| is_baseline_row(row)) {
                if let Some(value) = row.cells.get(column).and_then(Option::as_ref) {
                    baselines.entry(channels(row)).or_insert_with(|| (value.clone(), row.origin));
                }
            }
            baselines
        };
        let known = of(&mut published.iter());
        let own = of(&mut measured.iter().chain(&*published));
        let rows = published.iter_mut().chain(&mut *measured);
        for row in rows.filter(|row| !is_baseline_row(row) && !row.is_partial) {
            let baselines = if row.origin == Origin::Published { &known } else { &own };
            let Some((reached, origin)) = baselines.get(&channels(row)) else { continue };
            let Some(value) = row.cells.get_mut(column).and_then(Option::as_mut) else { continue };
            let is_told = value.footnotes.iter().filter_map(|place| footnotes.get(*place));
            let is_told = is_told.into_iter().any(|note| note.kind == Check::BelowBaseline.to_string());
            let below = baseline::check(value.value, reached.value, value.scale).is_some();
            if !below || is_told {
                continue;
            }
            let origin = if *origin == Origin::Published { "published" } else { "measured" };
            let reached = value.scale.shown(reached.value);
            let text = format!("worse than plain pixel statistics, which reach {reached} ({origin})");
            let note = Note::new(Check::BelowBaseline.to_string(), text);
            let place = footnotes.iter().position(|known| *known == note).unwrap_or_else(|| {
                footnotes.push(note);
                footnotes.len() - 1
            });
            value.footnotes.push(place);
        }
    }
}

fn is_baseline_row(row: &TableRow) -> bool {
    match row.origin {
        Origin::Published => row.model == PUBLISHED_NAME,
        Origin::Measured | Origin::Demo => {
            let mut records = row.cells.iter().flatten().flat_map(|value| &value.records);
            records.next().is_some_and(|record| is_baseline(record))
        }
    }
}

/// The bands that a row's model received: `all`, `rgb`, names.
fn channels(row: &TableRow) -> String {
    match &row.setting {
        Some(setting) => setting.get(&Aspect::Channels).unwrap_or(ALL).to_owned(),
        None => row.qualifiers.first().cloned().unwrap_or_else(|| ALL.to_owned()),
    }
}

/// Returns what a record and its baseline must have in common.
fn key(record: &Record) -> (String, String, String, String, bool, bool) {
    let cell = &record.cell;
    let names = [&cell.suite, &cell.task, &cell.partition, &cell.protocol].map(String::clone);
    let [suite, task, partition, protocol] = names;
    (suite, task, partition, protocol, record.demo, record.short)
}
