//! Compares the plain vision transformer with timm's (tests/fixtures/zoo/vit, made by its `make.py`).

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use ndarray::Array4;
use terrabench::device;
use terrabench::home::Home;
use terrabench::model::architecture::{Architecture, ArchitectureConfig, Network, Sizes};
use terrabench::model::config::{ModelConfig, SensorInput};
use terrabench::model::encoder::{Encoder, Pooling, Want};
use terrabench::model::parameters;
use terrabench::model::vit::{Vit, VitConfig};
use terrabench::task::Sensor;

use crate::common::fixture;
use crate::reference_model::{
    Golden, SENTINEL2, array, assert_gradients, batch, images, made_up, sensors, tensor,
};
use crate::zoo_parity::assert_parity;

/// The backend under test: LibTorch if it is compiled in.
fn device() -> Device {
    device::by_name(if cfg!(feature = "libtorch") { "libtorch" } else { "flex" }).unwrap()
}

fn same(name: &str) -> String {
    name.to_owned()
}

fn tiny_config() -> VitConfig {
    let map_layers = vec![0, 1, 2, 3];
    VitConfig { width: 48, depth: 4, heads: 3, mlp_ratio: 4, patch: 8, positions: 8, map_layers }
}

fn sentinel2() -> BTreeMap<Sensor, SensorInput> {
    sensors(&[(Sensor::S2_L1C, SENTINEL2)])
}

/// The made-up values of a parameter, by the rule `TINY` of `make.py`.
pub fn tiny_values(name: &str, shape: &[usize]) -> Vec<f32> {
    let value: [f64; 2] = match shape.len() {
        _ if name.ends_with(".bias") => [0.0, 0.1],
        1 => [1.0, 0.2],
        2 => [0.0, 0.6],
        _ => [0.0, 0.02],
    };
    golden_formula::formula_weights(name, shape, value)
}

fn tiny_weights<M: Module>(module: M) -> M {
    parameters::fill(module, |name, shape| Ok(tiny_values(name, shape))).unwrap()
}

