//! Compares Presto with the numbers of the published code (tests/fixtures/zoo/presto).

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use terrabench::features::FeatureBank;
use terrabench::home::Home;
use terrabench::model::architecture::{Architecture, Network, Sizes};
use terrabench::model::config::{ModelConfig, SensorInput};
use terrabench::model::encoder::{Batch, Context, Encoder, Input, Pooling, Want};
use terrabench::model::parameters;
use terrabench::model::presto::{Presto, PrestoConfig};
use terrabench::model::weights::{self, Weights};
use terrabench::task::bands::Band;
use terrabench::task::{Sensor, Split};

use crate::common::fixture;
use crate::zoo::{
    self, Golden, Tolerance, assert_gradients, assert_parameters_of, device, formula_weights, images_of_rows,
    numbers, slots, stored_weights,
};
use crate::zoo_parity::assert_parity;
use crate::zoo_real::{self, Neighbourhoods, RealModel};

const S2: [Band; 8] =
    [Band::B02, Band::B03, Band::B04, Band::B05, Band::B06, Band::B07, Band::B08, Band::B8A];
const S1: [Band; 2] = [Band::VV, Band::VH];

const TOLERANCE: Tolerance = Tolerance { values: 5e-6, summary: 5e-6 };
const MEAN: Want = Want::Pooled(Pooling::Mean);

fn sensors() -> BTreeMap<Sensor, SensorInput> {
    let input = |bands: &[Band]| SensorInput { bands: bands.to_vec(), ..Default::default() };
    BTreeMap::from([(Sensor::S1, input(&S1)), (Sensor::S2_L1C, input(&S2)), (Sensor::S2_L2A, input(&S2))])
}

const SMALL: PrestoConfig = PrestoConfig { width: 48, depth: 2, heads: 3 };

fn golden_model() -> Presto {
    let file = Weights::File(fixture("zoo/presto/tiny.safetensors"));
    let network = Architecture::Presto(Presto::new(&SMALL, &sensors(), &device()));
    let Architecture::Presto(model) = weights::load(network, &file, false).unwrap().0 else { panic!() };
    model
}

/// The first day of each month of 1970.
const DAYS: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// Images of one sensor from the formula: one input per date, with a list of months per image.
fn images(seed: u64, [n, h, w]: [usize; 3], sensor: Sensor, months: &[&[usize]]) -> Vec<Input> {
    let (stored, channels, bands) =
        if sensor == Sensor::S1 { (2, vec![0, 1], &S1[..]) } else { (13, slots(&S2), &S2[..]) };
    let dates = months.first().map_or(1, |months| months.len());
    let images = images_of_rows(seed, [n, h, w, dates, stored], &channels);
    let input = |(date, pixels): (usize, Tensor<4>)| {
        let days = months.iter().map(|months| Some(f64::from(DAYS[months[date]]))).collect();
        Input { sensor, bands: bands.into(), pixels, context: Context { days, ..Context::default() } }
    };
    images.into_iter().enumerate().map(input).collect()
}

fn golden_input(name: &str) -> Vec<Input> {
    match name {
        "s2_64" => images(1, [2, 64, 64], Sensor::S2_L1C, &[]),
        "s2_8" => images(2, [2, 8, 8], Sensor::S2_L2A, &[]),
        "s2_4x6" => images(3, [2, 4, 6], Sensor::S2_L1C, &[]),
        "s1_8" => images(4, [2, 8, 8], Sensor::S1, &[]),
        "s2_t3" => images(5, [2, 4, 4], Sensor::S2_L1C, &[&[0, 5, 11], &[2, 3, 4]]),
        "s1_t2" => images(6, [1, 4, 4], Sensor::S1, &[&[6, 7]]),
        _ => panic!("{name}"),
    }
}

