//! What every protocol offers, and what it is given.

use std::path::PathBuf;

use burn::tensor::Device;

use super::Accelerator;
use crate::config::TrainingConfig;
use crate::features::feed::DeviceFeed;
use crate::features::source::FeatureSource;
use crate::features::{Input, Preparation};
use crate::model::{Architecture, Pooling, Want};
use crate::nn::heads::upernet::MapLevel;
use crate::progress::Progress;
use crate::score::Outcome;
use crate::task::{Metric, Split, TargetKind, Task};
use crate::{Error, Result};

/// A way to score features or an encoder on a task, with all its hyper-parameters.
pub trait Protocol: Send + Sync {
    /// What it takes of a model.
    fn needs(&self) -> Needs;

    /// The kinds of targets that it can score.
    fn targets(&self) -> &'static [TargetKind];

    /// Why it cannot score `task`, although the kind of target fits.
    fn misfit(&self, _task: &Task) -> Option<String> {
        None
    }

    /// The metric that a record of `task` holds.
    fn metric(&self, task: &Task) -> Metric {
        task.metric
    }

    /// The splits whose samples decide its number.
    fn splits(&self) -> &'static [Split] {
        &Split::ALL
    }

    /// Whether it needs features of flipped or rotated training images.
    fn turns_images(&self) -> bool {
        false
    }

    /// How many training samples vote, if that can be more than there are.
    fn neighbours(&self) -> Option<usize> {
        None
    }

    /// The training over learning rates, if it is one: the command line may shorten it.
    fn training(&self) -> Option<&TrainingConfig> {
        None
    }

    /// Like [`Protocol::training`], to change it.
    fn training_mut(&mut self) -> Option<&mut TrainingConfig> {
        None
    }

    /// Takes the settings that `task` has of its own, before anything is planned, so that records state these.
    fn suit(&mut self, _task: &str) {}

    /// Drops what decides no number on `task`: settings of other tasks.
    fn keep_deciding(&mut self, _task: &str) {}

    /// Why a value is out of its range.
    fn problem(&self) -> Option<String>;

    /// Scores one cell.
    ///
    /// # Errors
    /// If features cannot be had, a snapshot cannot be written, or no candidate has finite numbers.
    fn run(&self, session: Session<'_>) -> Result<Outcome>;
}

/// What a protocol takes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// One vector per image.
    Pooled,
    /// Patch tokens.
    Tokens,
    /// Four feature maps.
    Maps,
    /// The model's parameters, and one vector per image.
    TrainablePooled,
    /// The model's parameters, and four feature maps.
    TrainableMaps,
}

impl Needs {
    /// Whether the model is trained along.
    pub fn trains_encoder(self) -> bool {
        matches!(self, Needs::TrainablePooled | Needs::TrainableMaps)
    }

    /// Returns what is wanted of the encoder; `pooling` says how its tokens become one vector.
    pub fn want(self, pooling: Pooling) -> Want {
        match self {
            Needs::Pooled | Needs::TrainablePooled => Want::Pooled(pooling),
            Needs::Tokens => Want::Tokens,
            Needs::Maps | Needs::TrainableMaps => Want::Maps,
        }
    }

    /// Whether images are scored by one vector each, and not their pixels.
    pub fn is_pooled(self) -> bool {
        matches!(self, Needs::Pooled | Needs::TrainablePooled)
    }

    /// Whether the protocol trains with gradients, an encoder or a head on its maps.
    pub fn takes_setup(self) -> bool {
        !matches!(self, Needs::Pooled | Needs::Tokens)
    }
}

/// One cell to score.
pub struct Session<'a> {
    /// The task to score.
    pub task: &'a Task,
    /// The seed of all that is drawn: initial weights, orders, resamples.
    pub seed: u64,
    /// Features of the encoder as it was loaded; none if the protocol trains the encoder.
    pub source: Option<&'a mut dyn FeatureSource>,
    /// For protocols that train with gradients.
    pub setup: Option<TrainingSetup<'a>>,
    /// A GPU for arithmetic on many features.
    pub accelerator: Option<Accelerator>,
}

impl<'a> Session<'a> {
    /// Takes the feature source.
    ///
    /// # Errors
    /// If there is none.
    pub fn take_source(&mut self) -> Result<&'a mut dyn FeatureSource> {
        self.source
            .take()
            .ok_or_else(|| Error::mismatch("this protocol needs features, and no source was given"))
    }

    /// Takes the setup for training.
    ///
    /// # Errors
    /// If there is none.
    pub fn take_setup(&mut self) -> Result<TrainingSetup<'a>> {
        let missing = || Error::mismatch("this protocol trains with gradients, and no setup was given");
        self.setup.take().ok_or_else(missing)
    }
}

/// Everything that a training with gradients needs beside its protocol: data, model, device, snapshot.
pub struct TrainingSetup<'a> {
    /// The task to score.
    pub task: &'a Task,
    /// Its files, opened, and what happens to their pixels.
    pub input: &'a Input,
    /// One of the input's.
    pub strategy: &'a Preparation,
    /// On `device`; none if the encoder is not trained.
    pub encoder: Option<Architecture>,
    /// The maps that the encoder gives.
    pub maps: Vec<MapLevel>,
    /// With autodiff.
    pub device: Device,
    /// Whether the device prepares and turns images and masks, and nothing waits for it in a step. Affects numbers only in
    /// their last digits.
    pub on_device: bool,
    /// Images that are on the device together.
    pub batch_size: usize,
    /// Threads that read and preprocess.
    pub readers: usize,
    /// The file of the last snapshot of the training.
    pub snapshot: PathBuf,
    /// Who is told how far the training is.
    pub progress: &'a dyn Progress,
}

impl TrainingSetup<'_> {
    /// Makes the batches of a training whose device prepares images.
    pub(crate) fn feed(&self) -> Option<DeviceFeed> {
        self.on_device.then(|| DeviceFeed::new(self.input, &self.strategy.preprocess, &self.device))
    }

    /// The encoder that is trained.
    ///
    /// # Errors
    /// If there is none.
    pub fn trained(&self) -> Result<&Architecture> {
        self.encoder.as_ref().ok_or_else(|| Error::mismatch("no encoder was given to train"))
    }
}
