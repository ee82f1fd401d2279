//! Compares Galileo with the numbers of the published code (tests/fixtures/zoo/galileo), and its published weights on real
//! pixels.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use terrabench::features::FeatureBank;
use terrabench::home::Home;
use terrabench::model::architecture::{Architecture, ArchitectureConfig, Network, Sizes};
use terrabench::model::config::{ModelConfig, SensorInput};
use terrabench::model::encoder::{Batch, Context, Encoder, Input, Pooling, Want};
use terrabench::model::galileo::{Galileo, GalileoConfig};
use terrabench::model::parameters;
use terrabench::model::weights::{self, Weights};
use terrabench::nn::{cubic, flexi};
use terrabench::task::bands::Band;
use terrabench::task::{Sensor, Split};

use crate::common::fixture;
use crate::zoo::{
    self, Golden, Tolerance, assert_close, assert_gradients, assert_parameters_of, device, formula_weights,
    images_of_rows, numbers, slots, stored_weights,
};
use crate::zoo_parity::assert_parity;
use crate::zoo_real::{self, Neighbourhoods, RealModel};

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
    let input = |bands: &[Band]| SensorInput { bands: bands.to_vec(), ..Default::default() };
    BTreeMap::from([(Sensor::S1, input(&S1)), (Sensor::S2_L1C, input(&S2)), (Sensor::S2_L2A, input(&S2))])
}

/// The sizes of the small model.
fn config(patch: usize) -> GalileoConfig {
    GalileoConfig { width: 48, depth: 3, heads: 3, patch, map_layers: vec![0, 2] }
}

fn empty(patch: usize, device: &Device) -> Galileo {
    Galileo::new(&config(patch), &sensors(), device)
}

/// The small model with the golden weights.
fn golden_model(patch: usize) -> Galileo {
    let file = Weights::File(fixture("zoo/galileo/tiny.safetensors"));
    let network = Architecture::Galileo(empty(patch, &device()));
    let Architecture::Galileo(model) = weights::load(network, &file, false).unwrap().0 else { panic!() };
    model
}

/// Images of one sensor from the formula, one input per date.
fn images(seed: u64, n: usize, side: usize, sensor: Sensor, days: &[Option<f64>]) -> Vec<Input> {
    let (stored, channels, bands) =
        if sensor == Sensor::S1 { (2, vec![0, 1], &S1[..]) } else { (13, slots(&S2), &S2[..]) };
    let images = images_of_rows(seed, [n, side, side, days.len(), stored], &channels);
    let input = |(pixels, day): (Tensor<4>, &Option<f64>)| {
        let context = Context { days: vec![*day; n], ..Context::default() };
        Input { sensor, bands: bands.into(), pixels, context }
    };
    images.into_iter().zip(days).map(input).collect()
}

