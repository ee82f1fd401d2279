//! Fine-tuning, as in Galileo's evaluation [nasaharvest/galileo, src/eval/finetune.py]: the whole encoder and a
//! linear layer on its feature, trained for each of a list of learning rates; the best on validation is reported on
//! test. A learning rate that diverges, in training or in the features of validation or test, is never chosen. With `patience`
//! every epoch is scored on validation, and a learning rate's best epoch is used instead of its last.
//!
//! Every epoch sees the samples as the partition lists them: `get_loaders` (src/eval/eval.py) builds each loader,
//! the training one included, with `shuffle=False`. The config can ask for another order.
//!
//! What differs: the random numbers, that the learning rates of a seed share them, float32 throughout, and that encoders
//! have no dropout or stochastic depth (of the published ones, Galileo drops a tenth of its residual branches, AnySat a tenth
//! of its attention over dates, and a fifth of its activations for Sentinel-1).

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, ArrayView1, arr1, s};
use rand::Rng;
use rand::seq::SliceRandom;

use super::{Needs, Protocol, Session, TrainingSetup};
use crate::config::{FinetuneConfig, TrainingConfig, TrainingOrder};
use crate::data::{Split, Target, loader};
use crate::features::feed::DeviceFeed;
use crate::features::{Extractor, images};
use crate::metrics::Better;
use crate::model::{Architecture, Batch, Encoder, InputSpec, Want};
use crate::nn::kernels;
use crate::random::{linear_bound, stream, turn};
use crate::score::decision::{are_usable, unless_diverged};
use crate::score::subset::subset;
use crate::score::{Outcome, Targets, score_logits};
use crate::task::TargetKind;
use crate::train::epoch::{self, Classifier, Recipe, TrainingSample};
use crate::train::optim::Rule;
use crate::train::search::{self, Resumed, SnapshotKeeper, Trainee, best_of, is_stopped};
use crate::train::snapshot::Standing;
use crate::train::state::{self, State};
use crate::transform::augment::{Dihedral, Turn};
use crate::{Error, Result};

impl Protocol for FinetuneConfig {
    fn needs(&self) -> Needs {
        Needs::TrainablePooled
    }

    fn targets(&self) -> &'static [TargetKind] {
        &[TargetKind::Class, TargetKind::Labels]
    }

    fn training(&self) -> Option<&TrainingConfig> {
        Some(&self.training)
    }

    fn training_mut(&mut self) -> Option<&mut TrainingConfig> {
        Some(&mut self.training)
    }

    fn problem(&self) -> Option<String> {
        FinetuneConfig::problem(self)
    }

    fn run(&self, mut session: Session) -> Result<Outcome> {
        run(self, session.seed, &session.take_setup()?)
    }
}

/// An encoder with a linear layer on its feature.
#[derive(Module, Debug)]
pub struct Network {
    encoder: Architecture,
    head: Linear,
    #[module(skip)]
    spec: InputSpec,
    /// Makes batches of images as stored.
    #[module(skip)]
    feed: Option<Arc<DeviceFeed>>,
}

impl Network {
    /// `encoder`, as its original fine-tunes it, with a new layer, uniform within ±1 / sqrt(width) [torch.nn.Linear's default].
    pub fn new(encoder: Architecture, spec: InputSpec, outputs: usize, seed: u64, device: &Device) -> Self {
        let width = spec.width(&encoder);
        let bound = linear_bound(width);
        let mut random = stream(seed, INITIALIZATION);
        let mut uniform = |length: usize| -> Vec<f32> {
            (0..length).map(|_| random.random_range(-bound..=bound)).collect()
        };
        let weight = TensorData::new(uniform(width * outputs), [width, outputs]);
        let bias = TensorData::new(uniform(outputs), [outputs]);
        let head = Linear {
            weight: Param::from_tensor(Tensor::from_data(weight, device)),
            bias: Some(Param::from_tensor(Tensor::from_data(bias, device))),
        };
        Network { encoder: encoder.for_finetuning(), head, spec, feed: None }
    }

