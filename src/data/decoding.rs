//! Everything that decides how the stored bytes of a data set become arrays, as one value.
//!
//! Features, records and packed files are made from decoded samples, so each of them states its decoding:
//! [`Decoding::hash`] is part of the feature cache's key, a record's fingerprint and the header of packed files.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::task::{Container, DatasetLayout, Family, Resample, TargetKind, Task};

/// Version of the code that reads a family's files. Raise it with every change that reads other pixels or labels from the
/// same bytes: features, records and packed files of that family are then recomputed.
const fn reader_version(family: Family) -> u32 {
    match family {
        Family::Geobench | Family::Landslide4sense | Family::CopernicusBench | Family::Geobench2 => 1,
    }
}

/// Everything that decides how the stored bytes of a task become pixels and labels.
///
/// ```
/// use terrabench::data::decoding::Decoding;
/// # let home = terrabench::home::Home::find().unwrap();
/// let suite = terrabench::task::Suite::load(&home, "copernicus-bench").unwrap();
/// let mut task = suite.task("dfc2020-s1").unwrap().clone();
/// let before = Decoding::of(suite.family, &task);
/// task.ignore = None;
/// assert_ne!(Decoding::of(suite.family, &task).hash(), before.hash());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Decoding {
    /// [`reader_version`].
    reader: u32,
    family: Family,
    layout: Option<DatasetLayout>,
    label: TargetKind,
    classes: usize,
    /// Class names in the order of their indices, if the lists identify classes by name.
    class_names: Vec<String>,
    /// Full names of the stored bands: see [`crate::task::images::full_name`].
    stored_bands: Vec<String>,
    /// Labels of the dates, if the task has several images.
    dates: Option<Vec<String>>,
    scale: f64,
    clip: Option<[f64; 2]>,
    // Left out unless set, so that the decodings of tasks without them keep their hashes.
    #[serde(skip_serializing_if = "Option::is_none")]
    nan_pixels: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    band_scales: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resample: Option<Resample>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    resample_bands: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_value: Option<f64>,
    remap: Vec<(i32, i32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remap_others: Option<i32>,
    ignore: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container>,
}

/// The shortest decimal that rounds to `number`, as written in a suite's file: 0.15, not 0.15000000596.
fn as_written(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

impl Decoding {
    /// Describes how the reader of `family` decodes the files of `task`.
    pub fn of(family: Family, task: &Task) -> Self {
        let named = matches!(
            task.layout,
            Some(
                DatasetLayout::Eurosat
                    | DatasetLayout::EurosatSpatial
                    | DatasetLayout::BigearthnetS1
                    | DatasetLayout::BigearthnetS2
            )
        ) || task.container.as_ref().is_some_and(|container| container.label_column.is_some());
        let bands: Vec<Vec<String>> = task.sources().into_iter().map(|image| image.stored_bands).collect();
        let dates: Vec<String> = task.images.iter().filter_map(|image| image.date.clone()).collect();
        Decoding {
            reader: reader_version(family),
            family,
            layout: task.layout,
            label: task.target,
            classes: task.classes,
            class_names: if named { task.class_names.clone() } else { Vec::new() },
            stored_bands: task.full_names(&bands),
            dates: (!dates.is_empty()).then_some(dates),
            scale: as_written(task.scale),
            clip: task.clip.map(|ends| ends.map(as_written)),
            nan_pixels: task.nan_pixels.map(as_written),
            band_scales: task.band_scales.iter().copied().map(as_written).collect(),
            resample: task.resample,
            resample_bands: task.resample_bands,
            largest_value: task.largest_value.map(as_written),
            remap: task.remap.clone(),
            remap_others: task.remap_others,
            ignore: task.ignore,
            // Notes decide nothing.
            container: task.container.clone().map(|container| Container { quirks: Vec::new(), ..container }),
        }
    }

    /// Canonical JSON: keys sorted, no whitespace.
    pub fn json(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value.sort_all_objects();
        value.to_string()
    }

    /// The first 128 bits of the blake3 hash of [`Decoding::json`], as 32 hexadecimal digits.
    pub fn hash(&self) -> String {
        blake3::hash(self.json().as_bytes()).to_hex()[..32].to_owned()
    }

    /// Lists the differences from an earlier decoding, given as [`Decoding::json`], such as "`ignore` was 255, is null".
    pub fn changes_since(&self, earlier: &str) -> Vec<String> {
        let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
        let (was, is) = (object(earlier), object(&self.json()));
        let shown = |value: Option<&Value>| value.map_or("not there".to_owned(), Value::to_string);
        let mut keys: Vec<&String> = was.keys().chain(is.keys()).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter()
            .map(|key| (key, was.get(key), is.get(key)))
            .filter(|(_, was, is)| was != is)
            .map(|(key, was, is)| format!("`{key}` was {}, is {}", shown(was), shown(is)))
            .collect()
    }

    /// Whether packed files that do not record their decoding can only have this one: it contains nothing beyond what their
    /// header already states.
    pub(crate) fn is_implied_by_header(&self) -> bool {
        self.layout.is_none() && self.container.is_none() && self.reader == 1
    }
}
