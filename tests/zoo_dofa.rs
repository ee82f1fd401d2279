//! Compares DOFA with the numbers of the published code (tests/fixtures/zoo/dofa).

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use ndarray::{Array3, Axis};
use terrabench::home::Home;
use terrabench::model::Architecture;
use terrabench::model::architecture::{ArchitectureConfig, Network, Sizes};
use terrabench::model::config::{ModelConfig, SensorInput};
use terrabench::model::dofa::{Dofa, DofaConfig, KernelLayout, wavelength_row};
use terrabench::model::encoder::{Batch, Encoder, Pooling, Want};
use terrabench::model::parameters;
use terrabench::model::weights::{self, Weights};
use terrabench::task::bands::Band;
use terrabench::task::{Sensor, Sensors};

use crate::common::fixture;
use crate::zoo::{
    Golden, SLOTS, Tolerance, assert_close, assert_gradients_by, assert_parameters, device, filled,
    formula_weights, numbers, resized_images, slots, stored_weights,
};
use crate::zoo_parity::assert_parity;

const GALILEO: [Band; 9] =
    [Band::B04, Band::B03, Band::B02, Band::B05, Band::B06, Band::B07, Band::B08, Band::B11, Band::B12];
const GALILEO_MICROMETRES: [f64; 9] = [0.665, 0.56, 0.49, 0.705, 0.74, 0.783, 0.842, 1.61, 2.19];
/// Wavelengths of [`SLOTS`] in micrometres.
const MICROMETRES: [f64; 13] =
    [0.44, 0.49, 0.56, 0.665, 0.705, 0.74, 0.783, 0.842, 0.86, 0.94, 1.37, 1.61, 2.19];
const LCZ: [Band; 10] = [
    Band::B02,
    Band::B03,
    Band::B04,
    Band::B05,
    Band::B06,
    Band::B07,
    Band::B08,
    Band::B8A,
    Band::B11,
    Band::B12,
];
const S1: [Band; 2] = [Band::VV, Band::VH];

const FEATURES: Tolerance = Tolerance { values: 6e-4, summary: 3e-5 };
const EMBEDDED: Tolerance = Tolerance { values: 1e-5, summary: 1e-5 };
const POSITIONS: Tolerance = Tolerance { values: 3e-6, summary: 3e-6 };

fn config(size: &str, kernel_layout: KernelLayout) -> DofaConfig {
    let (width, depth, heads, kernel_width, map_layers) = match size {
        "tiny" => (24, 12, 3, 24, vec![3, 5, 7, 11]),
        "base" => (768, 12, 12, 128, vec![3, 5, 7, 11]),
        "large" => (1024, 24, 16, 128, vec![7, 11, 15, 23]),
        _ => panic!("{size}"),
    };
    DofaConfig { width, depth, heads, kernel_width, kernel_layout, map_layers }
}

fn sensors(layout: KernelLayout) -> BTreeMap<Sensor, SensorInput> {
    let (s2, micrometres): (&[Band], &[f64]) = match layout {
        KernelLayout::Flat => (&GALILEO, &GALILEO_MICROMETRES),
        KernelLayout::Permuted => (&SLOTS, &MICROMETRES),
    };
    let input = |bands: &[Band], micrometres: &[f64]| SensorInput {
        bands: bands.to_vec(),
        wavelengths: micrometres.to_vec(),
        ..Default::default()
    };
    BTreeMap::from([(Sensor::S1, input(&S1, &[3.75, 3.75])), (Sensor::S2_L1C, input(s2, micrometres))])
}

fn empty(size: &str, layout: KernelLayout, device: &Device) -> Dofa {
    Dofa::new(&config(size, layout), &sensors(layout), device)
}

fn tiny(layout: KernelLayout) -> Dofa {
    filled(empty("tiny", layout, &device()), &stored_weights("zoo/dofa/tiny.safetensors"))
}

/// The weights of a full-size model, from the golden formula.
fn full(size: &str, layout: KernelLayout) -> Dofa {
    let value = |name: &str, shape: &[usize]| {
        let scale: [f64; 2] = match shape.len() {
            _ if name.ends_with("bias") => [0.0, 0.02],
            1 => [1.0, 0.1],
            _ => [0.0, 0.08],
        };
        Ok(formula_weights(name, shape, scale))
    };
    parameters::fill(empty(size, layout, &device()), value).unwrap()
}

