//! One pass over rows of features: the scores of each row, and the sum of all rows weighted by what a caller makes of the scores.
//! A loss and its gradient are one such pass.
//!
//! With few scores and many rows, such products wait for memory. So each group of rows is read once and stays in the cache for both
//! products. Sums are in one order and use fused multiplication and addition, so that every processor that has this instruction
//! (x86-64 since 2013) computes the same bits.

use ndarray::{Array2, ArrayView2, s};

/// Numbers that one instruction handles: what a vector register of AVX2 holds.
const LANES: usize = 4;
type Lanes = [f64; LANES];

/// Rows that are read once for both products: of 768 numbers, 200 kB.
const GROUP: usize = 32;

/// Columns whose sums stay in the nearest cache while a group of rows is added to them, in lanes.
const COLUMNS: usize = 64;

/// For each row x of `rows` [n, d] computes its scores z = W x, W being `weights` [k, d], and lets `visit` change them, given the
/// row's index. Returns Σ z xᵀ, [k, d].
pub fn pass(
    rows: ArrayView2<f64>,
    weights: ArrayView2<f64>,
    mut visit: impl FnMut(usize, &mut [f64]),
) -> Array2<f64> {
    let (k, d) = weights.dim();
    let rows = rows.as_standard_layout();
    let mut sums = Array2::zeros((k, d));
    if k == 0 || d == 0 {
        (0..rows.nrows()).for_each(|row| visit(row, &mut vec![0.0; k]));
        return sums;
    }
    let arch = pulp::Arch::new();
    if matches!(arch, pulp::Arch::Scalar) {
        // Without the instruction, `mul_add` is a function that takes twenty times as long.
        let mut scores = rows.dot(&weights.t());
        scores
            .outer_iter_mut()
            .enumerate()
            .for_each(|(row, mut z)| visit(row, z.as_slice_mut().unwrap_or_default()));
        return scores.t().dot(&rows);
    }
    // Feature by feature, the weights of all scores, the last lanes filled with zeros.
    let lanes = k.div_ceil(LANES);
    let mut turned = vec![[0.0; LANES]; d * lanes];
    for ((score, feature), weight) in weights.indexed_iter() {
        turned[feature * lanes + score / LANES][score % LANES] = *weight;
    }
    let mut scores = vec![[0.0; LANES]; GROUP * lanes];
    for first in (0..rows.nrows()).step_by(GROUP) {
        let group = rows.slice(s![first..rows.nrows().min(first + GROUP), ..]);
        let scores = &mut scores[..group.nrows() * lanes];
        // Both are in standard layout, so that neither slice is missing.
        let (Some(x), Some(sums)) = (group.as_slice(), sums.as_slice_mut()) else { continue };
        arch.dispatch(Score { x, w: &turned, d, scores });
        for (row, z) in (first..).zip(scores.chunks_exact_mut(lanes)) {
            visit(row, &mut z.as_flattened_mut()[..k]);
        }
        arch.dispatch(Add { x, scores: scores.as_flattened(), d, sums });
    }
    sums
}

/// Scores [n, k] of rows [n, d] by turned weights [d, k], k in lanes. A type, not a closure, so that it is surely compiled for the
/// instructions that `pulp` finds: without them, `mul_add` is a function.
struct Score<'a> {
    x: &'a [f64],
    w: &'a [Lanes],
    d: usize,
    scores: &'a mut [Lanes],
}

impl pulp::NullaryFnOnce for Score<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        score(self.x, self.w, self.d, self.scores);
    }
}

#[inline(always)]
fn score(x: &[f64], w: &[Lanes], d: usize, scores: &mut [Lanes]) {
    let k = w.len() / d;
    for (x, scores) in x.chunks(4 * d).zip(scores.chunks_mut(4 * k)) {
        for first in (0..k).step_by(3) {
            match (x.len() / d, k - first) {
                (4, 1) => tile::<4, 1>(x, w, d, scores, first),
                (4, 2) => tile::<4, 2>(x, w, d, scores, first),
                (4, _) => tile::<4, 3>(x, w, d, scores, first),
                (_, count) => {
                    for (x, scores) in x.chunks_exact(d).zip(scores.chunks_exact_mut(k)) {
                        match count {
                            1 => tile::<1, 1>(x, w, d, scores, first),
                            2 => tile::<1, 2>(x, w, d, scores, first),
                            _ => tile::<1, 3>(x, w, d, scores, first),
                        }
                    }
                }
            }
        }
    }
}

/// R lanes of the scores of S rows, from the lane `first` on.
#[inline(always)]
fn tile<const S: usize, const R: usize>(
    x: &[f64],
    w: &[Lanes],
    d: usize,
    scores: &mut [Lanes],
    first: usize,
) {
    let k = w.len() / d;
    let x: [&[f64]; S] = std::array::from_fn(|s| &x[s * d..(s + 1) * d]);
    let mut sums = [[[0.0; LANES]; R]; S];
    for (feature, weights) in w.chunks_exact(k).enumerate() {
        let weights: [Lanes; R] = std::array::from_fn(|r| weights[first + r]);
        for s in 0..S {
            let number = x[s][feature];
            for r in 0..R {
                for lane in 0..LANES {
                    sums[s][r][lane] = number.mul_add(weights[r][lane], sums[s][r][lane]);
                }
            }
        }
    }
    for s in 0..S {
        scores[s * k + first..][..R].copy_from_slice(&sums[s]);
    }
}

