//! Predictions for the test split, sample by sample: enough to recompute any metric.

mod subsets;

use std::borrow::Cow;
use std::collections::BTreeMap;

use ndarray::Array2;

pub use self::subsets::BatchScore;
use super::clusters::{Clusters, is_majority};
use super::ranked::Ranked;
use super::{Parts, Targets};
use crate::config::IntervalConfig;
use crate::metrics::f1::{Counts, count_classes, count_labels, macro_f1_of_classes, macro_f1_of_labels};
use crate::metrics::regression::ErrorSums;
use crate::metrics::retrieval::{RankedQuery, recall};
use crate::metrics::segmentation::Confusion;
use crate::metrics::{Interval, Metric};
use crate::task::Task;
use crate::{Error, Result};

/// Predictions and labels, one per sample of the test split, in its order.
#[derive(Debug, Clone, PartialEq)]
pub enum Predictions {
    /// One class, several labels or one number per image.
    Targets {
        /// What the model predicts.
        predicted: Targets,
        /// The labels, of the same kind.
        truth: Targets,
    },
    /// Scores of labels, for a metric that ranks them.
    Scores {
        /// Logit of each label, [n, labels].
        logits: Array2<f32>,
        /// Whether each label applies, [n, labels].
        truth: Array2<bool>,
    },
    /// Per image: pixel counts by label and predicted class.
    Masks(Vec<Confusion>),
    /// Per image: sums of its pixels' errors.
    ValueMaps(Vec<ErrorSums>),
    /// Per image: where the relevant images stand in its ranking of a gallery.
    Retrieved(Retrieval),
    /// The cluster of each image.
    Clusters {
        /// Index of each image's cluster, below `count`.
        clusters: Vec<usize>,
        /// Index of each image's class, below `count`.
        truth: Vec<usize>,
        /// Number of classes and of clusters.
        count: usize,
    },
}

/// Rankings of a gallery by the images of the test split.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrieval {
    /// Where the relevant images stand, per image of the test split.
    pub queries: Vec<RankedQuery>,
    /// The labels of the test split: classes or labels.
    pub truth: Targets,
    /// The numbers of retrieved images for which the recall is scored.
    pub recall_at: Vec<usize>,
}

/// Per-sample parts of a metric; adding them up scores a resample.
pub struct Scorer(Parts);

impl Scorer {
    pub(super) fn into_parts(self) -> Parts {
        self.0
    }

    /// Number of samples that count.
    pub fn samples(&self) -> usize {
        self.0.len()
    }

    /// Computes the metric of the samples at `indices`; NaN if nothing in them counts.
    ///
    /// # Panics
    /// If an index is not below [`Scorer::samples`].
    pub fn score(&self, indices: &[usize]) -> f64 {
        self.0.score(indices.iter().copied())
    }

    /// Computes the metric of all samples; NaN if nothing counts.
    pub fn all(&self) -> f64 {
        self.0.score(0..self.0.len())
    }

    /// Bootstrap interval of the metric.
    ///
    /// # Errors
    /// Like [`crate::metrics::bootstrap::interval_by`].
    pub fn interval(&self, config: &IntervalConfig, seed: u64) -> Result<Interval> {
        self.0.interval(config, seed)
    }

    /// Computes the metric of each sample alone. R², undefined for one sample, is replaced by minus its mean squared error.
    pub fn each(&self) -> Vec<f64> {
        self.0.each()
    }
}

