//! The gate and its parts: stored predictions, paired statistics, verdicts, exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::sample::{identify, record};
use ndarray::{Array2, array};
use terrabench::gate::Suites;
use terrabench::gate::check::{self, How, Thresholds, Verdict, junit, summary};
use terrabench::gate::choice::Wanted;
use terrabench::gate::compare::{self, compare, side};
use terrabench::gate::rescore::rescore;
use terrabench::metrics::Metric;
use terrabench::metrics::paired::{Paired, mcnemar};
use terrabench::metrics::segmentation::Confusion;
use terrabench::record::predictions::{Named, read, write};
use terrabench::record::{Record, Store, StoredRecord, collect};
use terrabench::score::{Predictions, Targets};

/// Predictions for `n` samples of two alternating classes; the first `right` are correct.
fn classes(n: usize, right: usize) -> Predictions {
    let truth: Vec<usize> = (0..n).map(|i| i % 2).collect();
    let predicted = truth.iter().enumerate().map(|(i, t)| if i < right { *t } else { 1 - t }).collect();
    Predictions::Targets {
        predicted: Targets::Classes { classes: predicted, count: 2 },
        truth: Targets::Classes { classes: truth, count: 2 },
    }
}

fn named(predictions: Predictions) -> Named {
    let samples = (0..predictions.len()).map(|i| format!("sample {i}")).collect();
    Named { samples, predictions, scoring: None, supplement: Default::default() }
}

/// Stores a record with `right` of `n` correct samples, with or without its predictions.
fn keep(store: &Store, n: usize, right: usize, with_predictions: bool, change: impl Fn(&mut Record)) {
    let mut record = record();
    let predictions = classes(n, right);
    record.value = predictions.scorer(Metric::Accuracy).unwrap().all();
    record.interval = None;
    record.scores = predictions.scores(&[]);
    record.samples.insert("test".to_owned(), n);
    change(&mut record);
    identify(&mut record);
    if with_predictions {
        store.put_predictions(&record, &named(predictions)).unwrap();
    }
    store.put(&record).unwrap();
}

fn thresholds() -> Thresholds {
    Thresholds::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/check.toml")).unwrap()
}

#[test]
fn predictions_of_every_kind_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions.safetensors");
    let labels = Predictions::Targets {
        predicted: Targets::Labels(array![[true, false, true], [false, false, true]]),
        truth: Targets::Labels(array![[true, true, true], [false, false, false]]),
    };
    let mut image = Confusion::new(2, Some(-1));
    image.add(array![[0, 1], [-1, 7]].view(), array![[0, 0], [1, 1]].view()).unwrap();
    let masks = Predictions::Masks(vec![image.clone(), image]);
    for predictions in [classes(300, 17), labels, masks] {
        let named = named(predictions);
        write(&path, "0a1b", &named).unwrap();
        assert_eq!(read(&path, "0a1b").unwrap(), Some(named));
    }
    let error = read(&path, "ffff").unwrap_err().to_string();
    assert!(error.contains("predictions.safetensors") && error.contains("0a1b"), "{error}");
    assert_eq!(read(&folder.path().join("none"), "0a1b").unwrap(), None);

    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        read(&path, "0a1b").unwrap_err();
    }
}

/// Expected values: Python, `min(1, 2 * sum(comb(n, k) for k in range(min(a, b) + 1)) / 2**n)`.
#[test]
fn mcnemars_test_is_the_exact_one() {
    let expected = [
        ((1, 9), 0.021484375),
        ((0, 5), 0.0625),
        ((30, 12), 0.007915897334896727),
        ((7, 7), 1.0),
        ((0, 0), 1.0),
        ((520, 400), 8.549170923883778e-05),
    ];
    for ((a, b), p) in expected {
        assert!((mcnemar(a, b) - p).abs() < 1e-12 * p.max(1e-3), "{a} {b}: {}", mcnemar(a, b));
    }
    // Powers of 1/2 that underflow f64.
    assert!((0.9..=1.0).contains(&mcnemar(5000, 5001)));
}

#[test]
fn a_paired_bootstrap_separates_a_difference_from_noise() {
    let of = |a: &[f64], b: &[f64]| {
        let each: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        Paired::new(&each, 0.95, 2000, 0, |indices| {
            indices.iter().map(|i| each[*i]).sum::<f64>() / indices.len() as f64
        })
        .unwrap()
    };
    let noise: Vec<f64> = (0..200).map(|i| ((i * 7919) % 101) as f64).collect();
    let shifted: Vec<f64> = noise.iter().map(|x| x - 1.0).collect();
    // The same noise on both sides: paired, a shift of 1 is certain although values range over 100.
    let sure = of(&noise, &shifted);
    assert!((sure.difference - 1.0).abs() < 1e-9 && sure.interval.unwrap().low > 0.99 && sure.p < 0.001);
    let other: Vec<f64> = (0..200).map(|i| ((i * 104729 + 50) % 101) as f64).collect();
    let unsure = of(&noise, &other);
    let interval = unsure.interval.unwrap();
    assert!(interval.low < 0.0 && interval.high > 0.0 && unsure.p > 0.05, "{unsure:?}");
    assert_eq!(of(&noise, &noise).p, 1.0);
}

