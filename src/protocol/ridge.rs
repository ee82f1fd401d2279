//! Ridge regression of one number per image on frozen features, in scikit-learn's parametrisation [sklearn.linear_model.Ridge].
//!
//! Minimises |y - X w - b|² + strength |w|², the intercept b free, in closed form. Features are brought to mean 0 and standard
//! deviation 1 of the training samples first. Of several strengths the one that is best on validation by the task's metric
//! is used, the weakest of equal ones.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate};

use super::logistic::Standardizer;
use super::sweep::{self, StrategyFeatures};
use super::{Needs, Protocol, Session};
use crate::config::RidgeConfig;
use crate::score::decision::{HeldOut, first_best, unless_diverged};
use crate::score::{Outcome, Targets, score};
use crate::solve::cholesky::Cholesky;
use crate::task::{Metric, Split, TargetKind, Task};
use crate::{Error, Result};

impl Protocol for RidgeConfig {
    fn needs(&self) -> Needs {
        Needs::Pooled
    }

    fn targets(&self) -> &'static [TargetKind] {
        &[TargetKind::Value]
    }

    fn problem(&self) -> Option<String> {
        RidgeConfig::problem(self)
    }

    fn run(&self, mut session: Session) -> Result<Outcome> {
        let (task, seed, source) = (session.task, session.seed, session.take_source()?);
        sweep::run(task.metric.better(), source, |features| score_test(self, task, seed, features))
    }
}

/// A regression per strength; the best on validation is applied to the test split. Nothing is random but the interval's
/// resamples, which `seed` decides.
fn score_test(
    config: &RidgeConfig,
    task: &Task,
    seed: u64,
    features: &mut StrategyFeatures,
) -> Result<Outcome> {
    let (train, valid, test) =
        (features.of(Split::Train)?, features.of(Split::Valid)?, features.of(Split::Test)?);
    let targets = Targets::from_labels(&train.labels, task.classes)?;
    let valid_targets = Targets::from_labels(&valid.labels, task.classes)?;
    let truth = Targets::from_labels(&test.labels, task.classes)?;
    let held_out =
        HeldOut { valid: valid.matrix.view(), valid_targets: &valid_targets, test: test.matrix.view() };
    let swept = self::sweep(config, task.metric, train.matrix.view(), &targets, held_out)?;
    let Candidate { strength, validation } = swept.chosen;
    let selected =
        [("strength", format!("{strength:.3e}")), ("validation", task.metric.about().scale.fine(validation))];
    let outcome = Outcome::new(task.metric, &swept.predictions, &truth, &config.interval, seed, selected)?;
    let diverged = swept.candidates.iter().filter(|candidate| candidate.validation.is_nan());
    let outcome = outcome.with_diverged(diverged.map(|candidate| format!("{:.3e}", candidate.strength)));
    Ok(Outcome { validation: Some(validation), ..outcome })
}

/// A strength that was tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Strength of the regularisation.
    pub strength: f64,
    /// Its score on validation; NaN if the regression has no solution in finite numbers.
    pub validation: f64,
}

/// What a sweep gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    /// The best on validation.
    pub chosen: Candidate,
    /// Of every strength, ascending.
    pub candidates: Vec<Candidate>,
    /// Of the test split, [`Targets::Values`].
    pub predictions: Targets,
}

/// Fits a regression of training features [n, d] for each strength, chooses by `metric` on validation, refits if the config
/// says so and applies the result to test.
///
/// # Errors
/// If the splits do not fit together, targets are not numbers, a feature is not finite, or no strength has a score.
pub fn sweep(
    config: &RidgeConfig,
    metric: Metric,
    features: ArrayView2<f32>,
    targets: &Targets,
    held_out: HeldOut,
) -> Result<Swept> {
    held_out.check(features.ncols(), targets)?;
    let design = Design::new(features, values(targets)?)?;
    let mut candidates = Vec::new();
    let mut fits = Vec::new();
    for strength in config.strengths.values() {
        let fit = unless_diverged(design.fit(strength))?;
        let validation = match &fit {
            Some(fit) => {
                let predicted = Targets::Values(fit.predict(held_out.valid));
                unless_diverged(score(metric, &predicted, held_out.valid_targets))?
            }
            None => None,
        };
        candidates.push(Candidate { strength, validation: validation.unwrap_or(f64::NAN) });
        fits.push(fit);
    }
    let place = first_best(metric.better(), candidates.iter().map(|candidate| candidate.validation));
    let (chosen, fit) =
        place.and_then(|place| Some((candidates[place], fits.swap_remove(place)?))).ok_or_else(|| {
            Error::not_finite("ridge regression: no strength has a score on validation")
                .help("check the features: weights, normalisation")
        })?;
    let fit = if config.refit_with_validation {
        let features = concatenate![Axis(0), features, held_out.valid];
        let targets = targets.with(held_out.valid_targets)?;
        Design::new(features.view(), values(&targets)?)?.fit(chosen.strength)?
    } else {
        fit
    };
    Ok(Swept { chosen, candidates, predictions: Targets::Values(fit.predict(held_out.test)) })
}

