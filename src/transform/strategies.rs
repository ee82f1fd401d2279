//! Normalisation strategies by name: which statistics to use, with which multiplier, and in which arithmetic. Galileo's
//! evaluation sweeps over a list of them [nasaharvest/galileo, src/eval/datasets/normalize.py].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use crate::home::{Home, read_toml};
use crate::task::bands::Band;
use crate::task::{Sensor, Sensors, images};
use crate::transform::bandspec::{BandRange, BandspecKind};
use crate::transform::normalize::{BandStatistics, Normalization, NormalizationKind};
use crate::{Error, Result};

/// Source of statistics that stands for the current dataset.
pub const DATASET: &str = "dataset";

/// Value of `--normalization` that stands for the task's choice, or else the suite's.
pub const DEFAULT: &str = "default";

/// Value of `--normalization` that stands for the whole list of strategies.
pub const SWEEP: &str = "sweep";

/// Normalisation that leaves pixels as they are, as models have it that take stored pixels.
pub const NONE: &str = "none";

/// torchgeo-bench's default: see [`Strategy::Bandspec`].
pub const BANDSPEC_ZSCORE: &str = "bandspec_zscore";

/// One normalisation strategy.
#[derive(Debug, Clone, PartialEq)]
pub enum Strategy {
    /// x / 8160, clipped to 0..1.
    Satlas,
    /// x unchanged.
    None,
    /// Uses the fixed statistics of each stored band of a task, as torchgeo-bench does.
    Bandspec(BandspecKind),
    /// Uses statistics, with standard deviations multiplied by `multiplier`.
    Statistics {
        /// [`DATASET`] or the name of known statistics.
        source: String,
        /// Factor of the standard deviations, above 0.
        multiplier: f64,
        /// Any kind except [`NormalizationKind::Satlas`].
        kind: NormalizationKind,
    },
}

impl fmt::Display for Strategy {
    /// Formats the name: `OURS-2.0-norm_no_clip`, `satlas`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strategy::Satlas => NormalizationKind::Satlas.fmt(f),
            Strategy::None => f.write_str(NONE),
            Strategy::Bandspec(kind) => kind.fmt(f),
            Strategy::Statistics { source, multiplier, kind } => write!(f, "{source}-{multiplier:?}-{kind}"),
        }
    }
}

/// The sweep and the statistics it uses (`configs/normalization.toml`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Strategies {
    multipliers: Vec<f64>,
    sweep: SweepLists,
    /// By source and band.
    statistics: BTreeMap<String, BTreeMap<Band, BandStatistics>>,
    /// By source, date and band, where they differ between the dates of a sample.
    #[serde(default)]
    dated: BTreeMap<String, BTreeMap<String, BTreeMap<Band, BandStatistics>>>,
    /// torchgeo-bench's, by task and stored band, in stored units.
    #[serde(default)]
    bandspec: BTreeMap<String, BTreeMap<String, BandRange>>,
}

/// The stored bands behind the channels of a model's input, for statistics by stored band.
#[derive(Debug, Clone, Copy)]
pub struct StoredBands<'a> {
    /// The task's name.
    pub task: &'a str,
    /// Factor from stored values to the pixels that are normalised.
    pub scale: f32,
    /// The stored name of each channel's band.
    pub names: &'a [String],
}

/// A channel of a model's input: its band, and the date of its image where a sample has several dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel<'a> {
    /// What it holds.
    pub band: Band,
    /// The date of its image, if a sample has several.
    pub date: Option<&'a str>,
    /// Whether it becomes zero after normalisation, so that its statistics do not matter.
    pub is_zeroed: bool,
}

