//! The report as one page that needs no other file and no network.
//!
//! One block of JSON holds the tables' values and the records behind them; `html/page.js` builds the tables from it. Pictures
//! are inline SVG, sheets are data URIs. The page's content security policy forbids loading anything else.

use std::collections::HashMap;
use std::fmt::Write;

use base64::Engine;
use serde::Serialize;
use serde_json::Value as Json;

use super::chapter::{Chapter, Figure};
use super::checklist::Checklist;
use super::gather::Section;
use super::mistaken_bands;
use super::tables::markdown::origins;
use super::tables::published::Mark;
use super::tables::table::{Origin, ResultTable, TableRow, Value, headings};
use super::tables::text::letter;
use super::views;

use crate::canvas::{svg, xml_text};
use crate::metrics::{Better, Scale, Unit};
use crate::record::Record;
use crate::task::Task;
use crate::{Error, Result};

/// Total bytes of sheets embedded in the page; further sheets exist as files only.
const MOST_SHEETS: usize = 32 << 20;

#[derive(Serialize)]
struct Data<'a> {
    sections: Vec<SectionData<'a>>,
    records: Vec<Json>,
}

#[derive(Serialize)]
struct SectionData<'a> {
    title: String,
    folder: &'a str,
    demo: bool,
    tables: Vec<TableData<'a>>,
}

#[derive(Serialize)]
struct TableData<'a> {
    title: &'a str,
    source: &'a str,
    /// Protocols of the measured rows.
    protocols: Vec<&'a str>,
    columns: Vec<ColumnData>,
    rows: Vec<RowData<'a>>,
    footnotes: Vec<FootnoteData>,
}

#[derive(Serialize)]
struct FootnoteData {
    mark: String,
    text: String,
}

#[derive(Serialize)]
struct ColumnData {
    heading: String,
    metric: String,
    sensor: String,
    /// Suffix of its numbers: ` %`, ` Mg/ha` or nothing.
    unit: String,
    /// Whether lower values are better.
    lower: bool,
}

#[derive(Serialize)]
struct RowData<'a> {
    label: String,
    backbone: &'a str,
    origin: &'static str,
    protocols: Vec<&'a str>,
    cells: Vec<Option<CellData<'a>>>,
}

#[derive(Serialize)]
struct OriginData<'a> {
    mark: &'static str,
    text: String,
    printed: &'a str,
}

#[derive(Serialize)]
struct CellData<'a> {
    /// The value as shown.
    value: String,
    /// The value as sorted.
    number: f64,
    mark: &'static str,
    /// Mark and description of a published value's origin, and where it was printed.
    origin: Option<OriginData<'a>>,
    spread: Option<String>,
    low: Option<String>,
    high: Option<String>,
    published: Option<String>,
    difference: Option<String>,
    inside: Option<bool>,
    /// Letters of the footnotes.
    marks: Vec<String>,
    /// Indices into the data's records.
    records: Vec<usize>,
}

/// The records that the page shows, each once.
#[derive(Default)]
struct Told<'a> {
    /// By fingerprint and contributor: two may have measured the same.
    places: HashMap<(&'a str, Option<&'a str>), usize>,
    records: Vec<ToldRecord<'a>>,
}

struct ToldRecord<'a> {
    record: &'a Record,
    /// Path relative to the report's folder.
    file: String,
    /// Like [`ColumnData::unit`].
    unit: String,
}

impl<'a> Told<'a> {
    fn place(&mut self, record: &'a Record, section: &Section) -> usize {
        let origin = record.provenance.origin.as_deref();
        *self.places.entry((&record.fingerprint, origin)).or_insert_with(|| {
            let task = section.suite.task(&record.cell.task);
            self.records.push(ToldRecord {
                record,
                file: match origin {
                    None => format!("{}/records/{}", section.folder, record.file_name()),
                    Some(name) => format!(
                        "{}/records/{} in the contribution of {name}",
                        section.folder,
                        record.file_name()
                    ),
                },
                unit: task.map_or_else(|_| String::new(), |task| unit(record.metric.about().scale, task)),
            });
            self.records.len() - 1
        })
    }
}

