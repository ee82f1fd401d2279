//! Compares MMEarth with the numbers of the published code (tests/fixtures/zoo/mmearth).

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use terrabench::model::architecture::{Architecture, Network, Sizes};
use terrabench::model::config::SensorInput;
use terrabench::model::encoder::{Batch, Encoder, Pooling, Want};
use terrabench::model::mmearth::{MmEarth, MmEarthConfig};
use terrabench::model::weights::{self, Weights};
use terrabench::task::Sensor;
use terrabench::task::bands::Band;

use crate::common::fixture;
use crate::zoo::{
    self, Golden, SLOTS, Tolerance, assert_gradients, assert_parameters_of, device, formula_weights, numbers,
    resized_images, slots, weights_of,
};
use crate::zoo_parity::assert_parity;

const SIDE: usize = 112;
const MEAN: Want = Want::Pooled(Pooling::Mean);
const OUTPUTS: Tolerance = Tolerance { values: 2e-4, summary: 1e-5 };

/// All bands except B10.
fn bands() -> Vec<Band> {
    SLOTS.into_iter().filter(|band| *band != Band::B10).collect()
}

fn sensors() -> BTreeMap<Sensor, SensorInput> {
    [Sensor::S2_L1C, Sensor::S2_L2A]
        .map(|sensor| (sensor, SensorInput { bands: bands(), ..Default::default() }))
        .into()
}

const SMALL: MmEarthConfig = MmEarthConfig { widths: [16, 24, 32, 40], depths: [2, 2, 3, 2] };

fn golden_model() -> MmEarth {
    let file = Weights::File(fixture("zoo/mmearth/tiny.pth"));
    let network = Architecture::MmEarth(MmEarth::new(&SMALL, &sensors(), &device()));
    let Architecture::MmEarth(model) = weights::load(network, &file, false).unwrap().0 else { panic!() };
    model
}

fn images(seed: u64, [n, rows, columns]: [usize; 3]) -> Tensor<4> {
    resized_images(seed, [n, 13, rows, columns], &slots(&bands()), SIDE)
}

fn batch(pixels: Tensor<4>) -> Batch {
    Batch::single(Sensor::S2_L1C, bands().into(), pixels)
}

#[test]
fn small_model_gives_the_golden_outputs() {
    let golden = Golden::open("zoo/mmearth/tiny_io.safetensors");
    let model = golden_model();
    for (name, seed, shape) in [
        ("s2_64", 1, [2, 64, 64]),
        ("s2_120", 2, [1, 120, 120]),
        ("s2_256", 3, [1, 256, 256]),
        ("s2_40x72", 4, [1, 40, 72]),
        ("s2_112", 5, [1, 112, 112]),
    ] {
        let batch = batch(images(seed, shape));
        let pooled = model.encode(&batch, MEAN).unwrap().pooled().unwrap();
        golden.compare(&format!("pooled.{name}"), &numbers(pooled), OUTPUTS);
        let (tokens, grid) = model.encode(&batch, Want::Tokens).unwrap().tokens().unwrap();
        assert_eq!(grid, [7, 7]);
        golden.compare(&format!("spatial.{name}"), &numbers(tokens), OUTPUTS);
    }
    // Dates one by one: [2 images, 3 dates], then the pooling of their features.
    let dates = model.encode(&batch(images(7, [6, 32, 32])), MEAN).unwrap().pooled().unwrap();
    let dates = dates.reshape([2, 3, 40]);
    golden.compare("pooled.s2_t3.mean", &numbers(dates.clone().mean_dim(1)), OUTPUTS);
    golden.compare("pooled.s2_t3.max", &numbers(dates.max_dim(1)), OUTPUTS);
    golden.assert_all_compared(|name| name.starts_with("pooled.") || name.starts_with("spatial."));
}

fn compare_stages(golden: &Golden, model: &MmEarth, input: &str, seed: u64, tolerance: Tolerance) {
    let images = images(seed, [2, 64, 64]);
    let initial = model.initial(images.clone());
    assert_eq!(initial.dims()[2..], [110, 110]);
    golden.compare(&format!("initial_conv.{input}"), &numbers(initial.clone()), tolerance);
    golden.compare(&format!("stem.{input}"), &numbers(model.stem(initial)), tolerance);
    let maps = model.encode(&batch(images), Want::Maps).unwrap().maps().unwrap();
    for (stage, map) in maps.into_iter().enumerate() {
        assert_eq!(map.values.dims()[2..], [SIDE / map.stride; 2]);
        golden.compare(&format!("stage{stage}.{input}"), &numbers(map.values), tolerance);
    }
}

#[test]
fn stages_of_the_small_model_are_the_golden_ones() {
    let golden = Golden::open("zoo/mmearth/tiny_io.safetensors");
    let resized = Tolerance { values: 1e-5, summary: 1e-5 };
    golden.compare("resized.s2_64", &numbers(images(1, [2, 64, 64])), resized);
    compare_stages(&golden, &golden_model(), "s2_64", 1, OUTPUTS);
    golden.assert_all_compared(|name| !name.starts_with("pooled.") && !name.starts_with("spatial."));
}

