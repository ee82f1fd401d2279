//! Pure functions of arrays: normalisation, resizing.

pub mod normalize;
