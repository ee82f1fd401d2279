//! GEO-Bench v1: one HDF5 file a sample.
