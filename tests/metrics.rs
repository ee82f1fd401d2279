//! Compares every metric with torchmetrics and scikit-learn on random and degenerate inputs. `tests/fixtures/metrics/make.py`
//! computed the expected figures.

use ndarray::{Array2, s};
use serde_json::Value;
use terrabench::ErrorKind;
use terrabench::config::IntervalConfig;
use terrabench::metrics::Metric;
use terrabench::metrics::accuracy::{accuracy, top_k_accuracy};
use terrabench::metrics::average_precision::{
    average_precision, macro_average_precision, micro_average_precision,
};
use terrabench::metrics::f1::{
    count_classes, count_labels, count_samples, macro_f1_of_classes, macro_f1_of_labels, micro_f1,
};
use terrabench::metrics::paired::{FEWEST, Paired, Test, mcnemar};
use terrabench::metrics::segmentation::{Confusion, mean_iou_over_batches};
use terrabench::score::{Predictions, Targets, score_logits};

use crate::golden::{json, numbers};

/// torchmetrics computes in float32.
const SINGLE: f64 = 2e-5;
const DOUBLE: f64 = 1e-10;

fn cases(kind: &str) -> Vec<Value> {
    json("metrics/golden.json")[kind].as_array().unwrap().clone()
}

fn matrix(value: &Value) -> Array2<f32> {
    let rows: Vec<Vec<f64>> = value.as_array().unwrap().iter().map(numbers).collect();
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| rows[i][j] as f32)
}

fn integers(value: &Value) -> Vec<i32> {
    value.as_array().unwrap().iter().map(|number| number.as_i64().unwrap() as i32).collect()
}

/// The figures of the libraries that compute this metric, with the tolerance of their precision.
fn expected<'c>(case: &'c Value, figure: &str) -> Vec<(&'c Value, f64)> {
    let of = |library: &str, tolerance| Some((case[library].get(figure)?, tolerance));
    [of("torchmetrics", SINGLE), of("scikit-learn", DOUBLE)].into_iter().flatten().collect()
}

#[track_caller]
fn agrees(case: &Value, figure: &str, found: f64) {
    let known = expected(case, figure);
    assert!(!known.is_empty(), "no library has {figure}");
    for (value, tolerance) in known {
        let value = value.as_f64().unwrap_or(f64::NAN);
        let near = (found - value).abs() <= tolerance * 100.0;
        assert!(near, "{}: {figure} is {found}, expected {value}", case["name"]);
    }
}

