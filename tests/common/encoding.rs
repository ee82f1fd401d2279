//! Short ways to ask an encoder for the features of images.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use terrabench::Result;
use terrabench::model::architecture::{ArchitectureConfig, Network};
use terrabench::model::config::{ImageSize, ModelConfig};
use terrabench::model::terrafm::{TerraFm, TerraFmConfig};
use terrabench::model::{Batch, Encoder, Pooling, Want};
use terrabench::task::Sensor;

pub trait Features {
    /// Class tokens [n, d] of normalised images [n, c, h, w].
    fn features(&self, images: Tensor<4>, sensor: Sensor) -> Result<Tensor<2>>;

    /// Feature maps [n, d, h, w] of normalised images.
    fn feature_maps(&self, images: Tensor<4>, sensor: Sensor) -> Result<Vec<Tensor<4>>>;
}

impl<E: Encoder + ?Sized> Features for E {
    fn features(&self, images: Tensor<4>, sensor: Sensor) -> Result<Tensor<2>> {
        self.encode(&Batch::single(sensor, Arc::new([]), images), Want::Pooled(Pooling::Class))?.pooled()
    }

    fn feature_maps(&self, images: Tensor<4>, sensor: Sensor) -> Result<Vec<Tensor<4>>> {
        let maps = self.encode(&Batch::single(sensor, Arc::new([]), images), Want::Maps)?.maps()?;
        Ok(maps.into_iter().map(|map| map.values).collect())
    }
}

/// The sizes of a TerraFM.
pub fn sizes(model: &ModelConfig) -> &TerraFmConfig {
    match &model.architecture {
        ArchitectureConfig::TerraFm(sizes) => sizes,
        other => panic!("{} is not a TerraFM", other.kind()),
    }
}

/// The sizes of a TerraFM, to change them.
pub fn sizes_mut(model: &mut ModelConfig) -> &mut TerraFmConfig {
    match &mut model.architecture {
        ArchitectureConfig::TerraFm(sizes) => sizes,
        other => panic!("{} is not a TerraFM", other.kind()),
    }
}

/// Has the model take images of this side, with a position embedding of that size.
pub fn set_side(model: &mut ModelConfig, side: usize) {
    model.image = ImageSize::Side(side);
    let sizes = sizes_mut(model);
    sizes.positions = side / sizes.patch;
}

/// A TerraFM without weights.
pub fn terrafm(model: &ModelConfig, device: &Device) -> TerraFm {
    TerraFm::new(sizes(model), &model.sensors, device)
}
