//! How a backbone is scored: one file a protocol.

pub mod heads;
pub mod kernels;
pub mod loss;
pub mod optim;
pub mod resample;
pub mod state;

use ndarray::Array2;

/// Labels or predictions of a set of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// One class a sample, each below `count`.
    Classes { classes: Vec<usize>, count: usize },
    /// [n, labels]: whether each label applies.
    MultiLabel(Array2<bool>),
}
