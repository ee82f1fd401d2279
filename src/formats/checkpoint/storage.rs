//! Where tensors' numbers are stored, and how they are read.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zip::{CompressionMethod, ZipArchive, ZipReadOptions};

/// A run of bytes that tensors are views of.
pub enum Storage {
    /// A part of a file, known to lie within it.
    File {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte.
        start: u64,
        /// Number of bytes.
        length: u64,
    },
    /// An entry of a zip archive.
    Entry {
        /// The archive.
        archive: Arc<Archive>,
        /// Index of the entry.
        index: usize,
    },
    /// Bytes in memory.
    Memory(Vec<u8>),
}

impl Storage {
    /// Reads the bytes `from..to`, of which `needed` are used.
    fn read(&self, from: u64, to: u64, needed: u64) -> io::Result<Vec<u8>> {
        match self {
            Storage::File { path, start, length } => {
                reaches(to, *length)?;
                read_file(path, start + from, to - from)
            }
            Storage::Entry { archive, index } => archive.range(*index, from, to, needed),
            Storage::Memory(bytes) => {
                reaches(to, bytes.len() as u64)?;
                Ok(bytes[from as usize..to as usize].to_vec())
            }
        }
    }
}

/// A view of a storage.
pub struct Numbers {
    /// The viewed storage.
    pub storage: Arc<Storage>,
    /// Position of the first number, counted in numbers.
    pub offset: usize,
    /// Distance between neighbours along each dimension, counted in numbers; `None` if the numbers are
    /// contiguous.
    pub strides: Option<Vec<usize>>,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
    /// Whether the sign must be flipped: PyTorch stores such a view lazily and negates it on reading.
    pub negative: bool,
}

impl Numbers {
    /// Views a whole storage, contiguous and little-endian.
    pub fn all(storage: Arc<Storage>) -> Self {
        Numbers { storage, offset: 0, strides: None, big_endian: false, negative: false }
    }

    /// Returns numbers of `size` bytes each as little-endian bytes, in row-major order.
    pub fn read(&self, shape: &[usize], size: usize) -> io::Result<Vec<u8>> {
        let overflow = || {
            invalid(format!("implausible shape {shape:?}: its extent overflows or contradicts its strides"))
        };
        let count = shape.iter().try_fold(1_usize, |count, n| count.checked_mul(*n)).ok_or_else(overflow)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let strides = match &self.strides {
            Some(strides) if strides.len() != shape.len() => return Err(overflow()),
            Some(strides) if !follow(shape, strides) => Some(strides),
            _ => None,
        };
        let last = match strides {
            None => Some(count - 1),
            Some(strides) => shape.iter().zip(strides).try_fold(0_usize, |last, (n, stride)| {
                (n - 1).checked_mul(*stride).and_then(|steps| last.checked_add(steps))
            }),
        };
        let bytes = |numbers: Option<usize>| {
            numbers
                .and_then(|numbers| numbers.checked_mul(size))
                .map(|bytes| bytes as u64)
                .ok_or_else(overflow)
        };
        let from = bytes(Some(self.offset))?;
        let end = last.and_then(|last| last.checked_add(1)).and_then(|end| end.checked_add(self.offset));
        let mut read = self.storage.read(from, bytes(end)?, bytes(Some(count))?)?;
        if self.big_endian {
            read.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(match strides {
            None => read,
            Some(strides) => gather(&read, shape, strides, size, count),
        })
    }
}

/// Whether numbers with these strides are contiguous in row-major order.
fn follow(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(n, stride)| {
        let follows = *n == 1 || *stride == expected;
        expected *= n;
        follows
    })
}

fn gather(bytes: &[u8], shape: &[usize], strides: &[usize], size: usize, count: usize) -> Vec<u8> {
    let mut gathered = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    let mut place = 0;
    for _ in 0..count {
        gathered.extend_from_slice(&bytes[place * size..(place + 1) * size]);
        // Next index: increment the last dimension that has not reached its end, and reset those after it.
        for dimension in (0..shape.len()).rev() {
            index[dimension] += 1;
            place += strides[dimension];
            if index[dimension] < shape[dimension] {
                break;
            }
            place -= index[dimension] * strides[dimension];
            index[dimension] = 0;
        }
    }
    gathered
}

/// A zip archive that is read entry by entry.
pub struct Archive {
    path: PathBuf,
    /// Size of the whole file, in bytes.
    size: u64,
    zip: Mutex<ZipArchive<BufReader<File>>>,
}

impl Archive {
    /// Opens the archive at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let zip = Mutex::new(crate::formats::zip::open(BufReader::new(file))?);
        Ok(Archive { path: path.to_owned(), size, zip })
    }

    fn zip(&self) -> MutexGuard<'_, ZipArchive<BufReader<File>>> {
        self.zip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the names of all entries.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let zip = self.zip();
        let names: Result<Vec<String>, _> =
            zip.file_names().map(|name| name.map(|name| name.into_owned())).collect();
        Ok(names?)
    }

    /// Returns the index of the entry with this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.zip().index_for_name(name)
    }

    /// Reads the whole entry with this name, which may have at most `limit` bytes.
    pub fn entry(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let index = self.index(name).ok_or_else(|| invalid(format!("the archive has no entry {name}")))?;
        let size = self.zip().by_index_raw(index)?.size();
        if size > limit {
            return Err(invalid(format!("entry {name} has {size} bytes, more than the limit of {limit}")));
        }
        self.range(index, 0, size, size)
    }

    /// Reads the bytes `from..to` of an entry, of which `needed` are used. PyTorch does not compress its
    /// entries, so part of one can be read on its own.
    fn range(&self, index: usize, from: u64, to: u64, needed: u64) -> io::Result<Vec<u8>> {
        let mut zip = self.zip();
        let (stored, packed, size, start, crc) = {
            let entry = zip.by_index_raw(index)?;
            let stored = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
            (stored, entry.compressed_size(), entry.size(), entry.data_start(), entry.crc32())
        };
        reaches(to, size)?;
        let length = to - from;
        if stored {
            let end = start.and_then(|start| start.checked_add(size)).filter(|end| *end <= self.size);
            let (Some(start), Some(_), true) = (start, end, packed == size) else {
                return Err(invalid("an entry extends past the end of the file".to_owned()));
            };
            if length < size {
                return read_file(&self.path, start + from, length);
            }
        } else if length / 64 > needed.saturating_add(1 << 14) {
            // A few compressed bytes can stand for any number of uncompressed ones.
            return Err(invalid(format!(
                "{needed} bytes are spread over {length} bytes of a compressed entry"
            )));
        }
        // `torch.save` writes 0 if it was told not to compute a checksum.
        let options = ZipReadOptions::new().ignore_crc32(crc == 0);
        let mut entry = zip.by_index_with_options(index, options)?;
        io::copy(&mut (&mut entry).take(from), &mut io::sink())?;
        let mut bytes = Vec::with_capacity(if stored { length as usize } else { 0 });
        (&mut entry).take(length).read_to_end(&mut bytes)?;
        if to == size {
            // The checksum is only verified once the end of the entry is reached.
            if entry.read(&mut [0])? > 0 {
                return Err(invalid(format!("an entry has more than the {size} bytes it declares")));
            }
        }
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(invalid(format!("an entry ends after {} of {length} bytes", bytes.len())))
        }
    }
}

fn read_file(path: &Path, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| invalid(format!("{length} bytes")))?];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn reaches(to: u64, length: u64) -> io::Result<()> {
    if to > length {
        return Err(invalid(format!("needs {to} bytes of a storage of {length} bytes")));
    }
    Ok(())
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
