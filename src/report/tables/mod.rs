//! Tables: measured rows beside published ones, as Markdown and CSV.

pub(crate) mod baseline;
pub mod csv;
pub mod markdown;
pub mod paired;
pub mod published;
mod rounded;
pub(crate) mod rows;
pub mod table;
pub(crate) mod text;
pub(crate) mod transposed;
