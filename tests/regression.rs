//! Numbers as targets: their metrics, what is kept of their predictions, the protocols that predict them, and the
//! suites that ask for them.

use std::sync::Mutex;

use ndarray::{Array1, Array2, array};
use terrabench::config::{
    Augmentation, EmbeddingDtype, EncoderUse, IntervalConfig, KnnConfig, LogSpaced, RidgeConfig,
    TrainingConfig, UpernetConfig,
};
use terrabench::data::{Split, Target};
use terrabench::features::Features;
use terrabench::features::source::FeatureView;
use terrabench::home::Home;
use terrabench::metrics::Metric;
use terrabench::metrics::regression::ErrorSums;
use terrabench::progress::{Progress, Silent, Step};
use terrabench::protocol::{ProtocolConfig, TrainingSetup};
use terrabench::protocol::{knn, ridge};
use terrabench::record::predictions::{Named, read, write};
use terrabench::run::plan::{Choice, plan};
use terrabench::score::decision::HeldOut;
use terrabench::score::predictions::BatchScore;
use terrabench::score::{Outcome, Predictions, Scoring, Targets, score};
use terrabench::task::{Suite, TargetKind, TargetStatistics, Task};
use terrabench::transform::normalize::NormalizationKind;

use crate::generated::{Generated, input, subject, task, unit};
use crate::source::{run_on_features, run_upernet};

const INTERVAL: IntervalConfig = IntervalConfig::new(0.95, 200);

fn home() -> Home {
    Home::find().unwrap()
}

fn sums(pairs: &[(f64, f64)]) -> ErrorSums {
    pairs.iter().map(|(prediction, truth)| ErrorSums::of(*prediction, *truth)).sum()
}

fn values(predicted: &[f32], truth: &[f32]) -> Predictions {
    Predictions::Targets {
        predicted: Targets::Values(predicted.into()),
        truth: Targets::Values(truth.into()),
    }
}

// Metrics -------------------------------------------------------------------------------------------------------------

#[test]
fn metrics_of_numbers_are_scikit_learn_s() {
    // sklearn.metrics of version 1.9.1 on the example of its manual.
    let all = sums(&[(2.5, 3.0), (0.0, -0.5), (2.0, 2.0), (8.0, 7.0)]);
    assert!((all.rmse().unwrap() - 0.6123724356957945).abs() < 1e-15);
    assert!((all.mae().unwrap() - 0.5).abs() < 1e-15);
    assert!((all.r2().unwrap() - 0.9486081370449679).abs() < 1e-15);
}

#[test]
fn a_constant_truth_has_an_r2_of_one_or_nothing() {
    assert_eq!(sums(&[(2.0, 2.0), (2.0, 2.0), (2.0, 2.0)]).r2().unwrap(), 1.0);
    assert_eq!(sums(&[(2.0, 2.0), (2.0, 2.0), (3.0, 2.0)]).r2().unwrap(), 0.0);
    assert_eq!(sums(&[(0.3, 0.1), (0.1, 0.1), (0.1, 0.1)]).r2().unwrap(), 0.0);
}

#[test]
fn what_is_not_measured_has_no_part_in_a_score() {
    let map = array![[1.0_f32, f32::NAN], [3.0, 5.0]];
    let found = ErrorSums::of_arrays(array![[2.0, 9e9], [3.0, 5.0]].view(), map.view(), |x| x).unwrap();
    assert_eq!(found, sums(&[(2.0, 1.0), (3.0, 3.0), (5.0, 5.0)]));
    assert_eq!(found.count, 3);
}

#[test]
fn nothing_measured_is_an_error_and_never_nan() {
    let nothing = sums(&[(1.0, f64::NAN)]);
    for metric in [Metric::Rmse, Metric::Mae, Metric::R2] {
        assert!(nothing.score(metric).unwrap_err().to_string().contains("no measured values"), "{metric}");
        assert!(Predictions::ValueMaps(vec![nothing; 3]).scorer(metric).is_err());
    }
    assert!(sums(&[(1.0, 2.0)]).r2().unwrap_err().to_string().contains("at least two"));
    assert!(sums(&[(1.0, 2.0)]).score(Metric::Miou).is_err());
}

