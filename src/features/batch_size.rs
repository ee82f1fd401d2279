//! How many images an encoder gets at once: given, or found while it works.
//!
//! On the CPU a small batch is as fast as a large one. A GPU needs many images to be busy, and how many fit depends on the model
//! and the card. So the size doubles until throughput stops growing or memory is full, and is remembered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::files;

/// Images per batch on devices that do not gain from more.
pub const SMALL: usize = 8;

/// The largest size that is tried.
const LARGEST: usize = 1024;

/// A doubled batch must be faster than before by this factor, or the size stays.
const WORTH: f64 = 1.05;

/// Batches measured per size, after one that is not counted: the first one also chooses and compiles kernels.
const MEASURED: usize = 2;

/// The number of images per batch. Clones share what they find.
///
/// ```
/// use std::time::Duration;
/// use terrabench::features::BatchSize;
///
/// let size = BatchSize::growing(8);
/// // Twice the images in the same time: worth it.
/// (0..3).for_each(|_| size.note(8, Duration::from_millis(10)));
/// (0..3).for_each(|_| size.note(16, Duration::from_millis(10)));
/// assert_eq!(size.images(), 32);
/// // Twice the time for twice the images: not worth it.
/// (0..3).for_each(|_| size.note(32, Duration::from_millis(20)));
/// assert_eq!((size.images(), size.is_settled()), (16, true));
/// ```
#[derive(Debug, Clone)]
pub struct BatchSize(Arc<Mutex<Growth>>);

#[derive(Debug)]
struct Growth {
    size: usize,
    /// More than this does not fit.
    most: usize,
    /// The best size so far, and its images per second.
    best: Option<(usize, f64)>,
    /// What the batches of the present size took, the first one included.
    times: Vec<Duration>,
    settled: bool,
}

impl From<usize> for BatchSize {
    /// A size that never changes, except if it does not fit into memory.
    fn from(size: usize) -> Self {
        BatchSize::starting(size.max(1), true)
    }
}

impl BatchSize {
    /// A size that grows from `start` while that pays.
    pub fn growing(start: usize) -> Self {
        BatchSize::starting(start.clamp(1, LARGEST), false)
    }

    fn starting(size: usize, settled: bool) -> Self {
        let most = size.max(LARGEST);
        BatchSize(Arc::new(Mutex::new(Growth { size, most, best: None, times: Vec::new(), settled })))
    }

    fn lock(&self) -> MutexGuard<'_, Growth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present number of images per batch.
    pub fn images(&self) -> usize {
        self.lock().size
    }

    /// Whether the size does not grow any more.
    pub fn is_settled(&self) -> bool {
        self.lock().settled
    }

    /// Takes in that a batch of `images` took this long, from the end of the one before to its own.
    pub fn note(&self, images: usize, took: Duration) {
        let mut growth = self.lock();
        // The last batch of a split is smaller, and a batch that was under way has the size before.
        if growth.settled || images != growth.size {
            return;
        }
        growth.times.push(took);
        if growth.times.len() <= MEASURED {
            return;
        }
        let seconds: f64 = growth.times.drain(..).skip(1).map(|time| time.as_secs_f64()).sum();
        let rate = (MEASURED * images) as f64 / seconds.max(1e-9);
        match growth.best {
            Some((size, best)) if rate < WORTH * best => (growth.size, growth.settled) = (size, true),
            _ => {
                growth.best = Some((images, rate));
                growth.size = (2 * images).min(growth.most);
                growth.settled = growth.size == images;
            }
        }
    }

    /// Takes in that `images` at once do not fit into the device's memory.
    pub fn note_too_large(&self, images: usize) {
        let mut growth = self.lock();
        growth.most = growth.most.min((images / 2).max(1));
        growth.size = growth.size.min(growth.most);
        growth.settled = true;
    }
}

/// The sizes of a run, by what they hold for, and those found in earlier runs.
#[derive(Debug, Default)]
pub struct BatchSizes {
    given: Option<usize>,
    /// Where sizes are remembered; `None` if they are not.
    file: Option<PathBuf>,
    remembered: BTreeMap<String, usize>,
    used: Mutex<BTreeMap<String, BatchSize>>,
}

impl BatchSizes {
    /// Uses the size that the user gave, if any. Sizes that are found are remembered in the folder `cache`.
    pub fn new(given: Option<usize>, cache: Option<&Path>) -> Self {
        let file = cache.map(|folder| folder.join("batch-sizes.json"));
        // A file that cannot be read costs a few batches of another size.
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let remembered = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        BatchSizes { given, file, remembered, used: Mutex::default() }
    }

    /// The size that the user gave, or a small one.
    pub fn given_or_small(&self) -> usize {
        self.given.unwrap_or(SMALL)
    }

    /// The size for `what`: model, device, precision and image size. It grows by itself if `grows` and none was given.
    pub fn of(&self, what: &str, grows: bool) -> BatchSize {
        if self.given.is_some() || !grows {
            return self.given_or_small().into();
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || match self.remembered.get(what) {
            Some(size) => BatchSize::from(*size),
            None => BatchSize::growing(SMALL),
        };
        used.entry(what.to_owned()).or_insert_with(start).clone()
    }
}

impl Drop for BatchSizes {
    /// Remembers what was found.
    fn drop(&mut self) {
        let (Some(file), Ok(used)) = (&self.file, self.used.get_mut()) else { return };
        let mut all = self.remembered.clone();
        all.extend(
            used.iter()
                .filter(|(_, size)| size.is_settled())
                .map(|(what, size)| (what.clone(), size.images())),
        );
        if all != self.remembered
            && let Ok(text) = serde_json::to_vec_pretty(&all)
        {
            // Not to be remembered is no harm.
            _ = files::write_atomically(file, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(size: &BatchSize, images_per_second: impl Fn(usize) -> f64) -> usize {
        for _ in 0..100 {
            let images = size.images();
            size.note(images, Duration::from_secs_f64(images as f64 / images_per_second(images)));
        }
        size.images()
    }

    #[test]
    fn it_grows_until_throughput_does_not() {
        // Of a card that is busy from 100 images on.
        let size = BatchSize::growing(8);
        assert_eq!(batches(&size, |images| 10.0 * images.min(100) as f64), 128);
        assert!(size.is_settled());
    }

    #[test]
    fn a_full_memory_ends_the_growth() {
        let size = BatchSize::growing(8);
        (0..9).for_each(|_| size.note(size.images(), Duration::from_millis(10)));
        assert_eq!(size.images(), 64);
        size.note_too_large(64);
        assert_eq!((size.images(), size.is_settled()), (32, true));
        let given = BatchSize::from(100);
        given.note_too_large(100);
        assert_eq!(given.images(), 50);
    }

    #[test]
    fn a_found_size_is_remembered_by_model_and_device() {
        let folder = tempfile::tempdir().unwrap();
        let sizes = BatchSizes::new(None, Some(folder.path()));
        batches(&sizes.of("a", true), |images| images.min(60) as f64);
        let _unsettled = sizes.of("b", true);
        assert_eq!(sizes.of("a", false).images(), SMALL);
        drop(sizes);
        let sizes = BatchSizes::new(None, Some(folder.path()));
        assert_eq!(sizes.of("a", true).images(), 64);
        assert_eq!(sizes.of("b", true).images(), SMALL);
        assert_eq!(BatchSizes::new(Some(5), Some(folder.path())).of("a", true).images(), 5);
    }
}
