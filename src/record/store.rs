//! The store: one JSON file per record, written to a temporary name and renamed.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use serde_json::Value;

use super::listing::{Listing, Names};
use super::predictions::{self, Named};
use super::{Cell, FINGERPRINT_DIGITS, Reason, Record, SCHEMA, Unreadable, migrate};
use crate::error::AtPath;
use crate::files::{remove, write_atomically};
use crate::metrics::Scale;
use crate::{Error, Result};

/// Digits of the fingerprint in a file name.
const DIGITS_IN_NAME: usize = 16;

/// Folder of the predictions.
const PREDICTIONS: &str = "predictions";

/// Folder of the pictures of predicted masks.
const SHEETS: &str = "sheets";

/// Maximum length of each part of a file name in bytes: seven parts stay below the 255 of file systems.
const LONGEST_PART: usize = 48;

/// A folder of records. Stores are merged by copying their files into one folder.
///
/// A file in the folder is either a complete record or not a record at all: hidden files (left by an interrupted write)
/// and names that do not end in `.json` are ignored. A damaged record is an error that names the file, even when
/// resuming, because only something outside the program or a failing disk can cause it. [`Store::usable`] returns the
/// remaining records for callers that need them all. Records of older schemas are upgraded when read.
#[derive(Debug, Clone)]
pub struct Store {
    records: PathBuf,
    /// Names of the files in the folder, read again when it changes.
    listing: Listing,
    /// Requests of all records with the names of their files, as read at the last [`Store::of_request`].
    requests: Arc<Mutex<Option<Requests>>>,
}

/// Names of the records of each request, and the listing that they were read with.
#[derive(Debug)]
struct Requests {
    listing: Arc<Names>,
    records: HashMap<String, Vec<Record>>,
}

/// The contents of a store.
#[derive(Debug, Clone, Default)]
pub struct Usable {
    /// Records sorted by cell.
    pub records: Vec<Record>,
    /// Files that cannot be used, sorted by name.
    pub unreadable: Vec<Unreadable>,
}

/// Why a file is refused, and the record in it if it is one under another name.
struct Refused {
    reason: Reason,
    error: Error,
    record: Option<Box<Record>>,
}