fn golden_input(name: &str) -> Vec<Input> {
    let s2 = |seed, n, side| images(seed, n, side, Sensor::S2_L1C, &[None]);
    match name {
        "s2_64" => s2(1, 2, 64),
        "s2_32" => s2(2, 2, 32),
        "s2_48" => s2(3, 1, 48),
        "s1_32" => images(4, 2, 32, Sensor::S1, &[None]),
        // January, June and December.
        "s2_t3" => images(5, 1, 16, Sensor::S2_L1C, &[Some(0.0), Some(151.0), Some(364.0)]),
        "s2_40" => s2(6, 1, 40),
        "s2_56" => s2(7, 1, 56),
        "s2_8" => s2(8, 1, 8),
        _ => panic!("{name}"),
    }
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
        let dates = golden_input(name);
        for &patch in patches {
            let model = golden_model(patch);
            let key = |what: &str| format!("{what}.{name}.p{patch}");
            let encode = |want| match dates.as_slice() {
                [only] => model.encode(&Batch { inputs: vec![only.clone()] }, want).unwrap(),
                dates => model.encode_dates(dates, want).unwrap(),
            };
            let values = if [4, 8].contains(&patch) { 1e-5 } else { 2e-5 };
            let pooled = Tolerance { values, summary: STORED_SUMMARY };
            golden.compare(&key("pooled"), &numbers(encode(MEAN).pooled().unwrap()), pooled);
            let (tokens, grid) = encode(Want::Tokens).tokens().unwrap();
            assert_eq!(grid, [dates[0].pixels.dims()[2] / patch; 2]);
            golden.compare(&key("spatial"), &numbers(tokens.clone()), SPATIAL);
            // The last block's map consists of the tokens, channels first.
            let maps = encode(Want::Maps).maps().unwrap();
            assert_eq!((maps.len(), maps[1].stride), (2, patch));
            let map = maps[1].values.clone().flatten::<3>(2, 3).swap_dims(1, 2);
            assert_close("map", &numbers(map), &numbers(tokens), 1e-6);
        }
    }
    let model = golden_model(4);
    let tokens = model.tokens(&golden_input("s2_32")).unwrap();
    let pooled = tokens.mean_dim(1).squeeze_dim::<2>(1);
    let unnormed = Tolerance { values: 5e-5, summary: 1e-6 };
    golden.compare("nonorm.pooled.s2_32.p4", &numbers(pooled), unnormed);
    // As upstream fine-tunes it.
    let batch = Batch { inputs: golden_input("s2_32") };
    let tuned = Architecture::Galileo(model).for_finetuning();
    let pooled = tuned.encode(&batch, MEAN).unwrap().pooled().unwrap();
    golden.compare("nonorm.pooled.s2_32.p4", &numbers(pooled), unnormed);
    let frozen = tuned.frozen().encode(&batch, MEAN).unwrap().pooled().unwrap();
    golden.compare("nonorm.pooled.s2_32.p4", &numbers(frozen), unnormed);
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
            let inverse: Vec<f32> = cubic::pseudo_inverse(8, patch).into_iter().map(|w| w as f32).collect();
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
        let encodings = model.encodings(Sensor::S2_L1C, [side, side], &[months.to_vec()]);
        let name = format!("encodings.{side}x{side}.t{}.p{patch}", months.len());
        golden.compare(&name, &numbers(encodings), TABLES);
    }
    golden.assert_all_compared(|name| {
        ["pinv.", "kernel.", "patch_embed.", "encodings."].iter().any(|start| name.starts_with(start))
    });
}

/// Parts of the official file that no sensor here uses, and the two computed tables.
fn is_left_out(name: &str) -> bool {
    [
        "pos_embed",
        "month_embed.",
        "sp_channel",
        "t_channel_",
        "st_channel",
        "space_embed.",
        "time_embed.",
        "static_embed.",
    ]
    .iter()
    .any(|start| name.starts_with(start))
        || name.starts_with("space_time_embed.NDVI.")
}

#[test]
fn parameters_are_those_of_the_official_files() {
    for size in ["nano", "tiny", "base"] {
        let official = format!("zoo/galileo/params_{size}.json");
        assert_parameters_of(&format!("galileo-{size}"), &official, is_left_out);
    }
    // Without Sentinel-1 the network has no convolution for it.
    let sensors =
        BTreeMap::from([(Sensor::S2_L2A, SensorInput { bands: S2.to_vec(), ..Default::default() })]);
    let model = Galileo::new(&config(4), &sensors, &device());
    assert!(parameters::list(&model).iter().all(|(name, _)| !name.starts_with("space_time_embed.S1.")));
}

#[test]
fn computed_tables_are_those_of_the_official_file() {
    let weights = stored_weights("zoo/galileo/tiny.safetensors");
    let months: Vec<usize> = (0..12).collect();
    let model = golden_model(4);
    // [1, 1 patch, 12 dates, 1 group, 48]
    let encodings = numbers(model.encodings(Sensor::S1, [1, 1], &[months]));
    for (date, token) in encodings.chunks_exact(48).enumerate() {
        assert_close("pos_embed", &token[12..24], &weights["pos_embed"][12 * date..][..12], 1e-6);
        assert_close("month_embed", &token[24..36], &weights["month_embed.weight"][12 * date..][..12], 1e-6);
    }
}

