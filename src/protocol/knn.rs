//! k nearest neighbours, as in Galileo's evaluation [nasaharvest/galileo, src/eval/knn.py] or, by Euclidean distance and
//! with equal votes, as in torchgeo-bench [torchgeo/torchgeo-bench, src/torchgeo_bench/knn.py]. Numbers, which neither has,
//! are predicted as the mean of the same neighbours with the same weights.

use ndarray::{Array2, ArrayView1, ArrayView2};

use super::on_device::neighbours::nearest_on;
use super::sweep::{self, StrategyFeatures};
use super::{Accelerator, Needs, Protocol, Session};
use crate::config::{Distance, EmbeddingDtype, KnnConfig};
use crate::score::{Outcome, Supplement, Targets};
use crate::solve::euclidean::nearest_euclidean;
use crate::solve::neighbours::{Neighbours, Search, nearest, round};
use crate::task::{Metric, Split, TargetKind, Task};
use crate::{Error, ErrorKind, Result};

/// What k-NN predicts, and from which neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// What is predicted for each query.
    pub targets: Targets,
    /// For several labels per sample, [queries, labels]: the share of the votes for each label, minus one half. A label
    /// applies above 0.
    pub scores: Option<Array2<f32>>,
    /// The share of the votes for each class or label, [queries, outputs], 0 to 1; `None` for numbers. Like scikit-learn's
    /// `predict_proba` of a k-NN classifier.
    pub shares: Option<Array2<f32>>,
    /// The neighbours that voted, per query.
    pub neighbours: Neighbours,
}

impl Protocol for KnnConfig {
    fn needs(&self) -> Needs {
        Needs::Pooled
    }

    fn targets(&self) -> &'static [TargetKind] {
        &[TargetKind::Class, TargetKind::Labels, TargetKind::Value]
    }

    fn metric(&self, task: &Task) -> Metric {
        KnnConfig::metric(self, task)
    }

    fn splits(&self) -> &'static [Split] {
        &[Split::Train, Split::Test]
    }

    fn neighbours(&self) -> Option<usize> {
        Some(self.k)
    }

    fn problem(&self) -> Option<String> {
        KnnConfig::problem(self)
    }

    fn run(&self, mut session: Session) -> Result<Outcome> {
        let (task, seed, source) = (session.task, session.seed, session.take_source()?);
        let accelerator = session.accelerator;
        sweep::run(KnnConfig::metric(self, task).better(), source, |features| {
            score(self, task, seed, accelerator.as_ref(), features)
        })
    }
}

/// The test split against the train split.
fn score(
    config: &KnnConfig,
    task: &Task,
    seed: u64,
    accelerator: Option<&Accelerator>,
    features: &mut StrategyFeatures,
) -> Result<Outcome> {
    let (train, test) = (features.of(Split::Train)?, features.of(Split::Test)?);
    let labels = Targets::from_labels(&train.labels, task.classes)?;
    let truth = Targets::from_labels(&test.labels, task.classes)?;
    let found = predict_on(accelerator, config, train.matrix.view(), &labels, test.matrix.view())?;
    let k = config.k.min(labels.len()).to_string();
    let selected = [("k", k), ("embedding-dtype", config.embedding_dtype.to_string())];
    let metric = config.metric(task);
    let mut outcome = match &found.scores {
        Some(scores) if metric == Metric::MicroMap => {
            Outcome::of_logits(metric, scores.view(), &truth, &config.interval, seed, selected)?
        }
        _ => Outcome::new(metric, &found.targets, &truth, &config.interval, seed, selected)?,
    };
    let more = match config.temperature {
        Some(temperature) => ("temperature", temperature.to_string()),
        None => ("votes", "equal".to_owned()),
    };
    let distance = match config.distance {
        Distance::Cosine => None,
        Distance::Euclidean => Some(("distance", "euclidean".to_owned())),
    };
    // Of several labels with a metric that ranks, the scores above are no logits.
    outcome.supplement = Supplement { probabilities: found.shares, map: None };
    outcome.selected.extend(distance.into_iter().chain([more]).map(|(name, value)| (name.to_owned(), value)));
    Ok(outcome)
}

