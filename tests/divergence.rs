//! A candidate that diverges is never chosen, whatever its broken predictions would score; only when all diverge is it an
//! error.

use std::cell::RefCell;

use ndarray::{Array1, Array2, Array3, s};
use terrabench::config::{
    Augmentation, EncoderUse, FinetuneConfig, LinearProbeConfig, Optimizer, Schedule,
    SegmentationProbeConfig, TrainingConfig, UperNetConfig, UpernetConfig,
};
use terrabench::data::{Split, Target};
use terrabench::features::Features;
use terrabench::features::source::FeatureView;
use terrabench::features::tiles::Tokens;
use terrabench::home::Home;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::linear_probe::Linear;
use terrabench::protocol::{finetune, segmentation_probe};
use terrabench::score::Outcome;
use terrabench::task::{Metric, TargetKind, Task};
use terrabench::transform::normalize::NormalizationKind;
use terrabench::{Error, ErrorKind};

use crate::generated::{Generated, input, subject, task, unit};
use crate::source::{run_on_features, run_on_tokens, run_upernet};

/// A step of it leaves float32.
const FAR: f64 = 1e38;

fn protocol(name: &str) -> ProtocolConfig {
    ProtocolConfig::load(&Home::find().unwrap(), name).unwrap()
}

fn is_not_finite(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFinite
}

/// Features of a split whose labels they tell; all of validation and test are of class 0, or have label 0.
fn features(task: &Task, split: Split) -> Features {
    let n = 40;
    let class = |i: usize| if split == Split::Train { i % task.classes } else { 0 };
    let label = |i: usize| match task.target {
        TargetKind::Labels => Target::Labels((0..task.classes).map(|c| c == class(i)).collect()),
        _ => Target::Class(class(i)),
    };
    Features {
        samples: (0..n).map(|i| format!("sample {i}")).collect(),
        matrix: Array2::from_shape_fn((n, 6), |(i, j)| {
            let own = if j == class(i) { 1.0 } else { 0.0 };
            own + unit((split as usize * 1000 + i * 10 + j) as u64) as f32
        }),
        labels: (0..n).map(label).collect(),
    }
}

fn linear_probe_config(learning_rates: Vec<f64>) -> LinearProbeConfig {
    let ProtocolConfig::LinearProbe(config) = protocol("linear-probe") else { panic!() };
    LinearProbeConfig { epochs: 20, batch_size: 8, learning_rates, ..config }
}

#[test]
fn a_diverged_learning_rate_of_the_linear_probe_is_passed_over() {
    for (label, metric) in [
        (TargetKind::Class, Metric::Accuracy),
        (TargetKind::Labels, Metric::MicroF1),
        (TargetKind::Labels, Metric::MicroMap),
    ] {
        let task = task(label, 3, metric);
        let run = |rates: Vec<f64>| {
            run_on_features(&linear_probe_config(rates), &task, 0, &["one"], |view| {
                Ok(features(&task, view.split))
            })
        };
        let alone = run(vec![1e-4]).unwrap();
        // NaN counts as the largest logit, so that a diverged head's class is 0: of validation and test, all right.
        let outcome = run(vec![FAR, 1e-4]).unwrap();
        assert_eq!(outcome.selected["learning-rate"], "0.0001", "{metric}");
        assert_eq!(outcome.selected["diverged"], FAR.to_string());
        assert_eq!((outcome.value, outcome.validation), (alone.value, alone.validation));
        assert!(!alone.selected.contains_key("diverged"));
        let error = run(vec![FAR, 2.0 * FAR]).unwrap_err();
        assert!(is_not_finite(&error) && error.to_string().contains("no learning rate"), "{error}");
    }
}

#[test]
fn a_diverged_head_of_the_segmentation_probe_is_passed_over() {
    let ProtocolConfig::SegmentationProbe(config) = protocol("segmentation-probe") else { panic!() };
    let task = task(TargetKind::Mask, 2, Metric::Miou);
    let tokens = |split: Split| {
        let mut tokens = Tokens::new(2, 3);
        for tile in 0..4 {
            let numbers: Vec<f32> =
                (0..12).map(|i| unit(split as u64 * 100 + tile * 12 + i) as f32).collect();
            // All of validation and test are of class 0, which a head of NaN predicts.
            let mask =
                Array2::from_shape_fn((4, 4), |(y, x)| i16::from(split == Split::Train && (y + x) % 2 == 0));
            tokens.push(&numbers, mask).unwrap();
        }
        tokens
    };
    let run = |learning_rates: Vec<f64>| {
        let config = SegmentationProbeConfig {
            tile: 4,
            task_tiles: Default::default(),
            training: TrainingConfig {
                epochs: 2,
                batch_size: 2,
                learning_rates,
                schedule: Schedule::WarmupCosine { warmup: 0.0, min_learning_rate: 0.0 },
                ..config.training.clone()
            },
        };
        run_on_tokens(&config, &task, 0, &["dataset"], |_, split| Ok(tokens(split)))
    };
    let outcome = run(vec![FAR, 1e-4]).unwrap();
    assert_eq!(outcome.selected["learning-rate"], "0.0001");
    assert_eq!(outcome.selected["diverged"], FAR.to_string());
    assert_eq!(outcome.value, run(vec![1e-4]).unwrap().value);
    let error = run(vec![FAR]).unwrap_err();
    assert!(is_not_finite(&error) && error.to_string().contains("every learning rate"), "{error}");

    let heads = [f32::NAN, 0.1]
        .map(|weight| Linear { weight: Array2::from_elem((8, 3), weight), bias: Array1::zeros(8) });
    let found = segmentation_probe::confusions(&heads, 2, 4, &tokens(Split::Valid)).unwrap();
    assert!(found[0].is_none() && found[1].as_ref().is_some_and(|tiles| tiles.len() == 4));
}

