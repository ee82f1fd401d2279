//! torchgeo-bench's baselines and protocols against its own numbers (`tests/fixtures/baselines`): v0.4.0 on a few crops of real
//! pixels, with torch 2.12.0, faiss-cpu 1.14.2, scikit-learn 1.8.0 and numpy 2.4.5. Scores there say nothing about a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::{Array2, ArrayD, ArrayView2, Ix2};
use serde_json::Value;
use terrabench::config::{KnnConfig, LogisticConfig};
use terrabench::data::Split;
use terrabench::device;
use terrabench::features::{Extractor, Input, InputOptions};
use terrabench::home::Home;
use terrabench::metrics::Metric;
use terrabench::model::config::ModelConfig;
use terrabench::model::weights::Weights;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::{knn, logistic};
use terrabench::record::Record;
use terrabench::score::decision::HeldOut;
use terrabench::score::{Outcome, Targets, score_logits};
use terrabench::task::Suite;
use terrabench::transform::augment::Dihedral;
use terrabench::transform::strategies::Strategies;

use crate::common;
use crate::golden::{floats, integers, json, numbers};

const TASKS: [&str; 4] = ["m-eurosat", "m-brick-kiln", "m-so2sat", "m-bigearthnet"];

struct Golden {
    floats: BTreeMap<String, ArrayD<f32>>,
    integers: BTreeMap<String, ArrayD<i64>>,
    json: Value,
}

impl Golden {
    fn read() -> Self {
        let name = "baselines/torchgeo.safetensors";
        Golden { floats: floats(name), integers: integers(name), json: json("baselines/torchgeo.json") }
    }

    fn matrix(&self, name: &str) -> Array2<f32> {
        let found = self.floats.get(name).unwrap_or_else(|| panic!("no {name}"));
        found.clone().into_dimensionality::<Ix2>().unwrap()
    }

    fn labels(&self, task: &str, split: &str) -> Targets {
        let labels = self.json["tasks"][task]["labels"][split].as_array().unwrap();
        let number = |label: &Value| label.as_u64().unwrap() as usize;
        let count = suite().task(task).unwrap().classes;
        if task != "m-bigearthnet" {
            return Targets::Classes { classes: labels.iter().map(number).collect(), count };
        }
        let mut all = Array2::from_elem((labels.len(), count), false);
        for (row, labels) in labels.iter().enumerate() {
            labels.as_array().unwrap().iter().for_each(|label| all[[row, number(label)]] = true);
        }
        Targets::Labels(all)
    }

    /// What its method `knn` or `linear` gave for a baseline.
    fn result(&self, task: &str, baseline: &str, method: &str) -> &Value {
        &self.json["tasks"][task]["models"][baseline][method]
    }
}

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "geobench").unwrap()
}

fn knn_config() -> KnnConfig {
    match ProtocolConfig::load(&Home::find().unwrap(), "torchgeo-knn").unwrap() {
        ProtocolConfig::Knn(config) => config,
        other => panic!("{other:?}"),
    }
}

fn logistic_config(name: &str) -> LogisticConfig {
    match ProtocolConfig::load(&Home::find().unwrap(), name).unwrap() {
        ProtocolConfig::Logistic(config) => config,
        other => panic!("{other:?}"),
    }
}

fn metric(targets: &Targets) -> Metric {
    if matches!(targets, Targets::Labels(_)) { Metric::MicroMap } else { Metric::Accuracy }
}

/// Score and interval of an outcome as shares of 1 are those of a golden result.
#[track_caller]
fn scores_as(outcome: &Outcome, golden: &Value, what: &str) {
    let interval = outcome.interval.unwrap();
    let [low, high] = numbers(&golden["interval"])[..] else { panic!("{golden}") };
    let expected = [golden["score"].as_f64().unwrap(), low, high];
    for (found, expected) in [outcome.value, interval.low, interval.high].into_iter().zip(expected) {
        assert!((found / 100.0 - expected).abs() < 1e-7, "{what}: {outcome:?} instead of {golden}");
    }
}

