//! Arithmetic on a device against the same arithmetic on the CPU: neighbours, probes, logistic regression, sweeps of normalisations,
//! fine-tuning and UPerNet. The CPU in pure Rust stands for a device in every build; with LibTorch its CPU does too.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use ndarray::{Array2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use terrabench::config::{
    Augmentation, Distance, EmbeddingDtype, EncoderUse, FinetuneConfig, KnnConfig, LinearProbeConfig,
    LogSpaced, LogisticConfig, TrainingConfig, UpernetConfig,
};
use terrabench::data::decoding::Decoding;
use terrabench::data::{Dataset, RawSample, Sample, Split};
use terrabench::device::{self, Precision};
use terrabench::features::feed::{DeviceFeed, Feed};

use crate::common::demo;

#[cfg(feature = "libtorch")]
use terrabench::features::source::{EncoderSource, FeatureSource, FeatureView, KnownFeatures};
use terrabench::features::{Extractor, FeatureBank, Identity};
use terrabench::home::Home;
use terrabench::model;
use terrabench::progress::Silent;
use terrabench::protocol::knn::{predict, predict_on};
use terrabench::protocol::linear_probe::{TrainingSet, probe, probe_on};
use terrabench::protocol::logistic::{sweep, sweep_on};
use terrabench::protocol::{Accelerator, ProtocolConfig, TrainingSetup, finetune};
use terrabench::score::decision::HeldOut;
use terrabench::score::{Targets, score_logits};
use terrabench::task::{Metric, TargetKind};
use terrabench::train::epoch::{Classifier, TrainingSample};
use terrabench::transform::augment::{Dihedral, Turn};
use terrabench::transform::normalize::{BandStatistics, NormalizationKind};

use crate::generated::{Generated, input, subject, task, tiny};
use crate::source::run_upernet;

/// The devices that stand for a GPU, with blocks that are small enough for several to be met.
fn accelerators() -> Vec<Accelerator> {
    let names = if cfg!(feature = "libtorch") { vec!["flex", "libtorch"] } else { vec!["flex"] };
    let accelerator = |name| Accelerator::always(name, &device::by_name(name).unwrap()).with_blocks_of(700);
    names.into_iter().map(accelerator).collect()
}

fn devices() -> Vec<Device> {
    accelerators().iter().map(|accelerator| accelerator.device().clone()).collect()
}

fn random(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((rows, columns), || random.random_range(-1.0..1.0_f32))
}

/// Three classes around centres of their own, some of them on the wrong side.
fn clusters(rows: usize, width: usize, seed: u64) -> (Array2<f32>, Targets) {
    let mut features = random(rows, width, seed);
    let classes: Vec<usize> = (0..rows).map(|row| (row * 7 + row / 5) % 3).collect();
    for (mut row, class) in features.rows_mut().into_iter().zip(&classes) {
        row[*class] += 0.8;
    }
    (features, Targets::Classes { classes, count: 3 })
}

fn protocol(name: &str) -> ProtocolConfig {
    ProtocolConfig::load(&Home::find().unwrap(), name).unwrap()
}

fn knn(distance: Distance, k: usize) -> KnnConfig {
    let ProtocolConfig::Knn(config) = protocol("knn") else { panic!() };
    // Weights of Euclidean neighbours this far away would all round to 0.
    let temperature = config.temperature.filter(|_| distance == Distance::Cosine);
    KnnConfig { k, distance, temperature, embedding_dtype: EmbeddingDtype::F32, ..config }
}

