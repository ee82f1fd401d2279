//! Nearest neighbours among many features: a device proposes candidates, and the CPU decides among them.
//!
//! A device multiplies by blocks and sums in an order of its own, so that its similarities differ from the CPU's in the last
//! digits. It only proposes, for each query, the rows that can be among the nearest whatever the rounding. Their similarities are
//! then computed as on the CPU, so that neighbours, ties and similarities are the CPU's. A query with more candidates than were
//! asked for is searched on the CPU.

use burn::tensor::{FloatDType, Int, Tensor};
use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::{Accelerator, download};
use crate::config::{Distance, EmbeddingDtype};
use crate::solve::euclidean::{check_range, nearest_euclidean, of_candidates as euclidean_of};
use crate::solve::neighbours::{Neighbours, Search, check_shapes, nearest, of_candidates as cosine_of};
use crate::{Error, Result, device};

/// Queries that are multiplied with a block of train rows: a product has at most 2^26 numbers.
const QUERY_BLOCK: usize = 1 << 10;

/// Candidates per query beyond k.
const SPARE: usize = 108;

/// Returns what [`nearest`] in float32, or [`nearest_euclidean`], returns. The product of queries and train rows is never held
/// whole.
///
/// # Errors
/// Like these functions, or if the device fails.
pub(crate) fn nearest_on(
    accelerator: &Accelerator,
    distance: Distance,
    train: ArrayView2<'_, f32>,
    queries: ArrayView2<'_, f32>,
    k: usize,
) -> Result<Neighbours> {
    check_shapes(train, queries, k)?;
    if distance == Distance::Euclidean {
        check_range("train", train)?;
        check_range("query", queries)?;
    }
    let k = k.min(train.nrows());
    let proposals = match device::quietly(|| propose(accelerator, distance, train, queries, k)) {
        Ok(proposals) => proposals?,
        Err(problem) => {
            return Err(Error::device(format!("nearest neighbours on {}: {problem}", accelerator.kind))
                .help("use --device flex"));
        }
    };
    let candidates: Vec<Option<Vec<usize>>> =
        (0..queries.nrows()).into_par_iter().map(|query| proposals.candidates(query, k)).collect();
    let mut found = match distance {
        Distance::Cosine => cosine_of(train, queries, k, &candidates)?,
        Distance::Euclidean => euclidean_of(train, queries, k, &candidates)?,
    };
    let open: Vec<usize> = (0..queries.nrows()).filter(|query| candidates[*query].is_none()).collect();
    if !open.is_empty() {
        tracing::debug!("{} of {} queries were searched on the CPU", open.len(), queries.nrows());
        let some = queries.select(Axis(0), &open);
        let on_cpu = match distance {
            Distance::Cosine => nearest(train, some.view(), k, EmbeddingDtype::F32, Search::Product)?,
            Distance::Euclidean => nearest_euclidean(train, some.view(), k)?,
        };
        for (from, query) in open.into_iter().enumerate() {
            found.indices.row_mut(query).assign(&on_cpu.indices.row(from));
            found.similarities.row_mut(query).assign(&on_cpu.similarities.row(from));
        }
    }
    Ok(found)
}

/// The most similar rows of each query in the device's arithmetic.
struct Proposals {
    /// [queries, most], highest first.
    values: Array2<f64>,
    /// [queries, most]: the rows.
    rows: Array2<i64>,
    /// Whether these are all rows.
    is_whole: bool,
    /// By how much a similarity of the device and one of the CPU may differ: absolute, and relative to the similarity.
    apart: [f64; 2],
}

impl Proposals {
    /// The rows that can be among the `k` nearest of a query, ascending; `None` if there may be more than were proposed.
    fn candidates(&self, query: usize, k: usize) -> Option<Vec<usize>> {
        let (values, rows) = (self.values.row(query), self.rows.row(query));
        // The CPU's k-th similarity is at least the device's less the difference, and a row that reaches it on the CPU may have
        // another difference less on the device.
        let bar = values[k - 1];
        let bar = bar - 2.0 * (self.apart[0] + self.apart[1] * bar.abs());
        // A similarity that is no number decides nothing.
        let is_closed = self.is_whole || values.last().is_some_and(|last| *last < bar);
        let mut near: Vec<usize> = values
            .iter()
            .zip(rows)
            .filter(|(value, _)| self.is_whole || **value >= bar)
            .map(|(_, row)| *row as usize)
            .collect();
        near.sort_unstable();
        (is_closed && near.len() >= k).then_some(near)
    }
}

/// Rows as their products need them.
#[derive(Clone)]
struct DeviceRows {
    /// [n, d]: unit vectors in float32, or as they are in float64.
    values: Tensor<2>,
    /// [n, 1]: squared lengths, for distances.
    squares: Tensor<2>,
}