fn full_size_weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let value: [f64; 2] = if name.contains("channel_embed") {
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

#[test]
fn published_sizes_with_formula_weights() {
    let golden = Golden::open("zoo/galileo/full_io.safetensors");
    for size in ["nano", "tiny", "base"] {
        let name = format!("galileo-{size}");
        let model = zoo::model(&name).fill(|name, shape| Ok(full_size_weights(name, shape))).unwrap();
        assert_parity(&[&name], "tests/zoo_galileo.rs", || compare_full_size(&golden, size, &model));
    }
    golden.assert_all_compared(|_| true);
}

fn compare_full_size(golden: &Golden, size: &str, model: &Architecture) {
    for (name, seed, sensor) in [("s2_64", 11, Sensor::S2_L1C), ("s1_64", 12, Sensor::S1)] {
        let images = images(seed, 2, 64, sensor, &[None]);
        let (tokens, _) = model.encode(&Batch { inputs: images }, Want::Tokens).unwrap().tokens().unwrap();
        let pooled = tokens.clone().mean_dim(1).squeeze_dim::<2>(1);
        let tolerance = Tolerance { values: 2e-5, summary: 1e-6 };
        golden.compare(&format!("pooled.{size}.{name}"), &numbers(pooled), tolerance);
        golden.compare(&format!("spatial.{size}.{name}"), &numbers(tokens), tolerance);
    }
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
        let input = golden_input(input).remove(0);
        let outputs = |model: &Galileo, device: &Device| {
            let pixels = input.pixels.clone().to_device(device);
            let batch = Batch { inputs: vec![Input { pixels, ..input.clone() }] };
            model.encode(&batch, MEAN).unwrap().pooled().unwrap()
        };
        assert_gradients(|device| empty(4, device), &weights, outputs, names);
    }
}

#[test]
fn month_of_each_image_comes_from_its_date() {
    let model = golden_model(4);
    let pooled = |days: Vec<Option<f64>>| {
        let mut input = golden_input("s2_32").remove(0);
        input.context.days = days;
        numbers(model.encode(&Batch { inputs: vec![input] }, MEAN).unwrap().pooled().unwrap())
    };
    // 2 January 1970, and a day in July 2023.
    let (january, july) = (Some(1.0), Some(19_550.0));
    let (in_january, in_july) = (pooled(vec![january; 2]), pooled(vec![july; 2]));
    assert!(zoo::difference(&in_january, &in_july) > 0.1);
    assert_eq!(pooled(vec![]), in_july, "an unknown date is in July");
    let mixed = pooled(vec![january, None]);
    assert_close("first image", &mixed[..48], &in_january[..48], 1e-6);
    assert_close("second image", &mixed[48..], &in_july[48..], 1e-6);
}

#[test]
fn unsuitable_requests_say_what_is_expected() {
    let model = golden_model(4);
    let encode = |sensor, shape: [usize; 4], want| {
        let batch = Batch::single(sensor, Arc::new([]), Tensor::zeros(shape, &device()));
        model.encode(&batch, want).unwrap_err().to_string()
    };
    for (sensor, shape, want, says) in [
        (Sensor::S2_L1C, [1, 13, 8, 8], MEAN, "expected 10 bands, found 13"),
        (Sensor::S2_L1C, [1, 10, 8, 12], MEAN, "found 8 x 12"),
        (Sensor::S2_L1C, [1, 10, 10, 10], Want::Tokens, "multiples of 4 pixels, found 10 x 10"),
        (Sensor::S1, [1, 2, 8, 8], Want::Pooled(Pooling::Class), "expected pooling mean, found class"),
        ("s3".parse().unwrap(), [1, 2, 8, 8], MEAN, "expected sensor s1 or s2-l1c or s2-l2a, found s3"),
    ] {
        let said = encode(sensor, shape, want);
        assert!(said.contains(says) && said.contains("help:"), "{said}");
    }
    let without_maps = GalileoConfig { map_layers: vec![], ..config(4) };
    let without_maps = Galileo::new(&without_maps, &sensors(), &device());
    let said = without_maps.encode_dates(&golden_input("s2_8"), Want::Maps).unwrap_err().to_string();
    assert!(said.contains("map-layers"), "{said}");
    let [s1, s2] = ["s1_32", "s2_32"].map(golden_input);
    assert!(model.encode_dates(&[s1, s2].concat(), MEAN).is_ok(), "two sensors go in together");
    assert!(model.encode_dates(&[], MEAN).is_err(), "no date");
}

