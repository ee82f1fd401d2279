//! Batches whose images the device preprocesses equal those that the CPU preprocesses.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use burn::tensor::Device;
use terrabench::features::feed::Feed;
use terrabench::features::{Input, InputOptions};
use terrabench::home::Home;
use terrabench::model::Batch;
use terrabench::model::config::ModelConfig;
use terrabench::task::{Split, Suite};
use terrabench::transform::augment::Dihedral;
use terrabench::transform::strategies::Strategies;

use crate::common::{self, demo};

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "demo").unwrap()
}

fn data() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-feed");
        _ = std::fs::remove_dir_all(&cache);
        common::demo::provide(&suite(), &cache)
    })
}

fn input(task: &str, normalization: &str) -> Input {
    let (home, suite) = (Home::find().unwrap(), suite());
    let model = ModelConfig::load(&home, "demo").unwrap();
    let options = InputOptions {
        by_content: false,
        channels: Default::default(),
        normalization: normalization.to_owned(),
        strategies: Strategies::load(&home).unwrap(),
        zeros: true,
    };
    Input::open(&suite, suite.task(task).unwrap(), "default", data(), &model, &options).unwrap()
}

/// The pixels of a batch of three test samples, per image of a sample, and their shape.
fn pixels(feed: &Feed) -> Vec<([usize; 4], Vec<f32>)> {
    let samples: Vec<_> = (0..3).map(|index| feed.read(Split::Test, index).unwrap()).collect();
    let batch: Batch = feed.batch(samples.iter().map(|sample| sample.images.as_slice())).unwrap();
    let of_input = |input: terrabench::model::encoder::Input| {
        (input.pixels.dims(), input.pixels.into_data().try_into_vec::<f32>().unwrap())
    };
    batch.inputs.into_iter().map(of_input).collect()
}

/// Compares every strategy of a sweep over the images of one sensor or two.
fn both_ways(device: &Device) {
    for (task, normalization) in [("two-sensors", "dataset"), ("demo-tree-cover", "sweep")] {
        let input = input(task, normalization);
        for strategy in &input.strategies {
            for turn in [Dihedral::Identity, Dihedral::AntiTranspose] {
                let on_cpu = Device::flex();
                let expected = pixels(&Feed::of(&input, &strategy.preprocess, turn, on_cpu));
                let found = pixels(&Feed::of(&input, &strategy.preprocess, turn, device.clone()).on_device());
                assert_eq!(expected.len(), input.images.len());
                for ((shape, found), (expected_shape, expected)) in found.iter().zip(&expected) {
                    assert_eq!(shape, expected_shape, "{task} {}", strategy.name);
                    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    let largest = expected.iter().fold(1.0, |a: f32, b| a.max(b.abs()));
                    assert!(apart <= 2e-6 * largest, "{task} {} {turn:?}: {apart}", strategy.name);
                }
            }
        }
    }
}

#[test]
fn a_device_preprocesses_like_the_cpu() {
    both_ways(&Device::flex());
}

#[cfg(feature = "libtorch")]
#[test]
fn libtorch_preprocesses_like_the_cpu() {
    both_ways(&terrabench::device::by_name("libtorch").unwrap());
}

/// Two devices that share the batches of a split give what one gives, in the same order.
#[test]
fn several_devices_give_the_records_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let records = |devices: &str| {
        let out = folder.path().join(devices);
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command
            .env_remove("GEO_BENCH_DIR")
            .env("TERRABENCH_CACHE", demo::cache("demo", folder.path().join("cache")));
        command.args([
            "bench",
            "geobench",
            "--demo",
            "--task",
            "m-eurosat",
            "--no-cache",
            "--batch-size",
            "3",
        ]);
        let output = command.args(["--device", devices, "--out"]).arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut records = common::records(&out.join("geobench-demo"));
        records.values_mut().for_each(|record| record.provenance.device.clear());
        records
    };
    assert_eq!(records("flex,flex"), records("flex"));
}
