//! Transforms, metrics and k-NN against numbers of the reference implementations (tests/fixtures/protocols),
//! and what must hold of any input.

use crate::common;
use ndarray::{Array1, Array2, Array3, ArrayD, Axis, Ix2, Ix3, Ix4, IxDyn, array, s};
use safetensors::SafeTensors;
use serde_json::Value;

use terrabench::config::{EmbeddingDtype, IntervalConfig, KnnConfig};
use terrabench::data::Target;
use terrabench::metrics::accuracy::{accuracy, top_k_accuracy};
use terrabench::metrics::average_precision::{
    average_precision, macro_average_precision, micro_average_precision,
};
use terrabench::metrics::f1::{
    count_classes, count_labels, macro_f1_of_classes, macro_f1_of_labels, micro_f1,
};
use terrabench::metrics::{Metric, bootstrap, mean_over_batches};
use terrabench::protocol::knn::{Prediction, predict, predict_by};
use terrabench::score::{Targets, interval, score};
use terrabench::solve::neighbours::Search;
use terrabench::transform::Preprocess;
use terrabench::transform::normalize::{BandStatistics, Normalization, NormalizationKind};
use terrabench::transform::resize::{Nearest, bilinear, nearest, nearest_indices};

/// A golden pair of files: figures in JSON, tensors in safetensors.
struct Golden {
    json: Value,
    tensors: Vec<u8>,
}

impl Golden {
    fn load(name: &str) -> Self {
        let read = |extension: &str| {
            std::fs::read(common::fixture(&format!("protocols/{name}.{extension}"))).unwrap()
        };
        Golden { json: serde_json::from_slice(&read("json")).unwrap(), tensors: read("safetensors") }
    }

    fn tensor<T>(&self, name: &str, of: impl Fn(&[u8]) -> T, size: usize) -> ArrayD<T> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let values = tensor.data().chunks_exact(size).map(of).collect();
        ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).unwrap()
    }

    fn floats(&self, name: &str) -> ArrayD<f32> {
        self.tensor(name, |bytes| f32::from_le_bytes(bytes.try_into().unwrap()), 4)
    }

    fn integers(&self, name: &str) -> ArrayD<i64> {
        self.tensor(name, |bytes| i64::from_le_bytes(bytes.try_into().unwrap()), 8)
    }

    fn matrix(&self, name: &str) -> Array2<f32> {
        self.floats(name).into_dimensionality::<Ix2>().unwrap()
    }

    /// Classes or places: [n].
    fn classes(&self, name: &str) -> Vec<usize> {
        self.integers(name).iter().map(|class| usize::try_from(*class).unwrap()).collect()
    }

    /// Zeros and ones: [n, labels].
    fn labels(&self, name: &str) -> Array2<bool> {
        self.integers(name).mapv(|label| label == 1).into_dimensionality::<Ix2>().unwrap()
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: found {found}, expected {expected}");
}

/// Runs `f` in a pool of that many threads.
fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// A repeatable stream of numbers in -0.5..0.5.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed * 2 + 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    }
}

fn random(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut next = noise(seed);
    Array2::from_shape_simple_fn((rows, columns), &mut next)
}

// ---------------------------------------------------------------- normalisation

fn named_statistics(json: &Value, sensor: &str, name: &str) -> Vec<BandStatistics> {
    let (mean, std) = match (sensor, name) {
        ("s2", "dataset") => {
            let dataset = &json["imputation"]["m-eurosat"];
            (&dataset["slot_mean"], &dataset["slot_std"])
        }
        ("s1", "dataset") => (&json["s1_dataset_stats"]["slot_mean"], &json["s1_dataset_stats"]["slot_std"]),
        _ => (&json["stats"][name]["mean"], &json["stats"][name]["std"]),
    };
    numbers(mean).into_iter().zip(numbers(std)).map(|(mean, std)| BandStatistics { mean, std }).collect()
}

/// [h, w, bands] of the reference to [bands, h, w].
fn bands_first(image: ArrayD<f32>) -> Array3<f32> {
    image.into_dimensionality::<Ix3>().unwrap().permuted_axes([2, 0, 1]).as_standard_layout().to_owned()
}

