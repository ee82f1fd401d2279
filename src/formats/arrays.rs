//! Arrays of numbers from other programs: safetensors, NumPy's `.npz` and Parquet, read row by row.
//!
//! | format | arrays | texts |
//! |---|---|---|
//! | safetensors | its tensors | the metadata: a JSON list, or one text |
//! | `.npz` | its numeric arrays, in either order and byte order, packed or not | arrays of strings, and small arrays of integers |
//! | Parquet | `features`: a list column, or one column per dimension | the column `samples` or `sample` |

mod npz;
mod parquet;
mod safetensors;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use half::{bf16, f16};

use crate::error::AtPath;
use crate::{Error, Result};

/// File name extensions of the formats.
pub const EXTENSIONS: [&str; 3] = ["safetensors", "npz", "parquet"];

/// The name of Parquet's array, and of its list of texts.
pub const PARQUET_NAMES: [&str; 2] = ["features", "samples"];

/// The arrays and texts in a file.
#[derive(Debug)]
pub struct ArrayFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Arrays by name.
    pub arrays: BTreeMap<String, StoredArray>,
    /// Lists of texts by name.
    pub texts: BTreeMap<String, Vec<String>>,
}

impl ArrayFile {
    /// Opens the file at `path`, whose extension names its format. Reads headers and texts; of Parquet everything.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or has another extension.
    pub fn open(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => safetensors::open(path),
            Some("npz") => npz::open(path),
            Some("parquet") => parquet::open(path),
            _ => Err(Error::unsupported(path, format!("expected a file of {}", EXTENSIONS.join(", ")))),
        }
    }
}

/// The type of an array's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Number {
    /// IEEE half precision.
    F16,
    /// The upper half of a float32.
    Bf16,
    /// Single precision.
    F32,
    /// Double precision; rounded to float32 when read.
    F64,
    /// Anything else, by its name; it cannot be read.
    Other(String),
}

impl Number {
    /// Returns the bytes of a number; `None` if it cannot be read.
    fn size(&self) -> Option<usize> {
        match self {
            Number::F16 | Number::Bf16 => Some(2),
            Number::F32 => Some(4),
            Number::F64 => Some(8),
            Number::Other(_) => None,
        }
    }

    /// Decodes numbers. Beyond the range of float32 they become infinite.
    fn decode(&self, bytes: &[u8], big_endian: bool) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], big_endian: bool, number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            let turned = |mut bytes: [u8; N]| {
                if big_endian {
                    bytes.reverse();
                }
                number(bytes)
            };
            bytes.as_chunks::<N>().0.iter().copied().map(turned).collect()
        }
        match self {
            Number::F16 => each(bytes, big_endian, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Number::Bf16 => each(bytes, big_endian, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Number::F32 => each(bytes, big_endian, f32::from_le_bytes),
            Number::F64 => each(bytes, big_endian, |bytes| f64::from_le_bytes(bytes) as f32),
            Number::Other(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Number::F16 => "float16",
            Number::Bf16 => "bfloat16",
            Number::F32 => "float32",
            Number::F64 => "float64",
            Number::Other(name) => name,
        })
    }
}

/// An array in a file: n rows, each of shape `shape[1..]`.
#[derive(Debug)]
pub struct StoredArray {
    /// Its name in the file.
    name: String,
    path: PathBuf,
    shape: Vec<usize>,
    number: Number,
    big_endian: bool,
    place: Place,
}

/// Where the numbers of an array are.
#[derive(Debug)]
enum Place {
    /// In the file from this byte on, the last index fastest.
    File { start: u64 },
    /// An entry of a zip archive, with a header of so many bytes. Unpacked when first read.
    Entry { index: usize, header: u64, opened: OnceLock<Unpacked> },
    /// The same, the first index fastest. Turned when first read.
    Fortran { index: Option<usize>, start: u64, turned: OnceLock<Vec<f32>> },
    /// In memory, as float32.
    Memory(Vec<f32>),
}

/// The bytes of an unpacked entry, in an unnamed temporary file.
#[derive(Debug)]
struct Unpacked(Mutex<File>);

impl StoredArray {
    /// Returns the shape, with the number of rows first; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the type of the numbers.
    pub fn number(&self) -> &Number {
        &self.number
    }

