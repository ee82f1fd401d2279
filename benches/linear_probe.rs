//! Galileo's linear probe, 16 learning rates at once, against 16 single PyTorch runs on the same machine.
//!
//! `cargo bench --bench linear_probe -- [--rounds N] [--rates N] [--peer PYTHON]`
//!
//! With `--peer`, a Python that has torch and safetensors, rounds alternate with those of benches/peers/linear_probe.py on the same
//! features. Both draw their own first weights and orders, so that before timing the accuracies on the training samples must agree
//! within what seeds change.

mod common;

use std::time::Instant;

use anyhow::{Result, ensure};
use common::measured::{Comparison, Peer};
use common::tensors::{load, save};
use common::{Script, in_turn, number};
use ndarray::{Array2, Array3, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use terrabench::home::Home;
use terrabench::metrics::Metric;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::linear_probe::{Trained, TrainingSet, train};
use terrabench::score::{Targets, score_logits};

const SAMPLES: usize = 2000;
const WIDTH: usize = 768;
const CLASSES: usize = 10;
/// Largest accepted difference of the mean training accuracy of all learning rates, in percentage points.
const TOLERANCE: f64 = 2.0;

fn main() -> Result<()> {
    let ProtocolConfig::LinearProbe(config) = ProtocolConfig::load(&Home::find()?, "linear-probe")? else {
        anyhow::bail!("configs/protocols/linear-probe.toml is no linear probe");
    };
    let (features, labels) = samples();
    let targets = Targets::Classes { classes: labels, count: CLASSES };
    let rates = &config.learning_rates
        [..number("--rates", config.learning_rates.len())?.min(config.learning_rates.len())];
    let fit = || -> Result<(Trained, f64)> {
        let start = Instant::now();
        let training = TrainingSet { features: features.view(), targets: &targets };
        let trained = train(&config, rates, training, 0, |_, _| Ok(()))?;
        ensure!(trained.losses.iter().all(|loss| loss.is_finite()), "a loss is not finite");
        Ok((trained, start.elapsed().as_secs_f64()))
    };

    let folder = tempfile::tempdir()?;
    let (inputs, outcome) =
        (folder.path().join("features.safetensors"), folder.path().join("accuracies.safetensors"));
    let text: Vec<String> = rates.iter().map(f64::to_string).collect();
    let peer = Script::asked("--peer", "linear_probe.py").map(|peer| {
        peer.with("--features", inputs.display())
            .with("--accuracies", outcome.display())
            .with("--epochs", config.epochs)
            .with("--batch", config.batch_size)
            .with("--rates", text.join(","))
    });
    let count = rates.len();
    let what = format!(
        "linear probe, {count} learning rates, {} epochs, {SAMPLES} x {WIDTH}, {CLASSES} classes",
        config.epochs
    );
    let mut comparison = Comparison::new("Protocols", what, "s");
    if let Some(peer) = &peer {
        save(&vec![("features".into(), vec![SAMPLES, WIDTH], features.iter().copied().collect())], &inputs)?;
        peer.run(0)?;
        let heads = fit()?.0.heads;
        let mut ours = 0.0;
        for rate in 0..count {
            let logits = heads.logits(rate, features.index_axis(Axis(0), 0));
            ours += score_logits(Metric::Accuracy, logits.view(), &targets)? / count as f64;
        }
        let theirs = load(&outcome, "accuracies")?;
        let theirs = 100.0 * theirs.iter().map(|value| f64::from(*value)).sum::<f64>() / theirs.len() as f64;
        comparison.note = format!("mean training accuracy {ours:.1} %, PyTorch's {theirs:.1} %");
        ensure!((ours - theirs).abs() <= TOLERANCE, "{}", comparison.note);
    }
    fit()?;
    let (ours, [loader, index]) = in_turn(number("--rounds", 5)?, 1, || Ok(fit()?.1), peer.as_ref())?;
    comparison.ours = ours;
    if peer.is_some() {
        let peers = [
            ("PyTorch one by one, DataLoader (Galileo's loop)", loader),
            ("PyTorch one by one, batches by index", index),
        ];
        comparison.peers = peers.map(|(name, values)| Peer { name: name.into(), values }).into();
    }
    comparison.tell()
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