#[test]
fn every_normalisation_strategy_of_the_sweep_agrees() {
    let golden = Golden::load("normalise");
    let mut strategies = 0;
    for (sensor, image_type) in [("s2", "f32"), ("s2", "int16"), ("s1", "f32")] {
        let image_name = format!("{sensor}/image_{image_type}");
        let image = bands_first(if image_type == "f32" {
            golden.floats(&image_name)
        } else {
            golden.integers(&image_name).mapv(|x| x as f32)
        });
        for group in ["clip_int", "standardize", "no_clip"] {
            let expected = golden.floats(&format!("{sensor}/{group}/{image_type}"));
            let list = golden.json["strategies"][sensor][group]["list"].as_array().unwrap();
            assert_eq!(list.len(), expected.len_of(Axis(0)));
            for (strategy, expected) in list.iter().zip(expected.outer_iter()) {
                let kind: NormalizationKind = serde_json::from_value(strategy["type"].clone()).unwrap();
                assert_eq!(strategy["type"], kind.to_string());
                let normalization = match strategy["stats"].as_str() {
                    Some(name) => Normalization::new(
                        kind,
                        &named_statistics(&golden.json, sensor, name),
                        number(&strategy["std_multiplier"]),
                    ),
                    None => Normalization::new(kind, &[], 1.0),
                }
                .unwrap();
                let mut found = image.clone();
                normalization.apply(&mut found).unwrap();
                let expected = bands_first(expected.to_owned());
                let tolerance = if group == "clip_int" { 1e-6 } else { 1e-5 };
                for (found, expected) in found.iter().zip(&expected) {
                    let tolerance = tolerance * f64::from(expected.abs()).max(1.0);
                    assert_close((*found).into(), (*expected).into(), tolerance, &strategy.to_string());
                }
                strategies += 1;
            }
        }
    }
    assert_eq!(strategies, 2 * 3 * 43 + 3 * 28);

    // The kind that no strategy list contains.
    let ours = named_statistics(&golden.json, "s2", "OURS");
    let normalization = Normalization::new(NormalizationKind::NormYesClip, &ours, 2.0).unwrap();
    let mut found = bands_first(golden.floats("s2/image_f32"));
    normalization.apply(&mut found).unwrap();
    let expected = bands_first(golden.floats("s2/norm_yes_clip_OURS_2.0/f32"));
    for (found, expected) in found.iter().zip(&expected) {
        assert_close((*found).into(), (*expected).into(), 1e-5, "norm_yes_clip");
    }
}

#[test]
fn plain_standardising_is_float32_arithmetic_of_rounded_statistics() {
    let statistics = [
        BandStatistics { mean: 1_356.781_697, std: 246.335_619_163_774_68 },
        BandStatistics { mean: 12.334_183, std: 5.079_256_512_769_462 },
    ];
    let normalization = Normalization::standardize(&statistics).unwrap();
    let mut image = Array3::from_shape_fn((2, 3, 5), |(band, y, x)| (1000 * band + 317 * y + 41 * x) as f32);
    let stored = image.clone();
    normalization.apply(&mut image).unwrap();
    for ((band, y, x), found) in image.indexed_iter() {
        let BandStatistics { mean, std } = statistics[band];
        assert_eq!(*found, (stored[[band, y, x]] - mean as f32) / std as f32);
    }
}

#[test]
fn a_constant_band_stays_finite() {
    let statistics = [BandStatistics { mean: 7.0, std: 0.0 }, BandStatistics { mean: 1e6, std: 1e-300 }];
    for (kind, expected) in [
        (NormalizationKind::Standardize, 0.0),
        (NormalizationKind::NormNoClip, 0.5),
        (NormalizationKind::NormYesClip, 0.5),
        (NormalizationKind::NormYesClipInt, 127.0 / 255.0),
    ] {
        let normalization = Normalization::new(kind, &statistics, 2.0).unwrap();
        let mut image = Array3::from_shape_fn((2, 2, 2), |(band, _, _)| [7.0, 1e6][band]);
        normalization.apply(&mut image).unwrap();
        assert!(image.iter().all(|x| *x == expected), "{kind}: {image}");
    }
}

#[test]
fn unusable_statistics_are_refused() {
    let good = BandStatistics { mean: 0.0, std: 1.0 };
    for bad in [(f64::NAN, 1.0), (0.0, f64::INFINITY), (0.0, -1.0), (1e300, 1.0)] {
        let bad = BandStatistics { mean: bad.0, std: bad.1 };
        let error = Normalization::standardize(&[good, bad]).unwrap_err().to_string();
        assert!(error.contains("band 1"), "{error}");
    }
    for multiplier in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        Normalization::new(NormalizationKind::NormNoClip, &[good], multiplier).unwrap_err();
    }
    let mut image = Array3::zeros((3, 2, 2));
    let error = Normalization::standardize(&[good, good]).unwrap().apply(&mut image).unwrap_err().to_string();
    assert!(error.contains("3 bands") && error.contains('2'), "{error}");
}

// ---------------------------------------------------------------- resizing

fn large(side: usize) -> Array3<f32> {
    Array3::from_shape_fn((1, side, side), |(_, i, j)| {
        0.5 * i as f32 + 0.25 * j as f32 + ((i * j) % 16) as f32 / 32.0
    })
}

#[test]
fn bilinear_agrees_on_small_images() {
    let golden = Golden::load("resize");
    let input = golden.floats("small/input").into_dimensionality::<Ix4>().unwrap();
    for (height, width) in [(5, 7), (11, 9), (3, 4)] {
        for (align_corners, name) in [(false, "False"), (true, "True")] {
            let expected = golden.floats(&format!("small/{height}x{width}/align_{name}"));
            let found =
                bilinear(input.index_axis(Axis(0), 0).to_owned(), height, width, align_corners).unwrap();
            assert_eq!(found.shape(), &expected.shape()[1..]);
            for (found, expected) in found.iter().zip(&expected) {
                assert_close((*found).into(), (*expected).into(), 1e-4, &format!("{height}x{width} {name}"));
            }
        }
    }
}

