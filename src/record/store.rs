//! The store: one JSON file a record, written to a temporary name and renamed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use super::predictions::{self, Named};
use super::{Cell, FINGERPRINT_DIGITS, Reason, Record, SCHEMA, Unreadable, migrate};
use crate::error::AtPath;
use crate::files::{remove, write_atomically};
use crate::metrics::Scale;
use crate::{Error, Result};

/// Digits of the fingerprint in a file's name.
const DIGITS_IN_NAME: usize = 16;

/// The folder of predictions.
const PREDICTIONS: &str = "predictions";

/// The folder of pictures of predicted masks.
const SHEETS: &str = "sheets";

/// The longest part of a file's name, in bytes: seven parts stay below the 255 of file systems.
const LONGEST_PART: usize = 48;

/// A folder of records. Copying files between such folders merges them.
///
/// A file there either holds a whole record or is no record: hidden files (a write that was cut short
/// leaves one) and names that do not end in `.json` are ignored. A damaged record is an error that names
/// the file, when resuming too, since only a foreign hand or a failing disk can make one; to whom all
/// records matter, [`Store::usable`] gives the others. Records of older schemas are brought to the present one.
#[derive(Debug, Clone)]
pub struct Store {
    records: PathBuf,
}

/// What a store holds.
#[derive(Debug, Clone, Default)]
pub struct Usable {
    /// Sorted by cell.
    pub records: Vec<Record>,
    /// Files that cannot be used, sorted by name.
    pub unreadable: Vec<Unreadable>,
}

/// Why a file is no record, and the record where it is one under another name.
struct Refused {
    reason: Reason,
    error: Error,
    record: Option<Box<Record>>,
}

