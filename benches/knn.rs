//! k-NN of 1,000 queries against 20,000 training samples of 768 features, 17 classes, from features to classes; what a k-d tree takes
//! for it, and rounding to bfloat16; and the bootstrap of an interval.
//!
//! `cargo bench --bench knn -- [--rounds N] [--repetitions N] [--peer PYTHON] [--quick]`
//!
//! With `--peer`, a Python that has torch, safetensors and scikit-learn, rounds alternate with those of benches/peers/knn.py on the same
//! features; before timing, the classes must be the same. `--quick` leaves out what has no peer.

mod common;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use common::measured::{Comparison, Peer};
use common::tensors::{load, save};
use common::{Script, in_turn, number};
use ndarray::{Array2, ArrayView2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use terrabench::config::{EmbeddingDtype, IntervalConfig, KnnConfig};
use terrabench::metrics::Metric;
use terrabench::protocol::knn::predict_by;
use terrabench::score::{Targets, interval};
use terrabench::solve::neighbours::Search;

const WIDTH: usize = 768;
const CLASSES: usize = 17;
const SAMPLES: usize = 20_000;
const QUERIES: usize = 1000;
/// A k-d tree gets fewer queries: with so many features it visits nearly all samples.
const FEW: usize = 50;
/// Queries whose classes may differ: those whose best two classes have the same weight but for rounding.
const MOST_DIFFERENT: usize = 1;

/// One centre a class and noise about it: [n, 768].
fn features(samples: usize, seed: u64) -> Array2<f32> {
    let mut centre = ChaCha8Rng::seed_from_u64(0);
    let centres = Array2::from_shape_simple_fn((CLASSES, WIDTH), || centre.random_range(-1.0..1.0f32));
    let mut noise = ChaCha8Rng::seed_from_u64(seed);
    // So much noise that some queries are nearest to samples of other classes.
    Array2::from_shape_fn((samples, WIDTH), |(sample, feature)| {
        0.2 * centres[[sample % CLASSES, feature]] + noise.random_range(-1.0..1.0f32)
    })
}

fn config(embedding_dtype: EmbeddingDtype) -> KnnConfig {
    KnnConfig::weighted(20, 0.07, embedding_dtype, IntervalConfig::new(0.95, 2000))
}

/// The interval of micro F1 over 1,000 samples with 43 labels, 2,000 resamples.
fn bootstrap() -> Result<f64> {
    let labels = |seed| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Targets::Labels(Array2::from_shape_simple_fn((1000, 43), || random.random_bool(0.1)))
    };
    let (predictions, truth) = (labels(3), labels(4));
    let config = IntervalConfig::new(0.95, 2000);
    let start = Instant::now();
    interval(Metric::MicroF1, &predictions, &truth, &config, 0)?;
    Ok(start.elapsed().as_secs_f64())
}

fn main() -> Result<()> {
    let (train, queries) = (features(SAMPLES, 1), features(QUERIES, 2));
    let labels =
        Targets::Classes { classes: (0..SAMPLES).map(|sample| sample % CLASSES).collect(), count: CLASSES };
    let timed = |search, dtype, queries: ArrayView2<f32>| -> Result<f64> {
        let start = Instant::now();
        predict_by(search, &config(dtype), train.view(), &labels, queries)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let (rounds, repetitions) = (number("--rounds", 3)?, number("--repetitions", 5)?);

    let folder = tempfile::tempdir()?;
    let (inputs, classes) =
        (folder.path().join("features.safetensors"), folder.path().join("classes.safetensors"));
    let peer = Script::asked("--peer", "knn.py")
        .map(|peer| peer.with("--features", inputs.display()).with("--classes", classes.display()));
    let what = format!("k-NN, {QUERIES} queries, {SAMPLES} x {WIDTH}, features to classes");
    let mut comparison = Comparison::new("Protocols", what, "s").goal(1.3);
    if let Some(peer) = &peer {
        let tensor = |name: &str, values: &Array2<f32>| {
            (name.to_owned(), values.shape().to_vec(), values.iter().copied().collect())
        };
        save(&vec![tensor("train", &train), tensor("queries", &queries)], &inputs)?;
        peer.run(0)?;
        comparison.note = check(&predicted(&train, &labels, &queries)?, &classes)?;
    }
    let ours = || timed(Search::Product, EmbeddingDtype::F32, queries.view());
    ours()?;
    let (ours, [product, whole, brute]) = in_turn(rounds, repetitions, ours, peer.as_ref())?;
    comparison.ours = ours;
    if peer.is_some() {
        let peers = [
            ("PyTorch, one product of unit vectors and top-k", product),
            ("PyTorch, features to classes", whole),
            ("scikit-learn, brute force", brute),
        ];
        comparison.peers = peers.map(|(name, values)| Peer { name: name.into(), values }).into();
    }
    comparison.tell()?;
    if std::env::args().any(|argument| argument == "--quick") {
        return Ok(());
    }

    let few = queries.slice(s![..FEW, ..]);
    for (what, search, dtype, queries) in [
        (
            format!("k-NN of {QUERIES} queries in bfloat16"),
            Search::Product,
            EmbeddingDtype::Bf16,
            queries.view(),
        ),
        (format!("k-NN of {FEW} queries by product"), Search::Product, EmbeddingDtype::F32, few),
        (format!("k-NN of {FEW} queries by k-d tree"), Search::KdTree, EmbeddingDtype::F32, few),
    ] {
        let ours = (0..repetitions).map(|_| timed(search, dtype, queries)).collect::<Result<_>>()?;
        Comparison { ours, ..Comparison::new("Protocols", what, "s") }.tell()?;
    }
    let ours = (0..repetitions).map(|_| bootstrap()).collect::<Result<_>>()?;
    Comparison { ours, ..Comparison::new("Protocols", "interval of micro F1, 2,000 resamples", "s") }.tell()
}

fn predicted(train: &Array2<f32>, labels: &Targets, queries: &Array2<f32>) -> Result<Vec<usize>> {
    let found =
        predict_by(Search::Product, &config(EmbeddingDtype::F32), train.view(), labels, queries.view())?;
    match found.targets {
        Targets::Classes { classes, .. } => Ok(classes),
        _ => anyhow::bail!("k-NN of classes predicted something else"),
    }
}

/// Compares classes with PyTorch's; says how many differ.
fn check(ours: &[usize], path: &Path) -> Result<String> {
    let theirs = load(path, "classes")?;
    let different = ours.iter().zip(&theirs).filter(|(ours, theirs)| **ours as f32 != **theirs).count();
    ensure!(
        ours.len() == theirs.len() && different <= MOST_DIFFERENT,
        "{different} of {} classes differ",
        ours.len()
    );
    Ok(format!("{different} of {} classes differ", ours.len()))
}
