//! Batch normalisation of rows of channels, with as few passes over memory as its sums allow.

use rayon::prelude::*;

/// Rows per block: sums within a block are in float32, sums of blocks in float64.
const BLOCK: usize = 128;

/// The affine map of a channel that follows from a batch's statistics and the learned parameters: (x - mean) * scale +
/// shift. The mean is subtracted first, because the remainder may be much smaller.
pub struct Affine<'a> {
    mean: &'a [f32],
    scale: Vec<f32>,
    shift: &'a [f32],
    /// 1 / sqrt(variance + epsilon), in float64: if a channel has few pixels, a gradient is the small difference of two
    /// terms that it scales.
    inverse: Vec<f64>,
}

impl<'a> Affine<'a> {
    pub fn new(mean: &'a [f32], variance: &[f32], gamma: &[f32], beta: &'a [f32], epsilon: f64) -> Self {
        let inverse = |variance: &f32| (f64::from(*variance) + epsilon).sqrt().recip();
        let inverse: Vec<f64> = variance.iter().map(inverse).collect();
        let scale = gamma.iter().zip(&inverse).map(|(gamma, inverse)| gamma * *inverse as f32).collect();
        Affine { mean, scale, shift: beta, inverse }
    }

    fn channels(&self) -> impl Iterator<Item = (&f32, &f32, &f32)> {
        self.mean.iter().zip(&self.scale).zip(self.shift).map(|((mean, scale), shift)| (mean, scale, shift))
    }
}

/// Returns mean and biased variance of each of c channels.
pub fn statistics(x: &[f32], c: usize) -> (Vec<f32>, Vec<f32>) {
    let rows = (x.len() / c.max(1)) as f64;
    let average = |sums: Vec<f64>| -> Vec<f32> { sums.iter().map(|sum| (sum / rows) as f32).collect() };
    let mean = average(sum(x, c, |sums, row| {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }));
    let variance = average(sum(x, c, |sums, row| {
        for ((sum, x), mean) in sums.iter_mut().zip(row).zip(&mean) {
            *sum += (x - mean) * (x - mean);
        }
    }));
    (mean, variance)
}

/// Sums over all rows, in blocks and in order, so that the result does not depend on the number of threads.
fn sum(x: &[f32], c: usize, add: impl Fn(&mut [f32], &[f32]) + Sync) -> Vec<f64> {
    let blocks: Vec<Vec<f32>> = x
        .par_chunks((BLOCK * c).max(1))
        .map(|block| {
            let mut sums = vec![0.0; c];
            block.chunks_exact(c).for_each(|row| add(&mut sums, row));
            sums
        })
        .collect();
    total(&blocks, c)
}

fn total(blocks: &[Vec<f32>], c: usize) -> Vec<f64> {
    let mut total = vec![0.0; c];
    for block in blocks {
        for (total, sum) in total.iter_mut().zip(block) {
            *total += f64::from(*sum);
        }
    }
    total
}

pub fn forward(x: &[f32], affine: &Affine, relu: bool) -> Vec<f32> {
    let c = affine.scale.len();
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    let mut y = vec![0.0; x.len()];
    let blocks = y.par_chunks_mut((BLOCK * c).max(1)).zip(x.par_chunks((BLOCK * c).max(1)));
    blocks.for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for ((y, x), (mean, scale, shift)) in y.iter_mut().zip(x).zip(affine.channels()) {
                let value = (x - mean) * scale + shift;
                // Not `max`, which would hide NaN.
                *y = if value < floor { floor } else { value };
            }
        }
    });
    y
}

/// Turns the output's gradient into that of x, and returns those of gamma and beta.
pub fn backward(x: &[f32], gradient: &mut [f32], affine: &Affine, relu: bool) -> (Vec<f32>, Vec<f32>) {
    let c = affine.scale.len();
    let block = (BLOCK * c).max(1);
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    let Affine { mean, scale, inverse, .. } = affine;
    // Sums of the gradient, and of the gradient times the centred input.
    let sums: Vec<Vec<f32>> = gradient
        .par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .map(|(gradient, x)| {
            let mut sums = vec![0.0; 2 * c];
            let (plain, centred) = sums.split_at_mut(c);
            for (gradient, x) in gradient.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                let channels = gradient.iter_mut().zip(x).zip(affine.channels());
                let sums = plain.iter_mut().zip(centred.iter_mut());
                for (((g, x), (mean, scale, shift)), (plain, centred)) in channels.zip(sums) {
                    *g = if (x - mean) * scale + shift <= floor { 0.0 } else { *g };
                    *plain += *g;
                    *centred += *g * (x - mean);
                }
            }
            sums
        })
        .collect();
    let sums = total(&sums, 2 * c);
    let (plain, centred) = sums.split_at(c);
    let rows = (x.len() / c.max(1)) as f64;
    let average: Vec<f32> = plain.iter().map(|sum| (sum / rows) as f32).collect();
    // Factor of the centred input to subtract: mean(gradient * centred) / (variance + epsilon).
    let slope: Vec<f32> =
        (centred.iter().zip(inverse)).map(|(sum, inverse)| (sum / rows * inverse.powi(2)) as f32).collect();
    gradient.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(gradient, x)| {
        for (gradient, x) in gradient.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            let channels = gradient.iter_mut().zip(x).zip(*mean).zip(scale);
            for ((((g, x), mean), scale), (average, slope)) in channels.zip(average.iter().zip(&slope)) {
                *g = (*g - average - (x - mean) * slope) * scale;
            }
        }
    });
    let for_gamma = centred.iter().zip(inverse).map(|(sum, inverse)| (sum * inverse) as f32);
    (for_gamma.collect(), plain.iter().map(|sum| *sum as f32).collect())
}