#[test]
fn the_gate_reports_what_fell_rose_stayed_is_missing_or_new() {
    let folder = tempfile::tempdir().unwrap();
    let (now, before) =
        (Store::open(folder.path().join("now")).unwrap(), Store::open(folder.path().join("before")).unwrap());
    let task = |name: &'static str| move |record: &mut Record| record.cell.task = name.to_owned();
    for (name, was, is, with) in [
        ("fell", 180, 150, true),
        ("rose", 150, 180, true),
        ("noise", 151, 150, true),
        ("same", 150, 150, true),
        ("fell-by-value", 153, 150, false),
        ("within-tolerance", 151, 150, false),
    ] {
        keep(&before, 200, was, with, task(name));
        keep(&now, 200, is, with, task(name));
    }
    keep(&before, 200, 150, true, task("missing"));
    keep(&now, 200, 150, true, task("new"));
    // An older run of the same setting does not count.
    let mut older = now.all().unwrap().into_iter().find(|record| record.cell.task == "same").unwrap();
    older.fingerprint = "0".repeat(older.fingerprint.len());
    older.provenance.finished -= 1;
    older.value = 0.0;
    now.put(&older).unwrap();

    let of = |name: &str| collect(&folder.path().join(name)).unwrap();
    let rows = check::check(&of("now"), &of("before"), &thresholds(), &Suites::default()).unwrap();
    let verdict = |task: &str| rows.iter().find(|row| row.cell.task == task).unwrap().verdict;
    assert_eq!(verdict("fell"), Verdict::Fell);
    assert_eq!(verdict("rose"), Verdict::Rose);
    assert_eq!(verdict("noise"), Verdict::Same);
    assert_eq!(verdict("same"), Verdict::Same);
    assert_eq!(verdict("fell-by-value"), Verdict::Fell);
    assert_eq!(verdict("within-tolerance"), Verdict::Same);
    assert_eq!(verdict("missing"), Verdict::Missing);
    assert_eq!(verdict("new"), Verdict::New);
    assert!(rows[0].verdict.fails() && !rows.last().unwrap().verdict.fails(), "the worst come first");

    // Only equal predictions satisfy the demand for equal predictions.
    let strict = Thresholds { agreement: Some(100.0), ..thresholds() };
    let rows = check::check(&of("now"), &of("before"), &strict, &Suites::default()).unwrap();
    let verdict = |task: &str| rows.iter().find(|row| row.cell.task == task).unwrap();
    assert_eq!(verdict("noise").verdict, Verdict::Changed);
    assert!(matches!(verdict("noise").how, Some(How::Samples { agreement: 99.5, .. })));
    assert_eq!(verdict("same").verdict, Verdict::Same);
    assert_eq!(verdict("within-tolerance").verdict, Verdict::Changed);

    let text = summary(&rows, &[]);
    assert!(text.starts_with("## Accuracy check: failed\n\n2 fell, "), "{text}");
    let xml = junit(&rows, &[]).unwrap();
    assert!(xml.contains(r#"tests="8" skipped="1" failures="6""#), "{xml}");
}

#[test]
fn one_to_three_test_samples_are_never_significant() {
    for n in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        for (name, right) in [("a", n), ("b", 0)] {
            let store = Store::open(folder.path().join(name)).unwrap();
            keep(&store, n, right, true, |record| record.cell.model = name.to_owned());
        }
        let [a, b] = ["a", "b"].map(|name| collect(&folder.path().join(name)).unwrap());
        let rows = compare(a, b, &Wanted::default(), &Suites::default()).unwrap().rows;
        let statistics = rows[0].paired.as_ref().unwrap();
        let p = 0.5_f64.powi(n as i32 - 1);
        assert!((statistics.bootstrap.p - p).abs() < 1e-12, "{}", statistics.bootstrap.p);
        assert_eq!(statistics.bootstrap.interval, None);
        let told = compare::markdown(&rows, "a", "b");
        let expected =
            format!("too few samples | {p:.3} (sign test, differing samples: {n}; nothing can be told)");
        assert!(told.contains(&expected), "{told}");

        let rename = |record: &mut Record| record.cell.model = "one".to_owned();
        let of = |name: &str, right| {
            let store = Store::open(folder.path().join(name)).unwrap();
            keep(&store, n, right, true, rename);
            collect(&folder.path().join(name)).unwrap()
        };
        let rows = check::check(&of("now", 0), &of("before", n), &thresholds(), &Suites::default()).unwrap();
        assert_eq!(rows[0].verdict, Verdict::Same, "100 points less of {n} samples");
        assert!(summary(&rows, &[]).contains("nothing can be told"), "{}", summary(&rows, &[]));
    }
}

#[test]
fn an_update_takes_the_new_records_and_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (now, before) =
        (Store::open(folder.path().join("now")).unwrap(), Store::open(folder.path().join("before")).unwrap());
    let weights = |task: &'static str, weights: &'static str| {
        move |record: &mut Record| {
            record.cell.task = task.to_owned();
            record.provenance.weights = weights.to_owned();
        }
    };
    keep(&before, 100, 50, true, weights("both", "old"));
    keep(&before, 100, 50, true, weights("gone", "old"));
    keep(&now, 100, 60, true, weights("both", "new"));
    let of = |name: &str| collect(&folder.path().join(name)).unwrap();
    check::update(&of("now"), &of("before"), &folder.path().join("before"), &Suites::default()).unwrap();
    let after = of("before");
    let found: Vec<(&str, &str)> = after
        .iter()
        .map(|kept| (kept.record.cell.task.as_str(), kept.record.provenance.weights.as_str()))
        .collect();
    assert_eq!(found, [("both", "new"), ("gone", "old")]);
    let files = std::fs::read_dir(folder.path().join("before/predictions")).unwrap().count();
    assert_eq!(files, 2, "what the old record left behind is gone");
    assert!(after[0].store.predictions(&after[0].record).unwrap().is_some());
}