/// Predicts the labels of `queries` [m, d] from their nearest `train` features [n, d] with these `labels`.
///
/// The min(k, n) neighbours of highest cosine similarity vote with weight exp(similarity / temperature), or the nearest by
/// Euclidean distance, or with one vote each. The
/// class with the largest sum wins, the lowest of equal ones; for several labels per sample, each applies if
/// the neighbours that have it outweigh those that do not; of numbers their mean, weighted likewise. Of equally similar neighbours those with the lower
/// index count (the reference leaves that order open).
///
/// # Errors
/// If the numbers of features and labels differ, a feature is not finite, there is no train sample, or the
/// temperature is so low that weights overflow.
pub fn predict(
    config: &KnnConfig,
    train: ArrayView2<'_, f32>,
    labels: &Targets,
    queries: ArrayView2<'_, f32>,
) -> Result<Prediction> {
    // Faster than the tree from 16 features up and ever more so with more (benches/knn.rs); models have hundreds.
    predict_by(Search::Product, config, train, labels, queries)
}

/// Like [`predict`], with an explicit search method. All methods give the same prediction.
///
/// # Errors
/// Like [`predict`].
pub fn predict_by(
    search: Search,
    config: &KnnConfig,
    train: ArrayView2<'_, f32>,
    labels: &Targets,
    queries: ArrayView2<'_, f32>,
) -> Result<Prediction> {
    let find = || match config.distance {
        Distance::Cosine => nearest(train, queries, config.k, config.embedding_dtype, search),
        Distance::Euclidean => nearest_euclidean(train, queries, config.k),
    };
    predict_from(config, train, labels, queries, find)
}

/// Like [`predict`], on the accelerator if there is one and the features are many. The prediction is the same. Neighbours in
/// bfloat16, whose ties are many, are searched on the CPU, and so are those with which the device fails.
///
/// # Errors
/// Like [`predict`].
pub fn predict_on(
    accelerator: Option<&Accelerator>,
    config: &KnnConfig,
    train: ArrayView2<'_, f32>,
    labels: &Targets,
    queries: ArrayView2<'_, f32>,
) -> Result<Prediction> {
    let is_f32 = config.distance == Distance::Euclidean || config.embedding_dtype == EmbeddingDtype::F32;
    let (samples, width) = train.dim();
    let Some(accelerator) = accelerator.filter(|accelerator| is_f32 && accelerator.takes(samples, width))
    else {
        return predict(config, train, labels, queries);
    };
    let find = || nearest_on(accelerator, config.distance, train, queries, config.k);
    match predict_from(config, train, labels, queries, find) {
        Err(error) if error.kind() == ErrorKind::Device => {
            tracing::warn!("{error}; searching on the CPU");
            predict(config, train, labels, queries)
        }
        done => done,
    }
}

