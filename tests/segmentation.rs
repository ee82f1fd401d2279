//! Galileo's pixel probe and the scores of masks, against the references' own numbers.

use crate::golden::{close, floats, integers, json, numbers};
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array3, ArrayD, Axis, Ix3, Slice};
use terrabench::metrics::mean_over_batches;
use terrabench::metrics::segmentation::{Confusion, mean_iou_over_batches};
use terrabench::nn::heads::pixel_linear::{PixelLinear, patch_side, unpatch};
use terrabench::nn::heads::predictions;
use terrabench::nn::loss::{PixelLabels, cross_entropy};
use terrabench::nn::resample::{Corners, resize};
use terrabench::train::optim::{Optimizer, Pace, Rule};
use terrabench::train::state::{self, State};

fn device() -> Device {
    Device::flex().autodiff()
}

fn tensor<const D: usize>(array: &ArrayD<f32>) -> Tensor<D> {
    let data = TensorData::new(array.iter().copied().collect::<Vec<f32>>(), array.shape().to_vec());
    Tensor::from_data(data, &device())
}

fn array<const D: usize>(x: Tensor<D>) -> ArrayD<f32> {
    let shape = x.dims().to_vec();
    ArrayD::from_shape_vec(shape, x.into_data().try_into_vec().unwrap()).unwrap()
}

/// [n, c, h, w] to a tensor [n, h, w, c], and back.
fn channels_last(x: &ArrayD<f32>) -> Tensor<4> {
    tensor::<4>(x).permute([0, 2, 3, 1])
}

fn channels_first(x: Tensor<4>) -> ArrayD<f32> {
    array(x.permute([0, 3, 1, 2]))
}

fn mask(array: &ArrayD<i64>) -> Array3<i32> {
    array.mapv(|x| i32::try_from(x).unwrap()).into_dimensionality().unwrap()
}

fn rows<A: Clone>(array: &ArrayD<A>, from: isize, to: isize) -> ArrayD<A> {
    array.slice_axis(Axis(0), Slice::new(from, Some(to), 1)).into_owned()
}

#[test]
fn tokens_are_laid_out_class_by_class() {
    let golden = floats("protocols/segmentation.safetensors");
    let pixels = unpatch(tensor(&golden["unpatch/input"]), [3, 3], 3, 2);
    close("unpatch", &channels_first(pixels.clone()), &golden["unpatch/output"], 0.0);
    for size in [[11, 7], [4, 4], [8, 8]] {
        let expected = &golden[&format!("unpatch/resized_{}x{}", size[0], size[1])];
        close("resize", &channels_first(resize(pixels.clone(), size, Corners::Aligned)), expected, 5e-6);
    }
    let index = integers("protocols/segmentation.safetensors")["unpatch/index"].mapv(|x| x as f32);
    let flat = ArrayD::from_shape_vec(vec![1, 9, 12], (0..108).map(|x| x as f32).collect()).unwrap();
    close("index", &channels_first(unpatch(tensor(&flat), [3, 3], 3, 2)), &index, 0.0);
}

#[test]
fn cross_entropy_ignores_what_it_is_told_to() {
    let (golden, stated) =
        (floats("protocols/segmentation.safetensors"), json("protocols/segmentation.json"));
    let integers = integers("protocols/segmentation.safetensors");
    let (labels, ignored) = (&integers["cross_entropy/labels"], &integers["cross_entropy/ignored"]);
    for ignore in [Some(-1), Some(255), Some(-100), None] {
        let name = ignore.map_or("ignore_none".to_owned(), |ignore| format!("ignore_{ignore}"));
        let mut labels = mask(labels);
        if let Some(ignore) = ignore {
            labels.zip_mut_with(&mask(ignored), |label, skip| {
                if *skip == 1 {
                    *label = ignore;
                }
            });
        }
        let logits = channels_last(&golden["cross_entropy/logits"]).require_grad();
        let labels = PixelLabels::new(labels.view(), 3, ignore, &device()).unwrap();
        let loss = cross_entropy(logits.clone(), &labels);
        let found = f64::from(array(loss.clone())[0]);
        let expected = stated["cross_entropy"][&name].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-6, "{name}: {found}, expected {expected}");
        let gradient = channels_first(logits.grad(&loss.backward()).unwrap());
        close(&name, &gradient, &golden[&format!("cross_entropy/gradient_{name}")], 1e-7);
    }
    let none = PixelLabels::new(Array3::from_elem((2, 4, 4), -1).view(), 3, Some(-1), &device()).unwrap();
    assert_eq!(none.counting(), 0);
    let loss = cross_entropy(channels_last(&golden["cross_entropy/logits"]), &none);
    assert!(stated["cross_entropy"]["all_ignored"].is_null() && array(loss)[0].is_nan());
}

