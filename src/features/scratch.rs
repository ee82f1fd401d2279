//! Arrays larger than memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

use crate::error::AtPath;
use crate::{Error, Result, home};

/// Rows of float32 numbers: up to a limit in memory, the rest in an unnamed temporary file that disappears with the process,
/// even if it is killed. The system's page cache keeps the file in memory as far as it fits.
#[derive(Debug)]
pub struct Scratch {
    /// Numbers per row.
    width: usize,
    /// The first rows, at most `room` of them.
    memory: Vec<Box<[f32]>>,
    room: usize,
    /// The remaining rows; `None` until memory is full.
    file: Option<Mutex<File>>,
    filed: usize,
}

impl Scratch {
    /// Creates an empty array whose rows all go to disk.
    pub fn new(width: usize) -> Self {
        Self::with_memory(width, 0)
    }

    /// Creates an empty array that keeps up to `bytes` bytes in memory.
    pub fn with_memory(width: usize, bytes: u64) -> Self {
        let row = (4 * width).max(1) as u64;
        let room = usize::try_from(bytes / row).unwrap_or(usize::MAX);
        Scratch { width, memory: Vec::new(), room, file: None, filed: 0 }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.memory.len() + self.filed
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of float32 numbers per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the bytes in memory and on disk.
    pub fn bytes(&self) -> (u64, u64) {
        let row = 4 * self.width as u64;
        (row * self.memory.len() as u64, row * self.filed as u64)
    }

    /// Appends a row. The file lies in the cache folder, or among the temporary files if there is none.
    ///
    /// # Errors
    /// If the row has the wrong length, the file cannot be created, or the disk is full; earlier rows stay.
    pub fn push(&mut self, row: &[f32]) -> Result<()> {
        if row.len() != self.width {
            return Err(Error::mismatch(format!(
                "expected a row of {} numbers, got {}",
                self.width,
                row.len()
            )));
        }
        if self.memory.len() < self.room {
            self.memory.push(row.into());
            return Ok(());
        }
        let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(Mutex::new(nameless()?)),
        };
        let file = file.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Not at the end of the file: a failed write may have left part of a row there.
        let start = (self.filed * bytes.len()) as u64;
        let written = file.seek(SeekFrom::Start(start)).and_then(|_| file.write_all(&bytes));
        written.map_err(|problem| {
            Error::mismatch(format!("cannot write features to disk: {problem}"))
                .help("set TERRABENCH_CACHE to a folder with more free space")
        })?;
        self.filed += 1;
        Ok(())
    }

    /// Reads the rows at these indices, one after the other.
    ///
    /// # Errors
    /// If a row does not exist, or the file cannot be read.
    pub fn read(&self, rows: &[usize]) -> Result<Vec<f32>> {
        let mut numbers = Vec::with_capacity(rows.len() * self.width);
        for row in rows {
            match self.memory.get(*row) {
                Some(row) => numbers.extend_from_slice(row),
                None => self.read_filed(*row, &mut numbers)?,
            }
        }
        Ok(numbers)
    }

    fn read_filed(&self, row: usize, numbers: &mut Vec<f32>) -> Result<()> {
        let place = row.checked_sub(self.memory.len()).filter(|place| *place < self.filed);
        let Some((place, file)) = place.zip(self.file.as_ref()) else {
            return Err(Error::mismatch(format!("no row {row}; the array has {} rows", self.len())));
        };
        let mut bytes = vec![0; 4 * self.width];
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (place * bytes.len()) as u64;
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|problem| Error::mismatch(format!("cannot read features from disk: {problem}")))?;
        numbers.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        Ok(())
    }
}

fn nameless() -> Result<File> {
    match home::cache_folder() {
        Ok(folder) => {
            let folder = folder.join("scratch");
            std::fs::create_dir_all(&folder).at(&folder)?;
            tempfile::tempfile_in(&folder).at(&folder)
        }
        Err(_) => tempfile::tempfile().at(std::env::temp_dir()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_in_memory_and_on_disk() {
        // Room for two rows.
        let mut scratch = Scratch::with_memory(3, 35);
        for row in 0..5 {
            scratch.push(&[row as f32, 0.5, -1.0]).unwrap();
        }
        assert_eq!((scratch.len(), scratch.bytes()), (5, (24, 36)));
        assert_eq!(
            scratch.read(&[4, 0, 2, 1]).unwrap(),
            [4.0, 0.5, -1.0, 0.0, 0.5, -1.0, 2.0, 0.5, -1.0, 1.0, 0.5, -1.0]
        );
        scratch.read(&[5]).unwrap_err();
        scratch.push(&[0.0]).unwrap_err();
    }
}