#[test]
fn neighbours_on_a_device_are_those_of_the_cpu() {
    let mut train = random(2500, 24, 1);
    let queries = random(1100, 24, 2);
    // Copies and multiples are equally similar in different blocks; vectors of zeros to all.
    for row in 0..200 {
        let copy = train.row(row).to_owned();
        train.row_mut(1000 + row).assign(&copy);
        train.row_mut(2200 + row).assign(&(copy * 3.0));
    }
    train.row_mut(7).fill(0.0);
    train.row_mut(1500).fill(1e-12);
    let labels = Targets::Classes { classes: (0..2500).map(|sample| sample % 17).collect(), count: 17 };
    for accelerator in accelerators() {
        for (distance, k) in [(Distance::Cosine, 20), (Distance::Euclidean, 5), (Distance::Cosine, 1)] {
            let config = knn(distance, k);
            let expected = predict(&config, train.view(), &labels, queries.view()).unwrap();
            let found =
                predict_on(Some(&accelerator), &config, train.view(), &labels, queries.view()).unwrap();
            let what = format!("{} {distance:?} {k}", accelerator.kind());
            assert_eq!(found.neighbours.indices, expected.neighbours.indices, "{what}");
            assert_eq!(found.targets, expected.targets, "{what}");
            // A distance depends in its last digit on how many are computed at once.
            let [found, expected] = [found, expected].map(|prediction| prediction.shares.unwrap());
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{what}");
        }
    }
}

/// More rows are equally near than a device proposes, and distances are small differences of large numbers.
#[test]
fn queries_that_a_device_cannot_decide_are_searched_on_the_cpu() {
    let mut train = random(900, 8, 3);
    let row = train.row(5).to_owned();
    for copy in 300..600 {
        train.row_mut(copy).assign(&row);
    }
    train += 20_000.0;
    let mut queries = random(40, 8, 4) + 20_000.0;
    queries.row_mut(3).assign(&train.row(5));
    let labels = Targets::Values((0..900).map(|sample| sample as f32).collect());
    for accelerator in accelerators() {
        for distance in [Distance::Cosine, Distance::Euclidean] {
            let config = knn(distance, 20);
            let expected = predict(&config, train.view(), &labels, queries.view()).unwrap();
            let found =
                predict_on(Some(&accelerator), &config, train.view(), &labels, queries.view()).unwrap();
            assert_eq!(found, expected, "{} {distance:?}", accelerator.kind());
        }
        let mut broken = train.clone();
        broken[[17, 2]] = f32::NAN;
        let config = knn(Distance::Cosine, 5);
        let error = predict_on(Some(&accelerator), &config, broken.view(), &labels, queries.view());
        assert!(error.unwrap_err().to_string().contains("train sample 17"));
    }
}

/// Splits of which a regression or a probe is trained.
fn splits(targets_of: impl Fn(Targets, u64) -> Targets) -> Splits {
    [(900, 11), (150, 12), (150, 13)].map(|(rows, seed)| {
        let (features, targets) = clusters(rows, 16, seed);
        (features, targets_of(targets, seed))
    })
}

/// Features [n, d] and targets of train, validation and test.
type Splits = [(Array2<f32>, Targets); 3];

fn all_kinds() -> Vec<(&'static str, Splits)> {
    let labels = |targets: Targets, seed: u64| {
        let n = targets.len();
        let noise = random(n, 4, seed + 100);
        let Targets::Classes { classes, .. } = targets else { panic!() };
        let applies =
            |(row, label)| if label < 3 { classes[row] == label } else { noise[(row, label)] > 0.3 };
        Targets::Labels(Array2::from_shape_fn((n, 4), applies))
    };
    let two = |targets: Targets, _| {
        let Targets::Classes { classes, .. } = targets else { panic!() };
        Targets::Classes { classes: classes.into_iter().map(|class| class.min(1)).collect(), count: 2 }
    };
    vec![("classes", splits(|targets, _| targets)), ("two", splits(two)), ("labels", splits(labels))]
}

fn assert_near(what: &str, found: &Array2<f32>, expected: &Array2<f32>, tolerance: f32) {
    assert_eq!(found.dim(), expected.dim(), "{what}");
    let apart = found.iter().zip(expected).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() });
    let apart = apart.fold(0.0, f32::max);
    assert!(apart <= tolerance, "{what}: logits {apart} apart");
}