fn predict_from(
    config: &KnnConfig,
    train: ArrayView2<'_, f32>,
    labels: &Targets,
    queries: ArrayView2<'_, f32>,
    find: impl FnOnce() -> Result<Neighbours>,
) -> Result<Prediction> {
    if labels.len() != train.nrows() {
        return Err(Error::mismatch(format!(
            "{} train samples have features, {} have labels",
            train.nrows(),
            labels.len()
        )));
    }
    if let Some(temperature) = config.temperature {
        let heaviest = (1.0 / temperature).exp() * config.k as f32;
        if !(temperature > 0.0 && heaviest.is_finite()) {
            return Err(Error::mismatch(format!("with temperature {temperature} votes overflow"))
                .help("the published protocol has 0.07; use at least 0.015"));
        }
    }
    if let Targets::Classes { classes, count } = labels
        && let Some(sample) = classes.iter().position(|class| class >= count)
    {
        return Err(Error::mismatch(format!(
            "train sample {sample} has class {} of {count}",
            classes[sample]
        )));
    }
    let dtype = config.embedding_dtype;
    let neighbours = find()?;
    let weights = neighbours.similarities.mapv(|similarity| match config.temperature {
        Some(temperature) => round(dtype, round(dtype, similarity / temperature).exp()),
        None => 1.0,
    });
    let (mut scores, mut class_shares) = (None, None);
    let ballots = || neighbours.indices.rows().into_iter().zip(weights.rows());
    let targets = match labels {
        Targets::Classes { classes, count } => {
            let vote = |(indices, weights): Ballot<'_>| {
                winner(dtype, *count, indices.iter().map(|index| classes[*index]).zip(weights))
            };
            class_shares = Some(votes_by_class(*count, classes, ballots(), queries.nrows()));
            Targets::Classes { classes: ballots().map(vote).collect(), count: *count }
        }
        Targets::Labels(labels) => {
            let shape = (queries.nrows(), labels.ncols());
            let mut predictions = Array2::from_elem(shape, false);
            let mut shares = Array2::zeros(shape);
            let outputs = predictions.rows_mut().into_iter().zip(shares.rows_mut());
            for ((indices, weights), (mut prediction, mut share)) in ballots().zip(outputs) {
                let whole: f32 = weights.sum();
                let outputs = prediction.iter_mut().zip(&mut share);
                for (label, (prediction, share)) in labels.columns().into_iter().zip(outputs) {
                    let votes = indices.iter().map(|index| usize::from(label[*index]));
                    *prediction = winner(dtype, 2, votes.clone().zip(weights)) == 1;
                    let votes: f32 = votes.zip(weights).map(|(vote, weight)| vote as f32 * weight).sum();
                    *share = votes / whole - 0.5;
                }
            }
            class_shares = Some(shares.mapv(|share: f32| (share + 0.5).clamp(0.0, 1.0)));
            scores = Some(shares);
            Targets::Labels(predictions)
        }
        Targets::Values(values) => {
            let mean = |(indices, weights): Ballot<'_>| {
                let (mut sum, mut whole) = (0.0, 0.0);
                for (index, weight) in indices.iter().zip(weights) {
                    sum += f64::from(*weight) * f64::from(values[*index]);
                    whole += f64::from(*weight);
                }
                (sum / whole) as f32
            };
            Targets::Values(ballots().map(mean).collect())
        }
    };
    Ok(Prediction { targets, scores, shares: class_shares, neighbours })
}

/// The share of the votes for each class, [queries, count]. Classes are below `count`.
fn votes_by_class<'a>(
    count: usize,
    classes: &[usize],
    ballots: impl Iterator<Item = Ballot<'a>>,
    queries: usize,
) -> Array2<f32> {
    let mut shares = Array2::zeros((queries, count));
    for ((indices, weights), mut share) in ballots.zip(shares.rows_mut()) {
        for (index, weight) in indices.iter().zip(weights) {
            share[classes[*index]] += weight;
        }
        // Weights of far neighbours may all be 0: then no class has a share.
        let whole = weights.sum().max(f32::MIN_POSITIVE);
        share.mapv_inplace(|votes: f32| (votes / whole).clamp(0.0, 1.0));
    }
    shares
}

/// A query's neighbours and the weights of their votes.
type Ballot<'a> = (ArrayView1<'a, usize>, ArrayView1<'a, f32>);

/// The choice with the largest sum of weights, the lowest of equal ones. Choices are below `count`.
fn winner<'a>(dtype: EmbeddingDtype, count: usize, votes: impl Iterator<Item = (usize, &'a f32)>) -> usize {
    let mut sums = vec![0.0f32; count];
    for (choice, weight) in votes {
        sums[choice] += weight;
    }
    let mut winner = 0;
    for choice in 1..count {
        if round(dtype, sums[choice]) > round(dtype, sums[winner]) {
            winner = choice;
        }
    }
    winner
}
