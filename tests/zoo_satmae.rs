//! Compares SatMAE and SatMAE++ with the numbers of the published code (tests/fixtures/zoo/satmae, satmaepp).

use burn::tensor::Device;
use ndarray::{Array4, ArrayD, Axis};
use terrabench::device;
use terrabench::model::architecture::{Architecture, ArchitectureConfig, Network, Sizes};
use terrabench::model::config::SensorInput;
use terrabench::model::encoder::{Batch, Encoder, Pooling, Want};
use terrabench::model::satmae::{SatMae, SatMaeConfig};
use terrabench::model::weights::{self, Weights};
use terrabench::task::Sensor;

use crate::common::fixture;
use crate::reference_model::{
    Golden, SENTINEL2, array, assert_gradients, assert_parameters, batch, filled, galileo, images, made_up,
    over_dates, sensors, tensor,
};
use crate::zoo_parity::assert_parity;

/// The backend under test: LibTorch if it is compiled in.
fn device() -> Device {
    device::by_name(if cfg!(feature = "libtorch") { "libtorch" } else { "flex" }).unwrap()
}

fn same(name: &str) -> String {
    name.to_owned()
}

/// Bands that the published evaluation passes to the model.
const AS_EVALUATED: &str = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09";
/// Bands that the model was trained on.
const AS_TRAINED: &str = "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12";

fn input(bands: &str) -> SensorInput {
    sensors(&[(Sensor::S2_L1C, bands)]).remove(&Sensor::S2_L1C).unwrap()
}

fn tiny_config() -> SatMaeConfig {
    SatMaeConfig {
        width: 48,
        group_width: 16,
        depth: 4,
        heads: 3,
        mlp_ratio: 4,
        patch: 8,
        positions: 12,
        map_layers: vec![0, 1, 2, 3],
    }
}

/// The sizes in `configs/models/<name>.toml`, whose parameters are those of the checkpoint.
fn full_config(name: &str, parameters: &str) -> SatMaeConfig {
    let config = assert_parameters(name, parameters, "-");
    let evaluated = config.clone().in_suite("geobench", terrabench::model::config::Inputs::AsPublished);
    for (own, bands) in [(&config, AS_TRAINED), (&evaluated, AS_EVALUATED)] {
        assert_eq!(
            own.sensors.values().map(|input| input.bands.clone()).collect::<Vec<_>>(),
            [input(bands).bands, input(bands).bands]
        );
    }
    match config.architecture {
        ArchitectureConfig::SatMae(sizes) => sizes,
        other => panic!("{name} is {}", other.kind()),
    }
}

fn model(config: &SatMaeConfig, device: &Device) -> SatMae {
    SatMae::new(config, &sensors(&[(Sensor::S2_L1C, AS_EVALUATED)]), device)
}

/// Images [n, rows, columns, bands] from the formula, as [n, bands, rows, columns].
fn bands_last(seed: u64, shape: [usize; 4]) -> Array4<f32> {
    images(seed, shape).permuted_axes([0, 3, 1, 2]).as_standard_layout().into_owned()
}

/// Preprocesses images with thirteen bands as in the published evaluation.
fn prepared(images: &Array4<f32>, side: usize) -> Batch {
    let input = input(AS_EVALUATED);
    batch(Sensor::S2_L1C, &input, &galileo(images, SENTINEL2, &input, side), &device())
}

fn pooled(model: &SatMae, batch: &Batch, pooling: Pooling) -> ArrayD<f32> {
    array(model.encode(batch, Want::Pooled(pooling)).unwrap().pooled().unwrap())
}

fn spatial(model: &SatMae, batch: &Batch) -> ArrayD<f32> {
    let (tokens, grid) = model.encode(batch, Want::Tokens).unwrap().tokens().unwrap();
    let [_, _, h, w] = batch.inputs[0].pixels.dims();
    assert_eq!(grid, [h / 8, w / 8]);
    array(tokens)
}

/// Compares pooled feature, patch features and patch embedding of one input.
fn check(golden: &mut Golden, model: &SatMae, key: &str, batch: &Batch, full: bool) {
    golden.check(&format!("pool.{key}"), &pooled(model, batch, Pooling::Mean), 5e-5, 1e-5);
    let spatial = spatial(model, batch);
    golden.check(&format!("spatial.{key}"), &spatial, 1e-4, 1e-5);
    if full {
        golden.check(&format!("spatial.{key}.full"), &spatial, 1e-4, 1e-5);
    }
    let embedded = array(model.embed(batch.inputs[0].pixels.clone()));
    golden.check(&format!("patch_embed.{key}"), &embedded, 2e-6, 1e-5);
}

