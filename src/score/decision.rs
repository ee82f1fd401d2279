//! From logits to predictions, and the choice of the best candidate on validation.

use ndarray::{ArrayView1, ArrayView2, Axis, concatenate, s};

use super::Targets;
use crate::metrics::Better;
use crate::{Error, ErrorKind, Result};

impl Targets {
    /// Number of logits per sample: classes, labels, or 1 for numbers.
    pub fn outputs(&self) -> usize {
        match self {
            Targets::Classes { count, .. } => *count,
            Targets::Labels(labels) => labels.ncols(),
            Targets::Values(_) => 1,
        }
    }

    /// Returns a class that is not below the number of classes, if there is one.
    pub fn out_of_range(&self) -> Option<usize> {
        match self {
            Targets::Classes { classes, count } => classes.iter().copied().find(|class| class >= count),
            Targets::Labels(_) | Targets::Values(_) => None,
        }
    }

    /// Returns the targets of a range of samples, which must exist.
    #[must_use]
    pub(crate) fn only(&self, samples: std::ops::Range<usize>) -> Targets {
        match self {
            Targets::Classes { classes, count } => {
                Targets::Classes { classes: classes[samples].to_vec(), count: *count }
            }
            Targets::Labels(labels) => Targets::Labels(labels.slice(s![samples, ..]).to_owned()),
            Targets::Values(values) => Targets::Values(values[samples].to_vec()),
        }
    }

    /// Appends the targets of `others`.
    ///
    /// # Errors
    /// If the two are of different kinds or have different numbers of classes.
    pub fn with(&self, others: &Targets) -> Result<Targets> {
        match (self, others) {
            (Targets::Classes { classes, count }, Targets::Classes { classes: more, count: same })
                if count == same =>
            {
                Ok(Targets::Classes { classes: [&classes[..], more].concat(), count: *count })
            }
            (Targets::Labels(labels), Targets::Labels(more)) if labels.ncols() == more.ncols() => {
                Ok(Targets::Labels(concatenate![Axis(0), labels.view(), more.view()]))
            }
            (Targets::Values(values), Targets::Values(more)) => {
                Ok(Targets::Values([&values[..], more].concat()))
            }
            _ => Err(Error::mismatch(format!(
                "cannot join targets with {} and {} outputs; kind and number of outputs must match",
                self.outputs(),
                others.outputs()
            ))),
        }
    }

    /// Predicts from logits [n, outputs] for targets of this kind: the class of the largest logit, the first one
    /// on ties (NaN counts as the largest, as in torch); each label whose logit is above 0, which equals
    /// torch's `sigmoid(logit) > 0.5`; or the single output as a number.
    #[must_use]
    pub fn predicted(&self, logits: ArrayView2<f32>) -> Targets {
        match self {
            Targets::Classes { count, .. } => {
                Targets::Classes { classes: logits.outer_iter().map(largest).collect(), count: *count }
            }
            Targets::Labels(_) => Targets::Labels(logits.mapv(|logit| logit > 0.0)),
            Targets::Values(_) => Targets::Values(logits.index_axis(Axis(1), 0).to_vec()),
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

/// Features [n, d] of the splits that a head is not trained on. The head that is best on validation is reported on test.
#[derive(Debug, Clone, Copy)]
pub struct HeldOut<'a> {
    /// Features of the validation split, [n, d].
    pub valid: ArrayView2<'a, f32>,
    /// Targets of the validation split.
    pub valid_targets: &'a Targets,
    /// Features of the test split, [n, d].
    pub test: ArrayView2<'a, f32>,
}

impl HeldOut<'_> {
    /// Checks that the splits match features of length `width` and these training targets.
    ///
    /// # Errors
    /// If they do not match, or validation has no samples.
    pub fn check(&self, width: usize, targets: &Targets) -> Result<()> {
        let (valid, test) = (self.valid, self.test);
        let problem = if valid.ncols() != width || test.ncols() != width {
            let found = (valid.ncols(), test.ncols());
            format!("{width} features per training sample, but {found:?} per validation and test sample")
        } else if valid.nrows() != self.valid_targets.len() {
            format!(
                "features of {} validation samples, but labels of {}",
                valid.nrows(),
                self.valid_targets.len()
            )
        } else if valid.nrows() == 0 {
            "no validation samples to select a head with".to_owned()
        } else if self.valid_targets.outputs() != targets.outputs() {
            let (train, valid) = (targets.outputs(), self.valid_targets.outputs());
            format!("{train} classes in training, but {valid} in validation")
        } else {
            return Ok(());
        };
        Err(Error::mismatch(problem))
    }
}

/// Whether all logits can be used: none is NaN or positive infinity. Negative infinity marks a class without training samples.
pub fn are_usable(logits: ArrayView2<f32>) -> bool {
    logits.iter().all(|logit| *logit < f32::INFINITY)
}

/// Turns the result of a candidate that diverged into `None`.
///
/// # Errors
/// If `result` is an error other than [`ErrorKind::NotFinite`].
pub fn unless_diverged<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFinite => Ok(None),
        Err(error) => Err(error),
    }
}

