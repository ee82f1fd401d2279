//! What a task asks for: whether target and metric go together, and how numbers are trained.

use serde::{Deserialize, Serialize};

use super::{Metric, Task};

/// Mean and standard deviation of a task's numbers, in their unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetStatistics {
    pub mean: f32,
    /// Above 0.
    pub std: f32,
}

impl TargetStatistics {
    /// Numbers stay as they are.
    pub const NONE: TargetStatistics = TargetStatistics { mean: 0.0, std: 1.0 };

    /// From the unit to what is trained.
    pub fn normalize(self, value: f32) -> f32 {
        (value - self.mean) / self.std
    }

    /// From what is trained to the unit.
    pub fn denormalize(self, value: f64) -> f64 {
        value * f64::from(self.std) + f64::from(self.mean)
    }
}

/// What a rotated map of numbers holds between the pixels that were measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetInterpolation {
    /// The mean of the four nearest, weighted by how near they are; nothing where one of them is not measured.
    #[default]
    Bilinear,
    /// The nearest one.
    Nearest,
}

impl TargetInterpolation {
    pub(super) fn is_default(&self) -> bool {
        *self == TargetInterpolation::default()
    }
}

/// What of target, metric, classes and statistics does not go together.
pub(super) fn problem(task: &Task) -> Option<String> {
    let Task { name, target, classes, metric, unit, target_statistics, .. } = task;
    let fits = |metric: &&Metric| metric.about().fits.contains(target);
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
            Some(format!("task `{name}` has {classes} classes; a task of numbers has 1, or leaves it out"))
        } else if !target_statistics.iter().all(is_usable) {
            Some(format!("task `{name}`: `target-statistics` must be numbers, and `std` above 0"))
        } else {
            None
        };
    }
    if unit.is_some() || target_statistics.is_some() {
        return Some(format!(
            "task `{name}`: `unit` and `target-statistics` are for numbers, and it has {}",
            target
        ));
    }
    (*classes == 0).then(|| format!("task `{name}` lacks `classes`"))
}