/// Compares all stored numbers of the tiny model in `folder`.
fn check_tiny(folder: &str) {
    let full = ["s2_64", "s2_120.img120"];
    let mut golden = Golden::open(&format!("zoo/{folder}/tiny_io.safetensors"));
    let weights = format!("zoo/{folder}/tiny.safetensors");
    let model = filled(self::model(&tiny_config(), &device()), &weights, same);
    let inputs = [
        ("s2_96", bands_last(1, [2, 96, 96, 13])),
        ("s2_64", bands_last(2, [2, 64, 64, 13])),
        ("s2_32", bands_last(3, [2, 32, 32, 13])),
        ("s2_48x80", bands_last(4, [1, 48, 80, 13])),
        ("s2_160", bands_last(5, [1, 160, 160, 13])),
        ("s2_120", bands_last(6, [2, 120, 120, 13])),
    ];
    for (key, images) in &inputs {
        check(&mut golden, &model, key, &prepared(images, 96), full.contains(key));
        if ["s2_64", "s2_160"].contains(key) {
            let resized = galileo(images, SENTINEL2, &input(SENTINEL2), 96).into_dyn();
            golden.check(&format!("resized.{key}"), &resized, 2e-5, 1e-5);
        }
    }
    let (key, images) = ("s2_120.img120", &inputs[5].1);
    check(&mut golden, &model, key, &prepared(images, 120), full.contains(&key));
    golden.check("pos.120", &array(model.positions([15, 15])), 2e-6, 1e-5);

    let images = prepared(&inputs[1].1, 96).inputs.remove(0).pixels;
    for (layer, tokens) in model.layers(images, &[0, 1, 2, 3]).into_iter().enumerate() {
        golden.check(&format!("block{layer}.s2_64"), &array(tokens), 1e-4, 1e-5);
    }

    // [image, row, column, date, band]
    let series = golden_formula::formula_values(7, &[64 * 64 * 3 * 13]);
    let series = ArrayD::from_shape_vec(vec![1, 64, 64, 3, 13], series).unwrap();
    let date = |date: usize| {
        let images = series.index_axis(Axis(3), date).into_owned().into_dimensionality::<ndarray::Ix4>();
        prepared(&images.unwrap().permuted_axes([0, 3, 1, 2]), 96)
    };
    let dates = [0, 1, 2].map(date);
    let pooled_dates = dates.each_ref().map(|batch| pooled(&model, batch, Pooling::Mean));
    for (way, pooled) in over_dates(&pooled_dates) {
        golden.check(&format!("pool.s2_t3.{way}"), &pooled, 5e-5, 1e-5);
    }
    for (way, spatial) in over_dates(&dates.each_ref().map(|batch| spatial(&model, batch))) {
        golden.check(&format!("spatial.s2_t3.{way}"), &spatial, 1e-4, 1e-5);
    }

    let batch = batch(Sensor::S2_L1C, &input(AS_TRAINED), &self::images(8, [2, 10, 96, 96]), &device());
    golden.check("cobench.cls", &pooled(&model, &batch, Pooling::Class), 5e-5, 1e-5);
    let maps = model.encode(&batch, Want::Maps).unwrap().maps().unwrap();
    for (layer, map) in maps.into_iter().enumerate() {
        assert_eq!(map.stride, 8);
        let map = array(map.values);
        golden.check(&format!("cobench.map{layer}"), &map, 1e-4, 1e-5);
        if layer == 3 {
            golden.check("cobench.map3.full", &map, 1e-4, 1e-5);
        }
    }
    golden.finish("-");
}

#[test]
fn tiny_satmae_matches_the_published_code() {
    check_tiny("satmae");
}

#[test]
fn tiny_satmaepp_matches_the_published_code() {
    check_tiny("satmaepp");
}

/// Compares the stored numbers of a full-size model filled by the formula.
fn check_full(golden: &mut Golden, model: &SatMae, size: &str, seeds: [u64; 2]) {
    for (key, batch) in [
        (size.to_owned(), prepared(&bands_last(seeds[0], [2, 64, 64, 13]), 96)),
        (format!("{size}.img120"), prepared(&bands_last(seeds[1], [1, 120, 120, 13]), 120)),
    ] {
        let spatial = spatial(model, &batch);
        // Same as the pooled feature, which the tiny models compare; skipping it saves half of the time.
        golden.check(&format!("pool.{key}"), &spatial.mean_axis(Axis(1)).unwrap(), 1e-4, 1e-5);
        golden.check(&format!("spatial.{key}"), &spatial, 1e-4, 1e-5);
    }
}

