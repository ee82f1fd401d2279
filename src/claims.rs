//! Claims: which process works on what, in a folder that processes on many machines share.
//!
//! ```text
//! <folder>/<key>.0   the first claim on a key: a line of JSON (who, where, since when), then one dot per heartbeat
//! <folder>/<key>.1   the claim that took over from it, and so on
//! ```
//!
//! The claim with the highest number counts. A claim is taken by giving the next number to a file that is already complete: a
//! hard link, which fails if the name exists, on network file systems too. So of several processes that want to take over a
//! dead one's claim, one succeeds. A file that its owner gave back says so in its line. Files are removed only when the work
//! is finished, so that nobody takes an old number again.
//!
//! A claim is dead when its process is (seen on the same machine), or when no dot was added for the time that the claim itself
//! names, by the clock of the process that waits. Clocks of different machines are never compared.
//!
//! ```
//! use std::time::Duration;
//! use terrabench::claims::{Claims, Taken};
//!
//! let folder = tempfile::tempdir()?;
//! let claims = Claims::new(folder.path(), Duration::from_secs(60));
//! let Taken::Mine(claim) = claims.take("a-cell", "m-eurosat knn")? else { panic!("nobody holds it") };
//! assert!(matches!(claims.take("a-cell", "m-eurosat knn")?, Taken::Held(_)));
//! claim.finish();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::AtPath;
use crate::{Error, Result, stop};

/// Time without a heartbeat after which a claim is dead, if the user chooses none. Longer than network file systems keep what
/// they know of a file (60 s), and than a short stop of a machine.
pub const STALE_AFTER: Duration = Duration::from_secs(120);

/// Heartbeats per time after which a claim is dead.
const BEATS: u32 = 8;

/// The longest time between two heartbeats.
const SLOWEST_BEAT: Duration = Duration::from_secs(15);

/// The most bytes of a claim's line that are read.
const LONGEST_LINE: u64 = 16 * 1024;

/// The process that holds a claim, as its file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holder {
    /// Name of the machine.
    pub host: String,
    /// Process id on that machine.
    pub process: u32,
    /// Start of the process in clock ticks since the machine's start; 0 if unknown.
    #[serde(default)]
    pub started: u64,
    /// Identifies the machine's start and the space of its process ids; empty if unknown.
    #[serde(default)]
    pub machine: String,
    /// The job of a scheduler, such as `17_3`; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub job: String,
    /// Time of the claim, Unix time in seconds by the holder's clock.
    pub since: u64,
    /// What it works on, for people.
    pub what: String,
    /// Seconds without a heartbeat after which the claim is dead.
    pub stale_after: f64,
    /// Distinguishes claims with otherwise equal lines.
    pub nonce: u64,
    /// Whether the holder gave the claim back, its work unfinished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

impl Holder {
    /// Describes this process, working on `what`.
    pub fn here(what: &str, stale_after: Duration) -> Self {
        let process = std::process::id();
        Holder {
            host: host(),
            process,
            started: start_of(process).unwrap_or(0),
            machine: machine(),
            job: job(),
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            what: what.to_owned(),
            stale_after: stale_after.as_secs_f64(),
            nonce: nonce(),
            released: false,
        }
    }

    /// Whether the process is known to have ended: it was on this machine, and is gone or its id belongs to another.
    pub fn is_gone(&self) -> bool {
        let is_here = !self.machine.is_empty() && self.machine == machine() && self.started > 0;
        is_here && start_of(self.process) != Some(self.started)
    }

    /// Where it runs: `node7, process 4711` with the job, if there is one.
    pub fn place(&self) -> String {
        let job = if self.job.is_empty() { String::new() } else { format!(", job {}", self.job) };
        format!("{}{job}, process {}", self.host, self.process)
    }
}

/// A claim's file as it is now.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// The key.
    pub key: String,
    /// What its line says; `None` if it cannot be read.
    pub holder: Option<Holder>,
    /// Time since the last heartbeat, by the clocks of this machine and the file system.
    pub silent: Duration,
    generation: u32,
    length: u64,
}

/// What became of an attempt to take a claim.
#[derive(Debug)]
pub enum Taken {
    /// This process holds it.
    Mine(Claim),
    /// Another process, or another part of this one, holds it.
    Held(Option<Holder>),
}

/// The claims in one folder.
#[derive(Debug, Clone)]
pub struct Claims(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    stale_after: Duration,
    /// The last change seen of other processes' claims, by key.
    seen: Mutex<HashMap<String, LastChange>>,
    held: Mutex<Vec<Arc<Held>>>,
    /// Whether the thread of heartbeats runs.
    beats: AtomicBool,
}