impl From<Band> for Channel<'_> {
    fn from(band: Band) -> Self {
        Channel { band, date: None, is_zeroed: false }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct SweepLists {
    s1: SweepList,
    s2: SweepList,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct SweepList {
    sources: Vec<String>,
    satlas: bool,
}

impl Strategies {
    /// Reads `configs/normalization.toml`.
    ///
    /// # Errors
    /// If the file cannot be read, has unknown keys, or its sweep refers to statistics that it lacks.
    pub fn load(home: &Home) -> Result<Self> {
        let path = home.path("configs/normalization.toml");
        let strategies: Strategies = read_toml(&path)?;
        let sweeps = [&strategies.sweep.s1, &strategies.sweep.s2];
        let unknown = sweeps
            .into_iter()
            .flat_map(|list| &list.sources)
            .find(|source| *source != DATASET && !strategies.knows(source));
        if let Some(source) = unknown {
            return Err(Error::damaged(path, format!("the sweep refers to unknown statistics `{source}`")));
        }
        let sensors = Sensors::load(home)?;
        let dated = strategies.dated.values().flat_map(BTreeMap::values);
        let mut bands = strategies.statistics.values().chain(dated).flat_map(BTreeMap::keys);
        match bands.find(|band| !sensors.knows(**band)) {
            Some(name) => {
                let problem = format!("expected statistics per band, found `{name}`, which is not a band");
                Err(Error::damaged(path, problem))
            }
            None => Ok(strategies),
        }
    }

    /// Returns all strategies of the sweep for a sensor and a kind of model, in order; if scores are equal, the first one
    /// wins. Models that standardise use half of each multiplier.
    pub fn sweep(&self, sensor: Sensor, kind: NormalizationKind) -> Vec<Strategy> {
        let own = SweepList { sources: vec![DATASET.to_owned()], satlas: false };
        let list = match sensor {
            Sensor::S1 => &self.sweep.s1,
            Sensor::S2_L1C | Sensor::S2_L2A => &self.sweep.s2,
            _ => &own,
        };
        let share = if kind == NormalizationKind::Standardize { 0.5 } else { 1.0 };
        let by_statistics = list.sources.iter().flat_map(|source| {
            self.multipliers.iter().map(move |multiplier| Strategy::Statistics {
                source: source.clone(),
                multiplier: share * multiplier,
                kind,
            })
        });
        by_statistics.chain(list.satlas.then_some(Strategy::Satlas)).collect()
    }

    /// Returns the strategies selected by `--normalization`: `dataset` (standardise with the dataset's own statistics), `none`,
    /// `sweep`, a source of statistics (standardise with them unmodified), or one strategy by name.
    ///
    /// # Errors
    /// If there is no such strategy.
    pub fn asked(&self, typed: &str, sensor: Sensor, kind: NormalizationKind) -> Result<Vec<Strategy>> {
        if let Some(kind) = BandspecKind::ALL.into_iter().find(|kind| kind.to_string() == typed) {
            return Ok(vec![Strategy::Bandspec(kind)]);
        }
        match typed {
            SWEEP => Ok(self.sweep(sensor, kind)),
            // The second is torchgeo-bench's name.
            NONE | "identity" => Ok(vec![Strategy::None]),
            source if source == DATASET || self.knows(source) => Ok(vec![Strategy::Statistics {
                source: source.to_owned(),
                multiplier: 1.0,
                kind: NormalizationKind::Standardize,
            }]),
            name => self.named(name).map(|strategy| vec![strategy]),
        }
    }

    /// Checks before anything is read that `--normalization` names something.
    ///
    /// # Errors
    /// As [`Strategies::asked`].
    pub fn check(&self, typed: &str) -> Result<()> {
        if typed == DEFAULT {
            return Ok(());
        }
        self.asked(typed, Sensor::S2_L1C, NormalizationKind::NormNoClip).map(drop)
    }

    /// As [`Strategies::asked`] of images of several sensors: the strategies that suit each of them, in the first one's order.
    ///
    /// # Errors
    /// As [`Strategies::asked`], or where none suits all.
    pub fn asked_of_all(
        &self,
        typed: &str,
        sensors: &[Sensor],
        kind: NormalizationKind,
    ) -> Result<Vec<Strategy>> {
        let lists = sensors.iter().map(|sensor| self.asked(typed, *sensor, kind));
        let lists = lists.collect::<Result<Vec<_>>>()?;
        let suits_all = |strategy: &&Strategy| lists.iter().all(|list| list.contains(strategy));
        let common: Vec<Strategy> = lists.first().into_iter().flatten().filter(suits_all).cloned().collect();
        if common.is_empty() {
            let problem = format!("no strategy of `{typed}` suits the sensors of all images of a sample");
            return Err(Error::request(problem).help("name one with --normalization, as dataset"));
        }
        Ok(common)
    }

    /// Whether there are statistics of that source.
    fn knows(&self, source: &str) -> bool {
        self.statistics.contains_key(source) || self.dated.contains_key(source)
    }

    /// Parses a strategy's name: any known statistics, any multiplier above 0, any kind.
    fn named(&self, name: &str) -> Result<Strategy> {
        if name == NormalizationKind::Satlas.to_string() {
            return Ok(Strategy::Satlas);
        }
        let parsed = || {
            let (rest, kind) = name.rsplit_once('-')?;
            let (source, multiplier) = rest.rsplit_once('-')?;
            let kind = BY_STATISTICS.into_iter().find(|known| known.to_string() == kind)?;
            let multiplier = multiplier.parse().ok().filter(|m: &f64| *m > 0.0 && m.is_finite())?;
            (source == DATASET || self.knows(source)).then(|| Strategy::Statistics {
                source: source.to_owned(),
                multiplier,
                kind,
            })
        };
        parsed().ok_or_else(|| {
            let sources: BTreeSet<&str> =
                self.statistics.keys().chain(self.dated.keys()).map(String::as_str).collect();
            let sources: Vec<&str> = sources.into_iter().collect();
            let kinds = BY_STATISTICS.map(|kind| kind.to_string());
            Error::request(format!("unknown normalisation `{name}`")).help(format!(
                "choose dataset (the dataset's own mean and standard deviation), another source's name, sweep, \
                 none (pixels unchanged), satlas, bandspec_zscore, minmax, minmax_zscore, \
                 or SOURCE-MULTIPLIER-KIND as in OURS-2.0-norm_no_clip; sources: dataset, {}; kinds: {}",
                sources.join(", "),
                kinds.join(", ")
            ))
        })
    }

    /// Whether the statistics of the bands of `task` are fixed, as torchgeo-bench has them.
    pub fn knows_bands_of(&self, task: &str) -> bool {
        self.bandspec.contains_key(task)
    }

    /// What `strategy` does to the bands of a task as its files name them; `dataset` gives the data set's own statistics.
    ///
    /// # Errors
    /// If the strategy needs to know what the bands hold, or there are no statistics of a band.
    pub fn of_stored(
        &self,
        strategy: &Strategy,
        bands: StoredBands,
        dataset: impl FnOnce() -> Result<Vec<BandStatistics>>,
    ) -> Result<Normalization> {
        match strategy {
            Strategy::None => Ok(Normalization::Identity),
            Strategy::Statistics { source, multiplier, kind } if source == DATASET => {
                Normalization::new(*kind, &dataset()?, *multiplier)
            }
            Strategy::Bandspec(kind) => {
                let StoredBands { task, scale, names } = bands;
                let known = self.bandspec.get(task).ok_or_else(|| {
                    let tasks: Vec<&str> = self.bandspec.keys().map(String::as_str).collect();
                    Error::request(format!("normalisation {kind}: no statistics of the bands of {task} found"))
                        .help(format!("use --normalization dataset; there are statistics for {}", tasks.join(", ")))
                })?;
                let range = |name: &String| {
                    let range = known.get(name).ok_or_else(|| {
                        Error::request(format!("normalisation {kind}: no statistics of band {name} of {task} found"))
                            .help("see [bandspec] in configs/normalization.toml, or use --normalization dataset")
                    })?;
                    Ok(range.scaled(f64::from(scale)))
                };
                let ranges = names.iter().map(range).collect::<Result<Vec<_>>>()?;
                Ok(Normalization::bandspec(*kind, &ranges))
            }
            other => Err(Error::request(format!(
                "normalisation {other} is for bands that the model knows, but this one takes every stored band"
            ))
            .help("use --normalization dataset, bandspec_zscore, minmax, minmax_zscore or identity")),
        }
    }

    /// What `strategy` does to a model's input `channels`, those of all images of a sample side by side; `dataset` gives the
    /// data set's own, imputed. Statistics by stored band are those of [`Strategies::of_stored`].
    ///
    /// Statistics from other sources are those of the band that the model expects, even if another band's pixels replace
    /// it, as in the reference.
    ///
    /// # Errors
    /// Where the source lacks a band, or a statistic is not usable.
    pub fn resolve<'a>(
        &self,
        strategy: &Strategy,
        channels: &[impl Copy + Into<Channel<'a>>],
        dataset: impl FnOnce() -> Result<Vec<BandStatistics>>,
    ) -> Result<Normalization> {
        match strategy {
            Strategy::Satlas => Ok(Normalization::Satlas),
            Strategy::None => Ok(Normalization::Identity),
            Strategy::Bandspec(kind) => {
                Err(Error::mismatch(format!("normalisation {kind} is by stored band")))
            }
            Strategy::Statistics { source, multiplier, kind } => {
                let statistics =
                    if source == DATASET { dataset()? } else { self.statistics(source, channels)? };
                Normalization::new(*kind, &statistics, *multiplier)
            }
        }
    }

    /// Those of a channel's date go before those of its band at any date.
    fn statistics<'a>(
        &self,
        source: &str,
        channels: &[impl Copy + Into<Channel<'a>>],
    ) -> Result<Vec<BandStatistics>> {
        let (of_any_date, of_dates) = (self.statistics.get(source), self.dated.get(source));
        let of = |Channel { band, date, is_zeroed }: Channel| {
            let dated = date.and_then(|date| of_dates?.get(date)?.get(&band));
            let found = dated.or_else(|| of_any_date?.get(&band)).copied();
            found.or(is_zeroed.then_some(BandStatistics { mean: 0.0, std: 1.0 })).ok_or_else(|| {
                let name = images::full_name(band, date);
                Error::request(format!("normalisation by {source}: no statistics of band {name} found"))
                    .help("choose statistics of the task's sensor; see configs/normalization.toml")
            })
        };
        channels.iter().map(|channel| of((*channel).into())).collect()
    }
}

/// The kinds that use statistics.
const BY_STATISTICS: [NormalizationKind; 5] = [
    NormalizationKind::Standardize,
    NormalizationKind::NormNoClip,
    NormalizationKind::NormYesClip,
    NormalizationKind::NormYesClipInt,
    NormalizationKind::NormQuantileClip,
];
