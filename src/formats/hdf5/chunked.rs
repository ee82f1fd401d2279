//! The chunks of a one-dimensional dataset, looked up once through the library and then read past it.
//!
//! The library goes through the list of chunks at each read, so that a split of many samples takes longer a sample, and its
//! LZF is slower than ours (`benches/NOTES.md`).

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::filters::{Buffers, Filters};
use super::rows::Rows;
use super::{DAMAGED, Dtype, MAX_ELEMENTS};
use crate::error::AtPath;
use crate::{Error, Result};

/// A dataset of one dimension, shuffled, compressed with LZF and checked with Fletcher-32, or less.
#[derive(Debug)]
pub struct Chunked {
    path: PathBuf,
    name: String,
    dtype: Dtype,
    /// Elements.
    length: usize,
    /// Elements of a chunk.
    chunk: usize,
    filters: Filters,
    file: File,
    places: Vec<Place>,
}

/// Where a chunk lies in the file.
#[derive(Debug)]
struct Place {
    start: u64,
    /// In bytes, as stored.
    size: usize,
    /// A bit for each filter that was not applied.
    skipped: u32,
}

impl Chunked {
    /// Opens the dataset `name` of the file at `path`.
    ///
    /// # Errors
    /// Where the file is absent or damaged, or the dataset is not there, of more dimensions or stored in another way.
    pub fn open(path: &Path, name: &str) -> Result<Self> {
        let Rows { dataset, format, shape, .. } = Rows::open(path, name)?;
        let wrong =
            |problem: String| Error::damaged(path, format!("dataset `{name}`: {problem}")).help(DAMAGED);
        let Some(dataset) = dataset.filter(|_| format.is_plain()) else {
            return Err(wrong(format!("its {} are not stored plainly", format.dtype)));
        };
        let dtype = format.dtype;
        let library = |error: hdf5_pure::Error| wrong(error.to_string());
        let filters = dataset.filters();
        let filters = Filters::numbered(&filters).ok_or_else(|| {
            wrong(format!("has the filters {filters:?}; expected 2 (shuffle), 32000 (LZF), 3 (Fletcher-32)"))
        })?;
        let chunk = dataset.chunk_shape().map_err(library)?;
        let (&[length], Some(&[chunk])) = (&shape[..], chunk.as_deref()) else {
            return Err(wrong(format!("has shape {shape:?} in chunks of {chunk:?}; expected one dimension")));
        };
        let chunk = usize::try_from(chunk).ok().filter(|chunk| (1..=MAX_ELEMENTS).contains(chunk));
        let chunk = chunk.ok_or_else(|| wrong("has chunks too large to be true".to_owned()))?;

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
                    places.push(Place { start: found.address, size, skipped: found.filter_mask });
                }
                _ => return Err(wrong(format!("chunk {number} is missing or beyond the file's end"))),
            }
        }
        if places.len() != length.div_ceil(chunk) {
            return Err(wrong(format!("has {} chunks of {chunk} for {length} elements", places.len())));
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

    /// Something is wrong with this dataset.
    pub fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::damaged(&self.path, format!("dataset `{}`: {problem}", self.name))
    }

    /// What the file stores.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Elements.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Hands the bytes of `count` elements from element `first` on to `take`: plain numbers, little-endian. Each chunk that
    /// they touch is decompressed.
    ///
    /// # Errors
    /// Where they are not all there, or damaged.
    pub fn read<T>(&self, first: usize, count: usize, take: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let end = first.checked_add(count).filter(|end| *end <= self.length && count <= MAX_ELEMENTS);
        let end = end.ok_or_else(|| {
            self.error(format!("has {} elements, not {count} from element {first} on", self.length))
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

    /// Hands the plain bytes of a chunk to `take`.
    fn whole<T>(&self, number: usize, take: impl FnOnce(&[u8]) -> T) -> Result<T> {
        thread_local! {
            static KEPT: Cell<Buffers> = Cell::default();
        }
        let (place, width) = (&self.places[number], self.dtype.size());
        // Taken out, not borrowed: `take` may read another chunk.
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

/// Fills `bytes` with what lies from `start` on. Threads share the file: its own position plays no part.
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
