//! What is measured: suites, tasks, sensors, bands.

pub mod bands;
pub mod images;
mod sensor;
mod suite;
mod target;

pub use self::images::{Combine, TaskImage};
pub use self::sensor::{BandSpec, Sensor, SensorSpec, Sensors, Unit};
pub use self::suite::*;
pub use self::target::{TargetInterpolation, TargetStatistics};
