//! Linear probe: BatchNorm, unless the protocol has none, and a linear layer, trained on frozen features for a list of
//! learning rates.
//!
//! The heads of all learning rates see the same batches in the same order and begin alike, so they are trained at
//! once: BatchNorm's statistics are computed once per batch, and the heads' logits and gradients are two matrix
//! products. The arithmetic is that of training them one by one.
//!
//! What the references do is in the protocols' TOML. What differs: the random numbers, and that the learning rates
//! of a seed share their initial weights and their order.

mod batches;
mod draws;
mod group;
mod heads;
mod on_device;
mod optimizer;

use ndarray::{Array2, ArrayView2, ArrayView3, Axis, stack};
use rayon::prelude::*;

use self::batches::{cut, normalize};
use self::group::Group;
use self::heads::HeadLayout;
use self::on_device::DeviceSplit;
use super::sweep::{self, StrategyFeatures};
use super::{Accelerator, Needs, Protocol, Session};
use crate::config::{KeptEpoch, LinearProbeConfig};
use crate::metrics::Better;
use crate::score::decision::{HeldOut, candidate_score, first_best};
use crate::score::{Outcome, Targets, reported_score, score_logits};
use crate::task::{Split, TargetKind, Task};
use crate::train::schedule::Position;
use crate::{Error, ErrorKind, Result, stop};

pub use self::batches::RunningStatistics;
pub use self::draws::{DrawnSample, shuffled};
pub use self::heads::{Heads, Linear};
pub(crate) use self::optimizer::Memory;

impl Protocol for LinearProbeConfig {
    fn needs(&self) -> Needs {
        Needs::Pooled
    }

    fn targets(&self) -> &'static [TargetKind] {
        &[TargetKind::Class, TargetKind::Labels]
    }

    fn turns_images(&self) -> bool {
        self.augmentation.transforms().len() > 1
    }

    fn keep_deciding(&mut self, task: &str) {
        self.learning_rates = self.rates(task).to_vec();
        self.task_learning_rates.clear();
    }

    fn problem(&self) -> Option<String> {
        LinearProbeConfig::problem(self)
    }

    fn run(&self, mut session: Session) -> Result<Outcome> {
        let (task, seed, source) = (session.task, session.seed, session.take_source()?);
        let accelerator = session.accelerator;
        sweep::run(task.metric.better(), source, |features| {
            score(self, task, seed, accelerator.as_ref(), features)
        })
    }
}

/// A head per learning rate; the best on validation is applied to the test split.
fn score(
    config: &LinearProbeConfig,
    task: &Task,
    seed: u64,
    accelerator: Option<&Accelerator>,
    features: &mut StrategyFeatures,
) -> Result<Outcome> {
    let turns = config.augmentation.transforms().iter();
    let train = turns.map(|turn| features.turned(Split::Train, *turn)).collect::<Result<Vec<_>>>()?;
    let (valid, test) = (features.of(Split::Valid)?, features.of(Split::Test)?);

    let targets = Targets::from_labels(&train[0].labels, task.classes)?;
    let valid_targets = Targets::from_labels(&valid.labels, task.classes)?;
    let truth = Targets::from_labels(&test.labels, task.classes)?;
    let variants: Vec<_> = train.iter().map(|features| features.matrix.view()).collect();
    let variants = stack(Axis(0), &variants).map_err(failure)?;
    let training = TrainingSet { features: variants.view(), targets: &targets };
    let held_out =
        HeldOut { valid: valid.matrix.view(), valid_targets: &valid_targets, test: test.matrix.view() };
    let by_metric = |logits: ArrayView2<f32>, truth: &Targets| match config.report_batches {
        true => reported_score(task.metric, logits, truth, config.batch_size),
        false => score_logits(task.metric, logits, truth),
    };
    let rates = config.rates(&task.name);
    let probed = probe_on(accelerator, config, rates, training, held_out, seed, by_metric)?;

    let Candidate { learning_rate, epoch, validation } = probed.chosen;
    let selected = [
        ("learning-rate", learning_rate.to_string()),
        ("epoch", format!("{} of {}", epoch + 1, config.epochs)),
        ("validation", format!("{validation:.2}")),
    ];
    let logits = probed.logits.view();
    let mut outcome = Outcome::of_logits(task.metric, logits, &truth, &config.interval, seed, selected)?;
    if config.report_batches {
        outcome.scores.insert(format!("reported_{}", task.metric), by_metric(logits, &truth)?);
        outcome.scoring.report_batch = Some(config.batch_size);
    }
    if let Some(kind) = &probed.solved_on {
        outcome = outcome.with_selected("solved-on", kind);
    }
    let diverged = probed.candidates.iter().filter(|candidate| candidate.validation.is_nan());
    let outcome = outcome.with_diverged(diverged.map(|candidate| candidate.learning_rate));
    Ok(Outcome { validation: Some(validation), ..outcome })
}

