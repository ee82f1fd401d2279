//! `spread`: one model on one task, one choice changed at a time, on the demo's data with weights that come with the program.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::{Device, Tensor, TensorData};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::weights::Weights;
use terrabench::model::{Batch, Pooling, Want};
use terrabench::record::{Aspect, Record, SettingKey};
use terrabench::task::{ResizeRule, Sensor};

use crate::common::{demo, fixture, records};

/// Runs `spread --demo` with its own cache.
fn spread(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env("TERRABENCH_CACHE", demo::cache("geobench", folder.join("cache")));
    command
        .args(["spread", "--demo", "--partition", "0.01x_train", "--out"])
        .arg(folder.join("out"))
        .args(args);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn recorded(folder: &Path) -> Vec<Record> {
    records(&folder.join("out/geobench-demo")).into_values().collect()
}

/// Writes a small model for small images, and returns the arguments that choose it.
fn small(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(fixture("model/tiny.toml")).unwrap();
    assert!(text.contains("image = 224"));
    let path = folder.join("small.toml");
    std::fs::write(&path, text.replace("image = 224", "image = 32")).unwrap();
    ["--model", path.to_str().unwrap(), "--task", "m-eurosat"].map(str::to_owned).to_vec()
}

/// The arguments of the small model and further ones.
fn of_small<'a>(model: &'a [String], further: &[&'a str]) -> Vec<&'a str> {
    model.iter().map(String::as_str).chain(further.iter().copied()).collect()
}

#[test]
fn each_choice_gives_a_record_of_its_own_that_is_not_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = small(folder.path());
    let args =
        of_small(&model, &["--vary", "depth", "--vary", "stem", "--vary", "protocol", "--protocol", "knn"]);
    let dry = spread(folder.path(), &[&args[..], &["--dry-run"]].concat());
    let text = said(&dry);
    assert!(dry.status.success() && text.contains("images per second, measured"), "{text}");
    assert!(recorded(folder.path()).is_empty());

    let first = spread(folder.path(), &args);
    assert!(first.status.success(), "{}", said(&first));
    let all = recorded(folder.path());
    let depths: BTreeSet<Option<usize>> = all.iter().map(|record| record.provenance.depth).collect();
    // The model has four blocks.
    assert_eq!(depths, [None, Some(1), Some(2), Some(3)].into(), "{}", said(&first));
    assert!(all.iter().any(|record| record.provenance.sensor == Sensor::S2_L2A));
    assert!(all.iter().any(|record| record.cell.protocol == "torchgeo-linear-converged"));
    let settings: BTreeSet<(SettingKey, &str)> =
        all.iter().map(|record| (SettingKey::of(record), record.cell.protocol.as_str())).collect();
    assert_eq!(settings.len(), all.len(), "two records have one setting");
    // The run that computed features says how fast.
    let stored = terrabench::record::collect(&folder.path().join("out/geobench-demo")).unwrap();
    let timed: Vec<_> = stored.iter().filter_map(|stored| stored.record.provenance.speed).collect();
    assert!(timed.iter().all(|speed| speed.images_per_second > 0.0));
    assert!(!timed.is_empty() && timed.len() < all.len());

    let table =
        folder.path().join("out/geobench-demo/spread/small.m-eurosat.0.01x_train.depth.stem.protocol.csv");
    let csv = std::fs::read_to_string(&table).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("choice,value,default,metric,result,low,high,record,problem"));
    // The default of each of three choices is one record.
    let measured = lines.filter(|line| line.contains(".json")).count();
    assert_eq!(measured, all.len() + 2, "{csv}");
    // Some protocols need more samples than there are, and say so.
    assert!(csv.contains("a batch needs 64"), "{csv}");
    let markdown = std::fs::read_to_string(table.with_extension("md")).unwrap();
    assert!(markdown.contains("demo numbers") && markdown.contains("4 (default)"), "{markdown}");
    assert!(table.with_extension("svg").is_file() && table.with_extension("png").is_file());

    let second = spread(folder.path(), &args);
    assert_eq!(said(&second).matches("recorded before").count(), all.len(), "{}", said(&second));
    assert_eq!(std::fs::read_to_string(&table).unwrap(), csv);
}

