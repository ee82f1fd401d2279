//! NumPy's `.npz`: a zip archive of `.npy` files [numpy/numpy, numpy/lib/format.py, versions 1.0 to 3.0 of the format].
//!
//! Pickled arrays (of objects) are never read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::OnceLock;

use zip::CompressionMethod;

use super::{ArrayFile, Number, Place, StoredArray, bytes_of};
use crate::error::AtPath;
use crate::{Error, Result};

/// Largest header: those of arrays without fields have 128 bytes.
const MAX_HEADER: usize = 1 << 16;

/// Arrays of integers with up to so many items are read as texts.
const SMALL: usize = 64;

const AGAIN: &str = "write it again with numpy.savez";

/// Lists the arrays of the archive at `path`, and reads its texts.
///
/// # Errors
/// If the archive is damaged.
pub(super) fn open(path: &Path) -> Result<ArrayFile> {
    let damaged = |problem: String| Error::damaged(path, problem).help(AGAIN);
    let file = File::open(path).at(path)?;
    let size = file.metadata().at(path)?.len();
    let mut zip =
        crate::formats::zip::open(BufReader::new(file)).map_err(|problem| damaged(problem.to_string()))?;
    let (mut arrays, mut texts) = (BTreeMap::new(), BTreeMap::new());
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|problem| damaged(problem.to_string()))?;
        let name = entry.name().map_err(|problem| damaged(problem.to_string()))?.into_owned();
        let Some(array) = name.strip_suffix(".npy").map(str::to_owned) else { continue };
        let broken = |problem: String| damaged(format!("`{array}`: {problem}"));
        let length = entry.size();
        let is_stored = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
        let start = entry
            .data_start()
            .filter(|start| is_stored && start.checked_add(length).is_some_and(|end| end <= size));
        let (header, bytes) = header(&mut entry).map_err(&broken)?;
        let Header { descr, fortran, shape } = header;
        let count = bytes_of(&shape, descr.size.max(1));
        if count.and_then(|count| count.checked_add(bytes)) != Some(length) {
            let problem = format!("expected numbers of shape {shape:?}, found {length} bytes");
            return Err(broken(problem));
        }
        if let Some(read) = descr.texts(&shape) {
            let mut content = Vec::new();
            entry.take(length).read_to_end(&mut content).map_err(|problem| broken(problem.to_string()))?;
            let read = read(&content).map_err(&broken)?;
            texts.insert(array, read);
            continue;
        }
        // Stored numbers are read from the file itself later, past the archive's checksum: it is checked here.
        if start.is_some() {
            io::copy(&mut entry.take(length), &mut io::sink())
                .map_err(|problem| broken(problem.to_string()))?;
        }
        let place = match (fortran && shape.len() > 1, start) {
            (false, Some(start)) => Place::File { start: start + bytes },
            (false, None) => Place::Entry { index, header: bytes, opened: OnceLock::new() },
            (true, Some(start)) => {
                Place::Fortran { index: None, start: start + bytes, turned: OnceLock::new() }
            }
            (true, None) => Place::Fortran { index: Some(index), start: bytes, turned: OnceLock::new() },
        };
        let (path, number, big_endian) = (path.to_owned(), descr.number(), descr.big_endian);
        arrays.insert(array.clone(), StoredArray { name: array, path, shape, number, big_endian, place });
    }
    Ok(ArrayFile { path: path.to_owned(), arrays, texts })
}

/// Unpacks an entry into an unnamed temporary file, and checks its checksum.
pub(super) fn unpack(path: &Path, index: usize) -> Result<File> {
    let damaged = |problem: String| Error::damaged(path, problem).help(AGAIN);
    let file = File::open(path).at(path)?;
    let mut zip =
        crate::formats::zip::open(BufReader::new(file)).map_err(|problem| damaged(problem.to_string()))?;
    let mut entry = zip.by_index(index).map_err(|problem| damaged(problem.to_string()))?;
    let size = entry.size();
    let mut unpacked = tempfile::tempfile().at(std::env::temp_dir())?;
    // One byte more than declared shows an entry that is longer; reading to the end checks its checksum.
    let copied = io::copy(&mut (&mut entry).take(size.saturating_add(1)), &mut unpacked);
    match copied {
        Ok(length) if length == size => {}
        Ok(length) => return Err(damaged(format!("an entry has {length} bytes, it declares {size}"))),
        Err(problem) => return Err(damaged(problem.to_string())),
    }
    unpacked.seek(SeekFrom::Start(0)).at(path)?;
    Ok(unpacked)
}

/// What a `.npy` file says about its array.
struct Header {
    descr: Descr,
    /// Whether the first index is the fastest.
    fortran: bool,
    shape: Vec<usize>,
}

/// A type in NumPy's notation: `<f4`, `|S12`.
struct Descr {
    /// The notation without the byte order.
    plain: String,
    /// Bytes of an item.
    size: usize,
    big_endian: bool,
}

/// Decodes the content of an array as texts.
type ReadTexts = Box<dyn Fn(&[u8]) -> Result<Vec<String>, String>>;

impl Descr {
    fn parse(descr: &str) -> Result<Self, String> {
        let plain = descr.trim_start_matches(['<', '>', '|', '=']);
        let big_endian = descr.starts_with('>');
        let digits = plain.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let digits = digits.split('[').next().unwrap_or_default();
        let items: usize = digits.parse().map_err(|_| format!("unknown type `{descr}`"))?;
        let size = match plain.chars().next() {
            // Characters of 4 bytes.
            Some('U') => items.checked_mul(4).ok_or_else(|| format!("implausible type `{descr}`"))?,
            _ => items,
        };
        Ok(Descr { plain: plain.to_owned(), size, big_endian })
    }

