//! One AdamW step in a single pass over parameter, gradient and moments.

use rayon::prelude::*;

use crate::nn::kernels::AdamwStep;

/// Elements per task: enough to amortise the cost of a task.
const BLOCK: usize = 1 << 15;

pub fn step(parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], step: AdamwStep) {
    let (beta1, rest1) = (step.beta1 as f32, (1.0 - step.beta1) as f32);
    let (beta2, rest2) = (step.beta2 as f32, (1.0 - step.beta2) as f32);
    let (keep, rate, epsilon) = (step.keep as f32, step.rate as f32, step.epsilon as f32);
    let raise = step.root.recip() as f32;
    parameter
        .par_chunks_mut(BLOCK)
        .zip(gradient.par_chunks(BLOCK))
        .zip(first.par_chunks_mut(BLOCK).zip(second.par_chunks_mut(BLOCK)))
        .for_each(|((parameter, gradient), (first, second))| {
            for (((p, g), m), v) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                *p = keep * *p - rate * *m / (v.sqrt() * raise + epsilon);
            }
        });
}
