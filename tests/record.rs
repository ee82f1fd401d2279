//! Records: their names, how they are stored, and how damaged ones are handled.

use std::path::Path;

use crate::sample;
use crate::sample::record;
use terrabench::features::{FEATURES_VERSION, Preparation};
use terrabench::model::architecture::ArchitectureConfig;
use terrabench::model::config::{DecidingModel, ModelConfig};
use terrabench::model::terrafm::TerraFmConfig;
use terrabench::protocol::ProtocolConfig;
use terrabench::record::predictions::{self, Named};
use terrabench::record::{Cell, Deciding, PROTOCOL_VERSION, Record, SCHEMA, Store, fingerprint, frame};
use terrabench::score::{Predictions, Targets};
use terrabench::task::Sensor;
use terrabench::task::bands::{Band, Imputation};
use terrabench::task::{DecidingTask, Metric, Task};
use terrabench::transform::Preprocess;
use terrabench::transform::normalize::Normalization;

const TASK: &str = r#"
name = "m-eurosat"
title = "m-EuroSat"
directory = "classification_v1.0/m-eurosat"
target = "class"
classes = 10
metric = "accuracy"
sensor = "s2-l1c"
input-sensor = "s2-l1c"
image-size = 64
samples = { train = 2000, valid = 1000, test = 1000 }
by-content = { B8A = "12 - SWIR", B12 = "11 - SWIR" }
"#;

const MODEL: &str = r#"
name = "TerraFM"
backbone = "ViT-Base"
image = 224

[architecture]
kind = "terrafm"
width = 768
depth = 12
heads = 12
mlp-ratio = 4
patch = 16
positions = 14
map-layers = [3, 5, 7, 11]
[sensors.s2-l1c]
bands = ["B02", "B11"]
"#;

const PROTOCOL: &str = r#"
kind = "knn"
k = 20
temperature = 0.07
embedding-dtype = "f32"
interval = { level = 0.95, resamples = 2000 }
"#;

/// Calls `look` with everything that decides the number of a fixed cell.
fn with_deciding<T>(look: impl FnOnce(Deciding) -> T) -> T {
    let (task, model, protocol): (Task, ModelConfig, ProtocolConfig) =
        (toml::from_str(TASK).unwrap(), toml::from_str(MODEL).unwrap(), toml::from_str(PROTOCOL).unwrap());
    look(Deciding {
        protocol_version: 1,
        features_version: 1,
        demo: false,
        cell: &record().cell,
        task: task.deciding(),
        protocol: &protocol,
        model: model.deciding(),
        decoding: "2a1b",
        weights: "5f3c",
        data: "0f1e",
        sensor: Sensor::S2_L1C,
        pooling: Some(terrabench::model::Pooling::Class),
        channels: &terrabench::task::bands::Channels::All,
        bands: &["02 - Blue".to_owned()],
        band_names: "as-named",
        imputed: &[],
        normalization: "dataset",
        strategies: &[],
        image_size: 224,
        resize: None,
        beside: "",
        precision: Default::default(),
        metadata: Default::default(),
    })
}

/// A change here means that every existing record is recomputed: change it only on purpose.
#[test]
fn the_fingerprint_is_the_same_on_every_machine() {
    let (fingerprint, settings) = with_deciding(|d| (d.fingerprint().unwrap(), d.settings().unwrap()));
    assert_eq!(fingerprint, "5e7dd83d2986848e0c0118e53bcd0ca1");
    // The settings of every seed equal the fingerprint of seed 0.
    assert_eq!(settings, fingerprint);
}

