//! `report`: writes tables, figures and pages from existing records.

use std::process::ExitCode;

use super::args::ReportArgs;
use super::used;
use crate::console;
use crate::home::Home;
use crate::report::{self, Choice, Style};

/// Runs the command.
pub fn run(home: &Home, args: ReportArgs) -> anyhow::Result<ExitCode> {
    let out = args.out.unwrap_or_else(|| args.results.clone());
    let choice = Choice { models: args.models, axes: args.axes };
    let written =
        report::write_all(home, &args.results, &out, &choice, Style { intervals: args.latex_intervals })?;
    let lines: Vec<String> = written.files.iter().map(|file| format!("{}\n", file.display())).collect();
    console::tell(lines.concat());
    Ok(used(&written.unreadable))
}
