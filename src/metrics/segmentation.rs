//! Scores of predicted masks, from counts of pixels.
//!
//! The counts of a whole split give the `exact` score; the counts of each batch, through
//! [`mean_iou_over_batches`], give the score that Copernicus-Bench reports.

use ndarray::{Array2, ArrayView, Dimension};

use crate::{Error, Result};

/// Pixel counts by label and predicted class. Counts of parts add up to the counts of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// [classes + 1, classes]: by label and prediction. The last row counts pixels whose label is neither a class nor
    /// ignored.
    counts: Array2<u64>,
    ignore: Option<i32>,
}

impl Confusion {
    /// Starts without pixels. Pixels labelled `ignore` are not counted, whatever is predicted there.
    pub fn new(classes: usize, ignore: Option<i32>) -> Self {
        Confusion { counts: Array2::zeros((classes + 1, classes)), ignore }
    }

    /// Restores a confusion from [`Confusion::counts`], [classes + 1, classes].
    ///
    /// # Errors
    /// If there is not exactly one more row than columns.
    pub fn from_counts(counts: Array2<u64>, ignore: Option<i32>) -> Result<Self> {
        match counts.dim() {
            (rows, columns) if rows == columns + 1 => Ok(Confusion { counts, ignore }),
            found => Err(Error::mismatch(format!(
                "counts have shape {found:?}; expected one more row than columns"
            ))),
        }
    }

    /// Pixel counts by label and prediction, [classes + 1, classes]. The last row counts pixels whose label is not a class.
    pub fn counts(&self) -> &Array2<u64> {
        &self.counts
    }

    /// The label that is not counted.
    pub fn ignore(&self) -> Option<i32> {
        self.ignore
    }

    /// Number of pixels per label; the last entry counts pixels whose label is not a class.
    pub fn labels(&self) -> Vec<u64> {
        self.counts.rows().into_iter().map(|row| row.sum()).collect()
    }

    /// Adds up all counts; `None` if there are none.
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Confusion>) -> Option<Confusion> {
        let mut parts = parts.into_iter();
        let mut sum = parts.next()?.clone();
        parts.for_each(|part| sum.merge(part));
        Some(sum)
    }

    /// Counts the pixels of masks of any shape.
    ///
    /// # Errors
    /// If labels and predictions differ in shape, or a prediction is not a class.
    pub fn add<D: Dimension>(
        &mut self,
        labels: ArrayView<i32, D>,
        predictions: ArrayView<i32, D>,
    ) -> Result<()> {
        let (of_labels, of_predictions) = (labels.shape(), predictions.shape());
        if of_labels != of_predictions {
            return Err(Error::mismatch(format!(
                "predictions have shape {of_predictions:?}; expected {of_labels:?}, as the labels"
            )));
        }
        let classes = self.classes();
        let class = |value: i32| usize::try_from(value).ok().filter(|class| *class < classes);
        for (label, prediction) in labels.iter().zip(&predictions) {
            let predicted = class(*prediction).ok_or_else(|| {
                Error::mismatch(format!(
                    "a pixel is predicted as class {prediction}; expected a class below {classes}"
                ))
            })?;
            if Some(*label) != self.ignore {
                self.counts[[class(*label).unwrap_or(classes), predicted]] += 1;
            }
        }
        Ok(())
    }

    /// Adds the counts of other masks with the same classes.
    ///
    /// # Panics
    /// If the numbers of classes differ.
    pub fn merge(&mut self, other: &Confusion) {
        assert_eq!(self.classes(), other.classes(), "numbers of classes differ");
        self.counts += &other.counts;
    }

    fn classes(&self) -> usize {
        self.counts.ncols()
    }

    /// Intersection over union per class in percent; `None` for a class that occurs neither in the labels nor in the
    /// predictions. A label that is not a class enlarges the union of the class predicted there [Galileo].
    pub fn iou(&self) -> Vec<Option<f64>> {
        let iou = |class: usize| {
            let intersection = self.counts[[class, class]];
            let union = self.counts.row(class).sum() + self.counts.column(class).sum() - intersection;
            (union > 0).then(|| percent(intersection, union))
        };
        (0..self.classes()).map(iou).collect()
    }

    /// Mean IoU over the classes that occur in labels or predictions, in percent [Galileo; torchmetrics'
    /// macro-averaged Jaccard index]. The ignored class is left out, as in torchmetrics.
    ///
    /// # Errors
    /// If no class is left because every pixel is ignored. (The references return NaN.)
    pub fn mean_iou(&self) -> Result<f64> {
        let ignored = self.ignore.and_then(|label| usize::try_from(label).ok());
        let iou = self.iou();
        let counted = iou.iter().enumerate().filter(|(class, _)| Some(*class) != ignored);
        let scores: Vec<f64> = counted.filter_map(|(_, iou)| *iou).collect();
        if scores.is_empty() {
            return Err(Error::mismatch("no mean IoU: every pixel is ignored"));
        }
        Ok(scores.iter().sum::<f64>() / scores.len() as f64)
    }

    /// Percentage of counted pixels that are right (micro-averaged).
    ///
    /// # Errors
    /// If every pixel is ignored. (torchmetrics returns 0.)
    pub fn pixel_accuracy(&self) -> Result<f64> {
        match self.counts.sum() {
            0 => Err(Error::mismatch("no pixel accuracy: every pixel is ignored")),
            all => Ok(percent(self.counts.diag().sum(), all)),
        }
    }
}

/// Mean IoU as Copernicus-Bench reports it, in percent: computed per batch over the classes in its labels or
/// predictions, then averaged, weighted by the number of images. Batches in which no pixel counts are left out; the
/// original returns NaN if there is one.
///
/// # Errors
/// If no pixel counts, or `batch_size` is 0.
pub fn mean_iou_over_batches(images: &[Confusion], batch_size: usize) -> Result<f64> {
    if batch_size == 0 {
        return Err(Error::mismatch("cannot score batches of 0 images"));
    }
    let counting: Vec<(f64, usize)> = (images.chunks(batch_size))
        .filter_map(|batch| Some((Confusion::sum(batch)?.mean_iou().ok()?, batch.len())))
        .collect();
    match counting.iter().map(|(_, images)| images).sum::<usize>() {
        0 => Err(Error::mismatch("no mean IoU: every pixel is ignored")),
        all => Ok(counting.iter().map(|(score, images)| score * *images as f64).sum::<f64>() / all as f64),
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}
