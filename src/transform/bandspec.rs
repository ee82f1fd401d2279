//! torchgeo-bench's normalisations by fixed statistics of each stored band [torchgeo/torchgeo-bench,
//! src/torchgeo_bench/models/_normalization.py].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::normalize::{Clip, Normalization};

/// Statistics of a band over the training split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BandRange {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// Ranges and deviations are at least this.
const SMALLEST: f64 = 1e-8;

impl BandRange {
    /// The same of pixels multiplied by `scale`.
    #[must_use]
    pub(super) fn scaled(self, scale: f64) -> Self {
        let BandRange { mean, std, min, max } = self;
        BandRange { mean: scale * mean, std: scale * std, min: scale * min, max: scale * max }
    }

    fn range(&self) -> f64 {
        (self.max - self.min).max(SMALLEST)
    }
}

/// The arithmetic. Names follow the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BandspecKind {
    /// (x - mean) / std.
    Zscore,
    /// (x - min) / (max - min), not clipped.
    MinMax,
    /// [`BandspecKind::MinMax`], then the z-score of the result.
    MinMaxZscore,
}

impl BandspecKind {
    /// All kinds.
    pub const ALL: [BandspecKind; 3] =
        [BandspecKind::Zscore, BandspecKind::MinMax, BandspecKind::MinMaxZscore];
}

impl fmt::Display for BandspecKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BandspecKind::Zscore => super::strategies::BANDSPEC_ZSCORE,
            BandspecKind::MinMax => "minmax",
            BandspecKind::MinMaxZscore => "minmax_zscore",
        })
    }
}

impl Normalization {
    /// Creates the normalisation from the statistics of each band.
    pub(super) fn bandspec(kind: BandspecKind, bands: &[BandRange]) -> Self {
        let narrow = |of: &dyn Fn(&BandRange) -> f64| bands.iter().map(|band| of(band) as f32).collect();
        match kind {
            BandspecKind::Zscore => Normalization::Standardize {
                mean: narrow(&|band| band.mean),
                std: narrow(&|band| band.std.max(SMALLEST)),
            },
            BandspecKind::MinMax => Normalization::MinMax {
                min: bands.iter().map(|band| band.min).collect(),
                max: bands.iter().map(|band| band.min + band.range()).collect(),
                clip: Clip::None,
            },
            BandspecKind::MinMaxZscore => Normalization::MinMaxStandardize {
                min: narrow(&|band| band.min),
                range: narrow(&BandRange::range),
                mean: narrow(&|band| (band.mean - band.min) / band.range()),
                std: narrow(&|band| (band.std / band.range()).max(SMALLEST)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn each_kind_maps_what_its_name_says() {
        let bands = [
            BandRange { mean: 3.0, std: 2.0, min: 1.0, max: 9.0 },
            BandRange { mean: 5.0, std: 0.0, min: 5.0, max: 5.0 },
        ];
        let mapped = |kind| {
            let mut image = array![[[7.0f32]], [[5.0]]];
            Normalization::bandspec(kind, &bands).apply(&mut image).unwrap();
            [image[[0, 0, 0]], image[[1, 0, 0]]]
        };
        assert_eq!(mapped(BandspecKind::Zscore), [2.0, 0.0]);
        assert_eq!(mapped(BandspecKind::MinMax), [0.75, 0.0]);
        assert_eq!(mapped(BandspecKind::MinMaxZscore), [2.0, 0.0]);
        let both = Normalization::bandspec(BandspecKind::MinMaxZscore, &bands);
        assert_eq!(both.part(1, 1), Normalization::bandspec(BandspecKind::MinMaxZscore, &bands[1..]));
        assert_eq!(
            both.statistics(2).unwrap()[0],
            crate::transform::normalize::BandStatistics { mean: 3.0, std: 2.0 }
        );
    }
}
