//! Kinds of target. The kind determines which metrics apply.

use serde::{Deserialize, Serialize};

/// The kind of a sample's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// One class per image.
    Class,
    /// Any number of labels per image.
    #[serde(rename = "multi-label")]
    Labels,
    /// One class per pixel.
    Mask,
    /// One number per image.
    Value,
    /// One number per pixel.
    ValueMap,
}

impl TargetKind {
    /// Whether the target is a number rather than a class.
    pub fn is_numeric(self) -> bool {
        matches!(self, TargetKind::Value | TargetKind::ValueMap)
    }
}

impl std::fmt::Display for TargetKind {
    /// Formats the kind for messages: `one class per image`.
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
