//! Summary of an image that was read: a hash, a few numbers per band, its classes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{ArrayView2, ArrayView3};

use crate::data::{Split, Target};

/// A band's pixels in one image, in digital numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BandSummary {
    /// Smallest pixel.
    pub min: f32,
    /// Largest pixel.
    pub max: f32,
    /// Mean of all pixels.
    pub mean: f32,
    /// The 2 % quantile of evenly spaced pixels.
    pub low: f32,
    /// The 50 % quantile of evenly spaced pixels.
    pub median: f32,
    /// The 98 % quantile of evenly spaced pixels.
    pub high: f32,
}

/// How many numbers a [`BandSummary`] holds.
pub const NUMBERS: usize = 6;

/// Number of pixels per band from which quantiles are taken; sorting them takes microseconds.
const SAMPLED: usize = 256;

/// Number of pixels processed side by side.
const LANES: usize = 16;

/// Number of pixels hashed at once; their bytes stay in the cache.
const HASHED: usize = 1 << 14;

/// Number of pixels summed in float32 before the sum is added in float64.
const CHUNK: usize = 64 * LANES;

impl BandSummary {
    /// Summarises a band; a band without pixels gives zeros.
    pub fn of(pixels: ArrayView2<f32>) -> Self {
        let columns = pixels.ncols();
        let pixels = pixels.as_standard_layout();
        let pixels = pixels.as_slice().unwrap_or_default();
        let n = pixels.len();
        if n == 0 {
            return BandSummary::from([0.0; NUMBERS]);
        }
        // Independent lanes, which the compiler turns into vector instructions.
        let (mut min, mut max, mut sum) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], 0.0f64);
        for chunk in pixels.chunks(CHUNK) {
            let mut sums = [0.0f32; LANES];
            let (lanes, rest) = chunk.as_chunks::<LANES>();
            for lane in lanes {
                for (((min, max), sum), pixel) in min.iter_mut().zip(&mut max).zip(&mut sums).zip(lane) {
                    *min = if pixel < min { *pixel } else { *min };
                    *max = if pixel > max { *pixel } else { *max };
                    *sum += pixel;
                }
            }
            for pixel in rest {
                (min[0], max[0]) = (min[0].min(*pixel), max[0].max(*pixel));
                sums[0] += pixel;
            }
            sum += sums.iter().copied().map(f64::from).sum::<f64>();
        }
        let step = n.div_ceil(SAMPLED);
        // A step that divides the width would sample only a few columns.
        let step = if step > 1 && columns.is_multiple_of(step) { step + 1 } else { step };
        let mut sampled: Vec<f32> = pixels.iter().copied().step_by(step).collect();
        sampled.sort_unstable_by(f32::total_cmp);
        let quantile = |share: f64| sampled[(share * (sampled.len() - 1) as f64).round() as usize];
        BandSummary {
            min: min.into_iter().fold(f32::INFINITY, f32::min),
            max: max.into_iter().fold(f32::NEG_INFINITY, f32::max),
            mean: (sum / n as f64) as f32,
            low: quantile(0.02),
            median: quantile(0.5),
            high: quantile(0.98),
        }
    }
}

impl From<[f32; NUMBERS]> for BandSummary {
    fn from([min, max, mean, low, median, high]: [f32; NUMBERS]) -> Self {
        BandSummary { min, max, mean, low, median, high }
    }
}

impl From<BandSummary> for [f32; NUMBERS] {
    fn from(BandSummary { min, max, mean, low, median, high }: BandSummary) -> Self {
        [min, max, mean, low, median, high]
    }
}

/// Bytes of the numbers, for hashing; both zeros count as the same number.
pub(crate) fn bytes(numbers: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * numbers.len()];
    for (bytes, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
        *bytes = (number + 0.0).to_le_bytes();
    }
    bytes
}

/// Summary of an image's pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelSummary {
    /// Hash of shape and pixels of the bands of each image that were read, independent of the rest of the file.
    pub hash: blake3::Hash,
    /// One summary per channel, image by image.
    pub bands: Vec<BandSummary>,
}

impl PixelSummary {
    /// Summarises the images [bands, h, w] of a sample in digital numbers.
    pub fn of<'p>(images: impl IntoIterator<Item = ArrayView3<'p, f32>>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut bands = Vec::new();
        for image in images {
            for side in image.shape() {
                hasher.update(&(*side as u64).to_le_bytes());
            }
            let image = image.as_standard_layout();
            let pixels = image.as_slice().unwrap_or_default();
            for pixels in pixels.chunks(HASHED) {
                hasher.update(&bytes(pixels));
            }
            bands.extend(image.outer_iter().map(BandSummary::of));
        }
        PixelSummary { hash: hasher.finalize(), bands }
    }
}

/// Summary of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed(Arc<Parts>);

#[derive(Debug, PartialEq)]
struct Parts {
    pixels: PixelSummary,
    classes: Vec<usize>,
}

impl Observed {
    /// Combines an image's summary with its label.
    pub fn new(pixels: PixelSummary, target: &Target) -> Self {
        Observed(Arc::new(Parts { pixels, classes: classes_of(target) }))
    }

