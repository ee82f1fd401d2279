//! The images of a sample: one per sensor and date. A task with several lists them as `[[tasks.images]]`; every other task
//! has one image, described by the task's own fields.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::{DatasetLayout, Family, Sensor, Task};

/// One of the images in each sample of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskImage {
    /// Sensor of the stored pixels.
    pub sensor: Sensor,
    /// Sensor passed to the model.
    pub input_sensor: Sensor,
    /// Label of its date, such as `before`, if a sample has several images of one sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Stored names of its bands, in stored order. Empty if a sample has a single image and its file names the
    /// bands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored_bands: Vec<String>,
}

/// How the features of a sample's images are combined, if the model does not take all images at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// The later of two images minus the earlier one
    /// [zhu-xlab/Copernicus-FM, Copernicus-Bench/src/foundation_models/vit_wrapper.py, ViTChange].
    Difference,
    /// Concatenation along the feature axis, in the order of the images.
    Concatenate,
}

impl Combine {
    /// Whether settings, records and keys omit this value. Difference was once the only way to combine two dates and was not
    /// written, so omitting it keeps their names stable.
    pub(crate) fn is_unwritten(combine: &Option<Combine>) -> bool {
        !matches!(combine, Some(Combine::Concatenate))
    }
}

/// Labels that distinguish the images of a sample: none for a single image; otherwise the sensor if sensors differ and
/// the date if it has one: `s1`, `before`, `s1 before`.
pub fn image_labels<'a>(
    images: impl Iterator<Item = (Sensor, Option<&'a str>)> + Clone,
) -> Vec<Option<String>> {
    let mut sensors = images.clone().map(|(sensor, _)| sensor);
    let first = sensors.next();
    let sensors_differ = sensors.any(|sensor| Some(sensor) != first);
    let several = images.clone().count() > 1;
    let label = |(sensor, date): (Sensor, Option<&str>)| {
        let parts = [(sensors_differ || date.is_none()).then(|| sensor.name()), date];
        several.then(|| parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    };
    images.map(label).collect()
}

/// Name of a stored band that is unique among all images of a sample, as used in records, packed files and keys:
/// `VV before` if the image has a label, otherwise the stored name.
pub fn full_name(band: impl fmt::Display, label: Option<&str>) -> String {
    match label {
        Some(label) => format!("{band} {label}"),
        None => band.to_string(),
    }
}

impl Task {
    /// Returns the images of a sample, at least one.
    pub fn sources(&self) -> Vec<TaskImage> {
        if !self.images.is_empty() {
            return self.images.clone();
        }
        vec![TaskImage {
            sensor: self.sensor,
            input_sensor: self.input_sensor,
            date: None,
            stored_bands: self.stored_bands.clone(),
        }]
    }

    /// Lists the sensors of the images without duplicates: `s1`, `s2-l1c + s1`.
    pub fn sensors(&self) -> String {
        let mut names = vec![self.sensor.name()];
        for image in &self.images {
            if !names.contains(&image.sensor.name()) {
                names.push(image.sensor.name());
            }
        }
        names.join(" + ")
    }

    /// Labels that distinguish the images: see [`image_labels`].
    pub fn image_labels(&self) -> Vec<Option<String>> {
        let sources = self.sources();
        image_labels(sources.iter().map(|image| (image.sensor, image.date.as_deref())))
    }

    /// Flattens the stored names in `bands` (per image) to one list of [`full_name`]s.
    pub fn full_names(&self, bands: &[Vec<String>]) -> Vec<String> {
        let labels = self.image_labels();
        let of_image = |(names, label): (&Vec<String>, &Option<String>)| {
            names.iter().map(|name| full_name(name, label.as_deref())).collect::<Vec<_>>()
        };
        bands.iter().zip(&labels).flat_map(of_image).collect()
    }

    /// Describes an inconsistency in the task's list of images, or something that its reader does not support.
    pub(super) fn image_problem(&self, family: Family) -> Option<String> {
        let Task { images, combine, .. } = self;
        if images.is_empty() {
            return combine.is_some().then(|| "has `combine`, but only one image".to_owned());
        }
        if !self.stored_bands.is_empty() {
            return Some("has both `images` and `stored-bands`: set `stored-bands` per image".to_owned());
        }
        if let Some(first) = images.first()
            && (first.sensor, first.input_sensor) != (self.sensor, self.input_sensor)
        {
            return Some(
                "has a `sensor` or `input-sensor` that differs from the first of its `images`".to_owned(),
            );
        }
        if images.iter().any(|image| image.stored_bands.is_empty()) {
            return Some("has `images` without `stored-bands`".to_owned());
        }
        let labels = self.image_labels();
        if (1..labels.len()).any(|place| labels[..place].contains(&labels[place])) {
            return Some(
                "has two `images` with the same sensor and date: give each its own `date`".to_owned(),
            );
        }
        if images.len() > 1 && combine.is_none() {
            return Some("has several `images`: set `combine` to difference or concatenate".to_owned());
        }
        if *combine == Some(Combine::Difference) && images.len() != 2 {
            return Some(format!("has {} images; combining by difference needs exactly 2", images.len()));
        }
        let known = match family {
            Family::Geobench | Family::Geobench2 => true,
            Family::CopernicusBench => self.layout.is_some_and(DatasetLayout::has_several_dates),
            Family::Landslide4sense => false,
        };
        (!known).then(|| "lists `images`, which the reader of this family does not support".to_owned())
    }
}

/// Whether all images have the first one's sensor, which is already part of the settings.
pub(super) fn is_of_one_sensor(images: &&[TaskImage]) -> bool {
    images.iter().all(|image| Some(image.input_sensor) == images.first().map(|first| first.input_sensor))
}

/// Serialises the sensors passed to the model.
pub(super) fn input_sensors<S: Serializer>(images: &&[TaskImage], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(images.iter().map(|image| image.input_sensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(images: &[(Sensor, Option<&'static str>)]) -> Vec<Option<String>> {
        image_labels(images.iter().copied())
    }

    #[test]
    fn a_label_says_what_tells_an_image_from_the_others() {
        let (s1, s2) = (Sensor::S1, Sensor::S2_L1C);
        assert_eq!(labels(&[(s1, None)]), [None]);
        let words = |all: &[&str]| all.iter().map(|label| Some((*label).to_owned())).collect::<Vec<_>>();
        assert_eq!(labels(&[(s1, Some("before")), (s1, Some("after"))]), words(&["before", "after"]));
        assert_eq!(labels(&[(s1, None), (s2, None)]), words(&["s1", "s2-l1c"]));
        assert_eq!(labels(&[(s1, Some("may")), (s2, Some("may"))]), words(&["s1 may", "s2-l1c may"]));
    }

    #[test]
    fn a_full_name_tells_the_same_band_of_two_images_apart() {
        assert_eq!(full_name("VV", None), "VV");
        assert_eq!(full_name("VV", Some("before")), "VV before");
    }
}
