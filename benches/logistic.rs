//! Logistic regression of frozen features with 40 strengths of regularisation, from 1e-6 to 1e4, as torchgeo-bench sweeps them: 2,000
//! x 768, 10 classes, and the accuracy of each on 500 more.
//!
//! `cargo bench --bench logistic -- [--rounds N] [--strengths N] [--peer PYTHON]`
//!
//! With `--peer`, a Python that has scikit-learn and safetensors, rounds alternate with those of benches/peers/logistic.py on the same
//! features, with the same objective and tolerance; before timing, the best accuracy must agree.

mod common;

use std::time::Instant;

use anyhow::{Result, ensure};
use common::measured::{Comparison, Peer};
use common::tensors::{load, save};
use common::{Script, in_turn, number};
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use terrabench::home::Home;
use terrabench::metrics::Metric;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::logistic::sweep;
use terrabench::score::decision::HeldOut;
use terrabench::score::{Targets, score_logits};

const SAMPLES: usize = 2000;
const HELD_OUT: usize = 500;
const WIDTH: usize = 768;
const CLASSES: usize = 10;
/// Largest accepted difference of the best accuracy, in percentage points: a sample of 500 is 0.2.
const TOLERANCE: f64 = 0.41;

/// Features [n, d] of overlapping classes; sample i is of class i mod 10.
fn features(samples: usize, seed: u64) -> Array2<f32> {
    let mut centre = ChaCha8Rng::seed_from_u64(0);
    let centres = Array2::from_shape_simple_fn((CLASSES, WIDTH), || centre.random_range(-0.2..0.2f32));
    let mut noise = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((samples, WIDTH), |(sample, feature)| {
        centres[[sample % CLASSES, feature]] + noise.random_range(-1.5..1.5f32)
    })
}

fn targets(samples: usize) -> Targets {
    Targets::Classes { classes: (0..samples).map(|i| i % CLASSES).collect(), count: CLASSES }
}

fn main() -> Result<()> {
    let ProtocolConfig::Logistic(mut config) = ProtocolConfig::load(&Home::find()?, "logistic")? else {
        anyhow::bail!("configs/protocols/logistic.toml is no logistic regression");
    };
    config.refit_with_validation = false;
    config.c.count = number("--strengths", config.c.count)?;
    let count = config.c.count;
    let (train, valid) = (features(SAMPLES, 1), features(HELD_OUT, 2));
    let (labels, held_out) = (targets(SAMPLES), targets(HELD_OUT));
    let fit = || -> Result<(f64, f64)> {
        let start = Instant::now();
        let held_out = HeldOut { valid: valid.view(), valid_targets: &held_out, test: valid.view() };
        let accuracy =
            |logits: ndarray::ArrayView2<f32>, truth: &Targets| score_logits(Metric::Accuracy, logits, truth);
        let swept = sweep(&config, train.view(), &labels, held_out, accuracy)?;
        Ok((swept.chosen.validation, start.elapsed().as_secs_f64()))
    };

    let folder = tempfile::tempdir()?;
    let (inputs, best) = (folder.path().join("features.safetensors"), folder.path().join("best.safetensors"));
    let peer = Script::asked("--peer", "logistic.py").map(|peer| {
        peer.with("--features", inputs.display()).with("--best", best.display()).with("--strengths", count)
    });
    let what = format!("logistic regression, {count} strengths, {SAMPLES} x {WIDTH}, {CLASSES} classes");
    let mut comparison = Comparison::new("Protocols", what, "s").goal(5.0);
    if let Some(peer) = &peer {
        let tensor = |name: &str, values: &Array2<f32>| {
            (name.to_owned(), values.shape().to_vec(), values.iter().copied().collect())
        };
        save(&vec![tensor("train", &train), tensor("valid", &valid)], &inputs)?;
        peer.run(0)?;
        let (ours, theirs) = (fit()?.0, f64::from(load(&best, "best")?[0]));
        ensure!(
            (ours - theirs).abs() <= TOLERANCE,
            "the best accuracy is {ours} %, scikit-learn's {theirs} %"
        );
        comparison.note = format!("best accuracy {ours:.1} %, scikit-learn's {theirs:.1} %");
    }
    fit()?;
    let (ours, [theirs]) = in_turn(number("--rounds", 3)?, 1, || Ok(fit()?.1), peer.as_ref())?;
    comparison.ours = ours;
    if peer.is_some() {
        comparison.peers.push(Peer { name: "scikit-learn, lbfgs".into(), values: theirs });
    }
    comparison.tell()
}