/// Adds rows [n, d], each times its scores [n, k], to sums [k, d]; the scores of each row are filled up to whole lanes.
struct Add<'a> {
    x: &'a [f64],
    scores: &'a [f64],
    d: usize,
    sums: &'a mut [f64],
}

impl pulp::NullaryFnOnce for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        add(self.x, self.scores, self.d, self.sums);
    }
}

#[inline(always)]
fn add(x: &[f64], scores: &[f64], d: usize, sums: &mut [f64]) {
    let (n, whole) = (x.len() / d, d / LANES);
    let k = scores.len() / n;
    for first in (0..whole).step_by(COLUMNS) {
        let columns = (first, whole.min(first + COLUMNS));
        let mut row = 0;
        while row < n {
            let count = if row + 4 <= n { 4 } else { 1 };
            let (x, scores) = (&x[row * d..(row + count) * d], &scores[row * k..(row + count) * k]);
            for (pair, sums) in sums.chunks_mut(2 * d).enumerate() {
                match (count, sums.len() / d) {
                    (4, 2) => update::<4, 2>(x, (scores, k, 2 * pair), d, columns, sums),
                    (4, _) => update::<4, 1>(x, (scores, k, 2 * pair), d, columns, sums),
                    (_, 2) => update::<1, 2>(x, (scores, k, 2 * pair), d, columns, sums),
                    _ => update::<1, 1>(x, (scores, k, 2 * pair), d, columns, sums),
                }
            }
            row += count;
        }
    }
    // The columns after the last whole lanes.
    for (x, scores) in x.chunks_exact(d).zip(scores.chunks_exact(k)) {
        for (z, sums) in scores.iter().zip(sums.chunks_exact_mut(d)) {
            for (sum, x) in sums[whole * LANES..].iter_mut().zip(&x[whole * LANES..]) {
                *sum = z.mul_add(*x, *sum);
            }
        }
    }
}

/// Adds S rows to R sums, in the lanes from `first` to `last`.
#[inline(always)]
fn update<const S: usize, const R: usize>(
    x: &[f64],
    (scores, k, score): (&[f64], usize, usize),
    d: usize,
    (first, last): (usize, usize),
    sums: &mut [f64],
) {
    let x: [&[Lanes]; S] = std::array::from_fn(|s| &x[s * d..(s + 1) * d].as_chunks().0[first..last]);
    let z: [[f64; S]; R] = std::array::from_fn(|r| std::array::from_fn(|s| scores[s * k + score + r]));
    let mut rest = sums.chunks_exact_mut(d);
    let sums: [&mut [Lanes]; R] = std::array::from_fn(|_| {
        let row = rest.next().unwrap_or_default();
        &mut row.as_chunks_mut().0[first..last]
    });
    for place in 0..last - first {
        let numbers: [Lanes; S] = std::array::from_fn(|s| x[s][place]);
        for r in 0..R {
            let mut sum = sums[r][place];
            for s in 0..S {
                for lane in 0..LANES {
                    sum[lane] = z[r][s].mul_add(numbers[s][lane], sum[lane]);
                }
            }
            sums[r][place] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn random(n: usize, d: usize, seed: u64) -> Array2<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((n, d), || random.random_range(-1.0..1.0))
    }

    /// Scores and sums of the definition, with squares of scores for weights.
    #[test]
    fn scores_and_sums_are_those_of_products_of_matrices() {
        for (n, d, k) in
            [(1, 1, 1), (3, 5, 2), (4, 8, 3), (37, 21, 10), (100, 300, 7), (64, 768, 1), (0, 4, 2)]
        {
            let (x, w) = (random(n, d, 1), random(k, d, 2));
            let mut seen = Array2::zeros((n, k));
            let sums = pass(x.view(), w.view(), |row, z| {
                seen.row_mut(row).iter_mut().zip(&*z).for_each(|(seen, z)| *seen = *z);
                z.iter_mut().for_each(|z| *z *= *z);
            });
            let expected = x.dot(&w.t());
            let near = |a: &Array2<f64>, b: &Array2<f64>| {
                a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * (1.0 + b.abs()))
            };
            assert!(near(&seen, &expected), "{n} x {d}, {k}: scores");
            let squares = expected.mapv(|z| z * z);
            assert!(near(&sums, &squares.t().dot(&x)), "{n} x {d}, {k}: sums");
        }
    }

    /// The same bits whichever rows are neighbours, and for rows and weights that are no contiguous parts.
    #[test]
    fn bits_do_not_depend_on_how_rows_are_grouped_or_stored() {
        let (x, w) = (random(70, 30, 3), random(5, 30, 4));
        let scores = |x: ArrayView2<f64>, w: ArrayView2<f64>| {
            let mut seen = Vec::new();
            let sums = pass(x, w, |_, z| seen.extend(z.iter().map(|z| z.to_bits())));
            (seen, sums)
        };
        let (all, sums) = scores(x.view(), w.view());
        let one_by_one: Vec<u64> =
            (0..70).flat_map(|row| scores(x.slice(s![row..=row, ..]), w.view()).0).collect();
        assert_eq!(all, one_by_one);
        let (turned, turned_weights) =
            (x.t().as_standard_layout().into_owned(), w.t().as_standard_layout().into_owned());
        let again = scores(turned.t(), turned_weights.t());
        assert!(again.0 == all && again.1 == sums);
    }
}
