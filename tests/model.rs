//! Compares TerraFM with the numbers of the published PyTorch code (tests/fixtures/model), and tests the handling of weight
//! files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::common::encoding::Features;
use crate::common::encoding::sizes_mut;
use crate::common::encoding::terrafm;
use burn::tensor::{Device, Tensor, TensorData};
use golden_formula::formula_values;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use terrabench::device::{self, BACKENDS, names_of};
use terrabench::home::Home;
use terrabench::model::Encoder;
use terrabench::model::config::ModelConfig;
use terrabench::model::frozen::Frozen;
use terrabench::model::terrafm::TerraFm;
use terrabench::model::weights::{self, Weights};
use terrabench::model::{LoadedModel, load, parameters};
use terrabench::task::Sensor;
use terrabench::{ErrorKind, Result};

use crate::common::fixture;
use crate::zoo_parity::assert_parity;

/// The backend under test: LibTorch if it is compiled in.
fn device() -> Device {
    device::by_name(if cfg!(feature = "libtorch") { "libtorch" } else { "flex" }).unwrap()
}

fn config(name: &str) -> ModelConfig {
    ModelConfig::load(&Home::find().unwrap(), name).unwrap()
}

fn tiny_config() -> ModelConfig {
    config(fixture("model/tiny.toml").to_str().unwrap())
}

fn load_tiny(path: impl Into<PathBuf>) -> Result<LoadedModel> {
    load(&tiny_config(), &Weights::File(path.into()), false, &device())
}

// ---- The formula of the golden numbers ----

fn images(seed: u64, shape: [usize; 4]) -> Tensor<4> {
    let values = formula_values(seed, &shape);
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// The values of a parameter of a full-size model, from the formula.
fn formula_weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let value: [f64; 2] = if name.ends_with(".bias") || name.ends_with("_embed") && shape.len() == 2 {
        [0.0, 0.02]
    } else if shape.len() == 1 {
        [1.0, 0.1]
    } else {
        [0.0, 0.08]
    };
    golden_formula::formula_weights(name, shape, value)
}

#[test]
fn the_formula_is_the_golden_one() {
    let first = formula_values(1, &[3]);
    assert_eq!(first, [1.533_243_2, 0.266_246_08, 0.364_758_73]);
    assert_eq!(formula_weights("norm.weight", &[3]), [1.022_225_9, 1.044_751_5, 0.990_687_13]);
    assert_eq!(formula_weights("cls_token", &[1, 1, 2]), [-0.031_013_336, 0.014_097_895_5]);
    assert_eq!(formula_weights("patch_embed.s1_embed", &[1, 1]), [0.009_903_425]);
}

// ---- Golden numbers ----

