//! Records what was fetched into a folder, so that nothing is fetched twice, and locks the folder against
//! concurrent fetches.
//!
//! Both files are in `<folder>/.terrabench/`: `lock`, and `fetched.jsonl` with one line per file of the hub. A
//! line is written once the file is complete under its final name (for an archive, once everything in it is),
//! so a missing or damaged line only costs another check.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::AtPath;

const FOLDER: &str = ".terrabench";
const LINES: &str = "fetched.jsonl";

/// A file of the hub that has been fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Path in the folder.
    pub to: String,
    /// Size in bytes.
    pub size: u64,
    /// The hash that was verified: `sha256:…`.
    pub checksum: String,
    /// Repository it came from, `owner/name`.
    pub repository: String,
    /// Commit of the repository.
    pub commit: String,
    /// What the archive contained. The archive itself may have been removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<Unpacked>,
}

/// The contents of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Folder it was unpacked to, relative to the data folder.
    pub folder: String,
    /// Paths in that folder, and sizes in bytes.
    pub files: Vec<(String, u64)>,
}

impl Line {
    /// Whether all of it is still in `folder`, judged by names and sizes.
    pub fn complete(&self, folder: &Path) -> bool {
        self.spoilt(folder).next().is_none()
    }

    /// Iterates over those of its files that are missing in `folder` or have a different size.
    pub fn spoilt(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        let (folder, files) = match &self.unpacked {
            None => (folder.to_owned(), vec![(&self.to, self.size)]),
            Some(unpacked) => {
                let files = unpacked.files.iter().map(|(path, size)| (path, *size));
                (folder.join(&unpacked.folder), files.collect())
            }
        };
        let has =
            |path: &Path, size: u64| path.metadata().is_ok_and(|file| file.is_file() && file.len() == size);
        let paths = files.into_iter().map(move |(path, size)| (folder.join(path), size));
        paths.filter(move |(path, size)| !has(path, *size)).map(|(path, _)| path)
    }
}

/// Reads all lines of `folder` by path; empty if nothing was fetched.
///
/// # Errors
/// If the ledger exists but cannot be read.
pub fn read(folder: &Path) -> Result<BTreeMap<String, Line>> {
    let path = folder.join(FOLDER).join(LINES);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).at(path),
    };
    // A later line about the same file replaces an earlier one.
    let lines =
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
    Ok(lines.map(|line| (line.to.clone(), line)).collect())
}

/// The ledger of a folder, to which only this process may write.
pub struct Ledger {
    lines: BTreeMap<String, Line>,
    file: File,
    path: PathBuf,
    /// The lock is released when the file is closed, at the latest when the process ends.
    _lock: File,
}

impl Ledger {
    /// Locks `folder`, creating it if needed; waits while another process fetches into it.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn open(folder: &Path, note: &dyn Fn(&str)) -> Result<Self> {
        let own = folder.join(FOLDER);
        std::fs::create_dir_all(&own).at(&own)?;
        let lock = own.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock).at(&lock)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                note(&format!("another fetch is writing to {}; waiting for it to finish", folder.display()));
                file.lock().at(&lock)?;
            }
            // Some cluster file systems have no locks; a single fetch works without.
            Err(TryLockError::Error(error)) => {
                note(&format!(
                    "{}: cannot lock ({error}); do not start a second fetch into this folder",
                    lock.display()
                ));
            }
        }
        let path = own.join(LINES);
        let mut lines = OpenOptions::new().create(true).append(true).open(&path).at(&path)?;
        if !std::fs::read(&path).at(&path)?.ends_with(b"\n") {
            lines.write_all(b"\n").at(&path)?;
        }
        Ok(Ledger { lines: read(folder)?, file: lines, path, _lock: file })
    }

    /// Looks up the line about the file at `to`.
    pub fn get(&self, to: &str) -> Option<&Line> {
        self.lines.get(to)
    }

    /// Returns all lines by path.
    pub fn lines(&self) -> &BTreeMap<String, Line> {
        &self.lines
    }

    /// Appends a line.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub fn add(&mut self, line: Line) -> Result<()> {
        let mut text = serde_json::to_string(&line).at(&self.path)?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).at(&self.path)?;
        self.lines.insert(line.to.clone(), line);
        Ok(())
    }
}

/// Creates an empty temporary folder beside the ledger, removed when it goes out of scope.
///
/// # Errors
/// If it cannot be created.
pub fn workplace(folder: &Path) -> Result<tempfile::TempDir> {
    let own = folder.join(FOLDER);
    std::fs::create_dir_all(&own).at(&own)?;
    tempfile::Builder::new().prefix("unpacking-").tempdir_in(&own).at(own)
}

/// Removes temporary folders that a killed process left. Call it only while the folder is locked.
pub fn tidy(folder: &Path) {
    let entries = std::fs::read_dir(folder.join(FOLDER)).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("unpacking-")) {
        // A folder that cannot be removed only takes space.
        std::fs::remove_dir_all(entry.path()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(to: &str, size: u64) -> Line {
        let text = || "x".to_owned();
        Line { to: to.into(), size, checksum: text(), repository: text(), commit: text(), unpacked: None }
    }

    #[test]
    fn damaged_lines_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let add = |line| Ledger::open(folder.path(), &|_| ()).unwrap().add(line).unwrap();
        add(line("a", 1));
        let path = folder.path().join(FOLDER).join(LINES);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"to\":\"b\",\"size\":");
        std::fs::write(&path, text).unwrap();
        add(line("c", 3));
        let lines = read(folder.path()).unwrap();
        assert_eq!(lines.keys().collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn completeness_is_judged_by_names_and_sizes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("d/a"), "12").unwrap();
        let mut archive = line("z.zip", 9);
        archive.unpacked = Some(Unpacked { folder: "d".into(), files: vec![("a".into(), 2)] });
        assert!(archive.complete(folder.path()));
        std::fs::write(folder.path().join("d/a"), "1").unwrap();
        assert!(!archive.complete(folder.path()));
        assert!(!line("z.zip", 9).complete(folder.path()));
    }
}
