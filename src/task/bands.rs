//! Bands by name, and which stored band feeds which input of a model.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A band of Sentinel-2 (MSI) or a polarisation of Sentinel-1 (SAR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Band {
    B01,
    B02,
    B03,
    B04,
    B05,
    B06,
    B07,
    B08,
    B8A,
    B09,
    B10,
    B11,
    B12,
    VV,
    VH,
    /// No band: zeros, after normalisation, in place of one that is missing.
    #[serde(rename = "zeros")]
    Zeros,
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Band::Zeros => f.write_str("zeros"),
            band => fmt::Debug::fmt(band, f),
        }
    }
}

impl FromStr for Band {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        use serde::de::IntoDeserializer;
        let name: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        Band::deserialize(name).map_err(Error::request)
    }
}

/// The band `target` is missing; the band `source` stands in for it. Written `["B11", "B10"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Band, Band)", into = "(Band, Band)")]
pub struct Imputation {
    pub source: Band,
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

/// For each input band of a model, in its order: the band as stored that feeds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Stored names, one for each band the model wants.
    pub stored: Vec<String>,
    /// The substitutions among them.
    pub imputed: Vec<Imputation>,
    /// Places among them that become zeros once they are normalised: any stored band stands there.
    pub zeroed: Vec<usize>,
}

/// Decides which stored band feeds each wanted band: itself where the files have it, otherwise its
/// imputation's source.
///
/// `names` says what each band is called in the files, `present` which names the files have.
///
/// # Errors
/// Where a wanted band is neither stored nor imputed.
pub fn select(
    wanted: &[Band],
    names: &BTreeMap<Band, String>,
    present: &[String],
    impute: &[Imputation],
) -> Result<Selection> {
    let stored_name = |band: &Band| names.get(band).filter(|name| present.contains(name)).cloned();
    let mut selection = Selection { stored: Vec::new(), imputed: Vec::new(), zeroed: Vec::new() };
    for (place, band) in wanted.iter().enumerate() {
        let name = stored_name(band).or_else(|| {
            let pair = impute.iter().find(|pair| pair.target == *band)?;
            selection.imputed.push(*pair);
            if pair.source == Band::Zeros {
                selection.zeroed.push(place);
                return present.first().cloned();
            }
            stored_name(&pair.source)
        });
        selection.stored.push(name.ok_or_else(|| {
            Error::request(format!(
                "the model wants band {band}, which is neither stored nor imputed; stored: {}",
                present.join(", ")
            ))
            .help("add `impute = [[\"<source>\", \"<target>\"]]` to the task in benchmarks/")
        })?);
    }
    Ok(selection)
}

/// What a band is called at one of a sample's dates: `VV before`.
pub fn dated(band: impl fmt::Display, date: &str) -> String {
    format!("{band} {date}")
}

/// The band of a name that [`dated`] may have made.
pub fn undated(name: &str) -> &str {
    name.split(' ').next().unwrap_or_default()
}

/// As [`select`], for each of the dates in turn, whose bands are stored as [`dated`] calls them.
///
/// # Errors
/// As [`select`].
pub fn select_dated(
    dates: &[String],
    wanted: &[Band],
    names: &BTreeMap<Band, String>,
    present: &[String],
    impute: &[Imputation],
) -> Result<Selection> {
    let mut all = Selection { stored: Vec::new(), imputed: Vec::new(), zeroed: Vec::new() };
    for date in dates {
        let names = names.iter().map(|(band, name)| (*band, dated(name, date))).collect();
        let Selection { stored, imputed, zeroed } = select(wanted, &names, present, impute)?;
        all.zeroed.extend(zeroed.into_iter().map(|place| all.stored.len() + place));
        all.stored.extend(stored);
        for pair in imputed {
            if !all.imputed.contains(&pair) {
                all.imputed.push(pair);
            }
        }
    }
    Ok(all)
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
    fn each_date_has_bands_of_its_own() {
        let dates = ["before", "after"].map(str::to_owned);
        let present = ["02 before", "02 after", "01 after"].map(str::to_owned);
        let impute = [Imputation { source: Band::Zeros, target: Band::B01 }];
        let selection = select_dated(&dates, &[Band::B02, Band::B01], &names(), &present, &impute).unwrap();
        assert_eq!(selection.stored, ["02 before", "02 before", "02 after", "01 after"]);
        assert_eq!(selection.zeroed, [1]);
        assert_eq!(selection.imputed, impute);
        let lacking = select_dated(&dates, &[Band::B02], &names(), &present[..1], &[]).unwrap_err();
        assert!(lacking.to_string().contains("B02"), "{lacking}");
    }

    #[test]
    fn zeros_stand_in_for_a_band() {
        let impute = [Imputation { source: Band::Zeros, target: Band::B01 }];
        let selection = select(&[Band::B02, Band::B01], &names(), &["02".to_owned()], &impute).unwrap();
        assert_eq!(selection.zeroed, [1]);
        assert_eq!(selection.stored, ["02", "02"]);
        assert_eq!(selection.imputed[0].source.to_string(), "zeros");
    }

    #[test]
    fn a_missing_band_is_named() {
        let error = select(&[Band::B03], &names(), &["01".to_owned()], &[]).unwrap_err().to_string();
        assert!(error.contains("B03"), "{error}");
    }
}
