//! How many images a second TerraFM-B encodes: batches of 8, 224 x 224, 12 bands, float32, random weights.
//!
//! `cargo bench --bench backbone -- [--rounds N] [--device D] [--peer PYTHON]`
//!
//! With `--peer`, a Python that has torch, every round of ours alternates with one of
//! `benches/peers/backbone.py`, eager PyTorch with as many threads, so that both meet the same machine.

use std::process::Command;
use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use terrabench::config::ModelConfig;
use terrabench::home::Home;
use terrabench::model::weights::Weights;
use terrabench::model::{self, Stem, device};

const BATCH: usize = 8;
/// Batches a round.
const REPETITIONS: usize = 3;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let option =
        |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned();
    let rounds: usize = option("--rounds").map_or(Ok(5), |n| n.parse())?;
    let device = device::by_name(&option("--device").unwrap_or_else(|| "flex".into()))?;

    let config = ModelConfig::load(&Home::find()?, "terrafm-b")?;
    let model = model::load(&config, &Weights::Random(0), false, &device)?;
    let shape = [BATCH, 12, 224, 224];
    let pixels = (0..shape.iter().product()).map(|i: usize| (i % 251) as f32 / 125.0 - 1.0).collect();
    let images = Tensor::<4>::from_data(TensorData::new(pixels, shape), &device);
    let encode = || -> anyhow::Result<f64> {
        let start = Instant::now();
        let features = model.backbone.features(images.clone(), Stem::S2L1c)?.into_data();
        anyhow::ensure!(features.shape().to_vec() == [BATCH, 768]);
        Ok(BATCH as f64 / start.elapsed().as_secs_f64())
    };

    encode()?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..REPETITIONS {
            ours.push(encode()?);
        }
        if let Some(python) = option("--peer") {
            peer.extend(run_peer(&python)?);
        }
    }
    println!("TerraFM-B, batch {BATCH}, 224 x 224, float32, {} threads", rayon::current_num_threads());
    report("terrabench", &mut ours);
    if !peer.is_empty() {
        report("eager PyTorch", &mut peer);
        println!("{:>14}: {:.2}", "ratio", median(&ours) / median(&peer));
    }
    Ok(())
}

fn run_peer(python: &str) -> anyhow::Result<Vec<f64>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/backbone.py");
    let number = |option: &str, n: usize| [option.to_owned(), n.to_string()];
    let output = Command::new(python)
        .arg(script)
        .args(number("--batch", BATCH))
        .args(number("--repetitions", REPETITIONS))
        .args(number("--threads", rayon::current_num_threads()))
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rates = String::from_utf8(output.stdout)?;
    Ok(rates.lines().map(str::parse).collect::<Result<_, _>>()?)
}

/// Sorts `rates` and prints their median and range.
fn report(name: &str, rates: &mut [f64]) {
    rates.sort_by(f64::total_cmp);
    let (least, most) = (rates[0], rates[rates.len() - 1]);
    println!(
        "{name:>14}: {:.2} images/s (median of {}, {least:.2} to {most:.2})",
        median(rates),
        rates.len()
    );
}

fn median(sorted: &[f64]) -> f64 {
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}