/// The tensors of a golden file.
fn golden(file: &str) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(fixture("model").join(file)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |view: &TensorView| {
        assert_eq!(view.dtype(), Dtype::F32);
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    tensors.tensors().iter().map(|(name, view)| (name.clone(), numbers(view))).collect()
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differences = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
    // Not f64::max, which would ignore a NaN.
    let difference = differences.fold(0.0, |worst, d| if d <= worst { worst } else { d });
    crate::zoo_parity::note(difference);
    assert!(difference <= tolerance, "{what} differs by {difference:e}, more than {tolerance:e}");
}

/// Mean, population standard deviation and the first 64 values, as in the golden file.
#[track_caller]
fn assert_summary(golden: &HashMap<String, Vec<f32>>, name: &str, found: &[f32]) {
    let n = found.len() as f64;
    let mean = found.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = found.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    assert_close(name, &[mean as f32], &golden[&format!("{name}.mean")], 1e-5);
    assert_close(name, &[variance.sqrt() as f32], &golden[&format!("{name}.std")], 1e-5);
    assert_close(name, &found[..64], &golden[&format!("{name}.first64")], 5e-5);
}

/// The inputs of the tiny model: name, images, sensor.
fn tiny_inputs() -> Vec<(&'static str, Tensor<4>, Sensor)> {
    let s2 = images(1, [2, 12, 224, 224]);
    vec![
        ("s2_224.l1c", s2.clone(), Sensor::S2_L1C),
        ("s2_224.l2a", s2, Sensor::S2_L2A),
        ("s1_224", images(2, [2, 2, 224, 224]), Sensor::S1),
        ("s2_96.l1c", images(3, [1, 12, 96, 96]), Sensor::S2_L1C),
        ("s2_128x160.l1c", images(4, [1, 12, 128, 160]), Sensor::S2_L1C),
        ("s2_256.l1c", images(5, [1, 12, 256, 256]), Sensor::S2_L1C),
    ]
}

/// The tiny model in its trainable form.
fn tiny_module() -> TerraFm {
    let file = Weights::File(fixture("model/tiny.safetensors"));
    let model = terrafm(&tiny_config(), &device());
    match weights::load(terrabench::model::Architecture::TerraFm(model), &file, false).unwrap().0 {
        terrabench::model::Architecture::TerraFm(model) => model,
        other => panic!("{other:?}"),
    }
}

#[test]
fn features_of_all_sizes_and_stems() {
    let golden = golden("tiny_io.safetensors");
    let frozen = load_tiny(fixture("model/tiny.pth")).unwrap().encoder;
    let module = tiny_module();
    assert_eq!(frozen.width(terrabench::model::Pooling::Class, 12), 48);
    for (name, images, sensor) in tiny_inputs() {
        let expected = &golden[&format!("cls.{name}")];
        assert_close(name, &numbers(frozen.features(images.clone(), sensor).unwrap()), expected, 5e-5);
        assert_close(name, &numbers(module.features(images, sensor).unwrap()), expected, 5e-5);
    }
}

#[test]
fn feature_maps_after_each_block() {
    let golden = golden("tiny_io.safetensors");
    let frozen = load_tiny(fixture("model/tiny.pth")).unwrap().encoder;
    let module = tiny_module();
    let backbones: [&dyn Encoder; 2] = [frozen.as_ref(), &module];
    for backbone in backbones {
        for (input, images, side) in
            [("s2_224", images(1, [2, 12, 224, 224]), 14), ("s2_256", images(5, [1, 12, 256, 256]), 16)]
        {
            let n = images.dims()[0];
            let maps = backbone.feature_maps(images, Sensor::S2_L1C).unwrap();
            assert_eq!(maps.len(), 4);
            for (layer, map) in maps.into_iter().enumerate() {
                assert_eq!(map.dims(), [n, 48, side, side]);
                let (name, map) = (format!("map{layer}.{input}.l1c"), numbers(map));
                assert_summary(&golden, &name, &map);
                if layer == 3 {
                    assert_close(&name, &map, &golden[&format!("{name}.full")], 5e-5);
                }
            }
        }
    }
}

#[test]
fn only_the_configured_layers_are_maps() {
    let mut config = tiny_config();
    sizes_mut(&mut config).map_layers = vec![2, 0];
    let weights = Weights::File(fixture("model/tiny.pth"));
    let image = images(3, [1, 12, 96, 96]);
    let all = load_tiny(fixture("model/tiny.pth")).unwrap().encoder;
    let all = all.feature_maps(image.clone(), Sensor::S2_L1C).unwrap();
    let some = load(&config, &weights, false, &device()).unwrap().encoder;
    let some = some.feature_maps(image, Sensor::S2_L1C).unwrap();
    assert_eq!(some.len(), 2);
    for (some, layer) in some.into_iter().zip([0, 2]) {
        assert_eq!(numbers(some), numbers(all[layer].clone()));
    }
}

#[test]
fn patch_embeddings_of_all_stems() {
    let golden = golden("tiny_io.safetensors");
    let module = tiny_module();
    for (name, images, sensor) in tiny_inputs().into_iter().take(3) {
        let name = format!("patch_embed.{}", name.trim_start_matches("s2_224.").trim_end_matches("_224"));
        assert_summary(&golden, &name, &numbers(module.embed(images, sensor).unwrap()));
    }
}

#[test]
fn positions_of_all_sizes() {
    let golden = golden("tiny_io.safetensors");
    let module = tiny_module();
    for (h, w) in [(96, 96), (128, 160), (256, 256)] {
        let name = format!("pos.{h}x{w}");
        assert_close(&name, &numbers(module.positions(h, w)), &golden[&name], 3e-6);
    }
    let stored = self::golden("tiny.safetensors").remove("pos_embed").unwrap();
    assert_eq!(numbers(module.positions(224, 224)), stored, "positions at the trained size stay as they are");
    let flat = numbers(module.positions(112, 448));
    assert_eq!(flat.len(), stored.len());
    assert_ne!(flat, stored, "196 patches that are not 14 x 14 are resized");
}

#[test]
fn parameters_are_upstreams() {
    for (name, file) in [("terrafm-b", "params_base.json"), ("terrafm-l", "params_large.json")] {
        let text = std::fs::read_to_string(fixture("model").join(file)).unwrap();
        let expected: Vec<(String, Vec<usize>)> = serde_json::from_str(&text).unwrap();
        assert_eq!(parameters::list(&terrafm(&config(name), &device())), expected);
    }
}

fn full_size(size: &str, name: &str) {
    let golden = golden("full_io.safetensors");
    let model = terrafm(&config(name), &device());
    let model = Frozen::new(parameters::fill(model, |name, shape| Ok(formula_weights(name, shape))).unwrap());
    let s2 = images(11, [2, 12, 224, 224]);
    let s1 = images(12, [2, 2, 224, 224]);
    for (key, images, sensor) in
        [("l1c", s2.clone(), Sensor::S2_L1C), ("l2a", s2, Sensor::S2_L2A), ("s1", s1, Sensor::S1)]
    {
        let name = format!("cls.{size}.{key}");
        let (found, expected) = (numbers(model.features(images, sensor).unwrap()), &golden[&name]);
        assert_close(&name, &found, expected, 1e-4);
        let squares = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let rms = (squares / expected.len() as f64).sqrt();
        assert!(rms < 2e-5, "{name} differs by {rms:e} (root mean square)");
    }
}

#[test]
fn base_with_formula_weights() {
    assert_parity(&["terrafm-b"], "tests/model.rs", || full_size("base", "terrafm-b"));
}

#[test]
fn large_with_formula_weights() {
    assert_parity(&["terrafm-l"], "tests/model.rs", || full_size("large", "terrafm-l"));
}

// ---- The same everywhere ----

#[test]
fn features_do_not_depend_on_the_batch_or_the_threads() {
    let model = load_tiny(fixture("model/tiny.pth")).unwrap().encoder;
    let batch = images(7, [5, 12, 96, 96]);
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| numbers(model.features(batch.clone(), Sensor::S2_L1C).unwrap()))
    };
    let one = with_threads(1);
    assert_eq!(one, with_threads(1), "a second run");
    if cfg!(feature = "libtorch") {
        return; // LibTorch takes the batch as a whole and has its own threads.
    }
    assert_eq!(one, with_threads(2), "two threads");
    assert_eq!(one, with_threads(3), "three threads");
    let alone: Vec<f32> = batch
        .split(1, 0)
        .into_iter()
        .flat_map(|image| numbers(model.features(image, Sensor::S2_L1C).unwrap()))
        .collect();
    assert_eq!(one, alone, "image by image");
}

