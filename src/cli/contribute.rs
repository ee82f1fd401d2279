//! `contribute`: packs results for others, and opens what others packed.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tempfile::TempDir;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::args::ContributeArgs;
use super::used;
use super::wanted::wanted;
use crate::console;
use crate::error::AtPath;
use crate::fetch::archive;
use crate::files::{move_to, write_atomically};
use crate::gate::Suites;
use crate::gate::choice::newest_of_each;
use crate::gate::recompute::{Recomputed, recompute};
use crate::home::Home;
use crate::program::Program;
use crate::record::contribution::{Contribution, MANIFEST, MODEL_CARD, Manifest};
use crate::record::{Collection, Record, StoredRecord, Unreadable, collect_usable};
use crate::report::model_card::{Handover, model_card};
use crate::{Error, Result};

/// Folder of all files in an archive.
const ROOT: &str = "contribution";

/// Runs the command. Exits with 0, or with [`super::SOME_UNREADABLE`] if some records could not be used.
pub fn run(home: &Home, args: &ContributeArgs, program: &Program) -> anyhow::Result<ExitCode> {
    let mut unreadable: Vec<Unreadable> = Vec::new();
    let mut chosen: Vec<(String, StoredRecord)> = Vec::new();
    for folder in folders(&args.results, args.suite.as_deref())? {
        let Collection { kept, unreadable: damaged } = collect_usable(&args.results.join(&folder))?;
        unreadable.extend(damaged);
        let kept = wanted(&args.wanted)?.narrow(kept, &folder)?;
        for of_cell in kept.chunk_by(|a, b| a.record.cell == b.record.cell) {
            let newest = newest_of_each(of_cell.iter().filter(|kept| !kept.record.short));
            chosen.extend(newest.into_iter().map(|kept| (folder.clone(), kept.clone())));
        }
    }
    let suites = Suites::load(home, chosen.iter().map(|(_, kept)| &kept.record));
    chosen.retain(|(_, kept)| match kept.store.predictions_path(&kept.record).is_file() {
        true => true,
        false => {
            let name = kept.record.file_name();
            console::note(format_args!("left out: {name} has no predictions, so that nobody can check it"));
            false
        }
    });
    if chosen.is_empty() {
        return Err(Error::not_found(&args.results, "no whole record with predictions found")
            .help("run `bench` first; shortened runs are not contributed")
            .into());
    }
    check(chosen.iter().map(|(_, kept)| kept), &suites, "run the cells again with `bench --fresh`")?;

    let mut files = BTreeMap::new();
    for (folder, kept) in &chosen {
        let (store, record) = (&kept.store, &kept.record);
        for path in [store.path(record), store.predictions_path(record), store.sheet(record)] {
            if path.is_file() {
                files.insert(name_of(folder, &path), std::fs::read(&path).at(&path)?);
            }
        }
    }
    let mut records: Vec<&Record> = chosen.iter().map(|(_, kept)| &kept.record).collect();
    records.sort_by(|a, b| (&a.cell, &a.fingerprint).cmp(&(&b.cell, &b.fingerprint)));
    let handover = Handover { contributor: args.name.trim(), contact: args.contact.as_deref() };
    files.insert(MODEL_CARD.to_owned(), model_card(handover, &records).into_bytes());
    let manifest = Manifest::new(&args.name, args.contact.as_deref(), program, &files)?.bytes()?;
    let id = blake3::hash(&manifest).to_hex().to_string();
    files.insert(MANIFEST.to_owned(), manifest);

    match args.out.extension().is_some_and(|extension| extension == "zip") {
        true => write_atomically(&args.out, &zipped(&files).at(&args.out)?)?,
        false => write_folder(&args.out, &files)?,
    }
    console::note(format_args!(
        "{} records by {}; contribution {}",
        records.len(),
        args.name.trim(),
        &id[..12]
    ));
    console::tell(format_args!("{}\n", args.out.display()));
    Ok(used(&unreadable))
}

/// Returns the folders of results to pack: that of the suite, or those of all suites without demos.
fn folders(results: &Path, suite: Option<&str>) -> Result<Vec<String>> {
    if let Some(suite) = suite {
        return Ok(vec![suite.to_owned()]);
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(results).at(results)? {
        let entry = entry.at(results)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join("records").is_dir() && !name.ends_with("-demo") {
            folders.push(name);
        }
    }
    folders.sort();
    if folders.is_empty() {
        return Err(Error::not_found(results, "no records found below this folder")
            .help("run `bench` first, or name a folder of results with --results"));
    }
    Ok(folders)
}

/// Checks that every record says what its predictions give.
fn check<'k>(kept: impl Iterator<Item = &'k StoredRecord>, suites: &Suites, help: &str) -> Result<()> {
    for kept in kept {
        let path = kept.store.path(&kept.record);
        let recomputed = recompute(kept, suites, &[])?;
        let claims = recomputed.iter().flat_map(Recomputed::contradictions).collect::<Vec<_>>();
        if !claims.is_empty() {
            return Err(Error::damaged(path, format!("contradicts its predictions: {}", claims.join("; ")))
                .help(help));
        }
    }
    Ok(())
}

