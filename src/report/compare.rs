//! Two models on the same cells, by their predictions of the same samples.

use std::path::Path;

use super::paired::{interval, p_value, paired, probability};
use super::text::{escape, grid};
use crate::metrics::Metric;
use crate::metrics::paired::{Paired, discordant, mcnemar};
use crate::protocol::Predictions;
use crate::record::{Kept, Record, collect, latest};
use crate::{Error, Result};

/// Coverage of the intervals.
const LEVEL: f64 = 0.95;

/// Resamples of each bootstrap: p-values are then known to some 0.002.
const RESAMPLES: usize = 10_000;

/// What a cell's model is exchanged in: suite, task, partition, protocol, seed.
type Place = (String, String, String, String, u64);

/// A cell of both.
#[derive(Debug, Clone)]
pub struct Row {
    pub place: Place,
    pub metric: Metric,
    pub a: f64,
    pub b: f64,
    /// Why there is nothing further, else the paired statistics.
    pub paired: Result<Statistics, &'static str>,
}

/// Of one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// a - b: by a bootstrap, or where too few samples differ by the sign test.
    pub bootstrap: Paired,
    /// Samples that only a, and only b, has right (several labels: all of them).
    pub only: (u64, u64),
    /// McNemar's exact test of these; none for masks, of which no two are wholly right.
    pub mcnemar: Option<f64>,
}

/// The records of `side`: an existing folder's, else those in `results` of the model of that name (`TerraFM`,
/// `TerraFM ViT-B`) or of weights whose hash begins so.
///
/// # Errors
/// Where there are none: the message lists the models.
pub fn side(side: &str, results: &Path) -> Result<Vec<Kept>> {
    if Path::new(side).is_dir() {
        return collect(Path::new(side));
    }
    let all = collect(results)?;
    let is_meant = |kept: &&Kept| {
        let (cell, weights) = (&kept.record.cell, &kept.record.provenance.weights);
        cell.model == side
            || format!("{} {}", cell.model, cell.backbone) == side
            || (side.len() >= 6 && weights.starts_with(side))
    };
    let meant: Vec<Kept> = all.iter().filter(is_meant).cloned().collect();
    if meant.is_empty() {
        let mut models: Vec<String> = all
            .iter()
            .map(|kept| format!("`{} {}`", kept.record.cell.model, kept.record.cell.backbone))
            .collect();
        models.dedup();
        models.sort();
        models.dedup();
        return Err(Error::file(results, format!("has no records of `{side}`")).help(format!(
            "name a folder of records, the beginning of the weights' hash, or one of the models there: {}",
            models.join(", ")
        )));
    }
    Ok(meant)
}

/// The cells that both sides have, sorted. Of several records of a cell the one finished last counts.
///
/// # Errors
/// Where they share no cell, or predictions cannot be read.
pub fn compare(a: &[Kept], b: &[Kept]) -> Result<Vec<Row>> {
    let (a, b) = (latest(a, place), latest(b, place));
    let mut rows = Vec::new();
    for (place, a) in &a {
        if let Some(b) = b.get(place) {
            rows.push(row(place, a, b)?);
        }
    }
    if rows.is_empty() {
        return Err(Error::request("the two sides share no cell")
            .help("run the same tasks, partitions, protocols and seeds for both"));
    }
    Ok(rows)
}

fn place(record: &Record) -> Place {
    let cell = record.cell.clone();
    (cell.suite, cell.task, cell.partition, cell.protocol, cell.seed)
}

fn row(place: &Place, a: &Kept, b: &Kept) -> Result<Row> {
    let metric = a.record.metric;
    let predictions = (a.store.predictions(&a.record)?, b.store.predictions(&b.record)?);
    let statistics = match predictions {
        _ if b.record.metric != metric => Err("other metrics"),
        (Some(a), Some(b)) if a.samples == b.samples && a.predictions.same_labels(&b.predictions) => {
            Ok(statistics(metric, &a.predictions, &b.predictions, place.4)?)
        }
        (Some(_), Some(_)) => Err("other test samples"),
        _ => Err("no predictions"),
    };
    Ok(Row { place: place.clone(), metric, a: a.record.value, b: b.record.value, paired: statistics })
}

fn statistics(metric: Metric, a: &Predictions, b: &Predictions, seed: u64) -> Result<Statistics> {
    let bootstrap = paired(metric, a, b, LEVEL, RESAMPLES, seed)?;
    let only = discordant(&a.right(), &b.right())?;
    let masks = matches!(a, Predictions::Masks(_));
    Ok(Statistics { bootstrap, only, mcnemar: (!masks).then(|| mcnemar(only.0, only.1)) })
}

/// The comparison as Markdown.
pub fn markdown(rows: &[Row], a: &str, b: &str) -> String {
    let header = [
        "Task",
        "Partition",
        "Protocol",
        "Seed",
        "Metric",
        "A",
        "B",
        "A - B",
        "95 % interval",
        "p",
        "Only A right",
        "Only B right",
        "p (McNemar)",
    ]
    .map(String::from);
    let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    format!("A: {}  \nB: {}\n\n{}", escape(a), escape(b), grid(&header, &lines))
}

fn line(row: &Row) -> Vec<String> {
    let (_, task, partition, protocol, seed) = &row.place;
    let mut line =
        vec![escape(task), escape(partition), escape(protocol), seed.to_string(), row.metric.to_string()];
    line.extend([format!("{:.2}", row.a), format!("{:.2}", row.b), format!("{:+.2}", row.a - row.b)]);
    match &row.paired {
        Ok(Statistics { bootstrap, only, mcnemar }) => {
            line.extend([interval(bootstrap), p_value(bootstrap)]);
            match mcnemar {
                Some(p) => line.extend([only.0.to_string(), only.1.to_string(), probability(*p)]),
                None => line.extend(["-"; 3].map(String::from)),
            }
        }
        Err(why) => line.extend([why, "-", "-", "-", "-"].map(|text| (*text).to_owned())),
    }
    line
}