#[track_caller]
fn all_agree(case: &Value, figure: &str, found: &[f64]) {
    for (values, tolerance) in expected(case, figure) {
        let values = numbers(values);
        let near = |(a, b): (&f64, &f64)| (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * 100.0;
        let near = found.len() == values.len() && found.iter().zip(&values).all(near);
        assert!(near, "{}: {figure} are {found:?}, expected {values:?}", case["name"]);
    }
}

#[test]
fn class_scores_match_torchmetrics_and_scikit_learn() {
    for case in cases("classes") {
        let logits = matrix(&case["logits"]);
        let truth: Vec<usize> = integers(&case["truth"]).iter().map(|class| *class as usize).collect();
        let count = case["classes"].as_u64().unwrap() as usize;
        let targets = Targets::Classes { classes: truth.clone(), count };
        let Targets::Classes { classes: predicted, .. } = targets.predicted(logits.view()) else { panic!() };

        agrees(&case, "accuracy", accuracy(&predicted, &truth).unwrap());
        agrees(&case, "accuracy", score_logits(Metric::Accuracy, logits.view(), &targets).unwrap());
        let counts = count_classes(&predicted, &truth, count).unwrap();
        agrees(&case, "micro_f1", micro_f1(&counts));
        agrees(&case, "macro_f1", macro_f1_of_classes(&counts).unwrap());
        all_agree(&case, "f1", &counts.iter().map(|counts| counts.f1()).collect::<Vec<_>>());
        for (k, value) in case["torchmetrics"]["top_k"].as_object().unwrap() {
            let found = top_k_accuracy(logits.view(), &truth, k.parse().unwrap()).unwrap();
            let value = value.as_f64().unwrap();
            assert!((found - value).abs() < SINGLE * 100.0, "{}: top {k}, {found} {value}", case["name"]);
        }
        let predicted = targets.predicted(logits.view());
        let predictions = Predictions::Targets { predicted, truth: targets };
        agrees(&case, "macro_f1", predictions.scores(&[])["macro_f1"]);
    }
}

/// torchmetrics and scikit-learn skip absent classes, but not absent labels.
#[test]
fn label_scores_match_torchmetrics_and_scikit_learn() {
    for case in cases("labels") {
        let logits = matrix(&case["logits"]);
        let truth = matrix(&case["truth"]).mapv(|label| label == 1.0);
        let targets = Targets::Labels(truth.clone());
        let predicted = logits.mapv(|logit| logit > 0.0);

        let counts = count_labels(predicted.view(), truth.view()).unwrap();
        agrees(&case, "micro_f1", micro_f1(&counts));
        agrees(&case, "micro_f1", score_logits(Metric::MicroF1, logits.view(), &targets).unwrap());
        agrees(&case, "macro_f1", macro_f1_of_labels(&counts).unwrap());
        all_agree(&case, "f1", &counts.iter().map(|counts| counts.f1()).collect::<Vec<_>>());
        let samples = count_samples(predicted.view(), truth.view()).unwrap();
        all_agree(&case, "sample_f1", &samples.iter().map(|counts| counts.f1()).collect::<Vec<_>>());

        agrees(&case, "micro_map", micro_average_precision(logits.view(), truth.view()).unwrap());
        agrees(&case, "micro_map", score_logits(Metric::MicroMap, logits.view(), &targets).unwrap());
        agrees(&case, "macro_map", macro_average_precision(logits.view(), truth.view()).unwrap());
        let each = logits.columns().into_iter().zip(truth.columns());
        let each = each.map(|(scores, truth)| average_precision(&scores.to_vec(), &truth.to_vec()).unwrap());
        all_agree(&case, "map", &each.collect::<Vec<_>>());

        for predictions in [
            Predictions::Targets { predicted: Targets::Labels(predicted), truth: targets },
            Predictions::Scores { logits, truth },
        ] {
            let scores = predictions.scores(&[]);
            agrees(&case, "macro_f1", scores["macro_f1"]);
            if let Predictions::Scores { .. } = predictions {
                agrees(&case, "micro_f1", scores["micro_f1"]);
                agrees(&case, "micro_map", predictions.scorer(Metric::MicroMap).unwrap().all());
                let each = predictions.scorer(Metric::MicroF1).unwrap().each();
                all_agree(&case, "sample_f1", &each);
            }
        }
    }
}

#[test]
fn mask_scores_match_torchmetrics_and_scikit_learn() {
    for case in cases("masks") {
        let count = case["classes"].as_u64().unwrap() as usize;
        let ignore = case["ignore"].as_i64().map(|label| label as i32);
        let rows = |key: &str| case[key].as_array().unwrap().iter().map(integers).collect::<Vec<_>>();
        let (truth, predicted) = (rows("truth"), rows("predicted"));
        let images: Vec<Confusion> = truth
            .iter()
            .zip(&predicted)
            .map(|(truth, predicted)| {
                let mut image = Confusion::new(count, ignore);
                let view = |row: &[i32]| ndarray::Array1::from(row.to_vec());
                image.add(view(truth).view(), view(predicted).view()).unwrap();
                image
            })
            .collect();
        let all = Confusion::sum(&images).unwrap();
        let batch_size = case["batch_size"].as_u64().unwrap() as usize;
        if case["scikit-learn"].is_null() {
            // torchmetrics returns NaN, and a pixel accuracy of 0.
            assert!(all.mean_iou().is_err() && all.pixel_accuracy().is_err(), "{}", case["name"]);
            assert!(mean_iou_over_batches(&images, batch_size).is_err());
            assert!(Predictions::Masks(images).scorer(Metric::Miou).is_err());
            continue;
        }
        agrees(&case, "miou", all.mean_iou().unwrap());
        agrees(&case, "pixel_accuracy", all.pixel_accuracy().unwrap());
        all_agree(&case, "iou", &all.iou().iter().map(|iou| iou.unwrap_or(f64::NAN)).collect::<Vec<_>>());
        agrees(&case, "miou_over_batches", mean_iou_over_batches(&images, batch_size).unwrap());
        let predictions = Predictions::Masks(images);
        agrees(&case, "miou", predictions.scorer(Metric::Miou).unwrap().all());
        agrees(&case, "pixel_accuracy", predictions.scores(&[])["pixel_accuracy"]);
    }
}

#[test]
fn mcnemars_p_values_match_scipys_binomial_test() {
    for case in cases("mcnemar") {
        let [a, b] = ["only_a", "only_b"].map(|key| case[key].as_u64().unwrap());
        let (found, expected) = (mcnemar(a, b), case["p"].as_f64().unwrap());
        assert!((found - expected).abs() < 1e-12 + 1e-9 * expected, "{a} {b}: {found}, expected {expected}");
    }
}

/// Differences between two scores per sample: `wins` in favour of a, then `losses`, then `ties` without difference.
fn paired(wins: usize, losses: usize, ties: usize) -> Paired {
    let each = [vec![100.0; wins], vec![-100.0; losses], vec![0.0; ties]].concat();
    let mean = |indices: &[usize]| indices.iter().map(|i| each[*i]).sum::<f64>() / indices.len() as f64;
    Paired::new(&each, 0.95, 2000, 0, mean).unwrap()
}

#[test]
fn a_few_differing_samples_are_decided_by_the_exact_test() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    for n in 1..6 {
        // The bootstrap would give p < 0.001: every resample shows the same difference.
        let all = paired(n, 0, 0);
        assert_eq!(all.test, Test::Sign { a: n as u64, b: 0 });
        assert!((all.p - 0.5_f64.powi(n as i32 - 1)).abs() < 1e-12, "{}", all.p);
        assert_eq!((all.interval, all.verdict()), (None, Equal));
    }
    assert_eq!(paired(6, 0, 0).verdict(), Greater);
    assert_eq!(paired(1, 9, 0).verdict(), Less);
    assert_eq!(paired(2, 8, 0).verdict(), Equal);
    // Five differing samples among many are just as few.
    let few = paired(5, 0, 995);
    assert!(few.interval.is_some() && few.test == Test::Sign { a: 5, b: 0 });
    assert!((few.p - 0.0625).abs() < 1e-12 && few.verdict() == Equal);
    assert_eq!(paired(0, 0, 40).p, 1.0);
    // From this limit on, the bootstrap decides.
    assert!(matches!(paired(FEWEST - 1, 0, 0).test, Test::Sign { .. }));
    let enough = paired(0, FEWEST, 0);
    assert_eq!((enough.test, enough.verdict()), (Test::Bootstrap, Less));
    assert!(enough.interval.is_some() && enough.p < 0.001);
}

