//! UPerNet on an encoder's feature maps, as Copernicus-Bench trains it [zhu-xlab/Copernicus-FM, Copernicus-Bench/src]:
//! for each of a list of learning rates; the epoch that is best on validation, over all of them, is tested.
//!
//! The encoder is frozen or trained along. Masks keep their stored size, and logits are resized to it, so that no
//! label is invented; images are resized to the model's input.
//!
//! Where a sample has two dates, the maps are the later date's minus the earlier one's, as in the reference's change detection.
//!
//! Of classes per pixel the loss is cross-entropy, of numbers (normalised by the task's statistics) the absolute error
//! [ViTRegression of its foundation_models]; `pixels.rs` has what differs.
//!
//! The epoch is chosen by the mean over batches that the reference logs; the record's value is the mean IoU (or the error) of
//! all test pixels, and the mean over test batches is its score `reported_miou` (`reported_rmse`).
//!
//! What differs from the reference: the random numbers, masks that keep their size, and that batches in which no pixel
//! counts are passed over. Every epoch has its snapshot, from which a killed run goes on.

mod change;
mod encoder;
mod pixels;

use burn::module::Module;
use burn::tensor::Tensor;
use ndarray::Array2;
use rand::seq::SliceRandom;

use self::change::View;
use self::encoder::{ImageKey, MapItem, MapSource};
use self::pixels::{BatchTruth, PixelScores, PixelTruth};
use super::finetune::Subject;
use crate::config::{EncoderUse, UpernetConfig};
use crate::data::{Split, loader};
use crate::features::{Input, Preparation};
use crate::model::Architecture;
use crate::model::encoder::Map;
use crate::nn::heads::layers::Pass;
use crate::nn::heads::upernet::UperNet;
use crate::random::{stream, turn};
use crate::score::decision::first_best;
use crate::score::subset::subset;
use crate::score::{Outcome, Shown, outcome};
use crate::task::Task;
use crate::train::optim::{self, Pace, Rule};
use crate::train::schedule::Position;
use crate::train::snapshot::Snapshot;
use crate::train::state::{self, State};
use crate::transform::augment::Turn;
use crate::{Error, Result};

/// The head, and the encoder where it is trained along.
#[derive(Module, Debug)]
pub struct Network {
    encoder: Option<Architecture>,
    head: UperNet,
}

/// Trains on the train split and scores the test split. Goes on from the snapshot where there is one.
///
/// # Errors
/// Where a sample cannot be read or its mask does not fit, a snapshot cannot be written, no pixel of validation or
/// test counts, or every learning rate diverges.
pub fn run(config: &UpernetConfig, seed: u64, subject: &Subject) -> Result<Outcome> {
    let mut search = Search::new(config, seed, subject);
    search.resume();
    while search.scores.len() < config.learning_rates.len() * config.epochs {
        search.epoch()?;
    }
    search.outcome()
}

fn tensors(maps: Vec<Map>) -> Vec<Tensor<4>> {
    maps.into_iter().map(|map| map.values).collect()
}

/// Where a search over learning rates stands.
struct Search<'a> {
    config: &'a UpernetConfig,
    seed: u64,
    subject: &'a Subject<'a>,
    /// Where it is frozen.
    encoder: Option<MapSource>,
    /// Validation scores of the finished epochs, learning rate by learning rate; none once one diverged.
    scores: Vec<Option<f64>>,
    /// The network after the best of them.
    best: State,
    /// The learning rate under way.
    training: Option<Training>,
    /// Whether it was told what the maps take.
    told: bool,
}

struct Training {
    network: Network,
    optimizer: optim::Optimizer,
}

impl<'a> Search<'a> {
    fn new(config: &'a UpernetConfig, seed: u64, subject: &'a Subject<'a>) -> Self {
        let plain = subject.device.clone().inner();
        let encoder = (config.encoder == EncoderUse::Frozen).then(|| {
            MapSource::keeping(subject.encoder.valid(), View::of(subject.input), plain, subject.cache_limit)
        });
        Search {
            config,
            seed,
            subject,
            encoder,
            scores: Vec::new(),
            best: State::new(),
            training: None,
            told: false,
        }
    }

    fn start(&self) -> Result<Training> {
        let Subject { encoder, maps, device, task, .. } = self.subject;
        let head = UperNet::new(&self.config.head, maps, task.classes, self.seed, device)?;
        let encoder = self.encoder.is_none().then(|| encoder.clone().fork(device));
        let (rule, _) = Rule::of(self.config.optimizer);
        Ok(Training { network: Network { encoder, head }, optimizer: optim::Optimizer::new(rule) })
    }

    /// Takes up what the snapshot holds. One that is damaged counts as none.
    fn resume(&mut self) {
        let path = &self.subject.snapshot;
        match Snapshot::load(path).and_then(|snapshot| snapshot.map(|s| self.restored(s)).transpose()) {
            Ok(None) => {}
            Ok(Some((scores, best, training))) => {
                let line = format!("goes on after {} epochs", scores.len());
                self.subject.progress.note(&line);
                (self.scores, self.best, self.training) = (scores, best, Some(training));
            }
            Err(error) => {
                let line = format!("starts anew: {}: {error}", path.display());
                self.subject.progress.note(&line);
            }
        }
    }

