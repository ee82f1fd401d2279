//! Made-up results of several suites and a demo, as `bench` would leave them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use terrabench::record::predictions::Named;
use terrabench::record::{Interval, Record, Store};
use terrabench::score::{Predictions, Targets};
use terrabench::task::Metric;

use crate::sample::{identify, record};

const SHARES: [&str; 5] = ["0.01x_train", "0.05x_train", "0.20x_train", "0.50x_train", "default"];

/// A record with a value that follows from what it is of.
pub fn made(suite: &str, task: &str, change: impl FnOnce(&mut Record)) -> Record {
    let mut record = record();
    record.cell.suite = suite.into();
    record.cell.task = task.into();
    record.metric = match task {
        "m-bigearthnet" => Metric::MicroF1,
        "m-cashew-plant" | "m-SA-crop-type" | "landslide4sense" => Metric::Miou,
        _ => Metric::Accuracy,
    };
    change(&mut record);
    let share = record.cell.partition.strip_suffix("x_train").map_or(1.0, |share| share.parse().unwrap());
    let base = match (task, record.cell.protocol.as_str()) {
        ("m-eurosat", "knn") => 94.6,
        ("m-eurosat", _) => 97.2,
        ("m-bigearthnet", "knn") => 68.1,
        ("m-so2sat", "knn") => 54.2,
        ("m-so2sat", _) => 63.5,
        ("m-brick-kiln", "knn") => 93.9,
        ("m-brick-kiln", _) => 98.8,
        ("landslide4sense", _) => 68.4,
        _ => 60.0,
    };
    let smaller = if record.cell.backbone == "ViT-Large" { 1.3 } else { 0.0 };
    record.value = base + smaller + 9.0 * f64::log10(share);
    record.interval =
        Some(Interval { low: record.value - 1.7, high: (record.value + 1.5).min(100.0), level: 0.95 });
    identify(&mut record);
    record
}

pub fn real() -> Vec<Record> {
    let mut records = Vec::new();
    for task in ["m-eurosat", "m-bigearthnet", "m-so2sat", "m-brick-kiln"] {
        for backbone in ["ViT-Base", "ViT-Large"] {
            for partition in SHARES {
                records.push(made("geobench", task, |record| {
                    record.cell.partition = partition.into();
                    record.cell.backbone = backbone.into();
                    record.provenance.weights = format!("{backbone}5f3c9a1be20476d8a1c2");
                    record.provenance.git_revision = Some("0123456789abcdef0123456789abcdef01234567".into());
                }));
            }
        }
        records.push(made("geobench", task, |record| {
            record.cell.protocol = "linear-probe".into();
            record.provenance.weights = "ViT-Base5f3c9a1be20476d8a1c2".into();
        }));
    }
    records.push(made("geobench", "m-cashew-plant", |record| {
        record.cell.protocol = "segmentation-probe".into();
        record.provenance.weights = "ViT-Base5f3c9a1be20476d8a1c2".into();
    }));
    records
}

pub fn demo() -> Vec<Record> {
    let demo = |task, protocol: &str| {
        made("geobench", task, |record| {
            record.demo = true;
            record.cell.protocol = protocol.into();
            record.cell.model = "Demo".into();
            record.cell.backbone = "ViT-demo".into();
            record.provenance.weights = "random:0".into();
        })
    };
    ["m-eurosat", "m-bigearthnet", "m-so2sat", "m-brick-kiln"].map(|task| demo(task, "knn")).into()
}

fn landslide() -> Record {
    made("landslide4sense", "landslide4sense", |record| {
        record.cell.protocol = "segmentation-probe".into();
        record.scores = BTreeMap::from([("iou_landslide".into(), 41.7)]);
    })
}

/// Results of several suites and a demo, in `folder`.
pub fn results(folder: &Path) -> PathBuf {
    let put = |name: &str, records: Vec<Record>| {
        let store = Store::open(folder.join(name)).unwrap();
        records.iter().for_each(|record| drop(store.put(record).unwrap()));
    };
    put("geobench", real());
    put("landslide4sense", vec![landslide()]);
    put("geobench-demo", demo());
    folder.to_owned()
}

/// Keeps predictions beside the record, right about four times in five; none for masks.
pub fn predict(store: &Store, record: &Record) {
    let classes = match record.cell.task.as_str() {
        "m-eurosat" => 10,
        "m-so2sat" => 17,
        "m-brick-kiln" => 2,
        "m-bigearthnet" => 43,
        _ => return,
    };
    let n = 300;
    let (predicted, truth) = if record.cell.task == "m-bigearthnet" {
        let truth = ndarray::Array2::from_shape_fn((n, classes), |(i, label)| {
            (i * 31 + label * 17) % (label + 3) == 0
        });
        let predicted = ndarray::Array2::from_shape_fn((n, classes), |(i, label)| {
            truth[(i, label)] ^ ((i + label) % 9 == 0)
        });
        (Targets::Labels(predicted), Targets::Labels(truth))
    } else {
        let truth: Vec<usize> = (0..n).map(|i| i * 7 % classes).collect();
        let wrong = |(i, class): (usize, &usize)| if i % 6 == 0 { (class + i / 6) % classes } else { *class };
        let predicted: Vec<usize> = truth.iter().enumerate().map(wrong).collect();
        let targets = |of: Vec<usize>| Targets::Classes { classes: of, count: classes };
        (targets(predicted), targets(truth))
    };
    let samples = (0..n).map(|i| format!("sample {i}")).collect();
    let predictions = Predictions::Targets { predicted, truth };
    store
        .put_predictions(
            record,
            &Named { samples, predictions, scoring: None, supplement: Default::default() },
        )
        .unwrap();
}