#[test]
fn a_prediction_that_is_no_number_is_told() {
    let error = score(Metric::Rmse, &Targets::Values(vec![f32::NAN]), &Targets::Values(vec![1.0]));
    assert!(error.unwrap_err().to_string().contains("not finite"));
    let map = ErrorSums::of_arrays(array![f32::INFINITY].view(), array![1.0_f32].view(), |x| x);
    assert!(map.unwrap_err().to_string().contains("not finite"));
}

#[test]
fn parts_add_up_to_the_whole() {
    let pair = |i: u64| (10.0 * unit(i), 10.0 * unit(i + 1000));
    let pairs: Vec<(f64, f64)> = (0..60).map(pair).collect();
    let parts: ErrorSums = pairs.chunks(7).map(sums).sum();
    for metric in [Metric::Rmse, Metric::Mae, Metric::R2] {
        let whole = sums(&pairs).score(metric).unwrap();
        assert!((parts.score(metric).unwrap() - whole).abs() < 1e-12, "{metric}");
    }
}

#[test]
fn numbers_and_classes_are_not_scored_by_each_other_s_metrics() {
    let (numbers, classes) = (Targets::Values(vec![1.0]), Targets::Classes { classes: vec![0], count: 2 });
    assert!(score(Metric::Accuracy, &numbers, &numbers).is_err());
    assert!(score(Metric::Rmse, &classes, &classes).is_err());
    assert_eq!(score(Metric::Rmse, &numbers, &numbers).unwrap(), 0.0);
}

#[test]
fn batches_are_weighted_by_their_images_and_empty_ones_left_out() {
    let image = |error: f64, pixels: u64| ErrorSums {
        count: pixels,
        absolute: error * pixels as f64,
        squared: error * error * pixels as f64,
        ..ErrorSums::default()
    };
    let images = vec![image(3.0, 10), image(3.0, 10), image(0.0, 0), image(0.0, 0), image(6.0, 1)];
    let predictions = Predictions::ValueMaps(images);
    let batches = predictions.batch_scores(Metric::Rmse, 2).unwrap();
    assert_eq!(batches.iter().map(|batch| batch.samples).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(BatchScore::mean(batches), 4.0);
}

#[test]
fn beside_its_metric_an_outcome_has_the_two_others() {
    let truth = Targets::Values((0..30).map(|i| i as f32).collect());
    let predicted = Targets::Values((0..30).map(|i| i as f32 + (i % 3) as f32).collect());
    let outcome = Outcome::new(Metric::Mae, &predicted, &truth, &INTERVAL, 0, []).unwrap();
    assert_eq!(outcome.scores.keys().collect::<Vec<_>>(), ["r2", "rmse"]);
    assert_eq!(outcome.value, 1.0);
    let interval = outcome.interval.unwrap();
    assert!(interval.low < 1.0 && 1.0 < interval.high, "{interval:?}");
}

// Predictions ---------------------------------------------------------------------------------------------------------

#[test]
fn predicted_numbers_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions.safetensors");
    let maps = Predictions::ValueMaps(vec![sums(&[(0.1, 0.2), (1e7, 2e7)]), sums(&[])]);
    let scoring = Some(Scoring { report_batch: Some(2), ..Scoring::default() });
    for predictions in [values(&[0.1, -3.0, 1780.33], &[0.2, 5.0, 1.0]), maps] {
        let samples = (0..predictions.len()).map(|i| i.to_string()).collect();
        let named = Named { samples, predictions, scoring: scoring.clone(), supplement: Default::default() };
        write(&path, "0a1b", &named).unwrap();
        assert_eq!(read(&path, "0a1b").unwrap(), Some(named));
    }
    let broken = Named {
        samples: vec!["a".into()],
        predictions: values(&[f32::NAN], &[1.0]),
        scoring,
        supplement: Default::default(),
    };
    assert!(write(&path, "0a1b", &broken).unwrap_err().to_string().contains("`a` is not a number"));
}

