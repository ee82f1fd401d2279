//! `report`: tables, pictures and pages from the records that are there.

use std::io::Write;
use std::process::ExitCode;

use super::args::ReportArgs;
use super::used;
use crate::home::Home;
use crate::report::{self, Choice};

/// Runs the command.
pub fn run(home: &Home, args: ReportArgs) -> anyhow::Result<ExitCode> {
    let out = args.out.unwrap_or_else(|| args.results.clone());
    let choice = Choice { models: args.models, axes: args.axes };
    let written = report::write_all(home, &args.results, &out, &choice)?;
    let mut stdout = std::io::stdout().lock();
    for file in &written.files {
        writeln!(stdout, "{}", file.display())?;
    }
    Ok(used(&written.unreadable))
}