#[test]
fn scores_are_recomputed_from_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    keep(&store, 40, 30, true, |_| {});
    keep(&store, 40, 30, true, |record| {
        record.cell.seed = 1;
        record.value = 80.0;
    });
    keep(&store, 40, 30, false, |record| record.cell.seed = 2);
    let (rescored, unreadable) =
        rescore(&collect(folder.path()).unwrap(), &[Metric::Miou], &Suites::default());
    assert!(unreadable.is_empty());
    let of = |seed: u64| rescored.iter().find(|r| r.record.cell.seed == seed).unwrap();
    let right = of(0).scores.as_ref().unwrap();
    assert_eq!(right.iter().map(|score| score.name.as_str()).collect::<Vec<_>>(), ["accuracy", "macro_f1"]);
    assert!(right.iter().all(|score| score.recorded.is_some() && !score.differs()));
    assert!(of(1).scores.as_ref().unwrap()[0].differs());
    assert!(of(2).scores.is_none());
}

#[test]
fn models_are_compared_on_the_cells_that_both_have() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = |name: &'static str, task: &'static str| {
        move |record: &mut Record| {
            record.cell.model = name.to_owned();
            record.cell.task = task.to_owned();
        }
    };
    keep(&store, 200, 180, true, model("A", "m-eurosat"));
    keep(&store, 200, 150, true, model("B", "m-eurosat"));
    keep(&store, 200, 150, true, model("B", "m-so2sat"));
    let of = |name: &str| side(name, folder.path()).unwrap().kept;
    let rows = compare(of("A"), of("B ViT-Base"), &Wanted::default(), &Suites::default()).unwrap().rows;
    assert_eq!(rows.len(), 1);
    let statistics = rows[0].paired.as_ref().unwrap();
    assert_eq!(statistics.only, (30, 0));
    assert!((statistics.bootstrap.difference - 15.0).abs() < 1e-9 && statistics.bootstrap.p < 0.001);
    assert!(statistics.mcnemar.unwrap() < 1e-8);
    let error = side("C", folder.path()).unwrap_err().to_string();
    assert!(error.contains("`A ViT-Base`, `B ViT-Base`"), "{error}");
}

#[test]
fn agreement_needs_the_same_labels() {
    let image = |label: i32, prediction: i32| {
        let mut image = Confusion::new(2, None);
        image
            .add(Array2::from_elem((2, 2), label).view(), Array2::from_elem((2, 2), prediction).view())
            .unwrap();
        image
    };
    let masks = |images: &[Confusion]| Predictions::Masks(images.to_vec());
    let (a, b) = (masks(&[image(0, 0), image(1, 1)]), masks(&[image(0, 1), image(1, 1)]));
    assert_eq!(a.agreement(&b), Some(50.0));
    assert_eq!(a.agreement(&masks(&[image(1, 0), image(1, 1)])), None);
    assert_eq!(a.agreement(&classes(2, 2)), None);
    assert_eq!(a.right(), [true, true]);
    assert_eq!(b.right(), [false, true]);
}

