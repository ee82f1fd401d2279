//! Building blocks of networks: tensors in, tensors out.

pub mod cubic;
pub mod flexi;
pub mod gelu;
pub mod heads;
pub mod kernels;
pub mod loss;
pub mod patch;
pub mod resample;
pub mod vit;