/// A Sentinel-2 or Sentinel-1 image as in Galileo's evaluation.
fn galileo(seed: u64, shape: [usize; 4]) -> Batch {
    let (sensor, bands, channels) = match shape[1] {
        2 => (Sensor::S1, S1.as_slice(), vec![0, 1]),
        _ => (Sensor::S2_L1C, GALILEO.as_slice(), slots(&GALILEO)),
    };
    Batch::single(sensor, bands.into(), resized_images(seed, shape, &channels, 224))
}

/// An image as in Copernicus-Bench: all bands of the task.
fn copernicus(seed: u64, shape: [usize; 4], bands: &[Band]) -> Batch {
    let sensor = if bands == S1 { Sensor::S1 } else { Sensor::S2_L1C };
    let channels: Vec<usize> = (0..shape[1]).collect();
    Batch::single(sensor, bands.into(), resized_images(seed, shape, &channels, shape[2]))
}

fn pooled(model: &Dofa, batch: &Batch, pooling: Pooling) -> Vec<f32> {
    numbers(model.encode(batch, Want::Pooled(pooling)).unwrap().pooled().unwrap())
}

#[test]
fn features_as_in_galileos_evaluation() {
    let golden = Golden::open("zoo/dofa/tiny_io.safetensors");
    let model = tiny(KernelLayout::Flat);
    for (name, seed, shape) in [
        ("s2_64", 1, [2, 13, 64, 64]),
        ("s2_120", 2, [1, 13, 120, 120]),
        ("s2_256", 3, [1, 13, 256, 256]),
        ("s2_40x72", 4, [1, 13, 40, 72]),
        ("s1_64", 5, [2, 2, 64, 64]),
    ] {
        let batch = galileo(seed, shape);
        golden.compare(&format!("pooled.{name}"), &pooled(&model, &batch, Pooling::MeanAll), FEATURES);
        let (tokens, grid) = model.encode(&batch, Want::Tokens).unwrap().tokens().unwrap();
        assert_eq!((tokens.dims(), grid), ([shape[0], 196, 24], [14, 14]));
        golden.compare(&format!("spatial.{name}"), &numbers(tokens), FEATURES);
        if !["s2_120", "s2_256"].contains(&name) {
            golden.compare(&format!("patch_embed.{name}"), &numbers(model.embed(&batch).unwrap()), EMBEDDED);
            golden.compare(&format!("resized.{name}"), &numbers(batch.inputs[0].pixels.clone()), EMBEDDED);
        }
    }
    golden.assert_all_compared(|name| {
        !name.contains("cb")
            && !name.contains("s2_t3")
            && !name.starts_with("pos")
            && !name.starts_with("waves")
    });
}

/// The dates of a series one by one; the golden numbers pool them afterwards.
#[test]
fn series_of_dates() {
    let golden = Golden::open("zoo/dofa/tiny_io.safetensors");
    let model = tiny(KernelLayout::Flat);
    // [2 images, 3 dates, 13 bands, 32, 32], treated as six images.
    let all = pooled(&model, &galileo(15, [6, 13, 32, 32]), Pooling::MeanAll);
    let all = Array3::from_shape_vec((2, 3, 24), all).unwrap();
    let mean: Vec<f32> = all.mean_axis(Axis(1)).unwrap().into_iter().collect();
    let max: Vec<f32> = all.fold_axis(Axis(1), f32::MIN, |a, b| a.max(*b)).into_iter().collect();
    assert_close("pooled.s2_t3.mean", &mean, &golden.get("pooled.s2_t3.mean"), 6e-4);
    assert_close("pooled.s2_t3.max", &max, &golden.get("pooled.s2_t3.max"), 6e-4);
}

