//! Checks records against a reference, compares them with each other, and recomputes them from their predictions.

pub mod check;
pub mod choice;
pub mod compare;
pub mod parity;
pub(crate) mod recompute;
pub mod reproduce;
pub mod rescore;
pub(crate) mod samples;
pub(crate) mod suites;

pub use self::suites::Suites;
