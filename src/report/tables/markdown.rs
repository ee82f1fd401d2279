//! A table as Markdown, aligned so that it also reads as plain text.

use std::collections::{BTreeMap, BTreeSet};

use super::published::ValueOrigin;
use super::table::{Column, ResultTable, TableRow};
use super::text::{cell_text, escape, escape_sentence, grid, letter};
use super::transposed;
use crate::metrics::{Better, Unit};
use crate::record::{Aspect, Record, short};
use crate::task::Split;
use crate::task::TableLayout;

/// Up to so many values of one origin are named one by one.
const FEW: usize = 3;

/// Renders the table, followed by notes and the provenance of each measured value.
pub fn markdown(table: &ResultTable) -> String {
    let mut text = format!("# {}{}\n\n", escape(&table.title), if table.demo { " (demo)" } else { "" });
    if table.demo {
        let others = if table.source.is_empty() { "other numbers" } else { "the published rows" };
        text += &format!(
            "> **These are demo numbers, not benchmark numbers.** The rows marked \"demo\" come from generated data\n\
                 > and small models. They show that the program works, and say nothing about the\n\
                 > quality of any model: do not compare them with {others}, and do not report them.\n\n"
        );
        text += "## Demo: measured on generated data\n\n";
        text += &if table.measured.is_empty() {
            "No measurements yet.\n".to_owned()
        } else {
            values(table, table.measured.iter())
        };
        if !table.source.is_empty() {
            text += "\n## Published: measured on the real data\n\n";
            text += &values(table, table.published.iter());
        }
    } else {
        text += &values(table, table.published.iter().chain(&table.measured));
    }
    let differences = differences(table);
    if !differences.is_empty() {
        text += "\n## Measured against published\n\n";
        text += &differences;
    }
    text += "\n## Notes\n\n";
    for note in notes(table) {
        text += &format!("- {note}\n");
    }
    let shown = shown(table);
    if !shown.is_empty() {
        text += "\n## How the measured values were made\n\n";
        text += &provenance(&shown);
    }
    text
}

/// Renders the values in the table's layout.
fn values<'t, 'a: 't>(table: &ResultTable, rows: impl Iterator<Item = &'t TableRow<'a>>) -> String {
    match table.layout {
        TableLayout::ModelsAsRows => models_as_rows(&table.columns, rows),
        TableLayout::DatasetsAsRows => transposed::values(&table.columns, rows),
    }
}

/// Renders the rows under the columns' headings.
fn models_as_rows<'t, 'a: 't>(columns: &[Column], rows: impl Iterator<Item = &'t TableRow<'a>>) -> String {
    let mut header = vec!["Model".to_owned(), "Backbone".to_owned()];
    header.extend(columns.iter().map(|c| format!("{}, {}", escape(&c.heading()), c.metric_title())));
    let rows: Vec<Vec<String>> = rows
        .map(|row| {
            let names = [escape(&row.label()), escape(&row.backbone)];
            names.into_iter().chain(row.cells.iter().map(|cell| cell_text(cell.as_ref()))).collect()
        })
        .collect();
    grid(&header, &rows)
}

/// Renders one line per measured value with a published counterpart: their difference, and whether the published value lies in
/// the interval. Empty if there are none.
fn differences(table: &ResultTable) -> String {
    let header = [
        "Model",
        "Backbone",
        "Column",
        "Measured",
        "Interval",
        "Published",
        "Difference",
        "Published in interval",
    ]
    .map(str::to_owned);
    let mut rows = Vec::new();
    for row in &table.measured {
        for (column, cell) in table.columns.iter().zip(&row.cells) {
            let Some((value, difference, published)) =
                cell.as_ref().and_then(|value| Some((value, value.difference()?, value.reference?)))
            else {
                continue;
            };
            let shown = |number| value.rounded(number);
            let interval = value.interval.map(|i| format!("[{}, {}]", shown(i.low), shown(i.high)));
            let spread = value.spread.map(|spread| format!("± {}", shown(spread)));
            let inside = value.inside().map(|inside| if inside { "yes" } else { "no" });
            rows.push(vec![
                escape(&row.label()),
                escape(&row.backbone),
                format!("{}, {}", escape(&column.heading()), column.metric_title()),
                shown(value.value).to_string(),
                interval.or(spread).unwrap_or_else(|| "-".to_owned()),
                shown(published).to_string(),
                format!("{difference:+}"),
                inside.unwrap_or("-").to_owned(),
            ]);
        }
    }
    if rows.is_empty() { String::new() } else { grid(&header, &rows) }
}

