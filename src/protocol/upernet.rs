//! UPerNet on an encoder's feature maps, as in Copernicus-Bench [zhu-xlab/Copernicus-FM, Copernicus-Bench/src]:
//! for each of a list of learning rates; the epoch that is best on validation, over all of them, is tested.
//!
//! The encoder is frozen or trained along. Masks keep their stored size, and logits are resized to it, so that no
//! label is invented; images are resized to the model's input. Where a task has `mask-resize`, masks are resized too, by the
//! nearest pixel, and scored at the input's size, as in the reference.
//!
//! Maps of a sample of several images are combined as its task says: of two dates the later one's minus the earlier one's, as in
//! the reference's change detection.
//!
//! Of classes per pixel the loss is cross-entropy, of numbers (normalised by the task's statistics) the absolute error
//! [ViTRegression of its foundation_models]; `pixels.rs` has what differs.
//!
//! The epoch is chosen by the mean over batches that the reference logs; the record's value is the mean IoU (or the error) of
//! all test pixels, and the mean over test batches is its score `reported_miou` (`reported_rmse`).
//!
//! What differs from the reference: the random numbers, masks that keep their size, and that batches in which no pixel
//! counts are passed over. A killed run continues from its last snapshot.

mod pixels;

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::Tensor;
use ndarray::Array2;
use rand::seq::SliceRandom;

use self::pixels::{BatchTruth, PixelScores};
use super::{Needs, Protocol, Session, TrainingSetup};
use crate::config::{Augmentation, EncoderUse, TrainingConfig, UpernetConfig};
use crate::data::{Sample, Split, loader};
use crate::features::feed::DeviceFeed;
use crate::features::images;
use crate::features::maps::{self, ImageKey, MapItem, MapSource};
use crate::features::truth::PixelTruth;
use crate::features::{Input, Preparation};
use crate::files::remove;
use crate::model::encoder::Map;
use crate::model::{Architecture, Want};
use crate::nn::heads::layers::Pass;
use crate::nn::heads::upernet::UperNet;
use crate::random::{stream, turn};
use crate::score::subset::subset;
use crate::score::{Outcome, Shown, outcome};
use crate::task::{TargetKind, Task};
use crate::train::losses::Losses;
use crate::train::optim::{Pace, Rule};
use crate::train::schedule::Position;
use crate::train::search::{self, SnapshotKeeper, Trainee, best_of, is_stopped};
use crate::train::snapshot::{self, Standing};
use crate::train::state::{self, State};
use crate::transform::augment::Turn;
use crate::{Error, Result};

/// The head, and the encoder if it is trained too.
#[derive(Module, Debug)]
pub struct Network {
    encoder: Option<Architecture>,
    head: UperNet,
}

impl Protocol for UpernetConfig {
    fn needs(&self) -> Needs {
        match self.encoder {
            EncoderUse::Frozen => Needs::Maps,
            EncoderUse::Finetune => Needs::TrainableMaps,
        }
    }

    fn targets(&self) -> &'static [TargetKind] {
        &[TargetKind::Mask, TargetKind::ValueMap]
    }

    fn turns_images(&self) -> bool {
        self.augmentation != Augmentation::None
    }

    fn training(&self) -> Option<&TrainingConfig> {
        Some(&self.training)
    }

    fn training_mut(&mut self) -> Option<&mut TrainingConfig> {
        Some(&mut self.training)
    }

    fn problem(&self) -> Option<String> {
        UpernetConfig::problem(self)
    }

    fn run(&self, mut session: Session) -> Result<Outcome> {
        let frozen = match self.encoder {
            EncoderUse::Frozen => Some(session.take_source()?.maps(0)?),
            EncoderUse::Finetune => None,
        };
        run(self, session.seed, &session.take_setup()?, frozen)
    }
}

/// Trains on the train split and scores the test split. Continues from the snapshot if there is one. The maps are those
/// of `frozen` or, without it, those of the setup's encoder, which is trained too.
///
/// # Errors
/// If a sample cannot be read or its mask does not fit, a snapshot cannot be written, no pixel of validation or
/// test counts, or every learning rate diverges.
pub fn run(
    config: &UpernetConfig,
    seed: u64,
    setup: &TrainingSetup,
    frozen: Option<MapSource>,
) -> Result<Outcome> {
    let mut search = Search::new(config, seed, setup, frozen);
    search.resume();
    while search.scores.len() < config.training.learning_rates.len() * config.training.epochs {
        search.epoch()?;
    }
    search.outcome()
}

