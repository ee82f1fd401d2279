//! Published numbers, read from `benchmarks/published/*.csv` (its README describes the columns).

use std::io::Cursor;
use std::path::Path;

use polars::prelude::{CsvReadOptions, DataFrame, PolarsResult, SerReader};

use crate::error::AtPath;
use crate::home::Home;
use crate::metrics::{Metric, Scale, Unit};
use crate::task::Table;
use crate::{Error, Result};

/// The values of one table of a paper.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Where the values come from, in words; empty where there are none.
    pub source: String,
    /// In the order of the source.
    pub values: Vec<PublishedValue>,
}

/// One value of a paper.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedValue {
    pub model: String,
    /// Empty where the source names none.
    pub backbone: String,
    /// The task's name.
    pub dataset: String,
    /// `default` where the source has no training subsets.
    pub partition: String,
    pub protocol: String,
    /// The name of a [`crate::task::Metric`], or of one that no suite here has.
    pub metric: String,
    /// In percent, or in the metric's own unit.
    pub value: f64,
    /// How the source sets the value. Not consistent in the source, so tables do not use it.
    pub mark: Mark,
}

/// How a table sets a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    None,
    /// Second best.
    Italic,
    /// Best.
    Bold,
}

/// The columns a file has in any case, and those it may leave out.
const REQUIRED: [&str; 6] = ["model", "dataset", "protocol", "metric", "value", "mark"];
const OPTIONAL: [&str; 2] = ["backbone", "partition"];

const SOURCE: &str = "# Source:";

/// Lines before the first value: the source, the names of the columns.
const LINES_BEFORE: usize = 2;

/// The published values of a table; none where it names no file of them.
///
/// # Errors
/// As [`read`].
pub fn of_table(home: &Home, table: &Table) -> Result<Published> {
    match table.published.is_empty() {
        true => Ok(Published { source: String::new(), values: Vec::new() }),
        false => read(&home.published(&table.published)),
    }
}

/// Reads a file of published values: a line `# Source: …`, the columns' names, one value a line.
///
/// # Errors
/// Where the file cannot be read, or a line has too many or too few fields, a value that is none of its
/// metric (of one that is not known here: no percentage), an unknown mark, or a value that stands there already: the message names the line.
pub fn read(path: &Path) -> Result<Published> {
    let text = std::fs::read_to_string(path).at(path)?;
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let source = first.strip_prefix(SOURCE).map(str::trim).filter(|source| !source.is_empty());
    let source = source.ok_or_else(|| {
        at_line(path, 1, format!("`{first}` does not begin with `{SOURCE}`"))
            .help("name the paper the values are from")
    })?;
    let frame = parse(path, rest)?;
    let columns = columns(path, &frame)?;
    let mut values: Vec<PublishedValue> = Vec::with_capacity(frame.height());
    for row in 0..frame.height() {
        let line = row + LINES_BEFORE + 1;
        let value = value(&columns, row).map_err(|problem| at_line(path, line, problem))?;
        if let Some(earlier) = values.iter().position(|other| same_cell(other, &value)) {
            let problem = format!("stands there already, on line {}", earlier + LINES_BEFORE + 1);
            return Err(at_line(path, line, problem));
        }
        values.push(value);
    }
    Ok(Published { source: source.to_owned(), values })
}

fn at_line(path: &Path, line: usize, problem: impl std::fmt::Display) -> Error {
    Error::file(path, format!("line {line}: {problem}"))
}

fn same_cell(a: &PublishedValue, b: &PublishedValue) -> bool {
    let key = |v: &PublishedValue| {
        [&v.model, &v.backbone, &v.dataset, &v.partition, &v.metric].map(|name| name.to_owned())
    };
    key(a) == key(b)
}

