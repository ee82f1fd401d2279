//! Galileo's linear probe, 16 learning rates at once, against 16 single PyTorch runs on the same machine.
//!
//! `TERRABENCH_PEER_PYTHON=/path/to/python cargo bench --bench linear_probe` with a Python that has torch; without
//! it only our side is measured. `TERRABENCH_REPEATS` (5) sets how often each side runs. Ours runs before each of
//! the peer's repeats, so that both meet the same load.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use ndarray::{Array2, Array3, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use terrabench::home::Home;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::linear_probe::{TrainingSet, train};
use terrabench::score::Targets;

const SAMPLES: usize = 2000;
const WIDTH: usize = 768;
const CLASSES: usize = 10;

fn main() -> anyhow::Result<()> {
    let ProtocolConfig::LinearProbe(config) = ProtocolConfig::load(&Home::find()?, "linear-probe")? else {
        anyhow::bail!("configs/protocols/linear-probe.toml is no linear probe");
    };
    let (features, labels) = samples();
    let targets = Targets::Classes { classes: labels, count: CLASSES };
    let rates = &config.learning_rates;
    let threads = rayon::current_num_threads();
    let repeats: usize = std::env::var("TERRABENCH_REPEATS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    println!(
        "{} learning rates, {} epochs, {SAMPLES} x {WIDTH}, {CLASSES} classes, batches of {}, {threads} threads",
        rates.len(),
        config.epochs,
        config.batch_size
    );

    let ours = || -> anyhow::Result<f64> {
        let start = Instant::now();
        let training = TrainingSet { features: features.view(), targets: &targets };
        let trained = train(&config, rates, training, 0, |_, _| Ok(()))?;
        let seconds = start.elapsed().as_secs_f64();
        anyhow::ensure!(trained.losses.iter().all(|loss| loss.is_finite()), "a loss is not finite");
        Ok(seconds)
    };
    let Some(python) = std::env::var_os("TERRABENCH_PEER_PYTHON") else {
        println!("TERRABENCH_PEER_PYTHON is not set: no peer");
        let seconds: anyhow::Result<Vec<f64>> = (0..repeats).map(|_| ours()).collect();
        report("terrabench, all at once", seconds?);
        return Ok(());
    };

    let (mut of_ours, mut of_loader, mut of_index) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeats {
        of_ours.push(ours()?);
        let numbers = [SAMPLES, WIDTH, CLASSES, config.epochs, config.batch_size, threads, 1];
        let mut peer = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/linear_probe.py"))
            .args(numbers.iter().map(usize::to_string))
            .args(rates.iter().map(f64::to_string))
            .stdout(Stdio::piped())
            .spawn()?;
        for line in peer.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
            if let Some(seconds) = line?.strip_prefix("seconds ") {
                let seconds: Vec<f64> = seconds.split(' ').map(str::parse).collect::<Result<_, _>>()?;
                of_loader.extend(seconds.first());
                of_index.extend(seconds.get(1));
            }
        }
        anyhow::ensure!(peer.wait()?.success(), "the peer failed");
    }
    let ours = report("terrabench, all at once", of_ours);
    let loader = report("PyTorch one by one, DataLoader (Galileo's loop)", of_loader);
    let index = report("PyTorch one by one, batches by index", of_index);
    println!("{:.1} times as fast as Galileo's loop, {:.1} as by index", loader / ours, index / ours);
    Ok(())
}

/// Features [1, n, d] of overlapping classes, and their labels.
fn samples() -> (Array3<f32>, Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut noise = |scale: f32| scale * (0..4).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>();
    let centres = Array2::from_shape_simple_fn((CLASSES, WIDTH), || noise(0.1));
    let labels: Vec<usize> = (0..SAMPLES).map(|i| i % CLASSES).collect();
    let features = Array2::from_shape_fn((SAMPLES, WIDTH), |(i, j)| noise(1.0) + centres[[labels[i], j]]);
    (features.insert_axis(Axis(0)), labels)
}

/// Prints median, least and most; returns the median.
fn report(name: &str, mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    if let (Some(least), Some(most)) = (seconds.first(), seconds.last()) {
        println!("{name:<50} median {median:7.3} s   {least:.3} to {most:.3} of {} runs", seconds.len());
    }
    median
}
