//! Extraction of features.