impl DeviceRows {
    fn new(accelerator: &Accelerator, distance: Distance, rows: ArrayView2<f32>) -> Self {
        let values = accelerator.upload(rows).cast(FloatDType::F64);
        let squares = (values.clone() * values.clone()).sum_dim(1);
        match distance {
            // The divisor has the lower bound of the CPU's; its last digit is within the bound of `apart`.
            Distance::Cosine => {
                let units = values / squares.clone().sqrt().clamp_min(1e-8);
                DeviceRows { values: units.cast(FloatDType::F32), squares }
            }
            Distance::Euclidean => DeviceRows { values, squares },
        }
    }

    /// Similarities [queries, rows] of these queries: cosines, or minus squared distances.
    fn similarities(&self, distance: Distance, queries: &DeviceRows) -> Tensor<2> {
        let products = queries.values.clone().matmul(self.values.clone().transpose());
        match distance {
            Distance::Cosine => products,
            Distance::Euclidean => {
                products * 2.0 - queries.squares.clone() - self.squares.clone().transpose()
            }
        }
    }
}

fn propose(
    accelerator: &Accelerator,
    distance: Distance,
    train: ArrayView2<f32>,
    queries: ArrayView2<f32>,
    k: usize,
) -> Result<Proposals> {
    let (n, width) = train.dim();
    let most = (k + SPARE).min(n);
    let query_blocks: Vec<DeviceRows> = queries
        .axis_chunks_iter(Axis(0), QUERY_BLOCK)
        .map(|block| DeviceRows::new(accelerator, distance, block))
        .collect();
    let mut best: Vec<Option<(Tensor<2>, Tensor<2, Int>)>> = vec![None; query_blocks.len()];
    let mut largest: Option<Tensor<1>> = None;
    let mut note_largest = |rows: &DeviceRows| {
        let square = rows.squares.clone().max();
        largest = Some(match largest.take() {
            Some(largest) => Tensor::cat(vec![largest, square], 0).max(),
            None => square,
        });
    };
    query_blocks.iter().for_each(&mut note_largest);
    for first in (0..n).step_by(accelerator.block) {
        let block = train.slice(s![first..n.min(first + accelerator.block), ..]);
        let rows = DeviceRows::new(accelerator, distance, block);
        note_largest(&rows);
        for (queries, best) in query_blocks.iter().zip(&mut best) {
            let similarities = rows.similarities(distance, queries);
            let places = similarities.clone().argtopk(most.min(block.nrows()), 1);
            let new = (similarities.gather(1, places.clone()), places + first as i64);
            *best = Some(match best.take() {
                None => new,
                Some((values, places)) => {
                    let values = Tensor::cat(vec![values, new.0], 1);
                    let places = Tensor::cat(vec![places, new.1], 1);
                    let kept = values.clone().argtopk(most.min(values.dims()[1]), 1);
                    (values.gather(1, kept.clone()), places.gather(1, kept))
                }
            });
        }
    }
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    for (similarities, places) in best.into_iter().flatten() {
        values.extend(download(similarities)?);
        rows.extend(
            places
                .into_data()
                .convert::<i64>()
                .try_into_vec::<i64>()
                .map_err(|error| Error::device(format!("the device returned no row numbers: {error:?}")))?,
        );
    }
    let largest = largest.map(download).transpose()?.map_or(0.0, |largest| largest[0]);
    let shape = (queries.nrows(), most);
    Ok(Proposals {
        values: Array2::from_shape_vec(shape, values).map_err(Error::mismatch)?,
        rows: Array2::from_shape_vec(shape, rows).map_err(Error::mismatch)?,
        is_whole: most == n,
        apart: apart(distance, width, largest),
    })
}

/// How far similarities of the device and of the CPU may lie apart: absolute, and relative to the similarity. `largest` is the
/// largest squared length.
fn apart(distance: Distance, width: usize, largest: f64) -> [f64; 2] {
    match distance {
        // A sum of d products of unit vectors in float32 errs by d rounding units at most, on either side; coordinates of unit
        // vectors by two more. TensorFloat-32 rounds each factor to 11 bits.
        Distance::Cosine => {
            let float32 = 2.0 * (width as f64 + 4.0) * f64::from(f32::EPSILON) / 2.0;
            [float32 + if device::multiplies_in_tf32() { 2.0_f64.powi(-9) } else { 0.0 }, 0.0]
        }
        // The CPU rounds the distance to float32. In float64 both sides err by some units of the largest square.
        Distance::Euclidean => [8.0 * (width as f64 + 8.0) * f64::EPSILON * largest, f64::from(f32::EPSILON)],
    }
}
