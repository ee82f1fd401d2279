//! Cells that several processes compute on one results folder: each takes the next one that nobody holds.
//!
//! ```text
//! <results>/<suite>/claims/<fingerprint>.<n>      who computes the cell: see `claims`
//!                          failed-<request>.json  why it failed
//!                          plan-<hash>.json       the cells that somebody wants, until all are recorded
//! ```
//!
//! A cell's claim is taken after a look for its record, and the record is looked for again once it is held. A process that
//! finds that its claim was taken over writes nothing.

use std::cell::Cell as Flag;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::claims::{Claim, Claims, Holder, Taken, unavailable};
use crate::error::AtPath;
use crate::files::{remove, write_atomically};
use crate::progress::Progress;
use crate::record::{Cell, fingerprint};
use crate::{Error, Result};

/// Name of the folder of claims in a suite's results.
pub const CLAIMS: &str = "claims";

/// Digits of a request in the name of a failure's file.
const DIGITS: usize = 16;

/// A planned cell, as status needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WantedCell {
    /// The request, equal to the record's ([`crate::record::Record::request`]).
    pub request: String,
    /// The cell.
    pub cell: Cell,
}

/// Why a cell failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// The request of the cell.
    pub request: String,
    /// The cell.
    pub cell: Cell,
    /// The error's text.
    pub error: String,
    /// Where it failed: [`Holder::place`].
    pub place: String,
    /// Time of the failure, Unix time in seconds.
    pub at: u64,
    /// Distinguishes failures of the same cell.
    pub nonce: u64,
}

/// A cell that another process computes.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// The cell's fingerprint.
    pub fingerprint: String,
    /// Who holds it, or the features that it needs; `None` if the claim could not be read.
    pub holder: Option<Holder>,
    claims: Claims,
    key: String,
}

impl Elsewhere {
    pub(super) fn new(fingerprint: &str, holder: Option<Holder>, claims: Claims, key: String) -> Self {
        Elsewhere { fingerprint: fingerprint.to_owned(), holder, claims, key }
    }

    /// Whether nobody holds it any more, so that another attempt makes sense.
    pub fn is_open(&self) -> bool {
        // If the folder cannot be read, the attempt says why.
        self.claims.is_open(&self.key).unwrap_or(true)
    }
}

/// What one process shares with others on a suite's results.
#[derive(Debug)]
pub struct Sharing {
    claims: Claims,
    /// The failures, by request, that were known before this process began: they are tried again.
    old_failures: BTreeMap<String, u64>,
    /// Whether claims turned out to be impossible here.
    alone: Flag<bool>,
}

impl Sharing {
    /// Shares the results in a suite's `folder`; `claims` makes the claims in the folder that it is given.
    pub fn new(folder: &Path, claims: impl FnOnce(PathBuf) -> Claims) -> Self {
        /// What each folder held when this process first looked.
        static FIRST_LOOK: Mutex<BTreeMap<PathBuf, BTreeMap<String, u64>>> = Mutex::new(BTreeMap::new());
        let claims = claims(folder.join(CLAIMS));
        let known = || {
            let failures = failures(claims.folder()).unwrap_or_default().into_iter();
            failures.map(|failure| (failure.request, failure.nonce)).collect()
        };
        let mut first_look = FIRST_LOOK.lock().unwrap_or_else(PoisonError::into_inner);
        let old_failures = first_look.entry(claims.folder().to_owned()).or_insert_with(known).clone();
        drop(first_look);
        Sharing { claims, old_failures, alone: Flag::new(false) }
    }

    /// Returns the claims on cells.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Takes a cell. Where no claims can be made, says so once and returns `None`: the process goes on alone.
    pub(super) fn take(
        &self,
        fingerprint: &str,
        cell: &Cell,
        progress: &dyn Progress,
    ) -> Result<Option<Claim>, Box<Elsewhere>> {
        if self.alone.get() {
            return Ok(None);
        }
        let take = || self.claims.take(fingerprint, &described(cell));
        // Network file systems fail now and then while others write.
        let retried = (0..2).fold(take(), |taken, _| {
            taken.or_else(|_| {
                std::thread::sleep(Duration::from_millis(100));
                take()
            })
        });
        match retried {
            Ok(Taken::Mine(claim)) => Ok(Some(claim)),
            Ok(Taken::Held(holder)) => {
                let (claims, key) = (self.claims.clone(), fingerprint.to_owned());
                Err(Box::new(Elsewhere::new(fingerprint, holder, claims, key)))
            }
            Err(problem) => {
                self.alone.set(true);
                progress.note(&unavailable(self.claims.folder(), &problem));
                Ok(None)
            }
        }
    }