// ---------------------------------------------------------------- features

/// The features of the first test samples, or all, of a real task.
fn features(
    root: &Path,
    model: &str,
    task: &str,
    normalization: &str,
    channels: &str,
    rows: usize,
) -> [Array2<f32>; 3] {
    let home = Home::find().unwrap();
    let (suite, device) = (suite(), device::by_name("flex").unwrap());
    let model = ModelConfig::load(&home, model).unwrap();
    let loaded = terrabench::model::load(&model, &Weights::None, false, &device).unwrap();
    let options = InputOptions {
        by_content: false,
        channels: channels.parse().unwrap(),
        normalization: normalization.to_owned(),
        strategies: Strategies::load(&home).unwrap(),
        zeros: false,
    };
    let input = Input::open(&suite, suite.task(task).unwrap(), "default", root, &model, &options).unwrap();
    let extractor = Extractor {
        encoder: loaded.encoder.as_ref(),
        device: &device,
        further: &[],
        input: &input,
        strategy: input.only().unwrap(),
        turn: Dihedral::Identity,
        batch_size: 5.into(),
        readers: 2,
    };
    Split::ALL.map(|split| {
        let count = input.dataset.samples(split).len().min(rows);
        let mut all = Array2::zeros((0, extractor.width()));
        let indices: Vec<usize> = (0..count).collect();
        extractor
            .extract(split, &indices, &mut |features| {
                all.append(ndarray::Axis(0), features.matrix.view()).unwrap();
                Ok(())
            })
            .unwrap();
        all
    })
}

fn real() -> Option<PathBuf> {
    let root = common::real().map(|real| real.join("geobench"));
    if root.is_none() {
        eprintln!("skipped: no real pixels (TERRABENCH_REAL)");
    }
    root
}

#[test]
fn image_statistics_equal_those_of_torchgeo_bench() {
    let Some(root) = real() else { return };
    let golden = Golden::read();
    let equal = |what: &str, found: &Array2<f32>, expected: &Array2<f32>| {
        assert_eq!(found.dim(), expected.dim(), "{what}");
        // A small minimum may lie between much larger pixels, whose rounding it has.
        let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let off = (found - expected).abs();
            assert!(
                off < 1e-6 * expected.abs() + 1e-8 * largest,
                "{what}, number {i}: {found} instead of {expected}"
            );
        }
    };
    for task in TASKS {
        let found = features(&root, "image-stats", task, "default", "all", usize::MAX);
        for (split, found) in ["train", "val", "test"].into_iter().zip(found) {
            let name = format!("{task}/imagestats/{split}");
            equal(&name, &found, &golden.matrix(&name));
        }
        // Red, green, blue, in this order.
        let [_, _, test] = features(&root, "image-stats", task, "default", "rgb", 4);
        let name = format!("{task}/imagestats-rgb/test");
        equal(&name, &test, &golden.matrix(&name));
    }
}

#[test]
fn random_convolutional_features_equal_those_of_torchgeo_bench() {
    let Some(root) = real() else { return };
    let golden = Golden::read();
    for task in TASKS {
        let largest = golden.json["rcf_largest_value"][task].as_f64().unwrap();
        for (name, normalization, channels) in [
            ("bandspec_zscore", "default", "all"),
            ("identity", "identity", "all"),
            ("minmax", "minmax", "all"),
            ("minmax_zscore", "minmax_zscore", "all"),
            ("rgb_bandspec_zscore", "bandspec_zscore", "rgb"),
        ] {
            let expected = golden.matrix(&format!("{task}/rcf/{name}/test"));
            let [_, _, found] = features(&root, "rcf", task, normalization, channels, 2);
            assert_eq!(found.dim(), expected.dim());
            // Without normalisation values are as large as the pixels.
            let scale = expected.iter().fold(largest as f32, |largest, x| largest.max(*x));
            // There the range of a band may be 2,000 of its deviations, which enlarges what float32 rounds off.
            let tolerance = if name == "minmax_zscore" { 2e-5 } else { 1e-6 };
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let off = (found - expected).abs() / scale;
                assert!(off < tolerance, "{task} {name}, number {i}: {found} instead of {expected}");
            }
        }
    }
}

