//! Scores computed again from the predictions beside the records.

use super::text::{escape, grid};
use crate::Result;
use crate::metrics::Metric;
use crate::record::{Kept, Record};
use crate::suite::Task;

/// How far a value may be from the recorded one: records keep 15 digits.
const SLACK: f64 = 1e-9;

/// A record's score, recorded and computed again.
#[derive(Debug, Clone)]
pub struct Score {
    pub name: String,
    pub recorded: Option<f64>,
    pub again: f64,
}

impl Score {
    /// Whether the record holds another value.
    pub fn differs(&self) -> bool {
        self.recorded.is_some_and(|recorded| (recorded - self.again).abs() > SLACK)
    }
}

/// A record and its scores, none where its predictions were not kept.
#[derive(Debug, Clone)]
pub struct Rescored {
    pub record: Record,
    pub scores: Option<Vec<Score>>,
}

/// Computes the metric of each record and the scores beside it from the predictions; `extra` metrics too, where they
/// fit the labels. `task` finds a record's task, which knows the names of its classes.
///
/// # Errors
/// Where predictions are damaged or cannot be scored by the record's metric.
pub fn rescore(
    records: &[Kept],
    extra: &[Metric],
    task: impl Fn(&Record) -> Option<Task>,
) -> Result<Vec<Rescored>> {
    let one = |kept: &Kept| -> Result<Rescored> {
        let record = kept.record.clone();
        let Some(named) = kept.store.predictions(&record)? else {
            return Ok(Rescored { record, scores: None });
        };
        let predictions = named.predictions;
        let mut scores = vec![Score {
            name: record.metric.to_string(),
            recorded: Some(record.value),
            again: predictions.scorer(record.metric)?.all(),
        }];
        let extra = extra.iter().filter(|metric| **metric != record.metric);
        let extra = extra.filter_map(|metric| {
            let again = predictions.scorer(*metric).ok()?.all();
            let name = metric.to_string();
            Some(Score { recorded: record.scores.get(&name).copied(), name, again })
        });
        scores.extend(extra);
        let names = task(&record).map(|task| task.class_names).unwrap_or_default();
        scores.extend(predictions.scores(&names).into_iter().map(|(name, again)| Score {
            recorded: record.scores.get(&name).copied(),
            name,
            again,
        }));
        Ok(Rescored { record, scores: Some(scores) })
    };
    records.iter().map(one).collect()
}

/// A line a score, as Markdown.
pub fn markdown(rescored: &[Rescored]) -> String {
    let header = ["Task", "Partition", "Protocol", "Model", "Seed", "Score", "Recorded", "Computed", ""];
    let mut lines = Vec::new();
    for Rescored { record, scores } in rescored {
        let cell = &record.cell;
        let of_cell = || {
            let model = format!("{} {}", cell.model, cell.backbone);
            let names = [&cell.task, &cell.partition, &cell.protocol, &model].map(|name| escape(name));
            names.into_iter().chain([cell.seed.to_string()]).collect::<Vec<_>>()
        };
        let line = |rest: [String; 4]| of_cell().into_iter().chain(rest).collect();
        match scores {
            None => lines.push(line([
                record.metric.to_string(),
                number(record.value),
                "-".to_owned(),
                "no predictions".to_owned(),
            ])),
            Some(scores) => lines.extend(scores.iter().map(|score| {
                let told = match score.recorded {
                    None => "not recorded",
                    Some(_) if score.differs() => "**differs**",
                    Some(_) => "",
                };
                let recorded = score.recorded.map_or("-".to_owned(), number);
                line([escape(&score.name), recorded, number(score.again), told.to_owned()])
            })),
        }
    }
    grid(&header.map(String::from), &lines)
}

fn number(value: f64) -> String {
    format!("{value:.2}")
}