/// One epoch of one batch: its loss is finite, and so are the parameters after its step, but not what they make of images.
#[test]
fn fine_tuning_passes_over_a_learning_rate_whose_features_overflow() {
    let ProtocolConfig::Finetune(config) = protocol("finetune") else { panic!() };
    let task = task(TargetKind::Class, 3, Metric::Accuracy);
    let input = input(&task, Generated::new(&task, [6, 6, 6]), &[NormalizationKind::Standardize], 32);
    let run = |learning_rates: Vec<f64>| {
        let config = FinetuneConfig {
            effective_batch_size: 6,
            training: TrainingConfig {
                epochs: 1,
                batch_size: 6,
                learning_rates,
                schedule: Schedule::WarmupCosine { warmup: 0.0, min_learning_rate: 0.0 },
                ..config.training.clone()
            },
            ..config.clone()
        };
        let folder = tempfile::tempdir().unwrap();
        finetune::run(&config, 0, &subject(&task, &input, folder.path()))
    };
    let alone = run(vec![1e-5]).unwrap();
    for rates in [vec![1e30, 1e-5], vec![1e-5, 1e30]] {
        let outcome = run(rates).unwrap();
        assert_eq!(outcome.selected["learning-rate"], "0.00001");
        assert_eq!(outcome.selected["diverged"], 1e30.to_string());
        assert_eq!((outcome.value, outcome.validation), (alone.value, alone.validation));
    }
    let error = run(vec![1e30]).unwrap_err();
    assert!(is_not_finite(&error) && error.to_string().contains("every learning rate"), "{error}");
}

#[test]
fn upernet_passes_over_a_learning_rate_whose_maps_overflow() {
    let ProtocolConfig::Upernet(config) = protocol("upernet") else { panic!() };
    let task = task(TargetKind::Mask, 3, Metric::Miou);
    let input = input(&task, Generated::new(&task, [4, 4, 4]), &[NormalizationKind::Standardize], 32);
    for encoder in [EncoderUse::Frozen, EncoderUse::Finetune] {
        let run = |learning_rates: Vec<f64>| {
            let config = UpernetConfig {
                encoder,
                augmentation: Augmentation::None,
                head: UperNetConfig { channels: 8, auxiliary_channels: 8, ..UperNetConfig::default() },
                training: TrainingConfig {
                    epochs: 1,
                    batch_size: 4,
                    learning_rates,
                    schedule: Schedule::WarmupCosine { warmup: 0.0, min_learning_rate: 0.0 },
                    ..config.training.clone()
                },
                patience: None,
            };
            let folder = tempfile::tempdir().unwrap();
            run_upernet(&config, 0, &subject(&task, &input, folder.path()), 1 << 30)
        };
        let alone = run(vec![1e-3]).unwrap();
        for rates in [vec![1e30, 1e-3], vec![1e-3, 1e30]] {
            let outcome = run(rates).unwrap();
            assert_eq!(outcome.selected["learning-rate"], "0.001", "{encoder}");
            assert_eq!(outcome.selected["diverged"], 1e30.to_string());
            assert_eq!(outcome.value, alone.value);
        }
        let error = run(vec![1e30]).unwrap_err();
        assert!(is_not_finite(&error) && error.to_string().contains("every learning rate"), "{error}");
    }
}

/// As an encoder's features would be with a normalisation that does not suit the pixels.
fn overflow(split: Split) -> Error {
    Error::not_finite(format!("{split}/one: the model's features are not finite"))
}

