//! Bands by name, and the selection of the stored band that feeds each input of a model.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// The name of a band, such as `B8A` or `VV`. Cheap to copy and compare; `benchmarks/sensors.toml`
/// ([`super::Sensors`]) describes the bands.
///
/// ```
/// use terrabench::task::bands::Band;
///
/// let band: Band = "B8A".parse()?;
/// assert_eq!(band, Band::B8A);
/// # Ok::<(), terrabench::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Band {
    /// Sort order: bands known to this crate first, then all others by name.
    rank: u16,
    name: &'static str,
}

impl Band {
    /// Sentinel-2 coastal aerosol, 443 nm, 60 m.
    pub const B01: Band = Band { rank: 0, name: "B01" };
    /// Sentinel-2 blue, 490 nm, 10 m.
    pub const B02: Band = Band { rank: 1, name: "B02" };
    /// Sentinel-2 green, 560 nm, 10 m.
    pub const B03: Band = Band { rank: 2, name: "B03" };
    /// Sentinel-2 red, 665 nm, 10 m.
    pub const B04: Band = Band { rank: 3, name: "B04" };
    /// Sentinel-2 red edge, 705 nm, 20 m.
    pub const B05: Band = Band { rank: 4, name: "B05" };
    /// Sentinel-2 red edge, 740 nm, 20 m.
    pub const B06: Band = Band { rank: 5, name: "B06" };
    /// Sentinel-2 red edge, 783 nm, 20 m.
    pub const B07: Band = Band { rank: 6, name: "B07" };
    /// Sentinel-2 near infrared, 842 nm, 10 m.
    pub const B08: Band = Band { rank: 7, name: "B08" };
    /// Sentinel-2 narrow near infrared, 865 nm, 20 m.
    pub const B8A: Band = Band { rank: 8, name: "B8A" };
    /// Sentinel-2 water vapour, 945 nm, 60 m.
    pub const B09: Band = Band { rank: 9, name: "B09" };
    /// Sentinel-2 cirrus, 1375 nm, 60 m; only at level 1C.
    pub const B10: Band = Band { rank: 10, name: "B10" };
    /// Sentinel-2 short-wave infrared, 1610 nm, 20 m.
    pub const B11: Band = Band { rank: 11, name: "B11" };
    /// Sentinel-2 short-wave infrared, 2190 nm, 20 m.
    pub const B12: Band = Band { rank: 12, name: "B12" };
    /// Sentinel-1 backscatter, vertically transmitted and received.
    pub const VV: Band = Band { rank: 13, name: "VV" };
    /// Sentinel-1 backscatter, vertically transmitted and horizontally received.
    pub const VH: Band = Band { rank: 14, name: "VH" };
    /// Placeholder for a missing band: zeros after normalisation.
    pub const ZEROS: Band = Band { rank: 15, name: "zeros" };

    const KNOWN: [Band; 16] = [
        Band::B01,
        Band::B02,
        Band::B03,
        Band::B04,
        Band::B05,
        Band::B06,
        Band::B07,
        Band::B08,
        Band::B8A,
        Band::B09,
        Band::B10,
        Band::B11,
        Band::B12,
        Band::VV,
        Band::VH,
        Band::ZEROS,
    ];

    /// Index among the bands of Sentinel-2, which come first.
    pub(crate) fn place(self) -> usize {
        usize::from(self.rank)
    }

    /// Name as in files: `B8A`.
    pub fn name(self) -> &'static str {
        self.name
    }
}

impl PartialOrd for Band {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Band {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.rank, self.name).cmp(&(other.rank, other.name))
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl FromStr for Band {
    type Err = Error;

    /// # Errors
    /// If the name is not made of letters, digits, hyphens and underscores.
    fn from_str(name: &str) -> Result<Self> {
        if let Some(known) = Band::KNOWN.into_iter().find(|known| known.name == name) {
            return Ok(known);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
            let problem = format!("`{name}` is not the name of a band");
            return Err(Error::request(problem).help("use letters, digits and hyphens: B8A"));
        }
        super::intern::intern(name).map(|name| Band { rank: u16::MAX, name })
    }
}

impl Serialize for Band {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Band {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(|error: Error| serde::de::Error::custom(error.to_string()))
    }
}

/// Replaces the missing band `target` by the band `source`. Written `["B11", "B10"]` (source, target).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Band, Band)", into = "(Band, Band)")]
pub struct Imputation {
    /// The band that is read.
    pub source: Band,
    /// The missing band.
    pub target: Band,
}

impl From<(Band, Band)> for Imputation {
    fn from((source, target): (Band, Band)) -> Self {
        Imputation { source, target }
    }
}

impl From<Imputation> for (Band, Band) {
    fn from(pair: Imputation) -> Self {
        (pair.source, pair.target)
    }
}

/// The subset of a model's bands that it receives. The others are zeros after normalisation, or left out if the model
/// accepts any set of bands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Channels {
    /// All bands of the model.
    #[default]
    All,
    /// B04, B03 and B02.
    Rgb,
    /// These bands.
    Named(Vec<Band>),
}

impl Channels {
    /// Whether the model receives this band.
    pub fn keeps(&self, band: Band) -> bool {
        match self {
            Channels::All => true,
            Channels::Rgb => is_rgb(band),
            Channels::Named(bands) => bands.contains(&band),
        }
    }