#[test]
fn small_model_gives_the_golden_outputs() {
    let golden = Golden::open("zoo/presto/tiny_io.safetensors");
    let model = golden_model();
    for name in ["s2_64", "s2_8", "s2_4x6", "s1_8", "s2_t3", "s1_t2"] {
        let dates = golden_input(name);
        let pooled = match dates.as_slice() {
            [only] => model.encode(&Batch { inputs: vec![only.clone()] }, MEAN),
            dates => model.encode_dates(dates, MEAN),
        };
        golden.compare(&format!("pooled.{name}"), &numbers(pooled.unwrap().pooled().unwrap()), TOLERANCE);
        if ["s2_8", "s2_t3", "s1_8"].contains(&name) {
            golden.compare(&format!("tokens.{name}"), &numbers(model.tokens(&dates).unwrap()), TOLERANCE);
        }
    }
    golden.assert_all_compared(|name| !name.starts_with("tables."));
}

#[test]
fn computed_tables_are_the_golden_ones() {
    let golden = Golden::open("zoo/presto/tiny_io.safetensors");
    let weights = stored_weights("zoo/presto/tiny.safetensors");
    // Tokens without pixels, channel embedding and bias reduce to [1, dates, month
    // channel
    // position].
    let nothing = |name: &str, shape: &[usize]| {
        Ok(if name.contains("embed") { vec![0.0; shape.iter().product()] } else { weights[name].clone() })
    };
    let model = parameters::fill(golden_model(), nothing).unwrap();
    let months: Vec<usize> = (0..24).map(|date| date % 12).collect();
    let tokens = numbers(model.tokens(&images(1, [1, 1, 1], Sensor::S1, &[&months])).unwrap());
    let part = |from: usize, to: usize, rows: usize| -> Vec<f32> {
        tokens.chunks_exact(48).take(rows).flat_map(|token| token[from..to].to_vec()).collect()
    };
    let exact = Tolerance { values: 1e-7, summary: 1e-7 };
    golden.compare("tables.month", &part(0, 12, 12), exact);
    golden.compare("tables.position", &part(24, 48, 24), exact);
    assert!(part(12, 24, 24).iter().all(|value| *value == 0.0));
}

/// Parts of the official file that no sensor here uses, and the two computed tables.
fn is_left_out(name: &str) -> bool {
    ["pos_embed", "month_embed", "dw_embed", "latlon_embed", "S2_SWIR", "ERA5", "SRTM", "NDVI"]
        .iter()
        .any(|part| name.contains(part))
}

#[test]
fn parameters_are_those_of_the_official_file() {
    assert_parameters_of("presto", "zoo/presto/params_default.json", is_left_out);
}

#[test]
fn published_size_with_formula_weights() {
    assert_parity(&["presto"], "tests/zoo_presto.rs", compare_full_size);
}

fn compare_full_size() {
    let golden = Golden::open("zoo/presto/full_io.safetensors");
    let weights = |name: &str, shape: &[usize]| {
        let value: [f64; 2] = if name.contains("channel_embed") || name.contains("eo_patch_embed") {
            [0.0, 1.0]
        } else if name.ends_with(".bias") {
            [0.0, 0.02]
        } else if shape.len() == 1 {
            [1.0, 0.1]
        } else {
            [0.0, 0.08]
        };
        Ok(formula_weights(name, shape, value))
    };
    let model = zoo::model("presto").fill(weights).unwrap();
    for (name, seed, side, sensor) in
        [("s2_64", 11, 64, Sensor::S2_L1C), ("s1_64", 12, 64, Sensor::S1), ("s2_4", 13, 4, Sensor::S2_L1C)]
    {
        let batch = Batch { inputs: images(seed, [2, side, side], sensor, &[]) };
        let pooled = numbers(model.encode(&batch, MEAN).unwrap().pooled().unwrap());
        golden.compare(&format!("pooled.default.{name}"), &pooled, TOLERANCE);
    }
    golden.assert_all_compared(|_| true);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let weights = stored_weights("zoo/presto/tiny.safetensors");
    for (input, names) in [
        (
            "s2_8",
            &[
                "encoder.channel_embed.weight",
                "encoder.eo_patch_embed.S2_Red_Edge.weight",
                "encoder.blocks.0.attn.qkv.weight",
                "encoder.blocks.1.norm2.bias",
                "encoder.blocks.1.mlp.fc2.weight",
                "encoder.norm.weight",
            ][..],
        ),
        ("s1_8", &["encoder.eo_patch_embed.S1.weight"]),
    ] {
        let input = golden_input(input).remove(0);
        let outputs = |model: &Presto, device: &Device| {
            let pixels = input.pixels.clone().to_device(device);
            let batch = Batch { inputs: vec![Input { pixels, ..input.clone() }] };
            model.encode(&batch, MEAN).unwrap().pooled().unwrap()
        };
        assert_gradients(|device| Presto::new(&SMALL, &sensors(), device), &weights, outputs, names);
    }
}