fn tensors(maps: Vec<Map>) -> Vec<Tensor<4>> {
    maps.into_iter().map(|map| map.values).collect()
}

/// State of a search over learning rates.
struct Search<'a> {
    config: &'a UpernetConfig,
    seed: u64,
    setup: &'a TrainingSetup<'a>,
    /// The maps of the encoder, if it is not trained.
    frozen: Option<MapSource<'a>>,
    /// Prepares the images of an encoder that is trained, on the device.
    feed: Option<DeviceFeed>,
    /// Validation scores of the finished epochs, learning rate by learning rate; none once one diverged.
    scores: Vec<Option<f64>>,
    /// The learning rate under way.
    training: Option<Trainee<Network>>,
    /// Whether the memory of the maps was reported.
    told: bool,
    keeper: SnapshotKeeper<'a>,
}

impl<'a> Search<'a> {
    fn new(
        config: &'a UpernetConfig,
        seed: u64,
        setup: &'a TrainingSetup<'a>,
        frozen: Option<MapSource<'a>>,
    ) -> Self {
        let keeper = SnapshotKeeper::new(&setup.snapshot, &config.training, &setup.device, setup.progress);
        let feed = if frozen.is_none() { setup.feed() } else { None };
        Search { config, seed, setup, frozen, feed, scores: Vec::new(), training: None, told: false, keeper }
    }

    fn start(&self) -> Result<Trainee<Network>> {
        let TrainingSetup { maps, device, task, .. } = self.setup;
        let head = UperNet::new(&self.config.head, maps, task.classes, self.seed, device)?;
        let encoder = match self.frozen {
            Some(_) => None,
            None => Some(self.setup.trained()?.clone().fork(device)),
        };
        Ok(self.keeper.begin(Network { encoder, head }))
    }

    /// Takes up what the snapshot holds.
    fn resume(&mut self) {
        let (config, better) = (&self.config.training, self.setup.task.metric.better());
        let fits = |standing: &Standing, start: &Network| {
            let Standing { rate, epochs, valid } = standing;
            let all = config.learning_rates.len() * config.epochs;
            if rate * config.epochs + epochs != valid.len() || valid.len() > all {
                return Err(search::foreign());
            }
            if let Some((best, _)) = best_of(better, valid) {
                state::load(start.clone(), &snapshot::load_network(&self.best_path(best))?)?;
            }
            Ok(())
        };
        let Some(resumed) = self.keeper.resume(|| Ok(self.start()?.network), fits) else { return };
        self.setup.progress.note(&format!("continuing after {} epochs", resumed.standing.valid.len()));
        (self.scores, self.training) = (resumed.standing.valid, Some(resumed.trainee));
    }

    /// Trains the next epoch and scores it on validation.
    fn epoch(&mut self) -> Result<()> {
        let (epochs, done) = (self.config.training.epochs, self.scores.len());
        let (rate, epoch) = (done / epochs, done % epochs);
        let training = match self.training.take() {
            Some(training) if epoch > 0 => training,
            _ => self.start()?,
        };
        let learning_rate = self.config.training.learning_rates[rate];
        let name = format!("learning rate {learning_rate}, epoch {} of {epochs}", epoch + 1);
        let (training, loss) = self.train(training, learning_rate, epoch, &name)?;
        let images = match loss.is_finite() && state::is_finite(&training.network) {
            true => self.evaluate(&training.network, Split::Valid, |_, _| {})?,
            false => None,
        };
        let Some(images) = images else {
            self.setup.progress.note(&format!("{name}: diverged"));
            self.scores.resize((rate + 1) * epochs, None);
            return Ok(());
        };
        let score = images.over_batches(self.setup.task.metric, self.config.training.batch_size)?;
        self.tell_of_memory();
        tracing::debug!(loss, score, "{name}");
        self.scores.push(Some(score));
        if self.chosen().is_some_and(|(chosen, _)| chosen == done) {
            snapshot::save_network(&self.best_path(done), &training.network)?;
        }
        let better = self.setup.task.metric.better();
        let is_stopped = is_stopped(better, &self.scores[rate * epochs..], self.config.patience);
        if is_stopped && epoch + 1 < epochs {
            self.setup.progress.note(&format!("{name}: the last, as validation improves no more"));
            self.scores.resize((rate + 1) * epochs, None);
        }
        // The last epoch of a learning rate always: what follows begins anew.
        let is_last = self.scores.len().is_multiple_of(epochs);
        let (rate, epochs_done) = (self.scores.len() / epochs, self.scores.len() % epochs);
        let standing = Standing { rate, epochs: epochs_done, valid: self.scores.clone() };
        if self.keeper.keep(&standing, &State::new(), &training, is_last)? {
            self.remove_superseded();
        }
        self.training = Some(training);
        Ok(())
    }

