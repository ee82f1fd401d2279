//! How many images a second each model of the zoo encodes at its full size: random weights.
//!
//! `cargo bench --bench zoo -- [--models A,B] [--batches 1,8,32] [--precisions f32,bf16] [--rounds N]
//! [--repetitions N] [--device D] [--peer PYTHON]`
//!
//! With `--peer`, a Python that has torch, every round of ours alternates with one of `benches/peers/zoo.py`: the original
//! code in eager PyTorch with as many threads, given the same weights and images. Before timing, both features must agree. A
//! model whose original cannot be imported is timed alone, and the reason is printed.
//!
//! ```sh
//! mkdir originals && cd originals
//! git clone https://github.com/nasaharvest/galileo        # Galileo, and the models that its evaluation compares with
//! git clone https://github.com/mbzuai-oryx/TerraFM
//! git clone https://github.com/zhu-xlab/Copernicus-FM     # Copernicus-FM, and the ViT of Copernicus-Bench
//! pip install torch==2.9.0 torchvision==0.24.0 safetensors einops timm PyYAML satlaspretrain_models
//! TERRABENCH_ORIGINALS=$PWD cargo bench --bench zoo -- --peer python --models galileo-nano,vit-b
//! ```

mod common;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::{Tensor, TensorData};
use common::measured::{Comparison, Peer, skip};
use common::tensors::{Tensors, difference, load, noise, save, weights};
use common::{Missing, Script, in_turn, number, option};
use terrabench::device::{self, Precision};
use terrabench::home::Home;
use terrabench::model::config::{ImageSize, Inputs, ModelConfig};
use terrabench::model::{Architecture, Batch, Encoder, Want};
use terrabench::task::Sensor;

/// Side in pixels of the images of models that take any size.
const NATIVE_SIDE: usize = 64;

/// All models that have weights, one per architecture and size.
const MODELS: [&str; 23] = [
    "terrafm-b",
    "terrafm-l",
    "satmae-b",
    "satmae-l",
    "satmaepp-l",
    "prithvi2-300m",
    "dofa-b",
    "dofa-l",
    "croma-b",
    "croma-l",
    "softcon-s-s2",
    "softcon-b-s2",
    "decur-s-s2",
    "copernicus-fm-b",
    "galileo-nano",
    "galileo-tiny",
    "galileo-base",
    "satlas-swin-t",
    "satlas-swin-b",
    "mmearth-atto",
    "presto",
    "anysat-base",
    "vit-b",
];

/// A model filled with made-up weights, and images for it.
struct Subject {
    encoder: Box<dyn Encoder>,
    batch: Batch,
    want: Want,
    bands: Vec<String>,
    side: usize,
}

/// The suite whose own code is a model's peer.
fn suite(name: &str) -> &'static str {
    if ["vit-b", "copernicus-fm-b"].contains(&name) { "copernicus-bench" } else { "geobench" }
}

/// Builds the model `name` as the code of its suite feeds it. Saves weights and images for the peer into `folder`, if given.
fn subject(
    home: &Home,
    name: &str,
    size: usize,
    device_name: &str,
    folder: Option<&Path>,
) -> Result<Subject> {
    let device = device::by_name(device_name)?;
    let mut config = ModelConfig::load(home, name)?.in_suite(suite(name), Inputs::AsPublished);
    let sensor = if config.sensors.contains_key(&Sensor::S2_L1C) { Sensor::S2_L1C } else { Sensor::S1 };
    let bands = config.sensor(sensor)?.bands.clone();
    if config.architecture.kind() == "vit" {
        // Its patch embedding has a channel per band of all its sensors; the original has those of one task.
        config.sensors.retain(|known, _| *known == sensor);
    }
    let side = match config.image {
        ImageSize::Side(side) => side,
        ImageSize::Native => NATIVE_SIDE,
    };
    let mut tensors: Tensors = Vec::new();
    let network =
        Architecture::new(&config.architecture, &config.sensors, &device)?.fill(|name, shape| {
            let values = weights(name, shape);
            if folder.is_some() {
                tensors.push((name.to_owned(), shape.to_vec(), values.clone()));
            }
            Ok(values)
        })?;
    let shape = [size, bands.len(), side, side];
    let pixels: Vec<f32> =
        noise("images", shape.iter().product()).iter().map(|value| 0.5 + 0.5 * value).collect();
    if let Some(folder) = folder {
        save(&tensors, &folder.join("weights.safetensors"))?;
        save(
            &vec![("images".to_owned(), shape.to_vec(), pixels.clone())],
            &folder.join("images.safetensors"),
        )?;
    }
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, shape), &device);
    Ok(Subject {
        encoder: network.frozen(),
        batch: Batch::single(sensor, bands.as_slice().into(), pixels),
        want: Want::Pooled(config.pooling()),
        bands: bands.iter().map(ToString::to_string).collect(),
        side,
    })
}