#[test]
fn bilinear_agrees_on_large_images() {
    let golden = Golden::load("resize");
    for (old, new) in [(64, 224), (120, 224), (256, 224), (32, 112), (64, 40)] {
        for (align_corners, align) in [(false, "False"), (true, "True")] {
            let name = format!("large/{old}to{new}/align_{align}");
            let found = bilinear(large(old), new, new, align_corners).unwrap();
            let found: Vec<f32> = found.into_iter().collect();
            let check = |part: &str, found: Vec<f32>| {
                let expected = golden.floats(&format!("{name}/{part}"));
                assert_eq!(found.len(), expected.len(), "{name}/{part}");
                for (found, expected) in found.iter().zip(&expected) {
                    assert_close((*found).into(), (*expected).into(), 1e-4, &name);
                }
            };
            check("first64", found[..64].to_vec());
            check("last64", found[found.len() - 64..].to_vec());
            check("every97th", found.iter().copied().step_by(97).collect());
            let mean = found.iter().copied().map(f64::from).sum::<f64>() / found.len() as f64;
            assert_close(mean, number(&golden.json["large_summary"][&name]["mean"]), 1e-5, &name);
        }
    }
}

#[test]
fn preprocessing_normalises_then_resizes() {
    let golden = Golden::load("resize");
    let pipeline = &golden.json["pipeline"];
    let statistics: Vec<BandStatistics> = numbers(&pipeline["mean"])
        .into_iter()
        .zip(numbers(&pipeline["std"]))
        .map(|(mean, std)| BandStatistics { mean, std })
        .collect();
    let preprocess = Preprocess {
        normalization: Normalization::standardize(&statistics).unwrap(),
        height: 14,
        width: 14,
        align_corners: true,
        zeroed: Vec::new(),
    };
    let input = golden.floats("pipeline/input").into_dimensionality::<Ix3>().unwrap();
    let found = preprocess.apply(input).unwrap();
    let expected = golden.floats("pipeline/output");
    assert_eq!(found.shape(), expected.shape());
    for (found, expected) in found.iter().zip(&expected) {
        assert_close((*found).into(), (*expected).into(), 1e-5, "pipeline");
    }

    let described = serde_json::to_string(&preprocess).unwrap();
    assert_eq!(serde_json::from_str::<Preprocess>(&described).unwrap(), preprocess);
    let other = Preprocess { align_corners: false, ..preprocess };
    assert_ne!(serde_json::to_string(&other).unwrap(), described);
}

#[test]
fn an_image_of_the_right_size_is_not_touched() {
    let image = large(37);
    let place = image.as_ptr();
    for align_corners in [false, true] {
        let same = bilinear(image.clone(), 37, 37, align_corners).unwrap();
        assert_eq!(same, image);
    }
    assert_eq!(bilinear(image, 37, 37, false).unwrap().as_ptr(), place, "no copy");
}

#[test]
fn resizing_keeps_constants_bounds_and_axes() {
    let mut next = noise(5);
    let image = Array3::from_shape_simple_fn((2, 6, 9), &mut next);
    for (height, width) in [(1, 1), (1, 20), (6, 4), (13, 9), (50, 3)] {
        for align_corners in [false, true] {
            let resized = bilinear(image.clone(), height, width, align_corners).unwrap();
            assert_eq!(resized.dim(), (2, height, width));
            assert!(resized.iter().all(|x| (-0.5..=0.5).contains(x)));

            let constant = bilinear(Array3::from_elem((1, 6, 9), 3.5), height, width, align_corners).unwrap();
            assert!(constant.iter().all(|x| (x - 3.5).abs() < 1e-6));

            let transposed = image.view().permuted_axes([0, 2, 1]).to_owned();
            let resized_transposed = bilinear(transposed, width, height, align_corners).unwrap();
            for ((channel, y, x), value) in resized.indexed_iter() {
                assert!((value - resized_transposed[[channel, x, y]]).abs() < 1e-6);
            }
        }
    }
    bilinear(Array3::zeros((1, 0, 4)), 2, 2, false).unwrap_err();
    bilinear(Array3::zeros((1, 4, 4)), 2, 0, false).unwrap_err();
}

#[test]
fn nearest_takes_the_places_of_the_reference() {
    let golden = Golden::load("resize");
    let rules = [(Nearest::Floor, "nearest"), (Nearest::Exact, "nearest-exact")];
    let sizes = [
        (10, 3),
        (120, 224),
        (120, 96),
        (224, 64),
        (256, 224),
        (288, 96),
        (32, 112),
        (512, 224),
        (56, 224),
        (5, 11),
        (64, 224),
        (7, 9),
        (96, 288),
    ];
    for (rule, name) in rules {
        for (old, new) in sizes {
            let expected = golden.classes(&format!("index/{old}to{new}/{name}"));
            assert_eq!(nearest_indices(old, new, rule).unwrap(), expected, "{old} to {new} {name}");
        }
        let mask = golden.integers("label/input").into_dimensionality::<Ix2>().unwrap();
        for (height, width) in [(11, 9), (3, 4)] {
            let expected = golden.integers(&format!("label/{height}x{width}/{name}"));
            let found = nearest(mask.view(), height, width, rule).unwrap();
            assert_eq!(found.into_dyn(), expected, "{height}x{width} {name}");
        }
        assert_eq!(nearest(mask.view(), 5, 7, rule).unwrap(), mask);
        nearest_indices(4, 0, rule).unwrap_err();
        nearest_indices(0, 4, rule).unwrap_err();
    }
}

