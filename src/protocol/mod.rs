//! Protocols: one file each.

pub mod finetune;
pub mod frozen;
pub mod knn;
pub mod linear_probe;
pub mod logistic;
pub mod ridge;
pub mod segmentation_probe;
pub mod upernet;