impl Subject {
    /// Encodes the batch; returns the features and the seconds that it took.
    fn encode(&self) -> Result<(Vec<f32>, f64)> {
        let start = Instant::now();
        let features = self.encoder.encode(&self.batch, self.want)?.pooled()?.into_data();
        let seconds = start.elapsed().as_secs_f64();
        let features = features.convert::<f32>().try_into_vec::<f32>();
        let features =
            features.map_err(|error| anyhow::anyhow!("features that are not float32: {error:?}"))?;
        ensure!(features.iter().all(|feature| feature.is_finite()), "features that are not finite");
        Ok((features, seconds))
    }
}

const GROUP: &str = "Extraction";

/// How many times as fast as its original a model should be.
fn goal(name: &str, precision: Precision) -> f64 {
    match (name, precision) {
        (_, Precision::Bf16) => 1.0,
        ("terrafm-b", _) => 1.4,
        _ => 1.2,
    }
}

/// Largest accepted difference of a feature, relative to the largest feature.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-3,
        // 8 bits in each product, of which there are some fifty after one another.
        _ => 0.1,
    }
}

/// Times a model with batches of `size` beside its original, if there is one.
fn compare(
    home: &Home,
    name: &str,
    size: usize,
    (device, precision): (&str, Precision),
    peer: Option<Script>,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |file: &str| folder.path().join(file).to_string_lossy().into_owned();
    let subject = subject(home, name, size, device, peer.is_some().then(|| folder.path()))?;
    let (features, _) = subject.encode()?;
    let side = subject.side;
    let number_format = if precision == Precision::Bf16 { "bfloat16" } else { "float32" };
    let what = format!("{name}, batch {size}, {side} x {side}, {number_format}");
    let peer = peer.map(|peer| {
        peer.with("--model", name)
            .with("--batch", size)
            .with("--weights", path("weights.safetensors"))
            .with("--images", path("images.safetensors"))
            .with("--bands", subject.bands.join(","))
            .with("--features", path("features.safetensors"))
            .with("--precision", precision)
    });
    let mut comparison = Comparison::new(GROUP, what, "images/s").goal(goal(name, precision));
    let peer = match peer {
        None => None,
        Some(peer) => match peer.run(0) {
            Ok(_) => {
                let theirs = load(&folder.path().join("features.safetensors"), "features")?;
                let difference = difference(&features, &theirs)?;
                comparison.note = format!("features differ by {difference:.1e} of the largest");
                ensure!(difference <= tolerance(precision), "{name}: {}", comparison.note);
                Some(peer)
            }
            Err(error) => match error.downcast::<Missing>() {
                Ok(missing) => {
                    comparison.note = format!("no original: {missing}");
                    None
                }
                Err(error) => return Err(error),
            },
        },
    };
    let encode = || Ok(size as f64 / subject.encode()?.1);
    let (rounds, repetitions) = (number("--rounds", 5)?, number("--repetitions", 3)?);
    let mut named = |name: &str, values: Vec<f64>| {
        if values.iter().any(|rate| *rate > 0.0) {
            comparison.peers.push(Peer { name: name.into(), values });
        }
    };
    let ours = if precision == Precision::Bf16 {
        let (ours, [autocast, narrowed]) = in_turn(rounds, repetitions, encode, peer.as_ref())?;
        named("eager PyTorch, autocast", autocast);
        named("eager PyTorch, all in bfloat16", narrowed);
        ours
    } else {
        let (ours, [theirs]) = in_turn(rounds, repetitions, encode, peer.as_ref())?;
        named("eager PyTorch", theirs);
        ours
    };
    comparison.ours = ours;
    comparison.tell()
}

fn main() -> Result<()> {
    let device = option("--device").unwrap_or_else(|| "flex".into());
    let asked = option("--models");
    let names: Vec<&str> = asked.as_deref().map_or(MODELS.to_vec(), |names| names.split(',').collect());
    let sizes = option("--batches").unwrap_or_else(|| "8".into());
    let precisions = option("--precisions").unwrap_or_else(|| "f32".into());
    let home = Home::find()?;
    let mut failed = Vec::new();
    // A program that has once computed in bfloat16 goes on so.
    for precision in [Precision::F32, Precision::Bf16] {
        if !precisions.split(',').any(|word| word == precision.to_string()) {
            continue;
        }
        device::with_precision(&device, precision)?;
        for name in &names {
            for size in sizes.split(',') {
                let peer = Script::asked("--peer", "zoo.py");
                // One model that fails leaves the others their turn.
                if let Err(error) = compare(&home, name, size.parse()?, (&device, precision), peer) {
                    skip(GROUP, format!("{name}, batch {size}, {precision}"), format!("{error:#}"))?;
                    failed.push(*name);
                }
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
