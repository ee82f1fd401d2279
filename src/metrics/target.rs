//! What is predicted of a sample: which metrics can score it follows from that.

use serde::{Deserialize, Serialize};

/// What a sample is labelled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// One class an image.
    Class,
    /// Any number of labels an image.
    #[serde(rename = "multi-label")]
    Labels,
    /// One class a pixel.
    Mask,
    /// One number an image.
    Value,
    /// One number a pixel.
    ValueMap,
}

impl TargetKind {
    /// Whether numbers are predicted, and not classes.
    pub fn is_numeric(self) -> bool {
        matches!(self, TargetKind::Value | TargetKind::ValueMap)
    }
}

impl std::fmt::Display for TargetKind {
    /// As in messages: `one class per image`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TargetKind::Class => "one class per image",
            TargetKind::Labels => "several labels per image",
            TargetKind::Mask => "one class per pixel",
            TargetKind::Value => "one number per image",
            TargetKind::ValueMap => "one number per pixel",
        })
    }
}
