//! Normalisation of pixels by a band's statistics, as defined by Galileo's evaluation [nasaharvest/galileo,
//! src/eval/datasets/normalize.py].

use std::fmt;

use ndarray::{Array3, ArrayViewMut2, Axis};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Mean and standard deviation of a band over a dataset, in digital numbers (scaled like the pixels).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BandStatistics {
    /// Mean of the band's pixels.
    pub mean: f64,
    /// Standard deviation of the band's pixels.
    pub std: f64,
}

/// The arithmetic of a normalisation, without its statistics. Names follow the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormalizationKind {
    /// (x - mean) / (m std), for a multiplier m.
    Standardize,
    /// Maps mean - m std to 0 and mean + m std to 1.
    NormNoClip,
    /// Like [`NormalizationKind::NormNoClip`], then clipped to 0..1.
    NormYesClip,
    /// Like [`NormalizationKind::NormYesClip`], then rounded down to n/255.
    NormYesClipInt,
    /// Like [`NormalizationKind::NormYesClip`], after each band of each image is clipped to its own 1 % and 99 % quantiles
    /// [zhu-xlab/Copernicus-FM, Copernicus-Bench/src/datasets, `norm_form: softcon` of Sentinel-1].
    NormQuantileClip,
    /// x / 8160, clipped to 0..1; needs no statistics.
    Satlas,
}

impl fmt::Display for NormalizationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NormalizationKind::Standardize => "standardize",
            NormalizationKind::NormNoClip => "norm_no_clip",
            NormalizationKind::NormYesClip => "norm_yes_clip",
            NormalizationKind::NormYesClipInt => "norm_yes_clip_int",
            NormalizationKind::NormQuantileClip => "norm_quantile_clip",
            NormalizationKind::Satlas => "satlas",
        })
    }
}

/// A normalisation ready to be applied, with the constants of each band.
///
/// It stores the numbers it computes with, so that different normalisations have different serialised forms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Normalization {
    /// (x - mean) / std in float32, with one pair of constants per band.
    Standardize {
        /// One mean per band.
        mean: Vec<f32>,
        /// One standard deviation per band, multiplier included.
        std: Vec<f32>,
    },
    /// (x - min) / (max - min) in float64 as in the reference, with one pair of constants per band.
    MinMax {
        /// One value per band, mapped to 0.
        min: Vec<f64>,
        /// One value per band, mapped to 1.
        max: Vec<f64>,
        /// The treatment of values outside 0..1.
        clip: Clip,
    },
    /// ((x - min) / range - mean) / std in float32, with the constants of each band.
    MinMaxStandardize {
        /// One value per band, mapped to 0 first.
        min: Vec<f32>,
        /// Largest minus smallest value, one per band.
        range: Vec<f32>,
        /// One mean per band, of values so mapped.
        mean: Vec<f32>,
        /// One standard deviation per band, of values so mapped.
        std: Vec<f32>,
    },
    /// x / 8160, clipped to 0..1.
    Satlas,
    /// x unchanged, for models that take stored pixels.
    Identity,
}

/// The treatment of values outside 0..1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// They are kept.
    None,
    /// They become 0 or 1.
    Unit,
    /// They become 0 or 1, and everything is rounded down to n/255.
    Codes,
    /// They become 0 or 1, after each band was clipped to its own 1 % and 99 % quantiles.
    Quantiles,
}

/// The quantiles of [`Clip::Quantiles`].
const QUANTILES: [f32; 2] = [0.01, 0.99];

/// The largest digital number that Satlas distinguishes: 255 steps of 32.
pub(super) const SATLAS_WHITE: f32 = 8160.0;

