//! Reads a dataset a few rows at a time; it need not fit into memory.

use std::path::{Path, PathBuf};

use hdf5_pure::{ChunkCacheConfig, FileAccessProperties};

#[cfg(feature = "libhdf5")]
use super::libhdf5;
use super::moved::{Behind, in_front_of};
use super::number::NumberFormat;
use super::{DAMAGED, Dtype, Element, MAX_ELEMENTS, explain};
use crate::error::AtPath;
use crate::{Error, Result};

/// Size in bytes of the cache of decompressed chunks: neighbouring rows often share one.
const CACHE_BYTES: usize = 64 << 20;
const CACHE_SLOTS: usize = 521;

/// A dataset in the root group of a file, read by rows, which are entries of its first dimension.
#[derive(Debug)]
pub struct Rows {
    path: PathBuf,
    name: String,
    /// `None` if only libhdf5 can open it.
    pub(crate) dataset: Option<hdf5_pure::Dataset>,
    pub(crate) format: NumberFormat,
    /// Length of each dimension, outermost first.
    pub(crate) shape: Vec<usize>,
    /// Elements per row.
    width: usize,
    /// Opened once the pure reader refuses rows.
    #[cfg(feature = "libhdf5")]
    libhdf5: std::sync::OnceLock<Option<libhdf5::Dataset>>,
}

impl Rows {
    /// Opens the dataset `name` of the file at `path`. Rows that are compressed together are decompressed only
    /// once if they fit into the cache. If the pure reader refuses the dataset, libhdf5 reads it if it is built
    /// in.
    ///
    /// # Errors
    /// If the file is absent or damaged, has no such dataset, or the dataset does not hold numbers or has an
    /// implausible row size.
    pub fn open(path: &Path, name: &str) -> Result<Self> {
        let pure = Self::open_pure(path, name);
        #[cfg(feature = "libhdf5")]
        if pure.is_err()
            && let Some(dataset) = libhdf5::File::open(path).ok().and_then(|file| file.dataset(name))
            && let Ok(dtype) = dataset.dtype()
            && let Ok(rows) = Self::new(path, name, None, NumberFormat::plainly(dtype), &dataset.shape())
        {
            return Ok(rows);
        }
        pure
    }

    fn open_pure(path: &Path, name: &str) -> Result<Self> {
        let damaged = |error: Error| error.help(DAMAGED);
        let wrong = |problem: String| damaged(Error::damaged(path, format!("dataset `{name}`: {problem}")));
        let unread = |error| explain::error(path, Some(name), &error);
        let file = stream(path)?;
        let (size, expected) = (file.file_size(), file.superblock().eof_address);
        if size < expected {
            return Err(damaged(Error::damaged(
                path,
                format!("truncated: expected {expected} bytes, found {size}"),
            )));
        }
        let dataset = file.dataset(name).map_err(|error| match file.root().datasets() {
            Ok(known) if !known.iter().any(|known| known == name) => {
                let problem = format!("no dataset `{name}` found; available: {}", known.join(", "));
                damaged(Error::damaged(path, problem))
            }
            _ => unread(error),
        })?;
        let stored = dataset.datatype().map_err(unread)?;
        let format = NumberFormat::of(&stored)
            .ok_or_else(|| wrong(format!("values of type {stored} are not supported")))?;
        let shape = dataset.shape().map_err(unread)?;
        Self::new(path, name, Some(dataset), format, &shape)
    }

    fn new(
        path: &Path,
        name: &str,
        dataset: Option<hdf5_pure::Dataset>,
        format: NumberFormat,
        shape: &[u64],
    ) -> Result<Self> {
        let sides: Option<Vec<usize>> = shape.iter().map(|side| usize::try_from(*side).ok()).collect();
        let width = sides.as_ref().and_then(|sides| {
            let inner = sides.get(1..)?.iter();
            inner.copied().try_fold(1_usize, |n, side| n.checked_mul(side).filter(|n| *n <= MAX_ELEMENTS))
        });
        match (sides, width) {
            (Some(shape), Some(width)) => Ok(Rows {
                path: path.to_owned(),
                name: name.to_owned(),
                dataset,
                format,
                shape,
                width,
                #[cfg(feature = "libhdf5")]
                libhdf5: std::sync::OnceLock::new(),
            }),
            _ => {
                let problem =
                    format!("dataset `{name}`: implausible shape {shape:?} (limit 2^28 elements per row)");
                Err(Error::io(path, problem).help(DAMAGED))
            }
        }
    }

