//! F1 from counts of right and wrong decisions: per class, per sample, or over all decisions.

use std::iter::Sum;
use std::ops::Add;

use ndarray::{ArrayView1, ArrayView2, Axis};

use super::check_shapes;
use crate::{Error, Result};

/// Counts of right and wrong decisions. Counts of parts add up to the counts of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Positive predictions that are right.
    pub true_positives: u64,
    /// Positive predictions that are wrong.
    pub false_positives: u64,
    /// Negative predictions that are wrong.
    pub false_negatives: u64,
}

impl Counts {
    /// 2 TP / (2 TP + FP + FN) in percent; 0 without any positives, predicted or true.
    pub fn f1(self) -> f64 {
        let twice = 2 * self.true_positives;
        match twice + self.false_positives + self.false_negatives {
            0 => 0.0,
            all => 100.0 * twice as f64 / all as f64,
        }
    }

    /// Adds one binary decision.
    fn count(&mut self, prediction: bool, truth: bool) {
        match (prediction, truth) {
            (true, true) => self.true_positives += 1,
            (true, false) => self.false_positives += 1,
            (false, true) => self.false_negatives += 1,
            (false, false) => {}
        }
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Counts {
            true_positives: self.true_positives + other.true_positives,
            false_positives: self.false_positives + other.false_positives,
            false_negatives: self.false_negatives + other.false_negatives,
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Counts::default(), Add::add)
    }
}

/// Counts decisions per class if every sample has one class.
///
/// # Errors
/// If there are no samples, the lengths differ or a class is not below `classes`.
pub fn count_classes(predictions: &[usize], truth: &[usize], classes: usize) -> Result<Vec<Counts>> {
    check_shapes(&[predictions.len()], &[truth.len()])?;
    let mut counts = vec![Counts::default(); classes];
    for (sample, (&prediction, &truth)) in predictions.iter().zip(truth).enumerate() {
        if let Some(class) = [prediction, truth].into_iter().find(|class| *class >= classes) {
            return Err(Error::mismatch(format!(
                "sample {sample} has class {class}; expected a class below {classes}"
            )));
        }
        counts[prediction].count(true, prediction == truth);
        if prediction != truth {
            counts[truth].count(false, true);
        }
    }
    Ok(counts)
}

/// Counts decisions per label. Predictions and truth are [n, labels].
///
/// # Errors
/// If there are no samples or no labels, or the shapes differ.
pub fn count_labels(predictions: ArrayView2<'_, bool>, truth: ArrayView2<'_, bool>) -> Result<Vec<Counts>> {
    count_along(Axis(1), predictions, truth)
}

/// Counts decisions per sample. Predictions and truth are [n, labels].
///
/// # Errors
/// Like [`count_labels`].
pub fn count_samples(predictions: ArrayView2<'_, bool>, truth: ArrayView2<'_, bool>) -> Result<Vec<Counts>> {
    count_along(Axis(0), predictions, truth)
}

fn count_along(
    axis: Axis,
    predictions: ArrayView2<'_, bool>,
    truth: ArrayView2<'_, bool>,
) -> Result<Vec<Counts>> {
    check_shapes(predictions.shape(), truth.shape())?;
    let count = |(predictions, truth): (ArrayView1<'_, bool>, ArrayView1<'_, bool>)| {
        let mut counts = Counts::default();
        for (&prediction, &truth) in predictions.iter().zip(truth) {
            counts.count(prediction, truth);
        }
        counts
    };
    Ok(predictions.axis_iter(axis).zip(truth.axis_iter(axis)).map(count).collect())
}

/// F1 over all decisions, in percent, from the counts of any partition of them.
pub fn micro_f1(counts: &[Counts]) -> f64 {
    counts.iter().copied().sum::<Counts>().f1()
}

/// Mean F1 over classes, for one class per sample, in percent. Skips classes that occur neither in the predictions nor
/// in the truth, like scikit-learn and torchmetrics.
///
/// # Errors
/// If no class occurs.
pub fn macro_f1_of_classes(counts: &[Counts]) -> Result<f64> {
    let occurring = counts.iter().filter(|counts| **counts != Counts::default());
    let scores: Vec<f64> = occurring.map(|counts| counts.f1()).collect();
    if scores.is_empty() {
        return Err(Error::mismatch("no mean F1: no class occurs"));
    }
    Ok(scores.iter().sum::<f64>() / scores.len() as f64)
}

/// Mean F1 over labels, for multi-label samples, in percent. A label that occurs neither in the predictions nor in the
/// truth counts as 0: scikit-learn and torchmetrics skip absent classes, but not absent labels.
///
/// # Errors
/// If there are no labels.
pub fn macro_f1_of_labels(counts: &[Counts]) -> Result<f64> {
    match counts.len() {
        0 => Err(Error::mismatch("no mean F1: there are no labels")),
        labels => Ok(counts.iter().map(|counts| counts.f1()).sum::<f64>() / labels as f64),
    }
}
