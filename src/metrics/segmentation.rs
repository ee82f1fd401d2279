//! Scores of predicted masks, in percent, from counts of pixels.
//!
//! The counts of a whole split give the `exact` score; those of each batch, through
//! [`BatchMean`](super::batch_mean::BatchMean), the one that Copernicus-Bench reports.

use ndarray::{Array2, ArrayView, Dimension};

use crate::{Error, Result};

/// How many pixels of each label were predicted as each class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// [classes + 1, classes]: by label and prediction. The last row has the pixels whose label is no class and
    /// that are not ignored either.
    counts: Array2<u64>,
    ignore: Option<i32>,
}

impl Confusion {
    /// No pixels. Pixels whose label is `ignore` will not be counted.
    pub fn new(classes: usize, ignore: Option<i32>) -> Self {
        Confusion { counts: Array2::zeros((classes + 1, classes)), ignore }
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
        if labels.shape() != predictions.shape() {
            let (a, b) = (labels.shape(), predictions.shape());
            return Err(Error::request(format!("labels of shape {a:?} against predictions of shape {b:?}")));
        }
        let classes = self.classes();
        let class = |value: i32| usize::try_from(value).ok().filter(|class| *class < classes);
        for (label, prediction) in labels.iter().zip(&predictions) {
            let predicted = class(*prediction).ok_or_else(|| {
                Error::request(format!("the prediction {prediction} is none of {classes} classes"))
            })?;
            if Some(*label) != self.ignore {
                self.counts[[class(*label).unwrap_or(classes), predicted]] += 1;
            }
        }
        Ok(())
    }

    /// Adds the counts of other masks of the same classes.
    pub fn merge(&mut self, other: &Confusion) {
        self.counts += &other.counts;
    }

    fn classes(&self) -> usize {
        self.counts.ncols()
    }

    fn intersection(&self, class: usize) -> u64 {
        self.counts[[class, class]]
    }

    fn labelled(&self, class: usize) -> u64 {
        self.counts.row(class).sum()
    }

    fn predicted(&self, class: usize) -> u64 {
        self.counts.column(class).sum()
    }

    /// Pixels of a class in labels or predictions. Pixels of a label that is no class count with what was predicted
    /// for them [nasaharvest/galileo, src/eval/metrics.py].
    fn union(&self, class: usize) -> u64 {
        self.labelled(class) + self.predicted(class) - self.intersection(class)
    }

    /// Intersection over union of each class; 0 for a class that is neither in the labels nor in the predictions.
    pub fn iou(&self) -> Vec<f64> {
        (0..self.classes()).map(|class| percent(self.intersection(class), self.union(class).max(1))).collect()
    }

    /// Galileo's mean IoU: the mean over classes that occur in labels or predictions; NaN where none does.
    pub fn galileo_miou(&self) -> f64 {
        let classes = self.occurring();
        mean(classes.map(|class| 100.0 * self.intersection(class) as f64 / (self.union(class) as f64 + 1e-8)))
    }

    /// torchmetrics' macro-averaged Jaccard index: as Galileo's, but that it never averages over a class whose label
    /// is ignored.
    pub fn macro_jaccard(&self) -> f64 {
        let iou = self.iou();
        mean(self.occurring().filter(|class| !self.is_ignored(*class)).map(|class| iou[class]))
    }

    /// torchmetrics' macro-averaged accuracy: the mean recall of the classes that occur in labels or predictions.
    pub fn macro_accuracy(&self) -> f64 {
        mean(self.occurring().map(|class| percent(self.intersection(class), self.labelled(class).max(1))))
    }

    fn occurring(&self) -> impl Iterator<Item = usize> {
        (0..self.classes()).filter(|class| self.union(*class) > 0)
    }

    fn is_ignored(&self, class: usize) -> bool {
        self.ignore.is_some_and(|ignore| usize::try_from(ignore) == Ok(class))
    }

    /// Share of the counted pixels that are right (micro-averaged); 0 where none is counted, as torchmetrics has it.
    pub fn pixel_accuracy(&self) -> f64 {
        percent(self.counts.diag().sum(), self.counts.sum().max(1))
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// NaN of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}