    /// Prepares and turns images that are given as stored with `feed`.
    #[must_use]
    pub fn prepared_by(self, feed: Option<DeviceFeed>) -> Self {
        Network { feed: feed.map(Arc::new), ..self }
    }

    /// Returns the logits [n, outputs] of a batch of prepared images.
    ///
    /// # Errors
    /// If the images do not suit the encoder.
    pub fn forward(&self, batch: &Batch) -> Result<Tensor<2>> {
        let features = self.spec.encode(&self.encoder, batch, Want::Pooled(self.spec.pooling))?;
        Ok(kernels::linear(features.pooled()?, &self.head))
    }

    /// Returns the encoder as it is trained.
    pub fn encoder(&self) -> &Architecture {
        &self.encoder
    }
}

impl Classifier for Network {
    fn logits(&self, samples: &[TrainingSample], device: &Device) -> Result<Tensor<2>> {
        let images = samples.iter().map(|sample| sample.sample.images.as_slice());
        let turns: Option<Vec<Turn>> = samples.iter().map(|sample| sample.turn).collect();
        let batch = match (&self.feed, turns) {
            (Some(feed), Some(turns)) => feed.training_batch(images, &turns)?,
            _ => images::batch(&self.spec, images, device)?,
        };
        self.forward(&batch)
    }
}

/// Fine-tunes on the train split and scores the test split. Continues from the snapshot if there is one.
///
/// # Errors
/// If a sample cannot be read or does not fit, a snapshot cannot be written, or every learning rate diverges.
pub fn run(config: &FinetuneConfig, seed: u64, setup: &TrainingSetup) -> Result<Outcome> {
    let task = setup.task;
    let mut search = Search {
        config,
        seed,
        setup,
        encoder: setup.trained()?,
        valid: Vec::new(),
        best: None,
        keeper: SnapshotKeeper::new(&setup.snapshot, &config.training, &setup.device, setup.progress),
    };
    let mut resumed = search.resume();
    while search.valid.len() < config.training.learning_rates.len() {
        let start = match resumed.take() {
            Some(start) => start,
            None => search.start(),
        };
        search.train(start)?;
    }
    let Some(Tested { logits, epochs }) = &search.best else {
        return Err(Error::not_finite("fine-tuning diverged with every learning rate")
            .help("check the weights and the normalisation"));
    };
    let (chosen, valid) = best(&search.valid).expect("a learning rate gave the best logits");
    let truth = Targets::from_labels(&setup.labels(config, Split::Test)?, task.classes)?;
    let all = config.training.epochs;
    let ended = match config.patience {
        Some(_) => ("epoch", format!("{epochs} of {all}")),
        None => ("epochs", all.to_string()),
    };
    let selected = [
        ("learning-rate", config.training.learning_rates[chosen].to_string()),
        ended,
        ("order", config.order.to_string()),
        ("validation", format!("{valid:.2}")),
    ];
    let outcome =
        Outcome::of_logits(task.metric, logits.view(), &truth, &config.training.interval, seed, selected)?;
    let rates = config.training.learning_rates.iter().zip(&search.valid);
    let outcome = outcome.with_diverged(rates.filter(|(_, valid)| valid.is_none()).map(|(rate, _)| rate));
    Ok(Outcome { validation: Some(valid), ..outcome })
}

/// The learning rates that are done, and what is best of them.
struct Search<'a> {
    config: &'a FinetuneConfig,
    seed: u64,
    setup: &'a TrainingSetup<'a>,
    encoder: &'a Architecture,
    /// Scores of the finished learning rates, none if the training diverged.
    valid: Vec<Option<f64>>,
    /// What the best gives on test.
    best: Option<Tested>,
    keeper: SnapshotKeeper<'a>,
}

/// A learning rate's training after some epochs.
struct LearningRateRun {
    trainee: Trainee<Network>,
    epochs: usize,
    /// With `patience`: the scores of these epochs on validation, and what the best of them gives on test.
    scores: Vec<Option<f64>>,
    best: Option<Tested>,
}

