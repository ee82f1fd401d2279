//! Fetches data and weights: what is wanted, what is here, and how to get from one to the other.
//!
//! ```text
//! catalogue.rs   benchmarks/fetch/*.toml, [weights] of a model -> Order
//! hub.rs         Order -> the files the hub lists, with sizes and hashes
//! survey.rs      Order + listing + local files -> Survey
//! mod.rs         Survey -> files, several at a time
//! download.rs    one file: part, resume, verify, rename
//! archive.rs     one zip: inspect, unpack
//! ledger.rs      what has been fetched; the lock
//! settings.rs    settings from the environment
//! client.rs      one request: redirects, who sees the token, what an error response means
//! address.rs     web addresses and their origins
//! proxy.rs       HTTPS_PROXY and NO_PROXY
//! secret.rs      text that is never printed
//! cause.rs       why there is no response, and whether trying again can help
//! clock.rs       how long a server asks to wait
//! patience.rs    when and how often to try again
//! checksum.rs    SHA-256, MD5, git's hash
//! ```
//!
//! **Why `ureq` and not `hf-hub`.** The hub's own crate (1.0) restarts an interrupted file from zero, does not
//! verify the hash of the bytes it wrote, and brings 232 crates, among them tokio, the Xet client and
//! `aws-lc-sys`, whose C code needs cmake on some platforms. Only three routes are needed here, and the
//! guarantees (resume, verify, never a bad file under its final name) are ours to keep. `ureq` is a blocking,
//! well-maintained client; with rustls on `ring` it adds 22 small crates and less than a minute of compile time
//! on one core, and needs only the C compiler that other dependencies need too.

/// Web addresses.
pub mod address;
/// Unpacking zip archives.
pub mod archive;
/// What can be fetched.
pub mod catalogue;
mod cause;
/// Hashes of files.
pub(crate) mod checksum;
mod client;
mod clock;
mod download;
/// The Hugging Face hub.
pub mod hub;
/// What was fetched into a folder.
pub mod ledger;
/// Retries and waiting.
pub mod patience;
/// Proxies from the environment.
pub mod proxy;
/// Tokens and passwords.
pub mod secret;
/// Settings from the environment.
pub mod settings;
mod survey;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::files::{inside, move_to};
use download::{Download, part_path};
use hub::Hub;
use ledger::{Ledger, Line, Unpacked};
pub use survey::{FetchItem, State, Survey, SurveyedPart, gigabytes};

use crate::error::AtPath;
use crate::locations::free_space;
use crate::{Error, Result};

/// Number of files fetched at once: enough to hide the hub's latency for small files, few enough for its rate
/// limits.
const WORKERS: usize = 4;

/// Receives the progress of a fetch. Unlike the harness's own `Progress`, which counts images in one thread,
/// this follows the bytes of several files at once, which may decrease when a file starts over.
pub trait Watch: Sync {
    /// Starts work on the file `what` of `total` bytes; the work ends when the returned handle is dropped.
    fn begin(&self, work: Work, what: &str, total: u64) -> Box<dyn Track>;

    /// Reports a message that deserves its own line.
    fn note(&self, line: &str);
}

/// What is being done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Downloading it from the hub.
    Fetch,
    /// Hashing its local bytes.
    Check,
    /// Writing its contents; bytes are counted unpacked.
    Unpack,
}

/// The progress of one file.
pub trait Track {
    /// Reports the number of bytes done.
    fn at(&self, bytes: u64);
}

/// Ignores all progress.
pub struct Unwatched;

impl Watch for Unwatched {
    fn begin(&self, _: Work, _: &str, _: u64) -> Box<dyn Track> {
        Box::new(Unwatched)
    }

    fn note(&self, _: &str) {}
}

impl Track for Unwatched {
    fn at(&self, _: u64) {}
}

/// The result of a fetch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// New files or folders, relative to the data folder.
    pub brought: Vec<String>,
    /// Number of the hub's files that were already here.
    pub here: usize,
    /// Folders that were left unchanged because they were not created by this program.
    pub foreign: Vec<PathBuf>,
}

