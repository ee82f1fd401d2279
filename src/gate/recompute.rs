//! Compares recorded scores with those computed from the predictions: for the gate, `compare` and `rescore`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as Unknown;

use super::suites::{Suites, reported};
use crate::config::IntervalConfig;
use crate::metrics::Metric;
use crate::record::predictions::Named;
use crate::record::{Record, StoredRecord};
use crate::score::Scoring;
use crate::score::predictions::BatchScore;
use crate::{Error, Result};

/// Tolerated difference from the recorded value, in points (in percent for values above 100): records keep 15 digits.
const SLACK: f64 = 1e-9;

/// Tolerance for metrics that rank float32 scores: exponential functions that differ in the last bit cause other
/// ties.
const RANKED_SLACK: f64 = 1e-3;

/// A score as recorded and as recomputed.
#[derive(Debug, Clone)]
pub struct Score {
    /// Name of the score: `accuracy`, `interval low`, `reported_miou`.
    pub name: String,
    /// Recorded value in its unit; `None` if it was not recorded.
    pub recorded: Option<f64>,
    /// Recomputed value.
    pub again: Again,
    slack: f64,
}

/// The result of recomputing a score from the predictions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Again {
    /// The value.
    Value(f64),
    /// The predictions do not have such a score.
    Nothing,
    /// The predictions are not sufficient, with the reason.
    Unknown(&'static str),
}

impl Score {
    /// Whether the recorded value differs from the recomputed one.
    pub fn differs(&self) -> bool {
        match (self.recorded, self.again) {
            (None, _) | (_, Again::Unknown(_)) => false,
            (Some(_), Again::Nothing) => true,
            (Some(recorded), Again::Value(again)) => {
                let difference = (recorded - again).abs();
                difference.is_nan() || difference > self.slack * (recorded.abs() / 100.0).max(1.0)
            }
        }
    }
}

/// The predictions of a record and the scores computed from them.
#[derive(Debug, Clone)]
pub struct Recomputed {
    /// The predictions.
    pub named: Named,
    /// The scores, the metric first.
    pub scores: Vec<Score>,
    /// Number of test samples stated in the record, if it differs from the number of predictions.
    pub recorded_samples: Option<usize>,
}

impl Recomputed {
    /// Lists the statements of the record that its predictions contradict, one per line.
    pub fn contradictions(&self) -> Vec<String> {
        let samples = self.recorded_samples.map(|recorded| {
            format!("the record has {recorded} test samples, its predictions {}", self.named.samples.len())
        });
        let differing = self.scores.iter().filter(|score| score.differs());
        let scores = differing.filter_map(|score| {
            let (name, recorded) = (&score.name, score.recorded?);
            Some(match score.again {
                Again::Value(again) => {
                    let (recorded, again) = apart(recorded, again);
                    format!("{name} is recorded as {recorded}, its predictions give {again}")
                }
                _ => format!("{name} is recorded as {recorded:.2}, its predictions give none"),
            })
        });
        samples.into_iter().chain(scores).collect()
    }

