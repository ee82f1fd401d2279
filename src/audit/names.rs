//! Files whose band names contradict their contents, recognised by a quick-look among the bands.

use super::pixels::BandPixels;
use super::{Check, Finding, listed};
use crate::task::Task;

/// Decides from the largest value of each band whether the files are misnamed: no quick-look band exceeds the quick-look's
/// maximum, and some other band does. Returns `None` if the quick-look was not read.
pub fn holds_quick_look(task: &Task, largest: &[(&str, f64)]) -> Option<bool> {
    let look = task.quick_look.as_ref()?;
    let (of_look, others): (Vec<_>, Vec<_>) =
        largest.iter().partition(|(band, _)| look.bands.iter().any(|name| name == band));
    if of_look.is_empty() || others.is_empty() {
        return None;
    }
    let above = |(_, largest): &(&str, f64)| *largest > look.maximum;
    Some(!of_look.iter().any(above) && others.iter().any(above))
}

/// Explains in a sentence which bands of these files are misnamed.
pub fn explanation(task: &Task) -> String {
    let Some(look) = &task.quick_look else { return String::new() };
    let contents: Vec<String> =
        task.by_content.iter().map(|(band, stored)| format!("`{stored}` holds {band}")).collect();
    let absent: Vec<String> = task.absent_by_content.iter().map(ToString::to_string).collect();
    format!(
        "the band names of {} are wrong: {}; {} are the red, green and blue of a quick-look (at most {}); \
         {} do not exist",
        task.name,
        contents.join(", "),
        listed(look.bands.iter().map(String::as_str)),
        look.maximum,
        absent.join(", ")
    )
}

/// Remedy: the option that selects bands by content.
pub const REMEDY: &str =
    "--bands by-content selects bands by content; published numbers use the names in the files";

/// Reports bands selected by name although the names are wrong, or by content although they are right.
///
/// `quick_look_means` are the dataset's own means of the quick-look bands, which are not read when selecting by content.
pub fn check(
    task: &Task,
    band_names: &str,
    pixels: &[BandPixels],
    quick_look_means: Option<&[f64]>,
) -> Option<Finding> {
    let look = task.quick_look.as_ref()?;
    if band_names == "as-named" {
        let largest: Vec<(&str, f64)> = pixels.iter().map(|band| (band.name, f64::from(band.max))).collect();
        return holds_quick_look(task, &largest)?
            .then(|| Finding::new(Check::BandNames, explanation(task), REMEDY));
    }
    let (band, mean) = look.bands.iter().zip(quick_look_means?).find(|(_, mean)| **mean > look.maximum)?;
    let found = format!(
        "bands are selected by content, but `{band}` has a mean of {mean:.0}, above the quick-look's maximum of {}: \
         these files may be named correctly",
        look.maximum
    );
    Some(Finding::new(
        Check::BandNames,
        found,
        "inspect the files with `cargo xtask inspect`, or remove --bands by-content",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use crate::task::Suite;

    const LOOK: [&str; 3] = ["10 - SWIR - Cirrus", "11 - SWIR", "12 - SWIR"];

    #[test]
    fn a_quick_look_is_known_by_its_maximum() {
        let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
        let task = suite.task("m-brick-kiln").unwrap();
        let with = |look: f64, other: f64| {
            let mut largest = vec![("08 - NIR", other)];
            largest.extend(LOOK.map(|band| (band, look)));
            holds_quick_look(task, &largest)
        };
        assert_eq!(with(255.0, 3000.0), Some(true));
        assert_eq!(with(256.0, 3000.0), Some(false));
        // No band is bright: nothing can be concluded.
        assert_eq!(with(100.0, 100.0), Some(false));
        assert_eq!(holds_quick_look(task, &[("08 - NIR", 3000.0)]), None);
        assert_eq!(holds_quick_look(suite.task("m-eurosat").unwrap(), &[("08 - NIR", 3000.0)]), None);
        assert_eq!(check(task, "by-content", &[], Some(&[80.0, 90.0, 70.0])), None);
        let said = check(task, "by-content", &[], Some(&[12.0, 1800.0, 1100.0])).unwrap().found;
        assert!(said.contains("`11 - SWIR` has a mean of 1800"), "{said}");
        let told = explanation(task);
        for word in ["`06 - Vegetation Red Edge` holds B07", "12 - SWIR", "255", "B06, B09, B10 do not exist"]
        {
            assert!(told.contains(word), "{word} in {told}");
        }
    }
}