impl Store {
    /// Opens the records under `<folder>/records/`, creating the folder if needed.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let records = folder.as_ref().join("records");
        std::fs::create_dir_all(&records).at(&records)?;
        Ok(Store::at(records))
    }

    fn at(records: PathBuf) -> Self {
        Store { records, listing: Listing::default(), requests: Arc::default() }
    }

    /// Opens the records under `<folder>/records/` if that folder exists.
    pub fn existing(folder: impl AsRef<Path>) -> Option<Self> {
        let records = folder.as_ref().join("records");
        records.is_dir().then(|| Store::at(records))
    }

    /// Finds the record with that fingerprint, if the cell is done.
    ///
    /// # Errors
    /// If the folder or the record's file cannot be read, or the record is damaged.
    pub fn get(&self, fingerprint: &str) -> Result<Option<Record>> {
        let Some(digits) = fingerprint.get(..DIGITS_IN_NAME) else { return Ok(None) };
        for name in self.names()?.of(digits) {
            let record = self.read(name).map_err(|refused| refused.error)?;
            if record.fingerprint == fingerprint {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Finds the record with that fingerprint under the labels of `cell`. A record made under other labels (the file of the
    /// model or protocol was renamed since) is copied, together with the files beside it.
    ///
    /// # Errors
    /// Like [`Store::get`], or if a copy cannot be written.
    pub fn find(&self, fingerprint: &str, cell: &Cell) -> Result<Option<Record>> {
        let Some(any) = self.get(fingerprint)? else { return Ok(None) };
        let asked = Record { cell: cell.clone(), ..any.clone() };
        if self.path(&asked).is_file() {
            return self.read(&asked.file_name()).map(Some).map_err(|refused| refused.error);
        }
        let sheet = std::fs::read(self.sheet(&any)).ok();
        match self.predictions(&any)? {
            Some(named) => {
                self.stage(&asked, &named, sheet.as_deref())?.commit().map(|(record, _)| Some(record))
            }
            None => self.put(&asked).map(|_| Some(asked)),
        }
    }

    /// Finds the record with that fingerprint under the labels of `cell` by its name alone, which costs the same however many
    /// records there are.
    ///
    /// # Errors
    /// If the record's file cannot be read, or the record is damaged.
    pub fn named(&self, fingerprint: &str, cell: &Cell) -> Result<Option<Record>> {
        let name = file_name(cell, fingerprint);
        if !self.records.join(&name).is_file() {
            return Ok(None);
        }
        let record = self.read(&name).map_err(|refused| refused.error)?;
        Ok(Some(record).filter(|record| record.fingerprint == fingerprint))
    }

    /// Returns the digits of the fingerprints of all records, by the names of their files.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn digits(&self) -> Result<HashSet<String>> {
        let digits = |name: &String| Some(name.strip_suffix(".json")?.rsplit_once('.')?.1.to_owned());
        Ok(self.names()?.all.iter().filter_map(digits).collect())
    }

    /// Whether a record with that fingerprint may be among those with these `digits`.
    pub fn is_among(fingerprint: &str, digits: &HashSet<String>) -> bool {
        fingerprint.get(..DIGITS_IN_NAME).is_some_and(|own| digits.contains(own))
    }

    /// Returns the folder with the records.
    pub fn folder(&self) -> &Path {
        &self.records
    }

    /// Returns the finished cells of a request ([`Record::request`]), the most recent first. Skips files that cannot be
    /// used.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn of_request(&self, request: &str) -> Result<Vec<Record>> {
        let listing = self.names()?;
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        // Reading all records once serves all cells of a run.
        if !requests.as_ref().is_some_and(|requests| Arc::ptr_eq(&requests.listing, &listing)) {
            let mut records: HashMap<String, Vec<Record>> = HashMap::new();
            for record in self.usable()?.records {
                records.entry(record.request.clone()).or_default().push(record);
            }
            *requests = Some(Requests { listing, records });
        }
        let of_request = requests.as_ref().and_then(|requests| requests.records.get(request));
        let mut records = of_request.cloned().unwrap_or_default();
        records.sort_by_key(|record| std::cmp::Reverse(record.provenance.finished));
        Ok(records)
    }

    /// Writes the files beside a record before the record itself, which [`Staged::commit`] writes: the predictions and, for
    /// masks, a picture. Until then an earlier record of the same name keeps its own files.
    ///
    /// ```text
    /// predictions/.<name>.next   if there is an earlier record; otherwise directly under its final name
    /// sheets/.<name>.next
    /// records/<name>             once written, the new files count
    /// ```
    ///
    /// # Errors
    /// Like [`Store::put`] and [`predictions::write`].
    pub fn stage(&self, record: &Record, named: &Named, sheet: Option<&[u8]>) -> Result<Staged<'_>> {
        let record = Record { predictions: Some(predictions::digest(named)?), ..record.clone() };
        check(&record)
            .map_err(|problem| Error::io(self.path(&record), format!("cannot be written: {problem}")))?;
        let earlier = self.path(&record).is_file();
        let place = |path: PathBuf| if earlier { next(&path) } else { path };
        predictions::write(&place(self.predictions_path(&record)), &record.fingerprint, named)?;
        if let Some(sheet) = sheet {
            write_atomically(&place(self.sheet(&record)), sheet)?;
        }
        Ok(Staged { store: self, record })
    }

    /// Finishes what a killed process began: moves the files it wrote for this record into place, or removes them if it
    /// never wrote the record.
    ///
    /// # Errors
    /// If a file cannot be moved or removed.
    pub fn settle(&self, record: &Record) -> Result<()> {
        let (path, sheet) = (self.predictions_path(record), self.sheet(record));
        if !next(&path).is_file() {
            return Ok(());
        }
        let counts = predictions::read(&next(&path), &record.fingerprint)
            .is_ok_and(|named| named.is_some_and(|named| is_surely_of(record, &named)));
        // Predictions last: their `.next` file shows that something is left to do.
        for path in [sheet, path] {
            match counts && next(&path).is_file() {
                true => std::fs::rename(next(&path), &path).at(&path)?,
                false => remove(&next(&path))?,
            }
        }
        Ok(())
    }

    /// Writes the record, replacing an earlier one with the same fingerprint, and returns the path of its file.
    ///
    /// # Errors
    /// If the record could not be read back (a number is not finite, the fingerprint is malformed) or the file cannot be
    /// written.
    pub fn put(&self, record: &Record) -> Result<PathBuf> {
        let path = self.path(record);
        check(record).map_err(|problem| Error::io(&path, format!("cannot be written: {problem}")))?;
        let mut json = serde_json::to_string_pretty(record).at(&path)?;
        json.push('\n');
        write_atomically(&path, json.as_bytes())?;
        Ok(path)
    }

    /// Path of the record's file, whether it exists or not.
    pub fn path(&self, record: &Record) -> PathBuf {
        self.records.join(record.file_name())
    }

    /// Removes the record, then the files beside it.
    ///
    /// # Errors
    /// If an existing file cannot be removed.
    pub fn remove(&self, record: &Record) -> Result<()> {
        let beside = [(PREDICTIONS, "safetensors"), (SHEETS, "png")];
        let beside = beside.map(|(kind, extension)| self.beside(record, kind, extension));
        std::iter::once(self.path(record)).chain(beside).try_for_each(|path| remove(&path))
    }

    /// Removes the records with the fingerprint of `record` under other labels, with the files beside them, and returns them.
    ///
    /// # Errors
    /// If the folder or such a record cannot be read, or a file cannot be removed.
    pub fn remove_namesakes(&self, record: &Record) -> Result<Vec<Record>> {
        let Some(digits) = record.fingerprint.get(..DIGITS_IN_NAME) else { return Ok(Vec::new()) };
        let own = record.file_name();
        let mut removed = Vec::new();
        for name in self.names()?.of(digits).filter(|name| **name != own) {
            let other = self.read(name).map_err(|refused| refused.error)?;
            if other.fingerprint == record.fingerprint {
                self.remove(&other)?;
                removed.push(other);
            }
        }
        Ok(removed)
    }

    /// Path of a file beside the record, whether it exists or not: `<kind>/<name of the record>.<extension>`.
    pub fn beside(&self, record: &Record, kind: &str, extension: &str) -> PathBuf {
        let name = record.file_name();
        let stem = name.strip_suffix("json").unwrap_or(&name);
        self.records.with_file_name(kind).join(format!("{stem}{extension}"))
    }

    /// Path of the picture of the record's predicted masks, whether it exists or not.
    pub fn sheet(&self, record: &Record) -> PathBuf {
        self.beside(record, SHEETS, "png")
    }

    /// Writes the predictions of the record, replacing earlier ones.
    ///
    /// # Errors
    /// Like [`predictions::write`].
    pub fn put_predictions(&self, record: &Record, named: &Named) -> Result<()> {
        predictions::write(&self.predictions_path(record), &record.fingerprint, named)
    }

    /// Reads the predictions of the record, if they were kept.
    ///
    /// # Errors
    /// Like [`predictions::read`], or if the stored predictions do not belong to the record.
    pub fn predictions(&self, record: &Record) -> Result<Option<Named>> {
        let path = self.predictions_path(record);
        let found = predictions::read(&path, &record.fingerprint)?;
        if found.as_ref().is_some_and(|named| is_of(record, named)) {
            return Ok(found);
        }
        // A killed process may have written the record but not yet renamed its predictions.
        if let Ok(Some(named)) = predictions::read(&next(&path), &record.fingerprint)
            && is_surely_of(record, &named)
        {
            return Ok(Some(named));
        }
        match found {
            None => Ok(None),
            Some(_) => {
                Err(Error::damaged(path, "not the predictions that the record's value was computed from")
                    .help("run the cell again with `bench --fresh`"))
            }
        }
    }

    /// Path of the record's predictions, whether they exist or not.
    pub fn predictions_path(&self, record: &Record) -> PathBuf {
        self.beside(record, PREDICTIONS, "safetensors")
    }

    /// Path of the checkpoint of an unfinished training of the cell with that fingerprint.
    pub fn snapshot(&self, fingerprint: &str) -> PathBuf {
        self.records.with_file_name("checkpoints").join(format!("{fingerprint}.safetensors"))
    }

    /// Reads all records, sorted by cell.
    ///
    /// # Errors
    /// Like [`Store::get`].
    pub fn all(&self) -> Result<Vec<Record>> {
        let Usable { records, unreadable } = self.usable()?;
        unreadable.into_iter().next().map_or(Ok(records), |first| Err(first.error))
    }

    /// Reads the records that can be used and lists the files that cannot.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn usable(&self) -> Result<Usable> {
        let mut names = self.names()?.all.clone();
        names.sort_unstable();
        let read: Vec<_> = names.par_iter().map(|name| self.read(name)).collect();
        let mut usable = Usable::default();
        for (name, read) in names.iter().zip(read) {
            match read {
                Ok(record) => usable.records.push(record),
                Err(refused) => {
                    let (reason, error) = self.copied(name, refused, &names);
                    usable.unreadable.push(Unreadable { path: self.records.join(name), reason, error });
                }
            }
        }
        usable.records.par_sort_by(|a, b| (&a.cell, &a.fingerprint).cmp(&(&b.cell, &b.fingerprint)));
        Ok(usable)
    }

    /// Distinguishes a copy beside its record from a record that was renamed.
    fn copied(&self, name: &str, refused: Refused, names: &[String]) -> (Reason, Error) {
        let Refused { reason, error, record: Some(record) } = refused else {
            return (refused.reason, refused.error);
        };
        let proper = record.file_name();
        if names.binary_search(&proper).is_err() {
            return (reason, error);
        }
        let path = self.records.join(name);
        let error = match self.read(&proper) {
            Ok(kept) if kept == *record => {
                Error::damaged(path, format!("an identical copy of `{proper}`")).help("delete the copy")
            }
            _ => Error::damaged(path, format!("a differing copy of `{proper}`"))
                .help("keep one of the two under that name and delete the other"),
        };
        (Reason::ConflictCopy, error)
    }

    /// Checks that records can be written by creating a temporary file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn check_writable(&self) -> Result<()> {
        let tried = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(&self.records);
        tried.map(drop).map_err(|problem| {
            Error::io(&self.records, format!("records cannot be written here: {problem}"))
                .help("name another folder with --out")
        })
    }

    /// Names of the files that should contain records, in the folder's order.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn file_names(&self) -> Result<Vec<String>> {
        Ok(self.names()?.all.clone())
    }

    /// Names of the files that should contain records.
    fn names(&self) -> Result<Arc<Names>> {
        self.listing.names(&self.records)
    }

    fn read(&self, name: &str) -> Result<Record, Refused> {
        let path = self.records.join(name);
        let refused = |reason, error| Refused { reason, error, record: None };
        let text = std::fs::read_to_string(&path).map_err(|problem| match problem.kind() {
            ErrorKind::InvalidData => refused(Reason::Damaged, damaged(&path, &problem.to_string())),
            _ => refused(Reason::Refused, Error::io(&path, format!("cannot be read: {problem}"))),
        })?;
        let record = parse(&path, &text).map_err(|(reason, error)| refused(reason, error))?;
        let proper = record.file_name();
        if proper != name {
            let error = Error::damaged(&path, format!("contains the record `{proper}`"))
                .help("rename the file to that name or delete it");
            return Err(Refused { reason: Reason::WrongName, error, record: Some(Box::new(record)) });
        }
        Ok(record)
    }
}

