//! Losses for dense prediction.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ndarray::ArrayView3;

use crate::{Error, Result};

/// The labels of a batch of images on a device, with weights that exclude ignored pixels.
#[derive(Debug, Clone)]
pub struct PixelLabels {
    /// [pixels, 1]; 0 for ignored pixels.
    classes: Tensor<2, Int>,
    /// [pixels, 1]: 1 / number of counted pixels, or 0 for ignored pixels.
    weights: Tensor<2>,
    size: [usize; 2],
    counting: usize,
}

impl PixelLabels {
    /// Creates labels from [n, h, w] values from 0 to `classes` - 1, or `ignore` for ignored pixels.
    ///
    /// # Errors
    /// If a label is neither.
    pub fn new(
        labels: ArrayView3<i32>,
        classes: usize,
        ignore: Option<i32>,
        device: &Device,
    ) -> Result<Self> {
        let (n, h, w) = labels.dim();
        let counts = |label: &i32| Some(*label) != ignore;
        let valid = |label: &&i32| counts(label) && usize::try_from(**label).is_ok_and(|c| c < classes);
        if let Some(label) = labels.iter().find(|label| counts(label) && !valid(label)) {
            let ignored = ignore.map(|ignore| format!(" or {ignore} (ignored)")).unwrap_or_default();
            return Err(Error::mismatch(format!(
                "mask: expected labels from 0 to {}{ignored}, found {label}",
                classes.saturating_sub(1)
            )));
        }
        // PyTorch's mean over no pixels is 0 / 0.
        let count = labels.iter().filter(|label| counts(label)).count();
        let weight = if count == 0 { f32::NAN } else { (count as f32).recip() };
        let ignored = if count == 0 { f32::NAN } else { 0.0 };
        let indices = labels.iter().map(|label| if counts(label) { *label } else { 0 }).collect();
        let weights = labels.iter().map(|label| if counts(label) { weight } else { ignored }).collect();
        Ok(PixelLabels {
            classes: Tensor::from_data(TensorData::new(indices, [n * h * w, 1]), device),
            weights: Tensor::from_data(TensorData::new(weights, [n * h * w, 1]), device),
            size: [h, w],
            counting: count,
        })
    }

    /// Returns the number of pixels that are not ignored.
    pub fn counting(&self) -> usize {
        self.counting
    }

    /// Returns height and width.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }
}

/// Returns the negative log-likelihood of the labels, averaged over pixels that are not ignored. Logits are [n, h, w,
/// classes] in the size of the labels. The result is NaN if all pixels are ignored, as in PyTorch: such a batch
/// ([`PixelLabels::counting`] is 0) must not reach an optimiser.
pub fn cross_entropy(logits: Tensor<4>, labels: &PixelLabels) -> Tensor<1> {
    let [n, h, w, classes] = logits.dims();
    let likelihoods = log_softmax(logits.reshape([n * h * w, classes]), 1);
    -(likelihoods.gather(1, labels.classes.clone()) * labels.weights.clone()).sum()
}