#[test]
fn selected_and_relabelled_numbers_are_found() {
    let (a, b) = (values(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]), values(&[9.0, 2.0, 3.0], &[1.0, 2.5, 3.0]));
    assert_eq!(a.select(&[2, 0]), values(&[3.0, 1.0], &[3.0, 1.0]));
    assert_eq!(a.relabelled(&b), Some(vec![1]));
    assert!(!a.same_labels(&b) && a.agreement(&b).is_none());
    assert_eq!(a.right(), [true; 3]);
    let maps = |truth: f64| Predictions::ValueMaps(vec![sums(&[(1.0, 1.0)]), sums(&[(2.0, truth)])]);
    assert_eq!(maps(2.0).relabelled(&maps(3.0)), Some(vec![1]));
    assert_eq!(maps(2.0).agreement(&maps(2.0)), Some(100.0));
}

#[test]
fn an_r2_of_one_sample_is_ranked_by_its_error() {
    let each = values(&[1.0, 5.0], &[1.0, 2.0]).scorer(Metric::R2).unwrap().each();
    assert_eq!(each, [0.0, -9.0]);
}

// Suites --------------------------------------------------------------------------------------------------------------

/// GEO-Bench in a folder of its own, with m-eurosat changed.
fn load(change: &[(&str, &str)]) -> terrabench::Result<Suite> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("benchmarks")).unwrap();
    let text = std::fs::read_to_string(home().suite("geobench")).unwrap();
    let (before, task) = text.split_once("name = \"m-eurosat\"").unwrap();
    let mut task = task.to_owned();
    for (from, to) in change {
        assert!(task.contains(from), "{from}");
        task = task.replacen(from, to, 1);
    }
    let text = format!("{before}name = \"m-eurosat\"{task}");
    std::fs::write(folder.path().join("benchmarks/geobench.toml"), text).unwrap();
    Suite::load(&Home::of(folder.path())?, "geobench")
}

#[test]
fn a_metric_that_does_not_fit_its_target_is_refused_with_the_suite() {
    let error = load(&[("metric = \"accuracy\"", "metric = \"rmse\"")]).unwrap_err().to_string();
    assert!(
        error.contains("m-eurosat") && error.contains("rmse does not fit one class per image"),
        "{error}"
    );
    let error = load(&[("target = \"class\"", "target = \"value\"")]).unwrap_err().to_string();
    assert!(error.contains("expected rmse, mae, r2"), "{error}");
}

#[test]
fn statistics_that_cannot_normalise_are_refused() {
    let numbers = [
        ("target = \"class\"", "target = \"value\""),
        ("metric = \"accuracy\"", "metric = \"rmse\"\ntarget-statistics = { mean = 1.0, std = 0.0 }"),
        ("classes = 10", ""),
    ];
    assert!(load(&numbers).unwrap_err().to_string().contains("`std` above 0"));
    let classes = [("metric = \"accuracy\"", "metric = \"accuracy\"\nunit = \"m\"")];
    assert!(load(&classes).unwrap_err().to_string().contains("need a numeric target"));
}

// Protocols -----------------------------------------------------------------------------------------------------------

#[test]
fn neighbours_predict_their_mean_weighted_as_their_votes() {
    let config = KnnConfig::weighted(2, 0.5, EmbeddingDtype::F32, INTERVAL);
    let train = array![[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0_f32]];
    let (queries, labels) = (array![[1.0, 0.0], [1.0, 1.0_f32]], Targets::Values(vec![10.0, 20.0, 90.0]));
    let found = knn::predict(&config, train.view(), &labels, queries.view()).unwrap().targets;
    // Similarities 1 and 0, then two equal ones.
    let (near, far) = (2.0_f64.exp(), 1.0);
    let expected = (near * 10.0 + far * 20.0) / (near + far);
    let Targets::Values(found) = found else { panic!("{found:?}") };
    assert!((f64::from(found[0]) - expected).abs() < 1e-5 && (found[1] - 15.0).abs() < 1e-5, "{found:?}");
}

/// Numbers that every language draws alike.
fn drawn(n: usize, d: usize, seed: usize) -> Array2<f32> {
    Array2::from_shape_fn((n, d), |(i, j)| {
        (((i * 37 + j * 101 + seed * 17 + i * j * 7) % 97) as f64 / 97.0 - 0.5) as f32
    })
}