#[test]
fn each_sample_is_scored_as_if_it_were_alone() {
    for case in cases("labels") {
        let logits = matrix(&case["logits"]);
        let truth = matrix(&case["truth"]).mapv(|label| label == 1.0);
        let each = Predictions::Scores { logits: logits.clone(), truth: truth.clone() };
        let each = each.scorer(Metric::MicroMap).unwrap().each();
        assert_eq!(each.len(), logits.nrows());
        for (sample, found) in each.iter().enumerate() {
            let rows = s![sample..=sample, ..];
            let alone = micro_average_precision(logits.slice(rows), truth.slice(rows)).unwrap();
            assert!((found - alone).abs() < 1e-9, "{}, sample {sample}: {found}, not {alone}", case["name"]);
        }
    }
}

#[test]
fn logits_that_are_not_finite_have_no_score() {
    let targets = Targets::Classes { classes: vec![0, 0], count: 2 };
    let labels = Targets::Labels(Array2::from_elem((2, 2), true));
    for broken in [f32::NAN, f32::INFINITY] {
        // Used as they are, NaN and infinity would predict class 0 for both samples: all correct.
        let logits = ndarray::array![[broken, 0.0], [1.0, 0.0]];
        for (metric, targets) in
            [(Metric::Accuracy, &targets), (Metric::MicroF1, &labels), (Metric::MicroMap, &labels)]
        {
            let error = score_logits(metric, logits.view(), targets).unwrap_err();
            assert!(error.kind() == ErrorKind::NotFinite, "{metric}: {error}");
            let interval = IntervalConfig::new(0.95, 10);
            let outcome =
                terrabench::score::Outcome::of_logits(metric, logits.view(), targets, &interval, 0, []);
            assert!(outcome.is_err_and(|error| error.kind() == ErrorKind::NotFinite));
        }
    }
    // A class without training samples.
    let absent = ndarray::array![[f32::NEG_INFINITY, 0.0], [f32::NEG_INFINITY, 1.0]];
    assert_eq!(score_logits(Metric::Accuracy, absent.view(), &targets).unwrap(), 0.0);
}
