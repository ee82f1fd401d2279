//! `report`: tables, pictures and pages from the records that are there.

use super::args::ReportArgs;
use crate::console;
use crate::home::Home;
use crate::report::{self, Choice};

/// Runs the command.
pub fn run(home: &Home, args: ReportArgs) -> anyhow::Result<()> {
    let out = args.out.unwrap_or_else(|| args.results.clone());
    let choice = Choice { models: args.models, axes: args.axes };
    let files = report::write_all(home, &args.results, &out, &choice)?;
    let lines: Vec<String> = files.iter().map(|file| format!("{}\n", file.display())).collect();
    console::tell(lines.concat());
    Ok(())
}
