//! Logistic regression on frozen features, as in scikit-learn and torchgeo-bench.
//!
//! Minimises C Σ loss + ½ |W|², intercepts free, divided by C n as scikit-learn does. Several classes: softmax with
//! a row of coefficients each; two: the plain logistic loss with one row, which scores the second class; labels:
//! the plain logistic loss with one row each, which is one binary regression per label, minimised together. A class
//! without training samples gets no row and is never predicted. torchgeo-bench's own fit is in `float32`: it gives two classes
//! a row each, which equals one row at twice the C. `newton` finds the same minimum where L-BFGS stalls.

mod float32;
mod newton;

use std::sync::OnceLock;

use burn::tensor::FloatDType;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis, Zip, concatenate};
use rayon::prelude::*;

use super::on_device::regression::{DeviceFeatures, DeviceLabels};
use super::sweep::{self, StrategyFeatures};
use super::{Accelerator, Needs, Protocol, Session};
use crate::config::{LogisticConfig, SolverConfig, SolverKind};
use crate::metrics::Better;
use crate::score::decision::{HeldOut, candidate_score, first_best};
use crate::score::{Outcome, Targets, score_logits};
use crate::solve::lbfgs::minimize;
use crate::solve::rows::pass;
use crate::task::{Metric, Split, TargetKind, Task};
use crate::{Error, Result, stop};

/// Samples whose losses are computed together. Sums are taken block by block, whatever the number of threads.
const ROWS_AT_A_TIME: usize = 512;

impl Protocol for LogisticConfig {
    fn needs(&self) -> Needs {
        Needs::Pooled
    }

    fn targets(&self) -> &'static [TargetKind] {
        &[TargetKind::Class, TargetKind::Labels]
    }

    fn metric(&self, task: &Task) -> Metric {
        LogisticConfig::metric(self, task)
    }

    fn problem(&self) -> Option<String> {
        LogisticConfig::problem(self)
    }

    fn run(&self, mut session: Session) -> Result<Outcome> {
        let (task, seed, source) = (session.task, session.seed, session.take_source()?);
        let accelerator = session.accelerator;
        sweep::run(LogisticConfig::metric(self, task).better(), source, |features| {
            score(self, task, seed, accelerator.as_ref(), features)
        })
    }
}

/// A regression per C; the best on validation, by the metric that [`LogisticConfig::metric`] names, is applied to the
/// test split. Nothing is random but the interval's resamples, which `seed` decides.
fn score(
    config: &LogisticConfig,
    task: &Task,
    seed: u64,
    accelerator: Option<&Accelerator>,
    features: &mut StrategyFeatures,
) -> Result<Outcome> {
    let (train, valid, test) =
        (features.of(Split::Train)?, features.of(Split::Valid)?, features.of(Split::Test)?);
    let targets = Targets::from_labels(&train.labels, task.classes)?;
    let valid_targets = Targets::from_labels(&valid.labels, task.classes)?;
    let truth = Targets::from_labels(&test.labels, task.classes)?;
    let held_out =
        HeldOut { valid: valid.matrix.view(), valid_targets: &valid_targets, test: test.matrix.view() };
    let metric = config.metric(task);
    let by_metric = |logits: ArrayView2<f32>, truth: &Targets| score_logits(metric, logits, truth);
    let swept = sweep_on(accelerator, config, train.matrix.view(), &targets, held_out, by_metric)?;

    let Candidate { c, validation, .. } = swept.chosen;
    let all = swept.candidates.len();
    let converged = swept.candidates.iter().filter(|candidate| candidate.converged).count();
    let selected = [
        ("c", format!("{c:.3e}")),
        ("validation", format!("{validation:.2}")),
        ("converged", format!("{converged} of {all}")),
    ];
    let logits = swept.logits.view();
    let outcome = Outcome::of_logits(metric, logits, &truth, &config.interval, seed, selected)?;
    let outcome = match config.solver.kind {
        SolverKind::Converged | SolverKind::Newton => outcome,
        SolverKind::Torch => outcome.with_selected("solver", "PyTorch's L-BFGS, float32"),
    };
    let outcome = match swept.solved_on {
        None => outcome,
        Some(kind) => outcome.with_selected("solved-on", &kind),
    };
    let diverged = swept.candidates.iter().filter(|candidate| candidate.validation.is_nan());
    let outcome = outcome.with_diverged(diverged.map(|candidate| format!("{:.3e}", candidate.c)));
    Ok(Outcome { validation: Some(validation), ..outcome })
}

