//! Encoding of a split's samples, in batches read ahead while the device computes.

use std::collections::VecDeque;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use ndarray::Array2;
use serde::Serialize;

use super::batch_size::BatchSize;
use super::cache::{self, About};
use super::feed::Feed;
use super::images::StoredBatch;
use super::input::{Input, Preparation};
use super::stages::{Stage, timed};
use super::{FEATURES_VERSION, Features, check_finite, images, in_flight};
use crate::data::{Sample, Split, Target, loader};
use crate::device::{self, Precision};
use crate::model::config::{DecidingModel, ModelConfig};
use crate::model::remote::{Pending, RemoteEncoder};
use crate::model::{Encoder, Pooling, Want};
use crate::task::{Combine, Metadata, Sensor};
use crate::transform::Preprocess;
use crate::transform::augment::Dihedral;
use crate::{Error, Result};

/// Identifies an encoder in the cache key of its features.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The model's configuration.
    pub model: &'a ModelConfig,
    /// [`crate::model::LoadedModel::weights_id`].
    pub weights: &'a str,
    /// The device as on the command line. Rounding differs between kinds of devices ([`device::kind`]).
    pub device: &'a str,
    /// The number format in which the encoder computes.
    pub precision: Precision,
}

/// Samples that are read ahead at least while the batch size still grows.
pub(super) const READ_AHEAD: usize = 64;

/// An encoder on one of several devices.
pub struct Replica {
    /// The encoder.
    pub encoder: Box<dyn Encoder>,
    /// The device that holds it.
    pub device: Device,
}

/// Turns samples on disk into feature vectors.
pub struct Extractor<'a> {
    /// The encoder to run.
    pub encoder: &'a dyn Encoder,
    /// The device that holds the encoder.
    pub device: &'a Device,
    /// The same encoder on further devices, which share the batches.
    pub further: &'a [Replica],
    /// The samples to encode.
    pub input: &'a Input,
    /// One of the input's strategies.
    pub strategy: &'a Preparation,
    /// The flip or rotation applied to each image.
    pub turn: Dihedral,
    /// Samples per batch.
    pub batch_size: BatchSize,
    /// Number of threads that read and preprocess.
    pub readers: usize,
}

impl<'a> Extractor<'a> {
    /// Returns the length d of a feature vector.
    pub fn width(&self) -> usize {
        self.input.spec().width(self.encoder)
    }

    /// Encodes the samples at `indices` of a split and hands each batch's features to `take`, in order. Returns the
    /// time spent in the encoder.
    ///
    /// Memory: at most two batches of images, and those in the encoder's hands: one, or as many as it likes to have.
    ///
    /// # Errors
    /// If a sample cannot be read, a feature is not finite, or `take` fails.
    pub fn extract(
        &self,
        split: Split,
        indices: &[usize],
        take: &mut dyn FnMut(Features) -> Result<()>,
    ) -> Result<Duration> {
        if !self.further.is_empty() {
            return self.extract_on_all(split, indices, take);
        }
        let feed = Feed::new(self, &self.strategy.preprocess, self.turn);
        let read = |i: usize| feed.read(split, indices[i]);
        let in_flight = in_flight(self.encoder, self.device);
        let mut busy = Duration::ZERO;
        // A batch size that still grows may reach several times its present one.
        let images = self.batch_size.images();
        let ahead = match self.batch_size.is_settled() {
            // The CPU reads and computes by turns: the next batch ready is enough.
            true if device::is_host(self.device) => images + self.readers,
            true => 2 * images,
            false => 2 * images.max(READ_AHEAD),
        };
        loader::ordered(indices.len(), self.readers, ahead, read, |mut samples| {
            let mut launched = VecDeque::new();
            let mut last_end = Instant::now();
            loop {
                let size = self.batch_size.images();
                let batch: Vec<Sample> =
                    timed(Stage::WaitForSamples, || samples.by_ref().take(size).collect::<Result<_>>())?;
                let is_last = batch.is_empty();
                match self.encoder.remote() {
                    _ if is_last => {}
                    Some(remote) => launched.push_back(self.pass_on(&feed, remote, batch)?),
                    None => self.launch_fitting(&feed, &batch, None, &mut launched)?,
                }
                while (launched.len() >= in_flight || is_last)
                    && let Some(oldest) = launched.pop_front()
                {
                    let (features, time) = self.finish(split, oldest)?;
                    busy += time;
                    self.batch_size.note(features.samples.len(), last_end.elapsed());
                    last_end = Instant::now();
                    take(features)?;
                }
                if is_last {
                    return Ok(());
                }
            }
        })?;
        Ok(busy)
    }

