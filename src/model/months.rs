//! The month of each image, for models that encode it.

use std::f64::consts::TAU;

use super::encoder::Context;

/// Month assumed if the date is unknown: July, as in Galileo's evaluation for its own models and Presto.
pub const UNKNOWN: usize = 6;

/// Returns the month of each of `n` images, counted from 0.
pub fn months(context: &Context, n: usize) -> Vec<usize> {
    months_or(context, n, UNKNOWN)
}

/// Like [`months`], with another month for images whose date is unknown.
pub fn months_or(context: &Context, n: usize, unknown: usize) -> Vec<usize> {
    (0..n).map(|image| context.days.get(image).copied().flatten().map_or(unknown, month)).collect()
}

/// Encodes a month counted from 0 as `entries` numbers: its sine repeated `entries / 2` times, then its cosine.
pub fn encoding(month: usize, entries: usize) -> impl Iterator<Item = f32> {
    let angle = TAU * month as f64 / 12.0;
    let half = entries / 2;
    std::iter::repeat_n(angle.sin() as f32, half).chain(std::iter::repeat_n(angle.cos() as f32, half))
}

/// A date in the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// The year, such as 2020.
    pub year: i64,
    /// Month, counted from 0.
    pub month: usize,
    /// Day of the year, counted from 1.
    pub day_of_year: i64,
}

/// Returns the date of a day counted from 1970-01-01 [Hinnant, "chrono-Compatible Low-Level Date Algorithms"].
pub fn date(days: f64) -> Date {
    // Years start in March here, so that the leap day is the last day.
    let day = days.floor() as i64 + 719_468;
    let (era, in_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * in_year + 2) / 153;
    let month = ((from_march + 2) % 12) as usize;
    // January and February belong to the next year.
    let is_next = in_year >= MARCH_TO_DECEMBER;
    let year = 400 * era + year + i64::from(is_next);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let day_of_year = if is_next { in_year - MARCH_TO_DECEMBER } else { in_year + 59 + i64::from(is_leap) };
    Date { year, month, day_of_year: day_of_year + 1 }
}

/// Number of days from March to December.
const MARCH_TO_DECEMBER: i64 = 306;

fn month(days: f64) -> usize {
    date(days).month
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_of_known_days() {
        let days = [
            (0.0, 0),       // 1970-01-01
            (30.9, 0),      // 1970-01-31
            (31.0, 1),      // 1970-02-01
            (-1.0, 11),     // 1969-12-31
            (11_016.5, 1),  // 2000-02-29
            (11_017.0, 2),  // 2000-03-01
            (19_539.0, 6),  // 2023-07-01
            (19_538.99, 5), // 2023-06-30
            (20_453.0, 11), // 2025-12-31
        ];
        for (day, expected) in days {
            assert_eq!(month(day), expected, "day {day}");
        }
    }

    #[test]
    fn dates_of_known_days() {
        let days = [
            (0.0, (1970, 0, 1)),
            (-1.0, (1969, 11, 365)),
            (11_016.5, (2000, 1, 60)),
            (11_017.0, (2000, 2, 61)),
            (11_322.0, (2000, 11, 366)),
            (19_539.0, (2023, 6, 182)),
            (20_453.0, (2025, 11, 365)),
            (47_540.0, (2100, 1, 59)),
            (47_541.0, (2100, 2, 60)),
        ];
        for (day, (year, month, day_of_year)) in days {
            assert_eq!(date(day), Date { year, month, day_of_year }, "day {day}");
        }
    }

    #[test]
    fn images_without_a_date_are_of_july() {
        let context = Context { days: vec![Some(0.0), None], ..Context::default() };
        assert_eq!(months(&context, 3), [0, UNKNOWN, UNKNOWN]);
    }
}
