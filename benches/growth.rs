//! How time and memory grow with the size of the work.
//!
//! ```sh
//! cargo bench --bench growth [-- --quick]    # all of the following, to smaller sizes with --quick
//! cargo bench --bench growth -- extraction   # samples: 100 to 100,000
//! cargo bench --bench growth -- neighbours   # train rows of k-NN: 1,000 to 10 million of 768 features, one block in memory at a time
//! cargo bench --bench growth -- classes      # of a linear probe: 10 to 1,000
//! cargo bench --bench growth -- image        # side of TerraFM-B's images: 64 to 448 pixels
//! cargo bench --bench growth -- records      # that a resumed run looks up: 100 to 10,000
//! cargo bench --bench growth -- start        # of the program, and of a run whose work is done
//! ```

mod common;
#[path = "../tests/sample/mod.rs"]
mod sample;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use common::measured::{Comparison, Growth, Point, Spread};
use common::peak_memory;
use common::tensors::noise;
use ndarray::{Array2, Array3, Axis, s};
use terrabench::config::EmbeddingDtype;
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::weights::Weights;
use terrabench::model::{self, Batch, Want};
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::linear_probe::{TrainingSet, train};
use terrabench::record::{Record, Store};
use terrabench::score::Targets;
use terrabench::solve::neighbours::Stream;
use terrabench::task::Sensor;

const HARNESS: &str = env!("CARGO_BIN_EXE_terrabench");
const WIDTH: usize = 768;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_quick = arguments.iter().any(|word| word == "--quick");
    let names = ["extraction", "neighbours", "classes", "image", "records", "start"];
    let asked: Vec<&str> =
        names.into_iter().filter(|name| arguments.iter().any(|word| word == name)).collect();
    let chosen = if asked.is_empty() { names.to_vec() } else { asked };
    chosen.into_iter().try_for_each(|name| match name {
        "extraction" => extraction(is_quick),
        "neighbours" => neighbours(is_quick),
        "classes" => classes(is_quick),
        "image" => image(is_quick),
        "records" => records(is_quick),
        _ => start(is_quick),
    })
}

/// Runs a command to its end; returns its seconds and the most memory it held, in MiB, where the system tells it.
fn measured(command: &mut Command) -> Result<(f64, Option<f64>)> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let process = child.id().to_string();
    let mut memory = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // The system keeps the most that was held so far, so that only growth in the last moment is missed.
        memory = peak_memory(&process).or(memory);
        std::thread::sleep(Duration::from_millis(1));
    };
    ensure!(status.success(), "{command:?}: {status}");
    Ok((start.elapsed().as_secs_f64(), memory))
}

/// Numbers of samples, from 100 on.
fn decades(first: usize, last: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(first), |n| Some(n * 10)).take_while(move |n| *n <= last)
}