// ---------------------------------------------------------------- metrics

fn argmax(scores: &Array2<f32>) -> Vec<usize> {
    let best = |row: ndarray::ArrayView1<'_, f32>| {
        (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap()
    };
    scores.rows().into_iter().map(best).collect()
}

/// Checks a metric of the whole split, of each batch and the mean over batches.
fn check_batches(
    golden: &Value,
    place: Option<usize>,
    batch_size: usize,
    samples: usize,
    of: impl Fn(std::ops::Range<usize>) -> terrabench::Result<f64>,
) {
    let pick = |value: &Value| match place {
        Some(place) => value[place].clone(),
        None => value.clone(),
    };
    assert_close(of(0..samples).unwrap(), number(&pick(&golden["dataset"])), 1e-3, "data set");
    let mut batches = numbers(&pick(&golden["per_batch"])).into_iter();
    let mean = mean_over_batches(samples, batch_size, |batch| {
        let value = of(batch)?;
        assert_close(value, batches.next().unwrap(), 1e-3, "batch");
        Ok(value)
    })
    .unwrap();
    assert!(batches.next().is_none());
    assert_close(mean, number(&pick(&golden["epoch_mean"])), 1e-3, "mean over batches");
}

#[test]
fn classification_metrics_agree() {
    let golden = Golden::load("metrics");
    let cls = &golden.json["cls"];
    let batch_size = golden.json["batch_size"].as_u64().unwrap() as usize;
    let logits = golden.matrix("cls/logits");
    let labels = golden.classes("cls/labels");
    let predictions = argmax(&logits);
    let n = labels.len();

    let value = accuracy(&predictions, &labels).unwrap();
    assert_close(value / 100.0, number(&cls["galileo_accuracy"]), 1e-7, "accuracy");
    let counts = count_classes(&predictions, &labels, 7).unwrap();
    for (counts, expected) in counts.iter().zip(numbers(&cls["class_wise_f1"])) {
        assert_close(counts.f1() / 100.0, expected, 1e-7, "class-wise F1");
    }
    let mean = numbers(&cls["class_wise_f1"]).iter().sum::<f64>() / 7.0;
    assert_close(macro_f1_of_classes(&counts).unwrap() / 100.0, mean, 1e-7, "macro F1");
    assert_close(micro_f1(&counts), value, 1e-9, "of one class a sample, micro F1 is accuracy");

    let top = |k| {
        let (logits, labels) = (&logits, &labels);
        move |batch: std::ops::Range<usize>| {
            top_k_accuracy(logits.slice(s![batch.clone(), ..]), &labels[batch], k)
        }
    };
    check_batches(&cls["copernicus"], Some(0), batch_size, n, top(1));
    check_batches(&cls["copernicus"], Some(1), batch_size, n, top(5));
    let few: Vec<usize> = labels.iter().map(|label| label % 3).collect();
    let expected = &cls["copernicus"]["top5_of_3_classes"];
    let few_logits = logits.slice(s![.., ..3]);
    assert_close(top_k_accuracy(few_logits, &few, 1).unwrap(), number(&expected["acc1"]), 1e-3, "acc1");
    assert_close(top_k_accuracy(few_logits, &few, 5).unwrap(), number(&expected["acc5"]), 1e-3, "acc5");
}

#[test]
fn multi_label_metrics_agree() {
    let golden = Golden::load("metrics");
    let expected = &golden.json["multilabel"];
    let batch_size = golden.json["batch_size"].as_u64().unwrap() as usize;
    let logits = golden.matrix("multilabel/logits");
    let labels = golden.labels("multilabel/labels");
    let predictions = logits.mapv(|logit| logit > 0.0);
    let n = labels.nrows();

    let f1 = |batch: std::ops::Range<usize>| {
        let counts = count_labels(predictions.slice(s![batch.clone(), ..]), labels.slice(s![batch, ..]))?;
        Ok(micro_f1(&counts))
    };
    assert_close(f1(0..n).unwrap() / 100.0, number(&expected["galileo_micro_f1"]), 1e-7, "micro F1");
    check_batches(&expected["copernicus"], Some(1), batch_size, n, f1);
    check_batches(&expected["copernicus"], Some(0), batch_size, n, |batch| {
        micro_average_precision(logits.slice(s![batch.clone(), ..]), labels.slice(s![batch, ..]))
    });
    check_batches(&expected["macro_average_precision_x100"], None, batch_size, n, |batch| {
        macro_average_precision(logits.slice(s![batch.clone(), ..]), labels.slice(s![batch, ..]))
    });
    for (label, expected) in numbers(&expected["average_precision_per_label"]).into_iter().enumerate() {
        let (scores, truth) = (logits.column(label).to_vec(), labels.column(label).to_vec());
        let value = average_precision(&scores, &truth).unwrap();
        assert_close(value, 100.0 * expected, 1e-3, &format!("average precision of label {label}"));
    }

    let nothing = Array2::from_elem((16, labels.ncols()), false);
    let scores = logits.slice(s![..16, ..]);
    assert_eq!(micro_average_precision(scores, nothing.view()).unwrap(), 0.0);
    assert_eq!(macro_average_precision(scores, nothing.view()).unwrap(), 0.0);
    let counts = count_labels(predictions.slice(s![..16, ..]), nothing.view()).unwrap();
    assert_eq!(micro_f1(&counts), 0.0);
}

