//! Fetching data and weights: what is wanted, what is here, and the way from one to the other.
//!
//! ```text
//! catalogue.rs   benchmarks/fetch/*.toml, [weights] of a model -> Order
//! hub.rs         Order -> the files the hub lists, with sizes and hashes
//! mod.rs         Order + listing + what is here -> Survey; Survey -> files
//! download.rs    one file: part, resume, verify, rename
//! archive.rs     one zip: inspect, unpack
//! ledger.rs      what is here already; the lock
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

pub mod archive;
pub mod catalogue;
pub mod checksum;
mod download;
pub mod hub;
pub mod ledger;
pub mod patience;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use archive::inside;
use catalogue::{Order, Source};
use download::{Download, part_path};
use hub::{Entry, Hub, Repository};
use ledger::{Ledger, Line, Unpacked};

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

/// What an order comes to, before anything is fetched.
#[derive(Debug)]
pub struct Survey {
    pub title: String,
    /// At the commit that was found behind the order's revision.
    pub repository: Repository,
    /// The licence on the repository's card.
    pub licence: Option<String>,
    /// Where licences of the parts are told.
    pub licences: Option<String>,
    /// Where the files go.
    pub folder: PathBuf,
    pub parts: Vec<SurveyedPart>,
    expansion: f64,
}

/// A task (or model) of a survey.
#[derive(Debug)]
pub struct SurveyedPart {
    pub name: String,
    pub licence: Option<String>,
    /// Empty where an earlier part brings the same files.
    pub items: Vec<Item>,
}

/// A file of the hub and how it stands here.
#[derive(Debug)]
pub struct Item {
    pub entry: Entry,
    /// Its path in the folder.
    pub to: String,
    /// The folder that it unpacks to.
    pub unpack: Option<String>,
    pub state: State,
}

/// How a file stands here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was fetched, and all of it is still here.
    Here,
    /// The folder it would unpack to is here, but not by this program: it is left as it is.
    Foreign,
    /// A file of its size is here, to be hashed.
    Unchecked,
    /// The hub's own cache on this machine has it.
    Cached(PathBuf),
    /// It must be fetched; so many bytes of it are here already.
    Missing { part: u64 },
}

impl Item {
    /// Bytes to come from the hub.
    pub fn to_fetch(&self) -> u64 {
        match self.state {
            State::Missing { part } => self.entry.size.saturating_sub(part),
            _ => 0,
        }
    }
}

impl Survey {
    /// Asks the hub for what `order` names and looks at what is in `folder`. Writes nothing.
    ///
    /// # Errors
    /// Where the hub cannot be reached or refuses, lacks a file, or lists another hash than is pinned.
    pub fn take(hub: &Hub, order: &Order, folder: &Path) -> Result<Self> {
        let about = hub.about(&order.repository)?;
        let repository = Repository { revision: about.commit, ..order.repository.clone() };
        let listed = hub.list(&repository)?;
        let lines = ledger::read(folder)?;
        let mut seen = BTreeSet::new();
        let mut parts = Vec::new();
        for part in &order.parts {
            let mut items = Vec::new();
            for source in &part.sources {
                let meant: Vec<&Entry> = listed.iter().filter(|entry| source.names(&entry.path)).collect();
                if meant.is_empty() {
                    return Err(lacking(&repository, source, &listed));
                }
                for entry in meant {
                    let to = source.to.clone().unwrap_or_else(|| entry.path.clone());
                    // Names of the hub become paths here.
                    inside(folder, &to)?;
                    if !seen.insert(to.clone()) {
                        continue;
                    }
                    let entry = pinned(&repository, source, entry)?;
                    let mut item =
                        Item { entry, to, unpack: source.unpack.clone(), state: State::Missing { part: 0 } };
                    item.state = state(hub, &repository, folder, &item, lines.get(&item.to))?;
                    items.push(item);
                }
            }
            parts.push(SurveyedPart { name: part.name.clone(), licence: part.licence.clone(), items });
        }
        Ok(Survey {
            title: order.title.clone(),
            repository,
            licence: about.licence,
            licences: order.licences.clone(),
            folder: folder.to_owned(),
            parts,
            expansion: order.expansion,
        })
    }