#[test]
fn logistic_regression_on_a_device_is_that_of_the_cpu() {
    for name in ["logistic", "torchgeo-linear"] {
        let ProtocolConfig::Logistic(config) = protocol(name) else { panic!() };
        let config = LogisticConfig { c: LogSpaced { start: 1e-3, stop: 10.0, count: 4 }, ..config };
        for (kind, [train, valid, test]) in all_kinds() {
            let held_out = HeldOut { valid: valid.0.view(), valid_targets: &valid.1, test: test.0.view() };
            let metric = if kind == "labels" { Metric::MicroF1 } else { Metric::Accuracy };
            let score =
                |logits: ndarray::ArrayView2<f32>, truth: &Targets| score_logits(metric, logits, truth);
            let expected = sweep(&config, train.0.view(), &train.1, held_out, score).unwrap();
            assert_eq!(expected.solved_on, None);
            for accelerator in accelerators() {
                let what = format!("{name} {kind} {}", accelerator.kind());
                let found =
                    sweep_on(Some(&accelerator), &config, train.0.view(), &train.1, held_out, score).unwrap();
                assert_eq!(found.solved_on.as_deref(), Some(accelerator.kind()), "{what}");
                assert_eq!(found.chosen.c, expected.chosen.c, "{what}");
                // PyTorch's solver stops where float32 no longer changes.
                let tolerance = if name == "logistic" { 1e-5 } else { 5e-2 };
                assert_near(&what, &found.logits, &expected.logits, tolerance);
                if name == "logistic" {
                    let predicted = |logits: &Array2<f32>| test.1.predicted(logits.view());
                    assert_eq!(predicted(&found.logits), predicted(&expected.logits), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_linear_probe_on_a_device_is_that_of_the_cpu() {
    for name in ["linear-probe", "copernicus-linear-probe"] {
        let ProtocolConfig::LinearProbe(config) = protocol(name) else { panic!() };
        let augmentation = config.augmentation;
        let config = LinearProbeConfig { epochs: 6, batch_size: 64, ..config };
        let rates = [1e-2, 1e-3, 3e-4];
        for (kind, [train, valid, test]) in all_kinds() {
            let variants: Vec<Array2<f32>> = (0..augmentation.transforms().len())
                .map(|variant| &train.0 + 0.01 * variant as f32)
                .collect();
            let views: Vec<_> = variants.iter().map(Array2::view).collect();
            let features = ndarray::stack(Axis(0), &views).unwrap();
            let training = TrainingSet { features: features.view(), targets: &train.1 };
            let held_out = HeldOut { valid: valid.0.view(), valid_targets: &valid.1, test: test.0.view() };
            let metric = if kind == "labels" { Metric::MicroF1 } else { Metric::Accuracy };
            let score =
                |logits: ndarray::ArrayView2<f32>, truth: &Targets| score_logits(metric, logits, truth);
            let expected = probe(&config, &rates, training, held_out, 3, score).unwrap();
            for accelerator in accelerators() {
                let what = format!("{name} {kind} {}", accelerator.kind());
                let found =
                    probe_on(Some(&accelerator), &config, &rates, training, held_out, 3, score).unwrap();
                assert_eq!(found.solved_on.as_deref(), Some(accelerator.kind()), "{what}");
                assert_eq!(found.chosen, expected.chosen, "{what}");
                assert_near(&what, &found.logits, &expected.logits, 1e-3);
                let predicted = |logits: &Array2<f32>| test.1.predicted(logits.view());
                assert_eq!(predicted(&found.logits), predicted(&expected.logits), "{what}");
            }
        }
    }
}

/// Counts how often samples are read.
struct Counting(Generated, Arc<AtomicUsize>);

impl Dataset for Counting {
    fn decoding(&self) -> &Decoding {
        self.0.decoding()
    }
    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> terrabench::Result<Sample> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read(split, index, bands)
    }
    fn samples(&self, split: Split) -> &[String] {
        self.0.samples(split)
    }
    fn files(&self, split: Split) -> Vec<std::path::PathBuf> {
        self.0.files(split)
    }
    fn bands(&self) -> terrabench::Result<Vec<Vec<String>>> {
        self.0.bands()
    }
    fn read_raw(&self, split: Split, index: usize) -> terrabench::Result<RawSample> {
        self.0.read_raw(split, index)
    }
    fn statistics(&self, image: usize, bands: &[String]) -> terrabench::Result<Vec<BandStatistics>> {
        self.0.statistics(image, bands)
    }
    fn contents(&self, split: Split) -> terrabench::Result<Vec<blake3::Hash>> {
        self.0.contents(split)
    }
}

#[test]
fn a_sweep_reads_and_uploads_each_sample_once() {
    let task = task(TargetKind::Class, 3, Metric::Accuracy);
    let kinds =
        [NormalizationKind::Standardize, NormalizationKind::NormNoClip, NormalizationKind::NormYesClipInt];
    let (config, weights) = tiny();
    for device in devices() {
        let reads = Arc::new(AtomicUsize::new(0));
        let mut input = input(&task, Generated::new(&task, [11, 5, 2]), &kinds, 48);
        input.dataset = Box::new(Counting(Generated::new(&task, [11, 5, 2]), Arc::clone(&reads)));
        let loaded = model::load(&config, &weights, false, &device).unwrap();
        let identity = Identity {
            model: &config,
            weights: &loaded.weights_id,
            device: "flex",
            precision: Default::default(),
        };
        let extractor = |strategy: usize| Extractor {
            encoder: loaded.encoder.as_ref(),
            device: &device,
            further: &[],
            input: &input,
            strategy: &input.strategies[strategy],
            turn: Dihedral::Identity,
            batch_size: 4.into(),
            readers: 2,
        };
        let mut shared = FeatureBank::new(None);
        let all = || (0..kinds.len()).map(extractor).collect();
        shared.extract_for_all(all(), identity, Split::Train, &Silent).unwrap();
        shared.extract_for_all(all(), identity, Split::Train, &Silent).unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 11);
        for strategy in 0..kinds.len() {
            let found = shared.features(&extractor(strategy), identity, Split::Train, &Silent).unwrap();
            assert_eq!(reads.swap(0, Ordering::Relaxed), if strategy == 0 { 11 } else { 0 });
            let mut alone = FeatureBank::new(None);
            let expected = alone.features(&extractor(strategy), identity, Split::Train, &Silent).unwrap();
            reads.store(0, Ordering::Relaxed);
            assert_eq!(found.samples, expected.samples);
            assert_eq!(found.labels, expected.labels);
            assert_near("features", &found.matrix, &expected.matrix, 1e-5);
        }
    }
}

/// Through the interface of protocols: the device shares uploads by itself where it is not the CPU, and test is left alone.
#[cfg(feature = "libtorch")]
#[test]
fn a_sweep_on_libtorch_shares_its_uploads() {
    let task = task(TargetKind::Class, 3, Metric::Accuracy);
    let kinds = [NormalizationKind::Standardize, NormalizationKind::NormNoClip];
    let (config, weights) = tiny();
    let device = device::by_name("libtorch").unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let mut input = input(&task, Generated::new(&task, [6, 5, 4]), &kinds, 48);
    input.dataset = Box::new(Counting(Generated::new(&task, [6, 5, 4]), Arc::clone(&reads)));
    let loaded = model::load(&config, &weights, false, &device).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cache = terrabench::features::cache::Cache::new(folder.path());
    let mut known = KnownFeatures::new(FeatureBank::new(Some(cache)));
    let mut source = EncoderSource {
        encoder: loaded.encoder.as_ref(),
        identity: Identity {
            model: &config,
            weights: &loaded.weights_id,
            device: "libtorch",
            precision: Default::default(),
        },
        input: &input,
        partition: "default",
        device: &device,
        further: &[],
        batch_size: 4.into(),
        readers: 2,
        map_limit: 1 << 20,
        known: &mut known,
        progress: &Silent,
    };
    let mut read_by = |strategy, split| {
        let features = source.pooled(FeatureView::upright(strategy, split)).unwrap();
        assert_eq!(features.samples.len(), input.dataset.samples(split).len());
        reads.swap(0, Ordering::Relaxed)
    };
    assert_eq!([read_by(0, Split::Train), read_by(1, Split::Train)], [6, 0]);
    assert_eq!([read_by(0, Split::Valid), read_by(1, Split::Valid)], [5, 0]);
    assert_eq!([read_by(1, Split::Test), read_by(1, Split::Train)], [4, 0]);
}

#[test]
fn batches_after_the_first_need_no_new_memory() {
    let task = task(TargetKind::Class, 3, Metric::Accuracy);
    let input = input(&task, Generated::new(&task, [9, 1, 1]), &[NormalizationKind::Standardize], 48);
    for device in devices() {
        let feed = Feed::of(&input, &input.strategies[0].preprocess, Dihedral::Identity, device).on_device();
        for first in [0, 3, 6] {
            let samples: Vec<Sample> =
                (first..first + 3).map(|index| feed.read(Split::Train, index).unwrap()).collect();
            feed.batch(samples.iter().map(|sample| sample.images.as_slice())).unwrap();
        }
        assert_eq!(feed.buffers().made(), 1);
    }
}

/// A setup of the tiny model on a device, whose images are prepared there or by the CPU.
fn setup<'a>(original: &TrainingSetup<'a>, device: &Device, on_device: bool) -> TrainingSetup<'a> {
    let (config, weights) = tiny();
    let device = device.clone().autodiff();
    TrainingSetup {
        task: original.task,
        input: original.input,
        strategy: original.strategy,
        encoder: Some(model::trainable(&config, &weights, false, &device).unwrap()),
        maps: original.maps.clone(),
        device,
        on_device,
        batch_size: original.batch_size,
        readers: 2,
        snapshot: original.snapshot.clone(),
        progress: &Silent,
    }
}

fn turns(count: usize) -> Vec<Turn> {
    (0..count)
        .map(|place| Turn {
            dihedral: Dihedral::ALL[place % 8],
            degrees: (place % 2 == 1).then_some(17.0 * place as f64 - 40.0),
        })
        .collect()
}

/// Pixels that the device prepares and turns, and logits of them, against the CPU's.
#[test]
fn training_batches_of_a_device_are_those_of_the_cpu() {
    let task = task(TargetKind::Class, 3, Metric::Accuracy);
    let input = input(&task, Generated::new(&task, [9, 1, 1]), &[NormalizationKind::NormNoClip], 32);
    let strategy = &input.strategies[0];
    for device in devices() {
        let feed = DeviceFeed::new(&input, &strategy.preprocess, &device);
        let stored: Vec<Sample> = (0..9).map(|index| input.stored(Split::Train, index).unwrap()).collect();
        let batch = feed.batch(stored.iter().map(|sample| sample.images.as_slice()), &turns(9)).unwrap();
        let found: Vec<f32> = batch.inputs[0].pixels.clone().into_data().try_into_vec().unwrap();
        let prepared: Vec<Sample> = (0..9)
            .zip(turns(9))
            .map(|(index, turn)| {
                let sample = input.read(&strategy.preprocess, Split::Train, index).unwrap();
                sample.turned(|pixels| turn.image(pixels))
            })
            .collect();
        let expected: Vec<f32> =
            prepared.iter().flat_map(|sample| sample.images[0].pixels.iter().copied()).collect();
        assert_eq!(found.len(), expected.len());
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= 2e-6, "{apart}");

        let (config, weights) = tiny();
        let autodiff = device.clone().autodiff();
        let encoder = model::trainable(&config, &weights, false, &autodiff).unwrap();
        let network = finetune::Network::new(encoder, input.spec(), 3, 0, &autodiff);
        let numbers = |logits: burn::tensor::Tensor<2>| logits.into_data().try_into_vec::<f32>().unwrap();
        let on_cpu: Vec<TrainingSample> = prepared.into_iter().map(Into::into).collect();
        let expected = numbers(network.logits(&on_cpu, &autodiff).unwrap());
        let as_stored: Vec<TrainingSample> = stored
            .into_iter()
            .zip(turns(9))
            .map(|(sample, turn)| TrainingSample { sample, turn: Some(turn) })
            .collect();
        let found = numbers(network.prepared_by(Some(feed)).logits(&as_stored, &autodiff).unwrap());
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= 2e-5, "logits {apart}");
    }
}

