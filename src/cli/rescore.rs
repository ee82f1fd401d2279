//! `rescore`: scores from predictions.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as Unknown;

use super::args::RescoreArgs;
use crate::console;
use crate::home::Home;
use crate::metrics::Metric;
use crate::record::collect;
use crate::report::rescore::{Score, markdown, rescore};
use crate::suite::Suite;
use crate::{Error, Result};

/// Runs the command: 1 where a record holds another value than its predictions give.
pub fn run(home: &Home, args: &RescoreArgs) -> anyhow::Result<ExitCode> {
    let metrics = args.metrics.iter().map(|name| metric(name)).collect::<Result<Vec<_>>>()?;
    let records = collect(&args.results)?;
    let mut suites: BTreeMap<&str, Option<Suite>> = BTreeMap::new();
    for kept in &records {
        let name = kept.record.cell.suite.as_str();
        // A suite that is no longer there has no names of classes; the numbers do not need it.
        suites.entry(name).or_insert_with(|| Suite::load(home, name).ok());
    }
    let rescored = rescore(&records, &metrics, |record| {
        let suite = suites.get(record.cell.suite.as_str())?.as_ref()?;
        suite.task(&record.cell.task).ok().cloned()
    })?;
    console::print(markdown(&rescored))?;
    let differs = rescored.iter().flat_map(|record| &record.scores).flatten().any(Score::differs);
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn metric(name: &str) -> Result<Metric> {
    Metric::deserialize(name.into_deserializer()).map_err(|error: Unknown| Error::request(error))
}
