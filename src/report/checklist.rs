//! What a report lacks of the six things that an audit of 152 papers asks for [arXiv 2605.12678]: weights under a named
//! licence, a shared core of tasks, baselines marked as copied or rerun, variance, one harness, and controls for data,
//! architecture and algorithm. Demos are left out: nobody may cite their numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::chapter::Chapter;
use super::plain::PlainTable;
use super::tables::published::ValueOrigin;
use super::tables::table::{ResultTable, SETTING, TableRow, Value};
use crate::Result;
use crate::home::{Home, read_toml};
use crate::model::weights::NO_WEIGHTS;
use crate::record::{Aspect, Record};

/// The checklist of a report: how many rows meet each demand, and what each row lacks.
#[derive(Debug, Clone)]
pub struct Checklist {
    /// One row per demand.
    pub demands: PlainTable,
    /// One row per measured row of a table.
    pub rows: PlainTable,
}

/// A demand on a measured row.
struct Demand {
    title: &'static str,
    /// Heading in the table of rows.
    short: &'static str,
    /// Returns what the row lacks; empty if it meets the demand.
    lacks: fn(&Checked) -> Vec<String>,
}

/// A measured row, with what the demands need to know.
struct Checked<'t, 'a> {
    table: &'t ResultTable<'a>,
    row: &'t TableRow<'a>,
    licences: &'t Licences,
}

const DEMANDS: [Demand; 5] = [
    Demand { title: "Weights under a named licence", short: "Weights", lacks: weights },
    Demand { title: "A shared core of tasks", short: "Tasks", lacks: tasks },
    Demand { title: "Variance", short: "Variance", lacks: variance },
    Demand { title: "One harness", short: "Harness", lacks: harness },
    Demand { title: "Controls for data, architecture and algorithm", short: "Controls", lacks: controls },
];

/// How a licence begins that nobody could look up.
const NOT_SEEN: &str = "not seen";

/// The demand on published values stands after the core of tasks, as in the audit.
const ORIGINS_PLACE: usize = 2;

/// Checks the measured rows of all tables; `None` without any.
///
/// # Errors
/// If the folder of models cannot be read.
pub fn checklist(home: &Home, chapters: &[Chapter]) -> Result<Option<Checklist>> {
    let tables: Vec<&ResultTable> = chapters
        .iter()
        .flat_map(Chapter::filled)
        .map(|(_, table)| table)
        .filter(|table| !table.demo)
        .collect();
    if tables.is_empty() {
        return Ok(None);
    }
    let licences = Licences::read(home)?;
    let mut checked: Vec<Checked> = Vec::new();
    for table in &tables {
        checked.extend(table.measured.iter().map(|row| Checked { table, row, licences: &licences }));
    }
    let lacking: Vec<Vec<Vec<String>>> =
        checked.iter().map(|row| DEMANDS.iter().map(|demand| (demand.lacks)(row)).collect()).collect();

    let mut demands: Vec<Vec<String>> = Vec::new();
    for (place, demand) in DEMANDS.iter().enumerate() {
        let met = lacking.iter().filter(|row| row[place].is_empty()).count();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        lacking.iter().flat_map(|row| &row[place]).for_each(|what| *counts.entry(what).or_default() += 1);
        let missing: Vec<String> =
            counts.iter().map(|(what, count)| format!("{what} ({})", rows(*count))).collect();
        demands.push(vec![
            demand.title.to_owned(),
            format!("{met} of {}", rows(checked.len())),
            if missing.is_empty() { "-".to_owned() } else { missing.join("; ") },
        ]);
    }
    demands.insert(ORIGINS_PLACE, origins(&tables));
    for (number, demand) in demands.iter_mut().enumerate() {
        demand.insert(0, (number + 1).to_string());
    }
    let per_row = checked.iter().zip(&lacking).map(|(row, lacks)| {
        let mut texts = vec![row.table.title.clone(), row.row.full_label()];
        texts.extend(
            lacks.iter().map(|what| if what.is_empty() { "yes".to_owned() } else { what.join("; ") }),
        );
        texts
    });
    let header = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut row_header = header(&["Table", "Row"]);
    row_header.extend(DEMANDS.iter().map(|demand| demand.short.to_owned()));
    Ok(Some(Checklist {
        demands: PlainTable {
            header: header(&["", "Demand", "Met by", "Missing"]),
            rows: demands,
            notes: vec!["The demands are those of \"No One Knows the State of the Art in Geospatial Foundation Models\" (arXiv \
                         2605.12678). What a model was pre-trained on cannot be controlled by evaluating it."
                .to_owned()],
        },
        rows: PlainTable { header: row_header, rows: per_row.collect(), notes: Vec::new() },
    }))
}

fn rows(count: usize) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

/// Returns the line about published values: how many are known to be copied or rerun.
fn origins(tables: &[&ResultTable]) -> Vec<String> {
    let (mut known, mut all, mut missing) = (0, 0, Vec::new());
    for table in tables {
        let values = table.published.iter().flat_map(|row| row.cells.iter().flatten());
        let origins: Vec<&ValueOrigin> =
            values.filter_map(|value| value.printed.as_ref()).map(|printed| &printed.origin).collect();
        let unknown = origins.iter().filter(|origin| ***origin == ValueOrigin::Unknown).count();
        all += origins.len();
        known += origins.len() - unknown;
        if unknown > 0 {
            missing.push(format!("{}: origin of {unknown} published values unknown", table.title));
        }
    }
    vec![
        "Baselines marked as copied or rerun".to_owned(),
        format!("all measured rows, {known} of {all} published values"),
        if missing.is_empty() { "-".to_owned() } else { missing.join("; ") },
    ]
}