    /// Once, after the first epoch of this run: by then most maps are there.
    fn tell_of_memory(&mut self) {
        if !std::mem::replace(&mut self.told, true)
            && let Some(line) = self.frozen.as_ref().and_then(MapSource::describe_kept)
        {
            self.setup.progress.note(&line);
        }
    }

    /// The place of the best epoch, the first of equal ones, and its score.
    fn chosen(&self) -> Option<(usize, f64)> {
        best_of(self.setup.task.metric.better(), &self.scores)
    }

    /// The file of the network after the epoch at that place: that of the best so far, and of the one before it until a
    /// snapshot no longer names it.
    fn best_path(&self, place: usize) -> PathBuf {
        snapshot::best_path(&self.setup.snapshot, place)
    }

    /// Removes the networks of epochs that were the best before.
    fn remove_superseded(&self) {
        let best = self.chosen().map(|(place, _)| place);
        for place in (0..self.scores.len()).filter(|place| Some(*place) != best) {
            // One that stays costs room only.
            let _ = remove(&self.best_path(place));
        }
    }

    /// One epoch over the train split; the mean loss, not finite if the training diverged.
    ///
    /// Samples that fill no whole batch are left out, as in the reference; where all of them do not, they are the batch.
    fn train(
        &self,
        training: Trainee<Network>,
        learning_rate: f64,
        epoch: usize,
        name: &str,
    ) -> Result<(Trainee<Network>, f64)> {
        let (config, setup) = (self.config, self.setup);
        let mut order = self.samples(Split::Train);
        let size = config.training.batch_size.min(order.len());
        if size < 2 {
            return Err(Error::mismatch(format!(
                "{} training samples; UPerNet needs at least 2",
                order.len()
            ))
            .help("batch norm needs two values; use a larger partition or --limit"));
        }
        order.shuffle(&mut stream(self.seed, STREAMS + 2 * epoch as u64));
        let mut dropout = stream(self.seed, STREAMS + 2 * epoch as u64 + 1);
        let batches = order.len() / size;
        order.truncate(batches * size);

        let (reader, seed) = (self.reader(), self.seed);
        let read =
            |i: usize| reader.item(Split::Train, order[i], turn(config.augmentation, seed, epoch, order[i]));
        let step = setup.progress.begin(name, order.len());
        let (_, momentum) = Rule::of(config.training.optimizer);
        let Trainee { mut network, mut optimizer } = training;
        loader::ordered(order.len(), setup.readers, 2 * size, read, |mut items| {
            let mut losses = Losses::new(setup.on_device);
            let mut empty = 0;
            for batch in 0..batches {
                let items: Vec<MapItem> = items.by_ref().take(size).collect::<Result<_>>()?;
                let truth = match setup.on_device {
                    true => BatchTruth::turned_on_device(&items, setup.task, &setup.device)?,
                    false => BatchTruth::new(&items, setup.task, &setup.device)?,
                };
                step.advance(items.len());
                // The mean over no pixels is NaN.
                if truth.is_empty() {
                    empty += 1;
                    continue;
                }
                let maps = self.maps(&network, &items)?;
                drop(items);
                let logits = network.head.forward(tensors(maps), &mut Pass::Train(&mut dropout))?;
                let loss = truth.loss(&network.head, logits);
                let mut gradients = loss.backward();
                if !losses.add(vec![loss.inner()], 1.0).is_finite() {
                    break;
                }
                let position = Position { epoch, epochs: config.training.epochs, batch, batches };
                let rates = config.training.schedule.at(learning_rate, position);
                let pace =
                    Pace { learning_rate: rates.learning_rate, momentum: rates.momentum.unwrap_or(momentum) };
                network = optimizer.step(network, &mut gradients, pace);
            }
            if empty > 0 && setup.task.target.is_numeric() {
                let line =
                    format!("{name}: {empty} of {batches} batches passed over, nothing is measured in them");
                setup.progress.note(&line);
            }
            let counted = losses.count().max(1) as f64;
            Ok((Trainee { network, optimizer }, losses.total() / counted))
        })
    }

