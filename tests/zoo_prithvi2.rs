//! Compares Prithvi-EO-2.0 with the numbers of the published code (tests/fixtures/zoo/prithvi2).

use burn::tensor::Device;
use ndarray::{Array4, ArrayD, Axis};
use terrabench::device;
use terrabench::model::architecture::{Architecture, ArchitectureConfig, Network, Sizes};
use terrabench::model::config::SensorInput;
use terrabench::model::encoder::{Batch, Encoder, Pooling, Want};
use terrabench::model::prithvi2::{Prithvi2, Prithvi2Config};
use terrabench::model::weights::{self, Weights};
use terrabench::task::Sensor;

use crate::common::fixture;
use crate::reference_model::{
    Golden, SENTINEL2, array, assert_gradients, assert_parameters, batch, filled, galileo, images, made_up,
    over_dates, sensors, tensor,
};
use crate::zoo_parity::assert_parity;

/// The backend under test: LibTorch if it is compiled in.
fn device() -> Device {
    device::by_name(if cfg!(feature = "libtorch") { "libtorch" } else { "flex" }).unwrap()
}

fn same(name: &str) -> String {
    name.to_owned()
}

/// Bands that the published evaluation passes to the model, which was trained on B02 B03 B04 B8A B11 B12.
const AS_EVALUATED: &str = "B02 B03 B04 B05 B06 B07";

fn input() -> SensorInput {
    sensors(&[(Sensor::S2_L1C, AS_EVALUATED)]).remove(&Sensor::S2_L1C).unwrap()
}

fn tiny_config() -> Prithvi2Config {
    let map_layers = vec![3];
    Prithvi2Config { width: 48, depth: 4, heads: 3, mlp_ratio: 4, patch: 16, map_layers }
}

fn model(config: &Prithvi2Config, device: &Device) -> Prithvi2 {
    Prithvi2::new(config, &sensors(&[(Sensor::S2_L1C, AS_EVALUATED)]), device)
}

fn tiny(device: &Device) -> Prithvi2 {
    filled(model(&tiny_config(), device), "zoo/prithvi2/tiny.safetensors", same)
}

/// Images [n, rows, columns, bands] from the formula, as [n, bands, rows, columns].
fn bands_last(seed: u64, shape: [usize; 4]) -> Array4<f32> {
    images(seed, shape).permuted_axes([0, 3, 1, 2]).as_standard_layout().into_owned()
}

/// Preprocesses images with thirteen bands as in the published evaluation.
fn prepared(images: &Array4<f32>) -> Batch {
    batch(Sensor::S2_L1C, &input(), &galileo(images, SENTINEL2, &input(), 224), &device())
}

fn pooled(model: &Prithvi2, batch: &Batch) -> ArrayD<f32> {
    array(model.encode(batch, Want::Pooled(Pooling::Mean)).unwrap().pooled().unwrap())
}

fn spatial(model: &Prithvi2, batch: &Batch) -> ArrayD<f32> {
    let (tokens, grid) = model.encode(batch, Want::Tokens).unwrap().tokens().unwrap();
    assert_eq!(grid, [14, 14]);
    array(tokens)
}

#[test]
fn tiny_matches_the_published_code() {
    let mut golden = Golden::open("zoo/prithvi2/tiny_io.safetensors");
    let model = tiny(&device());
    let inputs = [
        ("s2_224", bands_last(1, [1, 224, 224, 13])),
        ("s2_64", bands_last(2, [2, 64, 64, 13])),
        ("s2_32", bands_last(3, [2, 32, 32, 13])),
        ("s2_48x80", bands_last(4, [1, 48, 80, 13])),
        ("s2_256", bands_last(5, [1, 256, 256, 13])),
        ("s2_120", bands_last(6, [1, 120, 120, 13])),
    ];
    for (key, images) in &inputs {
        let batch = prepared(images);
        golden.check(&format!("pool.{key}"), &pooled(&model, &batch), 2e-5, 1e-5);
        let spatial = spatial(&model, &batch);
        golden.check(&format!("spatial.{key}"), &spatial, 5e-5, 1e-5);
        if *key == "s2_224" {
            golden.check("spatial.s2_224.full", &spatial, 5e-5, 1e-5);
        }
        let pixels = batch.inputs[0].pixels.clone();
        golden.check(&format!("patch_embed.{key}"), &array(model.embed(pixels.clone())), 2e-5, 1e-5);
        if ["s2_64", "s2_256"].contains(key) {
            golden.check(&format!("resized.{key}"), &array(pixels), 2e-5, 1e-5);
        }
    }

    // [image, row, column, date, band]
    let series = golden_formula::formula_values(7, &[64 * 64 * 3 * 13]);
    let series = ArrayD::from_shape_vec(vec![1, 64, 64, 3, 13], series).unwrap();
    let date = |date: usize| {
        let images = series.index_axis(Axis(3), date).into_owned().into_dimensionality::<ndarray::Ix4>();
        prepared(&images.unwrap().permuted_axes([0, 3, 1, 2]))
    };
    let dates = [0, 1, 2].map(date);
    for (way, pooled) in over_dates(&dates.each_ref().map(|batch| pooled(&model, batch))) {
        golden.check(&format!("pool.s2_t3.{way}"), &pooled, 2e-5, 1e-5);
    }
    for (way, spatial) in over_dates(&dates.each_ref().map(|batch| spatial(&model, batch))) {
        golden.check(&format!("spatial.s2_t3.{way}"), &spatial, 5e-5, 1e-5);
    }

    let straight = [
        ("s2_64", prepared(&inputs[1].1)),
        ("c6_128", batch(Sensor::S2_L1C, &input(), &images(8, [1, 6, 128, 128]), &device())),
        ("c6_128x160", batch(Sensor::S2_L1C, &input(), &images(9, [1, 6, 128, 160]), &device())),
    ];
    for (key, batch) in &straight {
        let layers = model.layers(batch.inputs[0].pixels.clone(), &[0, 1, 2, 3]);
        for (layer, tokens) in layers.into_iter().enumerate() {
            golden.check(&format!("features{layer}.{key}"), &array(tokens), 5e-5, 1e-5);
        }
    }
    let mut maps = model.encode(&straight[1].1, Want::Maps).unwrap().maps().unwrap();
    assert_eq!((maps.len(), maps[0].stride), (1, 16));
    golden.check("map3.c6_128.full", &array(maps.remove(0).values), 5e-5, 1e-5);
    for (key, grid) in [("224", [14, 14]), ("128", [8, 8]), ("128x160", [8, 10])] {
        golden.check(&format!("pos.{key}"), &array(model.positions(grid, &device())), 1e-6, 1e-5);
    }
    golden.finish("-");
}

