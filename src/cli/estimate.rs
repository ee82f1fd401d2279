//! How long a run may take, and how much disk it may need: for `bench --dry-run`, and to stop before a run that cannot fit.
//!
//! Hours come from the times in earlier records of the same model on the same device; without such records they are unknown.
//! Gigabytes are upper bounds from the samples' number and the model's sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::fetch::gigabytes;
use crate::home::cache_folder;
use crate::locations::free_space;
use crate::model::Architecture;
use crate::protocol::Needs;
use crate::record::{Record, Store};
use crate::run::plan::{PlannedCell, TaskPlan};
use crate::run::{Runner, Setting};
use crate::task::{Split, TargetKind, Task};
use crate::{Error, Result};

/// With more free bytes on both disks, no run is measured before it starts: opening every task takes time.
const AMPLE: u64 = 50_000_000_000;

/// Bytes of a number.
const NUMBER: u64 = 4;

/// Bytes per cached image besides its feature: name, label, hash, a summary of each band.
const CACHED_BESIDE: u64 = 2_000;

/// Bytes per predicted image besides its scores: name, label.
const PREDICTED_BESIDE: u64 = 200;

/// Copies of a model's parameters in a snapshot: the network, two moments of the optimiser, the best network so far.
const COPIES: u64 = 4;

/// Bytes of a record, of its picture and of its share of the tables.
const RECORD: u64 = 1_000_000;

/// An amount, and in how many cases it is unknown.
#[derive(Debug, Clone, Copy, Default)]
struct Amount<T> {
    known: T,
    unknown: usize,
}

/// What is left to do, and what it takes.
#[derive(Debug)]
pub(super) struct Estimate {
    planned: usize,
    /// Cells without a record, as `m-eurosat default knn seed 0: about 2 minutes`.
    left: Vec<String>,
    seconds: Amount<f64>,
    cache: Amount<u64>,
    scratch: u64,
    predictions: Amount<u64>,
    snapshots: Amount<u64>,
    results_folder: PathBuf,
    cache_folder: Option<PathBuf>,
    is_complete: bool,
}

/// Estimates what is left of a run. With `always` false it does so only if little disk space is left.
///
/// # Errors
/// If records cannot be read.
pub(super) fn of(
    runner: &Runner,
    setting: &Setting,
    plans: &[TaskPlan],
    store: &Store,
    results_folder: &Path,
    always: bool,
) -> Result<Estimate> {
    let cache_folder = match &setting.cache {
        Some(cache) => Some(cache.folder().to_owned()),
        None => cache_folder().ok(),
    };
    let mut estimate = Estimate {
        planned: plans.iter().map(|plan| plan.cells.len()).sum(),
        left: Vec::new(),
        seconds: Amount::default(),
        cache: Amount::default(),
        scratch: 0,
        predictions: Amount::default(),
        snapshots: Amount::default(),
        results_folder: results_folder.to_owned(),
        cache_folder,
        is_complete: false,
    };
    let folders = std::iter::once(&estimate.results_folder).chain(&estimate.cache_folder);
    let least = folders.filter_map(|folder| free_space(folder).ok()).min();
    if !always && least.is_none_or(|free| free >= AMPLE) {
        return Ok(estimate);
    }
    estimate.is_complete = true;
    let records = store.usable()?.records;
    let done: BTreeSet<&str> = records.iter().map(|record| record.request.as_str()).collect();
    for plan in plans {
        estimate.add_task(runner, setting, plan, &records, &done)?;
    }
    Ok(estimate)
}

/// What is known of a task's samples.
struct TaskSize {
    /// Images per split.
    images: BTreeMap<Split, u64>,
    /// Length of a pooled feature; `None` if only the encoder knows it.
    width: Option<u64>,
    side: u64,
    strategies: u64,
}

impl TaskSize {
    fn all(&self) -> u64 {
        self.images.values().sum()
    }

    fn test(&self) -> u64 {
        self.images.get(&Split::Test).copied().unwrap_or(0)
    }
}

