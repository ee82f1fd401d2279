//! How many images a second TerraFM-B is fine-tuned on: forward, backward, clipping and AdamW step, batches of 8,
//! 224 x 224, 12 bands, float32, random weights.
//!
//! `cargo bench --bench finetune -- [--rounds N] [--repetitions N] [--device D] [--peer PYTHON]`
//!
//! With `--peer`, a Python that has torch and safetensors, every round of ours alternates with one of benches/peers/finetune.py,
//! eager PyTorch with as many threads, given the same weights and images. Before timing, the losses of one step must agree.

mod common;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use common::measured::{Comparison, Peer};
use common::tensors::{Tensors, difference, load, noise, save, weights};
use common::{Script, in_turn, number, option};
use ndarray::Array3;
use terrabench::config::Schedule;
use terrabench::data::{Image, Sample, Target};
use terrabench::device;
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::{Architecture, InputSpec, parameters};
use terrabench::protocol::finetune::Network;
use terrabench::task::Sensor;
use terrabench::train::epoch::{self, Recipe};
use terrabench::train::optim::{Optimizer, Rule};

const BATCH: usize = 8;
const CLASSES: usize = 10;
const SHAPE: [usize; 3] = [12, 224, 224];
/// Largest accepted difference of the first step's loss, relative to it: sums of float32 in another order.
const TOLERANCE: f64 = 1e-4;

/// A network with made-up weights, and images for it.
struct Training {
    network: Option<Network>,
    optimizer: Optimizer,
    recipe: Recipe,
    images: Vec<f32>,
}

impl Training {
    /// Saves weights and images for the peer into `folder`, if given.
    fn new(device: Device, folder: Option<&Path>) -> Result<Self> {
        let mut config = ModelConfig::load(&Home::find()?, "terrafm-b")?;
        config.sensors.retain(|sensor, _| *sensor == Sensor::S2_L1C);
        let encoder = Architecture::new(&config.architecture, &config.sensors, &device)?;
        let bands = config.sensor(Sensor::S2_L1C)?.bands.as_slice().into();
        let spec = InputSpec::single(Sensor::S2_L1C, bands, config.pooling());
        let mut tensors: Tensors = Vec::new();
        let network = parameters::fill(Network::new(encoder, spec, CLASSES, 0, &device), |name, shape| {
            let values = weights(name, shape);
            tensors.push((name.to_owned(), shape.to_vec(), values.clone()));
            Ok(values)
        })?;
        let images = noise("images", BATCH * SHAPE.iter().product::<usize>());
        if let Some(folder) = folder {
            save(&tensors, &folder.join("weights.safetensors"))?;
            let shape = vec![BATCH, SHAPE[0], SHAPE[1], SHAPE[2]];
            save(&vec![("images".into(), shape, images.clone())], &folder.join("images.safetensors"))?;
        }
        let recipe = Recipe {
            epochs: 1,
            batch_size: BATCH,
            accumulated: 1,
            clip_norm: 1.0,
            schedule: Schedule::WarmupCosine { warmup: 0.0, min_learning_rate: 0.0 },
            learning_rate: 1e-5,
            momentum: 0.9,
            outputs: CLASSES,
            at_once: BATCH,
            device,
            is_deferred: false,
        };
        Ok(Training { network: Some(network), optimizer: Optimizer::new(Rule::ADAMW), recipe, images })
    }

    /// Takes a step; returns its loss and the images a second.
    fn step(&mut self) -> Result<(f64, f64)> {
        let each = SHAPE.iter().product();
        let sample = |(label, pixels): (usize, &[f32])| -> Result<Sample> {
            let pixels = Array3::from_shape_vec(SHAPE, pixels.to_vec())?;
            let (sensor, bands) = (Sensor::S2_L1C, Vec::new());
            let image = Image { sensor, date: None, bands, pixels, day: None, place: None };
            Ok(Sample { name: String::new(), images: vec![image], target: Target::Class(label) })
        };
        let samples: Vec<Sample> =
            self.images.chunks_exact(each).enumerate().map(sample).collect::<Result<_>>()?;
        let start = Instant::now();
        let before = self.network.take().expect("put back after each step");
        let items = samples.into_iter().map(Ok);
        let (after, loss) =
            epoch::epoch(before, &mut self.optimizer, &self.recipe, 0, BATCH, items, &mut |_| ())?;
        self.network = Some(after);
        ensure!(loss.is_finite(), "the loss is {loss}");
        Ok((loss, BATCH as f64 / start.elapsed().as_secs_f64()))
    }
}

fn main() -> Result<()> {
    let device = device::by_name(&option("--device").unwrap_or_else(|| "flex".into()))?.autodiff();
    let folder = tempfile::tempdir()?;
    let path = |file: &str| folder.path().join(file).to_string_lossy().into_owned();
    let peer = Script::asked("--peer", "finetune.py").map(|peer| {
        peer.with("--weights", path("weights.safetensors"))
            .with("--images", path("images.safetensors"))
            .with("--loss", path("loss.safetensors"))
    });
    let mut training = Training::new(device, peer.is_some().then(|| folder.path()))?;
    let (loss, _) = training.step()?;

    let what = format!("fine-tuning step of TerraFM-B, batch {BATCH}, 224 x 224, float32");
    let mut comparison = Comparison::new("Training", what, "images/s").goal(1.3);
    if let Some(peer) = &peer {
        peer.run(0)?;
        let theirs = load(Path::new(&path("loss.safetensors")), "loss")?;
        let difference = difference(&[loss as f32], &theirs)?;
        ensure!(difference <= TOLERANCE, "a loss of {loss}, PyTorch's is {}", theirs[0]);
        comparison.note = format!("losses of the first step differ by {difference:.1e} of the loss");
    }
    let step = || Ok(training.step()?.1);
    let (ours, [theirs]) = in_turn(number("--rounds", 3)?, number("--repetitions", 2)?, step, peer.as_ref())?;
    comparison.ours = ours;
    if peer.is_some() {
        comparison.peers.push(Peer { name: "eager PyTorch".into(), values: theirs });
    }
    comparison.tell()
}