/// A line in the first three features, and a little of something else.
fn answers(features: &Array2<f32>) -> Vec<f32> {
    let of = |(i, row): (usize, ndarray::ArrayView1<f32>)| {
        let [a, b, c] = [0, 1, 2].map(|j| f64::from(row[j]));
        (2.0 * a - b + 0.5 * c + 3.0 + 0.1 * (i as f64).cos()) as f32
    };
    features.outer_iter().enumerate().map(of).collect()
}

#[test]
fn ridge_gives_scikit_learn_s_coefficients_and_predictions() {
    // sklearn.linear_model.Ridge(solver="cholesky") 1.9.1 on features of StandardScaler; more samples than features, then fewer.
    let tall = [
        (
            0.01,
            [0.554647195598, -0.284579605692, 0.131762680234],
            [2.78584112, 3.32318811, 2.43727316, 2.50807161],
        ),
        (
            100.0,
            [0.119840570204, -0.054199047501, 0.0267080113879],
            [3.00341815, 3.16399077, 2.89726558, 2.96326981],
        ),
    ];
    let wide = [
        (
            0.01,
            [0.251272409619, -0.0919273467983, -0.0451707545867],
            [2.79998246, 2.80382172, 2.71808721, 3.35704576],
        ),
        (
            100.0,
            [0.0313646048762, -0.0191762197315, -0.017259113291],
            [3.09357968, 3.05058759, 3.05110813, 3.13630703],
        ),
    ];
    for ((n, d), cases) in [((30, 5), tall), ((6, 12), wide)] {
        let features = drawn(n, d, 1);
        let design = ridge::Design::new(features.view(), &answers(&features)).unwrap();
        for (strength, coefficients, predictions) in cases {
            let fit = design.fit(strength).unwrap();
            for (found, expected) in fit.coefficients().iter().zip(coefficients) {
                assert!(
                    (found - expected).abs() < 1e-9,
                    "{n} x {d}, {strength}: {found}, expected {expected}"
                );
            }
            for (found, expected) in fit.predict(drawn(4, d, 2).view()).into_iter().zip(predictions) {
                assert!((f64::from(found) - expected).abs() < 1e-6, "{found}, expected {expected}");
            }
        }
    }
}

fn ridge_config() -> RidgeConfig {
    match ProtocolConfig::load(&home(), "ridge").unwrap() {
        ProtocolConfig::Ridge(config) => config,
        _ => panic!("ridge.toml is of another kind"),
    }
}

#[test]
fn ridge_takes_the_strength_whose_error_on_validation_is_lowest() {
    let config = RidgeConfig { strengths: LogSpaced { start: 1e-4, stop: 1e8, count: 13 }, ..ridge_config() };
    let (train, valid) = (drawn(20, 8, 1), drawn(15, 8, 5));
    let (labels, valid_labels) = (Targets::Values(answers(&train)), Targets::Values(answers(&valid)));
    let held_out = HeldOut { valid: valid.view(), valid_targets: &valid_labels, test: valid.view() };
    for metric in [Metric::Rmse, Metric::R2] {
        let swept = ridge::sweep(&config, metric, train.view(), &labels, held_out).unwrap();
        let scores: Vec<f64> = swept.candidates.iter().map(|candidate| candidate.validation).collect();
        assert_eq!(scores.len(), 13);
        let best = |a: f64, b: f64| if metric.better().is_better(b, a) { b } else { a };
        assert_eq!(swept.chosen.validation, scores.iter().copied().reduce(best).unwrap(), "{metric}");
        // What was chosen is what test sees.
        let found = score(metric, &swept.predictions, &valid_labels).unwrap();
        assert!((found - swept.chosen.validation).abs() < 1e-9, "{metric}");
    }
}