#[test]
fn features_as_in_copernicus_bench() {
    let golden = Golden::open("zoo/dofa/tiny_io.safetensors");
    let model = tiny(KernelLayout::Permuted);
    let without_b10: Vec<Band> = SLOTS.into_iter().filter(|band| *band != Band::B10).collect();
    for (name, seed, shape, bands) in [
        ("cb_s2_224", 6, [2, 13, 224, 224], SLOTS.as_slice()),
        ("cb_ben_224", 7, [1, 12, 224, 224], &without_b10),
        ("cb_lcz_112", 8, [2, 10, 112, 112], &LCZ),
        ("cb_s1_224", 9, [2, 2, 224, 224], &S1),
    ] {
        let batch = copernicus(seed, shape, bands);
        golden.compare(&format!("pooled.{name}"), &pooled(&model, &batch, Pooling::Head), FEATURES);
        golden.compare(&format!("patch_embed.{name}"), &numbers(model.embed(&batch).unwrap()), EMBEDDED);
    }
    for (name, seed, shape, bands, side) in [
        ("cbseg_s2_256", 10, [1, 13, 256, 256], SLOTS.as_slice(), 16),
        ("cbseg_s2_512", 13, [1, 13, 512, 512], &SLOTS, 32),
        ("cbseg_s1_224", 14, [1, 2, 224, 224], &S1, 14),
    ] {
        let maps = model.encode(&copernicus(seed, shape, bands), Want::Maps).unwrap().maps().unwrap();
        assert_eq!(maps.len(), 4);
        for (layer, map) in [3, 5, 7, 11].into_iter().zip(maps) {
            assert_eq!((map.values.dims(), map.stride), ([1, 24, side, side], 16));
            golden.compare(&format!("map{layer}.{name}"), &numbers(map.values), FEATURES);
        }
    }
    golden.assert_all_compared(|name| name.contains("cb") && !name.starts_with("waves"));
}

#[test]
fn positions_and_wavelengths() {
    let golden = Golden::open("zoo/dofa/tiny_io.safetensors");
    let model = tiny(KernelLayout::Permuted);
    for (pixels, side) in [(112, 7), (256, 16), (512, 32)] {
        golden.compare(&format!("pos.{pixels}"), &numbers(model.positions(side)), POSITIONS);
    }
    for (name, micrometres) in
        [("s2", GALILEO_MICROMETRES.as_slice()), ("s1", &[3.75, 3.75]), ("cb_s2", &MICROMETRES)]
    {
        let name = format!("waves.{name}");
        let rows: Vec<f32> =
            micrometres.iter().flat_map(|um| wavelength_row((um * 1000.0) as f32, 128)).collect();
        assert_close(&name, &rows, &golden.get(&name), 2e-4);
    }
    golden.assert_all_compared(|name| name.starts_with("pos") || name.starts_with("waves"));
}

/// Compares the feature of the first of two images with the golden one.
#[track_caller]
fn assert_first_image(golden: &Golden, name: &str, found: &[f32]) {
    let expected = &golden.get(name)[..found.len()];
    assert_close(name, found, expected, 5e-4);
    let squares = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let rms = (squares / expected.len() as f64).sqrt();
    assert!(rms < 1e-4, "{name} differs by {rms:e} (root mean square)");
}

#[test]
fn full_sizes_as_in_galileos_evaluation() {
    let golden = Golden::open("zoo/dofa/full_io.safetensors");
    let inputs = [("s2_64", galileo(11, [1, 13, 64, 64])), ("s1_64", galileo(12, [1, 2, 64, 64]))];
    for (name, size) in [("dofa-b", "base"), ("dofa-l", "large")] {
        let model = full(size, KernelLayout::Flat);
        assert_parity(&[name], "tests/zoo_dofa.rs", || {
            for (name, batch) in &inputs {
                let found = pooled(&model, batch, Pooling::MeanAll);
                assert_first_image(&golden, &format!("pooled.{size}.{name}"), &found);
            }
        });
    }
}

#[test]
fn base_as_in_copernicus_bench() {
    assert_parity(&["dofa-b-permuted"], "tests/zoo_dofa.rs", compare_base_of_copernicus_bench);
}

