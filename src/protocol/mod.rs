//! Protocols: one file each, behind the trait [`Protocol`], and one line each in `list.rs`.

pub mod clustering;
pub mod finetune;
mod interface;
pub mod knn;
pub mod linear_probe;
mod list;
pub mod logistic;
pub mod map;
mod on_device;
pub mod retrieval;
pub mod ridge;
pub mod segmentation_probe;
pub mod sweep;
pub mod upernet;

pub use interface::{Needs, Protocol, Session, TrainingSetup};
pub use list::ProtocolConfig;
pub use on_device::Accelerator;
