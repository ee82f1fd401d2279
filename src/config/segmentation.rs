//! Protocols on masks.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::training::{Augmentation, TrainingConfig};

/// A linear layer on each patch token of frozen features; see [`crate::protocol::segmentation_probe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SegmentationProbeConfig {
    /// Side in pixels of the tiles that images and masks are cut into; each is resized to the model's input.
    pub tile: usize,
    /// Tasks with images of another size, whose tiles have another side.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub task_tiles: BTreeMap<String, usize>,
    /// A batch is of tiles; an epoch's last, smaller batch is kept.
    #[serde(flatten)]
    pub training: TrainingConfig,
}

impl SegmentationProbeConfig {
    /// Keeps the side of the tiles of `task` alone.
    pub(crate) fn keep_tile_of(&mut self, task: &str) {
        self.tile = self.task_tiles.get(task).copied().unwrap_or(self.tile);
        self.task_tiles.clear();
    }

    pub(crate) fn problem(&self) -> Option<String> {
        let training = || self.training.problem(1, "a batch must hold a tile");
        (self.tile == 0 || self.task_tiles.values().any(|tile| *tile == 0))
            .then(|| "tile is 0".to_owned())
            .or_else(training)
    }
}

/// UPerNet on the encoder's feature maps; see [`crate::protocol::upernet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UpernetConfig {
    /// What happens to the encoder.
    pub encoder: EncoderUse,
    /// A batch holds at least 2 images; what fills no whole batch is left out of an epoch. The epoch that is best on
    /// validation is tested.
    #[serde(flatten)]
    pub training: TrainingConfig,
    /// What happens to training images.
    pub augmentation: Augmentation,
    /// The sizes of the head.
    pub head: UperNetConfig,
    /// A learning rate's training ends after so many epochs without a better one on validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
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
        if self.patience == Some(0) {
            return Some("patience is 0: no training would go beyond its first epoch".to_owned());
        }
        self.head.problem().or_else(|| self.training.problem(2, "batch norm needs at least 2 images"))
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