#[test]
fn the_order_of_keys_does_not_matter() {
    let canonical = blake3::hash(br#"{"a":{"x":null,"y":[2,1]},"b":1.5}"#).to_hex().to_string();
    let one = serde_json::json!({"b": 1.5, "a": {"y": [2, 1], "x": null}});
    #[derive(serde::Serialize)]
    struct Other {
        b: f32,
        a: std::collections::BTreeMap<char, Option<[u8; 2]>>,
    }
    let other = Other { b: 1.5, a: [('y', Some([2, 1])), ('x', None)].into() };
    assert_eq!(fingerprint(&one).unwrap(), canonical[..32]);
    assert_eq!(fingerprint(&other).unwrap(), canonical[..32]);
}

#[test]
fn everything_that_decides_the_number_changes_the_fingerprint() {
    with_deciding(|base| {
        let Deciding { task, model, cell, .. } = base;
        let protocol = |change: (&str, &str)| -> ProtocolConfig {
            assert!(PROTOCOL.contains(change.0));
            toml::from_str(&PROTOCOL.replace(change.0, change.1)).unwrap()
        };
        let (k, dtype) = (protocol(("k = 20", "k = 5")), protocol(("f32", "bf16")));
        let temperature = protocol(("0.07", "0.08"));
        let ArchitectureConfig::TerraFm(shallow) = model.architecture else { panic!("not a TerraFM") };
        let deeper = ArchitectureConfig::TerraFm(TerraFmConfig { depth: 13, ..shallow.clone() });
        let deeper = DecidingModel { architecture: &deeper, ..model };
        let cells = [
            Cell { suite: "other".into(), ..cell.clone() },
            Cell { task: "other".into(), ..cell.clone() },
            Cell { partition: "0.01x_train".into(), ..cell.clone() },
            Cell { seed: 1, ..cell.clone() },
        ];
        let two_bands = ["02 - Blue".to_owned(), "03 - Green".to_owned()];
        let joined = ["02 - Blue,03 - Green".to_owned()];
        let other_metric = DecidingTask { metric: Metric::MicroF1, ..task };
        let imputed = [Imputation { source: Band::B11, target: Band::B10 }];
        let standardize = |name: &str, std| Preparation {
            name: name.to_owned(),
            preprocess: Preprocess {
                normalization: Normalization::Standardize { mean: vec![0.0], std: vec![std] },
                height: 224,
                width: 224,
                align_corners: false,
                zeroed: Vec::new(),
            },
        };
        let ours = [standardize("a", 1.0)];
        let both = [standardize("a", 1.0), standardize("b", 2.0)];
        let swapped = [standardize("b", 2.0), standardize("a", 1.0)];
        let wider = [standardize("a", 1.5)];
        let mut all = vec![
            base,
            Deciding { protocol_version: PROTOCOL_VERSION + 1, ..base },
            Deciding { features_version: FEATURES_VERSION + 1, ..base },
            Deciding { decoding: "2a1c", ..base },
            Deciding { demo: true, ..base },
            Deciding { task: other_metric, ..base },
            Deciding { protocol: &k, ..base },
            Deciding { protocol: &dtype, ..base },
            Deciding { protocol: &temperature, ..base },
            Deciding { model: deeper, ..base },
            Deciding { weights: "5f3d", ..base },
            Deciding { data: "0f1f", ..base },
            Deciding { sensor: Sensor::S2_L2A, ..base },
            Deciding { bands: &two_bands, ..base },
            Deciding { bands: &joined, ..base },
            Deciding { band_names: "by-content", ..base },
            Deciding { imputed: &imputed, ..base },
            Deciding { normalization: "satlas", ..base },
            Deciding { strategies: &ours, ..base },
            Deciding { strategies: &both, ..base },
            Deciding { strategies: &swapped, ..base },
            Deciding { strategies: &wider, ..base },
            Deciding { image_size: 240, ..base },
            Deciding { resize: Some(terrabench::task::ResizeRule::AlignCorners), ..base },
            Deciding { beside: "5f3c9a", ..base },
            Deciding { precision: terrabench::device::Precision::Bf16, ..base },
        ];
        all.extend(cells.iter().map(|cell| Deciding { cell, ..base }));
        let of = |one: &Deciding| (one.fingerprint().unwrap(), one.settings().unwrap());
        for (i, one) in all.iter().enumerate() {
            for other in &all[i + 1..] {
                assert_ne!(of(one).0, of(other).0, "{one:?}\n{other:?}");
                // The settings cover everything except the seed.
                if other.cell.seed == 0 {
                    assert_ne!(of(one).1, of(other).1, "{one:?}\n{other:?}");
                }
            }
        }
        let other_seed = Deciding { cell: &cells[3], ..base };
        assert_eq!(of(&base).1, of(&other_seed).1);
    });
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("geobench")).unwrap();
    (folder, store)
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_record_comes_back_as_it_was_put() {
    let (folder, store) = store();
    let mut record = record();
    record.provenance.git_revision = Some("abc".into());
    record.value = 1000.0 / 17.0;
    let path = store.put(&record).unwrap();
    assert_eq!(store.get(&record.fingerprint).unwrap().unwrap(), record);
    assert_eq!(store.get("00000000000000000000000000000000").unwrap(), None);
    assert_eq!(store.get("").unwrap(), None);

    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\n  \"schema\": 2,\n  \"fingerprint\": \""), "{text}");
    assert!(text.ends_with("}\n"));
    let name = format!("m-eurosat.default.knn.terrafm-vit-base.seed0.{}.json", &record.fingerprint[..16]);
    assert_eq!(files(&folder.path().join("geobench/records")), [name]);

    // Writing it again replaces it.
    record.value = 60.0;
    assert_eq!(store.put(&record).unwrap(), path);
    assert_eq!(store.all().unwrap(), [record]);
}

