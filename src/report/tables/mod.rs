//! Tables: measured rows beside published ones, as Markdown and CSV.

pub mod baseline;
pub mod csv;
pub mod markdown;
pub mod paired;
pub mod published;
mod rounded;
pub mod rows;
pub mod table;
pub mod text;
pub mod transposed;
