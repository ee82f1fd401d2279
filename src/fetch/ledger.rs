//! What was fetched into a folder, so that nothing is fetched twice, and the lock that keeps two fetches
//! into one folder apart.
//!
//! Both lie in `<folder>/.terrabench/`: `lock`, and `fetched.jsonl` with one line a file of the hub. A line
//! is written when the file is whole under its final name (an archive: when all it holds is), so a line
//! that is missing or damaged only costs another check.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::AtPath;

const FOLDER: &str = ".terrabench";
const LINES: &str = "fetched.jsonl";

/// A file of the hub that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its path in the folder.
    pub to: String,
    /// In bytes.
    pub size: u64,
    /// The hash that held: `sha256:…`.
    pub checksum: String,
    /// Where it came from: `owner/name`.
    pub repository: String,
    pub commit: String,
    /// What an archive held. The archive itself need not be here any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<Unpacked>,
}

/// What an archive held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Relative to the data folder.
    pub folder: String,
    /// Paths in that folder, and sizes in bytes.
    pub files: Vec<(String, u64)>,
}

impl Line {
    /// Whether all of it is still in `folder`, by names and sizes.
    pub fn complete(&self, folder: &Path) -> bool {
        self.spoilt(folder).next().is_none()
    }

    /// What of it is no longer in `folder`, or of another size.
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

/// All lines of `folder`, by path; empty where nothing was fetched.
///
/// # Errors
/// Where the file is there but cannot be read.
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

/// The lines of a folder that this process alone may write to.
pub struct Ledger {
    lines: BTreeMap<String, Line>,
    file: File,
    path: PathBuf,
    /// Released when it is closed, also by the end of the process.
    _lock: File,
}

impl Ledger {
    /// Locks `folder`, which is made where it is missing; waits while another process fetches into it.
    ///
    /// # Errors
    /// Where the folder cannot be written to.
    pub fn open(folder: &Path, note: &dyn Fn(&str)) -> Result<Self> {
        let own = folder.join(FOLDER);
        std::fs::create_dir_all(&own).at(&own)?;
        let lock = own.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock).at(&lock)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                note(&format!("another fetch writes to {}: waiting for it", folder.display()));
                file.lock().at(&lock)?;
            }
            // Some cluster file systems have no locks. Alone, all goes well without.
            Err(TryLockError::Error(error)) => {
                note(&format!(
                    "{}: no lock ({error}): start no second fetch into this folder",
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

    /// The line about the file that is at `to`.
    pub fn get(&self, to: &str) -> Option<&Line> {
        self.lines.get(to)
    }

    /// All lines.
    pub fn lines(&self) -> &BTreeMap<String, Line> {
        &self.lines
    }

    /// Adds a line.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add(&mut self, line: Line) -> Result<()> {
        let mut text = serde_json::to_string(&line).at(&self.path)?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).at(&self.path)?;
        self.lines.insert(line.to.clone(), line);
        Ok(())
    }
}

/// A new, empty folder beside the ledger, which is removed when it goes out of scope.
///
/// # Errors
/// Where it cannot be made.
pub fn workplace(folder: &Path) -> Result<tempfile::TempDir> {
    let own = folder.join(FOLDER);
    std::fs::create_dir_all(&own).at(&own)?;
    tempfile::Builder::new().prefix("unpacking-").tempdir_in(&own).at(own)
}

/// Removes workplaces that a killed process left. Only while the folder is locked.
pub fn tidy(folder: &Path) {
    let entries = std::fs::read_dir(folder.join(FOLDER)).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("unpacking-")) {
        // What cannot be removed only takes space.
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
    fn a_damaged_line_is_as_none() {
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
    fn completeness_is_names_and_sizes() {
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
