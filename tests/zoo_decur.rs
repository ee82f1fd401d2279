//! Compares DeCUR with the numbers of the published PyTorch code (tests/fixtures/zoo/decur).

use burn::tensor::{Device, Tensor};
use ndarray::{Array4, ArrayD};
use terrabench::model::architecture::{ArchitectureConfig, Network};
use terrabench::model::decur::{Decur, DecurConfig};
use terrabench::model::encoder::{Batch, Encoder, Pooling, Want};
use terrabench::task::Sensor;

use crate::reference_model::{
    Golden, SENTINEL2, array, assert_gradients, assert_parameters, batch, filled, galileo, images, made_up,
    over_dates, sensors, series, tensor,
};
use crate::zoo_parity::assert_parity;

const S2: (Sensor, &str) = (Sensor::S2_L1C, SENTINEL2);
const S1: (Sensor, &str) = (Sensor::S1, "VV VH");

fn small() -> DecurConfig {
    DecurConfig { width: 384, depth: 12, heads: 6, positions: 14, map_layers: vec![3, 5, 7, 11] }
}

fn new(config: &DecurConfig, sensor: (Sensor, &str), device: &Device) -> Decur {
    Decur::new(config, &sensors(&[sensor]), device)
}

fn tiny(sensor: (Sensor, &str), device: &Device) -> Decur {
    let config = DecurConfig { width: 32, depth: 6, heads: 4, positions: 14, map_layers: vec![2, 5] };
    let file = if sensor == S1 { "tiny_s1" } else { "tiny" };
    let file = format!("zoo/decur/{file}.safetensors");
    filled(new(&config, sensor, device), &file, Decur::checkpoint_name)
}

/// Images as preprocessed by Galileo's evaluation.
fn galileo_input(sensor: (Sensor, &str), images: &Array4<f32>) -> Array4<f32> {
    galileo(images, sensor.1, &sensors(&[sensor])[&sensor.0], 224)
}

fn to_batch(sensor: (Sensor, &str), images: &Array4<f32>) -> Batch {
    batch(sensor.0, &sensors(&[sensor])[&sensor.0], images, &Device::flex())
}

fn pooled(model: &Decur, batch: &Batch) -> ArrayD<f32> {
    array(model.encode(batch, Want::Pooled(Pooling::MeanAll)).unwrap().pooled().unwrap())
}

fn tokens(model: &Decur, batch: &Batch) -> ArrayD<f32> {
    let (tokens, grid) = model.encode(batch, Want::Tokens).unwrap().tokens().unwrap();
    assert_eq!(grid, [14, 14]);
    array(tokens)
}

#[test]
fn tiny_models_give_the_published_numbers() {
    let mut golden = Golden::open("zoo/decur/tiny_io.safetensors");
    let models = [S2, S1].map(|sensor| tiny(sensor, &Device::flex()));
    let model = |sensor| &models[usize::from(sensor == S1)];

    for (name, sensor, seed, shape, stages) in [
        ("s2_64", S2, 1, [2, 13, 64, 64], true),
        ("s2_120", S2, 2, [1, 13, 120, 120], false),
        ("s2_256", S2, 3, [1, 13, 256, 256], false),
        ("s2_40x72", S2, 4, [1, 13, 40, 72], true),
        ("s1_64", S1, 5, [2, 2, 64, 64], true),
        ("s1_120", S1, 6, [1, 2, 120, 120], false),
    ] {
        let input = galileo_input(sensor, &images(seed, shape));
        let batch = to_batch(sensor, &input);
        if stages {
            let embedded = array(model(sensor).embed(tensor(&input, &Device::flex())));
            golden.check(&format!("resized.{name}"), &input.into_dyn(), 1e-5, 1e-5);
            golden.check(&format!("patch_embed.{name}"), &embedded, 1e-5, 1e-5);
        }
        golden.check(&format!("pooled.{name}"), &pooled(model(sensor), &batch), 1e-4, 1e-5);
        golden.check(&format!("spatial.{name}"), &tokens(model(sensor), &batch), 1e-4, 1e-5);
    }

    for (name, sensor, seed, bands) in [("s2_t3", S2, 7, 13), ("s1_t3", S1, 8, 2)] {
        let dates: Vec<ArrayD<f32>> = series(seed, [2, 3, bands, 32, 32])
            .iter()
            .map(|images| pooled(model(sensor), &to_batch(sensor, &galileo_input(sensor, images))))
            .collect();
        for (pooling, pooled) in over_dates(&dates) {
            golden.check(&format!("pooled.{name}.{pooling}"), &pooled, 1e-4, 1e-5);
        }
    }
    golden.finish("-");
}