#[test]
fn unsuitable_requests_say_what_is_expected() {
    let model = golden_model();
    for (sensor, bands, want, says) in [
        (Sensor::S2_L1C, 13, MEAN, "expected 8 bands, found 13"),
        (Sensor::S1, 2, Want::Pooled(Pooling::Class), "expected pooling mean, found class"),
        (Sensor::S1, 2, Want::Tokens, "expected a request for pooled vectors"),
        (Sensor::S1, 2, Want::Maps, "expected a request for pooled vectors"),
        ("s3".parse().unwrap(), 2, MEAN, "expected sensor s1 or s2-l1c or s2-l2a, found s3"),
    ] {
        let batch = Batch::single(sensor, Arc::new([]), Tensor::zeros([1, bands, 4, 4], &device()));
        let said = model.encode(&batch, want).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("help:"), "{said}");
    }
    assert!(model.encode_dates(&[], MEAN).is_err(), "no date");
}

#[test]
fn inconsistent_sizes_are_explained() {
    assert_eq!(SMALL.problem(), None);
    for (config, says) in [
        (PrestoConfig { heads: 5, ..SMALL }, "multiple of heads 5"),
        (PrestoConfig { width: 36, ..SMALL }, "multiple of 8"),
        (PrestoConfig { depth: 0, ..SMALL }, "above 0"),
    ] {
        let problem = config.problem().unwrap();
        assert!(problem.contains(says), "{problem}");
    }
}

#[test]
fn published_weights_on_real_pixels() {
    let Some(folder) = zoo_real::folder("presto") else { return };
    let config = ModelConfig::load(&Home::find().unwrap(), "presto").unwrap();
    let model = RealModel::load(config, &folder.join("default_model.pt"));
    let golden = Golden::open(folder.join("real_io.safetensors").to_str().unwrap());
    let neighbourhoods = Neighbourhoods::open(&folder.join("real_knn.json"));
    for task in ["m-eurosat", "m-bigearthnet", "m-so2sat", "m-brick-kiln"] {
        let names = &neighbourhoods.names[task];
        // x / 10000.
        for (key, normalization, splits) in [
            ("presto", "presto_s2-1-standardize", &[Split::Train, Split::Valid, Split::Test][..]),
            ("ours", "OURS-1-standardize", &[Split::Train]),
        ] {
            for split in splits {
                let place = ["geobench", task, "default", normalization];
                let features = model.features(place, *split, &mut FeatureBank::default());
                zoo_real::compare(&golden, &format!("feature.{task}.{key}"), names, &features, 3e-5);
            }
        }
        neighbourhoods.compare(&model, task, "presto_s2-1-standardize");
    }
    let place = ["copernicus-bench", "eurosat-s1", "default", "presto_s1-1-standardize"];
    let features = model.features(place, Split::Test, &mut FeatureBank::default());
    zoo_real::compare(&golden, "feature.eurosat_s1.presto", &features.samples, &features, 3e-5);
}

#[test]
fn protocols_that_score_pixels_are_refused_before_anything_is_read() {
    use terrabench::protocol::ProtocolConfig;
    use terrabench::run::plan::{Choice, plan};
    use terrabench::task::Suite;

    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    let model = ModelConfig::load(&home, "presto").unwrap();
    for (protocol, problem) in
        [("segmentation-probe", "needs patch tokens, got none"), ("upernet", "needs 4 feature maps, got 0")]
    {
        let choice = Choice {
            tasks: vec!["m-cashew-plant".to_owned()],
            protocols: vec![protocol.to_owned()],
            ..Choice::default()
        };
        let refused = plan(&suite, &model, &choice, |name| ProtocolConfig::load_named(&home, name));
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("Presto") && said.contains(problem), "{said}");
    }
}
