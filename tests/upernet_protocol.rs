//! UPerNet as a protocol: it learns real masks by heart, and a killed run ends as an undisturbed one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common;
use crate::common::encoding::{set_side, sizes_mut};
use crate::source::run_upernet;
use burn::tensor::Device;
use terrabench::Result;
use terrabench::config::{Augmentation, EncoderUse, Schedule, TrainingConfig, UpernetConfig};
use terrabench::data::decoding::Decoding;
use terrabench::data::{Dataset, RawSample, Sample, Split, Target};
use terrabench::features::{Input, InputOptions};
use terrabench::home::Home;
use terrabench::model;
use terrabench::model::config::ModelConfig;
use terrabench::nn::heads::upernet::UperNetConfig;
use terrabench::progress::Silent;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::TrainingSetup;
use terrabench::score::Outcome;
use terrabench::task::Suite;
use terrabench::transform::normalize::BandStatistics;
use terrabench::transform::strategies::Strategies;

fn config(name: &str) -> UpernetConfig {
    match ProtocolConfig::load(&Home::find().unwrap(), name).unwrap() {
        ProtocolConfig::Upernet(config) => config,
        _ => panic!("{name}.toml is of another kind"),
    }
}

#[test]
fn the_protocols_differ_in_the_encoder() {
    assert_eq!(config("upernet").encoder, EncoderUse::Frozen);
    assert_eq!(config("upernet-finetune").encoder, EncoderUse::Finetune);
}

/// A copy of m-cashew-plant in which every split holds the same two samples: five classes, none of them on half of
/// the pixels.
fn two_samples(real: &Path, to: &Path) {
    let folder = "segmentation_v1.0/m-cashew-plant";
    let (real, to) = (real.join("geobench").join(folder), to.join(folder));
    std::fs::create_dir_all(&to).unwrap();
    let names = ["cashew_282D_485L_3_3_0", "cashew_637U_59R_1_3_0"];
    let files = names.map(|name| format!("{name}.hdf5"));
    for file in files.iter().map(String::as_str).chain(["band_stats.json"]) {
        std::fs::copy(real.join(file), to.join(file)).unwrap();
    }
    let partition = serde_json::json!({ "train": names, "valid": names, "test": names });
    std::fs::write(to.join("default_partition.json"), partition.to_string()).unwrap();
}

/// A data set in whose train split no pixel counts.
struct Unlabelled(Box<dyn Dataset>);

impl Dataset for Unlabelled {
    fn decoding(&self) -> &Decoding {
        self.0.decoding()
    }

    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample> {
        let mut sample = self.0.read(split, index, bands)?;
        if let (Split::Train, Target::Mask(mask)) = (split, &mut sample.target) {
            mask.fill(-1);
        }
        Ok(sample)
    }
    fn samples(&self, split: Split) -> &[String] {
        self.0.samples(split)
    }
    fn files(&self, split: Split) -> Vec<PathBuf> {
        self.0.files(split)
    }
    fn bands(&self) -> Result<Vec<Vec<String>>> {
        self.0.bands()
    }
    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample> {
        self.0.read_raw(split, index)
    }
    fn statistics(&self, image: usize, bands: &[String]) -> Result<Vec<BandStatistics>> {
        self.0.statistics(image, bands)
    }
    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        self.0.contents(split)
    }
}

/// What `config` makes of the two samples on images of `side` pixels; none where there are no real pixels.
fn trained(config: &UpernetConfig, side: usize, cache_limit: u64) -> Option<Outcome> {
    trained_on(|dataset| dataset, config, side, cache_limit)
}

fn trained_on(
    seen_as: impl FnOnce(Box<dyn Dataset>) -> Box<dyn Dataset>,
    config: &UpernetConfig,
    side: usize,
    cache_limit: u64,
) -> Option<Outcome> {
    let Some(real) = common::real() else {
        eprintln!("skipped: no real pixels are here");
        return None;
    };
    let home = Home::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    two_samples(&real, folder.path());
    let suite = Suite::load(&home, "geobench").unwrap();
    let task = suite.task("m-cashew-plant").unwrap();
    let mut model = ModelConfig::load(&home, "demo").unwrap();
    set_side(&mut model, side);
    sizes_mut(&mut model).width = 96;
    let options = InputOptions {
        by_content: false,
        channels: Default::default(),
        zeros: false,
        normalization: "dataset".to_owned(),
        strategies: Strategies::load(&home).unwrap(),
    };
    let mut input = Input::open(&suite, task, "default", folder.path(), &model, &options).unwrap();
    input.dataset = seen_as(input.dataset);
    let device = Device::flex().autodiff();
    let weights = "random:0".parse().unwrap();
    let subject = TrainingSetup {
        task,
        input: &input,
        strategy: input.only().unwrap(),
        encoder: Some(model::trainable(&model, &weights, false, &device).unwrap()),
        maps: model.architecture.maps(),
        device,
        on_device: false,
        batch_size: 2,
        readers: 2,
        snapshot: folder.path().join("snapshot.safetensors"),
        progress: &Silent,
    };
    let start = Instant::now();
    let outcome = run_upernet(config, 0, &subject, cache_limit).unwrap();
    let (took, value, scores) = (start.elapsed().as_secs_f64(), outcome.value, &outcome.scores);
    eprintln!("{}: {took:.1} s, {value:.2} {scores:?}", config.encoder);
    Some(outcome)
}

const GB: u64 = 1_000_000_000;

