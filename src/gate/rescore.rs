//! Recomputes scores from the predictions of records.

use super::choice::model_name;
pub use super::recompute::{Again, Score, metric};
use super::recompute::{Recomputed, recompute};
use super::suites::Suites;
use crate::metrics::{Metric, Scale};
use crate::record::{Reason, Record, SettingKey, StoredRecord, Unreadable};
use crate::report::tables::text::{escape, escape_sentence, grid};

/// A record and its recomputed scores.
#[derive(Debug, Clone)]
pub struct Rescored {
    /// The record.
    pub record: Record,
    /// What distinguishes its settings from those of other records of the cell; empty if nothing does.
    pub setting: String,
    /// Recorded and recomputed scores; `None` if the predictions were not kept.
    pub scores: Option<Vec<Score>>,
    /// Statements of the record that its predictions contradict, one sentence each.
    pub contradictions: Vec<String>,
}

/// Recomputes the scores of each record, and the metrics `extra` if they fit the target. Predictions that cannot be used are
/// returned separately.
pub fn rescore(
    records: &[StoredRecord],
    extra: &[Metric],
    suites: &Suites,
) -> (Vec<Rescored>, Vec<Unreadable>) {
    let (mut rescored, mut unreadable) = (Vec::new(), Vec::new());
    for of_cell in records.chunk_by(|a, b| a.record.cell == b.record.cell) {
        let keys: Vec<SettingKey> = of_cell.iter().map(|kept| SettingKey::of(&kept.record)).collect();
        for (kept, key) in of_cell.iter().zip(&keys) {
            match recompute(kept, suites, extra) {
                Ok(recomputed) => rescored.push(Rescored {
                    record: kept.record.clone(),
                    setting: key.among(&keys),
                    contradictions: recomputed.iter().flat_map(Recomputed::contradictions).collect(),
                    scores: recomputed.map(|recomputed| recomputed.scores),
                }),
                Err(error) => {
                    let path = kept.store.predictions_path(&kept.record);
                    unreadable.push(Unreadable { path, reason: Reason::Damaged, error });
                }
            }
        }
    }
    (rescored, unreadable)
}

/// Formats the scores as a Markdown table with one line per score.
pub fn markdown(rescored: &[Rescored]) -> String {
    let header = ["Task", "Partition", "Protocol", "Model", "Seed", "Score", "Recorded", "Computed", ""];
    let mut lines = Vec::new();
    let mut contradictions = Vec::new();
    for Rescored { record, setting, scores, contradictions: claims } in rescored {
        let cell = &record.cell;
        let model = model_name(cell);
        let model = if setting.is_empty() { model } else { format!("{model} ({setting})") };
        let line = |rest: [String; 4]| {
            let names = [&cell.task, &cell.partition, &cell.protocol, &model].map(|name| escape(name));
            names.into_iter().chain([cell.seed.to_string()]).chain(rest).collect()
        };
        contradictions.extend(claims.iter().map(|claim| {
            let of =
                format!("{} {} {}, {model}, seed {}", cell.task, cell.partition, cell.protocol, cell.seed);
            format!("- {}: {}\n", escape_sentence(&of), escape_sentence(claim))
        }));
        match scores {
            None => lines.push(line([
                record.metric.to_string(),
                record.metric.about().scale.fine(record.value),
                "-".to_owned(),
                "no predictions".to_owned(),
            ])),
            Some(scores) => lines.extend(scores.iter().map(|score| {
                let told = match (score.recorded, score.again) {
                    (None, _) => "not recorded",
                    (_, Again::Unknown(why)) => why,
                    _ if score.differs() => "**differs**",
                    _ => "",
                };
                let name = if score.name.starts_with("interval ") {
                    record.metric.about().name
                } else {
                    &score.name
                };
                let scale = Scale::of_score(name, record.metric);
                let number = |value| scale.fine(value);
                let recorded = score.recorded.map_or("-".to_owned(), number);
                let again = match score.again {
                    Again::Value(again) => number(again),
                    Again::Nothing | Again::Unknown(_) => "-".to_owned(),
                };
                line([escape(&score.name), recorded, again, told.to_owned()])
            })),
        }
    }
    let mut text = grid(&header.map(String::from), &lines);
    if !contradictions.is_empty() {
        text += &format!("\n{}", contradictions.concat());
    }
    text
}
