//! Parts of predictions: selected samples, batches, one class.

use ndarray::Axis;

use super::{Predictions, Retrieval};
use crate::metrics::Metric;
use crate::metrics::regression::ErrorSums;
use crate::metrics::segmentation::Confusion;
use crate::score::{Targets, score, score_logits};
use crate::{Error, Result};

/// The metric of one batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchScore {
    /// Value in the metric's unit.
    pub score: f64,
    /// Number of samples in the batch.
    pub samples: usize,
}

impl BatchScore {
    /// Mean over batches weighted by their samples; NaN without batches.
    pub fn mean(batches: impl IntoIterator<Item = BatchScore>) -> f64 {
        let (mut sum, mut samples) = (0.0, 0);
        for batch in batches {
            sum += batch.score * batch.samples as f64;
            samples += batch.samples;
        }
        sum / samples as f64
    }
}

impl Predictions {
    /// Selects the samples at `places`, in that order.
    ///
    /// # Panics
    /// If a place is not below [`Predictions::len`].
    #[must_use]
    pub fn select(&self, places: &[usize]) -> Self {
        match self {
            Predictions::Targets { predicted, truth } => {
                Predictions::Targets { predicted: select(predicted, places), truth: select(truth, places) }
            }
            Predictions::Scores { logits, truth } => Predictions::Scores {
                logits: logits.select(Axis(0), places),
                truth: truth.select(Axis(0), places),
            },
            Predictions::Masks(images) => {
                Predictions::Masks(places.iter().map(|place| images[*place].clone()).collect())
            }
            Predictions::ValueMaps(images) => {
                Predictions::ValueMaps(places.iter().map(|place| images[*place]).collect())
            }
            Predictions::Retrieved(Retrieval { queries, truth, recall_at }) => {
                Predictions::Retrieved(Retrieval {
                    queries: places.iter().map(|place| queries[*place]).collect(),
                    truth: select(truth, places),
                    recall_at: recall_at.clone(),
                })
            }
            Predictions::Clusters { clusters, truth, count } => Predictions::Clusters {
                clusters: places.iter().map(|place| clusters[*place]).collect(),
                truth: places.iter().map(|place| truth[*place]).collect(),
                count: *count,
            },
        }
    }

    /// Returns the indices of samples whose labels differ from those of `other`; `None` if the number of samples or the kind
    /// of target differs. Masks count as equal if the pixel counts per label agree, value maps if their sums do.
    pub fn relabelled(&self, other: &Self) -> Option<Vec<usize>> {
        if self.len() != other.len() {
            return None;
        }
        let (this, other) = (self.decided(), other.decided());
        if let (Predictions::Retrieved(a), Predictions::Retrieved(b)) = (&*this, &*other) {
            // A query with other relevant images in the gallery is not comparable either.
            let rows = a.queries.iter().zip(&b.queries).enumerate();
            let mut differing: Vec<usize> =
                rows.filter(|(_, (a, b))| a.relevant != b.relevant).map(|(place, _)| place).collect();
            let targets =
                |truth: &Targets| Predictions::Targets { predicted: truth.clone(), truth: truth.clone() };
            differing.extend(targets(&a.truth).relabelled(&targets(&b.truth))?);
            differing.sort_unstable();
            differing.dedup();
            return Some(differing);
        }
        let differ: Vec<bool> = match (&*this, &*other) {
            (Predictions::Targets { truth: a, .. }, Predictions::Targets { truth: b, .. }) => match (a, b) {
                (Targets::Classes { classes: a, count: m }, Targets::Classes { classes: b, count: n })
                    if m == n =>
                {
                    a.iter().zip(b).map(|(a, b)| a != b).collect()
                }
                (Targets::Labels(a), Targets::Labels(b)) if a.ncols() == b.ncols() => {
                    a.outer_iter().zip(b.outer_iter()).map(|(a, b)| a != b).collect()
                }
                (Targets::Values(a), Targets::Values(b)) => a.iter().zip(b).map(|(a, b)| a != b).collect(),
                _ => return None,
            },
            (Predictions::ValueMaps(a), Predictions::ValueMaps(b)) => {
                a.iter().zip(b).map(|(a, b)| !a.same_truth(b)).collect()
            }
            (Predictions::Masks(a), Predictions::Masks(b)) => {
                a.iter().zip(b).map(|(a, b)| a.labels() != b.labels()).collect()
            }
            (Predictions::Clusters { truth: a, .. }, Predictions::Clusters { truth: b, .. }) => {
                a.iter().zip(b).map(|(a, b)| a != b).collect()
            }
            _ => return None,
        };
        Some(differ.iter().enumerate().filter(|(_, differs)| **differs).map(|(place, _)| place).collect())
    }