fn damaged(path: &Path, problem: &str) -> Error {
    Error::damaged(path, format!("not a record: {problem}"))
        .help("records are `<results>/<suite>/records/*.json`; if a run left this file there, delete it, and the cell is recomputed")
}

/// Reads one record's file, wherever it lies.
///
/// # Errors
/// If it cannot be read, or is no record.
pub fn read_record(path: &Path) -> Result<Record> {
    let text = std::fs::read_to_string(path).at(path)?;
    parse(path, &text).map_err(|(_, error)| error)
}

/// Parses a record and upgrades it to the current schema.
fn parse(path: &Path, text: &str) -> Result<Record, (Reason, Error)> {
    let broken = |problem: String| (Reason::Damaged, damaged(path, &problem));
    let of_schema = |reason, schema: u64, help: &str| {
        let problem = format!("a record of schema {schema}; this program reads schemas 1 to {SCHEMA}");
        (reason, Error::damaged(path, problem).help(help))
    };
    if let Ok(record) = serde_json::from_str::<Record>(text)
        && record.schema == SCHEMA
    {
        check(&record).map_err(broken)?;
        return Ok(record);
    }
    let mut json: Value = serde_json::from_str(text).map_err(|problem| broken(problem.to_string()))?;
    let schema = json.get("schema").and_then(Value::as_u64);
    if let (Some(1), Some(fields)) = (schema, json.as_object_mut()) {
        migrate::from_1(fields);
    }
    match schema {
        None => return Err(broken("expected a number `schema`, found none".to_owned())),
        Some(0) => {
            let help = "delete the file; the cell is then recomputed";
            return Err(of_schema(Reason::OlderSchema, 0, help));
        }
        Some(newer) if newer > u64::from(SCHEMA) => {
            let help = "use the version of Terrabench that wrote it, or delete the file";
            return Err(of_schema(Reason::NewerSchema, newer, help));
        }
        Some(_) => {}
    }
    let record: Record = if schema == Some(u64::from(SCHEMA)) {
        // Parse the text again: its errors name the line.
        serde_json::from_str(text).map_err(|problem| broken(problem.to_string()))?
    } else {
        serde_json::from_value(json).map_err(|problem| broken(problem.to_string()))?
    };
    check(&record).map_err(broken)?;
    Ok(record)
}

