//! Compares Copernicus-FM with the numbers of the published code (tests/fixtures/zoo/copernicus-fm).

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use terrabench::formats::checkpoint;
use terrabench::home::Home;
use terrabench::model::Architecture;
use terrabench::model::architecture::{ArchitectureConfig, Network, Sizes};
use terrabench::model::config::{ModelConfig, SensorInput};
use terrabench::model::copernicus_fm::{
    CopernicusFm, CopernicusFmConfig, LANGUAGE_WIDTH, area_row, bandwidth_row, date_row, place_row,
    wavelength_row,
};
use terrabench::model::encoder::{Batch, Context, Encoder, Input, Pooling, Want};
use terrabench::model::parameters;
use terrabench::nn::hypernetwork::resize_taps;
use terrabench::task::bands::Band;
use terrabench::task::{MetadataKind, Sensor};

use crate::common::fixture;
use crate::zoo::{
    Golden, SLOTS, StoredWeights, Tolerance, assert_close, assert_gradients, assert_parameters, device,
    formula_values, formula_weights, numbers,
};
use crate::zoo_parity::assert_parity;

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
const RGBN: [Band; 4] = [Band::B02, Band::B03, Band::B04, Band::B08];
const S1: [Band; 2] = [Band::VV, Band::VH];
/// Stand-ins for the 21 bands of Sentinel-3, passed in this order, and for the channel of a variable.
const S3: [Band; 21] = [Band::ZEROS; 21];
const VARIABLE: [Band; 1] = [Band::ZEROS];

const S2_WAVELENGTHS: [f64; 13] =
    [0.44, 0.49, 0.56, 0.665, 0.705, 0.74, 0.783, 0.842, 0.86, 0.94, 1.37, 1.61, 2.19];
const S2_BANDWIDTHS: [f64; 13] =
    [0.02, 0.065, 0.035, 0.03, 0.015, 0.015, 0.02, 0.115, 0.02, 0.02, 0.03, 0.09, 0.18];
const S3_WAVELENGTHS: [f64; 21] = [
    0.4, 0.4125, 0.4425, 0.49, 0.51, 0.56, 0.62, 0.665, 0.67375, 0.68125, 0.70875, 0.75375, 0.76125,
    0.764375, 0.7675, 0.77875, 0.865, 0.885, 0.9, 0.94, 1.02,
];
const S3_BANDWIDTHS: [f64; 21] = [
    0.015, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.0075, 0.0075, 0.01, 0.0075, 0.0075, 0.00375, 0.0025,
    0.015, 0.02, 0.01, 0.01, 0.02, 0.04,
];
const S1_WAVELENGTHS: [f64; 2] = [5e4, 5e4];
const S1_BANDWIDTHS: [f64; 2] = [1e6, 1e6];

const POOLED: Tolerance = Tolerance { values: 5e-5, summary: 1e-5 };
const MAPS: Tolerance = Tolerance { values: 1e-4, summary: 1e-5 };
const EMBEDDED: Tolerance = Tolerance { values: 1e-5, summary: 1e-5 };
const KERNELS: Tolerance = Tolerance { values: 5e-5, summary: 1e-5 };
const POSITIONS: Tolerance = Tolerance { values: 2e-6, summary: 2e-6 };

fn sensor(name: &str) -> Sensor {
    name.parse().unwrap()
}

fn config(size: &str, patch: usize) -> CopernicusFmConfig {
    let (width, heads, kernel_width) = match size {
        "tiny" => (24, 3, 24),
        "base" => (768, 12, 128),
        _ => panic!("{size}"),
    };
    CopernicusFmConfig {
        width,
        depth: 12,
        heads,
        kernel_width,
        patch,
        metadata: MetadataKind::ALL.to_vec(),
        map_layers: vec![3, 5, 7, 11],
        language_vectors: None,
    }
}

/// All sensors of the golden inputs.
fn sensors() -> BTreeMap<Sensor, SensorInput> {
    let input = |bands: &[Band], wavelengths: &[f64], bandwidths: &[f64]| SensorInput {
        bands: bands.to_vec(),
        wavelengths: wavelengths.to_vec(),
        bandwidths: bandwidths.to_vec(),
        ..Default::default()
    };
    BTreeMap::from([
        (Sensor::S1, input(&S1, &S1_WAVELENGTHS, &S1_BANDWIDTHS)),
        (Sensor::S2_L1C, input(&SLOTS, &S2_WAVELENGTHS, &S2_BANDWIDTHS)),
        (sensor("s3-olci"), input(&S3, &S3_WAVELENGTHS, &S3_BANDWIDTHS)),
        (sensor("s5p"), input(&VARIABLE, &[], &[])),
        (sensor("dem"), input(&VARIABLE, &[], &[])),
    ])
}

