//! Backbones: images in, features out. Knows tensors, no data.

pub mod device;
pub mod terrafm;
pub mod vit;
pub mod weights;

use std::fmt;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// A model's patch embedding for one sensor; also the name of the sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stem {
    /// Sentinel-1, VV and VH in dB.
    #[serde(rename = "s1")]
    S1,
    /// Sentinel-2 top of atmosphere.
    #[serde(rename = "s2-l1c")]
    S2L1c,
    /// Sentinel-2 surface reflectance.
    #[serde(rename = "s2-l2a")]
    S2L2a,
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stem::S1 => "s1",
            Stem::S2L1c => "s2-l1c",
            Stem::S2L2a => "s2-l2a",
        })
    }
}

/// An encoder.
pub trait Backbone {
    /// Length of a feature vector, d.
    fn width(&self) -> usize;

    /// One vector an image: [n, bands, h, w] normalised pixels to [n, d]. h and w are multiples of the patch size.
    fn features(&self, images: Tensor<4>, stem: Stem) -> Tensor<2>;

    /// Feature maps of the configured layers: [n, bands, h, w] to [n, d, h / patch, w / patch] each.
    fn feature_maps(&self, images: Tensor<4>, stem: Stem) -> Vec<Tensor<4>>;
}
