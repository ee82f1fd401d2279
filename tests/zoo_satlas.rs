//! Compares Satlas with the numbers of the published code (tests/fixtures/zoo/satlas).

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use terrabench::model::architecture::{Architecture, Network, Sizes};
use terrabench::model::config::SensorInput;
use terrabench::model::encoder::{Batch, Encoder, Pooling, Want};
use terrabench::model::satlas::{self, Satlas, SatlasConfig};
use terrabench::model::weights::{self, Weights};
use terrabench::task::Sensor;
use terrabench::task::bands::Band;

use crate::common::fixture;
use crate::zoo::{
    self, Golden, Tolerance, assert_gradients, assert_parameters_of, device, formula_weights, numbers,
    resized_images, slots, stored_weights,
};
use crate::zoo_parity::assert_parity;

const SIDE: usize = 512;
const MEAN: Want = Want::Pooled(Pooling::Mean);
const OUTPUTS: Tolerance = Tolerance { values: 1e-4, summary: 1e-5 };
const EARLY: Tolerance = Tolerance { values: 1e-5, summary: 1e-5 };

const BANDS: [Band; 9] =
    [Band::B02, Band::B03, Band::B04, Band::B05, Band::B06, Band::B07, Band::B01, Band::B08, Band::B8A];

fn sensors() -> BTreeMap<Sensor, SensorInput> {
    [Sensor::S2_L1C, Sensor::S2_L2A]
        .map(|sensor| (sensor, SensorInput { bands: BANDS.to_vec(), ..Default::default() }))
        .into()
}

const SMALL: SatlasConfig = SatlasConfig { width: 12, depths: [2, 2, 2, 1], heads: [1, 2, 4, 8] };

fn golden_model() -> Satlas {
    let file = Weights::File(fixture("zoo/satlas/tiny.safetensors"));
    let network = Architecture::Satlas(Satlas::new(&SMALL, &sensors(), &device()));
    let Architecture::Satlas(model) = weights::load(network, &file, false).unwrap().0 else { panic!() };
    model
}

fn images(seed: u64, [n, rows, columns]: [usize; 3]) -> Tensor<4> {
    resized_images(seed, [n, 13, rows, columns], &slots(&BANDS), SIDE)
}

fn batch(pixels: Tensor<4>) -> Batch {
    Batch::single(Sensor::S2_L1C, BANDS.as_slice().into(), pixels)
}

#[test]
fn small_model_gives_the_golden_outputs() {
    let golden = Golden::open("zoo/satlas/tiny_io.safetensors");
    let model = golden_model();
    for (name, seed, shape) in [
        ("s2_64", 1, [2, 64, 64]),
        ("s2_120", 2, [1, 120, 120]),
        ("s2_600", 3, [1, 600, 600]),
        ("s2_40x72", 4, [1, 40, 72]),
    ] {
        let batch = batch(images(seed, shape));
        let (tokens, grid) = model.encode(&batch, Want::Tokens).unwrap().tokens().unwrap();
        assert_eq!(grid, [16, 16]);
        golden.compare(&format!("spatial.{name}"), &numbers(tokens), OUTPUTS);
        let pooled = model.encode(&batch, MEAN).unwrap().pooled().unwrap();
        golden.compare(&format!("pooled.{name}"), &numbers(pooled), OUTPUTS);
    }
    // Dates one by one, then the pooling of their features.
    let dates = model.encode(&batch(images(7, [3, 32, 32])), MEAN).unwrap().pooled().unwrap();
    golden.compare("pooled.s2_t3.mean", &numbers(dates.clone().mean_dim(0)), OUTPUTS);
    golden.compare("pooled.s2_t3.max", &numbers(dates.max_dim(0)), OUTPUTS);
    golden.assert_all_compared(|name| name.starts_with("pooled.") || name.starts_with("spatial."));
}

fn compare_stages(golden: &Golden, model: &Satlas, input: &str, images: &Tensor<4>, early: Tolerance) {
    golden.compare(&format!("patch_embed.{input}"), &numbers(model.patch_embed(images.clone())), early);
    let maps = model.encode(&batch(images.clone()), Want::Maps).unwrap().maps().unwrap();
    for (stage, map) in maps.into_iter().enumerate() {
        assert_eq!(map.values.dims()[2..], [SIDE / map.stride; 2]);
        golden.compare(&format!("stage{stage}.{input}"), &numbers(map.values), OUTPUTS);
    }
}

#[test]
fn stages_of_the_small_model_are_the_golden_ones() {
    let golden = Golden::open("zoo/satlas/tiny_io.safetensors");
    let model = golden_model();
    let images = images(1, [2, 64, 64]);
    golden.compare("resized.s2_64", &numbers(images.clone()), EARLY);
    compare_stages(&golden, &model, "s2_64", &images, EARLY);
    golden.compare("position_bias.1.0", &numbers(model.first_position_bias().unwrap()), EARLY);
    let exact = Tolerance { values: 1e-6, summary: 1e-6 };
    golden.compare("coords_table", &satlas::coordinates(), exact);
    golden.assert_all_compared(|name| !name.starts_with("pooled.") && !name.starts_with("spatial."));
}

