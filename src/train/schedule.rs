//! How the learning rate, and with it sometimes the momentum, runs over a training.

use std::f64::consts::PI;

use crate::config::Schedule;

/// A place in a training: which batch of which epoch (from 0) is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub epoch: usize,
    pub epochs: usize,
    pub batch: usize,
    /// Batches an epoch.
    pub batches: usize,
}

/// What is in force when the optimizer takes one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub learning_rate: f64,
    /// Replaces the optimizer's momentum (AdamW: its first beta), where the schedule cycles it.
    pub momentum: Option<f64>,
}

impl Schedule {
    /// The rates at `position` of a training whose highest learning rate is `max_learning_rate`.
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

/// Linear from 0 during the warm-up, then half a cosine down
/// [nasaharvest/galileo, src/galileo.py, adjust_learning_rate].
///
/// It is asked before each step, so with a warm-up the first step has learning rate 0, and `min_learning_rate`
/// belongs to the end of the last epoch, which no step reaches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupCosine {
    pub max_learning_rate: f64,
    pub min_learning_rate: f64,
    pub warmup_epochs: f64,
    pub epochs: f64,
}

impl WarmupCosine {
    /// The learning rate at `epoch` (from 0), fractions of an epoch included.
    pub fn at(&self, epoch: f64) -> f64 {
        if epoch < self.warmup_epochs {
            self.max_learning_rate * epoch / self.warmup_epochs
        } else {
            let done = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs);
            cosine(self.max_learning_rate, self.min_learning_rate, done)
        }
    }
}

/// One cosine up, one down, and the momentum the other way round
/// [torch.optim.lr_scheduler.OneCycleLR, two phases, `anneal_strategy="cos"`].
///
/// The way up ends one step before `warmup_steps`; without a warm-up it would end one step before the first, so
/// the first learning rate is a little below the highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneCycle {
    pub max_learning_rate: f64,
    /// The first learning rate is the highest divided by this.
    pub start_divisor: f64,
    /// The last learning rate is the first divided by this.
    pub final_divisor: f64,
    /// Lowest and highest momentum.
    pub momentum: [f64; 2],
    pub warmup_steps: usize,
    pub steps: usize,
}

impl OneCycle {
    /// The rates at `step`, from 0.
    pub fn at(&self, step: usize) -> Rates {
        let start = self.max_learning_rate / self.start_divisor;
        let [low, high] = self.momentum;
        let (step, steps) = (step as f64, self.steps as f64);
        // torch is given the warm-up as a share of the steps: the rounding is its own.
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

/// How much of the way from `start` to `end` is done at `now`; all of it where there is no way to go.
fn share(now: f64, start: f64, end: f64) -> f64 {
    if end > start { (now - start) / (end - start) } else { 1.0 }
}

/// Half a cosine: `start` at 0, `end` at 1.
fn cosine(start: f64, end: f64, done: f64) -> f64 {
    end + (start - end) * 0.5 * (1.0 + (PI * done).cos())
}
