//! One epoch of training on images: gradients over the parts of a batch, accumulation over batches, clipping, schedule,
//! optimiser step.

use std::borrow::Borrow;

use burn::module::Module;
use burn::tensor::activation::{log_sigmoid, log_softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use super::gradients::FlatGradients;
use super::losses::Losses;
use super::optim::{Optimizer, Pace};
use super::schedule::Position;
use crate::config::Schedule;
use crate::data::{Sample, Target};
use crate::device::prefers_single_images;
use crate::score::Targets;
use crate::transform::augment::Turn;
use crate::{Error, Result};

/// A sample to train on.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSample {
    /// The sample.
    pub sample: Sample,
    /// For images as stored: how the device turns them once it has preprocessed them.
    pub turn: Option<Turn>,
}

impl Borrow<Sample> for TrainingSample {
    fn borrow(&self) -> &Sample {
        &self.sample
    }
}

impl From<Sample> for TrainingSample {
    /// A sample with prepared images.
    fn from(sample: Sample) -> Self {
        TrainingSample { sample, turn: None }
    }
}

/// A trainable network that maps samples to logits.
pub trait Classifier: Module + Send + Sync {
    /// The logits [n, outputs] of n samples, whose images are put on `device`.
    ///
    /// # Errors
    /// If the images do not suit the network.
    fn logits(&self, samples: &[TrainingSample], device: &Device) -> Result<Tensor<2>>;
}

/// How to train an epoch. `at_once` and `device` affect numbers only in their last digits.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Number of epochs in the whole training, which the schedule needs.
    pub epochs: usize,
    /// Samples per batch. The loss is the mean over a batch, and the schedule counts batches.
    pub batch_size: usize,
    /// Batches per optimiser step. The gradient is the mean over this number, even if an epoch ends with fewer.
    pub accumulated: usize,
    /// Gradients with a larger Euclidean norm are scaled down to this norm.
    pub clip_norm: f64,
    /// The schedule of the learning rate.
    pub schedule: Schedule,
    /// The highest learning rate of the schedule.
    pub learning_rate: f64,
    /// SGD's momentum or AdamW's beta1, unless the schedule cycles it.
    pub momentum: f64,
    /// Number of classes, or of labels that may apply together.
    pub outputs: usize,
    /// Number of images on the device at the same time.
    pub at_once: usize,
    /// The device, with autodiff.
    pub device: Device,
    /// Whether losses and norms stay on the device, so that no step waits for it.
    pub is_deferred: bool,
}

/// Images per graph on the CPU. Graphs run in parallel, one per thread, because a tensor operation other than a product
/// uses only one thread; each graph costs a sum over all parameters. The number is fixed so that sums do not depend on the
/// number of threads.
const IMAGES_A_GRAPH: usize = 4;

/// Trains `network` for its `epoch` (counted from 0) on `count` samples, given in the order of the epoch. Returns it with
/// the mean loss. If the loss is not finite, the training has diverged and the epoch was stopped early.
///
/// # Errors
/// If a sample cannot be read, or its label does not fit.
pub fn epoch<N: Classifier, S: Into<TrainingSample>>(
    mut network: N,
    optimizer: &mut Optimizer,
    recipe: &Recipe,
    epoch: usize,
    count: usize,
    samples: impl Iterator<Item = Result<S>>,
    advance: &mut dyn FnMut(usize),
) -> Result<(N, f64)> {
    let Recipe { batch_size, accumulated, .. } = *recipe;
    let batches = count.div_ceil(batch_size);
    let mut gradients = FlatGradients::default();
    let mut samples = samples.map(|sample| sample.map(Into::into));
    let mut losses = Losses::new(recipe.is_deferred);
    for batch in 0..batches {
        let size = batch_size.min(count - batch * batch_size);
        let mut left = size;
        while left > 0 {
            let part: Vec<TrainingSample> =
                samples.by_ref().take(left.min(recipe.at_once)).collect::<Result<_>>()?;
            if part.is_empty() {
                return Err(Error::mismatch(format!("expected {count} samples, but {left} are missing")));
            }
            left -= part.len();
            let whole = (size * accumulated) as f64;
            let (loss, summand) = part_gradients(&network, recipe, &part, 1.0 / whole)?;
            if !losses.add(loss, whole).is_finite() {
                return Ok((network, f64::NAN));
            }
            gradients.add(summand);
            advance(part.len());
        }
        if (batch + 1).is_multiple_of(accumulated) || batch + 1 == batches {
            let position = Position { epoch, epochs: recipe.epochs, batch, batches };
            let rates = recipe.schedule.at(recipe.learning_rate, position);
            let momentum = rates.momentum.unwrap_or(recipe.momentum);
            let pace = Pace { learning_rate: rates.learning_rate, momentum };
            match recipe.is_deferred {
                true => gradients.clip_on_device(recipe.clip_norm),
                false => gradients.clip(recipe.clip_norm),
            }
            network = optimizer.apply(network, std::mem::take(&mut gradients), pace);
        }
    }
    Ok((network, losses.total() / count as f64))
}

