//! How many images a second TerraFM-B is fine-tuned on: forward, backward, clipping and AdamW step, batches of 8,
//! 224 x 224, 12 bands, float32, random weights.
//!
//! `cargo bench --bench finetune -- [--rounds N] [--device D] [--peer PYTHON]`
//!
//! With `--peer`, a Python that has torch, every round of ours alternates with one of benches/peers/finetune.py,
//! eager PyTorch with as many threads, so that both meet the same machine.

mod common;

use std::time::Instant;

use ndarray::Array3;
use terrabench::config::Schedule;
use terrabench::data::{Image, Sample, Target};
use terrabench::device;
use terrabench::home::Home;
use terrabench::model::InputSpec;
use terrabench::model::config::ModelConfig;
use terrabench::model::weights::Weights;
use terrabench::model::{self};
use terrabench::protocol::finetune::Network;
use terrabench::task::Sensor;
use terrabench::train::epoch::{self, Recipe};
use terrabench::train::optim::{Optimizer, Rule};

const BATCH: usize = 8;
const CLASSES: usize = 10;
/// Steps a round.
const REPETITIONS: usize = 2;

fn main() -> anyhow::Result<()> {
    let device = device::by_name(&common::option("--device").unwrap_or_else(|| "flex".into()))?.autodiff();

    let config = ModelConfig::load(&Home::find()?, "terrafm-b")?;
    let encoder = model::trainable(&config, &Weights::Random(0), false, &device)?;
    let bands = config.sensor(Sensor::S2_L1C)?.bands.as_slice().into();
    let spec = InputSpec::single(Sensor::S2_L1C, bands, config.pooling());
    let mut network = Some(Network::new(encoder, spec, CLASSES, 0, &device));
    let mut optimizer = Optimizer::new(Rule::ADAMW);
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
    let step = || -> anyhow::Result<f64> {
        let sample = |label: usize| {
            let pixels = Array3::from_shape_fn((12, 224, 224), |(band, row, column)| {
                ((31 * label + 17 * band + 7 * row + column) % 251) as f32 / 125.0 - 1.0
            });
            let (sensor, bands) = (Sensor::S2_L1C, Vec::new());
            let image = Image { sensor, date: None, bands, pixels, day: None, place: None };
            Sample { name: String::new(), images: vec![image], target: Target::Class(label) }
        };
        let samples: Vec<Sample> = (0..BATCH).map(sample).collect();
        let start = Instant::now();
        let before = network.take().expect("put back after each step");
        let items = samples.into_iter().map(Ok);
        let (after, loss) = epoch::epoch(before, &mut optimizer, &recipe, 0, BATCH, items, &mut |_| ())?;
        network = Some(after);
        anyhow::ensure!(loss.is_finite());
        Ok(BATCH as f64 / start.elapsed().as_secs_f64())
    };

    let title = format!("fine-tuning TerraFM-B, batch {BATCH}, 224 x 224, float32");
    common::in_turn(&title, "finetune.py", BATCH, 3, REPETITIONS, step)
}
