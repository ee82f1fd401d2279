//! The training of several heads as one.
//!
//! The logits of all heads are one matrix product of the batch x [n, d] with their stacked W diag γ. With
//! G = ∂loss/∂z [n, outputs], M = Gᵀ x (again one product for all heads) and s = Σ_n G, the gradients are
//!
//! ```text
//! ∂W = M diag γ + s βᵀ    ∂b = s    ∂γ = Σ_j W_j ∘ M_j    ∂β = Wᵀ s
//! ```

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, Axis};

use super::batches::Batch;
use super::heads::{HeadLayout, flat};
use super::optimizer::Memory;
use crate::config::Optimizer;
use crate::score::Targets;
use crate::train::schedule::Rates;

/// How many columns of logits are computed together. Heads of few classes are trained several at a time: a
/// matrix product of 10 columns reaches half the speed of one of 40. It depends on nothing but the task, so
/// that results do not depend on the number of threads.
const COLUMNS: usize = 40;

/// Heads that are trained together.
pub(crate) struct Group {
    layout: HeadLayout,
    optimizer: Optimizer,
    heads: Vec<Head>,
    // What a step computes; kept to spare allocations.
    /// [heads * outputs, d]: first the folded weights, then M.
    matrix: Array2<f32>,
    /// [heads * outputs]: first the folded biases, then s.
    vector: Array1<f32>,
    /// One head's.
    gradient: Vec<f32>,
}

/// A head in training.
pub(crate) struct Head {
    pub(crate) parameters: Vec<f32>,
    /// The mean loss of each step's batch so far.
    pub(crate) losses: Vec<f32>,
    /// The highest of its schedule.
    learning_rate: f64,
    memory: Memory,
}

impl Group {
    /// Divides the heads of `rates`, all beginning at `start`, into groups that can be trained side by side.
    pub(crate) fn divide(
        layout: HeadLayout,
        optimizer: Optimizer,
        rates: &[f64],
        start: &[f32],
    ) -> Vec<Self> {
        let head = |&learning_rate: &f64| Head {
            parameters: start.to_vec(),
            losses: Vec::new(),
            learning_rate,
            memory: Memory::new(layout.learnt()),
        };
        let group = |rates: &[f64]| Self {
            layout,
            optimizer,
            heads: rates.iter().map(head).collect(),
            matrix: Array2::zeros((rates.len() * layout.outputs, layout.width)),
            vector: Array1::zeros(rates.len() * layout.outputs),
            gradient: vec![0.0; layout.len()],
        };
        rates.chunks(COLUMNS.div_ceil(layout.outputs.max(1))).map(group).collect()
    }

    pub(crate) fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// One step of each head on the same batch. `schedule` gives the rates in force from the highest learning rate.
    pub(crate) fn step(&mut self, batch: &Batch, targets: &Targets, schedule: impl Fn(f64) -> Rates) {
        let (outputs, learnt) = (self.layout.outputs, self.layout.learnt());
        let (x, n) = (&batch.normalized, batch.samples.len());

        let stacked = flat(&mut self.matrix).chunks_exact_mut(outputs * self.layout.width);
        let stacked = stacked.zip(flat(&mut self.vector).chunks_exact_mut(outputs));
        for (head, (weight, bias)) in self.heads.iter().zip(stacked) {
            self.layout.fold(&head.parameters, weight, bias);
        }
        let mut logits = Array2::zeros((n, self.vector.len()));
        logits.assign(&self.vector);
        general_mat_mul(1.0, x, &self.matrix.t(), 1.0, &mut logits);

        let mut losses = vec![0.0; self.heads.len()];
        for (row, &sample) in flat(&mut logits).chunks_exact_mut(self.vector.len()).zip(&batch.samples) {
            for (logits, loss) in row.chunks_exact_mut(outputs).zip(&mut losses) {
                *loss += loss_and_gradient(logits, targets, sample, n);
            }
        }

        general_mat_mul(1.0, &logits.t(), x, 0.0, &mut self.matrix);
        self.vector.assign(&logits.sum_axis(Axis(0)));
        let stacked = flat(&mut self.matrix).chunks_exact(outputs * self.layout.width);
        let stacked = stacked.zip(flat(&mut self.vector).chunks_exact(outputs));
        for ((head, loss), (m, s)) in self.heads.iter_mut().zip(losses).zip(stacked) {
            self.layout.gradient(&head.parameters, m, s, &mut self.gradient);
            let (parameters, gradient) = (&mut head.parameters[..learnt], &self.gradient[..learnt]);
            self.optimizer.step(parameters, gradient, &mut head.memory, schedule(head.learning_rate));
            head.losses.push((loss / n as f64) as f32);
        }
    }
}

