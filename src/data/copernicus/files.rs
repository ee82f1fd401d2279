//! A task's files, in a folder or inside the release's zip archive, which is read in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zip::ZipArchive;

use crate::data::fingerprint::{self, Source};
use crate::error::AtPath;
use crate::files::{inside, relative_name};
use crate::{Error, Result};

/// A file inside an archive that claims to be larger than this (1 GiB) is treated as damaged.
const MAX_BYTES: u64 = 1 << 30;

/// The location of a task's files.
#[derive(Clone)]
pub enum Files {
    Folder(PathBuf),
    Archive(Archive),
}

/// An open zip archive. Each reader has its own position in the file.
#[derive(Clone)]
pub struct Archive {
    path: PathBuf,
    zip: ZipArchive<Shared>,
    /// Index of each entry by its path below the data set's folder.
    entries: Arc<BTreeMap<String, usize>>,
}

impl Files {
    /// Files in the folder `path`.
    pub fn folder(path: PathBuf) -> Self {
        Files::Folder(path)
    }

    /// Opens the archive at `path`. If its entries lie below a folder called `root`, their paths are relative to that folder.
    ///
    /// # Errors
    /// If the file is not a zip archive, or an entry's path leads outside the archive.
    pub fn archive(path: PathBuf, root: &str) -> Result<Self> {
        let damaged = |error: Error| error.help("the archive is damaged: fetch it again");
        let file = File::open(&path).at(&path)?;
        let length = file.metadata().at(&path)?.len();
        let zip = crate::formats::zip::open(Shared { file: Arc::new(Mutex::new(file)), length, place: 0 })
            .at(&path)
            .map_err(damaged)?;
        let mut entries = BTreeMap::new();
        let prefix = format!("{root}/");
        let mut looking = zip.clone();
        for index in 0..looking.len() {
            let entry = looking.by_index_raw(index).at(&path).map_err(damaged)?;
            let name = relative_name(&entry.name().at(&path)?);
            if entry.is_dir() || name.is_empty() || name.ends_with('/') {
                continue;
            }
            inside(Path::new(""), &name).map_err(|error| Error::damaged(&path, error))?;
            let below = name.strip_prefix(&prefix).map(str::to_owned).unwrap_or(name);
            entries.insert(below, index);
        }
        Ok(Files::Archive(Archive { path, zip, entries: Arc::new(entries) }))
    }

    /// Path of the folder or the archive.
    pub fn root(&self) -> &Path {
        match self {
            Files::Folder(folder) => folder,
            Files::Archive(archive) => &archive.path,
        }
    }

    /// The path to show for a file in error messages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// The file on disk that `name` is read from: the file itself or the archive.
    pub fn on_disk(&self, name: &str) -> PathBuf {
        match self {
            Files::Folder(folder) => folder.join(name),
            Files::Archive(archive) => archive.path.clone(),
        }
    }

    /// Whether a file of this name exists.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Files::Folder(folder) => folder.join(name).is_file(),
            Files::Archive(archive) => archive.entries.contains_key(name),
        }
    }

    /// Lists the names of the files in a folder, without subfolders, sorted.
    ///
    /// # Errors
    /// If the folder does not exist or cannot be read.
    pub fn below(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.path(folder);
        let mut names = Vec::new();
        match self {
            Files::Folder(_) => {
                for entry in std::fs::read_dir(&path).at(&path)? {
                    let entry = entry.at(&path)?;
                    if !entry.file_type().at(&path)?.is_dir() {
                        names.extend(entry.file_name().into_string());
                    }
                }
                names.sort();
            }
            Files::Archive(archive) => {
                let prefix = format!("{folder}/");
                let from = archive.entries.range(prefix.clone()..);
                let below = from.map_while(|(name, _)| name.strip_prefix(&prefix));
                names.extend(below.filter(|name| !name.contains('/')).map(str::to_owned));
                if names.is_empty() {
                    return Err(Error::not_found(path, "no such folder in the archive"));
                }
            }
        }
        Ok(names)
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// If the file does not exist or cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Files::Folder(folder) => {
                let path = folder.join(name);
                std::fs::read(&path).at(&path)
            }
            Files::Archive(archive) => archive.read(name),
        }
    }

    /// Returns the blake3 hash of each file's content, remembered between runs.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn contents(&self, names: &[&str]) -> Result<Vec<blake3::Hash>> {
        let memo = fingerprint::memo();
        match self {
            Files::Folder(_) => {
                let source = |name: &&str| Source { name: (*name).to_owned(), path: self.path(name) };
                let sources: Vec<Source> = names.iter().map(source).collect();
                fingerprint::contents(&sources, memo.as_deref())
            }
            Files::Archive(archive) => {
                // The hashes change whenever the archive does.
                let source = Source { name: names.join("\n"), path: archive.path.clone() };
                let hash = |index: usize| Ok(blake3::hash(&archive.read(names[index])?));
                fingerprint::contents_of(&[source], names.len(), memo.as_deref(), hash)
            }
        }
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Files").field(&self.root()).finish()
    }
}

impl Archive {
    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let shown = || self.path.join(name);
        let Some(&index) = self.entries.get(name) else {
            return Err(Error::not_found(shown(), "no such file in the archive"));
        };
        let damaged = |error: Error| error.help("the archive is damaged: fetch it again");
        // The clone shares the list of entries but has its own position.
        let mut zip = self.zip.clone();
        let entry = zip.by_index(index).at(shown()).map_err(damaged)?;
        let declared = entry.size();
        if declared > MAX_BYTES {
            return Err(damaged(Error::damaged(
                shown(),
                format!("the archive declares an implausible size of {declared} bytes"),
            )));
        }
        let mut bytes = Vec::new();
        entry.take(declared.saturating_add(1)).read_to_end(&mut bytes).at(shown()).map_err(damaged)?;
        match u64::try_from(bytes.len()) {
            Ok(length) if length == declared => Ok(bytes),
            _ => Err(damaged(Error::damaged(
                shown(),
                format!("expected {declared} bytes, as the archive declares; found {}", bytes.len()),
            ))),
        }
    }
}

/// A file shared by several readers, each with its own position.
#[derive(Debug, Clone)]
struct Shared {
    file: Arc<Mutex<File>>,
    length: u64,
    place: u64,
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.place))?;
        let read = file.read(buffer)?;
        self.place += read as u64;
        Ok(read)
    }
}

impl Seek for Shared {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.place.checked_add_signed(offset),
        };
        self.place = place.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.place)
    }
}