impl Store {
    /// The records under `<folder>/records/`, which is made if need be.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let records = folder.as_ref().join("records");
        std::fs::create_dir_all(&records).at(&records)?;
        Ok(Store { records })
    }

    /// The records under `<folder>/records/`, if that is there.
    pub fn existing(folder: impl AsRef<Path>) -> Option<Self> {
        let records = folder.as_ref().join("records");
        records.is_dir().then_some(Store { records })
    }

    /// The record of that fingerprint, if the cell is done.
    ///
    /// # Errors
    /// Where the folder or the record's file cannot be read, or the record is damaged.
    pub fn get(&self, fingerprint: &str) -> Result<Option<Record>> {
        let Some(digits) = fingerprint.get(..DIGITS_IN_NAME) else { return Ok(None) };
        let end = format!(".{digits}.json");
        for name in self.names()?.iter().filter(|name| name.ends_with(&end)) {
            let record = self.read(name).map_err(|refused| refused.error)?;
            if record.fingerprint == fingerprint {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The record of that fingerprint under the labels of `cell`: one that was made under other labels (the model's or
    /// the protocol's file has another name by now) is copied, with what lies beside it.
    ///
    /// # Errors
    /// As [`Store::get`], or where a copy cannot be written.
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

    /// The finished cells of a request ([`Record::request`]), the one that was finished last first. Files that cannot be
    /// used are passed over.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn of_request(&self, request: &str) -> Result<Vec<Record>> {
        let mut records: Vec<Record> =
            self.usable()?.records.into_iter().filter(|record| record.request == request).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.provenance.finished));
        Ok(records)
    }

    /// Writes what lies beside a record, which [`Staged::commit`] then puts: predictions and, of masks, a picture.
    /// Until then an earlier record of the same name keeps its own.
    ///
    /// ```text
    /// predictions/.<name>.next   beside an earlier record; of a new one at once under its name
    /// sheets/.<name>.next
    /// records/<name>             the moment from which the new ones count
    /// ```
    ///
    /// # Errors
    /// As [`Store::put`] and [`predictions::write`].
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

    /// Ends what a process that was killed had begun: what it wrote for the record takes its place, what it wrote for a
    /// record that it never put goes.
    ///
    /// # Errors
    /// Where a file cannot be moved or removed.
    pub fn settle(&self, record: &Record) -> Result<()> {
        let (path, sheet) = (self.predictions_path(record), self.sheet(record));
        if !next(&path).is_file() {
            return Ok(());
        }
        let counts = predictions::read(&next(&path), &record.fingerprint)
            .is_ok_and(|named| named.is_some_and(|named| is_surely_of(record, &named)));
        // The predictions last: they tell that something is left to do.
        for path in [sheet, path] {
            match counts && next(&path).is_file() {
                true => std::fs::rename(next(&path), &path).at(&path)?,
                false => remove(&next(&path))?,
            }
        }
        Ok(())
    }

    /// Writes the record, in place of an earlier one of the same fingerprint, and returns its file.
    ///
    /// # Errors
    /// Where the record is not one that could be read back (a number is not finite, the fingerprint is
    /// not one) or the file cannot be written.
    pub fn put(&self, record: &Record) -> Result<PathBuf> {
        let path = self.path(record);
        check(record).map_err(|problem| Error::io(&path, format!("cannot be written: {problem}")))?;
        let mut json = serde_json::to_string_pretty(record).at(&path)?;
        json.push('\n');
        write_atomically(&path, json.as_bytes())?;
        Ok(path)
    }

    /// Where the record is, or would be.
    pub fn path(&self, record: &Record) -> PathBuf {
        self.records.join(record.file_name())
    }

    /// Removes the record, then what lies beside it.
    ///
    /// # Errors
    /// Where a file is there and cannot be removed.
    pub fn remove(&self, record: &Record) -> Result<()> {
        let beside = [(PREDICTIONS, "safetensors"), (SHEETS, "png")];
        let beside = beside.map(|(kind, extension)| self.beside(record, kind, extension));
        std::iter::once(self.path(record)).chain(beside).try_for_each(|path| remove(&path))
    }

    /// Where a file beside the record is, or would be: `<kind>/<name of the record>.<extension>`.
    pub fn beside(&self, record: &Record, kind: &str, extension: &str) -> PathBuf {
        let name = record.file_name();
        let stem = name.strip_suffix("json").unwrap_or(&name);
        self.records.with_file_name(kind).join(format!("{stem}{extension}"))
    }

    /// Where the picture of the record's predicted masks is, or would be.
    pub fn sheet(&self, record: &Record) -> PathBuf {
        self.beside(record, SHEETS, "png")
    }

    /// Writes the predictions behind the record, in place of earlier ones.
    ///
    /// # Errors
    /// As [`predictions::write`].
    pub fn put_predictions(&self, record: &Record, named: &Named) -> Result<()> {
        predictions::write(&self.predictions_path(record), &record.fingerprint, named)
    }

    /// The predictions behind the record, where they were kept.
    ///
    /// # Errors
    /// As [`predictions::read`], or where those that are there are not the record's.
    pub fn predictions(&self, record: &Record) -> Result<Option<Named>> {
        let path = self.predictions_path(record);
        let found = predictions::read(&path, &record.fingerprint)?;
        if found.as_ref().is_some_and(|named| is_of(record, named)) {
            return Ok(found);
        }
        // A process that was killed may have put the record and not yet these.
        if let Ok(Some(named)) = predictions::read(&next(&path), &record.fingerprint)
            && is_surely_of(record, &named)
        {
            return Ok(Some(named));
        }
        match found {
            None => Ok(None),
            Some(_) => Err(Error::damaged(path, "not the predictions that the record's value was made of")
                .help("run the cell again with `bench --fresh`")),
        }
    }

    /// Where the predictions behind the record are, or would be.
    pub fn predictions_path(&self, record: &Record) -> PathBuf {
        self.beside(record, PREDICTIONS, "safetensors")
    }

    /// Where an unfinished training of the cell with that fingerprint is kept.
    pub fn snapshot(&self, fingerprint: &str) -> PathBuf {
        self.records.with_file_name("checkpoints").join(format!("{fingerprint}.safetensors"))
    }

    /// All records, sorted by cell.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn all(&self) -> Result<Vec<Record>> {
        let Usable { records, unreadable } = self.usable()?;
        unreadable.into_iter().next().map_or(Ok(records), |first| Err(first.error))
    }

    /// The records that can be used, and the files that cannot.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn usable(&self) -> Result<Usable> {
        let mut names = self.names()?;
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

    /// Tells a copy beside its record from a record that was renamed.
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
                Error::damaged(path, format!("a copy of `{proper}`, equal to it")).help("delete the copy")
            }
            _ => Error::damaged(path, format!("a copy of `{proper}` that differs from it"))
                .help("keep one of the two under that name, and delete the other"),
        };
        (Reason::ConflictCopy, error)
    }

    /// Tries whether a record could be written, by a temporary file.
    ///
    /// # Errors
    /// Where it could not.
    pub fn check_writable(&self) -> Result<()> {
        let tried = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(&self.records);
        tried.map(drop).map_err(|problem| {
            Error::io(&self.records, format!("no record can be written here: {problem}"))
                .help("name another folder with --out")
        })
    }

    /// The names of the files that should hold records.
    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.records).at(&self.records)? {
            let name = entry.at(&self.records)?.file_name();
            // A name that is not UTF-8 is none of ours.
            if let Some(name) = name.to_str()
                && name.ends_with(".json")
                && !name.starts_with('.')
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
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
            let error = Error::damaged(&path, format!("holds the record `{proper}`"))
                .help("give the file that name, or delete it");
            return Err(Refused { reason: Reason::WrongName, error, record: Some(Box::new(record)) });
        }
        Ok(record)
    }
}