/// Scores a candidate's logits [n, outputs] on validation. Returns NaN, which is never chosen, if it diverged.
///
/// # Errors
/// Like `score`, except [`ErrorKind::NotFinite`].
pub(crate) fn candidate_score(
    logits: ArrayView2<f32>,
    targets: &Targets,
    score: &impl Fn(ArrayView2<f32>, &Targets) -> Result<f64>,
) -> Result<f64> {
    if !are_usable(logits) {
        return Ok(f64::NAN);
    }
    Ok(unless_diverged(score(logits, targets))?.unwrap_or(f64::NAN))
}

/// The result of [`choose`].
pub(crate) struct Choice<T> {
    /// Index of the chosen candidate.
    pub(crate) place: usize,
    /// Score of each candidate on validation; `None` if it diverged.
    pub(crate) validation: Vec<Option<f64>>,
    /// Result of `test` for the chosen candidate.
    pub(crate) tested: T,
}

/// Scores each of `count` candidates with `validate` and passes the best one (the first on ties, according to `better`) to
/// `test`. Skips a candidate whose numbers are not finite, whether in `validate` or in `test`.
///
/// # Errors
/// Like `validate` and `test`; with [`ErrorKind::NotFinite`] only if every candidate fails that way.
pub(crate) fn choose<S, C, T>(
    better: Better,
    count: usize,
    state: &mut S,
    mut validate: impl FnMut(&mut S, usize) -> Result<(f64, C)>,
    mut test: impl FnMut(&mut S, usize, &C) -> Result<T>,
) -> Result<Choice<T>> {
    let mut first_problem = None;
    let mut problem = |error: Error| match error.kind() {
        ErrorKind::NotFinite => {
            first_problem.get_or_insert(error);
            Ok(())
        }
        _ => Err(error),
    };
    let mut candidates = Vec::with_capacity(count);
    for candidate in 0..count {
        match validate(state, candidate) {
            Ok((score, candidate)) => candidates.push((!score.is_nan()).then_some((score, candidate))),
            Err(error) => {
                problem(error)?;
                candidates.push(None);
            }
        }
    }
    let score = |candidate: &Option<(f64, C)>| candidate.as_ref().map(|(score, _)| *score);
    while let Some(place) =
        first_best(better, candidates.iter().map(|candidate| score(candidate).unwrap_or(f64::NAN)))
    {
        let Some((_, candidate)) = &candidates[place] else { break };
        match test(state, place, candidate) {
            Ok(tested) => {
                let validation = candidates.iter().map(score).collect();
                return Ok(Choice { place, validation, tested });
            }
            Err(error) => {
                problem(error)?;
                candidates[place] = None;
            }
        }
    }
    let problem =
        first_problem.unwrap_or_else(|| Error::not_finite("no candidate has a finite score on validation"));
    Err(match problem.kind() {
        ErrorKind::NotFinite if count > 1 => problem.reworded(|first| {
            format!("none of the {count} candidates can be scored; the first one: {first}")
        }),
        _ => problem,
    })
}

/// Returns the index of the best score, the first on ties; NaN never wins.
pub fn first_best(better: Better, scores: impl IntoIterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, score) in scores.into_iter().enumerate() {
        if !score.is_nan() && best.is_none_or(|(_, other)| better.is_better(score, other)) {
            best = Some((i, score));
        }
    }
    best.map(|(i, _)| i)
}
