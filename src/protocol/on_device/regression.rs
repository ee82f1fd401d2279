//! The loss of a logistic regression and its gradient for many samples on a device. The solver's vectors, which are as long as the
//! coefficients, stay in the program's memory.

use burn::tensor::{DType, FloatDType, Int, Tensor, TensorData};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

use super::{Accelerator, download};
use crate::{Error, Result, device};

/// Training features on a device, in blocks of rows.
#[derive(Debug, Clone)]
pub(crate) struct DeviceFeatures {
    accelerator: Accelerator,
    /// [m, d] each, in float32 as the encoder gave them.
    blocks: Vec<Tensor<2>>,
    /// Mean and deviation, [1, d] in float64, if features are standardised.
    standardizer: Option<[Tensor<2>; 2]>,
    n: usize,
    d: usize,
}

/// What each sample's loss needs, block by block.
pub(crate) enum DeviceLabels {
    /// [m, 1]: the row of its class.
    Softmax(Vec<Tensor<2, Int>>),
    /// [m, rows] in float32: 1 where the row's label applies.
    Logistic(Vec<Tensor<2>>),
}

/// A loss summed over all samples, and its gradients.
pub(crate) struct Sums {
    pub(crate) loss: f64,
    /// [rows, d].
    pub(crate) weights: Array2<f64>,
    /// [rows].
    pub(crate) intercepts: Array1<f64>,
}

impl DeviceFeatures {
    /// Uploads features [n, d], to be standardised by this mean and deviation.
    ///
    /// # Errors
    /// If the device fails, such as for lack of memory.
    pub(crate) fn upload(
        accelerator: &Accelerator,
        features: ArrayView2<f32>,
        standardizer: Option<(&Array1<f64>, &Array1<f64>)>,
    ) -> Result<Self> {
        let (n, d) = features.dim();
        let uploaded = device::quietly(|| {
            let constant = |values: &Array1<f64>| accelerator.upload_doubles(values.to_vec(), [1, d]);
            DeviceFeatures {
                accelerator: accelerator.clone(),
                blocks: features
                    .axis_chunks_iter(Axis(0), accelerator.block)
                    .map(|block| accelerator.upload(block))
                    .collect(),
                standardizer: standardizer.map(|(mean, deviation)| [constant(mean), constant(deviation)]),
                n,
                d,
            }
        });
        uploaded.map_err(|problem| {
            Error::device(format!("uploading features of {n} samples to {}: {problem}", accelerator.kind()))
        })
    }

    /// Samples and width.
    pub(crate) fn dim(&self) -> (usize, usize) {
        (self.n, self.d)
    }

