//! What a protocol knows beside its predictions, for the pictures of a report: no score depends on it.

use ndarray::{Array2, ArrayView2, Axis};

use super::Targets;

/// What a protocol knows beside its predictions. Kept in the file of the predictions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Supplement {
    /// Probability of each class (rows sum to 1) or label, 0 to 1: [n, outputs].
    pub probabilities: Option<Array2<f32>>,
    /// Features from which a map of the test split is drawn.
    pub map: Option<MapFeatures>,
}

impl Supplement {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Supplement::default()
    }
}

/// Features of some samples of the test split, reduced to few numbers each.
#[derive(Debug, Clone, PartialEq)]
pub struct MapFeatures {
    /// Indices of the samples in the test split, ascending.
    pub samples: Vec<usize>,
    /// One row per sample: [samples, components].
    pub features: Array2<f32>,
}

/// Probabilities that the logits [n, outputs] of a head stand for: softmax for one class per sample, the sigmoid of each logit for
/// several labels; `None` for numbers.
pub fn probabilities(logits: ArrayView2<f32>, truth: &Targets) -> Option<Array2<f32>> {
    match truth {
        Targets::Classes { .. } => Some(softmax(logits)),
        Targets::Labels(_) => Some(logits.mapv(|logit| (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32)),
        Targets::Values(_) => None,
    }
}

/// A logit of negative infinity stands for a class without training samples.
fn softmax(logits: ArrayView2<f32>) -> Array2<f32> {
    let mut probabilities = logits.mapv(f64::from);
    for mut row in probabilities.axis_iter_mut(Axis(0)) {
        let largest = row.fold(f64::NEG_INFINITY, |largest, logit| largest.max(*logit));
        row.mapv_inplace(|logit| (logit - largest).exp());
        let sum = row.sum();
        row.mapv_inplace(|part| part / sum);
    }
    probabilities.mapv(|probability| probability as f32)
}

/// The decisions behind a reliability diagram: how sure a model is, and whether it is right. For one class per sample, the
/// probability of the predicted class and whether that is the true one; for several labels, the probability of each label and
/// whether it applies. `None` if the shapes do not fit or there is nothing.
pub fn confidences(
    probabilities: ArrayView2<f32>,
    predicted: Option<&Targets>,
    truth: &Targets,
) -> Option<(Vec<f32>, Vec<bool>)> {
    match (predicted, truth) {
        (Some(Targets::Classes { classes: predicted, .. }), Targets::Classes { classes: truth, count }) => {
            let fits = probabilities.dim() == (truth.len(), *count) && predicted.len() == truth.len();
            if !fits || predicted.iter().any(|class| class >= count) {
                return None;
            }
            let sure = predicted.iter().enumerate().map(|(sample, class)| probabilities[(sample, *class)]);
            Some((
                sure.collect::<Vec<f32>>(),
                predicted.iter().zip(truth).map(|(a, b)| a == b).collect::<Vec<bool>>(),
            ))
        }
        (_, Targets::Labels(truth)) if probabilities.dim() == truth.dim() => {
            Some((probabilities.iter().copied().collect(), truth.iter().copied().collect()))
        }
        _ => None,
    }
    .filter(|(sure, _)| !sure.is_empty())
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn logits_become_probabilities_as_their_head_is_trained() {
        let classes = Targets::Classes { classes: vec![0], count: 3 };
        let softmax = probabilities(array![[0.0, 2f32.ln(), f32::NEG_INFINITY]].view(), &classes).unwrap();
        assert_eq!(softmax, array![[1.0 / 3.0, 2.0 / 3.0, 0.0]]);
        let labels = Targets::Labels(array![[true, false]]);
        assert_eq!(probabilities(array![[0.0, -200.0]].view(), &labels).unwrap(), array![[0.5, 0.0]]);
        assert_eq!(probabilities(array![[1.0]].view(), &Targets::Values(vec![1.0])), None);
    }
}