#[test]
fn inconsistent_sizes_are_explained() {
    let fits = config(4);
    assert_eq!(fits.problem(), None);
    for (config, says) in [
        (GalileoConfig { heads: 5, ..fits.clone() }, "multiple of heads 5"),
        (GalileoConfig { width: 24, heads: 3, ..fits.clone() }, "multiple of 16"),
        (GalileoConfig { patch: 9, ..fits.clone() }, "from 1 to 8"),
        (GalileoConfig { depth: 0, map_layers: vec![], ..fits.clone() }, "above 0"),
        (GalileoConfig { map_layers: vec![3], ..fits.clone() }, "below 3"),
    ] {
        let problem = config.problem().unwrap();
        assert!(problem.contains(says), "{problem}");
    }
}

/// Nano with the published weights, at a given patch size.
fn published_nano(folder: &std::path::Path, patch: usize) -> RealModel {
    let mut model = ModelConfig::load(&Home::find().unwrap(), "galileo-nano").unwrap();
    let ArchitectureConfig::Galileo(sizes) = &mut model.architecture else { panic!() };
    sizes.patch = patch;
    RealModel::load(model, &folder.join("encoder.pt"))
}

const OURS: &str = "OURS-2.0-norm_no_clip";

#[test]
fn published_weights_on_real_pixels() {
    let (Some(weights), Some(folder)) = (zoo_real::folder("galileo-nano"), zoo_real::folder("galileo"))
    else {
        return;
    };
    let golden = Golden::open(folder.join("nano_io.safetensors").to_str().unwrap());
    let neighbourhoods = Neighbourhoods::open(&folder.join("nano_knn.json"));
    for (patch, tasks) in [(4, &["m-so2sat"][..]), (8, &["m-eurosat", "m-brick-kiln"])] {
        let model = published_nano(&weights, patch);
        for task in tasks {
            let names = &neighbourhoods.names[*task];
            let place = ["geobench", task, "default", OURS];
            let features = model.features(place, Split::Test, &mut FeatureBank::default());
            zoo_real::compare(&golden, &format!("feature.{task}.p{patch}"), names, &features, 1e-5);
        }
    }
    let model = published_nano(&weights, 4);
    let place = ["copernicus-bench", "eurosat-s1", "default", "OURS_S1-2.0-norm_no_clip"];
    let features = model.features(place, Split::Test, &mut FeatureBank::default());
    zoo_real::compare(&golden, "feature.eurosat_s1.p4", &features.samples, &features, 1e-5);

    neighbourhoods.compare(&model, "m-so2sat", OURS);
}

#[test]
fn published_weights_on_real_tiles() {
    let (Some(weights), Some(folder)) = (zoo_real::folder("galileo-nano"), zoo_real::folder("galileo"))
    else {
        return;
    };
    let golden = Golden::open(folder.join("nano_io.safetensors").to_str().unwrap());
    let model = published_nano(&weights, 4);
    let task = "m-cashew-plant";
    let tokens = model.tile_tokens(["geobench", task, "default", OURS], 64);
    assert_eq!((tokens.len(), tokens.grid, tokens.width), (16, 16, 128));
    let first: Vec<f32> = tokens.read(&[0]).unwrap().iter().copied().collect();
    assert_close(task, &first, &golden.get(&format!("spatial.{task}.tile0.full")), 2e-5);
    let means = golden.get(&format!("spatial.{task}.mean_over_tokens"));
    for (tile, expected) in means.chunks_exact(128).enumerate() {
        let mean = tokens.read(&[tile]).unwrap().mean_axis(ndarray::Axis(0)).unwrap();
        assert_close(&format!("{task}, tile {tile}"), &mean.to_vec(), expected, 1e-5);
    }
}