#[derive(Debug)]
struct LastChange {
    generation: u32,
    nonce: u64,
    length: u64,
    at: Instant,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    next: PathBuf,
    holder: Holder,
    lost: AtomicBool,
}

impl Claims {
    /// Claims in `folder`, which need not exist yet. Those that this process takes are dead `stale_after` after their last
    /// heartbeat.
    pub fn new(folder: impl Into<PathBuf>, stale_after: Duration) -> Self {
        Claims(Arc::new(Shared {
            folder: folder.into(),
            stale_after,
            seen: Mutex::default(),
            held: Mutex::default(),
            beats: AtomicBool::new(false),
        }))
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Time without a heartbeat after which this process's claims are dead.
    pub fn stale_after(&self) -> Duration {
        self.0.stale_after
    }

    /// Takes the claim on `key` (part of a file name), unless somebody holds it. `what` tells people what for.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub fn take(&self, key: &str, what: &str) -> Result<Taken> {
        let own = Holder::here(what, self.0.stale_after);
        self.take_as(own, key)
    }

    /// Like [`Claims::take`], for a process described by `own`.
    ///
    /// # Errors
    /// Like [`Claims::take`].
    pub fn take_as(&self, own: Holder, key: &str) -> Result<Taken> {
        loop {
            let last = self.sighting(key)?;
            let generation = match &last {
                None => 0,
                Some(last) if self.is_free(last) => last.generation + 1,
                Some(last) => return Ok(Taken::Held(last.holder.clone())),
            };
            let path = self.path(key, generation);
            if !self.create(&path, &own)? {
                // Somebody was faster. Their claim is new, so it will be seen as held, on some network file systems only after
                // a while.
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            // An old sighting: since then the work was finished, and others began it again.
            let is_same = |last: &Sighting| {
                let now = self.read(key, last.generation).ok().flatten();
                now.is_some_and(|now| now.nonce() == last.nonce())
            };
            if last.as_ref().is_some_and(|last| !is_same(last)) {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            let held = Arc::new(Held {
                next: self.path(key, generation + 1),
                path,
                holder: own,
                lost: AtomicBool::new(false),
            });
            lock(&self.0.held).push(held.clone());
            self.beat();
            return Ok(Taken::Mine(Claim {
                claims: self.clone(),
                key: key.to_owned(),
                generation,
                held,
                finished: false,
            }));
        }
    }

    /// Whether nobody holds the claim on `key`, so that [`Claims::take`] may succeed. Repeated calls notice that the holder gives
    /// no sign of life.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn is_open(&self, key: &str) -> Result<bool> {
        Ok(self.sighting(key)?.is_none_or(|last| self.is_free(&last)))
    }

    /// Takes the claim, waiting as long as others hold it. `waits` hears of each holder once.
    ///
    /// # Errors
    /// Like [`Claims::take`], or if somebody asked the program to stop.
    pub fn wait(&self, key: &str, what: &str, waits: &mut dyn FnMut(&Holder)) -> Result<Claim> {
        let (mut pause, mut told) = (Pause::default(), None);
        loop {
            match self.take(key, what)? {
                Taken::Mine(claim) => return Ok(claim),
                Taken::Held(holder) => {
                    if let Some(holder) = holder.filter(|holder| told != Some(holder.nonce)) {
                        waits(&holder);
                        told = Some(holder.nonce);
                    }
                }
            }
            pause.sleep()?;
        }
    }

    /// Lists the claims that count, by key. A missing folder has none.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Sighting>> {
        let entries = match std::fs::read_dir(&self.0.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at(&self.0.folder)?,
        };
        let mut last: HashMap<String, u32> = HashMap::new();
        for entry in entries {
            let name = entry.at(&self.0.folder)?.file_name();
            let parsed = name.to_str().filter(|name| !name.starts_with('.')).and_then(|name| {
                let (key, generation) = name.rsplit_once('.')?;
                Some((key.to_owned(), generation.parse::<u32>().ok()?))
            });
            if let Some((key, generation)) = parsed {
                let highest = last.entry(key).or_insert(generation);
                *highest = generation.max(*highest);
            }
        }
        let read = |(key, generation): (String, u32)| self.read(&key, generation).transpose();
        let mut claims = last.into_iter().filter_map(read).collect::<Result<Vec<_>>>()?;
        claims.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(claims)
    }

    /// Removes the files of a key whose work is finished, whoever left them.
    pub fn clear(&self, key: &str) {
        for generation in 0.. {
            if std::fs::remove_file(self.path(key, generation)).is_err() {
                break;
            }
        }
    }