#[test]
fn base_matches_the_published_code() {
    let mut golden = Golden::open("zoo/satmae/full_io.safetensors");
    let config = full_config("satmae-b", "zoo/satmae/params_base.json");
    let base = made_up(model(&config, &device()), same);
    let compare = || check_full(&mut golden, &base, "base", [11, 13]);
    assert_parity(&["satmae-b"], "tests/zoo_satmae.rs", compare);
    golden.finish("large");
}

#[test]
fn large_matches_the_published_code() {
    let config = full_config("satmae-l", "zoo/satmae/params_large.json");
    let large = made_up(model(&config, &device()), same);
    // The same code and size as SatMAE Large, but with different images.
    let mut golden = Golden::open("zoo/satmaepp/full_io.safetensors");
    let compare = || check_full(&mut golden, &large, "large", [12, 14]);
    assert_parity(&["satmae-l", "satmaepp-l"], "tests/zoo_satmae.rs", compare);
    golden.finish("base");
}

#[test]
fn parameters_of_large_are_those_of_the_checkpoint() {
    let satmae = full_config("satmae-l", "zoo/satmae/params_large.json");
    assert_eq!(full_config("satmaepp-l", "zoo/satmaepp/params_large.json"), satmae);
}

/// The official file also contains the decoder.
#[test]
fn official_files_load() {
    for folder in ["satmae", "satmaepp"] {
        let tiny = ArchitectureConfig::SatMae(tiny_config());
        let sensors = sensors(&[(Sensor::S2_L1C, AS_EVALUATED)]);
        let network = Architecture::new(&tiny, &sensors, &device()).unwrap();
        let file = Weights::File(fixture(&format!("zoo/{folder}/tiny.safetensors")));
        let (network, _, report) = weights::load(network, &file, false).unwrap();
        assert_eq!(report.taken, None);
        assert!(report.unexpected.iter().all(|name| is_of_pretraining(name)), "{report}");
        let batch = prepared(&bands_last(2, [2, 64, 64, 13]), 96);
        let pooled = network.encode(&batch, Want::Pooled(Pooling::Mean)).unwrap().pooled().unwrap();
        let mut golden = Golden::open(&format!("zoo/{folder}/tiny_io.safetensors"));
        golden.check("pool.s2_64", &array(pooled), 5e-5, 1e-5);
    }
}

fn is_of_pretraining(name: &str) -> bool {
    ["mask_token", "decoder_", "proj_up_", "up_block"].iter().any(|start| name.starts_with(start))
}

#[test]
fn gradients_are_slopes() {
    let device = Device::flex().autodiff();
    let model = filled(self::model(&tiny_config(), &device), "zoo/satmae/tiny.safetensors", same);
    let batch = batch(Sensor::S2_L1C, &input(AS_EVALUATED), &images(8, [1, 10, 64, 96]), &device);
    let names = [
        "cls_token",
        "pos_embed",
        "channel_embed",
        "patch_embed.0.proj.weight",
        "patch_embed.2.proj.bias",
        "blocks.0.attn.qkv.weight",
        "blocks.3.mlp.fc2.weight",
    ];
    for pooling in [Pooling::Mean, Pooling::Class] {
        assert_gradients(&model, same, &batch, Want::Pooled(pooling), &names);
    }
}

#[test]
fn unsuitable_requests_are_errors() {
    let model = self::model(&tiny_config(), &device());
    let refused = |shape: [usize; 4], want: Want| {
        let mut batch = prepared(&Array4::zeros((1, 13, 96, 96)), 96);
        batch.inputs[0].pixels = tensor(&Array4::zeros(shape), &device());
        model.encode(&batch, want).unwrap_err().to_string()
    };
    let message = refused([1, 13, 96, 96], Want::Tokens);
    assert!(message.contains("expected 10 bands, found 13"), "{message}");
    let message = refused([1, 10, 96, 97], Want::Tokens);
    assert!(message.contains("multiples of 8 pixels, found 96 x 97"), "{message}");
    let message = refused([1, 10, 96, 96], Want::Pooled(Pooling::Head));
    assert!(message.contains("pooling `head`"), "{message}");

    let thirteen = SatMae::new(&tiny_config(), &sensors(&[(Sensor::S2_L1C, SENTINEL2)]), &device());
    let batch = prepared(&Array4::zeros((1, 13, 96, 96)), 96);
    let message = thirteen.encode(&batch, Want::Tokens).unwrap_err().to_string();
    assert!(message.contains("expected 10 listed bands, found 13"), "{message}");
}

#[test]
fn inconsistent_configurations_are_explained() {
    assert_eq!(tiny_config().problem(), None);
    let wide = SatMaeConfig { group_width: 48, ..tiny_config() };
    assert_eq!(wide.problem().unwrap(), "group-width: expected 1 to 47, found 48");
}
