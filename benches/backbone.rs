//! How many images a second TerraFM-B encodes: batches of 8, 224 x 224, 12 bands, float32, random weights.
//!
//! `cargo bench --bench backbone -- [--rounds N] [--device D] [--peer PYTHON]`
//!
//! With `--peer`, a Python that has torch, every round of ours alternates with one of
//! `benches/peers/backbone.py`, eager PyTorch with as many threads, so that both meet the same machine.

mod common;

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use terrabench::device;
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::weights::Weights;
use terrabench::model::{self, Batch, Want};
use terrabench::task::Sensor;

const BATCH: usize = 8;
/// Batches a round.
const REPETITIONS: usize = 3;

fn main() -> anyhow::Result<()> {
    let device = device::by_name(&common::option("--device").unwrap_or_else(|| "flex".into()))?;

    let config = ModelConfig::load(&Home::find()?, "terrafm-b")?;
    let model = model::load(&config, &Weights::Random(0), false, &device)?;
    let shape = [BATCH, 12, 224, 224];
    let pixels = (0..shape.iter().product()).map(|i: usize| (i % 251) as f32 / 125.0 - 1.0).collect();
    let bands = config.sensor(Sensor::S2_L1C)?.bands.as_slice().into();
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, shape), &device);
    let images = Batch::single(Sensor::S2_L1C, bands, pixels);
    let encode = || -> anyhow::Result<f64> {
        let start = Instant::now();
        let features = model.encoder.encode(&images, Want::Pooled(config.pooling()))?.pooled()?.into_data();
        anyhow::ensure!(features.shape().to_vec() == [BATCH, 768]);
        Ok(BATCH as f64 / start.elapsed().as_secs_f64())
    };

    let title = format!("TerraFM-B, batch {BATCH}, 224 x 224, float32");
    common::in_turn(&title, "backbone.py", BATCH, 5, REPETITIONS, encode)
}
