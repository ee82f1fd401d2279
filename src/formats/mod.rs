//! File formats: bytes to arrays. Knows no task and no model.

pub mod checkpoint;
pub mod geotiff;
pub mod hdf5;
pub mod pickle;
pub mod tensors;
pub mod text;
