//! Descriptions of the metrics: name, which of two values is better, unit, number format, kinds of target.
//!
//! Code that compares or prints scores uses these. A new metric is one row of [`Metric::about`].
//!
//! ```
//! use terrabench::metrics::{Better, Metric};
//!
//! let rmse = Metric::Rmse.about();
//! assert_eq!(rmse.scale.better, Better::Lower);
//! assert_eq!(rmse.scale.shown(1780.331), "1780.33");
//! assert!(rmse.scale.better.is_better(66.3, 74.1));
//! ```

use std::cmp::Ordering;

use super::{Metric, TargetKind};

/// Which of two values is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The higher one.
    Higher,
    /// The lower one.
    Lower,
}

impl Better {
    /// Whether `a` is better than `b`; false if either is NaN.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        match self {
            Better::Higher => a > b,
            Better::Lower => a < b,
        }
    }

    /// Converts a difference to a gain: positive if it is an improvement.
    pub fn gain(self, difference: f64) -> f64 {
        match self {
            Better::Higher => difference,
            Better::Lower => -difference,
        }
    }

    /// Converts "which is higher" to "which is better": `Greater` if the first one is.
    pub fn turned(self, higher: Ordering) -> Ordering {
        match self {
            Better::Higher => higher,
            Better::Lower => higher.reverse(),
        }
    }
}

/// The unit of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Percent, 0 to 100.
    Percent,
    /// The unit of the task's targets, at least 0.
    OfTask,
    /// Dimensionless, at most 1.
    None,
}

/// How the values of a score are compared and printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Which of two values is better.
    pub better: Better,
    /// Unit of the values.
    pub unit: Unit,
    /// Decimals in tables and pictures; comparisons of single records show one more.
    pub decimals: u8,
}

/// Rounding errors may put a value this far outside its range.
const SLACK: f64 = 1e-9;

impl Scale {
    /// Scores in percent, higher is better.
    pub const PERCENT: Scale = Scale { better: Better::Higher, unit: Unit::Percent, decimals: 1 };

    const OF_TASK: Scale = Scale { better: Better::Lower, unit: Unit::OfTask, decimals: 2 };

    /// Returns the scale of the score `name` in a record with this metric: `name` is a metric, its mean over batches
    /// (`reported_rmse`), a normalisation's score on validation (`valid/dataset`), or otherwise a percentage.
    pub fn of_score(name: &str, metric: Metric) -> Scale {
        match named(name) {
            Some(metric) => metric.about().scale,
            None if name.starts_with("valid/") => metric.about().scale,
            None => Scale::PERCENT,
        }
    }

    /// Returns the metric whose thresholds apply to the score `name`: the one it is named after, otherwise `metric`.
    pub fn metric_of(name: &str, metric: Metric) -> Metric {
        named(name).unwrap_or(metric)
    }

    /// Whether a value is in the scale's range; false for NaN.
    pub fn holds(self, value: f64) -> bool {
        match self.unit {
            Unit::Percent => (-SLACK..=100.0 + SLACK).contains(&value),
            Unit::OfTask => value.is_finite() && value >= -SLACK,
            Unit::None => value.is_finite() && value <= 1.0 + SLACK,
        }
    }

    /// Describes the range that [`Scale::holds`] checks.
    pub fn range(self) -> &'static str {
        match self.unit {
            Unit::Percent => "percentage from 0 to 100",
            Unit::OfTask => "number from 0 up",
            Unit::None => "number up to 1",
        }
    }

    /// Formats a value for tables.
    pub fn shown(self, value: f64) -> String {
        let decimals = usize::from(self.decimals);
        format!("{value:.decimals$}")
    }

    /// Formats a value with one more decimal, for comparing single records.
    pub fn fine(self, value: f64) -> String {
        let decimals = usize::from(self.decimals) + 1;
        format!("{value:.decimals$}")
    }

    /// Formats a difference with one more decimal and its sign.
    pub fn fine_difference(self, difference: f64) -> String {
        let decimals = usize::from(self.decimals) + 1;
        format!("{difference:+.decimals$}")
    }

    /// Returns how large a difference must be to count as a change: `threshold` points for percentages, `threshold` percent of
    /// the reference's value for scores in a task's unit, and `threshold` itself for dimensionless scores.
    pub fn tolerated(self, threshold: f64, reference: f64) -> f64 {
        match self.unit {
            Unit::Percent | Unit::None => threshold,
            Unit::OfTask => threshold / 100.0 * reference.abs(),
        }
    }
}

/// Returns the metric that a score is named after: `rmse`, `reported_rmse`.
fn named(score: &str) -> Option<Metric> {
    let plain = score.strip_prefix("reported_").unwrap_or(score);
    Metric::ALL.into_iter().find(|metric| metric.about().name == plain)
}

/// Everything about a metric except how to compute it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricInfo {
    /// Name in suites, records and published values: `micro_f1`.
    pub name: &'static str,
    /// Name in papers: `F1`.
    pub title: &'static str,
    /// How its values are compared and printed.
    pub scale: Scale,
    /// Kinds of target that it can score.
    pub fits: &'static [TargetKind],
    /// Whether a task may have it as its metric. Other metrics score what only one protocol gives, such as rankings or
    /// clusters, and are that protocol's for every task.
    pub is_of_tasks: bool,
}

