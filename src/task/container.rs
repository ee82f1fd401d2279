//! Where a sample's images and label lie in the containers of GEO-Bench-2, and what is known to be wrong with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::target::TargetStatistics;
use super::{Family, TargetKind, Task};

/// The container of a task's samples. Each sample is a container of its own, with a file per sensor, date or label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Container {
    /// Name of the file, or of its parts, without `.tortilla` or `.0000.part.tortilla`.
    pub name: String,
    /// The file of each of the task's images, in their order.
    pub images: Vec<ContainerFile>,
    /// The file of the mask or value map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<ContainerFile>,
    /// The column of the index with the classes, if there is no such file: names or an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// Pixels that the benchmark's code sets to 0 after normalisation. They are read as the mean of their band.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blank: Option<BlankPixels>,
    /// The constants in the benchmark's code, in stored units, by stored band.
    pub statistics: BTreeMap<String, TargetStatistics>,
    /// Whether the constants belong to the bands so called, not to the stored bands: with `--bands by-content` they then
    /// follow the name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub statistics_by_name: bool,
    /// Defects of the files or of the benchmark's code, named in records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quirks: Vec<Quirk>,
}

/// A file among those of a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ContainerFile {
    /// Its index; negative from the end. With `modality` among the files of that modality only.
    #[serde(default)]
    pub row: i64,
    /// The value of the index's column `modality`, where a sample has several files of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modality: Option<String>,
    /// Which step of how many of a time series. Of a `modality`, the first files are taken; of a file with all steps,
    /// evenly spaced ones. If the series is shorter, zeros stand in front of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<[usize; 2]>,
    /// Index of the first band in the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_band: usize,
    /// The value of the column `tortilla:id` that a sample without this file lacks; zeros stand for it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_there: Option<String>,
    /// Whether rows and columns are swapped on reading.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transposed: bool,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// How blank pixels are recognised. A pixel that is NaN is blank in its own image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BlankPixels {
    /// Any band of the file of this modality and of the image's step that holds this number makes the pixel blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f32>,
    /// See `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modality: Option<String>,
    /// The index of a file whose zeros are blank pixels of all images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zeros_of: Option<i64>,
}

/// A known defect. It is reported if the pixels show it, or always if no sign is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Quirk {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// Sign: the first stored band is darker than the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub darker: Option<[String; 2]>,
    /// Sign: the first stored band varies less than the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrower: Option<[String; 2]>,
    /// Sign: a stored band exceeds a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<(String, f64)>,
    /// Sign: samples whose pixels are all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blank: bool,
    /// Sign: pixels that no normalisation changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_normalized: bool,
}

impl Task {
    /// Describes an inconsistency between a task and its container.
    pub(super) fn container_problem(&self, family: Family) -> Option<String> {
        if family != Family::Geobench2 {
            return self
                .container
                .is_some()
                .then(|| "has a `container`, which this family does not".to_owned());
        }
        let Some(container) = &self.container else { return Some("needs a `container`".to_owned()) };
        let sources = self.sources();
        if sources.iter().any(|source| source.stored_bands.is_empty()) {
            return Some("needs `stored-bands`".to_owned());
        }
        if container.images.len() != sources.len() {
            let (found, expected) = (container.images.len(), sources.len());
            return Some(format!("expected {expected} files in `container.images`, found {found}"));
        }
        if container.label.is_some() == container.label_column.is_some() {
            return Some("`container` needs either `label` or `label-column`".to_owned());
        }
        if container.label.is_some() != matches!(self.target, TargetKind::Mask | TargetKind::ValueMap) {
            return Some(format!("`container`: `label` does not fit the target {}", self.target));
        }
        if let Some([step, steps]) =
            container.images.iter().filter_map(|file| file.step).find(|[a, b]| a >= b)
        {
            return Some(format!("`container.images`: no step {step} of {steps}"));
        }
        let usable = |of: &TargetStatistics| of.mean.is_finite() && of.std.is_finite() && of.std > 0.0;
        if !container.statistics.values().all(usable) {
            return Some("`container.statistics` must be finite, with `std` above 0".to_owned());
        }
        let labels = self.image_labels();
        let missing = sources.iter().zip(&labels).find_map(|(source, label)| {
            let lacks = |band: &&String| container.statistics_of(band, label.as_deref()).is_none();
            source.stored_bands.iter().find(lacks)
        });
        missing.map(|band| format!("`container.statistics` lacks `{band}`"))
    }
}

impl Container {
    /// Returns the constants of a stored band: its own in the image with this label, else those of any image.
    pub fn statistics_of(&self, band: &str, label: Option<&str>) -> Option<TargetStatistics> {
        let own = self.statistics.get(&super::images::full_name(band, label));
        own.or_else(|| self.statistics.get(band)).copied()
    }
}
