//! How images are resized to a model's input.

use serde::{Deserialize, Serialize};

/// Which points of an image stay fixed when it is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeRule {
    /// The outer edges of the corner pixels: PyTorch's `align_corners=False`.
    HalfPixel,
    /// The centres of the corner pixels: `align_corners=True`.
    AlignCorners,
}

impl ResizeRule {
    /// The rule of a value of `align_corners`.
    pub fn of(align_corners: bool) -> Self {
        if align_corners { ResizeRule::AlignCorners } else { ResizeRule::HalfPixel }
    }
}

impl std::fmt::Display for ResizeRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ResizeRule::HalfPixel => "half-pixel",
            ResizeRule::AlignCorners => "align-corners",
        })
    }
}