    /// All files.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.parts.iter().flat_map(|part| &part.items)
    }

    /// Bytes to come from the hub.
    pub fn to_fetch(&self) -> u64 {
        self.items().map(Item::to_fetch).sum()
    }

    /// Bytes of disk that will be needed at most at one time, about: archives are removed once unpacked,
    /// unless they are kept.
    pub fn disk(&self, keep: bool) -> u64 {
        let busy = |item: &&Item| !matches!(item.state, State::Here | State::Foreign);
        let mut archives: Vec<u64> = Vec::new();
        let mut stays = 0u64;
        for item in self.items().filter(busy) {
            match item.unpack {
                Some(_) => {
                    archives.push(item.to_fetch());
                    // Rounded up; sizes of files are far below where f64 counts in more than ones.
                    let unpacked = (item.entry.size as f64 * self.expansion).ceil() as u64;
                    stays = stays.saturating_add(unpacked);
                }
                None if item.state == State::Unchecked => {}
                None => stays = stays.saturating_add(item.entry.size - self.part_of(item)),
            }
        }
        archives.sort_unstable_by(|a, b| b.cmp(a));
        let at_once = if keep { archives.len() } else { WORKERS };
        stays.saturating_add(archives.iter().take(at_once).sum())
    }

    fn part_of(&self, item: &Item) -> u64 {
        match item.state {
            State::Missing { part } => part.min(item.entry.size),
            _ => 0,
        }
    }

    /// Whether all of it fits on a disk with so many bytes `free`.
    ///
    /// # Errors
    /// Where it does not.
    pub fn fits(&self, free: u64, keep: bool) -> Result<()> {
        let needed = self.disk(keep);
        if needed <= free {
            return Ok(());
        }
        let problem = format!("about {} are needed here and {} are free", gigabytes(needed), gigabytes(free));
        Err(Error::file(&self.folder, problem)
            .help("free some, name another folder, or fetch one task after the other (--task)"))
    }
}

/// `8.4 GB`.
pub fn gigabytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// The listed file with its pinned hashes, too.
fn pinned(repository: &Repository, source: &Source, listed: &Entry) -> Result<Entry> {
    let checksums = source.checksums().and(&listed.checksums).map_err(|mismatch| {
        Error::request(format!("{}: {}: as the hub lists it, {mismatch}", repository.name, listed.path)).help(
            "the repository's revision is another than the one whose hash is pinned in benchmarks/fetch",
        )
    })?;
    if checksums.identity().is_none() {
        let problem = format!("{}: {}: the hub lists no hash to verify it by", repository.name, listed.path);
        return Err(Error::request(problem).help("pin one in benchmarks/fetch"));
    }
    Ok(Entry { checksums, ..listed.clone() })
}

fn lacking(repository: &Repository, source: &Source, listed: &[Entry]) -> Error {
    let mut names: Vec<&str> = listed.iter().map(|entry| entry.path.as_str()).take(20).collect();
    if listed.len() > names.len() {
        names.push("…");
    }
    let Repository { name, revision, .. } = repository;
    Error::request(format!("{name} has no file `{}` at revision {revision}", source.path))
        .help(format!("it has {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }))
}

/// How `item` stands in `folder`, of which the ledger says `line`.
fn state(
    hub: &Hub,
    repository: &Repository,
    folder: &Path,
    item: &Item,
    line: Option<&Line>,
) -> Result<State> {
    let identity = item.entry.checksums.identity();
    let same = line.is_some_and(|line| Some(&line.checksum) == identity.as_ref() && line.complete(folder));
    if same {
        return Ok(State::Here);
    }
    let unpacked = item.unpack.as_ref().map(|to| inside(folder, to)).transpose()?;
    if line.is_none() && unpacked.is_some_and(|unpacked| unpacked.exists()) {
        return Ok(State::Foreign);
    }
    let target = inside(folder, &item.to)?;
    let size = |path: &Path| path.metadata().ok().filter(|file| file.is_file()).map(|file| file.len());
    if size(&target) == Some(item.entry.size) {
        return Ok(State::Unchecked);
    }
    let cached = item.entry.checksums.sha256.as_ref().and_then(|hash| hub.cached(repository, hash));
    if let Some(blob) = cached.filter(|blob| size(blob) == Some(item.entry.size)) {
        return Ok(State::Cached(blob));
    }
    Ok(State::Missing { part: size(&part_path(&target, &item.entry)).unwrap_or(0).min(item.entry.size) })
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
}

impl Run<'_> {
    /// Brings one file, whatever its state is by now.
    fn bring(&self, item: &Item) -> Result<()> {
        let (folder, repository) = (&self.survey.folder, &self.survey.repository);
        let line = held(&self.ledger).get(&item.to).cloned();
        let state = state(self.hub, repository, folder, item, line.as_ref())?;
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
            seen: &|bytes| track.at(bytes),
            note: &|line| self.watch.note(line),
        };
        download.run(&part)?;
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
        Err(Error::file(part, "the copy from the hub's cache is damaged").help("run the same command again"))
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
            return Err(Error::file(archive, problem).help("free some and run the same command again"));
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
            std::fs::rename(&fresh, &target).at(&target)?;
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
        std::fs::rename(inside(fresh, name)?, &to).at(&to)?;
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
