//! Band statistics for data sets that come without any: computed over the train images and remembered between runs.

use std::collections::BTreeMap;

use super::{Dataset, Split, fingerprint, loader};
use crate::error::AtPath;
use crate::files::write_atomically;
use crate::task::Task;
use crate::task::images::full_name;
use crate::transform::normalize::BandStatistics;
use crate::{Error, Result, home, stop};

/// Version of this code. Statistics remembered by another version are recomputed.
const VERSION: u32 = 2;

/// Computes the mean and the (population, not sample) standard deviation of each of these bands of the `image`th image,
/// over the pixels of all train images as [`Dataset::read`] returns them.
///
/// # Errors
/// If an image cannot be read, the train split is empty, or a band is constant.
pub fn statistics(
    dataset: &dyn Dataset,
    task: &Task,
    image: usize,
    bands: &[String],
) -> Result<Vec<BandStatistics>> {
    let all = of_all_bands(dataset, task)?;
    let label = task.image_labels().into_iter().nth(image).flatten();
    let of = |band: &String| {
        let found = all
            .get(&full_name(band, label.as_deref()))
            .filter(|s| s.mean.is_finite() && s.std.is_finite() && s.std > 0.0);
        found.copied().ok_or_else(|| {
            Error::mismatch(format!(
                "band {band}: no usable mean and standard deviation over the train images"
            ))
            .help("is the train split empty, or the band constant? fetch the data set again")
        })
    };
    bands.iter().map(of).collect()
}

/// Statistics of all bands by full name.
fn of_all_bands(dataset: &dyn Dataset, task: &Task) -> Result<BTreeMap<String, BandStatistics>> {
    let bands = dataset.bands()?;
    let names = task.full_names(&bands);
    let content = fingerprint::combine(dataset.samples(Split::Train), &dataset.contents(Split::Train)?);
    let memo = home::cache_folder().ok().map(|folder| {
        let how = format!("{VERSION} {} {}", dataset.decoding().hash(), names.join(","));
        let how = blake3::hash(how.as_bytes()).to_hex();
        folder.join("statistics").join(format!("{content}.{}.json", &how[..8]))
    });
    let known = memo.as_ref().and_then(|memo| std::fs::read(memo).ok());
    if let Some(known) = known.and_then(|text| recalled(&text)) {
        return Ok(known);
    }
    let statistics = compute(dataset, &bands, names)?;
    if let Some(memo) = memo {
        // Text that keeps every digit, so that a second run computes with the same numbers.
        let of = |s: &BandStatistics| [format!("{:?}", s.mean), format!("{:?}", s.std)];
        let text: BTreeMap<&String, [String; 2]> = statistics.iter().map(|(band, s)| (band, of(s))).collect();
        let text = serde_json::to_vec_pretty(&text).at(&memo)?;
        // Failing to remember them costs only time.
        if let Err(problem) = write_atomically(&memo, &text) {
            tracing::warn!("cannot remember the statistics: {problem}");
        }
    }
    Ok(statistics)
}

/// Parses remembered statistics; `None` if the text is damaged.
fn recalled(text: &[u8]) -> Option<BTreeMap<String, BandStatistics>> {
    let known: BTreeMap<String, [String; 2]> = serde_json::from_slice(text).ok()?;
    let parsed = known.into_iter().map(|(band, [mean, std])| {
        Some((band, BandStatistics { mean: mean.parse().ok()?, std: std.parse().ok()? }))
    });
    parsed.collect()
}

fn compute(
    dataset: &dyn Dataset,
    bands: &[Vec<String>],
    names: Vec<String>,
) -> Result<BTreeMap<String, BandStatistics>> {
    let count = dataset.samples(Split::Train).len();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |index: usize| {
        if let Some(name) = dataset.samples(Split::Train).get(index) {
            stop::note_sample(format_args!("train {name}"));
        }
        let sample = dataset.read(Split::Train, index, bands)?;
        let planes = sample.images.iter().flat_map(|image| image.pixels.outer_iter());
        Ok(planes.map(|plane| Moments::of(plane.iter())).collect::<Vec<_>>())
    };
    let moments = loader::ordered(count, threads, 2 * threads, read, |images| {
        let mut sum = vec![Moments::default(); names.len()];
        for image in images {
            sum.iter_mut().zip(image?).for_each(|(sum, plane)| sum.add(plane));
        }
        Ok::<_, Error>(sum)
    })?;
    let statistics = names.into_iter().zip(moments).map(|(band, moments)| {
        let std = (moments.squares / moments.count).sqrt();
        (band, BandStatistics { mean: moments.mean, std })
    });
    Ok(statistics.collect())
}

/// Count, mean and sum of squared deviations of a set of numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of<'a>(values: impl ExactSizeIterator<Item = &'a f32> + Clone) -> Self {
        let count = values.len() as f64;
        let values = values.map(|value| f64::from(*value));
        let mean = if count == 0.0 { 0.0 } else { values.clone().sum::<f64>() / count };
        Moments { count, mean, squares: values.map(|value| (value - mean).powi(2)).sum() }
    }

    /// Merges two sets [Chan et al., 1979].
    fn add(&mut self, other: Moments) {
        let count = self.count + other.count;
        if count == 0.0 {
            return;
        }
        let apart = other.mean - self.mean;
        self.squares += other.squares + apart * apart * self.count * other.count / count;
        self.mean += apart * other.count / count;
        self.count = count;
    }
}