impl Normalization {
    /// Creates the normalisation `kind` from statistics, one per band, with standard deviations multiplied by `multiplier`.
    ///
    /// A standard deviation of 0 (or too small to distinguish from it) counts as 1, so that a constant band becomes a
    /// constant image (0, or 0.5 for the min-max kinds) instead of NaN or infinity.
    ///
    /// # Errors
    /// If a statistic is not finite, a standard deviation is negative, or `multiplier` is not above 0.
    pub fn new(kind: NormalizationKind, statistics: &[BandStatistics], multiplier: f64) -> Result<Self> {
        if !(multiplier > 0.0 && multiplier.is_finite()) {
            return Err(Error::mismatch(format!(
                "multiplier of standard deviations: expected a number above 0, found {multiplier}"
            ))
            .help("give a number above 0"));
        }
        for (band, BandStatistics { mean, std }) in statistics.iter().enumerate() {
            if !(*mean as f32).is_finite() || !((multiplier * std) as f32).is_finite() || *std < 0.0 {
                return Err(Error::mismatch(format!(
                    "band {band}: expected finite statistics, found mean {mean} and standard deviation {std}"
                ))
                .help("compute the statistics again: both must be finite, and the deviation at least 0"));
            }
        }
        let spread = |band: &BandStatistics| {
            let spread = multiplier * band.std;
            let constant = spread as f32 == 0.0 || band.mean + spread == band.mean;
            if constant { multiplier } else { spread }
        };
        let min_max = |clip| Normalization::MinMax {
            min: statistics.iter().map(|band| band.mean - spread(band)).collect(),
            max: statistics.iter().map(|band| band.mean + spread(band)).collect(),
            clip,
        };
        Ok(match kind {
            NormalizationKind::Standardize => Normalization::Standardize {
                mean: statistics.iter().map(|band| band.mean as f32).collect(),
                std: statistics.iter().map(|band| spread(band) as f32).collect(),
            },
            NormalizationKind::NormNoClip => min_max(Clip::None),
            NormalizationKind::NormYesClip => min_max(Clip::Unit),
            NormalizationKind::NormYesClipInt => min_max(Clip::Codes),
            NormalizationKind::NormQuantileClip => min_max(Clip::Quantiles),
            NormalizationKind::Satlas => Normalization::Satlas,
        })
    }

    /// Creates (x - mean) / std from unmodified statistics, rounded to float32.
    ///
    /// # Errors
    /// As for [`Normalization::new`].
    pub fn standardize(statistics: &[BandStatistics]) -> Result<Self> {
        Self::new(NormalizationKind::Standardize, statistics, 1.0)
    }

    /// Returns the mean and standard deviation that the normalisation assumes for each of `bands` channels: the pixel
    /// values mapped to 0 and ±1, or the middle and half the range of minimum and maximum. Returns none if it assumes
    /// nothing.
    pub fn statistics(&self, bands: usize) -> Option<Vec<BandStatistics>> {
        match self {
            Normalization::Standardize { mean, std } => {
                let of =
                    |(mean, std): (&f32, &f32)| BandStatistics { mean: (*mean).into(), std: (*std).into() };
                Some(mean.iter().zip(std).map(of).collect())
            }
            Normalization::MinMax { min, max, .. } => {
                let of = |(min, max): (&f64, &f64)| BandStatistics {
                    mean: (min + max) / 2.0,
                    std: (max - min) / 2.0,
                };
                Some(min.iter().zip(max).map(of).collect())
            }
            Normalization::MinMaxStandardize { min, range, mean, std } => {
                let of = |place: usize| -> Option<BandStatistics> {
                    let range = f64::from(*range.get(place)?);
                    let mean = f64::from(*mean.get(place)?) * range + f64::from(*min.get(place)?);
                    Some(BandStatistics { mean, std: f64::from(*std.get(place)?) * range })
                };
                (0..min.len()).map(of).collect()
            }
            Normalization::Satlas => {
                Some(vec![BandStatistics { mean: 0.0, std: f64::from(SATLAS_WHITE) / 2.0 }; bands])
            }
            Normalization::Identity => None,
        }
    }

