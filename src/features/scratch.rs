//! Arrays that need not fit into memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

use crate::error::AtPath;
use crate::{Error, Result, home};

/// Rows of float32 numbers in a file without a name, which goes with the process however that ends. What fits into
/// memory stays there: in the system's page cache.
#[derive(Debug)]
pub struct Scratch {
    file: Mutex<File>,
    /// Numbers a row.
    width: usize,
    rows: usize,
}

impl Scratch {
    /// No rows yet. The file lies beside the feature cache, else among the temporary files.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(width: usize) -> Result<Self> {
        let file = match home::cache_folder() {
            Ok(folder) => {
                let folder = folder.join("scratch");
                std::fs::create_dir_all(&folder).at(&folder)?;
                tempfile::tempfile_in(&folder).at(&folder)?
            }
            Err(_) => tempfile::tempfile().at(std::env::temp_dir())?,
        };
        Ok(Scratch { file: Mutex::new(file), width, rows: 0 })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Numbers a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Appends a row.
    ///
    /// # Errors
    /// Where it has another length than the others, or the disk is full.
    pub fn push(&mut self, row: &[f32]) -> Result<()> {
        if row.len() != self.width {
            return Err(Error::request(format!("a row of {} numbers, expected {}", row.len(), self.width)));
        }
        let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let written = file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&bytes));
        written.map_err(|problem| {
            Error::request(format!("features cannot be kept on disk: {problem}"))
                .help("set TERRABENCH_CACHE to a folder with more room")
        })?;
        self.rows += 1;
        Ok(())
    }

    /// The rows at these places, one after the other.
    ///
    /// # Errors
    /// Where a row is not there, or the file cannot be read.
    pub fn read(&self, rows: &[usize]) -> Result<Vec<f32>> {
        let mut numbers = Vec::with_capacity(rows.len() * self.width);
        let mut bytes = vec![0; 4 * self.width];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if *row >= self.rows {
                return Err(Error::request(format!("features of sample {row} of {}", self.rows)));
            }
            let start = (row * bytes.len()) as u64;
            let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
            read.map_err(|problem| Error::request(format!("features on disk cannot be read: {problem}")))?;
            numbers.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        Ok(numbers)
    }
}