#[test]
fn the_kernels_are_torchs() {
    // An image of one pixel more than the kernel on a side would mix kernels; an image that is 1 at one place shows one number
    // of each. The features are max(k - 1, 0) and max(1 - k, 0).
    use burn::tensor::{Tensor, TensorData};
    use terrabench::model::{Batch, Encoder, Pooling, Want};
    use terrabench::task::Sensor;

    let golden = Golden::read();
    let expected = &golden.floats["kernels/every_16th"];
    let (home, device) = (Home::find().unwrap(), device::by_name("flex").unwrap());
    let model = ModelConfig::load(&home, "rcf").unwrap();
    let loaded = terrabench::model::load(&model, &Weights::None, false, &device).unwrap();
    const BANDS: usize = 20;
    let numbers = 9 * BANDS;
    let kernels = |place: usize| -> Vec<f32> {
        let mut pixels = vec![0.0f32; numbers];
        pixels[place] = 1.0;
        let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [1, BANDS, 3, 3]), &device);
        let batch = Batch::single(Sensor::S2_L1C, [].into(), pixels);
        let encoder: &dyn Encoder = loaded.encoder.as_ref();
        let found = encoder.encode(&batch, Want::Pooled(Pooling::Mean)).unwrap().pooled().unwrap();
        let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
        (0..256).map(|kernel| found[kernel] - found[256 + kernel] + 1.0).collect()
    };
    for place in (0..numbers).step_by(4) {
        for (kernel, found) in kernels(place).into_iter().enumerate() {
            let flat = kernel * numbers + place;
            if flat.is_multiple_of(16) {
                let expected = expected[flat / 16];
                assert!((found - expected).abs() < 2e-6, "number {flat}: {found} instead of {expected}");
            }
        }
    }
}

// ---------------------------------------------------------------- k-NN

/// The feature sets in the fixture: task and baseline.
fn feature_sets() -> impl Iterator<Item = (&'static str, &'static str)> {
    TASKS.into_iter().map(|task| (task, "imagestats")).chain([("m-bigearthnet", "rcf")])
}

#[test]
fn neighbours_votes_and_intervals_equal_those_of_torchgeo_bench() {
    let golden = Golden::read();
    for (task, baseline) in feature_sets() {
        let what = format!("{task}/{baseline}");
        let matrix = |split: &str| golden.matrix(&format!("{what}/{split}"));
        let (labels, truth) = (golden.labels(task, "train"), golden.labels(task, "test"));
        let config = knn_config();
        let found = knn::predict(&config, matrix("train").view(), &labels, matrix("test").view()).unwrap();

        let neighbours = golden.integers[&format!("{what}/knn/neighbours")].clone();
        let neighbours = neighbours.into_dimensionality::<Ix2>().unwrap();
        for (found, expected) in found.neighbours.indices.rows().into_iter().zip(neighbours.rows()) {
            // In any order among equal distances.
            let sorted = |mut all: Vec<usize>| {
                all.sort_unstable();
                all
            };
            let expected = expected.iter().map(|index| usize::try_from(*index).unwrap()).collect();
            assert_eq!(sorted(found.to_vec()), sorted(expected), "{what}");
        }
        let expected = golden.result(task, baseline, "knn");
        let outcome = match &found.scores {
            Some(scores) => {
                let shares = golden.matrix(&format!("{what}/knn/vote_shares"));
                assert!(scores.iter().zip(&shares).all(|(score, share)| (score + 0.5 - share).abs() < 1e-6));
                Outcome::of_logits(metric(&truth), scores.view(), &truth, &config.interval, 0, [])
            }
            None => {
                let classes: Vec<usize> = serde_json::from_value(expected["predictions"].clone()).unwrap();
                assert_eq!(found.targets, Targets::Classes { classes, count: labels.outputs() }, "{what}");
                Outcome::new(metric(&truth), &found.targets, &truth, &config.interval, 0, [])
            }
        };
        scores_as(&outcome.unwrap(), expected, &what);
    }
}