#[test]
fn ridge_passes_over_nothing_in_silence() {
    let features = drawn(6, 3, 1);
    let classes = Targets::Classes { classes: vec![0; 6], count: 2 };
    let held_out = HeldOut { valid: features.view(), valid_targets: &classes, test: features.view() };
    let run = |features: &Array2<f32>, targets: &Targets, held_out| {
        ridge::sweep(&ridge_config(), Metric::Rmse, features.view(), targets, held_out)
            .unwrap_err()
            .to_string()
    };
    let two_outputs = run(&features, &classes, held_out);
    assert!(two_outputs.contains("predicts numbers"), "{two_outputs}");
    let numbers = Targets::Values(answers(&features));
    let held_out = HeldOut { valid_targets: &numbers, ..held_out };
    let mut broken = features.clone();
    broken[[2, 1]] = f32::NAN;
    assert!(run(&broken, &numbers, held_out).contains("not finite"));
}

/// Features from which the numbers follow, but for a little.
fn features(split: Split) -> Features {
    let (n, seed) = match split {
        Split::Train => (40, 1),
        Split::Valid => (20, 5),
        Split::Test => (30, 9),
    };
    let matrix = drawn(n, 6, seed);
    let labels = answers(&matrix).into_iter().map(Target::Value).collect();
    Features { samples: (0..n).map(|i| format!("{split} {i}")).collect(), matrix, labels }
}

#[test]
fn protocols_on_features_beat_the_mean_of_the_numbers() {
    let task = task(TargetKind::Value, 1, Metric::Rmse);
    let truth = features(Split::Test).labels;
    let values: Array1<f64> =
        truth.iter().map(|t| if let Target::Value(v) = t { f64::from(*v) } else { f64::NAN }).collect();
    let spread = values.std(0.0);
    let ProtocolConfig::Knn(config) = ProtocolConfig::load(&home(), "knn").unwrap() else { panic!() };
    let config = KnnConfig { k: 5, ..config };
    let knn = run_on_features(&config, &task, 0, &["one"], |view| Ok(features(view.split))).unwrap();
    let ridge =
        run_on_features(&ridge_config(), &task, 0, &["one"], |view| Ok(features(view.split))).unwrap();
    assert!(knn.value < 0.9 * spread, "{} of {spread}", knn.value);
    assert!(ridge.value < 0.3 * spread, "{} of {spread}", ridge.value);
    assert!(ridge.scores["r2"] > 0.9 && ridge.validation.is_some(), "{ridge:?}");
}

#[test]
fn protocols_that_predict_no_numbers_are_refused_before_anything_is_read() {
    let mut suite = load(&[
        ("target = \"class\"", "target = \"value\""),
        ("metric = \"accuracy\"", "metric = \"rmse\""),
        ("classes = 10", ""),
        // Tables of protocols for classes.
        ("m-eurosat = \"retrieval_map\", ", ""),
        ("m-eurosat = \"adjusted_mutual_information\", ", ""),
    ])
    .unwrap();
    let model = terrabench::model::config::ModelConfig::load(&home(), "demo").unwrap();
    let run = |suite: &Suite, protocol: &str| {
        let choice =
            Choice { tasks: vec!["m-eurosat".into()], protocols: vec![protocol.into()], ..Choice::default() };
        let load = |name: &str| Ok((name.to_owned(), ProtocolConfig::load(&home(), name)?));
        plan(suite, &model, &choice, load).map(|plans| plans.len())
    };
    for fits in ["knn", "ridge"] {
        assert_eq!(run(&suite, fits).unwrap(), 1, "{fits}");
    }
    for (unfit, told) in [
        ("linear-probe", "has one number per image"),
        ("logistic", "has one number per image"),
        ("finetune", "has one number per image"),
        ("segmentation-probe", "has one number per image"),
        ("upernet", "has one number per image"),
    ] {
        let error = run(&suite, unfit).unwrap_err().to_string();
        assert!(error.contains(told), "{unfit}: {error}");
    }
    suite.tasks.iter_mut().filter(|t| t.name == "m-eurosat").for_each(|t| t.target = TargetKind::ValueMap);
    assert_eq!(run(&suite, "upernet").unwrap(), 1);
    assert!(run(&suite, "ridge").unwrap_err().to_string().contains("has one number per pixel"));
    let classes = Suite::load(&home(), "geobench").unwrap();
    assert!(run(&classes, "ridge").unwrap_err().to_string().contains("has one class per image"));
}