#[test]
fn a_normalisation_whose_features_are_not_finite_is_passed_over() {
    let task = task(TargetKind::Class, 3, Metric::Accuracy);
    let strategies = ["a", "b", "c"];
    for protocol in
        [protocol("knn"), ProtocolConfig::LinearProbe(linear_probe_config(vec![1e-2])), protocol("logistic")]
    {
        let asked = RefCell::new(Vec::new());
        let run = |broken: &dyn Fn(FeatureView) -> bool| {
            asked.borrow_mut().clear();
            run_on_features(&*protocol, &task, 0, &strategies, |wanted| {
                asked.borrow_mut().push((wanted.strategy, wanted.split));
                if broken(wanted) { Err(overflow(wanted.split)) } else { Ok(features(&task, wanted.split)) }
            })
        };
        let chosen = |outcome: &Outcome| outcome.selected["normalization"].clone();
        // All are alike: the first of those that are finite wins.
        let outcome = run(&|wanted| wanted.strategy == 0).unwrap();
        assert_eq!(chosen(&outcome), "b");
        assert_eq!(outcome.selected["diverged-normalizations"], "a");
        assert!(!outcome.scores.contains_key("valid/a") && outcome.scores["valid/c"].is_finite());
        // What validation cannot know.
        let outcome = run(&|wanted| wanted.strategy < 2 && wanted.split == Split::Test).unwrap();
        assert_eq!(chosen(&outcome), "c");
        assert_eq!(outcome.selected["diverged-normalizations"], "a, b");
        let error = run(&|_| true).unwrap_err();
        let told = error.to_string();
        assert!(
            is_not_finite(&error) && told.contains("none of the 3") && told.contains("train/one"),
            "{told}"
        );
        // Any other failure is one of the cell.
        let error =
            run_on_features(&*protocol, &task, 0, &strategies, |_| Err(Error::request("a disk fails")));
        assert!(error.unwrap_err().to_string().starts_with("a disk fails"));
        // A single strategy is taken as it is, with its own error.
        let error =
            run_on_features(&*protocol, &task, 0, &strategies[..1], |wanted| Err(overflow(wanted.split)));
        assert!(error.unwrap_err().to_string().starts_with("train/one"));
        assert!(!asked.borrow().is_empty());
    }
}

#[test]
fn a_normalisation_whose_tokens_are_not_finite_is_passed_over() {
    let ProtocolConfig::SegmentationProbe(config) = protocol("segmentation-probe") else { panic!() };
    let training = TrainingConfig { epochs: 1, learning_rates: vec![1e-2], ..config.training };
    let config = SegmentationProbeConfig { tile: 4, task_tiles: Default::default(), training };
    let task = task(TargetKind::Mask, 2, Metric::Miou);
    let masks = Array3::from_shape_fn((4, 4, 4), |(tile, y, x)| ((tile + y + x) % 2) as i16);
    let run = |broken: &dyn Fn(usize, Split) -> bool| {
        run_on_tokens(&config, &task, 0, &["a", "b"], |strategy, split| {
            if broken(strategy, split) {
                return Err(overflow(split));
            }
            let mut tokens = Tokens::new(2, 3);
            for tile in 0..4 {
                let numbers: Vec<f32> = (0..12).map(|i| unit(tile * 12 + i) as f32).collect();
                tokens.push(&numbers, masks.slice(s![tile as usize, .., ..]).to_owned()).unwrap();
            }
            Ok(tokens)
        })
    };
    let outcome = run(&|strategy, _| strategy == 0).unwrap();
    assert_eq!(outcome.selected["normalization"], "b");
    assert_eq!(outcome.selected["diverged-normalizations"], "a");
    let outcome = run(&|strategy, split| strategy == 0 && split == Split::Test).unwrap();
    assert_eq!(outcome.selected["normalization"], "b");
    let error = run(&|_, _| true).unwrap_err();
    assert!(is_not_finite(&error) && error.to_string().contains("none of the 2"), "{error}");
}

#[test]
fn a_training_that_diverges_late_keeps_its_best_epoch() {
    let ProtocolConfig::LinearProbe(config) = protocol("copernicus-linear-probe") else { panic!() };
    let task = task(TargetKind::Class, 3, Metric::Accuracy);
    let config = LinearProbeConfig {
        epochs: 6,
        batch_size: 8,
        learning_rates: vec![1e3],
        augmentation: Augmentation::None,
        // Each of five steps an epoch multiplies the weights by -999: they leave float32 in the third epoch.
        optimizer: Optimizer::Sgd { momentum: 0.0, weight_decay: 1.0 },
        schedule: Schedule::OneCycle {
            warmup_epochs: 0,
            start_divisor: 1.0,
            final_divisor: 1.0,
            momentum: [0.0, 0.0],
        },
        ..config
    };
    let outcome =
        run_on_features(&config, &task, 0, &["one"], |view| Ok(features(&task, view.split))).unwrap();
    assert!(outcome.validation.unwrap().is_finite());
    assert!(["1 of 6", "2 of 6"].contains(&outcome.selected["epoch"].as_str()), "{:?}", outcome.selected);
}
