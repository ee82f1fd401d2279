//! A sample before it is read: the files it consists of.

use crate::data::Target;

/// A sample as listed.
#[derive(Debug, Clone)]
pub struct ListedSample {
    pub name: String,
    /// The image's files relative to the data set's folder: one file with all bands, or one file per band.
    pub images: Vec<String>,
    /// Days since 1970-01-01 of each image, by the files' names; `None` if they do not say it.
    pub days: Vec<Option<f64>>,
    pub target: TargetPlace,
}

/// Returns the days since 1970-01-01 of a date at the beginning of `text`, written `20170613`.
pub fn day(text: &str) -> Option<f64> {
    let digits = text.get(..8).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let number: i64 = digits.parse().ok()?;
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    let is_leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month).ok().filter(|month| (1..=12).contains(month))?;
    if year == 0 || !(1..=lengths[month - 1]).contains(&day) {
        return None;
    }
    // Days before the first of January of a year, in the Gregorian calendar.
    let before = |year: i64| 365 * year + (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let in_year: i64 = lengths[..month - 1].iter().sum::<i64>() + day - 1;
    Some((before(year) - before(1970) + in_year) as f64)
}

/// Returns the days since 1970-01-01 of the first date in a file's name, written `20170613` or `2017-06-13` between
/// underscores.
pub fn first_day(name: &str) -> Option<f64> {
    name.split('_').find_map(|part| day(&part.replace('-', "")))
}

#[cfg(test)]
mod tests {
    use super::{day, first_day};

    #[test]
    fn the_first_date_of_a_name_counts() {
        let cloud = "S3A_OL_1_EFR____20200703T154217_20200703T154517_20200704T235959_0179_060_111_2160_LN1_O_NT_002_01.tif";
        assert_eq!(first_day(cloud), Some(18_446.0));
        assert_eq!(first_day("S3B_20190810T135525_20190811T135559.tif"), Some(18_118.0));
        assert_eq!(first_day("2021-01-01_2021-12-31.tif"), Some(18_628.0));
        assert_eq!(first_day("0200599_-70.25_-55.25"), None);
    }

    /// Python: `(date(y, m, d) - date(1970, 1, 1)).days`.
    #[test]
    fn days_are_those_of_the_calendar() {
        for (text, days) in [
            ("19700101", 0.0),
            ("20000229T000000", 11_016.0),
            ("20170613T101031", 17_330.0),
            ("20200111T164649", 18_272.0),
            ("20210101", 18_628.0),
            ("19691231", -1.0),
            ("21000301", 47_541.0),
        ] {
            assert_eq!(day(text), Some(days), "{text}");
        }
        for text in ["", "2017061", "20170631", "20170229", "20171301", "20170600", "2017-613", "00000101"] {
            assert_eq!(day(text), None, "{text}");
        }
    }
}

impl ListedSample {
    /// All files: the images, then the mask if there is one.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        let mask = match &self.target {
            TargetPlace::File(mask) => Some(mask),
            TargetPlace::Known(_) => None,
        };
        self.images.iter().chain(mask)
    }
}

/// A sample's target, or the file that contains it.
#[derive(Debug, Clone)]
pub enum TargetPlace {
    Known(Target),
    /// File of the mask.
    File(String),
}
