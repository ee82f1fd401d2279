//! Every protocol with every architecture at a small size, on generated data; and what each model says, before anything is
//! read, about protocols and sensors that it lacks something for.

use std::path::{Path, PathBuf};
use std::process::Command;

use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::protocol::ProtocolConfig;
use terrabench::run::plan::{Choice, plan};
use terrabench::task::{Sensor, Suite};
use toml::{Table, Value};

use crate::common::{self, all_scores_follow_from_predictions, changed_protocol};

/// Protocols that score one vector per image, which has one class.
const POOLED: [&str; 11] = [
    "knn",
    "retrieval",
    "clustering",
    "linear-probe",
    "copernicus-linear-probe",
    "copernicus-linear-probe-plain",
    "logistic",
    "torchgeo-knn",
    "torchgeo-linear",
    "torchgeo-linear-converged",
    FINETUNE,
];

/// The one of them that trains the encoder.
const FINETUNE: &str = "finetune";

/// Shortens a training; other protocols cannot be shortened.
const SHORT: [&str; 6] = ["--epochs", "1", "--learning-rates", "1e-3", "--limit", "4"];

/// Protocols that score pixels.
const DENSE: [&str; 4] = ["segmentation-probe", "upernet", "upernet-plain", "upernet-finetune"];

/// A published model's file in a small size: `sizes` of its architecture replaced, and images of `side` pixels.
fn small(folder: &Path, published: &str, side: usize, sizes: &str) -> PathBuf {
    let path = Home::find().unwrap().config("models", published).unwrap();
    let mut model: Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let Value::Table(architecture) = &mut model["architecture"] else { panic!() };
    for (name, value) in sizes.parse::<Table>().unwrap() {
        assert!(architecture.contains_key(&name), "{published} has no size {name}");
        architecture.insert(name, value);
    }
    model.insert("image".to_owned(), Value::Integer(side as i64));
    model.remove("images");
    // A suite may have a size of its own for a task.
    if let Some(Value::Table(suites)) = model.get_mut("suites") {
        for (_, suite) in suites.iter_mut() {
            suite.as_table_mut().unwrap().remove("images");
            suite.as_table_mut().unwrap().remove("image");
        }
    }
    let path = folder.join("small.toml");
    std::fs::write(&path, model.to_string()).unwrap();
    path
}

