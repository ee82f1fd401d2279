//! Schedules of the learning rate, and for some of them of the momentum.

use std::f64::consts::PI;

use crate::config::Schedule;

/// A position in a training: the next batch, and its epoch (counted from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the next batch, counted from 0.
    pub epoch: usize,
    /// Number of epochs in the training.
    pub epochs: usize,
    /// Index of the next batch in its epoch, counted from 0.
    pub batch: usize,
    /// Batches per epoch.
    pub batches: usize,
}

/// The values to use for one optimiser step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// The learning rate.
    pub learning_rate: f64,
    /// Replaces the optimiser's momentum (AdamW: beta1) if the schedule cycles it.
    pub momentum: Option<f64>,
}

impl Schedule {
    /// Returns the rates at `position` of a training whose highest learning rate is `max_learning_rate`.
    pub fn at(&self, max_learning_rate: f64, position: Position) -> Rates {
        let Position { epoch, epochs, batch, batches } = position;
        match *self {
            Schedule::WarmupCosine { warmup, min_learning_rate } => {
                let schedule = WarmupCosine {
                    max_learning_rate,
                    min_learning_rate,
                    warmup_epochs: (warmup * epochs as f64).floor(),
                    epochs: epochs as f64,
                };
                let learning_rate = schedule.at(epoch as f64 + batch as f64 / batches as f64);
                Rates { learning_rate, momentum: None }
            }
            Schedule::OneCycle { warmup_epochs, start_divisor, final_divisor, momentum } => {
                let schedule = OneCycle {
                    max_learning_rate,
                    start_divisor,
                    final_divisor,
                    momentum,
                    warmup_steps: batches * warmup_epochs,
                    steps: batches * epochs,
                };
                schedule.at(epoch * batches + batch)
            }
        }
    }
}

/// Linear warm-up from 0, then half a cosine down [nasaharvest/galileo, src/galileo.py, adjust_learning_rate].
///
/// The schedule is evaluated before each step. With a warm-up, the first step therefore has learning rate 0.
/// `min_learning_rate` belongs to the end of the last epoch, which no step reaches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupCosine {
    /// Learning rate at the end of the warm-up.
    pub max_learning_rate: f64,
    /// Learning rate at the end of the last epoch.
    pub min_learning_rate: f64,
    /// Length of the warm-up in epochs.
    pub warmup_epochs: f64,
    /// Length of the training in epochs, warm-up included.
    pub epochs: f64,
}

impl WarmupCosine {
    /// Returns the learning rate at `epoch` (counted from 0, fractions allowed).
    pub fn at(&self, epoch: f64) -> f64 {
        if epoch < self.warmup_epochs {
            self.max_learning_rate * epoch / self.warmup_epochs
        } else {
            let done = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs);
            cosine(self.max_learning_rate, self.min_learning_rate, done)
        }
    }
}

/// One cosine up and one down, with the momentum running in the opposite direction [torch.optim.lr_scheduler.OneCycleLR,
/// two phases, `anneal_strategy="cos"`].
///
/// The rise ends one step before `warmup_steps`. Without a warm-up it would end one step before the first step, so the
/// first learning rate is slightly below the highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneCycle {
    /// Highest learning rate, at the end of the rise.
    pub max_learning_rate: f64,
    /// The first learning rate is the highest divided by this.
    pub start_divisor: f64,
    /// The last learning rate is the first divided by this.
    pub final_divisor: f64,
    /// Lowest and highest momentum.
    pub momentum: [f64; 2],
    /// Length of the rise in steps.
    pub warmup_steps: usize,
    /// Length of the training in steps, the rise included.
    pub steps: usize,
}

impl OneCycle {
    /// Returns the rates at `step` (counted from 0).
    pub fn at(&self, step: usize) -> Rates {
        let start = self.max_learning_rate / self.start_divisor;
        let [low, high] = self.momentum;
        let (step, steps) = (step as f64, self.steps as f64);
        // torch receives the warm-up as a share of the steps; this reproduces its rounding.
        let peak = self.warmup_steps as f64 / steps * steps - 1.0;
        let (learning_rate, momentum) = if step <= peak {
            let done = share(step, 0.0, peak);
            (cosine(start, self.max_learning_rate, done), cosine(high, low, done))
        } else {
            let done = share(step, peak, steps - 1.0);
            (cosine(self.max_learning_rate, start / self.final_divisor, done), cosine(low, high, done))
        };
        Rates { learning_rate, momentum: Some(momentum) }
    }
}

/// Returns the fraction of the way from `start` to `end` that is done at `now`; 1 if the two are equal.
fn share(now: f64, start: f64, end: f64) -> f64 {
    if end > start { (now - start) / (end - start) } else { 1.0 }
}

/// Half a cosine: `start` at 0, `end` at 1.
fn cosine(start: f64, end: f64, done: f64) -> f64 {
    end + (start - end) * 0.5 * (1.0 + (PI * done).cos())
}