/// `terrabench features` of files of m-eurosat: a hundred are drawn, the others are these with other pixels in one place, because equal
/// samples are encoded once.
fn extraction(is_quick: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let made = folder.path().join("made");
    let mut make = Command::new(HARNESS);
    make.args(["make-files", "geobench", "--task", "m-eurosat", "--one-of", "40", "--to"]).arg(&made);
    measured(&mut make)?;
    let made = made.join("classification_v1.0/m-eurosat");
    let mut files: Vec<_> =
        std::fs::read_dir(&made)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let is_sample = |path: &Path| path.extension().is_some_and(|extension| extension == "hdf5");
    let (samples, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| is_sample(path));
    ensure!(samples.len() >= 100, "{} files were made, expected 100", samples.len());
    let samples: Vec<Vec<u8>> = samples.iter().take(100).map(std::fs::read).collect::<Result<_, _>>()?;

    let mut points = Vec::new();
    for count in decades(100, if is_quick { 1_000 } else { 100_000 }) {
        let root = folder.path().join(count.to_string());
        let task = root.join("classification_v1.0/m-eurosat");
        std::fs::create_dir_all(&task)?;
        for other in &others {
            std::fs::copy(other, task.join(other.file_name().unwrap_or_default()))?;
        }
        let names: Vec<String> = (0..count).map(|i| format!("id_{i:06}")).collect();
        for (i, name) in names.iter().enumerate() {
            // The middle of a file lies among its pixels.
            let mut bytes = samples[i % 100].clone();
            let middle = bytes.len() / 2;
            bytes[middle..middle + 4].copy_from_slice(&(i as u32).to_le_bytes());
            std::fs::write(task.join(format!("{name}.hdf5")), bytes)?;
        }
        let (train, rest) = names.split_at(count * 8 / 10);
        let (valid, test) = rest.split_at(rest.len() / 2);
        let partition = serde_json::json!({ "train": train, "valid": valid, "test": test });
        std::fs::write(task.join("default_partition.json"), partition.to_string())?;
        let mut run = Command::new(HARNESS);
        run.args([
            "features",
            "--task",
            "m-eurosat",
            "--model",
            "image-stats",
            "--no-cache",
            "--partition",
            "default",
        ]);
        run.arg("--data").arg(&root).arg("--to").arg(root.join("features"));
        let (seconds, memory) = measured(&mut run)?;
        points.push(Point { at: count as f64, seconds, memory });
        std::fs::remove_dir_all(&root)?;
    }
    let what = "extraction from HDF5 files, image-stats, a process each".into();
    Growth { what, along: "samples".into(), points, note: String::new() }.tell()
}

/// k-NN of 1,000 queries; the rows of the next block are written over those of the last one.
fn neighbours(is_quick: bool) -> Result<()> {
    const BLOCK: usize = 20_000;
    let rows = |name: &str, count: usize| Array2::from_shape_vec((count, WIDTH), noise(name, count * WIDTH));
    let (queries, mut block) = (rows("queries", 1000)?, rows("train", BLOCK)?);
    let mut points = Vec::new();
    for count in decades(1000, if is_quick { 100_000 } else { 10_000_000 }) {
        let start = Instant::now();
        let mut stream = Stream::new(queries.view(), 20, EmbeddingDtype::F32)?;
        let mut left = count;
        while left > 0 {
            let size = left.min(BLOCK);
            // Other rows than before, at little cost.
            block.axis_iter_mut(Axis(0)).enumerate().for_each(|(i, mut row)| row[(i + left) % WIDTH] += 0.01);
            stream.add(block.slice(s![..size, ..]))?;
            left -= size;
        }
        ensure!(stream.finish()?.indices.dim() == (1000, 20), "every query has 20 neighbours");
        points.push(Point { at: count as f64, seconds: start.elapsed().as_secs_f64(), memory: None });
    }
    let what = format!("k-NN of 1,000 queries, {WIDTH} features, train rows in blocks of {BLOCK}");
    let note = peak_memory("self").map_or(String::new(), |peak| format!("at most {peak:.0} MiB of memory"));
    Growth { what, along: "train rows".into(), points, note }.tell()
}

/// A linear probe with 16 learning rates, 5 epochs of 2,000 samples.
fn classes(is_quick: bool) -> Result<()> {
    const SAMPLES: usize = 2000;
    let ProtocolConfig::LinearProbe(mut config) = ProtocolConfig::load(&Home::find()?, "linear-probe")?
    else {
        anyhow::bail!("configs/protocols/linear-probe.toml is no linear probe");
    };
    config.epochs = 5;
    let features = Array3::from_shape_vec((1, SAMPLES, WIDTH), noise("features", SAMPLES * WIDTH))?;
    let mut points = Vec::new();
    for count in decades(10, if is_quick { 100 } else { 1000 }) {
        let targets = Targets::Classes { classes: (0..SAMPLES).map(|i| i % count).collect(), count };
        let start = Instant::now();
        let training = TrainingSet { features: features.view(), targets: &targets };
        train(&config, &config.learning_rates, training, 0, |_, _| Ok(()))?;
        points.push(Point { at: count as f64, seconds: start.elapsed().as_secs_f64(), memory: None });
    }
    let what = format!("linear probe, 16 learning rates, 5 epochs, {SAMPLES} x {WIDTH}");
    Growth { what, along: "classes".into(), points, note: String::new() }.tell()
}

