//! How far the cells of a suite's results are, from records, claims, failures and plans alone.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::sharing::{CLAIMS, Failure, described, failures, wanted};
use crate::Result;
use crate::claims::{Claims, STALE_AFTER};
use crate::record::{Cell, Store};

/// How far a suite's results are.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// The suite's folder.
    pub folder: PathBuf,
    /// Number of records that belong to a plan that is under way, or of all records if none is.
    pub done: usize,
    /// Number of all records.
    pub records: usize,
    /// Cells, extractions and downloads that processes hold.
    pub running: Vec<Running>,
    /// Cells that failed and are not recorded.
    pub failed: Vec<Failure>,
    /// Cells that are neither recorded nor running nor failed.
    pub to_do: Vec<Cell>,
    /// Seconds until all is recorded if as many work as now, from the times of recorded cells; `None` if unknown.
    pub seconds_left: Option<f64>,
    /// Files among the records that cannot be read.
    pub unreadable: usize,
}

/// Something that a process works on.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Running {
    /// What it works on.
    pub what: String,
    /// Where: machine, job and process.
    pub place: String,
    /// Seconds since it began.
    pub seconds: f64,
    /// Seconds until its end, from the times of recorded cells of the same protocol; `None` if unknown.
    pub seconds_left: Option<f64>,
    /// Whether its process is known to have ended, or gives no sign of life for too long.
    pub is_dead: bool,
    /// Seconds since the last sign of life.
    pub silent: f64,
}

/// What status needs of a record.
#[derive(Deserialize)]
struct RecordHead {
    fingerprint: String,
    #[serde(default)]
    request: String,
    cell: Cell,
    provenance: Time,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Time {
    wall_seconds: f64,
}

impl Status {
    /// Reads how far the results in a suite's folder are.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn of(folder: &Path) -> Result<Self> {
        let claims = Claims::new(folder.join(CLAIMS), STALE_AFTER);
        // Claims before records: a cell that ends meanwhile is then recorded, not lost.
        let (held, failed, wanted) = (claims.list()?, failures(claims.folder())?, wanted(claims.folder())?);
        let (heads, unreadable) = heads(folder)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let times = Times::of(&heads);
        let by_request: HashMap<&str, &RecordHead> =
            heads.iter().map(|head| (head.request.as_str(), head)).collect();
        let by_fingerprint: HashMap<&str, &RecordHead> =
            heads.iter().map(|head| (head.fingerprint.as_str(), head)).collect();
        let cells: BTreeMap<String, &Cell> =
            wanted.iter().map(|wanted| (described(&wanted.cell), &wanted.cell)).collect();

        let mut running = Vec::new();
        for claim in &held {
            let Some(holder) = claim.holder.as_ref().filter(|holder| !holder.released) else { continue };
            if by_fingerprint.contains_key(claim.key.as_str()) {
                continue;
            }
            let seconds = now.saturating_sub(Duration::from_secs(holder.since)).as_secs_f64();
            let usual = cells.get(&holder.what).and_then(|cell| times.usual(cell));
            running.push(Running {
                what: holder.what.clone(),
                place: holder.place(),
                seconds,
                seconds_left: usual.map(|usual| (usual - seconds).max(0.0)),
                is_dead: holder.is_gone() || claim.silent.as_secs_f64() > holder.stale_after,
                silent: claim.silent.as_secs_f64(),
            });
        }
        let failed: Vec<Failure> =
            failed.into_iter().filter(|failure| !by_request.contains_key(failure.request.as_str())).collect();
        let is_running = |cell: &Cell| {
            let name = described(cell);
            running.iter().any(|running| !running.is_dead && running.what == name)
        };
        let has_failed = |request: &str| failed.iter().any(|failure| failure.request == request);
        let (mut done, mut to_do) = (0, Vec::new());
        for wanted in &wanted {
            match by_request.contains_key(wanted.request.as_str()) {
                true => done += 1,
                false if has_failed(&wanted.request) || is_running(&wanted.cell) => {}
                false => to_do.push(wanted.cell.clone()),
            }
        }
        to_do.sort();
        if wanted.is_empty() {
            done = heads.len();
        }
        let workers = running.iter().filter(|running| !running.is_dead).count();
        let of_running: Option<f64> = running
            .iter()
            .filter(|running| !running.is_dead && cells.contains_key(&running.what))
            .map(|running| running.seconds_left)
            .sum();
        let of_rest: Option<f64> = to_do.iter().map(|cell| times.usual(cell)).sum();
        let left = of_running.zip(of_rest).map(|(running, rest)| running + rest);
        Ok(Status {
            folder: folder.to_owned(),
            done,
            records: heads.len(),
            seconds_left: left.filter(|_| workers > 0).map(|left| left / workers as f64),
            running,
            failed,
            to_do,
            unreadable,
        })
    }

    /// Whether nothing is left to do and nobody works.
    pub fn is_over(&self) -> bool {
        self.to_do.is_empty() && self.running.iter().all(|running| running.is_dead)
    }
}

/// The usual times of cells, in seconds.
struct Times {
    by_task: HashMap<(String, String, String), f64>,
    by_protocol: HashMap<String, f64>,
}

impl Times {
    fn of(heads: &[RecordHead]) -> Self {
        let mut by_task: HashMap<_, Vec<f64>> = HashMap::new();
        let mut by_protocol: HashMap<_, Vec<f64>> = HashMap::new();
        for RecordHead { cell, provenance, .. } in heads {
            let seconds = provenance.wall_seconds;
            let key = (cell.task.clone(), cell.partition.clone(), cell.protocol.clone());
            by_task.entry(key).or_default().push(seconds);
            by_protocol.entry(cell.protocol.clone()).or_default().push(seconds);
        }
        Times { by_task: medians(by_task), by_protocol: medians(by_protocol) }
    }

    /// The median of recorded cells of the same task, partition and protocol, else of the same protocol.
    fn usual(&self, cell: &Cell) -> Option<f64> {
        let key = (cell.task.clone(), cell.partition.clone(), cell.protocol.clone());
        self.by_task.get(&key).or_else(|| self.by_protocol.get(&cell.protocol)).copied()
    }
}

fn medians<K: std::hash::Hash + Eq>(times: HashMap<K, Vec<f64>>) -> HashMap<K, f64> {
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.into_iter().map(|(key, times)| (key, median(times))).collect()
}

/// Reads the heads of all records, and counts the files that are none.
fn heads(folder: &Path) -> Result<(Vec<RecordHead>, usize)> {
    let Some(store) = Store::existing(folder) else { return Ok((Vec::new(), 0)) };
    let names = store.file_names()?;
    let read = |name: &String| -> Option<RecordHead> {
        serde_json::from_slice(&std::fs::read(store.folder().join(name)).ok()?).ok()
    };
    let heads: Vec<RecordHead> = names.par_iter().filter_map(read).collect();
    let unreadable = names.len() - heads.len();
    Ok((heads, unreadable))
}
