//! Galileo against the numbers of the published code (tests/fixtures/zoo/galileo), and its published weights on real
//! pixels.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use terrabench::model::config::SensorInput;
use terrabench::model::encoder::{Batch, Context, Encoder, Input, Pooling, Want};
use terrabench::model::galileo::{Galileo, GalileoConfig, Series};
use terrabench::model::parameters;
use terrabench::model::weights::{self, Weights};
use terrabench::nn::flexi;
use terrabench::task::Sensor;
use terrabench::task::bands::Band;

use crate::zoo::{
    self, Golden, Tolerance, assert_close, assert_gradients, assert_parameters, device, filled, formula_weights,
    images_of_rows, numbers, slots, stored_weights,
};
use crate::common::fixture;

const S2: [Band; 10] = [
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

const STORED_SUMMARY: f64 = 1e-6;
const SPATIAL: Tolerance = Tolerance { values: 3e-5, summary: STORED_SUMMARY };
const TABLES: Tolerance = Tolerance { values: 2e-6, summary: STORED_SUMMARY };
const EMBEDDED: Tolerance = Tolerance { values: 1e-5, summary: STORED_SUMMARY };

fn sensors() -> BTreeMap<Sensor, SensorInput> {
    let input = |bands: &[Band]| SensorInput { bands: bands.to_vec() };
    BTreeMap::from([(Sensor::S1, input(&S1)), (Sensor::S2_L1C, input(&S2)), (Sensor::S2_L2A, input(&S2))])
}

fn config(size: &str, patch: usize) -> GalileoConfig {
    let (width, depth, heads) = match size {
        "golden" => (48, 3, 3),
        "nano" => (128, 4, 8),
        "tiny" => (192, 12, 3),
        "base" => (768, 12, 12),
        _ => panic!("{size}"),
    };
    GalileoConfig { width, depth, heads, patch, map_layers: vec![0, depth - 1] }
}

fn empty(size: &str, patch: usize, device: &Device) -> Galileo {
    Galileo::new(&config(size, patch), &sensors(), device)
}

/// The small model with the golden weights.
fn golden_model(patch: usize) -> Galileo {
    let file = Weights::File(fixture("zoo/galileo/tiny.safetensors"));
    weights::load(empty("golden", patch, &device()), &file, false).unwrap().0
}

/// A golden input: formula seed, images, side, dates, sensor.
fn series(seed: u64, n: usize, side: usize, sensor: Sensor, months: &[usize]) -> Series {
    let (bands, channels) = if sensor == Sensor::S1 { (2, vec![0, 1]) } else { (13, slots(&S2)) };
    let dates = images_of_rows(seed, [n, side, side, months.len(), bands], &channels);
    Series { sensor, dates, months: vec![months.to_vec(); n] }
}

fn golden_input(name: &str) -> Series {
    let s2 = |seed, n, side| series(seed, n, side, Sensor::S2_L1C, &[6]);
    match name {
        "s2_64" => s2(1, 2, 64),
        "s2_32" => s2(2, 2, 32),
        "s2_48" => s2(3, 1, 48),
        "s1_32" => series(4, 2, 32, Sensor::S1, &[6]),
        "s2_t3" => series(5, 1, 16, Sensor::S2_L1C, &[0, 5, 11]),
        "s2_40" => s2(6, 1, 40),
        "s2_56" => s2(7, 1, 56),
        "s2_8" => s2(8, 1, 8),
        _ => panic!("{name}"),
    }
}

/// The only date of a series, as a batch without context.
fn batch(series: &Series) -> Batch {
    let bands: &[Band] = if series.sensor == Sensor::S1 { &S1 } else { &S2 };
    Batch::single(series.sensor, bands.into(), series.dates[0].clone())
}

const MEAN: Want = Want::Pooled(Pooling::Mean);

#[test]
fn small_model_gives_the_golden_outputs() {
    let golden = Golden::open("zoo/galileo/tiny_io.safetensors");
    for (name, patches) in [
        ("s2_64", &[4, 8][..]),
        ("s2_32", &[4, 2]),
        ("s2_48", &[3, 6]),
        ("s1_32", &[4, 8]),
        ("s2_t3", &[4]),
        ("s2_40", &[5]),
        ("s2_56", &[7]),
        ("s2_8", &[1]),
    ] {
        let series = golden_input(name);
        for &patch in patches {
            let model = golden_model(patch);
            let key = |what: &str| format!("{what}.{name}.p{patch}");
            let encode = |want| match series.dates.len() {
                1 => model.encode(&batch(&series), want).unwrap(),
                _ => model.encode_series(&series, want).unwrap(),
            };
            let values = if [4, 8].contains(&patch) { 1e-5 } else { 2e-5 };
            let pooled = Tolerance { values, summary: STORED_SUMMARY };
            golden.compare(&key("pooled"), &numbers(encode(MEAN).pooled().unwrap()), pooled);
            let (tokens, grid) = encode(Want::Tokens).tokens().unwrap();
            assert_eq!(grid, [series.dates[0].dims()[2] / patch; 2]);
            golden.compare(&key("spatial"), &numbers(tokens.clone()), SPATIAL);
            // The last block's map is the tokens, channels first.
            let maps = encode(Want::Maps).maps().unwrap();
            assert_eq!((maps.len(), maps[1].stride), (2, patch));
            let map = maps[1].values.clone().flatten::<3>(2, 3).swap_dims(1, 2);
            assert_close("map", &numbers(map), &numbers(tokens), 1e-6);
        }
    }
    let model = golden_model(4);
    let tokens = model.tokens(&golden_input("s2_32")).unwrap();
    let pooled = tokens.mean_dim(1).squeeze_dim::<2>(1);
    golden.compare("nonorm.pooled.s2_32.p4", &numbers(pooled), Tolerance { values: 5e-5, summary: 1e-6 });
    golden.assert_all_compared(|name| {
        ["pooled.", "spatial.", "nonorm."].iter().any(|start| name.starts_with(start))
    });
}

#[test]
fn kernels_embeddings_and_encodings_are_the_golden_ones() {
    let golden = Golden::open("zoo/galileo/tiny_io.safetensors");
    let weights = stored_weights("zoo/galileo/tiny.safetensors");
    for patch in 1..=8 {
        if patch < 8 {
            let inverse: Vec<f32> = flexi::pseudo_inverse(8, patch).into_iter().collect();
            golden.compare(&format!("pinv.p{patch}"), &inverse, TABLES);
        }
        for group in ["S1", "S2_RGB", "S2_SWIR"] {
            let kernel = &weights[&format!("space_time_embed.{group}.proj.weight")];
            let kernel = Tensor::<1>::from_floats(kernel.as_slice(), &device());
            let kernel = kernel.reshape([48, if group == "S2_RGB" { 3 } else { 2 }, 8, 8]);
            let resized = numbers(flexi::resize_kernel(kernel, patch));
            golden.compare(&format!("kernel.{group}.p{patch}"), &resized, TABLES);
        }
    }
    for (name, patch) in [("s2_32", 4), ("s2_32", 8), ("s1_32", 4)] {
        let embedded = golden_model(patch).patch_embed(&golden_input(name)).unwrap();
        golden.compare(&format!("patch_embed.{name}.p{patch}"), &numbers(embedded), EMBEDDED);
    }
    for (side, months, patch) in [(4, &[6][..], 4), (3, &[6], 8), (2, &[0, 5, 11], 4)] {
        let model = golden_model(patch);
        let encodings = model.encodings(Sensor::S2_L1C, [side, side], &[months.to_vec()]).unwrap();
        let name = format!("encodings.{side}x{side}.t{}.p{patch}", months.len());
        golden.compare(&name, &numbers(encodings), TABLES);
    }
    golden.assert_all_compared(|name| {
        ["pinv.", "kernel.", "patch_embed.", "encodings."].iter().any(|start| name.starts_with(start))
    });
}

/// Parts of the official file that no sensor here reaches, and the two computed tables.
fn is_left_out(name: &str) -> bool {
    ["pos_embed", "month_embed.", "sp_channel", "t_channel_", "st_channel", "space_embed.", "time_embed.", "static_embed."]
        .iter()
        .any(|start| name.starts_with(start))
        || name.starts_with("space_time_embed.NDVI.")
}

#[test]
fn parameters_are_those_of_the_official_files() {
    for size in ["nano", "tiny", "base"] {
        let model = empty(size, 4, &device());
        assert_parameters(&model, &format!("zoo/galileo/params_{size}.json"), is_left_out);
    }
    // Without Sentinel-1 there is no convolution for it.
    let sensors = BTreeMap::from([(Sensor::S2_L2A, SensorInput { bands: S2.to_vec() })]);
    let model = Galileo::new(&config("nano", 4), &sensors, &device());
    assert!(parameters::list(&model).iter().all(|(name, _)| !name.starts_with("space_time_embed.S1.")));
}

#[test]
fn computed_tables_are_those_of_the_official_file() {
    let weights = stored_weights("zoo/galileo/tiny.safetensors");
    let months: Vec<usize> = (0..12).collect();
    let model = golden_model(4);
    // [1, 1 place, 12 dates, 1 group, 48]
    let encodings = numbers(model.encodings(Sensor::S1, [1, 1], &[months]).unwrap());
    for (date, token) in encodings.chunks_exact(48).enumerate() {
        assert_close("pos_embed", &token[12..24], &weights["pos_embed"][12 * date..][..12], 1e-7);
        assert_close("month_embed", &token[24..36], &weights["month_embed.weight"][12 * date..][..12], 1e-7);
    }
}

fn full_size_weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let value: fn(f64) -> f64 = if name.contains("channel_embed") {
        |v| v
    } else if name.ends_with(".bias") {
        |v| v * 0.02
    } else if shape.len() == 1 {
        |v| 1.0 + v * 0.1
    } else {
        |v| v * 0.08
    };
    formula_weights(name, shape, value)
}