#[test]
fn tied_votes_go_to_the_lowest_class_and_fewer_samples_than_neighbours_all_vote() {
    let train = ndarray::array![[0.0f32], [1.0], [2.0], [3.0]];
    let labels = Targets::Classes { classes: vec![2, 2, 1, 1], count: 3 };
    let found = knn::predict(&knn_config(), train.view(), &labels, ndarray::array![[0.0f32]].view()).unwrap();
    assert_eq!(found.targets, Targets::Classes { classes: vec![1], count: 3 });
    assert_eq!(found.neighbours.indices, ndarray::array![[0, 1, 2, 3]]);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, word) in [
        ("k = 5", "k = 5\ntemperature = 0.07", "leave it out"),
        ("\"f32\"", "\"bf16\"", "must be f32"),
        ("micro_map", "accuracy", "expected micro_f1 or micro_map"),
        ("euclidean", "manhattan", "manhattan"),
        ("resampling = \"numpy\"", "resampling = \"dice\"", "dice"),
    ] {
        let path = common::changed_protocol("torchgeo-knn", folder.path(), &[(from, to)]);
        let error = ProtocolConfig::load(&Home::find().unwrap(), &path).unwrap_err().to_string();
        assert!(error.contains(word), "{to}: {error}");
    }
}

// ---------------------------------------------------------------- logistic regression

#[test]
fn torchs_solver_sees_the_same_losses() {
    let golden = Golden::read();
    let config = logistic_config("torchgeo-linear");
    let mut compared = 0;
    for (task, baseline) in feature_sets() {
        let Some(expected) = golden.json["first_losses_at_c_1"].get(format!("{task}/{baseline}")) else {
            continue;
        };
        let features = golden.matrix(&format!("{task}/{baseline}/train"));
        let design = logistic::Design::new(features.view(), false).with_row_per_class(true);
        let fitted = design.fit(&golden.labels(task, "train"), 1.0, config.solver, None).unwrap();
        for (place, (found, expected)) in fitted.losses.iter().zip(numbers(expected)).enumerate().take(20) {
            let off = (f64::from(*found) - expected).abs() / expected;
            assert!(off < 1e-4, "{task}/{baseline}, evaluation {place}: {found} instead of {expected}");
        }
        compared += 1;
    }
    assert_eq!(compared, 5);
}

/// Fits the refitted regression at a C and predicts test.
fn refitted(golden: &Golden, task: &str, baseline: &str, config: &LogisticConfig, c: f64) -> Array2<f32> {
    let matrix = |split: &str| golden.matrix(&format!("{task}/{baseline}/{split}"));
    let both = ndarray::concatenate![ndarray::Axis(0), matrix("train"), matrix("val")];
    let labels = golden.labels(task, "train").with(&golden.labels(task, "val")).unwrap();
    let design = logistic::Design::new(both.view(), false).with_row_per_class(true);
    design.fit(&labels, c, config.solver.of_final_fit(), None).unwrap().logits(matrix("test").view())
}

