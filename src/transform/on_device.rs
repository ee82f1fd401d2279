//! [`Preprocess`] in tensors, for devices other than the CPU: stored pixels are uploaded, which are fewer than the model's, and
//! normalised, zeroed, resized and turned where the model computes.
//!
//! Arithmetic and its order are those of the array code, float64 where that uses it, so that both give the same numbers.

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use super::Preprocess;
use super::augment::Dihedral;
use super::normalize::{Clip, Normalization, SATLAS_WHITE};
use super::resize::{Tap, check_sides, taps};
use crate::{Error, Result};

/// A [`Preprocess`] whose constants are on a device.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use terrabench::transform::Preprocess;
/// use terrabench::transform::augment::Dihedral;
/// use terrabench::transform::normalize::Normalization;
/// use terrabench::transform::on_device::DevicePreprocess;
///
/// let preprocess = Preprocess {
///     normalization: Normalization::Standardize { mean: vec![3.0], std: vec![2.0] },
///     height: 8,
///     width: 8,
///     align_corners: false,
///     zeroed: vec![],
/// };
/// let device = Device::flex();
/// let stored = Tensor::<4>::full([2, 1, 4, 4], 5.0, &device);
/// let ready = DevicePreprocess::new(&preprocess, &device).apply(stored, Dihedral::Identity)?;
/// assert_eq!(ready.dims(), [2, 1, 8, 8]);
/// # Ok::<(), terrabench::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DevicePreprocess {
    normalization: Constants,
    zeroed: Vec<usize>,
    height: usize,
    width: usize,
    align_corners: bool,
}

/// A [`Normalization`] with constants [1, c, 1, 1].
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one per image of a sample")]
enum Constants {
    Standardize {
        mean: Tensor<4>,
        std: Tensor<4>,
    },
    /// In float64; `range` is max - min.
    MinMax {
        min: Tensor<4>,
        range: Tensor<4>,
        clip: Clip,
    },
    MinMaxStandardize {
        min: Tensor<4>,
        range: Tensor<4>,
        mean: Tensor<4>,
        std: Tensor<4>,
    },
    Satlas,
    Identity,
}

impl DevicePreprocess {
    /// Uploads the constants of `preprocess`.
    pub fn new(preprocess: &Preprocess, device: &Device) -> Self {
        let normalization = match &preprocess.normalization {
            Normalization::Standardize { mean, std } => Constants::Standardize {
                mean: per_band(mean.clone(), device),
                std: per_band(std.clone(), device),
            },
            Normalization::MinMax { min, max, clip } => {
                let range = min.iter().zip(max).map(|(min, max)| max - min).collect();
                Constants::MinMax {
                    min: doubles(min.clone(), device),
                    range: doubles(range, device),
                    clip: *clip,
                }
            }
            Normalization::MinMaxStandardize { min, range, mean, std } => Constants::MinMaxStandardize {
                min: per_band(min.clone(), device),
                range: per_band(range.clone(), device),
                mean: per_band(mean.clone(), device),
                std: per_band(std.clone(), device),
            },
            Normalization::Satlas => Constants::Satlas,
            Normalization::Identity => Constants::Identity,
        };
        DevicePreprocess {
            normalization,
            zeroed: preprocess.zeroed.clone(),
            height: preprocess.height,
            width: preprocess.width,
            align_corners: preprocess.align_corners,
        }
    }

    /// Whether `preprocess` can be done on `device`, which needs float64. Clipping to the quantiles of each band stays on the CPU.
    pub fn fits(preprocess: &Preprocess, device: &Device) -> bool {
        let sorts = matches!(preprocess.normalization, Normalization::MinMax { clip: Clip::Quantiles, .. });
        !sorts && device.supports_dtype(DType::F64)
    }

    /// Turns stored pixels [n, c, h, w] into the model's input [n, c, height, width], and applies `turn` to it.
    ///
    /// # Errors
    /// If the number of channels differs from that of the normalisation, or a side has 0 pixels.
    pub fn apply(&self, pixels: Tensor<4>, turn: Dihedral) -> Result<Tensor<4>> {
        let mut pixels = self.normalized(pixels)?;
        let [n, _, h, w] = pixels.dims();
        for &channel in &self.zeroed {
            pixels = pixels.slice_fill([0..n, channel..channel + 1, 0..h, 0..w], 0.0);
        }
        Ok(turned(self.resized(pixels)?, turn))
    }

    fn normalized(&self, pixels: Tensor<4>) -> Result<Tensor<4>> {
        let channels = pixels.dims()[1];
        let expect = |constants: &Tensor<4>| match constants.dims()[1] {
            expected if expected == channels => Ok(()),
            expected => Err(Error::mismatch(format!(
                "expected as many bands as statistics, found {channels} bands and statistics of {expected}"
            ))),
        };
        Ok(match &self.normalization {
            Constants::Standardize { mean, std } => {
                expect(mean)?;
                (pixels - mean.clone()) / std.clone()
            }
            Constants::MinMax { min, range, clip } => {
                expect(min)?;
                let scaled = (pixels.cast(FloatDType::F64) - min.clone()) / range.clone();
                let scaled = match clip {
                    Clip::None => scaled,
                    // Quantiles need all pixels of a band in order: see `DevicePreprocess::fits`.
                    Clip::Unit | Clip::Quantiles => scaled.clamp(0.0, 1.0),
                    Clip::Codes => (scaled * 255.0).clamp(0.0, 255.0).floor() / 255.0,
                };
                scaled.cast(FloatDType::F32)
            }
            Constants::MinMaxStandardize { min, range, mean, std } => {
                expect(min)?;
                ((pixels - min.clone()) / range.clone() - mean.clone()) / std.clone()
            }
            Constants::Satlas => (pixels / SATLAS_WHITE).clamp(0.0, 1.0),
            Constants::Identity => pixels,
        })
    }