    /// The maps of a batch for training, on the device with autodiff.
    fn maps(&self, network: &Network, items: &[MapItem]) -> Result<Vec<Map>> {
        match (&self.frozen, &network.encoder) {
            (Some(frozen), _) => {
                let onto = |map: Map| Map { values: Tensor::from_inner(map.values), ..map };
                Ok(frozen.maps(items)?.into_iter().map(onto).collect())
            }
            (None, Some(encoder)) => {
                let spec = self.setup.input.spec();
                let images = maps::images(items)?.into_iter();
                let turns: Option<Vec<Turn>> = items.iter().map(|item| item.images_turn).collect();
                let batch = match (&self.feed, turns) {
                    (Some(feed), Some(turns)) => feed.training_batch(images, &turns)?,
                    _ => images::batch(&spec, images, &self.setup.device)?,
                };
                spec.encode(encoder, &batch, Want::Maps)?.maps()
            }
            (None, None) => Err(Error::mismatch("the network has no encoder")),
        }
    }

    fn samples(&self, split: Split) -> Vec<usize> {
        subset(self.setup.input.dataset.samples(split).len(), self.config.training.limit)
    }

    fn reader(&self) -> Reader<'_> {
        let TrainingSetup { input, strategy, task, .. } = self.setup;
        let encoder = self.frozen.as_ref();
        let prepares = self.feed.is_some() || encoder.is_some_and(MapSource::prepares);
        Reader {
            input,
            strategy,
            task,
            encoder,
            prepares_images: !prepares,
            turns_truth: !self.setup.on_device,
        }
    }

    /// For each image of a split what the network predicts, against its pixels; none if the network diverged: a
    /// feature map of a trained encoder or a logit is not finite. `shown` sees each predicted mask [h, w] with the
    /// image's place among those used.
    fn evaluate(
        &self,
        network: &Network,
        split: Split,
        mut shown: impl FnMut(usize, Array2<i32>),
    ) -> Result<Option<PixelScores>> {
        let setup = self.setup;
        let network = network.valid();
        let trained = network.encoder.map(|encoder| {
            let device = setup.device.clone().inner();
            MapSource::new(encoder.frozen(), setup.input.spec(), device).prepared_by(setup.feed())
        });
        let encoder = (self.frozen.as_ref().or(trained.as_ref()))
            .ok_or_else(|| Error::mismatch("the network has no encoder"))?;
        let samples = self.samples(split);
        let step = setup.progress.begin(&split.to_string(), samples.len());
        let reader = self.reader();
        let read = |i: usize| reader.item(split, samples[i], Turn::NONE);
        let mut scores = PixelScores::new(setup.task.target);
        let finite =
            loader::ordered(samples.len(), setup.readers, 2 * setup.batch_size, read, |mut items| {
                loop {
                    let items: Vec<MapItem> = items.by_ref().take(setup.batch_size).collect::<Result<_>>()?;
                    if items.is_empty() {
                        return Ok(true);
                    }
                    let maps = encoder.maps(&items)?;
                    // A frozen encoder's maps were looked at when they were made; a relu may hide NaN from the logits.
                    if self.frozen.is_none() && !maps.iter().all(|map| is_finite(&map.values)) {
                        return Ok(false);
                    }
                    let logits = network.head.forward(tensors(maps), &mut Pass::Eval)?.decoder;
                    if !is_finite(&logits) {
                        return Ok(false);
                    }
                    for (i, item) in items.iter().enumerate() {
                        let image = scores.len();
                        if let Some(mask) =
                            scores.add(logits.clone().narrow(0, i, 1), &item.truth, setup.task)?
                        {
                            shown(image, mask);
                        }
                    }
                    step.advance(items.len());
                }
            })?;
        Ok(finite.then_some(scores))
    }

    /// Scores the best network on the test split.
    fn outcome(&self) -> Result<Outcome> {
        let (config, task) = (self.config, self.setup.task);
        let Some((chosen, valid)) = self.chosen() else {
            return Err(Error::not_finite("UPerNet diverged with every learning rate")
                .help("check the weights and the normalisation"));
        };
        let best = snapshot::load_network(&self.best_path(chosen))?;
        let network = state::load(self.start()?.network, &best)?;
        let wanted = outcome::to_show(self.samples(Split::Test).len());
        let mut masks = Vec::new();
        let images = self.evaluate(&network, Split::Test, |image, prediction| {
            if wanted.contains(&image) {
                masks.push(Shown { image, prediction });
            }
        })?;
        let images = images.ok_or_else(|| {
            Error::not_finite("UPerNet's logits of the test split are not finite")
                .help("use lower learning rates, and check the weights and the normalisation")
        })?;
        let rates = config.training.learning_rates.iter().zip(self.scores.chunks(config.training.epochs));
        let better = task.metric.better();
        let has_diverged =
            |scores: &[Option<f64>]| scores.contains(&None) && !is_stopped(better, scores, config.patience);
        let diverged = rates.filter(|(_, scores)| has_diverged(scores)).map(|(rate, _)| rate);
        let mut outcome = images.outcome(task, &config.training.interval, self.seed)?.with_diverged(diverged);
        let reported = images.over_batches(task.metric, config.training.batch_size)?;
        outcome.scores.insert(format!("reported_{}", task.metric), reported);
        outcome.scoring.report_batch = Some(config.training.batch_size);
        outcome.selected.extend([
            ("encoder".to_owned(), config.encoder.to_string()),
            (
                "learning-rate".to_owned(),
                config.training.learning_rates[chosen / config.training.epochs].to_string(),
            ),
            (
                "epoch".to_owned(),
                format!("{} of {}", chosen % config.training.epochs + 1, config.training.epochs),
            ),
            ("validation".to_owned(), task.metric.about().scale.fine(valid)),
        ]);
        Ok(Outcome { validation: Some(valid), masks, ..outcome })
    }
}