#[test]
fn nothing_to_score_is_an_error() {
    let no_labels = Array2::from_elem((0, 3), false);
    let no_scores = Array2::zeros((0, 3));
    accuracy(&[], &[]).unwrap_err();
    accuracy(&[1], &[1, 2]).unwrap_err();
    top_k_accuracy(no_scores.view(), &[], 1).unwrap_err();
    top_k_accuracy(array![[0.0, 1.0]].view(), &[2], 1).unwrap_err();
    count_classes(&[], &[], 3).unwrap_err();
    count_classes(&[0], &[3], 3).unwrap_err();
    macro_f1_of_classes(&[]).unwrap_err();
    macro_f1_of_labels(&[]).unwrap_err();
    count_labels(no_labels.view(), no_labels.view()).unwrap_err();
    average_precision(&[], &[]).unwrap_err();
    average_precision(&[f32::NAN], &[true]).unwrap_err();
    micro_average_precision(no_scores.view(), no_labels.view()).unwrap_err();
    macro_average_precision(no_scores.view(), no_labels.view()).unwrap_err();
    mean_over_batches(0, 16, |_| Ok(0.0)).unwrap_err();
    bootstrap::interval(0, 0.95, 10, 0, |_| 0.0).unwrap_err();
    bootstrap::interval(5, 0.95, 0, 0, |_| 0.0).unwrap_err();
    bootstrap::interval(5, 1.0, 10, 0, |_| 0.0).unwrap_err();
    bootstrap::interval(5, 0.95, 10, 0, |_| f64::NAN).unwrap_err();
}

// ---------------------------------------------------------------- bootstrap

#[test]
fn bootstrap_intervals_agree() {
    let text = std::fs::read(common::fixture("protocols/bootstrap.json")).unwrap();
    let golden: Value = serde_json::from_slice(&text).unwrap();
    for (name, tolerance) in [("n400_p83", 0.5), ("n60_p50", 1.7), ("n100_all_correct", 1e-9)] {
        let case = &golden["cases"][name];
        let correct = numbers(&case["correct"]);
        let found = bootstrap::interval(correct.len(), 0.95, 2000, 0, |indices| {
            100.0 * indices.iter().map(|sample| correct[*sample]).sum::<f64>() / indices.len() as f64
        })
        .unwrap();
        assert_close(found.low, 100.0 * number(&case["lo"]), tolerance, name);
        assert_close(found.high, 100.0 * number(&case["hi"]), tolerance, name);
    }
}

#[test]
fn an_interval_is_the_same_with_any_number_of_threads() {
    let share = |indices: &[usize]| indices.iter().filter(|sample| **sample % 3 == 0).count() as f64;
    let with =
        |threads, seed| with_threads(threads, || bootstrap::interval(100, 0.9, 500, seed, share)).unwrap();
    assert_eq!(with(1, 4), with(2, 4));
    assert_ne!(with(2, 4), with(2, 5));
    assert!(with(2, 4).low < with(2, 4).high);
}

#[test]
fn intervals_resample_the_very_metric() {
    let config = IntervalConfig::new(0.95, 200);
    let mut next = noise(9);
    let mut draw = |_| next() > 0.0;
    let (predictions, truth) =
        (Array2::from_shape_fn((60, 5), &mut draw), Array2::from_shape_fn((60, 5), &mut draw));
    let found = interval(
        Metric::MicroF1,
        &Targets::Labels(predictions.clone()),
        &Targets::Labels(truth.clone()),
        &config,
        3,
    )
    .unwrap();
    let expected = bootstrap::interval(60, config.level, config.resamples, 3, |indices| {
        let (predictions, truth) = (predictions.select(Axis(0), indices), truth.select(Axis(0), indices));
        micro_f1(&count_labels(predictions.view(), truth.view()).unwrap())
    })
    .unwrap();
    assert_eq!(found, expected);

    let classes = |of: &Array2<bool>| Targets::Classes {
        classes: of.column(0).iter().map(|class| usize::from(*class)).collect(),
        count: 2,
    };
    let (predictions, truth) = (classes(&predictions), classes(&truth));
    let found = interval(Metric::Accuracy, &predictions, &truth, &config, 3).unwrap();
    let value = score(Metric::Accuracy, &predictions, &truth).unwrap();
    assert!(found.low < value && value < found.high && found.level == 0.95);
}

// ---------------------------------------------------------------- targets

