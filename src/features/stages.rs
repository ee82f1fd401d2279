//! Where the time of extraction goes, for `--profile`.
//!
//! Each stage adds up over the whole program. Reading and preparing happen in several threads at once, so their sums may exceed
//! the time that passes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A stage between files and features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Opening, decoding and summarising a sample, in the reading threads.
    Read,
    /// Normalising and resizing on the CPU, in the reading threads.
    Prepare,
    /// Waiting for samples that are not read yet.
    WaitForSamples,
    /// Copying a batch's images behind one another.
    Assemble,
    /// Copying a batch to the device, and normalising and resizing there.
    Upload,
    /// Encoding, or on a GPU starting to.
    Encode,
    /// Waiting for the device's features, and copying them back.
    WaitForDevice,
}

/// All stages in order, with their descriptions.
const STAGES: [(Stage, &str); 7] = [
    (Stage::Read, "read files (all threads)"),
    (Stage::Prepare, "normalise and resize (all threads)"),
    (Stage::WaitForSamples, "wait for samples"),
    (Stage::Assemble, "assemble batches"),
    (Stage::Upload, "upload"),
    (Stage::Encode, "encode, or start to"),
    (Stage::WaitForDevice, "wait for the device"),
];

/// Nanoseconds per stage.
static SPENT: [AtomicU64; STAGES.len()] = [const { AtomicU64::new(0) }; STAGES.len()];

/// Runs `work` and adds its time to `stage`.
pub fn timed<T>(stage: Stage, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    SPENT[stage as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    done
}

/// Describes the time per stage, one line each, with its share of `whole`.
pub fn describe(whole: Duration) -> String {
    let mut text = String::new();
    for (stage, about) in STAGES {
        let spent = Duration::from_nanos(SPENT[stage as usize].load(Ordering::Relaxed)).as_secs_f64();
        let share = 100.0 * spent / whole.as_secs_f64().max(1e-9);
        text.push_str(&format!("{about:<36} {spent:>9.2} s {share:>5.0} %\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_its_line() {
        assert_eq!(timed(Stage::Assemble, || 3), 3);
        for (place, (stage, about)) in STAGES.into_iter().enumerate() {
            assert_eq!(stage as usize, place);
            assert!(describe(Duration::from_secs(1)).contains(about));
        }
    }
}