/// Samples to train on.
#[derive(Debug, Clone, Copy)]
pub struct TrainingSet<'a> {
    /// [variants, n, d]: features of each image under each of [`crate::config::Augmentation::transforms`].
    pub features: ArrayView3<'a, f32>,
    /// One target per image.
    pub targets: &'a Targets,
}

/// Result of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// One head per learning rate.
    pub heads: Heads,
    /// [rates, steps]: the mean loss of each step's batch, before the step.
    pub losses: Array2<f32>,
}

/// Trains a head for each of `rates` from the initial weights and in the order that `seed` gives.
///
/// `after_epoch` sees the heads after each epoch (from 0).
///
/// # Errors
/// If features, targets and config do not fit together, no batch can be formed, or `after_epoch` fails.
pub fn train(
    config: &LinearProbeConfig,
    rates: &[f64],
    training: TrainingSet,
    seed: u64,
    after_epoch: impl FnMut(usize, &Heads) -> Result<()>,
) -> Result<Trained> {
    train_on(None, config, rates, training, seed, after_epoch)
}

/// Like [`train`], on this device if one is given.
///
/// # Errors
/// Like [`train`], or if the device fails.
pub fn train_on(
    accelerator: Option<&Accelerator>,
    config: &LinearProbeConfig,
    rates: &[f64],
    training: TrainingSet,
    seed: u64,
    after_epoch: impl FnMut(usize, &Heads) -> Result<()>,
) -> Result<Trained> {
    let start = Linear::initial(config.initialization, training.targets.outputs(), training.width(), seed);
    let (samples, variants) = (training.samples(), config.augmentation.transforms().len());
    let order = |epoch| shuffled(seed, epoch, samples, variants);
    match accelerator {
        None => train_from(config, rates, training, &start, order, after_epoch),
        Some(device) => on_device::train_from(device, config, rates, training, &start, order, after_epoch),
    }
}

/// Trains a head for each of `rates` from `start`, in the order that `order` gives for each epoch (from 0), as
/// [`shuffled`] does; a row that is not there panics.
///
/// # Errors
/// Like [`train`].
pub fn train_from(
    config: &LinearProbeConfig,
    rates: &[f64],
    training: TrainingSet,
    start: &Linear,
    order: impl Fn(usize) -> Vec<DrawnSample>,
    mut after_epoch: impl FnMut(usize, &Heads) -> Result<()>,
) -> Result<Trained> {
    training.check(config)?;
    let mut sweep = Sweep::new(config, rates, training, start)?;
    for epoch in 0..config.epochs {
        stop::check()?;
        sweep.train(config, training, epoch, &order(epoch))?;
        after_epoch(epoch, &sweep.heads())?;
    }
    Ok(Trained { heads: sweep.heads(), losses: sweep.losses() })
}

impl TrainingSet<'_> {
    fn samples(&self) -> usize {
        self.features.len_of(Axis(1))
    }

    fn width(&self) -> usize {
        self.features.len_of(Axis(2))
    }

    fn check(&self, config: &LinearProbeConfig) -> Result<()> {
        let (variants, samples) = (self.features.len_of(Axis(0)), self.samples());
        let wanted = config.augmentation.transforms().len();
        let problem = if variants != wanted {
            format!("features of {variants} variants of each training image, expected {wanted}")
        } else if samples != self.targets.len() {
            format!("features of {samples} training samples, but labels of {}", self.targets.len())
        } else if self.width() == 0 || self.targets.outputs() == 0 {
            format!("{} features and {} classes", self.width(), self.targets.outputs())
        } else if let Some(class) = self.targets.out_of_range() {
            format!("a training sample of class {class} of {}", self.targets.outputs())
        } else if self.features.iter().any(|x| !x.is_finite()) {
            return Err(Error::not_finite("linear probe: a training feature is not finite")
                .help("check that the weights fit the model and the normalisation fits the pixels"));
        } else {
            return Ok(());
        };
        Err(failure(problem))
    }
}

