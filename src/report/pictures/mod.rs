//! Pictures of results: one file per picture.

pub mod confusion;
pub mod differences;
pub mod labels;
pub mod shares;
pub mod spider;
