//! Silent mistakes made loud: pure functions from what a cell read and computed to findings.
//!
//! ```text
//! observed.rs     an image -> hash, quantiles and classes; a log of every image that was read
//! pixels.rs       pixels against statistics: another unit, another order of the bands
//! names.rs        bands whose names and contents differ
//! duplicates.rs   the same image in two splits, or twice in test
//! labels.rs       one class only, classes that train lacks
//! sizes.rs        partitions of other sizes than the official ones, k above the train set
//! features.rs     features that are constant or that samples share; settings without effect
//! baseline.rs     values below those of plain pixel statistics
//! ```
//!
//! Nothing is read a second time: an image is summarised where it is read for the model, and the cache keeps the summary
//! beside the features, so that cached features give the same findings.

pub mod baseline;
pub mod duplicates;
pub mod features;
pub mod labels;
pub mod names;
pub mod observed;
pub mod pixels;
pub mod sizes;

use std::collections::BTreeMap;
use std::fmt;

use crate::task::Split;
use crate::task::Task;
use crate::transform::normalize::BandStatistics;

use self::observed::Observed;

/// Something that makes a number mislead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub check: Check,
    /// What was expected and what was found, with split, samples and bands.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

/// Which check made a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    ConstantFeatures,
    EqualFeatures,
    SettingWithoutEffect,
    PixelUnit,
    BandOrder,
    BandNames,
    SharedImages,
    DuplicateImages,
    SingleClass,
    AbsentClass,
    PartitionSize,
    Neighbours,
    BelowBaseline,
}

impl Finding {
    /// A finding of `check` with what to do about it.
    pub fn new(check: Check, found: impl ToString, remedy: impl ToString) -> Self {
        Finding { check, found: found.to_string(), remedy: remedy.to_string() }
    }
}

impl fmt::Display for Check {
    /// As in records: `shared-images`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::ConstantFeatures => "constant-features",
            Check::EqualFeatures => "equal-features",
            Check::SettingWithoutEffect => "setting-without-effect",
            Check::PixelUnit => "pixel-unit",
            Check::BandOrder => "band-order",
            Check::BandNames => "band-names",
            Check::SharedImages => "shared-images",
            Check::DuplicateImages => "duplicate-images",
            Check::SingleClass => "single-class",
            Check::AbsentClass => "absent-class",
            Check::PartitionSize => "partition-size",
            Check::Neighbours => "neighbours",
            Check::BelowBaseline => "below-baseline",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  help: {}", self.found, self.remedy)
    }
}

/// What the checks of a cell's data see.
#[derive(Debug)]
pub struct CellData<'a> {
    pub task: &'a Task,
    pub partition: &'a str,
    /// Generated data, whose partitions are small on purpose.
    pub demo: bool,
    /// `as-named` or `by-content`.
    pub band_names: &'a str,
    /// Names of the samples of each split that the protocol uses.
    pub samples: BTreeMap<Split, &'a [String]>,
    /// What was read of them.
    pub observed: &'a BTreeMap<Split, Vec<Option<Observed>>>,
    /// Channels that their own band feeds, neither zeros nor a substitute, and what that band is stored as.
    pub channels: &'a [(usize, &'a str)],
    /// What the pixels are normalised by, one per channel, and what that is called.
    pub in_use: Option<(&'a str, Vec<BandStatistics>)>,
    /// The data set's own statistics of each channel's stored band, where its files hold them.
    pub own: Option<Vec<BandStatistics>>,
    /// Its means of the task's quick-look bands.
    pub quick_look_means: Option<Vec<f64>>,
    /// Neighbours that vote, of k-NN.
    pub k: Option<usize>,
}

/// Everything that the checks of a cell's data find.
pub fn examine(cell: &CellData) -> Vec<Finding> {
    let mut findings = Vec::new();
    let seen = |split| {
        let all: &[Option<Observed>] = cell.observed.get(&split).map_or(&[], Vec::as_slice);
        all.iter().enumerate().filter_map(|(i, seen)| Some((i, seen.as_ref()?)))
    };

    // Train stands for the data; without it whichever split was read.
    let split = Split::ALL.into_iter().find(|split| seen(*split).next().is_some());
    if let Some(split) = split {
        let pooled = pixels::pool(cell.channels, seen(split).map(|(_, seen)| seen.pixels()));
        let unit = cell
            .in_use
            .as_ref()
            .and_then(|(source, statistics)| pixels::unit(cell.task, split, &pooled, source, statistics));
        let order = match (&cell.own, &cell.in_use) {
            (Some(own), _) => pixels::order(split, &pooled, pixels::Source::Own, own),
            (None, Some((source, statistics))) if unit.is_none() => {
                pixels::order(split, &pooled, pixels::Source::Foreign(source), statistics)
            }
            _ => None,
        };
        findings.extend(unit);
        findings.extend(order);
        findings.extend(names::check(cell.task, cell.band_names, &pooled, cell.quick_look_means.as_deref()));
    }

    let hashes: BTreeMap<Split, Vec<(&str, blake3::Hash)>> = cell
        .samples
        .iter()
        .map(|(split, names)| {
            let named =
                seen(*split).filter_map(|(i, seen)| Some((names.get(i)?.as_str(), seen.pixels().hash)));
            (*split, named.collect())
        })
        .collect();
    findings.extend(duplicates::check(&hashes));

    if !cell.demo {
        let classes: BTreeMap<Split, Vec<&[usize]>> = cell
            .samples
            .keys()
            .map(|split| (*split, seen(*split).map(|(_, seen)| seen.classes()).collect()))
            .collect();
        // Numbers have no classes.
        if !cell.task.target.is_numeric() {
            findings.extend(labels::check(&classes, &cell.task.class_labels()));
        }
        let listed = cell.samples.iter().map(|(split, names)| (*split, names.len())).collect();
        findings.extend(sizes::check(cell.task, cell.partition, &listed));
        let train = cell.samples.get(&Split::Train).map_or(0, |names| names.len());
        findings.extend(cell.k.and_then(|k| sizes::neighbours(k, train)));
    }
    findings
}

/// `a, b, c and 4 more`.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 3;
    let names: Vec<&str> = names.into_iter().collect();
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// `1 image`, `2 images`.
fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