#[test]
fn all_records_come_sorted_by_cell() {
    let (_folder, store) = store();
    for (task, seed) in [("m-so2sat", 0), ("m-eurosat", 10), ("m-eurosat", 9), ("m-brick-kiln", 0)] {
        let mut record = record();
        record.cell = Cell { task: task.into(), seed, ..record.cell };
        sample::identify(&mut record);
        store.put(&record).unwrap();
    }
    let cells: Vec<(String, u64)> =
        store.all().unwrap().into_iter().map(|record| (record.cell.task, record.cell.seed)).collect();
    let expected = [("m-brick-kiln", 0), ("m-eurosat", 9), ("m-eurosat", 10), ("m-so2sat", 0)];
    assert_eq!(cells, expected.map(|(task, seed)| (task.to_owned(), seed)));
}

/// A crash between write and rename leaves a hidden file and the earlier record.
#[test]
fn an_unfinished_write_is_not_a_record() {
    let (folder, store) = store();
    let record = record();
    let path = store.put(&record).unwrap();
    let records = folder.path().join("geobench/records");
    std::fs::write(records.join(".xY3.tmp"), "{\n  \"schema\": 1,\n  \"finger").unwrap();
    std::fs::write(records.join(format!(".{}", record.file_name())), "{").unwrap();
    assert_eq!(store.all().unwrap(), std::slice::from_ref(&record));
    assert_eq!(store.get(&record.fingerprint).unwrap(), Some(record.clone()));

    std::fs::remove_file(path).unwrap();
    assert_eq!(store.all().unwrap(), []);
    assert_eq!(store.get(&record.fingerprint).unwrap(), None);
}

#[test]
fn a_reader_never_meets_half_a_record() {
    let (_folder, store) = store();
    let mut record = record();
    // Large, so that a write takes long enough to be caught halfway.
    record.scores = (0..20_000).map(|i| (format!("score {i}"), f64::from(i % 101))).collect();
    store.put(&record).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..20).for_each(|_| drop(store.put(&record).unwrap())));
        while !writer.is_finished() {
            assert_eq!(store.all().unwrap().len(), 1);
        }
    });
}

/// Changes the stored text of a record and returns the store's error message.
fn damaged(change: impl Fn(String) -> String) -> String {
    let (_folder, store) = store();
    let record = record();
    let path = store.put(&record).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = change(text.clone());
    assert_ne!(changed, text);
    std::fs::write(&path, changed).unwrap();
    let error = store.all().unwrap_err().to_string();
    assert_eq!(store.get(&record.fingerprint).unwrap_err().to_string(), error);
    assert!(error.contains(&record.file_name()), "{error}");
    error
}

