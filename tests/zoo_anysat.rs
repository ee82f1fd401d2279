//! Compares AnySat with the numbers of the published code (tests/fixtures/zoo/anysat).

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use terrabench::home::Home;
use terrabench::model::anysat::{AnySat, AnySatConfig};
use terrabench::model::architecture::{Architecture, ArchitectureConfig, Network, Sizes};
use terrabench::model::config::{ModelConfig, SensorInput};
use terrabench::model::encoder::{Batch, Context, Encoded, Encoder, Input, Pooling, Want};
use terrabench::model::parameters;
use terrabench::model::weights::{self, Weights};
use terrabench::task::Sensor;
use terrabench::task::bands::Band;

use crate::common::fixture;
use crate::zoo::{
    self, Golden, Tolerance, assert_close, assert_parameters_of, device, formula_weights, images_of_rows,
    numbers, slots,
};
use crate::zoo_parity::assert_parity;

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

const TOLERANCE: Tolerance = Tolerance { values: 3e-5, summary: 1e-5 };
/// Of whole maps, which hold larger values.
const WHOLE: f64 = 1e-4;

const CLASS: Want = Want::Pooled(Pooling::Class);

fn sensors() -> BTreeMap<Sensor, SensorInput> {
    let input = |bands: &[Band]| SensorInput { bands: bands.to_vec(), ..Default::default() };
    BTreeMap::from([(Sensor::S1, input(&S1)), (Sensor::S2_L1C, input(&S2)), (Sensor::S2_L2A, input(&S2))])
}

/// The sizes of the small model.
fn config() -> AnySatConfig {
    AnySatConfig {
        width: 64,
        stem_width: 16,
        depth: 2,
        heads: 4,
        patch_metres: 40,
        map_layers: vec![0, 1, 2],
        probe_thinning: 1,
    }
}

/// The small model with weights from a file.
fn loaded(file: &str) -> AnySat {
    let file = Weights::File(fixture(file));
    let network = Architecture::AnySat(AnySat::new(&config(), &sensors(), &device()));
    let (Architecture::AnySat(model), _, report) = weights::load(network, &file, false).unwrap() else {
        panic!()
    };
    assert!(report.is_complete());
    model
}