/// Returns the records behind the table's values, by row and column, each with its row's label and its column.
fn shown<'t, 'a>(table: &'t ResultTable<'a>) -> Vec<(String, &'t Column, &'a Record)> {
    let mut shown = Vec::new();
    for row in &table.measured {
        // A further score comes from the same record as the metric before it.
        for (column, cell) in
            table.columns.iter().zip(&row.cells).filter(|(column, _)| column.score.is_none())
        {
            for record in cell.iter().flat_map(|cell| &cell.records) {
                shown.push((row.label(), column, *record));
            }
        }
    }
    shown
}

fn notes(table: &ResultTable) -> Vec<String> {
    let mut notes = vec![format!(
        "{} The best value of a column is **bold** and the second best _italic_, by the values \
             as shown; equal values share their mark.{} `-`: no value.",
        units(&table.columns),
        lower_is_better(&table.columns)
    )];
    if table.layout == TableLayout::DatasetsAsRows {
        notes[0] = notes[0].replace("of a column", "of a row");
    }
    if !table.source.is_empty() {
        notes.insert(0, format!("Published values: {}.", escape(&table.source)));
    }
    notes.extend(origins(table).into_iter().map(|(mark, text)| {
        let mark = if mark.is_empty() { "No mark:" } else { mark };
        format!("{mark} {}.", escape_sentence(&text))
    }));
    if table.reported {
        notes.push(
            "Measured values are means over batches of the metric, weighted by the batches' sizes, as the reference \
             reports them; a record's `value` is the metric of the whole test split."
                .to_owned(),
        );
    }
    if table.demo {
        notes.push("Demo rows are not ranked and not compared with published values.".to_owned());
    }
    let cells = || table.measured.iter().flat_map(|row| row.cells.iter().flatten());
    let levels: BTreeSet<String> = cells()
        .filter_map(|value| value.interval)
        .map(|interval| format!("{} %", (interval.level * 1e4).round() / 1e2))
        .collect();
    if !levels.is_empty() {
        let levels: Vec<String> = levels.into_iter().collect();
        notes.push(format!(
            "In square brackets after a value: the {} bootstrap interval over the test samples.",
            levels.join(" or ")
        ));
    }
    if cells().any(|value| value.spread.is_some()) {
        notes.push("±: mean and standard deviation over several seeds.".to_owned());
    }
    if cells().any(|value| value.reference.is_some()) {
        notes.push(
            "In round brackets after a value: the difference from the published value of the same model and backbone."
                .to_owned(),
        );
    }
    if table.measured.iter().any(|row| row.is_partial) {
        notes.push(
            "Rows with partial weights, whose remaining parameters are random, are not ranked and not compared with \
             published values."
                .to_owned(),
        );
    }
    if !table.demo && table.measured.is_empty() {
        notes.push("No measurements yet.".to_owned());
    }
    notes.extend(table.measured.iter().filter_map(setting));
    for (place, note) in table.footnotes.iter().enumerate() {
        notes.push(format!("{} {}.", letter(place), escape(&note.text)));
    }
    let whys: BTreeSet<&str> = table.left_out.iter().map(|left_out| left_out.why).collect();
    for why in whys {
        let files: Vec<String> = table
            .left_out
            .iter()
            .filter(|left_out| left_out.why == why)
            .map(|left_out| format!("`{}`", left_out.record.file_name()))
            .collect();
        notes.push(format!("Not shown: {why}: {}.", files.join(", ")));
    }
    if !table.unreadable.is_empty() {
        let files: Vec<String> = table.unreadable.iter().map(|name| escape(name)).collect();
        notes.push(format!("Left out because they cannot be used: {}.", files.join(", ")));
    }
    notes
}

/// Explains the origins of the published values: each mark (empty for the source's own values) with its meaning, and the names of
/// the few values that are exceptions. Empty if the source measured all of them on its own models.
pub(crate) fn origins(table: &ResultTable) -> Vec<(&'static str, String)> {
    let mut places: BTreeMap<(&ValueOrigin, &str), Vec<String>> = BTreeMap::new();
    for row in &table.published {
        for (column, cell) in table.columns.iter().zip(&row.cells) {
            let Some(printed) = cell.as_ref().and_then(|cell| cell.printed.as_ref()) else { continue };
            let score = column.score.iter().map(|_| format!(", {}", column.metric_title()));
            let name = format!("{}, {}{}", row.full_label(), column.heading(), score.collect::<String>());
            places.entry((&printed.origin, &printed.place)).or_default().push(name);
        }
    }
    let is_plain =
        |(origin, place): &(&ValueOrigin, &str)| **origin == ValueOrigin::Own && *place == table.source;
    if places.keys().all(is_plain) {
        return Vec::new();
    }
    let note = |((origin, place), cells): (&(&ValueOrigin, &str), &Vec<String>)| {
        let which = if cells.len() <= FEW { cells.join("; ") } else { format!("{} values", cells.len()) };
        let elsewhere = if *place == table.source { String::new() } else { format!(", printed in {place}") };
        (origin.mark(), format!("{}{elsewhere}: {which}", origin.description()))
    };
    places.iter().map(note).collect()
}

