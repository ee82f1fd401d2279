//! Normalisation strategies by name: which statistics to use, with which multiplier, and in which arithmetic. Galileo's
//! evaluation sweeps over a list of them [nasaharvest/galileo, src/eval/datasets/normalize.py].

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::home::{Home, read_toml};
use crate::task::bands::undated;
use crate::task::{Sensor, Sensors};
use crate::transform::normalize::{BandStatistics, Normalization, NormalizationKind};
use crate::{Error, Result};

/// Source of statistics that stands for the current dataset.
pub const DATASET: &str = "dataset";

/// Value of `--normalization` that stands for the task's choice, or else the suite's.
pub const DEFAULT: &str = "default";

/// Value of `--normalization` that stands for the whole list of strategies.
pub const SWEEP: &str = "sweep";

/// Normalisation in the records of models that take stored pixels.
pub const NONE: &str = "none";

/// One normalisation strategy.
#[derive(Debug, Clone, PartialEq)]
pub enum Strategy {
    /// x / 8160, clipped to 0..1.
    Satlas,
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
    /// Statistics by source and band; the band is `<band> <date>` if they differ between the dates of a sample.
    statistics: BTreeMap<String, BTreeMap<String, BandStatistics>>,
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
            .find(|source| *source != DATASET && !strategies.statistics.contains_key(*source));
        if let Some(source) = unknown {
            return Err(Error::damaged(path, format!("the sweep refers to unknown statistics `{source}`")));
        }
        let sensors = Sensors::load(home)?;
        let names = strategies.statistics.values().flat_map(BTreeMap::keys);
        match names.map(|name| undated(name)).find(|name| !name.parse().is_ok_and(|band| sensors.knows(band)))
        {
            Some(name) => Err(Error::damaged(
                path,
                format!("expected statistics per band, found `{name}`, which is not a band"),
            )),
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

    /// Returns the strategies selected by `--normalization`: `dataset` (standardise with the dataset's own statistics),
    /// `sweep`, a source of statistics (standardise with them unmodified), or one strategy by name.
    ///
    /// # Errors
    /// If there is no such strategy.
    pub fn asked(&self, typed: &str, sensor: Sensor, kind: NormalizationKind) -> Result<Vec<Strategy>> {
        match typed {
            SWEEP => Ok(self.sweep(sensor, kind)),
            source if source == DATASET || self.statistics.contains_key(source) => {
                Ok(vec![Strategy::Statistics {
                    source: source.to_owned(),
                    multiplier: 1.0,
                    kind: NormalizationKind::Standardize,
                }])
            }
            name => self.named(name).map(|strategy| vec![strategy]),
        }
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
            (source == DATASET || self.statistics.contains_key(source)).then(|| Strategy::Statistics {
                source: source.to_owned(),
                multiplier,
                kind,
            })
        };
        parsed().ok_or_else(|| {
            let sources: Vec<&str> = self.statistics.keys().map(String::as_str).collect();
            let kinds = BY_STATISTICS.map(|kind| kind.to_string());
            Error::request(format!("unknown normalisation `{name}`")).help(format!(
                "choose dataset (the dataset's own mean and standard deviation), another source's name, sweep, \
                 satlas, or SOURCE-MULTIPLIER-KIND as in OURS-2.0-norm_no_clip; sources: dataset, {}; kinds: {}",
                sources.join(", "),
                kinds.join(", ")
            ))
        })
    }

    /// Returns what `strategy` does to a model's input `bands`, named `VV`, or `VV before` if a sample has several dates.
    /// `dataset` holds the dataset's own statistics, imputed.
    ///
    /// Statistics from other sources are those of the band that the model expects, even if another band's pixels replace
    /// it, as in the reference.
    ///
    /// # Errors
    /// If the source lacks a band, or a statistic is not usable.
    pub fn resolve(
        &self,
        strategy: &Strategy,
        bands: &[impl fmt::Display],
        dataset: impl FnOnce() -> Result<Vec<BandStatistics>>,
    ) -> Result<Normalization> {
        match strategy {
            Strategy::Satlas => Ok(Normalization::Satlas),
            Strategy::Statistics { source, multiplier, kind } => {
                let statistics = if source == DATASET { dataset()? } else { self.statistics(source, bands)? };
                Normalization::new(*kind, &statistics, *multiplier)
            }
        }
    }

    fn statistics(&self, source: &str, bands: &[impl fmt::Display]) -> Result<Vec<BandStatistics>> {
        let known = self.statistics.get(source);
        let of = |name: String| {
            let found = known.and_then(|bands| bands.get(&name).or_else(|| bands.get(undated(&name))));
            found.copied().ok_or_else(|| {
                Error::request(format!("normalisation by {source}: no statistics of band {name} found"))
                    .help("choose statistics of the task's sensor; see configs/normalization.toml")
            })
        };
        bands.iter().map(|band| of(band.to_string())).collect()
    }
}

/// The kinds that use statistics.
const BY_STATISTICS: [NormalizationKind; 4] = [
    NormalizationKind::Standardize,
    NormalizationKind::NormNoClip,
    NormalizationKind::NormYesClip,
    NormalizationKind::NormYesClipInt,
];
