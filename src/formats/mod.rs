//! Readers and writers of file formats: bytes to arrays. Nothing here knows about tasks or models.

/// Arrays of numbers from other programs: safetensors, `.npz`, Parquet.
pub mod arrays;
/// Weight files: PyTorch checkpoints and safetensors.
pub mod checkpoint;
/// GeoTIFF rasters.
pub mod geotiff;
/// HDF5 files, including NetCDF 4.
pub mod hdf5;
/// ONNX files: inputs, outputs, operators and external data.
pub mod onnx;
/// Parquet tables.
pub mod parquet;
/// Python pickles, read without executing them.
pub mod pickle;
/// Writing safetensors files reproducibly.
pub mod tensors;
/// Text and JSON from other tools, with byte-order marks and NaN.
pub(crate) mod text;
/// Tortillas: containers of many files with an index.
pub mod tortilla;
/// Zip archives.
pub(crate) mod zip;