#[test]
fn labels_out_of_range_are_told() {
    let message = |label, ignore| {
        let labels = Array3::from_elem((1, 2, 2), label);
        PixelLabels::new(labels.view(), 7, ignore, &device()).unwrap_err().to_string()
    };
    assert!(message(7, Some(-1)).contains("expected labels from 0 to 6 or -1 (ignored), found 7"));
    assert!(message(-2, None).contains("expected labels from 0 to 6, found -2"));
}

/// Galileo's loop: two batches an epoch, the rates of its schedule.
fn train(name: &str) {
    let golden = floats("protocols/segmentation.safetensors");
    let stated = &json("protocols/segmentation.json")[name];
    let labels = mask(&integers("protocols/segmentation.safetensors")[&format!("{name}/labels")]);
    let number = |key: &str| usize::try_from(stated[key].as_u64().unwrap()).unwrap();
    let (classes, side) = (number("num_classes"), number("label_side"));
    let item = |key: &str| golden[&format!("{name}/{key}")].clone();
    assert_eq!(patch_side(8, number("grid")), number("patch"));

    let head = PixelLinear::new(8, classes, number("patch"), &device());
    let start = State::from([
        ("linear.weight".to_owned(), item("init/weight")),
        ("linear.bias".to_owned(), item("init/bias")),
    ]);
    let mut head = state::load(head, &start).unwrap();
    let mut optimizer = Optimizer::new(Rule::ADAMW);
    let tokens = |from, to| tensor::<3>(&rows(&item("embeddings"), from, to));
    let of = |from: isize, to: isize| {
        rows(&labels.clone().into_dyn(), from, to).into_dimensionality::<Ix3>().unwrap()
    };
    let losses = numbers(&stated["loss_per_step"]);
    for (step, (expected, rate)) in losses.into_iter().zip(numbers(&stated["lr_per_step"])).enumerate() {
        let (from, to) = if step % 2 == 0 { (0, 4) } else { (4, 8) };
        let labels = PixelLabels::new(of(from, to).view(), classes, Some(-1), &device()).unwrap();
        let loss = cross_entropy(head.forward(tokens(from, to), side).unwrap(), &labels);
        let found = f64::from(array(loss.clone())[0]);
        assert!((found - expected).abs() < 1e-5, "step {step}: {found}, expected {expected}");
        let pace = Pace { learning_rate: rate, momentum: 0.9 };
        head = optimizer.step(head, &mut loss.backward(), pace);
    }
    let end = state::state(&head);
    close("weight", &end["linear.weight"], &item("final/weight"), 1e-4);
    close("bias", &end["linear.bias"], &item("final/bias"), 1e-4);

    let predicted = predictions(head.forward(tokens(8, 12), side).unwrap());
    let mut confusion = Confusion::new(classes, Some(-1));
    confusion.add(of(8, 12).view(), predicted.view()).unwrap();
    let expected = 100.0 * stated["test_mean_iou"].as_f64().unwrap();
    assert!((confusion.mean_iou().unwrap() - expected).abs() < 0.5, "{:?} {expected}", confusion.mean_iou());
}

#[test]
fn the_probe_trains_as_the_reference() {
    train("train_a");
}

#[test]
fn the_probe_trains_as_the_reference_where_logits_are_resized() {
    train("train_b");
}