impl Predictions {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Predictions::Targets { predicted, .. } => predicted.len(),
            Predictions::Scores { logits, .. } => logits.nrows(),
            Predictions::Masks(images) => images.len(),
            Predictions::ValueMaps(images) => images.len(),
            Predictions::Retrieved(retrieval) => retrieval.queries.len(),
            Predictions::Clusters { clusters, .. } => clusters.len(),
        }
    }

    /// The labels of the samples; `None` for pixels, of which only sums are kept.
    pub fn truth(&self) -> Option<Cow<'_, Targets>> {
        match self {
            Predictions::Targets { truth, .. } => Some(Cow::Borrowed(truth)),
            Predictions::Scores { truth, .. } => Some(Cow::Owned(Targets::Labels(truth.clone()))),
            Predictions::Retrieved(retrieval) => Some(Cow::Borrowed(&retrieval.truth)),
            Predictions::Clusters { truth, count, .. } => {
                Some(Cow::Owned(Targets::Classes { classes: truth.clone(), count: *count }))
            }
            Predictions::Masks(_) | Predictions::ValueMaps(_) => None,
        }
    }

    /// Decisions per class or label, of images or, for masks, of pixels; `None` for numbers and for predictions that decide on no
    /// class.
    ///
    /// # Errors
    /// If predictions and truth do not fit together.
    pub fn class_counts(&self) -> Result<Option<Vec<Counts>>> {
        match &*self.decided() {
            Predictions::Targets {
                predicted: Targets::Classes { classes: predicted, .. },
                truth: Targets::Classes { classes: truth, count },
            } => count_classes(predicted, truth, *count).map(Some),
            Predictions::Targets { predicted: Targets::Labels(predicted), truth: Targets::Labels(truth) } => {
                count_labels(predicted.view(), truth.view()).map(Some)
            }
            Predictions::Masks(images) => Ok(Confusion::sum(images).map(|all| counts_of_pixels(&all))),
            _ => Ok(None),
        }
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Converts scores to decisions.
    pub(crate) fn decided(&self) -> Cow<'_, Self> {
        match self {
            Predictions::Scores { logits, truth } => {
                let truth = Targets::Labels(truth.clone());
                Cow::Owned(Predictions::Targets { predicted: truth.predicted(logits.view()), truth })
            }
            other => Cow::Borrowed(other),
        }
    }

    /// Prepares the metric for scoring resamples.
    ///
    /// # Errors
    /// If there are no samples, predictions and truth differ in number or kind, or the metric is for another kind of
    /// target.
    pub fn scorer(&self, metric: Metric) -> Result<Scorer> {
        match (self, metric) {
            (Predictions::Targets { predicted, truth }, _) => {
                Parts::new(metric, predicted, truth).map(Scorer)
            }
            (Predictions::Scores { logits, truth }, Metric::MicroMap) => {
                Ranked::new(logits.view(), truth.view()).map(|ranked| Scorer(Parts::Ranked(ranked)))
            }
            (Predictions::Scores { .. }, _) => self.decided().scorer(metric),
            (Predictions::Masks(images), Metric::Miou) => {
                // An image with every pixel ignored adds nothing to any sum.
                let counting = images.iter().filter(|image| image.pixel_accuracy().is_ok());
                let counting: Vec<Confusion> = counting.cloned().collect();
                match counting.is_empty() {
                    true => Err(Error::mismatch("no mean IoU: every pixel is ignored")
                        .help("check the split and the task's ignored label")),
                    false => Ok(Scorer(Parts::Pixels(counting))),
                }
            }
            (Predictions::ValueMaps(images), metric) => {
                // An image without measured pixels adds nothing to any sum.
                let measured = images.iter().filter(|image| !image.is_empty());
                Parts::of_errors(metric, measured.copied().collect()).map(Scorer)
            }
            (Predictions::Retrieved(retrieval), Metric::RetrievalMap) => {
                Parts::of_rankings(&retrieval.queries).map(Scorer)
            }
            (Predictions::Clusters { clusters, truth, .. }, Metric::AdjustedMutualInformation) => {
                Clusters::new(clusters, truth).map(|clusters| Scorer(Parts::Clusters(clusters)))
            }
            (Predictions::Masks(_), metric) => Err(Error::mismatch(format!("{metric} does not fit masks"))),
            (Predictions::Retrieved(_), metric) => {
                Err(Error::mismatch(format!("{metric} does not fit rankings")))
            }
            (Predictions::Clusters { .. }, metric) => {
                Err(Error::mismatch(format!("{metric} does not fit clusters")))
            }
        }
    }

    /// Whether each sample is predicted entirely right: its class, all its labels, its number, or every pixel that counts. For
    /// rankings, whether the most similar image is relevant; for clusters, whether the sample has the most common class of its
    /// cluster.
    pub fn right(&self) -> Vec<bool> {
        match self {
            Predictions::Targets {
                predicted: Targets::Classes { classes: predicted, .. },
                truth: Targets::Classes { classes: truth, .. },
            } => predicted.iter().zip(truth).map(|(a, b)| a == b).collect(),
            Predictions::Targets { predicted: Targets::Labels(predicted), truth: Targets::Labels(truth) } => {
                predicted.outer_iter().zip(truth.outer_iter()).map(|(a, b)| a == b).collect()
            }
            Predictions::Targets { predicted: Targets::Values(predicted), truth: Targets::Values(truth) } => {
                predicted.iter().zip(truth).map(|(a, b)| a == b).collect()
            }
            // Predictions and truth of different kinds never agree.
            Predictions::Targets { predicted, .. } => vec![false; predicted.len()],
            Predictions::Scores { .. } => self.decided().right(),
            Predictions::Masks(images) => {
                images.iter().map(|image| image.pixel_accuracy().is_ok_and(|share| share == 100.0)).collect()
            }
            Predictions::ValueMaps(images) => {
                images.iter().map(|image| !image.is_empty() && image.absolute == 0.0).collect()
            }
            Predictions::Retrieved(retrieval) => {
                retrieval.queries.iter().map(|query| query.is_found_within(1)).collect()
            }
            Predictions::Clusters { clusters, truth, .. } => {
                is_majority(clusters, truth).unwrap_or_else(|_| vec![false; clusters.len()])
            }
        }
    }

    /// Percentage of samples for which `other` predicts the same; `None` if their labels differ. Masks agree if all pixel
    /// counts of the image agree, value maps if all sums do.
    pub fn agreement(&self, other: &Self) -> Option<f64> {
        let same = |equal: &mut dyn Iterator<Item = bool>| equal.filter(|equal| *equal).count();
        let (this, other) = (self.decided(), other.decided());
        let equal = match (&*this, &*other) {
            (
                Predictions::Targets { predicted: a, truth },
                Predictions::Targets { predicted: b, truth: other },
            ) if truth == other => match (a, b) {
                (Targets::Classes { classes: a, .. }, Targets::Classes { classes: b, .. }) => {
                    same(&mut a.iter().zip(b).map(|(a, b)| a == b))
                }
                (Targets::Labels(a), Targets::Labels(b)) => {
                    same(&mut a.outer_iter().zip(b.outer_iter()).map(|(a, b)| a == b))
                }
                (Targets::Values(a), Targets::Values(b)) => same(&mut a.iter().zip(b).map(|(a, b)| a == b)),
                _ => return None,
            },
            (Predictions::ValueMaps(a), Predictions::ValueMaps(b)) if self.same_labels(&other) => {
                same(&mut a.iter().zip(b).map(|(a, b)| a == b))
            }
            (Predictions::Masks(a), Predictions::Masks(b)) if self.same_labels(&other) => {
                same(&mut a.iter().zip(b).map(|(a, b)| a == b))
            }
            (Predictions::Retrieved(a), Predictions::Retrieved(b)) if self.same_labels(&other) => {
                same(&mut a.queries.iter().zip(&b.queries).map(|(a, b)| a == b))
            }
            (Predictions::Clusters { clusters: a, .. }, Predictions::Clusters { clusters: b, .. })
                if self.same_labels(&other) =>
            {
                same(&mut a.iter().zip(b).map(|(a, b)| a == b))
            }
            _ => return None,
        };
        (!self.is_empty()).then(|| 100.0 * equal as f64 / self.len() as f64)
    }

    /// Whether `other` has the same labels, which suggests the same samples.
    pub fn same_labels(&self, other: &Self) -> bool {
        let (this, other) = (self.decided(), other.decided());
        match (&*this, &*other) {
            (Predictions::Targets { truth, .. }, Predictions::Targets { truth: other, .. }) => truth == other,
            (Predictions::Masks(a), Predictions::Masks(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.labels() == b.labels())
            }
            (Predictions::ValueMaps(a), Predictions::ValueMaps(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_truth(b))
            }
            (Predictions::Retrieved(a), Predictions::Retrieved(b)) => {
                let relevant = |r: &Retrieval| r.queries.iter().map(|q| q.relevant).collect::<Vec<_>>();
                a.truth == b.truth && relevant(a) == relevant(b)
            }
            (Predictions::Clusters { truth: a, .. }, Predictions::Clusters { truth: b, .. }) => a == b,
            _ => false,
        }
    }

    /// Returns further scores by name: `macro_f1`, also `micro_f1` if the metric ranks labels; for masks `pixel_accuracy` and
    /// the IoU of each class that occurs (`iou_<name>`, or `iou_<index>` without names); for numbers `rmse`, `mae` and `r2`; for
    /// rankings `recall_at_<k>`.
    pub fn scores(&self, class_names: &[String]) -> BTreeMap<String, f64> {
        match self {
            Predictions::Targets { predicted: Targets::Values(a), truth: Targets::Values(b) } => {
                let error = |(a, b): (&f32, &f32)| ErrorSums::of(f64::from(*a), f64::from(*b));
                a.iter().zip(b).map(error).sum::<ErrorSums>().scores()
            }
            Predictions::ValueMaps(images) => images.iter().sum::<ErrorSums>().scores(),
            Predictions::Retrieved(Retrieval { queries, recall_at, .. }) => {
                let score = |k: &usize| Some((format!("recall_at_{k}"), recall(queries, *k)?));
                recall_at.iter().filter_map(score).collect()
            }
            Predictions::Clusters { .. } => BTreeMap::new(),
            Predictions::Targets { predicted, truth } => {
                let score = match (predicted, truth) {
                    (Targets::Classes { classes: a, .. }, Targets::Classes { classes: b, count }) => {
                        count_classes(a, b, *count).and_then(|counts| macro_f1_of_classes(&counts))
                    }
                    (Targets::Labels(a), Targets::Labels(b)) => {
                        count_labels(a.view(), b.view()).and_then(|counts| macro_f1_of_labels(&counts))
                    }
                    _ => return BTreeMap::new(),
                };
                let score = score.ok();
                score.map(|score| ("macro_f1".to_owned(), score)).into_iter().collect()
            }
            Predictions::Scores { .. } => {
                let decided = self.decided();
                let mut scores = decided.scores(class_names);
                let micro = decided.scorer(Metric::MicroF1).map(|scorer| scorer.all()).ok();
                scores.extend(micro.map(|score| (Metric::MicroF1.to_string(), score)));
                scores
            }
            Predictions::Masks(images) => {
                let Some(all) = Confusion::sum(images) else { return BTreeMap::new() };
                let accuracy = all.pixel_accuracy().ok();
                let mut scores: BTreeMap<String, f64> =
                    accuracy.map(|share| ("pixel_accuracy".to_owned(), share)).into_iter().collect();
                for (class, iou) in all.iou().into_iter().enumerate() {
                    let name = class_names.get(class).cloned().unwrap_or_else(|| class.to_string());
                    scores.extend(iou.map(|iou| (format!("iou_{name}"), iou)));
                }
                scores
            }
        }
    }

    /// Counts samples (pixels for masks) by label and predicted class, [classes, classes]; `None` for multi-label tasks, which
    /// have no such matrix.
    pub fn confusion(&self, task: &Task) -> Option<ndarray::Array2<u64>> {
        let n = task.classes;
        let mut counts = ndarray::Array2::zeros((n, n));
        match self {
            Predictions::Targets {
                predicted: Targets::Classes { classes: predicted, .. },
                truth: Targets::Classes { classes: truth, .. },
            } => {
                for (label, prediction) in truth.iter().zip(predicted) {
                    *counts.get_mut((*label, *prediction))? += 1;
                }
            }
            Predictions::Masks(images) => {
                let all = Confusion::sum(images)?;
                let all = all.counts();
                if all.ncols() != n {
                    return None;
                }
                counts.assign(&all.slice(ndarray::s![..n, ..]));
            }
            Predictions::Targets { .. }
            | Predictions::Scores { .. }
            | Predictions::ValueMaps(_)
            | Predictions::Retrieved(_)
            | Predictions::Clusters { .. } => return None,
        }
        Some(counts)
    }
}

/// Counts the pixels with a label by class.
fn counts_of_pixels(all: &Confusion) -> Vec<Counts> {
    let counts = all.counts();
    let classes = counts.ncols();
    let labelled = counts.slice(ndarray::s![..classes, ..]);
    let count = |class: usize| {
        let right = labelled[[class, class]];
        Counts {
            true_positives: right,
            false_positives: labelled.column(class).sum() - right,
            false_negatives: labelled.row(class).sum() - right,
        }
    };
    (0..classes).map(count).collect()
}
