//! Heads on frozen features: schedules, the linear probe and logistic regression, against the references' numbers
//! and against their own definitions.

use std::collections::BTreeMap;

use crate::common::fixture;
use crate::source::run_on_features;
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use terrabench::Result;
use terrabench::config::{
    Augmentation, BatchNormConfig, Initialization, IntervalConfig, KeptEpoch, LinearProbeConfig, LogSpaced,
    LogisticConfig, Optimizer, Schedule, SolverConfig,
};
use terrabench::data::{Split, Target};
use terrabench::features::Features;
use terrabench::features::source::FeatureView;
use terrabench::home::Home;
use terrabench::metrics::Better;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::linear_probe::{
    DrawnSample, Heads, Linear, Trained, TrainingSet, probe, shuffled, train, train_from,
};
use terrabench::protocol::logistic::{Design, sweep};
use terrabench::score::Targets;
use terrabench::score::decision::{HeldOut, first_best};
use terrabench::task::Suite;
use terrabench::train::schedule::{OneCycle, Position, WarmupCosine};
use terrabench::transform::augment::Dihedral;

// ---------------------------------------------------------------- golden numbers

struct Golden {
    json: Value,
    bytes: Vec<u8>,
}

impl Golden {
    fn probe() -> Self {
        Self {
            json: json("probe.json"),
            bytes: std::fs::read(fixture("protocols/probe.safetensors")).unwrap(),
        }
    }

    fn matrix(&self, name: &str) -> Array2<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        let values =
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let shape = match *tensor.shape() {
            [n] => (1, n),
            [n, m] => (n, m),
            _ => panic!("{name} has shape {:?}", tensor.shape()),
        };
        Array2::from_shape_vec(shape, values).unwrap()
    }

    fn vector(&self, name: &str) -> Array1<f32> {
        self.matrix(name).row(0).to_owned()
    }

    fn integers(&self, name: &str) -> Vec<usize> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        let value = |b: &[u8]| usize::try_from(i64::from_le_bytes(b.try_into().unwrap())).unwrap();
        tensor.data().chunks_exact(8).map(value).collect()
    }

    fn targets(&self, split: &str, multilabel: bool) -> Targets {
        if multilabel {
            let labels = self.integers(&format!("{split}_multilabels"));
            let labels = Array1::from(labels).into_shape_with_order((labels_rows(split), 5)).unwrap();
            Targets::Labels(labels.mapv(|label| label == 1))
        } else {
            Targets::Classes { classes: self.integers(&format!("{split}_labels")), count: 6 }
        }
    }
}

fn labels_rows(split: &str) -> usize {
    if split == "train" { 96 } else { 20 }
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(&format!("protocols/{name}"))).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key}"))
}

fn count(value: &Value, key: &str) -> usize {
    usize::try_from(value[key].as_u64().unwrap_or_else(|| panic!("no count {key}"))).unwrap()
}

#[track_caller]
fn assert_close(
    what: &str,
    ours: impl IntoIterator<Item = impl Into<f64>>,
    theirs: impl IntoIterator<Item = impl Into<f64>>,
    tolerance: f64,
) {
    let ours: Vec<f64> = ours.into_iter().map(Into::into).collect();
    let theirs: Vec<f64> = theirs.into_iter().map(Into::into).collect();
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}[{i}]: {a}, expected {b} ± {tolerance}");
    }
}

// ---------------------------------------------------------------- schedules

#[test]
fn galileos_schedule_is_reproduced() {
    for (name, golden) in json("schedules.json")["galileo"].as_object().unwrap() {
        let (epochs, iterations) = (count(golden, "epochs"), count(golden, "iterations"));
        let schedule = WarmupCosine {
            max_learning_rate: number(golden, "max_lr"),
            min_learning_rate: number(golden, "min_lr"),
            warmup_epochs: number(golden, "warmup_epochs"),
            epochs: epochs as f64,
        };
        let steps = (0..epochs * iterations).map(|step| {
            schedule.at((step / iterations) as f64 + (step % iterations) as f64 / iterations as f64)
        });
        assert_close(name, steps, numbers(&golden["lr"]), 1e-12);
    }
}

#[test]
fn one_cycle_is_reproduced_with_its_momentum() {
    for (name, golden) in json("schedules.json")["one_cycle"].as_object().unwrap() {
        let (steps, per_epoch) = (count(golden, "total_steps"), count(golden, "steps_per_epoch"));
        let schedule = OneCycle {
            max_learning_rate: number(golden, "max_lr"),
            start_divisor: 25.0,
            final_divisor: 1e4,
            momentum: [0.85, 0.95],
            warmup_steps: per_epoch * count(golden, "warmup_epochs"),
            steps,
        };
        let rates: Vec<_> = (0..steps).map(|step| schedule.at(step)).collect();
        let momentum = golden.get("momentum").unwrap_or(&golden["beta1"]);
        assert_close(name, rates.iter().map(|r| r.learning_rate), numbers(&golden["lr"]), 1e-12);
        assert_close(name, rates.iter().map(|r| r.momentum.unwrap()), numbers(momentum), 1e-12);
        let after = schedule.at(steps);
        assert_close(name, [after.learning_rate], [number(&golden["after_last_step"], "lr")], 1e-12);
    }
}

