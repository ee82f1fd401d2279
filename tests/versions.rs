//! Digests of what the code computes on fixed input, kept with the version that names it in records and caches
//! (`tests/fixtures/versions/`): where a digest moves, the version must.
//!
//! A digest is a few sums, compared with a tolerance, and not a hash: processors round differently. After raising a version
//!
//! ```sh
//! TERRABENCH_WRITE_DIGESTS=1 cargo test --release --test all -- versions::
//! ```
//!
//! writes the new ones. It refuses to where the version stayed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::Device;
use ndarray::{Array2, Array3, Axis, s};
use serde::{Deserialize, Serialize};
use terrabench::config::{
    EmbeddingDtype, FinetuneConfig, IntervalConfig, KnnConfig, LinearProbeConfig, LogSpaced, LogisticConfig,
    RidgeConfig, SegmentationProbeConfig, UpernetConfig,
};
use terrabench::data::{Split, Target};
use terrabench::features::tiles::{Tokens, tile_tokens};
use terrabench::features::{Extractor, FEATURES_VERSION, Input, InputOptions};
use terrabench::home::Home;
use terrabench::metrics::Metric;
use terrabench::metrics::segmentation::{Confusion, mean_iou_over_batches};
use terrabench::model;
use terrabench::progress::{Progress, Silent};
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::linear_probe::{self, TrainingSet};
use terrabench::protocol::{finetune, knn, logistic, retrieval, ridge, segmentation_probe};
use terrabench::record::PROTOCOL_VERSION;
use terrabench::score::decision::HeldOut;
use terrabench::score::predictions::Retrieval;
use terrabench::score::{Outcome, Predictions, Targets, reported_score};
use terrabench::solve::k_means::{KMeansSettings, k_means};
use terrabench::task::{Suite, TargetKind, TargetStatistics};
use terrabench::train::snapshot::Snapshot;
use terrabench::transform::augment::Dihedral;
use terrabench::transform::normalize::NormalizationKind;
use terrabench::transform::strategies::Strategies;

use crate::common::{self, fixture};
use crate::generated::{Generated, bands, input, subject, task, tiny, unit};
use crate::source::{run_on_tokens, run_upernet};

const PROTOCOLS: Version =
    Version { constant: "PROTOCOL_VERSION in src/record/mod.rs", now: PROTOCOL_VERSION };
const FEATURES: Version = Version { constant: "FEATURES_VERSION in src/features.rs", now: FEATURES_VERSION };

/// How far a number of a digest may move, as a share of the digested values' root mean square: more than rounding does on
/// another processor, less than any change of the arithmetic that is worth a name.
const TOLERANCE: f64 = 1e-3;

/// The same of pixels counted in predicted masks: after a short training many lie between two classes.
const MASKS: &str = "masks of a short training";
const TOLERANCE_OF_MASKS: f64 = 2e-2;

/// What rounding on another processor may do to an input, as a share of it.
const ROUNDING: f32 = 4e-7;

#[derive(Clone, Copy)]
struct Version {
    constant: &'static str,
    now: u32,
}

/// A file of `tests/fixtures/versions/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stated {
    version: u32,
    digests: Digests,
}

/// By part: count, mean, root mean square, and the sums of the values with signs drawn by their places.
type Digests = BTreeMap<String, Vec<f64>>;

/// Sums with drawn signs: each sees a change of any value, and of their order.
const SIGNED_SUMS: u64 = 5;

fn digest(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.into_iter().collect();
    assert!(!values.is_empty() && values.iter().all(|value| value.is_finite()), "{values:?}");
    let n = values.len() as f64;
    let signed = |draw: u64| {
        let sign = |place: usize| if unit(place as u64 * SIGNED_SUMS + draw) < 0.5 { -1.0 } else { 1.0 };
        values.iter().enumerate().map(|(place, value)| sign(place) * value).sum::<f64>() / n.sqrt()
    };
    let mean = values.iter().sum::<f64>() / n;
    let root_mean_square = (values.iter().map(|value| value * value).sum::<f64>() / n).sqrt();
    let digest = [n, mean, root_mean_square].into_iter().chain((0..SIGNED_SUMS).map(signed));
    // Six decimals are finer than the tolerance, and short to read in a diff.
    digest.map(|number| (number * 1e6).round() / 1e6).collect()
}