#[test]
fn fine_tuning_on_a_device_gives_the_predictions_of_the_cpu() {
    let task = task(TargetKind::Class, 3, Metric::Accuracy);
    let ProtocolConfig::Finetune(full) = protocol("finetune") else { panic!() };
    let config = FinetuneConfig {
        effective_batch_size: 6,
        clip_norm: 0.5,
        augmentation: Augmentation::Dihedral,
        training: TrainingConfig { epochs: 2, batch_size: 6, learning_rates: vec![1e-3], ..full.training },
        ..full
    };
    let input = input(&task, Generated::new(&task, [12, 6, 9]), &[NormalizationKind::Standardize], 32);
    let run = |device: &Device, on_device: bool| {
        let folder = tempfile::tempdir().unwrap();
        let subject = subject(&task, &input, folder.path());
        finetune::run(&config, 0, &setup(&subject, device, on_device)).unwrap()
    };
    let expected = run(&Device::flex(), false);
    for device in devices() {
        let found = run(&device, true);
        assert_eq!(found.value, expected.value);
        assert_eq!(found.validation, expected.validation);
        assert_eq!(found.predictions, expected.predictions);
    }
}

#[test]
fn upernet_on_a_device_scores_like_the_cpu() {
    for (target, metric) in [(TargetKind::Mask, Metric::Miou), (TargetKind::ValueMap, Metric::Rmse)] {
        let classes = if target == TargetKind::Mask { 3 } else { 1 };
        let mut task = task(target, classes, metric);
        task.target_statistics = None;
        let input = input(&task, Generated::new(&task, [6, 4, 4]), &[NormalizationKind::Standardize], 32);
        for encoder in [EncoderUse::Frozen, EncoderUse::Finetune] {
            let ProtocolConfig::Upernet(full) = protocol("upernet") else { panic!() };
            let config = UpernetConfig {
                encoder,
                augmentation: Augmentation::FlipsAndRotation,
                head: terrabench::nn::heads::upernet::UperNetConfig {
                    channels: 8,
                    auxiliary_channels: 8,
                    ..full.head
                },
                training: TrainingConfig {
                    epochs: 2,
                    batch_size: 3,
                    learning_rates: vec![1e-3],
                    ..full.training
                },
                patience: None,
            };
            let run = |device: &Device, on_device: bool, limit: u64| {
                let folder = tempfile::tempdir().unwrap();
                let subject = subject(&task, &input, folder.path());
                run_upernet(&config, 0, &setup(&subject, device, on_device), limit).unwrap()
            };
            let expected = run(&Device::flex(), false, 1 << 20);
            for device in devices() {
                // Adam makes a whole step of a gradient that is nothing but rounding, such as that of a bias before a batch norm. So
                // an encoder that is trained by another backend is soon another one.
                let is_same_backend = device == Device::flex().autodiff() || device == Device::flex();
                let is_near = is_same_backend || encoder == EncoderUse::Frozen;
                let allowed = if is_near { 2e-3 } else { 0.1 };
                // All maps stay on the device; or none, and all are read from disk.
                for limit in [1 << 20, 0] {
                    let found = run(&device, true, limit);
                    let apart = (found.value - expected.value).abs() / expected.value.abs().max(1.0);
                    assert!(apart < allowed, "{target:?} {encoder}: {} {}", found.value, expected.value);
                }
            }
        }
    }
}

