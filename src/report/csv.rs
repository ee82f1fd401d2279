//! A table as tidy CSV: one line a value.

use polars::prelude::{CsvWriter, SerWriter, df};

use super::table::{Column, Origin, ResultTable, Row, Value};
use crate::record::Record;
use crate::{Error, Result};

/// Columns `model`, `backbone`, `origin` (`published`, `measured` or `demo`), `task`, `partition`, `metric`,
/// `value`, `low`, `high`, `published`, `difference`, `inside`, `record`.
///
/// `model` carries in brackets what tells rows of the same model apart: `TerraFM (random weights)`.
/// Numbers are in percent, to four decimals; `low` and `high` bound the confidence interval, `difference`
/// is to the published value of the same model and backbone (`published`), `inside` says whether that lies in the
/// interval, by the values to one decimal; `record` names the files behind the value,
/// separated by spaces. What there is not is empty.
///
/// # Errors
/// Where the frame cannot be built or written.
pub fn csv(table: &ResultTable) -> Result<String> {
    let lines: Vec<(&Row, &Column, &Value)> = table
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
        "model" => column(&lines, |(row, _, _)| row.name()),
        "backbone" => column(&lines, |(row, _, _)| row.backbone.as_str()),
        "origin" => column(&lines, |(row, _, _)| match row.origin {
            Origin::Published => "published",
            Origin::Measured => "measured",
            Origin::Demo => "demo",
        }),
        "task" => column(&lines, |(_, column, _)| column.task.as_str()),
        "partition" => column(&lines, |(_, column, _)| column.partition.as_str()),
        "metric" => column(&lines, |(_, column, _)| column.metric_name()),
        "value" => column(&lines, |(_, _, value)| round(value.value)),
        "low" => column(&lines, |(_, _, value)| value.interval.map(|interval| round(interval.low))),
        "high" => column(&lines, |(_, _, value)| value.interval.map(|interval| round(interval.high))),
        "published" => column(&lines, |(_, _, value)| value.reference),
        "difference" => column(&lines, |(_, _, value)| value.reference.map(|published| round(value.value - published))),
        "inside" => column(&lines, |(_, _, value)| value.inside()),
        "record" => column(&lines, |(_, _, value)| {
            let files: Vec<String> = value.records.iter().map(|record| Record::file_name(record)).collect();
            (!files.is_empty()).then(|| files.join(" "))
        }),
    }
    .map_err(Error::request)?;
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut frame).map_err(Error::request)?;
    String::from_utf8(bytes).map_err(Error::request)
}

/// To four decimals: enough for one sample in a million.
fn round(percent: f64) -> f64 {
    (percent * 1e4).round() / 1e4
}