    /// The normalisation of `count` bands from `first` on.
    #[must_use]
    pub fn part(&self, first: usize, count: usize) -> Self {
        fn part<T: Copy>(all: &[T], first: usize, count: usize) -> Vec<T> {
            all.iter().copied().skip(first).take(count).collect()
        }
        match self {
            Normalization::Standardize { mean, std } => {
                Normalization::Standardize { mean: part(mean, first, count), std: part(std, first, count) }
            }
            Normalization::MinMax { min, max, clip } => Normalization::MinMax {
                min: part(min, first, count),
                max: part(max, first, count),
                clip: *clip,
            },
            Normalization::MinMaxStandardize { min, range, mean, std } => Normalization::MinMaxStandardize {
                min: part(min, first, count),
                range: part(range, first, count),
                mean: part(mean, first, count),
                std: part(std, first, count),
            },
            Normalization::Satlas => Normalization::Satlas,
            Normalization::Identity => Normalization::Identity,
        }
    }

    /// Normalises an image [bands, h, w] of digital numbers in place.
    ///
    /// # Errors
    /// If the number of bands differs from the number of statistics.
    pub fn apply(&self, image: &mut Array3<f32>) -> Result<()> {
        match self {
            Normalization::Standardize { mean, std } => {
                each_band(image, mean, std, |x, mean, std| (x - mean) / std)
            }
            Normalization::MinMax { min, max, clip } => {
                let scaled = |x: f32, min: f64, max: f64| (f64::from(x) - min) / (max - min);
                if *clip == Clip::Quantiles {
                    image.outer_iter_mut().for_each(clip_to_quantiles);
                }
                match clip {
                    Clip::None => each_band(image, min, max, |x, min, max| scaled(x, min, max) as f32),
                    Clip::Unit | Clip::Quantiles => {
                        each_band(image, min, max, |x, min, max| scaled(x, min, max).clamp(0.0, 1.0) as f32)
                    }
                    // The reference calls this rounding, but its cast to an unsigned byte truncates.
                    Clip::Codes => each_band(image, min, max, |x, min, max| {
                        ((scaled(x, min, max) * 255.0).clamp(0.0, 255.0).floor() / 255.0) as f32
                    }),
                }
            }
            Normalization::MinMaxStandardize { min, range, mean, std } => {
                each_band(image, min, range, |x, min, range| (x - min) / range)?;
                each_band(image, mean, std, |x, mean, std| (x - mean) / std)
            }
            Normalization::Satlas => {
                image.mapv_inplace(|x| (x / SATLAS_WHITE).clamp(0.0, 1.0));
                Ok(())
            }
            Normalization::Identity => Ok(()),
        }
    }
}

/// Clips a band to its quantiles, interpolated between order statistics in float32 like `torch.quantile`.
fn clip_to_quantiles(mut band: ArrayViewMut2<f32>) {
    let mut sorted: Vec<f32> = band.iter().copied().collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return };
    let [low, high] = QUANTILES.map(|share| {
        let rank = share * last as f32;
        let below = (rank as usize).min(last);
        let (a, b, weight) = (sorted[below], sorted[(below + 1).min(last)], rank - below as f32);
        // Like torch's `lerp`.
        if weight < 0.5 { a + weight * (b - a) } else { b - (b - a) * (1.0 - weight) }
    });
    band.mapv_inplace(|x| x.max(low).min(high));
}

/// Replaces each pixel of band b by `f(pixel, first[b], second[b])`.
fn each_band<T: Copy>(
    image: &mut Array3<f32>,
    first: &[T],
    second: &[T],
    f: impl Fn(f32, T, T) -> f32,
) -> Result<()> {
    let bands = image.len_of(Axis(0));
    if bands != first.len() || bands != second.len() {
        return Err(Error::mismatch(format!(
            "expected as many bands as statistics, found {bands} bands and statistics of {}",
            first.len().min(second.len())
        )));
    }
    for ((mut band, &a), &b) in image.outer_iter_mut().zip(first).zip(second) {
        band.mapv_inplace(|x| f(x, a, b));
    }
    Ok(())
}
