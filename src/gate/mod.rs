//! Judging records: against a reference, against each other, and recomputed from their predictions.

pub mod check;
pub mod choice;
pub mod compare;
pub mod recompute;
pub mod rescore;
pub mod samples;
pub mod suites;

pub use self::suites::Suites;
