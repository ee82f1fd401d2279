//! GEO-Bench's score over several tasks: each value scaled between the lowest and highest of its task, then the interquartile
//! mean over tasks and seeds; its interval comes from drawing seeds again within each task
//! [ServiceNow/geo-bench, geobench/plot_tools.py: `Normalizer`, `iqm`, `bootstrap_iqm_aggregate`].

use std::path::Path;

use rand::Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::plain::PlainTable;
use super::tables::table::{Origin, ResultTable, TableRow, Value};
use crate::error::AtPath;
use crate::home::Home;
use crate::metrics::{Better, Scale};
use crate::random::stream;
use crate::record::Interval;
use crate::task::Aggregate;
use crate::{Error, Result};

/// How often seeds are drawn. The reference draws 100 times, which leaves the ends of an interval uncertain.
pub const DRAWS: usize = 1000;

/// The share of the draws that an interval holds.
const LEVEL: f64 = 0.95;

/// The lowest and highest value of a task, in the metric's unit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRange {
    /// The task's name.
    pub dataset: String,
    /// The metric of the values.
    pub metric: String,
    /// The value that becomes 0.
    pub low: f64,
    /// The value that becomes 1.
    pub high: f64,
    /// Where they come from.
    pub source: String,
}

/// The value of one run of a published model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRun {
    /// The model as in the published tables.
    pub model: String,
    /// The backbone as in the published tables.
    pub backbone: String,
    /// The task's name.
    pub dataset: String,
    /// The run's seed.
    pub seed: u64,
    /// The metric.
    pub metric: String,
    /// The value in the metric's unit.
    pub value: f64,
}

/// The scores of all models with a value on every task.
#[derive(Debug, Clone)]
pub struct Scores {
    /// The title.
    pub title: String,
    /// Whether the values are of generated data.
    pub demo: bool,
    /// Titles of the tasks with their ranges.
    pub tasks: Vec<(String, TaskRange)>,
    /// Sorted by score, the best first.
    pub models: Vec<ModelScore>,
    /// Names of the models that lack a task.
    pub incomplete: Vec<String>,
}

/// One model's score.
#[derive(Debug, Clone)]
pub struct ModelScore {
    /// Name with backbone, origin and qualifiers.
    pub name: String,
    /// Where its values come from.
    pub origin: Origin,
    /// The interquartile mean; 0 is the lowest value of every task, 1 the highest. May lie outside.
    pub score: f64,
    /// Interval over draws of seeds; `None` if no task has several.
    pub interval: Option<Interval>,
    /// The fewest and the most seeds of a task.
    pub seeds: [usize; 2],
    /// The mean over seeds per task, scaled.
    pub of_tasks: Vec<f64>,
}

/// Reads a file of ranges in `benchmarks/published/`.
///
/// # Errors
/// If the file cannot be read, has other columns, or a range is not finite or has no width.
pub fn ranges(home: &Home, file: &str) -> Result<Vec<TaskRange>> {
    let path = home.published(file);
    let ranges: Vec<TaskRange> = read(&path)?;
    let is_usable =
        |range: &&TaskRange| range.low.is_finite() && range.high.is_finite() && range.low < range.high;
    match ranges.iter().find(|range| !is_usable(range)) {
        Some(range) => Err(Error::damaged(
            &path,
            format!("{}: expected `low` below `high`, found {} and {}", range.dataset, range.low, range.high),
        )),
        None => Ok(ranges),
    }
}

/// Reads a file of single runs in `benchmarks/published/`; returns none if `file` is empty.
///
/// # Errors
/// If the file cannot be read, has other columns, or a value is not finite.
pub fn runs(home: &Home, file: &str) -> Result<Vec<PublishedRun>> {
    if file.is_empty() {
        return Ok(Vec::new());
    }
    let path = home.published(file);
    let runs: Vec<PublishedRun> = read(&path)?;
    match runs.iter().find(|run| !run.value.is_finite()) {
        Some(run) => {
            Err(Error::damaged(&path, format!("{} {}: the value is {}", run.model, run.dataset, run.value)))
        }
        None => Ok(runs),
    }
}

