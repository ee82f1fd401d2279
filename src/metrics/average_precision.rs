//! Average precision: the area under the precision-recall curve, as a sum of steps.

use ndarray::ArrayView2;

use super::check_shapes;
use crate::{Error, Result};

/// Average precision of one label (or of all decisions at once), in percent.
///
/// Samples are taken in descending order of score. Every distinct score is a threshold, so ties enter together, and
/// each gain in recall is weighted by the precision reached there [torchmetrics, scikit-learn]. Returns 0 if there
/// are no positives.
///
/// # Errors
/// If there are no samples, the lengths differ or a score is NaN.
pub fn average_precision(scores: &[f32], truth: &[bool]) -> Result<f64> {
    check_shapes(&[scores.len()], &[truth.len()])?;
    if let Some(sample) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::mismatch(format!("score {sample} is NaN")));
    }
    let mut ranked: Vec<(f32, bool)> = scores.iter().copied().zip(truth.iter().copied()).collect();
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let positives = truth.iter().filter(|truth| **truth).count();
    if positives == 0 {
        return Ok(0.0);
    }
    let (mut area, mut taken, mut found) = (0.0, 0, 0);
    for equal in ranked.chunk_by(|a, b| a.0 == b.0) {
        let gained = equal.iter().filter(|(_, truth)| *truth).count();
        taken += equal.len();
        found += gained;
        area += gained as f64 * found as f64 / taken as f64;
    }
    Ok(100.0 * area / positives as f64)
}

/// Average precision over all samples and labels at once, in percent. Scores and truth are [n, labels].
///
/// # Errors
/// Like [`average_precision`], or if the shapes differ.
pub fn micro_average_precision(scores: ArrayView2<'_, f32>, truth: ArrayView2<'_, bool>) -> Result<f64> {
    check_shapes(scores.shape(), truth.shape())?;
    let scores: Vec<f32> = scores.iter().copied().collect();
    let truth: Vec<bool> = truth.iter().copied().collect();
    average_precision(&scores, &truth)
}

/// Mean of the average precision per label, in percent; a label without positives counts as 0
/// [torchmetrics]. Scores and truth are [n, labels].
///
/// # Errors
/// Like [`micro_average_precision`].
pub fn macro_average_precision(scores: ArrayView2<'_, f32>, truth: ArrayView2<'_, bool>) -> Result<f64> {
    check_shapes(scores.shape(), truth.shape())?;
    let mut sum = 0.0;
    for (scores, truth) in scores.columns().into_iter().zip(truth.columns()) {
        sum += average_precision(&scores.to_vec(), &truth.to_vec())?;
    }
    Ok(sum / scores.ncols() as f64)
}
