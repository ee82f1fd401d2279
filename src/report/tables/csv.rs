//! A table as tidy CSV: one line per value.

use polars::prelude::{CsvWriter, SerWriter, df};

use super::published::ValueOrigin;
use super::table::{Column, Origin, ResultTable, TableRow, Value};
use crate::metrics::{Scale, Unit};
use crate::record::{Note, Record};
use crate::{Error, Result};

/// Renders a table as CSV with the columns `model`, `backbone`, `origin` (`published`, `measured` or `demo`), `task`,
/// `partition`, `metric`, `value`, `low`, `high`, `published`, `difference`, `inside`, `record`, `notes`, `measured_by`,
/// `copied_from`, `printed`.
///
/// - `model` has in brackets what distinguishes rows of the same model: `TerraFM (random weights)`.
/// - Numbers are in percent with up to four decimals, or in the metric's own unit with up to six.
/// - `low` and `high` bound the confidence interval.
/// - `published` is the published value of the same model and backbone, `difference` the measured value minus it, and `inside`
///   says whether it lies in the interval, by the values as tables show them.
/// - `record` names the files behind the value, separated by spaces.
/// - `notes` holds the footnotes, each with its kind, separated by `; `.
/// - `measured_by` says of a published value whether its source measured its own model (`own`) or that of others (`rerun`), or
///   copied it from an earlier paper (`copied`), which `copied_from` names; `unknown` if nobody has found out. `printed` names
///   the source that printed it.
///
/// Missing values are empty. Text that a spreadsheet would take for a formula (it begins with `=`, `+`, `-`, `@`, a tab or a
/// line break) is prefixed with an apostrophe, which marks it as text.
///
/// # Errors
/// If the data frame cannot be built or written.
pub fn csv(table: &ResultTable) -> Result<String> {
    let lines: Vec<(&TableRow, &Column, &Value)> = table
        .published
        .iter()
        .chain(&table.measured)
        .flat_map(|row| {
            let cells = table.columns.iter().zip(&row.cells);
            cells.filter_map(move |(column, cell)| Some((row, column, cell.as_ref()?)))
        })
        .collect();
    fn column<'l, L, T>(lines: &'l [L], of: impl Fn(&'l L) -> T) -> Vec<T> {
        lines.iter().map(of).collect()
    }
    let mut frame = df! {
        "model" => column(&lines, |(row, _, _)| harmless(row.name())),
        "backbone" => column(&lines, |(row, _, _)| harmless(row.backbone.clone())),
        "origin" => column(&lines, |(row, _, _)| match row.origin {
            Origin::Published => "published",
            Origin::Measured => "measured",
            Origin::Demo => "demo",
        }),
        "task" => column(&lines, |(_, column, _)| harmless(column.task.clone())),
        "partition" => column(&lines, |(_, column, _)| harmless(column.partition.clone())),
        "metric" => column(&lines, |(_, column, _)| harmless(column.metric_name())),
        "value" => column(&lines, |(_, _, value)| round(value.value, value.scale)),
        "low" => column(&lines, |(_, _, value)| value.interval.map(|interval| round(interval.low, value.scale))),
        "high" => column(&lines, |(_, _, value)| value.interval.map(|interval| round(interval.high, value.scale))),
        "published" => column(&lines, |(_, _, value)| value.reference),
        "difference" => column(&lines, |(_, _, value)| value.reference.map(|published| round(value.value - published, value.scale))),
        "inside" => column(&lines, |(_, _, value)| value.inside()),
        "record" => column(&lines, |(_, _, value)| {
            let files: Vec<String> = value.records.iter().map(|record| Record::file_name(record)).collect();
            (!files.is_empty()).then(|| files.join(" "))
        }),
        "notes" => column(&lines, |(_, _, value)| {
            let notes = value.footnotes.iter().filter_map(|place| table.footnotes.get(*place));
            let notes: Vec<String> = notes.map(Note::to_string).collect();
            (!notes.is_empty()).then(|| harmless(notes.join("; ")))
        }),
        "measured_by" => column(&lines, |(_, _, value)| value.printed.as_ref().map(|printed| printed.origin.word())),
        "copied_from" => column(&lines, |(_, _, value)| match value.printed.as_ref().map(|printed| &printed.origin) {
            Some(ValueOrigin::Copied(from)) => Some(harmless(from.clone())),
            _ => None,
        }),
        "printed" => column(&lines, |(_, _, value)| value.printed.as_ref().map(|printed| harmless(printed.place.clone()))),
    }
    .map_err(Error::request)?;
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut frame).map_err(Error::request)?;
    String::from_utf8(bytes).map_err(Error::request)
}

/// Prefixes text that a spreadsheet would take for a formula.
fn harmless(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{text}") } else { text }
}

/// Rounds percentages to four decimals, enough for one sample in a million, and other values to six.
fn round(number: f64, scale: Scale) -> f64 {
    let steps = if scale.unit == Unit::Percent { 1e4 } else { 1e6 };
    (number * steps).round() / steps
}