/// Renders the page.
///
/// # Errors
/// If a record cannot be written as JSON.
pub fn page(chapters: &[Chapter], checklist: Option<&Checklist>) -> Result<String> {
    let mut told = Told::default();
    let sections = chapters.iter().map(|chapter| section(chapter, &mut told)).collect::<Result<Vec<_>>>()?;
    let records = told.records.iter().map(|ToldRecord { record, file, unit }| {
        let mut json = serde_json::to_value(record).map_err(Error::request)?;
        if let Json::Object(fields) = &mut json {
            fields.insert("file".to_owned(), Json::String(file.clone()));
            fields.insert("unit".to_owned(), Json::String(unit.clone()));
            let decimals = record.metric.about().scale.decimals + 1;
            fields.insert("decimals".to_owned(), Json::from(decimals));
        }
        Ok(json)
    });
    let data = Data { sections, records: records.collect::<Result<_>>()? };
    // Only `<` could end a script block or begin a comment in it.
    let data = serde_json::to_string(&data).map_err(Error::request)?.replace('<', "\\u003c");
    let mut room = MOST_SHEETS;
    let mut body: String = chapters.iter().map(|chapter| body(chapter, &mut room)).collect();
    for chapter in chapters {
        let Some(views) = views::table(&chapter.section.records) else { continue };
        let title = format!("Do ranks survive the choice? {}", chapter.section.title());
        body += &format!("<details class=\"checklist\">\n<summary>{}</summary>\n", xml_text(&title));
        body += &views.html(&title);
        body += "</details>\n";
    }
    if let Some(Checklist { demands, rows }) = checklist {
        // Last, because readers come for the numbers.
        body += "<details class=\"checklist\">\n<summary>Checklist: which of the six demands of arXiv 2605.12678 this report meets</summary>\n";
        body += &demands.html("Checklist");
        body += &rows.html("Checklist, row by row");
        body += "</details>\n";
    }
    Ok(format!(
        include_str!("html/page.html"),
        css = include_str!("html/page.css"),
        body = body,
        data = data,
        js = include_str!("html/page.js"),
    ))
}

fn section<'a>(chapter: &'a Chapter, told: &mut Told<'a>) -> Result<SectionData<'a>> {
    let section = chapter.section;
    let mut tables = Vec::new();
    for (_, table) in chapter.filled() {
        let columns = table.columns.iter().zip(headings(&table.columns)).map(|(column, heading)| {
            let task = section.suite.task(&column.task)?;
            Ok(ColumnData {
                heading,
                metric: column.metric_title(),
                sensor: task.sensors(),
                unit: unit(column.scale(), task),
                lower: column.scale().better == Better::Lower,
            })
        });
        let columns = columns.collect::<Result<_>>()?;
        let rows: Vec<RowData> = rows(table).map(|row| row_data(row, section, told)).collect();
        let mut protocols: Vec<&str> = rows.iter().flat_map(|row| row.protocols.iter().copied()).collect();
        protocols.sort_unstable();
        protocols.dedup();
        let footnotes = table.footnotes.iter().enumerate();
        let footnotes =
            footnotes.map(|(place, note)| FootnoteData { mark: letter(place), text: note.text.clone() });
        // A demo's table has no published rows.
        let origins = if table.demo { Vec::new() } else { origins(table) };
        let origins = origins.into_iter().map(|(mark, text)| FootnoteData {
            mark: if mark.is_empty() { "No mark:".to_owned() } else { mark.to_owned() },
            text,
        });
        tables.push(TableData {
            title: &table.title,
            source: &table.source,
            protocols,
            columns,
            rows,
            footnotes: origins.chain(footnotes).collect(),
        });
    }
    Ok(SectionData { title: section.title(), folder: &section.folder, demo: section.demo, tables })
}

/// Returns the suffix of a number of `task`, such as ` %`.
fn unit(scale: Scale, task: &Task) -> String {
    match (scale.unit, &task.unit) {
        (Unit::Percent, _) => " %".to_owned(),
        (Unit::OfTask, Some(unit)) => format!(" {unit}"),
        (Unit::OfTask, None) | (Unit::None, _) => String::new(),
    }
}

/// Iterates over the published rows, then the measured ones. A demo's table has no published rows.
fn rows<'t, 'a>(table: &'t ResultTable<'a>) -> impl Iterator<Item = &'t TableRow<'a>> {
    let published = if table.demo { &[][..] } else { &table.published[..] };
    published.iter().chain(&table.measured)
}

fn row_data<'a>(row: &'a TableRow<'a>, section: &Section, told: &mut Told<'a>) -> RowData<'a> {
    let records = row.cells.iter().flatten().flat_map(|cell| &cell.records);
    let mut protocols: Vec<&str> = records.map(|record| record.cell.protocol.as_str()).collect();
    protocols.sort_unstable();
    protocols.dedup();
    RowData {
        label: row.label(),
        backbone: &row.backbone,
        origin: match row.origin {
            Origin::Published => "published",
            Origin::Measured => "measured",
            Origin::Demo => "demo",
        },
        protocols,
        cells: row
            .cells
            .iter()
            .map(|cell| cell.as_ref().map(|cell| cell_data(cell, section, told)))
            .collect(),
    }
}

