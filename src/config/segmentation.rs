//! Protocols on masks.

use serde::{Deserialize, Serialize};

use super::protocol::IntervalConfig;
use super::training::{Optimizer, Schedule, positive};

/// A linear layer on each patch token of frozen features; see [`crate::protocol::segmentation_probe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SegmentationProbeConfig {
    /// Side in pixels of the tiles that images and masks are cut into; each is resized to the model's input.
    pub tile: usize,
    pub epochs: usize,
    /// Tiles a step; an epoch's last, smaller batch is kept.
    pub batch_size: usize,
    /// All are trained; the best on validation is reported.
    pub learning_rates: Vec<f64>,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    /// Over the images of the test split.
    pub interval: IntervalConfig,
    /// At most so many images of each split, to try something out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The command line made this shorter than the file says: its numbers enter no table.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
}

impl SegmentationProbeConfig {
    pub(super) fn problem(&self) -> Option<String> {
        if self.tile == 0 {
            Some("tile is 0".to_owned())
        } else if self.epochs == 0 {
            Some("epochs is 0".to_owned())
        } else if self.batch_size == 0 {
            Some("batch-size is 0".to_owned())
        } else if self.learning_rates.is_empty() {
            Some("learning-rates is empty".to_owned())
        } else if let Some(rate) = self.learning_rates.iter().find(|rate| !positive(**rate)) {
            Some(format!("the learning rate {rate} is not above 0"))
        } else if self.limit == Some(0) {
            Some("limit is 0".to_owned())
        } else {
            (self.optimizer.problem())
                .or_else(|| self.schedule.problem(self.epochs))
                .or_else(|| self.interval.problem())
        }
    }
}
