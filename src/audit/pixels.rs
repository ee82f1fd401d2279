//! Compares pixels with the statistics that normalise them.

use super::observed::PixelSummary;
use super::{Check, Finding, listed};
use crate::task::Split;
use crate::task::Task;
use crate::transform::normalize::BandStatistics;

/// Pixels of a stored band over the images of a split, in digital numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct BandPixels<'a> {
    /// Name of the stored band.
    pub name: &'a str,
    /// Index of the first of the model's channels that the band feeds.
    pub channel: usize,
    /// Smallest pixel of all images.
    pub min: f32,
    /// Largest pixel of all images.
    pub max: f32,
    /// Mean of the images' means.
    pub mean: f64,
    /// Standard error of `mean`, as if images were drawn at random.
    pub error: f64,
    /// Median over images of their 2 % quantiles.
    pub low: f32,
    /// Median over images of their 98 % quantiles.
    pub high: f32,
}

/// Pools the images of a split per stored band. `channels` pairs each channel with the name of its band; a band that feeds
/// several channels counts once. Returns nothing if no image was read.
pub fn pool<'a, 'p>(
    channels: &[(usize, &'a str)],
    images: impl Iterator<Item = &'p PixelSummary>,
) -> Vec<BandPixels<'a>> {
    let width = channels.iter().map(|(channel, _)| channel + 1).max().unwrap_or(0);
    let images: Vec<&PixelSummary> = images.filter(|image| image.bands.len() >= width).collect();
    if images.is_empty() {
        return Vec::new();
    }
    let n = images.len() as f64;
    let first = |name: &str| channels.iter().find(|(_, other)| *other == name).map(|(channel, _)| *channel);
    let distinct = channels.iter().copied().filter(|(channel, name)| first(name) == Some(*channel));
    distinct
        .map(|(channel, name)| {
            let of = |number: fn(&super::observed::BandSummary) -> f32| {
                let mut numbers: Vec<f32> =
                    images.iter().map(|image| number(&image.bands[channel])).collect();
                numbers.sort_unstable_by(f32::total_cmp);
                numbers
            };
            let middle = |sorted: Vec<f32>| sorted[sorted.len() / 2];
            let (min, max, means) = (of(|band| band.min), of(|band| band.max), of(|band| band.mean));
            let mean = means.iter().copied().map(f64::from).sum::<f64>() / n;
            let variance = means.iter().map(|image| (f64::from(*image) - mean).powi(2)).sum::<f64>()
                / (n - 1.0).max(1.0);
            BandPixels {
                name,
                channel,
                min: min[0],
                max: max[max.len() - 1],
                mean,
                error: (variance / n).sqrt(),
                low: middle(of(|band| band.low)),
                high: middle(of(|band| band.high)),
            }
        })
        .collect()
}

/// Factor between pixels and statistics above which they must have different units. Scenes differ from their dataset by
/// less: clouds, the brightest scenes, by a factor of 4.
const FACTOR: f64 = 8.0;

/// How many times smaller than the statistics pixels may be if these are only a scale (mean 0): dark water is 1 % of a scale
/// of 20,000.
const FACTOR_OF_SCALE: f64 = 400.0;

/// The largest value of a byte.
const BYTE: f64 = 255.0;

/// Reports pixels in a different unit than the statistics (one per channel): decibels versus linear numbers, or reflectance
/// from 0 to 1 or bytes versus digital numbers.
pub fn unit(
    task: &Task,
    split: Split,
    pixels: &[BandPixels],
    source: &str,
    statistics: &[BandStatistics],
) -> Option<Finding> {
    let pairs: Vec<(&BandPixels, &BandStatistics)> =
        pixels.iter().filter_map(|band| Some((band, statistics.get(band.channel)?))).collect();
    let ends = |pair: &(&BandPixels, &BandStatistics)| {
        (f64::from(pair.0.low).abs().max(f64::from(pair.0.high).abs()), pair.1.mean.abs() + 2.0 * pair.1.std)
    };
    let ratio = median(pairs.iter().map(|pair| {
        let (found, expected) = ends(pair);
        found / expected
    }))?;
    let expected = median(pairs.iter().map(|pair| ends(pair).1))?;
    let largest = pairs.iter().map(|(band, _)| f64::from(band.max)).fold(f64::MIN, f64::max);
    let scale_only = pairs.iter().all(|(_, statistics)| statistics.mean == 0.0);
    let pixels_in_db = pairs.iter().all(|(band, _)| band.high < 0.0);
    let statistics_in_db = pairs.iter().all(|(_, s)| s.mean + s.std < 0.0);
    let bytes = largest <= BYTE && expected > 4.0 * BYTE;
    let low = if scale_only { FACTOR_OF_SCALE } else { FACTOR };
    let other = (pixels_in_db && !statistics_in_db && pairs.iter().all(|(_, s)| s.mean > 0.0))
        || (statistics_in_db && pairs.iter().all(|(band, _)| band.low >= 0.0))
        || bytes
        || ratio > FACTOR
        || ratio < 1.0 / low;
    other.then(|| {
        let smallest = pairs.iter().map(|(band, _)| f64::from(band.min)).fold(f64::MAX, f64::min);
        let (band, statistics) = pairs[0];
        let found = format!(
            "pixels of {split} look like {}, the statistics `{source}` like {}: band `{}` has 96 % of its pixels between {} \
             and {}, but mean {} and deviation {}",
            kind(smallest, largest, pixels_in_db),
            kind(0.0, expected, statistics_in_db),
            band.name,
            short(f64::from(band.low)),
            short(f64::from(band.high)),
            short(statistics.mean),
            short(statistics.std),
        );
        let remedy = format!(
            "use --normalization dataset, or set `scale` of {} in benchmarks/ so that pixels have the unit of the statistics",
            task.name
        );
        Finding::new(Check::PixelUnit, found, remedy)
    })
}

fn kind(smallest: f64, largest: f64, decibels: bool) -> &'static str {
    match () {
        () if decibels => "decibels",
        () if smallest < 0.0 => "signed numbers",
        () if largest <= 2.0 => "reflectance or backscatter from 0 to 1",
        () if largest <= BYTE => "bytes from 0 to 255",
        () => "digital numbers",
    }
}

