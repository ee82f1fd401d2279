//! Tortillas: containers of many files with an index, as GEO-Bench-2 is released in [tacofoundation, pytortilla 0.5.1].
//!
//! ```text
//! 0..200    header: `#y` or `WX`, footer's offset, footer's length, number of parts (u64, little-endian), zeros
//! 200..     the files, one after another
//! footer    a Parquet table with a row per file: id, format, split, offset, length, and the data set's own columns
//! ```
//!
//! A file of the format `TORTILLA` is a container itself; its offsets count from its own header. Nothing here is
//! trusted: offsets and lengths must lie inside the container, and tables are of limited size.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::parquet::{Table, Values};
use crate::error::AtPath;
use crate::{Error, Result};

/// Bytes before the first file.
pub(crate) const HEADER: u64 = 200;

/// The first bytes of a tortilla, and of a container of the successor's first version, which has the same layout.
const MAGIC: [&[u8]; 2] = [b"#y", b"WX"];

/// Largest index in bytes. That of 28,000 samples has about 3 MB.
const MAX_FOOTER: u64 = 1 << 28;

/// Largest number of files in a container.
const MAX_ROWS: usize = 1 << 20;

/// What the columns of an index may have in bytes when unpacked, by what it says.
const MAX_COLUMNS: u64 = 1 << 32;

/// Largest file in a container in bytes, which is read into memory at once.
const MAX_FILE: u64 = 1 << 30;

/// The format of a file that is a container itself.
const NESTED: &str = "TORTILLA";

const DAMAGED: &str = "the file is damaged or belongs to another data set: fetch it again";

/// Columns of an index: names, formats, splits, first bytes and numbers of bytes of the files.
pub(crate) const ID: &str = "tortilla:id";
pub(crate) const FORMAT: &str = "tortilla:file_format";
pub(crate) const SPLIT: &str = "tortilla:data_split";
pub(crate) const OFFSET: &str = "tortilla:offset";
pub(crate) const LENGTH: &str = "tortilla:length";

/// The index of a container.
#[derive(Debug, Clone)]
pub struct Tortilla {
    /// Its files, in stored order.
    pub entries: Vec<Entry>,
    /// The requested columns that the index has, by name.
    pub columns: BTreeMap<String, Values>,
}

/// A file in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, such as `sample_12`.
    pub id: String,
    /// `TORTILLA`, or a name of GDAL's such as `GTiff` or `HDF5`.
    pub format: String,
    /// `train`, `validation` or `test`, if the index says it.
    pub split: Option<String>,
    /// First byte, counted from the beginning of the outermost file.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

impl Tortilla {
    /// Reads the index of the file at `path`, with those of the `wanted` columns that it has.
    ///
    /// # Errors
    /// If the file is no container or damaged.
    pub fn open(path: &Path, wanted: &[&str]) -> Result<Self> {
        let mut file = File::open(path).at(path)?;
        let length = file.metadata().at(path)?.len();
        Self::read(path, &mut file, 0, length, wanted)
    }

    /// Reads the index of a container inside the file at `path`.
    ///
    /// # Errors
    /// Like [`Tortilla::open`], or if `entry` is another kind of file.
    pub fn nested(path: &Path, entry: &Entry, wanted: &[&str]) -> Result<Self> {
        if entry.format != NESTED {
            let problem = format!("`{}` is {}; expected {NESTED}", entry.id, entry.format);
            return Err(Error::damaged(path, problem).help(DAMAGED));
        }
        let mut file = File::open(path).at(path)?;
        let inside = |error: Error| {
            Error::damaged(path, format!("in `{}`: {}", entry.id, error.problem())).help(DAMAGED)
        };
        Self::read(path, &mut file, entry.offset, entry.length, wanted).map_err(inside)
    }