/// Returns the path of a file in a contribution: `geobench/records/x.json`.
fn name_of(folder: &str, path: &Path) -> String {
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let kind = part(path.parent().and_then(Path::file_name));
    format!("{folder}/{kind}/{}", part(path.file_name()))
}

/// Writes all files below a new folder, which appears complete or not at all. Replaces an earlier contribution.
fn write_folder(out: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let is_empty =
        |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if out.exists() && !Contribution::is_in(out) && !is_empty(out) {
        return Err(Error::request("exists, and is no contribution that could be replaced")
            .in_file(out)
            .help("name another folder or a .zip file with --out"));
    }
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).at(parent)?;
    let beside = tempfile::Builder::new().prefix(".").suffix(".tmp").tempdir_in(parent).at(parent)?;
    let new = beside.path().join(ROOT);
    for (name, bytes) in files {
        write_atomically(&crate::files::inside(&new, name)?, bytes)?;
    }
    if out.exists() {
        std::fs::remove_dir_all(out).at(out)?;
    }
    move_to(&new, out)
}

/// Packs all files; equal files give equal bytes.
fn zipped(files: &BTreeMap<String, Vec<u8>>) -> zip::result::ZipResult<Vec<u8>> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        // Texts only: predictions of masks are mostly zeros, and would unpack to more than readers accept.
        let is_text = [".json", ".md"].iter().any(|end| name.ends_with(end));
        let method = if is_text { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .last_modified_time(zip::DateTime::default())
            .large_file(bytes.len() > (1 << 31));
        zip.start_file(format!("{ROOT}/{name}"), options)?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

/// A contribution, unpacked if it was an archive.
pub(super) struct Opened {
    /// Its folder; for anything else the path as typed.
    pub folder: PathBuf,
    /// What it is; `None` if it is a plain folder of results.
    pub contribution: Option<Contribution>,
    /// Deleted with this value.
    _unpacked: Option<TempDir>,
}

/// Opens a folder of results, a contribution or a packed contribution. Checks the digests of contributions.
pub(super) fn opened(path: &Path) -> Result<Opened> {
    if path.extension().is_some_and(|extension| extension == "zip") && path.is_file() {
        let unpacked = tempfile::tempdir().at(std::env::temp_dir())?;
        archive::inspect(path, ROOT)?;
        archive::unpack(path, ROOT, unpacked.path(), &|_| {})?;
        let contribution =
            Contribution::open(unpacked.path()).map_err(|error| in_archive(error, unpacked.path(), path))?;
        let folder = unpacked.path().to_owned();
        return Ok(Opened { folder, contribution: Some(contribution), _unpacked: Some(unpacked) });
    }
    let contribution = Contribution::is_in(path).then(|| Contribution::open(path)).transpose()?;
    Ok(Opened { folder: path.to_owned(), contribution, _unpacked: None })
}

/// Names the archive and the file in it instead of the unpacked file, which is gone when the error is read.
fn in_archive(error: Error, unpacked: &Path, archive: &Path) -> Error {
    let within = error.path().and_then(|file| file.strip_prefix(unpacked).ok());
    match within.map(|file| file.display().to_string()) {
        Some(within) => error.in_file(archive).reworded(|problem| format!("{within}: {problem}")),
        None => error,
    }
}

/// Opens a contribution for a report: its records must say what their predictions give.
pub(super) fn contributed(home: &Home, path: &Path) -> Result<Opened> {
    let opened = opened(path)?;
    let Some(contribution) = &opened.contribution else {
        // Says what is missing.
        return Contribution::open(path).map(|_| opened);
    };
    let named = |error| in_archive(error, &contribution.folder, path);
    let Collection { kept, unreadable } = collect_usable(&contribution.folder)?;
    if let Some(first) = unreadable.into_iter().next() {
        return Err(named(first.error));
    }
    let suites = Suites::load(home, kept.iter().map(|kept| &kept.record));
    let again = format!("ask {} for a correct one", contribution.manifest.contributor);
    check(kept.iter(), &suites, &again).map_err(named)?;
    Ok(opened)
}