    /// Checks that the model accepts the requested bands.
    ///
    /// # Errors
    /// If it lacks one: the message lists the bands that it accepts.
    pub fn check(&self, wanted: &[Band]) -> Result<()> {
        let asked = match self {
            Channels::All => return Ok(()),
            Channels::Rgb
                if wanted.iter().filter(|band| is_rgb(**band) && band.rank == u16::MAX).count() == 3 =>
            {
                return Ok(());
            }
            Channels::Rgb => &[Band::B04, Band::B03, Band::B02][..],
            Channels::Named(bands) => bands,
        };
        let Some(unknown) = asked.iter().find(|band| !wanted.contains(band)) else { return Ok(()) };
        let known: Vec<&str> = wanted.iter().map(|band| band.name()).collect();
        Err(Error::request(format!("--channels {self}: the model has no band {unknown} here"))
            .help(crate::suggest::help(unknown.name(), &known, "its bands")))
    }
}

/// Whether a band is red, green or blue: of Sentinel-2, or of a sensor that names them so.
fn is_rgb(band: Band) -> bool {
    [Band::B04, Band::B03, Band::B02].contains(&band) || ["red", "green", "blue"].contains(&band.name)
}

impl FromStr for Channels {
    type Err = Error;

    /// Parses `all`, `rgb`, or band names separated by commas.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Channels::All),
            "rgb" => Ok(Channels::Rgb),
            names => {
                names.split(',').map(|name| name.trim().parse()).collect::<Result<_>>().map(Channels::Named)
            }
        }
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Channels::All => f.write_str("all"),
            Channels::Rgb => f.write_str("rgb"),
            Channels::Named(bands) => {
                f.write_str(&bands.iter().map(|band| band.name()).collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl Serialize for Channels {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The stored band that feeds each input band of a model, in the model's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Stored names, one per input band.
    pub stored: Vec<String>,
    /// The substitutions made.
    pub imputed: Vec<Imputation>,
    /// Indices of inputs set to zero after normalisation; `stored` contains an arbitrary band there.
    pub zeroed: Vec<usize>,
}

/// Selects the stored band that feeds each input band: the band itself if the files have it, otherwise the
/// source of its imputation. [`Band::ZEROS`] is always zeros.
///
/// `names` maps bands to their names in the files; `present` lists the names that the files have.
///
/// # Errors
/// If a wanted band is neither stored nor imputed.
pub fn select(
    wanted: &[Band],
    names: &BTreeMap<Band, String>,
    present: &[String],
    impute: &[Imputation],
) -> Result<Selection> {
    let stored_name = |band: &Band| names.get(band).filter(|name| present.contains(name)).cloned();
    let mut selection = Selection { stored: Vec::new(), imputed: Vec::new(), zeroed: Vec::new() };
    for (place, band) in wanted.iter().enumerate() {
        if let (Band::ZEROS, Some(any)) = (*band, present.first()) {
            selection.zeroed.push(place);
            selection.stored.push(any.clone());
            continue;
        }
        let name = stored_name(band).or_else(|| {
            let pair = impute.iter().find(|pair| pair.target == *band)?;
            selection.imputed.push(*pair);
            if pair.source == Band::ZEROS {
                selection.zeroed.push(place);
                return present.first().cloned();
            }
            stored_name(&pair.source)
        });
        selection.stored.push(name.ok_or_else(|| {
            Error::request(format!(
                "the model needs band {band}, which is neither stored nor imputed; stored bands: {}",
                present.join(", ")
            ))
            .help("add `impute = [[\"<source>\", \"<target>\"]]` to the task in benchmarks/")
        })?);
    }
    Ok(selection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BTreeMap<Band, String> {
        [(Band::B01, "01"), (Band::B02, "02"), (Band::B03, "03")]
            .map(|(band, name)| (band, name.to_owned()))
            .into()
    }

    #[test]
    fn a_stored_band_wins_over_its_imputation() {
        let impute = [Imputation { source: Band::B02, target: Band::B01 }];
        let present = ["01".to_owned(), "02".to_owned()];
        let selection = select(&[Band::B02, Band::B01], &names(), &present, &impute).unwrap();
        assert_eq!(selection.stored, ["02", "01"]);
        assert!(selection.imputed.is_empty());

        let selection = select(&[Band::B02, Band::B01], &names(), &present[1..], &impute).unwrap();
        assert_eq!(selection.stored, ["02", "02"]);
        assert_eq!(selection.imputed, impute);
    }

    #[test]
    fn zeros_stand_in_for_a_band() {
        let impute = [Imputation { source: Band::ZEROS, target: Band::B01 }];
        let selection = select(&[Band::B02, Band::B01], &names(), &["02".to_owned()], &impute).unwrap();
        assert_eq!(selection.zeroed, [1]);
        assert_eq!(selection.stored, ["02", "02"]);
        assert_eq!(selection.imputed[0].source.to_string(), "zeros");
    }

    #[test]
    fn a_channel_may_have_no_band() {
        let selection = select(&[Band::ZEROS, Band::B02], &names(), &["02".to_owned()], &[]).unwrap();
        assert_eq!((selection.zeroed, selection.stored), (vec![0], vec!["02".to_owned(); 2]));
        assert!(select(&[Band::ZEROS], &names(), &[], &[]).is_err());
    }

    #[test]
    fn a_missing_band_is_named() {
        let error = select(&[Band::B03], &names(), &["01".to_owned()], &[]).unwrap_err().to_string();
        assert!(error.contains("B03"), "{error}");
    }
}
