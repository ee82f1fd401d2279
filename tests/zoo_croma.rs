//! Compares CROMA with the numbers of the published PyTorch code (tests/fixtures/zoo/croma).

use burn::tensor::{Device, Tensor};
use ndarray::{Array4, ArrayD};
use terrabench::home::Home;
use terrabench::model::architecture::{ArchitectureConfig, Network, Sizes};
use terrabench::model::config::ModelConfig;
use terrabench::model::croma::{Croma, CromaConfig, attention_bias};
use terrabench::model::encoder::{Batch, Encoder, Pooling, Want};
use terrabench::task::Sensor;

use crate::reference_model::{
    Golden, SENTINEL2, array, assert_gradients, assert_parameters, batch, filled, galileo, images, made_up,
    over_dates, sensors, series,
};
use crate::zoo_parity::assert_parity;

const S2: Sensor = Sensor::S2_L1C;
const S1: Sensor = Sensor::S1;
const BANDS: [(Sensor, &str); 2] = [(S2, "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"), (S1, "VV VH")];

fn config(width: usize, optical_depth: usize) -> CromaConfig {
    CromaConfig {
        width,
        optical_depth,
        radar_depth: optical_depth / 2,
        optical_map_layers: vec![3, 5, 7, 11],
        radar_map_layers: vec![2, 3, 4, 5],
        joint_depth: 0,
    }
}

fn tiny(device: &Device) -> Croma {
    let model = Croma::new(&config(32, 12), &sensors(&BANDS), device);
    filled(model, "zoo/croma/tiny.safetensors", Croma::checkpoint_name)
}

fn to_batch(sensor: Sensor, images: &Array4<f32>) -> Batch {
    batch(sensor, &sensors(&BANDS)[&sensor], images, &Device::flex())
}

/// Images as preprocessed by Galileo's evaluation.
fn galileo_input(sensor: Sensor, images: &Array4<f32>) -> Array4<f32> {
    let stored = if sensor == S1 { "VV VH" } else { SENTINEL2 };
    galileo(images, stored, &sensors(&BANDS)[&sensor], 120)
}

fn pooled(model: &Croma, batch: &Batch, pooling: Pooling) -> ArrayD<f32> {
    array(model.encode(batch, Want::Pooled(pooling)).unwrap().pooled().unwrap())
}

fn tokens(model: &Croma, batch: &Batch) -> ArrayD<f32> {
    let (tokens, grid) = model.encode(batch, Want::Tokens).unwrap().tokens().unwrap();
    assert_eq!(tokens.dims()[1], grid[0] * grid[1]);
    array(tokens)
}

/// Returns the maps, each with the index of its layer.
fn maps(model: &Croma, batch: &Batch) -> Vec<(usize, ArrayD<f32>)> {
    let layers = if batch.inputs[0].sensor == S1 { [2, 3, 4, 5] } else { [3, 5, 7, 11] };
    let maps = model.encode(batch, Want::Maps).unwrap().maps().unwrap();
    assert!(maps.len() == 4 && maps.iter().all(|map| map.stride == 8));
    layers.into_iter().zip(maps).map(|(layer, map)| (layer, array(map.values))).collect()
}

/// The small model's joint encoder has one layer, so it is built with a depth that no published size has.
#[test]
fn both_sensors_at_once_give_the_published_numbers() {
    let mut golden = Golden::open("zoo/croma/tiny_io.safetensors");
    let config = CromaConfig { joint_depth: 1, ..config(32, 12) };
    assert!(config.fuses(&[S1, S2]) && config.fuses(&[Sensor::S2_L2A, S1]));
    assert!(!config.fuses(&[S1, S1]) && !config.fuses(&[S1]) && !self::config(32, 12).fuses(&[S1, S2]));
    let model = Croma::new(&config, &sensors(&BANDS), &Device::flex());
    let model = filled(model, "zoo/croma/tiny.safetensors", Croma::checkpoint_name);
    let mut batch = to_batch(S1, &images(16, [2, 2, 120, 120]));
    batch.inputs.extend(to_batch(S2, &images(17, [2, 12, 120, 120])).inputs);
    assert_parity(&["croma-b-joint", "croma-l-joint"], "tests/zoo_croma.rs", || {
        golden.check("joint.pooled", &pooled(&model, &batch, Pooling::Head), 2e-4, 1e-5);
        golden.check("joint.spatial", &tokens(&model, &batch), 2e-4, 1e-5);
    });
    batch.inputs.reverse();
    golden.check("joint.pooled", &pooled(&model, &batch, Pooling::Mean), 2e-4, 1e-5);

    let plain = tiny(&Device::flex()).encode(&batch, Want::Tokens).unwrap_err().to_string();
    assert!(plain.contains("expected an image of one sensor") && plain.contains("joint-depth"), "{plain}");
    batch.inputs[0] = to_batch(S2, &images(17, [2, 12, 64, 64])).inputs.remove(0);
    let error = model.encode(&batch, Want::Tokens).unwrap_err().to_string();
    assert!(error.contains("expected images of one size"), "{error}");
}

