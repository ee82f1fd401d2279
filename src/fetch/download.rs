//! Downloads one file from the hub: resumes where it stopped, retries when the connection breaks, and leaves
//! either a complete, verified file or none.
//!
//! The bytes go to a part file whose name contains the expected hash, so a part is only ever continued with the
//! same content. The hash of all bytes decides in the end.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::checksum::Checking;
use super::hub::{Entry, Hub, Opened, Repository};
use super::patience::{Failures, Trouble};
use crate::error::AtPath;
use crate::{Error, Result};

/// A file to download.
pub(crate) struct Download<'a> {
    pub hub: &'a Hub,
    /// The repository at a commit.
    pub repository: &'a Repository,
    pub entry: &'a Entry,
    /// Set from elsewhere to stop early; the bytes received so far stay in the part file.
    pub stop: &'a AtomicBool,
    /// Bytes left to fetch over all files: the more are left, the more patience.
    pub left: u64,
    /// Receives the number of bytes received so far, which decreases when a file has to start over.
    pub seen: &'a dyn Fn(u64),
    pub note: &'a dyn Fn(&str),
}

/// Returns the path of the part file of `entry`, next to `target`.
pub(crate) fn part_path(target: &Path, entry: &Entry) -> PathBuf {
    let identity = entry.checksums.identity().unwrap_or_default();
    let hash = identity.split_once(':').map_or("", |(_, hash)| hash.get(..8).unwrap_or(hash));
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(if hash.is_empty() { ".part".to_owned() } else { format!(".{hash}.part") });
    target.with_file_name(name)
}

/// A part file being written.
struct PartialFile<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    checking: Checking,
    entry: &'a Entry,
}

impl<'a> PartialFile<'a> {
    /// Continues the part at `path`, or starts one.
    fn open(path: &'a Path, entry: &'a Entry) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).at(path)?;
        let checking = Checking::new(&entry.checksums, entry.size);
        let mut part = PartialFile { path, file, length: 0, checking, entry };
        if part.file.metadata().at(path)?.len() > entry.size {
            part.restart()?;
        }
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = part.file.read(&mut buffer).at(path)?;
            if n == 0 {
                return Ok(part);
            }
            part.checking.update(&buffer[..n]);
            part.length += n as u64;
        }
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).at(self.path)?;
        self.file.rewind().at(self.path)?;
        self.checking = Checking::new(&self.entry.checksums, self.entry.size);
        self.length = 0;
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at(self.path)?;
        self.checking.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}

impl Download<'_> {
    /// Downloads to `part` and verifies it; afterwards it is the complete file.
    ///
    /// # Errors
    /// If patience runs out, the hub refuses, the hash is wrong twice, or a file cannot be written.
    pub fn run(&self, part: &Path) -> Result<()> {
        let subject = format!("{}: {}", self.repository.name, self.entry.path);
        let mut whole = PartialFile::open(part, self.entry)?;
        (self.seen)(whole.length);
        let mut failures = Failures::default();
        let mut was_wrong = false;
        let mut etag: Option<String> = None;
        // Bytes from an earlier run are no fault of the server: only bytes received in this run can be wrong
        // twice.
        let mut is_of_this_run = whole.length == 0;
        let mut furthest = whole.length;
        loop {
            if whole.length == self.entry.size {
                let expected = Checking::new(&self.entry.checksums, self.entry.size);
                let Err(mismatch) = std::mem::replace(&mut whole.checking, expected).finish() else {
                    return whole.file.sync_all().at(part);
                };
                if was_wrong && is_of_this_run {
                    drop(whole);
                    std::fs::remove_file(part).at(part)?;
                    return Err(Error::network(format!("{subject}: wrong twice: {mismatch}")).help(
                        "nothing was kept. Either something in between alters the file (a proxy, a mirror in \
                         HF_ENDPOINT), or the published file has changed",
                    ));
                }
                (self.note)(&format!("{subject}: {mismatch}; downloading it again"));
                was_wrong |= is_of_this_run;
                whole.restart()?;
                etag = None;
                furthest = 0;
            }
            is_of_this_run |= whole.length == 0;
            let trouble =
                match self.hub.open(self.repository, &self.entry.path, whole.length, etag.as_deref()) {
                    Ok(opened) => {
                        if opened.from != whole.length {
                            whole.restart()?;
                            is_of_this_run = true;
                        }
                        etag.clone_from(&opened.etag);
                        self.receive(opened, &mut whole)?
                    }
                    Err(trouble @ Trouble::Restart(_)) => {
                        whole.restart()?;
                        Some(trouble)
                    }
                    Err(trouble) => Some(trouble),
                };
            // Every byte beyond the furthest so far is progress, so the download ends however often the
            // connection breaks.
            if whole.length > furthest {
                furthest = whole.length;
                failures.forgive();
            }
            if let Some(trouble) = trouble {
                failures.wait(trouble, &subject, self.hub.patience(), self.left, self.note)?;
            }
        }
    }

    /// Appends what the server sends. Returns why it ended early, if it did.
    fn receive(&self, opened: Opened, part: &mut PartialFile) -> Result<Option<Trouble>> {
        let rest = self.entry.size - opened.from;
        if let Some(announced) = opened.length
            && announced != rest
        {
            return Ok(Some(Trouble::stubborn(
                format!("expected {rest} bytes, but the server announces {announced}"),
                "a caching proxy may have stored a different file: check HTTPS_PROXY and HF_ENDPOINT",
            )));
        }
        let mut body = opened.body;
        let mut buffer = vec![0; 1 << 18];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::network("stopped because another file failed"));
            }
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let problem = format!(
                        "connection lost after {} of {} bytes: {error}",
                        part.length, self.entry.size
                    );
                    return Ok(Some(Trouble::passing(problem)));
                }
            };
            if n == 0 {
                break;
            }
            if n as u64 > self.entry.size - part.length {
                part.restart()?;
                let problem = format!("the server sent more than the {} bytes it lists", self.entry.size);
                return Ok(Some(Trouble::passing(problem)));
            }
            part.push(&buffer[..n])?;
            (self.seen)(part.length);
        }
        if part.length < self.entry.size {
            let problem = format!("connection lost after {} of {} bytes", part.length, self.entry.size);
            return Ok(Some(Trouble::passing(problem)));
        }
        Ok(None)
    }
}