    /// Reads the index of the container that begins at `start` and has `length` bytes.
    fn read(path: &Path, file: &mut File, start: u64, length: u64, wanted: &[&str]) -> Result<Self> {
        let damaged = |problem: String| Error::damaged(path, problem).help(DAMAGED);
        if length < HEADER {
            return Err(damaged(format!("expected a header of {HEADER} bytes, found {length} bytes")));
        }
        let header = bytes_at(path, file, start, HEADER)?;
        if !MAGIC.iter().any(|magic| header.starts_with(magic)) {
            let first = header.get(..2).unwrap_or_default();
            return Err(damaged(format!("expected a tortilla, which begins with `#y`, found {first:?}")));
        }
        let number = |at: usize| {
            let bytes = header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(u64::MAX, u64::from_le_bytes)
        };
        let (footer, footer_length) = (number(2), number(10));
        let inside = footer.checked_add(footer_length).is_some_and(|end| footer >= HEADER && end <= length);
        if !inside || footer_length > MAX_FOOTER {
            return Err(damaged(format!(
                "expected an index within {length} bytes (limit 2^28 bytes), found {footer_length} bytes at {footer}"
            )));
        }
        let table = bytes_at(path, file, start + footer, footer_length)?;
        // A damaged table must not end the program, whatever the library does with it.
        let parsed = catch_unwind(AssertUnwindSafe(|| parse(table, wanted)));
        let parsed = parsed.unwrap_or_else(|_| Err("the Parquet reader failed on it".to_owned()));
        let mut tortilla = parsed.map_err(|problem| damaged(format!("index: {problem}")))?;
        for entry in &mut tortilla.entries {
            let end = entry.offset.checked_add(entry.length);
            if entry.offset < HEADER || end.is_none_or(|end| end > footer) {
                return Err(damaged(format!(
                    "index: `{}` has {} bytes at {}; expected them between {HEADER} and {footer}",
                    entry.id, entry.length, entry.offset
                )));
            }
            entry.offset += start;
        }
        Ok(tortilla)
    }
}

impl Entry {
    /// Reads the file from the outermost file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or has more than 2^30 bytes.
    pub fn bytes(&self, path: &Path) -> Result<Vec<u8>> {
        if self.length > MAX_FILE {
            let problem = format!("`{}` has {} bytes (limit 2^30)", self.id, self.length);
            return Err(Error::damaged(path, problem).help(DAMAGED));
        }
        let mut file = File::open(path).at(path)?;
        bytes_at(path, &mut file, self.offset, self.length)
    }

    /// Adds the file's bytes to `hasher`, piece by piece.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn hash_into(&self, path: &Path, hasher: &mut blake3::Hasher) -> Result<()> {
        let mut file = File::open(path).at(path)?;
        file.seek(SeekFrom::Start(self.offset)).at(path)?;
        let before = hasher.count();
        hasher.update_reader(file.take(self.length)).at(path)?;
        match hasher.count() - before == self.length {
            true => Ok(()),
            false => Err(Error::damaged(path, format!("ends within `{}`", self.id)).help(DAMAGED)),
        }
    }

    /// Returns the path that messages name for this file.
    pub fn path_in(&self, path: &Path) -> PathBuf {
        path.join(&self.id)
    }
}

/// Reads `length` bytes. The caller has checked that the file has them, but it may have been cut since.
fn bytes_at(path: &Path, file: &mut File, offset: u64, length: u64) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset)).at(path)?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).at(path)?;
    if bytes.len() as u64 != length {
        let problem = format!("expected {length} bytes at {offset}, found {}", bytes.len());
        return Err(Error::damaged(path, problem).help(DAMAGED));
    }
    Ok(bytes)
}

fn parse(table: Vec<u8>, wanted: &[&str]) -> Result<Tortilla, String> {
    let table = Table::open(Bytes::from(table))?;
    let rows = table.rows;
    if rows > MAX_ROWS {
        return Err(format!("expected at most 2^20 files, found {rows}"));
    }
    let unpacked = table.unpacked_bytes();
    if unpacked > MAX_COLUMNS {
        return Err(format!("implausible size: {unpacked} bytes of columns (limit 2^32)"));
    }
    let read = |name: &str| match table.column(name) {
        Some(column) => table.values(column).map(Some).map_err(|why| format!("column `{name}`: {why}")),
        None => Ok(None),
    };
    let needed = |name: &str| read(name)?.ok_or_else(|| format!("no column `{name}` found"));
    let texts = |name: &str, values: Values| match values {
        Values::Texts(texts) => Ok(texts),
        Values::Nothing => Ok(vec![None; rows]),
        _ => Err(format!("column `{name}`: expected texts")),
    };
    let integers = |name: &str| match needed(name)? {
        Values::Integers(numbers) => Ok(numbers),
        _ => Err(format!("column `{name}`: expected integers")),
    };
    let (ids, formats) = (texts(ID, needed(ID)?)?, texts(FORMAT, needed(FORMAT)?)?);
    let splits = texts(SPLIT, read(SPLIT)?.unwrap_or(Values::Nothing))?;
    let (offsets, lengths) = (integers(OFFSET)?, integers(LENGTH)?);
    let mut entries = Vec::with_capacity(rows);
    for (row, ((id, format), ((offset, length), split))) in
        ids.into_iter().zip(formats).zip(offsets.into_iter().zip(lengths).zip(splits)).enumerate()
    {
        let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        match (id, format, number(offset), number(length)) {
            (Some(id), Some(format), Some(offset), Some(length)) => {
                entries.push(Entry { id, format, split, offset, length });
            }
            _ => return Err(format!("row {row} has no id, format, offset or length")),
        }
    }
    let mut columns = BTreeMap::new();
    for name in wanted {
        if let Some(values) = read(name)? {
            columns.insert((*name).to_owned(), values);
        }
    }
    Ok(Tortilla { entries, columns })
}