    fn restored(&self, snapshot: Snapshot) -> Result<(Vec<Option<f64>>, State, Training)> {
        let Snapshot { rate, epochs, valid, best, network, optimizer } = snapshot;
        let all = self.config.learning_rates.len() * self.config.epochs;
        if rate * self.config.epochs + epochs != valid.len() || valid.len() > all {
            return Err(Error::request("is of another search"));
        }
        let start = self.start()?.network;
        if !best.is_empty() {
            state::load(start.clone(), &best)?;
        }
        let network = state::load(start, &network)?;
        let plain = self.subject.device.clone().inner();
        let (rule, _) = Rule::of(self.config.optimizer);
        let optimizer = optim::Optimizer::resume(rule, &optimizer, &plain)?;
        Ok((valid, best, Training { network, optimizer }))
    }

    /// Trains the next epoch and scores it on validation.
    fn epoch(&mut self) -> Result<()> {
        let (epochs, done) = (self.config.epochs, self.scores.len());
        let (rate, epoch) = (done / epochs, done % epochs);
        let training = match self.training.take() {
            Some(training) if epoch > 0 => training,
            _ => self.start()?,
        };
        let learning_rate = self.config.learning_rates[rate];
        let name = format!("learning rate {learning_rate}, epoch {} of {epochs}", epoch + 1);
        let (training, loss) = self.train(training, learning_rate, epoch, &name)?;
        let network = state::state(&training.network);
        let images = match loss.is_finite() && state::is_finite(&network) {
            true => self.evaluate(&training.network, Split::Valid, |_, _| {})?,
            false => None,
        };
        let Some(images) = images else {
            self.subject.progress.note(&format!("{name}: diverged"));
            self.scores.resize((rate + 1) * epochs, None);
            return Ok(());
        };
        let score = images.over_batches(self.subject.task.metric, self.config.batch_size)?;
        self.tell_of_memory();
        tracing::debug!(loss, score, "{name}");
        self.scores.push(Some(score));
        if self.chosen().is_some_and(|(chosen, _)| chosen == done) {
            self.best = network.clone();
        }
        let snapshot = Snapshot {
            rate: self.scores.len() / epochs,
            epochs: self.scores.len() % epochs,
            valid: self.scores.clone(),
            best: self.best.clone(),
            network,
            optimizer: training.optimizer.state(),
        };
        snapshot.save(&self.subject.snapshot)?;
        self.training = Some(training);
        Ok(())
    }

    /// Once, after the first epoch of this run: by then most maps are there.
    fn tell_of_memory(&mut self) {
        if !std::mem::replace(&mut self.told, true)
            && let Some(line) = self.encoder.as_ref().and_then(MapSource::told)
        {
            self.subject.progress.note(&line);
        }
    }

    /// The place of the best epoch, the first of equal ones, and its score.
    fn chosen(&self) -> Option<(usize, f64)> {
        let better = self.subject.task.metric.better();
        let place = first_best(better, self.scores.iter().map(|score| score.unwrap_or(f64::NAN)))?;
        Some((place, self.scores[place]?))
    }