    /// Resizes like [`super::resize::bilinear`]: columns first, then rows.
    fn resized(&self, pixels: Tensor<4>) -> Result<Tensor<4>> {
        let [_, _, h, w] = pixels.dims();
        check_sides([h, w], [self.height, self.width])?;
        if [h, w] == [self.height, self.width] {
            return Ok(pixels);
        }
        let widened = interpolated(pixels, 3, &taps(w, self.width, self.align_corners));
        Ok(interpolated(widened, 2, &taps(h, self.height, self.align_corners)))
    }
}

/// Resizes one axis: each new position is a weighted sum of two old ones.
fn interpolated(pixels: Tensor<4>, axis: usize, taps: &[Tap]) -> Tensor<4> {
    let device = pixels.device();
    let mut shape = [1; 4];
    shape[axis] = taps.len();
    let part = |index: fn(&Tap) -> usize, weight: fn(&Tap) -> f32| {
        let places: Vec<i64> = taps.iter().map(|tap| index(tap) as i64).collect();
        let weights: Vec<f32> = taps.iter().map(weight).collect();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [taps.len()]), &device);
        let weights = Tensor::<4>::from_data(TensorData::new(weights, shape), (&device, DType::F32));
        pixels.clone().select(axis, places) * weights
    };
    part(|tap| tap.before, |tap| tap.weight_before) + part(|tap| tap.after, |tap| tap.weight_after)
}

/// Applies a flip or quarter turn to images [n, c, h, w].
pub(super) fn turned(pixels: Tensor<4>, turn: Dihedral) -> Tensor<4> {
    let (transpose, rows, columns) = turn.steps();
    let pixels = if transpose { pixels.swap_dims(2, 3) } else { pixels };
    match (rows, columns) {
        (false, false) => pixels,
        (true, false) => pixels.flip([2]),
        (false, true) => pixels.flip([3]),
        (true, true) => pixels.flip([2, 3]),
    }
}

/// [c] to [1, c, 1, 1].
fn per_band(values: Vec<f32>, device: &Device) -> Tensor<4> {
    let shape = [1, values.len(), 1, 1];
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// [c] to [1, c, 1, 1] in float64.
fn doubles(values: Vec<f64>, device: &Device) -> Tensor<4> {
    let shape = [1, values.len(), 1, 1];
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F64))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Axis, stack};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::transform::normalize::{BandStatistics, NormalizationKind};

    /// Three images of two bands of 64 x 48 stored pixels.
    fn images() -> Vec<Array3<f32>> {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut pixel = || f32::from(random.random_range(0..9000_u16));
        (0..3).map(|_| Array3::from_shape_simple_fn((2, 64, 48), &mut pixel)).collect()
    }

    /// Every kind of the sweep, resized in each way, equals the array code to the last bit.
    #[test]
    fn tensors_and_arrays_give_the_same_pixels() {
        let statistics =
            [(1234.567, 890.123), (3000.25, 1500.75)].map(|(mean, std)| BandStatistics { mean, std });
        use NormalizationKind::{NormNoClip, NormYesClip, NormYesClipInt, Satlas, Standardize};
        let mut all = vec![Normalization::Identity];
        for kind in [Standardize, NormNoClip, NormYesClip, NormYesClipInt, Satlas] {
            all.push(Normalization::new(kind, &statistics, 1.4).unwrap());
        }
        let device = Device::flex();
        let stored = stack(Axis(0), &images().iter().map(Array3::view).collect::<Vec<_>>()).unwrap();
        let data = TensorData::new(stored.into_raw_vec_and_offset().0, [3, 2, 64, 48]);
        let stored = Tensor::<4>::from_data(data, &device);
        for normalization in all {
            for (side, align_corners) in [(64, false), (112, false), (112, true), (30, false)] {
                let zeroed = if side == 30 { vec![1] } else { vec![] };
                let normalization = normalization.clone();
                let preprocess =
                    Preprocess { normalization, height: side, width: side, align_corners, zeroed };
                let on_device = DevicePreprocess::new(&preprocess, &device);
                for turn in [
                    Dihedral::Identity,
                    Dihedral::Rotate90,
                    Dihedral::AntiTranspose,
                    Dihedral::FlipHorizontal,
                ] {
                    let found = on_device.apply(stored.clone(), turn).unwrap();
                    let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
                    let expected: Vec<f32> = images()
                        .into_iter()
                        .flat_map(|image| turn.apply(preprocess.apply(image).unwrap()).into_iter())
                        .collect();
                    let differing = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
                    assert_eq!((found.len(), differing), (expected.len(), 0), "{preprocess:?} {turn:?}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_number_of_bands_is_an_error() {
        let normalization = Normalization::Standardize { mean: vec![0.0; 3], std: vec![1.0; 3] };
        let preprocess =
            Preprocess { normalization, height: 4, width: 4, align_corners: false, zeroed: Vec::new() };
        let device = Device::flex();
        let on_device = DevicePreprocess::new(&preprocess, &device);
        let error = on_device.apply(Tensor::zeros([1, 2, 4, 4], &device), Dihedral::Identity).unwrap_err();
        assert!(error.to_string().contains("found 2 bands and statistics of 3"), "{error}");
    }
}