    /// Returns the summary of the sample's pixels.
    pub fn pixels(&self) -> &PixelSummary {
        &self.0.pixels
    }

    /// Returns the classes that occur in the label, or the labels that apply, in ascending order.
    pub fn classes(&self) -> &[usize] {
        &self.0.classes
    }
}

fn classes_of(target: &Target) -> Vec<usize> {
    match target {
        Target::Class(class) => vec![*class],
        Target::Labels(flags) => {
            flags.iter().enumerate().filter(|(_, applies)| **applies).map(|(label, _)| label).collect()
        }
        Target::Mask(mask) => {
            // Almost all classes fit into a byte; the reader rejects or ignores the others.
            let mut occurs = [false; 255];
            for code in mask {
                if let Some(occurs) = usize::try_from(*code).ok().and_then(|code| occurs.get_mut(code)) {
                    *occurs = true;
                }
            }
            occurs.iter().enumerate().filter(|(_, occurs)| **occurs).map(|(class, _)| class).collect()
        }
        Target::Value(_) | Target::ValueMap(_) => Vec::new(),
    }
}

/// A log of the samples that were read, by split and index. It is shared by the reading threads.
#[derive(Debug, Default)]
pub struct Log(Mutex<BTreeMap<Split, Vec<Option<Observed>>>>);

impl Log {
    fn splits(&self) -> std::sync::MutexGuard<'_, BTreeMap<Split, Vec<Option<Observed>>>> {
        // A thread that panicked left complete entries.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the summary of a sample, if it was read.
    pub fn get(&self, split: Split, index: usize) -> Option<Observed> {
        self.splits().get(&split)?.get(index)?.clone()
    }

    /// Whether the sample was read.
    pub fn holds(&self, split: Split, index: usize) -> bool {
        self.splits().get(&split).and_then(|all| all.get(index)).is_some_and(Option::is_some)
    }

    /// Stores the summary of a sample.
    pub fn note(&self, split: Split, index: usize, observed: Observed) {
        let mut splits = self.splits();
        let all = splits.entry(split).or_default();
        if all.len() <= index {
            all.resize(index + 1, None);
        }
        all[index] = Some(observed);
    }

    /// Returns all summaries stored so far.
    pub fn all(&self) -> BTreeMap<Split, Vec<Option<Observed>>> {
        self.splits().clone()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3, array};

    use super::*;

    #[test]
    fn a_band_has_exact_extremes_and_mean_and_close_quantiles() {
        let pixels = Array2::from_shape_fn((100, 100), |(y, x)| (y * 100 + x) as f32);
        let summary = BandSummary::of(pixels.view());
        assert_eq!((summary.min, summary.max), (0.0, 9999.0));
        assert!((summary.mean - 4999.5).abs() < 0.01, "{summary:?}");
        for (found, expected) in [(summary.low, 200.0), (summary.median, 5000.0), (summary.high, 9800.0)] {
            assert!((found - expected).abs() < 100.0, "{summary:?}");
        }
        let numbers: [f32; NUMBERS] = summary.into();
        assert_eq!(BandSummary::from(numbers), summary);
        assert_eq!(BandSummary::of(Array2::zeros((0, 4)).view()).max, 0.0);
    }

    #[test]
    fn quantiles_see_all_columns_of_an_image_as_wide_as_the_step() {
        // 64 x 64 gives a step of 16, which divides 64: without the correction only four columns would be sampled.
        let pixels = Array2::from_shape_fn((64, 64), |(_, x)| if x % 16 == 0 { 1000.0 } else { 1.0 });
        assert_eq!(BandSummary::of(pixels.view()).median, 1.0);
    }

    #[test]
    fn a_hash_tells_pixels_apart_and_nothing_else() {
        let image = Array3::from_shape_fn((2, 3, 4), |(b, y, x)| (b * 12 + y * 4 + x) as f32);
        let hash = |image: &Array3<f32>| PixelSummary::of([image.view()]).hash;
        let mut other = image.clone();
        other[[1, 2, 3]] += 1.0;
        assert_ne!(hash(&image), hash(&other));
        assert_eq!(hash(&image), hash(&image.clone()));
        assert_ne!(hash(&image), hash(&image.clone().into_shape_with_order((2, 4, 3)).unwrap()));
        assert_eq!(hash(&array![[[0.0]]]), hash(&array![[[-0.0]]]));
    }

    #[test]
    fn classes_are_those_that_occur() {
        assert_eq!(classes_of(&Target::Class(7)), [7]);
        assert_eq!(classes_of(&Target::Labels(vec![false, true, true])), [1, 2]);
        assert_eq!(classes_of(&Target::Mask(array![[3, -1], [255, 3]])), [3]);
    }

    #[test]
    fn a_log_keeps_what_was_noted_by_place() {
        let log = Log::default();
        let seen = Observed::new(PixelSummary::of([Array3::zeros((1, 2, 2)).view()]), &Target::Class(1));
        log.note(Split::Test, 2, seen.clone());
        assert!(log.holds(Split::Test, 2) && !log.holds(Split::Test, 1) && !log.holds(Split::Train, 2));
        assert_eq!(log.all()[&Split::Test], [None, None, Some(seen)]);
    }
}
