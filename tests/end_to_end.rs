//! From real pixels to scores with a tiny model, against the numbers of the original implementation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::common;
use serde::Deserialize;
use terrabench::device;
use terrabench::features::{Extractor, FeatureBank, Features, Identity, Input, InputOptions};
use terrabench::home::{Home, read_toml};
use terrabench::model::config::ModelConfig;
use terrabench::progress::Silent;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::knn;
use terrabench::record::Record;
use terrabench::score::Targets;
use terrabench::task::Split;
use terrabench::task::Suite;
use terrabench::transform::augment::Dihedral;
use terrabench::transform::strategies::Strategies;

#[derive(Deserialize)]
struct Golden {
    multilabel: bool,
    partitions: BTreeMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    k: usize,
    value: f64,
    train_order: Vec<String>,
    test: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    name: String,
    pred: Classes,
    feature8: Vec<f32>,
    neighbours: Vec<usize>,
    nearest_similarity: f32,
    vote_margin: f64,
    edge_gap: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Classes {
    One(usize),
    Several(BTreeSet<usize>),
}

fn golden() -> BTreeMap<String, Golden> {
    let path = common::fixture("e2e/e2e_knn.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The real pixels in GEO-Bench's layout, or a word that they are not here.
fn real_geobench() -> Option<std::path::PathBuf> {
    let folder = common::real().map(|real| real.join("geobench"));
    if folder.is_none() {
        eprintln!("skipped: no real pixels (TERRABENCH_REAL)");
    }
    folder
}

#[test]
fn features_neighbours_and_votes_equal_the_original() {
    let Some(root) = real_geobench() else { return };
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    let model: ModelConfig = read_toml(&common::fixture("model/tiny.toml")).unwrap();
    let weights = common::fixture("model/tiny.safetensors").to_str().unwrap().parse().unwrap();
    let device = device::by_name("flex").unwrap();
    let loaded = terrabench::model::load(&model, &weights, false, &device).unwrap();
    let ProtocolConfig::Knn(config) = ProtocolConfig::load(&home, "knn").unwrap() else {
        panic!("knn.toml is no k-NN")
    };
    let options = InputOptions {
        by_content: false,
        channels: Default::default(),
        normalization: "dataset".to_owned(),
        strategies: Strategies::load(&home).unwrap(),
        zeros: false,
    };
    for (name, golden) in golden() {
        let task = suite.task(&name).unwrap();
        let mut bank = FeatureBank::default();
        for (partition, expected) in &golden.partitions {
            let input = Input::open(&suite, task, partition, &root, &model, &options).unwrap();
            let identity = Identity {
                model: &model,
                weights: &loaded.weights_id,
                device: "flex",
                precision: Default::default(),
            };
            let extractor = Extractor {
                encoder: loaded.encoder.as_ref(),
                device: &device,
                further: &[],
                input: &input,
                strategy: input.only().unwrap(),
                turn: Dihedral::Identity,
                batch_size: 7.into(),
                readers: 2,
            };
            let mut features = |split| bank.features(&extractor, identity, split, &Silent).unwrap();
            let (train, test) = (features(Split::Train), features(Split::Test));
            assert_eq!(train.samples, expected.train_order, "{name} {partition}");
            let targets = |features: &Features| Targets::from_labels(&features.labels, task.classes).unwrap();
            let found =
                knn::predict(&config, train.matrix.view(), &targets(&train), test.matrix.view()).unwrap();
            for (i, expected) in expected.test.iter().enumerate() {
                let what = format!("{name} {partition} {}", expected.name);
                assert_eq!(test.samples[i], expected.name);
                for (value, golden) in test.matrix.row(i).iter().zip(&expected.feature8) {
                    assert!((value - golden).abs() < 5e-5, "{what}: feature {value} instead of {golden}");
                }
                let nearest = found.neighbours.similarities[[i, 0]];
                assert!((nearest - expected.nearest_similarity).abs() < 1e-5, "{what}: similarity {nearest}");
                if expected.edge_gap.is_none_or(|gap| gap > 1e-5) {
                    let ours: BTreeSet<usize> = found.neighbours.indices.row(i).iter().copied().collect();
                    assert_eq!(ours, expected.neighbours.iter().copied().collect(), "{what}");
                    if expected.vote_margin > 1e-4 {
                        assert_eq!(predicted(&found.targets, i), classes(&expected.pred), "{what}");
                    }
                }
            }
            assert_eq!(found.neighbours.indices.ncols(), expected.k, "{name} {partition}");
            assert_eq!(matches!(found.targets, Targets::Labels(_)), golden.multilabel);
        }
    }
}

fn predicted(targets: &Targets, i: usize) -> BTreeSet<usize> {
    match targets {
        Targets::Classes { classes, .. } => [classes[i]].into(),
        Targets::Values(_) => panic!("classes were asked for"),
        Targets::Labels(flags) => {
            flags.row(i).iter().enumerate().filter(|(_, flag)| **flag).map(|(label, _)| label).collect()
        }
    }
}

fn classes(golden: &Classes) -> BTreeSet<usize> {
    match golden {
        Classes::One(class) => [*class].into(),
        Classes::Several(labels) => labels.clone(),
    }
}

/// Runs the program on the real pixels with the tiny model; the records by task and partition.
fn bench(root: &Path, out: &Path, threads: &str) -> BTreeMap<(String, String), Record> {
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(["bench", "geobench", "--threads", threads])
        .args(["--task", "m-eurosat", "--task", "m-bigearthnet", "--task", "m-brick-kiln"])
        .args(["--partition", "default", "--partition", "0.01x_train"])
        .args(["--partition", "0.20x_train", "--partition", "0.50x_train"])
        .arg("--data")
        .arg(root)
        .arg("--out")
        .arg(out)
        .arg("--model")
        .arg(common::fixture("model/tiny.toml"))
        .arg("--weights")
        .arg(common::fixture("model/tiny.pth"))
        .env("TERRABENCH_CACHE", out.join("cache"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut records = BTreeMap::new();
    for entry in std::fs::read_dir(out.join("geobench/records")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let record: Record = serde_json::from_str(&text).unwrap();
        records.insert((record.cell.task.clone(), record.cell.partition.clone()), record);
    }
    records
}

#[test]
fn the_program_records_the_original_scores_with_any_number_of_threads() {
    let Some(root) = real_geobench() else { return };
    let folder = tempfile::tempdir().unwrap();
    let one = bench(&root, &folder.path().join("one"), "1");
    let two = bench(&root, &folder.path().join("two"), "2");
    let again = bench(&root, &folder.path().join("two"), "2");
    assert_eq!(two, again, "a second run reuses the records");
    for (name, golden) in golden() {
        for (partition, expected) in golden.partitions {
            let key = (name.clone(), partition);
            let record = &one[&key];
            assert!(
                (record.value - expected.value).abs() < 1e-9,
                "{key:?}: {} instead of {}",
                record.value,
                expected.value
            );
            let interval = record.interval.unwrap();
            assert!(interval.low <= record.value && record.value <= interval.high, "{key:?}: {interval:?}");
            let other = &two[&key];
            assert_eq!(record.fingerprint, other.fingerprint);
            assert_eq!(
                (record.value, record.interval, &record.scores),
                (other.value, other.interval, &other.scores),
                "{key:?}: 1 and 2 threads"
            );
        }
    }
    let table = std::fs::read_to_string(folder.path().join("one/geobench/knn.md")).unwrap();
    assert!(table.contains("70.8"), "{table}");
}
