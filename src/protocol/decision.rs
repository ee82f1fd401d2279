//! From logits to decisions: what a head predicts, and which of several candidates is best.

use ndarray::{ArrayView1, ArrayView2, Axis, concatenate, s};

use super::Targets;
use crate::{Error, Result};

impl Targets {
    /// Number of classes or labels: of the logits that a head gives.
    pub fn outputs(&self) -> usize {
        match self {
            Targets::Classes { count, .. } => *count,
            Targets::MultiLabel(labels) => labels.ncols(),
        }
    }

    /// A class that is not below the number of classes, if there is one.
    pub fn out_of_range(&self) -> Option<usize> {
        match self {
            Targets::Classes { classes, count } => classes.iter().copied().find(|class| class >= count),
            Targets::MultiLabel(_) => None,
        }
    }

    /// The targets of a range of the samples, which must be there.
    #[must_use]
    pub(super) fn only(&self, samples: std::ops::Range<usize>) -> Targets {
        match self {
            Targets::Classes { classes, count } => {
                Targets::Classes { classes: classes[samples].to_vec(), count: *count }
            }
            Targets::MultiLabel(labels) => Targets::MultiLabel(labels.slice(s![samples, ..]).to_owned()),
        }
    }

    /// These samples' targets and then those of `others`.
    ///
    /// # Errors
    /// Where the two are of different kinds or have different numbers of classes.
    pub fn with(&self, others: &Targets) -> Result<Targets> {
        match (self, others) {
            (Targets::Classes { classes, count }, Targets::Classes { classes: more, count: same })
                if count == same =>
            {
                Ok(Targets::Classes { classes: [&classes[..], more].concat(), count: *count })
            }
            (Targets::MultiLabel(labels), Targets::MultiLabel(more)) if labels.ncols() == more.ncols() => {
                Ok(Targets::MultiLabel(concatenate![Axis(0), labels.view(), more.view()]))
            }
            _ => Err(Error::request(format!(
                "targets of {} and of {} outputs cannot be joined, or one has classes and one labels",
                self.outputs(),
                others.outputs()
            ))),
        }
    }

    /// What logits [n, outputs] predict for targets of this kind: the class of the largest logit, the first of
    /// equal ones (NaN counts as the largest, as in torch); or each label whose logit is above 0, which is
    /// torch's `sigmoid(logit) > 0.5`.
    #[must_use]
    pub fn predicted(&self, logits: ArrayView2<f32>) -> Targets {
        match self {
            Targets::Classes { count, .. } => {
                Targets::Classes { classes: logits.outer_iter().map(largest).collect(), count: *count }
            }
            Targets::MultiLabel(_) => Targets::MultiLabel(logits.mapv(|logit| logit > 0.0)),
        }
    }
}

fn largest(logits: ArrayView1<f32>) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return i;
        }
        if logit > best.1 {
            best = (i, logit);
        }
    }
    best.0
}

/// The splits that a head is not trained on, features [n, d] each: the best head on validation is reported on test.
#[derive(Debug, Clone, Copy)]
pub struct HeldOut<'a> {
    pub valid: ArrayView2<'a, f32>,
    pub valid_targets: &'a Targets,
    pub test: ArrayView2<'a, f32>,
}

impl HeldOut<'_> {
    /// Checks that the splits fit a training on features of length `width` and these targets.
    ///
    /// # Errors
    /// Where they do not, or validation has no samples.
    pub fn check(&self, width: usize, targets: &Targets) -> Result<()> {
        let (valid, test) = (self.valid, self.test);
        let problem = if valid.ncols() != width || test.ncols() != width {
            let found = (valid.ncols(), test.ncols());
            format!("{width} features a training sample, but {found:?} a validation and test sample")
        } else if valid.nrows() != self.valid_targets.len() {
            format!(
                "features of {} validation samples, labels of {}",
                valid.nrows(),
                self.valid_targets.len()
            )
        } else if valid.nrows() == 0 {
            "no validation samples to choose a head by".to_owned()
        } else if self.valid_targets.outputs() != targets.outputs() {
            let (train, valid) = (targets.outputs(), self.valid_targets.outputs());
            format!("{train} classes in training, {valid} in validation")
        } else {
            return Ok(());
        };
        Err(Error::request(problem))
    }
}

/// The place of the highest score, the first of equal ones; NaN never wins.
pub fn first_best(scores: impl IntoIterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, score) in scores.into_iter().enumerate() {
        if !score.is_nan() && best.is_none_or(|(_, other)| score > other) {
            best = Some((i, score));
        }
    }
    best.map(|(i, _)| i)
}
