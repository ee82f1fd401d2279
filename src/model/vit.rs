//! Vision transformer blocks.
