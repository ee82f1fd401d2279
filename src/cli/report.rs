//! `report`: writes tables, figures and pages from existing records.

use std::process::ExitCode;

use super::args::ReportArgs;
use super::contribute::contributed;
use super::used;
use crate::Result;
use crate::console;
use crate::home::Home;
use crate::record::contribution::Contribution;
use crate::report::{self, Choice, Style};

/// Runs the command.
pub fn run(home: &Home, args: ReportArgs) -> anyhow::Result<ExitCode> {
    let out = args.out.unwrap_or_else(|| args.results.clone());
    let choice = Choice { models: args.models, axes: args.axes };
    let opened = args.contributions.iter().map(|path| contributed(home, path)).collect::<Result<Vec<_>>>()?;
    let mut contributions: Vec<Contribution> = Vec::new();
    for one in opened.iter().filter_map(|one| one.contribution.as_ref()) {
        if contributions.iter().all(|other| other.short_id() != one.short_id()) {
            contributions.push(one.clone());
        }
    }
    for one in &contributions {
        let records: usize = one.manifest.records.values().sum();
        let (name, id) = (&one.manifest.contributor, one.short_id());
        console::note(format_args!("{records} records contributed by {name}, contribution {id}"));
    }
    let style = Style { intervals: args.latex_intervals };
    let written = report::write_with(home, &args.results, &contributions, &out, &choice, style)?;
    let lines: Vec<String> = written.files.iter().map(|file| format!("{}\n", file.display())).collect();
    console::tell(lines.concat());
    Ok(used(&written.unreadable))
}
