//! Arithmetic on many frozen features where a GPU is at hand: nearest neighbours, linear probes and logistic regression.
//!
//! Few features are faster on the CPU, which need not upload them. A device rounds sums in another order, so what can differ is
//! named in the record ([`Accelerator::kind`]); neighbours cannot differ ([`neighbours`]).

pub(crate) mod neighbours;
pub(crate) mod regression;

use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::ArrayView2;

use crate::nn::kernels;
use crate::{Error, Result, device};

/// Numbers (samples times width) from which on a GPU is used: 21,845 samples of 768. Below that the CPU takes less than a second.
const MANY: usize = 1 << 24;

/// Rows that are on the device at once: 200 MB of 768 numbers each.
const BLOCK: usize = 1 << 16;

/// A device for arithmetic on many features.
///
/// ```
/// use burn::tensor::Device;
/// use terrabench::protocol::Accelerator;
///
/// assert!(Accelerator::of("flex", &Device::flex()).is_none());
/// let accelerator = Accelerator::always("flex", &Device::flex());
/// assert_eq!(accelerator.kind(), "flex");
/// ```
#[derive(Debug, Clone)]
pub struct Accelerator {
    device: Device,
    kind: String,
    least: usize,
    /// Rows that are on the device at once, where not all need be.
    block: usize,
}

impl Accelerator {
    /// Returns the device called `name` if it is a GPU that computes in float64 too, which solvers need. It is used for many
    /// features only.
    pub fn of(name: &str, device: &Device) -> Option<Self> {
        let fits = device::is_gpu(name) && device.supports_dtype(DType::F64);
        fits.then(|| Accelerator { least: MANY, ..Accelerator::always(name, device) })
    }

    /// Uses any device that computes in float64, however few the features are.
    pub fn always(name: &str, device: &Device) -> Self {
        let (device, kind) = (device.clone().inner(), device::kind(name).to_owned());
        Accelerator { device, kind, least: 0, block: BLOCK }
    }

    /// Takes so many rows at once.
    #[must_use]
    pub fn with_blocks_of(self, rows: usize) -> Self {
        Accelerator { block: rows.max(1), ..self }
    }

    /// The kind of device, for records: `libtorch:cuda`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The device, without autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether solvers are used for `samples` features of this width: unlike neighbours, they have no bound on the rounding of
    /// products to TensorFloat-32.
    pub(crate) fn solves(&self, samples: usize, width: usize) -> bool {
        self.takes(samples, width) && !device::multiplies_in_tf32()
    }

    /// Whether it is used for `samples` features of this width.
    pub(crate) fn takes(&self, samples: usize, width: usize) -> bool {
        samples.saturating_mul(width) >= self.least
    }

    /// Copies rows [n, d] to the device, in float32.
    pub(crate) fn upload(&self, rows: ArrayView2<f32>) -> Tensor<2> {
        let (n, d) = rows.dim();
        let mut values = Vec::with_capacity(n * d);
        match rows.as_slice() {
            Some(contiguous) => values.extend_from_slice(contiguous),
            None => values.extend(rows.iter()),
        }
        let beside = Tensor::<1>::zeros([1], (&self.device, DType::F32));
        kernels::upload(&beside, &mut values, [n, d, 1, 1]).reshape([n, d])
    }

    /// Copies float64 numbers to the device.
    fn upload_doubles<const D: usize>(&self, values: Vec<f64>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), (&self.device, DType::F64))
    }
}

/// Copies numbers of a device to the program's memory.
pub(crate) fn download<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f64>> {
    tensor
        .into_data()
        .convert::<f64>()
        .try_into_vec()
        .map_err(|error| Error::device(format!("the device returned no numbers: {error:?}")))
}
