//! Fine-tuning: gradients against finite differences, the schedule against the reference's, what it gains on the
//! demo, and that a killed run ends as an undisturbed one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common;
use crate::generated::{self, Generated};
use crate::source::run_on_features;
use burn::tensor::{Device, Tensor};
use ndarray::{Array3, ArrayD};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use terrabench::config::{FinetuneConfig, Schedule, Shortening, TrainingConfig};
use terrabench::data::{Sample, Target};
use terrabench::features::{Extractor, FeatureBank, Identity, Input, InputOptions};
use terrabench::home::{Home, read_toml};
use terrabench::model::config::{ImageSize, ModelConfig};
use terrabench::model::weights::Weights;
use terrabench::model::{self};
use terrabench::progress::Silent;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::TrainingSetup;
use terrabench::protocol::finetune::{self, Network};
use terrabench::task::Suite;
use terrabench::task::{Metric, Sensor, TargetKind};
use terrabench::train::epoch::{self, Classifier, Recipe};
use terrabench::train::optim::{Optimizer, Rule};
use terrabench::train::schedule::Position;
use terrabench::train::state::{self, State};
use terrabench::transform::augment::Dihedral;
use terrabench::transform::normalize::NormalizationKind;
use terrabench::transform::strategies::Strategies;

fn device() -> Device {
    Device::flex().autodiff()
}

fn tiny() -> (ModelConfig, Weights) {
    let weights = common::fixture("model/tiny.safetensors").to_str().unwrap().parse().unwrap();
    (read_toml(&common::fixture("model/tiny.toml")).unwrap(), weights)
}

/// How Sentinel-2 images go into it.
fn spec() -> terrabench::model::InputSpec {
    terrabench::model::InputSpec::single(Sensor::S2_L1C, [].into(), terrabench::model::Pooling::Class)
}

fn network(outputs: usize) -> Network {
    let (config, weights) = tiny();
    let encoder = model::trainable(&config, &weights, false, &device()).unwrap();
    Network::new(encoder, spec(), outputs, 0, &device())
}

/// Noise images of 12 bands with these labels.
fn samples(labels: Vec<Target>, side: usize) -> Vec<Sample> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    labels
        .into_iter()
        .map(|label| Sample {
            name: String::new(),
            images: vec![common::image(
                Sensor::S2_L1C,
                Array3::from_shape_simple_fn((12, side, side), || random.random_range(-1.0..1.0)),
            )],
            target: label,
        })
        .collect()
}

fn loss(network: &Network, samples: &[Sample], outputs: usize) -> Tensor<1> {
    let prepared: Vec<_> = samples.iter().cloned().map(Into::into).collect();
    epoch::loss(network.logits(&prepared, &device()).unwrap(), samples, outputs).unwrap()
}

fn scalar(loss: Tensor<1>) -> f64 {
    f64::from(loss.into_data().try_into_vec::<f32>().unwrap()[0])
}

/// How far to go along a slope: the loss moves by a hundredth at most, and nearly straight.
fn step(slope: f64) -> f64 {
    (1e-2 / slope.abs()).min(1e-2)
}

/// Every parameter of the first and the last block and of all outside the blocks: the slope along its gradient is
/// the gradient's length, and the slope along its largest component is that component.
fn check_gradients(labels: Vec<Target>, side: usize, outputs: usize) {
    let (network, samples) = (network(outputs), samples(labels, side));
    let gradients = state::gradients(&network, &loss(&network, &samples, outputs).backward());
    let start = state::state(&network);
    let mut checked = Vec::new();
    for (name, gradient) in &gradients {
        if ["encoder.blocks.1", "encoder.blocks.2"].iter().any(|block| name.starts_with(block)) {
            continue;
        }
        let length = gradient.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let largest = gradient.iter().copied().fold(0.0, |a: f32, b| if b.abs() > a.abs() { b } else { a });
        let component = gradient.mapv(|x| f32::from(u8::from(x == largest)));
        let slope = |direction: &ArrayD<f32>, h: f64| {
            let at = |h: f64| {
                let mut moved: State = start.clone();
                let parameter = moved.get_mut(name).unwrap();
                parameter.zip_mut_with(direction, |x, d| *x += h as f32 * d);
                scalar(loss(&state::load(network.clone(), &moved).unwrap(), &samples, outputs))
            };
            (at(h) - at(-h)) / (2.0 * h)
        };
        // Softmax ignores what all keys share, so some gradients are 0 but for rounding.
        if length > 1e-3 {
            let unit = gradient.mapv(|x| (f64::from(x) / length) as f32);
            let found = slope(&unit, step(length));
            assert!((found - length).abs() < 0.02 * length + 1e-3, "{name}: {found}, expected {length}");
        }
        let (found, expected) = (slope(&component, step(f64::from(largest))), f64::from(largest));
        assert!(
            (found - expected).abs() < 0.02 * expected.abs() + 1e-3,
            "{name}: {found}, expected {expected}"
        );
        checked.push(name.as_str());
    }
    for part in [
        "cls_token",
        "pos_embed",
        "s2_l1c_embed",
        "conv2d_s2_l1c.weight",
        "projection.proj1.weight",
        "projection.norm_input.weight",
        "blocks.0.norm1.weight",
        "blocks.3.attn.qkv.weight",
        "blocks.3.attn.proj.bias",
        "blocks.0.mlp.fc1.weight",
        "blocks.3.mlp.fc2.bias",
        "encoder.norm.bias",
        "head.weight",
        "head.bias",
    ] {
        assert!(checked.iter().any(|name| name.ends_with(part)), "{part} is not among {checked:?}");
    }
    assert!(!checked.iter().any(|name| name.contains("l2a") || name.contains("s1")), "{checked:?}");
}