#[test]
fn random_weights_are_reproducible() {
    let model = |seed| {
        let weights: Weights = format!("random:{seed}").parse().unwrap();
        load(&tiny_config(), &weights, false, &device()).unwrap()
    };
    let features = |model: &LoadedModel| {
        numbers(model.encoder.features(images(3, [1, 12, 96, 96]), Sensor::S2_L1C).unwrap())
    };
    let (zero, again, one) = (model(0), model(0), model(1));
    assert_eq!((zero.weights_id.as_str(), one.weights_id.as_str()), ("random:0", "random:1"));
    assert!(zero.report.is_complete() && zero.report.loaded.len() == 68, "{}", zero.report);
    assert_eq!(features(&zero), features(&again));
    assert_ne!(features(&zero), features(&one));
    assert!(features(&zero).iter().all(|v| v.is_finite()));
}

// ---- Weight files ----

#[test]
fn all_formats_give_the_same_model() {
    let image = images(1, [2, 12, 224, 224]);
    let features =
        |model: &LoadedModel| numbers(model.encoder.features(image.clone(), Sensor::S2_L1C).unwrap());
    let pth = load_tiny(fixture("model/tiny.pth")).unwrap();
    let safetensors = load_tiny(fixture("model/tiny.safetensors")).unwrap();
    assert_eq!(features(&pth), features(&safetensors));
    assert_eq!(pth.report, safetensors.report);
    assert!(pth.report.unexpected.is_empty() && pth.report.is_complete());

    let half = load_tiny(fixture("model/tiny_prefixed.pth")).unwrap();
    assert!(half.report.unexpected.is_empty() && half.report.is_complete());
    let expected = &golden("tiny_io.safetensors")["cls.s2_224.l1c.prefixed"];
    assert_close("float16 with prefixes", &features(&half), expected, 5e-5);

    let hash = |file| blake3::hash(&std::fs::read(fixture("model").join(file)).unwrap()).to_hex();
    assert_eq!(pth.weights_id, format!("blake3:{}", hash("tiny.pth")));
    assert_eq!(half.weights_id, format!("blake3:{}", hash("tiny_prefixed.pth")));
}