    /// Returns a string attribute of the root group of the file at `path`.
    ///
    /// # Errors
    /// If the file cannot be read or has no such attribute.
    pub fn attribute(path: &Path, name: &str) -> Result<String> {
        let file = hdf5_pure::File::open_streaming(path).at(path)?;
        let attributes = file.root().attrs().at(path)?;
        let text = attributes.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        text.ok_or_else(|| Error::damaged(path, format!("the root group has no string attribute `{name}`")))
    }

    /// Creates an error about this dataset.
    pub fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::damaged(&self.path, format!("dataset `{}`: {problem}", self.name))
    }

    /// Returns the type the numbers are read as.
    pub fn dtype(&self) -> Dtype {
        self.format.dtype
    }

    /// Returns the length of each dimension, outermost first; the first is the number of rows.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Reads `count` rows, starting at row `first`, as plain little-endian numbers.
    ///
    /// # Errors
    /// If some of the rows do not exist or cannot be read.
    pub fn bytes(&self, first: usize, count: usize) -> Result<Vec<u8>> {
        let rows = self.shape.first().copied().unwrap_or(0);
        let expected = count
            .checked_mul(self.width)
            .filter(|elements| *elements <= MAX_ELEMENTS)
            .filter(|_| first.checked_add(count).is_some_and(|end| end <= rows))
            .ok_or_else(|| {
                self.error(format!("rows {first} to {first} + {count} do not exist: it has {rows} rows"))
            })?;
        let pure = match &self.dataset {
            Some(dataset) => dataset.read_raw_rows(first as u64, count as u64),
            None => Err(hdf5_pure::Error::NotADataset(self.name.clone())),
        };
        let bytes = match pure {
            Ok(bytes) if bytes.len() == expected * self.format.size => return Ok(self.format.plain(bytes)),
            Ok(bytes) => {
                Err(self.error(format!("row {first} has an unexpected size of {} bytes", bytes.len())))
            }
            Err(error) => Err(explain::error(&self.path, Some(&self.name), &error)),
        };
        #[cfg(feature = "libhdf5")]
        if let Some(bytes) = self.libhdf5_bytes(first, count)
            && bytes.len() == expected * self.dtype().size()
        {
            return Ok(bytes);
        }
        bytes
    }

    #[cfg(feature = "libhdf5")]
    fn libhdf5_bytes(&self, first: usize, count: usize) -> Option<Vec<u8>> {
        let open = || libhdf5::File::open(&self.path).ok()?.dataset(&self.name);
        let dataset = self.libhdf5.get_or_init(open).as_ref()?;
        (dataset.dtype().ok()? == self.dtype()).then_some(())?;
        dataset.rows(first, count, self.dtype()).ok()
    }

    /// Reads the numbers of one row.
    ///
    /// # Errors
    /// Like [`Rows::bytes`].
    pub fn read<T: Element>(&self, row: usize) -> Result<Vec<T>> {
        let mut numbers = Vec::with_capacity(self.width);
        self.dtype().decode(&self.bytes(row, 1)?, &mut numbers);
        Ok(numbers)
    }
}

/// Opens a file, skipping any user block in front of it.
fn stream(path: &Path) -> Result<hdf5_pure::File> {
    let cached = || {
        let cache = ChunkCacheConfig::from_h5p_cache(CACHE_SLOTS, CACHE_BYTES);
        FileAccessProperties::new().with_chunk_cache(cache)
    };
    let unread = |error| explain::error(path, None, &error);
    let file = hdf5_pure::File::open_streaming_with_options(path, cached()).map_err(unread)?;
    match in_front_of(path, file.superblock()).at(path)? {
        None => Ok(file),
        Some(front) => {
            let behind = Behind::open(path, front).at(path)?;
            hdf5_pure::File::from_source_with_options(behind, cached()).map_err(unread)
        }
    }
}