#[cfg(test)]
mod tests {
    use polars::prelude::{DataFrame, IntoColumn, NamedFrom, Series};

    use super::super::parquet;
    use super::*;

    /// An index of these ids, formats, offsets and lengths.
    fn index(rows: &[(&str, &str, i64, i64)]) -> Vec<u8> {
        let texts = |name: &str, of: fn(&(&str, &str, i64, i64)) -> String| {
            Series::new(name.into(), rows.iter().map(of).collect::<Vec<_>>()).into_column()
        };
        let numbers = |name: &str, of: fn(&(&str, &str, i64, i64)) -> i64| {
            Series::new(name.into(), rows.iter().map(of).collect::<Vec<_>>()).into_column()
        };
        let columns = vec![
            texts(ID, |row| row.0.to_owned()),
            texts(FORMAT, |row| row.1.to_owned()),
            numbers(OFFSET, |row| row.2),
            numbers(LENGTH, |row| row.3),
            texts("labels", |row| row.0.to_uppercase()),
        ];
        parquet::write(&DataFrame::new(rows.len(), columns).unwrap()).unwrap()
    }

    fn container(files: &[u8], index: &[u8]) -> Vec<u8> {
        let mut bytes = b"#y".to_vec();
        bytes.extend((HEADER + files.len() as u64).to_le_bytes());
        bytes.extend((index.len() as u64).to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.resize(HEADER as usize, 0);
        [bytes.as_slice(), files, index].concat()
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn problem(bytes: &[u8]) -> String {
        Tortilla::open(file(bytes).path(), &[]).unwrap_err().to_string()
    }

    #[test]
    fn files_of_both_levels_are_found() {
        let inner = container(b"pixels", &index(&[("image", "GTiff", 200, 6)]));
        let files = [b"first".as_slice(), &inner].concat();
        let rows = [("a", "GTiff", 200, 5), ("b", NESTED, 205, inner.len() as i64)];
        let file = file(&container(&files, &index(&rows)));
        let outer = Tortilla::open(file.path(), &["labels", "absent"]).unwrap();
        assert_eq!(outer.columns.keys().collect::<Vec<_>>(), ["labels"]);
        assert_eq!(outer.columns["labels"].text(1), Some("B"));
        assert_eq!(outer.entries[0].bytes(file.path()).unwrap(), b"first");
        let nested = Tortilla::nested(file.path(), &outer.entries[1], &[]).unwrap();
        assert_eq!(nested.entries[0].bytes(file.path()).unwrap(), b"pixels");
        let error = Tortilla::nested(file.path(), &outer.entries[0], &[]).unwrap_err().to_string();
        assert!(error.contains("`a` is GTiff; expected TORTILLA"), "{error}");
    }

    #[test]
    fn an_index_outside_the_file_is_damage() {
        let good = container(b"pixels", &index(&[("image", "GTiff", 200, 6)]));
        assert!(problem(b"").contains("expected a header of 200 bytes"));
        assert!(problem(&good[..150]).contains("expected a header of 200 bytes"));
        assert!(problem(&good[..good.len() - 1]).contains("expected an index within"));
        let mut other = good.clone();
        other[..2].copy_from_slice(b"PK");
        assert!(problem(&other).contains("begins with `#y`"));
        for at in [2, 10] {
            let mut far = good.clone();
            far[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            assert!(problem(&far).contains("expected an index within"), "{at}");
        }
    }

    #[test]
    fn files_outside_the_data_are_damage() {
        for (offset, length) in [(200, 7), (199, 1), (i64::MAX, i64::MAX), (-1, 2), (200, -1)] {
            let text = problem(&container(b"pixels", &index(&[("image", "GTiff", offset, length)])));
            assert!(text.contains("expected them between") || text.contains("row 0 has no id"), "{text}");
        }
    }

    #[test]
    fn no_flipped_byte_ends_the_program() {
        let good = container(b"pixels", &index(&[("image", "GTiff", 200, 6)]));
        for (at, flip) in (0..good.len()).flat_map(|at| [0x01, 0x55, 0x80, 0xff].map(|flip| (at, flip))) {
            let mut spoilt = good.clone();
            spoilt[at] ^= flip;
            let file = file(&spoilt);
            // Whatever it says, it returns, and what it returns can be read.
            if let Ok(tortilla) = Tortilla::open(file.path(), &["labels"]) {
                for entry in tortilla.entries {
                    assert!(entry.bytes(file.path()).is_ok(), "{at}");
                }
            }
        }
    }
}