/// What a network gives on the test split.
struct Tested {
    /// [n, outputs].
    logits: Array2<f32>,
    /// How many epochs it was trained.
    epochs: usize,
}

impl Tested {
    /// Adds it to what a snapshot keeps, under names that begin with `whose`.
    fn put(&self, whose: &str, state: &mut State) {
        state.insert(format!("{whose}{LOGITS}"), self.logits.clone().into_dyn());
        // Exact: no training has 2^24 epochs.
        state.insert(format!("{whose}{EPOCHS_TRAINED}"), arr1(&[self.epochs as f32]).into_dyn());
    }

    fn of(whose: &str, state: &State) -> Option<Self> {
        let logits = state.get(&format!("{whose}{LOGITS}"))?.clone().into_dimensionality().ok()?;
        let epochs = *state.get(&format!("{whose}{EPOCHS_TRAINED}"))?.first()? as usize;
        Some(Tested { logits, epochs })
    }
}

impl Search<'_> {
    /// Takes up what the snapshot holds.
    fn resume(&mut self) -> Option<LearningRateRun> {
        let rates = &self.config.training.learning_rates;
        let scored = |epochs: usize| if self.config.patience.is_some() { epochs } else { 0 };
        let fits = |standing: &Standing, _: &Network| match standing.rate {
            rate if rate + scored(standing.epochs) == standing.valid.len() && rate < rates.len() => Ok(()),
            _ => Err(search::foreign()),
        };
        let Resumed { standing, best, trainee } = self.keeper.resume(|| Ok(self.network()), fits)?;
        let Standing { rate, epochs, mut valid } = standing;
        let line = format!("continuing with learning rate {} after {epochs} epochs", rates[rate]);
        self.setup.progress.note(&line);
        let scores = valid.split_off(rate);
        self.valid = valid;
        self.best = Tested::of("", &best);
        Some(LearningRateRun { trainee, epochs, scores, best: Tested::of(PRESENT, &best) })
    }

    fn network(&self) -> Network {
        let TrainingSetup { device, input, task, .. } = self.setup;
        Network::new(self.encoder.clone().fork(device), input.spec(), task.classes, self.seed, device)
            .prepared_by(self.setup.feed())
    }

    fn start(&self) -> LearningRateRun {
        let trainee = self.keeper.begin(self.network());
        LearningRateRun { trainee, epochs: 0, scores: Vec::new(), best: None }
    }

    /// Trains the next learning rate to its end and scores it; one that diverges gets no score.
    fn train(&mut self, mut training: LearningRateRun) -> Result<()> {
        let (config, setup) = (self.config, self.setup);
        let rate = self.valid.len();
        let recipe = Recipe {
            epochs: config.training.epochs,
            batch_size: config.training.batch_size,
            accumulated: config.accumulated(),
            clip_norm: config.clip_norm,
            schedule: config.training.schedule,
            learning_rate: config.training.learning_rates[rate],
            momentum: Rule::of(self.config.training.optimizer).1,
            outputs: setup.task.classes,
            at_once: setup.batch_size,
            device: setup.device.clone(),
            is_deferred: setup.on_device,
        };
        let epochs = config.training.epochs;
        let is_over = |training: &LearningRateRun| {
            training.epochs == epochs || is_stopped(Better::Higher, &training.scores, config.patience)
        };
        while !is_over(&training) {
            let epoch = training.epochs;
            let name = format!("learning rate {}, epoch {} of {epochs}", recipe.learning_rate, epoch + 1);
            let loss;
            (training, loss) = self.epoch(training, &recipe, epoch, &name)?;
            if !loss.is_finite() || !state::is_finite(&training.trainee.network) {
                setup.progress.note(&format!("{name}: diverged"));
                self.valid.push(None);
                return Ok(());
            }
            tracing::debug!(loss, "{name}");
            if config.patience.is_some() && !self.score_epoch(&mut training)? {
                setup.progress.note(&format!("{name}: diverged; its features or logits are not finite"));
                self.valid.push(None);
                return Ok(());
            }
            if is_over(&training) && training.epochs < epochs {
                setup.progress.note(&format!("{name}: the last, as validation improves no more"));
            }
            let valid = [&self.valid[..], &training.scores].concat();
            let standing = Standing { rate, epochs: training.epochs, valid };
            let mut best = State::new();
            self.best.iter().for_each(|tested| tested.put("", &mut best));
            training.best.iter().for_each(|tested| tested.put(PRESENT, &mut best));
            // The last epoch always: its network is evaluated next, which takes long.
            self.keeper.keep(&standing, &best, &training.trainee, is_over(&training))?;
        }
        if config.patience.is_some() {
            self.valid.push(best_of(Better::Higher, &training.scores).map(|(_, score)| score));
            if best(&self.valid).is_some_and(|(best, _)| best == rate) {
                self.best = training.best;
            }
            return Ok(());
        }
        let trained = Trained::new(&training.trainee.network.valid());
        self.valid.push(self.score(&trained)?);
        if best(&self.valid).is_some_and(|(best, _)| best == rate) {
            match trained.evaluate(config, setup, Split::Test)? {
                Some((logits, _)) => self.best = Some(Tested { logits, epochs }),
                None => self.valid[rate] = None,
            }
        }
        if self.valid[rate].is_none() {
            let name = format!("learning rate {}", recipe.learning_rate);
            setup.progress.note(&format!("{name}: diverged; its features or logits are not finite"));
        }
        Ok(())
    }

    /// Scores a network on validation; none if a feature or a logit is not finite.
    fn score(&self, trained: &Trained) -> Result<Option<f64>> {
        let (config, task) = (self.config, self.setup.task);
        let Some((logits, labels)) = trained.evaluate(config, self.setup, Split::Valid)? else {
            return Ok(None);
        };
        let truth = Targets::from_labels(&labels, task.classes)?;
        score_logits(task.metric, logits.view(), &truth).map(Some)
    }

    /// Scores the last epoch of a training on validation and, if it is the best so far, keeps what it gives on test. Returns
    /// whether all numbers are finite.
    fn score_epoch(&self, training: &mut LearningRateRun) -> Result<bool> {
        let trained = Trained::new(&training.trainee.network.valid());
        let Some(score) = self.score(&trained)? else { return Ok(false) };
        training.scores.push(Some(score));
        let place = training.scores.len() - 1;
        if best_of(Better::Higher, &training.scores).is_some_and(|(best, _)| best == place) {
            let Some((logits, _)) = trained.evaluate(self.config, self.setup, Split::Test)? else {
                return Ok(false);
            };
            training.best = Some(Tested { logits, epochs: training.epochs });
        }
        Ok(true)
    }

    fn epoch(
        &self,
        training: LearningRateRun,
        recipe: &Recipe,
        epoch: usize,
        name: &str,
    ) -> Result<(LearningRateRun, f64)> {
        let (config, seed, setup) = (self.config, self.seed, self.setup);
        let LearningRateRun { trainee: Trainee { network, mut optimizer }, scores, best, .. } = training;
        let mut order = setup.samples(config, Split::Train);
        if config.order == TrainingOrder::Shuffled {
            order.shuffle(&mut stream(seed, EPOCHS + epoch as u64));
        }
        let (input, preprocess) = (setup.input, &setup.strategy.preprocess);
        let is_on_device = setup.on_device;
        let read = |i: usize| {
            let turn = turn(config.augmentation, seed, epoch, order[i]);
            if is_on_device {
                let sample = input.stored(Split::Train, order[i])?;
                return Ok(TrainingSample { sample, turn: Some(turn) });
            }
            let sample = input.read(preprocess, Split::Train, order[i])?;
            Ok(sample.turned(|pixels| turn.image(pixels)).into())
        };
        let step = setup.progress.begin(name, order.len());
        let ahead = 2 * setup.batch_size;
        let (network, loss) = loader::ordered(order.len(), setup.readers, ahead, read, |samples| {
            epoch::epoch(network, &mut optimizer, recipe, epoch, order.len(), samples, &mut |images| {
                step.advance(images);
            })
        })?;
        let trainee = Trainee { network, optimizer };
        Ok((LearningRateRun { trainee, epochs: epoch + 1, scores, best }, loss))
    }
}