fn failure(problem: impl std::fmt::Display) -> Error {
    Error::mismatch(format!("linear probe: {problem}"))
}

/// Of a search in which no learning rate has a score on validation.
fn diverged(rates: &[f64]) -> Error {
    Error::not_finite(format!(
        "linear probe: no learning rate has a score on validation; training diverged with all of {rates:?}"
    ))
    .help("use lower learning rates, and check the features: weights, normalisation")
}

/// A training under way.
struct Sweep {
    layout: HeadLayout,
    groups: Vec<Group>,
    running: RunningStatistics,
}

impl Sweep {
    fn new(config: &LinearProbeConfig, rates: &[f64], training: TrainingSet, start: &Linear) -> Result<Self> {
        let (outputs, width) = (training.targets.outputs(), training.width());
        let affine = config.batch_norm.is_some_and(|norm| norm.affine);
        let layout = HeadLayout { outputs, width, affine };
        if start.weight.dim() != (outputs, width) || start.bias.len() != outputs {
            let shape = start.weight.dim();
            return Err(failure(format!("initial weights {shape:?}, expected {:?}", (outputs, width))));
        }
        let groups = Group::divide(layout, config.optimizer, rates, &layout.head(start));
        // Without BatchNorm, these statistics stay as they are and change nothing.
        let eps = config.batch_norm.map_or(0.0, |norm| norm.eps);
        Ok(Self { layout, groups, running: RunningStatistics::new(width, eps) })
    }

    fn train(
        &mut self,
        config: &LinearProbeConfig,
        training: TrainingSet,
        epoch: usize,
        order: &[DrawnSample],
    ) -> Result<()> {
        let batches = cut(order, config.batch_size, config.drop_last);
        if batches.is_empty() {
            let least = if config.drop_last { config.batch_size } else { 2 };
            return Err(failure(format!("{} training samples; a batch needs {least}", order.len()))
                .help("use a larger partition, or a protocol with smaller batches"));
        }
        let mut position = Position { epoch, epochs: config.epochs, batch: 0, batches: batches.len() };
        // One a thread: normalised in parallel, and still in the cache when the heads see them.
        for some in batches.chunks(rayon::current_num_threads()) {
            let some = normalize(training.features, some, config.batch_norm.map(|norm| norm.eps));
            if let Some(norm) = config.batch_norm {
                some.iter().for_each(|batch| self.running.update(batch, norm.momentum));
            }
            self.groups.par_iter_mut().for_each(|group| {
                let mut position = position;
                for batch in &some {
                    group.step(batch, training.targets, |rate| config.schedule.at(rate, position));
                    position.batch += 1;
                }
            });
            position.batch += some.len();
        }
        Ok(())
    }

    fn heads(&self) -> Heads {
        let heads = self.groups.iter().flat_map(Group::heads);
        let parameters = heads.map(|head| head.parameters.clone()).collect();
        Heads { layout: self.layout, parameters, running: self.running.clone() }
    }

    fn losses(&self) -> Array2<f32> {
        let losses: Vec<&[f32]> =
            self.groups.iter().flat_map(Group::heads).map(|head| head.losses.as_slice()).collect();
        let steps = losses.first().map_or(0, |losses| losses.len());
        Array2::from_shape_fn((losses.len(), steps), |(rate, step)| losses[rate][step])
    }
}

/// A learning rate with the epoch whose weights are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The highest of its schedule.
    pub learning_rate: f64,
    /// From 0.
    pub epoch: usize,
    /// Its score on validation; NaN if the training diverged.
    pub validation: f64,
}

