//! Where tokens are: fixed codes of positions, and buckets of distances between them.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::nn::positions::sines;

/// A square grid of tokens behind a class token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Square {
    /// Tokens per side.
    pub(super) side: usize,
    /// Steps between neighbours in the position code.
    pub(super) step: usize,
}

/// Bucket of the class token's distances to all tokens.
const CLASS: i32 = 7;

/// Number of buckets, of which the first three are never used.
pub(super) const BUCKETS: usize = 8;

impl Square {
    /// Position codes, zeros for the class token: [1, 1 + side * side, d]. The first half of d is of the column, the second
    /// of the row.
    pub(super) fn codes(&self, d: usize, device: &Device) -> Tensor<3> {
        let (side, half) = (self.side, d / 2);
        let table = sines(side * self.step, half);
        let along = |place: usize| table.row(place * self.step);
        let mut codes = vec![0.0; d];
        for place in 0..side * side {
            let halves = [place % side, place / side].map(along);
            codes.extend(halves.iter().flat_map(|half| half.iter().map(|code| *code as f32)));
        }
        Tensor::from_data(TensorData::new(codes, [1, 1 + side * side, d]), device)
    }

    /// Buckets of the distances from the tokens of `queries` to all tokens: [queries, 1 + side * side].
    pub(super) fn buckets(&self, queries: Range<usize>, device: &Device) -> Tensor<2, Int> {
        let all = 1 + self.side * self.side;
        let bucket = |from: usize, to: usize| match (from.checked_sub(1), to.checked_sub(1)) {
            (Some(from), Some(to)) => bucket(self.distance(from, to)),
            _ => CLASS,
        };
        let count = queries.len();
        let buckets: Vec<i32> = queries.flat_map(|from| (0..all).map(move |to| bucket(from, to))).collect();
        Tensor::from_data(TensorData::new(buckets, [count, all]), device)
    }

    /// Distance between two places, in multiples of the distance of neighbours.
    fn distance(&self, from: usize, to: usize) -> f64 {
        let rows = (from / self.side).abs_diff(to / self.side);
        let columns = (from % self.side).abs_diff(to % self.side);
        ((rows * rows + columns * columns) as f64).sqrt()
    }
}

/// The bucket of a distance: upstream's formula gives no other buckets, however large the distance.
fn bucket(distance: f64) -> i32 {
    match distance.round() as usize {
        0 => 3,
        1 => 4,
        2 | 3 => 5,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_original() {
        // Distances 0, 1, 2, 3, 4, 5, 10 and 55 along a row.
        let square = Square { side: 56, step: 4 };
        let buckets: Vec<i32> =
            square.buckets(1..2, &Device::flex()).into_data().convert::<i32>().try_into_vec().unwrap();
        let found = [0, 1, 2, 3, 4, 5, 10, 55].map(|place| buckets[1 + place]);
        assert_eq!((buckets[0], found), (CLASS, [3, 4, 5, 5, 6, 6, 6, 6]));
        // The diagonal neighbour is at 1.41, the knight's move at 2.24.
        assert_eq!((buckets[1 + 57], buckets[1 + 58]), (4, 5));
    }
}