#[test]
fn fine_tuning_leaves_out_the_final_norm_and_records_it() {
    use terrabench::protocol::finetune;

    let batch = Batch { inputs: golden_input("s2_32") };
    let model = Architecture::Galileo(golden_model(4));
    let expected = numbers(model.clone().for_finetuning().encode(&batch, MEAN).unwrap().pooled().unwrap());
    let spec = terrabench::model::InputSpec::single(Sensor::S2_L1C, S2.into(), Pooling::Mean);
    let network = finetune::Network::new(model, spec, 2, 0, &device());
    let found = numbers(network.encoder().encode(&batch, MEAN).unwrap().pooled().unwrap());
    assert_eq!(found, expected);
    let architecture = ModelConfig::load(&Home::find().unwrap(), "galileo-nano").unwrap().architecture;
    assert_eq!(architecture.finetuned_pooling(Pooling::Mean), Pooling::MeanUnnormed);
    assert_eq!(Pooling::MeanUnnormed.to_string(), "mean-unnormed");
}

#[test]
fn both_sensors_go_through_the_blocks_together() {
    let model = golden_model(4);
    let [radar, optical] = [(4, Sensor::S1), (2, Sensor::S2_L1C)]
        .map(|(seed, sensor)| images(seed, 2, 32, sensor, &[None]).remove(0));
    let encode = |inputs: &[&Input], want| {
        let batch = Batch { inputs: inputs.iter().map(|input| (*input).clone()).collect() };
        model.encode(&batch, want).unwrap()
    };
    let pooled = |inputs: &[&Input]| numbers(encode(inputs, MEAN).pooled().unwrap());
    let together = pooled(&[&optical, &radar]);
    // Five tokens per patch of Sentinel-2 and one of Sentinel-1.
    let tokens = model.tokens(&[optical.clone(), radar.clone()]).unwrap();
    assert_eq!(tokens.dims(), [2, 64 * 6, 48]);
    // No sensor's features alone, nor a mix of both: attention saw the other's tokens.
    let (alone, other) = (pooled(&[&optical]), pooled(&[&radar]));
    let mix: Vec<f32> = alone.iter().zip(&other).map(|(s2, s1)| (5.0 * s2 + s1) / 6.0).collect();
    for other in [&alone, &other, &mix] {
        assert!(together.iter().zip(other).any(|(a, b)| (a - b).abs() > 1e-3));
    }
    // The order of the sensors only moves sums.
    let swapped = pooled(&[&radar, &optical]);
    assert!(together.iter().zip(&swapped).all(|(a, b)| (a - b).abs() < 1e-5), "{together:?} {swapped:?}");
    // Each image counts.
    let darker = |input: &Input| Input { pixels: input.pixels.clone() * 0.5, ..input.clone() };
    assert_ne!(pooled(&[&darker(&optical), &radar]), together);
    assert_ne!(pooled(&[&optical, &darker(&radar)]), together);
    let (tokens, grid) = encode(&[&optical, &radar], Want::Tokens).tokens().unwrap();
    assert_eq!((tokens.dims(), grid), ([2, 64, 48], [8, 8]));
    assert!(
        encode(&[&optical, &radar], Want::Maps)
            .maps()
            .unwrap()
            .iter()
            .all(|map| map.values.dims() == [2, 48, 8, 8])
    );

    let small = images(4, 2, 16, Sensor::S1, &[None]).remove(0);
    let error = model.encode(&Batch { inputs: vec![optical.clone(), small] }, MEAN).unwrap_err().to_string();
    assert!(error.contains("all of one size"), "{error}");
    assert!(
        model.encode(&Batch { inputs: Vec::new() }, MEAN).unwrap_err().to_string().contains("found none")
    );
}

#[test]
fn the_configuration_fuses_one_image_of_each_sentinel() {
    let model = ModelConfig::load(&Home::find().unwrap(), "galileo-nano").unwrap();
    assert!(model.fuses(&[Sensor::S2_L1C, Sensor::S1]) && model.fuses(&[Sensor::S1, Sensor::S2_L2A]));
    for alone in [&[Sensor::S1][..], &[Sensor::S1; 2], &[Sensor::S2_L1C, Sensor::S2_L2A]] {
        assert!(!model.fuses(alone), "{alone:?}");
    }
    let one_by_one = ModelConfig::load(&Home::find().unwrap(), "terrafm-b").unwrap();
    assert!(!one_by_one.fuses(&[Sensor::S2_L1C, Sensor::S1]));
}