fn bench(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command
        .env_remove("GEO_BENCH_DIR")
        .env("TERRABENCH_CACHE", demo::cache("geobench", folder.join("cache")));
    command.env("RUST_LOG", "terrabench=debug").args(["bench", "geobench", "--demo", "--model", "demo"]);
    command.args(arguments).arg("--out").arg(folder.join("out")).output().unwrap()
}

#[test]
fn bf16_is_refused_where_nothing_can_train_in_it() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["--protocol", "finetune", "--precision", "bf16"][..], "trains in bf16, found device `flex`"),
        (
            &["--protocol", "finetune", "--precision", "tf32"],
            "trains in float32 or bf16, found --precision tf32",
        ),
        (
            &["--protocol", "finetune", "--protocol", "knn", "--precision", "bf16"],
            "run them one after the other",
        ),
    ] {
        let output = bench(folder.path(), arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
}

#[test]
fn the_same_bits_in_each_run_are_promised_only_where_the_backend_can() {
    let folder = tempfile::tempdir().unwrap();
    let cell = ["--task", "m-eurosat", "--partition", "default", "--deterministic"];
    let on = |device: &str| bench(folder.path(), &[&cell[..], &["--device", device]].concat());
    for (device, words) in [
        ("vulkan", "has no option to compute the same bits in each run"),
        ("libtorch:cuda:0", "run it with CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment"),
    ] {
        let output = on(device);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{device}: {said}");
    }
    assert!(on("flex").status.success());
    let records = folder.path().join("out/geobench-demo/records");
    let paths: Vec<_> = std::fs::read_dir(records).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    let record = std::fs::read_to_string(&paths[0]).unwrap();
    assert!(record.contains(" --deterministic --task m-eurosat"), "{record}");
}

/// On the CPU too, records say in which precision features were computed, none are shared, and k-NN decides nearly alike.
#[test]
fn features_in_bf16_on_the_cpu_have_records_of_their_own_and_score_like_float32() {
    let folder = tempfile::tempdir().unwrap();
    let said = ["f32", "bf16"].map(|precision| {
        let cell = ["--task", "m-eurosat", "--partition", "default", "--protocol", "knn"];
        let output = bench(folder.path(), &[&cell[..], &["--precision", precision]].concat());
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        said
    });
    // 40 images each, computed and not read from the other's cache.
    assert!(said.iter().all(|said| said.contains("m-eurosat test: 40/40 images")), "{said:?}");
    let records = crate::common::records(&folder.path().join("out/geobench-demo"));
    let of = |precision: Precision| {
        let mut found = records.values().filter(|record| record.provenance.precision == precision);
        let record = found.next().unwrap_or_else(|| panic!("no record of {precision}"));
        assert!(found.next().is_none(), "several records of {precision}");
        record
    };
    let (float32, bf16) = (of(Precision::F32), of(Precision::Bf16));
    let paths = std::fs::read_dir(folder.path().join("out/geobench-demo/records")).unwrap();
    let texts = paths.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    assert_eq!(texts.filter(|text| text.contains("--precision bf16 --task")).count(), 1);
    // Two of 40 images.
    assert!((float32.value - bf16.value).abs() <= 5.0, "{} and {}", float32.value, bf16.value);
}

/// The losses that a run's log tells, epoch by epoch.
#[cfg(feature = "libtorch")]
fn losses(output: &Output) -> Vec<f64> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let plain: String = said.replace('\u{1b}', "");
    let loss = |line: &str| {
        let line = line.replace("[3m", "").replace("[0m", "").replace("[2m", "");
        let (_, rest) = line.split_once("loss=")?;
        rest.split_whitespace().next()?.parse().ok()
    };
    plain.lines().filter_map(loss).collect()
}