/// What the threads that read ahead need.
struct Reader<'a> {
    input: &'a Input,
    strategy: &'a Preparation,
    task: &'a Task,
    /// The maps of the encoder, if it is frozen.
    encoder: Option<&'a MapSource<'a>>,
    /// Whether images are preprocessed and turned here, and not on the device.
    prepares_images: bool,
    /// Whether the truth is turned here, and not on the device.
    turns_truth: bool,
}

impl Reader<'_> {
    /// A sample, turned; with its images only if their maps are not known.
    fn item(&self, split: Split, sample: usize, turn: Turn) -> Result<MapItem> {
        // A free angle does not come again.
        let place = turn.degrees.is_none().then_some(ImageKey { split, sample, turn: turn.dihedral });
        let known = self.encoder.zip(place).is_some_and(|(encoder, place)| encoder.knows(place));
        let sample =
            if known { self.input.labelled(split, sample)? } else { self.input.stored(split, sample)? };
        let size = [self.strategy.preprocess.height, self.strategy.preprocess.width];
        let truth = PixelTruth::of(&sample, self.task, size)?;
        let (truth, truth_turn) = match self.turns_truth {
            true => (truth.turned(turn, self.task), Turn::NONE),
            false => (truth, turn),
        };
        if known || !self.prepares_images {
            let images = (!known).then_some(sample.images);
            let images_turn = Some(turn);
            return Ok(MapItem { place, name: sample.name, images, images_turn, truth, truth_turn });
        }
        let images = self.input.prepared(&self.strategy.preprocess, sample.images)?;
        let sample = Sample { images, ..sample }.turned(|pixels| turn.image(pixels));
        let (name, images) = (sample.name, Some(sample.images));
        Ok(MapItem { place, name, images, images_turn: None, truth, truth_turn })
    }
}

/// Streams of a seed's random numbers: epoch e draws its order from `STREAMS` + 2 e and what is dropped from the
/// next one. Those below are of the head's initialisation and of [`subset`].
const STREAMS: u64 = 2;

/// Whether all numbers are finite, and their sum is.
fn is_finite<const D: usize>(x: &Tensor<D>) -> bool {
    scalar(x.clone().sum()).is_finite()
}

fn scalar(x: Tensor<1>) -> f64 {
    let numbers = x.into_data().convert::<f32>().try_into_vec::<f32>().expect("converted to float32");
    numbers.into_iter().map(f64::from).sum()
}
