//! One file from the hub to the disk: resumed where it stopped, tried again when it breaks, and whole and
//! verified or not there.
//!
//! The bytes go to a part file that is named by the expected hash, so a part is only ever continued into
//! the same content; the last word has the hash of all bytes.

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
    /// At a commit.
    pub repository: &'a Repository,
    pub entry: &'a Entry,
    /// Set from elsewhere to end early; what came so far stays in the part file.
    pub stop: &'a AtomicBool,
    /// Bytes that are to fetch in all, with other files: patience grows with them.
    pub left: u64,
    /// Told the bytes that are here so far. Goes back when a file must begin anew.
    pub seen: &'a dyn Fn(u64),
    pub note: &'a dyn Fn(&str),
}

/// Where the bytes of `entry` go until they are whole: beside `target`.
pub(crate) fn part_path(target: &Path, entry: &Entry) -> PathBuf {
    let identity = entry.checksums.identity().unwrap_or_default();
    let hash = identity.split_once(':').map_or("", |(_, hash)| hash);
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", hash.get(..8).unwrap_or(hash)));
    target.with_file_name(name)
}

/// A file that grows.
struct Part<'a> {
    path: &'a Path,
    file: File,
    length: u64,
    checking: Checking,
    entry: &'a Entry,
}

impl<'a> Part<'a> {
    /// Continues the part at `path`, or begins one.
    fn open(path: &'a Path, entry: &'a Entry) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).at(path)?;
        let checking = Checking::new(&entry.checksums, entry.size);
        let mut part = Part { path, file, length: 0, checking, entry };
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
    /// Downloads to `part` and verifies; the part is then the whole file.
    ///
    /// # Errors
    /// Where patience ends, the hub refuses, the bytes are twice not the expected ones, or the disk is full.
    pub fn run(&self, part: &Path) -> Result<()> {
        let subject = format!("{}: {}", self.repository.name, self.entry.path);
        let mut whole = Part::open(part, self.entry)?;
        (self.seen)(whole.length);
        let mut failures = Failures::default();
        let mut was_wrong = false;
        let mut etag: Option<String> = None;
        // Bytes of an earlier run are no fault of today's server: only what came now can be wrong twice.
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
                    return Err(Error::network(format!("{subject}: twice, {mismatch}")).help(
                        "nothing was kept. Either something on the way alters the file (a proxy, a mirror in \
                         HF_ENDPOINT), or it is no longer the one that was published",
                    ));
                }
                (self.note)(&format!("{subject}: {mismatch}; fetching it anew"));
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
            // Every byte that came further than before is progress: it ends, however often the connection breaks.
            if whole.length > furthest {
                furthest = whole.length;
                failures.forgive();
            }
            if let Some(trouble) = trouble {
                failures.wait(trouble, &subject, self.hub.patience(), self.left, self.note)?;
            }
        }
    }

    /// Appends what the server sends; tells why it ended early, if it did.
    fn receive(&self, opened: Opened, part: &mut Part) -> Result<Option<Trouble>> {
        let rest = self.entry.size - opened.from;
        if let Some(announced) = opened.length
            && announced != rest
        {
            return Ok(Some(Trouble::stubborn(
                format!("the server announces {announced} bytes where {rest} are expected"),
                "a proxy that keeps answers may hold another file: see HTTPS_PROXY and HF_ENDPOINT",
            )));
        }
        let mut body = opened.body;
        let mut buffer = vec![0; 1 << 18];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::network("stopped, since another file failed"));
            }
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let problem =
                        format!("broke off after {} of {} bytes: {error}", part.length, self.entry.size);
                    return Ok(Some(Trouble::passing(problem)));
                }
            };
            if n == 0 {
                break;
            }
            if n as u64 > self.entry.size - part.length {
                part.restart()?;
                let problem = format!("the server sends more than the {} bytes it lists", self.entry.size);
                return Ok(Some(Trouble::passing(problem)));
            }
            part.push(&buffer[..n])?;
            (self.seen)(part.length);
        }
        if part.length < self.entry.size {
            let problem = format!("broke off after {} of {} bytes", part.length, self.entry.size);
            return Ok(Some(Trouble::passing(problem)));
        }
        Ok(None)
    }
}