/// Describes the units of the columns' values.
fn units(columns: &[Column]) -> &'static str {
    let is_percent = |column: &Column| column.scale().unit == Unit::Percent;
    match (columns.iter().all(is_percent), columns.iter().any(is_percent)) {
        (true, _) => "All values in percent.",
        (false, true) => {
            "Values in percent, except errors, which are in the unit named in their column, and R²."
        }
        (false, false) => "Errors in the unit named in their column.",
    }
}

/// Says for which metrics lower is better; empty if there are none.
fn lower_is_better(columns: &[Column]) -> String {
    let lower = columns.iter().filter(|column| column.scale().better == Better::Lower);
    let titles: BTreeSet<String> = lower
        .map(|column| match &column.score {
            Some(_) => column.metric_title(),
            None => column.metric.about().title.to_owned(),
        })
        .collect();
    let titles: Vec<String> = titles.into_iter().collect();
    match titles.is_empty() {
        true => String::new(),
        false => format!(" For {}, lower is better.", titles.join(" and ")),
    }
}

/// Describes the coverage of partial weights; `None` if the weights are not partial.
fn partial(record: &Record) -> Option<String> {
    let made = &record.provenance;
    made.partial_weights().then(|| made.coverage().to_string())
}

/// Describes the setting of a row's values, except those with a footnote.
fn setting(row: &TableRow) -> Option<String> {
    let told = [
        Aspect::Sensor,
        Aspect::Channels,
        Aspect::Pooling,
        Aspect::Bands,
        Aspect::Imputation,
        Aspect::Matching,
        Aspect::Normalization,
        Aspect::InputSize,
        Aspect::Depth,
        Aspect::Resize,
        Aspect::Beside,
        Aspect::Precision,
        Aspect::Metadata,
    ];
    let setting = row.setting.as_ref()?;
    let setting = setting.tell(told.iter().filter(|aspect| setting.get(aspect).is_some()));
    Some(format!("{}: {}.", escape(&row.full_label()), escape(&setting)))
}

/// Renders one line per record: what affected its value.
fn provenance(shown: &[(String, &Column, &Record)]) -> String {
    let header = [
        "Model",
        "Column",
        "Seed",
        "Protocol",
        "Samples",
        "Sensor",
        "Input",
        "Normalisation",
        "Bands",
        "Imputed",
        "Weights",
        "Program",
        "Record",
    ]
    .map(str::to_owned);
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|(label, column, record)| {
            let made = &record.provenance;
            let selected = record.selected.iter().map(|(name, chosen)| format!("{name} {chosen}"));
            let counts =
                Split::ALL.iter().filter_map(|split| record.samples.get_key_value(&split.to_string()));
            let samples = counts.map(|(split, count)| format!("{split} {count}"));
            let imputed = made.imputed.iter().map(|pair| format!("{} for {}", pair.source, pair.target));
            let dirty = if made.git_dirty { "-dirty" } else { "" };
            let revision = made.git_revision.iter().map(|revision| format!("{}{dirty}", short(revision)));
            let list = |items: &mut dyn Iterator<Item = String>| {
                let items: Vec<String> = items.collect();
                if items.is_empty() { "-".to_owned() } else { items.join(", ") }
            };
            [
                label.clone(),
                column.heading(),
                record.cell.seed.to_string(),
                list(&mut std::iter::once(record.cell.protocol.clone()).chain(selected)),
                list(&mut samples.into_iter()),
                made.sensors(),
                made.input_size(),
                made.normalization.clone(),
                made.band_names.clone(),
                list(&mut imputed.into_iter()),
                list(&mut std::iter::once(short(&made.weights).to_owned()).chain(partial(record))),
                list(&mut std::iter::once(made.terrabench.clone()).chain(revision)),
            ]
            .iter()
            .map(|text| escape(text))
            .chain([format!("`records/{}`", record.file_name())])
            .collect()
        })
        .collect();
    grid(&header, &rows)
}