#[test]
fn labels_become_targets() {
    let targets = Targets::from_labels(&[Target::Class(2), Target::Class(0)], 3).unwrap();
    assert_eq!(targets, Targets::Classes { classes: vec![2, 0], count: 3 });
    assert_eq!(targets.len(), 2);
    let targets = Targets::from_labels(&[Target::Labels(vec![true, false])], 2).unwrap();
    assert_eq!(targets, Targets::Labels(array![[true, false]]));

    let several = Target::Labels(vec![true, false]);
    let mask = Target::Mask(Array2::zeros((4, 4)));
    for (labels, complaint) in [
        (vec![], "no labels"),
        (
            vec![Target::Class(0), Target::Class(3)],
            "label of sample 1: expected a class below 3, found class 3",
        ),
        (vec![several.clone()], "expected 3 labels, found 2 labels"),
        (vec![Target::Class(0), several], "sample 1"),
        (vec![mask.clone()], "mask"),
        (vec![Target::Class(0), mask], "mask"),
    ] {
        let error = Targets::from_labels(&labels, 3).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn a_metric_for_another_kind_of_label_is_refused() {
    let class = Targets::Classes { classes: vec![1], count: 2 };
    let several = Targets::Labels(array![[true, false]]);
    for (metric, predictions, truth) in [
        (Metric::Accuracy, &several, &several),
        (Metric::MicroF1, &class, &class),
        (Metric::Miou, &class, &class),
        (Metric::Accuracy, &class, &several),
    ] {
        let error = score(metric, predictions, truth).unwrap_err().to_string();
        assert!(error.contains(&metric.to_string()), "{error}");
    }
    let none = Targets::Classes { classes: vec![], count: 2 };
    score(Metric::Accuracy, &none, &none).unwrap_err();
    score(Metric::Accuracy, &class, &none).unwrap_err();
}

// ---------------------------------------------------------------- k-NN

fn config(k: usize, embedding_dtype: EmbeddingDtype) -> KnnConfig {
    KnnConfig::weighted(k, 0.07, embedding_dtype, IntervalConfig::new(0.95, 2000))
}

const SEARCHES: [Search; 2] = [Search::Product, Search::KdTree];

fn predicted_classes(prediction: &Prediction) -> &[usize] {
    match &prediction.targets {
        Targets::Classes { classes, .. } => classes,
        _ => panic!("one class a sample was asked for"),
    }
}

fn predicted_labels(prediction: &Prediction) -> &Array2<bool> {
    match &prediction.targets {
        Targets::Labels(labels) => labels,
        _ => panic!("several labels a sample were asked for"),
    }
}

/// The golden k-NN case and what its tasks look like as targets.
struct KnnCase {
    golden: Golden,
    train: Array2<f32>,
    test: Array2<f32>,
    classes: Targets,
    labels: Targets,
}

impl KnnCase {
    fn load() -> Self {
        let golden = Golden::load("knn");
        KnnCase {
            train: golden.matrix("train"),
            test: golden.matrix("test"),
            classes: Targets::Classes { classes: golden.classes("train_labels"), count: 7 },
            labels: Targets::Labels(golden.labels("multilabel_train_labels")),
            golden,
        }
    }
}

#[test]
fn knn_predicts_the_reference_classes() {
    let case = KnnCase::load();
    let truth = case.golden.classes("test_labels");
    for search in SEARCHES {
        for k in [5, 20] {
            let name = format!("f32/knn{k}");
            let figures = &case.golden.json[&name];
            let config = config(k, EmbeddingDtype::F32);
            let found =
                predict_by(search, &config, case.train.view(), &case.classes, case.test.view()).unwrap();
            let found = predicted_classes(&found);
            let expected = case.golden.classes(&format!("{name}/predictions"));
            for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                match figures["accept"].get(row.to_string()) {
                    Some(accepted) => assert!(accepted.as_array().unwrap().contains(&(*found).into())),
                    None => assert_eq!(found, expected, "{name} row {row}"),
                }
            }
            let value = accuracy(found, &truth).unwrap();
            let tolerance = if found == expected { 1e-7 } else { 0.02 };
            assert_close(value / 100.0, number(&figures["accuracy"]), tolerance, &name);

            let counts = count_classes(&expected, &truth, 7).unwrap();
            for (counts, expected) in counts.iter().zip(numbers(&figures["class_wise_f1"])) {
                assert_close(counts.f1() / 100.0, expected, 1e-7, "class-wise F1");
            }
        }
    }
}

#[test]
fn knn_predicts_the_reference_labels() {
    let case = KnnCase::load();
    let truth = case.golden.labels("multilabel_test_labels");
    for search in SEARCHES {
        for k in [5, 20] {
            let name = format!("f32/knn{k}");
            let figures = &case.golden.json[&name];
            let config = config(k, EmbeddingDtype::F32);
            let found =
                predict_by(search, &config, case.train.view(), &case.labels, case.test.view()).unwrap();
            let found = predicted_labels(&found);
            let expected = case.golden.labels(&format!("{name}/multilabel_predictions"));
            for ((row, label), found) in found.indexed_iter() {
                if figures["multilabel_accept"].get(format!("{row},{label}")).is_none() {
                    assert_eq!(*found, expected[[row, label]], "{name} row {row} label {label}");
                }
            }
            let value = micro_f1(&count_labels(found.view(), truth.view()).unwrap());
            let tolerance = if *found == expected { 1e-7 } else { 0.01 };
            assert_close(value / 100.0, number(&figures["multilabel_micro_f1"]), tolerance, &name);

            let counts = count_labels(expected.view(), truth.view()).unwrap();
            for (counts, expected) in counts.iter().zip(numbers(&figures["multilabel_class_wise_f1"])) {
                assert_close(counts.f1() / 100.0, expected, 1e-7, "class-wise F1");
            }
        }
    }
}

#[test]
fn knn_finds_the_reference_neighbours() {
    let case = KnnCase::load();
    let similarities = case.golden.matrix("f32/top25_similarity");
    let indices = case.golden.integers("f32/top25_index").into_dimensionality::<Ix2>().unwrap();
    for search in SEARCHES {
        let config = config(25, EmbeddingDtype::F32);
        let found = predict_by(search, &config, case.train.view(), &case.classes, case.test.view()).unwrap();
        let found = found.neighbours;
        for ((row, place), expected) in similarities.indexed_iter() {
            let what = format!("row {row} place {place}");
            assert_close(found.similarities[[row, place]].into(), (*expected).into(), 2e-6, &what);
            let near = |other: usize| {
                similarities.get((row, other)).is_some_and(|near| (near - expected).abs() <= 2e-6)
            };
            let tied = near(place + 1) || place > 0 && near(place - 1) || place == 24;
            if !tied {
                assert_eq!(found.indices[[row, place]] as i64, indices[[row, place]], "{what}");
            }
        }
    }
}

#[test]
fn knn_in_bfloat16_differs_from_the_reference_in_ties_only() {
    // In bfloat16 many neighbours are exactly as similar; which of them vote is open in the reference. By our
    // own choice of order, PyTorch's similarities give the same answers as these.
    let case = KnnCase::load();
    let truth = case.golden.labels("multilabel_test_labels");
    for search in SEARCHES {
        for (k, ties, label_ties) in [(5, vec![3, 4, 8], 4), (20, vec![5], 1)] {
            let name = format!("bf16_cpu/knn{k}");
            let config = config(k, EmbeddingDtype::Bf16);
            let (train, test) = (case.train.view(), case.test.view());
            let found = predict_by(search, &config, train, &case.classes, test).unwrap();
            let expected = case.golden.classes(&format!("{name}/predictions"));
            let differing: Vec<usize> =
                (0..100).filter(|row| predicted_classes(&found)[*row] != expected[*row]).collect();
            assert_eq!(differing, ties, "{name}");

            let found = predict_by(search, &config, train, &case.labels, test).unwrap();
            let found = predicted_labels(&found);
            let expected = case.golden.labels(&format!("{name}/multilabel_predictions"));
            let differing = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
            assert_eq!(differing, label_ties, "{name}");
            let value = micro_f1(&count_labels(found.view(), truth.view()).unwrap()) / 100.0;
            assert_close(value, number(&case.golden.json[&name]["multilabel_micro_f1"]), 0.01, &name);
        }
    }
}

#[test]
fn both_searches_find_the_same_neighbours() {
    // More than one block of queries, of train rows and (in the matrix product) of features; copies,
    // multiples, zeros.
    for width in [24, 600] {
        let mut train = random(2500, width, 1);
        let queries = random(300, width, 2);
        for row in 0..200 {
            let copy = train.row(row).to_owned();
            train.row_mut(1000 + row).assign(&copy);
            train.row_mut(2200 + row).assign(&(copy * 3.0));
        }
        train.row_mut(7).fill(0.0);
        train.row_mut(1500).fill(1e-12);
        let labels = Targets::Classes { classes: (0..2500).map(|sample| sample % 17).collect(), count: 17 };
        for dtype in [EmbeddingDtype::F32, EmbeddingDtype::Bf16] {
            let found =
                |search| predict_by(search, &config(20, dtype), train.view(), &labels, queries.view());
            assert_eq!(found(Search::Product).unwrap(), found(Search::KdTree).unwrap(), "{dtype:?}");
        }
    }
}

#[test]
fn knn_is_the_same_with_any_number_of_threads() {
    let train = random(3000, 65, 3);
    let queries = random(500, 65, 4);
    let labels = Targets::Labels(random(3000, 9, 5).mapv(|x| x > 0.2));
    for search in SEARCHES {
        for dtype in [EmbeddingDtype::F32, EmbeddingDtype::Bf16] {
            let with = |threads| {
                with_threads(threads, || {
                    predict_by(search, &config(20, dtype), train.view(), &labels, queries.view()).unwrap()
                })
            };
            let one = with(1);
            assert_eq!(one, with(2));
            assert_eq!(one, with(2), "and again");
        }
    }
}

#[test]
fn neighbours_are_the_most_similar_rows_in_order() {
    let train = random(1500, 40, 6);
    let queries = random(20, 40, 7);
    let labels = Targets::Classes { classes: vec![0; 1500], count: 1 };
    let found = predict(&config(9, EmbeddingDtype::F32), train.view(), &labels, queries.view()).unwrap();
    for (row, query) in queries.rows().into_iter().enumerate() {
        let cosine = |index: usize| {
            let (mut dot, mut a, mut b) = (0.0f64, 0.0f64, 0.0f64);
            for (x, y) in query.iter().zip(train.row(index)) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                (dot, a, b) = (dot + x * y, a + x * x, b + y * y);
            }
            dot / (a.sqrt() * b.sqrt())
        };
        let mut all: Vec<(f64, usize)> = (0..1500).map(|index| (cosine(index), index)).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (place, (similarity, index)) in all.into_iter().take(9).enumerate() {
            assert_eq!(found.neighbours.indices[[row, place]], index);
            assert_close(found.neighbours.similarities[[row, place]].into(), similarity, 1e-6, "similarity");
        }
    }
}

