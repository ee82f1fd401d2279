//! What is measured: suites and tasks, and the sensors and bands of their images.

pub mod bands;
mod capabilities;
mod container;
pub(crate) mod images;
mod intern;
mod metadata;
mod resize;
mod sensor;
mod suite;
mod target;

pub use self::capabilities::{Capabilities, CapabilityGroup, interquartile_mean};
pub use self::container::{BlankPixels, Container, ContainerFile, Quirk};
pub use self::images::{Combine, TaskImage};
pub use self::metadata::{Metadata, MetadataKind};
pub use self::resize::ResizeRule;
pub use self::sensor::{BandSpec, Sensor, SensorSpec, Sensors, Unit};
pub use self::suite::*;
pub use self::target::{MaskResize, Resample, TargetInterpolation, TargetStatistics, ValueResampling};