fn small(encoder: EncoderUse, epochs: usize, augmentation: Augmentation) -> UpernetConfig {
    UpernetConfig {
        encoder,
        augmentation,
        head: UperNetConfig {
            channels: 32,
            auxiliary_channels: 16,
            dropout: 0.0,
            ..UperNetConfig::default()
        },
        training: TrainingConfig {
            epochs,
            learning_rates: vec![1e-2],
            schedule: Schedule::WarmupCosine { warmup: 0.0, min_learning_rate: 1e-5 },
            ..config("upernet").training
        },
        patience: None,
    }
}

fn learns_by_heart(encoder: EncoderUse, epochs: usize) {
    // Maps of 14 x 14 places, so logits of 56 x 56: with half of that no prediction could follow the masks.
    let Some(outcome) = trained(&small(encoder, epochs, Augmentation::None), 224, GB) else { return };
    assert!(outcome.scores["pixel_accuracy"] > 95.0, "{:?}", outcome.scores);
    // The most frequent class everywhere would be 44 % of the pixels and a mean IoU of 9. The rarest, 0.7 % of the
    // pixels in specks, may be missed.
    assert!(outcome.value > 65.0, "{:?}", outcome.scores);
    assert!((outcome.scores["reported_miou"] - outcome.value).abs() < 1e-9, "one batch is the whole split");
}

#[test]
fn two_real_samples_are_learnt_by_heart_on_a_frozen_encoder() {
    learns_by_heart(EncoderUse::Frozen, 60);
}

#[test]
fn two_real_samples_are_learnt_by_heart_with_the_encoder() {
    learns_by_heart(EncoderUse::Finetune, 80);
}

#[test]
fn batches_in_which_no_pixel_counts_are_passed_over() {
    // Their loss is NaN: one step by it, and the search has diverged.
    for encoder in [EncoderUse::Frozen, EncoderUse::Finetune] {
        let config = |epochs| small(encoder, epochs, Augmentation::None);
        let blind = |epochs| trained_on(|dataset| Box::new(Unlabelled(dataset)), &config(epochs), 112, GB);
        let (Some(once), Some(thrice), Some(seeing)) = (blind(1), blind(3), trained(&config(3), 112, GB))
        else {
            return;
        };
        assert_eq!(once.scores, thrice.scores, "nothing is learnt");
        assert_ne!(once.scores, seeing.scores);
    }
}

#[test]
fn kept_maps_decide_nothing_in_memory_or_on_disk() {
    for augmentation in [Augmentation::Dihedral, Augmentation::FlipsAndRotation] {
        let config = small(EncoderUse::Frozen, 4, augmentation);
        // One image's maps are 4 x 96 x 7 x 7 numbers, 75 kB.
        let limits = [GB, 100_000, 0];
        let outcomes: Vec<Outcome> =
            limits.into_iter().filter_map(|limit| trained(&config, 112, limit)).collect();
        for other in outcomes.iter().skip(1) {
            assert_eq!(outcomes[0].value, other.value, "{augmentation:?}");
            assert_eq!(outcomes[0].scores, other.scores, "{augmentation:?}");
        }
    }
}

fn bench(real: &Path, out: &Path, protocol: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env("TERRABENCH_CACHE", out.with_file_name("cache"));
    command.args(["bench", "landslide4sense", "--model", "demo", "--weights", "random:0", "--protocol"]);
    command.args([protocol, "--epochs", "3", "--learning-rates", "1e-4,1e-3", "--threads", "2", "--data"]);
    command.arg(real.join("landslide4sense")).arg("--out").arg(out);
    command.stderr(Stdio::piped()).stdout(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// The files beside a search that is not finished: its snapshots and the networks that were the best so far.
fn checkpoints(out: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(out.join("landslide4sense/checkpoints")).map_or(Vec::new(), |entries| {
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')).collect()
    })
}

fn snapshots(out: &Path) -> Vec<PathBuf> {
    let mut paths = checkpoints(out);
    paths.retain(|path| !path.to_str().unwrap().contains(".best"));
    paths
}

fn a_killed_run_ends_the_same(protocol: &str) {
    let Some(real) = common::real() else {
        eprintln!("skipped: no real pixels are here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let head = [("channels = 512", "channels = 32"), ("channels = 256", "channels = 16")];
    let protocol = &common::changed_protocol(protocol, folder.path(), &head);
    let [undisturbed, killed] = ["a", "b"].map(|name| folder.path().join(name));
    let records = |out: &Path| common::records(&out.join("landslide4sense"));
    assert!(!said(&bench(&real, &undisturbed, protocol).output().unwrap()).contains("continuing"));
    let expected = records(&undisturbed);
    assert_eq!(expected.len(), 1);
    assert!(expected.values().all(|record| record.short));
    assert!(checkpoints(&undisturbed).is_empty(), "the snapshot goes when the record is there");

    let mut child = bench(&real, &killed, protocol).spawn().unwrap();
    let start = Instant::now();
    while snapshots(&killed).is_empty() && start.elapsed() < Duration::from_secs(240) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(records(&killed).is_empty(), "killed too late");
    assert_eq!(snapshots(&killed).len(), 1);
    let said = said(&bench(&real, &killed, protocol).output().unwrap());
    assert!(said.contains("continuing after"), "{said}");
    assert_eq!(records(&killed), expected);
}

#[test]
fn a_killed_run_on_a_frozen_encoder_ends_with_the_same_record() {
    a_killed_run_ends_the_same("upernet");
}

#[test]
fn a_killed_run_with_the_encoder_ends_with_the_same_record() {
    a_killed_run_ends_the_same("upernet-finetune");
}
