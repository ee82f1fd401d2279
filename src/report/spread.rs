//! How much each choice decides: the values of one model on one task, one choice changed at a time, as a table and a picture.

use csv::Writer;

use super::plain::PlainTable;
use super::tables::published;
use crate::home::Home;
use crate::metrics::{Interval, Metric};
use crate::model::config::ModelConfig;
use crate::record::Record;
use crate::task::Suite;
use crate::{Error, Result};

/// The values of one model on one task.
#[derive(Debug, Clone)]
pub struct Spread {
    /// Name of the model with its backbone.
    pub model: String,
    /// Title of the task.
    pub task: String,
    /// Name of the partition.
    pub partition: String,
    /// Whether the data are generated.
    pub demo: bool,
    /// A strip per choice.
    pub strips: Vec<SpreadStrip>,
    /// Published values of the same model and task.
    pub published: Vec<PublishedLine>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// The values of one choice.
#[derive(Debug, Clone)]
pub struct SpreadStrip {
    /// The choice.
    pub title: String,
    /// Its values, in order.
    pub values: Vec<SpreadValue>,
}

/// A cell of a spread.
#[derive(Debug, Clone)]
pub struct SpreadValue {
    /// The value of the choice.
    pub label: String,
    /// Whether it is the default.
    pub is_default: bool,
    /// Its metric, value and interval; or why there is none, in one line.
    pub outcome: Result<Measured, String>,
}

/// The numbers of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The metric.
    pub metric: Metric,
    /// Its value.
    pub value: f64,
    /// The interval of the value.
    pub interval: Option<Interval>,
    /// Name of the record's file.
    pub record: String,
}

impl Measured {
    /// Takes the numbers of a record.
    pub fn of(record: &Record, file: String) -> Self {
        Measured { metric: record.metric, value: record.value, interval: record.interval, record: file }
    }
}

/// A published value of the same model and task.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedLine {
    /// The value.
    pub value: f64,
    /// The protocol as the source names it.
    pub protocol: String,
    /// Where the value was printed.
    pub source: String,
}