    /// Returns the failure of a cell in another process since this one began.
    pub(super) fn failed_elsewhere(&self, request: &str) -> Option<Error> {
        let text = std::fs::read(self.failure_path(request)).ok()?;
        let failure: Failure = serde_json::from_slice(&text).ok()?;
        let is_new = self.old_failures.get(request) != Some(&failure.nonce);
        (is_new && failure.request == request)
            .then(|| Error::request(format!("failed on {}: {}", failure.place, failure.error)))
    }

    /// Records that a cell failed, so that other processes do not try it too.
    pub(super) fn note_failure(&self, request: &str, cell: &Cell, error: &Error) {
        let own = Holder::here("", self.claims.stale_after());
        let failure = Failure {
            request: request.to_owned(),
            cell: cell.clone(),
            error: error.to_string(),
            place: own.place(),
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            nonce: own.nonce,
        };
        let path = self.failure_path(request);
        // The error itself is reported in any case.
        if let Ok(text) = serde_json::to_vec_pretty(&failure) {
            let _ = write_atomically(&path, &text);
        }
    }

    /// Forgets an earlier failure of a cell that is recorded now.
    pub(super) fn forget_failure(&self, request: &str) {
        if self.old_failures.contains_key(request) {
            let _ = remove(&self.failure_path(request));
        }
    }

    /// Tells `status` which cells are wanted. Returns the file, which [`Sharing::end`] removes.
    pub fn announce(&self, wanted: &[WantedCell]) -> Option<PathBuf> {
        let name = fingerprint(&wanted).ok()?;
        let path = self.claims.folder().join(format!("plan-{}.json", &name[..DIGITS]));
        if !path.is_file() {
            // Only `status` needs it.
            write_atomically(&path, &serde_json::to_vec(wanted).ok()?).ok()?;
        }
        Some(path)
    }

    /// Removes what is left when every wanted cell is recorded.
    pub fn end(&self, plan: &Path, recorded: &[String]) {
        let _ = remove(plan);
        // Workers killed between writing a record and ending their claim leave a claim on a finished cell.
        let left = self.claims.list().unwrap_or_default();
        left.iter()
            .filter(|claim| recorded.contains(&claim.key))
            .for_each(|claim| self.claims.clear(&claim.key));
        // Stays if anything is in it.
        let _ = std::fs::remove_dir(self.claims.folder());
    }

    fn failure_path(&self, request: &str) -> PathBuf {
        self.claims.folder().join(format!("failed-{}.json", request.get(..DIGITS).unwrap_or(request)))
    }
}

/// Names a cell: `m-eurosat 1.00x_train knn TerraFM ViT-B seed 0`.
pub fn described(cell: &Cell) -> String {
    let Cell { suite: _, task, partition, protocol, model, backbone, seed } = cell;
    format!("{task} {partition} {protocol} {model} {backbone} seed {seed}")
}

/// Reads the failures in a folder of claims; a missing folder has none.
///
/// # Errors
/// If the folder cannot be read.
pub fn failures(claims: &Path) -> Result<Vec<Failure>> {
    read_all(claims, "failed-")
}

/// Reads the cells that somebody wants, each once; a missing folder has none.
///
/// # Errors
/// If the folder cannot be read.
pub fn wanted(claims: &Path) -> Result<Vec<WantedCell>> {
    let plans: Vec<Vec<WantedCell>> = read_all(claims, "plan-")?;
    let cells: BTreeMap<String, WantedCell> =
        plans.into_iter().flatten().map(|wanted| (wanted.request.clone(), wanted)).collect();
    Ok(cells.into_values().collect())
}

/// Reads the JSON files whose names begin with `prefix`. Skips what cannot be read: others write here.
fn read_all<T: for<'d> Deserialize<'d>>(folder: &Path, prefix: &str) -> Result<Vec<T>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at(folder)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.at(folder)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".json") {
            names.push(name);
        }
    }
    names.sort();
    let read = |name: &String| serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok();
    Ok(names.iter().filter_map(read).collect())
}
