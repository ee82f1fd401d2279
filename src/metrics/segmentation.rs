//! Scores of predicted masks, from counts of pixels.
//!
//! The counts of a whole split give the `exact` score; those of each batch, through
//! [`mean_iou_over_batches`], the one that Copernicus-Bench reports.

use ndarray::{Array2, ArrayView, Dimension};

use crate::{Error, Result};

/// How many pixels of each label were predicted as each class. Counts of parts add up to those of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// [classes + 1, classes]: by label and prediction. The last row has the pixels whose label is no class and
    /// that are not ignored either.
    counts: Array2<u64>,
    ignore: Option<i32>,
}

impl Confusion {
    /// No pixels. Pixels labelled `ignore` will not count, whatever is predicted there.
    pub fn new(classes: usize, ignore: Option<i32>) -> Self {
        Confusion { counts: Array2::zeros((classes + 1, classes)), ignore }
    }

    /// From counts that were taken apart: [classes + 1, classes], see [`Confusion::counts`].
    ///
    /// # Errors
    /// Where there is not one row more than columns.
    pub fn from_counts(counts: Array2<u64>, ignore: Option<i32>) -> Result<Self> {
        match counts.dim() {
            (rows, columns) if rows == columns + 1 => Ok(Confusion { counts, ignore }),
            found => Err(Error::mismatch(format!("counts of shape {found:?} are no confusion"))),
        }
    }

    /// [classes + 1, classes]: pixels by label and prediction. The last row has those whose label is no class.
    pub fn counts(&self) -> &Array2<u64> {
        &self.counts
    }

    /// The label that does not count.
    pub fn ignore(&self) -> Option<i32> {
        self.ignore
    }

    /// How many pixels have each label; the last number has those whose label is no class.
    pub fn labels(&self) -> Vec<u64> {
        self.counts.rows().into_iter().map(|row| row.sum()).collect()
    }

    /// The counts of all; nothing of none.
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Confusion>) -> Option<Confusion> {
        let mut parts = parts.into_iter();
        let mut sum = parts.next()?.clone();
        parts.for_each(|part| sum.merge(part));
        Some(sum)
    }

    /// Counts the pixels of masks of any shape.
    ///
    /// # Errors
    /// Where labels and predictions differ in shape, or a prediction is no class.
    pub fn add<D: Dimension>(
        &mut self,
        labels: ArrayView<i32, D>,
        predictions: ArrayView<i32, D>,
    ) -> Result<()> {
        let (of_labels, of_predictions) = (labels.shape(), predictions.shape());
        if of_labels != of_predictions {
            return Err(Error::mismatch(format!(
                "labels of shape {of_labels:?}, predictions of shape {of_predictions:?}"
            )));
        }
        let classes = self.classes();
        let class = |value: i32| usize::try_from(value).ok().filter(|class| *class < classes);
        for (label, prediction) in labels.iter().zip(&predictions) {
            let predicted = class(*prediction).ok_or_else(|| {
                Error::mismatch(format!("a pixel is predicted as class {prediction} of {classes}"))
            })?;
            if Some(*label) != self.ignore {
                self.counts[[class(*label).unwrap_or(classes), predicted]] += 1;
            }
        }
        Ok(())
    }

    /// Adds the counts of other masks of the same classes.
    ///
    /// # Panics
    /// Where the numbers of classes differ.
    pub fn merge(&mut self, other: &Confusion) {
        assert_eq!(self.classes(), other.classes(), "counts of other classes");
        self.counts += &other.counts;
    }

    fn classes(&self) -> usize {
        self.counts.ncols()
    }

    /// Intersection over union of each class in percent; `None` for a class that is neither in labels nor in
    /// predictions. Labels that are no class enlarge the union of what is predicted there [Galileo].
    pub fn iou(&self) -> Vec<Option<f64>> {
        let iou = |class: usize| {
            let intersection = self.counts[[class, class]];
            let union = self.counts.row(class).sum() + self.counts.column(class).sum() - intersection;
            (union > 0).then(|| percent(intersection, union))
        };
        (0..self.classes()).map(iou).collect()
    }

    /// The mean IoU over classes that are in labels or predictions, in percent [Galileo; torchmetrics'
    /// macro-averaged Jaccard index]. A class that is ignored is left out as well, as torchmetrics does.
    ///
    /// # Errors
    /// Where no class is left: every pixel is ignored. (The references give NaN there.)
    pub fn mean_iou(&self) -> Result<f64> {
        let ignored = self.ignore.and_then(|label| usize::try_from(label).ok());
        let iou = self.iou();
        let counted = iou.iter().enumerate().filter(|(class, _)| Some(*class) != ignored);
        let scores: Vec<f64> = counted.filter_map(|(_, iou)| *iou).collect();
        if scores.is_empty() {
            return Err(Error::mismatch("every pixel is ignored, so there is no mean IoU"));
        }
        Ok(scores.iter().sum::<f64>() / scores.len() as f64)
    }

    /// The share of the counted pixels that are right, in percent (micro-averaged).
    ///
    /// # Errors
    /// Where every pixel is ignored. (torchmetrics gives 0 there.)
    pub fn pixel_accuracy(&self) -> Result<f64> {
        match self.counts.sum() {
            0 => Err(Error::mismatch("every pixel is ignored, so there is no pixel accuracy")),
            all => Ok(percent(self.counts.diag().sum(), all)),
        }
    }
}

/// The mean IoU as Copernicus-Bench reports it, in percent: of each batch, over the classes in its labels or
/// predictions, weighted by the batch's images. Batches in which no pixel counts are left out, where theirs make the
/// whole NaN.
///
/// # Errors
/// Where no pixel counts, or `batch_size` is 0.
pub fn mean_iou_over_batches(images: &[Confusion], batch_size: usize) -> Result<f64> {
    if batch_size == 0 {
        return Err(Error::mismatch("batches of 0 images cannot be scored"));
    }
    let counting: Vec<(f64, usize)> = (images.chunks(batch_size))
        .filter_map(|batch| Some((Confusion::sum(batch)?.mean_iou().ok()?, batch.len())))
        .collect();
    match counting.iter().map(|(_, images)| images).sum::<usize>() {
        0 => Err(Error::mismatch("every pixel is ignored, so there is no mean IoU")),
        all => Ok(counting.iter().map(|(score, images)| score * *images as f64).sum::<f64>() / all as f64),
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}
