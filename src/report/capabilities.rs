//! Scores of models over groups of tasks, as a benchmark's leaderboard has them: a table and a picture per table of the suite.

use super::chapter::Figure;
use super::pictures::capabilities;
use super::plain::PlainTable;
use super::tables::table::{Origin, ResultTable, TableRow};
use crate::task::{Capabilities, interquartile_mean};

/// The scores of the models of one table.
#[derive(Debug, Clone)]
pub struct CapabilityScores {
    /// The table's title.
    pub title: String,
    /// Whether the values are of generated data.
    pub demo: bool,
    /// Names of the columns: all tasks, then the groups.
    pub groups: Vec<String>,
    /// The models, the best over all tasks first.
    pub models: Vec<ModelScores>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// A model's scores.
#[derive(Debug, Clone)]
pub struct ModelScores {
    /// Name with backbone, origin and qualifiers.
    pub name: String,
    /// Whether it was measured here.
    pub is_measured: bool,
    /// One score per group; `None` if a task is missing.
    pub scores: Vec<Option<f64>>,
}

/// Name of the column over all tasks.
const ALL: &str = "All tasks";

/// Scores the models of a table; `None` if no model has a whole group.
pub fn scores(capabilities: &Capabilities, table: &ResultTable) -> Option<CapabilityScores> {
    let all: Vec<&String> = capabilities.ends.keys().collect();
    let groups = std::iter::once((ALL.to_owned(), all))
        .chain(capabilities.groups.iter().map(|group| (group.name.clone(), group.tasks.iter().collect())));
    let groups: Vec<(String, Vec<&String>)> = groups.collect();
    let place = |task: &String| {
        table.columns.iter().position(|column| column.task == *task && column.score.is_none())
    };
    let of_row = |row: &TableRow| {
        let scaled = |task: &&String| {
            let value = row.cells.get(place(task)?)?.as_ref()?;
            capabilities.scaled(task, value.value)
        };
        let of_group = |(_, tasks): &(String, Vec<&String>)| {
            let scaled: Option<Vec<f64>> = tasks.iter().map(scaled).collect();
            interquartile_mean(&scaled?)
        };
        ModelScores {
            name: row.full_label(),
            is_measured: row.origin != Origin::Published,
            scores: groups.iter().map(of_group).collect(),
        }
    };
    // A demo is never compared with what is published.
    let published = if table.demo { &[][..] } else { &table.published[..] };
    let rows = published.iter().chain(&table.measured).filter(|row| !row.is_partial);
    let mut models: Vec<ModelScores> = rows.map(of_row).collect();
    models.retain(|model| model.scores.iter().any(Option::is_some));
    let key = |model: &ModelScores| {
        model.scores.iter().map(|score| score.unwrap_or(f64::NEG_INFINITY)).collect::<Vec<_>>()
    };
    models.sort_by(|a, b| key(b).partial_cmp(&key(a)).unwrap_or(std::cmp::Ordering::Equal));
    if models.is_empty() {
        return None;
    }
    let mut notes = vec![format!(
        "Score: (value - end) / (other end - end) per task, not clipped, and the mean of the middle half of a group's tasks. The \
         ends are {}. The leaderboard pools the seeds of all tasks; here each task counts once, with the mean of its seeds, since \
         no more is published.",
        capabilities.source
    )];
    for group in capabilities.groups.iter().filter(|group| !group.without.is_empty()) {
        notes.push(format!(
            "{}: without {}, which are not measured here.",
            group.name,
            group.without.join(", ")
        ));
    }
    let groups = groups.into_iter().map(|(name, _)| name).collect();
    Some(CapabilityScores { title: table.title.clone(), demo: table.demo, groups, models, notes })
}

impl CapabilityScores {
    /// Writes the scores as a table.
    pub fn table(&self) -> PlainTable {
        let number = |score: &Option<f64>| score.map_or(String::new(), |score| format!("{score:.3}"));
        let row = |model: &ModelScores| {
            std::iter::once(model.name.clone()).chain(model.scores.iter().map(number)).collect()
        };
        PlainTable {
            header: std::iter::once("model".to_owned()).chain(self.groups.iter().cloned()).collect(),
            rows: self.models.iter().map(row).collect(),
            notes: self.notes.clone(),
        }
    }
}

/// Draws the scores of a table.
pub(super) fn figure(capabilities: &Capabilities, file: &str, table: &ResultTable) -> Option<Figure> {
    if !capabilities.tables.iter().any(|name| name == file) {
        return None;
    }
    let scores = scores(capabilities, table)?;
    let caption = format!("Scores by capability: {}", scores.title);
    let picture = capabilities::draw(&scores);
    Some(Figure {
        table: Some(scores.table()),
        ..Figure::new(format!("{file}-capabilities"), caption, picture)
    })
}
