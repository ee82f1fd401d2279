//! Compares an order with the hub and the local folder: which files there are, their state, and the cost of
//! fetching them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::WORKERS;
use super::catalogue::{Order, Source};
use super::download::part_path;
use super::hub::{About, Entry, Hub, Kind, Repository};
use super::ledger::{self, Line};
use crate::files::inside;
use crate::{Error, Result};

/// An order compared with the hub and the local folder, before anything is fetched.
#[derive(Debug)]
pub struct Survey {
    /// Name in prose.
    pub title: String,
    /// The repository at the commit that the order's revision resolves to.
    pub repository: Repository,
    /// The licence on the repository's card.
    pub licence: Option<String>,
    /// Where to find the licences of the parts.
    pub licences: Option<String>,
    /// Destination folder.
    pub folder: PathBuf,
    /// Tasks (or the model).
    pub parts: Vec<SurveyedPart>,
    expansion: f64,
}

/// A task (or model) of a survey.
#[derive(Debug)]
pub struct SurveyedPart {
    /// Name of the task, or of the model's file.
    pub name: String,
    /// Licence of its data, if known.
    pub licence: Option<String>,
    /// Its files; empty if an earlier part brings the same ones.
    pub items: Vec<FetchItem>,
}

/// A file of the hub and its local state.
#[derive(Debug)]
pub struct FetchItem {
    /// The file on the hub.
    pub entry: Entry,
    /// Path in the folder.
    pub to: String,
    /// The folder it unpacks to, for an archive.
    pub unpack: Option<String>,
    /// Its local state.
    pub state: State,
}

/// The local state of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was fetched, and all of it is still here.
    Here,
    /// The folder it would unpack to exists but was not created by this program; it is left unchanged.
    Foreign,
    /// A file of the same size exists and must be hashed.
    Unchecked,
    /// The hub's local cache has it at this path.
    Cached(PathBuf),
    /// It must be fetched; `part` bytes are already here.
    Missing {
        /// Bytes that are already in the part file.
        part: u64,
    },
}

impl FetchItem {
    /// Returns the number of bytes to download.
    pub fn to_fetch(&self) -> u64 {
        match self.state {
            State::Missing { part } => self.entry.size.saturating_sub(part),
            _ => 0,
        }
    }
}

impl Survey {
    /// Asks the hub for the files in `order` and checks their state in `folder`. Writes nothing.
    ///
    /// # Errors
    /// If the hub cannot be reached or refuses, a file is missing, or a hash differs from the pinned one.
    pub fn take(hub: &Hub, order: &Order, folder: &Path) -> Result<Self> {
        let (about, listed) = match order.repository.kind {
            Kind::Web => (About { commit: String::new(), licence: None }, linked(hub, order)?),
            Kind::Model | Kind::Dataset => {
                let about = hub.about(&order.repository)?;
                let repository = Repository { revision: about.commit.clone(), ..order.repository.clone() };
                let listed = hub.list(&repository)?;
                (about, listed)
            }
        };
        let repository = Repository { revision: about.commit, ..order.repository.clone() };
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
                    // Names from the hub become local paths.
                    inside(folder, &to)?;
                    if !seen.insert(to.clone()) {
                        continue;
                    }
                    let entry = pinned(&repository, source, entry)?;
                    let mut item = FetchItem {
                        entry,
                        to,
                        unpack: source.unpack.clone(),
                        state: State::Missing { part: 0 },
                    };
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

    /// Iterates over all files.
    pub fn items(&self) -> impl Iterator<Item = &FetchItem> {
        self.parts.iter().flat_map(|part| &part.items)
    }

    /// Returns the number of bytes to download.
    pub fn to_fetch(&self) -> u64 {
        self.items().map(FetchItem::to_fetch).sum()
    }

    /// Estimates the peak disk use in bytes: archives are removed once unpacked, unless they are kept.
    pub fn disk(&self, keep: bool) -> u64 {
        let busy = |item: &&FetchItem| !matches!(item.state, State::Here | State::Foreign);
        let mut archives: Vec<u64> = Vec::new();
        let mut stays = 0u64;
        for item in self.items().filter(busy) {
            match item.unpack {
                Some(_) => {
                    archives.push(item.to_fetch());
                    // Rounded up; file sizes are far below 2^53, up to which f64 is exact.
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

    fn part_of(&self, item: &FetchItem) -> u64 {
        match item.state {
            State::Missing { part } => part.min(item.entry.size),
            _ => 0,
        }
    }

    /// Checks that everything fits on a disk with `free` bytes.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn fits(&self, free: u64, keep: bool) -> Result<()> {
        let needed = self.disk(keep);
        if needed <= free {
            return Ok(());
        }
        let problem =
            format!("about {} are needed here, but only {} are free", gigabytes(needed), gigabytes(free));
        Err(Error::damaged(&self.folder, problem)
            .help("free some space, choose another folder, or fetch one task at a time (--task)"))
    }
}

/// Formats a number of bytes, such as `8.4 GB`.
pub fn gigabytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// Lists the files of an order that are not on the hub, with what is known about them. Without a known hash, a file is
/// verified by its size alone.
fn linked(hub: &Hub, order: &Order) -> Result<Vec<Entry>> {
    let sources = order.parts.iter().flat_map(|part| &part.sources);
    let entry = |source: &Source| {
        let size = match source.size {
            Some(size) => size,
            None => hub.size(&order.repository, &source.path)?,
        };
        Ok(Entry { path: source.path.clone(), size, checksums: source.checksums() })
    };
    sources.map(entry).collect()
}

/// Adds the pinned hashes to a listed file.
fn pinned(repository: &Repository, source: &Source, listed: &Entry) -> Result<Entry> {
    if repository.kind == Kind::Web {
        return Ok(listed.clone());
    }
    let checksums = source.checksums().and(&listed.checksums).map_err(|mismatch| {
        Error::network(format!("{}: {}: in the hub's listing: {mismatch}", repository.name, listed.path))
            .help("the repository's revision differs from the one whose hash is pinned in benchmarks/fetch")
    })?;
    if checksums.identity().is_none() {
        let problem =
            format!("{}: {}: the hub lists no hash to verify it with", repository.name, listed.path);
        return Err(Error::network(problem).help("pin a hash in benchmarks/fetch"));
    }
    Ok(Entry { checksums, ..listed.clone() })
}

fn lacking(repository: &Repository, source: &Source, listed: &[Entry]) -> Error {
    let mut names: Vec<&str> = listed.iter().map(|entry| entry.path.as_str()).take(20).collect();
    if listed.len() > names.len() {
        names.push("…");
    }
    let Repository { name, revision, .. } = repository;
    Error::network(format!("{name} has no file `{}` at revision {revision}", source.path)).help(format!(
        "available files: {}",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    ))
}

/// Determines the state of `item` in `folder`; `line` is its line in the ledger.
pub(crate) fn state(
    hub: &Hub,
    repository: &Repository,
    folder: &Path,
    item: &FetchItem,
    line: Option<&Line>,
) -> Result<State> {
    let identity = item.entry.checksums.identity();
    let same = line.is_some_and(|line| {
        identity.as_ref().is_none_or(|identity| *identity == line.checksum) && line.complete(folder)
    });
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