/// Runs protocols on a task of generated data. Each must leave a finite record whose scores follow from its predictions.
fn bench(folder: &Path, model: &Path, [suite, task]: [&str; 2], protocols: &[String], further: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    let out = folder.join(format!("{task}-{}", further.len()));
    command
        // Generated data are shared by all tests of this file, features are not kept.
        .env("TERRABENCH_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("zoo-protocols"))
        .args(["bench", suite, "--demo", "--no-cache", "--weights", "random:0", "--task", task])
        .args(further)
        .arg("--model")
        .arg(model)
        .arg("--out")
        .arg(&out);
    for protocol in protocols {
        command.args(["--protocol", protocol]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{task}: {}", String::from_utf8_lossy(&output.stderr));
    let results = out.join(format!("{suite}-demo"));
    let records = common::records(&results);
    assert_eq!(records.len(), protocols.len(), "{task}: {protocols:?}");
    assert!(records.values().all(|record| record.value.is_finite()), "{task}");
    all_scores_follow_from_predictions(&results);
}

/// Runs all protocols that the model can fulfil.
fn run_all(published: &str, side: usize, sizes: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = small(folder, published, side, sizes);
    let whole = ["--partition", "0.01x_train"];
    let frozen = POOLED.iter().filter(|name| **name != FINETUNE).map(|name| match *name {
        // The partition has fewer images than one of its batches.
        "copernicus-linear-probe" | "copernicus-linear-probe-plain" => {
            changed_protocol(name, folder, &[("batch-size = 64", "batch-size = 2")])
        }
        name => name.to_owned(),
    });
    let frozen: Vec<String> = frozen.collect();
    bench(folder, &model, ["geobench", "m-brick-kiln"], &frozen, &whole);
    let short = [&["--partition", "default"][..], &SHORT].concat();
    bench(folder, &model, ["geobench", "m-brick-kiln"], &[FINETUNE.to_owned()], &short);
    let config = ModelConfig::load(&Home::find().unwrap(), model.to_str().unwrap()).unwrap();
    // The demo's task of numbers has Sentinel-2 at level 2A, which lacks B10.
    let needs_b10 =
        config.sensors.values().any(|input| input.bands.iter().any(|band| band.to_string() == "B10"));
    if !needs_b10 {
        let of_numbers = ["knn", "ridge"].map(str::to_owned);
        bench(folder, &model, ["demo", "demo-tree-cover"], &of_numbers, &["--partition", "0.10x_train"]);
    }
    if config.architecture.maps().is_empty() {
        return;
    }
    let smaller = [
        ("channels = 512", "channels = 16"),
        ("channels = 256", "channels = 8"),
        ("batch-size = 16", "batch-size = 2"),
    ];
    let dense = DENSE.map(|name| match name {
        "segmentation-probe" => name.to_owned(),
        // It warms up longer than the one epoch lasts.
        "upernet-finetune" => {
            let without_warmup = ("warmup-epochs = 2", "warmup-epochs = 0");
            changed_protocol(name, folder, &[&smaller[..], &[without_warmup]].concat())
        }
        _ => changed_protocol(name, folder, &smaller),
    });
    bench(folder, &model, ["geobench", "m-cashew-plant"], &dense, &short);
}

/// Protocols of the same kinds with other settings.
const VARIANTS: [&str; 4] =
    ["demo-upernet", "geobench2-finetune", "geobench2-upernet-finetune", "geobench2-upernet-frozen"];

#[test]
fn every_protocol_is_among_them() {
    let tested: Vec<&str> = POOLED.into_iter().chain(DENSE).chain(["ridge"]).chain(VARIANTS).collect();
    for name in Home::find().unwrap().names("configs/protocols").unwrap() {
        assert!(tested.contains(&name.as_str()), "{name} is not tested");
    }
}

/// A test per architecture: its published file, the side of images in pixels, and the sizes that are changed.
macro_rules! every_protocol_runs {
    ($($name:ident: $published:literal, $side:literal, $sizes:literal;)*) => {
        $(#[test]
        fn $name() {
            run_all($published, $side, $sizes);
        })*

        #[test]
        fn every_architecture_is_among_them() {
            let home = Home::find().unwrap();
            let kind = |name: &str| ModelConfig::load(&home, name).unwrap().architecture;
            let tested: Vec<&str> = vec![$($published),*];
            let tested: Vec<&str> = tested.into_iter().map(|name| kind(name).kind()).collect();
            for name in home.names("configs/models").unwrap() {
                let architecture = kind(&name);
                let is_tested = !architecture.has_parameters() || tested.contains(&architecture.kind());
                assert!(is_tested, "{name}: no test with {}", architecture.kind());
            }
        }
    };
}

every_protocol_runs! {
    every_protocol_runs_with_anysat: "anysat-base", 16,
        "width = 64\nstem-width = 8\ndepth = 3\nheads = 4\nmap-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_copernicus_fm: "copernicus-fm-b", 64,
        "width = 48\ndepth = 4\nheads = 3\nkernel-width = 24\nmap-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_croma: "croma-b", 32,
        "width = 32\noptical-depth = 4\nradar-depth = 4\noptical-map-layers = [0, 1, 2, 3]\nradar-map-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_decur: "decur-s-s2", 224, "width = 32\ndepth = 4\nheads = 2\nmap-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_dofa: "dofa-b", 64,
        "width = 48\ndepth = 4\nheads = 3\nkernel-width = 24\nmap-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_galileo: "galileo-nano", 32,
        "width = 32\ndepth = 4\nheads = 2\npatch = 8\nmap-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_mmearth: "mmearth-atto", 32, "widths = [8, 8, 16, 16]\ndepths = [1, 1, 1, 1]";
    every_protocol_runs_with_presto: "presto", 16, "width = 32\ndepth = 1\nheads = 2";
    every_protocol_runs_with_prithvi2: "prithvi2-300m", 64,
        "width = 48\ndepth = 4\nheads = 3\nmap-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_satlas: "satlas-swin-t", 256, "width = 8\ndepths = [1, 1, 1, 1]\nheads = [1, 1, 2, 2]";
    every_protocol_runs_with_satmae: "satmae-b", 32,
        "width = 48\ngroup-width = 16\ndepth = 4\nheads = 3\npositions = 4\nmap-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_softcon: "softcon-s-s2", 56,
        "width = 32\ndepth = 4\nheads = 2\nmap-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_terrafm: "terrafm-b", 64, "width = 48\ndepth = 4\nheads = 3\nmap-layers = [0, 1, 2, 3]";
    every_protocol_runs_with_vit: "vit-b", 64, "width = 48\ndepth = 4\nheads = 3\nmap-layers = [0, 1, 2, 3]";
}

/// What planning a run without data says; nothing if it can be planned.
fn refusal(suite: &Suite, model: &ModelConfig, task: &str, protocol: &str) -> Option<String> {
    let home = Home::find().unwrap();
    let choice = Choice {
        tasks: vec![task.to_owned()],
        protocols: vec![protocol.to_owned()],
        partitions: vec!["default".to_owned()],
        ..Choice::default()
    };
    let planned = plan(suite, model, &choice, |name| ProtocolConfig::load_named(&home, name));
    planned.err().map(|error| error.to_string())
}

/// All models with a file.
fn models() -> Vec<(String, ModelConfig)> {
    let home = Home::find().unwrap();
    let names = home.names("configs/models").unwrap();
    names.into_iter().map(|name| (name.clone(), ModelConfig::load(&home, &name).unwrap())).collect()
}

#[test]
fn a_sensor_that_a_model_lacks_is_refused_before_anything_is_read() {
    let home = Home::find().unwrap();
    let tasks = [
        (Sensor::S1, "copernicus-bench", "eurosat-s1"),
        (Sensor::S2_L1C, "geobench", "m-eurosat"),
        (Sensor::S2_L2A, "geobench", "m-bigearthnet"),
    ];
    let (mut refused, mut planned) = (0, 0);
    for (sensor, suite, task) in tasks {
        let suite = Suite::load(&home, suite).unwrap();
        // The task's own sensor may be another; the model is told this one.
        let mut told = suite.clone();
        told.tasks.iter_mut().filter(|known| known.name == task).for_each(|task| task.input_sensor = sensor);
        for (name, model) in models() {
            let is_known =
                model.architecture.takes_every_stored_band() || model.sensors.contains_key(&sensor);
            match refusal(&told, &model, task, "knn") {
                Some(said) => {
                    assert!(!is_known, "{name} on {sensor}: {said}");
                    let expected = format!("{} {} has no such sensor: {sensor}", model.name, model.backbone);
                    assert!(
                        said.contains(&expected) && said.contains("supported sensors: "),
                        "{name}: {said}"
                    );
                    refused += 1;
                }
                None => {
                    assert!(is_known, "{name} on {sensor}: not refused");
                    planned += 1;
                }
            }
        }
    }
    assert!(refused > 10 && planned > 40, "{refused} refused, {planned} planned");
}

#[test]
fn protocols_for_which_a_model_lacks_something_are_refused_before_anything_is_read() {
    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    for (name, model) in models() {
        let architecture = &model.architecture;
        if !architecture.takes_every_stored_band() && !model.sensors.contains_key(&Sensor::S2_L1C) {
            continue;
        }
        let title = format!("{} {}", model.name, model.backbone);
        for protocol in DENSE {
            let expected = match (architecture.has_parameters(), architecture.maps().len(), protocol) {
                (false, ..) => Some(format!("needs an encoder, but {} has no parameters", model.name)),
                (true, 0, "segmentation-probe") => {
                    Some(format!("{title}: protocol `{protocol}` needs patch tokens, got none"))
                }
                (true, 0, _) => Some(format!("{title}: protocol `{protocol}` needs 4 feature maps, got 0")),
                _ => None,
            };
            let said = refusal(&suite, &model, "m-cashew-plant", protocol);
            match (&expected, &said) {
                (Some(expected), Some(said)) => assert!(said.contains(expected), "{name}: {said}"),
                _ => assert_eq!(expected, said, "{name}, {protocol}"),
            }
        }
        for protocol in POOLED {
            let said = refusal(&suite, &model, "m-brick-kiln", protocol);
            let lacks = protocol == FINETUNE && !architecture.has_parameters();
            assert_eq!(said.is_some(), lacks, "{name}, {protocol}: {said:?}");
        }
    }
}