/// Origin of the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// The dataset's own statistics: means must agree.
    Own,
    /// Statistics of other data, with their name: means may differ.
    Foreign(&'a str),
}

/// Reports bands whose means contradict the statistics (one per channel): in a different order, or far off. Deviations are
/// measured in standard deviations of the band.
pub fn order(
    split: Split,
    pixels: &[BandPixels],
    source: Source,
    statistics: &[BandStatistics],
) -> Option<Finding> {
    let (name, tolerance, far): (_, f64, f64) = match source {
        // The sampling error of the images is added below.
        Source::Own => ("the dataset's own statistics", 0.15, 1.0),
        Source::Foreign(name) => (name, 0.5, 4.0),
    };
    let bands: Vec<(&BandPixels, &BandStatistics)> = pixels
        .iter()
        .filter_map(|band| Some((band, statistics.get(band.channel)?)))
        .filter(|(_, statistics)| statistics.std > 0.0)
        .collect();
    let off =
        |band: &BandPixels, statistics: &BandStatistics| (band.mean - statistics.mean).abs() / statistics.std;
    let apart: Vec<(&BandPixels, &BandStatistics)> = bands
        .iter()
        .copied()
        .filter(|(band, s)| off(band, s) > (6.0 * band.error / s.std).max(tolerance))
        .collect();

    // On a line, matching by rank is the best match.
    let (mut by_pixels, mut by_statistics) = (apart.clone(), apart.clone());
    by_pixels.sort_by(|a, b| a.0.mean.total_cmp(&b.0.mean));
    by_statistics.sort_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
    let before: f64 = apart.iter().map(|(band, s)| off(band, s)).sum();
    let after: f64 = by_pixels.iter().zip(&by_statistics).map(|(pixels, own)| off(pixels.0, own.1)).sum();
    if before > 2.0 * tolerance && after < before / 4.0 {
        let pairs: Vec<String> = by_pixels
            .iter()
            .zip(&by_statistics)
            .filter(|(pixels, own)| pixels.0.name != own.0.name)
            .map(|(pixels, own)| {
                format!(
                    "`{}` has a mean of {}, expected for `{}`",
                    pixels.0.name,
                    short(pixels.0.mean),
                    own.0.name
                )
            })
            .collect();
        let found = format!(
            "bands of {split} are in a different order than in {name}: {}",
            listed(pairs.iter().map(String::as_str))
        );
        let remedy = "check `stored-bands` or `bands` in benchmarks/ against the files; `cargo xtask inspect` shows their means";
        return Some(Finding::new(Check::BandOrder, found, remedy));
    }
    let away: Vec<String> = apart
        .iter()
        .filter(|(band, s)| off(band, s) > far.max(6.0 * band.error / s.std))
        .map(|(band, s)| {
            format!(
                "`{}` has a mean of {}, expected {} ± {}",
                band.name,
                short(band.mean),
                short(s.mean),
                short(s.std)
            )
        })
        .collect();
    (!away.is_empty()).then(|| {
        let found =
            format!("bands of {split} are far from {name}: {}", listed(away.iter().map(String::as_str)));
        let remedy =
            "check that files and statistics belong together, and that names and order of the bands in benchmarks/ are right";
        Finding::new(Check::BandOrder, found, remedy)
    })
}