/// Returns the gradients of `weight` times the summed loss of these samples, and that loss [1] of each graph.
fn part_gradients<N: Classifier>(
    network: &N,
    recipe: &Recipe,
    samples: &[TrainingSample],
    weight: f64,
) -> Result<(Vec<Tensor<1>>, FlatGradients)> {
    let device = &recipe.device;
    let size = if prefers_single_images(&device.clone().inner()) { IMAGES_A_GRAPH } else { samples.len() };
    let graph = |samples: &[TrainingSample]| {
        // A copy that shares the numbers but not the nodes: graphs with shared nodes wait for each other.
        let network = network.clone().fork(device);
        let loss = loss(network.logits(samples, device)?, samples, recipe.outputs)? * weight;
        let mut gradients = loss.backward();
        Ok((loss.inner(), FlatGradients::take(&network, &mut gradients)))
    };
    let parts: Vec<(Tensor<1>, FlatGradients)> =
        samples.par_chunks(size).with_max_len(1).map(graph).collect::<Result<_>>()?;
    let mut sum = (Vec::new(), FlatGradients::default());
    for (loss, gradients) in parts {
        sum.0.push(loss);
        sum.1.add(gradients);
    }
    Ok(sum)
}

/// The loss of the samples' labels, summed over samples: cross-entropy for one class a sample, and for several
/// labels the mean over them of their binary cross-entropies, for a number the squared error [torch.nn.CrossEntropyLoss,
/// MultiLabelSoftMarginLoss, MSELoss].
///
/// # Errors
/// If the labels are not classes below `outputs`, or not `outputs` labels per sample.
pub fn loss<S: Borrow<Sample>>(logits: Tensor<2>, samples: &[S], outputs: usize) -> Result<Tensor<1>> {
    let labels: Vec<Target> = samples.iter().map(|sample| sample.borrow().target.clone()).collect();
    let device = logits.device();
    Ok(match Targets::from_labels(&labels, outputs)? {
        Targets::Classes { classes, .. } => {
            let n = classes.len();
            let classes: Vec<i64> = classes.into_iter().map(|class| class as i64).collect();
            let classes = Tensor::<2, Int>::from_data(TensorData::new(classes, [n, 1]), &device);
            -log_softmax(logits, 1).gather(1, classes).sum()
        }
        Targets::Values(values) => {
            let shape = [values.len(), 1];
            let error = logits - Tensor::<2>::from_data(TensorData::new(values, shape), &device);
            (error.clone() * error).sum()
        }
        Targets::Labels(labels) => {
            let shape = [labels.nrows(), labels.ncols()];
            let applies: Vec<f32> = labels.iter().map(|label| f32::from(*label)).collect();
            let applies = Tensor::<2>::from_data(TensorData::new(applies, shape), &device);
            // log(1 - sigmoid(x)) = log(sigmoid(x)) - x
            let likelihood = log_sigmoid(logits.clone()) - logits * (applies.neg() + 1.0);
            -likelihood.sum() / outputs as f64
        }
    })
}
