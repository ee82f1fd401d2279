//! Fetching data and weights: what is wanted, what is here, and the way from one to the other.
//!
//! ```text
//! catalogue.rs   benchmarks/fetch/*.toml, [weights] of a model -> Order
//! hub.rs         Order -> the files the hub lists, with sizes and hashes
//! survey.rs      Order + listing + what is here -> Survey
//! mod.rs         Survey -> files, several at once
//! download.rs    one file: part, resume, verify, rename
//! archive.rs     one zip: inspect, unpack
//! ledger.rs      what is here already; the lock
//! settings.rs    what the environment asks for
//! client.rs      one request: redirects, who sees the token, what a refusal means
//! address.rs     web addresses and their origins
//! proxy.rs       HTTPS_PROXY and NO_PROXY
//! secret.rs      what is never printed
//! cause.rs       why there is no answer, and whether trying again can help
//! clock.rs       how long a server asks to wait
//! patience.rs    when to try again
//! checksum.rs    SHA-256, MD5, git's hash
//! ```
//!
//! **Why `ureq` and not `hf-hub`.** The hub's own crate (1.0) starts a file from zero when it was
//! interrupted, compares no hash with the bytes it wrote, and brings 232 crates, among them tokio, the Xet
//! client and `aws-lc-sys`, whose C code wants cmake on some platforms. Three routes are needed here, and
//! the promises (resume, verify, never a bad file under its final name) are ours to keep. `ureq` is a
//! blocking, well-kept client; with rustls on `ring` it adds 22 small crates, under a minute of compiling on
//! one core, and needs only the C compiler that the rest needs too.

pub mod address;
pub mod archive;
pub mod catalogue;
mod cause;
pub mod checksum;
mod client;
mod clock;
mod download;
pub mod hub;
pub mod ledger;
pub mod patience;
pub mod proxy;
pub mod secret;
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
pub use survey::{Item, State, Survey, SurveyedPart, gigabytes};

use crate::error::AtPath;
use crate::locations::free_space;
use crate::{Error, Result};

/// Files under way at once: enough to hide the hub's answer time where files are small, few enough for its
/// limits on requests.
const WORKERS: usize = 4;

/// Told how fetching goes on. The harness's own `Progress` counts images in one
/// thread; here bytes of several files pass at once, and may go back where a file begins anew.
pub trait Watch: Sync {
    /// Work on the file `what` of `total` bytes begins; it ends when the returned handle is dropped.
    fn begin(&self, work: Work, what: &str, total: u64) -> Box<dyn Track>;

    /// Something worth a line of its own.
    fn note(&self, line: &str);
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Its bytes come from the hub.
    Fetch,
    /// Its bytes are here and are hashed.
    Check,
    /// What it holds is written; bytes are the unpacked ones.
    Unpack,
}

/// One file's progress.
pub trait Track {
    /// So many bytes are done.
    fn at(&self, bytes: u64);
}

/// Watches nothing.
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

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files or folders that are new, relative to the folder.
    pub brought: Vec<String>,
    /// How many files of the hub were here already.
    pub here: usize,
    /// Folders that were left as they are.
    pub foreign: Vec<PathBuf>,
}

/// Brings all of `survey` into its folder. Another run into the same folder waits until this one is over.
///
/// # Errors
/// The first that happened; files that were finished before are whole and recorded, and those under way
/// go on from where they were at the next run.
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
    let items: Vec<&Item> = survey.items().collect();
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

/// What is behind the mutex; a thread that panicked leaves nothing half-changed here.
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
    /// Bytes of files that are still to come.
    left: AtomicU64,
}

impl Run<'_> {
    /// Brings one file, whatever its state is by now.
    fn bring(&self, item: &Item) -> Result<()> {
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
                    "{} is here, though not by this command: left as it is (remove it to fetch it)",
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
        held(&self.ledger).add(Line {
            to: item.to.clone(),
            size: item.entry.size,
            checksum: item.entry.checksums.identity().unwrap_or_default(),
            repository: repository.name.clone(),
            commit: repository.revision.clone(),
            unpacked,
        })?;
        // The file itself is not in the way of anything where the hub's cache holds it.
        if item.unpack.is_some() && !self.keep && file == target {
            std::fs::remove_file(&target).at(&target)?;
        }
        held(&self.outcome).brought.push(brought);
        Ok(())
    }

    /// The verified file: at `target`, or an archive where the hub's cache has it.
    fn obtain(&self, item: &Item, state: State, target: &Path) -> Result<PathBuf> {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).at(parent)?;
        }
        match state {
            State::Unchecked if self.verified(item, target)? => return Ok(target.to_owned()),
            State::Unchecked => self
                .watch
                .note(&format!("{} is not the file of this revision: fetching it anew", target.display())),
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

    /// Gives the copy `part` its final name if it is whole.
    fn settle(&self, item: &Item, part: &Path, target: &Path) -> Result<PathBuf> {
        if self.verified(item, part)? {
            std::fs::rename(part, target).at(target)?;
            return Ok(target.to_owned());
        }
        std::fs::remove_file(part).at(part)?;
        Err(Error::damaged(part, "the copy from the hub's cache is damaged")
            .help("run the same command again"))
    }

    fn verified(&self, item: &Item, path: &Path) -> Result<bool> {
        let track = self.watch.begin(Work::Check, &item.to, item.entry.size);
        Ok(item.entry.checksums.hold(path, item.entry.size, &|bytes| track.at(bytes))?.is_ok())
    }

    /// Unpacks `archive` to the folder `to`, which is there as a whole or, where it was there before, file
    /// by file.
    fn unpack(&self, archive: &Path, to: &str, before: Option<&Line>) -> Result<Unpacked> {
        let folder = &self.survey.folder;
        let root = to.rsplit('/').next().unwrap_or(to);
        let contents = archive::inspect(archive, root)?;
        let free = free_space(folder)?;
        if contents.bytes > free {
            let (needed, free) = (gigabytes(contents.bytes), gigabytes(free));
            let problem = format!("unpacks to {needed}, and {free} are free in {}", folder.display());
            return Err(Error::damaged(archive, problem).help("free some and run the same command again"));
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

/// Moves `files` from `fresh` into the folder `target`, and removes what an earlier fetch put there and is
/// no longer part of it. What anyone else put there stays.
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
