//! A task's files: in a folder, or in the release's zip archive, read in place.

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

/// A file larger than this inside an archive is taken for damage.
const MAX_BYTES: u64 = 1 << 30;

/// Where a task's files are.
#[derive(Clone)]
pub enum Files {
    Folder(PathBuf),
    Archive(Archive),
}

/// An open zip archive. Each reader has its own place in the file.
#[derive(Clone)]
pub struct Archive {
    path: PathBuf,
    zip: ZipArchive<Shared>,
    /// Entries by their path below the data set's folder.
    entries: Arc<BTreeMap<String, usize>>,
}

impl Files {
    /// Those in a folder.
    pub fn folder(path: PathBuf) -> Self {
        Files::Folder(path)
    }

    /// Those in the archive at `path`, below the folder `root` in it where it has that.
    ///
    /// # Errors
    /// Where it is no zip archive, or one of its names leads out of it.
    pub fn archive(path: PathBuf, root: &str) -> Result<Self> {
        let damaged = |error: Error| error.help("the archive is damaged: fetch it again");
        let file = File::open(&path).at(&path)?;
        let length = file.metadata().at(&path)?.len();
        let zip = ZipArchive::new(Shared { file: Arc::new(Mutex::new(file)), length, place: 0 })
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

    /// The folder or the archive.
    pub fn root(&self) -> &Path {
        match self {
            Files::Folder(folder) => folder,
            Files::Archive(archive) => &archive.path,
        }
    }

    /// What to call a file in errors.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// The file of the disk that `name` is read from.
    pub fn on_disk(&self, name: &str) -> PathBuf {
        match self {
            Files::Folder(folder) => folder.join(name),
            Files::Archive(archive) => archive.path.clone(),
        }
    }

    /// Whether there is a file of that name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Files::Folder(folder) => folder.join(name).is_file(),
            Files::Archive(archive) => archive.entries.contains_key(name),
        }
    }

    /// The names of the files in a folder, without those of folders in it, sorted.
    ///
    /// # Errors
    /// Where there is no such folder, or it cannot be read.
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
                    return Err(Error::not_found(path, "the archive has no such folder"));
                }
            }
        }
        Ok(names)
    }

    /// All bytes of a file.
    ///
    /// # Errors
    /// Where it is not there or cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Files::Folder(folder) => {
                let path = folder.join(name);
                std::fs::read(&path).at(&path)
            }
            Files::Archive(archive) => archive.read(name),
        }
    }

    /// blake3 of the content of each file, remembered between runs.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn contents(&self, names: &[&str]) -> Result<Vec<blake3::Hash>> {
        let memo = fingerprint::memo();
        match self {
            Files::Folder(_) => {
                let source = |name: &&str| Source { name: (*name).to_owned(), path: self.path(name) };
                let sources: Vec<Source> = names.iter().map(source).collect();
                fingerprint::contents(&sources, memo.as_deref())
            }
            Files::Archive(archive) => {
                // They change when the archive does.
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
            return Err(Error::not_found(shown(), "the archive has no such file"));
        };
        let damaged = |error: Error| error.help("the archive is damaged: fetch it again");
        // A clone shares the list of entries and has a place of its own.
        let mut zip = self.zip.clone();
        let entry = zip.by_index(index).at(shown()).map_err(damaged)?;
        let declared = entry.size();
        if declared > MAX_BYTES {
            return Err(damaged(Error::damaged(shown(), format!("declares {declared} bytes"))));
        }
        let mut bytes = Vec::new();
        entry.take(declared.saturating_add(1)).read_to_end(&mut bytes).at(shown()).map_err(damaged)?;
        match u64::try_from(bytes.len()) {
            Ok(length) if length == declared => Ok(bytes),
            _ => Err(damaged(Error::damaged(
                shown(),
                format!("{} bytes where the archive declares {declared}", bytes.len()),
            ))),
        }
    }
}

/// A file that several readers read, each at its own place.
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