#[test]
fn a_configured_schedule_runs_over_the_batches_of_all_epochs() {
    let cosine = Schedule::WarmupCosine { warmup: 0.1, min_learning_rate: 1e-5 };
    let golden = &json("schedules.json")["galileo"]["warmup5_min1e-5"];
    let at = |epoch, batch| cosine.at(1e-3, Position { epoch, epochs: 50, batch, batches: 7 }).learning_rate;
    let ours = (0..50).flat_map(|epoch| (0..7).map(move |batch| at(epoch, batch)));
    assert_close("warm-up and cosine", ours, numbers(&golden["lr"]), 1e-12);

    let cycle = Schedule::OneCycle {
        warmup_epochs: 3,
        start_divisor: 25.0,
        final_divisor: 1e4,
        momentum: [0.85, 0.95],
    };
    let golden = &json("schedules.json")["one_cycle"]["sgd_warmup3"];
    let at = |epoch, batch| cycle.at(0.1, Position { epoch, epochs: 50, batch, batches: 10 });
    let rates: Vec<_> = (0..50).flat_map(|epoch| (0..10).map(move |batch| at(epoch, batch))).collect();
    assert_close("one cycle", rates.iter().map(|r| r.learning_rate), numbers(&golden["lr"]), 1e-12);
    assert_close("one cycle", rates.iter().map(|r| r.momentum.unwrap()), numbers(&golden["momentum"]), 1e-12);
}

#[test]
fn a_one_cycle_without_room_stays_finite() {
    for (warmup_steps, steps) in [(0, 1), (1, 1), (1, 2), (2, 2)] {
        let schedule = OneCycle {
            max_learning_rate: 0.1,
            start_divisor: 25.0,
            final_divisor: 1e4,
            momentum: [0.85, 0.95],
            warmup_steps,
            steps,
        };
        assert!((0..steps).all(|step| schedule.at(step).learning_rate.is_finite()), "{warmup_steps} {steps}");
    }
}

// ---------------------------------------------------------------- linear probe: the references' trainings

/// Galileo's protocol but for the epochs and the order, which the golden runs fix.
fn galileo(epochs: usize, batch_size: usize) -> LinearProbeConfig {
    LinearProbeConfig {
        epochs,
        batch_size,
        drop_last: false,
        learning_rates: vec![1e-4, 1e-3, 1e-2, 1e-1],
        task_learning_rates: BTreeMap::new(),
        augmentation: Augmentation::None,
        keep: KeptEpoch::Last,
        report_batches: false,
        batch_norm: Some(BatchNormConfig { affine: true, eps: 1e-5, momentum: 0.1 }),
        initialization: Initialization::Uniform {},
        optimizer: Optimizer::Adamw { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 },
        schedule: Schedule::WarmupCosine { warmup: 0.1, min_learning_rate: 1e-5 },
        interval: IntervalConfig::new(0.95, 100),
    }
}

fn copernicus(epochs: usize, batch_size: usize, warmup_epochs: usize) -> LinearProbeConfig {
    LinearProbeConfig {
        drop_last: true,
        learning_rates: vec![0.1],
        keep: KeptEpoch::Best,
        batch_norm: Some(BatchNormConfig { affine: false, eps: 1e-6, momentum: 0.1 }),
        initialization: Initialization::TruncatedNormal { std: 0.01 },
        optimizer: Optimizer::Sgd { momentum: 0.0, weight_decay: 1e-4 },
        schedule: Schedule::OneCycle {
            warmup_epochs,
            start_divisor: 25.0,
            final_divisor: 1e4,
            momentum: [0.85, 0.95],
        },
        ..galileo(epochs, batch_size)
    }
}

fn unshuffled(samples: usize) -> Vec<DrawnSample> {
    (0..samples).map(|sample| DrawnSample { sample, variant: 0 }).collect()
}

/// Runs a golden training, beside another learning rate that must not disturb it, and compares all of it.
fn compare_training(golden: &Golden, group: &str, name: &str, config: &LinearProbeConfig) {
    let expected = &golden.json[group][name];
    let multilabel = name.contains("multilabel");
    let features = golden.matrix("train").insert_axis(Axis(0));
    let targets = golden.targets("train", multilabel);
    let start = Linear {
        weight: golden.matrix(&format!("{name}/init/linear.weight")),
        bias: golden.vector(&format!("{name}/init/linear.bias")),
    };
    let training = TrainingSet { features: features.view(), targets: &targets };
    let rates = [3e-3, number(expected, "max_lr")];
    let trained = train_from(config, &rates, training, &start, |_| unshuffled(96), |_, _| Ok(())).unwrap();

    let Trained { heads, losses } = trained;
    assert_close(name, losses.row(1).to_vec(), numbers(&expected["loss_per_step"]), 1e-5);
    let last = |part: &str| golden.matrix(&format!("{name}/final/{part}"));
    let linear = heads.linear(1);
    assert_close(name, linear.weight, last("linear.weight"), 1e-4);
    assert_close(name, linear.bias, last("linear.bias"), 1e-4);
    assert_close(name, heads.running().mean.clone(), last("bn.running_mean"), 1e-4);
    assert_close(name, heads.running().variance.clone(), last("bn.running_var"), 1e-4);
    if config.batch_norm.unwrap().affine {
        let (scale, shift) = heads.affine(1);
        assert_close(name, scale.to_vec(), last("bn.weight"), 1e-4);
        assert_close(name, shift.to_vec(), last("bn.bias"), 1e-4);
    }
    let logits = heads.logits(1, golden.matrix("test").view());
    assert_close(name, logits.clone(), golden.matrix(&format!("{name}/test_logits")), 1e-4);

    if let Some(value) = expected["test_value"].as_f64() {
        let truth = golden.targets("test", multilabel);
        assert_close(name, [score(&truth.predicted(logits.view()), &truth)], [value], 1e-9);
    }
}

