//! UPerNet on maps of numbers against Copernicus-Bench's own regression task: loss and gradients, transforms of targets, the first
//! batch, a prediction and a short training. `tests/fixtures/regression/golden.json` holds the reference's numbers.

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, Array3, ArrayD, Axis, Ix3, Ix4, concatenate};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use terrabench::config::Schedule;
use terrabench::metrics::Metric;
use terrabench::metrics::regression::{ErrorSums, mean_over_batches};
use terrabench::nn::heads::layers::Pass;
use terrabench::nn::heads::upernet::{Logits, MapLevel, UperNet, UperNetConfig};
use terrabench::nn::loss::{PixelValues, absolute_error};
use terrabench::nn::resample::{Corners, resize};
use terrabench::score::decision::first_best;
use terrabench::task::{TargetInterpolation, TargetStatistics};
use terrabench::train::optim::{Optimizer, Pace, Rule};
use terrabench::train::schedule::Position;
use terrabench::train::state::{self, State};
use terrabench::transform::augment::{Dihedral, Turn};

use crate::golden::{close, floats, json, numbers};

const SIDE: usize = 56;

fn arrays() -> State {
    floats("regression/io.safetensors")
}

fn golden() -> Value {
    json("regression/golden.json")
}

fn device() -> Device {
    Device::flex().autodiff()
}

/// [n, c, h, w] as a tensor.
fn tensor(array: &ArrayD<f32>) -> Tensor<4> {
    let data = TensorData::new(array.iter().copied().collect::<Vec<f32>>(), array.shape().to_vec());
    Tensor::from_data(data, &device())
}

fn array(x: Tensor<4>) -> ArrayD<f32> {
    let shape = x.dims().to_vec();
    ArrayD::from_shape_vec(shape, x.into_data().try_into_vec().unwrap()).unwrap()
}

fn scalar(x: &Tensor<1>) -> f64 {
    f64::from(x.to_data().try_into_vec::<f32>().unwrap()[0])
}

/// Maps [n, 1, h, w] as the loss takes them.
fn values(maps: &ArrayD<f32>) -> PixelValues {
    let maps = maps.view().into_dimensionality::<Ix4>().unwrap();
    PixelValues::new(maps.index_axis(Axis(1), 0), &device())
}

fn f(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[track_caller]
fn near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected}");
}

// Loss ----------------------------------------------------------------------------------------------------------------

/// [n, 1, h, w] to [n, h, w, 1] with a gradient to ask for.
fn tracked(maps: &ArrayD<f32>) -> Tensor<4> {
    tensor(maps).permute([0, 2, 3, 1]).require_grad()
}

#[test]
fn loss_error_and_gradients_of_maps_are_the_reference_s() {
    let (io, golden) = (arrays(), golden());
    for (case, target) in [("masked_masknan", "masked"), ("full_masknan", "full"), ("full_plain", "full")] {
        let expected = &golden["loss"][case];
        let target = &io[&format!("loss.target_{target}")];
        let (main, auxiliary) = (tracked(&io["loss.main"]), tracked(&io["loss.aux"]));
        let truth = values(target);
        let loss = absolute_error(main.clone(), &truth) + absolute_error(auxiliary.clone(), &truth) * 0.4;
        let stated = f(&expected["loss"]);
        near(case, scalar(&loss), stated, 1e-6 * stated);

        let gradients = loss.backward();
        for (name, map) in [("main", main), ("aux", auxiliary)] {
            let found = array(map.grad(&gradients).unwrap().permute([0, 3, 1, 2]));
            close(&format!("{case} {name}"), &found, &io[&format!("loss.{case}.grad_{name}")], 1e-8);
            for (gradient, truth) in found.iter().zip(target) {
                assert!(!truth.is_nan() || *gradient == 0.0, "{case}: a gradient where nothing is measured");
            }
        }
        let std = f(&expected["std"]);
        let sums = ErrorSums::of_arrays(io["loss.main"].view(), target.view(), |x| x * std).unwrap();
        near(case, sums.rmse().unwrap(), f(&expected["exact_rmse"]), 1e-6 * sums.rmse().unwrap());
    }
}

