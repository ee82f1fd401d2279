//! HDF5 files.