fn language_vector(seed: u64) -> Vec<f32> {
    formula_values(seed, &[LANGUAGE_WIDTH])
}

fn empty(config: &CopernicusFmConfig, device: &Device) -> CopernicusFm {
    let mut model = CopernicusFm::new(config, &sensors(), device);
    model.set_language_vector(sensor("s5p"), language_vector(27)).unwrap();
    model.set_language_vector(sensor("dem"), language_vector(28)).unwrap();
    model
}

/// Reads both files of the small model.
fn tiny_weights() -> StoredWeights {
    let file = |name: &str| checkpoint::open(&fixture("zoo/copernicus-fm").join(name)).unwrap();
    let stored = file("tiny.safetensors").into_iter().chain(file("tiny_variable.safetensors"));
    stored.map(|tensor| (tensor.name.clone(), tensor.read().unwrap())).collect()
}

fn tiny(config: &CopernicusFmConfig) -> CopernicusFm {
    let weights = tiny_weights();
    parameters::fill(empty(config, &device()), |name, _| Ok(weights[name].clone())).unwrap()
}

fn images(seed: u64, shape: [usize; 4]) -> Tensor<4> {
    let values = formula_values(seed, &shape);
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// The locations and days of the golden images.
const PLACES: [[f32; 2]; 2] = [[11.58, 48.15], [-70.25, -33.5]];
const DAYS: [f64; 2] = [18262.0, 16500.0];

/// What is known about a golden input.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    Nothing,
    Area,
    PlaceArea,
    DateArea,
    All,
}

/// A golden input: sensor, bands, formula seed, shape, ground sampling distance, what else is known.
struct Case(&'static str, &'static [Band], u64, [usize; 4], f32, Known);

impl Case {
    fn batch(&self) -> Batch {
        let Case(name, bands, seed, shape, gsd, known) = *self;
        let n = shape[0];
        let place = [Known::PlaceArea, Known::All].contains(&known);
        let date = [Known::DateArea, Known::All].contains(&known);
        let context = Context {
            days: if date { DAYS[..n].iter().copied().map(Some).collect() } else { vec![] },
            places: if place { PLACES[..n].iter().copied().map(Some).collect() } else { vec![None; n] },
            gsd_m: (known != Known::Nothing).then_some(gsd),
        };
        let input = Input { sensor: sensor(name), bands: bands.into(), pixels: images(seed, shape), context };
        Batch { inputs: vec![input] }
    }
}

const WITHOUT_B10: [Band; 12] = [
    Band::B01,
    Band::B02,
    Band::B03,
    Band::B04,
    Band::B05,
    Band::B06,
    Band::B07,
    Band::B08,
    Band::B8A,
    Band::B09,
    Band::B11,
    Band::B12,
];

/// Name, patch, input.
const POOLED_CASES: [(&str, usize, Case); 11] = [
    ("s2_224", 16, Case("s2-l1c", &SLOTS, 1, [2, 13, 224, 224], 10.0, Known::PlaceArea)),
    ("ben_224", 16, Case("s2-l1c", &WITHOUT_B10, 2, [2, 12, 224, 224], 10.0, Known::All)),
    ("s1_224", 16, Case("s1", &S1, 3, [2, 2, 224, 224], 10.0, Known::All)),
    ("lcz_112", 16, Case("s2-l1c", &LCZ, 4, [2, 10, 112, 112], 10.0, Known::Area)),
    ("none_224", 16, Case("s2-l1c", &SLOTS, 5, [2, 13, 224, 224], 10.0, Known::Nothing)),
    // Upstream gives both images the token of an unknown location, because one of them has none.
    ("mixed_224", 16, Case("s2-l1c", &SLOTS, 6, [2, 13, 224, 224], 10.0, Known::DateArea)),
    ("k8_s2_64", 8, Case("s2-l1c", &SLOTS, 7, [2, 13, 64, 64], 10.0, Known::Nothing)),
    ("rgbn_264", 16, Case("s2-l1c", &RGBN, 21, [1, 4, 264, 264], 10.0, Known::All)),
    ("s3_96", 8, Case("s3-olci", &S3, 22, [2, 21, 96, 96], 300.0, Known::All)),
    ("s5p_56", 4, Case("s5p", &VARIABLE, 23, [2, 1, 56, 56], 1000.0, Known::All)),
    ("dem_192", 64, Case("dem", &VARIABLE, 24, [1, 1, 192, 192], 30.0, Known::Nothing)),
];

