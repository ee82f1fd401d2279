//! Losses for dense prediction.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, FloatDType, Int, Tensor, TensorData};
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

    /// Creates labels from masks [n, 1, h, w] on a device, in float32: classes, or a negative number for ignored pixels.
    /// `counting` of them, at least 1, are not ignored; nothing waits for the device.
    pub fn on_device(masks: Tensor<4>, counting: usize) -> Self {
        let [n, _, h, w] = masks.dims();
        let masks = masks.reshape([n * h * w, 1]);
        let counts = masks.clone().greater_equal_elem(0.0);
        let weights = Share::of(counts.clone(), &masks).0;
        PixelLabels {
            classes: masks.mask_fill(counts.bool_not(), 0.0).int(),
            weights,
            size: [h, w],
            counting,
        }
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

/// Weights [pixels, 1] of a mean over some pixels: one over their number, or 0 for the others.
struct Share(Tensor<2>);

impl Share {
    fn of(counts: Tensor<2, Bool>, like: &Tensor<2>) -> Self {
        let ones = like.zeros_like().mask_fill(counts, 1.0);
        let number = ones.clone().cast(FloatDType::F64).sum_dim(0);
        Share(ones * number.recip().cast(FloatDType::F32))
    }
}

/// The numbers of a batch of maps, on a device, with the pixels that are measured.
#[derive(Debug, Clone)]
pub struct PixelValues {
    /// [n, h, w, 1]; 0 where nothing is measured.
    values: Tensor<4>,
    /// [n, h, w, 1]: 1 / measured pixels, or 0 where nothing is measured.
    weights: Tensor<4>,
    size: [usize; 2],
    measured: usize,
}

impl PixelValues {
    /// [n, h, w] numbers, NaN where nothing is measured.
    pub fn new(values: ArrayView3<f32>, device: &Device) -> Self {
        let (n, h, w) = values.dim();
        let measured = values.iter().filter(|value| !value.is_nan()).count();
        // PyTorch's mean over no pixels is 0 / 0.
        let weight = if measured == 0 { f32::NAN } else { (measured as f32).recip() };
        let nothing = if measured == 0 { f32::NAN } else { 0.0 };
        let weights = values.iter().map(|value| if value.is_nan() { nothing } else { weight }).collect();
        let values = values.iter().map(|value| if value.is_nan() { 0.0 } else { *value }).collect();
        let tensor = |numbers: Vec<f32>| Tensor::from_data(TensorData::new(numbers, [n, h, w, 1]), device);
        PixelValues { values: tensor(values), weights: tensor(weights), size: [h, w], measured }
    }

    /// Creates the truth from maps [n, 1, h, w] on a device, NaN where nothing was measured. At least one of the numbers,
    /// `measured` in all, is there; nothing waits for the device.
    pub fn on_device(values: Tensor<4>, measured: usize) -> Self {
        let [n, _, h, w] = values.dims();
        let values = values.reshape([n * h * w, 1]);
        let is_missing = values.clone().is_nan();
        let weights = Share::of(is_missing.clone().bool_not(), &values).0.reshape([n, h, w, 1]);
        let values = values.mask_fill(is_missing, 0.0).reshape([n, h, w, 1]);
        PixelValues { values, weights, size: [h, w], measured }
    }

    /// How many pixels are measured.
    pub fn measured(&self) -> usize {
        self.measured
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }
}

/// Mean over the measured pixels of the error's size; predictions are [n, h, w, 1] in the maps' size. Its gradient is 0 where
/// nothing is measured and where there is no error [torch.nn.L1Loss]. NaN where no pixel is measured, as in PyTorch: such a batch
/// ([`PixelValues::measured`] is 0) must not reach an optimiser.
pub fn absolute_error(predictions: Tensor<4>, values: &PixelValues) -> Tensor<1> {
    ((predictions - values.values.clone()).abs() * values.weights.clone()).sum()
}

/// Returns the negative log-likelihood of the labels, averaged over pixels that are not ignored. Logits are [n, h, w,
/// classes] in the size of the labels. The result is NaN if all pixels are ignored, as in PyTorch: such a batch
/// ([`PixelLabels::counting`] is 0) must not reach an optimiser.
pub fn cross_entropy(logits: Tensor<4>, labels: &PixelLabels) -> Tensor<1> {
    let [n, h, w, classes] = logits.dims();
    let likelihoods = log_softmax(logits.reshape([n * h * w, classes]), 1);
    -(likelihoods.gather(1, labels.classes.clone()) * labels.weights.clone()).sum()
}
