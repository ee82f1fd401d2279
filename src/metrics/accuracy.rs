//! Accuracy, top-1 and top-k.

use ndarray::ArrayView2;

use super::check_shapes;
use crate::{Error, Result};

/// Percentage of samples whose class is right.
///
/// # Errors
/// If there are no samples or the lengths differ.
pub fn accuracy(predictions: &[usize], truth: &[usize]) -> Result<f64> {
    check_shapes(&[predictions.len()], &[truth.len()])?;
    let right = predictions.iter().zip(truth).filter(|(prediction, truth)| prediction == truth).count();
    Ok(100.0 * right as f64 / truth.len() as f64)
}

/// Percentage of samples whose class is among the k highest scores. On ties the lower class ranks higher; with
/// at most k classes every sample is right.
///
/// `scores` are [n, classes].
///
/// # Errors
/// If there are no samples, the lengths differ, a score is NaN or a class is out of range.
pub fn top_k_accuracy(scores: ArrayView2<'_, f32>, truth: &[usize], k: usize) -> Result<f64> {
    check_shapes(&[scores.nrows()], &[truth.len()])?;
    let mut right = 0;
    for (sample, (scores, &class)) in scores.rows().into_iter().zip(truth).enumerate() {
        let Some(&own) = scores.get(class) else {
            return Err(Error::mismatch(format!(
                "sample {sample} has class {class}; expected a class below {}, the number of scores",
                scores.len()
            )));
        };
        if scores.iter().any(|score| score.is_nan()) {
            return Err(Error::mismatch(format!("sample {sample} has a NaN score")));
        }
        let better = |(other, &score): (usize, &f32)| score > own || (score == own && other < class);
        let rank = scores.iter().enumerate().filter(|other| better(*other)).count();
        right += usize::from(rank < k);
    }
    Ok(100.0 * right as f64 / truth.len() as f64)
}