/// The parts that moved, as lines that show both digests.
fn moved(before: &Digests, after: &Digests) -> Vec<String> {
    let parts: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = |part: &&&String| match (before.get(**part), after.get(**part)) {
        (Some(before), Some(after)) => {
            let tolerance = if part.ends_with(MASKS) { TOLERANCE_OF_MASKS } else { TOLERANCE };
            let allowed = tolerance * before[2].abs().max(1e-3);
            before.len() != after.len()
                || before[0] != after[0]
                || before.iter().zip(after).any(|(before, after)| (before - after).abs() > allowed)
        }
        _ => true,
    };
    let line = |part: &String| format!("  {part}: {:?}, now {:?}", before.get(part), after.get(part));
    parts.iter().filter(differs).map(|part| line(part)).collect()
}

/// What to tell the author of a change; nothing where all is as stated.
fn problem(stated: &Stated, now: u32, constant: &str, digests: &Digests) -> Option<String> {
    let moved = moved(&stated.digests, digests);
    let write = "run the tests of `versions::` with TERRABENCH_WRITE_DIGESTS=1";
    match (moved.is_empty(), now == stated.version) {
        (true, true) => None,
        (false, true) => Some(format!(
            "numbers moved, but {constant} is still {now}.\n  help: raise it, so that records or cached features of the old \
             code are not taken for those of the new one; then {write}\n{}",
            moved.join("\n")
        )),
        (_, false) => {
            Some(format!("{constant} is {now}, the digests are of {}.\n  help: {write}", stated.version))
        }
    }
}

/// Compares digests with the stated ones of that name. `compute` gives them from input that is off by so much.
fn hold(name: &str, version: Version, compute: impl Fn(f32) -> Digests) {
    let digests = compute(0.0);
    let rounded = moved(&digests, &compute(ROUNDING));
    assert!(rounded.is_empty(), "{name}: rounding moves the digest\n{}", rounded.join("\n"));
    let path = fixture("versions").join(format!("{name}.json"));
    let stated: Option<Stated> =
        std::fs::read_to_string(&path).ok().map(|text| serde_json::from_str(&text).unwrap());
    let unchanged_version = stated.as_ref().is_some_and(|stated| stated.version == version.now);
    if std::env::var_os("TERRABENCH_WRITE_DIGESTS").is_some() && !unchanged_version {
        let stated = Stated { version: version.now, digests };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        return std::fs::write(&path, serde_json::to_string_pretty(&stated).unwrap() + "\n").unwrap();
    }
    let stated = stated.unwrap_or_else(|| panic!("{} is missing", path.display()));
    if let Some(problem) = problem(&stated, version.now, version.constant, &digests) {
        panic!("{name}: {problem}");
    }
}

#[test]
fn moved_numbers_under_an_old_version_are_told() {
    let of = |values: &[f64]| Digests::from([("part".to_owned(), digest(values.iter().copied()))]);
    let (before, after) = (of(&[1.0, 2.0, 3.0]), of(&[1.0, 2.0, 3.1]));
    let stated = Stated { version: 4, digests: before.clone() };
    let problem = |now: u32, digests: &Digests| problem(&stated, now, "THE_VERSION", digests);
    assert_eq!(problem(4, &before), None);
    let told = problem(4, &after).unwrap();
    assert!(
        told.contains("THE_VERSION is still 4") && told.contains("raise it") && told.contains("part"),
        "{told}"
    );
    for digests in [&before, &after] {
        let told = problem(5, digests).unwrap();
        assert!(told.contains("THE_VERSION is 5, the digests are of 4"), "{told}");
    }
    // Another order, another count, a part more; but not another rounding.
    assert!(problem(4, &of(&[3.0, 2.0, 1.0])).is_some());
    assert!(problem(4, &of(&[1.0, 2.0, 3.0, 0.0])).is_some());
    let mut more = before.clone();
    more.insert("other".to_owned(), digest([1.0]));
    assert!(problem(4, &more).is_some());
    assert_eq!(problem(4, &of(&[1.0, 2.0, 3.0 + 1e-6])), None);
}

// ---------------------------------------------------------------- inputs

/// A protocol with everything stated here: what the files of configs/protocols/ say is part of a record's fingerprint.
fn parse(text: &str) -> ProtocolConfig {
    toml::from_str(text).unwrap()
}

