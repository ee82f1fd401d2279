//! Values worse than those of plain pixel statistics, which know no pattern and were trained on nothing.

use super::{Check, Finding};
use crate::metrics::{Better, Scale};

/// A value that is worse than the baseline's of the same task, partition and protocol, both on the metric's scale.
pub fn check(value: f64, baseline: f64, scale: Scale) -> Option<Finding> {
    scale.better.is_better(baseline, value).then(|| {
        let (value, reached) = (scale.shown(value), scale.shown(baseline));
        let side = if scale.better == Better::Lower { "above" } else { "below" };
        let found = format!("{value} is {side} plain pixel statistics, which reach {reached}");
        let remedy = "check weights, bands and normalisation: whatever the model learnt does not help here";
        Finding::new(Check::BelowBaseline, found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metric;

    #[test]
    fn only_a_lower_value_is_told() {
        let check = |value, baseline| check(value, baseline, Scale::PERCENT);
        assert_eq!(check(78.3, 78.3), None);
        assert_eq!(check(80.0, 78.3), None);
        assert_eq!(
            check(70.0, 78.3).unwrap().found,
            "70.0 is below plain pixel statistics, which reach 78.3"
        );
    }

    #[test]
    fn of_an_error_only_a_higher_value_is_told() {
        let check = |value, baseline| check(value, baseline, Metric::Rmse.about().scale);
        assert_eq!(check(66.3, 68.1), None);
        assert_eq!(
            check(74.1, 68.1).unwrap().found,
            "74.10 is above plain pixel statistics, which reach 68.10"
        );
    }
}
