//! Networks on top of a backbone.

pub mod layers;
pub mod pixel_linear;
pub mod upernet;
