//! Nearest neighbours by Euclidean distance. Squared differences are summed in float64: the usual shorter way, |a|² + |b|² -
//! 2ab in float32, loses the difference of close vectors far from 0.

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use super::neighbours::{Best, Neighbours, check_shapes};
use crate::{Error, Result};

/// Rows per step: the train rows of a step stay in a core's cache while the queries pass over them.
const TRAIN_BLOCK: usize = 128;
const QUERY_BLOCK: usize = 16;

/// Returns the min(k, n) train rows with the smallest Euclidean distance to each query row, nearest first, the lower index
/// first on ties. The similarities are minus the squared distances, rounded to float32, which rank them. The result does not
/// depend on the number of threads.
///
/// # Errors
/// If the widths differ, if k, the width or the number of train rows is 0, or if a value is not finite or so large that a
/// distance could overflow (the message names the row).
pub fn nearest_euclidean(
    train: ArrayView2<'_, f32>,
    queries: ArrayView2<'_, f32>,
    k: usize,
) -> Result<Neighbours> {
    check_shapes(train, queries, k)?;
    check_range("train", train)?;
    check_range("query", queries)?;
    let k = k.min(train.nrows());
    let (train, queries) = (train.as_standard_layout(), queries.as_standard_layout());
    let width = train.ncols();
    let (Some(rows), Some(all)) = (train.as_slice(), queries.as_slice()) else {
        return Err(Error::mismatch("nearest neighbours: features are not contiguous"));
    };
    let of_block = |block: &[f32]| {
        let mut best = vec![Best::new(k); block.len() / width];
        let mut similarities = [0.0f32; TRAIN_BLOCK];
        for (rows, first) in rows.chunks(TRAIN_BLOCK * width).zip((0..).step_by(TRAIN_BLOCK)) {
            let similarities = &mut similarities[..rows.len() / width];
            for (query, best) in block.chunks_exact(width).zip(&mut best) {
                for (similarity, row) in similarities.iter_mut().zip(rows.chunks_exact(width)) {
                    *similarity = -(squared_distance(query, row) as f32);
                }
                best.offer(similarities, first);
            }
        }
        best
    };
    let best: Vec<Best> = all.par_chunks(QUERY_BLOCK * width).flat_map_iter(of_block).collect();
    Ok(Neighbours::of(&best, k))
}

/// Returns what [`nearest_euclidean`] returns if each query's nearest rows are among its `candidates`, at least `k` ascending
/// rows. Entries of queries without candidates mean nothing. The values must be checked ([`check_range`]).
///
/// # Errors
/// If the features are not contiguous.
pub(crate) fn of_candidates(
    train: ArrayView2<'_, f32>,
    queries: ArrayView2<'_, f32>,
    k: usize,
    candidates: &[Option<Vec<usize>>],
) -> Result<Neighbours> {
    let (train, queries) = (train.as_standard_layout(), queries.as_standard_layout());
    let width = train.ncols();
    let (Some(rows), Some(all)) = (train.as_slice(), queries.as_slice()) else {
        return Err(Error::mismatch("nearest neighbours: features are not contiguous"));
    };
    let best: Vec<Best> = (all.par_chunks(width).zip(candidates))
        .map(|(query, candidates)| {
            let Some(candidates) = candidates else { return Best::filler(k) };
            let mut best = Best::new(k);
            for &row in candidates {
                let distance = squared_distance(query, &rows[row * width..][..width]);
                best.offer_one(-(distance as f32), row);
            }
            best
        })
        .collect();
    Ok(Neighbours::of(&best, k))
}

/// In float64, whose differences of float32 numbers are exact but for rounding far below float32's.
fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 8; // Independent sums, so that the compiler uses vector instructions.
    let mut sums = [0.0f64; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (sum, (a, b)) in sums.iter_mut().zip(a.remainder().iter().zip(b.remainder())) {
        *sum = (f64::from(*a) - f64::from(*b)).powi(2);
    }
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            let difference = f64::from(a[lane]) - f64::from(b[lane]);
            sums[lane] += difference * difference;
        }
    }
    sums.iter().sum()
}

/// Squared distances are at most four times the largest squared norm, and must fit into float32.
pub(crate) fn check_range(split: &str, rows: ArrayView2<'_, f32>) -> Result<()> {
    let fits = |row: ndarray::ArrayView1<'_, f32>| {
        let square: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
        4.0 * square < f64::from(f32::MAX)
    };
    match rows.axis_iter(Axis(0)).position(|row| !fits(row)) {
        Some(row) => Err(Error::not_finite(format!(
            "{split} sample {row}: expected finite features, found some that are not finite or too large"
        ))
        .help("check for NaN pixels, and that the weights belong to the model")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn equal_distances_go_to_the_lower_index() {
        let train = array![[3.0f32], [1.0], [-1.0], [1.0], [0.5]];
        let found = nearest_euclidean(train.view(), array![[0.0f32]].view(), 4).unwrap();
        assert_eq!(found.indices, array![[4, 1, 2, 3]]);
        assert_eq!(found.similarities, array![[-0.25f32, -1.0, -1.0, -1.0]]);
    }

    #[test]
    fn close_vectors_far_from_0_are_told_apart() {
        // In float32, |a|² + |b|² - 2ab of these is 0 or 64.
        let train = array![[20_000.0f32, 1.5], [20_000.0, 1.0], [20_000.0, 3.0]];
        let found = nearest_euclidean(train.view(), array![[20_000.0f32, 0.0]].view(), 3).unwrap();
        assert_eq!(found.indices, array![[1, 0, 2]]);
    }

    #[test]
    fn many_rows_give_what_sorting_gives() {
        let number = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 10.0;
        let train = Array2::from_shape_fn((300, 11), |(i, j)| number(i * 11 + j));
        let queries = Array2::from_shape_fn((37, 11), |(i, j)| number(i * 13 + 5 * j + 1));
        let found = nearest_euclidean(train.view(), queries.view(), 7).unwrap();
        for (query, found) in queries.rows().into_iter().zip(found.indices.rows()) {
            let distance = |row: usize| -> f32 {
                let row = train.row(row);
                row.iter().zip(query).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>()
                    as f32
            };
            let mut all: Vec<usize> = (0..300).collect();
            all.sort_by(|a, b| distance(*a).total_cmp(&distance(*b)));
            assert_eq!(found.to_vec(), all[..7]);
        }
    }

    #[test]
    fn numbers_without_a_distance_are_refused() {
        let good = array![[1.0f32, 2.0], [3.0, 4.0]];
        for bad in [f32::NAN, f32::INFINITY, 1e19] {
            let bad = array![[1.0f32, bad]];
            for (train, queries) in [(&good, &bad), (&bad, &good)] {
                let error = nearest_euclidean(train.view(), queries.view(), 1).unwrap_err().to_string();
                assert!(error.contains("sample 0") && error.contains("too large"), "{error}");
            }
        }
        nearest_euclidean(good.view(), array![[1.0f32]].view(), 1).unwrap_err();
        nearest_euclidean(good.view(), good.view(), 0).unwrap_err();
    }
}