impl TrainingSetup<'_> {
    /// The samples that count: all, or `limit` of them, the same for every seed, in the split's order.
    fn samples(&self, config: &FinetuneConfig, split: Split) -> Vec<usize> {
        subset(self.input.dataset.samples(split).len(), config.training.limit)
    }

    fn labels(&self, config: &FinetuneConfig, split: Split) -> Result<Vec<Target>> {
        let samples = self.samples(config, split);
        let read = |i: usize| Ok(self.input.labelled(split, samples[i])?.target);
        loader::ordered(samples.len(), self.readers, 2 * self.readers, read, |labels| labels.collect())
    }
}

/// A network that no longer changes: the encoder in its fastest form, and the head on the CPU.
struct Trained {
    encoder: Box<dyn Encoder>,
    /// [width, outputs].
    weight: Array2<f32>,
    bias: Vec<f32>,
}

impl Trained {
    /// `network` is on a device without autodiff.
    fn new(network: &Network) -> Self {
        let numbers = |data: TensorData| data.convert::<f32>().try_into_vec().expect("converted to float32");
        let weight = network.head.weight.val();
        let shape = weight.dims();
        Trained {
            encoder: network.encoder.clone().frozen(),
            weight: Array2::from_shape_vec(shape, numbers(weight.into_data())).expect("its own shape"),
            bias: network.head.bias.as_ref().map_or(Vec::new(), |bias| numbers(bias.val().into_data())),
        }
    }