/// Training features, in f64 and standardised if the config says so.
#[derive(Debug, Clone)]
pub struct Design {
    features: DesignFeatures,
    standardizer: Option<Standardizer>,
    row_per_class: bool,
    /// As Newton's method takes the features, which all fits share.
    scaled: OnceLock<newton::Scaled>,
}

/// Where the features of a [`Design`] are.
#[derive(Debug, Clone)]
enum DesignFeatures {
    /// [n, d], standardised if the config says so.
    Host(Array2<f64>),
    Device(Box<DeviceFeatures>),
}

/// Brings features to mean 0 and standard deviation 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standardizer {
    mean: Array1<f64>,
    /// Population standard deviation; 1 if a feature is constant.
    deviation: Array1<f64>,
}

impl Standardizer {
    /// Of features [n, d]; none if n is 0.
    pub(crate) fn of(features: &Array2<f64>) -> Option<Self> {
        let mean = features.mean_axis(Axis(0))?;
        let deviation = features.std_axis(Axis(0), 0.0).mapv(|s| if s > 0.0 { s } else { 1.0 });
        Some(Self { mean, deviation })
    }

    /// Like [`Standardizer::of`] for many float32 features: converted by columns, not all at once, with the same sums.
    fn of_many(features: ArrayView2<f32>) -> Option<Self> {
        const COLUMNS: usize = 32;
        let parts: Vec<Self> = features
            .axis_chunks_iter(Axis(1), COLUMNS)
            .into_par_iter()
            .map(|columns| {
                let mut converted = Array2::zeros(columns.raw_dim());
                converted.assign(&columns.mapv(f64::from));
                Self::of(&converted)
            })
            .collect::<Option<_>>()?;
        let joined =
            |part: fn(&Self) -> &Array1<f64>| parts.iter().flat_map(|one| part(one).to_vec()).collect();
        Some(Self { mean: joined(|part| &part.mean), deviation: joined(|part| &part.deviation) })
    }

    /// Features [n, d] so brought.
    pub(crate) fn apply(&self, features: Array2<f64>) -> Array2<f64> {
        (features - &self.mean) / &self.deviation
    }
}

/// A fitted regression.
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    /// [rows, d], for standardised features if the design is standardised.
    pub coefficients: Array2<f64>,
    /// [rows]
    pub intercepts: Array1<f64>,
    /// The class or label that each row scores.
    rows: Vec<usize>,
    /// The class whose logit is 0 if two classes share a row.
    reference: Option<usize>,
    outputs: usize,
    standardizer: Option<Standardizer>,
    /// Steps of the solver.
    pub iterations: usize,
    /// Whether the solver reached its tolerance.
    pub converged: bool,
    /// The loss at each evaluation, for PyTorch's solver.
    pub losses: Vec<f32>,
}

impl Design {
    /// Prepares features [n, d]. Two classes share a row of coefficients.
    pub fn new(features: ArrayView2<f32>, standardize: bool) -> Self {
        let features = features.mapv(f64::from);
        match Standardizer::of(&features).filter(|_| standardize) {
            Some(standardizer) => Self {
                features: DesignFeatures::Host(standardizer.apply(features)),
                standardizer: Some(standardizer),
                row_per_class: false,
                scaled: OnceLock::new(),
            },
            None => Self {
                features: DesignFeatures::Host(features),
                standardizer: None,
                row_per_class: false,
                scaled: OnceLock::new(),
            },
        }
    }

    /// Like [`Design::new`], on the accelerator if there is one and the features are many. They stay on the CPU if the device
    /// cannot take them, such as for lack of memory.
    pub fn on(accelerator: Option<&Accelerator>, features: ArrayView2<f32>, standardize: bool) -> Self {
        let (n, d) = features.dim();
        let Some(accelerator) = accelerator.filter(|accelerator| n > 0 && accelerator.solves(n, d)) else {
            return Self::new(features, standardize);
        };
        let standardizer = if standardize { Standardizer::of_many(features) } else { None };
        let constants = standardizer.as_ref().map(|own| (&own.mean, &own.deviation));
        match DeviceFeatures::upload(accelerator, features, constants) {
            Ok(uploaded) => Self {
                features: DesignFeatures::Device(Box::new(uploaded)),
                standardizer,
                row_per_class: false,
                scaled: OnceLock::new(),
            },
            Err(error) => {
                tracing::warn!("{error}; solving on the CPU");
                Self::new(features, standardize)
            }
        }
    }

