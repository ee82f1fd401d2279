//! What an order comes to: the files the hub lists, how each stands here, and what it costs to bring them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::WORKERS;
use super::catalogue::{Order, Source};
use super::download::part_path;
use super::hub::{Entry, Hub, Repository};
use super::ledger::{self, Line};
use crate::files::inside;
use crate::{Error, Result};

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
        Err(Error::damaged(&self.folder, problem)
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
        Error::network(format!("{}: {}: as the hub lists it, {mismatch}", repository.name, listed.path)).help(
            "the repository's revision is another than the one whose hash is pinned in benchmarks/fetch",
        )
    })?;
    if checksums.identity().is_none() {
        let problem = format!("{}: {}: the hub lists no hash to verify it by", repository.name, listed.path);
        return Err(Error::network(problem).help("pin one in benchmarks/fetch"));
    }
    Ok(Entry { checksums, ..listed.clone() })
}

fn lacking(repository: &Repository, source: &Source, listed: &[Entry]) -> Error {
    let mut names: Vec<&str> = listed.iter().map(|entry| entry.path.as_str()).take(20).collect();
    if listed.len() > names.len() {
        names.push("…");
    }
    let Repository { name, revision, .. } = repository;
    Error::network(format!("{name} has no file `{}` at revision {revision}", source.path))
        .help(format!("it has {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }))
}

/// How `item` stands in `folder`, of which the ledger says `line`.
pub(crate) fn state(
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
