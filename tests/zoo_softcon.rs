//! Compares SoftCon with the numbers of the published PyTorch code (tests/fixtures/zoo/softcon).

use burn::tensor::{Device, Tensor};
use ndarray::{Array4, ArrayD};
use terrabench::model::architecture::{ArchitectureConfig, Network, Sizes};
use terrabench::model::encoder::{Batch, Encoder, Pooling, Want};
use terrabench::model::softcon::{SoftCon, SoftConConfig};
use terrabench::task::Sensor;

use crate::reference_model::{
    Golden, SENTINEL2, array, assert_gradients, assert_parameters, batch, filled, galileo, images, made_up,
    over_dates, sensors, series, tensor,
};
use crate::zoo_parity::assert_parity;

const S2: (Sensor, &str) = (Sensor::S2_L1C, SENTINEL2);
const S1: (Sensor, &str) = (Sensor::S1, "VV VH");
const MAP_LAYERS: [usize; 4] = [4, 6, 10, 11];

fn config(width: usize, heads: usize) -> SoftConConfig {
    SoftConConfig { width, depth: 12, heads, positions: 16, map_layers: MAP_LAYERS.to_vec() }
}

fn new(config: &SoftConConfig, sensor: (Sensor, &str), device: &Device) -> SoftCon {
    SoftCon::new(config, &sensors(&[sensor]), device)
}

fn tiny(sensor: (Sensor, &str), device: &Device) -> SoftCon {
    let file = if sensor == S1 { "tiny_s1" } else { "tiny" };
    let file = format!("zoo/softcon/{file}.safetensors");
    filled(new(&config(32, 4), sensor, device), &file, SoftCon::checkpoint_name)
}

fn to_batch(sensor: (Sensor, &str), images: &Array4<f32>) -> Batch {
    batch(sensor.0, &sensors(&[sensor])[&sensor.0], images, &Device::flex())
}

/// Images as preprocessed by Galileo's evaluation.
fn galileo_input(images: &Array4<f32>) -> Array4<f32> {
    galileo(images, SENTINEL2, &sensors(&[S2])[&S2.0], 224)
}

fn pooled(model: &SoftCon, batch: &Batch) -> ArrayD<f32> {
    array(model.encode(batch, Want::Pooled(Pooling::Mean)).unwrap().pooled().unwrap())
}

fn tokens(model: &SoftCon, batch: &Batch) -> ArrayD<f32> {
    let (tokens, grid) = model.encode(batch, Want::Tokens).unwrap().tokens().unwrap();
    assert_eq!(grid, [16, 16]);
    array(tokens)
}

/// Returns the maps, each with the index of its block.
fn maps(model: &SoftCon, batch: &Batch) -> Vec<(usize, ArrayD<f32>)> {
    let maps = model.encode(batch, Want::Maps).unwrap().maps().unwrap();
    assert!(maps.len() == 4 && maps.iter().all(|map| map.stride == 14));
    MAP_LAYERS.into_iter().zip(maps).map(|(layer, map)| (layer, array(map.values))).collect()
}

#[test]
fn tiny_models_give_the_published_numbers() {
    let mut golden = Golden::open("zoo/softcon/tiny_io.safetensors");
    let model = tiny(S2, &Device::flex());

    for (name, seed, shape, stages) in [
        ("s2_64", 1, [2, 13, 64, 64], true),
        ("s2_120", 2, [1, 13, 120, 120], false),
        ("s2_256", 3, [1, 13, 256, 256], false),
        ("s2_40x72", 4, [1, 13, 40, 72], true),
    ] {
        let input = galileo_input(&images(seed, shape));
        let batch = to_batch(S2, &input);
        if stages {
            let embedded = array(model.embed(tensor(&input, &Device::flex())));
            golden.check(&format!("resized.{name}"), &input.into_dyn(), 1e-5, 1e-5);
            golden.check(&format!("patch_embed.{name}"), &embedded, 1e-5, 1e-5);
        }
        golden.check(&format!("pooled.{name}"), &pooled(&model, &batch), 2e-4, 1e-5);
        golden.check(&format!("spatial.{name}"), &tokens(&model, &batch), 2e-4, 1e-5);
    }

    let dates: Vec<ArrayD<f32>> = series(9, [2, 3, 13, 32, 32])
        .iter()
        .map(|images| pooled(&model, &to_batch(S2, &galileo_input(images))))
        .collect();
    for (name, pooled) in over_dates(&dates) {
        golden.check(&format!("pooled.s2_t3.{name}"), &pooled, 2e-4, 1e-5);
    }

    for (name, sensor, seed, shape) in [
        ("cb_s2_224", S2, 5, [2, 13, 224, 224]),
        ("cb_s2_112", S2, 6, [1, 13, 112, 112]),
        ("cb_s2_504", S2, 7, [1, 13, 504, 504]),
        ("cb_s1_224", S1, 8, [2, 2, 224, 224]),
    ] {
        let of_s1 = (sensor == S1).then(|| tiny(S1, &Device::flex()));
        let model = of_s1.as_ref().unwrap_or(&model);
        let batch = to_batch(sensor, &images(seed, shape));
        golden.check(&format!("pooled.{name}"), &pooled(model, &batch), 2e-4, 1e-5);
        for (layer, map) in maps(model, &batch) {
            golden.check(&format!("map{layer}.{name}"), &map, 2e-4, 1e-5);
        }
    }

    for side in [112, 504] {
        golden.check(&format!("pos.{side}"), &array(model.positions(side, side)), 3e-6, 3e-6);
    }
    golden.finish("-");
}