    /// Whether all features are finite.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn is_finite(&self) -> Result<bool> {
        // What is not finite stays so, times 0, in a sum.
        let sum = |block: &Tensor<2>| download((block.clone() * 0.0).sum());
        for block in &self.blocks {
            if sum(block)?.iter().any(|sum| *sum != 0.0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Uploads the row of each sample's class.
    pub(crate) fn classes(&self, rows: &[usize]) -> DeviceLabels {
        let block = |rows: &[usize]| {
            let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
            let shape = [rows.len(), 1];
            Tensor::from_data(TensorData::new(rows, shape), &self.accelerator.device)
        };
        DeviceLabels::Softmax(rows.chunks(self.accelerator.block).map(block).collect())
    }

    /// Uploads which labels apply: [n, rows].
    pub(crate) fn labels(&self, labels: ArrayView2<bool>) -> DeviceLabels {
        let block = |labels: ArrayView2<bool>| {
            let applies: Vec<f32> = labels.iter().map(|label| f32::from(*label)).collect();
            let data = TensorData::new(applies, [labels.nrows(), labels.ncols()]);
            Tensor::from_data(data, (&self.accelerator.device, DType::F32))
        };
        DeviceLabels::Logistic(labels.axis_chunks_iter(Axis(0), self.accelerator.block).map(block).collect())
    }

    /// The features of a block as the regression sees them.
    fn block(&self, block: &Tensor<2>, dtype: FloatDType) -> Tensor<2> {
        match &self.standardizer {
            Some([mean, deviation]) => {
                ((block.clone().cast(FloatDType::F64) - mean.clone()) / deviation.clone()).cast(dtype)
            }
            None => block.clone().cast(dtype),
        }
    }

    /// Sums the losses of all samples for coefficients [rows, d] and intercepts [rows], and their gradients times `scale`, in
    /// the arithmetic of `dtype`.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn sums(
        &self,
        labels: &DeviceLabels,
        weights: ArrayView2<f64>,
        intercepts: ArrayView1<f64>,
        scale: f64,
        dtype: FloatDType,
    ) -> Result<Sums> {
        let rows = weights.nrows();
        let computed = device::quietly(|| {
            let upload = |values: Vec<f64>, shape| self.accelerator.upload_doubles(values, shape).cast(dtype);
            let weights = upload(weights.iter().copied().collect(), [rows, self.d]);
            let intercepts = upload(intercepts.to_vec(), [1, rows]);
            let mut total: Option<Tensor<1>> = None;
            for (place, block) in self.blocks.iter().enumerate() {
                let x = self.block(block, dtype);
                let z = x.clone().matmul(weights.clone().transpose()) + intercepts.clone();
                let (loss, gradient) = match labels {
                    DeviceLabels::Softmax(classes) => softmax(z, classes[place].clone()),
                    DeviceLabels::Logistic(labels) => logistic(z, labels[place].clone().cast(dtype)),
                };
                let gradient = gradient * scale;
                let of_weights = gradient.clone().transpose().matmul(x).reshape([rows * self.d]);
                let of_intercepts = gradient.sum_dim(0).reshape([rows]);
                let loss = loss.cast(FloatDType::F64).sum();
                let parts = [of_weights, of_intercepts].map(|part| part.cast(FloatDType::F64));
                let sums = Tensor::cat([vec![loss], parts.to_vec()].concat(), 0);
                total = Some(match total.take() {
                    Some(total) => total + sums,
                    None => sums,
                });
            }
            total.map_or(Ok(Vec::new()), download)
        });
        let failed = |problem: String| {
            Error::device(format!("logistic regression on {}: {problem}", self.accelerator.kind()))
                .help("use --device flex")
        };
        let sums = computed.map_err(failed)??;
        let (Some(loss), Some(weights), Some(intercepts)) =
            (sums.first(), sums.get(1..=rows * self.d), sums.get(rows * self.d + 1..))
        else {
            return Err(failed(format!("it returned {} numbers", sums.len())));
        };
        let shape = (rows, self.d);
        Ok(Sums {
            loss: *loss,
            weights: Array2::from_shape_vec(shape, weights.to_vec()).map_err(Error::mismatch)?,
            intercepts: Array1::from(intercepts.to_vec()),
        })
    }
}

/// Cross-entropy of logits z [m, rows] per sample [m, 1], and its gradient [m, rows].
fn softmax(z: Tensor<2>, classes: Tensor<2, Int>) -> (Tensor<2>, Tensor<2>) {
    let [m, rows] = z.dims();
    let dtype: FloatDType = z.dtype().into();
    let device = z.device();
    let shifted = z.clone() - z.max_dim(1);
    let right = shifted.clone().gather(1, classes.clone());
    let exponentials = shifted.exp();
    let sum = exponentials.clone().sum_dim(1);
    let places = Tensor::<1, Int>::arange(0..rows as i64, &device).reshape([1, rows]).expand([m, rows]);
    let is_right = places.equal(classes.expand([m, rows])).float().cast(dtype);
    (sum.clone().log() - right, exponentials / sum - is_right)
}

/// Binary cross-entropies of logits z [m, rows], and their gradients.
fn logistic(z: Tensor<2>, applies: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let small = z.clone().abs().neg().exp();
    // -z where the label applies, else z.
    let wrong = z.clone() * (applies.clone() * -2.0 + 1.0);
    let loss = small.clone().log1p() + wrong.clamp_min(0.0);
    let probability = small.clone().mask_fill(z.greater_equal_elem(0.0), 1.0) / (small + 1.0);
    (loss, probability - applies)
}
