//! What an encoder computes is computed once for all cells that need it.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use ndarray::Array2;
use terrabench::Result;
use terrabench::features::maps::{ImageKey, MapItem};
use terrabench::features::source::{EncoderSource, FeatureSource, KnownFeatures};
use terrabench::features::truth::PixelTruth;
use terrabench::features::{FeatureBank, Identity};
use terrabench::model::encoder::Map;
use terrabench::model::{Batch, Encoded, Encoder, Pooling, Want};
use terrabench::progress::Silent;
use terrabench::task::{Metric, Split, TargetKind};
use terrabench::transform::augment::{Dihedral, Turn};
use terrabench::transform::normalize::NormalizationKind;

use crate::generated::{Generated, input, task, tiny};

/// Gives the first band as its only map, and counts how often it is asked.
struct Counting(AtomicUsize);

impl Encoder for Counting {
    fn width(&self, _: Pooling, _: usize) -> usize {
        1
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        assert_eq!(want, Want::Maps);
        self.0.fetch_add(1, Ordering::Relaxed);
        let values = batch.inputs[0].pixels.clone().narrow(1, 0, 1);
        Ok(Encoded::Maps(vec![Map { values, stride: 1 }]))
    }
}

#[test]
fn feature_maps_are_computed_once_for_all_seeds_of_a_partition() {
    let task = task(TargetKind::Mask, 3, Metric::Miou);
    let input = input(&task, Generated::new(&task, [4, 4, 4]), &[NormalizationKind::Standardize], 32);
    let (model, _) = tiny();
    let encoder = Counting(AtomicUsize::new(0));
    let mut known = KnownFeatures::new(FeatureBank::default());
    let mut encoded_in = |partition: &str| {
        let before = encoder.0.load(Ordering::Relaxed);
        let mut source = EncoderSource {
            encoder: &encoder,
            identity: Identity {
                model: &model,
                weights: "none",
                device: "flex",
                precision: Default::default(),
            },
            input: &input,
            partition,
            device: &Device::flex(),
            further: &[],
            batch_size: 8.into(),
            readers: 2,
            map_limit: 1 << 20,
            known: &mut known,
            progress: &Silent,
        };
        let item = |sample| {
            let read = input.read(&input.only().unwrap().preprocess, Split::Train, sample).unwrap();
            MapItem {
                place: Some(ImageKey { split: Split::Train, sample, turn: Dihedral::Identity }),
                name: read.name,
                images: Some(read.images),
                images_turn: None,
                truth: PixelTruth::Classes(Array2::zeros((32, 32))),
                truth_turn: Turn::NONE,
            }
        };
        let items: Vec<MapItem> = (0..4).map(item).collect();
        let maps = source.maps(0).unwrap().maps(&items).unwrap();
        assert_eq!(maps[0].values.dims(), [4, 1, 32, 32]);
        encoder.0.load(Ordering::Relaxed) - before
    };
    assert_eq!(encoded_in("default"), 1);
    assert_eq!(encoded_in("default"), 0, "another seed encodes again");
    // The same places are other samples there.
    assert_eq!(encoded_in("0.01x_train"), 1);
}