#[test]
fn regressions_at_the_golden_c_predict_the_same() {
    let golden = Golden::read();
    let config = logistic_config("torchgeo-linear");
    for task in ["m-eurosat", "m-brick-kiln", "m-so2sat"] {
        let expected = golden.result(task, "imagestats", "linear");
        let logits = refitted(&golden, task, "imagestats", &config, expected["best_c"].as_f64().unwrap());
        let truth = golden.labels(task, "test");
        let classes: Vec<usize> = serde_json::from_value(expected["predictions"].clone()).unwrap();
        assert_eq!(
            truth.predicted(logits.view()),
            Targets::Classes { classes, count: truth.outputs() },
            "{task}"
        );
        // Ill-conditioned features stop where rounding says.
        let tolerance = if task == "m-eurosat" { 0.1 } else { 0.02 };
        let theirs = golden.matrix(&format!("{task}/imagestats/linear/test_logits"));
        let present: Vec<usize> = serde_json::from_value(expected["classes"].clone()).unwrap();
        for (column, class) in present.into_iter().enumerate() {
            for (found, expected) in logits.column(class).iter().zip(theirs.column(column)) {
                assert!((found - expected).abs() < tolerance, "{task}: {found} instead of {expected}");
            }
        }
    }
    for baseline in ["imagestats", "rcf"] {
        let expected = golden.result("m-bigearthnet", baseline, "linear");
        let c = expected["best_c"].as_f64().unwrap();
        let logits = refitted(&golden, "m-bigearthnet", baseline, &config, c);
        let truth = golden.labels("m-bigearthnet", "test");
        let found = score_logits(Metric::MicroMap, logits.view(), &truth).unwrap() / 100.0;
        assert!((found - expected["score"].as_f64().unwrap()).abs() < 0.01, "{baseline}: {found}");
    }
}

/// The whole sweep, as the protocol runs it.
fn swept(golden: &Golden, task: &str, config: &LogisticConfig) -> (logistic::Swept, Outcome) {
    let matrix = |split: &str| golden.matrix(&format!("{task}/imagestats/{split}"));
    let labels = |split: &str| golden.labels(task, split);
    let (train, valid, test) = (matrix("train"), matrix("val"), matrix("test"));
    let (targets, valid_targets, truth) = (labels("train"), labels("val"), labels("test"));
    let held_out = HeldOut { valid: valid.view(), valid_targets: &valid_targets, test: test.view() };
    let by = |logits: ArrayView2<f32>, truth: &Targets| score_logits(metric(truth), logits, truth);
    let swept = logistic::sweep(config, train.view(), &targets, held_out, by).unwrap();
    let outcome = Outcome::of_logits(metric(&truth), swept.logits.view(), &truth, &config.interval, 0, []);
    (swept, outcome.unwrap())
}

#[test]
fn sweeps_over_well_conditioned_features_equal_those_of_torchgeo_bench() {
    let golden = Golden::read();
    for task in ["m-brick-kiln", "m-so2sat"] {
        let expected = golden.result(task, "imagestats", "linear");
        let (swept, outcome) = swept(&golden, task, &logistic_config("torchgeo-linear"));
        let c = expected["best_c"].as_f64().unwrap();
        assert!((swept.chosen.c / c - 1.0).abs() < 1e-9, "{task}: {} instead of {c}", swept.chosen.c);
        scores_as(&outcome, expected, task);
        let classes: Vec<usize> = serde_json::from_value(expected["predictions"].clone()).unwrap();
        let truth = golden.labels(task, "test");
        assert_eq!(
            truth.predicted(swept.logits.view()),
            Targets::Classes { classes, count: truth.outputs() }
        );
    }
}