#[test]
fn of_equally_similar_neighbours_the_first_count() {
    let same = Array2::from_shape_fn((40, 3), |(_, column)| [1.0, 2.0, 3.0][column]);
    let labels = Targets::Classes { classes: (0..40).rev().collect(), count: 40 };
    for search in SEARCHES {
        let found =
            predict_by(search, &config(4, EmbeddingDtype::F32), same.view(), &labels, same.view()).unwrap();
        for row in 0..40 {
            assert_eq!(found.neighbours.indices.row(row).to_vec(), [0, 1, 2, 3]);
        }
        // Four classes with equal sums: the lowest wins.
        assert!(predicted_classes(&found).iter().all(|class| *class == 36));
    }
}

#[test]
fn a_tied_vote_is_the_lowest_class_and_no_label() {
    let train = array![[1.0, 0.0], [1.0, 0.0]];
    let query = array![[2.0, 1.0]];
    let classes = Targets::Classes { classes: vec![4, 2], count: 5 };
    let labels = Targets::Labels(array![[true, true, false], [false, true, false]]);
    for search in SEARCHES {
        for dtype in [EmbeddingDtype::F32, EmbeddingDtype::Bf16] {
            let config = config(2, dtype);
            let found = predict_by(search, &config, train.view(), &classes, query.view()).unwrap();
            assert_eq!(predicted_classes(&found), [2]);
            let found = predict_by(search, &config, train.view(), &labels, query.view()).unwrap();
            assert_eq!(*predicted_labels(&found), array![[false, true, false]]);
        }
    }
}