#[test]
fn published_size_gives_the_published_numbers() {
    let mut golden = Golden::open("zoo/decur/full_io.safetensors");
    for (name, sensor, input, seed, bands) in
        [("decur-s-s2", S2, "s2_64", 11, 13), ("decur-s-s1", S1, "s1_64", 12, 2)]
    {
        assert_parity(&[name], "tests/zoo_decur.rs", || {
            let model = made_up(new(&small(), sensor, &Device::flex()), Decur::checkpoint_name);
            let batch = to_batch(sensor, &galileo_input(sensor, &images(seed, [2, bands, 64, 64])));
            let (name, feature) = (format!("pooled.small.{input}"), pooled(&model, &batch));
            golden.check(&name, &feature, 1e-4, 1e-5);
            golden.check_rms(&name, &feature, 1e-5);
            golden.check(&format!("spatial.small.{input}"), &tokens(&model, &batch), 1e-4, 1e-5);
        });
    }
    golden.finish("-");
}

#[test]
fn configured_models_have_the_checkpoints_parameters() {
    for suffix in ["s1", "s2"] {
        let name = format!("decur-s-{suffix}");
        let model = assert_parameters(&name, &format!("zoo/decur/params_small_{suffix}.json"), "head.");
        assert_eq!(model.architecture, ArchitectureConfig::Decur(small()), "{name}");
        let expected =
            if suffix == "s1" { sensors(&[S1]) } else { sensors(&[S2, (Sensor::S2_L2A, SENTINEL2)]) };
        assert_eq!(model.sensors, expected, "{name}");
        assert_eq!(model.pooling(), Pooling::MeanAll);
    }
}

#[test]
fn the_last_map_consists_of_the_tokens() {
    let model = tiny(S1, &Device::flex());
    let batch = to_batch(S1, &images(5, [2, 2, 224, 224]));
    let maps = model.encode(&batch, Want::Maps).unwrap().maps().unwrap();
    assert_eq!(maps.iter().map(|map| map.stride).collect::<Vec<_>>(), [16, 16]);
    let tokens = model.encode(&batch, Want::Tokens).unwrap().tokens().unwrap().0;
    let last = maps[1].values.clone().reshape([2, 32, 196]).swap_dims(1, 2);
    assert_eq!(array(last), array(tokens));
}

#[test]
fn gradients_are_slopes_of_the_pooled_feature() {
    let device = Device::flex().autodiff();
    let model = tiny(S1, &device);
    let batch = batch(S1.0, &sensors(&[S1])[&S1.0], &images(21, [1, 2, 224, 224]), &device);
    let names = [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.3.norm1.weight",
        "blocks.5.mlp.fc1.bias",
        "norm.bias",
    ];
    assert_gradients(&model, Decur::checkpoint_name, &batch, Want::Pooled(Pooling::MeanAll), &names);
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
        (error(S1.0, [1, 13, 224, 224], Want::Tokens), "sensor s1: expected 2 bands, found 13"),
        (error(S1.0, [1, 2, 112, 112], Want::Maps), "expected 224 x 224 pixels, found 112 x 112"),
        (error(S2.0, [1, 13, 224, 224], Want::Maps), "expected sensor s1, found s2-l1c"),
    ] {
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
}