fn tiny(sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Vit {
    tiny_weights(Vit::new(&tiny_config(), sensors, device))
}

const POOLINGS: [(&str, Pooling); 4] = [
    ("class", Pooling::Class),
    ("mean", Pooling::Mean),
    ("mean-all", Pooling::MeanAll),
    ("head", Pooling::Head),
];

/// Compares all poolings and maps of one input.
fn check(golden: &mut Golden, vit: &Vit, key: &str, image: &Array4<f32>, layers: &[usize]) {
    let batch = batch(Sensor::S2_L1C, &sentinel2()[&Sensor::S2_L1C], image, &device());
    for (name, pooling) in POOLINGS {
        let pooled = vit.encode(&batch, Want::Pooled(pooling)).unwrap().pooled().unwrap();
        golden.check(&format!("{name}.{key}"), &array(pooled), 5e-5, 1e-5);
    }
    let maps = vit.encode(&batch, Want::Maps).unwrap().maps().unwrap();
    assert_eq!(maps.len(), layers.len());
    for (layer, map) in layers.iter().zip(maps) {
        let [_, _, h, _] = batch.inputs[0].pixels.dims();
        assert_eq!(map.values.dims()[2] * map.stride, h);
        golden.check(&format!("map{layer}.{key}"), &array(map.values), 1e-4, 1e-5);
    }
}

#[test]
fn tiny_outputs_are_timms() {
    let mut golden = Golden::open("zoo/vit/tiny_io.safetensors");
    let vit = tiny(&sentinel2(), &device());
    let inputs = [
        ("s2_64", images(1, [2, 13, 64, 64])),
        ("s2_96", images(2, [1, 13, 96, 96])),
        ("s2_32", images(3, [2, 13, 32, 32])),
        ("s2_64x80", images(4, [1, 13, 64, 80])),
    ];
    for (key, image) in &inputs {
        check(&mut golden, &vit, key, image, &[0, 1, 2, 3]);
        let batch = batch(Sensor::S2_L1C, &sentinel2()[&Sensor::S2_L1C], image, &device());
        let (tokens, grid) = vit.encode(&batch, Want::Tokens).unwrap().tokens().unwrap();
        let (_, _, h, w) = image.dim();
        assert_eq!(grid, [h / 8, w / 8]);
        golden.check(&format!("tokens.{key}"), &array(tokens), 1e-4, 1e-5);
    }
    for [rows, columns] in [[12, 12], [4, 4], [8, 10]] {
        let positions = array(vit.positions([rows, columns]));
        golden.check(&format!("pos.{rows}x{columns}"), &positions, 1e-7, 1e-7);
    }
    // In a model of two sensors, each leaves the other's channels at zero.
    let both = sensors(&[(Sensor::S1, "VV VH"), (Sensor::S2_L1C, SENTINEL2)]);
    let vit = tiny(&both, &device());
    let s1 = images(5, [2, 2, 64, 64]);
    for (key, sensor, image) in [("s1_64", Sensor::S1, &s1), ("s2_64", Sensor::S2_L1C, &inputs[0].1)] {
        let batch = batch(sensor, &both[&sensor], image, &device());
        let class = vit.encode(&batch, Want::Pooled(Pooling::Class)).unwrap().pooled().unwrap();
        golden.check(&format!("class.both.{key}"), &array(class), 5e-5, 1e-5);
    }
    golden.finish("-");
}

#[test]
fn base_outputs_are_timms() {
    let ArchitectureConfig::Vit(config) = config("vit-b").architecture else { panic!("vit-b is no ViT") };
    let vit = made_up(Vit::new(&config, &sentinel2(), &device()), same);
    assert_eq!(parameters::list(&vit), timms_parameters(13));
    let mut golden = Golden::open("zoo/vit/full_io.safetensors");
    let compare = || check(&mut golden, &vit, "base", &images(6, [1, 13, 224, 224]), &[3, 5, 7, 11]);
    let of_sentinel_3_and_5p = ["vit-b-s3", "vit-b-s5p", "vit-b-supervised-s3", "vit-b-supervised-s5p"];
    let names = [&["vit-b", "vit-b-supervised"][..], &of_sentinel_3_and_5p].concat();
    assert_parity(&names, "tests/zoo_vit.rs", compare);
    golden.finish("-");
}

/// Names and shapes of the parameters of timm's base model for this many bands, in its order.
fn timms_parameters(bands: usize) -> Vec<(String, Vec<usize>)> {
    let text = std::fs::read_to_string(fixture("zoo/vit/params_base.json")).unwrap();
    let mut list: Vec<(String, Vec<usize>)> = serde_json::from_str(&text).unwrap();
    let weight = list.iter_mut().find(|(name, _)| name == "patch_embed.proj.weight").unwrap();
    weight.1[1] = bands;
    list
}

fn config(name: &str) -> ModelConfig {
    ModelConfig::load(&Home::find().unwrap(), name).unwrap()
}

#[test]
fn baselines_are_timms_base_with_one_channel_per_distinct_band() {
    for name in ["vit-b", "vit-b-supervised"] {
        let config = config(name);
        let network = Architecture::new(&config.architecture, &config.sensors, &device()).unwrap();
        assert_eq!(network.parameters(), timms_parameters(15), "{name}");
        assert_eq!(
            config.in_suite("copernicus-bench", terrabench::model::config::Inputs::AsPublished).pooling(),
            Pooling::Head
        );
    }
}

/// The reference builds one model per task: 21 channels in patches of 8, or 1 in patches of 4.
#[test]
fn baselines_of_sentinel_3_and_5p_have_their_tasks_channels_and_patches() {
    for (satellite, channels, patch) in [("s3", 21, 8), ("s5p", 1, 4)] {
        for name in [format!("vit-b-{satellite}"), format!("vit-b-supervised-{satellite}")] {
            let config = config(&name);
            let network = Architecture::new(&config.architecture, &config.sensors, &device()).unwrap();
            let parameters = network.parameters();
            let kernel = parameters.iter().find(|(name, _)| name == "patch_embed.proj.weight").unwrap();
            assert_eq!(kernel.1, [768, channels, patch, patch], "{name}");
        }
    }
}

#[test]
fn gradients_are_slopes() {
    let device = Device::flex().autodiff();
    let both = sensors(&[(Sensor::S1, "VV VH"), (Sensor::S2_L1C, SENTINEL2)]);
    let vit = tiny(&both, &device);
    let batch = batch(Sensor::S1, &both[&Sensor::S1], &images(5, [2, 2, 64, 80]), &device);
    let names = [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "blocks.0.attn.qkv.weight",
        "blocks.3.mlp.fc2.bias",
        "norm.weight",
    ];
    for (_, pooling) in POOLINGS {
        assert_gradients(&vit, same, &batch, Want::Pooled(pooling), &names);
    }
}

#[test]
fn unsuitable_images_are_errors() {
    let both = sensors(&[(Sensor::S1, "VV VH"), (Sensor::S2_L1C, SENTINEL2)]);
    let vit = tiny(&both, &device());
    let refused = |sensor: Sensor, shape: [usize; 4]| {
        let mut batch = batch(Sensor::S1, &both[&Sensor::S1], &Array4::zeros((1, 2, 64, 64)), &device());
        batch.inputs[0].sensor = sensor;
        batch.inputs[0].pixels = tensor(&Array4::zeros(shape), &device());
        vit.encode(&batch, Want::Tokens).unwrap_err().to_string()
    };
    let message = refused(Sensor::S2_L2A, [1, 13, 64, 64]);
    assert!(message.contains("expected sensor s1 or s2-l1c, found s2-l2a"), "{message}");
    let message = refused(Sensor::S1, [1, 13, 64, 64]);
    assert!(message.contains("expected 2 bands, found 13"), "{message}");
    let message = refused(Sensor::S1, [1, 2, 64, 65]);
    assert!(message.contains("multiples of 8 pixels, found 64 x 65"), "{message}");
}

#[test]
fn inconsistent_configurations_are_explained() {
    assert_eq!(tiny_config().problem(), None);
    let problem = |change: fn(&mut VitConfig)| {
        let mut config = tiny_config();
        change(&mut config);
        config.problem().unwrap()
    };
    assert!(problem(|c| c.depth = 0).contains("found a 0"));
    assert_eq!(problem(|c| c.heads = 7), "width: expected a multiple of the 7 heads, found 48");
    assert_eq!(problem(|c| c.map_layers = vec![4]), "map-layers: expected blocks below 4 (0-based), found 4");
    assert!(problem(|c| c.map_layers = vec![3, 1]).contains("ascending"));
}
