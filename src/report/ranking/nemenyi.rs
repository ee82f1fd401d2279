//! The Nemenyi test: by how much the average ranks of two models must differ to tell them apart
//! [Demšar 2006, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, section 3.2.2].

/// The significance level of the test.
pub const ALPHA: f64 = 0.05;

/// Returns the critical difference of average ranks for so many models on so many tasks, at the level [`ALPHA`]:
/// q sqrt(k (k + 1) / (6 N)).
///
/// ```
/// use terrabench::report::ranking::nemenyi::critical_difference;
///
/// assert_eq!((critical_difference(13, 6) * 10.0).round() / 10.0, 7.4);
/// ```
pub fn critical_difference(models: usize, tasks: usize) -> f64 {
    let k = models as f64;
    critical_value(models) * (k * (k + 1.0) / (6.0 * tasks as f64)).sqrt()
}

/// Returns how many tasks it takes until models that are `ranks` apart on average can be told apart.
pub fn tasks_needed(models: usize, ranks: f64) -> usize {
    let k = models as f64;
    (critical_value(models).powi(2) * k * (k + 1.0) / (6.0 * ranks * ranks)).ceil() as usize
}

/// Returns the critical value q of the test: the upper 5 % point of the range of `models` standard normal variables, over
/// sqrt(2). Equals table 5 (a) of Demšar's paper, which ends at ten models.
pub fn critical_value(models: usize) -> f64 {
    let (mut low, mut high) = (0.0, 20.0);
    // Each step halves the bracket: to less than a millionth.
    for _ in 0..25 {
        let middle = (low + high) / 2.0;
        if range_below(middle, models) < 1.0 - ALPHA { low = middle } else { high = middle }
    }
    low / std::f64::consts::SQRT_2
}

/// Probability that the range of `count` standard normal variables is below `range`: the integral of
/// k f(z) (F(z) - F(z - range))^(k - 1) over z, by Simpson's rule; 0 for fewer than two.
fn range_below(range: f64, count: usize) -> f64 {
    const STEPS: usize = 400;
    const END: f64 = 8.0; // Beyond it the density is below 1e-14.
    let Some(others) = count.checked_sub(1).filter(|others| *others > 0) else { return 0.0 };
    let width = 2.0 * END / STEPS as f64;
    let term = |i: usize| {
        let z = -END + i as f64 * width;
        let weight = if i == 0 || i == STEPS {
            1.0
        } else if i % 2 == 1 {
            4.0
        } else {
            2.0
        };
        weight * density(z) * (normal(z) - normal(z - range)).powi(i32::try_from(others).unwrap_or(i32::MAX))
    };
    count as f64 * (0..=STEPS).map(term).sum::<f64>() * width / 3.0
}

fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// The normal distribution, by its series [Marsaglia 2004, Evaluating the Normal Distribution, JSS 11 (4)]; 0 and 1 beyond
/// eight standard deviations.
fn normal(z: f64) -> f64 {
    if z.abs() > 8.0 {
        return if z > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut term, mut last, mut i) = (z, z, f64::NAN, 1.0);
    while sum != last {
        last = sum;
        i += 2.0;
        term *= z * z / i;
        sum += term;
    }
    0.5 + sum * density(z)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_values_equal_the_printed_table() {
        // Demšar 2006, table 5 (a), alpha = 0.05, two to ten models.
        let printed = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164];
        for (models, expected) in (2..).zip(printed) {
            let found = critical_value(models);
            assert!((found - expected).abs() < 1.01e-3, "{models} models: {found}, printed {expected}");
        }
    }

    #[test]
    fn thirteen_models_on_six_tasks_must_be_seven_ranks_apart() {
        let found = critical_difference(13, 6);
        assert!((found - 7.449).abs() < 1e-3, "{found}");
        // One rank apart takes hundreds of tasks; a wider gap fewer.
        assert_eq!(tasks_needed(13, 1.0), 333);
        assert!(critical_difference(13, 333) <= 1.0 && critical_difference(13, 332) > 1.0);
    }
}