    /// Samples and width.
    fn dim(&self) -> (usize, usize) {
        match &self.features {
            DesignFeatures::Host(features) => features.dim(),
            DesignFeatures::Device(features) => features.dim(),
        }
    }

    fn is_on_device(&self) -> bool {
        matches!(self.features, DesignFeatures::Device(_))
    }

    /// Gives two classes a row of coefficients each, as more classes have, if the config says so.
    #[must_use]
    pub fn with_row_per_class(self, row_per_class: bool) -> Self {
        Self { row_per_class, ..self }
    }

    /// Fits the regression of `c`, from the coefficients of `start` (of the same targets) or from 0; PyTorch's solver always
    /// from 0.
    ///
    /// # Errors
    /// If features and targets do not fit, a feature is not finite or all samples have one class.
    pub fn fit(
        &self,
        targets: &Targets,
        c: f64,
        solver: SolverConfig,
        start: Option<&Regression>,
    ) -> Result<Regression> {
        let (n, d) = self.dim();
        self.check(targets)?;
        let (labels, rows, reference) = coded(targets, self.row_per_class)?;
        let count = rows.len();
        let on_device = match &self.features {
            DesignFeatures::Host(_) => None,
            DesignFeatures::Device(features) => Some(match &labels {
                Labels::Softmax(rows) => features.classes(rows),
                Labels::Logistic(labels) => features.labels(labels.view()),
            }),
        };
        // What a device fails with: solvers know no errors.
        let mut failure = None;
        if solver.kind == SolverKind::Torch {
            let found = match (&self.features, &on_device) {
                (DesignFeatures::Device(features), Some(uploaded)) => {
                    float32::fit_on_device(features, uploaded, &labels, count, c, solver, &mut failure)
                }
                (DesignFeatures::Device(_), None) => return Err(self::failure("labels were not uploaded")),
                (DesignFeatures::Host(features), _) => {
                    float32::fit(features.view(), &labels, count, c, solver)
                }
            };
            if let Some(error) = failure {
                return Err(error);
            }
            let point: Array1<f64> = found.point.iter().map(|x| f64::from(*x)).collect();
            let (coefficients, intercepts) = unstack(&point, count, d);
            return Ok(Regression {
                coefficients: coefficients.to_owned(),
                intercepts: intercepts.to_owned(),
                rows,
                reference,
                outputs: targets.outputs(),
                standardizer: self.standardizer.clone(),
                iterations: found.iterations,
                converged: found.converged,
                losses: found.values,
            });
        }
        let start = start.filter(|start| start.coefficients.dim() == (count, d));
        if solver.kind == SolverKind::Newton {
            let DesignFeatures::Host(features) = &self.features else {
                return Err(self::failure("Newton's method needs the features in the program's memory"));
            };
            let scaled = self.scaled.get_or_init(|| newton::Scaled::new(features.view()));
            let start = start.map(|start| (start.coefficients.view(), start.intercepts.view()));
            let found = newton::fit(scaled, &labels, count, 1.0 / (c * n as f64), solver, start);
            return Ok(Regression {
                coefficients: found.coefficients,
                intercepts: found.intercepts,
                rows,
                reference,
                outputs: targets.outputs(),
                standardizer: self.standardizer.clone(),
                iterations: found.iterations,
                converged: found.converged,
                losses: Vec::new(),
            });
        }
        let start = match start {
            Some(start) => start.coefficients.iter().chain(&start.intercepts).copied().collect(),
            None => Array1::zeros(count * d + count),
        };
        let decay = 1.0 / (c * n as f64);
        let objective = |point: &Array1<f64>| match (&self.features, &on_device) {
            (DesignFeatures::Device(features), Some(uploaded)) => {
                device_objective(features, uploaded, count, decay, point).unwrap_or_else(|error| {
                    failure = Some(error);
                    (f64::NAN, Array1::from_elem(point.len(), f64::NAN))
                })
            }
            (DesignFeatures::Device(_), None) => (f64::NAN, Array1::from_elem(point.len(), f64::NAN)),
            (DesignFeatures::Host(features), _) => objective(features.view(), &labels, count, decay, point),
        };
        let minimum = minimize(objective, start, solver);
        if let Some(error) = failure {
            return Err(error);
        }
        let (coefficients, intercepts) = unstack(&minimum.point, count, d);
        Ok(Regression {
            coefficients: coefficients.to_owned(),
            intercepts: intercepts.to_owned(),
            rows,
            reference,
            outputs: targets.outputs(),
            standardizer: self.standardizer.clone(),
            iterations: minimum.iterations,
            converged: minimum.converged,
            losses: Vec::new(),
        })
    }

