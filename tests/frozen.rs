//! What features know without a trained head: retrieval, clustering, maps, calibration and F1 per class, against scikit-learn's
//! numbers on the same features (`tests/fixtures/frozen`).

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayD, ArrayView2, Axis, Ix1, Ix2, array, s};
use serde_json::Value;
use terrabench::Result;
use terrabench::config::{
    ClusteringConfig, Distance, EmbeddingDtype, IntervalConfig, KnnConfig, RetrievalConfig,
};
use terrabench::data::{Split, Target};
use terrabench::features::Features;
use terrabench::features::source::FeatureView;
use terrabench::home::Home;
use terrabench::metrics::calibration::{calibration_bins, expected_calibration_error};
use terrabench::metrics::mutual_information::{LogFactorials, adjusted};
use terrabench::metrics::retrieval::{mean_average_precision, recall};
use terrabench::metrics::{Metric, TargetKind};
use terrabench::model::config::ModelConfig;
use terrabench::protocol::{ProtocolConfig, knn, map, retrieval};
use terrabench::record::Store;
use terrabench::record::predictions::{self, Named};
use terrabench::report::calibration::Calibration;
use terrabench::report::pictures::{self, spider};
use terrabench::report::{Style, write_all};
use terrabench::run::plan::{Choice, plan};
use terrabench::score::supplement::{MapFeatures, confidences, probabilities};
use terrabench::score::{Outcome, Predictions, Supplement, Targets};
use terrabench::solve::embedding::{plane, principal_components};
use terrabench::solve::k_means::{KMeansSettings, k_means};
use terrabench::task::{Suite, Task};

use crate::generated::{task, unit};
use crate::golden::{floats, integers, json, numbers};
use crate::made;
use crate::source::run_on_features;

const ARRAYS: &str = "frozen/arrays.safetensors";

struct Golden {
    floats: BTreeMap<String, ArrayD<f32>>,
    integers: BTreeMap<String, ArrayD<i64>>,
    json: Value,
}

impl Golden {
    fn read() -> Self {
        Golden { floats: floats(ARRAYS), integers: integers(ARRAYS), json: json("frozen/golden.json") }
    }

    fn matrix(&self, name: &str) -> Array2<f32> {
        self.floats[name].clone().into_dimensionality::<Ix2>().unwrap()
    }

    fn classes(&self, name: &str) -> Vec<usize> {
        let classes = self.integers[name].clone().into_dimensionality::<Ix1>().unwrap();
        classes.iter().map(|class| usize::try_from(*class).unwrap()).collect()
    }

    fn targets(&self, name: &str, count: usize) -> Targets {
        Targets::Classes { classes: self.classes(name), count }
    }