#[test]
fn published_sizes_with_formula_weights() {
    let golden = Golden::open("zoo/galileo/full_io.safetensors");
    for size in ["nano", "tiny", "base"] {
        let model = empty(size, 4, &device());
        let model = parameters::fill(model, |name, shape| Ok(full_size_weights(name, shape))).unwrap();
        for (name, seed, sensor) in [("s2_64", 11, Sensor::S2_L1C), ("s1_64", 12, Sensor::S1)] {
            let (tokens, _) =
                model.encode(&batch(&series(seed, 2, 64, sensor, &[6])), Want::Tokens).unwrap().tokens().unwrap();
            let pooled = tokens.clone().mean_dim(1).squeeze_dim::<2>(1);
            let tolerance = Tolerance { values: 2e-5, summary: 1e-6 };
            golden.compare(&format!("pooled.{size}.{name}"), &numbers(pooled), tolerance);
            golden.compare(&format!("spatial.{size}.{name}"), &numbers(tokens), tolerance);
        }
    }
    golden.assert_all_compared(|_| true);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let weights = stored_weights("zoo/galileo/tiny.safetensors");
    for (input, names) in [
        (
            "s2_8",
            &[
                "s_t_channel_embed",
                "space_time_embed.S2_RGB.proj.weight",
                "space_time_embed.S2_SWIR.proj.bias",
                "blocks.0.attn.q.weight",
                "blocks.1.attn.v.bias",
                "blocks.1.norm2.weight",
                "blocks.2.mlp.fc1.weight",
                "norm.bias",
            ][..],
        ),
        ("s1_32", &["space_time_embed.S1.proj.weight", "blocks.0.attn.k.weight"]),
    ] {
        let series = golden_input(input);
        let outputs = |model: &Galileo, device: &Device| {
            let mut batch = batch(&series);
            batch.inputs[0].pixels = batch.inputs[0].pixels.clone().to_device(device);
            model.encode(&batch, MEAN).unwrap().pooled().unwrap()
        };
        assert_gradients(|device| empty("golden", 4, device), &weights, outputs, names);
    }
}