    fn check(&self, targets: &Targets) -> Result<()> {
        let (n, d) = self.dim();
        let is_finite = match &self.features {
            DesignFeatures::Host(features) => features.iter().all(|x| x.is_finite()),
            DesignFeatures::Device(features) => features.is_finite()?,
        };
        let problem = if n != targets.len() {
            format!("features of {n} training samples, labels of {}", targets.len())
        } else if n == 0 || d == 0 || targets.outputs() == 0 {
            format!("{n} training samples, {d} features, {} classes", targets.outputs())
        } else if let Some(class) = targets.out_of_range() {
            format!("a training sample of class {class} of {}", targets.outputs())
        } else if !is_finite {
            return Err(Error::not_finite("logistic regression: a training feature is not finite")
                .help("check that the weights fit the model and the normalisation fits the pixels"));
        } else {
            return Ok(());
        };
        Err(failure(problem))
    }
}

/// Mean loss plus `decay` / 2 |W|², and the gradient, at stacked coefficients and intercepts.
fn objective(
    features: ArrayView2<f64>,
    labels: &Labels,
    rows: usize,
    decay: f64,
    point: &Array1<f64>,
) -> (f64, Array1<f64>) {
    let (n, d) = features.dim();
    let (weights, intercepts) = unstack(point, rows, d);
    let blocks: Vec<(f64, Array2<f64>, Array1<f64>)> = features
        .axis_chunks_iter(Axis(0), ROWS_AT_A_TIME)
        .into_par_iter()
        .enumerate()
        .map(|(block, x)| {
            let (mut loss, mut sums) = (0.0, Array1::zeros(rows));
            let of_weights = pass(x, weights, |sample, z| {
                let mut z = ArrayViewMut1::from(z);
                z += &intercepts;
                loss += labels.loss_and_gradient(block * ROWS_AT_A_TIME + sample, z.view_mut());
                sums += &z;
            });
            (loss, of_weights, sums)
        })
        .collect();
    let (mut value, mut matrix, mut sums) = (0.0, Array2::zeros((rows, d)), Array1::zeros(rows));
    for (loss, of_weights, of_intercepts) in &blocks {
        value += loss;
        matrix += of_weights;
        sums += of_intercepts;
    }
    let n = n as f64;
    matrix.zip_mut_with(&weights, |g, w| *g = *g / n + decay * w);
    let norm: f64 = weights.iter().map(|w| w * w).sum();
    let gradient = matrix.into_iter().chain(sums.into_iter().map(|g| g / n)).collect();
    (value / n + 0.5 * decay * norm, gradient)
}

/// Like [`objective`], with the sums of a device.
fn device_objective(
    features: &DeviceFeatures,
    labels: &DeviceLabels,
    rows: usize,
    decay: f64,
    point: &Array1<f64>,
) -> Result<(f64, Array1<f64>)> {
    let (n, d) = features.dim();
    let (weights, intercepts) = unstack(point, rows, d);
    let mut sums = features.sums(labels, weights, intercepts, 1.0, FloatDType::F64)?;
    let n = n as f64;
    sums.weights.zip_mut_with(&weights, |g, w| *g = *g / n + decay * w);
    let norm: f64 = weights.iter().map(|w| w * w).sum();
    let gradient = sums.weights.into_iter().chain(sums.intercepts.into_iter().map(|g| g / n)).collect();
    Ok((sums.loss / n + 0.5 * decay * norm, gradient))
}

