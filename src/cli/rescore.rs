//! `rescore`: recomputes scores from stored predictions.

use std::process::ExitCode;

use super::args::RescoreArgs;
use super::used;
use super::wanted::wanted;
use crate::Result;
use crate::console;
use crate::gate::Suites;
use crate::gate::rescore::{markdown, metric, rescore};
use crate::home::Home;
use crate::record::{Collection, collect_usable};

/// Runs the command. Exits with 1 if a record contradicts its predictions.
pub fn run(home: &Home, args: &RescoreArgs) -> anyhow::Result<ExitCode> {
    let metrics = args.metrics.iter().map(|name| metric(name)).collect::<Result<Vec<_>>>()?;
    let Collection { kept, mut unreadable } = collect_usable(&args.results)?;
    let records = wanted(&args.wanted)?.narrow(kept, &args.results.display().to_string())?;
    let suites = Suites::load(home, records.iter().map(|kept| &kept.record));
    let (rescored, without) = rescore(&records, &metrics, &suites);
    console::print(markdown(&rescored))?;
    unreadable.extend(without);
    let code = used(&unreadable);
    let is_contradictory = rescored.iter().any(|record| !record.contradictions.is_empty());
    Ok(if is_contradictory { ExitCode::FAILURE } else { code })
}
