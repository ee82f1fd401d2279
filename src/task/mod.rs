//! What is measured: suites, tasks, sensors, bands.

pub mod bands;
mod sensor;
mod suite;

pub use self::sensor::Sensor;
pub use self::suite::*;
