//! Kendall's rank correlation [Kendall 1945, The treatment of ties in ranking problems].

/// Returns tau-b of two lists of equal length: pairs in the same order minus pairs in opposite orders, over the geometric mean
/// of the pairs that are not tied in each list; 1 for the same order, -1 for the opposite one. `None` if the lists differ in
/// length or all pairs of one list are tied.
///
/// ```
/// let tau = terrabench::metrics::kendall::tau_b(&[1.0, 2.0, 3.0], &[10.0, 30.0, 20.0]).unwrap();
/// assert!((tau - 1.0 / 3.0).abs() < 1e-12);
/// ```
pub fn tau_b(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let (mut score, mut of_a, mut of_b) = (0i64, 0i64, 0i64);
    for i in 0..a.len() {
        for j in 0..i {
            let (in_a, in_b) = (sign(a[i], a[j])?, sign(b[i], b[j])?);
            score += in_a * in_b;
            of_a += in_a.abs();
            of_b += in_b.abs();
        }
    }
    // Each root alone, so that their product cannot overflow.
    (of_a > 0 && of_b > 0).then(|| score as f64 / ((of_a as f64).sqrt() * (of_b as f64).sqrt()))
}

/// The order of two numbers; `None` if one is not a number.
fn sign(x: f64, y: f64) -> Option<i64> {
    x.partial_cmp(&y).map(|order| order as i64)
}

#[cfg(test)]
mod tests {
    use super::tau_b;

    #[test]
    fn tau_equals_scipys() {
        // scipy.stats.kendalltau(a, b).statistic of scipy 1.17.
        for (a, b, expected) in [
            (&[94.2, 88.1, 90.0, 76.3, 78.3][..], &[95.1, 93.8, 91.0, 91.0, 86.5][..], TIED),
            (&[1.0, 1.0, 2.0, 3.0, 3.0, 4.0], &[2.0, 1.0, 2.0, 2.0, 5.0, 4.0], BOTH),
            (&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0], -1.0),
        ] {
            let found = tau_b(a, b).unwrap();
            assert!((found - expected).abs() < 1e-12, "{a:?} {b:?}: {found}, scipy {expected}");
        }
    }

    #[test]
    fn there_is_none_of_ties_alone_or_of_different_lengths() {
        assert_eq!(tau_b(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(tau_b(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(tau_b(&[1.0, f64::NAN], &[1.0, 2.0]), None);
        assert_eq!(tau_b(&[], &[]), None);
    }

    const TIED: f64 = 0.5270462766947298;
    const BOTH: f64 = 0.6405126152203486;
}