#[test]
fn a_batch_in_which_nothing_is_measured_has_no_loss_and_says_so() {
    let nothing = Array3::from_elem((2, 4, 4), f32::NAN);
    let truth = PixelValues::new(nothing.view(), &device());
    assert_eq!(truth.measured(), 0);
    assert!(scalar(&absolute_error(Tensor::ones([2, 4, 4, 1], &device()), &truth)).is_nan());
    assert!(golden()["loss"]["all_nan"]["loss"].is_null());
}

// Transforms ----------------------------------------------------------------------------------------------------------

/// What was drawn for a training sample: the angle, and whether it was flipped.
fn drawn(steps: &Value) -> (f64, Vec<Dihedral>) {
    let done = |name: &str| {
        let step = steps.as_array().unwrap().iter().find(|step| step[0] == name).unwrap();
        (f(&step[1]["batch_prob"][0]) == 1.0).then(|| step[1].clone())
    };
    let degrees = done("RandomRotation").map_or(0.0, |step| f(&step["degrees"][0]));
    let flips =
        [("RandomHorizontalFlip", Dihedral::FlipHorizontal), ("RandomVerticalFlip", Dihedral::FlipVertical)];
    let flips = flips.into_iter().filter(|(name, _)| done(name).is_some()).map(|(_, flip)| flip);
    (degrees, flips.collect())
}

#[test]
fn targets_are_normalised_and_turned_as_the_reference_does() {
    let (io, golden) = (arrays(), golden());
    let mut turned = 0;
    for case in golden["transform"].as_array().unwrap() {
        let (task, name) = (case["task"].as_str().unwrap(), case["tensors"].as_str().unwrap());
        // Of the reference's configuration.
        let (mean, std, interpolation) = match task {
            "biomass_s3" => (92.3196, 117.8162, TargetInterpolation::Nearest),
            "aqno2_s5p" => (5.3167, 3.9948, TargetInterpolation::Bilinear),
            "aqo3_s5p" => (4_654.263, 2589.4207, TargetInterpolation::Bilinear),
            other => panic!("{other}"),
        };
        let statistics = TargetStatistics { mean, std };
        let map = |name: &str| -> Array2<f32> {
            let array = io[name].clone();
            let side = *array.shape().last().unwrap();
            array.into_shape_with_order((side, side)).unwrap()
        };
        let mut target = map(&format!("transform.{task}.raw_target")).mapv(|x| statistics.normalize(x));
        let upright = &io[&format!("transform.{task}.test.0.image")];
        let mut image = upright.clone().into_dimensionality::<Ix3>().unwrap();
        if case["split"] == "train" {
            let (degrees, flips) = drawn(&case["steps"]);
            let rotation =
                Turn { dihedral: Dihedral::Identity, degrees: Some(degrees).filter(|d| *d != 0.0) };
            (target, image) = (rotation.values(target, interpolation), rotation.image(image));
            for dihedral in flips {
                let flip = Turn { dihedral, degrees: None };
                (target, image) = (flip.values(target, interpolation), flip.image(image));
            }
            turned += 1;
        }
        let expected = map(&format!("{name}.target"));
        let nan = |map: &Array2<f32>| map.mapv(f32::is_nan);
        assert_eq!(nan(&target), nan(&expected), "{name}: where nothing is measured");
        let measured = |map: &Array2<f32>| map.mapv(|x| if x.is_nan() { 0.0 } else { x }).into_dyn();
        close(name, &measured(&target), &measured(&expected), 2e-5);
        close(name, &image.into_dyn(), &io[&format!("{name}.image")], 2e-5);
    }
    assert!(turned >= 9, "{turned}");
}

// Network and training ------------------------------------------------------------------------------------------------

fn network(io: &State, stage: &str) -> UperNet {
    let config =
        UperNetConfig { channels: 12, auxiliary_channels: 8, dropout: 0.0, ..UperNetConfig::default() };
    let net = UperNet::new(&config, &[MapLevel { width: 16, stride: 8 }; 4], 1, 0, &device()).unwrap();
    state::load(net, &part(io, stage)).unwrap()
}

/// The arrays whose names begin with `stage`, without it.
fn part(io: &State, stage: &str) -> State {
    let stage = format!("{stage}.");
    let inside = io.iter().filter_map(|(name, array)| Some((name.strip_prefix(&stage)?, array)));
    inside.map(|(name, array)| (name.to_owned(), array.clone())).collect()
}

