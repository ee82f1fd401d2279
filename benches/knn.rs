//! k-NN of 1,000 queries against 20,000 training samples of 768 features, 17 classes: both searches, both
//! precisions. `benches/peers/knn.py` times PyTorch and scikit-learn on the same sizes.
//!
//! The k-d tree gets 50 queries, and the product is timed on those as well.

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::{Array2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use terrabench::config::{EmbeddingDtype, IntervalConfig, KnnConfig};
use terrabench::metrics::Metric;
use terrabench::protocol::knn::{predict, predict_by};
use terrabench::score::{Targets, interval};
use terrabench::solve::neighbours::Search;

const WIDTH: usize = 768;
const CLASSES: usize = 17;

/// One centre a class and noise about it: [n, 768].
fn features(samples: usize, seed: u64) -> Array2<f32> {
    let mut centre = ChaCha8Rng::seed_from_u64(0);
    let centres = Array2::from_shape_simple_fn((CLASSES, WIDTH), || centre.random_range(-1.0..1.0f32));
    let mut noise = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((samples, WIDTH), |(sample, feature)| {
        centres[[sample % CLASSES, feature]] + noise.random_range(-1.0..1.0f32)
    })
}

fn knn(criterion: &mut Criterion) {
    let (train, queries) = (features(20_000, 1), features(1000, 2));
    let labels =
        Targets::Classes { classes: (0..20_000).map(|sample| sample % CLASSES).collect(), count: CLASSES };
    let config =
        |embedding_dtype| KnnConfig::weighted(20, 0.07, embedding_dtype, IntervalConfig::new(0.95, 2000));
    let few = queries.slice(s![..50, ..]);

    let mut group = criterion.benchmark_group("knn");
    group.sample_size(10);
    group.bench_function("1000 queries, product, f32", |bencher| {
        bencher
            .iter(|| predict(&config(EmbeddingDtype::F32), train.view(), &labels, queries.view()).unwrap());
    });
    group.bench_function("1000 queries, product, bf16", |bencher| {
        bencher
            .iter(|| predict(&config(EmbeddingDtype::Bf16), train.view(), &labels, queries.view()).unwrap());
    });
    for search in [Search::Product, Search::KdTree] {
        group.bench_function(format!("50 queries, {search:?}, f32"), |bencher| {
            let config = config(EmbeddingDtype::F32);
            bencher.iter(|| predict_by(search, &config, train.view(), &labels, few).unwrap());
        });
    }
    group.finish();
}

/// The interval of micro F1 over 1,000 samples with 43 labels, 2,000 resamples.
fn bootstrap(criterion: &mut Criterion) {
    let labels = |seed| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Targets::Labels(Array2::from_shape_simple_fn((1000, 43), || random.random_bool(0.1)))
    };
    let (predictions, truth) = (labels(3), labels(4));
    let config = IntervalConfig::new(0.95, 2000);
    criterion.bench_function("bootstrap of micro F1", |bencher| {
        bencher.iter(|| interval(Metric::MicroF1, &predictions, &truth, &config, 0).unwrap());
    });
}

criterion_group!(benches, knn, bootstrap);
criterion_main!(benches);