fn damaged(path: &Path, problem: &str) -> Error {
    Error::damaged(path, format!("not a record: {problem}"))
        .help("delete the file, and the cell is computed again")
}

/// The record in a file's text, brought to the present schema.
fn parse(path: &Path, text: &str) -> Result<Record, (Reason, Error)> {
    let broken = |problem: String| (Reason::Damaged, damaged(path, &problem));
    let of_schema = |reason, schema: u64, help: &str| {
        let problem = format!("a record of schema {schema}; this program reads 1 to {SCHEMA}");
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
        None => return Err(broken("it has no number `schema`".to_owned())),
        Some(0) => {
            let help = "delete the file, and the cell is computed again";
            return Err(of_schema(Reason::OlderSchema, 0, help));
        }
        Some(newer) if newer > u64::from(SCHEMA) => {
            let help = "use the version of Terrabench that wrote it, or delete the file";
            return Err(of_schema(Reason::NewerSchema, newer, help));
        }
        Some(_) => {}
    }
    let record: Record = if schema == Some(u64::from(SCHEMA)) {
        // From the text, whose errors name the line.
        serde_json::from_str(text).map_err(|problem| broken(problem.to_string()))?
    } else {
        serde_json::from_value(json).map_err(|problem| broken(problem.to_string()))?
    };
    check(&record).map_err(broken)?;
    Ok(record)
}

/// A record whose predictions are written and which is not put yet.
#[must_use = "the record is put by `commit`"]
pub struct Staged<'s> {
    store: &'s Store,
    record: Record,
}

impl Staged<'_> {
    /// Puts the record, then gives what was written for it its name. Returns the record as it was put, and its file.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn commit(self) -> Result<(Record, PathBuf)> {
        let path = self.store.put(&self.record)?;
        self.store.settle(&self.record)?;
        Ok((self.record, path))
    }
}

/// Where the successor of a file waits until it counts.
fn next(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.next"))
}

/// Whether the record was made of these predictions; of records that do not say so, of any.
fn is_of(record: &Record, named: &Named) -> bool {
    let same = |expected: &String| predictions::digest(named).is_ok_and(|found| found == *expected);
    record.predictions.as_ref().is_none_or(same)
}

/// Whether the record says that it was made of these predictions.
fn is_surely_of(record: &Record, named: &Named) -> bool {
    record.predictions.is_some() && is_of(record, named)
}

/// What a record must keep to, beyond its types.
fn check(record: &Record) -> Result<(), String> {
    if record.schema != SCHEMA {
        return Err(format!("schema {} instead of {SCHEMA}", record.schema));
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
        return Err(format!("{name} is {number}, which is no {}", scale.range()));
    }
    if let Some(level) = record.interval.map(|i| i.level).filter(|level| !(*level > 0.0 && *level < 1.0)) {
        return Err(format!("the interval's level is {level}, which is not between 0 and 1"));
    }
    let seconds = record.provenance.wall_seconds;
    if !seconds.is_finite() { Err(format!("wall-seconds is {seconds}")) } else { Ok(()) }
}

impl Record {
    /// The name of the record's file: readable, unique by the first 64 bits of the fingerprint, and
    /// never more than a name, whatever the cell's names are.
    pub fn file_name(&self) -> String {
        let Cell { task, partition, protocol, model, backbone, seed, suite: _ } = &self.cell;
        let digits = self.fingerprint.get(..DIGITS_IN_NAME).unwrap_or(&self.fingerprint);
        format!(
            "{}.{}.{}.{}.seed{seed}.{}.json",
            part(task),
            part(partition),
            part(protocol),
            part(&format!("{model}-{backbone}")),
            part(digits),
        )
    }
}

/// `name` in letters that every file system takes: a to z, digits, `_`, `-`, and `.` within.
fn part(name: &str) -> String {
    let mut part = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        let c = if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' };
        // One dash for a run of foreign letters.
        if part.len() < LONGEST_PART && !(c == '-' && part.ends_with('-')) {
            part.push(c);
        }
    }
    let part = part.trim_matches(['.', '-']);
    if part.is_empty() { "unnamed".to_owned() } else { part.to_owned() }
}
