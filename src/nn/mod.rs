//! Building blocks of networks: functions and layers from tensors to tensors.

pub(crate) mod attention;
pub mod cubic;
pub mod flexi;
pub(crate) mod gelu;
pub mod heads;
pub mod hypernetwork;
pub mod kernels;
pub mod loss;
pub(crate) mod patch;
pub(crate) mod plain_vit;
pub(crate) mod positions;
pub mod resample;
pub(crate) mod tokens;
pub mod vit;
pub(crate) mod windows;