#[test]
fn a_nearer_neighbour_outweighs_two_farther_ones() {
    let train = array![[1.0, 0.1], [1.0, 1.0], [1.0, 1.0]];
    let labels = Targets::Classes { classes: vec![1, 0, 0], count: 2 };
    let query = array![[1.0, 0.0]];
    let near = predict(&config(3, EmbeddingDtype::F32), train.view(), &labels, query.view()).unwrap();
    assert_eq!(predicted_classes(&near), [1]);
    let flat = KnnConfig { temperature: Some(10.0), ..config(3, EmbeddingDtype::F32) };
    let flat = predict(&flat, train.view(), &labels, query.view()).unwrap();
    assert_eq!(predicted_classes(&flat), [0]);
}

#[test]
fn few_train_samples_and_a_single_class_are_fine() {
    let train = random(3, 8, 10);
    let queries = random(5, 8, 11);
    let labels = Targets::Classes { classes: vec![6; 3], count: 10 };
    for search in SEARCHES {
        let config = config(20, EmbeddingDtype::F32);
        let found = predict_by(search, &config, train.view(), &labels, queries.view()).unwrap();
        assert_eq!(found.neighbours.indices.dim(), (5, 3));
        assert_eq!(predicted_classes(&found), [6; 5]);
        let none = predict_by(search, &config, train.view(), &labels, Array2::zeros((0, 8)).view()).unwrap();
        assert!(none.targets.is_empty());
    }
}

#[test]
fn features_that_are_not_finite_are_named() {
    let good = random(30, 8, 12);
    let labels = Targets::Classes { classes: vec![0; 30], count: 1 };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut bad = good.clone();
        bad[[17, 3]] = value;
        bad[[22, 0]] = value;
        for dtype in [EmbeddingDtype::F32, EmbeddingDtype::Bf16] {
            let config = config(5, dtype);
            let error = predict(&config, bad.view(), &labels, good.view()).unwrap_err().to_string();
            assert!(error.contains("train sample 17"), "{error}");
            let error = predict(&config, good.view(), &labels, bad.view()).unwrap_err().to_string();
            assert!(error.contains("query sample 17"), "{error}");
        }
    }
    // Large but finite ones are no problem.
    let large = good.mapv(|x| x * 1e37);
    let config = config(5, EmbeddingDtype::F32);
    let found = predict(&config, large.view(), &labels, large.view()).unwrap();
    assert!(found.neighbours.similarities.iter().all(|similarity| similarity.is_finite()));
    assert_eq!(
        found.neighbours.indices.column(0).to_owned(),
        Array1::from_iter(0..30),
        "each is its own neighbour"
    );
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let train = random(4, 8, 13);
    let labels = Targets::Classes { classes: vec![0, 1, 0, 1], count: 2 };
    let config = config(2, EmbeddingDtype::F32);
    let refused = |config: &KnnConfig, train: &Array2<f32>, labels: &Targets, queries: &Array2<f32>| {
        for search in SEARCHES {
            predict_by(search, config, train.view(), labels, queries.view()).unwrap_err();
        }
    };
    refused(&config, &train, &labels, &random(4, 7, 1));
    refused(&config, &random(3, 8, 1), &labels, &train);
    refused(&config, &train, &Targets::Classes { classes: vec![0, 1, 2, 1], count: 2 }, &train);
    refused(&config, &random(0, 8, 1), &Targets::Classes { classes: vec![], count: 2 }, &train);
    refused(&config, &random(4, 0, 1), &labels, &random(4, 0, 1));
    refused(&KnnConfig { k: 0, ..config.clone() }, &train, &labels, &train);
    for temperature in [0.0, -0.07, f32::NAN, 0.001] {
        let temperature = Some(temperature);
        refused(&KnnConfig { temperature, ..config.clone() }, &train, &labels, &train);
    }
}