    /// Like [`Extractor::extract`] on several devices of one kind: each has a thread, to which batches are dealt in turn.
    fn extract_on_all(
        &self,
        split: Split,
        indices: &[usize],
        take: &mut dyn FnMut(Features) -> Result<()>,
    ) -> Result<Duration> {
        let further = self.further.iter().map(|other| (other.encoder.as_ref(), &other.device));
        let all: Vec<Extractor> = std::iter::once((self.encoder, self.device))
            .chain(further)
            .map(|(encoder, device)| Extractor { encoder, device, further: &[], ..self.same() })
            .collect();
        let feeds: Vec<Feed> =
            all.iter().map(|one| Feed::new(one, &one.strategy.preprocess, one.turn)).collect();
        // All devices are of one kind, so any feed reads for all.
        let read = |i: usize| feeds[0].read(split, indices[i]);
        let size = self.batch_size.images();
        let ahead = (all.len() + 1) * size;
        loader::ordered(indices.len(), self.readers, ahead, read, |mut samples| {
            std::thread::scope(|scope| {
                let workers: Vec<_> = all
                    .iter()
                    .zip(&feeds)
                    .map(|(one, feed)| {
                        // One batch waits while another is computed.
                        let (batches, queue) = sync_channel::<Vec<Sample>>(1);
                        let (sender, done) = sync_channel(2);
                        scope.spawn(move || {
                            for batch in queue {
                                let result = one.encode_whole(feed, split, &batch);
                                if sender.send(result).is_err() {
                                    break;
                                }
                            }
                        });
                        (batches, done)
                    })
                    .collect();
                let mut busy = Duration::ZERO;
                let (mut dealt, mut taken) = (0, 0);
                loop {
                    let batch: Vec<Sample> =
                        timed(Stage::WaitForSamples, || samples.by_ref().take(size).collect::<Result<_>>())?;
                    let is_last = batch.is_empty();
                    if !is_last {
                        // A worker that is gone has sent an error before, or panicked, which the scope passes on.
                        if workers[dealt % workers.len()].0.send(batch).is_err() {
                            return Err(Error::device("a device stopped in the middle of the work"));
                        }
                        dealt += 1;
                    }
                    while taken < dealt && (is_last || dealt - taken > workers.len()) {
                        let result = workers[taken % workers.len()].1.recv();
                        let parts = result
                            .map_err(|_| Error::device("a device stopped in the middle of the work"))?;
                        taken += 1;
                        for (features, time) in parts? {
                            busy += time;
                            take(features)?;
                        }
                    }
                    if is_last {
                        return Ok(busy);
                    }
                }
            })
        })
    }

    /// This extractor again.
    fn same(&self) -> Self {
        Extractor { batch_size: self.batch_size.clone(), ..*self }
    }

    /// Encodes a batch and waits for its features, in parts if it does not fit into the device's memory at once.
    fn encode_whole(&self, feed: &Feed, split: Split, batch: &[Sample]) -> Result<Vec<(Features, Duration)>> {
        let mut launched = VecDeque::new();
        self.launch_fitting(feed, batch, None, &mut launched)?;
        launched.into_iter().map(|part| self.finish(split, part)).collect()
    }

    /// Starts to encode a batch of samples of `feed`, in parts if it does not fit into the device's memory at once. `stored` are
    /// the batch's images if they are uploaded.
    pub(super) fn launch_fitting(
        &self,
        feed: &Feed,
        batch: &[Sample],
        stored: Option<&StoredBatch>,
        launched: &mut VecDeque<BatchInFlight<'a>>,
    ) -> Result<()> {
        if device::is_host(feed.device()) {
            launched.push_back(self.launch(feed, batch, stored)?);
            return Ok(());
        }
        match device::quietly(|| self.launch(feed, batch, stored)) {
            Ok(done) => launched.push_back(done?),
            Err(problem) if device::is_out_of_memory(&problem) && batch.len() > 1 => {
                self.batch_size.note_too_large(batch.len());
                let (first, second) = batch.split_at(batch.len() / 2);
                self.launch_fitting(feed, first, None, launched)?;
                self.launch_fitting(feed, second, None, launched)?;
            }
            Err(problem) => {
                let error = Error::device(format!("the device failed on {} images: {problem}", batch.len()));
                return Err(error.help("use a smaller --batch-size, or --device flex"));
            }
        }
        Ok(())
    }

