//! Ranks, improvability and performance ratios from the values of models on tasks.

use crate::metrics::{Better, Scale, Unit};

/// Returns the rank of each value, 1 for the best; equal values share the mean of their ranks.
pub fn ranks(values: &[f64], better: Better) -> Vec<f64> {
    let rank = |value: &f64| {
        let ahead = values.iter().filter(|other| better.is_better(**other, *value)).count();
        let equal = values.iter().filter(|other| *other == value).count();
        ahead as f64 + (equal as f64 + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// Returns the error of a value: what it lacks to the best possible value, as a share of 1 for percentages; for errors the value
/// itself. At least 0.
pub fn error(value: f64, scale: Scale) -> f64 {
    match scale.unit {
        Unit::Percent => ((100.0 - value) / 100.0).max(0.0),
        // Lower is better.
        Unit::OfTask => value.max(0.0),
        // At most 1, as R².
        Unit::None => (1.0 - value).max(0.0),
    }
}

/// Returns by which share of its error a model could improve by being as good as the best, (e - e_best) / e, from the errors of
/// all models on one task [Erickson et al. 2025, TabArena, arXiv 2506.16791]; 0 without error.
pub fn improvabilities(errors: &[f64]) -> Vec<f64> {
    let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
    errors.iter().map(|error| if *error > 0.0 { (error - best) / error } else { 0.0 }).collect()
}

/// Returns how many times the error of the best model each model makes on one task, at least 1 [Dolan and Moré 2002,
/// Benchmarking optimization software with performance profiles]; infinite if only the best makes none.
pub fn ratios(errors: &[f64]) -> Vec<f64> {
    let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
    errors.iter().map(|error| if *error == best { 1.0 } else { error / best }).collect()
}

/// Returns for each model, sorted from the best, the groups it belongs to. A group is a run of neighbours of which no two are
/// told apart; every model is in at least one.
pub fn groups(count: usize, apart: impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for first in 0..count {
        let joins = |last: &usize| (first..*last).all(|earlier| !apart(earlier, *last));
        let last = (first..count).take_while(joins).last().unwrap_or(first);
        // A run within the run before it says nothing new.
        if groups.last().is_none_or(|(_, end)| *end < last) {
            groups.push((first, last));
        }
    }
    let of = |model: usize| {
        let holding =
            groups.iter().enumerate().filter(|(_, (first, last))| (*first..=*last).contains(&model));
        holding.map(|(place, _)| place).collect()
    };
    (0..count).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metric;

    #[test]
    fn equal_values_share_the_mean_of_their_ranks_and_lower_errors_are_better() {
        assert_eq!(ranks(&[90.0, 95.0, 90.0, 80.0], Better::Higher), [2.5, 1.0, 2.5, 4.0]);
        assert_eq!(ranks(&[90.0, 95.0, 90.0, 80.0], Better::Lower), [2.5, 4.0, 2.5, 1.0]);
        assert_eq!(ranks(&[1.0; 3], Better::Lower), [2.0; 3]);
    }

    #[test]
    fn improvability_and_ratio_compare_errors_with_the_least() {
        let errors = [95.0, 90.0, 80.0].map(|value| error(value, Scale::PERCENT));
        let rounded =
            |values: Vec<f64>| values.into_iter().map(|v| (v * 1e6).round() / 1e6).collect::<Vec<_>>();
        assert_eq!(rounded(improvabilities(&errors)), [0.0, 0.5, 0.75]);
        assert_eq!(rounded(ratios(&errors)), [1.0, 2.0, 4.0]);
        // Without errors nothing is divided by 0.
        assert_eq!(improvabilities(&[0.0, 0.1]), [0.0, 1.0]);
        assert_eq!(ratios(&[0.0, 0.1, 0.0]), [1.0, f64::INFINITY, 1.0]);
        assert_eq!(error(1780.3, Metric::Rmse.about().scale), 1780.3);
        assert_eq!(error(0.25, Metric::R2.about().scale), 0.75);
    }

    #[test]
    fn models_share_a_group_unless_they_are_told_apart() {
        // 0 and 3 are told apart, and so are 1 and 3.
        let apart = |i: usize, j: usize| (i, j) == (0, 3) || (i, j) == (1, 3);
        assert_eq!(groups(4, apart), [vec![0], vec![0], vec![0, 1], vec![1]]);
        assert_eq!(groups(3, |_, _| true), [[0], [1], [2]]);
        assert_eq!(groups(3, |_, _| false), [[0], [0], [0]]);
        assert!(groups(0, |_, _| false).is_empty());
    }
}