/// Reads lines below `# Source: …`.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).at(path)?;
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, csv::Error>>().at(path)
}

/// Scores the models of a table; `None` if no model has a value on every task.
///
/// # Errors
/// If a task has no range, or one of another metric than the table's.
pub fn scores(
    definition: &Aggregate,
    table: &ResultTable,
    ranges: &[TaskRange],
    runs: &[PublishedRun],
) -> Result<Option<Scores>> {
    let (mut places, mut tasks) = (Vec::new(), Vec::new());
    for name in &definition.tasks {
        let is_column = |place: &usize| {
            let column = &table.columns[*place];
            column.task == *name && column.partition == "default" && column.score.is_none()
        };
        let Some(place) = (0..table.columns.len()).find(is_column) else { return Ok(None) };
        let column = &table.columns[place];
        let metric = column.metric_name();
        let range = ranges.iter().find(|range| range.dataset == *name && range.metric == metric);
        let range = range.ok_or_else(|| {
            Error::request(format!("{}: no lowest and highest {metric} of {name} found", definition.file))
                .help(format!("add a line to benchmarks/published/{}", definition.ranges))
        })?;
        places.push((place, column.scale(), range));
        tasks.push((column.title.clone(), range.clone()));
    }
    let published = if table.demo { &[][..] } else { &table.published[..] };
    let rows = published.iter().chain(&table.measured).filter(|row| !row.is_partial);
    let (mut models, mut incomplete) = (Vec::new(), Vec::new());
    for (index, row) in rows.enumerate() {
        let of_task = |(place, scale, range): &(usize, Scale, &TaskRange)| -> Option<Vec<f64>> {
            let value = row.cells.get(*place)?.as_ref()?;
            if value.is_of_other_samples() && !table.demo {
                return None;
            }
            Some(
                seeds(row, value, range, runs)
                    .into_iter()
                    .map(|value| scaled(value, range, *scale))
                    .collect(),
            )
        };
        let values: Vec<Vec<f64>> = places.iter().filter_map(of_task).collect();
        match values.len() {
            0 => {}
            found if found < places.len() => incomplete.push(row.full_label()),
            _ => models.push(model_score(row, &values, index)),
        }
    }
    if models.is_empty() {
        return Ok(None);
    }
    models.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(Some(Scores { title: definition.title.clone(), demo: table.demo, tasks, models, incomplete }))
}

/// Returns the values of a cell per seed: of published models those of their single runs, where they are known.
fn seeds(row: &TableRow, value: &Value, range: &TaskRange, runs: &[PublishedRun]) -> Vec<f64> {
    if !value.records.is_empty() {
        return value.records.iter().map(|record| record.value).collect();
    }
    let is_own = |run: &&PublishedRun| {
        (&run.model, &run.backbone) == (&row.model, &row.backbone)
            && (&run.dataset, &run.metric) == (&range.dataset, &range.metric)
    };
    let own: Vec<f64> = runs.iter().filter(is_own).map(|run| run.value).collect();
    if own.is_empty() { vec![value.value] } else { own }
}

/// Scales a value so that 0 is the worst and 1 the best of its task.
fn scaled(value: f64, range: &TaskRange, scale: Scale) -> f64 {
    let share = (value - range.low) / (range.high - range.low);
    match scale.better {
        Better::Higher => share,
        Better::Lower => 1.0 - share,
    }
}