const MAP_CASES: [(&str, usize, Case); 5] = [
    ("dfc_s2_256", 16, Case("s2-l1c", &SLOTS, 8, [1, 13, 256, 256], 10.0, Known::Area)),
    ("cloud_s2_512", 16, Case("s2-l1c", &SLOTS, 9, [1, 13, 512, 512], 10.0, Known::All)),
    ("flood_s1_224", 16, Case("s1", &S1, 10, [1, 2, 224, 224], 10.0, Known::All)),
    ("lc100_s3_288", 8, Case("s3-olci", &S3, 25, [1, 21, 288, 288], 300.0, Known::All)),
    ("aq_s5p_56", 4, Case("s5p", &VARIABLE, 26, [1, 1, 56, 56], 1000.0, Known::All)),
];

fn pooled(model: &CopernicusFm, batch: &Batch, pooling: Pooling) -> Vec<f32> {
    numbers(model.encode(batch, Want::Pooled(pooling)).unwrap().pooled().unwrap())
}

#[test]
fn pooled_features() {
    let golden = Golden::open("zoo/copernicus-fm/tiny_io.safetensors");
    for (name, patch, case) in POOLED_CASES {
        let (model, batch) = (tiny(&config("tiny", patch)), case.batch());
        golden.compare(&format!("patch_embed.{name}"), &numbers(model.embed(&batch).unwrap()), EMBEDDED);
        golden.compare(&format!("pooled.{name}"), &pooled(&model, &batch, Pooling::Head), POOLED);
        golden.compare(&format!("clsnorm.{name}"), &pooled(&model, &batch, Pooling::Class), POOLED);
        golden.compare(&format!("mean.{name}"), &pooled(&model, &batch, Pooling::Mean), MAPS);
    }
    golden.assert_all_compared(|name| {
        ["patch_embed", "pooled", "clsnorm", "mean"].iter().any(|what| name.starts_with(what))
    });
}

#[test]
fn feature_maps() {
    let golden = Golden::open("zoo/copernicus-fm/tiny_io.safetensors");
    for (name, patch, case) in MAP_CASES {
        let model = tiny(&config("tiny", patch));
        let maps = model.encode(&case.batch(), Want::Maps).unwrap().maps().unwrap();
        assert_eq!(maps.len(), 4);
        for (layer, map) in [3, 5, 7, 11].into_iter().zip(maps) {
            assert_eq!(map.stride, patch);
            golden.compare(&format!("map{layer}.{name}"), &numbers(map.values), MAPS);
        }
    }
    golden.assert_all_compared(|name| name.starts_with("map"));
}

