//! Sensors by name; what their bands are is data (`benchmarks/sensors.toml`).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// The name of a sensor, such as `s2-l1c`. Cheap to copy and compare.
///
/// ```
/// use terrabench::task::Sensor;
///
/// let sensor: Sensor = "s1".parse()?;
/// assert_eq!(sensor, Sensor::S1);
/// # Ok::<(), terrabench::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sensor {
    /// Sensors of this crate in their order, all others behind them in the order of their names.
    rank: u16,
    name: &'static str,
}

impl Sensor {
    /// Sentinel-1, VV and VH in dB.
    pub const S1: Sensor = Sensor { rank: 0, name: "s1" };
    /// Sentinel-2 top of atmosphere.
    pub const S2_L1C: Sensor = Sensor { rank: 1, name: "s2-l1c" };
    /// Sentinel-2 surface reflectance.
    pub const S2_L2A: Sensor = Sensor { rank: 2, name: "s2-l2a" };

    /// As in files: `s2-l1c`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Whether it is Sentinel-2, at either level.
    pub fn is_sentinel2(self) -> bool {
        self == Sensor::S2_L1C || self == Sensor::S2_L2A
    }
}

impl PartialOrd for Sensor {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sensor {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.rank, self.name).cmp(&(other.rank, other.name))
    }
}

impl fmt::Display for Sensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl FromStr for Sensor {
    type Err = Error;

    /// # Errors
    /// If the name is not made of lower-case letters, digits and hyphens.
    fn from_str(name: &str) -> Result<Self> {
        let known = [Sensor::S1, Sensor::S2_L1C, Sensor::S2_L2A].into_iter().find(|known| known.name == name);
        if let Some(known) = known {
            return Ok(known);
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
            let problem = format!("`{name}` is not the name of a sensor");
            return Err(Error::request(problem).help("use lower-case letters, digits and hyphens: s2-l1c"));
        }
        intern(name).map(|name| Sensor { rank: u16::MAX, name })
    }
}

/// A copy of the name that lives as long as the process. Names come from TOML files, so there are few of them.
pub(super) fn intern(name: &str) -> Result<&'static str> {
    const MOST: usize = 4096;
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return Ok(known);
    }
    if names.len() == MOST {
        return Err(Error::request(format!("`{name}`: more than {MOST} names of sensors and bands")));
    }
    let kept: &'static str = name.to_owned().leak();
    names.insert(kept);
    Ok(kept)
}

impl Serialize for Sensor {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Sensor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(|error: Error| serde::de::Error::custom(error.to_string()))
    }
}