/// What a probe gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Probed {
    /// The best on validation, the first of equal ones.
    pub chosen: Candidate,
    /// Of every learning rate, in the given order.
    pub candidates: Vec<Candidate>,
    /// [n, outputs]: of the test split, by the chosen head. [`Targets::predicted`] decides.
    pub logits: Array2<f32>,
    /// The kind of device whose arithmetic it is, if that is not the CPU's.
    pub solved_on: Option<String>,
}

/// Trains a head for each of `rates`, chooses by `score` on validation and applies the chosen one to test.
///
/// `score` gets logits [n, outputs] and the true targets; more is better. NaN is never chosen, nor is a head that
/// diverged: one whose logits on validation are not finite.
///
/// # Errors
/// Like [`train`]; also if a split's features do not fit, or `score` fails or gives NaN for every head.
pub fn probe(
    config: &LinearProbeConfig,
    rates: &[f64],
    training: TrainingSet,
    held_out: HeldOut,
    seed: u64,
    score: impl Fn(ArrayView2<f32>, &Targets) -> Result<f64>,
) -> Result<Probed> {
    probe_on(None, config, rates, training, held_out, seed, score)
}

/// Like [`probe`], on the accelerator if there is one and the features are many; on the CPU if the device fails. Sums are
/// rounded in another order.
///
/// # Errors
/// Like [`probe`].
pub fn probe_on(
    accelerator: Option<&Accelerator>,
    config: &LinearProbeConfig,
    rates: &[f64],
    training: TrainingSet,
    held_out: HeldOut,
    seed: u64,
    score: impl Fn(ArrayView2<f32>, &Targets) -> Result<f64>,
) -> Result<Probed> {
    held_out.check(training.width(), training.targets)?;
    let rows = training.features.len_of(Axis(0)) * training.samples();
    if let Some(accelerator) = accelerator.filter(|accelerator| accelerator.solves(rows, training.width())) {
        match probe_where(Some(accelerator), config, rates, training, held_out, seed, &score) {
            Err(error) if error.kind() == ErrorKind::Device => {
                tracing::warn!("{error}; training on the CPU");
            }
            done => return done,
        }
    }
    probe_where(None, config, rates, training, held_out, seed, &score)
}

fn probe_where(
    accelerator: Option<&Accelerator>,
    config: &LinearProbeConfig,
    rates: &[f64],
    training: TrainingSet,
    held_out: HeldOut,
    seed: u64,
    score: &impl Fn(ArrayView2<f32>, &Targets) -> Result<f64>,
) -> Result<Probed> {
    let upload = |accelerator| DeviceSplit::upload(accelerator, held_out.valid);
    let valid = accelerator.map(upload).transpose()?;
    let mut kept: Vec<(Candidate, Heads)> = Vec::new();
    train_on(accelerator, config, rates, training, seed, |epoch, heads| {
        if config.keep == KeptEpoch::Last && epoch + 1 < config.epochs {
            return Ok(());
        }
        let on_device = valid.as_ref().map(|valid| valid.logits(heads)).transpose()?;
        for (rate, &learning_rate) in rates.iter().enumerate() {
            let logits = match &on_device {
                Some(logits) => logits[rate].clone(),
                None => heads.logits(rate, held_out.valid),
            };
            let validation = candidate_score(logits.view(), held_out.valid_targets, score)?;
            let candidate = Candidate { learning_rate, epoch, validation };
            match kept.get_mut(rate) {
                None => kept.push((candidate, heads.only(rate))),
                Some(best) if first_best(Better::Higher, [best.0.validation, validation]) == Some(1) => {
                    *best = (candidate, heads.only(rate));
                }
                Some(_) => {}
            }
        }
        Ok(())
    })?;
    let chosen = first_best(Better::Higher, kept.iter().map(|(candidate, _)| candidate.validation))
        .ok_or_else(|| diverged(rates))?;
    let logits = kept[chosen].1.logits(0, held_out.test);
    let candidates: Vec<Candidate> = kept.into_iter().map(|(candidate, _)| candidate).collect();
    let solved_on = accelerator.map(|accelerator| accelerator.kind().to_owned());
    Ok(Probed { chosen: candidates[chosen], candidates, logits, solved_on })
}