#[test]
fn joint_models_have_the_checkpoints_parameters() {
    for (name, size, depth) in [("croma-b-joint", "base", 6), ("croma-l-joint", "large", 12)] {
        let model = assert_parameters(name, &format!("zoo/croma/params_{size}.json"), "-");
        let ArchitectureConfig::Croma(config) = &model.architecture else { panic!("{name} is no CROMA") };
        assert_eq!(config.joint_depth, depth);
        assert!(model.fuses(&[S1, S2]), "{name}");
    }
    let odd = CromaConfig { joint_depth: 5, ..config(768, 12) };
    assert_eq!(odd.problem().as_deref(), Some("joint-depth: expected 0 or 6 as radar-depth, found 5"));
}

#[test]
fn tiny_model_gives_the_published_numbers() {
    let mut golden = Golden::open("zoo/croma/tiny_io.safetensors");
    let model = tiny(&Device::flex());

    for (name, sensor, seed, shape, stages) in [
        ("s2_64", S2, 1, [2, 13, 64, 64], true),
        ("s2_120", S2, 2, [1, 13, 120, 120], false),
        ("s2_256", S2, 3, [1, 13, 256, 256], false),
        ("s2_40x72", S2, 4, [1, 13, 40, 72], true),
        ("s1_64", S1, 5, [2, 2, 64, 64], true),
        ("s1_120", S1, 6, [1, 2, 120, 120], false),
    ] {
        let input = galileo_input(sensor, &images(seed, shape));
        let batch = to_batch(sensor, &input);
        if stages {
            golden.check(&format!("resized.{name}"), &input.into_dyn(), 2e-5, 2e-5);
            let embedded = array(model.embed(&batch).unwrap());
            golden.check(&format!("patch_embed.{name}"), &embedded, 1e-5, 1e-5);
        }
        golden.check(&format!("pooled.{name}"), &pooled(&model, &batch, Pooling::Head), 2e-4, 1e-5);
        golden.check(&format!("spatial.{name}"), &tokens(&model, &batch), 2e-4, 1e-5);
    }

    let dates: Vec<ArrayD<f32>> = series(15, [2, 3, 13, 32, 32])
        .iter()
        .map(|images| pooled(&model, &to_batch(S2, &galileo_input(S2, images)), Pooling::Head))
        .collect();
    for (name, pooled) in over_dates(&dates) {
        golden.check(&format!("pooled.s2_t3.{name}"), &pooled, 2e-4, 1e-5);
    }

    for (name, sensor, seed, shape, is_pooled) in [
        ("cb_s2_120", S2, 7, [2, 12, 120, 120], true),
        ("cb_s1_120", S1, 8, [2, 2, 120, 120], true),
        ("cb_s2_256", S2, 9, [1, 12, 256, 256], false),
        ("cb_s1_224", S1, 10, [1, 2, 224, 224], false),
    ] {
        let batch = to_batch(sensor, &images(seed, shape));
        if is_pooled {
            golden.check(&format!("pooled.{name}"), &pooled(&model, &batch, Pooling::Mean), 2e-4, 1e-5);
        }
        for (layer, map) in maps(&model, &batch) {
            golden.check(&format!("map{layer}.{name}"), &map, 2e-4, 1e-5);
        }
    }

    for side in [120, 224] {
        let bias = attention_bias(side / 8, side / 8, &Device::flex()).squeeze_dim::<3>(0);
        golden.check(&format!("bias.{side}"), &array(bias.clone()), 4e-6, 4e-6);
        if side == 120 {
            let row = bias.slice_dim(1, 0..1).squeeze_dim::<2>(1);
            golden.check("bias.120.row0", &array(row), 4e-6, 4e-6);
        }
    }
    golden.finish("joint");
}

/// Checks one published size with formula weights; `is_base` says whether Copernicus-Bench's numbers are stored, too.
fn full_size(golden: &mut Golden, size: &str, config: &CromaConfig, is_base: bool) {
    for (sensor, bands, [galileo_seed, copernicus_seed]) in [(S2, 13, [11, 13]), (S1, 2, [12, 14])] {
        let inputs = sensors(&BANDS).into_iter().filter(|(other, _)| *other == sensor).collect();
        let model = made_up(Croma::new(config, &inputs, &Device::flex()), Croma::checkpoint_name);
        let name = |stage: &str, route: &str| {
            let sensor = if sensor == S1 { "s1" } else { "s2" };
            format!("{stage}.{size}.{route}{sensor}")
        };

        let batch = to_batch(sensor, &galileo_input(sensor, &images(galileo_seed, [2, bands, 64, 64])));
        let feature = pooled(&model, &batch, Pooling::Head);
        golden.check(&(name("pooled", "") + "_64"), &feature, 1e-4, 1e-5);
        golden.check_rms(&(name("pooled", "") + "_64"), &feature, 5e-6);
        golden.check(&(name("spatial", "") + "_64"), &tokens(&model, &batch), 1e-4, 1e-5);
        if is_base {
            let batch = to_batch(sensor, &images(copernicus_seed, [2, bands.min(12), 120, 120]));
            let feature = pooled(&model, &batch, Pooling::Mean);
            golden.check(&(name("pooled", "cb_") + "_120"), &feature, 1e-4, 1e-5);
            golden.check_rms(&(name("pooled", "cb_") + "_120"), &feature, 5e-6);
            for (layer, map) in maps(&model, &batch) {
                golden.check(&(name(&format!("map{layer}"), "cb_") + "_120"), &map, 1e-4, 1e-5);
            }
        }
    }
}