#[test]
fn published_sizes_give_the_published_numbers() {
    let mut golden = Golden::open("zoo/softcon/full_io.safetensors");
    for (size, width, heads) in [("small", 384, 6), ("base", 768, 12)] {
        for (sensor, name) in [(S2, "s2"), (S1, "s1")] {
            let (letter, empty) = (&size[..1], new(&config(width, heads), sensor, &Device::flex()));
            let model = made_up(empty, SoftCon::checkpoint_name);
            let compare = || compare_full_size(&mut golden, size, sensor, &model);
            assert_parity(&[&format!("softcon-{letter}-{name}")], "tests/zoo_softcon.rs", compare);
        }
    }
    golden.finish("-");
}

/// Compares the stored numbers of a full-size model filled by the formula.
fn compare_full_size(golden: &mut Golden, size: &str, sensor: (Sensor, &str), model: &SoftCon) {
    if sensor == S2 {
        let batch = to_batch(S2, &galileo_input(&images(11, [2, 13, 64, 64])));
        let (name, feature) = (format!("pooled.{size}.s2_64"), pooled(model, &batch));
        golden.check(&name, &feature, 1e-4, 1e-5);
        golden.check_rms(&name, &feature, 1e-5);
        golden.check(&format!("spatial.{size}.s2_64"), &tokens(model, &batch), 1e-4, 1e-5);
    }
    let (input, seed, bands) = if sensor == S2 { ("cb_s2_224", 12, 13) } else { ("cb_s1_224", 13, 2) };
    let batch = to_batch(sensor, &images(seed, [2, bands, 224, 224]));
    let (name, feature) = (format!("pooled.{size}.{input}"), pooled(model, &batch));
    golden.check(&name, &feature, 1e-4, 1e-5);
    golden.check_rms(&name, &feature, 1e-5);
    for (layer, map) in maps(model, &batch) {
        golden.check(&format!("map{layer}.{size}.{input}"), &map, 1e-4, 1e-5);
    }
}

#[test]
fn configured_models_have_the_checkpoints_parameters() {
    for (letter, size, width, heads) in [("s", "small", 384, 6), ("b", "base", 768, 12)] {
        for suffix in ["s1", "s2"] {
            let name = format!("softcon-{letter}-{suffix}");
            let list = format!("zoo/softcon/params_{size}_{suffix}.json");
            let model = assert_parameters(&name, &list, "mask_token");
            assert_eq!(model.architecture, ArchitectureConfig::SoftCon(config(width, heads)), "{name}");
            let expected =
                if suffix == "s1" { sensors(&[S1]) } else { sensors(&[S2, (Sensor::S2_L2A, SENTINEL2)]) };
            assert_eq!(model.sensors, expected, "{name}");
            assert_eq!(model.pooling(), Pooling::Mean);
        }
    }
}

#[test]
fn gradients_are_slopes_of_the_pooled_feature() {
    let device = Device::flex().autodiff();
    let model = tiny(S1, &device);
    let batch = batch(S1.0, &sensors(&[S1])[&S1.0], &images(21, [2, 2, 56, 42]), &device);
    let names = [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.ls1.gamma",
        "blocks.5.norm2.bias",
        "blocks.11.ls2.gamma",
        "blocks.11.mlp.fc2.weight",
        "norm.weight",
    ];
    assert_gradients(&model, SoftCon::checkpoint_name, &batch, Want::Pooled(Pooling::Mean), &names);
}

#[test]
fn both_levels_of_sentinel_2_share_the_weights() {
    let inputs = sensors(&[S2, (Sensor::S2_L2A, SENTINEL2)]);
    let model = SoftCon::new(&config(32, 4), &inputs, &Device::flex());
    let model = filled(model, "zoo/softcon/tiny.safetensors", SoftCon::checkpoint_name);
    let images = images(1, [1, 13, 28, 28]);
    let of_level = |level| pooled(&model, &batch(level, &inputs[&level], &images, &Device::flex()));
    assert_eq!(of_level(Sensor::S2_L1C), of_level(Sensor::S2_L2A));
}

#[test]
fn unsuitable_requests_say_what_was_expected() {
    let model = tiny(S1, &Device::flex());
    let error = |sensor, shape: [usize; 4], want| {
        let pixels = Tensor::zeros(shape, &Device::flex());
        let bands = sensors(&[S1])[&S1.0].bands.clone();
        model.encode(&Batch::single(sensor, bands.into(), pixels), want).unwrap_err().to_string()
    };
    for (message, expected) in [
        (error(S1.0, [1, 3, 28, 28], Want::Tokens), "sensor s1: expected 2 bands, found 3"),
        (
            error(S1.0, [1, 2, 28, 32], Want::Maps),
            "expected sides that are multiples of 14 pixels, found 28 x 32",
        ),
        (error(S2.0, [1, 13, 28, 28], Want::Maps), "expected sensor s1, found s2-l1c"),
        (
            error(S1.0, [1, 2, 28, 28], Want::Pooled(Pooling::Head)),
            "expected pooling class or mean or mean-all, found head",
        ),
    ] {
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
}

#[test]
fn inconsistent_configurations_are_explained() {
    assert_eq!(config(384, 6).problem(), None);
    let positions = SoftConConfig { positions: 0, ..config(384, 6) };
    let layers = SoftConConfig { map_layers: vec![3, 12], ..config(384, 6) };
    for (config, problem) in [
        (config(384, 7), "width: expected a multiple of the 7 heads, found 384"),
        (positions, "expected width, depth, heads and positions above 0, found a 0"),
        (layers, "map-layers: expected blocks below 12 (0-based), found 12"),
    ] {
        assert_eq!(config.problem().as_deref(), Some(problem));
    }
}