    fn path(&self, key: &str, generation: u32) -> PathBuf {
        self.0.folder.join(format!("{key}.{generation}"))
    }

    /// Reads the claim that counts.
    fn sighting(&self, key: &str) -> Result<Option<Sighting>> {
        let mut last = None;
        for generation in 0.. {
            match self.read(key, generation)? {
                Some(found) => last = Some(found),
                None => break,
            }
        }
        Ok(last)
    }

    fn read(&self, key: &str, generation: u32) -> Result<Option<Sighting>> {
        let path = self.path(key, generation);
        // Opening the file makes a network file system ask its server how long the file is.
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.at(&path)?,
        };
        let about = file.metadata().at(&path)?;
        let mut text = Vec::new();
        file.take(LONGEST_LINE).read_to_end(&mut text).at(&path)?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let modified = about.modified().unwrap_or(UNIX_EPOCH);
        Ok(Some(Sighting {
            key: key.to_owned(),
            holder: serde_json::from_slice(line).ok(),
            silent: SystemTime::now().duration_since(modified).unwrap_or_default(),
            generation,
            length: about.len(),
        }))
    }

    /// Whether a claim was given back or is dead. Remembers when its file last changed.
    fn is_free(&self, last: &Sighting) -> bool {
        if last.holder.as_ref().is_some_and(|holder| holder.released || holder.is_gone()) {
            return true;
        }
        let stale_after =
            last.holder.as_ref().map_or(self.0.stale_after.as_secs_f64(), |holder| holder.stale_after);
        let mut seen = lock(&self.0.seen);
        let (generation, nonce, length) = (last.generation, last.nonce(), last.length);
        let now = LastChange { generation, nonce, length, at: Instant::now() };
        let before = seen.entry(last.key.clone()).or_insert_with(|| LastChange { ..now });
        if (before.generation, before.nonce, before.length) != (generation, nonce, length) {
            *before = now;
        }
        before.at.elapsed().as_secs_f64() > stale_after
    }

    /// Creates the file of a claim, complete or not at all. Returns false if it exists.
    fn create(&self, path: &Path, own: &Holder) -> Result<bool> {
        let folder = &self.0.folder;
        let line = format!("{}\n", serde_json::to_string(own).at(path)?);
        let create = || {
            let temporary = folder.join(format!(".{}-{:016x}.tmp", own.process, own.nonce));
            let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            let written = file.write_all(line.as_bytes());
            drop(file);
            let linked = written.and_then(|()| link(&temporary, path));
            let _ = std::fs::remove_file(&temporary);
            linked
        };
        let created = match create() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(folder).at(folder)?;
                create()
            }
            done => done,
        };
        match created {
            // File systems without hard links: the name is still given only once, the line follows.
            Err(error) if is_without_links(&error) => {
                match OpenOptions::new().write(true).create_new(true).open(path) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                    file => file.and_then(|mut file| file.write_all(line.as_bytes())).at(path).map(|()| true),
                }
            }
            done => done.at(path),
        }
    }

    /// Starts the thread of heartbeats.
    fn beat(&self) {
        if self.0.beats.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared = Arc::downgrade(&self.0);
        let pause = (self.0.stale_after / BEATS).min(SLOWEST_BEAT);
        let beating =
            std::thread::Builder::new().name("claims".to_owned()).spawn(move || beats(&shared, pause));
        if beating.is_err() {
            self.0.beats.store(false, Ordering::Relaxed);
        }
    }
}

