//! Merges stores that were made apart. Where they contradict each other, nothing is chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Record, Store, Unreadable};
use crate::error::AtPath;
use crate::files::{replace_with, write_atomically};
use crate::{Error, Result};

/// Folder of the snapshots of unfinished trainings.
const SNAPSHOTS: &str = "checkpoints";

/// What merging did, or with `dry_run` would do.
#[derive(Debug, Default)]
pub struct Merged {
    /// Number of copied records.
    pub copied: usize,
    /// Number of records that were there already, with the same value.
    pub known: usize,
    /// Number of copied snapshots.
    pub snapshots: usize,
    /// Cells with one fingerprint and several values. None of their records was copied.
    pub contradictions: Vec<Vec<Sourced>>,
    /// Files that cannot be used.
    pub unreadable: Vec<Unreadable>,
}

/// A record and the suite's folder that it is in.
#[derive(Debug, Clone)]
pub struct Sourced {
    /// The suite's folder.
    pub folder: PathBuf,
    /// The record.
    pub record: Record,
}

/// Merges the suites' folders `from` into `into`: records, with their predictions, pictures and snapshots. What is in `into` stays.
///
/// # Errors
/// If a folder cannot be read, or a file cannot be written.
pub fn merge(from: &[PathBuf], into: &Path, dry_run: bool) -> Result<Merged> {
    let mut merged = Merged::default();
    // All records of one fingerprint, those in `into` first.
    let mut all: BTreeMap<String, Vec<Sourced>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let same_folder =
        |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    let others = from.iter().filter(|folder| !same_folder(folder, into));
    for folder in std::iter::once(into).chain(others.clone().map(PathBuf::as_path)) {
        if !seen.insert(folder.to_owned()) {
            continue;
        }
        let Some(store) = Store::existing(folder) else { continue };
        let usable = store.usable()?;
        merged.unreadable.extend(usable.unreadable);
        for record in usable.records {
            let sourced = Sourced { folder: folder.to_owned(), record };
            all.entry(sourced.record.fingerprint.clone()).or_default().push(sourced);
        }
    }
    for same in all.values() {
        if same.iter().any(|other| !is_same_result(&same[0].record, &other.record)) {
            merged.contradictions.push(same.clone());
            continue;
        }
        // The same cell may be recorded under several names of its model.
        let mut names: BTreeSet<String> = BTreeSet::new();
        for Sourced { folder, record } in same {
            if !names.insert(record.file_name()) {
                merged.known += usize::from(folder != into);
            } else if folder != into {
                if !dry_run {
                    copy_record(folder, into, record)?;
                }
                merged.copied += 1;
            }
        }
    }
    for folder in others {
        for (fingerprint, files) in snapshots(folder)? {
            // A recorded cell needs none.
            let there = into.join(SNAPSHOTS).join(format!("{fingerprint}.safetensors"));
            if all.contains_key(&fingerprint) || there.exists() {
                continue;
            }
            if !dry_run {
                files.iter().try_for_each(|file| copy(file, &into.join(SNAPSHOTS)))?;
            }
            merged.snapshots += 1;
        }
    }
    Ok(merged)
}

/// Whether two records of one fingerprint state the same result. When, where and how fast it was computed does not count.
fn is_same_result(a: &Record, b: &Record) -> bool {
    (&a.value, &a.interval, &a.scores, &a.selected, &a.samples)
        == (&b.value, &b.interval, &b.scores, &b.selected, &b.samples)
        && a.metric == b.metric
        // Older records have no digest.
        && a.predictions.as_ref().zip(b.predictions.as_ref()).is_none_or(|(a, b)| a == b)
}

/// Copies a record with the files beside it, the record last.
fn copy_record(from: &Path, into: &Path, record: &Record) -> Result<()> {
    let source = Store::existing(from).ok_or_else(|| Error::not_found(from, "no records found"))?;
    let target = Store::open(into)?;
    match source.predictions(record)? {
        Some(named) => {
            let sheet = std::fs::read(source.sheet(record)).ok();
            let (_, path) = target.stage(record, &named, sheet.as_deref())?.commit()?;
            // As it was, whatever this version would write.
            write_atomically(&path, &std::fs::read(source.path(record)).at(source.path(record))?)
        }
        None => target.put(record).map(drop),
    }
}

/// Lists the snapshots in a suite's folder: each with the networks beside it, by fingerprint.
fn snapshots(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let folder = folder.join(SNAPSHOTS);
    let mut snapshots: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(snapshots);
    }
    for entry in std::fs::read_dir(&folder).at(&folder)? {
        let path = entry.at(&folder)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some((fingerprint, _)) =
            name.split_once('.').filter(|(fingerprint, _)| !fingerprint.is_empty())
        {
            snapshots.entry(fingerprint.to_owned()).or_default().push(path.clone());
        }
    }
    // The snapshot itself last: without it, the networks beside it count for nothing.
    snapshots
        .values_mut()
        .for_each(|files| files.sort_by_key(|file| std::cmp::Reverse(file.as_os_str().len())));
    Ok(snapshots)
}

fn copy(file: &Path, folder: &Path) -> Result<()> {
    let target = folder.join(file.file_name().unwrap_or_default());
    replace_with(&target, |temporary| {
        let mut source = std::fs::File::open(file).at(file)?;
        std::io::copy(&mut source, temporary).at(&target).map(drop)
    })
}