#[test]
fn positions_kernels_and_fourier_encodings() {
    let golden = Golden::open("zoo/copernicus-fm/tiny_io.safetensors");
    let model = tiny(&config("tiny", 16));
    for side in [3, 4, 7, 8, 12, 16, 32, 36] {
        golden.compare(&format!("pos.{side}"), &numbers(model.positions(side)), POSITIONS);
    }
    // From [out, band, row, column] to [band, row, column, out] and back.
    let taps = images(20, [3, 2, 16, 16]).permute([1, 2, 3, 0]);
    for patch in [4, 8, 24, 64] {
        let found = numbers(resize_taps(taps.clone(), patch).permute([3, 0, 1, 2]));
        golden.compare(&format!("kernel{patch}"), &found, KERNELS);
    }
    type Row = fn(f32, usize) -> terrabench::Result<Vec<f32>>;
    let bands = |micrometres: &[f64], row: Row| -> Vec<f32> {
        micrometres.iter().flat_map(|um| row((um * 1000.0) as f32, 128).unwrap()).collect()
    };
    let two = |row: &dyn Fn(usize) -> Vec<f32>| -> Vec<f32> { (0..2).flat_map(row).collect() };
    for (name, found, tolerance) in [
        ("enc.wave.s2", bands(&S2_WAVELENGTHS, wavelength_row), 1e-6),
        ("enc.wave.s1", bands(&S1_WAVELENGTHS, wavelength_row), 1e-6),
        ("enc.bandwidth.s2", bands(&S2_BANDWIDTHS, bandwidth_row), 1e-6),
        // Angles reach 6e9, so the last bits of a wavelength matter.
        ("enc.bandwidth.s1", bands(&S1_BANDWIDTHS, bandwidth_row), 5e-6),
        ("enc.coord", two(&|image| place_row(PLACES[image], 768).unwrap()), 1e-6),
        ("enc.time", two(&|image| date_row(DAYS[image] as f32, 768)), 1e-6),
        ("enc.area", two(&|_| area_row(0.0256, 768).unwrap()), 1e-6),
    ] {
        assert_close(name, &found, &golden.get(name), tolerance);
    }
    golden.assert_all_compared(|name| ["pos", "kernel", "enc"].iter().any(|what| name.starts_with(what)));
}

/// In upstream's code, one image without a location removes the locations of the whole batch; here images are independent.
#[test]
fn an_image_without_a_location_does_not_affect_others() {
    let model = tiny(&config("tiny", 16));
    let mut batch = Case("s1", &S1, 3, [2, 2, 112, 112], 10.0, Known::All).batch();
    batch.inputs[0].context.places[1] = None;
    batch.inputs[0].context.days[0] = None;
    let together = pooled(&model, &batch, Pooling::Head);
    let alone: Vec<f32> =
        batch.split().iter().flat_map(|image| pooled(&model, image, Pooling::Head)).collect();
    assert_close("image by image", &together, &alone, 2e-6);
}

#[test]
fn metadata_excluded_by_the_configuration_counts_as_unknown() {
    let model = tiny(&config("tiny", 16));
    let blind = tiny(&CopernicusFmConfig { metadata: vec![MetadataKind::Area], ..config("tiny", 16) });
    let batch = |known| Case("s1", &S1, 3, [2, 2, 112, 112], 10.0, known).batch();
    let all = pooled(&blind, &batch(Known::All), Pooling::Head);
    assert_eq!(all, pooled(&model, &batch(Known::Area), Pooling::Head));
    assert_ne!(all, pooled(&model, &batch(Known::All), Pooling::Head));
}

/// The first of the two images of each golden input.
#[test]
fn base_with_formula_weights() {
    let names = ["copernicus-fm-b", "copernicus-fm-b-s3", "copernicus-fm-b-s5p"];
    assert_parity(&names, "tests/zoo_copernicus_fm.rs", compare_base);
}

fn compare_base() {
    const HEAD: &[(&str, Want)] = &[("pooled", Want::Pooled(Pooling::Head))];
    const BOTH: &[(&str, Want)] =
        &[("pooled", Want::Pooled(Pooling::Head)), ("clsnorm", Want::Pooled(Pooling::Class))];
    let value = |name: &str, shape: &[usize]| {
        let scale: [f64; 2] = match shape.len() {
            _ if name.ends_with("bias") => [0.0, 0.02],
            1 => [1.0, 0.1],
            _ => [0.0, 0.08],
        };
        Ok(formula_weights(name, shape, scale))
    };
    let golden = Golden::open("zoo/copernicus-fm/full_io.safetensors");
    for (patch, cases) in [
        (
            16,
            vec![
                ("s2_224", BOTH, Case("s2-l1c", &SLOTS, 11, [1, 13, 224, 224], 10.0, Known::PlaceArea)),
                ("s1_224", HEAD, Case("s1", &S1, 12, [1, 2, 224, 224], 10.0, Known::All)),
                ("none_224", HEAD, Case("s2-l1c", &SLOTS, 13, [1, 13, 224, 224], 10.0, Known::Nothing)),
            ],
        ),
        (8, vec![("s3_96", HEAD, Case("s3-olci", &S3, 14, [1, 21, 96, 96], 300.0, Known::All))]),
        (4, vec![("s5p_56", BOTH, Case("s5p", &VARIABLE, 15, [1, 1, 56, 56], 1000.0, Known::All))]),
    ] {
        let model = parameters::fill(empty(&config("base", patch), &device()), value).unwrap();
        for (name, wanted, case) in cases {
            let batch = case.batch();
            for (what, want) in wanted {
                let found = numbers(model.encode(&batch, *want).unwrap().pooled().unwrap());
                let name = format!("{what}.base.{name}");
                let expected = &golden.get(&name)[..found.len()];
                assert_close(&name, &found, expected, 5e-5);
                let squares = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                let rms = (squares / expected.len() as f64).sqrt();
                assert!(rms < 3e-6, "{name} differs by {rms:e} (root mean square)");
            }
            if patch == 8 {
                let maps = model.encode(&batch, Want::Maps).unwrap().maps().unwrap();
                for (layer, map) in [3, 5, 7, 11].into_iter().zip(maps) {
                    let name = format!("map{layer}.base.{name}.first64");
                    assert_close(&name, &numbers(map.values)[..64], &golden.get(&name), 5e-5);
                }
            }
        }
    }
}