/// Adds a dot to each held claim until the claims are dropped.
fn beats(shared: &Weak<Shared>, pause: Duration) {
    loop {
        std::thread::sleep(pause);
        let Some(shared) = shared.upgrade() else { return };
        // Held while writing, so that no dot is added to a claim that was given back.
        for held in lock(&shared.held).iter() {
            let dot = || OpenOptions::new().append(true).open(&held.path)?.write_all(b".");
            let gone = dot().is_err_and(|error: io::Error| error.kind() == ErrorKind::NotFound);
            if gone || held.next.exists() {
                held.lost.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Sighting {
    fn nonce(&self) -> u64 {
        self.holder.as_ref().map_or(0, |holder| holder.nonce)
    }

    /// Whether the holder gave the claim back, or is known to be dead without waiting.
    pub fn is_over(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.released || holder.is_gone())
    }
}

/// A claim that this process holds. Dropping it gives it back, its work unfinished.
#[derive(Debug)]
#[must_use = "dropping a claim gives it back"]
pub struct Claim {
    claims: Claims,
    key: String,
    generation: u32,
    held: Arc<Held>,
    finished: bool,
}

impl Claim {
    /// Whether the claim still counts. A process that was stopped for long may find that another took over; it must then not
    /// write its result.
    pub fn is_mine(&self) -> bool {
        let is_there = || {
            let own = self.claims.read(&self.key, self.generation).ok().flatten();
            own.is_some_and(|own| own.nonce() == self.held.holder.nonce)
        };
        let mine = !self.held.lost.load(Ordering::Relaxed) && !self.held.next.exists() && is_there();
        self.held.lost.fetch_or(!mine, Ordering::Relaxed);
        mine
    }

    /// Whether this process took over from one that gave up or died.
    pub fn is_taken_over(&self) -> bool {
        self.generation > 0
    }

    /// Ends the claim because its work is finished: nobody needs to do it again.
    pub fn finish(mut self) {
        self.finished = true;
    }

    /// Gives the claim back in a way that the next process sees.
    fn release(&self) -> io::Result<()> {
        let released = Holder { released: true, ..self.held.holder.clone() };
        let temporary = self.claims.0.folder.join(format!(".{:016x}.tmp", released.nonce));
        std::fs::write(&temporary, format!("{}\n", serde_json::to_string(&released)?))?;
        std::fs::rename(&temporary, &self.held.path).inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims.0.held).retain(|held| !Arc::ptr_eq(held, &self.held));
        if self.finished {
            self.claims.clear(&self.key);
        } else if self.is_mine() {
            // A claim that cannot be given back is dead after a while.
            let _ = self.release();
        }
    }
}

/// Pauses between looks at something that others do: short at first, then up to five seconds.
#[derive(Debug)]
pub struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Pause(Duration::from_millis(20))
    }
}

impl Pause {
    /// Sleeps. Each pause is half as long again as the one before, and up to a quarter longer, so that processes spread out.
    ///
    /// # Errors
    /// If somebody asked the program to stop meanwhile.
    pub fn sleep(&mut self) -> Result<()> {
        let spread = 1.0 + (nonce() % 256) as f64 / 1024.0;
        let start = Instant::now();
        let whole = self.0.mul_f64(spread);
        while start.elapsed() < whole {
            stop::check()?;
            std::thread::sleep(whole.saturating_sub(start.elapsed()).min(Duration::from_millis(200)));
        }
        self.0 = (self.0 * 3 / 2).min(Duration::from_secs(5));
        stop::check()
    }
}

/// Gives a file a second name. Returns false if the name exists.
fn link(from: &Path, to: &Path) -> io::Result<bool> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(has_two_names(from)),
        // An answer of a network file system can get lost after the link was made.
        Err(_) if has_two_names(from) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn has_two_names(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    path.metadata().is_ok_and(|about| about.nlink() > 1)
}

#[cfg(not(unix))]
fn has_two_names(_: &Path) -> bool {
    false
}

/// Whether the file system knows no hard links.
fn is_without_links(error: &io::Error) -> bool {
    // FAT and some FUSE file systems refuse with EPERM, others with ENOSYS, ENOTSUP or EMLINK.
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::TooManyLinks | ErrorKind::PermissionDenied)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that no other claim has.
fn nonce() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns the time at which a process started, in clock ticks, if it runs.
fn start_of(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The program's name, in parentheses, may contain anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    // A zombie has ended; only its parent does not know yet.
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// Identifies this machine since its start, and the space in which process ids are unique.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string());
    match space {
        Ok(space) if !boot.trim().is_empty() => format!("{} {space}", boot.trim()),
        _ => String::new(),
    }
}

/// Name of this machine, or of the node as SLURM calls it.
fn host() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    let own = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    named("SLURMD_NODENAME")
        .or_else(own)
        .or_else(|| named("HOSTNAME"))
        .or_else(|| named("COMPUTERNAME"))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// The job of SLURM that this process belongs to.
fn job() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    match (named("SLURM_ARRAY_JOB_ID"), named("SLURM_ARRAY_TASK_ID"), named("SLURM_JOB_ID")) {
        (Some(array), Some(task), _) => format!("{array}_{task}"),
        (_, _, Some(job)) => job,
        _ => String::new(),
    }
}

/// Returns the error of a folder in which nothing can be claimed, with what follows from it.
pub fn unavailable(folder: &Path, problem: &Error) -> String {
    format!(
        "cannot claim cells in {}: {}; going on alone\n  help: start no second process on this results folder, or make the \
         folder writable",
        folder.display(),
        problem.problem()
    )
}