    /// Lists the recorded scores among `names`, and the interval, that cannot be recomputed, with the reason; `None` if there are
    /// none.
    pub fn unknown(&self, names: &[String]) -> Option<String> {
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for Score { name, recorded, again, .. } in &self.scores {
            let is_shown = name.starts_with("interval ") || names.contains(name);
            if let (Some(_), Again::Unknown(why), true) = (recorded, again, is_shown) {
                by_reason.entry(why).or_default().push(name);
            }
        }
        let told: Vec<String> =
            by_reason.iter().map(|(why, names)| format!("{} ({why})", names.join(", "))).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

/// Formats two numbers with just enough decimals to distinguish them, at least two.
fn apart(a: f64, b: f64) -> (String, String) {
    let text = |decimals: usize| (format!("{a:.decimals$}"), format!("{b:.decimals$}"));
    (2..=12).map(text).find(|(a, b)| a != b).unwrap_or_else(|| text(12))
}

/// Recomputes every score of the record from its predictions, and the metrics `extra` that fit the target; `None` if
/// there are no predictions.
///
/// # Errors
/// If the predictions are damaged or cannot be scored by the record's metric. The error names their file.
pub fn recompute(kept: &StoredRecord, suites: &Suites, extra: &[Metric]) -> Result<Option<Recomputed>> {
    let record = &kept.record;
    let Some(named) = kept.store.predictions(record)? else { return Ok(None) };
    let scores = scores(record, &named, suites, extra).map_err(|error| {
        let path = kept.store.predictions_path(record);
        Error::damaged(path, format!("cannot be scored: {error}"))
            .help("delete the record and its predictions, and run the cell again with `bench --fresh`")
    })?;
    let recorded = record.samples.get("test").copied();
    let recorded_samples = recorded.filter(|recorded| *recorded != named.samples.len());
    Ok(Some(Recomputed { named, scores, recorded_samples }))
}

fn scores(record: &Record, named: &Named, suites: &Suites, extra: &[Metric]) -> Result<Vec<Score>> {
    let predictions = &named.predictions;
    let scorer = predictions.scorer(record.metric)?;
    let value = scorer.all();
    if !value.is_finite() {
        return Err(Error::request(format!("{} is {value}", record.metric)));
    }
    let metric = record.metric.to_string();
    let slack = slack(record.metric);
    let score = |name: &str, recorded: f64, again: Again, slack: f64| Score {
        name: name.to_owned(),
        recorded: Some(recorded),
        again,
        slack,
    };
    let mut scores = vec![score(&metric, record.value, Again::Value(value), slack)];
    if let Some(interval) = record.interval {
        let scoring = named.scoring.as_ref().map(|scoring| (scoring.resamples, scoring.resampling));
        let again = match scoring {
            None => [Again::Unknown(OLDER); 2],
            Some((None, _)) => [Again::Nothing; 2],
            Some((Some(resamples), resampling)) => {
                let config = IntervalConfig { level: interval.level, resamples, resampling };
                let again = scorer.interval(&config, record.cell.seed)?;
                [again.low, again.high].map(Again::Value)
            }
        };
        scores.push(score("interval low", interval.low, again[0], slack));
        scores.push(score("interval high", interval.high, again[1], slack));
    }
    let further = Further::new(record, named, suites);
    for (name, recorded) in &record.scores {
        if let Some((again, slack)) = further.again(name)? {
            scores.push(score(name, *recorded, again, slack));
        }
    }
    let fresh = |name: String, again: f64| Score { name, recorded: None, again: Again::Value(again), slack };
    for other in extra.iter().filter(|other| **other != record.metric) {
        let name = other.to_string();
        if record.scores.contains_key(&name) {
            continue;
        }
        if let Ok(scorer) = predictions.scorer(*other) {
            scores.push(fresh(name, scorer.all()));
        }
    }
    let unrecorded = further.given.iter().filter(|(name, _)| !record.scores.contains_key(*name));
    scores.extend(unrecorded.map(|(name, again)| fresh(name.clone(), *again)));
    Ok(scores)
}

const OLDER: &str = "predictions of format 1 do not store how";

/// Scores other than the metric.
struct Further<'a> {
    record: &'a Record,
    named: &'a Named,
    /// Scores that follow from the predictions alone.
    given: BTreeMap<String, f64>,
}

impl<'a> Further<'a> {
    fn new(record: &'a Record, named: &'a Named, suites: &'a Suites) -> Self {
        let kept = named.scoring.as_ref().map_or(&[][..], |scoring| &scoring.class_names);
        let names = if kept.is_empty() { suites.class_names(record) } else { kept };
        Further { record, named, given: named.predictions.scores(names) }
    }

    /// Recomputes the score of that name and returns it with its tolerance; `None` for scores on validation.
    fn again(&self, name: &str) -> Result<Option<(Again, f64)>> {
        let Further { record, named, given } = self;
        // Scores of a sweep on validation do not depend on the test predictions.
        if name.starts_with("valid/") {
            return Ok(None);
        }
        if let Some(again) = given.get(name) {
            return Ok(Some((Again::Value(*again), SLACK)));
        }
        if name == reported(record) {
            let again = match &named.scoring {
                None => Again::Unknown(OLDER),
                Some(Scoring { report_batch: None, .. }) => Again::Nothing,
                Some(Scoring { report_batch: Some(batch), .. }) => {
                    Again::Value(BatchScore::mean(named.predictions.batch_scores(record.metric, *batch)?))
                }
            };
            return Ok(Some((again, slack(record.metric))));
        }
        if let Ok(metric) = metric(name) {
            let again = named.predictions.scorer(metric);
            let again = again.map_or(Again::Nothing, |scorer| Again::Value(scorer.all()));
            return Ok(Some((again, slack(metric))));
        }
        let of_predictions = name.starts_with("iou_") || ["macro_f1", "pixel_accuracy"].contains(&name);
        let again = match (&named.scoring, of_predictions) {
            // Class names may have changed since the record was made.
            (None, true) => Again::Unknown(OLDER),
            (Some(_), true) => Again::Nothing,
            (_, false) => Again::Unknown("not a score of test predictions"),
        };
        Ok(Some((again, SLACK)))
    }
}

fn slack(metric: Metric) -> f64 {
    if metric == Metric::MicroMap { RANKED_SLACK } else { SLACK }
}

/// Parses the name of a metric.
///
/// # Errors
/// If there is no such metric: the message lists the metrics.
pub fn metric(name: &str) -> Result<Metric> {
    Metric::deserialize(name.into_deserializer()).map_err(|error: Unknown| Error::request(error))
}