/// TerraFM-B with random weights, batches of 2.
fn image(is_quick: bool) -> Result<()> {
    let device = Device::flex();
    let config = ModelConfig::load(&Home::find()?, "terrafm-b")?;
    let model = model::load(&config, &Weights::Random(0), false, &device)?;
    let bands: std::sync::Arc<[_]> = config.sensor(Sensor::S2_L1C)?.bands.as_slice().into();
    let mut points = Vec::new();
    for side in if is_quick { vec![64, 112, 224] } else { vec![64, 112, 224, 336, 448] } {
        let pixels = Tensor::<4>::zeros([2, bands.len(), side, side], &device);
        let images = Batch::single(Sensor::S2_L1C, bands.clone(), pixels);
        let encode = || -> Result<f64> {
            let start = Instant::now();
            model.encoder.encode(&images, Want::Pooled(config.pooling()))?.pooled()?.into_data();
            Ok(start.elapsed().as_secs_f64())
        };
        encode()?;
        let seconds: Vec<f64> = (0..3).map(|_| encode()).collect::<Result<_>>()?;
        let seconds = Spread::of(&seconds).context("three runs")?.median;
        points.push(Point { at: side as f64, seconds, memory: None });
    }
    let what = "TerraFM-B, two square images".into();
    Growth { what, along: "pixels a side".into(), points, note: String::new() }.tell()
}

/// What a run that is begun again asks of a folder of records: whether each of its cells is there.
fn records(is_quick: bool) -> Result<()> {
    let mut points = Vec::new();
    for count in decades(100, if is_quick { 1000 } else { 10_000 }) {
        let folder = tempfile::tempdir()?;
        let store = Store::open(folder.path())?;
        let records: Vec<Record> = (0..count)
            .map(|i| {
                let mut record = sample::record();
                record.cell.seed = i as u64;
                sample::identify(&mut record);
                record
            })
            .collect();
        for record in &records {
            std::fs::write(store.path(record), serde_json::to_string_pretty(record)? + "\n")?;
        }
        let start = Instant::now();
        let store = Store::open(folder.path())?;
        for record in &records {
            let found = store.named(&record.fingerprint, &record.cell)?;
            ensure!(found.is_some(), "a record was not found");
        }
        points.push(Point { at: count as f64, seconds: start.elapsed().as_secs_f64(), memory: None });
    }
    let what = "a resumed run looks up its records".into();
    Growth { what, along: "records".into(), points, note: String::new() }.tell()
}

/// The seconds of `--help`, and of the demo when everything is done.
fn start(is_quick: bool) -> Result<()> {
    let rounds = if is_quick { 5 } else { 20 };
    let times = |command: &mut dyn FnMut() -> Command| -> Result<Vec<f64>> {
        (0..rounds)
            .map(|_| {
                let start = Instant::now();
                let status = command().stdout(Stdio::null()).stderr(Stdio::null()).status()?;
                ensure!(status.success(), "{status}");
                Ok(start.elapsed().as_secs_f64())
            })
            .collect()
    };
    let help = times(&mut || {
        let mut command = Command::new(HARNESS);
        command.arg("--help");
        command
    })?;
    Comparison { ours: help, ..Comparison::new("Start", "terrabench --help", "s") }.tell()?;
    let out = tempfile::tempdir()?;
    let mut demo = || {
        let mut command = Command::new(HARNESS);
        command.args(["bench", "geobench", "--demo", "--out"]).arg(out.path());
        command.env("TERRABENCH_CACHE", out.path().join("cache"));
        command
    };
    measured(&mut demo())?;
    let done = times(&mut demo)?;
    Comparison { ours: done, ..Comparison::new("Start", "the demo when all its records are there", "s") }
        .tell()
}
