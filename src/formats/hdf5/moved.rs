//! Files with a user block in front (`h5jam`) that their own addresses do not account for. They are read from
//! where the actual file starts, as HDF5's own library does.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use hdf5_pure::{FormatError, Source, Superblock};

use super::chunked::read_at;

const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";

/// Finds the file's signature at offset 0, 512, 1024, 2048, …; `None` if it is at none of them.
fn signature(mut begins: impl FnMut(u64) -> Option<bool>) -> Option<u64> {
    let places = std::iter::once(0).chain((9..63).map(|power| 1 << power));
    places
        .map_while(|place| begins(place).map(|here| (place, here)))
        .find(|(_, here)| *here)
        .map(|(place, _)| place)
}

/// Returns how many bytes precede the file without being counted in its addresses; `None` if there are none or
/// the file is invalid, in which case the library explains what is wrong.
pub fn in_front(bytes: &[u8], superblock: &Superblock) -> Option<usize> {
    if bytes.starts_with(SIGNATURE) {
        return None;
    }
    let at = |place: u64| {
        let rest = bytes.get(usize::try_from(place).ok()?..)?;
        Some(rest.starts_with(SIGNATURE))
    };
    let front = signature(at)?.checked_sub(superblock.base_address.get())?;
    usize::try_from(front).ok().filter(|front| *front > 0)
}

/// Like [`in_front`], for a file that is not in memory.
pub fn in_front_of(path: &Path, superblock: &Superblock) -> std::io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    let mut first = [0; 8];
    file.read_exact(&mut first)?;
    if &first == SIGNATURE {
        return Ok(None);
    }
    let at = |place: u64| {
        let mut found = [0; 8];
        read_at(&file, &mut found, place).ok().map(|()| &found == SIGNATURE)
    };
    let front = signature(at).and_then(|place| place.checked_sub(superblock.base_address.get()));
    Ok(front.filter(|front| *front > 0))
}

/// A file without its user block.
#[derive(Debug)]
pub struct Behind {
    file: File,
    front: u64,
    length: u64,
}

impl Behind {
    /// Opens the file at `path`, starting at byte `front`.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, front: u64) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len().saturating_sub(front);
        Ok(Behind { file, front, length })
    }
}

impl Source for Behind {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FormatError> {
        let length = buffer.len() as u64;
        let start = offset.checked_add(self.front).ok_or(FormatError::OffsetOverflow { offset, length })?;
        read_at(&self.file, buffer, start).map_err(|error| FormatError::Source(error.to_string()))
    }
}