impl MetricInfo {
    /// Title, followed by the unit unless that is percent: `RMSE in Mg/ha`.
    pub fn heading(&self, task_unit: Option<&str>) -> String {
        match (self.scale.unit, task_unit) {
            (Unit::OfTask, Some(unit)) => format!("{} in {unit}", self.title),
            _ => self.title.to_owned(),
        }
    }
}

impl Metric {
    /// All metrics.
    pub const ALL: [Metric; 9] = [
        Metric::Accuracy,
        Metric::MicroF1,
        Metric::Miou,
        Metric::MicroMap,
        Metric::Rmse,
        Metric::Mae,
        Metric::R2,
        Metric::RetrievalMap,
        Metric::AdjustedMutualInformation,
    ];

    /// Returns the description of this metric.
    pub fn about(self) -> &'static MetricInfo {
        use TargetKind::{Class, Labels, Mask, Value, ValueMap};
        const fn info(
            name: &'static str,
            title: &'static str,
            scale: Scale,
            fits: &'static [TargetKind],
        ) -> MetricInfo {
            MetricInfo { name, title, scale, fits, is_of_tasks: true }
        }
        const fn of_protocol(info: MetricInfo) -> MetricInfo {
            MetricInfo { is_of_tasks: false, ..info }
        }
        const PERCENT: Scale = Scale::PERCENT;
        const PURE: Scale = Scale { better: Better::Higher, unit: Unit::None, decimals: 3 };
        const NUMBERS: &[TargetKind] = &[Value, ValueMap];
        const ACCURACY: MetricInfo = info("accuracy", "top-1 accuracy", PERCENT, &[Class]);
        const MICRO_F1: MetricInfo = info("micro_f1", "F1", PERCENT, &[Labels]);
        const MIOU: MetricInfo = info("miou", "mIoU", PERCENT, &[Mask]);
        const MICRO_MAP: MetricInfo = info("micro_map", "mAP", PERCENT, &[Labels]);
        const RMSE: MetricInfo = info("rmse", "RMSE", Scale::OF_TASK, NUMBERS);
        const MAE: MetricInfo = info("mae", "MAE", Scale::OF_TASK, NUMBERS);
        const R2: MetricInfo = info("r2", "R²", PURE, NUMBERS);
        const RETRIEVAL_MAP: MetricInfo =
            of_protocol(info("retrieval_map", "retrieval mAP", PERCENT, &[Class, Labels]));
        const AMI: MetricInfo = of_protocol(info("adjusted_mutual_information", "AMI", PURE, &[Class]));
        match self {
            Metric::Accuracy => &ACCURACY,
            Metric::MicroF1 => &MICRO_F1,
            Metric::Miou => &MIOU,
            Metric::MicroMap => &MICRO_MAP,
            Metric::Rmse => &RMSE,
            Metric::Mae => &MAE,
            Metric::R2 => &R2,
            Metric::RetrievalMap => &RETRIEVAL_MAP,
            Metric::AdjustedMutualInformation => &AMI,
        }
    }

    /// Which of two values is better.
    pub fn better(self) -> Better {
        self.about().scale.better
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    #[test]
    fn each_metric_is_called_in_files_as_its_description_says() {
        for metric in Metric::ALL {
            let name: StrDeserializer<Error> = metric.about().name.into_deserializer();
            assert_eq!(Metric::deserialize(name).unwrap(), metric);
        }
    }

    #[test]
    fn a_score_has_the_scale_of_its_metric() {
        let of = |name: &str| Scale::of_score(name, Metric::Rmse);
        assert_eq!(of("reported_rmse"), Metric::Rmse.about().scale);
        assert_eq!(of("r2"), Metric::R2.about().scale);
        assert_eq!(of("valid/dataset"), Metric::Rmse.about().scale);
        assert_eq!(of("iou_water"), Scale::PERCENT);
    }

    #[test]
    fn a_range_holds_what_a_score_can_be() {
        let (percent, error, r2) = (Scale::PERCENT, Metric::Rmse.about().scale, Metric::R2.about().scale);
        assert!(error.holds(1780.33) && !percent.holds(1780.33));
        assert!(r2.holds(-3.0) && !r2.holds(1.1) && !error.holds(-3.0));
        assert!([percent, error, r2].iter().all(|scale| !scale.holds(f64::NAN)));
    }

    #[test]
    fn lower_is_better_turns_gains_and_sides_round() {
        assert!(Better::Lower.is_better(66.3, 74.1) && !Better::Higher.is_better(66.3, 74.1));
        assert!(!Better::Lower.is_better(f64::NAN, 1.0) && !Better::Higher.is_better(1.0, f64::NAN));
        assert_eq!(Better::Lower.gain(-2.0), 2.0);
        assert_eq!(Better::Lower.turned(Ordering::Less), Ordering::Greater);
    }
}
