//! Random convolutional features: a baseline that knows patterns but was trained on nothing [Rolf et al., Nature
//! Communications 2021; torchgeo/torchgeo, torchgeo/models/rcf.py; torchgeo/torchgeo-bench, the model `rcf`].
//!
//! Every kernel is correlated with the normalised image, without padding; one feature is the mean over all positions of what is
//! above 0, one that of what is below.

mod generator;

use burn::tensor::{Tensor, TensorData};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::generator::normals;
use super::encoder::{Batch, Encoded, Encoder, Pooling, Want};
use crate::{Error, Result};

/// Sizes of random convolutional features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RcfConfig {
    /// Length of a feature vector, two per kernel.
    pub features: usize,
    /// Height and width of the kernels in pixels.
    pub kernel: usize,
    /// Added to every correlation.
    pub bias: f32,
    /// Seed of PyTorch's generator on the CPU, from which the kernels are drawn.
    pub generator_seed: u64,
}

impl RcfConfig {
    /// Describes an inconsistency, if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        let RcfConfig { features, kernel, bias, .. } = *self;
        if !(2..=65_536).contains(&features) || features % 2 == 1 {
            Some(format!("features: expected an even number from 2 to 65536, found {features}"))
        } else if !(1..=15).contains(&kernel) {
            Some(format!("kernel: expected a side from 1 to 15 pixels, found {kernel}"))
        } else if features / 2 * kernel * kernel < generator::FEWEST {
            Some(format!("expected kernels of at least {} numbers in all", generator::FEWEST))
        } else if !bias.is_finite() {
            Some(format!("bias: expected a finite number, found {bias}"))
        } else {
            None
        }
    }

    fn kernels(&self) -> usize {
        self.features / 2
    }
}

/// Computes random convolutional features, on the CPU whatever the device: the same numbers on every machine.
#[derive(Debug, Clone)]
pub(super) struct Rcf {
    config: RcfConfig,
}

impl Rcf {
    pub(super) fn new(config: &RcfConfig) -> Self {
        Rcf { config: config.clone() }
    }

    /// The features of an image whose bands [h * w] follow each other, with kernels [kernels, bands * k * k].
    fn of_image(&self, image: &[f32], [h, w]: [usize; 2], kernels: ArrayView2<f32>) -> Vec<f32> {
        let (side, bias) = (self.config.kernel, self.config.bias);
        let (rows, columns) = (h - side + 1, w - side + 1);
        // The part of the image under each kernel number, for a row of positions: [bands * k * k, columns].
        let mut under = Array2::<f32>::zeros((kernels.ncols(), columns));
        let mut values = Array2::<f32>::zeros((kernels.nrows(), columns));
        let mut sums = vec![[0.0f64; 2]; kernels.nrows()];
        for row in 0..rows {
            let places = image.chunks_exact(h * w).flat_map(|band| {
                (0..side * side).map(move |place| {
                    let first = (row + place / side) * w + place % side;
                    &band[first..first + columns]
                })
            });
            for (mut under, pixels) in under.rows_mut().into_iter().zip(places) {
                under.iter_mut().zip(pixels).for_each(|(to, from)| *to = *from);
            }
            values.fill(bias);
            general_mat_mul(1.0, &kernels, &under, 1.0, &mut values);
            for ([above, below], values) in sums.iter_mut().zip(values.rows()) {
                let (mut a, mut b) = (0.0, 0.0);
                for value in values {
                    let value = f64::from(*value);
                    a += value.max(0.0);
                    b += (-value).max(0.0);
                }
                *above += a;
                *below += b;
            }
        }
        let positions = (rows * columns) as f64;
        let of_side = |side: usize| sums.iter().map(move |sums| (sums[side] / positions) as f32);
        of_side(0).chain(of_side(1)).collect()
    }
}

impl Encoder for Rcf {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.features
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let images = batch.only()?.pixels.clone();
        if !matches!(want, Want::Pooled(_)) {
            return Err(Error::mismatch("rcf: expected a request for one vector per image, found another")
                .help("use a protocol that scores images: knn, linear-probe or logistic"));
        }
        let (device, [n, bands, h, w]) = (images.device(), images.dims());
        let pixels = images.into_data().convert::<f32>().try_into_vec::<f32>().map_err(|error| {
            Error::mismatch(format!("the device returned pixels that are not float32: {error:?}"))
        })?;
        let side = self.config.kernel;
        if h < side || w < side || bands == 0 {
            return Err(Error::mismatch(format!(
                "rcf: expected images of at least {side} x {side} pixels, found {bands} bands of {h} x {w}"
            )));
        }
        let numbers = bands * side * side;
        let kernels = normals(self.config.generator_seed, self.config.kernels() * numbers);
        let kernels = ArrayView2::from_shape((self.config.kernels(), numbers), &kernels)
            .map_err(|error| Error::mismatch(format!("rcf: {error}")))?;
        let of_images: Vec<Vec<f32>> = pixels
            .par_chunks_exact(bands * h * w)
            .map(|image| self.of_image(image, [h, w], kernels))
            .collect();
        let features = TensorData::new(of_images.concat(), [n, self.config.features]);
        Ok(Encoded::Pooled(Tensor::from_data(features, &device)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_the_means_above_and_below_0() {
        let rcf = Rcf::new(&RcfConfig { features: 4, kernel: 2, bias: -1.0, generator_seed: 1 });
        // One band of 2 x 3 pixels, two kernels: the first adds the corners of a diagonal, the second subtracts.
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 7.0];
        let kernels = ndarray::array![[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, -1.0]];
        // Correlations minus 1: 1 + 5 - 1, 2 + 7 - 1; 1 - 5 - 1, 2 - 7 - 1.
        assert_eq!(rcf.of_image(&image, [2, 3], kernels.view()), [6.5, 0.0, 0.0, 5.5]);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let good = RcfConfig { features: 512, kernel: 3, bias: -1.0, generator_seed: 1 };
        assert_eq!(good.problem(), None);
        for (bad, word) in [
            (RcfConfig { features: 511, ..good.clone() }, "even"),
            (RcfConfig { features: 0, ..good.clone() }, "even"),
            (RcfConfig { kernel: 0, ..good.clone() }, "side"),
            (RcfConfig { kernel: 99, ..good.clone() }, "side"),
            (RcfConfig { features: 2, kernel: 3, ..good.clone() }, "at least"),
            (RcfConfig { bias: f32::NAN, ..good.clone() }, "bias"),
        ] {
            let problem = bad.problem().unwrap_or_default();
            assert!(problem.contains(word), "{bad:?}: {problem}");
        }
    }
}
