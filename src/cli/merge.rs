//! `merge`: merges results folders that were made apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::cluster_args::MergeArgs;
use super::used;
use crate::console;
use crate::error::AtPath;
use crate::record::merge::{Sourced, merge};
use crate::record::unreadable::Unreadable;
use crate::run::sharing::described;
use crate::{Error, Result};

/// Runs the command. Exits with 1 if cells contradict each other.
pub fn run(args: &MergeArgs) -> anyhow::Result<ExitCode> {
    let mut suites: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for folder in &args.from {
        for (name, suite) in suites_in(folder)? {
            suites.entry(name).or_default().push(suite);
        }
    }
    let mut text = String::new();
    let mut unreadable: Vec<Unreadable> = Vec::new();
    let mut contradictions = 0;
    for (name, from) in suites {
        let into = args.into.join(&name);
        let merged = merge(&from, &into, args.dry_run)?;
        let would = if args.dry_run { "would be copied" } else { "copied" };
        writeln!(
            text,
            "{name}: {} records and {} snapshots {would}, {} were there already",
            merged.copied, merged.snapshots, merged.known
        )?;
        for records in &merged.contradictions {
            contradictions += 1;
            text.push_str(&contradiction(records));
        }
        unreadable.extend(merged.unreadable);
    }
    console::tell(text);
    let code = used(&unreadable);
    if contradictions > 0 {
        console::note(format_args!(
            "error: cells with several values: {contradictions}; none of their records was copied\n  help: remove the record \
             that is wrong (or every one, to compute the cell again), then merge again"
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(code)
}

/// The suites in a results folder, by name; a suite's own folder is one.
fn suites_in(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let named = |path: PathBuf| Some((path.file_name()?.to_string_lossy().into_owned(), path));
    let has_results = |path: &Path| path.join("records").is_dir() || path.join("checkpoints").is_dir();
    if has_results(folder) {
        let whole = folder.canonicalize().at(folder)?;
        return Ok(named(whole).into_iter().collect());
    }
    let mut suites = Vec::new();
    for entry in std::fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        if has_results(&path) {
            suites.extend(named(path));
        }
    }
    if suites.is_empty() {
        return Err(Error::not_found(folder, "no results found").help("name a folder that `bench` wrote"));
    }
    Ok(suites)
}

/// Describes a cell with several values: each value with where it comes from.
fn contradiction(records: &[Sourced]) -> String {
    let Some(first) = records.first() else { return String::new() };
    let mut text = format!("  {} has several values:\n", described(&first.record.cell));
    for Sourced { folder, record } in records {
        let made = &record.provenance;
        let revision = made.git_revision.as_deref().map_or(String::new(), |revision| {
            format!(" at {revision}{}", if made.git_dirty { " with changes" } else { "" })
        });
        let path = folder.join("records").join(record.file_name());
        text.push_str(&format!(
            "    {} {:.4}: {}\n      terrabench {}{revision}, device {}, {} threads, {} precision, weights {}, data {}, finished {}\n",
            record.metric,
            record.value,
            path.display(),
            made.terrabench,
            made.gpu.as_deref().unwrap_or(&made.device),
            made.threads,
            made.precision,
            short(&made.weights),
            short(&made.data),
            made.finished,
        ));
    }
    text
}

/// The first digits of a hash, as elsewhere.
fn short(hash: &str) -> &str {
    crate::record::short(hash)
}
