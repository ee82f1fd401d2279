//! How things are measured, read from `configs/`: models and protocols.

mod model;
mod protocol;
mod segmentation;
mod training;

pub use self::model::*;
pub use self::protocol::*;
pub use self::segmentation::*;
pub use self::training::*;