#[test]
fn a_damaged_record_is_named() {
    let error = damaged(|text| text[..text.len() / 2].to_owned());
    assert!(error.contains("delete it, and the cell is recomputed"), "{error}");
    let error = damaged(|text| text.replace("\"metric\"", "\"colour\": 1, \"metric\""));
    assert!(error.contains("colour"), "{error}");
    let error = damaged(|text| text.replace("\"device\"", "\"colour\""));
    assert!(error.contains("colour"), "{error}");
    let error = damaged(|text| text.replace("\"value\": 94.5", "\"value\": null"));
    assert!(error.contains("null"), "{error}");
    let error = damaged(|text| text.replace("\"settings\": \"", "\"settings\": \"../"));
    assert!(error.contains("settings"), "{error}");
    let error = damaged(|text| text.replace("\"partition\": \"default\"", "\"partition\": \"0.01x_train\""));
    assert!(error.contains("m-eurosat.0.01x_train.knn"), "{error}");
    damaged(|_| String::new());
}

#[test]
fn a_record_of_a_newer_program_is_recognised() {
    let newer = format!("\"schema\": {}, \"unheard-of\": 1", SCHEMA + 1);
    let error = damaged(|text| text.replace("\"schema\": 2", &newer));
    assert!(error.contains("schema 3") && error.contains("version of Terrabench"), "{error}");
    let error = damaged(|text| text.replace("\"schema\": 2", "\"schema\": 0"));
    assert!(error.contains("schema 0"), "{error}");
}