/// The maps of these samples, shallowest first.
fn maps(io: &State, samples: &[usize]) -> Vec<Tensor<4>> {
    let all = &io["features"];
    let of = |level| all.index_axis(Axis(1), level).select(Axis(0), samples);
    (0..4).map(|level| tensor(&of(level))).collect()
}

fn targets(io: &State, samples: &[usize]) -> ArrayD<f32> {
    io["targets"].select(Axis(0), samples)
}

/// A head's map in the targets' size, [n, 1, h, w].
fn full(map: &Tensor<4>) -> ArrayD<f32> {
    array(resize(map.clone(), [SIDE, SIDE], Corners::HalfPixel).permute([0, 3, 1, 2]))
}

/// The sums of each image's errors, in the task's unit.
fn errors(predicted: &ArrayD<f32>, truth: &ArrayD<f32>, std: f64) -> Vec<ErrorSums> {
    let images = predicted.outer_iter().zip(truth.outer_iter());
    images.map(|(predicted, truth)| ErrorSums::of_arrays(predicted, truth, |x| x * std).unwrap()).collect()
}

fn norm<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> f64 {
    numbers.into_iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// The relative distance of two arrays.
fn apart(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> f64 {
    norm(&(found - expected)) / norm(expected)
}

/// Cancelled by the norm behind them.
const WITHOUT_GRADIENT: [&str; 3] =
    ["neck.upsample_4x.0.bias", "neck.upsample_4x.3.bias", "neck.upsample_2x.0.bias"];

#[test]
fn the_first_batch_gives_the_reference_maps_losses_and_gradients() {
    let (io, golden) = (arrays(), golden());
    let batch: Vec<usize> =
        numbers(&golden["train"]["first_batch"]["indices"]).into_iter().map(|i| i as usize).collect();
    let mut random = ChaCha8Rng::seed_from_u64(0);
    for mode in ["eval", "train"] {
        let net = network(&io, "start");
        let mut pass = if mode == "eval" { Pass::Eval } else { Pass::Train(&mut random) };
        let logits = net.forward(maps(&io, &batch), &mut pass).unwrap();
        let Logits { decoder, auxiliary } = &logits;
        close(mode, &full(decoder), &io[&format!("{mode}.main")], 1e-5);
        close(mode, &full(auxiliary), &io[&format!("{mode}.aux")], 1e-5);
        let loss = net.value_loss(logits, &values(&targets(&io, &batch)));
        near(mode, scalar(&loss), f(&golden["train"]["first_batch"][format!("{mode}_loss")]), 2e-6);
        let found = state::gradients(&net, &loss.backward());
        let expected = part(&io, &format!("{mode}.grad"));
        assert!(expected.len() > 40, "{}", expected.len());
        for (name, expected) in &expected {
            if mode == "train" && WITHOUT_GRADIENT.contains(&name.as_str()) {
                assert!(norm(&found[name]) < 1e-6, "{name}: {}", norm(&found[name]));
            } else {
                let apart = apart(&found[name], expected);
                assert!(apart <= 1e-5, "{mode} {name}: relative difference {apart:e}");
            }
        }
    }
}

#[test]
fn the_best_epoch_predicts_the_reference_test_maps_and_errors() {
    let (io, golden) = (arrays(), golden());
    let test = &golden["train"]["test"];
    let (std, samples): (f64, Vec<usize>) = (f(&golden["train"]["config"]["std"]), (19..26).collect());
    let logits = network(&io, "best").forward(maps(&io, &samples), &mut Pass::Eval).unwrap();
    let predicted = full(&logits.decoder);
    close("prediction", &predicted, &io["test.prediction"], 1e-5);
    let images = errors(&predicted, &targets(&io, &samples), std);
    let all: ErrorSums = images.iter().sum();
    assert_eq!(all.count, test["valid_pixels"].as_u64().unwrap());
    near("exact RMSE", all.rmse().unwrap(), f(&test["exact_rmse"]), 1e-5);
    near("exact MAE", all.mae().unwrap() / std, f(&test["exact_l1_normalised"]), 1e-5);
    let reported = mean_over_batches(Metric::Rmse, &images, 4).unwrap();
    near("reported RMSE", reported, f(&test["reported"]["test_rmse_epoch"]), 1e-5);
}

#[test]
fn a_training_follows_the_reference_and_keeps_the_epoch_of_the_lowest_error() {
    let (io, golden) = (arrays(), golden());
    let golden = &golden["train"];
    let config = &golden["config"];
    let (std, peak) = (f(&config["std"]), f(&config["lr"]));
    let schedule = Schedule::OneCycle {
        warmup_epochs: 0,
        start_divisor: 25.0,
        final_divisor: 1e4,
        momentum: [0.85, 0.95],
    };
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let (mut net, mut optimizer) = (network(&io, "start"), Optimizer::new(Rule::ADAMW));
    let (mut losses, mut rates, mut validation) = (Vec::new(), Vec::new(), Vec::new());
    let mut best: Option<(f64, State)> = None;
    for (epoch, order) in config["orders"].as_array().unwrap().iter().enumerate() {
        let order: Vec<usize> = numbers(order).into_iter().map(|i| i as usize).collect();
        let batches = order.len() / 4;
        for (batch, samples) in order.chunks_exact(4).enumerate() {
            let logits = net.forward(maps(&io, samples), &mut Pass::Train(&mut random)).unwrap();
            let loss = net.value_loss(logits, &values(&targets(&io, samples)));
            losses.push(scalar(&loss));
            let at = schedule.at(peak, Position { epoch, epochs: 4, batch, batches });
            let pace = Pace { learning_rate: at.learning_rate, momentum: at.momentum.unwrap() };
            rates.push([pace.learning_rate, pace.momentum]);
            net = optimizer.step(net, &mut loss.backward(), pace);
        }
        let samples: Vec<usize> = (13..19).collect();
        // As the reference scores them: batches of 4 and of 2.
        let predicted: Vec<ArrayD<f32>> = samples
            .chunks(4)
            .map(|batch| full(&net.forward(maps(&io, batch), &mut Pass::Eval).unwrap().decoder))
            .collect();
        let predicted =
            concatenate(Axis(0), &predicted.iter().map(ArrayD::view).collect::<Vec<_>>()).unwrap();
        let images = errors(&predicted, &targets(&io, &samples), std);
        let error = mean_over_batches(Metric::Rmse, &images, 4).unwrap();
        validation.push(error);
        if best.as_ref().is_none_or(|(other, _)| Metric::Rmse.better().is_better(error, *other)) {
            best = Some((error, state::state(&net)));
        }
    }
    for (found, expected) in losses.iter().zip(numbers(&golden["train_loss_per_step"])) {
        near("loss", *found, expected, 2e-6);
    }
    for (found, expected) in rates.iter().zip(golden["lr_and_beta1_per_step"].as_array().unwrap()) {
        for (found, expected) in found.iter().zip(numbers(expected)) {
            near("rate", *found, expected, 1e-12);
        }
    }
    for (found, expected) in validation.iter().zip(golden["epochs"].as_array().unwrap()) {
        near("validation RMSE", *found, f(&expected["val_rmse"]), 5e-3);
    }
    assert_eq!(
        first_best(Metric::Rmse.better(), validation),
        Some(golden["best_epoch"].as_u64().unwrap() as usize)
    );

    let trained = state::state(&net);
    let loose = [
        "neck.upsample_4x.1.running_mean",
        "decoder.lateral_convs.0.bn.running_mean",
        "decoder.lateral_convs.1.bn.running_mean",
    ];
    for (name, expected) in part(&io, "final") {
        if !WITHOUT_GRADIENT.contains(&&*name) && !loose.contains(&&*name) {
            let apart = apart(&trained[&name], &expected);
            assert!(apart <= 1e-4, "{name}: relative difference {apart:e}");
        }
    }
    let best = state::load(net, &best.unwrap().1).unwrap();
    let samples: Vec<usize> = (19..26).collect();
    let logits = best.forward(maps(&io, &samples), &mut Pass::Eval).unwrap();
    let images = errors(&full(&logits.decoder), &targets(&io, &samples), std);
    let exact = images.iter().sum::<ErrorSums>().rmse().unwrap();
    near("exact RMSE", exact, f(&golden["test"]["exact_rmse"]), 5e-3);
    let reported = mean_over_batches(Metric::Rmse, &images, 4).unwrap();
    near("reported RMSE", reported, f(&golden["test"]["reported"]["test_rmse_epoch"]), 5e-3);
}