/// Reads the published values of `metric` of a model on a task, of all tables of the suite, highest first.
///
/// # Errors
/// If a file of published values cannot be read.
pub fn published_lines(
    home: &Home,
    suite: &Suite,
    model: &ModelConfig,
    task: &str,
    partition: &str,
    metric: Metric,
) -> Result<Vec<PublishedLine>> {
    let row = model.published.as_ref();
    let (name, backbone) = row.map_or((&model.name, &model.backbone), |row| (&row.model, &row.backbone));
    let mut lines: Vec<PublishedLine> = Vec::new();
    for table in &suite.tables {
        let published = published::of_table(home, table)?;
        for value in &published.values {
            let is_it = (&value.model, &value.backbone) == (name, backbone)
                && value.dataset == task
                && value.partition == partition
                && value.metric == metric.to_string()
                && ["", "all"].contains(&value.channels.as_str());
            let line = PublishedLine {
                value: value.value,
                protocol: value.protocol.clone(),
                source: published.source.clone(),
            };
            if is_it && !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines.sort_by(|a, b| b.value.total_cmp(&a.value));
    Ok(lines)
}

impl Spread {
    /// Returns the metric of the first value.
    pub fn metric(&self) -> Option<Metric> {
        self.measured().map(|measured| measured.metric).next()
    }

    /// Iterates over all numbers.
    pub fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.strips.iter().flat_map(|strip| &strip.values).filter_map(|value| value.outcome.as_ref().ok())
    }

    /// Returns the title.
    pub fn title(&self) -> String {
        let partition =
            if self.partition == "default" { String::new() } else { format!(", {}", self.partition) };
        format!("How much each choice decides: {} on {}{partition}", self.model, self.task)
    }

    /// Renders the table: a line per value.
    pub fn table(&self) -> PlainTable {
        let header = ["Choice", "Value", "Metric", "Result", "Interval", "Difference from default"];
        let mut rows = Vec::new();
        for strip in &self.strips {
            let default = strip.values.iter().find(|value| value.is_default);
            let default = default.and_then(|value| value.outcome.as_ref().ok());
            for value in &strip.values {
                let mark = if value.is_default { " (default)" } else { "" };
                let mut row = vec![strip.title.clone(), format!("{}{mark}", value.label)];
                match &value.outcome {
                    Ok(measured) => {
                        let scale = measured.metric.about().scale;
                        let shown = |number| scale.shown(number);
                        let interval = measured
                            .interval
                            .map_or("-".to_owned(), |i| format!("[{}, {}]", shown(i.low), shown(i.high)));
                        let same = default.filter(|other| other.metric == measured.metric);
                        let difference = same.filter(|_| !value.is_default);
                        let difference = difference
                            .map_or("-".to_owned(), |other| format!("{:+.1}", measured.value - other.value));
                        row.extend([
                            measured.metric.about().title.to_owned(),
                            shown(measured.value),
                            interval,
                            difference,
                        ]);
                    }
                    Err(why) => {
                        row.extend(["-".to_owned(), format!("none: {why}"), "-".to_owned(), "-".to_owned()])
                    }
                }
                rows.push(row);
            }
        }
        let mut notes = vec![
            "One choice is changed at a time; all others are the default. The default of each choice is the first of its lines."
                .to_owned(),
        ];
        notes.extend(self.widest());
        notes.extend(
            self.published
                .iter()
                .map(|line| format!("Published: {} by {} ({}).", line.value, line.protocol, line.source)),
        );
        notes.extend(self.notes.iter().cloned());
        PlainTable { header: header.map(str::to_owned).to_vec(), rows, notes }
    }

    /// Says which choice moves the value most.
    fn widest(&self) -> Option<String> {
        let metric = self.metric()?;
        let range = |strip: &SpreadStrip| -> Option<(f64, String)> {
            let values = strip.values.iter().filter_map(|value| value.outcome.as_ref().ok());
            let values = values.filter(|measured| measured.metric == metric).map(|measured| measured.value);
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
            (high > low).then(|| (high - low, strip.title.clone()))
        };
        let mut ranges: Vec<(f64, String)> = self.strips.iter().filter_map(range).collect();
        ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let told: Vec<String> =
            ranges.iter().map(|(range, title)| format!("{} {range:.1}", title.to_lowercase())).collect();
        (!told.is_empty())
            .then(|| format!("Largest minus smallest value ({}): {}.", metric.about().title, told.join(", ")))
    }

    /// Renders the page: title, warning, table.
    pub fn markdown(&self, picture: &str) -> String {
        let demo = if self.demo {
            "> **These are demo numbers, not benchmark numbers**: generated data and small models.\n\n"
        } else {
            ""
        };
        format!("# {}\n\n{demo}![Values by choice]({picture})\n\n{}", self.title(), self.table().markdown())
    }

    /// Renders the table as CSV, with nine decimals at most.
    ///
    /// # Errors
    /// If a line cannot be written.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let mut writer = Writer::from_writer(Vec::new());
        writer
            .write_record([
                "choice", "value", "default", "metric", "result", "low", "high", "record", "problem",
            ])
            .map_err(Error::mismatch)?;
        for strip in &self.strips {
            for value in &strip.values {
                let default = value.is_default.to_string();
                let mut line = vec![strip.title.clone(), value.label.clone(), default];
                line.extend(match &value.outcome {
                    Ok(measured) => {
                        let end = |of: fn(&Interval) -> f64| {
                            measured.interval.as_ref().map_or(String::new(), |i| number(of(i)))
                        };
                        [
                            measured.metric.to_string(),
                            number(measured.value),
                            end(|i| i.low),
                            end(|i| i.high),
                            measured.record.clone(),
                            String::new(),
                        ]
                    }
                    Err(why) => {
                        let none = String::new;
                        [none(), none(), none(), none(), none(), why.clone()]
                    }
                });
                writer.write_record(&line).map_err(Error::mismatch)?;
            }
        }
        writer.into_inner().map_err(|error| Error::mismatch(error.to_string()))
    }
}

/// Formats a number so that it is the same before and after it was written to a record, which keeps 15 digits.
fn number(value: f64) -> String {
    ((value * 1e9).round() / 1e9).to_string()
}