fn compare_base_of_copernicus_bench() {
    let golden = Golden::open("zoo/dofa/full_io.safetensors");
    let model = full("base", KernelLayout::Permuted);
    let [s2, s1] = [(13, 13, SLOTS.as_slice()), (14, 2, &S1)]
        .map(|(seed, channels, bands)| copernicus(seed, [1, channels, 224, 224], bands));
    let maps = model.encode(&s2, Want::Maps).unwrap().maps().unwrap();
    for (layer, map) in [3, 5, 7, 11].into_iter().zip(maps) {
        let name = format!("map{layer}.base.cb_s2_224.first64");
        assert_close(&name, &numbers(map.values)[..64], &golden.get(&name), 5e-4);
    }
    for (name, batch) in [("cb_s2_224", s2), ("cb_s1_224", s1)] {
        let found = pooled(&model, &batch, Pooling::Head);
        assert_first_image(&golden, &format!("pooled.base.{name}"), &found);
    }
}

#[test]
fn parameters_are_the_official_ones() {
    let ignored = |name: &str| {
        ["norm.weight", "norm.bias", "mask_token", "projector.weight", "projector.bias"].contains(&name)
    };
    for size in ["base", "large"] {
        let model = empty(size, KernelLayout::Flat, &device());
        assert_parameters(&model, &format!("zoo/dofa/params_{size}.json"), ignored);
    }
}

#[test]
fn a_checkpoint_may_contain_pretraining_parameters() {
    let file = Weights::File(fixture("zoo/dofa/tiny.safetensors"));
    let model = Architecture::Dofa(empty("tiny", KernelLayout::Flat, &device()));
    let (_, _, report) = weights::load(model, &file, false).unwrap();
    assert_eq!((report.loaded.len(), report.unexpected.len()), (168, 5), "{report}");
}

#[test]
fn configurations_describe_the_golden_models() {
    for (name, size, layout) in [
        ("dofa-b", "base", KernelLayout::Flat),
        ("dofa-l", "large", KernelLayout::Flat),
        ("dofa-b-permuted", "base", KernelLayout::Permuted),
    ] {
        let found = ModelConfig::load(&Home::find().unwrap(), name).unwrap();
        assert_eq!(found.architecture, ArchitectureConfig::Dofa(config(size, layout)), "{name}");
        let expected = sensors(layout);
        assert_eq!(found.sensors[&Sensor::S1], expected[&Sensor::S1], "{name}");
        for sensor in [Sensor::S2_L1C, Sensor::S2_L2A] {
            assert_eq!(found.sensors[&sensor], expected[&Sensor::S2_L1C], "{name}, {sensor}");
        }
        let built = Architecture::new(&found.architecture, &found.sensors, &device()).unwrap();
        let listed = parameters::list(&empty(size, layout, &device()));
        assert_eq!(built.parameters(), listed, "{name}");
    }
}

/// Stored kernels give the same features, also for a second batch and for fewer bands.
#[test]
fn the_frozen_model_gives_the_same_features() {
    let model = tiny(KernelLayout::Permuted);
    let frozen = tiny(KernelLayout::Permuted).frozen();
    let want = Want::Pooled(Pooling::Head);
    for batch in [
        copernicus(6, [2, 13, 112, 112], &SLOTS),
        copernicus(7, [2, 13, 112, 112], &SLOTS),
        copernicus(8, [1, 10, 112, 112], &LCZ),
        copernicus(9, [1, 2, 112, 112], &S1),
    ] {
        let found = numbers(frozen.encode(&batch, want).unwrap().pooled().unwrap());
        assert_close("frozen", &found, &pooled(&model, &batch, Pooling::Head), 1e-5);
    }
}

#[test]
fn gradients_reach_the_kernel_maker() {
    let weights = stored_weights("zoo/dofa/tiny.safetensors");
    let pixels = galileo(1, [1, 13, 64, 64]).inputs[0].pixels.clone().into_data();
    for layout in [KernelLayout::Flat, KernelLayout::Permuted] {
        let outputs = |model: &Dofa, device: &Device| {
            let pixels = Tensor::from_data(pixels.clone(), device);
            let batch = Batch::single(Sensor::S2_L1C, GALILEO.as_slice().into(), pixels);
            model.encode(&batch, Want::Pooled(Pooling::MeanAll)).unwrap().pooled().unwrap()
        };
        let names = [
            "patch_embed.fclayer.w1.weight",
            "patch_embed.weight_generator.weight_tokens",
            "patch_embed.weight_generator.bias_token",
            "patch_embed.weight_generator.transformer_encoder.layers.0.self_attn.in_proj_weight",
            "patch_embed.weight_generator.transformer_encoder.layers.0.linear1.weight",
            "patch_embed.weight_generator.fc_weight.weight",
            "patch_embed.weight_generator.fc_bias.bias",
            "pos_embed",
            "cls_token",
            "blocks.11.norm1.weight",
        ];
        assert_gradients_by(0.004, |device| empty("tiny", layout, device), &weights, outputs, &names);
    }
}

