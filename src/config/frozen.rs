//! Protocols that train no head.

use serde::{Deserialize, Serialize};

use super::training::{IntervalConfig, positive};

/// Image retrieval by frozen features; see [`crate::protocol::retrieval`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RetrievalConfig {
    /// Numbers of retrieved images for which the recall is recorded, ascending, at least 1 each.
    pub recall_at: Vec<usize>,
    /// The confidence interval over the samples of the test split.
    pub interval: IntervalConfig,
}

impl RetrievalConfig {
    pub(crate) fn problem(&self) -> Option<String> {
        let ascend = self.recall_at.windows(2).all(|pair| pair[0] < pair[1]);
        if self.recall_at.first() == Some(&0) || !ascend {
            Some(format!("recall-at is {:?}; expected ascending numbers from 1", self.recall_at))
        } else {
            self.interval.problem()
        }
    }
}

/// Clustering of frozen features; see [`crate::protocol::clustering`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ClusteringConfig {
    /// k-means++ starts, of which the one with the least inertia counts.
    pub starts: usize,
    /// Greatest number of steps per start.
    pub max_iterations: usize,
    /// A start has converged if the centres together move less than this share of the features' root mean square.
    pub tolerance: f64,
    /// The confidence interval over the samples of the test split, whose clusters stay as they are.
    pub interval: IntervalConfig,
}

impl ClusteringConfig {
    pub(crate) fn problem(&self) -> Option<String> {
        if self.starts == 0 || self.max_iterations == 0 {
            Some("starts or max-iterations is 0".to_owned())
        } else if !positive(self.tolerance) {
            Some("tolerance is not above 0".to_owned())
        } else {
            self.interval.problem()
        }
    }
}