/// Coefficients [rows, d] and intercepts [rows] from one vector of both.
fn unstack(point: &Array1<f64>, rows: usize, d: usize) -> (ArrayView2<'_, f64>, ArrayView1<'_, f64>) {
    let (weights, intercepts) = point.view().split_at(Axis(0), rows * d);
    let weights = weights.into_shape_with_order((rows, d)).expect("a point holds rows * (d + 1) numbers");
    (weights, intercepts)
}

fn failure(problem: impl std::fmt::Display) -> Error {
    Error::mismatch(format!("logistic regression: {problem}"))
}

/// What each sample's loss needs.
enum Labels {
    /// The row of its class.
    Softmax(Vec<usize>),
    /// [n, rows]: whether the row's label applies.
    Logistic(Array2<bool>),
}

/// The labels, the class or label that each row of coefficients scores, and the class that has none where two
/// classes share a row.
fn coded(targets: &Targets, row_per_class: bool) -> Result<(Labels, Vec<usize>, Option<usize>)> {
    match targets {
        Targets::Values(_) => Err(failure("it tells classes apart, and the targets are numbers")
            .help("choose --protocol ridge or knn")),
        Targets::Labels(labels) => {
            Ok((Labels::Logistic(labels.clone()), (0..labels.ncols()).collect(), None))
        }
        Targets::Classes { classes, count } => {
            let present: Vec<usize> = (0..*count).filter(|class| classes.contains(class)).collect();
            match present[..] {
                [] | [_] => Err(failure("all training samples have the same class")
                    .help("use a larger partition: one class cannot be told from others")),
                [first, second] if !row_per_class => {
                    let labels = classes.iter().map(|&class| class == second).collect::<Array1<bool>>();
                    Ok((Labels::Logistic(labels.insert_axis(Axis(1))), vec![second], Some(first)))
                }
                _ => {
                    let row = |class| present.binary_search(class).unwrap_or_default();
                    Ok((Labels::Softmax(classes.iter().map(row).collect()), present, None))
                }
            }
        }
    }
}

impl Labels {
    /// Turns gradients of the losses [n, rows] into probabilities.
    fn add_truth(&self, gradients: &mut Array2<f64>) {
        match self {
            Labels::Softmax(rows) => {
                gradients.outer_iter_mut().zip(rows).for_each(|(mut sample, row)| sample[*row] += 1.0);
            }
            Labels::Logistic(labels) => {
                gradients
                    .zip_mut_with(labels, |gradient, applies| *gradient += f64::from(u8::from(*applies)));
            }
        }
    }

    /// Replaces a sample's logits [rows] by the gradient of its loss; returns the loss.
    fn loss_and_gradient(&self, sample: usize, mut z: ArrayViewMut1<f64>) -> f64 {
        match self {
            Labels::Softmax(rows) => {
                let (mut best, mut largest) = (0, f64::NEG_INFINITY);
                for (row, z) in z.iter().enumerate() {
                    if *z > largest {
                        (best, largest) = (row, *z);
                    }
                }
                let right = z[rows[sample]] - largest;
                z.mapv_inplace(|z| (z - largest).exp());
                // Without the largest, which is 1, small losses keep their digits.
                z[best] = 0.0;
                let others = z.sum();
                z[best] = 1.0;
                z /= 1.0 + others;
                z[rows[sample]] -= 1.0;
                others.ln_1p() - right
            }
            Labels::Logistic(labels) => {
                let mut loss = 0.0;
                Zip::from(&mut z).and(labels.row(sample)).for_each(|z, &applies| {
                    let small = (-z.abs()).exp();
                    loss += small.ln_1p() + if applies { -*z } else { *z }.max(0.0);
                    let probability = if *z >= 0.0 { 1.0 } else { small } / (1.0 + small);
                    *z = probability - f64::from(u8::from(applies));
                });
                loss
            }
        }
    }
}

impl Regression {
    fn is_finite(&self) -> bool {
        self.coefficients.iter().chain(&self.intercepts).all(|number| number.is_finite())
    }

    /// Logits [n, outputs] of features [n, d]: minus infinity for classes without training samples.
    pub fn logits(&self, features: ArrayView2<f32>) -> Array2<f32> {
        let features = features.mapv(f64::from);
        let features = match &self.standardizer {
            Some(standardizer) => standardizer.apply(features),
            None => features,
        };
        let scores = features.dot(&self.coefficients.t()) + &self.intercepts;
        let mut logits = Array2::from_elem((features.nrows(), self.outputs), f32::NEG_INFINITY);
        for (&class, scores) in self.rows.iter().zip(scores.columns()) {
            logits.column_mut(class).assign(&scores.mapv(|score| score as f32));
        }
        if let Some(class) = self.reference {
            logits.column_mut(class).fill(0.0);
        }
        logits
    }
}

