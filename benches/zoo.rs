//! How many images a second each model of the zoo encodes at its full size: random weights, float32, batches of 8.
//!
//! `cargo bench --bench zoo -- [--models A,B] [--rounds N] [--repetitions N] [--batch N] [--device D] [--peer PYTHON]`
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

use anyhow::{Context, bail, ensure};
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use terrabench::device;
use terrabench::home::Home;
use terrabench::model::config::{ImageSize, Inputs, ModelConfig};
use terrabench::model::{Architecture, Batch, Encoder, Want};
use terrabench::task::Sensor;

/// Side in pixels of the images of models that take any size.
const NATIVE_SIDE: usize = 64;
/// Exit code of the peer when the original cannot be imported.
const NO_ORIGINAL: i32 = 3;
/// Largest accepted difference of a feature, relative to the largest feature.
const TOLERANCE: f64 = 1e-3;

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

/// Pseudo-random numbers in -1..1 that depend on `name` alone.
fn noise(name: &str, count: usize) -> Vec<f32> {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
    let mut state = name.bytes().fold(0xCBF2_9CE4_8422_2325, hash) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32) / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Weights of about the size of trained ones: norms near 1, biases near 0.
fn weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut values = noise(name, shape.iter().product());
    let scale: fn(f32) -> f32 = match shape.len() {
        _ if name.ends_with("bias") => |v| 0.02 * v,
        0 | 1 => |v| 1.0 + 0.1 * v,
        _ => |v| 0.04 * v,
    };
    values.iter_mut().for_each(|value| *value = scale(*value));
    values
}

/// Float32 tensors by name, with their shapes.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn save(tensors: &Tensors, path: &Path) -> anyhow::Result<()> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let mut views = Vec::new();
    for ((name, shape, _), bytes) in tensors.iter().zip(&bytes) {
        views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    safetensors::serialize_to_file(views, None, path)?;
    Ok(())
}

/// The suite whose own code is a model's peer.
fn suite(name: &str) -> &'static str {
    if name == "vit-b" { "copernicus-bench" } else { "geobench" }
}

/// Builds the model `name` as the code of its suite feeds it. Saves weights and images for the peer into `folder`, if given.
fn subject(
    home: &Home,
    name: &str,
    size: usize,
    device_name: &str,
    folder: Option<&Path>,
) -> anyhow::Result<Subject> {
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
    fn encode(&self) -> anyhow::Result<(Vec<f32>, f64)> {
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

/// The original code of a model.
struct Peer {
    arguments: Vec<String>,
}

impl Peer {
    /// Runs so many batches: their images per second, or `None` with the reason printed if there is no original.
    fn run(&self, python: &str, batch: usize, repetitions: usize) -> anyhow::Result<Option<Vec<f64>>> {
        let output = common::peer(python, "zoo.py", batch, repetitions, &self.arguments)?;
        if output.status.code() == Some(NO_ORIGINAL) {
            println!("{:>14}: none: {}", "original", String::from_utf8_lossy(&output.stderr).trim());
            return Ok(None);
        }
        Ok(Some(common::rates(&output)?))
    }
}

/// Compares our features with the peer's; returns the largest difference, relative to the largest feature.
fn difference(ours: &[f32], path: &Path) -> anyhow::Result<f64> {
    let bytes = std::fs::read(path).with_context(|| format!("the peer wrote no {}", path.display()))?;
    let stored = SafeTensors::deserialize(&bytes)?;
    let theirs =
        stored.tensor("features")?.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let theirs: Vec<f32> = theirs.collect();
    ensure!(ours.len() == theirs.len(), "{} numbers of ours, {} of the original's", ours.len(), theirs.len());
    let largest = theirs.iter().fold(0f32, |most, value| most.max(value.abs()));
    let differences = ours.iter().zip(&theirs).map(|(a, b)| f64::from((a - b).abs()));
    // Not f64::max, which would pass over a NaN.
    let worst = differences.fold(0.0, |worst, d| if d <= worst { worst } else { d });
    Ok(worst / f64::from(largest))
}

fn main() -> anyhow::Result<()> {
    let number = |name: &str, usual: usize| common::option(name).map_or(Ok(usual), |text| text.parse());
    let (rounds, repetitions, size) =
        (number("--rounds", 5)?, number("--repetitions", 3)?, number("--batch", 8)?);
    let device = common::option("--device").unwrap_or_else(|| "flex".into());
    let asked = common::option("--models");
    let names: Vec<&str> = asked.as_deref().map_or(MODELS.to_vec(), |names| names.split(',').collect());
    let peer = common::option("--peer");
    let home = Home::find()?;
    for name in names {
        let folder = tempfile::tempdir()?;
        let path = |file: &str| folder.path().join(file).to_string_lossy().into_owned();
        let subject = subject(&home, name, size, &device, peer.is_some().then(|| folder.path()))?;
        let (features, _) = subject.encode()?;
        let side = subject.side;
        println!("{name}, batch {size}, {side} x {side}, float32, {} threads", rayon::current_num_threads());
        let arguments = [
            ("--model", name.to_owned()),
            ("--weights", path("weights.safetensors")),
            ("--images", path("images.safetensors")),
            ("--bands", subject.bands.join(",")),
            ("--features", path("features.safetensors")),
        ];
        let arguments =
            arguments.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect();
        let original = Peer { arguments };
        let mut python = peer.clone();
        if let Some(command) = &peer {
            match original.run(command, size, 0)? {
                None => python = None,
                Some(_) => {
                    let difference = difference(&features, &folder.path().join("features.safetensors"))?;
                    println!("{:>14}: {difference:.1e} of the largest feature", "difference");
                    if difference.is_nan() || difference > TOLERANCE {
                        bail!("{name}: ours and the original's features differ by {difference:e}");
                    }
                }
            }
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for _ in 0..repetitions {
                ours.push(size as f64 / subject.encode()?.1);
            }
            if let Some(command) = &python {
                theirs.extend(original.run(command, size, repetitions)?.unwrap_or_default());
            }
        }
        common::report("terrabench", &mut ours);
        if !theirs.is_empty() {
            common::report("eager PyTorch", &mut theirs);
            println!("{:>14}: {:.2}", "ratio", common::median(&ours) / common::median(&theirs));
        }
    }
    Ok(())
}