fn golden_model() -> AnySat {
    loaded("zoo/anysat/tiny.safetensors")
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

/// Days in 1970 of January, March, June, August and December.
const JANUARY: Option<f64> = Some(9.0);
const MARCH: Option<f64> = Some(80.0);
const JUNE: Option<f64> = Some(155.0);
const AUGUST: Option<f64> = Some(220.0);
const DECEMBER: Option<f64> = Some(364.0);

fn golden_input(name: &str) -> Vec<Input> {
    let s2 = |seed, n, side| images(seed, n, side, Sensor::S2_L1C, &[None]);
    match name {
        "s2_16" => s2(1, 2, 16),
        "s2_24" => s2(2, 1, 24),
        "s1_16" => images(3, 2, 16, Sensor::S1, &[None]),
        "s2_t3" => images(4, 1, 8, Sensor::S2_L2A, &[JANUARY, JUNE, DECEMBER]),
        "s2_3" => s2(5, 2, 3),
        "s2_18" => s2(6, 1, 18),
        "s2_32" => s2(7, 1, 32),
        "s1_t2" => images(8, 1, 8, Sensor::S1, &[MARCH, AUGUST]),
        _ => panic!("{name}"),
    }
}

const INPUTS: [&str; 8] = ["s2_16", "s2_24", "s1_16", "s2_t3", "s2_3", "s2_18", "s2_32", "s1_t2"];

fn encode(model: &AnySat, dates: &[Input], want: Want) -> Encoded {
    match dates {
        [only] => model.encode(&Batch { inputs: vec![only.clone()] }, want).unwrap(),
        dates => model.encode_dates(dates, want).unwrap(),
    }
}

fn pooled(model: &AnySat, dates: &[Input]) -> Vec<f32> {
    numbers(encode(model, dates, CLASS).pooled().unwrap())
}

/// Compares with everything stored of a tensor.
fn compare(golden: &Golden, key: &str, found: &[f32]) {
    golden.compare_within(key, found, TOLERANCE, WHOLE);
}

#[test]
fn small_model_gives_the_golden_outputs() {
    let golden = Golden::open("zoo/anysat/tiny_io.safetensors");
    let model = golden_model();
    for name in INPUTS {
        let dates = golden_input(name);
        golden.compare(&format!("pooled.{name}"), &pooled(&model, &dates), TOLERANCE);
        let (tokens, grid) = encode(&model, &dates, Want::Tokens).tokens().unwrap();
        let side = dates[0].pixels.dims()[2];
        let whole = if side < 4 { side } else { side / 4 * 4 };
        assert_eq!((grid, tokens.dims()[1..].to_vec()), ([whole; 2], vec![whole * whole, 128]), "{name}");
        compare(&golden, &format!("spatial.{name}"), &numbers(tokens));
        compare(&golden, &format!("patch_embed.{name}"), &numbers(model.patch_embed(&dates).unwrap()));
        compare(&golden, &format!("tokens.{name}"), &numbers(model.tokens(&dates).unwrap()));
    }
    // The official container, in float16.
    let half = pooled(&loaded("zoo/anysat/tiny.pth"), &golden_input("s2_16"));
    golden.compare("pooled.s2_16.half", &half, TOLERANCE);
    golden.assert_all_compared(|_| true);
}

/// Parts of the official file that no sensor here uses, and scalars that nothing uses.
fn is_left_out(name: &str) -> bool {
    let other = name.starts_with("projector_")
        && !["projector_s1.", "projector_s2."].iter().any(|start| name.starts_with(start));
    other || name.ends_with(".pad_parameter")
}

#[test]
fn parameters_are_those_of_the_official_file() {
    assert_parameters_of("anysat-base", "zoo/anysat/params_base.json", is_left_out);
    let model = zoo::model("anysat-base");
    let count: usize = model.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    // Without the two scalars.
    assert_eq!((model.parameters().len(), count), (230, 98_349_856));
    // Without Sentinel-1 the network has no projector for it.
    let sensors =
        BTreeMap::from([(Sensor::S2_L2A, SensorInput { bands: S2.to_vec(), ..Default::default() })]);
    let model = AnySat::new(&config(), &sensors, &device());
    assert!(parameters::list(&model).iter().all(|(name, _)| !name.starts_with("projector_s1.")));
}

fn full_size_weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let is_plain = ["lookup_table_weight", "q_learned", "cls_token"].iter().any(|part| name.contains(part));
    let value: [f64; 2] = if is_plain {
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
fn published_size_with_formula_weights() {
    assert_parity(&["anysat-base"], "tests/zoo_anysat.rs", compare_full_size);
}

fn compare_full_size() {
    let golden = Golden::open("zoo/anysat/full_io.safetensors");
    let model = zoo::model("anysat-base");
    let model = model.fill(|name, shape| Ok(full_size_weights(name, shape))).unwrap();
    let tolerance = Tolerance { values: 5e-5, summary: 5e-5 };
    for (name, seed, sensor) in [("s2_16", 11, Sensor::S2_L1C), ("s1_16", 12, Sensor::S1)] {
        let batch = Batch { inputs: images(seed, 2, 16, sensor, &[None]) };
        let pooled = model.encode(&batch, CLASS).unwrap().pooled().unwrap();
        golden.compare(&format!("pooled.base.{name}"), &numbers(pooled), tolerance);
        let (tokens, grid) = model.encode(&batch, Want::Tokens).unwrap().tokens().unwrap();
        assert_eq!((tokens.dims(), grid), ([2, 256, 1536], [16, 16]));
        golden.compare(&format!("spatial.base.{name}"), &numbers(tokens), tolerance);
    }
    golden.assert_all_compared(|_| true);
}

#[test]
fn the_last_map_is_the_first_half_of_the_tokens() {
    let model = golden_model();
    for name in ["s2_16", "s1_t2"] {
        let dates = golden_input(name);
        let maps = encode(&model, &dates, Want::Maps).maps().unwrap();
        assert_eq!(maps.iter().map(|map| map.stride).collect::<Vec<_>>(), [4, 4, 4]);
        let [n, d, rows, columns] = maps[2].values.dims();
        // One value per patch: of its upper left pixel.
        let (tokens, [height, width]) = encode(&model, &dates, Want::Tokens).tokens().unwrap();
        let tokens = tokens.slice_dim(2, 0..d).reshape([n, height / 4, 4, width / 4, 4 * d]);
        let tokens = tokens.slice_dim(2, 0..1).slice_dim(4, 0..d).reshape([n, rows, columns, d]);
        let map = maps[2].values.clone().permute([0, 2, 3, 1]);
        assert_close("map", &numbers(map), &numbers(tokens), 2e-5);
    }
}

#[test]
fn few_patches_at_a_time_give_the_same_features() {
    // 33 x 33 patches: more than go through the inner transformer together.
    let model = golden_model();
    let all = images(3, 1, 132, Sensor::S2_L1C, &[None]);
    let (tokens, _) = encode(&model, &all, Want::Tokens).tokens().unwrap();
    // The inner tokens of the lowest row of patches, computed alone.
    let row = all[0].pixels.clone().slice_dim(2, 128..132);
    let corner = Input { pixels: row.slice_dim(3, 128..132), ..all[0].clone() };
    let (alone, _) = encode(&model, &[corner], Want::Tokens).tokens().unwrap();
    let last = tokens.reshape([132, 132, 128]).slice_dim(0, 128..).slice_dim(1, 128..).slice_dim(2, 64..);
    assert_close("inner tokens", &numbers(last), &numbers(alone.slice_dim(2, 64..)), 1e-5);
}

#[test]
fn month_of_each_image_comes_from_its_date() {
    let model = golden_model();
    let pooled = |days: Vec<Option<f64>>| {
        let mut input = golden_input("s2_16").remove(0);
        input.context.days = days;
        pooled(&model, &[input])
    };
    let (in_january, in_june) = (pooled(vec![JANUARY; 2]), pooled(vec![JUNE; 2]));
    assert!(zoo::difference(&in_january, &in_june) > 0.1);
    assert_eq!(pooled(vec![]), in_june, "an unknown date is in June");
    let mixed = pooled(vec![JANUARY, None]);
    assert_close("first image", &mixed[..64], &in_january[..64], 1e-6);
    assert_close("second image", &mixed[64..], &in_june[64..], 1e-6);
}

#[test]
fn the_side_of_a_patch_is_given_in_metres() {
    let finer = AnySatConfig { patch_metres: 20, ..config() };
    let finer = AnySat::new(&finer, &sensors(), &device());
    let weights = golden_model();
    let values = zoo::weights_of(&weights);
    let finer = parameters::fill(finer, |name, _| Ok(values[name].clone())).unwrap();
    let dates = golden_input("s2_16");
    assert_eq!(finer.tokens(&dates).unwrap().dims(), [2, 65, 64]);
    assert!(zoo::difference(&pooled(&finer, &dates), &pooled(&weights, &dates)) > 1e-2);
    let maps = encode(&finer, &dates, Want::Maps).maps().unwrap();
    assert_eq!((maps[0].stride, maps[0].values.dims()), (2, [2, 64, 8, 8]));
}

/// Parts of the small model, by their paths.
const LEARNT: [&str; 15] = [
    "cls_token",
    "projector_s2.patch_embed.inconv.0.linear.weight",
    "projector_s2.patch_embed.inconv.3.norm.weight",
    "projector_s2.patch_embed.in_norm.weight",
    "projector_s2.patch_embed.mlp.linear.weight",
    "projector_s2.patch_embed.out_norm.bias",
    "spatial_encoder.cls_token",
    "spatial_encoder.predictor_blocks.0.attn.qkv.weight",
    "spatial_encoder.predictor_blocks.0.attn.rpe_k.lookup_table_weight",
    "spatial_encoder.predictor_norm.weight",
    "blocks.1.attn.qkv.weight",
    "blocks.2.attn.wv.weight",
    "blocks.2.attn.q_learned",
    "blocks.2.attn.rpe_k.lookup_table_weight",
    "blocks.2.mlp.fc1.weight",
];

#[test]
fn gradients_are_those_of_finite_differences() {
    let weights = zoo::weights_of(&golden_model());
    let all: Vec<&str> = LEARNT.to_vec();
    // The relative term hardly reaches the class token, and steps that show in it bend the ReLUs of the projector.
    let pooled = all
        .iter()
        .copied()
        .filter(|name| !["rpe_k", "projector"].iter().any(|part| name.contains(part)))
        .collect();
    // Steps in earlier layers move ReLUs too: the ratio of the two bands is large in some pixels.
    let radar =
        vec!["projector_s1.patch_embed.inconv.4.linear.weight", "projector_s1.patch_embed.out_norm.bias"];
    let dates = vec![
        "projector_s2.patch_embed.attention_heads.queries",
        "projector_s2.patch_embed.attention_heads.fc1_k.weight",
        "projector_s2.patch_embed.in_norm.bias",
    ];
    for (input, want, names) in [
        ("s2_16", Want::Tokens, all),
        ("s2_16", CLASS, pooled),
        ("s1_16", Want::Tokens, radar),
        ("s2_t3", Want::Tokens, dates),
    ] {
        // One image of 2 x 2 patches.
        let first = |input: Input| {
            let pixels = input.pixels.clone().slice_dim(0, 0..1).slice_dim(2, 0..8).slice_dim(3, 0..8);
            let context = Context { days: input.context.days[..1].to_vec(), ..input.context.clone() };
            Input { pixels, context, ..input }
        };
        let dates: Vec<Input> = golden_input(input).into_iter().map(first).collect();
        let outputs = |model: &AnySat, device: &Device| {
            let to_device =
                |date: &Input| Input { pixels: date.pixels.clone().to_device(device), ..date.clone() };
            let dates: Vec<Input> = dates.iter().map(to_device).collect();
            match model.encode_dates(&dates, want).unwrap() {
                Encoded::Tokens { tokens, .. } => tokens.slice_dim(1, 0..6).squeeze_dim(0),
                pooled => pooled.pooled().unwrap(),
            }
        };
        let new = |device: &Device| AnySat::new(&config(), &sensors(), device);
        zoo::assert_gradients_by(0.01, new, &weights, outputs, &names);
    }
}

#[test]
fn unsuitable_requests_say_what_is_expected() {
    let model = golden_model();
    let encode = |sensor, shape: [usize; 4], want| {
        let batch = Batch::single(sensor, Arc::new([]), Tensor::zeros(shape, &device()));
        model.encode(&batch, want).unwrap_err().to_string()
    };
    for (sensor, shape, want, says) in [
        (Sensor::S2_L1C, [1, 13, 8, 8], CLASS, "expected 10 bands, found 13"),
        (Sensor::S2_L1C, [1, 10, 8, 12], CLASS, "expected as many rows as columns, found 8 x 12"),
        (Sensor::S2_L1C, [1, 10, 0, 0], CLASS, "found 0 x 0"),
        (Sensor::S2_L1C, [1, 10, 10, 10], Want::Maps, "multiples of 4 pixels, found 10 x 10"),
        (Sensor::S1, [1, 2, 8, 8], Want::Pooled(Pooling::Mean), "expected pooling class, found mean"),
        ("s3".parse().unwrap(), [1, 2, 8, 8], CLASS, "expected sensor s1 or s2-l1c or s2-l2a, found s3"),
    ] {
        let said = encode(sensor, shape, want);
        assert!(said.contains(says) && said.contains("help:"), "{said}");
    }
    assert!(encode(Sensor::S1, [0, 2, 8, 8], CLASS).contains("found none"));
    let without_maps = AnySatConfig { map_layers: vec![], ..config() };
    let without_maps = AnySat::new(&without_maps, &sensors(), &device());
    let said = without_maps.encode_dates(&golden_input("s2_16"), Want::Maps).unwrap_err().to_string();
    assert!(said.contains("map-layers"), "{said}");
    let [s1, s2] = ["s1_16", "s2_16"].map(golden_input);
    let said = model.encode_dates(&[s1, s2].concat(), CLASS).unwrap_err().to_string();
    assert!(said.contains("the same sensor and size"), "{said}");
    assert!(model.encode_dates(&[], CLASS).is_err(), "no date");
    let swapped = SensorInput { bands: vec![Band::VH, Band::VV], ..Default::default() };
    let swapped = AnySat::new(&config(), &BTreeMap::from([(Sensor::S1, swapped)]), &device());
    let said = swapped.encode_dates(&golden_input("s1_16"), CLASS).unwrap_err().to_string();
    assert!(said.contains("expected bands VV VH, found VH VV"), "{said}");
}

#[test]
fn inconsistent_sizes_are_explained() {
    let fits = config();
    assert_eq!(fits.problem(), None);
    for (config, says) in [
        (AnySatConfig { heads: 5, ..fits.clone() }, "multiple of heads 5"),
        (AnySatConfig { width: 96, ..fits.clone() }, "multiple of 64"),
        (AnySatConfig { stem_width: 6, ..fits.clone() }, "stem-width: expected a multiple of 4, found 6"),
        (
            AnySatConfig { patch_metres: 45, ..fits.clone() },
            "patch-metres: expected a multiple of 10, found 45",
        ),
        (AnySatConfig { patch_metres: 0, ..fits.clone() }, "above 0"),
        (AnySatConfig { probe_thinning: 0, ..fits.clone() }, "above 0"),
        (AnySatConfig { map_layers: vec![3], ..fits.clone() }, "below 3"),
    ] {
        let problem = config.problem().unwrap();
        assert!(problem.contains(says), "{problem}");
    }
}

#[test]
fn the_configuration_is_that_of_the_published_numbers() {
    let model = ModelConfig::load(&Home::find().unwrap(), "anysat-base").unwrap();
    let ArchitectureConfig::AnySat(sizes) = &model.architecture else { panic!() };
    assert_eq!((sizes.width, sizes.depth, sizes.heads, sizes.patch_metres), (768, 6, 12, 40));
    assert_eq!((model.architecture.maps().len(), model.pooling()), (4, Pooling::Class));
    assert_eq!(model.sensors, sensors());
    // Upstream keeps 1/16 of the tokens.
    assert_eq!(model.architecture.probe_thinning(), 4);
}

#[test]
fn a_sensor_that_the_model_lacks_is_refused_before_anything_is_read() {
    use terrabench::protocol::ProtocolConfig;
    use terrabench::run::plan::{Choice, plan};
    use terrabench::task::Suite;

    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    let mut model = ModelConfig::load(&home, "anysat-base").unwrap();
    model.sensors.retain(|sensor, _| *sensor == Sensor::S1);
    let choice = Choice { tasks: vec!["m-eurosat".to_owned()], ..Choice::default() };
    let refused = plan(&suite, &model, &choice, |name| ProtocolConfig::load_named(&home, name));
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("AnySat ViT-Base has no such sensor: s2-l1c"), "{said}");
}