    /// One epoch over the train split; the mean loss, not finite where the training diverged.
    ///
    /// Samples that fill no whole batch are left out, as in the reference; where all of them do not, they are the batch.
    fn train(
        &self,
        training: Training,
        learning_rate: f64,
        epoch: usize,
        name: &str,
    ) -> Result<(Training, f64)> {
        let (config, subject) = (self.config, self.subject);
        let mut order = self.samples(Split::Train);
        let size = config.batch_size.min(order.len());
        if size < 2 {
            return Err(Error::request(format!(
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
        let step = subject.progress.begin(name, order.len());
        let (_, momentum) = Rule::of(config.optimizer);
        let Training { mut network, mut optimizer } = training;
        loader::ordered(order.len(), subject.readers, 2 * size, read, |mut items| {
            let (mut total, mut counted, mut empty) = (0.0, 0_u32, 0);
            for batch in 0..batches {
                let items: Vec<MapItem> = items.by_ref().take(size).collect::<Result<_>>()?;
                let truth = BatchTruth::new(&items, subject.task, &subject.device)?;
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
                total += scalar(loss);
                counted += 1;
                if !f64::is_finite(total) {
                    break;
                }
                let position = Position { epoch, epochs: config.epochs, batch, batches };
                let rates = config.schedule.at(learning_rate, position);
                let pace =
                    Pace { learning_rate: rates.learning_rate, momentum: rates.momentum.unwrap_or(momentum) };
                network = optimizer.step(network, &mut gradients, pace);
            }
            if empty > 0 && subject.task.target.is_numeric() {
                let line =
                    format!("{name}: {empty} of {batches} batches passed over, nothing is measured in them");
                subject.progress.note(&line);
            }
            Ok((Training { network, optimizer }, total / f64::from(counted.max(1))))
        })
    }

    /// The maps of a batch for training, on the device with autodiff.
    fn maps(&self, network: &Network, items: &[MapItem]) -> Result<Vec<Map>> {
        match (&self.encoder, &network.encoder) {
            (Some(frozen), _) => {
                let onto = |map: Map| Map { values: Tensor::from_inner(map.values), ..map };
                Ok(frozen.maps(items)?.into_iter().map(onto).collect())
            }
            (None, Some(encoder)) => {
                let images = encoder::images(items.iter(), &self.subject.device)?;
                View::of(self.subject.input).maps(encoder, images)
            }
            (None, None) => Err(Error::request("the network has no encoder")),
        }
    }

    fn samples(&self, split: Split) -> Vec<usize> {
        subset(self.subject.input.dataset.samples(split).len(), self.config.limit)
    }

    fn reader(&self) -> Reader<'_> {
        let Subject { input, strategy, task, .. } = self.subject;
        let encoder = self.encoder.as_ref();
        Reader { input, strategy, task, encoder }
    }

    /// For each image of a split what the network predicts, against its pixels; nothing where the network diverged: a
    /// feature map of a trained encoder or a logit is not finite. `shown` sees each predicted mask [h, w] with the
    /// image's place among those used.
    fn evaluate(
        &self,
        network: &Network,
        split: Split,
        mut shown: impl FnMut(usize, Array2<i32>),
    ) -> Result<Option<PixelScores>> {
        let subject = self.subject;
        let network = network.valid();
        let trained = network
            .encoder
            .map(|encoder| MapSource::new(encoder, View::of(subject.input), subject.device.clone().inner()));
        let encoder = (self.encoder.as_ref().or(trained.as_ref()))
            .ok_or_else(|| Error::request("the network has no encoder"))?;
        let samples = self.samples(split);
        let step = subject.progress.begin(&split.to_string(), samples.len());
        let reader = self.reader();
        let read = |i: usize| reader.item(split, samples[i], Turn::NONE);
        let mut scores = PixelScores::new(subject.task.target);
        let finite =
            loader::ordered(samples.len(), subject.readers, 2 * subject.batch_size, read, |mut items| {
                loop {
                    let items: Vec<MapItem> =
                        items.by_ref().take(subject.batch_size).collect::<Result<_>>()?;
                    if items.is_empty() {
                        return Ok(true);
                    }
                    let maps = encoder.maps(&items)?;
                    // A frozen encoder's maps were looked at when they were made; a relu may hide NaN from the logits.
                    if self.encoder.is_none() && !maps.iter().all(|map| is_finite(&map.values)) {
                        return Ok(false);
                    }
                    let logits = network.head.forward(tensors(maps), &mut Pass::Eval)?.decoder;
                    if !is_finite(&logits) {
                        return Ok(false);
                    }
                    for (i, item) in items.iter().enumerate() {
                        let image = scores.len();
                        if let Some(mask) =
                            scores.add(logits.clone().narrow(0, i, 1), &item.truth, subject.task)?
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
        let (config, task) = (self.config, self.subject.task);
        let Some((chosen, valid)) = self.chosen() else {
            return Err(Error::not_finite("UPerNet diverged with every learning rate")
                .help("check the weights and the normalisation"));
        };
        let network = state::load(self.start()?.network, &self.best)?;
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
        let rates = config.learning_rates.iter().zip(self.scores.chunks(config.epochs));
        let diverged = rates.filter(|(_, scores)| scores.contains(&None)).map(|(rate, _)| rate);
        let mut outcome = images.outcome(task, &config.interval, self.seed)?.with_diverged(diverged);
        let reported = images.over_batches(task.metric, config.batch_size)?;
        outcome.scores.insert(format!("reported_{}", task.metric), reported);
        outcome.scoring.report_batch = Some(config.batch_size);
        outcome.selected.extend([
            ("encoder".to_owned(), config.encoder.to_string()),
            ("learning-rate".to_owned(), config.learning_rates[chosen / config.epochs].to_string()),
            ("epoch".to_owned(), format!("{} of {}", chosen % config.epochs + 1, config.epochs)),
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
    /// Where it is frozen.
    encoder: Option<&'a MapSource>,
}

impl Reader<'_> {
    /// A sample, turned; with its image only where the encoder does not know its maps.
    fn item(&self, split: Split, sample: usize, turn: Turn) -> Result<MapItem> {
        // A free angle does not come again.
        let place = turn.degrees.is_none().then_some(ImageKey { split, sample, turn: turn.dihedral });
        let known = self.encoder.zip(place).is_some_and(|(encoder, place)| encoder.knows(place));
        let sample = if known {
            self.input.dataset.read(split, sample, &self.input.selection.stored[..1])?
        } else {
            self.input.stored(split, sample)?
        };
        let truth = PixelTruth::of(&sample, self.task)?.turned(turn, self.task);
        let image =
            if known { None } else { Some(turn.image(self.strategy.preprocess.apply(sample.image)?)) };
        Ok(MapItem { place, name: sample.name, image, truth })
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
