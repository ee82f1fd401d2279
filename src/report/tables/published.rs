//! Published numbers, read from `benchmarks/published/*.csv` (the README there describes the columns).

use std::path::Path;
use std::str::FromStr;

use csv::StringRecord;

use crate::error::AtPath;
use crate::home::Home;
use crate::metrics::{Metric, Scale, Unit};
use crate::task::Table;
use crate::{Error, Result};

/// The values of one table of a paper.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The source in words; empty if there are no values.
    pub source: String,
    /// The values in the source's order.
    pub values: Vec<PublishedValue>,
}

/// One value of a paper.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedValue {
    /// The model as the source names it.
    pub model: String,
    /// The backbone; empty if the source names none.
    pub backbone: String,
    /// The task's name.
    pub dataset: String,
    /// The partition; `default` if the source has no training subsets.
    pub partition: String,
    /// The protocol's published name.
    pub protocol: String,
    /// Which bands the model received: `all`, `rgb` or a description; empty if the source does not tell them apart.
    pub channels: String,
    /// The name of a [`crate::task::Metric`], or of a metric that is not implemented here.
    pub metric: String,
    /// The value in percent, or in the metric's own unit.
    pub value: f64,
    /// The source's typographic mark. The source is inconsistent, so tables compute their own marks.
    pub mark: Mark,
    /// Who measured it.
    pub origin: ValueOrigin,
    /// Where the value was printed.
    pub printed: String,
}

/// Who measured a published value.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueOrigin {
    /// The authors of the source, on their own model or on a baseline that they made.
    Own,
    /// The authors of the source, on a model of others.
    Rerun,
    /// An earlier paper, which this names: the source prints the same number.
    Copied(String),
    /// Nobody has found out.
    #[default]
    Unknown,
}

impl ValueOrigin {
    /// Returns the word in files: `own`, `rerun`, `copied` or `unknown`.
    pub fn word(&self) -> &'static str {
        match self {
            ValueOrigin::Own => "own",
            ValueOrigin::Rerun => "rerun",
            ValueOrigin::Copied(_) => "copied",
            ValueOrigin::Unknown => "unknown",
        }
    }

    /// Returns the mark after a value in tables; none for the source's own values.
    pub fn mark(&self) -> &'static str {
        match self {
            ValueOrigin::Own => "",
            ValueOrigin::Rerun => "‡",
            ValueOrigin::Copied(_) => "†",
            ValueOrigin::Unknown => "§",
        }
    }

    /// Describes it in words: `copied from Galileo (arXiv 2502.09356), Table 13`.
    pub fn description(&self) -> String {
        match self {
            ValueOrigin::Own => "measured by the source's authors on their own model or baseline".to_owned(),
            ValueOrigin::Rerun => "measured by the source's authors on a model of others".to_owned(),
            ValueOrigin::Copied(from) => format!("copied from {from}"),
            ValueOrigin::Unknown => "not known whether copied or rerun".to_owned(),
        }
    }
}

/// Reads `own`, `rerun`, `unknown` or `copied: <the earlier paper>`.
impl FromStr for ValueOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("copied:").map(str::trim)) {
            ("own", _) => Ok(ValueOrigin::Own),
            ("rerun", _) => Ok(ValueOrigin::Rerun),
            ("unknown", _) => Ok(ValueOrigin::Unknown),
            (_, Some(from)) if !from.is_empty() => Ok(ValueOrigin::Copied(from.to_owned())),
            _ => Err(format!(
                "expected the origin `own`, `rerun`, `unknown` or `copied: <paper>`, found `{text}`"
            )),
        }
    }
}

/// The typographic mark of a value in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// No mark.
    None,
    /// Second best.
    Italic,
    /// Best.
    Bold,
}

/// Required and optional columns of a file.
const REQUIRED: [&str; 6] = ["model", "dataset", "protocol", "metric", "value", "mark"];
const OPTIONAL: [&str; 5] = ["backbone", "partition", "channels", "origin", "printed"];

const SOURCE: &str = "# Source:";

/// Lines before the first value: the source, the names of the columns.
const LINES_BEFORE: usize = 2;

/// Reads the published values of a table; returns none if the table names no file.
///
/// # Errors
/// Like [`read`].
pub fn of_table(home: &Home, table: &Table) -> Result<Published> {
    match table.published.is_empty() {
        true => Ok(Published { source: String::new(), values: Vec::new() }),
        false => read(&home.published(&table.published)),
    }
}

