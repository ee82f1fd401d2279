//! From logits to decisions: what a head predicts, and which of several candidates is best.

use ndarray::{ArrayView1, ArrayView2, Axis, concatenate, s};

use super::Targets;
use crate::metrics::Better;
use crate::{Error, ErrorKind, Result};

impl Targets {
    /// Number of classes or labels: of the logits that a head gives.
    pub fn outputs(&self) -> usize {
        match self {
            Targets::Classes { count, .. } => *count,
            Targets::Labels(labels) => labels.ncols(),
            Targets::Values(_) => 1,
        }
    }

    /// A class that is not below the number of classes, if there is one.
    pub fn out_of_range(&self) -> Option<usize> {
        match self {
            Targets::Classes { classes, count } => classes.iter().copied().find(|class| class >= count),
            Targets::Labels(_) | Targets::Values(_) => None,
        }
    }

    /// The targets of a range of the samples, which must be there.
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
            (Targets::Labels(labels), Targets::Labels(more)) if labels.ncols() == more.ncols() => {
                Ok(Targets::Labels(concatenate![Axis(0), labels.view(), more.view()]))
            }
            (Targets::Values(values), Targets::Values(more)) => {
                Ok(Targets::Values([&values[..], more].concat()))
            }
            _ => Err(Error::mismatch(format!(
                "targets of {} and of {} outputs cannot be joined, or they are of different kinds",
                self.outputs(),
                others.outputs()
            ))),
        }
    }

    /// What logits [n, outputs] predict for targets of this kind: the class of the largest logit, the first of
    /// equal ones (NaN counts as the largest, as in torch); each label whose logit is above 0, which is
    /// torch's `sigmoid(logit) > 0.5`; or the number that is the only output.
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
        Err(Error::mismatch(problem))
    }
}

/// Whether logits decide anything: none is NaN or overflowed. Minus infinity is a class without training samples.
pub fn are_usable(logits: ArrayView2<f32>) -> bool {
    logits.iter().all(|logit| *logit < f32::INFINITY)
}

/// What a candidate gives; nothing where it diverged.
///
/// # Errors
/// Where `result` has any error but [`ErrorKind::NotFinite`].
pub fn unless_diverged<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFinite => Ok(None),
        Err(error) => Err(error),
    }
}

/// The score of a candidate's logits [n, outputs] on validation; NaN, which is never chosen, where it diverged.
///
/// # Errors
/// As `score`, but for [`ErrorKind::NotFinite`].
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

/// What [`choose`] found.
pub(crate) struct Choice<T> {
    /// The place of the chosen candidate.
    pub(crate) place: usize,
    /// Of every candidate; none where it diverged.
    pub(crate) validation: Vec<Option<f64>>,
    /// What `test` gave.
    pub(crate) tested: T,
}

/// Scores each of `count` candidates by `validate` and hands the best (the first of equal ones, by `better`) to `test`. A candidate
/// whose numbers are not finite, there or in `test`, is passed over.
///
/// # Errors
/// As `validate` and `test`; with [`ErrorKind::NotFinite`] only where it is that of every candidate.
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
        first_problem.unwrap_or_else(|| Error::not_finite("no candidate has a score on validation"));
    Err(match problem.kind() {
        ErrorKind::NotFinite if count > 1 => {
            problem.reworded(|first| format!("none of {count} candidates can be scored; the first: {first}"))
        }
        _ => problem,
    })
}

/// The place of the best score, the first of equal ones; NaN never wins.
pub fn first_best(better: Better, scores: impl IntoIterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, score) in scores.into_iter().enumerate() {
        if !score.is_nan() && best.is_none_or(|(_, other)| better.is_better(score, other)) {
            best = Some((i, score));
        }
    }
    best.map(|(i, _)| i)
}