#[test]
fn parameters_are_the_official_ones() {
    let file = "zoo/copernicus-fm/params_base.json";
    assert_parameters(&empty(&config("base", 16), &device()), file, |name| name == "mask_token");

    let bands_only = sensors().into_iter().filter(|(_, input)| !input.wavelengths.is_empty()).collect();
    let bands_only = CopernicusFm::new(&config("base", 16), &bands_only, &device());
    let left_out = |name: &str| name == "mask_token" || name.starts_with("patch_embed_variable");
    assert_parameters(&bands_only, file, left_out);
}

#[test]
fn configuration_describes_the_golden_model() {
    let found = ModelConfig::load(&Home::find().unwrap(), "copernicus-fm-b").unwrap();
    assert_eq!(found.architecture, ArchitectureConfig::CopernicusFm(config("base", 16)));
    let expected = sensors();
    assert_eq!(found.sensors[&Sensor::S1], expected[&Sensor::S1]);
    for sensor in [Sensor::S2_L1C, Sensor::S2_L2A] {
        assert_eq!(found.sensors[&sensor], expected[&Sensor::S2_L1C], "{sensor}");
    }
    let built = Architecture::new(&found.architecture, &found.sensors, &device()).unwrap();
    let listed = parameters::list(&empty(&config("base", 16), &device()));
    let banded = |(name, _): &(String, Vec<usize>)| !name.starts_with("patch_embed_variable");
    assert_eq!(built.parameters(), listed.into_iter().filter(banded).collect::<Vec<_>>());
}

#[test]
fn configurations_of_sentinel_3_and_5p_differ_in_patches_and_sensors() {
    let load = |name: &str| ModelConfig::load(&Home::find().unwrap(), name).unwrap();
    let (three, five) = (load("copernicus-fm-b-s3"), load("copernicus-fm-b-s5p"));
    assert_eq!(three.architecture, ArchitectureConfig::CopernicusFm(config("base", 8)));
    let olci = &three.sensors[&sensor("s3-olci")];
    assert_eq!(
        (olci.wavelengths.as_slice(), olci.bandwidths.as_slice()),
        (&S3_WAVELENGTHS[..], &S3_BANDWIDTHS[..])
    );
    assert_eq!((three.sensors.len(), olci.bands.len()), (1, 21));
    let vectors = Some("varname_embed/varname_embed_llama3.2_1B.pt".to_owned());
    let with_vectors = CopernicusFmConfig { language_vectors: vectors, ..config("base", 4) };
    assert_eq!(five.architecture, ArchitectureConfig::CopernicusFm(with_vectors));
    let gases = [("s5p-no2", "Sentinel 5P Nitrogen Dioxide"), ("s5p-o3", "Sentinel 5P Ozone")];
    for (name, variable) in gases {
        let input = &five.sensors[&sensor(name)];
        assert_eq!(
            (input.variable.as_deref(), input.wavelengths.as_slice()),
            (Some(variable), &[][..]),
            "{name}"
        );
    }
    assert_eq!(five.sensors.len(), gases.len());
}