    fn number(&self) -> Number {
        match self.plain.as_str() {
            "f2" => Number::F16,
            "f4" => Number::F32,
            "f8" => Number::F64,
            "b1" => Number::Other("bool".to_owned()),
            // NumPy has no bfloat16; packages that add one store its bytes so.
            "V2" => Number::Other("raw bytes (V2), as a bfloat16 array is stored".to_owned()),
            other => Number::Other(match other.split_at_checked(1) {
                Some(("i", _)) => format!("int{}", 8 * self.size),
                Some(("u", _)) => format!("uint{}", 8 * self.size),
                Some(("c", _)) => format!("complex{}", 8 * self.size),
                _ => format!("`{other}`"),
            }),
        }
    }

    /// Returns how to read an array of this type as texts, if it is one of strings or a small one of integers.
    fn texts(&self, shape: &[usize]) -> Option<ReadTexts> {
        let (size, big_endian) = (self.size, self.big_endian);
        let count: usize = shape.iter().product();
        if shape.len() > 1 {
            return None;
        }
        let items = move |bytes: &[u8]| -> Vec<Vec<u8>> {
            match size {
                // Strings without characters have no bytes.
                0 => vec![Vec::new(); count.min(1 << 24)],
                size => bytes.chunks_exact(size).map(<[u8]>::to_vec).collect(),
            }
        };
        match self.plain.split_at_checked(1)?.0 {
            "U" => Some(Box::new(move |bytes| {
                let letter = |bytes: &[u8; 4]| {
                    let code =
                        if big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) };
                    char::from_u32(code).ok_or_else(|| format!("{code:#x} is no character"))
                };
                let text =
                    |item: Vec<u8>| item.as_chunks::<4>().0.iter().map(letter).collect::<Result<String, _>>();
                let texts = items(bytes).into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
                Ok(texts.into_iter().map(|text| text.trim_end_matches('\0').to_owned()).collect())
            })),
            "S" => Some(Box::new(move |bytes| {
                let text = |item: Vec<u8>| {
                    let text = String::from_utf8(item).map_err(|_| "a string is not UTF-8".to_owned())?;
                    Ok(text.trim_end_matches('\0').to_owned())
                };
                items(bytes).into_iter().map(text).collect()
            })),
            kind @ ("i" | "u") if count <= SMALL && matches!(size, 1 | 2 | 4 | 8) => {
                let signed = kind == "i";
                Some(Box::new(move |bytes| {
                    let number = |mut item: Vec<u8>| {
                        if !big_endian {
                            item.reverse();
                        }
                        let negative = signed && item.first().is_some_and(|byte| *byte >= 0x80);
                        let start = if negative { -1_i128 } else { 0 };
                        item.iter().fold(start, |number, byte| (number << 8) | i128::from(*byte)).to_string()
                    };
                    Ok(items(bytes).into_iter().map(number).collect())
                }))
            }
            _ => None,
        }
    }
}

/// Reads the header of a `.npy` file, and counts its bytes.
fn header(entry: &mut impl Read) -> Result<(Header, u64), String> {
    let cut = |problem: io::Error| format!("the header is incomplete: {problem}");
    let mut start = [0; 8];
    entry.read_exact(&mut start).map_err(cut)?;
    let Some([major, _minor]) = start.strip_prefix(b"\x93NUMPY".as_slice()) else {
        return Err("not a NumPy array".to_owned());
    };
    let (length, field) = match major {
        1 => {
            let mut length = [0; 2];
            entry.read_exact(&mut length).map_err(cut)?;
            (usize::from(u16::from_le_bytes(length)), 2)
        }
        2 | 3 => {
            let mut length = [0; 4];
            entry.read_exact(&mut length).map_err(cut)?;
            (u32::from_le_bytes(length) as usize, 4)
        }
        other => return Err(format!("version {other} of NumPy's format is unknown; 1 to 3 are read")),
    };
    if length > MAX_HEADER {
        return Err(format!("a header of {length} bytes; at most {MAX_HEADER} are read"));
    }
    let mut text = vec![0; length];
    entry.read_exact(&mut text).map_err(cut)?;
    let text = String::from_utf8(text).map_err(|_| "the header is not text".to_owned())?;
    Ok((parse(&text)?, (8 + field + length) as u64))
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse(text: &str) -> Result<Header, String> {
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let lacks = |key: &str| format!("the header has no `{key}`: {}", text.trim_end());
    let descr = value("descr").ok_or_else(|| lacks("descr"))?;
    let Some(descr) = descr.strip_prefix('\'').and_then(|rest| rest.split('\'').next()) else {
        return Err("an array of records; expected one of numbers or strings".to_owned());
    };
    if descr.trim_start_matches('|').starts_with('O') {
        return Err("an array of Python objects, which is pickled and never read; \
                    make it one of strings: numpy.array(names, dtype=str)"
            .to_owned());
    }
    let fortran = match value("fortran_order") {
        Some(rest) if rest.starts_with("True") => true,
        Some(rest) if rest.starts_with("False") => false,
        _ => return Err(lacks("fortran_order")),
    };
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let shape = shape.ok_or_else(|| lacks("shape"))?.0;
    let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
    let side =
        |side: &str| side.trim_end_matches('L').parse().map_err(|_| format!("implausible shape ({shape})"));
    Ok(Header { descr: Descr::parse(descr)?, fortran, shape: sides.map(side).collect::<Result<_, _>>()? })
}