/// Brings everything in `survey` into its folder. A concurrent run into the same folder waits until this one is
/// done.
///
/// # Errors
/// The first error that occurred. Files finished before are complete and recorded; the next run resumes those
/// in progress.
pub fn run(hub: &Hub, survey: &Survey, keep: bool, watch: &dyn Watch) -> Result<Outcome> {
    survey.fits(free_space(&survey.folder)?, keep)?;
    let ledger = Ledger::open(&survey.folder, &|line| watch.note(line))?;
    ledger::tidy(&survey.folder);
    let run = Run {
        hub,
        survey,
        keep,
        watch,
        ledger: Mutex::new(ledger),
        outcome: Mutex::new(Outcome::default()),
        failure: Mutex::new(None),
        stop: AtomicBool::new(false),
        left: AtomicU64::new(survey.to_fetch()),
    };
    let items: Vec<&FetchItem> = survey.items().collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if run.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Err(error) = run.bring(item) {
                        run.stop.store(true, Ordering::Relaxed);
                        held(&run.failure).get_or_insert(error);
                    }
                }
            });
        }
    });
    let mut outcome = run.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.brought.sort();
    match run.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(outcome),
    }
}

/// Locks a mutex; a thread that panicked leaves nothing half-changed here.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Run<'a> {
    hub: &'a Hub,
    survey: &'a Survey,
    keep: bool,
    watch: &'a dyn Watch,
    ledger: Mutex<Ledger>,
    outcome: Mutex<Outcome>,
    failure: Mutex<Option<Error>>,
    stop: AtomicBool,
    /// Bytes of files that are still to be fetched.
    left: AtomicU64,
}