#[test]
fn gradients_are_slopes_of_the_cross_entropy() {
    check_gradients(vec![Target::Class(2), Target::Class(0)], 224, 4);
}

#[test]
fn gradients_are_slopes_of_the_multi_label_loss_at_another_size() {
    check_gradients(vec![Target::Labels(vec![true, false, true]), Target::Labels(vec![false; 3])], 48, 3);
}

#[test]
fn losses_are_those_of_pytorch() {
    let logits = || Tensor::<2>::from_data([[1.0_f32, -2.0, 0.5], [0.0, 3.0, -1.0]], &device());
    // torch.nn.functional.cross_entropy(…, reduction="sum"); twice multilabel_soft_margin_loss.
    let classes = samples(vec![Target::Class(0), Target::Class(2)], 1);
    assert!((scalar(epoch::loss(logits(), &classes, 3).unwrap()) - 4.570_481).abs() < 1e-5);
    let labels = [vec![true, false, true], vec![false, true, false]].map(Target::Labels);
    let labels = samples(labels.to_vec(), 1);
    assert!((scalar(epoch::loss(logits(), &labels, 3).unwrap()) - 0.656_421).abs() < 1e-5);
    let error = epoch::loss(logits(), &samples(vec![Target::Class(3); 2], 1), 3).unwrap_err().to_string();
    assert!(error.contains("class 3"), "{error}");
}

