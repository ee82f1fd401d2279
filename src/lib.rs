//! Terrabench measures Earth-observation foundation models on the benchmarks their papers report.
//!
//! The way of a number, each arrow one function:
//!
//! ```text
//! suite.rs      benchmarks/*.toml -> Suite, Task
//! plan.rs       suite + models + protocols -> Cells, and which are done already
//! data/         Task -> Dataset -> Sample (raw pixels of the bands a model wants)
//! normalization.rs  names -> strategies of normalisation, with their statistics
//! transform/    Sample -> normalised, resized image
//! audit/        what was read and computed -> findings: what makes a number mislead
//! model/        images -> features (or feature maps), on a device
//! features.rs   Dataset + Backbone -> Features [n, d]
//! cache.rs      Features on disk, by the hash of what decides them
//! protocol/     Features -> predictions (k-NN, …)
//! metrics/      predictions + labels -> scores with intervals
//! sheet.rs      images, masks, predictions -> a picture to look at
//! run.rs        one Cell through all of the above -> Record
//! record.rs     Record -> an atomic file, named by the fingerprint of what decides the number
//! report/       Records + published numbers -> tables
//! cli/          one file per command
//! ```
//!
//! Arrows point down this list only; see ARCHITECTURE.md for the invariants.

pub mod audit;
pub mod canvas;
pub mod cli;
pub mod config;
pub mod console;
pub mod data;
pub mod demo;
pub mod device;
pub mod doctor;
pub mod error;
pub mod features;
pub mod fetch;
pub mod files;
pub mod formats;
pub mod gate;
pub mod home;
pub mod libtorch;
pub mod locations;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod program;
pub mod progress;
pub mod protocol;
pub mod random;
pub mod record;
pub mod remedy;
pub mod report;
pub mod run;
pub mod score;
pub mod solve;
pub mod suggest;
pub mod task;
pub mod train;
pub mod transform;

pub use error::{Error, Result};