#[test]
fn bands_sizes_and_a_second_model_are_choices_too() {
    let folder = tempfile::tempdir().unwrap();
    let model = small(folder.path());
    let channels = spread(folder.path(), &of_small(&model, &["--channels"]));
    assert!(channels.status.success(), "{}", said(&channels));
    let bands: BTreeSet<String> =
        recorded(folder.path()).into_iter().map(|record| record.provenance.channels).collect();
    // The model takes twelve bands: all, red green and blue, and all but each.
    assert!(bands.contains("all") && bands.contains("rgb") && bands.len() == 14, "{bands:?}");

    let further = [
        "--beside",
        "image-stats",
        "--vary",
        "beside",
        "--vary",
        "size",
        "--vary",
        "resize",
        "--cross",
        "pooling,stem",
    ];
    let args = of_small(&model, &further);
    let beside = spread(folder.path(), &args);
    assert!(beside.status.success(), "{}", said(&beside));
    let all = recorded(folder.path());
    let joined: Vec<&Record> = all.iter().filter(|record| record.provenance.beside.is_some()).collect();
    let [joined] = joined.as_slice() else { panic!("{} records of two models", joined.len()) };
    let alone = |record: &&Record| {
        record.cell == joined.cell
            && SettingKey::of(record).differences(&SettingKey::of(joined)) == [Aspect::Beside]
    };
    let alone = all.iter().find(alone).unwrap();
    assert_ne!(alone.provenance.features, joined.provenance.features);
    assert_ne!(alone.settings, joined.settings);
    let sizes: BTreeSet<usize> = all.iter().map(|record| record.provenance.image_size).collect();
    // Half of the model's, the stored one and 224.
    assert_eq!(sizes, [16, 32, 64, 224].into());
    assert!(all.iter().any(|record| record.provenance.resize.is_some()));
    let crossed = |record: &&Record| {
        record.provenance.pooling == Some(Pooling::Mean) && record.provenance.sensor == Sensor::S2_L2A
    };
    assert_eq!(all.iter().filter(crossed).count(), 1);
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |args: &[&str], texts: &[&str]| {
        let output = spread(folder.path(), args);
        let text = said(&output);
        assert!(!output.status.success() && texts.iter().all(|part| text.contains(part)), "{args:?}: {text}");
    };
    fails(
        &["--model", "galileo-nan", "--task", "m-eurosat"],
        &["galileo-nan", "did you mean `galileo-nano`?"],
    );
    fails(&["--model", "galileo-nano", "--task", "m-euorsat"], &["m-euorsat", "m-eurosat"]);
    let nano = |further: [&'static str; 2]| {
        ["--model", "galileo-nano", "--task", "m-eurosat", further[0], further[1]]
    };
    fails(&nano(["--vary", "dept"]), &["unknown choice `dept`", "did you mean `depth`?"]);
    fails(&nano(["--cross", "depth"]), &["--cross", "two choices"]);
    fails(&nano(["--protocol", "ridge"]), &["`ridge` does not score m-eurosat", "knn"]);
    fails(
        &["--model", "image-stats", "--task", "m-eurosat", "--vary", "depth"],
        &["nothing to vary", "no equal blocks"],
    );
    assert!(recorded(folder.path()).is_empty());
}

fn tiny() -> ModelConfig {
    ModelConfig::load(&Home::find().unwrap(), fixture("model/tiny.toml").to_str().unwrap()).unwrap()
}

#[test]
fn features_after_a_block_are_those_of_the_whole_models_tokens_there() {
    let device = Device::flex();
    let config = tiny();
    let blocks = config.architecture.blocks().unwrap();
    let maps = config.architecture.maps().len();
    let load = |config: &ModelConfig| {
        terrabench::model::load(config, &Weights::Random(3), false, &device).unwrap().encoder
    };
    let sensor = *config.sensors.keys().next().unwrap();
    let bands = config.sensors[&sensor].bands.clone();
    let side = 3 * config.architecture.maps()[0].stride;
    let shape = [2, bands.len(), side, side];
    let values = (0..shape.iter().product()).map(|i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let pixels = Tensor::<4>::from_data(TensorData::new(values, shape), &device);
    let batch = Batch::single(sensor, bands.into(), pixels);
    let whole = load(&config).encode(&batch, Want::Maps).unwrap().maps().unwrap();
    let terrabench::model::architecture::ArchitectureConfig::TerraFm(sizes) = &config.architecture else {
        panic!("not a TerraFM")
    };
    let mut compared = 0;
    for (map, layer) in whole.iter().zip(&sizes.map_layers) {
        // The mean of TerraFM's map after a layer, which has gone through the final norm.
        let expected: Vec<f32> = map.values.clone().mean_dims(&[2, 3]).into_data().try_into_vec().unwrap();
        let cut = config.clone().after_block(layer + 1).unwrap();
        assert_eq!(cut.depth, (layer + 1 < blocks).then_some(layer + 1));
        let found = load(&cut).encode(&batch, Want::Pooled(Pooling::Mean)).unwrap().pooled().unwrap();
        let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "block {}: {found} instead of {expected}", layer + 1);
        }
        compared += 1;
    }
    assert_eq!(compared, maps);
    let error = config.clone().after_block(blocks + 1).unwrap_err().to_string();
    assert!(error.contains(&format!("from 1 to {blocks}")), "{error}");
}

#[test]
fn depths_have_cache_keys_and_models_of_their_own() {
    let config = tiny();
    let blocks = config.architecture.blocks().unwrap();
    assert!(blocks > 1);
    let cut = config.clone().after_block(1).unwrap();
    assert_ne!(cut.deciding(), config.deciding());
    assert_eq!(config.clone().after_block(blocks).unwrap(), config);
}

#[test]
fn a_resize_rule_is_named_only_if_the_suites_code_has_another() {
    let suite = terrabench::task::Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let own = ResizeRule::of(suite.align_corners);
    assert_eq!(suite.clone().with_resize(own).resize, None);
    let other = ResizeRule::of(!suite.align_corners);
    let changed = suite.clone().with_resize(other);
    assert_eq!((changed.resize, changed.align_corners), (Some(other), !suite.align_corners));
}