#[test]
fn month_of_each_image_comes_from_its_date() {
    let model = golden_model(4);
    let july = golden_input("s2_32");
    let expected = |months: [usize; 2]| {
        let months = months.map(|month| vec![month]).to_vec();
        numbers(model.encode_series(&Series { months, ..july.clone() }, MEAN).unwrap().pooled().unwrap())
    };
    let found = |days: Vec<Option<f64>>| {
        let mut batch = batch(&july);
        batch.inputs[0].context = Context { days, ..Context::default() };
        numbers(model.encode(&batch, MEAN).unwrap().pooled().unwrap())
    };
    // 1 January 1970, and a day that nobody knows.
    assert_close("january and july", &found(vec![Some(0.0), None]), &expected([0, 6]), 1e-6);
    assert_close("july", &found(vec![]), &expected([6, 6]), 1e-6);
}

#[test]
fn requests_that_do_not_fit_say_what_would() {
    let model = golden_model(4);
    let encode = |sensor, shape: [usize; 4], want| {
        let bands: &[Band] = if sensor == Sensor::S1 { &S1 } else { &S2 };
        let error = model.encode(&Batch::single(sensor, bands.into(), Tensor::zeros(shape, &device())), want);
        error.unwrap_err().to_string()
    };
    for (sensor, shape, want, says) in [
        (Sensor::S2_L1C, [1, 13, 8, 8], MEAN, "expected 10 bands of sensor `s2-l1c`, got 13"),
        (Sensor::S2_L1C, [1, 10, 8, 12], MEAN, "got 1 of 8 x 12"),
        (Sensor::S2_L1C, [1, 10, 10, 10], Want::Tokens, "multiple of 4 pixels, got 1 of 10 x 10"),
        (Sensor::S1, [1, 2, 8, 8], Want::Pooled(Pooling::Class), "its poolings (mean), got `class`"),
        ("s3".parse().unwrap(), [1, 2, 8, 8], MEAN, "its sensors (s1, s2-l1c, s2-l2a), got `s3`"),
    ] {
        let said = encode(sensor, shape, want);
        assert!(said.contains(says) && said.contains("help:"), "{said}");
    }
    let silent = Galileo::new(&GalileoConfig { map_layers: vec![], ..config("golden", 4) }, &sensors(), &device());
    let batch = batch(&golden_input("s2_8"));
    let said = silent.encode(&batch, Want::Maps).unwrap_err().to_string();
    assert!(said.contains("map-layers"), "{said}");
    let two = Batch { inputs: [&batch, &batch].map(|batch| batch.inputs[0].clone()).to_vec() };
    assert!(model.encode(&two, MEAN).is_err());
}

#[test]
fn sizes_that_contradict_themselves_are_named() {
    let fits = config("golden", 4);
    assert_eq!(fits.problem(), None);
    for (config, says) in [
        (GalileoConfig { heads: 5, ..fits.clone() }, "multiple of heads 5"),
        (GalileoConfig { width: 24, heads: 3, ..fits.clone() }, "multiple of 16"),
        (GalileoConfig { patch: 9, ..fits.clone() }, "from 1 to 8"),
        (GalileoConfig { depth: 0, map_layers: vec![], ..fits.clone() }, "above 0"),
        (GalileoConfig { map_layers: vec![3], ..fits.clone() }, "below depth 3"),
    ] {
        let problem = config.problem().unwrap();
        assert!(problem.contains(says), "{problem}");
    }
}
