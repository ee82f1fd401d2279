//! Normalisation strategies: Galileo's list to the letter, and k-NN swept over it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::encoding::Features;
use crate::common::{self, demo};
use burn::tensor::{Tensor, TensorData};
use serde_json::Value;
use terrabench::data::geobench::Geobench;
use terrabench::data::{Dataset, Split, Target};
use terrabench::device;
use terrabench::home::{Home, read_toml};
use terrabench::model::config::ModelConfig;
use terrabench::task::Sensor;
use terrabench::task::Suite;
use terrabench::task::bands::Band;
use terrabench::transform::normalize::{BandStatistics, Clip, Normalization, NormalizationKind};
use terrabench::transform::resize;
use terrabench::transform::strategies::{Strategies, Strategy};

fn golden() -> Value {
    let path = common::fixture("protocols/normalise.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn strategies() -> Strategies {
    Strategies::load(&Home::find().unwrap()).unwrap()
}

const SLOTS: [Band; 13] = [
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
    Band::B10,
    Band::B11,
    Band::B12,
];

/// The name that we give to a strategy of the reference.
fn name(golden: &Value) -> String {
    match golden["stats"].as_str() {
        None => golden["name"].as_str().unwrap().to_owned(),
        Some(source) => {
            let (multiplier, kind) =
                (golden["std_multiplier"].as_f64().unwrap(), golden["type"].as_str().unwrap());
            format!("{source}-{multiplier:?}-{kind}")
        }
    }
}

#[test]
fn the_sweep_is_the_reference_s_list_in_its_order() {
    let (golden, strategies) = (golden(), strategies());
    for (group, sensor, count) in
        [("s2", Sensor::S2_L1C, 43), ("s2", Sensor::S2_L2A, 43), ("s1", Sensor::S1, 28)]
    {
        for (list, kind) in [
            ("clip_int", NormalizationKind::NormYesClipInt),
            ("standardize", NormalizationKind::Standardize),
            ("no_clip", NormalizationKind::NormNoClip),
        ] {
            let ours: Vec<String> = strategies.sweep(sensor, kind).iter().map(Strategy::to_string).collect();
            let list = golden["strategies"][group][list]["list"].as_array().unwrap();
            assert_eq!(ours, list.iter().map(name).collect::<Vec<_>>());
            assert_eq!(ours.len(), count);
            // Each can be asked for by its name.
            for strategy in strategies.sweep(sensor, kind) {
                let asked = strategies.asked(&strategy.to_string(), sensor, kind).unwrap();
                assert_eq!(asked, [strategy]);
            }
        }
    }
}

#[test]
fn named_statistics_are_the_reference_s_by_band() {
    let (golden, strategies) = (golden(), strategies());
    for (source, table) in golden["stats"].as_object().unwrap() {
        let figures = |key: &str| -> Vec<f64> {
            table[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let slots = if figures("mean").len() == 2 { vec![Band::VV, Band::VH] } else { SLOTS.to_vec() };
        let expected: BTreeMap<Band, BandStatistics> = slots
            .iter()
            .zip(figures("mean").into_iter().zip(figures("std")))
            .map(|(band, (mean, std))| (*band, BandStatistics { mean, std }))
            .collect();
        // A model's order, without some bands.
        let bands: Vec<Band> = slots.iter().rev().copied().filter(|band| *band != Band::B10).collect();
        let statistics: Vec<BandStatistics> = bands.iter().map(|band| expected[band]).collect();
        let typed = format!("{source}-1.6-norm_yes_clip");
        let strategy =
            strategies.asked(&typed, Sensor::S1, NormalizationKind::Standardize).unwrap().remove(0);
        let found = strategies.resolve(&strategy, &bands, || panic!("the data set is not asked")).unwrap();
        let Normalization::MinMax { min, max, clip: Clip::Unit } = found else { panic!("{found:?}") };
        assert_eq!((min.len(), max.len()), (bands.len(), bands.len()));
        for (i, BandStatistics { mean, std }) in statistics.iter().enumerate() {
            // The JSON reader may be off by the last bit.
            let near = |found: f64, golden: f64| (found - golden).abs() <= 1e-12 * (mean.abs() + std);
            assert!(
                near(min[i], mean - 1.6 * std) && near(max[i], mean + 1.6 * std),
                "{source} {}",
                bands[i]
            );
        }
    }
    let own = vec![BandStatistics { mean: 3.0, std: 2.0 }];
    let dataset = strategies.asked("dataset", Sensor::S1, NormalizationKind::NormNoClip).unwrap().remove(0);
    let found = strategies.resolve(&dataset, &[Band::VV], || Ok(own.clone())).unwrap();
    assert_eq!(found, Normalization::standardize(&own).unwrap());
    // Statistics of another sensor.
    let s2 = strategies
        .asked("OURS-2.0-norm_no_clip", Sensor::S1, NormalizationKind::NormNoClip)
        .unwrap()
        .remove(0);
    let error = strategies.resolve(&s2, &[Band::VV], || Ok(own)).unwrap_err().to_string();
    assert!(error.contains("OURS") && error.contains("VV"), "{error}");
}

#[test]
fn unknown_strategies_are_answered_with_what_there_is() {
    for typed in [
        "",
        "OURS-",
        "OURS-2.0",
        "MARS-2.0-norm_no_clip",
        "OURS-0-norm_no_clip",
        "OURS-inf-standardize",
        "OURS-2.0-satlas",
        "OURS-two-norm_no_clip",
        "Sweep",
    ] {
        let error =
            strategies().asked(typed, Sensor::S2_L1C, NormalizationKind::NormNoClip).unwrap_err().to_string();
        for word in ["sweep", "satlas", "presto_s2", "norm_yes_clip_int"] {
            assert!(error.contains(word), "{typed}: {error}");
        }
    }
}

fn terrabench(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command
        .env_remove("GEO_BENCH_DIR")
        .env("TERRABENCH_CACHE", demo::cache("geobench", folder.join("cache")));
    command.args(["bench", "geobench", "--task", "m-eurosat", "--out"]).arg(folder.join("results"));
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    stderr
}

/// Half the side of the model's own file: a quarter of the tokens.
const SIDE: usize = 112;

/// A split's features and classes, computed without the harness's extraction.
struct Reference<'a> {
    dataset: &'a Geobench,
    bands: &'a [String],
    model: &'a terrabench::model::LoadedModel,
}

impl Reference<'_> {
    fn features(&self, split: Split, normalization: &Normalization) -> Vec<(Vec<f64>, usize)> {
        let device = device::by_name("flex").unwrap();
        let encode = |i| {
            let mut sample = self.dataset.read(split, i, &[self.bands.to_vec()]).unwrap();
            let mut pixels = sample.images.remove(0).pixels;
            normalization.apply(&mut pixels).unwrap();
            let image = resize::bilinear(pixels, SIDE, SIDE, false).unwrap();
            let data = TensorData::new(image.iter().copied().collect::<Vec<f32>>(), [1, 12, SIDE, SIDE]);
            let features =
                self.model.encoder.features(Tensor::from_data(data, &device), Sensor::S2_L1C).unwrap();
            let features: Vec<f32> = features.into_data().try_into_vec().unwrap();
            let Target::Class(class) = sample.target else { panic!("one class an image") };
            (features.into_iter().map(f64::from).collect(), class)
        };
        (0..self.dataset.samples(split).len()).map(encode).collect()
    }
}

/// Accuracy in percent of k-NN with k = 20 and temperature 0.07.
fn knn(train: &[(Vec<f64>, usize)], queries: &[(Vec<f64>, usize)]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let right = queries.iter().filter(|(query, class)| {
        let mut near: Vec<(f64, usize)> = train.iter().map(|(f, class)| (cosine(query, f), *class)).collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut votes = [0.0; 10];
        near.iter().take(20).for_each(|(similarity, class)| votes[*class] += (similarity / 0.07).exp());
        (0..10).fold(0, |best, c| if votes[c] > votes[best] { c } else { best }) == *class
    });
    100.0 * right.count() as f64 / queries.len() as f64
}

#[test]
fn the_best_on_validation_is_reported_on_test() {
    let Some(root) = common::real().map(|real| real.join("geobench")) else {
        eprintln!("skipped: no real pixels (TERRABENCH_REAL)");
        return;
    };
    let partition = "0.10x_train";
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("tiny.toml");
    let whole = std::fs::read_to_string(common::fixture("model/tiny.toml")).unwrap();
    std::fs::write(&model, whole.replace("image = 224", &format!("image = {SIDE}"))).unwrap();
    let bench = |normalization: &str| {
        let mut command = terrabench(folder.path());
        command.args(["--partition", partition, "--normalization", normalization, "--data"]).arg(&root);
        command.arg("--model").arg(&model);
        run(command.arg("--weights").arg(common::fixture("model/tiny.pth")))
    };
    bench("sweep");
    let records = common::records(&folder.path().join("results/geobench"));
    let [record] = records.values().collect::<Vec<_>>()[..] else { panic!("{} records", records.len()) };

    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    let task = suite.task("m-eurosat").unwrap();
    let config: ModelConfig = read_toml(&model).unwrap();
    let weights = common::fixture("model/tiny.safetensors").to_str().unwrap().parse().unwrap();
    let device = device::by_name("flex").unwrap();
    let model = terrabench::model::load(&config, &weights, false, &device).unwrap();
    let dataset = Geobench::open(&suite, task, &root, partition).unwrap();
    let wanted: Vec<Band> = SLOTS.into_iter().filter(|band| *band != Band::B10).collect();
    let bands: Vec<String> = wanted.iter().map(|band| suite.bands[band].clone()).collect();
    let reference = Reference { dataset: &dataset, bands: &bands, model: &model };

    let golden = golden();
    let list = golden["strategies"]["s2"]["no_clip"]["list"].as_array().unwrap();
    let normalization = |strategy: &Value| {
        let Some(source) = strategy["stats"].as_str() else { return Normalization::Satlas };
        let statistics = if source == "dataset" {
            dataset.statistics(0, &bands).unwrap()
        } else {
            let table = &golden["stats"][source];
            let of = |key: &str, slot: usize| table[key][slot].as_f64().unwrap();
            let slots = (0..13).filter(|slot| SLOTS[*slot] != Band::B10);
            slots.map(|slot| BandStatistics { mean: of("mean", slot), std: of("std", slot) }).collect()
        };
        let multiplier = strategy["std_multiplier"].as_f64().unwrap();
        Normalization::new(NormalizationKind::NormNoClip, &statistics, multiplier).unwrap()
    };
    let mut best: Option<(f64, &Value)> = None;
    for strategy in list {
        let normalization = normalization(strategy);
        let train = reference.features(Split::Train, &normalization);
        let score = knn(&train, &reference.features(Split::Valid, &normalization));
        let recorded = record.scores[&format!("valid/{}", name(strategy))];
        assert!((recorded - score).abs() < 1e-9, "{}: {recorded} instead of {score}", name(strategy));
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, strategy));
        }
    }
    let (_, chosen) = best.unwrap();
    assert_eq!(record.selected["normalization"], name(chosen));
    let normalization = normalization(chosen);
    let train = reference.features(Split::Train, &normalization);
    let value = knn(&train, &reference.features(Split::Test, &normalization));
    assert!((record.value - value).abs() < 1e-9, "{} instead of {value}", record.value);
    assert_eq!(record.scores.keys().filter(|key| key.starts_with("valid/")).count(), 43);
    assert_eq!(record.samples["valid"], 24);

    // The chosen strategy alone gives the same number from the same features, as another record.
    let stderr = bench(&name(chosen));
    assert!(!stderr.contains(" images, "), "nothing is extracted again: {stderr}");
    let records = common::records(&folder.path().join("results/geobench"));
    assert_eq!(records.len(), 2);
    assert!(records.values().all(|record| (record.value - value).abs() < 1e-9));
}