/// Mean loss of a fit of `targets` (of labels: its sum over them), with the penalty at `c`.
fn loss(fitted: &logistic::Regression, features: ArrayView2<f32>, targets: &Targets, c: f64) -> f64 {
    let x = features.mapv(f64::from);
    let z = x.dot(&fitted.coefficients.t()) + &fitted.intercepts;
    let n = x.nrows() as f64;
    let data: f64 = match targets {
        Targets::Classes { classes, .. } => {
            let mut present = classes.clone();
            present.sort_unstable();
            present.dedup();
            let of_sample = |(z, class): (ndarray::ArrayView1<f64>, &usize)| {
                let right = z[present.binary_search(class).unwrap()];
                let row = present.binary_search(class).unwrap();
                let others = z.iter().enumerate().filter(|(other, _)| *other != row);
                others.map(|(_, other)| (other - right).exp()).sum::<f64>().ln_1p()
            };
            z.outer_iter().zip(classes).map(of_sample).sum()
        }
        Targets::Labels(labels) => {
            let of_label = |(z, applies): (&f64, &bool)| {
                let z = if *applies { -z } else { *z };
                (-z.abs()).exp().ln_1p() + z.max(0.0)
            };
            z.iter().zip(labels).map(of_label).sum()
        }
        Targets::Values(_) => panic!("{targets:?}"),
    };
    (data + fitted.coefficients.iter().map(|w| w * w).sum::<f64>() / (2.0 * c)) / n
}

#[test]
fn the_converged_solver_reaches_scikit_learns_optimum_on_raw_features() {
    let golden = Golden::read();
    let optima = json("baselines/optima.json");
    let solver = logistic_config("torchgeo-linear-converged").solver;
    for (task, baseline) in feature_sets() {
        let features = golden.matrix(&format!("{task}/{baseline}/train"));
        let targets = golden.labels(task, "train");
        let design = logistic::Design::new(features.view(), false).with_row_per_class(true);
        let mut previous = None;
        for c in [1e-6, 1e-3, 1.0, 1e2, 1e4] {
            let name = if c >= 1.0 || c == 1e-3 { format!("{c}") } else { "1e-06".to_owned() };
            let expected = optima[format!("{task}/{baseline}")][name].as_f64().unwrap();
            for start in [None, previous.as_ref()] {
                let fitted = design.fit(&targets, c, solver, start).unwrap();
                let found = loss(&fitted, features.view(), &targets, c);
                let off = (found - expected) / expected;
                let what = format!("{task}/{baseline}, C = {c}: {found}, scikit-learn {expected}");
                assert!(fitted.converged && off.abs() < 1e-6, "{what}, off by {off:e}");
            }
            previous = Some(design.fit(&targets, c, solver, None).unwrap());
        }
    }
}

#[test]
fn every_regression_of_a_sweep_over_raw_features_converges() {
    let golden = Golden::read();
    let (swept, _) = swept(&golden, "m-eurosat", &logistic_config("torchgeo-linear-converged"));
    let stuck: Vec<f64> =
        swept.candidates.iter().filter(|tried| !tried.converged).map(|tried| tried.c).collect();
    assert!(stuck.is_empty() && swept.candidates.len() == 40, "{stuck:?}");
    // torchgeo-bench's own solver stops before the minimum on the same features.
    let (torch, _) = self::swept(&golden, "m-eurosat", &logistic_config("torchgeo-linear"));
    assert!(torch.candidates.iter().any(|tried| !tried.converged));
}

// ---------------------------------------------------------------- whole runs

fn bench(root: &Path, out: &Path, task: &str, args: &[&str]) -> Vec<Record> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command
        .args(["bench", "geobench", "--no-cache", "--task", task, "--data"])
        .arg(root)
        .arg("--out")
        .arg(out);
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records = common::records(&out.join("geobench")).into_values();
    records.filter(|record| record.cell.task == task).collect()
}

#[track_caller]
fn recorded_as(record: &Record, golden: &Value) {
    let interval = record.interval.unwrap();
    let [low, high] = numbers(&golden["interval"])[..] else { panic!("{golden}") };
    let expected = [golden["score"].as_f64().unwrap(), low, high];
    for (found, expected) in [record.value, interval.low, interval.high].into_iter().zip(expected) {
        assert!((found / 100.0 - expected).abs() < 1e-7, "{record:?} instead of {golden}");
    }
}