fn values<'t, 'a>(checked: &Checked<'t, 'a>) -> impl Iterator<Item = &'t Value<'a>> {
    let columns = checked.table.columns.iter().zip(&checked.row.cells);
    // Further scores come from the records of the metric.
    columns.filter(|(column, _)| column.score.is_none()).filter_map(|(_, cell)| cell.as_ref())
}

fn records<'t, 'a>(checked: &Checked<'t, 'a>) -> impl Iterator<Item = &'t &'a Record> {
    values(checked).flat_map(|value| &value.records)
}

fn weights(checked: &Checked) -> Vec<String> {
    let mut lacks = Vec::new();
    if checked.row.is_partial {
        lacks.push("partial weights".to_owned());
    }
    // Random weights, and a model without any, need no licence.
    let needs =
        |record: &&&Record| record.provenance.weights != NO_WEIGHTS && !record.provenance.random_weights();
    let cells = records(checked).filter(needs).map(|record| &record.cell);
    let unknown =
        cells.map(|cell| checked.licences.of(&cell.model, &cell.backbone)).any(|licence| licence.is_none());
    if unknown {
        lacks.push("licence unknown".to_owned());
    }
    lacks
}

fn tasks(checked: &Checked) -> Vec<String> {
    let all = checked.table.columns.iter().filter(|column| column.score.is_none()).count();
    let has = values(checked).count();
    if has < all { vec!["tasks are missing".to_owned()] } else { Vec::new() }
}

fn variance(checked: &Checked) -> Vec<String> {
    let mut lacks = Vec::new();
    if values(checked).any(|value| value.records.len() < 2) {
        lacks.push("one seed".to_owned());
    } else if values(checked).any(|value| value.spread.is_none()) {
        lacks.push("seeds that change nothing".to_owned());
    }
    if values(checked).any(|value| value.interval.is_none() && value.spread.is_none()) {
        lacks.push("no interval".to_owned());
    }
    lacks
}

fn harness(checked: &Checked) -> Vec<String> {
    let made = || records(checked).map(|record| &record.provenance);
    let versions: BTreeSet<(&str, Option<&str>)> =
        made().map(|made| (made.terrabench.as_str(), made.git_revision.as_deref())).collect();
    let mut lacks = Vec::new();
    if versions.len() > 1 {
        lacks.push("several versions of the program".to_owned());
    }
    if made().any(|made| made.git_dirty) {
        lacks.push("program with local changes".to_owned());
    }
    let differs =
        |place: &usize| checked.table.footnotes.get(*place).is_some_and(|note| note.kind == SETTING);
    if values(checked).any(|value| value.footnotes.iter().any(&differs)) {
        lacks.push("settings differ within the row".to_owned());
    }
    lacks
}

fn controls(checked: &Checked) -> Vec<String> {
    let measured = || checked.table.measured.iter();
    let weights = |row: &TableRow| row.setting.as_ref()?.get(&Aspect::Weights).map(str::to_owned);
    let is_random = |row: &TableRow| weights(row).is_some_and(|weights| weights.starts_with("random:"));
    let is_own = |row: &&TableRow| (&row.model, &row.backbone) == (&checked.row.model, &checked.row.backbone);
    let mut lacks = Vec::new();
    let without_parameters = weights(checked.row).as_deref() == Some(NO_WEIGHTS);
    if !without_parameters && !measured().filter(is_own).any(is_random) {
        lacks.push("no row of the same architecture with random weights".to_owned());
    }
    if !measured().any(|row| weights(row).as_deref() == Some(NO_WEIGHTS)) {
        lacks.push("no row of image statistics".to_owned());
    }
    lacks
}

/// The licences of the models' weights, by model and backbone.
struct Licences(BTreeMap<(String, String), String>);

impl Licences {
    /// Reads the field `licence` of each model in `configs/models/`, on its own or among the weights. A model without it has
    /// no known licence.
    fn read(home: &Home) -> Result<Self> {
        let mut licences = BTreeMap::new();
        for name in home.names("configs/models")? {
            // A model that cannot be read has no known licence; commands that need it say why.
            let Ok(model) = home.config("models", &name).and_then(|path| read_toml::<toml::Table>(&path))
            else {
                continue;
            };
            let text = |table: &toml::Table, key: &str| Some(table.get(key)?.as_str()?.to_owned());
            let of_weights = || text(model.get("weights")?.as_table()?, "licence");
            if let (Some(name), Some(backbone), Some(licence)) =
                (text(&model, "name"), text(&model, "backbone"), text(&model, "licence").or_else(of_weights))
                && !licence.starts_with(NOT_SEEN)
            {
                licences.insert((name, backbone), licence);
            }
        }
        Ok(Licences(licences))
    }

    fn of(&self, model: &str, backbone: &str) -> Option<&str> {
        self.0.get(&(model.to_owned(), backbone.to_owned())).map(String::as_str)
    }
}
