//! A part of a split, to try something out.

use rand::seq::SliceRandom;

use crate::random::stream;

/// The samples of a split that count: all of them, or `limit`, the same for every seed, in the split's order.
pub fn subset(all: usize, limit: Option<usize>) -> Vec<usize> {
    let mut samples: Vec<usize> = (0..all).collect();
    if let Some(limit) = limit.filter(|limit| *limit < all) {
        // Not the first: files may be sorted by class.
        samples.shuffle(&mut stream(0, 1));
        samples.truncate(limit);
        samples.sort_unstable();
    }
    samples
}