/// Computed tables, and layers after the last map.
fn is_left_out(name: &str) -> bool {
    name.contains("relative_") || name.starts_with("backbone.norm.") || name.starts_with("backbone.head.")
}

#[test]
fn parameters_are_those_of_the_official_files() {
    assert_parameters_of("satlas-swin-t", "zoo/satlas/params_swin_t.json", is_left_out);
    assert_parameters_of("satlas-swin-b", "zoo/satlas/params_swin_b.json", is_left_out);
}

fn full_size_weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let value: [f64; 2] = if name.ends_with("logit_scale") {
        [2.3, 1.0]
    } else if name.contains("cpb_mlp.0.") {
        [0.0, 1.0]
    } else if name.ends_with(".bias") {
        [0.0, 0.02]
    } else if shape.len() == 1 {
        [1.0, 0.1]
    } else {
        [0.0, 0.08]
    };
    formula_weights(name, shape, value)
}

fn full_size(size: &str, name: &str) {
    let golden = Golden::open("zoo/satlas/full_io.safetensors");
    let model = zoo::model(name).fill(|name, shape| Ok(full_size_weights(name, shape))).unwrap();
    let Architecture::Satlas(model) = model else { panic!() };
    let images = images(11, [2, 64, 64]);
    let input = format!("{size}.s2_64");
    golden.compare(&format!("patch_embed.{input}"), &numbers(model.patch_embed(images.clone())), OUTPUTS);
    let maps = model.encode(&batch(images), Want::Maps).unwrap().maps().unwrap();
    for (stage, map) in maps.iter().enumerate() {
        golden.compare(&format!("stage{stage}.{input}"), &numbers(map.values.clone()), OUTPUTS);
    }
    let tokens = maps[3].values.clone().flatten::<3>(2, 3).swap_dims(1, 2);
    golden.compare(&format!("spatial.{input}"), &numbers(tokens.clone()), OUTPUTS);
    golden.compare(&format!("pooled.{input}"), &numbers(tokens.mean_dim(1)), OUTPUTS);
    golden.assert_all_compared(|name| name.contains(&input));
}

#[test]
fn swin_t_with_formula_weights() {
    assert_parity(&["satlas-swin-t"], "tests/zoo_satlas.rs", || full_size("tiny", "satlas-swin-t"));
}

#[test]
fn swin_b_with_formula_weights() {
    assert_parity(&["satlas-swin-b"], "tests/zoo_satlas.rs", || full_size("base", "satlas-swin-b"));
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let weights = stored_weights("zoo/satlas/tiny.safetensors");
    // Two windows per side in the last map but one, so that blocks are shifted.
    let pixels = resized_images(1, [1, 13, 64, 64], &slots(&BANDS), 256);
    let outputs = |model: &Satlas, device: &Device| {
        model.encode(&batch(pixels.clone().to_device(device)), MEAN).unwrap().pooled().unwrap()
    };
    let names = [
        "backbone.features.0.0.weight",
        "backbone.features.1.1.attn.qkv.weight",
        "backbone.features.3.0.attn.logit_scale",
        "backbone.features.3.1.attn.cpb_mlp.0.weight",
        "backbone.features.2.reduction.weight",
        "backbone.features.5.0.norm1.weight",
        "backbone.features.7.0.mlp.3.bias",
    ];
    assert_gradients(|device| Satlas::new(&SMALL, &sensors(), device), &weights, outputs, &names);
}

#[test]
fn unsuitable_requests_say_what_is_expected() {
    let model = golden_model();
    for (sensor, shape, want, says) in [
        (Sensor::S2_L1C, [1, 13, 512, 512], MEAN, "expected 9 bands, found 13"),
        (Sensor::S2_L1C, [1, 9, 512, 224], MEAN, "multiples of 256 pixels, found 1 of 512 x 224"),
        (
            Sensor::S2_L2A,
            [1, 9, 256, 256],
            Want::Pooled(Pooling::Class),
            "expected pooling mean, found class",
        ),
        (Sensor::S1, [1, 2, 512, 512], MEAN, "expected sensor s2-l1c or s2-l2a, found s1"),
    ] {
        let batch = Batch::single(sensor, Arc::new([]), Tensor::zeros(shape, &device()));
        let said = model.encode(&batch, want).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("help:"), "{said}");
    }
    assert_eq!(SMALL.problem(), None);
    assert!(SatlasConfig { heads: [1, 2, 4, 7], ..SMALL }.problem().unwrap().contains("stage 3"));
    assert!(SatlasConfig { depths: [2, 0, 6, 2], ..SMALL }.problem().is_some());
}