    /// Starts to encode a batch of samples of `feed`.
    fn launch(
        &self,
        feed: &Feed,
        batch: &[Sample],
        stored: Option<&StoredBatch>,
    ) -> Result<BatchInFlight<'a>> {
        let images = match stored {
            Some(stored) => feed.batch_of(stored)?,
            None => feed.batch(images::of_samples(batch))?,
        };
        let (samples, labels) =
            batch.iter().map(|sample| (sample.name.clone(), sample.target.clone())).unzip();
        let start = Instant::now();
        let spec = feed.spec();
        let want = Want::Pooled(spec.pooling);
        let pending = timed(Stage::Encode, || spec.begin(self.encoder, images, want))?;
        Ok(BatchInFlight { samples, labels, pending, busy: start.elapsed() })
    }

    /// Starts to encode a batch in another process, which is given the samples' pixels from where they are.
    fn pass_on(
        &self,
        feed: &Feed,
        remote: &'a dyn RemoteEncoder,
        batch: Vec<Sample>,
    ) -> Result<BatchInFlight<'a>> {
        let spec = feed.spec();
        let (images, (samples, labels)): (Vec<_>, (Vec<_>, Vec<_>)) =
            batch.into_iter().map(|sample| (sample.images, (sample.name, sample.target))).unzip();
        let images = images::unstacked(spec, images)?;
        let start = Instant::now();
        let begin = || spec.begin_unstacked(remote, images, Want::Pooled(spec.pooling));
        let pending = timed(Stage::Encode, begin)?;
        Ok(BatchInFlight { samples, labels, pending, busy: start.elapsed() })
    }

    /// Returns the features of a batch, and the time that was spent in the encoder or waiting for it.
    pub(super) fn finish(&self, split: Split, batch: BatchInFlight) -> Result<(Features, Duration)> {
        let BatchInFlight { samples, labels, pending, busy } = batch;
        let (width, n) = (self.width(), samples.len());
        let start = Instant::now();
        let vectors = timed(Stage::WaitForDevice, || Ok::<_, Error>(pending()?.pooled()?.into_data()))?;
        let vectors = vectors.convert::<f32>().try_into_vec::<f32>().map_err(|error| {
            Error::mismatch(format!("the device returned features that are not float32: {error:?}"))
        })?;
        let time = busy + start.elapsed();
        let numbers = vectors.len();
        let matrix = Array2::from_shape_vec((n, width), vectors).map_err(|_| {
            let first = samples.first().map_or("", String::as_str);
            let found = match numbers.is_multiple_of(n.max(1)) {
                true => format!("[{n}, {}]", numbers / n.max(1)),
                false => format!("{numbers} numbers"),
            };
            Error::mismatch(format!(
                "{split}, the batch that begins with {first}: expected features [{n}, {width}] from the model, found {found}"
            ))
            .help("an encoder must give vectors of one length for all images of a task")
        })?;
        for (name, vector) in samples.iter().zip(matrix.rows()) {
            check_finite(format_args!("{split} {name}"), vector)?;
        }
        Ok((Features { samples, matrix, labels }, time))
    }

    /// Returns the cache key: a hash of everything that affects a feature except the sample.
    ///
    /// # Errors
    /// If a value cannot be written as JSON.
    pub fn key(&self, identity: Identity) -> Result<String> {
        #[derive(Serialize)]
        struct Ingredients<'a> {
            version: u32,
            form: u32,
            decoding: String,
            model: DecidingModel<'a>,
            weights: &'a str,
            device: &'a str,
            #[serde(skip_serializing_if = "Precision::is_f32")]
            precision: Precision,
            sensor: Sensor,
            /// The sensor of each image if they differ, else empty.
            #[serde(skip_serializing_if = "Vec::is_empty")]
            sensors: Vec<Sensor>,
            #[serde(skip_serializing_if = "Combine::is_unwritten")]
            combine: Option<Combine>,
            pooling: Pooling,
            bands: &'a [String],
            preprocess: &'a Preprocess,
            turn: Dihedral,
            #[serde(skip_serializing_if = "Metadata::is_empty")]
            metadata: Metadata,
        }
        let Input { dataset, images, task, .. } = self.input;
        let mut sensors: Vec<Sensor> = images.iter().map(|image| image.sensor).collect();
        let sensor = sensors.first().copied().unwrap_or(task.input_sensor);
        if sensors.iter().all(|other| *other == sensor) {
            sensors.clear();
        }
        let ingredients = Ingredients {
            version: FEATURES_VERSION,
            form: cache::FORM,
            decoding: dataset.decoding().hash(),
            model: identity.model.deciding(),
            weights: identity.weights,
            device: device::kind(identity.device),
            precision: identity.precision,
            sensor,
            sensors,
            combine: task.combine,
            pooling: self.input.pooling,
            bands: &self.input.channel_names(),
            preprocess: &self.strategy.preprocess,
            turn: self.turn,
            metadata: self.input.metadata,
        };
        let json = serde_json::to_vec(&ingredients)
            .map_err(|error| Error::mismatch(format!("the settings cannot be written as JSON: {error}")))?;
        Ok(blake3::hash(&json).to_hex()[..32].to_owned())
    }

    pub(super) fn about(&self, identity: Identity) -> About {
        let model = identity.model;
        About {
            task: self.input.task.name.clone(),
            model: format!("{} {}", model.name, model.backbone),
            weights: identity.weights.to_owned(),
            normalization: self.strategy.name.clone(),
            device: identity.device.to_owned(),
        }
    }
}

/// Samples in an encoder's hands.
pub(super) struct BatchInFlight<'a> {
    samples: Vec<String>,
    labels: Vec<Target>,
    pending: Pending<'a>,
    /// Time spent in the encoder so far.
    busy: Duration,
}