    /// Logits [n, outputs] and labels of a split; none if a feature or a logit is not finite.
    fn evaluate(
        &self,
        config: &FinetuneConfig,
        setup: &TrainingSetup,
        split: Split,
    ) -> Result<Option<(Array2<f32>, Vec<Target>)>> {
        let extractor = Extractor {
            encoder: self.encoder.as_ref(),
            device: &setup.device.clone().inner(),
            further: &[],
            input: setup.input,
            strategy: setup.strategy,
            turn: Dihedral::Identity,
            batch_size: setup.batch_size.into(),
            readers: setup.readers,
        };
        let samples = setup.samples(config, split);
        let step = setup.progress.begin(&split.to_string(), samples.len());
        let mut logits = Array2::zeros((samples.len(), self.weight.ncols()));
        let mut labels = Vec::with_capacity(samples.len());
        let extracted = extractor.extract(split, &samples, &mut |batch| {
            let first = labels.len();
            let rows = s![first..first + batch.labels.len(), ..];
            logits.slice_mut(rows).assign(&(batch.matrix.dot(&self.weight) + ArrayView1::from(&self.bias)));
            step.advance(batch.labels.len());
            labels.extend(batch.labels);
            Ok(())
        });
        let finite = unless_diverged(extracted)?.is_some() && are_usable(logits.view());
        Ok(finite.then_some((logits, labels)))
    }
}

/// What a snapshot calls the test logits.
const LOGITS: &str = "logits";

/// What it calls the epochs after which they were computed.
const EPOCHS_TRAINED: &str = "epochs";
/// Before both: of the learning rate under way.
const PRESENT: &str = "present-";

/// The place of the highest score, the first of equal ones, and the score.
fn best(scores: &[Option<f64>]) -> Option<(usize, f64)> {
    best_of(Better::Higher, scores)
}

/// Streams of a seed's random numbers, so that no draw depends on how many others there were. Epoch e draws from
/// `EPOCHS` + e.
const INITIALIZATION: u64 = 0;
/// 1 is [`subset`]'s.
const EPOCHS: u64 = 2;
