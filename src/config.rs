//! How things are measured, read from `configs/`: models and protocols.

mod protocol;
mod segmentation;
mod training;

pub use self::protocol::*;
pub use self::segmentation::*;
pub use self::training::*;