impl Estimate {
    fn add_task(
        &mut self,
        runner: &Runner,
        setting: &Setting,
        plan: &TaskPlan,
        records: &[Record],
        done: &BTreeSet<&str>,
    ) -> Result<()> {
        let task = &plan.task;
        let mut sizes: BTreeMap<&str, Option<TaskSize>> = BTreeMap::new();
        // Partitions share features: the largest holds most of them.
        let (mut cached, mut cached_unknown, mut maps) = (0, false, 0);
        for planned in &plan.cells {
            let cell = &planned.cell;
            if !setting.fresh && done.contains(runner.request(task, planned)?.as_str()) {
                continue;
            }
            let size = sizes
                .entry(&cell.partition)
                .or_insert_with(|| size_of(runner, setting, task, &cell.partition));
            let images = size.as_ref().map(TaskSize::all);
            let seconds = seconds(planned, setting, records, images);
            match seconds {
                Some(seconds) => self.seconds.known += seconds,
                None => self.seconds.unknown += 1,
            }
            let time =
                seconds.map_or("time unknown".to_owned(), |seconds| format!("about {}", duration(seconds)));
            let amount = images.map_or("samples unknown".to_owned(), |images| format!("{images} samples"));
            self.left.push(format!(
                "{} {} {} seed {}: {amount}, {time}",
                cell.task, cell.partition, cell.protocol, cell.seed
            ));
            match size {
                Some(size) => self.predictions.known += predictions(task, size) + RECORD,
                None => self.predictions.unknown += 1,
            }
            let needs = planned.protocol.needs();
            match (needs, size) {
                (Needs::Pooled, Some(size)) if setting.cache.is_some() && setting.vectors.is_none() => {
                    match size.width {
                        Some(width) => {
                            let bytes = size.all() * size.strategies * (width * NUMBER + CACHED_BESIDE);
                            cached = bytes.max(cached);
                        }
                        None => cached_unknown = true,
                    }
                }
                (Needs::Pooled, None) => cached_unknown = true,
                (Needs::Maps, Some(size)) => maps = map_bytes(setting, size).max(maps),
                _ => {}
            }
            if needs.trains_encoder() {
                match parameters(setting) {
                    Some(parameters) => {
                        // One cell at a time; removed with its record.
                        self.snapshots.known = self.snapshots.known.max(parameters * NUMBER * COPIES);
                    }
                    None => self.snapshots.unknown += 1,
                }
            }
        }
        self.cache.known += cached;
        self.cache.unknown += usize::from(cached_unknown);
        // The file of maps lives as long as the cell.
        self.scratch = self.scratch.max(maps.saturating_sub(setting.cache_limit));
        Ok(())
    }

    /// Checks that what is written fits on the disks.
    ///
    /// # Errors
    /// If less is free than the run may need.
    pub(super) fn check_space(&self) -> Result<()> {
        if !self.is_complete {
            return Ok(());
        }
        let results = self.predictions.known + self.snapshots.known;
        let cache = self.cache.known + self.scratch;
        let free = free_space(&self.results_folder)?;
        let Some(cache_folder) = self.cache_folder.as_deref().filter(|_| cache > 0) else {
            return enough(&self.results_folder, free, results, "--out");
        };
        let free_for_cache = free_space(cache_folder)?;
        enough(&self.results_folder, free, results, "--out")?;
        enough(cache_folder, free_for_cache, cache, "TERRABENCH_CACHE, or pass --no-cache")?;
        // The same number of free bytes means one disk, or two of no interest.
        match free == free_for_cache {
            true => enough(&self.results_folder, free, results + cache, "--out"),
            false => Ok(()),
        }
    }
}

fn enough(folder: &Path, free: u64, needed: u64, elsewhere: &str) -> Result<()> {
    if needed <= free {
        return Ok(());
    }
    let problem = format!(
        "the run may write up to {}, but only {} are free (`bench --dry-run` lists what it writes)",
        gigabytes(needed),
        gigabytes(free)
    );
    Err(Error::io(folder, problem)
        .help(format!("free some space, or choose another folder with {elsewhere}")))
}

/// Opens a task's files; `None` if they are missing or cannot be read, which the run itself reports.
fn size_of(runner: &Runner, setting: &Setting, task: &Task, partition: &str) -> Option<TaskSize> {
    let input = runner.input(task, partition).ok()?;
    let images =
        Split::ALL.iter().map(|split| (*split, input.dataset.samples(*split).len() as u64)).collect();
    let width = network(setting).map(|network| input.spec().width(&network) as u64);
    let width = width.filter(|width| *width > 0);
    Some(TaskSize {
        images,
        width,
        side: input.image_size() as u64,
        strategies: input.strategies.len() as u64,
    })
}

/// Builds the network without weights, which are drawn only when they are used.
fn network(setting: &Setting) -> Option<Architecture> {
    Architecture::new(&setting.model.architecture, &setting.model.sensors, &setting.device).ok()
}