#[test]
fn the_schedule_is_the_reference_s() {
    let ProtocolConfig::Finetune(config) = ProtocolConfig::load(&Home::find().unwrap(), "finetune").unwrap()
    else {
        panic!("finetune.toml is of another kind");
    };
    let text = std::fs::read_to_string(common::fixture("protocols/schedules.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let golden = &golden["galileo"]["warmup5_min1e-6"];
    assert_eq!(config.training.epochs as u64, golden["epochs"].as_u64().unwrap());
    let batches = 7;
    for (step, expected) in golden["lr"].as_array().unwrap().iter().enumerate() {
        let position = Position {
            epoch: step / batches,
            epochs: config.training.epochs,
            batch: step % batches,
            batches,
        };
        let found = config.training.schedule.at(1e-3, position).learning_rate;
        assert!((found - expected.as_f64().unwrap()).abs() < 1e-12, "step {step}: {found}, not {expected}");
    }
    assert_eq!(golden["lr"].as_array().unwrap().len(), 350);
}

/// Parts, accumulation and batches: only the order of sums differs.
#[test]
fn a_step_does_not_depend_on_how_its_batch_is_cut() {
    let train = |batch_size: usize, accumulated: usize, at_once: usize| {
        let samples = samples((0..12).map(|i| Target::Class(i % 3)).collect(), 32);
        let recipe = Recipe {
            epochs: 1,
            batch_size,
            accumulated,
            clip_norm: 0.5,
            schedule: Schedule::WarmupCosine { warmup: 0.0, min_learning_rate: 0.1 },
            learning_rate: 0.1,
            momentum: 0.0,
            outputs: 3,
            at_once,
            device: device(),
            is_deferred: false,
        };
        let mut optimizer = Optimizer::new(Rule::Sgd { weight_decay: 0.0 });
        let items = samples.into_iter().map(Ok);
        let (network, loss) =
            epoch::epoch(network(3), &mut optimizer, &recipe, 0, 12, items, &mut |_| ()).unwrap();
        (state::state(&network), loss)
    };
    let (whole, loss) = train(12, 1, 12);
    let moved = state::state(&network(3))
        .iter()
        .map(|(name, before)| (before - &whole[name]).mapv(|x| f64::from(x).powi(2)).sum())
        .sum::<f64>()
        .sqrt();
    // The gradient is clipped to 0.5, the learning rate is 0.1.
    assert!((moved - 0.05).abs() < 1e-5, "{moved}");
    for (batch_size, accumulated, at_once) in [(12, 1, 3), (6, 2, 6), (4, 3, 2)] {
        let (cut, other) = train(batch_size, accumulated, at_once);
        assert!((loss - other).abs() < 1e-5);
        for (name, numbers) in &whole {
            let apart = (numbers - &cut[name]).mapv(f32::abs).into_iter().fold(0.0, f32::max);
            assert!(apart < 1e-6, "{name}: {apart}");
        }
    }
}

#[test]
fn fine_tuning_beats_the_frozen_features() {
    let home = Home::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    let data = common::demo::provide(&suite, folder.path());
    let task = suite.task("m-eurosat").unwrap();
    let (mut config, weights) = tiny();
    // A quarter of the tokens of 224 pixels, and as much to learn.
    config.image = ImageSize::Side(112);
    let options = InputOptions {
        by_content: false,
        channels: Default::default(),
        normalization: "dataset".to_owned(),
        strategies: Strategies::load(&home).unwrap(),
        zeros: false,
    };
    let input = Input::open(&suite, task, "default", &data, &config, &options).unwrap();

    let frozen = model::load(&config, &weights, false, &Device::flex()).unwrap();
    let extractor = Extractor {
        encoder: frozen.encoder.as_ref(),
        device: &Device::flex(),
        further: &[],
        input: &input,
        strategy: input.only().unwrap(),
        turn: Dihedral::Identity,
        batch_size: 8.into(),
        readers: 2,
    };
    let identity = Identity {
        model: &config,
        weights: &frozen.weights_id,
        device: "flex",
        precision: Default::default(),
    };
    let ProtocolConfig::LinearProbe(probe) = ProtocolConfig::load(&home, "linear-probe").unwrap() else {
        panic!()
    };
    let mut bank = FeatureBank::default();
    let probed = run_on_features(&probe, task, 0, &["one"], |view| {
        bank.features(&extractor, identity, view.split, &Silent)
    })
    .unwrap();
    let before = (probed.validation.unwrap(), probed.value);

    let ProtocolConfig::Finetune(full) = ProtocolConfig::load(&home, "finetune").unwrap() else { panic!() };
    let config_ft = FinetuneConfig {
        effective_batch_size: 10,
        training: TrainingConfig { epochs: 30, batch_size: 10, learning_rates: vec![1e-3], ..full.training },
        ..full
    };
    let subject = TrainingSetup {
        task,
        input: &input,
        strategy: input.only().unwrap(),
        encoder: Some(model::trainable(&config, &weights, false, &device()).unwrap()),
        maps: config.architecture.maps(),
        device: device(),
        on_device: false,
        batch_size: 10,
        readers: 2,
        snapshot: folder.path().join("snapshot.safetensors"),
        progress: &Silent,
    };
    let outcome = finetune::run(&config_ft, 0, &subject).unwrap();
    let after = (outcome.validation.unwrap(), outcome.value);
    eprintln!("valid and test accuracy: frozen {before:?}, fine-tuned {after:?}");
    // 20 and 20 points on one processor; another rounds otherwise, and an image of validation is worth 10.
    assert!(after.0 >= before.0 + 10.0 && after.1 >= before.1 + 10.0, "{before:?} {after:?}");
}

#[test]
fn shortening_marks_what_it_changes() {
    let home = Home::find().unwrap();
    let full = ProtocolConfig::load(&home, "finetune").unwrap();
    let shorten = |shortening| full.clone().shortened("finetune", &shortening);
    assert_eq!(shorten(Shortening::default()).unwrap(), full);
    let same = Shortening { epochs: Some(50), ..Shortening::default() };
    assert_eq!(shorten(same).unwrap(), full);
    for shortening in [
        Shortening { epochs: Some(3), ..Shortening::default() },
        Shortening { learning_rates: vec![1e-4], ..Shortening::default() },
        Shortening { limit: Some(10), ..Shortening::default() },
    ] {
        let short = shorten(shortening).unwrap();
        assert!(short.is_short() && !full.is_short());
        assert_ne!(serde_json::to_string(&short).unwrap(), serde_json::to_string(&full).unwrap());
    }
    let bad = Shortening { learning_rates: vec![-1.0], ..Shortening::default() };
    assert!(shorten(bad.clone()).unwrap_err().to_string().contains("-1"));
    let knn = ProtocolConfig::load(&home, "knn").unwrap();
    assert!(knn.shortened("knn", &bad).unwrap_err().to_string().contains("finetune"));
}

/// A training that stops early gives what one of as many epochs as its best gives.
#[test]
fn with_patience_the_best_epoch_counts() {
    let ProtocolConfig::Finetune(full) = ProtocolConfig::load(&Home::find().unwrap(), "finetune").unwrap()
    else {
        panic!()
    };
    let task = generated::task(TargetKind::Class, 3, Metric::Accuracy);
    let normalization = [NormalizationKind::Standardize];
    let input = generated::input(&task, Generated::new(&task, [12, 12, 9]), &normalization, 32);
    let rate = 3e-3;
    let run = |epochs: usize, patience: Option<usize>| {
        let config = FinetuneConfig {
            effective_batch_size: 6,
            patience,
            training: TrainingConfig {
                epochs,
                batch_size: 6,
                learning_rates: vec![rate],
                // The same in each epoch, however many there are.
                schedule: Schedule::WarmupCosine { warmup: 0.0, min_learning_rate: rate },
                ..full.training.clone()
            },
            ..full.clone()
        };
        let folder = tempfile::tempdir().unwrap();
        finetune::run(&config, 0, &generated::subject(&task, &input, folder.path())).unwrap()
    };
    let stopped = run(12, Some(2));
    let (best, all) = stopped.selected["epoch"].split_once(" of ").unwrap();
    let best: usize = best.parse().unwrap();
    assert_eq!(all, "12");
    let alone = run(best, None);
    assert_eq!((alone.value, alone.validation), (stopped.value, stopped.validation));
    for epochs in 1..best {
        assert!(run(epochs, None).validation < stopped.validation, "{epochs} epochs are as good as {best}");
    }
    for epochs in best + 1..=(best + 2).min(12) {
        assert!(run(epochs, None).validation <= stopped.validation, "{epochs} epochs are better than {best}");
    }
}

/// Returns the command that fine-tunes with the protocol in a file.
fn bench(cache: &Path, out: &Path, protocol: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env_remove("GEO_BENCH_DIR").env("TERRABENCH_CACHE", common::demo::cache("geobench", cache));
    command.args(["bench", "geobench", "--demo", "--task", "m-eurosat", "--partition", "default"]);
    command.args(["--protocol", protocol, "--epochs", "3", "--learning-rates", "1e-4,3e-4,1e-3"]);
    command.args(["--limit", "12", "--threads", "2", "--out"]).arg(out);
    command.stderr(Stdio::piped()).stdout(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).map_or(Vec::new(), |entries| {
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')).collect()
    })
}

/// The one record, without what tells of the run: times.
fn record(out: &Path) -> serde_json::Value {
    let records = files(&out.join("geobench-demo/records"));
    assert_eq!(records.len(), 1, "{records:?}");
    let mut record: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&records[0]).unwrap()).unwrap();
    for time in ["finished", "wall-seconds"] {
        assert!(record["provenance"].as_object_mut().unwrap().remove(time).is_some());
    }
    record
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_record() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let [undisturbed, killed, damaged] = ["a", "b", "c"].map(|name| folder.path().join(name));
    // Its snapshots hold more: scores of each epoch, and what the best one gives.
    let early = [("clip-norm = ", "patience = 1\nclip-norm = ")];
    let protocol = common::changed_protocol("finetune", folder.path(), &early);
    let bench = |out: &Path| bench(&cache, out, &protocol);
    let output = bench(&undisturbed).output().unwrap();
    assert!(!said(&output).contains("continuing"), "{}", said(&output));
    let expected = record(&undisturbed);
    assert_eq!(expected["short"], true);
    assert_eq!(expected["samples"], serde_json::json!({"train": 12, "valid": 10, "test": 12}));
    let snapshots = |out: &Path| files(&out.join("geobench-demo/checkpoints"));
    assert!(snapshots(&undisturbed).is_empty(), "the snapshot goes when the record is there");

    let mut child = bench(&killed).spawn().unwrap();
    let start = Instant::now();
    while snapshots(&killed).is_empty() && start.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(files(&killed.join("geobench-demo/records")).is_empty(), "killed too late");
    let left = snapshots(&killed);
    assert_eq!(left.len(), 1);

    // The same, with one bit of a weight flipped.
    let mut bytes = std::fs::read(&left[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let spoilt = damaged.join("geobench-demo/checkpoints").join(left[0].file_name().unwrap());
    std::fs::create_dir_all(spoilt.parent().unwrap()).unwrap();
    std::fs::write(&spoilt, bytes).unwrap();

    let output = bench(&killed).output().unwrap();
    assert!(said(&output).contains("continuing with learning rate"), "{}", said(&output));
    assert_eq!(record(&killed), expected);
    let output = bench(&damaged).output().unwrap();
    assert!(said(&output).contains("starting from epoch 0"), "{}", said(&output));
    assert_eq!(record(&damaged), expected);
    assert!(snapshots(&killed).is_empty() && snapshots(&damaged).is_empty());
}
