//! A one-dimensional chunked dataset: its chunks are located once through the library and then read without it.
//!
//! The library searches its list of chunks on each read, so reading a sample takes longer the more samples a
//! split has. Its LZF decoder is also slower than ours (`benches/NOTES.md`).

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::filters::{Buffers, Filters};
use super::rows::Rows;
use super::{DAMAGED, Dtype, MAX_ELEMENTS};
use crate::error::AtPath;
use crate::{Error, Result};

/// A one-dimensional dataset that may be shuffled, compressed with LZF and checksummed with Fletcher-32.
#[derive(Debug)]
pub struct Chunked {
    path: PathBuf,
    name: String,
    dtype: Dtype,
    /// Number of elements.
    length: usize,
    /// Elements per chunk.
    chunk: usize,
    filters: Filters,
    file: File,
    places: Vec<ChunkPlace>,
}

/// Where a chunk is stored in the file.
#[derive(Debug)]
struct ChunkPlace {
    start: u64,
    /// Size in bytes, as stored.
    size: usize,
    /// Bit mask of the filters that were not applied.
    skipped: u32,
}

impl Chunked {
    /// Opens the dataset `name` of the file at `path`.
    ///
    /// # Errors
    /// If the file is absent or damaged, or the dataset is absent, not one-dimensional or stored in another
    /// way.
    pub fn open(path: &Path, name: &str) -> Result<Self> {
        let Rows { dataset, format, shape, .. } = Rows::open(path, name)?;
        let wrong =
            |problem: String| Error::damaged(path, format!("dataset `{name}`: {problem}")).help(DAMAGED);
        let Some(dataset) = dataset.filter(|_| format.is_plain()) else {
            return Err(wrong(format!(
                "{} values are not stored as plain little-endian numbers",
                format.dtype
            )));
        };
        let dtype = format.dtype;
        let library = |error: hdf5_pure::Error| wrong(error.to_string());
        let filters = dataset.filters();
        let filters = Filters::numbered(&filters).ok_or_else(|| {
            wrong(format!("expected the filters 2 (shuffle), 32000 (LZF), 3 (Fletcher-32), got {filters:?}"))
        })?;
        let chunk = dataset.chunk_shape().map_err(library)?;
        let (&[length], Some(&[chunk])) = (&shape[..], chunk.as_deref()) else {
            return Err(wrong(format!("expected one dimension, got shape {shape:?} in chunks of {chunk:?}")));
        };
        let chunk = usize::try_from(chunk).ok().filter(|chunk| (1..=MAX_ELEMENTS).contains(chunk));
        let chunk = chunk.ok_or_else(|| wrong("implausible chunk size (limit 2^28 elements)".to_owned()))?;

        let file = File::open(path).at(path)?;
        let end = file.metadata().at(path)?.len();
        let mut chunks = dataset.chunks().map_err(library)?;
        chunks.sort_by(|a, b| a.offset.cmp(&b.offset));
        let mut places = Vec::with_capacity(chunks.len());
        for (number, found) in chunks.iter().take(length.div_ceil(chunk)).enumerate() {
            let inside = found.address.checked_add(found.storage_size).is_some_and(|last| last <= end);
            let size = usize::try_from(found.storage_size).ok().filter(|_| inside);
            match size {
                Some(size) if found.offset == [(number * chunk) as u64] => {
                    places.push(ChunkPlace { start: found.address, size, skipped: found.filter_mask });
                }
                _ => {
                    return Err(wrong(format!(
                        "chunk {number} is missing or extends past the end of the file"
                    )));
                }
            }
        }
        if places.len() != length.div_ceil(chunk) {
            return Err(wrong(format!(
                "{} chunks of {chunk} elements do not hold {length} elements",
                places.len()
            )));
        }
        Ok(Chunked {
            path: path.to_owned(),
            name: name.to_owned(),
            dtype,
            length,
            chunk,
            filters,
            file,
            places,
        })
    }

    /// Creates an error about this dataset.
    pub fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::damaged(&self.path, format!("dataset `{}`: {problem}", self.name))
    }

    /// Returns the stored type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Returns the number of elements.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Passes the bytes of `count` elements, starting at element `first`, to `take` as plain little-endian
    /// numbers. Decompresses every chunk they touch.
    ///
    /// # Errors
    /// If some of the elements do not exist or are damaged.
    pub fn read<T>(&self, first: usize, count: usize, take: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let end = first.checked_add(count).filter(|end| *end <= self.length && count <= MAX_ELEMENTS);
        let end = end.ok_or_else(|| {
            self.error(format!("elements {first} to {first} + {count} do not exist: it has {}", self.length))
        })?;
        if count == self.chunk && first.is_multiple_of(self.chunk) {
            return self.whole(first / self.chunk, take);
        }
        let mut bytes = Vec::new();
        for number in first / self.chunk..end.div_ceil(self.chunk) {
            let (start, size) = (number * self.chunk, self.dtype.size());
            let taken = first.saturating_sub(start)..(end - start).min(self.chunk);
            let chunk_bytes =
                |chunk: &[u8]| bytes.extend_from_slice(&chunk[size * taken.start..size * taken.end]);
            self.whole(number, chunk_bytes)?;
        }
        Ok(take(&bytes))
    }

    /// Passes the decompressed bytes of a chunk to `take`.
    fn whole<T>(&self, number: usize, take: impl FnOnce(&[u8]) -> T) -> Result<T> {
        thread_local! {
            static KEPT: Cell<Buffers> = Cell::default();
        }
        let (place, width) = (&self.places[number], self.dtype.size());
        // Taken out rather than borrowed, because `take` may read another chunk.
        let mut chunk = KEPT.take();
        chunk.bytes.resize(place.size, 0);
        read_at(&self.file, &mut chunk.bytes, place.start).at(&self.path)?;
        (self.filters.undo(&mut chunk, place.skipped, width, self.chunk * width))
            .map_err(|problem| self.error(format!("chunk {number} is damaged: {problem}")).help(DAMAGED))?;
        let taken = take(&chunk.bytes);
        KEPT.set(chunk);
        Ok(taken)
    }
}

/// Fills `bytes` from offset `start`. Threads share the file, so its own position is not used.
#[cfg(unix)]
pub fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(windows)]
pub fn read_at(file: &File, mut bytes: &mut [u8], mut start: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, start)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => (bytes, start) = (&mut bytes[read..], start + read as u64),
        }
    }
    Ok(())
}