#[test]
fn tokens_that_are_no_square_are_told() {
    let head = PixelLinear::new(8, 3, 2, &device());
    let error = head.forward(Tensor::zeros([1, 15, 8], &device()), 8).unwrap_err();
    assert!(error.to_string().contains("expected a square grid of patch tokens, found 15 tokens"));
}

/// The masks of the reference run, `ignore` written where its labels are ignored.
fn masks(ignore: Option<i32>) -> (Array3<i32>, Array3<i32>) {
    let integers = integers("protocols/metrics.safetensors");
    let mut labels = mask(&integers["seg/labels"]);
    if let Some(ignore) = ignore {
        labels.zip_mut_with(&mask(&integers["seg/ignored"]), |label, skip| {
            if *skip == 1 {
                *label = ignore;
            }
        });
    }
    (labels, mask(&integers["seg/predictions"]))
}

fn confusion(
    labels: &Array3<i32>,
    predictions: &Array3<i32>,
    classes: usize,
    ignore: Option<i32>,
) -> Confusion {
    let mut confusion = Confusion::new(classes, ignore);
    confusion.add(labels.view(), predictions.view()).unwrap();
    confusion
}

/// The same of each batch of 16.
fn batches(labels: &Array3<i32>, predictions: &Array3<i32>, ignore: Option<i32>) -> Vec<Confusion> {
    let chunks = labels.axis_chunks_iter(Axis(0), 16).zip(predictions.axis_chunks_iter(Axis(0), 16));
    let count = |(labels, predictions): (ndarray::ArrayView3<i32>, ndarray::ArrayView3<i32>)| {
        confusion(&labels.to_owned(), &predictions.to_owned(), 7, ignore)
    };
    chunks.map(count).collect()
}

#[track_caller]
fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found}, expected {expected}");
}

#[test]
fn exact_and_reported_scores_are_those_of_torchmetrics() {
    let golden = json("protocols/metrics.json");
    // (name, the labels' ignore value, the metric's)
    let cases = [
        ("ignore_255", Some(255), Some(255)),
        ("ignore_-100", Some(-100), Some(-100)),
        ("ignore_none", None, None),
        ("ignore_2_in_range", None, Some(2)),
    ];
    for (name, written, ignore) in cases {
        let expected = &golden["seg"]["torchmetrics"][name];
        let (labels, predictions) = masks(written);
        let all = confusion(&labels, &predictions, 7, ignore);
        let scores: [fn(&Confusion) -> terrabench::Result<f64>; 2] =
            [Confusion::mean_iou, Confusion::pixel_accuracy];
        let batches = batches(&labels, &predictions, ignore);
        for (i, score) in scores.into_iter().enumerate() {
            near(score(&all).unwrap(), numbers(&expected["dataset"])[i], 1e-3);
            let mut per_batch = numbers(&expected["per_batch"][i]).into_iter();
            let mean = mean_over_batches(labels.len_of(Axis(0)), 16, |batch| {
                let found = score(&batches[batch.start / 16])?;
                near(found, per_batch.next().unwrap(), 1e-3);
                Ok(found)
            });
            near(mean.unwrap(), numbers(&expected["epoch_mean"])[i], 1e-3);
            assert!(per_batch.next().is_none());
        }
        // The same, image by image.
        let images: Vec<Confusion> = (labels.outer_iter().zip(predictions.outer_iter()))
            .map(|(labels, predictions)| {
                let mut image = Confusion::new(7, ignore);
                image.add(labels, predictions).unwrap();
                image
            })
            .collect();
        near(mean_iou_over_batches(&images, 16).unwrap(), numbers(&expected["epoch_mean"])[0], 1e-3);
        for (class, (found, expected)) in
            all.iou().into_iter().zip(numbers(&expected["iou_per_class"])).enumerate()
        {
            if ignore != i32::try_from(class).ok() {
                near(found.unwrap_or(0.0), 100.0 * expected, 1e-3);
            }
        }
        let mut merged = Confusion::new(7, ignore);
        batches.iter().for_each(|batch| merged.merge(batch));
        assert_eq!(merged, all);
    }
}

