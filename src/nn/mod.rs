//! Building blocks of networks: functions and layers from tensors to tensors.

pub mod cubic;
pub mod flexi;
pub mod gelu;
pub mod heads;
pub mod hypernetwork;
pub mod kernels;
pub mod loss;
pub mod patch;
pub mod plain_vit;
pub mod positions;
pub mod resample;
pub mod tokens;
pub mod vit;