/// Reads a file of published values: a line `# Source: …`, the columns' names, then one value per line.
///
/// # Errors
/// If the file cannot be read, or a line has the wrong number of fields, a value outside its metric's range (0 to 100 for
/// metrics that are not implemented here), an unknown mark or origin, or a value for a cell that already has one. The message names the
/// line.
pub fn read(path: &Path) -> Result<Published> {
    let text = std::fs::read_to_string(path).at(path)?;
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let source = first.strip_prefix(SOURCE).map(str::trim).filter(|source| !source.is_empty());
    let source = source.ok_or_else(|| {
        at_line(path, 1, format!("expected `{SOURCE}` and a source, found `{first}`"))
            .help("name the paper that published the values")
    })?;
    let (columns, rows) = parse(path, rest)?;
    let mut values: Vec<PublishedValue> = Vec::with_capacity(rows.len());
    for (row, fields) in rows.iter().enumerate() {
        let line = row + LINES_BEFORE + 1;
        let value = value(&columns, fields, source).map_err(|problem| at_line(path, line, problem))?;
        if let Some(earlier) = values.iter().position(|other| same_cell(other, &value)) {
            let problem = format!("repeats the cell of line {}", earlier + LINES_BEFORE + 1);
            return Err(at_line(path, line, problem));
        }
        values.push(value);
    }
    Ok(Published { source: source.to_owned(), values })
}

fn at_line(path: &Path, line: usize, problem: impl std::fmt::Display) -> Error {
    Error::damaged(path, format!("line {line}: {problem}"))
}

fn same_cell(a: &PublishedValue, b: &PublishedValue) -> bool {
    let key = |v: &PublishedValue| {
        [&v.model, &v.backbone, &v.dataset, &v.partition, &v.metric, &v.channels].map(|name| name.to_owned())
    };
    key(a) == key(b)
}

/// Reads the lines below the source: the columns' names, then one value per line.
fn parse(path: &Path, text: &str) -> Result<(Columns, Vec<StringRecord>)> {
    // One value per line: an open quote would swallow the lines after it.
    if let Some(i) = text.lines().position(|line| line.matches('"').count() % 2 == 1) {
        return Err(at_line(path, i + LINES_BEFORE, "the quote does not end on this line"));
    }
    if let Some(i) = text.lines().position(|line| line.trim().is_empty()) {
        return Err(at_line(path, i + LINES_BEFORE, "no value on this line"));
    }
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let at_problem = |problem: csv::Error| {
        let line = problem.position().map_or(1, |position| position.line() as usize);
        let problem = match problem.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("expected {expected_len} fields, found {len}")
            }
            _ => problem.to_string(),
        };
        at_line(path, line + LINES_BEFORE - 1, problem)
    };
    let columns = Columns::of(path, reader.headers().map_err(at_problem)?)?;
    let rows = reader.records().map(|row| row.map_err(at_problem)).collect::<Result<_>>()?;
    Ok((columns, rows))
}

/// The index of each field's column, in the order of [`REQUIRED`], then [`OPTIONAL`]; `None` for an absent optional column.
struct Columns([Option<usize>; REQUIRED.len() + OPTIONAL.len()]);

impl Columns {
    fn of(path: &Path, names: &StringRecord) -> Result<Self> {
        if let Some(unknown) = names.iter().find(|name| !REQUIRED.contains(name) && !OPTIONAL.contains(name))
        {
            return Err(at_line(path, LINES_BEFORE, format!("unknown column `{unknown}`")));
        }
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        if let Some(missing) = REQUIRED.iter().find(|name| place(name).is_none()) {
            return Err(at_line(path, LINES_BEFORE, format!("column `{missing}` is missing")));
        }
        let mut columns = Columns([None; REQUIRED.len() + OPTIONAL.len()]);
        for (column, name) in columns.0.iter_mut().zip(REQUIRED.into_iter().chain(OPTIONAL)) {
            *column = place(name);
        }
        Ok(columns)
    }
}

fn value(columns: &Columns, row: &StringRecord, source: &str) -> Result<PublishedValue, String> {
    let field = |column: Option<usize>| {
        row.get(column?).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let [model, dataset, protocol, metric, value, mark, backbone, partition, channels, origin, printed] =
        columns.0;
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
        _ => return Err(format!("value `{value}` is out of range: {name} is a {}", scale.range())),
    };
    let mark = match field(mark).as_deref() {
        None => Mark::None,
        Some("italic") => Mark::Italic,
        Some("bold") => Mark::Bold,
        Some(other) => return Err(format!("expected the mark `bold`, `italic` or nothing, found `{other}`")),
    };
    Ok(PublishedValue {
        model: required(model, "model")?,
        backbone: field(backbone).unwrap_or_default(),
        dataset: required(dataset, "dataset")?,
        partition: field(partition).unwrap_or_else(|| "default".to_owned()),
        protocol: required(protocol, "protocol")?,
        channels: field(channels).unwrap_or_default(),
        metric: required(metric, "metric")?,
        value,
        mark,
        origin: field(origin).map_or(Ok(ValueOrigin::Unknown), |text| text.parse())?,
        printed: field(printed).unwrap_or_else(|| source.to_owned()),
    })
}