    /// Returns how many numbers a row has.
    pub fn width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Checks that the numbers can be read.
    ///
    /// # Errors
    /// If they are of another type than a floating-point one.
    pub fn check_type(&self) -> Result<()> {
        match &self.number {
            Number::Other(name) => Err(Error::unsupported(
                &self.path,
                format!("`{}`: expected float16, bfloat16, float32 or float64, found {name}", self.name),
            )
            .help("convert the array to float32 before saving")),
            _ => Ok(()),
        }
    }

    /// Reads these rows, one after the other, as float32.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged, a row does not exist, or the numbers have another type.
    pub fn rows(&self, rows: &[usize]) -> Result<Vec<f32>> {
        self.check_type()?;
        let n = self.shape.first().copied().unwrap_or(0);
        if let Some(beyond) = rows.iter().find(|row| **row >= n) {
            return Err(self.damaged(format!("no row {beyond}; it has {n} rows")));
        }
        let width = self.width();
        let from_memory = |numbers: &[f32]| {
            let row = |row: &usize| numbers.get(row * width..(row + 1) * width).unwrap_or_default();
            rows.iter().flat_map(row).copied().collect()
        };
        match &self.place {
            Place::Memory(numbers) => Ok(from_memory(numbers)),
            Place::File { start } => {
                let mut file = File::open(&self.path).at(&self.path)?;
                self.read_rows(&mut file, *start, rows)
            }
            Place::Entry { index, header, opened } => {
                let unpacked = match opened.get() {
                    Some(unpacked) => unpacked,
                    None => {
                        let fresh = npz::unpack(&self.path, *index)?;
                        opened.get_or_init(|| Unpacked(Mutex::new(fresh)))
                    }
                };
                let mut file = unpacked.0.lock().unwrap_or_else(PoisonError::into_inner);
                self.read_rows(&mut file, *header, rows)
            }
            Place::Fortran { index, start, turned } => {
                let numbers = match turned.get() {
                    Some(numbers) => numbers,
                    None => {
                        let fresh = self.turned(*index, *start)?;
                        turned.get_or_init(|| fresh)
                    }
                };
                Ok(from_memory(numbers))
            }
        }
    }

    fn damaged(&self, problem: String) -> Error {
        Error::damaged(&self.path, format!("`{}`: {problem}", self.name))
            .help("the file is incomplete or was changed while it was read: write it again")
    }

    /// Reads rows from a file that holds the array from byte `start` on.
    fn read_rows(&self, file: &mut File, start: u64, rows: &[usize]) -> Result<Vec<f32>> {
        let width = self.width();
        let size = self.number.size().unwrap_or(0);
        let mut bytes = vec![0; width * size];
        let mut numbers = Vec::with_capacity(rows.len() * width);
        for row in rows {
            let place = start + (row * bytes.len()) as u64;
            read_at(file, place, &mut bytes).map_err(|problem| self.damaged(problem.to_string()))?;
            numbers.extend(self.number.decode(&bytes, self.big_endian));
        }
        Ok(numbers)
    }

    /// Reads an array whose first index is the fastest, and turns it so that its last one is.
    fn turned(&self, index: Option<usize>, start: u64) -> Result<Vec<f32>> {
        let count: usize = self.shape.iter().product();
        let mut bytes = vec![0; count * self.number.size().unwrap_or(0)];
        let mut file = match index {
            Some(index) => npz::unpack(&self.path, index)?,
            None => File::open(&self.path).at(&self.path)?,
        };
        read_at(&mut file, start, &mut bytes).map_err(|problem| self.damaged(problem.to_string()))?;
        let numbers = self.number.decode(&bytes, self.big_endian);
        let stored = ndarray::ArrayView::from_shape(
            ndarray::ShapeBuilder::f(ndarray::IxDyn(&self.shape)),
            numbers.as_slice(),
        );
        let stored = stored.map_err(|problem| self.damaged(problem.to_string()))?;
        Ok(stored.iter().copied().collect())
    }
}

fn read_at(file: &mut File, start: u64, bytes: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(bytes)
}

/// Returns the bytes of an array; `None` if they are more than any file has.
fn bytes_of(shape: &[usize], size: usize) -> Option<u64> {
    let count = shape.iter().try_fold(1_usize, |count, n| count.checked_mul(*n))?;
    count.checked_mul(size).map(|bytes| bytes as u64)
}