#[cfg(unix)]
#[test]
fn a_killed_sweep_goes_on_where_it_was_and_ends_with_the_same_record() {
    let folder = tempfile::tempdir().unwrap();
    let bench = |name: &str| {
        let mut command = terrabench(&folder.path().join(name));
        command.args(["--demo", "--partition", "0.01x_train", "--normalization", "sweep"]);
        command
    };
    let entries =
        || std::fs::read_dir(folder.path().join("killed/cache/features")).map_or(0, Iterator::count);
    let mut killed = bench("killed").stderr(std::process::Stdio::null()).spawn().unwrap();
    while entries() < 4 {
        assert!(killed.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let records = |name: &str| common::records(&folder.path().join(name).join("results/geobench-demo"));
    assert!(records("killed").is_empty());
    assert!(entries() < 40, "{} strategies were done when it was killed", entries());

    let resumed = run(&mut bench("killed"));
    let whole = run(&mut bench("whole"));
    for strategy in ["dataset-1.4-norm_no_clip", "dataset-1.6-norm_no_clip"] {
        let extracted = format!("valid {strategy}:");
        assert!(whole.contains(&extracted) && !resumed.contains(&extracted), "{resumed}");
    }
    assert!(resumed.contains("valid satlas:"), "{resumed}");
    assert_eq!(records("killed"), records("whole"));
    assert_eq!(records("whole").len(), 1);
}

#[test]
fn features_takes_one_strategy() {
    let folder = tempfile::tempdir().unwrap();
    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let data = common::demo::provide(&suite, folder.path());
    let features = |normalization: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.env("TERRABENCH_CACHE", folder.path()).args([
            "features",
            "--model",
            "demo",
            "--weights",
            "random:0",
        ]);
        command.args(["--task", "m-eurosat", "--split", "test", "--normalization", normalization, "--data"]);
        command.arg(&data).arg("--out").arg(folder.path().join("features.safetensors")).output().unwrap()
    };
    assert!(features("S2C-1.8-norm_yes_clip").status.success());
    let output = features("sweep");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("one normalisation"), "{said}");
}