fn cell_data<'a>(cell: &'a Value<'a>, section: &Section, told: &mut Told<'a>) -> CellData<'a> {
    let shown = |number: f64| cell.rounded(number).to_string();
    CellData {
        value: shown(cell.value),
        number: cell.value,
        mark: match cell.mark {
            Mark::Bold => "bold",
            Mark::Italic => "italic",
            Mark::None => "",
        },
        origin: cell.printed.as_ref().map(|printed| OriginData {
            mark: printed.origin.mark(),
            text: printed.origin.description(),
            printed: &printed.place,
        }),
        spread: cell.spread.map(shown),
        low: cell.interval.map(|interval| shown(interval.low)),
        high: cell.interval.map(|interval| shown(interval.high)),
        published: cell.reference.map(shown),
        difference: cell.difference().map(|difference| format!("{difference:+}")),
        inside: cell.inside(),
        marks: cell.footnotes.iter().map(|place| letter(*place)).collect(),
        records: cell.records.iter().map(|record| told.place(record, section)).collect(),
    }
}

/// Renders a section's headings, pictures and sheets; the script fills in its tables.
fn body(chapter: &Chapter, room: &mut usize) -> String {
    let section = chapter.section;
    let mut html = format!(
        "<section data-section=\"{0}\">\n<h2>{1}</h2>\n",
        xml_text(&section.folder),
        xml_text(&section.title())
    );
    if section.demo {
        html += "<p class=\"demo\">These are demo numbers, not benchmark numbers: generated data and small \
                 models. They say nothing about the quality of any model.</p>\n";
    }
    if !chapter.unreadable.is_empty() {
        let files = xml_text(&super::names(&chapter.unreadable).join(", "));
        let _ = writeln!(html, "<p>Left out because they cannot be used: {files}.</p>");
    }
    html += "<p class=\"nothing\" hidden>No table with measured rows matches the filters.</p>\n<div class=\"tables\"></div>\n";
    if let Some(table) = &chapter.mistaken_bands {
        let demo = if section.demo { " (demo)" } else { "" };
        let _ = writeln!(html, "<h3>{}{demo}</h3>", mistaken_bands::TITLE);
        html += &table.html(mistaken_bands::TITLE);
    }
    for Figure { caption, picture, table, .. } in &chapter.figures {
        let _ = write!(
            html,
            "<figure>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\">\n{1}</div>\n<figcaption>{0}{2}</figcaption>\n</figure>\n",
            xml_text(caption),
            svg(picture),
            if section.demo { " (demo)" } else { "" }
        );
        html += &table.as_ref().map_or_else(String::new, |table| table.html(caption));
    }
    html += &sheets(chapter, room);
    html + "</section>\n"
}

/// Renders the picture sheets of the records in the tables, while `room` bytes are left.
fn sheets(chapter: &Chapter, room: &mut usize) -> String {
    let section = chapter.section;
    let mut html = String::new();
    let mut left_out = 0;
    let rows = chapter.filled().flat_map(|(_, table)| &table.measured);
    let mut seen: Vec<&str> = Vec::new();
    for record in rows.flat_map(|row| row.cells.iter().flatten()).flat_map(|cell| &cell.records) {
        if seen.contains(&record.fingerprint.as_str()) {
            continue;
        }
        seen.push(&record.fingerprint);
        let path = section.store.sheet(record);
        // Only segmentation records have a sheet.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        if bytes.len() > *room {
            left_out += 1;
            continue;
        }
        *room -= bytes.len();
        let cell = &record.cell;
        let made = &record.provenance;
        let partial = if made.partial_weights() { format!(" ({})", made.coverage()) } else { String::new() };
        let caption = format!(
            "{}: {} {}{partial}, {}, seed {}{}",
            cell.task,
            cell.model,
            cell.backbone,
            cell.protocol,
            cell.seed,
            if section.demo { " (demo)" } else { "" }
        );
        let _ = write!(
            html,
            "<figure class=\"sheet\">\n<img alt=\"{0}\" src=\"data:image/png;base64,{1}\">\n<figcaption>{0}</figcaption>\n</figure>\n",
            xml_text(&caption),
            base64::engine::general_purpose::STANDARD.encode(&bytes)
        );
    }
    if left_out > 0 {
        let _ = writeln!(
            html,
            "<p>{left_out} more sheets are in {}/sheets/, too many to embed here.</p>",
            xml_text(&section.folder)
        );
    }
    if html.is_empty() { html } else { format!("<h3>Predicted masks</h3>\n{html}") }
}
