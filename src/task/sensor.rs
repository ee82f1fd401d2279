//! Sensors by name; their bands are described in a data file, `benchmarks/sensors.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bands::Band;
use super::intern::intern;
use crate::home::{Home, read_toml};
use crate::{Error, Result, suggest};

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
    /// Sort order: sensors known to this crate first, then all others by name.
    rank: u16,
    name: &'static str,
}

impl Sensor {
    /// Sentinel-1, VV and VH in dB.
    pub const S1: Sensor = Sensor { rank: 0, name: "s1" };
    /// Sentinel-2 top-of-atmosphere reflectance.
    pub const S2_L1C: Sensor = Sensor { rank: 1, name: "s2-l1c" };
    /// Sentinel-2 surface reflectance.
    pub const S2_L2A: Sensor = Sensor { rank: 2, name: "s2-l2a" };

    /// Name as in files: `s2-l1c`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Whether a model may be told of another sensor instead, such as of Sentinel-2's other level. Radar, Sentinel-3,
    /// Sentinel-5P, Landsat and cameras in aeroplanes have none.
    pub fn has_alternatives(self) -> bool {
        self != Sensor::S1
            && !self.name.starts_with("s3-")
            && !self.name.starts_with("s5p-")
            && !self.is_camera()
    }

    /// Whether this is Landsat or a camera in an aeroplane, whose bands a model for Sentinel-2 may take: see
    /// [`SensorSpec::matched_with`].
    pub(crate) fn is_camera(self) -> bool {
        self.name.starts_with("landsat-") || self.name.starts_with("aerial-")
    }

    /// Whether this is Sentinel-2 at either level.
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

/// All sensors described in `benchmarks/sensors.toml`.
///
/// ```
/// use terrabench::home::Home;
/// use terrabench::task::bands::Band;
/// use terrabench::task::{Sensor, Sensors};
///
/// let sensors = Sensors::load(&Home::find()?)?;
/// let red = sensors.band(Sensor::S2_L1C, Band::B04)?;
/// assert_eq!(red.gsd_m, 10.0);
/// # Ok::<(), terrabench::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Sensors(BTreeMap<Sensor, SensorSpec>);

/// A sensor and its bands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SensorSpec {
    /// Name in tables and messages.
    pub title: String,
    /// Unit of stored pixels.
    pub unit: Unit,
    /// Sensors, by preference, as which a model without this one may take its bands, each as the band of the nearest wavelength.
    #[serde(default)]
    pub matched_with: Vec<Sensor>,
    /// The bands in order of their numbers.
    pub bands: Vec<BandSpec>,
}

/// The unit of stored pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Reflectance times 10,000.
    DigitalNumbers,
    /// Reflectance from 0 to 1.
    Reflectance,
    /// Backscatter in decibels.
    Db,
    /// Backscatter as a linear ratio.
    Linear,
    /// Radiance in W m-2 sr-1 um-1.
    Radiance,
    /// Amount of a gas in a vertical column of air, in mol/m2.
    ColumnDensity,
    /// Brightness without a physical unit, as bytes from 0 to 255 or as shares from 0 to 1.
    Brightness,
}

/// A band of a sensor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BandSpec {
    /// Name of the band.
    pub name: Band,
    /// Centre wavelength in micrometres.
    #[serde(default)]
    pub wavelength_um: Option<f64>,
    /// Full width at half maximum in micrometres.
    #[serde(default)]
    pub bandwidth_um: Option<f64>,
    /// Ground sampling distance in metres.
    pub gsd_m: f64,
}

impl Sensors {
    /// Reads `benchmarks/sensors.toml`.
    ///
    /// # Errors
    /// If the file cannot be read, has unknown keys, or names a band twice.
    pub fn load(home: &Home) -> Result<Self> {
        let path = home.path("benchmarks/sensors.toml");
        let sensors: Sensors = read_toml(&path)?;
        for (sensor, spec) in &sensors.0 {
            let mut seen = BTreeSet::new();
            if let Some(twice) = spec.bands.iter().find(|band| !seen.insert(band.name)) {
                let problem = format!("sensor {sensor} has two bands called {}", twice.name);
                return Err(Error::damaged(path, problem));
            }
        }
        Ok(sensors)
    }

    /// Returns the description of a sensor.
    ///
    /// # Errors
    /// If the sensor is not described.
    pub fn get(&self, sensor: Sensor) -> Result<&SensorSpec> {
        self.0.get(&sensor).ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(|sensor| sensor.name()).collect();
            Error::request(format!("sensor {sensor} is not described in benchmarks/sensors.toml"))
                .help(suggest::help(sensor.name(), &known, "the sensors described there"))
        })
    }

    /// Returns the description of one band of a sensor.
    ///
    /// # Errors
    /// If the band is not described.
    pub fn band(&self, sensor: Sensor, band: Band) -> Result<&BandSpec> {
        let spec = self.get(sensor)?;
        spec.bands.iter().find(|known| known.name == band).ok_or_else(|| {
            let known: Vec<&str> = spec.bands.iter().map(|band| band.name.name()).collect();
            Error::request(format!("sensor {sensor} has no band {band}")).help(suggest::help(
                band.name(),
                &known,
                "its bands",
            ))
        })
    }

    /// Iterates over the sensors and their descriptions.
    pub fn iter(&self) -> impl Iterator<Item = (Sensor, &SensorSpec)> {
        self.0.iter().map(|(sensor, spec)| (*sensor, spec))
    }

    /// Whether any sensor has a band of this name.
    pub fn knows(&self, band: Band) -> bool {
        self.0.values().flat_map(|spec| &spec.bands).any(|known| known.name == band)
    }
}