#[test]
fn the_order_of_bands_only_matters_in_the_flat_layout() {
    let batch = copernicus(6, [1, 13, 112, 112], &SLOTS);
    let backwards: Vec<Band> = SLOTS.into_iter().rev().collect();
    let turned = Batch::single(Sensor::S2_L1C, backwards.into(), batch.inputs[0].pixels.clone().flip([1]));

    let permuted = tiny(KernelLayout::Permuted);
    let [one, other] = [&batch, &turned].map(|batch| pooled(&permuted, batch, Pooling::Head));
    assert_close("bands turned round", &one, &other, 2e-5);

    let flat = tiny(KernelLayout::Flat);
    let found = flat.encode(&turned, Want::Tokens).unwrap_err().to_string();
    assert!(found.contains("expected bands B04 B03 B02"), "{found}");
}

#[test]
fn unsuitable_requests_are_errors() {
    let model = tiny(KernelLayout::Permuted);
    let zeros = |shape| Tensor::zeros(shape, &device());
    let single = |sensor, bands: &[Band], shape| Batch::single(sensor, bands.into(), zeros(shape));
    for (batch, want, says) in [
        (single(Sensor::S2_L2A, &SLOTS, [1, 13, 32, 32]), Want::Tokens, "expected sensor s1 or s2-l1c"),
        (single(Sensor::S1, &S1, [1, 3, 32, 32]), Want::Tokens, "expected 2 bands, found 3"),
        (single(Sensor::S1, &[Band::VV, Band::B02], [1, 2, 32, 32]), Want::Maps, "found B02"),
        (single(Sensor::S1, &S1, [1, 2, 32, 48]), Want::Tokens, "found 32 x 48"),
        (single(Sensor::S1, &S1, [1, 2, 8, 8]), Want::Tokens, "at least 14 x 14 pixels, found 8 x 8"),
        (single(Sensor::S1, &S1, [1, 2, 32, 32]), Want::Pooled(Pooling::Class), "mean-all or head or mean"),
    ] {
        let found = model.encode(&batch, want).unwrap_err().to_string();
        assert!(found.contains(says), "{found}");
    }
    let smallest = single(Sensor::S1, &S1, [1, 2, 14, 14]);
    assert_eq!(pooled(&model, &smallest, Pooling::MeanAll).len(), 24);

    let contradiction = DofaConfig { heads: 5, ..config("tiny", KernelLayout::Flat) }.problem();
    assert_eq!(contradiction.unwrap(), "width: expected a multiple of the 5 heads, found 24");
    assert_eq!(config("large", KernelLayout::Flat).problem(), None);
}

#[test]
fn wavelengths_that_a_model_leaves_out_are_those_of_the_sensors_file() {
    let home = Home::find().unwrap();
    let own = std::fs::read_to_string(home.path("configs/models/dofa-b-permuted.toml")).unwrap();
    let without: String =
        own.lines().filter(|line| !line.starts_with("wavelengths")).map(|line| format!("{line}\n")).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, without).unwrap();
    let config = ModelConfig::load(&home, path.to_str().unwrap()).unwrap();
    let sensors = Sensors::load(&home).unwrap();
    for sensor in [Sensor::S2_L1C, Sensor::S1] {
        let input = &config.sensors[&sensor];
        let described = |band: &Band| sensors.band(sensor, *band).unwrap().wavelength_um.unwrap();
        let expected: Vec<f64> = input.bands.iter().map(described).collect();
        assert_eq!(input.wavelengths, expected, "{sensor}");
    }
    // Those of its own stay.
    let config = ModelConfig::load(&home, "dofa-b-permuted").unwrap();
    assert_eq!(config.sensors[&Sensor::S2_L1C].wavelengths, MICROMETRES);
}