#[test]
fn batches_in_which_nothing_counts_have_no_part_in_the_mean() {
    let image = |labels: [i32; 4]| {
        let mut image = Confusion::new(2, Some(-1));
        image.add(ndarray::aview1(&labels), ndarray::aview1(&[0, 0, 1, 1])).unwrap();
        image
    };
    let (right, wrong, ignored) = (image([0, 0, 1, 1]), image([1, 1, 0, 0]), image([-1; 4]));
    let images =
        [right, ignored.clone(), wrong.clone(), ignored.clone(), ignored.clone(), ignored.clone(), wrong];
    // Batches of 2, 2, 2, 1: 100, 0, nothing, 0.
    near(mean_iou_over_batches(&images, 2).unwrap(), 200.0 / 5.0, 1e-9);
    mean_iou_over_batches(&[ignored], 2).unwrap_err();
    mean_iou_over_batches(&images, 0).unwrap_err();
    mean_iou_over_batches(&[], 2).unwrap_err();
}

#[test]
fn mean_iou_is_that_of_galileo() {
    let golden = json("protocols/metrics.json");
    let expected = &golden["seg"]["galileo_mean_iou"];
    let score = |written, ignore| {
        let (labels, predictions) = masks(written);
        confusion(&labels, &predictions, 7, ignore).mean_iou().unwrap()
    };
    let expect = |found: f64, name: &str| near(found, 100.0 * expected[name].as_f64().unwrap(), 1e-3);
    expect(score(Some(-1), Some(-1)), "ignore_-1");
    expect(score(None, Some(-1)), "nothing_ignored");
    expect(score(Some(255), Some(-1)), "labels_255_but_ignore_-1");
    let (labels, predictions) = masks(Some(-1));
    let found = batches(&labels, &predictions, Some(-1));
    for (batch, expected) in found.iter().zip(numbers(&expected["per_batch_ignore_-1"])) {
        near(batch.mean_iou().unwrap(), 100.0 * expected, 1e-3);
    }
}

#[test]
fn absent_classes_score_as_in_the_references_and_ignored_masks_not_at_all() {
    let golden = json("protocols/metrics.json");
    let cases = golden["seg"]["tiny"].as_object().unwrap();
    assert_eq!(cases.len(), 5);
    for (name, case) in cases {
        let mask = |key: &str| {
            let values: Vec<i32> = numbers(&case[key][0]).into_iter().map(|x| x as i32).collect();
            Array3::from_shape_vec((1, 1, values.len()), values).unwrap()
        };
        let classes = usize::try_from(case["num_classes"].as_u64().unwrap()).unwrap();
        let found = confusion(&mask("labels"), &mask("predictions"), classes, Some(-1));
        for reference in ["galileo_mean_iou", "torchmetrics_macro_jaccard"] {
            match case[reference].as_f64() {
                Some(expected) => near(found.mean_iou().unwrap(), 100.0 * expected, 1e-3),
                None => assert!(found.mean_iou().is_err() && found.pixel_accuracy().is_err(), "{name}"),
            }
        }
    }
    let mut absent = Confusion::new(3, None);
    absent.add(Array3::zeros((1, 2, 2)).view(), Array3::zeros((1, 2, 2)).view()).unwrap();
    assert_eq!(absent.iou(), [Some(100.0), None, None]);
}

#[test]
fn masks_that_do_not_fit_are_told() {
    let mut confusion = Confusion::new(3, None);
    let add = |confusion: &mut Confusion, side, prediction| {
        let predictions = Array3::from_elem((1, side, side), prediction);
        confusion.add(Array3::zeros((1, 2, 2)).view(), predictions.view()).unwrap_err().to_string()
    };
    assert!(add(&mut confusion, 3, 0).contains("predictions have shape [1, 3, 3]; expected [1, 2, 2]"));
    assert!(add(&mut confusion, 2, 3).contains("predicted as class 3; expected a class below 3"));
}
