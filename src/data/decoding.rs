//! How the stored bytes of a data set become arrays: all that decides it, as one value.
//!
//! Features, records and packed files are made of decoded samples, so that each names the decoding it is of: by
//! [`Decoding::hash`] in the feature cache's key, in a record's fingerprint and in the header of packed files.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::task::{DatasetLayout, Family, TargetKind, Task};

/// Version of the code that reads a family's files. Raise it with every change that gives other pixels or labels for the
/// same bytes: features, records and packed files of that family are then made anew.
const fn reader_version(family: Family) -> u32 {
    match family {
        Family::Geobench | Family::Landslide4sense | Family::CopernicusBench => 1,
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
    /// Where lists name a sample's classes: the names in the order of their indices.
    class_names: Vec<String>,
    /// By their full names: see [`crate::task::images::full_name`].
    stored_bands: Vec<String>,
    /// What the dates of several images are called.
    dates: Option<Vec<String>>,
    scale: f64,
    clip: Option<[f64; 2]>,
    remap: Vec<(i32, i32)>,
    ignore: Option<i32>,
}

/// The shortest decimal number that rounds to `number`, as suites' files have it: 0.15, not 0.15000000596.
fn as_written(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

impl Decoding {
    /// How the reader of `family` decodes the files of `task`.
    pub fn of(family: Family, task: &Task) -> Self {
        let named = matches!(
            task.layout,
            Some(DatasetLayout::Eurosat | DatasetLayout::BigearthnetS1 | DatasetLayout::BigearthnetS2)
        );
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
            remap: task.remap.clone(),
            ignore: task.ignore,
        }
    }

    /// Canonical JSON: keys sorted, no white space.
    pub fn json(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value.sort_all_objects();
        value.to_string()
    }

    /// The first 128 bits of the blake3 hash of [`Decoding::json`], as 32 hexadecimal digits.
    pub fn hash(&self) -> String {
        blake3::hash(self.json().as_bytes()).to_hex()[..32].to_owned()
    }

    /// Names what differs from an earlier decoding, given as its [`Decoding::json`]: "`ignore` was 255, is null".
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

    /// Whether packed files from before decodings were recorded can only be of this one: nothing in the suite's file
    /// has a say in it but what their own header tells.
    pub(crate) fn is_implied_by_header(&self) -> bool {
        self.layout.is_none() && self.reader == 1
    }
}
