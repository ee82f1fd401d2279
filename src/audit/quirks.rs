//! Known defects of a data set, or of the code that comes with it: [`Quirk`]s of the suite's file.

use super::observed::PixelSummary;
use super::pixels::BandPixels;
use super::{Check, Finding, count};
use crate::task::{Quirk, Task};

/// Reports the known defects of a task that the pixels of a split show, and those that have no sign.
///
/// `pixels` are pooled over `images`. Bands that are selected by content are what their names say, so that signs of swapped
/// names do not count.
pub fn check<'p>(
    task: &Task,
    band_names: &str,
    pixels: &[BandPixels],
    images: impl Iterator<Item = &'p PixelSummary>,
    is_normalized: bool,
) -> Vec<Finding> {
    let Some(container) = &task.container else { return Vec::new() };
    if container.quirks.is_empty() {
        return Vec::new();
    }
    let (mut all, mut blank) = (0, 0);
    for image in images {
        all += 1;
        blank += usize::from(!image.bands.is_empty() && image.bands.iter().all(|band| band.min == band.max));
    }
    let found = |quirk: &Quirk| {
        let Quirk { what, remedy, darker, narrower, above, blank: is_of_blank, not_normalized } = quirk;
        let by_sign = |sign: &Option<[String; 2]>, number: fn(&BandPixels) -> f64| -> Option<String> {
            let [first, second] = sign.as_ref()?;
            let (first, second) = (band(pixels, first)?, band(pixels, second)?);
            let (low, high) = (number(first), number(second));
            let text = || format!("`{}` {low:.3}, `{}` {high:.3}", first.name, second.name);
            (band_names == "as-named" && low < high).then(text)
        };
        let (check, sign) = if darker.is_some() {
            (Check::BandNames, by_sign(darker, |band| band.mean).map(|text| format!("means: {text}")))
        } else if narrower.is_some() {
            let spread = |band: &BandPixels| f64::from(band.high) - f64::from(band.low);
            (Check::BandNames, by_sign(narrower, spread).map(|text| format!("ranges of 96 %: {text}")))
        } else if let Some((name, limit)) = above {
            let found = band(pixels, name).filter(|band| f64::from(band.max) > *limit);
            (Check::KnownDefect, found.map(|band| format!("largest pixel of `{}`: {}", band.name, band.max)))
        } else if *is_of_blank {
            let text = || format!("{} of {} blank", count(blank, "sample"), all);
            (Check::KnownDefect, (blank > 0).then(text))
        } else if *not_normalized {
            (Check::KnownDefect, (!is_normalized).then(|| "pixels are not normalised".to_owned()))
        } else {
            return Some(Finding::new(Check::KnownDefect, format!("{}: {what}", task.name), remedy));
        };
        Some(Finding::new(check, format!("{}: {what} ({})", task.name, sign?), remedy))
    };
    container.quirks.iter().filter_map(found).collect()
}

/// Finds a stored band by its name, in whichever image of the sample.
fn band<'b, 'n>(pixels: &'b [BandPixels<'n>], name: &str) -> Option<&'b BandPixels<'n>> {
    let is_it = |band: &&BandPixels| {
        band.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    pixels.iter().find(is_it)
}
