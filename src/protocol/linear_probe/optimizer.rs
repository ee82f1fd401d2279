//! One step of an optimizer on one head's parameters, in torch's order of operations.

use crate::config::Optimizer;
use crate::train::schedule::Rates;

/// What an optimizer remembers of one head between steps, each as long as the parameters.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// AdamW: the gradient's running mean; SGD: the momentum buffer.
    first: Vec<f32>,
    /// AdamW: the squared gradient's running mean.
    second: Vec<f32>,
    steps: i32,
}

impl Memory {
    pub(crate) fn new(parameters: usize) -> Self {
        Self { first: vec![0.0; parameters], second: vec![0.0; parameters], steps: 0 }
    }
}

impl Optimizer {
    /// Moves `parameters` against `gradient`. The scalars are computed in f64 and rounded once.
    pub(crate) fn step(self, parameters: &mut [f32], gradient: &[f32], memory: &mut Memory, rates: Rates) {
        memory.steps = memory.steps.saturating_add(1);
        let lr = rates.learning_rate;
        match self {
            Optimizer::Adamw { betas, eps, weight_decay } => {
                let betas = [rates.momentum.unwrap_or(betas[0]), betas[1]];
                let [bias1, bias2] = betas.map(|beta| 1.0 - beta.powi(memory.steps));
                let keep = (1.0 - lr * weight_decay) as f32;
                let size = (lr / bias1) as f32;
                let root = bias2.sqrt().recip() as f32;
                let (new1, old2, new2) = ((1.0 - betas[0]) as f32, betas[1] as f32, (1.0 - betas[1]) as f32);
                let eps = eps as f32;
                let moments = memory.first.iter_mut().zip(&mut memory.second);
                for ((p, &g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
                    *m += (g - *m) * new1;
                    *v = *v * old2 + g * g * new2;
                    *p = *p * keep - size * (*m / (v.sqrt() * root + eps));
                }
            }
            Optimizer::Sgd { momentum, weight_decay } => {
                let momentum = rates.momentum.unwrap_or(momentum) as f32;
                let (lr, decay) = (lr as f32, weight_decay as f32);
                for ((p, &g), m) in parameters.iter_mut().zip(gradient).zip(&mut memory.first) {
                    *m = *m * momentum + (g + decay * *p);
                    *p -= lr * *m;
                }
            }
        }
    }
}