/// Replaces a sample's logits by the gradient of the mean loss of its batch of `n`; returns the sample's loss.
fn loss_and_gradient(logits: &mut [f32], targets: &Targets, sample: usize, n: usize) -> f64 {
    match targets {
        Targets::Classes { classes, .. } => cross_entropy(logits, classes[sample], 1.0 / n as f32),
        Targets::Values(values) => squared_error(logits, values[sample], 1.0 / n as f32),
        Targets::Labels(labels) => soft_margin(logits, labels.row(sample), 1.0 / n as f32),
    }
}

/// torch's `MSELoss`: (z - value)².
fn squared_error(logits: &mut [f32], value: f32, weight: f32) -> f64 {
    let error = logits[0] - value;
    logits[0] = 2.0 * error * weight;
    f64::from(error * error)
}

/// torch's `CrossEntropyLoss`: log Σ exp z - z[class].
fn cross_entropy(logits: &mut [f32], class: usize, weight: f32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let right = logits[class] - largest;
    let mut sum = 0.0;
    for z in logits.iter_mut() {
        *z = (*z - largest).exp();
        sum += *z;
    }
    for p in logits.iter_mut() {
        *p *= weight / sum;
    }
    logits[class] -= weight;
    f64::from(sum.ln() - right)
}

/// torch's `MultiLabelSoftMarginLoss`: the mean over labels of log(1 + exp ∓z), minus where the label applies.
fn soft_margin(logits: &mut [f32], labels: ArrayView1<bool>, weight: f32) -> f64 {
    let outputs = logits.len() as f32;
    let mut loss = 0.0;
    for (z, &applies) in logits.iter_mut().zip(labels) {
        let small = (-z.abs()).exp();
        loss += small.ln_1p() + if applies { (-*z).max(0.0) } else { z.max(0.0) };
        let sigmoid = if *z >= 0.0 { 1.0 } else { small } / (1.0 + small);
        *z = (sigmoid - if applies { 1.0 } else { 0.0 }) * weight / outputs;
    }
    f64::from(loss / outputs)
}

impl HeadLayout {
    /// The gradient of a head from M [outputs, d] and s [outputs].
    fn gradient(self, head: &[f32], m: &[f32], s: &[f32], gradient: &mut [f32]) {
        let (of, to) = (self.parts(head), self.parts_mut(gradient));
        to.bias.copy_from_slice(s);
        to.scale.fill(0.0);
        to.shift.fill(0.0);
        let d = self.width;
        let rows = of.weight.chunks_exact(d).zip(to.weight.chunks_exact_mut(d)).zip(m.chunks_exact(d)).zip(s);
        for (((w, dw), m), &s) in rows {
            let head = w.iter().zip(of.scale).zip(of.shift).zip(m);
            let gradient = dw.iter_mut().zip(to.scale.iter_mut()).zip(to.shift.iter_mut());
            for ((((w, scale), shift), m), ((dw, dscale), dshift)) in head.zip(gradient) {
                *dw = m * scale + s * shift;
                *dscale += w * m;
                *dshift += s * w;
            }
        }
    }
}