#[test]
fn of_several_normalisations_the_one_of_the_lowest_error_is_taken() {
    let task = task(TargetKind::Value, 1, Metric::Rmse);
    // With the first strategy features are another split's, which tell nothing of these numbers.
    let features = |FeatureView { strategy, split, .. }: FeatureView| {
        let right = features(split);
        let matrix = if strategy == 0 { drawn(right.labels.len(), 6, 40) } else { right.matrix.clone() };
        Ok(Features { matrix, ..right })
    };
    let protocol = ProtocolConfig::Ridge(ridge_config());
    let outcome = run_on_features(&*protocol, &task, 0, &["misleading", "right"], features).unwrap();
    assert_eq!(outcome.selected["normalization"], "right");
    assert!(outcome.scores["valid/right"] < outcome.scores["valid/misleading"], "{:?}", outcome.scores);
}

/// A small UPerNet, two epochs of two steps.
fn upernet_config() -> UpernetConfig {
    let ProtocolConfig::Upernet(mut config) = ProtocolConfig::load(&home(), "upernet").unwrap() else {
        panic!()
    };
    assert_eq!(config.encoder, EncoderUse::Frozen);
    let training = TrainingConfig { epochs: 2, learning_rates: vec![3e-3], batch_size: 2, ..config.training };
    config.training = training;
    (config.head.channels, config.head.auxiliary_channels) = (8, 8);
    config
}

/// A task of maps and a data set for it, whose numbers are 0.5, 1.5 and 2.5.
fn maps() -> (Task, Generated) {
    let mut task = task(TargetKind::ValueMap, 3, Metric::Rmse);
    let dataset = Generated::new(&task, [4, 2, 3]);
    (task.classes, task.target_statistics) = (1, Some(TargetStatistics { mean: 1.5, std: 0.8 }));
    (task, dataset)
}

#[test]
fn upernet_scores_maps_of_numbers_in_the_task_s_unit() {
    let folder = tempfile::tempdir().unwrap();
    let (task, dataset) = maps();
    let input = input(&task, dataset, &[NormalizationKind::Standardize], 32);
    let subject = subject(&task, &input, folder.path());
    let outcome = run_upernet(&upernet_config(), 0, &subject, 1 << 30).unwrap();
    let Predictions::ValueMaps(images) = &outcome.predictions else { panic!("{:?}", outcome.predictions) };
    assert_eq!(images.len(), 3);
    let all: ErrorSums = images.iter().sum();
    // Every eleventh diagonal is not measured.
    let mean = all.truth / all.count as f64;
    assert!(all.count < 3 * 48 * 48 && (1.4..1.6).contains(&mean), "{all:?}");
    assert_eq!(outcome.value, all.rmse().unwrap());
    assert!(outcome.scores.contains_key("mae") && outcome.scores.contains_key("r2"), "{:?}", outcome.scores);
    assert_eq!(outcome.scoring.report_batch, Some(2));
    let again = BatchScore::mean(outcome.predictions.batch_scores(Metric::Rmse, 2).unwrap());
    assert_eq!(outcome.scores["reported_rmse"], again);
}

/// Keeps what was noted.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, _: &str, _: usize) -> Box<dyn Step> {
        Box::new(Silent)
    }

    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

#[test]
fn upernet_passes_over_batches_in_which_nothing_is_measured_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (task, mut dataset) = maps();
    dataset.unmeasured = Some(Split::Train);
    let input = input(&task, dataset, &[NormalizationKind::Standardize], 32);
    let notes = Notes::default();
    let subject = TrainingSetup { progress: &notes, ..subject(&task, &input, folder.path()) };
    // A rotation's empty corners would count.
    let config = UpernetConfig { augmentation: Augmentation::None, ..upernet_config() };
    let outcome = run_upernet(&config, 0, &subject, 1 << 30).unwrap();
    assert!(outcome.value.is_finite() && !outcome.selected.contains_key("diverged"));
    let notes = notes.0.into_inner().unwrap();
    let told = notes.iter().filter(|line| line.contains("2 of 2 batches passed over")).count();
    assert_eq!(told, 2, "{notes:?}");
}
