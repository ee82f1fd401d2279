//! Terrabench measures Earth-observation foundation models on the benchmarks their papers report.
//!
//! Extract features from a model:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use terrabench::home::Home;
//! use terrabench::model::config::ModelConfig;
//! use terrabench::model::{self, Batch, Want};
//! use terrabench::task::Sensor;
//!
//! let config = ModelConfig::load(&Home::find()?, "demo")?;
//! let device = Device::flex();
//! let model = model::load(&config, &"random:0".parse()?, false, &device)?;
//! let bands = config.sensor(Sensor::S1)?.bands.as_slice().into();
//! let images = Batch::single(Sensor::S1, bands, Tensor::zeros([1, 2, 112, 112], &device));
//! let features = model.encoder.encode(&images, Want::Pooled(config.pooling()))?.pooled()?;
//! assert_eq!(features.dims(), [1, 192]);
//! # Ok::<(), terrabench::Error>(())
//! ```
//!
//! ARCHITECTURE.md lists the modules, lowest layer first, and follows one number through all of them.

#![deny(missing_docs)]

pub mod audit;
pub mod canvas;
pub mod claims;
pub mod cli;
pub mod config;
pub mod console;
pub mod data;
pub mod demo;
pub mod device;
pub(crate) mod doctor;
pub mod error;
pub mod features;
pub mod fetch;
pub(crate) mod files;
pub mod formats;
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod home;
pub mod libtorch;
pub(crate) mod locations;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod onnxruntime;
pub mod program;
pub mod progress;
pub mod protocol;
pub(crate) mod random;
pub mod record;
pub(crate) mod remedy;
pub mod report;
pub mod run;
pub mod score;
pub mod solve;
pub mod stop;
pub mod suggest;
pub mod task;
pub mod train;
pub mod transform;

pub use error::{Error, ErrorKind, Result};