/// A stored tensor: its type, shape and bytes.
type Raw = (Dtype, Vec<usize>, Vec<u8>);

/// Writes the tiny weights, modified by `change`, to a new file.
fn changed(folder: &Path, change: impl FnOnce(&mut HashMap<String, Raw>)) -> PathBuf {
    let bytes = std::fs::read(fixture("model/tiny.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut raw: HashMap<String, Raw> = tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    change(&mut raw);
    let views = raw.iter().map(|(name, (dtype, shape, data))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let path = folder.join("changed.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

#[track_caller]
fn error(result: Result<LoadedModel>) -> String {
    match result {
        Ok(model) => panic!("loaded: {}", model.report),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_misfit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed(folder.path(), |tensors| {
        tensors.remove("norm.weight").unwrap();
        tensors.remove("blocks.2.mlp.fc1.bias").unwrap();
        tensors.get_mut("pos_embed").unwrap().1 = vec![197, 1, 48];
        let (dtype, ..) = tensors.get_mut("blocks.0.norm1.bias").unwrap();
        *dtype = Dtype::I32;
        tensors.insert("head.weight".into(), (Dtype::F32, vec![2, 1], vec![0; 8]));
    });
    let message = error(load_tiny(&path));
    for line in [
        path.to_str().unwrap(),
        "2 missing:",
        "blocks.2.mlp.fc1.bias [192]",
        "norm.weight [48]",
        "2 mismatched:",
        "pos_embed is [197, 1, 48] (float32), expected [1, 197, 48]",
        "blocks.0.norm1.bias is [48] (int32), expected [48]",
        "1 unexpected:",
        "head.weight [2, 1]",
        "--allow-partial",
    ] {
        assert!(message.contains(line), "{line:?} is not in: {message}");
    }

    let model = load(&tiny_config(), &Weights::File(path.clone()), true, &device()).unwrap();
    assert_eq!(model.report.loaded.len(), 64);
    assert_eq!((model.report.missing.len(), model.report.mismatched.len()), (2, 2));
    assert_eq!(model.report.unexpected, ["head.weight [2, 1]"]);
    assert!(model.weights_id.starts_with("blake3:") && model.weights_id.ends_with("+random:0"));
    let features = numbers(model.encoder.features(images(3, [1, 12, 96, 96]), Sensor::S2_L1C).unwrap());
    assert!(features.iter().all(|v| v.is_finite()));
}

#[test]
fn extra_tensors_are_only_reported() {
    let folder = tempfile::tempdir().unwrap();
    let extra = |tensors: &mut HashMap<String, Raw>| {
        tensors.insert("head.weight".into(), (Dtype::F32, vec![2, 1], vec![0; 8]));
        tensors.insert("epoch".into(), (Dtype::I64, vec![], vec![0; 8]));
    };
    let model = load_tiny(changed(folder.path(), extra)).unwrap();
    assert!(model.report.is_complete());
    assert_eq!(model.report.unexpected, ["epoch []", "head.weight [2, 1]"]);

    let mut config = tiny_config();
    config.sensors.retain(|sensor, _| *sensor == Sensor::S1);
    let file = Weights::File(fixture("model/tiny.pth"));
    let model = load(&config, &file, false, &device()).unwrap();
    assert_eq!(model.report.unexpected.len(), 6, "the other sensors: {}", model.report);
    let golden = golden("tiny_io.safetensors");
    let features = numbers(model.encoder.features(images(2, [2, 2, 224, 224]), Sensor::S1).unwrap());
    assert_close("S1 sensor alone", &features, &golden["cls.s1_224"], 5e-5);
    assert!(model.encoder.features(images(3, [1, 12, 96, 96]), Sensor::S2_L1C).is_err());
}

/// Moves all tensors below a prefix.
fn renamed(prefix: &str) -> impl FnOnce(&mut HashMap<String, Raw>) + '_ {
    move |tensors| *tensors = tensors.drain().map(|(name, raw)| (format!("{prefix}{name}"), raw)).collect()
}

/// Copies the tensors below each prefix. The first value of `norm.bias` is 0 in the first copy and 1 in the others.
fn copied(prefixes: &'static [&str]) -> impl FnOnce(&mut HashMap<String, Raw>) {
    move |tensors| {
        let (one, zero) = (1.0_f32.to_le_bytes(), 0.0_f32.to_le_bytes());
        let copies = prefixes.iter().enumerate().flat_map(|(copy, prefix)| {
            tensors.iter().map(move |(name, raw)| {
                let mut raw = raw.clone();
                if name == "norm.bias" {
                    raw.2[..4].copy_from_slice(if copy == 0 { &zero } else { &one });
                }
                (format!("{prefix}{name}"), raw)
            })
        });
        *tensors = copies.collect();
    }
}

#[test]
fn name_parts_inserted_by_wrappers_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    for wrapped in [
        |name: &str| format!("_orig_mod.{name}"),
        |name: &str| format!("module._orig_mod.{name}"),
        |name: &str| format!("model._orig_mod.module.{name}"),
        |name: &str| format!("_fsdp_wrapped_module.{name}").replace(".attn.", "._fsdp_wrapped_module.attn."),
        |name: &str| name.replace(".mlp.", "._checkpoint_wrapped_module.mlp."),
        |name: &str| format!("_forward_module.backbone.{name}"),
    ] {
        let model = load_tiny(changed(folder.path(), |tensors| {
            *tensors = tensors.drain().map(|(name, raw)| (wrapped(&name), raw)).collect();
        }));
        let report = model.unwrap().report;
        assert!(
            report.is_complete() && report.unexpected.is_empty(),
            "{}: {report}",
            wrapped("x.attn.mlp.y")
        );
        assert_eq!(report.taken, None);
    }
    let message = error(load_tiny(changed(folder.path(), |tensors| {
        let cls = tensors["cls_token"].clone();
        tensors.insert("_orig_mod.cls_token".into(), cls);
    })));
    assert!(message.contains("both `_orig_mod.cls_token` and `cls_token` map to `cls_token`"), "{message}");
}

/// Of several matching models, the one conventionally evaluated is used and reported.
#[test]
fn teacher_is_preferred_to_student() {
    let folder = tempfile::tempdir().unwrap();
    let first: [(&[&str], &str); 6] = [
        (&["teacher.", "student."], "`teacher`; also present: `student`"),
        (&["teacher.backbone.", "student.backbone."], "`teacher.backbone`; also present: `student.backbone`"),
        (&["state_dict_ema.", "state_dict."], "`state_dict_ema`; also present: `state_dict`"),
        (&["model_ema.module.", "model."], "`model_ema.module`; also present: `model`"),
        (&["target_encoder.", "encoder."], "`target_encoder`; also present: `encoder`"),
        (&["", "student."], "those without a prefix; also present: `student`"),
    ];
    for (prefixes, says) in first {
        let model = load_tiny(changed(folder.path(), copied(prefixes))).unwrap();
        assert_eq!(model.report.taken.as_deref(), Some(format!("weights used: {says}").as_str()));
        assert_eq!(model.report.unexpected.len(), 68, "{says}");
        let alone = load_tiny(changed(folder.path(), copied(&[""]))).unwrap();
        let image = images(3, [1, 12, 96, 96]);
        let features =
            |model: &LoadedModel| numbers(model.encoder.features(image.clone(), Sensor::S2_L1C).unwrap());
        assert_eq!(features(&model), features(&alone), "{says}");
    }
}

#[test]
fn a_model_below_any_single_prefix_is_used_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    for prefix in ["student", "net.encoder", "online_network.0"] {
        let path = changed(folder.path(), renamed(&format!("{prefix}.")));
        let report = load_tiny(path).unwrap().report;
        assert!(report.is_complete() && report.unexpected.is_empty(), "{prefix}: {report}");
        assert_eq!(report.taken, Some(format!("weights used: `{prefix}`")));
    }
    // Nothing tells which of the two is meant.
    for prefixes in [&["s1_encoder.", "s2_encoder."][..], &["model.", "state_dict."]] {
        let message = error(load_tiny(changed(folder.path(), copied(prefixes))));
        let shown = prefixes.iter().map(|prefix| format!("`{}`", prefix.trim_end_matches('.')));
        let shown = shown.collect::<Vec<_>>().join(", ");
        assert!(message.contains(&format!("contains several matching models: {shown}")), "{message}");
    }
    // A single tensor of another model does not make a model.
    let path = changed(folder.path(), |tensors| {
        let cls = tensors["cls_token"].clone();
        tensors.insert("teacher.cls_token".into(), cls);
    });
    let report = load_tiny(path).unwrap().report;
    assert_eq!((report.taken, report.unexpected), (None, vec!["teacher.cls_token [1, 1, 48]".to_owned()]));
}

#[test]
fn a_single_shard_is_reported_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed(folder.path(), |tensors| tensors.retain(|name, _| name.starts_with("blocks")));
    let part = folder.path().join("model-00001-of-00002.safetensors");
    std::fs::rename(path, &part).unwrap();
    let message = error(load_tiny(&part));
    assert!(message.contains("pass their .index.json or the folder"), "{message}");
}

#[test]
fn prefixes_and_precisions_in_any_combination() {
    let folder = tempfile::tempdir().unwrap();
    for prefix in ["model.", "state_dict.module.", "teacher.backbone.", "module.model.encoder.module."] {
        let model = load_tiny(changed(folder.path(), renamed(prefix))).unwrap();
        assert!(model.report.is_complete() && model.report.unexpected.is_empty(), "{prefix}");
    }

    let image = images(3, [1, 12, 96, 96]);
    let expected = &golden("tiny_io.safetensors")["cls.s2_96.l1c"];
    let cast = |dtype, number: fn(f32) -> Vec<u8>| {
        let path = changed(folder.path(), |tensors| {
            for (stored, _, bytes) in tensors.values_mut() {
                let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                (*stored, *bytes) = (dtype, numbers.flat_map(number).collect());
            }
        });
        let model = load_tiny(path).unwrap();
        numbers(model.encoder.features(image.clone(), Sensor::S2_L1C).unwrap())
    };
    let bf16 = cast(Dtype::BF16, |v| half::bf16::from_f32(v).to_le_bytes().to_vec());
    assert_close("bfloat16", &bf16, expected, 0.1);
    let f64 = cast(Dtype::F64, |v| f64::from(v).to_le_bytes().to_vec());
    assert_close("float64", &f64, expected, 5e-5);
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed(folder.path(), |tensors| {
        tensors.get_mut("norm.bias").unwrap().2[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let message = error(load_tiny(&path));
    assert!(message.contains("norm.bias: expected finite numbers, found NaN at index 1"), "{message}");
    assert!(message.contains(path.to_str().unwrap()), "{message}");
}

#[test]
fn damaged_files_are_errors_that_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tiny.pth", "tiny_prefixed.pth", "tiny.safetensors"] {
        let whole = std::fs::read(fixture("model").join(file)).unwrap();
        let path = folder.path().join(file);
        for length in [0, 1, 7, 8, 9, 100, 4_000, whole.len() / 2, whole.len() - 1_000, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let message = error(load_tiny(&path));
            assert!(message.contains(path.to_str().unwrap()), "{file} cut to {length}: {message}");
        }
        // A wrong byte anywhere in the structures may be an error, but never a panic.
        let (start, end) = (0..4_000, whole.len() - 4_000..whole.len());
        for at in start.chain(end).step_by(37) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x5A;
            std::fs::write(&path, &damaged).unwrap();
            if let Err(error) = load_tiny(&path) {
                assert!(error.to_string().contains(path.to_str().unwrap()), "byte {at}: {error}");
            }
        }
    }
    let absent = folder.path().join("absent.pth");
    assert!(error(load_tiny(&absent)).contains("absent.pth"));
    assert!(error(load_tiny(folder.path())).contains(folder.path().to_str().unwrap()));
}

#[test]
fn hostile_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.pth");
    let trap = folder.path().join("executed");

    let command = format!("cposix\nsystem\n(S'touch {}'\ntR.", trap.display());
    let dictionary = format!("}}S'cls_token'\n{}s.", &command[..command.len() - 1]);
    let nested =
        |depth: usize| [b"\x80\x02", &b"]".repeat(depth)[..], &b"a".repeat(depth - 1)[..], b"."].concat();
    let memo_bomb = b"\x80\x02]q\x00".iter().copied().chain(b"h\x00h\x00\x86".repeat(200_000)).chain(*b".");
    let header = br#"{"cls_token":{"dtype":"F32","shape":[1,1,48],"data_offsets":[0,18446744073709551615]}}"#;
    let overflow = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    let huge_header = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();

    for (name, bytes, file) in [
        ("a call", command.clone().into_bytes(), "hostile.pth"),
        ("a call in a dictionary", dictionary.into_bytes(), "hostile.pth"),
        ("deep nesting", nested(1_000_000), "hostile.pth"),
        ("a bomb of references", memo_bomb.collect(), "hostile.pth"),
        ("text", b"no weights at all".to_vec(), "hostile.pth"),
        ("offsets that overflow", overflow, "hostile.safetensors"),
        ("an endless header", huge_header, "hostile.safetensors"),
    ] {
        let path = path.with_file_name(file);
        std::fs::write(&path, bytes).unwrap();
        let message = error(load_tiny(&path));
        assert!(message.contains(path.to_str().unwrap()), "{name}: {message}");
        assert!(!trap.exists(), "{name} was executed");
    }
}

// ---- Unsuitable requests ----

#[test]
fn unsuitable_images_are_errors() {
    let frozen = load_tiny(fixture("model/tiny.pth")).unwrap().encoder;
    let module = tiny_module();
    let backbones: [&dyn Encoder; 2] = [frozen.as_ref(), &module];
    for backbone in backbones {
        for (shape, sensor, says) in [
            ([1, 12, 225, 224], Sensor::S2_L1C, "225 x 224"),
            ([1, 12, 224, 230], Sensor::S2_L1C, "224 x 230"),
            ([1, 12, 8, 8], Sensor::S2_L1C, "multiples of 16 pixels"),
            ([1, 13, 224, 224], Sensor::S2_L1C, "found 13"),
            ([1, 12, 224, 224], Sensor::S1, "expected 2"),
        ] {
            let image = Tensor::zeros(shape, &device());
            let problem = backbone.features(image.clone(), sensor).unwrap_err().to_string();
            assert!(problem.contains(says), "{shape:?}: {problem}");
            assert_eq!(backbone.feature_maps(image, sensor).unwrap_err().to_string(), problem);
        }
        let smallest = backbone.features(Tensor::zeros([1, 12, 16, 16], &device()), Sensor::S2_L1C);
        assert_eq!(smallest.unwrap().dims(), [1, 48]);
    }
}

#[test]
fn weights_are_parsed_from_text() {
    let parse = |text: &str| text.parse::<Weights>();
    assert_eq!(parse("random:7").unwrap(), Weights::Random(7));
    assert_eq!(parse("some/TerraFM-B.pth").unwrap(), Weights::File("some/TerraFM-B.pth".into()));
    for text in ["random:", "random:-1", "random:x"] {
        assert!(parse(text).is_err_and(|error| error.kind() == ErrorKind::Request), "{text}");
    }
}

#[test]
fn devices_are_parsed_from_text() {
    assert_eq!(device::by_name("flex").unwrap(), Device::flex());
    for name in ["", "cuda", "flex:0", "libtorch:cuda:x", "libtorch:mps", "vulkan:-1"] {
        let problem = device::by_name(name).unwrap_err().to_string();
        assert!(problem.contains(name), "{problem}");
    }
    #[cfg(not(feature = "libtorch"))]
    for name in ["libtorch", "libtorch:cuda", "libtorch:cuda:1"] {
        let problem = device::by_name(name).unwrap_err().to_string();
        assert!(problem.contains("`libtorch`") && problem.contains("--features libtorch"), "{problem}");
    }
    #[cfg(not(feature = "vulkan"))]
    for name in ["vulkan", "vulkan:1"] {
        let problem = device::by_name(name).unwrap_err().to_string();
        assert!(problem.contains("--features vulkan"), "{problem}");
    }
}

/// The golden features on every further backend of this build: LibTorch's CPU, and a Vulkan driver, such as Mesa's lavapipe for
/// machines without a GPU (Debian's mesa-vulkan-drivers).
#[test]
fn features_on_further_backends() {
    let golden = golden("tiny_io.safetensors");
    let mut tried = Vec::new();
    for backend in BACKENDS.into_iter().filter(|backend| backend.built && backend.name != "flex") {
        // Without a driver the question may panic.
        let names = device::quietly(|| names_of(backend)).unwrap_or_default();
        if names.is_empty() {
            eprintln!("nothing tested on {}: this machine has no driver for it", backend.name);
        }
        for name in names {
            let device = device::by_name(&name).unwrap();
            let weights = Weights::File(fixture("model/tiny.pth"));
            let encoder = load(&tiny_config(), &weights, false, &device).unwrap().encoder;
            for (input, images, sensor) in tiny_inputs() {
                let expected = &golden[&format!("cls.{input}")];
                let shape = images.dims();
                let pixels = TensorData::new(numbers(images), shape);
                let images = Tensor::<4>::from_data(pixels, &device);
                let found = numbers(encoder.features(images, sensor).unwrap());
                assert_close(&format!("{name} {input}"), &found, expected, 5e-5);
            }
            tried.push(name);
        }
    }
    eprintln!("golden features on {tried:?}");
}