/// Accuracy, or micro F1 of labels.
fn score(predicted: &Targets, truth: &Targets) -> f64 {
    match (predicted, truth) {
        (Targets::Classes { classes: ours, .. }, Targets::Classes { classes: theirs, .. }) => {
            ours.iter().zip(theirs).filter(|(a, b)| a == b).count() as f64 / ours.len() as f64
        }
        (Targets::Labels(ours), Targets::Labels(theirs)) => {
            let both = ours.iter().zip(theirs).filter(|(a, b)| **a && **b).count() as f64;
            let either = ours.iter().chain(theirs).filter(|applies| **applies).count() as f64;
            2.0 * both / either
        }
        _ => panic!("predictions and truth are of different kinds"),
    }
}

#[test]
fn galileos_trainings_are_reproduced() {
    let golden = Golden::probe();
    for name in ["galileo_cls_e5", "galileo_cls_e10", "galileo_multilabel_e5"] {
        let epochs = count(&golden.json["galileo"][name], "epochs");
        compare_training(&golden, "galileo", name, &galileo(epochs, 32));
    }
}

#[test]
fn copernicus_benchs_trainings_are_reproduced() {
    let golden = Golden::probe();
    for name in ["copernicus_cls_warmup0", "copernicus_cls_warmup1", "copernicus_multilabel_warmup0"] {
        let expected = &golden.json["copernicus"][name];
        let config = copernicus(count(expected, "epochs"), 32, count(expected, "warmup_epochs"));
        compare_training(&golden, "copernicus", name, &config);
    }
}

// ---------------------------------------------------------------- linear probe: its own laws

/// Features [1, n, d] of classes that overlap, with means and scales that differ from column to column.
fn features(n: usize, d: usize, classes: usize, seed: u64) -> (Array3<f32>, Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let centres = Array2::from_shape_simple_fn((classes, d), || rng.random_range(-1.0f32..1.0));
    let labels: Vec<usize> = (0..n).map(|i| i % classes).collect();
    let features = Array3::from_shape_fn((1, n, d), |(_, i, j)| {
        let noise: f32 = (0..4).map(|_| rng.random_range(-1.0f32..1.0)).sum();
        3.0 + j as f32 + (1.0 + 0.2 * j as f32) * (centres[[labels[i], j]] + noise)
    });
    (features, labels)
}

fn classes(classes: Vec<usize>, count: usize) -> Targets {
    Targets::Classes { classes, count }
}

fn multilabel(n: usize, labels: usize) -> Targets {
    Targets::Labels(Array2::from_shape_fn((n, labels), |(i, j)| (i * (2 * j + 13) + j * j) % 101 < 30 + j))
}

fn accuracy(logits: ArrayView2<f32>, truth: &Targets) -> f64 {
    score(&truth.predicted(logits), truth)
}

fn by_accuracy(logits: ArrayView2<f32>, truth: &Targets) -> Result<f64> {
    Ok(accuracy(logits, truth))
}

/// The loss of BatchNorm and a linear layer on one batch, in f64 and straight from the definitions; without `eps`, of the
/// linear layer alone.
fn loss(x: ArrayView2<f32>, parameters: &[f64], targets: &Targets, eps: Option<f64>) -> f64 {
    let (n, d) = x.dim();
    let outputs = targets.outputs();
    let x = x.mapv(f64::from);
    let mean = x.mean_axis(Axis(0)).unwrap();
    let variance = x.var_axis(Axis(0), 0.0);
    let (weight, rest) = parameters.split_at(outputs * d);
    let (bias, rest) = rest.split_at(outputs);
    let (scale, shift) = rest.split_at(d);
    let mut total = 0.0;
    for i in 0..n {
        let normalised: Vec<f64> = (0..d)
            .map(|j| match eps {
                Some(eps) => scale[j] * (x[[i, j]] - mean[j]) / (variance[j] + eps).sqrt() + shift[j],
                None => x[[i, j]],
            })
            .collect();
        let z: Vec<f64> = (0..outputs)
            .map(|k| bias[k] + (0..d).map(|j| weight[k * d + j] * normalised[j]).sum::<f64>())
            .collect();
        total += match targets {
            Targets::Classes { classes, .. } => z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[classes[i]],
            Targets::Values(values) => (z[0] - f64::from(values[i])).powi(2),
            Targets::Labels(labels) => {
                let of = |k: usize| (1.0 + if labels[[i, k]] { (-z[k]).exp() } else { z[k].exp() }).ln();
                (0..outputs).map(of).sum::<f64>() / outputs as f64
            }
        };
    }
    total / n as f64
}

/// All parameters of a head in the order that [`loss`] takes.
fn parameters(heads: &Heads, rate: usize) -> Vec<f64> {
    let (linear, (scale, shift)) = (heads.linear(rate), heads.affine(rate));
    linear.weight.iter().chain(&linear.bias).chain(scale).chain(shift).map(|&p| f64::from(p)).collect()
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let (n, d) = (24, 7);
    let (features, labels) = features(n, d, 4, 1);
    let norms = [galileo(2, n).batch_norm, None];
    for (targets, batch_norm) in
        [(classes(labels.clone(), 4), norms[0]), (multilabel(n, 5), norms[0]), (classes(labels, 4), norms[1])]
    {
        // Two full-batch steps of plain descent: the difference of the parameters is the gradient times the rate.
        // The second starts away from scale 1 and shift 0.
        let config = LinearProbeConfig {
            optimizer: Optimizer::Sgd { momentum: 0.0, weight_decay: 0.0 },
            schedule: Schedule::WarmupCosine { warmup: 0.0, min_learning_rate: 0.5 },
            batch_norm,
            ..galileo(2, n)
        };
        let training = TrainingSet { features: features.view(), targets: &targets };
        let start = Linear::initial(Initialization::Uniform {}, targets.outputs(), d, 3);
        let mut seen = Vec::new();
        train_from(
            &config,
            &[0.5],
            training,
            &start,
            |_| unshuffled(n),
            |_, heads| {
                seen.push(parameters(heads, 0));
                Ok(())
            },
        )
        .unwrap();
        let x = features.index_axis(Axis(0), 0);
        for k in 0..seen[0].len() {
            let nudged = |by: f64| {
                let mut parameters = seen[0].clone();
                parameters[k] += by;
                loss(x, &parameters, &targets, batch_norm.map(|norm| norm.eps))
            };
            let expected = (nudged(1e-5) - nudged(-1e-5)) / 2e-5;
            let gradient = (seen[0][k] - seen[1][k]) / 0.5;
            assert!((gradient - expected).abs() < 2e-6, "parameter {k}: {gradient}, expected {expected}");
        }
    }
}

