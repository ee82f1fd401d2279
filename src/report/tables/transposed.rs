//! A table with one row per data set and one column per model, the backbones in the first row: the layout of
//! Copernicus-Bench's table in the README of TerraFM.

use super::table::{Column, TableRow, headings};
use super::text::{cell_text, escape, grid};

/// Renders one row per item of `columns` and one column per item of `models`.
pub(crate) fn values<'t, 'a: 't>(
    columns: &[Column],
    models: impl Iterator<Item = &'t TableRow<'a>>,
) -> String {
    let models: Vec<&TableRow> = models.collect();
    let mut header = vec!["Data set".to_owned(), "Metric".to_owned()];
    header.extend(models.iter().map(|model| escape(&model.label())));
    let mut backbones = vec!["_Backbone_".to_owned(), String::new()];
    backbones.extend(models.iter().map(|model| escape(&model.backbone)));
    let mut rows = vec![backbones];
    for (place, (column, name)) in columns.iter().zip(headings(columns)).enumerate() {
        let mut row = vec![escape(&name), column.metric_title()];
        row.extend(models.iter().map(|model| cell_text(model.cells.get(place).and_then(Option::as_ref))));
        rows.push(row);
    }
    grid(&header, &rows)
}