impl Run<'_> {
    /// Brings one file, whatever its current state.
    fn bring(&self, item: &FetchItem) -> Result<()> {
        let (folder, repository) = (&self.survey.folder, &self.survey.repository);
        let line = held(&self.ledger).get(&item.to).cloned();
        let state = survey::state(self.hub, repository, folder, item, line.as_ref())?;
        match (&state, &item.unpack) {
            (State::Here, _) => {
                held(&self.outcome).here += 1;
                return Ok(());
            }
            (State::Foreign, Some(unpack)) => {
                let foreign = inside(folder, unpack)?;
                self.watch.note(&format!(
                    "{} was not created by this command; leaving it unchanged (remove it to fetch it)",
                    foreign.display()
                ));
                held(&self.outcome).foreign.push(foreign);
                return Ok(());
            }
            _ => {}
        }
        let target = inside(folder, &item.to)?;
        let file = self.obtain(item, state, &target)?;
        let unpacked = match &item.unpack {
            None => None,
            Some(unpack) => Some(self.unpack(&file, unpack, line.as_ref())?),
        };
        let brought = unpacked.as_ref().map_or(&item.to, |unpacked| &unpacked.folder).clone();
        let checksum = match item.entry.checksums.identity() {
            Some(identity) => identity,
            // No hash is published; with this one, later damage is noticed.
            None => checksum::of_file(&file)?,
        };
        held(&self.ledger).add(Line {
            to: item.to.clone(),
            size: item.entry.size,
            checksum,
            repository: repository.name.clone(),
            commit: repository.revision.clone(),
            unpacked,
        })?;
        // A file in the hub's cache is left where it is.
        if item.unpack.is_some() && !self.keep && file == target {
            std::fs::remove_file(&target).at(&target)?;
        }
        held(&self.outcome).brought.push(brought);
        Ok(())
    }

    /// Returns the path of the verified file: `target`, or the hub's cache for an archive that is there.
    fn obtain(&self, item: &FetchItem, state: State, target: &Path) -> Result<PathBuf> {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).at(parent)?;
        }
        match state {
            State::Unchecked if self.verified(item, target)? => return Ok(target.to_owned()),
            State::Unchecked => self.watch.note(&format!(
                "{} is not the file of this revision; downloading it again",
                target.display()
            )),
            State::Cached(blob) if self.verified(item, &blob)? => {
                if item.unpack.is_some() {
                    return Ok(blob);
                }
                let part = part_path(target, &item.entry);
                std::fs::copy(&blob, &part).at(&part)?;
                return self.settle(item, &part, target);
            }
            _ => {}
        }
        let part = part_path(target, &item.entry);
        let track = self.watch.begin(Work::Fetch, &item.to, item.entry.size);
        let download = Download {
            hub: self.hub,
            repository: &self.survey.repository,
            entry: &item.entry,
            stop: &self.stop,
            left: self.left.load(Ordering::Relaxed),
            seen: &|bytes| track.at(bytes),
            note: &|line| self.watch.note(line),
        };
        download.run(&part)?;
        self.left.fetch_sub(item.to_fetch(), Ordering::Relaxed);
        std::fs::rename(&part, target).at(target)?;
        Ok(target.to_owned())
    }

    /// Gives the copy `part` its final name if it passes verification.
    fn settle(&self, item: &FetchItem, part: &Path, target: &Path) -> Result<PathBuf> {
        if self.verified(item, part)? {
            std::fs::rename(part, target).at(target)?;
            return Ok(target.to_owned());
        }
        std::fs::remove_file(part).at(part)?;
        Err(Error::damaged(part, "the copy from the hub's cache is damaged")
            .help("run the same command again"))
    }

    fn verified(&self, item: &FetchItem, path: &Path) -> Result<bool> {
        let track = self.watch.begin(Work::Check, &item.to, item.entry.size);
        Ok(item.entry.checksums.hold(path, item.entry.size, &|bytes| track.at(bytes))?.is_ok())
    }

    /// Unpacks `archive` to the folder `to`: all at once, or file by file if the folder already exists.
    fn unpack(&self, archive: &Path, to: &str, before: Option<&Line>) -> Result<Unpacked> {
        let folder = &self.survey.folder;
        let root = to.rsplit('/').next().unwrap_or(to);
        let contents = archive::inspect(archive, root)?;
        let free = free_space(folder)?;
        if contents.bytes > free {
            let (needed, free) = (gigabytes(contents.bytes), gigabytes(free));
            let problem =
                format!("needs {needed} unpacked, but only {free} are free in {}", folder.display());
            return Err(
                Error::damaged(archive, problem).help("free some space and run the same command again")
            );
        }
        let workplace = ledger::workplace(folder)?;
        let fresh = workplace.path().join("whole");
        std::fs::create_dir(&fresh).at(&fresh)?;
        let track = self.watch.begin(Work::Unpack, to, contents.bytes);
        archive::unpack(archive, root, &fresh, &|bytes| track.at(bytes))?;
        let target = inside(folder, to)?;
        if target.exists() {
            replace(&fresh, &contents.files, &target, before)?;
        } else {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).at(parent)?;
            }
            move_to(&fresh, &target)?;
        }
        Ok(Unpacked { folder: to.to_owned(), files: contents.files })
    }
}

/// Moves `files` from `fresh` into the folder `target`, and removes files that an earlier fetch put there and
/// that are no longer part of it. Files from anyone else stay.
fn replace(fresh: &Path, files: &[(String, u64)], target: &Path, before: Option<&Line>) -> Result<()> {
    for (name, _) in files {
        let to = inside(target, name)?;
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).at(parent)?;
        }
        move_to(&inside(fresh, name)?, &to)?;
    }
    let now: BTreeMap<&str, u64> = files.iter().map(|(name, size)| (name.as_str(), *size)).collect();
    let old = before.and_then(|line| line.unpacked.as_ref()).map_or(&[][..], |unpacked| &unpacked.files);
    for (name, _) in old.iter().filter(|(name, _)| !now.contains_key(name.as_str())) {
        let gone = inside(target, name)?;
        if gone.exists() {
            std::fs::remove_file(&gone).at(&gone)?;
        }
    }
    Ok(())
}