fn values(targets: &Targets) -> Result<&[f32]> {
    match targets {
        Targets::Values(values) => Ok(values),
        Targets::Classes { .. } | Targets::Labels(_) => {
            Err(Error::mismatch("ridge regression predicts numbers, and the targets are classes")
                .help("choose --protocol knn, linear-probe or logistic"))
        }
    }
}

/// Training samples with what every strength shares: the products of standardised features and centred targets.
#[derive(Debug, Clone)]
pub struct Design {
    standardizer: Standardizer,
    /// [n, d].
    features: Array2<f64>,
    /// Of the targets.
    mean: f64,
    /// The targets less their mean, [n].
    centred: Array1<f64>,
    /// XᵀX [d, d], or XXᵀ [n, n] if there are fewer samples than features.
    products: Array2<f64>,
}

impl Design {
    /// Prepares features [n, d] and their numbers [n].
    ///
    /// # Errors
    /// If there are no samples, their numbers differ, or a feature or number is not finite.
    pub fn new(features: ArrayView2<f32>, values: &[f32]) -> Result<Self> {
        let (n, d) = features.dim();
        if n != values.len() || n == 0 || d == 0 {
            let problem = format!("{n} training samples of {d} features, {} numbers", values.len());
            return Err(Error::mismatch(format!("ridge regression: {problem}")));
        }
        if features.iter().chain(values).any(|number| !number.is_finite()) {
            return Err(Error::not_finite("ridge regression: a training feature or number is not finite")
                .help("check that the weights fit the model and the normalisation fits the pixels"));
        }
        let features = features.mapv(f64::from);
        let standardizer = Standardizer::of(&features)
            .ok_or_else(|| Error::mismatch("ridge regression: there are no training samples"))?;
        let features = standardizer.apply(features);
        let values: Array1<f64> = values.iter().copied().map(f64::from).collect();
        let mean = values.sum() / n as f64;
        let products = if n < d { features.dot(&features.t()) } else { features.t().dot(&features) };
        Ok(Design { standardizer, features, mean, centred: values - mean, products })
    }

    /// Fits the regression of that strength, above 0.
    ///
    /// # Errors
    /// Of kind `NotFinite` if it has no solution in finite numbers.
    pub fn fit(&self, strength: f64) -> Result<Regression> {
        let (n, d) = self.features.dim();
        let factor = Cholesky::of(self.products.view(), strength)?;
        let coefficients = match n < d {
            // (XᵀX + s)⁻¹ Xᵀ = Xᵀ (XXᵀ + s)⁻¹.
            true => self.features.t().dot(&factor.solve(self.centred.view())),
            false => factor.solve(self.features.t().dot(&self.centred).view()),
        };
        match coefficients.iter().all(|coefficient| coefficient.is_finite()) {
            true => {
                Ok(Regression { coefficients, intercept: self.mean, standardizer: self.standardizer.clone() })
            }
            false => Err(Error::not_finite("ridge regression: a coefficient is not finite")
                .help("use stronger regularisation, or check the features")),
        }
    }
}

/// A fitted regression.
#[derive(Debug, Clone)]
pub struct Regression {
    /// [d], of standardised features.
    coefficients: Array1<f64>,
    intercept: f64,
    standardizer: Standardizer,
}

impl Regression {
    /// Of standardised features, [d].
    pub fn coefficients(&self) -> ArrayView1<'_, f64> {
        self.coefficients.view()
    }

    /// The numbers [n] of features [n, d].
    pub fn predict(&self, features: ArrayView2<f32>) -> Vec<f32> {
        let features = self.standardizer.apply(features.mapv(f64::from));
        features.dot(&self.coefficients).iter().map(|value| (value + self.intercept) as f32).collect()
    }
}
