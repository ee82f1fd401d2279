//! Calibration: how far stated probabilities are from what happened.

/// Predictions of similar confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationBin {
    /// Confidences above this one, 0 to 1; the first bin includes 0.
    pub above: f64,
    /// Confidences up to this one, 0 to 1.
    pub up_to: f64,
    /// Number of predictions.
    pub count: usize,
    /// Mean confidence, 0 to 1; NaN without predictions.
    pub confidence: f64,
    /// Share of predictions that are right, 0 to 1; NaN without predictions.
    pub accuracy: f64,
}

/// Sorts predictions into `bins` bins of equal width by their confidence, 0 to 1, as in scikit-learn's `calibration_curve`.
/// A confidence on an edge belongs to the lower bin. Values outside 0 to 1 go to the nearest bin.
///
/// # Panics
/// If `bins` is 0 or the lengths differ.
pub fn calibration_bins(confidences: &[f32], right: &[bool], bins: usize) -> Vec<CalibrationBin> {
    assert!(bins > 0 && confidences.len() == right.len(), "bins and predictions must fit");
    let edge = |bin: usize| bin as f64 / bins as f64;
    let mut sums = vec![(0_usize, 0.0, 0_usize); bins];
    for (&confidence, &right) in confidences.iter().zip(right) {
        let confidence = f64::from(confidence);
        let bin = (1..bins).take_while(|bin| edge(*bin) < confidence).count();
        let (count, sum, hits) = &mut sums[bin];
        *count += 1;
        *sum += confidence;
        *hits += usize::from(right);
    }
    let bin = |(bin, (count, sum, hits)): (usize, (usize, f64, usize))| CalibrationBin {
        above: edge(bin),
        up_to: edge(bin + 1),
        count,
        confidence: sum / count as f64,
        accuracy: hits as f64 / count as f64,
    };
    sums.into_iter().enumerate().map(bin).collect()
}

/// Expected calibration error: the mean over predictions of the distance between the accuracy and the mean confidence of their
/// bin, in percentage points [Guo et al. 2017, On calibration of modern neural networks]; NaN without predictions.
///
/// ```
/// use terrabench::metrics::calibration::{calibration_bins, expected_calibration_error};
///
/// // 0.9 sure, and right half of the time.
/// let bins = calibration_bins(&[0.9, 0.9], &[true, false], 10);
/// assert!((expected_calibration_error(&bins) - 40.0).abs() < 1e-5);
/// ```
pub fn expected_calibration_error(bins: &[CalibrationBin]) -> f64 {
    let all: usize = bins.iter().map(|bin| bin.count).sum();
    let filled = bins.iter().filter(|bin| bin.count > 0);
    let gaps: f64 = filled.map(|bin| bin.count as f64 * (bin.accuracy - bin.confidence).abs()).sum();
    100.0 * gaps / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_the_lower_bin() {
        let bins = calibration_bins(&[0.0, 0.25, 0.2500001, 0.5, 1.0], &[true; 5], 4);
        assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [2, 2, 0, 1]);
        assert!(bins[2].accuracy.is_nan() && expected_calibration_error(&bins).is_finite());
    }
}
