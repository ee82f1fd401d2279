//! Losses of dense predictions.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ndarray::ArrayView3;

use crate::{Error, Result};

/// The labels of a batch of images, on a device, with the pixels that count.
#[derive(Debug, Clone)]
pub struct PixelLabels {
    /// [pixels, 1]; 0 where a pixel does not count.
    classes: Tensor<2, Int>,
    /// [pixels, 1]: 1 / counting pixels, or 0 where a pixel does not count.
    weights: Tensor<2>,
    size: [usize; 2],
    counting: usize,
}

impl PixelLabels {
    /// [n, h, w] labels from 0 to `classes` - 1, or `ignore` where a pixel does not count.
    ///
    /// # Errors
    /// Where a label is none of these.
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
                "a mask holds the label {label}; labels are 0 to {}{ignored}",
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

    /// How many pixels count.
    pub fn counting(&self) -> usize {
        self.counting
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }
}

/// Mean over the counting pixels of the negative log-likelihood of their class. Logits are [n, h, w, classes] in
/// the labels' size. NaN where no pixel counts, as in PyTorch: such a batch ([`PixelLabels::counting`] is 0) must not
/// reach an optimiser.
pub fn cross_entropy(logits: Tensor<4>, labels: &PixelLabels) -> Tensor<1> {
    let [n, h, w, classes] = logits.dims();
    let likelihoods = log_softmax(logits.reshape([n * h * w, classes]), 1);
    -(likelihoods.gather(1, labels.classes.clone()) * labels.weights.clone()).sum()
}
