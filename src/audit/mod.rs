//! Detects silent mistakes: pure functions from what a cell read and computed to findings.
//!
//! ```text
//! observed.rs     an image -> hash, quantiles and classes; a log of every image read
//! pixels.rs       pixels against statistics: wrong unit, wrong order of the bands
//! names.rs        bands whose names contradict their contents
//! quirks.rs       known defects of a data set that the pixels show
//! duplicates.rs   the same image in two splits, or twice in test
//! labels.rs       only one class, classes that train lacks
//! sizes.rs        partitions of unofficial size, k larger than the train split
//! features.rs     features that are constant or shared by samples; settings without effect
//! baseline.rs     scores below those of plain pixel statistics
//! ```
//!
//! No file is read twice: an image is summarised when it is read for the model, and the cache stores the summary beside the
//! features, so that cached features give the same findings.

pub(crate) mod baseline;
pub(crate) mod duplicates;
pub mod features;
pub(crate) mod labels;
pub(crate) mod names;
pub mod observed;
pub(crate) mod pixels;
pub(crate) mod quirks;
pub(crate) mod sizes;

use std::collections::BTreeMap;
use std::fmt;

use crate::task::Split;
use crate::task::Task;
use crate::transform::normalize::BandStatistics;

use self::observed::Observed;

/// A reason why a number may mislead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check that made it.
    pub check: Check,
    /// What was expected and what was found, with split, samples and bands.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

/// The check that made a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Features that are the same, or nearly the same, for all samples.
    ConstantFeatures,
    /// Test features that equal another sample's.
    EqualFeatures,
    /// A setting that does not change the features.
    SettingWithoutEffect,
    /// Pixels in a different unit than the statistics that normalise them.
    PixelUnit,
    /// Band means that contradict the statistics.
    BandOrder,
    /// Bands whose names contradict their contents.
    BandNames,
    /// A known defect of the data set or of the benchmark's code.
    KnownDefect,
    /// Images that two splits share.
    SharedImages,
    /// Images that occur more than once in test.
    DuplicateImages,
    /// A train split with a single class.
    SingleClass,
    /// Test classes that train lacks.
    AbsentClass,
    /// Splits of unofficial size.
    PartitionSize,
    /// A k of k-NN that exceeds the number of train samples.
    Neighbours,
    /// A score below that of plain pixel statistics.
    BelowBaseline,
}

impl Finding {
    /// Creates a finding of `check` with a remedy.
    pub fn new(check: Check, found: impl ToString, remedy: impl ToString) -> Self {
        Finding { check, found: found.to_string(), remedy: remedy.to_string() }
    }
}

impl fmt::Display for Check {
    /// Formats the name as in records: `shared-images`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::ConstantFeatures => "constant-features",
            Check::EqualFeatures => "equal-features",
            Check::SettingWithoutEffect => "setting-without-effect",
            Check::PixelUnit => "pixel-unit",
            Check::BandOrder => "band-order",
            Check::BandNames => "band-names",
            Check::KnownDefect => "known-defect",
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

/// The input of the checks of a cell's data.
#[derive(Debug)]
pub struct CellData<'a> {
    /// The task of the cell.
    pub task: &'a Task,
    /// The training partition.
    pub partition: &'a str,
    /// Whether the data are generated; their partitions are small on purpose.
    pub demo: bool,
    /// How bands are selected: `as-named` or `by-content`.
    pub band_names: &'a str,
    /// Names of the samples that the protocol uses, by split.
    pub samples: BTreeMap<Split, &'a [String]>,
    /// Summaries of these samples, as far as they were read.
    pub observed: &'a BTreeMap<Split, Vec<Option<Observed>>>,
    /// Channels that are fed by their own band instead of zeros or a substitute, with the name of the stored band.
    pub channels: &'a [(usize, &'a str)],
    /// Statistics that normalise the pixels, one per channel, with their name.
    pub in_use: Option<(&'a str, Vec<BandStatistics>)>,
    /// The dataset's own statistics of each channel's stored band, if its files contain them.
    pub own: Option<Vec<BandStatistics>>,
    /// The dataset's own means of the task's quick-look bands.
    pub quick_look_means: Option<Vec<f64>>,
    /// Number of voting neighbours, for k-NN.
    pub k: Option<usize>,
}

/// Runs all checks of a cell's data.
pub fn examine(cell: &CellData) -> Vec<Finding> {
    let mut findings = Vec::new();
    let seen = |split| {
        let all: &[Option<Observed>] = cell.observed.get(&split).map_or(&[], Vec::as_slice);
        all.iter().enumerate().filter_map(|(i, seen)| Some((i, seen.as_ref()?)))
    };

    // Train represents the data; otherwise use whichever split was read.
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
        let images = seen(split).map(|(_, seen)| seen.pixels());
        let is_normalized = cell.in_use.is_some();
        findings.extend(quirks::check(cell.task, cell.band_names, &pooled, images, is_normalized));
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

/// Formats a list as `a, b, c and 4 more`.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 3;
    let names: Vec<&str> = names.into_iter().collect();
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Formats a count as `1 image`, `2 images`.
fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