#[test]
fn base_with_formula_weights_gives_the_published_numbers() {
    let mut golden = Golden::open("zoo/croma/full_io.safetensors");
    let base = || full_size(&mut golden, "base", &config(768, 12), true);
    assert_parity(&["croma-b"], "tests/zoo_croma.rs", base);
    golden.finish("large");
}

#[test]
fn large_with_formula_weights_gives_the_published_numbers() {
    let mut golden = Golden::open("zoo/croma/full_io.safetensors");
    let large = || full_size(&mut golden, "large", &config(1024, 24), false);
    assert_parity(&["croma-l"], "tests/zoo_croma.rs", large);
    golden.finish("base");
}

#[test]
fn configured_models_have_the_checkpoints_parameters() {
    for (name, size, width, depth) in [("croma-b", "base", 768, 12), ("croma-l", "large", 1024, 24)] {
        let list = format!("zoo/croma/params_{size}.json");
        let model = assert_parameters(name, &list, "joint_encoder.");
        let ArchitectureConfig::Croma(sizes) = &model.architecture else { panic!("{name}") };
        assert_eq!(
            (sizes.width, sizes.optical_depth, sizes.radar_depth),
            (width, depth, depth / 2),
            "{name}"
        );
        let expected = sensors(&[BANDS[0], BANDS[1], (Sensor::S2_L2A, BANDS[0].1)]);
        assert_eq!(model.sensors, expected, "{name}");
        assert_eq!(model.pooling(), Pooling::Head);
    }
    let base = ModelConfig::load(&Home::find().unwrap(), "croma-b").unwrap();
    assert_eq!(base.architecture, ArchitectureConfig::Croma(config(768, 12)));
    assert_eq!(
        base.in_suite("copernicus-bench", terrabench::model::config::Inputs::AsPublished).pooling(),
        Pooling::Mean
    );
}

#[test]
fn gradients_are_slopes_of_the_pooled_feature() {
    let device = Device::flex().autodiff();
    let model = tiny(&device);
    let input = &sensors(&BANDS)[&S2];
    let batch = batch(S2, input, &images(21, [2, 12, 24, 32]), &device);
    let names = [
        "s2_encoder.linear_input.weight",
        "s2_encoder.transformer.layers.0.0.to_qkv.weight",
        "s2_encoder.transformer.layers.0.0.input_norm.bias",
        "s2_encoder.transformer.layers.5.0.to_out.weight",
        "s2_encoder.transformer.layers.11.1.net.3.bias",
        "s2_encoder.transformer.norm_out.weight",
        "s2_GAP_FFN.0.weight",
        "s2_GAP_FFN.1.weight",
    ];
    assert_gradients(&model, Croma::checkpoint_name, &batch, Want::Pooled(Pooling::Head), &names);
}

#[test]
fn unsuitable_requests_say_what_was_expected() {
    let model = tiny(&Device::flex());
    let error = |sensor, shape: [usize; 4], want| {
        let pixels = Tensor::zeros(shape, &Device::flex());
        let bands = sensors(&BANDS)[&S1].bands.clone();
        model.encode(&Batch::single(sensor, bands.into(), pixels), want).unwrap_err().to_string()
    };
    for (message, expected) in [
        (error(S1, [1, 3, 64, 64], Want::Tokens), "sensor s1: expected 2 bands, found 3"),
        (
            error(S1, [1, 2, 60, 64], Want::Tokens),
            "expected sides that are multiples of 8 pixels, found 60 x 64",
        ),
        (error(S1, [0, 2, 64, 64], Want::Maps), "expected images, found none"),
        (error(Sensor::S2_L2A, [1, 12, 64, 64], Want::Maps), "expected sensor s1 or s2-l1c, found s2-l2a"),
        (
            error(S1, [1, 2, 64, 64], Want::Pooled(Pooling::Class)),
            "expected pooling head or mean, found class",
        ),
    ] {
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
}

#[test]
fn inconsistent_configurations_are_explained() {
    assert_eq!(config(768, 12).problem(), None);
    for (config, problem) in [
        (config(760, 12), "width: expected a multiple of the 16 heads, found 760"),
        (config(768, 10), "optical-map-layers: expected blocks below 10 (0-based), found 11"),
        (config(768, 0), "expected width, optical-depth and radar-depth above 0, found a 0"),
    ] {
        assert_eq!(config.problem().as_deref(), Some(problem));
    }
}