fn median(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.filter(|number| number.is_finite()).collect();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}

/// Formats a number with three significant digits.
fn short(number: f64) -> String {
    let digits = if number == 0.0 { 0 } else { 2 - number.abs().log10().floor() as i32 };
    format!("{number:.*}", digits.clamp(0, 6) as usize)
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::home::Home;
    use crate::task::Suite;

    /// Copernicus-Bench's statistics of Sentinel-2: B01 to B12 with B8A and without B10.
    const S2: [(&str, f64, f64); 12] = [
        ("B01", 1353.7, 897.3),
        ("B02", 1117.2, 736.0),
        ("B03", 1041.8, 684.8),
        ("B04", 946.5, 620.0),
        ("B05", 1199.1, 791.9),
        ("B06", 2003.0, 1341.3),
        ("B07", 2374.0, 1595.4),
        ("B08", 2301.2, 1545.5),
        ("B8A", 2599.7, 1750.1),
        ("B09", 732.1, 475.1),
        ("B11", 1820.6, 1216.5),
        ("B12", 1118.2, 736.7),
    ];

    fn statistics() -> Vec<BandStatistics> {
        S2.iter().map(|(_, mean, std)| BandStatistics { mean: *mean, std: *std }).collect()
    }

    fn names() -> Vec<(usize, &'static str)> {
        S2.iter().enumerate().map(|(channel, (name, ..))| (channel, *name)).collect()
    }

    /// Images whose band b follows the statistics of `source[b]`, brighter or darker from image to image, transformed by
    /// `change`.
    fn images(source: &[usize], change: impl Fn(f64) -> f64) -> Vec<PixelSummary> {
        (0..40)
            .map(|image| {
                let bright = [0.7, 0.9, 1.0, 1.1, 1.3][image % 5];
                let pixel = |(b, y, x): (usize, usize, usize)| {
                    let (_, mean, std) = S2[source[b]];
                    let place = ((y * 8 + x) as f64 + 0.5) / 64.0 * 2.0 - 1.0;
                    change((bright * (mean + 1.2 * place * std)).max(1.0)) as f32
                };
                PixelSummary::of([Array3::from_shape_fn((source.len(), 8, 8), pixel).view()])
            })
            .collect()
    }

    fn straight() -> Vec<usize> {
        (0..S2.len()).collect()
    }

    fn unit_of(change: impl Fn(f64) -> f64, statistics: &[BandStatistics]) -> Option<String> {
        let (names, images) = (names(), images(&straight(), change));
        let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
        let task = suite.task("m-eurosat").unwrap();
        let pooled = pool(&names, images.iter());
        unit(task, Split::Train, &pooled, "S2C", statistics).map(|finding| finding.found)
    }

    #[test]
    fn pixels_in_the_statistics_unit_give_no_finding() {
        assert_eq!(unit_of(|x| x, &statistics()), None);
        // Dark water and bright clouds still have the same unit.
        assert_eq!(unit_of(|x| x / 5.0, &statistics()), None);
        assert_eq!(unit_of(|x| x * 4.0, &statistics()), None);
        // Only a scale, as for Presto.
        let scale = vec![BandStatistics { mean: 0.0, std: 10_000.0 }; S2.len()];
        assert_eq!(unit_of(|x| x / 5.0, &scale), None);
    }

    #[test]
    fn reflectance_against_digital_numbers_is_told() {
        let said = unit_of(|x| x / 10_000.0, &statistics()).unwrap();
        assert!(said.contains("look like reflectance or backscatter from 0 to 1"), "{said}");
        assert!(
            said.contains("the statistics `S2C` like digital numbers") && said.contains("`B01`"),
            "{said}"
        );
        let scale = vec![BandStatistics { mean: 0.0, std: 10_000.0 }; S2.len()];
        assert!(unit_of(|x| x / 10_000.0, &scale).is_some());
        // The opposite case.
        let small: Vec<BandStatistics> = statistics()
            .iter()
            .map(|s| BandStatistics { mean: s.mean / 10_000.0, std: s.std / 10_000.0 })
            .collect();
        let said = unit_of(|x| x, &small).unwrap();
        assert!(said.contains("look like digital numbers"), "{said}");
    }

    #[test]
    fn bytes_against_sixteen_bits_are_told() {
        let said = unit_of(|x| (x / 40.0).min(255.0), &statistics()).unwrap();
        assert!(said.contains("look like bytes from 0 to 255"), "{said}");
        // Stretched to the full range of a byte.
        assert!(unit_of(|x| (x / 10.0).min(255.0), &statistics()).is_some());
        let bytes: Vec<BandStatistics> =
            statistics().iter().map(|s| BandStatistics { mean: s.mean / 40.0, std: s.std / 40.0 }).collect();
        assert!(unit_of(|x| x, &bytes).is_some());
        assert_eq!(unit_of(|x| x / 40.0, &bytes), None);
    }

    #[test]
    fn decibels_against_linear_backscatter_are_told() {
        let db = vec![BandStatistics { mean: -12.5, std: 5.3 }; S2.len()];
        let linear = vec![BandStatistics { mean: 0.098, std: 0.043 }; S2.len()];
        let to_db = |x: f64| 10.0 * (x / 10_000.0).log10();
        assert_eq!(unit_of(to_db, &db), None);
        let said = unit_of(to_db, &linear).unwrap();
        assert!(said.contains("pixels of train look like decibels"), "{said}");
        let said = unit_of(|x| x / 10_000.0, &db).unwrap();
        assert!(said.contains("the statistics `S2C` like decibels"), "{said}");
    }

    fn order_of(source: &[usize], change: impl Fn(f64) -> f64, whose: Source) -> Option<String> {
        let (names, images) = (names(), images(source, change));
        order(Split::Train, &pool(&names, images.iter()), whose, &statistics()).map(|finding| finding.found)
    }

    #[test]
    fn bands_in_order_give_no_finding() {
        for whose in [Source::Own, Source::Foreign("S2C")] {
            assert_eq!(order_of(&straight(), |x| x, whose), None);
            // Another season is brighter or darker in all bands.
            assert_eq!(order_of(&straight(), |x| 1.3 * x, whose), None);
            assert_eq!(order_of(&straight(), |x| 0.7 * x, whose), None);
        }
        assert_eq!(order_of(&straight(), |x| 1.6 * x, Source::Foreign("S2C")), None);
    }

    #[test]
    fn a_swap_of_two_bands_contradicts_the_statistics() {
        let mut swapped = straight();
        swapped.swap(3, 7);
        for whose in [Source::Own, Source::Foreign("S2C")] {
            let said = order_of(&swapped, |x| x, whose).unwrap();
            assert!(
                said.contains("`B04` has a mean of 230") && said.contains("expected for `B08`"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_band_stored_last_contradicts_the_statistics() {
        // EuroSAT's files have B8A last: B09, B11 and B12 each move one position forward.
        let rotated = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 8];
        for whose in [Source::Own, Source::Foreign("S2C")] {
            let said = order_of(&rotated, |x| x, whose).unwrap();
            assert!(said.contains("a different order") && said.contains("`B12`"), "{said}");
        }
    }

    #[test]
    fn a_single_band_far_from_its_statistics_is_told() {
        let (names, mut images) = (names(), images(&straight(), |x| x));
        for image in &mut images {
            image.bands[9].mean = 9000.0;
        }
        let pooled = pool(&names, images.iter());
        let said = order(Split::Train, &pooled, Source::Foreign("S2C"), &statistics()).unwrap().found;
        assert!(said.contains("`B09` has a mean of 9000, expected 732 ± 475"), "{said}");
    }

    #[test]
    fn a_band_that_feeds_two_channels_counts_once() {
        let bands = [(0, "a"), (1, "b"), (2, "a")];
        let image = PixelSummary::of([Array3::ones((3, 2, 2)).view()]);
        let pooled = pool(&bands, std::iter::once(&image));
        assert_eq!(
            pooled.iter().map(|band| (band.name, band.channel)).collect::<Vec<_>>(),
            [("a", 0), ("b", 1)]
        );
        assert!(pool(&bands, std::iter::empty()).is_empty());
    }
}