#[test]
fn parameters_are_those_of_the_official_file() {
    assert_parameters_of("mmearth-atto", "zoo/mmearth/params_atto.json", |_| false);
}

/// The values of an official parameter. The formula uses the name and layout of the dense model.
fn full_size_weights(official: &str, shape: &[usize]) -> Vec<f32> {
    let name = official.trim_start_matches("encoder.").replace(".ln.", ".").replace(".linear.", ".");
    let name = name.replace(".kernel", ".weight");
    let rank_1 = !name.contains("grn.") && (shape.len() == 1 || name.ends_with(".bias"));
    let value: [f64; 2] = if name.ends_with("grn.gamma") {
        [0.0, 1.0]
    } else if name.ends_with(".bias") || name.ends_with("grn.beta") {
        [0.0, 0.02]
    } else if rank_1 {
        [1.0, 0.1]
    } else if name.contains("pwconv1.") || name.contains("dwconv.") {
        [0.0, 0.4]
    } else if name.contains("pwconv2.") {
        [0.0, 0.1]
    } else {
        [0.0, 0.08]
    };
    let dense = formula_weights(&name, shape, value);
    if !official.ends_with(".kernel") {
        return dense;
    }
    // From [out, in, row, column] to [column, row, in, out], or from [C, 1, row, column] to [column, row, C].
    let (into, out) = if shape.len() == 3 { (shape[1], shape[2]) } else { (1, shape[1]) };
    let side = shape[0].isqrt();
    let mut kernel = Vec::with_capacity(dense.len());
    for (column, row) in (0..side).flat_map(|column| (0..side).map(move |row| (column, row))) {
        for (i, o) in (0..into).flat_map(|i| (0..out).map(move |o| (i, o))) {
            kernel.push(dense[((o * into + i) * side + row) * side + column]);
        }
    }
    kernel
}

#[test]
fn published_size_with_formula_weights() {
    assert_parity(&["mmearth-atto"], "tests/zoo_mmearth.rs", compare_full_size);
}

fn compare_full_size() {
    let golden = Golden::open("zoo/mmearth/full_io.safetensors");
    let model = zoo::model("mmearth-atto").fill(|name, shape| Ok(full_size_weights(name, shape))).unwrap();
    let Architecture::MmEarth(model) = model else { panic!() };
    let tolerance = Tolerance { values: 1e-4, summary: 1e-5 };
    compare_stages(&golden, &model, "atto.s2_64", 11, tolerance);
    let (tokens, _) = model.encode(&batch(images(11, [2, 64, 64])), Want::Tokens).unwrap().tokens().unwrap();
    let pooled = tokens.clone().mean_dim(1).squeeze_dim::<2>(1);
    golden.compare("spatial.atto.s2_64", &numbers(tokens), tolerance);
    golden.compare("pooled.atto.s2_64", &numbers(pooled), tolerance);
    golden.assert_all_compared(|_| true);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let weights = weights_of(&golden_model());
    let pixels = resized_images(1, [1, 13, 64, 64], &slots(&bands()), 32);
    let outputs = |model: &MmEarth, device: &Device| {
        model.encode(&batch(pixels.clone().to_device(device)), MEAN).unwrap().pooled().unwrap()
    };
    let names = [
        "encoder.initial_conv.0.kernel",
        "encoder.stem.0.kernel",
        "encoder.stages.0.0.dwconv.kernel",
        "encoder.stages.1.1.grn.gamma",
        "encoder.stages.2.0.pwconv1.linear.weight",
        "encoder.downsample_layers.1.1.kernel",
        "encoder.stages.3.1.pwconv2.linear.bias",
    ];
    assert_gradients(|device| MmEarth::new(&SMALL, &sensors(), device), &weights, outputs, &names);
}

#[test]
fn unsuitable_requests_say_what_is_expected() {
    let model = golden_model();
    for (sensor, shape, want, says) in [
        (Sensor::S2_L1C, [1, 13, 112, 112], MEAN, "expected 12 bands, found 13"),
        (Sensor::S2_L1C, [1, 12, 112, 15], MEAN, "at least 16 pixels, found 112 x 15"),
        (Sensor::S2_L2A, [1, 12, 16, 16], Want::Pooled(Pooling::Class), "expected pooling mean, found class"),
        (Sensor::S1, [1, 2, 112, 112], MEAN, "expected sensor s2-l1c or s2-l2a, found s1"),
    ] {
        let batch = Batch::single(sensor, Arc::new([]), Tensor::zeros(shape, &device()));
        let said = model.encode(&batch, want).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("help:"), "{said}");
    }
    let smallest = batch(Tensor::zeros([1, 12, 16, 16], &device()));
    assert_eq!(model.encode(&smallest, MEAN).unwrap().pooled().unwrap().dims(), [1, 40]);
    assert!(MmEarthConfig { depths: [2, 2, 0, 2], ..SMALL }.problem().is_some());
    assert_eq!(SMALL.problem(), None);
}