    /// Scores each batch of `batch_size` samples in order; the last batch may be smaller. Batches of masks or maps in which
    /// no pixel counts are left out.
    ///
    /// # Errors
    /// If there are no samples, `batch_size` is 0, no pixel counts or the metric is for another kind of target.
    pub fn batch_scores(&self, metric: Metric, batch_size: usize) -> Result<Vec<BatchScore>> {
        if self.is_empty() || batch_size == 0 {
            return Err(Error::mismatch(format!(
                "cannot score {} samples in batches of {batch_size}",
                self.len()
            )));
        }
        if let (Predictions::Masks(images), Metric::Miou) = (self, metric) {
            let batches: Vec<BatchScore> = images
                .chunks(batch_size)
                .filter_map(|batch| {
                    let score = Confusion::sum(batch)?.mean_iou().ok()?;
                    Some(BatchScore { score, samples: batch.len() })
                })
                .collect();
            return match batches.is_empty() {
                true => Err(Error::mismatch("no mean IoU: every pixel is ignored")),
                false => Ok(batches),
            };
        }
        if let Predictions::ValueMaps(images) = self {
            images.iter().sum::<ErrorSums>().score(metric)?;
            let scored = images.chunks(batch_size).filter_map(|batch| {
                let score = batch.iter().sum::<ErrorSums>().score(metric).ok()?;
                Some(BatchScore { score, samples: batch.len() })
            });
            return Ok(scored.collect());
        }
        let places: Vec<usize> = (0..self.len()).collect();
        let scored = places.chunks(batch_size).map(|batch| {
            let score = match self.select(batch) {
                Predictions::Targets { predicted, truth } => score(metric, &predicted, &truth)?,
                Predictions::Scores { logits, truth } => {
                    score_logits(metric, logits.view(), &Targets::Labels(truth))?
                }
                others @ (Predictions::Retrieved(_) | Predictions::Clusters { .. }) => {
                    others.scorer(metric)?.all()
                }
                Predictions::Masks(_) | Predictions::ValueMaps(_) => {
                    return Err(Error::mismatch(format!("{metric} does not fit masks")));
                }
            };
            Ok(BatchScore { score, samples: batch.len() })
        });
        scored.collect()
    }

    /// Intersection over union of a class over the images at `images`, in percent; `None` if the class occurs neither in
    /// their labels nor in their predictions, or if these are not masks.
    pub fn class_iou(&self, class: usize, images: &[usize]) -> Option<f64> {
        let Predictions::Masks(all) = self else { return None };
        let sum = Confusion::sum(images.iter().filter_map(|image| all.get(*image)))?;
        sum.iou().get(class).copied().flatten()
    }
}

fn select(targets: &Targets, places: &[usize]) -> Targets {
    match targets {
        Targets::Classes { classes, count } => {
            Targets::Classes { classes: places.iter().map(|place| classes[*place]).collect(), count: *count }
        }
        Targets::Labels(labels) => Targets::Labels(labels.select(Axis(0), places)),
        Targets::Values(values) => Targets::Values(places.iter().map(|place| values[*place]).collect()),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::metrics::segmentation::mean_iou_over_batches;
    use crate::score::reported_score;

    #[test]
    fn batches_of_masks_average_to_the_reported_score() {
        let image = |counts: [[u64; 2]; 3]| {
            let counts = ndarray::Array2::from_shape_fn((3, 2), |(row, column)| counts[row][column]);
            Confusion::from_counts(counts, Some(-1)).unwrap()
        };
        let images = vec![
            image([[5, 1], [2, 3], [0, 0]]),
            image([[0, 0], [0, 0], [0, 0]]), // Every pixel is ignored.
            image([[9, 0], [4, 1], [1, 1]]),
        ];
        let predictions = Predictions::Masks(images.clone());
        for batch_size in 1..5 {
            let again = BatchScore::mean(predictions.batch_scores(Metric::Miou, batch_size).unwrap());
            assert_eq!(again, mean_iou_over_batches(&images, batch_size).unwrap(), "batches of {batch_size}");
        }
        assert!(Predictions::Masks(images[1..2].to_vec()).batch_scores(Metric::Miou, 1).is_err());
    }

    #[test]
    fn batches_of_ranked_labels_average_to_the_reported_score() {
        let logits = array![[2.0_f32, -1.0], [0.5, 0.7], [-3.0, 1.0], [0.1, 0.2], [1.0, -2.0]];
        let truth = array![[true, false], [false, true], [true, true], [false, false], [true, false]];
        let predictions = Predictions::Scores { logits: logits.clone(), truth: truth.clone() };
        let targets = Targets::Labels(truth);
        for metric in [Metric::MicroMap, Metric::MicroF1] {
            for batch_size in [1, 2, 3, 7] {
                let again = BatchScore::mean(predictions.batch_scores(metric, batch_size).unwrap());
                let reported = reported_score(metric, logits.view(), &targets, batch_size).unwrap();
                assert_eq!(again, reported, "{metric} in batches of {batch_size}");
            }
        }
        assert!(predictions.batch_scores(Metric::Accuracy, 2).is_err());
    }
}
