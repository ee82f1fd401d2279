//! Generated data in a suite's own layout.