#[test]
fn the_frozen_model_gives_the_same_features() {
    let model = tiny(&config("tiny", 4));
    let frozen = tiny(&config("tiny", 4)).frozen();
    for case in [
        Case("s5p", &VARIABLE, 23, [2, 1, 56, 56], 1000.0, Known::All),
        Case("s2-l1c", &RGBN, 21, [2, 4, 56, 56], 10.0, Known::PlaceArea),
    ] {
        let batch = case.batch();
        for want in [Want::Pooled(Pooling::Head), Want::Pooled(Pooling::Class)] {
            let [found, expected] = [frozen.encode(&batch, want), model.encode(&batch, want)]
                .map(|encoded| numbers(encoded.unwrap().pooled().unwrap()));
            assert_close("frozen", &found, &expected, 1e-5);
        }
    }
}

#[test]
fn gradients_reach_all_parts() {
    let weights = tiny_weights();
    let shared = ["coord_fc.weight", "scale_fc.bias", "blocks.0.attn.qkv.weight", "pos_embed", "cls_token"];
    for (case, patch, own) in [
        (
            Case("s2-l1c", &RGBN, 21, [1, 4, 64, 64], 10.0, Known::DateArea),
            8,
            ["patch_embed_spectral.weight_generator.fc_weight.weight", "coord_token"],
        ),
        (
            Case("s5p", &VARIABLE, 26, [1, 1, 56, 56], 1000.0, Known::PlaceArea),
            4,
            ["patch_embed_variable.language_proj.weight", "time_token"],
        ),
    ] {
        let batch = case.batch();
        let outputs = |model: &CopernicusFm, device: &Device| {
            let mut batch = batch.clone();
            let pixels = batch.inputs[0].pixels.clone().into_data();
            batch.inputs[0].pixels = Tensor::from_data(pixels, device);
            model.encode(&batch, Want::Pooled(Pooling::Head)).unwrap().pooled().unwrap()
        };
        let names: Vec<&str> = shared.into_iter().chain(own).collect();
        assert_gradients(|device| empty(&config("tiny", patch), device), &weights, outputs, &names);
    }
}

#[test]
fn unsuitable_requests_are_errors() {
    let mut model = CopernicusFm::new(&config("tiny", 16), &sensors(), &device());
    let error = |batch: &Batch, want| model.encode(batch, want).unwrap_err().to_string();
    let s1 = |shape| Case("s1", &S1, 1, shape, 10.0, Known::All).batch();
    let s5p = Case("s5p", &VARIABLE, 1, [1, 1, 56, 56], 1000.0, Known::All).batch();
    let unknown = Case("s2-l2a", &SLOTS, 1, [1, 13, 32, 32], 10.0, Known::All).batch();
    let mut far = s1([1, 2, 32, 32]);
    far.inputs[0].context.places[0] = Some([541.0, 0.0]);
    let mut coarse = s1([1, 2, 32, 32]);
    coarse.inputs[0].context.gsd_m = Some(0.1);
    let mut few = s1([2, 2, 32, 32]);
    few.inputs[0].context.days.pop();
    for (batch, want, says) in [
        (unknown, Want::Tokens, "found s2-l2a"),
        (s1([1, 2, 32, 48]), Want::Tokens, "found 32 x 48"),
        (s1([1, 2, 32, 32]), Want::Pooled(Pooling::MeanAll), "expected pooling head or class or mean"),
        (s5p, Want::Tokens, "expected a language vector"),
        (far, Want::Tokens, "longitude + 180: expected 0.0001 to 720, found 721"),
        (coarse, Want::Tokens, "patch area in square kilometres"),
        (few, Want::Tokens, "expected 2 days, one per image, found 1"),
    ] {
        let found = error(&batch, want);
        assert!(found.contains(says), "{found}");
    }
    assert!(wavelength_row(0.665, 128).is_err(), "micrometres in place of nanometres");
    let found = model.set_language_vector(Sensor::S1, language_vector(1)).unwrap_err().to_string();
    assert!(found.contains("found s1"), "{found}");
    let found = model.set_language_vector(sensor("s5p"), vec![0.0; 3]).unwrap_err().to_string();
    assert!(found.contains("expected a language vector of length 2048, found 3"), "{found}");
    let contradiction = CopernicusFmConfig { width: 30, heads: 3, ..config("tiny", 16) }.problem();
    assert_eq!(contradiction.unwrap(), "width: expected a multiple of 4 that is at least 8, found 30");
    assert_eq!(config("base", 16).problem(), None);
}