/// A record whose predictions are already written, but which is not written itself.
#[must_use = "`commit` writes the record"]
pub struct Staged<'s> {
    store: &'s Store,
    record: Record,
}

impl Staged<'_> {
    /// Writes the record, then moves the files beside it into place. Returns the record as written and the path of its file.
    ///
    /// # Errors
    /// Like [`Store::put`].
    pub fn commit(self) -> Result<(Record, PathBuf)> {
        let path = self.store.put(&self.record)?;
        self.store.settle(&self.record)?;
        Ok((self.record, path))
    }
}

/// Path at which the successor of a file waits until its record is written.
fn next(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.next"))
}

/// Whether the record was made from these predictions; true if the record does not say.
fn is_of(record: &Record, named: &Named) -> bool {
    let same = |expected: &String| predictions::digest(named).is_ok_and(|found| found == *expected);
    record.predictions.as_ref().is_none_or(same)
}

/// Whether the record states that it was made from these predictions.
fn is_surely_of(record: &Record, named: &Named) -> bool {
    record.predictions.is_some() && is_of(record, named)
}

/// Checks constraints on a record beyond its types.
fn check(record: &Record) -> Result<(), String> {
    if record.schema != SCHEMA {
        return Err(format!("expected schema {SCHEMA}, found {}", record.schema));
    }
    for (field, hash) in [("fingerprint", &record.fingerprint), ("settings", &record.settings)] {
        if hash.len() != FINGERPRINT_DIGITS || !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("{field} `{hash}` is not {FINGERPRINT_DIGITS} hexadecimal digits"));
        }
    }
    let own = record.metric.about().scale;
    let interval = record.interval.iter().flat_map(|i| [i.low, i.high]).map(|x| ("interval", x, own));
    let scores = record.scores.iter();
    let scores = scores.map(|(name, score)| (name.as_str(), *score, Scale::of_score(name, record.metric)));
    if let Some((name, number, scale)) = [("value", record.value, own)]
        .into_iter()
        .chain(interval)
        .chain(scores)
        .find(|(_, number, scale)| !scale.holds(*number))
    {
        return Err(format!("{name} is {number}; expected a {}", scale.range()));
    }
    if let Some(level) = record.interval.map(|i| i.level).filter(|level| !(*level > 0.0 && *level < 1.0)) {
        return Err(format!("the interval's level is {level}; expected a number between 0 and 1"));
    }
    let seconds = record.provenance.wall_seconds;
    if !seconds.is_finite() {
        Err(format!("wall-seconds is {seconds}; expected a finite number"))
    } else {
        Ok(())
    }
}

impl Record {
    /// Name of the record's file: readable, unique by the first 64 bits of the fingerprint, and always a plain file name,
    /// whatever the cell's names are.
    pub fn file_name(&self) -> String {
        file_name(&self.cell, &self.fingerprint)
    }
}

/// Like [`Record::file_name`], of a record that need not exist.
fn file_name(cell: &Cell, fingerprint: &str) -> String {
    let Cell { task, partition, protocol, model, backbone, seed, suite: _ } = cell;
    let digits = fingerprint.get(..DIGITS_IN_NAME).unwrap_or(fingerprint);
    format!(
        "{}.{}.{}.{}.seed{seed}.{}.json",
        part(task),
        part(partition),
        part(protocol),
        part(&format!("{model}-{backbone}")),
        part(digits),
    )
}

/// Restricts `name` to characters that every file system accepts: a to z, digits, `_`, `-`, and `.` inside.
fn part(name: &str) -> String {
    let mut part = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        let c = if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' };
        // A run of other characters becomes one dash.
        if part.len() < LONGEST_PART && !(c == '-' && part.ends_with('-')) {
            part.push(c);
        }
    }
    let part = part.trim_matches(['.', '-']);
    if part.is_empty() { "unnamed".to_owned() } else { part.to_owned() }
}
