//! A subset of a split, for quick trials.

use rand::seq::SliceRandom;

use crate::random::stream;

/// Returns the indices of the samples to use, ascending: all, or `limit` of them, the same for every seed.
pub fn subset(all: usize, limit: Option<usize>) -> Vec<usize> {
    let mut samples: Vec<usize> = (0..all).collect();
    if let Some(limit) = limit.filter(|limit| *limit < all) {
        // Not the first ones: files may be sorted by class.
        samples.shuffle(&mut stream(0, 1));
        samples.truncate(limit);
        samples.sort_unstable();
    }
    samples
}