#[test]
fn the_program_gives_torchgeo_benchs_scores_of_image_statistics() {
    let Some(root) = real() else { return };
    let (golden, folder) = (Golden::read(), tempfile::tempdir().unwrap());
    for task in TASKS {
        let args = ["--model", "image-stats", "--protocol", "torchgeo-knn", "--protocol", "torchgeo-linear"];
        let records = bench(&root, folder.path(), task, &args);
        assert_eq!(records.len(), 2);
        for record in records {
            let labels = task == "m-bigearthnet";
            assert_eq!(record.metric, if labels { Metric::MicroMap } else { Metric::Accuracy });
            match record.cell.protocol.as_str() {
                "torchgeo-knn" => recorded_as(&record, golden.result(task, "imagestats", "knn")),
                // Elsewhere the regression depends on rounding.
                _ if ["m-brick-kiln", "m-so2sat"].contains(&task) => {
                    recorded_as(&record, golden.result(task, "imagestats", "linear"));
                    assert_eq!(record.selected["solver"], "PyTorch's L-BFGS, float32");
                }
                _ => {}
            }
        }
    }
    common::all_scores_follow_from_predictions(&folder.path().join("geobench"));
    let text = |file: &str| std::fs::read_to_string(folder.path().join("geobench").join(file)).unwrap();
    let table = text("torchgeo-knn.md");
    // Measured beside published of the same bands, and a published value below the statistics marked.
    let line = |begin: &str| {
        let found = table.lines().find(|line| line.starts_with(begin));
        found.unwrap_or_else(|| panic!("no {begin} in {table}"))
    };
    let measured = line("| Image statistics (measured)");
    assert!(measured.contains("91.7 ") && !measured.contains("(+") && !measured.contains("**"), "{table}");
    assert!(line("| RCF  ").contains("76.3§ "), "{table}");
    // What is measured here is part of the data, so published values are compared with the published statistics alone.
    assert!(table.contains("worse than plain pixel statistics, which reach 78.3 (published)"), "{table}");
    assert!(!table.contains("worse than plain pixel statistics, which reach 91.7"), "{table}");
    assert!(text("torchgeo-linear.md").contains("Image statistics (measured"));
}

#[test]
fn the_program_gives_torchgeo_benchs_scores_of_random_convolutional_features() {
    let Some(root) = real() else { return };
    let (golden, folder) = (Golden::read(), tempfile::tempdir().unwrap());
    let args = ["--model", "rcf", "--protocol", "torchgeo-knn"];
    for record in bench(&root, folder.path(), "m-bigearthnet", &args) {
        recorded_as(&record, golden.result("m-bigearthnet", "rcf", "knn"));
        let made = &record.provenance;
        assert_eq!((made.weights.as_str(), made.normalization.as_str()), ("none", "bandspec_zscore"));
    }
    // Statistics by the band's content make no sense for bands of any name.
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.args([
        "bench",
        "geobench",
        "--task",
        "m-bigearthnet",
        "--model",
        "rcf",
        "--normalization",
        "OURS",
    ]);
    let output = command.arg("--data").arg(&root).arg("--out").arg(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("takes every stored band"), "{said}");
}

// ---------------------------------------------------------------- published values

#[test]
fn rows_known_to_be_wrong_are_left_out() {
    let home = Home::find().unwrap();
    for file in ["torchgeo-knn.csv", "torchgeo-linear.csv"] {
        let published = terrabench::report::tables::published::read(&home.published(file)).unwrap();
        assert!(published.source.contains("model_native") && published.source.contains("m-so2sat"));
        assert_eq!(published.values.len(), 217);
        let wrong = published.values.iter().find(|value| {
            value.dataset == "m-so2sat" && ["CROMA", "Panopticon", "MoCo"].contains(&value.model.as_str())
        });
        assert_eq!(wrong, None);
        // The baseline's name is the one by which tables know it.
        let model = ModelConfig::load(&home, "image-stats").unwrap();
        assert!(
            published
                .values
                .iter()
                .any(|value| value.model == model.name && value.backbone == model.backbone)
        );
    }
}
