//! `check`: the accuracy gate.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::CheckArgs;
use crate::console;
use crate::error::AtPath;
use crate::files::write_atomically;
use crate::home::Home;
use crate::record::{Kept, collect};
use crate::report::check::{self, Row, Thresholds, Verdict, junit, summary};
use crate::{Error, Result};

/// Runs the command: 0 where all is well, 1 where a cell fails, 2 where the input is unusable.
pub fn run(home: &Home, args: &CheckArgs) -> ExitCode {
    match checked(home, args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            console::note(format_args!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Where there is no reference, how to make one.
fn how(args: &CheckArgs, error: Error) -> Error {
    if args.reference.exists() {
        return error;
    }
    let (records, reference) = (args.records.display(), args.reference.display());
    error.help(format!("`cargo xtask check --records {records} --reference {reference} --update` makes one"))
}

/// Whether the gate is passed.
fn checked(home: &Home, args: &CheckArgs) -> Result<bool> {
    let records = collect(&args.records)?;
    let first = args.update && !args.reference.exists();
    let reference =
        if first { Vec::new() } else { collect(&args.reference).map_err(|error| how(args, error))? };
    let rows = if first {
        console::tell("There is no reference yet.\n");
        Vec::new()
    } else {
        compared(home, args, &records, &reference)?
    };
    let failing = |row: &Row| row.verdict.fails() && !(args.allow_missing && row.verdict == Verdict::Missing);
    if args.update {
        check::update(&records, &reference, &args.reference)?;
        console::tell(format_args!("\n{} is the new reference.\n", args.reference.display()));
        return Ok(true);
    }
    Ok(!rows.iter().any(failing))
}

fn compared(home: &Home, args: &CheckArgs, records: &[Kept], reference: &[Kept]) -> Result<Vec<Row>> {
    let thresholds = Thresholds::load(&thresholds(home, args)?)?;
    let rows = check::check(records, reference, &thresholds)?;
    let text = summary(&rows);
    console::tell(&text);
    if let Some(path) = &args.junit {
        write_atomically(path, junit(&rows)?.as_bytes())?;
    }
    if let Some(path) = &args.summary {
        let mut file = OpenOptions::new().append(true).create(true).open(path).at(path)?;
        file.write_all(text.as_bytes()).at(path)?;
    }
    Ok(rows)
}

fn thresholds(home: &Home, args: &CheckArgs) -> Result<PathBuf> {
    if let Some(path) = &args.thresholds {
        return Ok(path.clone());
    }
    let beside = args.reference.join("check.toml");
    let general = home.folder().join("configs/check.toml");
    [beside, general].into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::request("there are no thresholds: neither the reference nor configs/ holds a check.toml")
            .help("pass --thresholds FILE")
    })
}
