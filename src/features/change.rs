//! What a head sees of a sample: an image's feature maps or, where it has two dates, what changed in them.

use burn::tensor::Tensor;

use super::Input;
use crate::Result;
use crate::model::encoder::Map;
use crate::model::{Encoder, InputSpec, Want};

/// How images go into an encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Of one date.
    spec: InputSpec,
    /// Whether an image is two, one behind the other: the earlier date's bands, then the later one's.
    two_dates: bool,
}

impl View {
    /// The one that suits these images.
    pub fn of(input: &Input) -> Self {
        View { spec: input.spec(), two_dates: input.task.dates.is_some() }
    }

    /// The maps [n, d, h, w] of images [n, bands, h, w], shallowest first: of two dates, the later one's minus the
    /// earlier one's [zhu-xlab/Copernicus-FM, Copernicus-Bench/src/foundation_models/vit_wrapper.py, ViTChange].
    ///
    /// # Errors
    /// Where the images do not suit the encoder.
    pub fn maps(&self, encoder: &dyn Encoder, images: Tensor<4>) -> Result<Vec<Map>> {
        let encode = |pixels| encoder.encode(&self.spec.batch(pixels), Want::Maps)?.maps();
        if !self.two_dates {
            return encode(images);
        }
        let bands = images.dims()[1] / 2;
        let [before, after] = [0, bands].map(|first| images.clone().narrow(1, first, bands));
        let (before, after) = (encode(before)?, encode(after)?);
        let change = |(after, before): (Map, Map)| Map { values: after.values - before.values, ..after };
        Ok(after.into_iter().zip(before).map(change).collect())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::View;
    use crate::home::Home;
    use crate::model::config::ModelConfig;
    use crate::model::{self, Encoder, InputSpec, Pooling, Want};
    use crate::task::Sensor;
    use crate::task::bands::Band;

    fn images(seed: usize) -> Tensor<4> {
        let values = (0..2 * 2 * 32 * 32).map(|place| ((place * 7 + seed * 13) % 29) as f32 / 29.0).collect();
        Tensor::from_data(TensorData::new(values, [2, 2, 32, 32]), &Device::flex())
    }

    fn values(map: Tensor<4>) -> Vec<f32> {
        map.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn maps_of_two_dates_are_the_later_minus_the_earlier() {
        let model = ModelConfig::load(&Home::find().unwrap(), "demo").unwrap();
        let weights = "random:0".parse().unwrap();
        let encoder = model::trainable(&model, &weights, false, &Device::flex()).unwrap();
        let spec =
            InputSpec { sensor: Sensor::S1, bands: [Band::VV, Band::VH].into(), pooling: Pooling::Class };
        let of = |two_dates, images| -> Vec<Tensor<4>> {
            let maps = View { spec: spec.clone(), two_dates }.maps(&encoder, images).unwrap();
            maps.into_iter().map(|map| map.values).collect()
        };
        let (before, after) = (images(0), images(1));

        let found = of(true, Tensor::cat(vec![before.clone(), after.clone()], 1));
        let (before_alone, after_alone) = (of(false, before.clone()), of(false, after));
        assert_eq!(found.len(), after_alone.len());
        for ((found, before), after) in found.into_iter().zip(before_alone).zip(after_alone) {
            assert_eq!(values(found.clone()), values(after - before));
            assert!(values(found).iter().any(|change| *change != 0.0));
        }
        for unchanged in of(true, Tensor::cat(vec![before.clone(), before.clone()], 1)) {
            assert!(values(unchanged).iter().all(|change| *change == 0.0));
        }
        let one = encoder.encode(&spec.batch(before.clone()), Want::Maps).unwrap().maps().unwrap();
        assert_eq!(
            one.into_iter().map(|map| values(map.values)).collect::<Vec<_>>(),
            of(false, before).into_iter().map(values).collect::<Vec<_>>()
        );
    }
}