const ADAMW: &str = r#"
[optimizer]
kind = "adamw"
betas = [0.9, 0.999]
eps = 1e-8
weight-decay = 0.01
"#;

const WARMUP: &str = r#"
[schedule]
kind = "warmup-cosine"
warmup = 0.4
min-learning-rate = 1e-5
"#;

const ONE_CYCLE: &str = r#"
[schedule]
kind = "one-cycle"
warmup-epochs = 1
start-divisor = 25.0
final-divisor = 1e4
momentum = [0.85, 0.95]
"#;

const INTERVAL: &str = "
[interval]
level = 0.95
resamples = 200
";

/// Features [variants, n, d] of three classes (or labels), each moved by a share of at most `jitter`.
fn features(variants: usize, n: usize, first: usize, jitter: f32) -> Array3<f32> {
    Array3::from_shape_fn((variants, n, 8), |(variant, i, j)| {
        let place = ((variant * 1000 + first + i) * 8 + j) as u64;
        let own = if j == (first + i) % 3 { 1.2 } else { 0.0 };
        (own + unit(place) as f32) * (1.0 + jitter * (unit(place + 99) as f32 - 0.5))
    })
}

fn classes(n: usize, first: usize) -> Targets {
    Targets::Classes { classes: (0..n).map(|i| (first + i) % 3).collect(), count: 3 }
}

fn labels(n: usize, first: usize) -> Targets {
    Targets::Labels(Array2::from_shape_fn((n, 3), |(i, label)| {
        (first + i) % 3 == label || unit((first + i) as u64 * 3 + label as u64) < 0.2
    }))
}

