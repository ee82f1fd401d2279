//! How things are measured, read from `configs/`: protocols.

mod frozen;
mod protocol;
mod segmentation;
mod training;

pub use self::frozen::*;
pub use self::protocol::*;
pub use self::segmentation::*;
pub use self::training::*;
