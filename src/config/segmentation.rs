//! Protocols on masks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::training::{Augmentation, IntervalConfig, Optimizer, Schedule, Training};

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
    pub(crate) fn problem(&self) -> Option<String> {
        let training = Training {
            epochs: self.epochs,
            batch_size: self.batch_size,
            least: (1, "a batch must hold a tile"),
            learning_rates: &self.learning_rates,
            limit: self.limit,
            optimizer: self.optimizer,
            schedule: self.schedule,
            interval: self.interval,
        };
        (self.tile == 0).then(|| "tile is 0".to_owned()).or_else(|| training.problem())
    }
}

/// UPerNet on the encoder's feature maps; see [`crate::protocol::upernet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UpernetConfig {
    pub encoder: EncoderUse,
    pub epochs: usize,
    /// Images a step, at least 2; what fills no whole batch is left out of an epoch.
    pub batch_size: usize,
    /// All are trained; the epoch that is best on validation is tested.
    pub learning_rates: Vec<f64>,
    pub augmentation: Augmentation,
    pub head: UperNetConfig,
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

/// The sizes of a UPerNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UperNetConfig {
    /// Channels of the decoder, 512 in Copernicus-Bench.
    pub channels: usize,
    /// Channels of the auxiliary head, 256 there.
    pub auxiliary_channels: usize,
    /// The auxiliary loss's weight, 0.4 there.
    pub auxiliary_weight: f32,
    /// Sides of the pooled maps, 1 2 3 6 there.
    pub pool_scales: Vec<usize>,
    /// The share of channels that are dropped before the last layer in training, 0.1 there.
    pub dropout: f64,
}

impl Default for UperNetConfig {
    /// As Copernicus-Bench [src/tasks/segmentation] builds it.
    fn default() -> Self {
        UperNetConfig {
            channels: 512,
            auxiliary_channels: 256,
            auxiliary_weight: 0.4,
            pool_scales: vec![1, 2, 3, 6],
            dropout: 0.1,
        }
    }
}

/// What happens to the encoder while a head is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EncoderUse {
    /// Nothing.
    Frozen,
    /// All its parameters are trained along.
    Finetune,
}

impl fmt::Display for EncoderUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncoderUse::Frozen => "frozen",
            EncoderUse::Finetune => "finetune",
        })
    }
}

impl UpernetConfig {
    pub(crate) fn problem(&self) -> Option<String> {
        let training = Training {
            epochs: self.epochs,
            batch_size: self.batch_size,
            least: (2, "batch norm needs at least 2 images"),
            learning_rates: &self.learning_rates,
            limit: self.limit,
            optimizer: self.optimizer,
            schedule: self.schedule,
            interval: self.interval,
        };
        self.head.problem().or_else(|| training.problem())
    }
}

impl UperNetConfig {
    fn problem(&self) -> Option<String> {
        if self.channels == 0 || self.auxiliary_channels == 0 || self.pool_scales.contains(&0) {
            Some("a number of channels or a pool scale of the head is 0".to_owned())
        } else if !(0.0..1.0).contains(&self.dropout) {
            Some("head.dropout is not at least 0 and below 1".to_owned())
        } else if !(self.auxiliary_weight.is_finite() && self.auxiliary_weight >= 0.0) {
            Some("head.auxiliary-weight is negative".to_owned())
        } else {
            None
        }
    }
}
