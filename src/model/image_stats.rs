//! Plain pixel statistics instead of a model: the baseline that a model should beat [torchgeo/torchgeo-bench, the model
//! `imagestats`].

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::encoder::{Batch, Encoded, Encoder, Pooling, Want};
use crate::{Error, Result};

/// Number of statistics per band: mean, standard deviation, maximum, minimum.
const PER_BAND: usize = 4;

/// Computes statistics of stored pixels: the means of all bands, then their standard deviations (n - 1), maxima and minima.
#[derive(Debug, Clone, Copy)]
pub struct ImageStats;

impl Encoder for ImageStats {
    fn width(&self, _: Pooling, bands: usize) -> usize {
        PER_BAND * bands
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let images = batch.only()?.pixels.clone();
        if !matches!(want, Want::Pooled(_)) {
            return Err(Error::mismatch(
                "image-stats: expected a request for one vector per image, found another",
            )
            .help("use a protocol that scores images: knn, linear-probe or logistic"));
        }
        let (device, [n, bands, h, w]) = (images.device(), images.dims());
        if h * w < 2 {
            return Err(Error::mismatch(format!(
                "image-stats: expected at least 2 pixels for a standard deviation, found {h} x {w}"
            )));
        }
        // [n, bands, 4] to [n, 4, bands], image by image: a copy of all pixels would be as large as the batch.
        let mut features = Vec::with_capacity(n * bands * PER_BAND);
        for image in 0..n {
            let pixels = images.clone().narrow(0, image, 1).into_data().convert::<f32>();
            let pixels = pixels.try_into_vec::<f32>().map_err(|error| {
                Error::mismatch(format!("the device returned pixels that are not float32: {error:?}"))
            })?;
            let of_bands: Vec<[f32; PER_BAND]> = pixels.par_chunks_exact(h * w).map(statistics).collect();
            (0..PER_BAND).for_each(|number| features.extend(of_bands.iter().map(|band| band[number])));
        }
        let features = TensorData::new(features, [n, PER_BAND * bands]);
        Ok(Encoded::Pooled(Tensor::from_data(features, &device)))
    }
}

/// Sums are in float64: in float32 a mean would be off by 2e-7 of its value.
fn statistics(pixels: &[f32]) -> [f32; PER_BAND] {
    let n = pixels.len() as f64;
    let mean = pixels.iter().copied().map(f64::from).sum::<f64>() / n;
    let squares: f64 = pixels.iter().map(|pixel| (f64::from(*pixel) - mean).powi(2)).sum();
    let (max, min) = pixels.iter().fold((f32::MIN, f32::MAX), |(max, min), x| (max.max(*x), min.min(*x)));
    [mean as f32, (squares / (n - 1.0)).sqrt() as f32, max, min]
}
