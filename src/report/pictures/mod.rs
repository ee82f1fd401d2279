//! Pictures of results: one file per picture.

pub(crate) mod confusion;
pub mod cost;
pub mod differences;
pub(crate) mod labels;
pub mod map;
pub mod profile;
pub mod ranks;
pub mod reliability;
pub mod shares;
pub mod spider;
pub mod spread;