fn both(n: usize, first: usize) -> [(&'static str, Targets); 2] {
    [("classes", classes(n, first)), ("labels", labels(n, first))]
}

/// Classes, or labels as 0 and 1.
fn decisions(targets: &Targets) -> Vec<f64> {
    match targets {
        Targets::Classes { classes, .. } => classes.iter().map(|class| *class as f64).collect(),
        Targets::Labels(labels) => labels.iter().map(|label| f64::from(u8::from(*label))).collect(),
        Targets::Values(values) => values.iter().map(|value| f64::from(*value)).collect(),
    }
}

fn wide(values: impl IntoIterator<Item = f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

/// What an outcome says: value, interval and scores; and the counts of pixels, where it is of masks.
fn told(outcome: &Outcome) -> Vec<f64> {
    let mut told = vec![outcome.value];
    told.extend(outcome.interval.iter().flat_map(|interval| [interval.low, interval.high]));
    told.extend(outcome.scores.values());
    if let Predictions::Masks(images) = &outcome.predictions {
        told.extend(images.iter().flat_map(|image| image.counts().iter().map(|count| *count as f64)));
    }
    told
}

// ---------------------------------------------------------------- protocols

#[test]
fn knn_is_that_of_its_version() {
    hold("knn", PROTOCOLS, |jitter| {
        let train = features(1, 60, 0, jitter);
        let test = features(1, 20, 60, jitter);
        let mut digests = Digests::new();
        for dtype in [EmbeddingDtype::F32, EmbeddingDtype::Bf16] {
            for (kind, targets) in both(60, 0) {
                let interval = IntervalConfig::new(0.95, 10);
                let config = KnnConfig::weighted(7, 0.07, dtype, interval);
                let (train, test) = (train.index_axis(Axis(0), 0), test.index_axis(Axis(0), 0));
                let found = knn::predict(&config, train, &targets, test).unwrap();
                let similarities = wide(found.neighbours.similarities);
                let all = decisions(&found.targets).into_iter().chain(similarities);
                digests.insert(format!("{dtype}/{kind}"), digest(all));
            }
        }
        digests
    });
}

#[test]
fn the_linear_probe_is_that_of_its_version() {
    let galileo = format!(
        r#"
        kind = "linear-probe"
        epochs = 5
        batch-size = 16
        drop-last = false
        learning-rates = [1e-3, 1e-2]
        augmentation = "none"
        keep = "last"
        batch-norm = {{ affine = true, eps = 1e-5, momentum = 0.1 }}
        initialization = {{ kind = "uniform" }}
        {ADAMW}{WARMUP}{INTERVAL}"#
    );
    let copernicus = format!(
        r#"
        kind = "linear-probe"
        epochs = 5
        batch-size = 16
        drop-last = true
        learning-rates = [1e-1]
        augmentation = "flips"
        keep = "best"
        report-batches = true
        batch-norm = {{ affine = false, eps = 1e-6, momentum = 0.1 }}
        initialization = {{ kind = "truncated-normal", std = 0.01 }}
        optimizer = {{ kind = "sgd", momentum = 0.0, weight-decay = 1e-4 }}
        {ONE_CYCLE}{INTERVAL}"#
    );
    hold("linear-probe", PROTOCOLS, |jitter| {
        let mut digests = Digests::new();
        for (name, text) in [("galileo", &galileo), ("copernicus", &copernicus)] {
            let ProtocolConfig::LinearProbe(config) = parse(text) else { panic!() };
            let config: LinearProbeConfig = config;
            let variants = config.augmentation.transforms().len();
            let (train, valid) = (features(variants, 60, 0, jitter), features(1, 24, 60, jitter));
            let valid = valid.index_axis(Axis(0), 0);
            for ((kind, targets), (_, valid_targets)) in both(60, 0).into_iter().zip(both(24, 60)) {
                let training = TrainingSet { features: train.view(), targets: &targets };
                let held_out =
                    HeldOut { valid: valid.view(), valid_targets: &valid_targets, test: valid.view() };
                // Something that no rounding can turn round.
                let score = |logits: ndarray::ArrayView2<f32>, _: &Targets| Ok(f64::from(logits[[0, 0]]));
                let probed =
                    linear_probe::probe(&config, &config.learning_rates, training, held_out, 3, score)
                        .unwrap();
                let candidates = probed.candidates.iter().map(|candidate| candidate.validation);
                let all = wide(probed.logits).into_iter().chain(candidates);
                digests.insert(format!("{name}/{kind}"), digest(all));
            }
        }
        digests
    });
}

/// Numbers of which features tell something.
fn numbers(n: usize, first: usize) -> Targets {
    let number = |i: usize| ((first + i) % 3) as f32 + 2.0 * unit((first + i) as u64 + 7000) as f32;
    Targets::Values((0..n).map(number).collect())
}

#[test]
fn numbers_are_predicted_and_scored_as_by_their_version() {
    hold("numbers", PROTOCOLS, |jitter| {
        let (train, valid) = (features(1, 60, 0, jitter), features(1, 24, 60, jitter));
        let (train, valid) = (train.index_axis(Axis(0), 0), valid.index_axis(Axis(0), 0));
        let (targets, valid_targets) = (numbers(60, 0), numbers(24, 60));
        let mut digests = Digests::new();
        let interval = IntervalConfig::new(0.95, 200);
        let config = KnnConfig::weighted(7, 0.07, EmbeddingDtype::F32, interval);
        let found = knn::predict(&config, train, &targets, valid).unwrap().targets;
        digests.insert("knn".to_owned(), digest(decisions(&found)));
        for metric in [Metric::Rmse, Metric::Mae, Metric::R2] {
            let outcome = Outcome::new(metric, &found, &valid_targets, &interval, 4, []).unwrap();
            digests.insert(metric.to_string(), digest(told(&outcome)));
        }
        for refit_with_validation in [false, true] {
            let strengths = LogSpaced { start: 1e-2, stop: 1e3, count: 6 };
            let config = RidgeConfig { strengths, refit_with_validation, interval };
            let held_out = HeldOut { valid, valid_targets: &valid_targets, test: valid };
            let swept = ridge::sweep(&config, Metric::Rmse, train, &targets, held_out).unwrap();
            let candidates = swept.candidates.iter().flat_map(|c| [c.strength.ln(), c.validation]);
            let all = decisions(&swept.predictions).into_iter().chain(candidates);
            digests.insert(format!("ridge/{refit_with_validation}"), digest(all));
        }
        digests
    });
}

#[test]
fn retrieval_and_clustering_are_those_of_their_version() {
    hold("frozen", PROTOCOLS, |jitter| {
        let (train, test) = (features(1, 60, 0, jitter), features(1, 24, 60, jitter));
        let (train, test) = (train.index_axis(Axis(0), 0), test.index_axis(Axis(0), 0));
        let interval = IntervalConfig::new(0.95, 200);
        let mut digests = Digests::new();
        let kinds = both(60, 0).into_iter().zip(both(24, 60));
        for ((kind, targets), (_, truth)) in kinds {
            let queries = retrieval::rank(train, &targets, test, &truth).unwrap();
            let places = queries.iter().flat_map(|q| [q.average_precision, f64::from(q.first)]);
            let places: Vec<f64> = places.collect();
            let ranked = Predictions::Retrieved(Retrieval { queries, truth, recall_at: vec![1, 5] });
            let outcome = Outcome::of_predictions(Metric::RetrievalMap, ranked, &interval, 4, []).unwrap();
            digests.insert(kind.to_owned(), digest(told(&outcome).into_iter().chain(places)));
        }
        let settings =
            KMeansSettings { clusters: 3, starts: 10, max_iterations: 300, tolerance: 1e-4, seed: 4 };
        let found = k_means(train, settings).unwrap();
        let Targets::Classes { classes: truth, .. } = classes(60, 0) else { panic!() };
        let clusters = Predictions::Clusters { clusters: found.clusters, truth, count: 3 };
        let metric = Metric::AdjustedMutualInformation;
        let outcome = Outcome::of_predictions(metric, clusters, &interval, 4, []).unwrap();
        digests.insert("clusters".to_owned(), digest(told(&outcome).into_iter().chain([found.inertia])));
        digests
    });
}

#[test]
fn logistic_regression_is_that_of_its_version() {
    hold_logistic("logistic", "true", "history = 10, tolerance = 1e-8, max-iterations = 4000");
}

#[test]
fn logistic_regression_by_newtons_method_is_that_of_its_version() {
    hold_logistic("logistic-newton", "false", r#"kind = "newton", tolerance = 1e-9, max-iterations = 200"#);
}

fn hold_logistic(name: &str, standardize: &str, solver: &str) {
    let text = format!(
        r#"
        kind = "logistic"
        c = {{ start = 1e-3, stop = 10.0, count = 5 }}
        standardize = {standardize}
        refit-with-validation = true
        solver = {{ {solver} }}
        {INTERVAL}"#
    );
    hold(name, PROTOCOLS, |jitter| {
        let ProtocolConfig::Logistic(config) = parse(&text) else { panic!() };
        let config: LogisticConfig = config;
        let (train, valid) = (features(1, 60, 0, jitter), features(1, 24, 60, jitter));
        let (train, valid) = (train.index_axis(Axis(0), 0), valid.index_axis(Axis(0), 0));
        let two = |n, first| match classes(n, first) {
            Targets::Classes { classes, .. } => {
                Targets::Classes { classes: classes.iter().map(|class| class % 2).collect(), count: 2 }
            }
            others => others,
        };
        let mut digests = Digests::new();
        let kinds = both(60, 0).into_iter().zip(both(24, 60));
        let kinds = kinds.map(|((kind, targets), (_, valid))| (kind, targets, valid));
        for (kind, targets, valid_targets) in kinds.chain([("two classes", two(60, 0), two(24, 60))]) {
            let held_out = HeldOut { valid: valid.view(), valid_targets: &valid_targets, test: valid.view() };
            let score = |logits: ndarray::ArrayView2<f32>, _: &Targets| Ok(f64::from(-logits[[0, 0]].abs()));
            let swept = logistic::sweep(&config, train, &targets, held_out, score).unwrap();
            let candidates = swept.candidates.iter().flat_map(|tried| [tried.c, tried.validation]);
            digests.insert(kind.to_owned(), digest(wide(swept.logits).into_iter().chain(candidates)));
        }
        digests
    });
}

#[test]
fn fine_tuning_is_that_of_its_version() {
    let text = format!(
        r#"
        kind = "finetune"
        epochs = 2
        batch-size = 4
        effective-batch-size = 8
        learning-rates = [1e-3, 3e-3]
        augmentation = "dihedral"
        clip-norm = 1.0
        {ADAMW}{WARMUP}{INTERVAL}"#
    );
    hold("finetune", PROTOCOLS, |jitter| {
        let mut digests = Digests::new();
        for order in ["as-listed", "shuffled"] {
            let ProtocolConfig::Finetune(config) = parse(&format!("order = \"{order}\"\n{text}")) else {
                panic!()
            };
            let config: FinetuneConfig = config;
            let task = task(TargetKind::Labels, 3, Metric::MicroMap);
            let mut dataset = Generated::new(&task, [14, 6, 6]);
            dataset.jitter = jitter;
            let input = input(&task, dataset, &[NormalizationKind::Standardize], 32);
            let folder = tempfile::tempdir().unwrap();
            let outcome = finetune::run(&config, 1, &subject(&task, &input, folder.path())).unwrap();
            let Predictions::Scores { logits, .. } = &outcome.predictions else { panic!() };
            digests.insert(order.to_owned(), digest(wide(logits.iter().copied())));
        }
        digests
    });
}

#[test]
fn the_segmentation_probe_is_that_of_its_version() {
    let text = format!(
        r#"
        kind = "segmentation-probe"
        tile = 8
        epochs = 3
        batch-size = 4
        learning-rates = [1e-2]
        {ADAMW}{WARMUP}{INTERVAL}"#
    );
    hold("segmentation-probe", PROTOCOLS, |jitter| {
        let ProtocolConfig::SegmentationProbe(config) = parse(&text) else { panic!() };
        let config: SegmentationProbeConfig = config;
        let task = task(TargetKind::Mask, 3, Metric::Miou);
        let class = |tile: usize, y: usize, x: usize| (tile + y / 4 + x / 4) % 3;
        // Masks of 8 pixels, and of 6, to which logits are resized.
        let tokens = |first: usize, side: usize| {
            let mut tokens = Tokens::new(2, 8);
            for tile in first..first + 10 {
                let number = |i: usize| {
                    let place = (tile * 32 + i) as u64;
                    let own = if i % 8 == class(tile, i / 16 * 4, i / 8 % 2 * 4) { 1.0 } else { 0.0 };
                    (own + unit(place) as f32) * (1.0 + jitter * (unit(place + 99) as f32 - 0.5))
                };
                let mask = Array2::from_shape_fn((side, side), |(y, x)| {
                    if (y, x) == (0, 0) { -1 } else { class(tile, y * 8 / side, x * 8 / side) as i16 }
                });
                tokens.push(&(0..32).map(number).collect::<Vec<f32>>(), mask).unwrap();
            }
            tokens
        };
        let mut digests = Digests::new();
        for side in [8, 6] {
            let start =
                linear_probe::Linear::initial(terrabench::config::Initialization::Uniform {}, 3 * 16, 8, 5);
            let order = |epoch| (0..10).map(|i| (i * 3 + epoch) % 10).collect();
            let trained = segmentation_probe::train(&config, 3, &tokens(0, side), &start, order).unwrap();
            let head = &trained.heads[0];
            let learnt = head.weight.iter().chain(&head.bias).zip(start.weight.iter().chain(&start.bias));
            let learnt = learnt.map(|(after, before)| f64::from(after - before));
            digests.insert(format!("{side}/head"), digest(learnt));
            digests.insert(format!("{side}/losses"), digest(wide(trained.losses)));
            let outcome =
                run_on_tokens(&config, &task, 2, &["one"], |_, split| Ok(tokens(10 * split as usize, side)));
            digests.insert(format!("{side}/outcome"), digest(told(&outcome.unwrap())));
        }
        digests
    });
}

#[test]
fn upernet_is_that_of_its_version() {
    let of = |encoder: &str, augmentation: &str| {
        format!(
            r#"
            kind = "upernet"
            encoder = "{encoder}"
            epochs = 2
            batch-size = 4
            learning-rates = [1e-3]
            augmentation = "{augmentation}"
            [head]
            channels = 8
            auxiliary-channels = 8
            auxiliary-weight = 0.4
            pool-scales = [1, 2, 3]
            dropout = 0.1
            {ADAMW}{ONE_CYCLE}{INTERVAL}"#
        )
    };
    hold("upernet", PROTOCOLS, |jitter| {
        let mut digests = Digests::new();
        for (encoder, augmentation) in [("frozen", "flips-and-rotation"), ("finetune", "dihedral")] {
            let ProtocolConfig::Upernet(config) = parse(&of(encoder, augmentation)) else { panic!() };
            let config: UpernetConfig = config;
            let task = task(TargetKind::Mask, 3, Metric::Miou);
            let mut dataset = Generated::new(&task, [10, 4, 4]);
            dataset.jitter = jitter;
            let input = input(&task, dataset, &[NormalizationKind::Standardize], 48);
            let folder = tempfile::tempdir().unwrap();
            let outcome = run_upernet(&config, 1, &subject(&task, &input, folder.path()), 1 << 30).unwrap();
            digests.insert(format!("{encoder}/{MASKS}"), digest(told(&outcome)));
            let snapshot = Snapshot::load(&folder.path().join("snapshot.safetensors")).unwrap().unwrap();
            let head = snapshot.network.into_iter().filter(|(name, _)| name.starts_with("head."));
            digests.insert(format!("{encoder}/head"), digest(head.flat_map(|(_, array)| wide(array))));
        }
        digests
    });
    hold("upernet-numbers", PROTOCOLS, |jitter| {
        let ProtocolConfig::Upernet(config) = parse(&of("frozen", "flips-and-rotation")) else { panic!() };
        let mut task = task(TargetKind::ValueMap, 3, Metric::Rmse);
        let mut dataset = Generated::new(&task, [10, 4, 4]);
        dataset.jitter = jitter;
        (task.classes, task.target_statistics) = (1, Some(TargetStatistics { mean: 1.5, std: 0.8 }));
        let input = input(&task, dataset, &[NormalizationKind::Standardize], 48);
        let folder = tempfile::tempdir().unwrap();
        let outcome = run_upernet(&config, 1, &subject(&task, &input, folder.path()), 1 << 30).unwrap();
        let snapshot = Snapshot::load(&folder.path().join("snapshot.safetensors")).unwrap().unwrap();
        let head = snapshot.network.into_iter().filter(|(name, _)| name.starts_with("head."));
        Digests::from([
            ("outcome".to_owned(), digest(told(&outcome))),
            ("head".to_owned(), digest(head.flat_map(|(_, array)| wide(array)))),
        ])
    });
}

#[test]
fn scores_and_intervals_are_those_of_their_version() {
    hold("scores", PROTOCOLS, |_| {
        let interval = IntervalConfig::new(0.9, 300);
        let mut digests = Digests::new();
        let logits = features(1, 50, 0, 0.0).index_axis(Axis(0), 0).slice(s![.., ..3]).mapv(|x| x - 0.9);
        for (metric, truth) in [
            (Metric::Accuracy, classes(50, 1)),
            (Metric::MicroF1, labels(50, 1)),
            (Metric::MicroMap, labels(50, 1)),
        ] {
            let outcome = Outcome::of_logits(metric, logits.view(), &truth, &interval, 4, []).unwrap();
            let reported = reported_score(metric, logits.view(), &truth, 16).unwrap();
            digests.insert(metric.to_string(), digest(told(&outcome).into_iter().chain([reported])));
        }
        let image = |image: u64| {
            let mut confusion = Confusion::new(4, Some(-1));
            let drawn = |first: u64| {
                Array2::from_shape_fn((6, 6), |(y, x)| {
                    (unit(first + image * 36 + (y * 6 + x) as u64) * 4.0) as i32
                        - i32::from(first == 0 && y == x)
                })
            };
            confusion.add(drawn(0).view(), drawn(9000).mapv(|class| class.clamp(0, 2)).view()).unwrap();
            confusion
        };
        let images: Vec<Confusion> = (0..9).map(image).collect();
        let over_batches = mean_iou_over_batches(&images, 4).unwrap();
        let masks = Predictions::Masks(images);
        let scores: Vec<f64> = masks.scores(&[]).into_values().collect();
        let all = masks.scorer(Metric::Miou).unwrap().all();
        digests.insert("masks".to_owned(), digest(scores.into_iter().chain([all, over_batches])));
        digests
    });
}

// ---------------------------------------------------------------- features

#[test]
fn features_are_those_of_their_version() {
    let kinds = [
        NormalizationKind::Standardize,
        NormalizationKind::NormNoClip,
        NormalizationKind::NormYesClip,
        NormalizationKind::NormYesClipInt,
        NormalizationKind::Satlas,
    ];
    let (config, weights) = tiny();
    let device = Device::flex();
    let loaded = model::load(&config, &weights, false, &device).unwrap();
    hold("features", FEATURES, |jitter| {
        let task = task(TargetKind::Mask, 3, Metric::Miou);
        // The rounding of `norm_yes_clip_int` to n / 255 is a step that a jitter may take.
        let jitter = |kind: &str| if kind == "norm_yes_clip_int" { 0.0 } else { jitter };
        let mut digests = Digests::new();
        // As stored, larger, and of the size of the position embedding.
        for (side, turn) in [(48, Dihedral::Identity), (80, Dihedral::FLIPS[1]), (224, Dihedral::ALL[5])] {
            for (place, kind) in kinds.iter().enumerate() {
                let mut dataset = Generated::new(&task, [1, 1, 2]);
                dataset.jitter = jitter(&kind.to_string());
                let mut input = input(&task, dataset, &kinds, side);
                input.strategies[place].preprocess.align_corners = side == 80;
                let extractor = Extractor {
                    encoder: loaded.encoder.as_ref(),
                    device: &device,
                    further: &[],
                    input: &input,
                    strategy: &input.strategies[place],
                    turn,
                    batch_size: 2.into(),
                    readers: 1,
                };
                let mut values = Vec::new();
                let mut take = |batch: terrabench::features::Features| {
                    values.extend(wide(batch.matrix));
                    Ok(())
                };
                extractor.extract(Split::Test, &[0, 1], &mut take).unwrap();
                digests.insert(format!("{side}/{kind}"), digest(values));
                if side == 48 {
                    let step = Silent.begin("", 1);
                    let tokens = tile_tokens(&extractor, Split::Test, &[0], 24, step.as_ref()).unwrap();
                    let tiles: Vec<usize> = (0..tokens.len()).collect();
                    let all = wide(tokens.read(&tiles).unwrap());
                    let masks =
                        tokens.masks.iter().flat_map(|mask| mask.iter().map(|class| f64::from(*class)));
                    digests.insert(format!("tokens/{kind}"), digest(all.into_iter().chain(masks)));
                }
            }
        }
        assert_eq!(
            bands().len(),
            input(&task, Generated::new(&task, [1; 3]), &kinds, 48).channel_names().len()
        );
        digests
    });
}

/// The real pixels of a suite, and the tasks there.
const REAL: [(&str, &[&str]); 3] = [
    (
        "geobench",
        &["m-eurosat", "m-bigearthnet", "m-so2sat", "m-brick-kiln", "m-cashew-plant", "m-SA-crop-type"],
    ),
    (
        "copernicus-bench",
        &[
            "cloud-s2",
            "eurosat-s1",
            "eurosat-s2",
            "bigearthnet-s1",
            "bigearthnet-s2",
            "dfc2020-s1",
            "dfc2020-s2",
            "lcz-s2",
        ],
    ),
    ("landslide4sense", &["landslide4sense"]),
];

/// Every layout on disk: what a model would be given of the first test samples, with their labels.
fn real_inputs(root: PathBuf) -> Digests {
    let home = Home::find().unwrap();
    let (config, _) = tiny();
    let mut digests = Digests::new();
    for (suite, tasks) in REAL {
        let root = root.join(suite);
        let suite = Suite::load(&home, suite).unwrap();
        for task in tasks.iter().map(|task| suite.task(task).unwrap()) {
            let options = InputOptions {
                by_content: false,
                channels: Default::default(),
                zeros: false,
                normalization: "default".to_owned(),
                strategies: Strategies::load(&home).unwrap(),
            };
            let input = Input::open(&suite, task, "default", &root, &config, &options).unwrap();
            let mut values = Vec::new();
            for index in 0..2.min(input.dataset.samples(Split::Test).len()) {
                let preprocess = &input.only().unwrap().preprocess;
                let sample = input.read(preprocess, Split::Test, index).unwrap();
                for image in sample.images {
                    values.extend(wide(image.pixels));
                }
                match sample.target {
                    Target::Class(class) => values.push(class as f64),
                    Target::Labels(labels) => {
                        values.extend(labels.iter().map(|label| f64::from(u8::from(*label))));
                    }
                    Target::Mask(mask) => values.extend(mask.iter().map(|class| f64::from(*class))),
                    Target::Value(value) => values.push(f64::from(value)),
                    Target::ValueMap(map) => values.extend(map.iter().map(|value| f64::from(*value))),
                }
            }
            digests.insert(format!("{}/{}", suite.name, task.name), digest(values));
        }
    }
    digests
}

#[test]
fn inputs_read_from_real_files_are_those_of_their_version() {
    let Some(real) = common::real() else {
        eprintln!("skipped: no real pixels are here");
        return;
    };
    let digests = real_inputs(real);
    hold("inputs", FEATURES, |_| digests.clone());
}