fn model_score(row: &TableRow, values: &[Vec<f64>], index: usize) -> ModelScore {
    let mut pool = values.concat();
    let counts = || values.iter().map(Vec::len);
    let seeds = [counts().min().unwrap_or(0), counts().max().unwrap_or(0)];
    ModelScore {
        name: row.full_label(),
        origin: row.origin,
        score: interquartile_mean(&mut pool),
        interval: (seeds[1] > 1).then(|| interval(values, index)),
        seeds,
        of_tasks: values.iter().map(|values| values.iter().sum::<f64>() / values.len() as f64).collect(),
    }
}

/// Returns the mean without the lowest and the highest quarter, rounded down to whole values [scipy.stats.trim_mean]; NaN of
/// nothing. Sorts the values.
pub fn interquartile_mean(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 4;
    let middle = &values[cut..values.len() - cut];
    middle.iter().sum::<f64>() / middle.len() as f64
}

/// Draws as many seeds of each task as it has, with replacement.
fn interval(values: &[Vec<f64>], index: usize) -> Interval {
    let mut random = stream(0, index as u64);
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let mut pool = Vec::with_capacity(values.iter().map(Vec::len).sum());
            for of_task in values {
                pool.extend((0..of_task.len()).map(|_| of_task[random.random_range(0..of_task.len())]));
            }
            interquartile_mean(&mut pool)
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (draws.len() - 1) as f64;
        let (before, part) = (place.floor() as usize, place.fract());
        draws[before] + part * (draws[(before + 1).min(draws.len() - 1)] - draws[before])
    };
    Interval { low: at((1.0 - LEVEL) / 2.0), high: at((1.0 + LEVEL) / 2.0), level: LEVEL }
}

impl Scores {
    /// Renders the scores: one row per model.
    pub fn text_table(&self) -> PlainTable {
        let mut header =
            vec!["Model".to_owned(), "Score".to_owned(), "95 % interval".to_owned(), "Seeds".to_owned()];
        header.extend(self.tasks.iter().map(|(title, _)| title.clone()));
        let row = |model: &ModelScore| {
            let [fewest, most] = model.seeds;
            let interval =
                model.interval.map(|interval| format!("[{:.2}, {:.2}]", interval.low, interval.high));
            let mut texts = vec![
                model.name.clone(),
                format!("{:.3}", model.score),
                interval.unwrap_or_else(|| "-".to_owned()),
                if fewest == most { most.to_string() } else { format!("{fewest} to {most}") },
            ];
            texts.extend(model.of_tasks.iter().map(|value| format!("{value:.2}")));
            texts
        };
        PlainTable { header, rows: self.models.iter().map(row).collect(), notes: self.notes() }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!(
            "Each value is scaled between the lowest (0) and the highest (1) of its task; values beyond are not cut off. Score: the \
             mean over tasks and seeds without the lowest and the highest quarter. Interval: seeds drawn {DRAWS} times within each \
             task; `-`: one seed per task."
        )];
        let range = |(title, range): &(String, TaskRange)| {
            format!("{title} {} to {} ({})", range.low, range.high, range.source)
        };
        notes.push(format!(
            "Lowest and highest: {}.",
            self.tasks.iter().map(range).collect::<Vec<_>>().join("; ")
        ));
        if !self.incomplete.is_empty() {
            notes.push(format!("No score, as they lack a task: {}.", self.incomplete.join(", ")));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::interquartile_mean;

    /// scipy 1.17.1, `scipy.stats.trim_mean(x, 0.25)`.
    #[test]
    fn a_quarter_rounded_down_is_left_out_at_each_end() {
        let mut few = [3.0, 1.0, 2.0];
        assert_eq!(interquartile_mean(&mut few), 2.0);
        let mut seven = [10.0, 0.0, 4.0, 6.0, 5.0, 7.0, 100.0];
        assert_eq!(interquartile_mean(&mut seven), 6.4);
        let mut eight = [8.0, 1.0, 2.0, 3.0, 100.0, 5.0, 6.0, 7.0];
        assert_eq!(interquartile_mean(&mut eight), 5.25);
        assert!(interquartile_mean(&mut []).is_nan());
    }
}
