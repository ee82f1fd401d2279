//! Scores of predictions, in percent. Knows arrays only.

pub mod batch_mean;
pub mod segmentation;