/// Every column as text. `text` begins with the columns' names.
fn parse(path: &Path, text: &str) -> Result<DataFrame> {
    // One line a value: an open quote would swallow the lines after it.
    if let Some(i) = text.lines().position(|line| line.matches('"').count() % 2 == 1) {
        return Err(at_line(path, i + LINES_BEFORE, "a quote that does not end on this line"));
    }
    let all = polars_csv(text);
    match all {
        Ok(frame) if frame.height() + 1 == text.lines().count() => Ok(frame),
        all => {
            // polars does not say where it stumbled: the first line it refuses on its own is the one.
            let (names, lines) = text.split_once('\n').unwrap_or((text, ""));
            for (i, line) in lines.lines().enumerate() {
                let problem = match polars_csv(&format!("{names}\n{line}\n")) {
                    Ok(one) if one.height() == 1 => continue,
                    Ok(_) => "no value on this line".to_owned(),
                    // The lines below the first are hints for who calls polars.
                    Err(e) => e.to_string().lines().next().unwrap_or_default().to_owned(),
                };
                return Err(at_line(path, i + LINES_BEFORE + 1, problem));
            }
            let problem = all.err().map_or("no value on some line".to_owned(), |e| e.to_string());
            Err(at_line(path, LINES_BEFORE, problem))
        }
    }
}

fn polars_csv(text: &str) -> PolarsResult<DataFrame> {
    CsvReadOptions::default()
        .with_has_header(true)
        .with_infer_schema_length(Some(0))
        .into_reader_with_file_handle(Cursor::new(text.as_bytes()))
        .finish()
}

/// The fields of a file by column, in the order of [`REQUIRED`], then [`OPTIONAL`]; an absent optional
/// column is empty.
type Columns = [Vec<Option<String>>; REQUIRED.len() + OPTIONAL.len()];

fn columns(path: &Path, frame: &DataFrame) -> Result<Columns> {
    let names = frame.get_column_names();
    if let Some(unknown) =
        names.iter().find(|n| !REQUIRED.contains(&n.as_str()) && !OPTIONAL.contains(&n.as_str()))
    {
        return Err(at_line(path, LINES_BEFORE, format!("unknown column `{unknown}`")));
    }
    if let Some(missing) = REQUIRED.iter().find(|name| !names.iter().any(|n| n.as_str() == **name)) {
        return Err(at_line(path, LINES_BEFORE, format!("column `{missing}` is missing")));
    }
    let mut columns = Columns::default();
    for (column, name) in columns.iter_mut().zip(REQUIRED.into_iter().chain(OPTIONAL)) {
        *column = match frame.column(name) {
            Ok(found) => found.str().at(path)?.iter().map(|field| field.map(str::to_owned)).collect(),
            Err(_) => vec![None; frame.height()],
        };
    }
    Ok(columns)
}

fn value(columns: &Columns, row: usize) -> Result<PublishedValue, String> {
    let field = |column: &[Option<String>]| {
        column.get(row).cloned().flatten().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let [model, dataset, protocol, metric, value, mark, backbone, partition] = columns;
    let required =
        |column, name: &str| field(column).ok_or_else(|| format!("the field `{name}` is empty or missing"));
    let value = required(value, "value")?;
    let name = field(metric).unwrap_or_default();
    let known = Metric::ALL.iter().map(|metric| metric.about()).find(|about| about.name == name);
    let scale = known.map_or(Scale::PERCENT, |about| about.scale);
    let value = match value.parse::<f64>() {
        Ok(percent) if scale.unit == Unit::Percent && (0.0..=100.0).contains(&percent) => percent,
        Ok(number) if scale.unit != Unit::Percent && scale.holds(number) => number,
        _ if scale.unit == Unit::Percent => return Err(format!("value `{value}` is not a percentage")),
        _ => return Err(format!("value `{value}` is no {}, as {name} is", scale.range())),
    };
    let mark = match field(mark).as_deref() {
        None => Mark::None,
        Some("italic") => Mark::Italic,
        Some("bold") => Mark::Bold,
        Some(other) => return Err(format!("mark `{other}` is not `bold`, `italic` or nothing")),
    };
    Ok(PublishedValue {
        model: required(model, "model")?,
        backbone: field(backbone).unwrap_or_default(),
        dataset: required(dataset, "dataset")?,
        partition: field(partition).unwrap_or_else(|| "default".to_owned()),
        protocol: required(protocol, "protocol")?,
        metric: required(metric, "metric")?,
        value,
        mark,
    })
}