#[test]
fn records_that_could_not_be_read_back_are_not_written() {
    let (folder, store) = store();
    let mut bad = vec![record(); 4];
    bad[0].value = f64::NAN;
    bad[1].scores.insert("loss".into(), f64::INFINITY);
    bad[2].fingerprint = "../../../etc/passwd".into();
    bad[3].schema = SCHEMA + 1;
    for (record, named) in bad.iter().zip(["value", "loss", "fingerprint", "schema"]) {
        let error = store.put(record).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    assert!(files(&folder.path().join("geobench/records")).is_empty());
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let (folder, store) = store();
    let unsafe_names = [
        "../../escape",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a\\b",
        "nul\0",
        "zwei\nZeilen",
        "Ж/Ж",
        ".hidden",
        "-",
    ];
    let long = "long ".repeat(200);
    for (i, name) in unsafe_names.into_iter().chain([long.as_str()]).enumerate() {
        let mut record = record();
        let name = name.to_owned();
        record.cell = Cell {
            task: name.clone(),
            partition: name.clone(),
            protocol: name.clone(),
            model: name.clone(),
            backbone: name,
            ..record.cell
        };
        sample::identify(&mut record);
        let path = store.put(&record).unwrap();
        assert_eq!(path.parent().unwrap(), folder.path().join("geobench/records"));
        assert!(path.file_name().unwrap().len() <= 255);
        assert_eq!(store.get(&record.fingerprint).unwrap(), Some(record));
        assert_eq!(store.all().unwrap().len(), i + 1);
    }
    assert_eq!(files(folder.path()), ["geobench"]);
    assert_eq!(files(&folder.path().join("geobench")), ["records"]);
}

#[test]
fn a_frame_has_a_row_for_each_record() {
    let mut second = record();
    second.interval = None;
    second.cell.seed = 1;
    let frame = frame(&[record(), second]).unwrap();
    assert_eq!(frame.height(), 2);
    let text = |name: &str, row| frame.column(name).unwrap().get(row).unwrap().to_string();
    assert_eq!(text("task", 0), "\"m-eurosat\"");
    assert_eq!((text("seed", 0), text("seed", 1)), ("0".to_owned(), "1".to_owned()));
    assert_eq!((text("low", 0), text("low", 1)), ("93.0".to_owned(), "null".to_owned()));
    assert_eq!(text("imputed", 0), r#""[["B11","B10"]]""#);
    assert_eq!(text("selected", 0), r#""{"k":"20","temperature":"0.07"}""#);
    assert_eq!(terrabench::record::frame(&[]).unwrap().height(), 0);
    assert_eq!(terrabench::record::frame(&[]).unwrap().get_column_names(), frame.get_column_names());
}

fn named(predicted: &[usize]) -> Named {
    let targets = |classes: &[usize]| Targets::Classes { classes: classes.to_vec(), count: 3 };
    Named {
        samples: (0..predicted.len()).map(|i| format!("sample {i}")).collect(),
        predictions: Predictions::Targets { predicted: targets(predicted), truth: targets(&[0, 1, 2]) },
        scoring: None,
        supplement: Default::default(),
    }
}

/// The files written by `--fresh`, killed after each of its steps.
#[test]
fn a_fresh_run_killed_between_predictions_and_record_leaves_no_mixed_pair() {
    let (folder, store) = store();
    let (old, new) = (named(&[0, 1, 1]), named(&[0, 1, 2]));
    let first = record();
    let (first, path) = store.stage(&first, &old, Some(b"old sheet")).unwrap().commit().unwrap();
    assert_eq!(store.get(&first.fingerprint).unwrap().unwrap(), first);
    let found = |record: &Record| store.predictions(record).unwrap().unwrap();
    let sheet = || std::fs::read(store.sheet(&first)).unwrap();
    assert_eq!((found(&first), sheet()), (old.clone(), b"old sheet".to_vec()));

    // Killed before the record: the earlier pair stays valid, and the next run removes the leftovers.
    let second = Record { value: 100.0, predictions: None, ..first.clone() };
    let _ = store.stage(&second, &new, Some(b"new sheet")).unwrap();
    assert_eq!(found(&store.get(&first.fingerprint).unwrap().unwrap()), old);
    assert_eq!(sheet(), b"old sheet");
    store.settle(&first).unwrap();
    assert_eq!(found(&first), old);
    assert!(files(&folder.path().join("geobench/predictions")).iter().all(|name| !name.starts_with('.')));

    // Killed right after the record: the new pair is valid, and the next run renames its files.
    let staged = store.stage(&second, &new, Some(b"new sheet")).unwrap();
    drop(staged);
    let digest = predictions::digest(&new).unwrap();
    assert_eq!(store.put(&Record { predictions: Some(digest), ..second.clone() }).unwrap(), path);
    let put = store.get(&first.fingerprint).unwrap().unwrap();
    assert_eq!((put.value, found(&put)), (100.0, new.clone()));
    store.settle(&put).unwrap();
    assert_eq!((found(&put), sheet()), (new.clone(), b"new sheet".to_vec()));
    for kind in ["predictions", "sheets"] {
        assert_eq!(files(&folder.path().join("geobench").join(kind)).len(), 1, "{kind}");
    }

    // Predictions of another record are refused.
    store.put_predictions(&put, &old).unwrap();
    let error = store.predictions(&put).unwrap_err().to_string();
    assert!(error.contains("not the predictions") && error.contains("--fresh"), "{error}");
}

#[test]
fn the_same_predictions_are_the_same_bytes() {
    let (_folder, store) = store();
    let record = record();
    let path = store.beside(&record, "predictions", "safetensors");
    let written = || {
        store.put_predictions(&record, &named(&[0, 1, 1])).unwrap();
        std::fs::read(&path).unwrap()
    };
    let first = written();
    // The order of a hash map differs each time.
    assert!((0..20).all(|_| written() == first));
}

#[test]
fn values_outside_their_range_are_refused() {
    for (from, to, named) in [
        ("\"value\": 94.5", "\"value\": 250.0", "value is 250"),
        ("\"value\": 94.5", "\"value\": -3.0", "value is -3"),
        ("\"accuracy\": 94.5", "\"accuracy\": 100.1", "accuracy is 100.1"),
        ("\"high\": 95.9", "\"high\": 101.0", "interval is 101"),
        ("\"level\": 0.95", "\"level\": 95.0", "level is 95"),
    ] {
        let error = damaged(|text| text.replace(from, to));
        assert!(error.contains(named), "{error}");
    }
}
