//! Values below those of plain pixel statistics, which know no pattern and were trained on nothing.

use super::{Check, Finding};

/// A value that lies below the baseline's of the same task, partition and protocol, both in percent.
pub fn check(value: f64, baseline: f64) -> Option<Finding> {
    (value < baseline).then(|| {
        let found = format!("{value:.1} is below plain pixel statistics, which reach {baseline:.1}");
        let remedy = "check weights, bands and normalisation: whatever the model learnt does not help here";
        Finding::new(Check::BelowBaseline, found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lower_value_is_told() {
        assert_eq!(check(78.3, 78.3), None);
        assert_eq!(check(80.0, 78.3), None);
        assert_eq!(
            check(70.0, 78.3).unwrap().found,
            "70.0 is below plain pixel statistics, which reach 78.3"
        );
    }
}