/// A C that was tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Inverse strength of the regularisation.
    pub c: f64,
    /// Its score on validation; NaN if the regression diverged.
    pub validation: f64,
    /// Steps of the solver.
    pub iterations: usize,
    /// Whether the solver reached its tolerance.
    pub converged: bool,
}

/// What a sweep gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    /// The best on validation, the lowest C of equal ones.
    pub chosen: Candidate,
    /// Of every C, ascending.
    pub candidates: Vec<Candidate>,
    /// [n, outputs]: of the test split. [`Targets::predicted`] decides.
    pub logits: Array2<f32>,
    /// The kind of device whose arithmetic it is, if that is not the CPU's.
    pub solved_on: Option<String>,
}

/// Fits a regression of training features [n, d] for each C, chooses by `score` on validation, refits if the config says so and applies the
/// result to test. Each fit begins where the previous C's ended: minima of neighbours lie close together.
///
/// `score` gets logits [n, outputs] and the true targets; more is better. NaN is never chosen, nor is a regression whose
/// logits on validation are not numbers.
///
/// # Errors
/// If the splits do not fit together, all training samples have one class, or `score` fails or gives no number.
pub fn sweep(
    config: &LogisticConfig,
    features: ArrayView2<f32>,
    targets: &Targets,
    held_out: HeldOut,
    score: impl Fn(ArrayView2<f32>, &Targets) -> Result<f64>,
) -> Result<Swept> {
    sweep_on(None, config, features, targets, held_out, score)
}

/// Like [`sweep`], on the accelerator if there is one and the features are many. Sums are rounded in another order, so that
/// coefficients may differ in their last digits.
///
/// # Errors
/// Like [`sweep`], or if the device fails.
pub fn sweep_on(
    accelerator: Option<&Accelerator>,
    config: &LogisticConfig,
    features: ArrayView2<f32>,
    targets: &Targets,
    held_out: HeldOut,
    score: impl Fn(ArrayView2<f32>, &Targets) -> Result<f64>,
) -> Result<Swept> {
    held_out.check(features.ncols(), targets)?;
    // Newton's method has no arithmetic for a device.
    let accelerator = accelerator.filter(|_| config.solver.kind != SolverKind::Newton);
    let of_train =
        Design::on(accelerator, features, config.standardize).with_row_per_class(config.row_per_class);
    let solved_on = accelerator.filter(|_| of_train.is_on_device()).map(|own| own.kind().to_owned());
    let mut candidates = Vec::new();
    let mut best: Option<(Candidate, Regression)> = None;
    let mut previous: Option<Regression> = None;
    for c in config.c.values() {
        stop::check()?;
        let regression = of_train.fit(targets, c, config.solver, previous.as_ref())?;
        let logits = regression.logits(held_out.valid);
        let validation = candidate_score(logits.view(), held_out.valid_targets, &score)?;
        let Regression { iterations, converged, .. } = regression;
        let candidate = Candidate { c, validation, iterations, converged };
        let so_far = best.as_ref().map_or(f64::NAN, |(best, _)| best.validation);
        if first_best(Better::Higher, [so_far, validation]) == Some(1) {
            best = Some((candidate, regression.clone()));
        }
        candidates.push(candidate);
        previous = Some(regression).filter(Regression::is_finite);
    }
    let (chosen, mut regression) = best.ok_or_else(|| {
        Error::not_finite("logistic regression: no C has a score on validation")
            .help("check the features: weights, normalisation")
    })?;
    if config.refit_with_validation {
        let features = concatenate![Axis(0), features, held_out.valid];
        let targets = targets.with(held_out.valid_targets)?;
        drop(of_train);
        let of_both = Design::on(accelerator, features.view(), config.standardize)
            .with_row_per_class(config.row_per_class);
        regression = of_both.fit(&targets, chosen.c, config.solver.of_final_fit(), None)?;
    }
    Ok(Swept { chosen, candidates, logits: regression.logits(held_out.test), solved_on })
}