/// Copernicus-Bench's heads of CROMA and SoftCon are a linear layer alone.
#[test]
fn a_head_without_batch_norm_is_a_linear_layer() {
    let (features, labels) = features(40, 7, 4, 5);
    let targets = classes(labels, 4);
    let config = LinearProbeConfig { batch_norm: None, ..copernicus(3, 8, 0) };
    let training = TrainingSet { features: features.view(), targets: &targets };
    let start = Linear::initial(Initialization::Uniform {}, 4, 7, 3);
    let trained = train_from(&config, &[0.1], training, &start, |_| unshuffled(40), |_, _| Ok(())).unwrap();
    let x = features.index_axis(Axis(0), 0);
    let (found, layer) = (trained.heads.logits(0, x), trained.heads.linear(0));
    assert_ne!(layer, start);
    let expected = x.dot(&layer.weight.t()) + &layer.bias;
    let off = (&found - &expected).fold(0f32, |most, difference| most.max(difference.abs()));
    assert!(off < 1e-5, "{off}");
    assert!(trained.heads.running().mean.iter().all(|mean| *mean == 0.0));
    assert!(trained.heads.running().variance.iter().all(|variance| *variance == 1.0));
}

#[test]
fn a_batched_sweep_equals_single_trainings() {
    let (features, labels) = features(150, 12, 5, 2);
    let rates = [1e-4, 3e-4, 1e-3, 3e-3, 5e-3, 8e-3, 1e-2, 3e-2, 5e-2, 8e-2, 1e-1];
    for (config, targets) in [
        (galileo(6, 32), classes(labels.clone(), 5)),
        (galileo(6, 32), multilabel(150, 23)),
        (copernicus(6, 32, 1), classes(labels, 5)),
    ] {
        let training = TrainingSet { features: features.view(), targets: &targets };
        let together = train(&config, &rates, training, 7, |_, _| Ok(())).unwrap();
        for (i, &rate) in rates.iter().enumerate() {
            let alone = train(&config, &[rate], training, 7, |_, _| Ok(())).unwrap();
            assert_close("losses", together.losses.row(i).to_vec(), alone.losses.row(0).to_vec(), 1e-5);
            assert_close("parameters", parameters(&together.heads, i), parameters(&alone.heads, 0), 1e-4);
            let all = features.index_axis(Axis(0), 0);
            assert_close("logits", together.heads.logits(i, all), alone.heads.logits(0, all), 1e-3);
            assert_eq!(together.heads.only(i).running(), alone.heads.running());
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads_nor_change_in_a_second_run() {
    let (features, labels) = features(300, 20, 5, 3);
    let targets = classes(labels, 5);
    let all = features.index_axis(Axis(0), 0);
    let held_out = HeldOut { valid: all, valid_targets: &targets, test: all };
    let rates = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1e-4, 5e-4, 8e-4, 5e-3, 8e-3, 5e-2];
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let training = TrainingSet { features: features.view(), targets: &targets };
            let trained = train(&galileo(3, 32), &rates, training, 5, |_, _| Ok(())).unwrap();
            let probed = probe(&galileo(3, 32), &rates, training, held_out, 5, by_accuracy).unwrap();
            (trained, probed, sweep(&regression(), all, &targets, held_out, by_accuracy).unwrap())
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
    assert_eq!(one, run(1));
}

#[test]
fn seeds_differ_and_are_the_same_on_every_machine() {
    let order = |seed, epoch| -> Vec<usize> {
        shuffled(seed, epoch, 10, 1).into_iter().map(|row| row.sample).collect()
    };
    assert_eq!(order(0, 0), ORDER_OF_SEED_0);
    assert_ne!(order(0, 0), order(0, 1));
    assert_ne!(order(0, 0), order(1, 0));

    let uniform = Linear::initial(Initialization::Uniform {}, 2, 4, 0);
    assert_close("bias of seed 0", uniform.bias, BIAS_OF_SEED_0, 1e-7);
    let uniform = Linear::initial(Initialization::Uniform {}, 50, 100, 1);
    assert!(uniform.weight.iter().chain(&uniform.bias).all(|w| w.abs() <= 0.1));
    assert!((uniform.weight.std(0.0) - 0.1 / 3f32.sqrt()).abs() < 2e-3);
    let normal = Linear::initial(Initialization::TruncatedNormal { std: 0.01 }, 50, 100, 1);
    assert!((normal.weight.std(0.0) - 0.01).abs() < 3e-4 && normal.weight.mean().unwrap().abs() < 5e-4);
    let wide = Linear::initial(Initialization::TruncatedNormal { std: 1.0 }, 50, 100, 1);
    assert!(wide.weight.iter().all(|w| w.abs() <= 2.0) && wide.weight.iter().any(|w| w.abs() > 1.9));
}

const ORDER_OF_SEED_0: [usize; 10] = [0, 6, 4, 3, 8, 9, 7, 2, 5, 1];
const BIAS_OF_SEED_0: [f32; 2] = [0.154_697_06, 0.209_075_33];

#[test]
fn every_epoch_sees_every_sample_once_in_one_of_its_variants() {
    let mut drawn = [0; 4];
    for epoch in 0..20 {
        let rows = shuffled(4, epoch, 100, 4);
        let mut samples: Vec<usize> = rows.iter().map(|row| row.sample).collect();
        samples.sort_unstable();
        assert_eq!(samples, (0..100).collect::<Vec<_>>());
        rows.iter().for_each(|row| drawn[row.variant] += 1);
    }
    assert!(drawn.iter().all(|&n| (420..580).contains(&n)), "{drawn:?}");
}

#[test]
fn the_drawn_variants_are_what_is_trained_on() {
    let (plain, labels) = features(64, 6, 3, 5);
    let targets = classes(labels, 3);
    let flipped =
        Array3::from_shape_fn((4, 64, 6), |(v, i, j)| plain[[0, i, j]] + v as f32 * (j as f32 - 2.5));
    let config = LinearProbeConfig { augmentation: Augmentation::Flips, ..copernicus(3, 16, 0) };
    let training = TrainingSet { features: flipped.view(), targets: &targets };
    let trained = train(&config, &[0.1], training, 2, |_, _| Ok(())).unwrap();

    // The same by gathering each epoch's variants beforehand.
    let mut rows = Vec::new();
    for epoch in 0..3 {
        rows.extend(
            shuffled(2, epoch, 64, 4).iter().map(|row| flipped.slice(s![row.variant, row.sample, ..])),
        );
    }
    let gathered = ndarray::stack(Axis(0), &rows).unwrap().insert_axis(Axis(0));
    let labels: Vec<usize> =
        (0..3).flat_map(|epoch| shuffled(2, epoch, 64, 4)).map(|row| row.sample % 3).collect();
    let gathered_targets = classes(labels, 3);
    let start = Linear::initial(config.initialization, 3, 6, 2);
    let epoch =
        |epoch| (epoch * 64..(epoch + 1) * 64).map(|sample| DrawnSample { sample, variant: 0 }).collect();
    let plain_config = copernicus(3, 16, 0);
    let training = TrainingSet { features: gathered.view(), targets: &gathered_targets };
    let expected = train_from(&plain_config, &[0.1], training, &start, epoch, |_, _| Ok(())).unwrap();
    assert_eq!(trained, expected);
}

#[test]
fn incomplete_batches_are_kept_or_dropped_and_single_samples_left_out() {
    let (all, labels) = features(41, 6, 3, 6);
    let steps = |n: usize, config: &LinearProbeConfig| {
        let (features, targets) = (all.slice(s![.., ..n, ..]), classes(labels[..n].to_vec(), 3));
        train(config, &[0.1], TrainingSet { features, targets: &targets }, 0, |_, _| Ok(()))
            .map(|trained| trained.losses.ncols())
            .map_err(|error| error.to_string())
    };
    let dropping = LinearProbeConfig { drop_last: true, ..galileo(2, 10) };
    assert_eq!(steps(41, &galileo(2, 10)), Ok(8)); // 10 10 10 10 (1)
    assert_eq!(steps(38, &galileo(2, 10)), Ok(8)); // 10 10 10 8
    assert_eq!(steps(38, &dropping), Ok(6));
    assert_eq!(steps(7, &galileo(2, 10)), Ok(2));
    assert!(steps(7, &dropping).unwrap_err().contains("7 training samples; a batch needs 10"));
    assert!(steps(1, &galileo(2, 10)).unwrap_err().contains("1 training samples; a batch needs 2"));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (features, labels) = features(20, 4, 2, 7);
    let targets = classes(labels.clone(), 2);
    let refused = |features: &Array3<f32>, targets: &Targets, config: &LinearProbeConfig| {
        let training = TrainingSet { features: features.view(), targets };
        train(config, &[0.1], training, 0, |_, _| Ok(())).unwrap_err().to_string()
    };
    let config = galileo(1, 8);
    assert!(refused(&features, &classes(labels[..19].to_vec(), 2), &config).contains("labels of 19"));
    assert!(refused(&features, &classes(labels.clone(), 1), &config).contains("class 1 of 1"));
    let flips = LinearProbeConfig { augmentation: Augmentation::Flips, ..galileo(1, 8) };
    assert!(refused(&features, &targets, &flips).contains("expected 4"));
    let mut broken = features.clone();
    broken[[0, 3, 1]] = f32::NAN;
    assert!(refused(&broken, &targets, &config).contains("not finite"));

    let training = TrainingSet { features: features.view(), targets: &targets };
    let narrow = features.slice(s![0, .., ..3]);
    let valid = features.index_axis(Axis(0), 0);
    let held_out = HeldOut { valid: narrow, valid_targets: &targets, test: valid };
    let error = probe(&config, &[0.1], training, held_out, 0, by_accuracy).unwrap_err().to_string();
    assert!(error.contains("4 features per training sample, but (3, 4)"), "{error}");
    let held_out = HeldOut { valid, valid_targets: &targets, test: valid };
    let error = probe(&config, &[0.1], training, held_out, 0, |_, _| Ok(f64::NAN)).unwrap_err().to_string();
    assert!(error.contains("no learning rate has a score"), "{error}");
}

#[test]
fn the_best_on_validation_is_chosen_and_the_first_of_equal_ones() {
    assert_eq!(first_best(Better::Higher, [f64::NAN, 0.3, 0.5, 0.5]), Some(2));
    assert_eq!(first_best(Better::Lower, [f64::NAN, 0.5, 0.3, 0.3]), Some(2));
    assert_eq!(first_best(Better::Higher, [f64::NAN]), None);

    let (features, labels) = features(90, 8, 3, 8);
    let (train_part, rest) = features.view().split_at(Axis(1), 60);
    let train_targets = classes(labels[..60].to_vec(), 3);
    let valid_targets = classes(labels[60..].to_vec(), 3);
    let rest = rest.index_axis(Axis(0), 0);
    let training = TrainingSet { features: train_part, targets: &train_targets };
    let held_out = HeldOut { valid: rest, valid_targets: &valid_targets, test: rest };
    let rates = [1e-6, 1e-2, 1e-2, 1e-1];
    let probed = probe(&galileo(5, 16), &rates, training, held_out, 1, by_accuracy).unwrap();
    assert_eq!(probed.candidates.len(), 4);
    assert!(probed.candidates.iter().all(|candidate| candidate.epoch == 4));
    let best =
        first_best(Better::Higher, probed.candidates.iter().map(|candidate| candidate.validation)).unwrap();
    assert_eq!(probed.chosen, probed.candidates[best]);
    assert_ne!(best, 2, "the first of two equal learning rates");
    assert_eq!(accuracy(probed.logits.view(), &valid_targets), probed.chosen.validation);
    let trained = train(&galileo(5, 16), &rates, training, 1, |_, _| Ok(())).unwrap();
    assert_eq!(probed.logits, trained.heads.logits(best, rest));
}

#[test]
fn the_best_epoch_is_kept_where_the_protocol_says_so() {
    let (features, labels) = features(60, 8, 3, 9);
    let targets = classes(labels, 3);
    let all = features.index_axis(Axis(0), 0);
    let training = TrainingSet { features: features.view(), targets: &targets };
    let held_out = HeldOut { valid: all, valid_targets: &targets, test: all };
    let config = copernicus(6, 16, 0);
    let mut logits = Vec::new();
    train(&config, &[0.1], training, 3, |_, heads| {
        logits.push(heads.logits(0, all));
        Ok(())
    })
    .unwrap();
    // Epochs 2 and 4 score best.
    let scores = [0.1, 0.3, 0.8, 0.2, 0.8, 0.5];
    let by_epoch = |seen: ArrayView2<f32>, _: &Targets| {
        Ok(logits.iter().position(|logits| logits.view() == seen).map_or(f64::NAN, |epoch| scores[epoch]))
    };
    let probed = probe(&config, &[0.1], training, held_out, 3, by_epoch).unwrap();
    assert_eq!((probed.chosen.epoch, probed.chosen.validation), (2, 0.8));
    assert_eq!(probed.logits, logits[2]);
    let last = LinearProbeConfig { keep: KeptEpoch::Last, ..config };
    let probed = probe(&last, &[0.1], training, held_out, 3, by_epoch).unwrap();
    assert_eq!((probed.chosen.epoch, probed.chosen.validation), (5, 0.5));
    assert_eq!(probed.logits, logits[5]);
}

#[test]
fn logits_decide_as_in_torch() {
    let of_classes = classes(vec![0], 3);
    let logits = ndarray::array![[0.5, 2.0, 2.0], [1.0, f32::NAN, 3.0], [f32::NEG_INFINITY; 3]];
    assert_eq!(of_classes.predicted(logits.view()), classes(vec![1, 1, 0], 3));
    let of_labels = Targets::Labels(ndarray::array![[false, false, false]]);
    let expected = ndarray::array![[false, false, true]];
    let logits = ndarray::array![[0.0, -1.0, 1e-30]];
    assert_eq!(of_labels.predicted(logits.view()), Targets::Labels(expected));
}

// ---------------------------------------------------------------- logistic regression

fn solver(tolerance: f64) -> SolverConfig {
    SolverConfig::converged(10, tolerance, 4000)
}

fn regression() -> LogisticConfig {
    LogisticConfig {
        c: LogSpaced { start: 1e-3, stop: 10.0, count: 5 },
        standardize: false,
        row_per_class: false,
        refit_with_validation: true,
        multi_label_metric: None,
        solver: solver(1e-6),
        interval: IntervalConfig::new(0.95, 100),
    }
}

#[test]
fn scikit_learns_regressions_are_reproduced() {
    let golden = Golden::probe();
    let (all, test) = (golden.matrix("logreg/train"), golden.matrix("logreg/test"));
    let labels = golden.integers("logreg/train_labels");
    let test_labels = golden.integers("logreg/test_labels");
    for (name, fit) in golden.json["logistic_regression"]["fits"].as_object().unwrap() {
        let binary = name.starts_with("binary/");
        let rows = |labels: &[usize]| -> Vec<usize> {
            (0..labels.len()).filter(|&i| !binary || labels[i] < 2).collect()
        };
        let (train_rows, test_rows) = (rows(&labels), rows(&test_labels));
        let classes_of = |rows: &[usize], labels: &[usize]| rows.iter().map(|&i| labels[i]).collect();
        let targets = classes(classes_of(&train_rows, &labels), if binary { 2 } else { 4 });
        let design = Design::new(all.select(Axis(0), &train_rows).view(), false);
        let fitted = design.fit(&targets, number(fit, "C"), solver(1e-9), None).unwrap();
        assert!(fitted.converged, "{name}: {} iterations", fitted.iterations);

        let tolerance = if name == "C1000" { 1e-3 } else { 1e-4 };
        assert_close(
            name,
            fitted.coefficients.clone(),
            golden.matrix(&format!("logreg/{name}/coef")),
            tolerance,
        );
        let centre = if binary { 0.0 } else { fitted.intercepts.mean().unwrap() };
        let theirs = golden.vector(&format!("logreg/{name}/intercept"));
        assert_close(name, &fitted.intercepts - centre, theirs, tolerance);

        let predicted = targets.predicted(fitted.logits(test.select(Axis(0), &test_rows).view()).view());
        let expected = golden.integers(&format!("logreg/{name}/test_predictions"));
        assert_eq!(predicted, classes(expected, targets.outputs()), "{name}");
        let truth = classes(classes_of(&test_rows, &test_labels), targets.outputs());
        assert_close(name, [score(&predicted, &truth)], [number(fit, "test_accuracy")], 1e-9);
    }
}

#[test]
fn a_sweep_equals_single_regressions() {
    let (features, labels) = features(200, 6, 4, 10);
    let features = features.index_axis(Axis(0), 0);
    let targets = classes(labels, 4);
    let config = LogisticConfig { standardize: true, solver: solver(1e-8), ..regression() };
    let held_out = HeldOut { valid: features, valid_targets: &targets, test: features };
    let swept = sweep(&config, features, &targets, held_out, by_accuracy).unwrap();
    let design = Design::new(features, true);
    assert_close("C", swept.candidates.iter().map(|t| t.c), [1e-3, 1e-2, 0.1, 1.0, 10.0], 1e-12);
    for candidate in &swept.candidates {
        let alone = design.fit(&targets, candidate.c, config.solver, None).unwrap();
        assert!(alone.converged && candidate.converged);
        assert_eq!(accuracy(alone.logits(features).view(), &targets), candidate.validation);
    }
    let best = first_best(Better::Higher, swept.candidates.iter().map(|t| t.validation)).unwrap();
    assert_eq!(swept.chosen, swept.candidates[best]);

    // Refitted with validation: the same samples twice, which is twice the C.
    let twice = design.fit(&targets, 2.0 * swept.chosen.c, config.solver, None).unwrap();
    assert_close("refitted", swept.logits, twice.logits(features), 1e-4);
    let once = design.fit(&targets, swept.chosen.c, config.solver, None).unwrap();
    let config = LogisticConfig { refit_with_validation: false, ..config };
    let swept = sweep(&config, features, &targets, held_out, by_accuracy).unwrap();
    assert_close("not refitted", swept.logits, once.logits(features), 1e-4);
}

#[test]
fn labels_are_regressed_as_if_each_were_alone() {
    let (features, _) = features(120, 5, 3, 11);
    let features = features.index_axis(Axis(0), 0);
    let targets = multilabel(120, 4);
    let Targets::Labels(labels) = &targets else { unreachable!() };
    let design = Design::new(features, true);
    let together = design.fit(&targets, 0.5, solver(1e-9), None).unwrap();
    for (label, applies) in labels.columns().into_iter().enumerate() {
        let alone = classes(applies.iter().map(|&applies| usize::from(applies)).collect(), 2);
        let alone = design.fit(&alone, 0.5, solver(1e-9), None).unwrap();
        assert_close("coefficients", together.coefficients.row(label).to_vec(), alone.coefficients, 1e-6);
        assert_close("intercept", [together.intercepts[label]], alone.intercepts, 1e-6);
    }
}

#[test]
fn classes_without_training_samples_are_never_predicted() {
    let (features, labels) = features(120, 5, 3, 12);
    let features = features.index_axis(Axis(0), 0);
    let as_three =
        Design::new(features, false).fit(&classes(labels.clone(), 3), 1.0, solver(1e-7), None).unwrap();
    let spread: Vec<usize> = labels.iter().map(|label| [1, 4, 5][*label]).collect();
    let targets = classes(spread, 7);
    let as_seven = Design::new(features, false).fit(&targets, 1.0, solver(1e-7), None).unwrap();
    let logits = as_seven.logits(features);
    assert_eq!(logits.select(Axis(1), &[1, 4, 5]), as_three.logits(features));
    assert!(logits.select(Axis(1), &[0, 2, 3, 6]).iter().all(|&logit| logit == f32::NEG_INFINITY));

    let one_class = classes(vec![2; 120], 3);
    let error =
        Design::new(features, false).fit(&one_class, 1.0, solver(1e-7), None).unwrap_err().to_string();
    assert!(error.contains("the same class"), "{error}");
}

#[test]
fn standardising_makes_the_scale_of_features_irrelevant() {
    let (features, labels) = features(100, 5, 3, 13);
    let features = features.index_axis(Axis(0), 0);
    let targets = classes(labels, 3);
    let mut scaled = features.to_owned();
    for (j, mut column) in scaled.columns_mut().into_iter().enumerate() {
        column.mapv_inplace(|x| x * 10f32.powi(j as i32 - 2) + 3.0);
    }
    let logits = |features: ArrayView2<f32>, standardize| {
        let design = Design::new(features, standardize);
        design.fit(&targets, 0.1, solver(1e-9), None).unwrap().logits(features)
    };
    assert_close("standardised", logits(features, true), logits(scaled.view(), true), 1e-3);
    let difference = &logits(features, false) - &logits(scaled.view(), false);
    assert!(difference.iter().any(|d| d.abs() > 1e-2), "raw features must depend on their scale");
}

// ---------------------------------------------------------------- from features to outcomes

/// A split's features with their labels, as extraction gives them.
fn split_of(features: ArrayView2<f32>, labels: &[usize]) -> Features {
    Features {
        samples: (0..labels.len()).map(|i| format!("sample {i}")).collect(),
        matrix: features.to_owned(),
        labels: labels.iter().map(|&class| Target::Class(class)).collect(),
    }
}

#[test]
fn a_task_is_scored_on_its_test_split() {
    let (features, labels) = features(240, 8, 4, 14);
    let part = |split: Split| {
        let rows = match split {
            Split::Train => 0..120,
            Split::Valid => 120..180,
            Split::Test => 180..240,
        };
        split_of(features.slice(s![0, rows.clone(), ..]), &labels[rows])
    };
    let mut task =
        Suite::load(&Home::find().unwrap(), "geobench").unwrap().task("m-eurosat").unwrap().clone();
    task.classes = 4;

    let mut asked = Vec::new();
    let config = LinearProbeConfig { augmentation: Augmentation::Flips, ..galileo(8, 32) };
    let outcome = run_on_features(&config, &task, 0, &["one"], |FeatureView { split, turn, .. }| {
        asked.push((split, turn));
        Ok(part(split))
    })
    .unwrap();
    assert_eq!(asked.len(), 6);
    assert!(Dihedral::FLIPS.iter().all(|&turn| asked.contains(&(Split::Train, turn))));
    assert!(outcome.value > 60.0, "{outcome:?}");
    assert_eq!(outcome.selected["epoch"], "8 of 8");
    assert!(config.learning_rates.iter().any(|rate| rate.to_string() == outcome.selected["learning-rate"]));
    let interval = outcome.interval.unwrap();
    assert!(interval.low <= outcome.value && outcome.value <= interval.high);

    // The task's own learning rates come before the protocol's.
    let own = BTreeMap::from([("m-eurosat".to_owned(), vec![0.02])]);
    let config = LinearProbeConfig { task_learning_rates: own, ..galileo(8, 32) };
    let outcome = run_on_features(&config, &task, 0, &["one"], |view| Ok(part(view.split))).unwrap();
    assert_eq!(outcome.selected["learning-rate"], "0.02");

    let outcome = run_on_features(&regression(), &task, 0, &["one"], |view| Ok(part(view.split))).unwrap();
    assert!(outcome.value > 60.0, "{outcome:?}");
    assert_eq!(outcome.selected["converged"], "5 of 5");
}

// ---------------------------------------------------------------- configs

#[test]
fn the_configs_hold_the_references_hyper_parameters() {
    let home = Home::find().unwrap();
    let ProtocolConfig::LinearProbe(ours) = ProtocolConfig::load(&home, "linear-probe").unwrap() else {
        panic!("kind")
    };
    assert_eq!((ours.epochs, ours.batch_size, ours.learning_rates.len()), (50, 128, 16));
    assert_eq!(ours.optimizer, galileo(50, 128).optimizer);
    assert_eq!(ours.schedule, galileo(50, 128).schedule);
    assert_eq!(ours.batch_norm, galileo(50, 128).batch_norm);

    let ProtocolConfig::LinearProbe(ours) = ProtocolConfig::load(&home, "copernicus-linear-probe").unwrap()
    else {
        panic!("kind")
    };
    assert_eq!(ours.schedule, copernicus(50, 64, 0).schedule);
    assert_eq!(ours.optimizer, copernicus(50, 64, 0).optimizer);
    assert_eq!(ours.augmentation.transforms().len(), 4);
    assert_eq!(ours.rates("eurosat-s2"), [0.1]);
    assert_eq!(ours.rates("bigearthnet-s1"), [1.0]);

    let ProtocolConfig::Logistic(ours) = ProtocolConfig::load(&home, "logistic").unwrap() else {
        panic!("kind")
    };
    let c = ours.c.values();
    assert_eq!(c.len(), 40);
    assert_close("C", [c[0].log10(), c[1].log10(), c[39].log10()], [-6.0, -6.0 + 10.0 / 39.0, 4.0], 1e-12);
}

#[test]
fn unknown_keys_and_impossible_values_are_refused() {
    let home = Home::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(home.config("protocols", name).unwrap()).unwrap();
        assert!(text.contains(from), "{name} has no `{from}`");
        let path = folder.path().join("changed.toml");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        ProtocolConfig::load(&home, path.to_str().unwrap()).unwrap_err().to_string()
    };
    for (name, from, to, expected) in [
        ("linear-probe", "epochs = 50", "epoch = 50", "epoch"),
        ("linear-probe", "eps = 1e-8", "epsilon = 1e-8", "epsilon"),
        ("linear-probe", "warmup = 0.1", "warm-up = 0.1", "warm-up"),
        ("linear-probe", "kind = \"uniform\"", "kind = \"uniform\"\nstd = 1.0", "std"),
        ("linear-probe", "epochs = 50", "epochs = 0", "epochs is 0"),
        ("linear-probe", "batch-size = 128", "batch-size = 1", "batch-size is 1"),
        ("linear-probe", "[1e-4, 3e-4", "[1e-4, -3e-4", "-0.0003 is not above 0"),
        ("linear-probe", "warmup = 0.1", "warmup = 1.0", "schedule.warmup"),
        ("linear-probe", "betas = [0.9", "betas = [1.0", "beta"),
        ("copernicus-linear-probe", "bigearthnet-s1 = [1.0]", "bigearthnet-s1 = []", "without any"),
        ("copernicus-linear-probe", "warmup-epochs = 0", "warmup-epochs = 50", "50 of 50 epochs"),
        ("copernicus-linear-probe", "[0.85, 0.95]", "[0.95, 0.85]", "schedule.momentum"),
        ("copernicus-linear-probe", "std = 0.01", "std = 0.0", "initialization.std"),
        ("logistic", "start = 1e-6", "start = 0.0", "start"),
        ("logistic", "history = 10", "history = 0", "history"),
        ("logistic", "standardize = false", "standardise = false", "standardise"),
        ("logistic", "level = 0.95", "level = 1.95", "interval.level"),
    ] {
        let error = refused(name, from, to);
        assert!(error.contains(expected) && error.contains("changed.toml"), "{to}: {error}");
    }
}
