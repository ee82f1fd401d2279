//! Image retrieval: how well the similarity of frozen features finds images of the same kind. No head is trained.
//!
//! The queries are the images of the test split, the gallery those of the partition's train split. The gallery is ranked by the
//! cosine similarity of its features to those of the query. An image is relevant if it has the class of the query or, for several
//! labels per image, at least one label in common. Reported are the mean average precision of the whole ranking [Manning, Raghavan
//! and Schütze 2008, Introduction to information retrieval, chapter 8] and, for a few k, the share of queries with a relevant image
//! among the k most similar ones. Queries without a relevant image in the gallery do not count; the record names their number.

use ndarray::ArrayView2;

use super::map::map_features;
use super::sweep::{self, StrategyFeatures};
use super::{Needs, Protocol, Session};
use crate::config::RetrievalConfig;
use crate::metrics::retrieval::RankedQuery;
use crate::score::predictions::Retrieval;
use crate::score::{Outcome, Predictions, Supplement, Targets};
use crate::solve::neighbours::compare_with_all;
use crate::task::{Metric, Split, TargetKind, Task};
use crate::{Error, Result};

impl Protocol for RetrievalConfig {
    fn needs(&self) -> Needs {
        Needs::Pooled
    }

    fn targets(&self) -> &'static [TargetKind] {
        &[TargetKind::Class, TargetKind::Labels]
    }

    fn metric(&self, _task: &Task) -> Metric {
        Metric::RetrievalMap
    }

    fn splits(&self) -> &'static [Split] {
        &[Split::Train, Split::Test]
    }

    fn problem(&self) -> Option<String> {
        RetrievalConfig::problem(self)
    }

    fn run(&self, mut session: Session) -> Result<Outcome> {
        let (task, seed, source) = (session.task, session.seed, session.take_source()?);
        sweep::run(Metric::RetrievalMap.better(), source, |features| score(self, task, seed, features))
    }
}

/// Ranks the train split by the images of the test split. Nothing is random but the interval's resamples, which `seed` decides.
fn score(
    config: &RetrievalConfig,
    task: &Task,
    seed: u64,
    features: &mut StrategyFeatures,
) -> Result<Outcome> {
    let (train, test) = (features.of(Split::Train)?, features.of(Split::Test)?);
    let labels = Targets::from_labels(&train.labels, task.classes)?;
    let truth = Targets::from_labels(&test.labels, task.classes)?;
    let queries = rank(train.matrix.view(), &labels, test.matrix.view(), &truth)?;
    let alone = queries.iter().filter(|query| query.relevant == 0).count();
    let relevant = match truth {
        Targets::Labels(_) => "a label in common",
        Targets::Classes { .. } | Targets::Values(_) => "the same class",
    };
    let selected = [
        ("distance", "cosine".to_owned()),
        ("queries", "test split".to_owned()),
        ("gallery", format!("train split, {} images", labels.len())),
        ("relevant", relevant.to_owned()),
        ("queries-without-relevant-images", alone.to_string()),
    ];
    let retrieval = Retrieval { queries, truth, recall_at: config.recall_at.clone() };
    let predictions = Predictions::Retrieved(retrieval);
    let outcome =
        Outcome::of_predictions(Metric::RetrievalMap, predictions, &config.interval, seed, selected)?;
    let supplement = Supplement { probabilities: None, map: Some(map_features(test.matrix.view())?) };
    Ok(Outcome { supplement, ..outcome })
}

/// Ranks the features of a `gallery` [n, d] with these `labels` for each of the `queries` [m, d] with the labels `truth`, by cosine
/// similarity.
///
/// # Errors
/// If features and labels do not fit together, the labels are numbers, or a feature is not finite.
pub fn rank(
    gallery: ArrayView2<'_, f32>,
    labels: &Targets,
    queries: ArrayView2<'_, f32>,
    truth: &Targets,
) -> Result<Vec<RankedQuery>> {
    for (what, features, labels) in
        [("gallery", gallery.nrows(), labels), ("queries", queries.nrows(), truth)]
    {
        if features != labels.len() {
            let problem = format!("{what}: {} images have features, {} have labels", features, labels.len());
            return Err(Error::mismatch(problem));
        }
    }
    match (labels, truth) {
        (Targets::Classes { classes, .. }, Targets::Classes { classes: truth, .. }) => {
            compare_with_all(gallery, queries, |query, similarities| {
                RankedQuery::new(similarities, |image| classes[image] == truth[query])
            })
        }
        (Targets::Labels(labels), Targets::Labels(truth)) if labels.ncols() == truth.ncols() => {
            compare_with_all(gallery, queries, |query, similarities| {
                let wanted: Vec<usize> = truth
                    .row(query)
                    .iter()
                    .enumerate()
                    .filter(|(_, label)| **label)
                    .map(|(at, _)| at)
                    .collect();
                RankedQuery::new(similarities, |image| wanted.iter().any(|label| labels[[image, *label]]))
            })
        }
        _ => Err(Error::mismatch("retrieval needs classes, or labels of the same number, in both splits")
            .help("numbers have no images of the same kind; choose --protocol knn or ridge")),
    }
}