/// Weights, norms and optimiser in float32, factors of products in bfloat16: the losses of each epoch stay within 2 % of float32's.
#[cfg(feature = "libtorch")]
#[test]
fn training_in_bf16_follows_the_losses_of_float32() {
    for (task, protocol, epochs) in
        [("m-eurosat", "finetune", "4"), ("m-cashew-plant", "upernet-finetune", "3")]
    {
        let curve = |precision: &str| {
            let folder = tempfile::tempdir().unwrap();
            let arguments = [
                "--task",
                task,
                "--protocol",
                protocol,
                "--epochs",
                epochs,
                "--learning-rates",
                "1e-4",
                "--limit",
                "12",
                "--device",
                "libtorch",
                "--precision",
                precision,
            ];
            losses(&bench(folder.path(), &arguments))
        };
        let (float32, bf16) = (curve("f32"), curve("bf16"));
        assert_eq!((float32.len(), bf16.len()), (epochs.parse().unwrap(), float32.len()), "{protocol}");
        eprintln!("{protocol}: {float32:?} {bf16:?}");
        assert_ne!(float32, bf16, "bf16 changes nothing");
        for (a, b) in float32.iter().zip(&bf16) {
            assert!((a - b).abs() <= 0.02 * a.abs(), "{protocol}: {float32:?} {bf16:?}");
        }
    }
}
