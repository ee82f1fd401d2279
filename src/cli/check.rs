//! `check`: the accuracy gate.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::CheckArgs;
use super::contribute::opened;
use super::wanted::wanted;
use crate::console;
use crate::error::AtPath;
use crate::files::write_atomically;
use crate::gate::Suites;
use crate::gate::check::{self, CheckedCell, Thresholds, Verdict, junit, summary};
use crate::home::Home;
use crate::record::{Collection, StoredRecord, Unreadable, collect_usable, unreadable};
use crate::{Error, Result};

/// Runs the command. Exits with 0 if all cells pass, 1 if a cell fails, and 2 if the input or part of it is unusable.
pub fn run(home: &Home, args: &CheckArgs) -> ExitCode {
    match checked(home, args) {
        Ok(code) => code,
        Err(error) => {
            console::note(format_args!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

/// If the reference does not exist, adds to `error` how to create it.
fn how(args: &CheckArgs, error: Error) -> Error {
    if args.reference.exists() {
        return error;
    }
    let (records, reference) = (args.records.display(), args.reference.display());
    error.help(format!("`cargo xtask check --records {records} --reference {reference} --update` creates it"))
}

/// Whether a folder holds what an update leaves that was stopped before its first record, and nothing else.
fn is_begun(folder: &Path) -> bool {
    let names = |folder: &Path| -> Option<Vec<String>> {
        let entries = std::fs::read_dir(folder).ok()?;
        entries.map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
    };
    let is_ours =
        |name: &String| name.starts_with('.') || ["records", "predictions", "check.toml"].contains(&&**name);
    let is_record = |name: &String| !name.starts_with('.') && name.ends_with(".json");
    names(folder).is_some_and(|names| names.iter().all(is_ours))
        && !names(&folder.join("records")).unwrap_or_default().iter().any(is_record)
}

/// The records to compare.
struct Sides {
    records: Vec<StoredRecord>,
    reference: Vec<StoredRecord>,
    /// Files of either side that cannot be used.
    unreadable: Vec<Unreadable>,
    suites: Suites,
}

fn sides(home: &Home, args: &CheckArgs, [records, reference]: [&Path; 2], first: bool) -> Result<Sides> {
    let records = collect_usable(records)?;
    let reference = match first {
        true => Collection::default(),
        false => collect_usable(reference).map_err(|error| how(args, error))?,
    };
    let mut unreadable = records.unreadable;
    unreadable.extend(reference.unreadable);
    let wanted = wanted(&args.wanted)?;
    let records = wanted.narrow(records.kept, "the records")?;
    let reference = wanted.narrow(reference.kept, "the reference")?;
    let suites = Suites::load(home, records.iter().chain(&reference).map(|kept| &kept.record));
    Ok(Sides { records, reference, unreadable, suites })
}

fn checked(home: &Home, args: &CheckArgs) -> Result<ExitCode> {
    let first = args.update && (!args.reference.exists() || is_begun(&args.reference));
    let [records, reference] = [&args.records, &args.reference].map(|path| opened(path));
    let (records, reference) = (records?, reference?);
    if args.update && reference.contribution.is_some() {
        return Err(Error::request("is a contribution, which must not change")
            .in_file(&args.reference)
            .help("name another folder with --reference"));
    }
    let sides = sides(home, args, [&records.folder, &reference.folder], first)?;
    if first {
        console::tell("No reference exists yet.\n");
    }
    note(&sides.unreadable);
    let rows = if first { Vec::new() } else { compared(home, args, &sides)? };
    let predictions: Vec<Unreadable> = rows.iter().flat_map(|row| row.unreadable.clone()).collect();
    note(&predictions);
    let is_incomplete = !(sides.unreadable.is_empty() && predictions.is_empty());
    if args.update {
        check::update(&sides.records, &sides.reference, &args.reference, &sides.suites)?;
        console::tell(format_args!("\n{} is the new reference.\n", args.reference.display()));
        return Ok(if is_incomplete { ExitCode::from(2) } else { ExitCode::SUCCESS });
    }
    Ok(code(&rows, is_incomplete, args.allow_missing))
}

fn note(unreadable: &[Unreadable]) {
    if let Some(list) = unreadable::list(unreadable) {
        console::note(format_args!("error: {list}"));
    }
}

/// Returns 1 if a cell definitely fails; otherwise 2 if a file cannot be used, since that may be why cells are missing.
fn code(rows: &[CheckedCell], is_incomplete: bool, allow_missing: bool) -> ExitCode {
    let unsure = |verdict: Verdict| matches!(verdict, Verdict::Missing | Verdict::Unusable);
    let is_missing = rows.iter().any(|row| row.verdict == Verdict::Missing) && !allow_missing;
    if rows.iter().any(|row| row.verdict.fails() && !unsure(row.verdict)) {
        ExitCode::FAILURE
    } else if is_incomplete {
        ExitCode::from(2)
    } else if is_missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn compared(home: &Home, args: &CheckArgs, sides: &Sides) -> Result<Vec<CheckedCell>> {
    let Sides { records, reference, unreadable, suites } = sides;
    let thresholds = Thresholds::load(&thresholds(home, args)?)?;
    let rows = check::check(records, reference, &thresholds, suites)?;
    let text = summary(&rows, unreadable);
    console::tell(&text);
    if let Some(path) = &args.junit {
        write_atomically(path, junit(&rows, unreadable)?.as_bytes())?;
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
    let general = home.path("configs/check.toml");
    [beside, general].into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::request("no thresholds found: neither the reference folder nor configs/ contains a check.toml")
            .help("pass --thresholds FILE")
    })
}