fn terrabench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(arguments)
        .env("TERRABENCH_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("check-cache"))
        .output()
        .unwrap()
}

/// Runs the demo with a model's TOML file and checks it against the committed reference.
fn gate(folder: &Path, model: &str) -> Output {
    let toml = folder.join("demo.toml");
    std::fs::write(&toml, model).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let out = folder.join("results");
    let bench = terrabench(&["bench", "geobench", "--demo", "--model", &text(&toml), "--out", &text(&out)]);
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/reference/demo");
    // The reference holds the demo's learnt model too.
    terrabench(&["check", "--records", &text(&out), "--reference", &text(&reference), "--model", "Demo"])
}

/// The unchanged demo model passes the gate of this repository's CI. With a different arithmetic it fails, although the
/// parameters are the same and scores change little.
#[test]
fn a_change_in_the_models_arithmetic_turns_the_gate_red() {
    let toml = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/models/demo.toml");
    let model = std::fs::read_to_string(toml).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let green = gate(folder.path(), &model);
    let told = String::from_utf8_lossy(&green.stdout).into_owned();
    assert_eq!(green.status.code(), Some(0), "{told}{}", String::from_utf8_lossy(&green.stderr));

    // Six attention heads of 32 instead of three of 64: other products, another scale, the same parameters.
    let changed = model.replace("heads = 3", "heads = 6");
    assert_ne!(changed, model);
    let folder = tempfile::tempdir().unwrap();
    let red = gate(folder.path(), &changed);
    let told = String::from_utf8_lossy(&red.stdout).into_owned();
    assert_eq!(red.status.code(), Some(1), "{told}");
    assert!(told.starts_with("## Accuracy check: failed") && told.contains("**changed**"), "{told}");
}

#[test]
fn unusable_input_ends_with_2_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("now")).unwrap();
    keep(&store, 20, 10, true, |_| {});
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (now, none) = (path("now"), path("none"));

    let output = terrabench(&["check", "--records", &now, "--reference", &none]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("none") && told.contains("--update"), "{told}");

    assert_eq!(
        terrabench(&["check", "--records", &now, "--reference", &none, "--update"]).status.code(),
        Some(0)
    );
    let (xml, table) = (path("check.xml"), path("summary.md"));
    let same =
        terrabench(&["check", "--records", &now, "--reference", &none, "--junit", &xml, "--summary", &table]);
    assert_eq!(same.status.code(), Some(0));
    assert!(std::fs::read_to_string(&xml).unwrap().contains("<testsuite name=\"geobench\""));
    assert_eq!(std::fs::read_to_string(&table).unwrap(), String::from_utf8_lossy(&same.stdout));

    // Damaged predictions must not make a cell count as the same.
    let damaged = collect(Path::new(&none)).unwrap();
    let StoredRecord { record, store } = &damaged[0];
    let file: PathBuf = store.beside(record, "predictions", "safetensors");
    std::fs::write(&file, b"nonsense").unwrap();
    let output = terrabench(&["check", "--records", &now, "--reference", &none]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("predictions") && told.contains("delete the file"), "{told}");

    std::fs::write(folder.path().join("wrong.toml"), "level = 2.0\nresamples = 1\n[drop]\n[tolerance]\n")
        .unwrap();
    let output =
        terrabench(&["check", "--records", &now, "--reference", &none, "--thresholds", &path("wrong.toml")]);
    assert_eq!(output.status.code(), Some(2));
}

/// What an update leaves that was killed before its first record, with thresholds that somebody put there before.
#[test]
fn an_update_that_was_stopped_at_its_start_can_be_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("now")).unwrap();
    keep(&store, 20, 10, true, |_| {});
    let reference = folder.path().join("reference");
    std::fs::create_dir_all(reference.join("records")).unwrap();
    std::fs::create_dir_all(reference.join("predictions")).unwrap();
    std::fs::write(reference.join("records/.x.json.partial"), "{").unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let update = ["check", "--records", &path("now"), "--reference", &path("reference"), "--update"];
    let output = terrabench(&update);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(collect(&reference).unwrap().len(), 1);

    // A folder with anything else is no reference, and stays as it is.
    let other = folder.path().join("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("thesis.tex"), "x").unwrap();
    let update = ["check", "--records", &path("now"), "--reference", &path("other"), "--update"];
    assert_eq!(terrabench(&update).status.code(), Some(2));
    assert!(!other.join("records").exists());
}
