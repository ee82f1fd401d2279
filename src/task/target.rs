//! Targets of a task: whether target and metric fit together, and how numbers are standardised for training.

use serde::{Deserialize, Serialize};

use super::{Metric, Task};

/// Mean and standard deviation of a regression target, in the task's unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetStatistics {
    /// Mean.
    pub mean: f32,
    /// Standard deviation, above 0.
    pub std: f32,
}

impl TargetStatistics {
    /// Leaves numbers unchanged.
    pub const NONE: TargetStatistics = TargetStatistics { mean: 0.0, std: 1.0 };

    /// Converts from the task's unit to the training scale.
    pub fn normalize(self, value: f32) -> f32 {
        (value - self.mean) / self.std
    }

    /// Converts from the training scale to the task's unit.
    pub fn denormalize(self, value: f64) -> f64 {
        value * f64::from(self.std) + f64::from(self.mean)
    }
}

/// How a rotated value map is interpolated between measured pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetInterpolation {
    /// Bilinear; NaN if any of the four neighbours was not measured.
    #[default]
    Bilinear,
    /// Value of the nearest pixel.
    Nearest,
}

impl TargetInterpolation {
    pub(super) fn is_default(&self) -> bool {
        *self == TargetInterpolation::default()
    }
}

/// One size for all images of a task and their labels, made when a sample is read [OpenCV, `cv2.resize`]: images by bicubic
/// interpolation without antialiasing, masks and value maps as `values` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Resample {
    /// Height and width in pixels.
    pub side: usize,
    /// How value maps are resampled; masks always take the nearest pixel's class.
    #[serde(default)]
    pub values: ValueResampling,
}

/// How a value map is resampled on reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueResampling {
    /// The nearest pixel's number.
    #[default]
    Nearest,
    /// Bicubic. Files of integers stay integers: rounded half to even and limited to the range of the type.
    Cubic,
}

/// The rule by which a resized mask takes its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskResize {
    /// floor(index * old / new): kornia up to version 0.8.
    Floor,
    /// floor((index + 0.5) * old / new): kornia from version 0.9.
    Exact,
}

/// Describes an inconsistency between target, metric, classes and statistics, if there is one.
pub(super) fn problem(task: &Task) -> Option<String> {
    let Task { name, target, classes, metric, unit, target_statistics, .. } = task;
    let fits = |metric: &&Metric| metric.about().is_of_tasks && metric.about().fits.contains(target);
    if !fits(&metric) {
        let fitting: Vec<String> = Metric::ALL.iter().filter(fits).map(Metric::to_string).collect();
        return Some(format!(
            "task `{name}`: metric {metric} does not fit {}; expected {}",
            target,
            fitting.join(", ")
        ));
    }
    if target.is_numeric() {
        let is_usable = |s: &TargetStatistics| s.mean.is_finite() && s.std.is_finite() && s.std > 0.0;
        return if *classes != 1 {
            Some(format!("task `{name}` has {classes} classes; a regression task has 1, or omits `classes`"))
        } else if !target_statistics.iter().all(is_usable) {
            Some(format!("task `{name}`: `target-statistics` must be finite, with `std` above 0"))
        } else {
            None
        };
    }
    if unit.is_some() || target_statistics.is_some() {
        return Some(format!(
            "task `{name}`: `unit` and `target-statistics` need a numeric target, found {}",
            target
        ));
    }
    (*classes == 0).then(|| format!("task `{name}` has no `classes`"))
}
