//! How things are measured, read from `configs/`: models and protocols.

mod model;
mod protocol;
mod training;

pub use self::model::*;
pub use self::protocol::*;
pub use self::training::*;