fn parameters(setting: &Setting) -> Option<u64> {
    let parameters = network(setting)?.parameters();
    Some(parameters.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum())
}

/// Bytes of the feature maps of all images.
fn map_bytes(setting: &Setting, size: &TaskSize) -> u64 {
    let levels = setting.model.architecture.maps();
    let of_image = levels.iter().map(|level| {
        let side = size.side.div_ceil((level.stride as u64).max(1));
        level.width as u64 * side * side * NUMBER
    });
    size.all() * of_image.sum::<u64>()
}

/// Bytes of a cell's predictions.
fn predictions(task: &Task, size: &TaskSize) -> u64 {
    let of_image = match task.target {
        TargetKind::Class | TargetKind::Labels => 2 * task.classes as u64 * NUMBER,
        TargetKind::Value => 2 * NUMBER,
        // Label and prediction of each pixel; masks have the size of stored images, which is close to the input's.
        TargetKind::Mask | TargetKind::ValueMap => 2 * size.side * size.side * NUMBER,
    };
    size.test() * (of_image + PREDICTED_BESIDE)
}

/// Seconds that the cell took in the latest record of the same task, or as long per sample as in another of its protocol.
fn seconds(planned: &PlannedCell, setting: &Setting, records: &[Record], images: Option<u64>) -> Option<f64> {
    let cell = &planned.cell;
    let of_model = |record: &&Record| {
        (&record.cell.model, &record.cell.backbone, &record.cell.protocol)
            == (&cell.model, &cell.backbone, &cell.protocol)
            && record.provenance.device == setting.device_name
            && record.short == planned.protocol.is_short()
    };
    let alike = || records.iter().filter(of_model);
    let latest = |record: &&Record| record.provenance.finished;
    let of_task =
        alike().filter(|record| (&record.cell.task, &record.cell.partition) == (&cell.task, &cell.partition));
    if let Some(record) = of_task.max_by_key(latest) {
        return Some(record.provenance.wall_seconds);
    }
    let record = alike().max_by_key(latest)?;
    let samples: usize = record.samples.values().sum();
    Some(record.provenance.wall_seconds / (samples.max(1) as f64) * images? as f64)
}

/// Formats as `40 seconds`, `12 minutes`, `3.5 hours`.
fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 90.0 => format!("{seconds:.0} seconds"),
        _ if seconds < 5400.0 => format!("{:.0} minutes", seconds / 60.0),
        _ => format!("{:.1} hours", seconds / 3600.0),
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cell in &self.left {
            writeln!(f, "{cell}")?;
        }
        writeln!(f, "\ncells: {}, of which {} are left", self.planned, self.left.len())?;
        let unknown = |count: usize, what: &str| match count {
            0 => String::new(),
            _ => format!(" and {count} {what} of unknown size"),
        };
        let timed = self.left.len() - self.seconds.unknown;
        match timed {
            0 if self.left.is_empty() => writeln!(f, "time: none")?,
            0 => writeln!(
                f,
                "time: unknown; no earlier record of this model, protocol and device says how fast it is"
            )?,
            _ => {
                let rest = match self.seconds.unknown {
                    0 => String::new(),
                    rest => format!("; unknown for {rest} cells"),
                };
                let hours = self.seconds.known / 3600.0;
                writeln!(f, "time: {hours:.2} hours for {timed} cells, as long as in earlier records{rest}")?;
            }
        }
        let predictions = gigabytes(self.predictions.known);
        let more = unknown(self.predictions.unknown, "cells");
        writeln!(f, "records and predictions: up to {predictions}{more}")?;
        let more = unknown(self.snapshots.unknown, "cells");
        writeln!(f, "snapshots of a training: up to {}{more}", gigabytes(self.snapshots.known))?;
        let more = unknown(self.cache.unknown, "tasks");
        writeln!(f, "feature cache: up to {}{more}", gigabytes(self.cache.known))?;
        if self.scratch > 0 {
            writeln!(f, "file of feature maps during a cell: up to {}", gigabytes(self.scratch))?;
        }
        let folders = [("results", Some(&self.results_folder)), ("cache", self.cache_folder.as_ref())];
        for (name, folder) in folders {
            let Some(folder) = folder else { continue };
            let free = free_space(folder).map_or("unknown".to_owned(), gigabytes);
            writeln!(f, "free for {name} ({}): {free}", folder.display())?;
        }
        Ok(())
    }
}