#[test]
fn full_size_matches_the_published_code() {
    assert_parity(&["prithvi2-300m"], "tests/zoo_prithvi2.rs", compare_full_size);
}

fn compare_full_size() {
    let mut golden = Golden::open("zoo/prithvi2/full_io.safetensors");
    // Positions are computed, not loaded.
    let config = assert_parameters("prithvi2-300m", "zoo/prithvi2/params_300m.json", "encoder.pos_embed");
    assert_eq!(
        config.clone().in_suite("geobench", terrabench::model::config::Inputs::AsPublished).sensors
            [&Sensor::S2_L1C],
        input()
    );
    let ArchitectureConfig::Prithvi2(config) = config.architecture else {
        panic!("prithvi2-300m is no Prithvi")
    };
    let model = made_up(self::model(&config, &device()), same);
    let batch = prepared(&bands_last(15, [2, 64, 64, 13]));
    let layers = [5, 11, 17, 23];
    for (layer, tokens) in layers.iter().zip(model.layers(batch.inputs[0].pixels.clone(), &layers)) {
        if *layer == 23 {
            let patches = array(tokens.clone().slice_dim(1, 1..));
            golden.check("spatial.300m", &patches, 1e-4, 1e-5);
            // Same as the pooled feature, which the tiny model compares; skipping it saves half of the time.
            golden.check("pool.300m", &patches.mean_axis(Axis(1)).unwrap(), 1e-4, 1e-5);
        }
        golden.check(&format!("features{layer}.300m"), &array(tokens), 2e-4, 1e-5);
    }
    golden.finish("-");
}

/// The official file also contains the decoder and the positions of four dates.
#[test]
fn official_file_loads() {
    let tiny = ArchitectureConfig::Prithvi2(tiny_config());
    let sensors = sensors(&[(Sensor::S2_L1C, AS_EVALUATED)]);
    let network = Architecture::new(&tiny, &sensors, &device()).unwrap();
    let file = Weights::File(fixture("zoo/prithvi2/tiny.safetensors"));
    let (network, _, report) = weights::load(network, &file, false).unwrap();
    assert_eq!(report.taken, None);
    let is_of_pretraining =
        |name: &String| name.starts_with("decoder.") || name.starts_with("encoder.pos_embed");
    assert!(report.unexpected.iter().all(is_of_pretraining), "{report}");
    let batch = prepared(&bands_last(2, [2, 64, 64, 13]));
    let pooled = network.encode(&batch, Want::Pooled(Pooling::Mean)).unwrap().pooled().unwrap();
    let mut golden = Golden::open("zoo/prithvi2/tiny_io.safetensors");
    golden.check("pool.s2_64", &array(pooled), 2e-5, 1e-5);
}

#[test]
fn gradients_are_slopes() {
    let device = Device::flex().autodiff();
    let batch = batch(Sensor::S2_L1C, &input(), &images(9, [1, 6, 64, 96]), &device);
    let names = [
        "encoder.cls_token",
        "encoder.patch_embed.proj.weight",
        "encoder.patch_embed.proj.bias",
        "encoder.blocks.0.attn.qkv.weight",
        "encoder.blocks.3.mlp.fc2.weight",
        "encoder.norm.weight",
    ];
    for pooling in [Pooling::Mean, Pooling::MeanAll, Pooling::Class] {
        assert_gradients(&tiny(&device), same, &batch, Want::Pooled(pooling), &names);
    }
}

#[test]
fn unsuitable_requests_are_errors() {
    let model = self::model(&tiny_config(), &device());
    let refused = |shape: [usize; 4], want: Want| {
        let mut batch = prepared(&Array4::zeros((1, 13, 224, 224)));
        batch.inputs[0].pixels = tensor(&Array4::zeros(shape), &device());
        model.encode(&batch, want).unwrap_err().to_string()
    };
    let message = refused([1, 13, 224, 224], Want::Tokens);
    assert!(message.contains("expected 6 bands, found 13"), "{message}");
    let message = refused([1, 6, 224, 230], Want::Tokens);
    assert!(message.contains("multiples of 16 pixels, found 224 x 230"), "{message}");
    let message = refused([1, 6, 224, 224], Want::Pooled(Pooling::Head));
    assert!(message.contains("pooling `head`"), "{message}");
}

#[test]
fn inconsistent_configurations_are_explained() {
    assert_eq!(tiny_config().problem(), None);
    let narrow = Prithvi2Config { width: 1000, heads: 8, ..tiny_config() };
    assert_eq!(narrow.problem().unwrap(), "width: expected a multiple of 16, found 1000");
}
