//! Names what a model takes about an image and is not given, for the record of its numbers.

use crate::task::{Metadata, Sensor};

/// What stands in for an unknown date: `date (July assumed)`; `None` if dates are given.
pub(super) fn date(given: Metadata, assumed: &str) -> Option<String> {
    (!given.date).then(|| format!("date ({assumed} assumed)"))
}

/// The sensors among Sentinel-1 and Sentinel-2, at either level, of which there are no images: `Sentinel-1 (masked)`.
pub(super) fn sensors(given: &[Sensor]) -> Vec<String> {
    let has_sentinel1 = given.contains(&Sensor::S1);
    let has_sentinel2 = given.iter().any(|sensor| sensor.is_sentinel2());
    let kinds = [("Sentinel-1", has_sentinel1), ("Sentinel-2", has_sentinel2)];
    kinds.into_iter().filter(|(_, is_given)| !is_given).map(|(name, _)| masked(name)).collect()
}

/// An input that no task gives: `place (masked)`.
pub(super) fn masked(name: &str) -> String {
    format!("{name} (masked)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_level_of_sentinel_2_counts_as_sentinel_2() {
        assert_eq!(sensors(&[Sensor::S2_L2A]), ["Sentinel-1 (masked)"]);
        assert_eq!(sensors(&[Sensor::S1]), ["Sentinel-2 (masked)"]);
        assert!(sensors(&[Sensor::S1, Sensor::S2_L1C]).is_empty());
    }

    #[test]
    fn a_given_date_has_no_stand_in() {
        let given = Metadata { date: true, ..Metadata::default() };
        assert_eq!(date(given, "July"), None);
        assert_eq!(date(Metadata::default(), "July").unwrap(), "date (July assumed)");
    }
}
