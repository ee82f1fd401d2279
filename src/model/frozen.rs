//! TerraFM for inference: computes the same function of the images as [`TerraFm`], but faster, because its weights no
//! longer change.
//!
//! Two consecutive linear maps can be merged into one. A stem's convolution, its learned vector and the projection's first
//! layer become one matrix, and the projection's last two layers another. For TerraFM-B this saves a tenth of all
//! arithmetic.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;

use super::encoder::{Batch, Encoded, Encoder, Input, Pooling, Want};
use super::in_parts::in_parts;
use super::terrafm::TerraFm;
use crate::Result;
use crate::nn::kernels;
use crate::nn::patch::patches;
use crate::task::Sensor;

/// TerraFM with a folded patch embedding.
pub struct Frozen {
    model: TerraFm,
    /// Patches of pixels to the norm's input: [bands * patch * patch, 3d].
    stems: BTreeMap<Sensor, Linear>,
    norm_input: LayerNorm,
    /// The norm's output to tokens: [3d, d].
    head: Linear,
}

impl Frozen {
    /// Folds consecutive linear maps.
    pub fn new(model: TerraFm) -> Self {
        let projection = &model.patch_embed.projection;
        let fold_stem = |stem: &Sensor| {
            let (conv, embed) = model.patch_embed.stem(*stem)?;
            let (weight, bias) = conv.as_linear();
            Some((*stem, fold(&linear(weight, bias + embed.squeeze_dim::<1>(0)), &projection.proj1)))
        };
        Frozen {
            stems: model.sensors.keys().filter_map(fold_stem).collect(),
            norm_input: projection.norm_input.clone(),
            head: fold(&projection.proj2, &projection.proj3),
            model,
        }
    }

    /// Embeds patches: [n, bands, h, w] to [n, t, d].
    fn embed(&self, images: Tensor<4>, sensor: Sensor) -> Tensor<3> {
        let x = kernels::linear(patches(images, self.model.config.patch), &self.stems[&sensor]);
        kernels::linear(self.norm_input.forward(x), &self.head)
    }
}

/// Composes two linear maps, `first` then `second`: (x A + a) B + b = x (A B) + (a B + b).
fn fold(first: &Linear, second: &Linear) -> Linear {
    let weight = second.weight.val();
    let mut bias = Tensor::zeros([weight.dims()[1]], &weight.device());
    if let Some(first) = &first.bias {
        bias = first.val().unsqueeze::<2>().matmul(weight.clone()).squeeze_dim(0);
    }
    if let Some(second) = &second.bias {
        bias = bias + second.val();
    }
    linear(first.weight.val().matmul(weight), bias)
}

fn linear(weight: Tensor<2>, bias: Tensor<1>) -> Linear {
    Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) }
}

impl Encoder for Frozen {
    fn width(&self, pooling: Pooling, bands: usize) -> usize {
        self.model.width(pooling, bands)
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let Input { sensor, pixels, .. } = batch.only()?;
        self.model.check(pixels, *sensor)?;
        in_parts(batch, |part| {
            let pixels = part.only()?.pixels.clone();
            let [_, _, h, w] = pixels.dims();
            self.model.give(self.embed(pixels, *sensor), [h, w], want)
        })
    }
}
