//! Clustering: whether the groups in frozen features are the classes. No head is trained, and no label of a training image is used.
//!
//! k-means by Euclidean distance groups the features of the test split into as many clusters as the task has classes. Clusters
//! and classes are compared by their adjusted mutual information, which does not depend on the numbers of the clusters.

use super::map::map_features;
use super::sweep::{self, StrategyFeatures};
use super::{Needs, Protocol, Session};
use crate::config::ClusteringConfig;
use crate::score::{Outcome, Predictions, Supplement, Targets};
use crate::solve::k_means::{KMeansSettings, k_means};
use crate::task::{Metric, Split, TargetKind, Task};
use crate::{Error, Result};

impl Protocol for ClusteringConfig {
    fn needs(&self) -> Needs {
        Needs::Pooled
    }

    fn targets(&self) -> &'static [TargetKind] {
        &[TargetKind::Class]
    }

    fn misfit(&self, task: &Task) -> Option<String> {
        (task.target == TargetKind::Labels).then(|| {
            "compares clusters with one class per image, and these images have several labels".to_owned()
        })
    }

    fn metric(&self, _task: &Task) -> Metric {
        Metric::AdjustedMutualInformation
    }

    fn splits(&self) -> &'static [Split] {
        &[Split::Test]
    }

    fn problem(&self) -> Option<String> {
        ClusteringConfig::problem(self)
    }

    fn run(&self, mut session: Session) -> Result<Outcome> {
        let (task, seed, source) = (session.task, session.seed, session.take_source()?);
        sweep::run(Metric::AdjustedMutualInformation.better(), source, |features| {
            score(self, task, seed, features)
        })
    }
}

/// Groups the test split. `seed` decides the starts and the interval's resamples.
fn score(
    config: &ClusteringConfig,
    task: &Task,
    seed: u64,
    features: &mut StrategyFeatures,
) -> Result<Outcome> {
    let test = features.of(Split::Test)?;
    let Targets::Classes { classes: truth, count } = Targets::from_labels(&test.labels, task.classes)? else {
        return Err(Error::mismatch("clusters are compared with one class per image")
            .help("choose --protocol retrieval for several labels per image"));
    };
    let ClusteringConfig { starts, max_iterations, tolerance, interval } = *config;
    let settings = KMeansSettings { clusters: count, starts, max_iterations, tolerance, seed };
    let found = k_means(test.matrix.view(), settings)?;
    let selected = [
        ("clusters", count.to_string()),
        ("distance", "euclidean".to_owned()),
        ("starts", starts.to_string()),
        ("inertia", format!("{:.6e}", found.inertia)),
    ];
    let metric = Metric::AdjustedMutualInformation;
    let predictions = Predictions::Clusters { clusters: found.clusters, truth, count };
    let outcome = Outcome::of_predictions(metric, predictions, &interval, seed, selected)?;
    let supplement = Supplement { probabilities: None, map: Some(map_features(test.matrix.view())?) };
    Ok(Outcome { supplement, ..outcome })
}