    fn labels(&self, name: &str) -> Targets {
        let labels = self.integers[name].clone().into_dimensionality::<Ix2>().unwrap();
        Targets::Labels(labels.mapv(|label| label == 1))
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: found {found}, expected {expected}");
}

fn as_targets(targets: &Targets) -> Vec<Target> {
    match targets {
        Targets::Classes { classes, .. } => classes.iter().map(|class| Target::Class(*class)).collect(),
        Targets::Labels(labels) => labels.outer_iter().map(|row| Target::Labels(row.to_vec())).collect(),
        Targets::Values(values) => values.iter().map(|value| Target::Value(*value)).collect(),
    }
}

fn split(matrix: &Array2<f32>, targets: &Targets) -> Features {
    Features {
        samples: (0..matrix.nrows()).map(|i| format!("sample {i}")).collect(),
        matrix: matrix.clone(),
        labels: as_targets(targets),
    }
}

fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

fn interval() -> IntervalConfig {
    IntervalConfig::new(0.95, 100)
}

/// Both kinds of targets of gallery and queries, with the name of their golden numbers.
fn galleries(golden: &Golden) -> [(&'static str, Targets, Targets); 2] {
    [
        ("classes", golden.targets("gallery_classes", 4), golden.targets("query_classes", 4)),
        ("labels", golden.labels("gallery_labels"), golden.labels("query_labels")),
    ]
}

// ---------------------------------------------------------------- retrieval

#[test]
fn rankings_have_the_precisions_of_scikit_learn() {
    let golden = Golden::read();
    let (gallery, queries) = (golden.matrix("gallery"), golden.matrix("queries"));
    for (kind, labels, truth) in galleries(&golden) {
        let expected = &golden.json["retrieval"][kind];
        let found = retrieval::rank(gallery.view(), &labels, queries.view(), &truth).unwrap();
        for (query, (found, expected)) in found.iter().zip(numbers(&expected["precisions"])).enumerate() {
            // Of a query without relevant images there is none.
            let expected = if expected.is_nan() { 0.0 } else { expected };
            assert_close(&format!("{kind}, query {query}"), found.average_precision, expected, 1e-9);
        }
        let relevant: Vec<f64> = found.iter().map(|query| f64::from(query.relevant)).collect();
        assert_eq!(relevant, numbers(&expected["relevant"]), "{kind}");
        assert_close(kind, mean_average_precision(&found).unwrap(), number(&expected["map"]), 1e-9);
        for k in [1, 5, 10] {
            let expected = number(&expected["recall"][k.to_string()]);
            assert_close(&format!("{kind}, recall at {k}"), recall(&found, k).unwrap(), expected, 1e-9);
        }
        let few =
            with_threads(1, || retrieval::rank(gallery.view(), &labels, queries.view(), &truth).unwrap());
        assert_eq!(few, found, "{kind}: one thread");
    }
}

fn retrieved(golden: &Golden, labels: &Targets, truth: &Targets, task: &Task) -> Outcome {
    let config = RetrievalConfig { recall_at: vec![1, 5, 10], interval: interval() };
    let (gallery, queries) = (golden.matrix("gallery"), golden.matrix("queries"));
    let pooled = |view: FeatureView| -> Result<Features> {
        match view.split {
            Split::Train => Ok(split(&gallery, labels)),
            Split::Test => Ok(split(&queries, truth)),
            Split::Valid => panic!("one normalisation needs no validation"),
        }
    };
    run_on_features(&config, task, 3, &["one"], pooled).unwrap()
}

#[test]
fn retrieval_reports_what_its_predictions_give() {
    let golden = Golden::read();
    for (kind, labels, truth) in galleries(&golden) {
        let task = match kind {
            "classes" => task(TargetKind::Class, 4, Metric::Accuracy),
            _ => task(TargetKind::Labels, 5, Metric::MicroF1),
        };
        let outcome = retrieved(&golden, &labels, &truth, &task);
        let expected = &golden.json["retrieval"][kind];
        assert_close(kind, outcome.value, number(&expected["map"]), 1e-9);
        assert_eq!(outcome.scores.keys().collect::<Vec<_>>(), ["recall_at_1", "recall_at_10", "recall_at_5"]);
        assert_eq!(outcome.predictions.scores(&[]), outcome.scores);
        let again = outcome.predictions.scorer(Metric::RetrievalMap).unwrap();
        assert_eq!(again.all(), outcome.value);
        assert_eq!(Some(again.interval(&interval(), 3).unwrap()), outcome.interval);
        let selected = |name: &str| outcome.selected[name].as_str();
        assert_eq!((selected("queries"), selected("gallery")), ("test split", "train split, 150 images"));
        let relevant = if kind == "classes" { "the same class" } else { "a label in common" };
        assert_eq!(selected("relevant"), relevant);
        let alone = numbers(&expected["relevant"]).into_iter().filter(|count| *count == 0.0).count();
        assert_eq!(alone > 0, kind == "labels");
        assert_eq!(selected("queries-without-relevant-images"), alone.to_string(), "{kind}");
        // Another metric has nothing to score here.
        assert!(outcome.predictions.scorer(task.metric).is_err());
        let map = outcome.supplement.map.unwrap();
        assert_eq!(map.samples, (0..60).collect::<Vec<_>>());
    }
}

#[test]
fn a_gallery_without_any_relevant_image_is_an_error() {
    let golden = Golden::read();
    let (gallery, queries) = (golden.matrix("gallery"), golden.matrix("queries"));
    let targets = |class: usize, n: usize| Targets::Classes { classes: vec![class; n], count: 2 };
    let queries = retrieval::rank(gallery.view(), &targets(0, 150), queries.view(), &targets(1, 60)).unwrap();
    assert_eq!(mean_average_precision(&queries), None);
    let predictions = Predictions::Retrieved(terrabench::score::predictions::Retrieval {
        queries,
        truth: targets(1, 60),
        recall_at: vec![1],
    });
    let error = predictions.scorer(Metric::RetrievalMap).err().unwrap().to_string();
    assert!(error.contains("no query has a relevant image"), "{error}");
}

// ---------------------------------------------------------------- clustering

#[test]
fn mutual_information_is_that_of_scikit_learn() {
    for case in Golden::read().json["ami"].as_array().unwrap() {
        let (classes, clusters) = (numbers(&case["classes"]), numbers(&case["clusters"]));
        let mut counts: Array2<u64> = Array2::zeros((50, 50));
        classes.iter().zip(&clusters).for_each(|(a, b)| counts[(*a as usize, *b as usize)] += 1);
        let logarithms = LogFactorials::up_to(classes.len());
        let name = case["name"].as_str().unwrap();
        assert_close(name, adjusted(&counts, &logarithms), number(&case["ami"]), 1e-9);
        // Which one is called clusters does not matter.
        let turned = counts.t().to_owned();
        assert_close(name, adjusted(&turned, &logarithms), number(&case["ami"]), 1e-9);
    }
}

fn settings(seed: u64) -> KMeansSettings {
    KMeansSettings { clusters: 5, starts: 10, max_iterations: 300, tolerance: 1e-4, seed }
}

#[test]
fn k_means_finds_the_clusters_of_scikit_learn() {
    let golden = Golden::read();
    let features = golden.matrix("clustered");
    let expected = &golden.json["clustering"];
    let found = k_means(features.view(), settings(0)).unwrap();
    let least = number(&expected["inertia"]);
    assert_close("inertia", found.inertia, least, 1e-3 * least);
    let truth = golden.classes("clustered_classes");
    let predictions = Predictions::Clusters { clusters: found.clusters.clone(), truth, count: 5 };
    let score = predictions.scorer(Metric::AdjustedMutualInformation).unwrap().all();
    assert_close("adjusted mutual information", score, number(&expected["ami"]), 0.01);
    // The unit of the features does not matter, nor does the number of threads.
    let larger = k_means(features.mapv(|x| 1000.0 * x).view(), settings(0)).unwrap();
    assert_eq!(larger.clusters, found.clusters);
    for threads in [1, 3] {
        assert_eq!(with_threads(threads, || k_means(features.view(), settings(0)).unwrap()), found);
    }
}

#[test]
fn clustering_reports_what_its_predictions_give() {
    let golden = Golden::read();
    let (features, truth) = (golden.matrix("clustered"), golden.targets("clustered_classes", 5));
    let config = ClusteringConfig { starts: 10, max_iterations: 300, tolerance: 1e-4, interval: interval() };
    let task = task(TargetKind::Class, 5, Metric::Accuracy);
    let pooled = |view: FeatureView| {
        assert_eq!(view.split, Split::Test, "no label of another split is used");
        Ok(split(&features, &truth))
    };
    let outcome = run_on_features(&config, &task, 0, &["one"], pooled).unwrap();
    assert_close("value", outcome.value, number(&golden.json["clustering"]["ami"]), 0.01);
    let interval = outcome.interval.unwrap();
    assert!(interval.low < outcome.value && outcome.value < interval.high + 0.05, "{interval:?}");
    assert_eq!((outcome.selected["clusters"].as_str(), outcome.selected["starts"].as_str()), ("5", "10"));
    let again = outcome.predictions.scorer(Metric::AdjustedMutualInformation).unwrap();
    assert_eq!(again.all(), outcome.value);
    assert!(outcome.scores.is_empty() && outcome.predictions.confusion(&task).is_none());
    assert_eq!(outcome.supplement.map.unwrap().samples.len(), 240);
}

#[test]
fn fewer_samples_than_clusters_are_an_error() {
    let features = Array2::from_shape_fn((4, 3), |(i, j)| (i * 3 + j) as f32);
    let error = k_means(features.view(), settings(0)).unwrap_err().to_string();
    assert!(error.contains("4 samples of 3 features for 5 clusters"), "{error}");
    let error = k_means(array![[0.0, f32::NAN]].view(), KMeansSettings { clusters: 1, ..settings(0) });
    assert!(error.unwrap_err().to_string().contains("sample 0 is not finite"));
    // Samples that are all the same are one cluster.
    let same = k_means(Array2::ones((9, 3)).view(), settings(0)).unwrap();
    assert_eq!((same.clusters, same.inertia), (vec![0; 9], 0.0));
}

#[test]
fn tasks_without_one_class_or_labels_are_refused_before_anything_is_read() {
    let home = Home::find().unwrap();
    let mut suite = Suite::load(&home, "geobench").unwrap();
    let model = ModelConfig::load(&home, "demo").unwrap();
    let run = |suite: &Suite, task: &str, protocol: &str| {
        let choice =
            Choice { tasks: vec![task.into()], protocols: vec![protocol.into()], ..Choice::default() };
        let load = |name: &str| Ok((name.to_owned(), ProtocolConfig::load(&home, name)?));
        plan(suite, &model, &choice, load).map(|plans| plans.len())
    };
    for (task, protocol) in
        [("m-eurosat", "retrieval"), ("m-eurosat", "clustering"), ("m-bigearthnet", "retrieval")]
    {
        assert_eq!(run(&suite, task, protocol).unwrap(), 1, "{task} {protocol}");
    }
    let error = run(&suite, "m-bigearthnet", "clustering").unwrap_err().to_string();
    assert!(error.contains("these images have several labels"), "{error}");
    suite.tasks.iter_mut().filter(|t| t.name == "m-eurosat").for_each(|t| t.target = TargetKind::Value);
    for protocol in ["retrieval", "clustering"] {
        let error = run(&suite, "m-eurosat", protocol).unwrap_err().to_string();
        assert!(error.contains("one number per image"), "{protocol}: {error}");
        let error = run(&suite, "m-cashew-plant", protocol).unwrap_err().to_string();
        assert!(error.contains("one class per pixel"), "{protocol}: {error}");
    }
}

#[test]
fn a_task_may_not_have_the_metric_of_one_protocol() {
    for metric in [Metric::RetrievalMap, Metric::AdjustedMutualInformation] {
        assert!(!metric.about().is_of_tasks, "{metric}");
        let predictions = Predictions::Targets { predicted: classes(&[0, 1]), truth: classes(&[0, 1]) };
        assert!(predictions.scorer(metric).is_err(), "{metric}");
    }
}

// ---------------------------------------------------------------- maps

/// Squared distances of all pairs.
fn distances(features: ArrayView2<f32>) -> Vec<f64> {
    let rows: Vec<_> = features.outer_iter().map(|row| row.mapv(f64::from)).collect();
    let distance = |i: usize, j: usize| (&rows[i] - &rows[j]).mapv(|x| x * x).sum();
    (0..rows.len()).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| distance(i, j)).collect()
}

#[test]
fn principal_components_are_those_of_scikit_learn() {
    let golden = Golden::read();
    let (features, expected) = (golden.matrix("mapped"), golden.matrix("components"));
    let found = principal_components(features.view(), 10).unwrap();
    assert_eq!(found.dim(), (90, 10));
    let variances: Vec<f64> =
        found.columns().into_iter().map(|column| column.mapv(|x| f64::from(x).powi(2)).sum()).collect();
    for (found, expected) in variances.iter().zip(numbers(&golden.json["pca"]["variances"])) {
        assert_close("variance of a component", *found, expected, 1e-3 * expected);
    }
    let pairs = distances(found.view()).into_iter().zip(distances(expected.view()));
    pairs.for_each(|(found, expected)| assert_close("distance", found, expected, 2e-3 * expected.max(1.0)));
    assert_eq!(with_threads(1, || principal_components(features.view(), 10).unwrap()), found);
    // Where nothing would be left out, distances stay.
    let whole = principal_components(features.view(), 40).unwrap();
    let pairs = distances(whole.view()).into_iter().zip(distances(features.view()));
    pairs.for_each(|(found, expected)| assert_close("distance", found, expected, 1e-4 * expected.max(1.0)));
}

/// The share of samples whose nearest sample in the plane has the same class.
fn purity(plane: ArrayView2<f64>, classes: &[usize]) -> f64 {
    let nearest = |i: usize| {
        let distance = |j: usize| (&plane.row(i) - &plane.row(j)).mapv(|x| x * x).sum();
        (0..classes.len()).filter(|j| *j != i).min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap()
    };
    let same = (0..classes.len()).filter(|i| classes[nearest(*i)] == classes[*i]).count();
    same as f64 / classes.len() as f64
}

#[test]
fn a_map_keeps_neighbours_together_as_that_of_scikit_learn_and_is_the_same_every_time() {
    let golden = Golden::read();
    let (features, truth) = (golden.matrix("mapped"), golden.classes("mapped_classes"));
    let components = principal_components(features.view(), 10).unwrap();
    let found = plane(components.view(), 0).unwrap().unwrap();
    let share = purity(found.view(), &truth);
    let expected = number(&golden.json["tsne"]["nearest_of_same_class"]);
    assert!(share >= expected - 0.05, "{share}, scikit-learn: {expected}");
    assert_eq!(plane(components.view(), 0).unwrap().unwrap(), found);
    assert_ne!(plane(components.view(), 1).unwrap().unwrap(), found);
    // Too little to lay out.
    assert_eq!(plane(components.slice(s![..3, ..]), 0).unwrap(), None);
    assert_eq!(plane(Array2::ones((20, 4)).view(), 0).unwrap(), None);
    // Few samples have no t-SNE, whose coordinates would grow until the program ends.
    let few = plane(components.slice(s![..20, ..]), 0).unwrap().unwrap();
    assert!(
        few.iter().all(|x| x.is_finite())
            && few == plane(components.slice(s![..20, ..]), 1).unwrap().unwrap()
    );
    // A single feature, and equal samples among others.
    let line = Array2::from_shape_fn((12, 1), |(i, _)| (i / 2) as f32);
    assert_eq!(plane(line.view(), 0).unwrap().unwrap().dim(), (12, 2));
}

#[test]
fn large_splits_are_thinned_evenly() {
    let features = Array2::from_shape_fn((2500, 60), |(i, j)| unit((i * 60 + j) as u64) as f32);
    let MapFeatures { samples, features } = map::map_features(features.view()).unwrap();
    assert_eq!((samples.len(), features.dim()), (1000, (1000, 50)));
    assert_eq!((samples[0], samples[1], samples[2], samples[999]), (0, 2, 5, 2497));
}

// ---------------------------------------------------------------- calibration and F1 per class

fn classes(classes: &[usize]) -> Targets {
    Targets::Classes { classes: classes.to_vec(), count: 3 }
}

#[test]
fn probabilities_calibration_and_f1_of_classes_are_those_of_scikit_learn() {
    let golden = Golden::read();
    let cases = [
        ("classes", "logits", "probabilities", golden.targets("truth", 6), Metric::Accuracy),
        ("labels", "label_logits", "label_probabilities", golden.labels("label_truth"), Metric::MicroF1),
    ];
    for (kind, logits, name, truth, metric) in cases {
        let (logits, expected) = (golden.matrix(logits), &golden.json[kind]);
        let found = probabilities(logits.view(), &truth).unwrap();
        let largest = (&found - &golden.matrix(name)).mapv(f32::abs).fold(0.0, |a: f32, b| a.max(*b));
        assert!(largest < 1e-6, "{kind}: {largest}");

        let outcome = Outcome::of_logits(metric, logits.view(), &truth, &interval(), 0, []).unwrap();
        assert_eq!(outcome.supplement.probabilities.as_ref(), Some(&found), "{kind}");
        let named = Named {
            samples: (0..truth.len()).map(|i| format!("sample {i}")).collect(),
            predictions: outcome.predictions,
            scoring: None,
            supplement: outcome.supplement,
        };
        let calibration = Calibration::of(&named).unwrap();
        assert_close(kind, calibration.error, number(&expected["error"]), 1e-4);
        let filled: Vec<_> = calibration.bins.iter().filter(|bin| bin.count > 0).collect();
        let counts: Vec<f64> = filled.iter().map(|bin| bin.count as f64).collect();
        assert_eq!(counts, numbers(&expected["counts"]), "{kind}");
        for (bin, accuracy) in filled.iter().zip(numbers(&expected["accuracies"])) {
            assert_close(kind, bin.accuracy, accuracy, 1e-9);
        }
        for (bin, confidence) in filled.iter().zip(numbers(&expected["confidences"])) {
            assert_close(kind, bin.confidence, confidence, 1e-6);
        }
        let counts = named.predictions.class_counts().unwrap().unwrap();
        let f1: Vec<f64> = counts.iter().map(|counts| counts.f1()).collect();
        for (class, (found, expected)) in f1.iter().zip(numbers(&expected["per_class"]["f1"])).enumerate() {
            assert_close(&format!("{kind} {class}"), *found, 100.0 * expected, 1e-9);
        }
        let support = counts.iter().map(|counts| (counts.true_positives + counts.false_negatives) as f64);
        assert_eq!(support.collect::<Vec<_>>(), numbers(&expected["per_class"]["support"]), "{kind}");
    }
}

#[test]
fn vote_shares_are_the_probabilities_of_scikit_learn() {
    let golden = Golden::read();
    let (gallery, queries) = (golden.matrix("gallery"), golden.matrix("queries"));
    let config = KnnConfig {
        k: 5,
        temperature: None,
        distance: Distance::Euclidean,
        embedding_dtype: EmbeddingDtype::F32,
        multi_label_metric: None,
        interval: interval(),
    };
    let labels = Targets::Classes { classes: golden.classes("gallery_classes")[..130].to_vec(), count: 4 };
    let gallery = gallery.slice(s![..130, ..]);
    let found = knn::predict(&config, gallery, &labels, queries.view()).unwrap();
    let shares = found.shares.unwrap();
    let largest = (&shares - &golden.matrix("vote_shares")).mapv(f32::abs).fold(0.0, |a: f32, b| a.max(*b));
    assert!(largest < 1e-6, "{largest}");
    // The predicted class has the largest share, and weighted votes are shares too.
    let Targets::Classes { classes, .. } = &found.targets else { panic!() };
    for (row, class) in shares.outer_iter().zip(classes) {
        assert!(row.iter().all(|share| *share <= row[*class]));
    }
    let weighted = KnnConfig::weighted(20, 0.07, EmbeddingDtype::F32, interval());
    let shares = knn::predict(&weighted, gallery, &labels, queries.view()).unwrap().shares.unwrap();
    assert!(shares.sum_axis(Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-5));
}

#[test]
fn confidences_need_probabilities_of_the_right_shape() {
    let (predicted, truth) = (classes(&[0, 1]), classes(&[0, 2]));
    let fitting = array![[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]];
    let (sure, right) = confidences(fitting.view(), Some(&predicted), &truth).unwrap();
    assert_eq!((sure, right), (vec![0.5, 0.6], vec![true, false]));
    assert_eq!(confidences(fitting.slice(s![..1, ..]), Some(&predicted), &truth), None);
    assert_eq!(confidences(fitting.view(), None, &truth), None);
    assert!(expected_calibration_error(&calibration_bins(&[], &[], 15)).is_nan());
}

// ---------------------------------------------------------------- files

fn named(predictions: Predictions, supplement: Supplement) -> Named {
    let samples = (0..predictions.len()).map(|i| format!("sample {i}")).collect();
    Named { samples, predictions, scoring: Some(Default::default()), supplement }
}

#[test]
fn predictions_without_anything_new_are_written_as_older_programs_read_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let format = |named: &Named| {
        predictions::write(&path, "0a", named).unwrap();
        assert_eq!(predictions::read(&path, "0a").unwrap().as_ref(), Some(named));
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        [2, 3].into_iter().find(|format| text.contains(&format!(r#""format":"{format}""#))).unwrap()
    };
    let plain = Predictions::Targets { predicted: classes(&[0, 1]), truth: classes(&[0, 2]) };
    assert_eq!(format(&named(plain.clone(), Supplement::default())), 2);
    let sure = array![[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]];
    let supplement = Supplement { probabilities: Some(sure), map: None };
    assert_eq!(format(&named(plain, supplement)), 3);
    let clusters = Predictions::Clusters { clusters: vec![1, 0, 1], truth: vec![0, 0, 1], count: 2 };
    let map = MapFeatures { samples: vec![0, 2], features: array![[0.5, 1.0], [-0.5, 2.0]] };
    assert_eq!(format(&named(clusters, Supplement { probabilities: None, map: Some(map) })), 3);
    let golden = Golden::read();
    for (_, labels, truth) in galleries(&golden) {
        let (gallery, queries) = (golden.matrix("gallery"), golden.matrix("queries"));
        let queries = retrieval::rank(gallery.view(), &labels, queries.view(), &truth).unwrap();
        let retrieval = terrabench::score::predictions::Retrieval { queries, truth, recall_at: vec![1, 5] };
        assert_eq!(format(&named(Predictions::Retrieved(retrieval), Supplement::default())), 3);
    }
}

#[test]
fn damaged_probabilities_and_maps_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let plain = Predictions::Targets { predicted: classes(&[0, 1]), truth: classes(&[0, 2]) };
    let error = |supplement: Supplement| {
        predictions::write(&path, "0a", &named(plain.clone(), supplement)).unwrap();
        predictions::read(&path, "0a").unwrap_err().to_string()
    };
    let sure = |probabilities: Array2<f32>| Supplement { probabilities: Some(probabilities), map: None };
    assert!(error(sure(array![[0.5, 0.5], [0.5, 0.5]])).contains("`probabilities` has shape"));
    assert!(error(sure(array![[0.5, 0.5, 0.0], [1.5, 0.0, 0.0]])).contains("1.5"));
    let map = |samples: Vec<usize>, features: Array2<f32>| Supplement {
        probabilities: None,
        map: Some(MapFeatures { samples, features }),
    };
    for (samples, features) in [
        (vec![0, 2], array![[0.0], [1.0]]),
        (vec![1, 0], array![[0.0], [1.0]]),
        (vec![0], array![[0.0], [1.0]]),
    ] {
        let told = error(map(samples.clone(), features));
        assert!(told.contains("`map-samples` must list"), "{samples:?}: {told}");
    }
    assert!(error(map(vec![0], array![[f32::INFINITY]])).contains("not finite"));
}

#[test]
fn changed_rankings_and_clusters_are_told_apart_by_their_labels() {
    let clusters = |clusters: &[usize], truth: &[usize]| Predictions::Clusters {
        clusters: clusters.to_vec(),
        truth: truth.to_vec(),
        count: 3,
    };
    let (a, b) = (clusters(&[0, 1, 1], &[0, 1, 2]), clusters(&[0, 1, 0], &[0, 1, 2]));
    assert!(a.same_labels(&b) && !a.same_labels(&clusters(&[0, 1, 1], &[0, 1, 1])));
    assert_eq!(a.agreement(&b).map(|share| share.round()), Some(67.0));
    assert_eq!(a.relabelled(&clusters(&[0, 1, 1], &[0, 2, 2])), Some(vec![1]));
    assert_eq!(a.select(&[2, 0]), clusters(&[1, 0], &[2, 0]));
    let golden = Golden::read();
    let (gallery, queries) = (golden.matrix("gallery"), golden.matrix("queries"));
    let (labels, truth) = (golden.targets("gallery_classes", 4), golden.targets("query_classes", 4));
    let retrieved = |labels: &Targets| {
        let queries = retrieval::rank(gallery.view(), labels, queries.view(), &truth).unwrap();
        Predictions::Retrieved(terrabench::score::predictions::Retrieval {
            queries,
            truth: truth.clone(),
            recall_at: vec![1],
        })
    };
    let all = retrieved(&labels);
    assert_eq!(all.agreement(&all), Some(100.0));
    assert_eq!(all.select(&[5, 3]).len(), 2);
    // Another gallery has other numbers of relevant images.
    let mut other = golden.classes("gallery_classes");
    other[0] = (other[0] + 1) % 4;
    let other = retrieved(&Targets::Classes { classes: other, count: 4 });
    assert!(!all.same_labels(&other) && !all.relabelled(&other).unwrap().is_empty());
}

// ---------------------------------------------------------------- the report

/// Predictions of 60 images of as many classes as the task has, with probabilities and features.
fn classified(task: &Task, n: usize) -> Named {
    let truth: Vec<usize> = (0..n).map(|i| i % task.classes).collect();
    let logits = Array2::from_shape_fn((n, task.classes), |(i, class)| {
        3.0 * f32::from(u8::from(class == truth[i])) + 4.0 * unit((i * 100 + class) as u64) as f32
    });
    let truth = Targets::Classes { classes: truth, count: task.classes };
    let mut outcome =
        Outcome::of_logits(Metric::Accuracy, logits.view(), &truth, &interval(), 0, []).unwrap();
    outcome.supplement.map = Some(map::map_features(logits.view()).unwrap());
    named(outcome.predictions, outcome.supplement)
}

#[test]
fn the_report_shows_calibration_classes_and_a_map() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    let task = suite.task("m-eurosat").unwrap();
    let store = Store::open(folder.path().join("geobench")).unwrap();
    let record = made::made("geobench", "m-eurosat", |record| record.cell.protocol = "logistic".into());
    store.stage(&record, &classified(task, 80), None).unwrap().commit().unwrap();
    // A later record whose predictions decide on no class hides nothing.
    let later = made::made("geobench", "m-eurosat", |record| {
        record.cell.protocol = "clustering".into();
        record.metric = Metric::AdjustedMutualInformation;
        record.provenance.finished += 1000;
    });
    let later = terrabench::record::Record { value: 0.5, interval: None, scores: BTreeMap::new(), ..later };
    let clusters = Predictions::Clusters { clusters: vec![0; 9], truth: (0..9).collect(), count: 10 };
    store.stage(&later, &named(clusters, Supplement::default()), None).unwrap().commit().unwrap();
    let bare = made::made("geobench", "m-so2sat", |_| {});
    store.put(&bare).unwrap();
    made::predict(&store, &bare);

    let choice = spider::Choice::default();
    let written = write_all(&home, folder.path(), folder.path(), &choice, Style::default()).unwrap();
    assert!(written.unreadable.is_empty(), "{:?}", written.unreadable);
    let text = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for picture in ["m-eurosat-confusion", "m-eurosat-reliability", "m-eurosat-map", "m-so2sat-confusion"] {
        assert!(text.contains(&format!("geobench/{picture}.svg")), "{picture}: {text}");
        assert!(folder.path().join(format!("geobench/{picture}.png")).is_file(), "{picture}");
    }
    for shown in [&text, &page] {
        assert!(shown.contains("ECE") && shown.contains("Mean confidence"), "calibration");
        assert!(shown.contains("Precision") && shown.contains("Support"), "classes");
        assert!(shown.contains("the records of this task have no probabilities"), "m-so2sat");
    }
    assert!(!text.contains("m-so2sat-reliability") && !text.contains("m-so2sat-map"));
    let is_row = |line: &str| line.contains("logistic") && line.contains(" 80 |");
    assert!(text.lines().any(is_row), "{text}");
    // The same report again, to the last byte.
    let read = |name: &str| std::fs::read(folder.path().join("geobench").join(name)).unwrap();
    let first = read("m-eurosat-map.svg");
    write_all(&home, folder.path(), folder.path(), &choice, Style::default()).unwrap();
    assert!(read("m-eurosat-map.svg") == first);
}

#[test]
fn the_legend_of_a_map_covers_no_point_and_no_text_touches_another() {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    let mut task = suite.task("m-so2sat").unwrap().clone();
    let record = made::made("geobench", "m-so2sat", |_| {});
    for (count, names) in [(2, true), (17, true), (62, true), (62, false)] {
        task.classes = count;
        let name =
            |class: usize| format!("a rather long name of class {class}, longer than the legend is wide");
        task.class_names = if names { (0..count).map(name).collect() } else { Vec::new() };
        let named = classified(&task, 3 * count.max(20));
        let picture = pictures::map::draw(&task, &record, &named).unwrap();
        let texts: Vec<_> = picture.texts().map(|text| text.bounds()).collect();
        for (i, text) in texts.iter().enumerate() {
            assert!(
                text.left >= 0.0 && text.right <= picture.width && text.bottom <= picture.height,
                "{text:?}"
            );
            assert!(texts[i + 1..].iter().all(|other| !text.overlaps(other)), "{count} classes: {text:?}");
        }
        // The frame of the map is the first line; every text below its top is right of it.
        let frame = picture.layers[0].shapes.iter().find_map(|shape| match shape {
            terrabench::canvas::Shape::Line { points, .. } => Some(points.clone()),
            _ => None,
        });
        let frame = frame.unwrap();
        let (right, top) = (frame[1].0, frame[0].1);
        assert!(texts.iter().all(|text| text.bottom <= top || text.left > right), "{count} classes");
    }
    let without = Named { supplement: Supplement::default(), ..classified(&task, 90) };
    assert!(pictures::map::draw(&task, &record, &without).is_none());
    assert!(Calibration::of(&without).is_none());
}
