//! Segmentation probe, as in Galileo's evaluation [nasaharvest/galileo, src/eval/linear_probe.py]: images and
//! masks are cut into tiles, and a linear layer is trained on the frozen patch tokens of the tiles for each of a list
//! of learning rates; the best on validation is reported on test. A head that diverges is never chosen.
//!
//! The heads of all learning rates see the same batches in the same order and begin alike, so they are trained side
//! by side on tokens that are read once. The arithmetic is that of training them one by one.
//!
//! What differs: the random numbers, float32 tokens instead of bfloat16, and that a batch in which no pixel
//! counts is skipped instead of making the weights NaN.

mod pixels;

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use self::pixels::Pixels;
use super::linear_probe::{Linear, Memory, shuffled};
use super::{Needs, Protocol, Session};
use crate::config::{Initialization, Optimizer, SegmentationProbeConfig, TrainingConfig};
use crate::features::source::FeatureSource;
use crate::features::tiles::{IGNORED, Mask, Tokens};
use crate::metrics::Better;
use crate::metrics::segmentation::Confusion;
use crate::nn::kernels::flex::matrix::{Into, MatrixLayout, multiply};
use crate::score::decision::{choose, first_best};
use crate::score::{Outcome, Shown, outcome};
use crate::task::{Split, TargetKind, Task};
use crate::train::schedule::{Position, Rates};
use crate::{Error, Result, stop};

/// Tiles whose logits are computed together: enough rows for a product, few enough for the cache. It decides nothing
/// but the order of sums, and is fixed so that results do not depend on the number of threads.
const TILES_AT_ONCE: usize = 4;

impl Protocol for SegmentationProbeConfig {
    fn needs(&self) -> Needs {
        Needs::Tokens
    }

    fn targets(&self) -> &'static [TargetKind] {
        &[TargetKind::Mask]
    }

    fn training(&self) -> Option<&TrainingConfig> {
        Some(&self.training)
    }

    fn training_mut(&mut self) -> Option<&mut TrainingConfig> {
        Some(&mut self.training)
    }

    fn problem(&self) -> Option<String> {
        SegmentationProbeConfig::problem(self)
    }

    /// For each normalisation strategy a head per learning rate; the best of all on validation is applied to the test
    /// split. One of several strategies whose tokens are not finite is never chosen.
    fn run(&self, mut session: Session) -> Result<Outcome> {
        let (task, seed, source) = (session.task, session.seed, session.take_source()?);
        let strategies = source.strategies();
        let tokens = |source: &mut &mut dyn FeatureSource, strategy, split| {
            source.tokens(strategy, split, self.tile, self.training.limit)
        };
        let validate = |source: &mut &mut dyn FeatureSource, strategy| {
            best_head(self, task, seed, |split| tokens(source, strategy, split))
        };
        let test = |source: &mut &mut dyn FeatureSource, strategy, best: &Best| {
            score_head(self, task, seed, best, &tokens(source, strategy, Split::Test)?)
        };
        let mut state = source;
        let choice = choose(task.metric.better(), strategies.len(), &mut state, validate, test)?;
        let names: Vec<&str> = strategies.iter().map(String::as_str).collect();
        Ok(match names.len() {
            1 => choice.tested,
            _ => choice.tested.of_sweep(&names, choice.place, &choice.validation),
        })
    }
}

/// The best head of one normalisation.
struct Best {
    /// Its score on validation.
    valid: f64,
    /// The place of its learning rate.
    rate: usize,
    head: Linear,
    /// Learning rates that diverged.
    diverged: Vec<f64>,
}

/// Trains a head for each learning rate; the best on validation with its score.
fn best_head(
    config: &SegmentationProbeConfig,
    task: &Task,
    seed: u64,
    mut tokens: impl FnMut(Split) -> Result<Tokens>,
) -> Result<(f64, Best)> {
    let train_tokens = tokens(Split::Train)?;
    let width = train_tokens.width;
    let outputs = Pixels::new(&train_tokens, task.classes, config.tile / train_tokens.thinning)?.outputs();
    let start = Linear::initial(Initialization::Uniform {}, outputs, width, seed);
    let tiles = train_tokens.len();
    let trained = train(config, task.classes, &train_tokens, &start, |epoch| {
        shuffled(seed, epoch, tiles, 1).into_iter().map(|row| row.sample).collect()
    })?;
    drop(train_tokens);
    let counts = confusions(&trained.heads, task.classes, config.tile, &tokens(Split::Valid)?)?;
    let rates = || config.training.learning_rates.iter().zip(&counts);
    if counts.iter().all(Option::is_none) {
        return Err(Error::not_finite("the segmentation probe diverged with every learning rate")
            .help("use lower learning rates, and check the weights and the normalisation"));
    }
    // Where nothing counts, none has a score.
    let score = |tiles: &Option<Vec<Confusion>>| tiles.as_deref().and_then(mean_iou).unwrap_or(f64::NAN);
    let scores: Vec<f64> = counts.iter().map(score).collect();
    let Some(rate) = first_best(Better::Higher, scores.iter().copied()) else {
        return Err(Error::mismatch(
            "no pixel of the validation masks counts, so no learning rate can be chosen",
        )
        .help("check the masks of the valid split"));
    };
    let diverged = rates().filter(|(_, tiles)| tiles.is_none()).map(|(rate, _)| *rate).collect();
    let valid = scores[rate];
    Ok((valid, Best { valid, rate, head: trained.heads[rate].clone(), diverged }))
}

/// Scores the best head on the test split.
fn score_head(
    config: &SegmentationProbeConfig,
    task: &Task,
    seed: u64,
    best: &Best,
    test: &Tokens,
) -> Result<Outcome> {
    let Best { valid, rate, head, diverged } = best;
    let tiles = confusions(std::slice::from_ref(head), task.classes, config.tile, test)?.swap_remove(0);
    let tiles = tiles.ok_or_else(|| Error::not_finite("the logits of the test split are not finite"))?;
    let images: Vec<Confusion> =
        tiles.chunks(test.tiles_an_image.max(1)).filter_map(Confusion::sum).collect();
    let selected = [
        ("learning-rate", config.training.learning_rates[*rate].to_string()),
        ("epochs", config.training.epochs.to_string()),
        ("validation", format!("{valid:.2}")),
    ];
    let mut outcome =
        outcome::of_masks(task, &images, &config.training.interval, seed)?.with_diverged(diverged.iter());
    outcome.selected.extend(selected.map(|(name, value)| (name.to_owned(), value)));
    outcome.validation = Some(*valid);
    outcome.masks = outcome::to_show(images.len())
        .into_iter()
        .map(|image| Ok(Shown { image, prediction: mask(head, task.classes, config.tile, test, image)? }))
        .collect::<Result<_>>()?;
    Ok(outcome)
}

/// Result of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// One per learning rate: weights [classes * patch * patch, width], the class slowest, then the row.
    pub heads: Vec<Linear>,
    /// [rates, steps]: the mean loss of each step's batch over the pixels that count, before the step.
    pub losses: Array2<f32>,
}

/// Trains a head for each learning rate from `start`, on the tiles in the order that `order` gives for each epoch
/// (from 0).
///
/// # Errors
/// If the initial weights do not fit the tokens, there are no tiles, or tokens cannot be read.
pub fn train(
    config: &SegmentationProbeConfig,
    classes: usize,
    tokens: &Tokens,
    start: &Linear,
    order: impl Fn(usize) -> Vec<usize>,
) -> Result<Trained> {
    let pixels = Pixels::new(tokens, classes, config.tile / tokens.thinning)?;
    let expected = (pixels.outputs(), tokens.width);
    if start.weight.dim() != expected || start.bias.len() != expected.0 {
        let found = start.weight.dim();
        return Err(Error::mismatch(format!("initial weights {found:?}, expected {expected:?}")));
    }
    let learnt = start.weight.len() + start.bias.len();
    let mut heads: Vec<Head> = (config.training.learning_rates.iter())
        .map(|rate| Head {
            parameters: start.weight.iter().chain(&start.bias).copied().collect(),
            learning_rate: *rate,
            memory: Memory::new(learnt),
            losses: Vec::new(),
        })
        .collect();
    for epoch in 0..config.training.epochs {
        let order = order(epoch);
        let batches = order.len().div_ceil(config.training.batch_size);
        for (batch, tiles) in order.chunks(config.training.batch_size).enumerate() {
            stop::check()?;
            let position = Position { epoch, epochs: config.training.epochs, batch, batches };
            let batch = Batch::read(tokens, tiles)?;
            if batch.counting == 0 {
                continue;
            }
            heads.par_iter_mut().for_each(|head| {
                let rates = config.training.schedule.at(head.learning_rate, position);
                head.step(&batch, &pixels, config.training.optimizer, rates);
            });
        }
    }
    let steps = heads.first().map_or(0, |head| head.losses.len());
    let losses = Array2::from_shape_fn((heads.len(), steps), |(head, step)| heads[head].losses[step]);
    let linear = |head: &Head| {
        let (weight, bias) = head.parameters.split_at(start.weight.len());
        let weight = Array2::from_shape_vec(expected, weight.to_vec()).map_err(Error::mismatch)?;
        Ok(Linear { weight, bias: Array1::from(bias.to_vec()) })
    };
    Ok(Trained { heads: heads.iter().map(linear).collect::<Result<_>>()?, losses })
}

/// Tiles of one step.
struct Batch<'a> {
    /// [tiles * grid * grid, width].
    tokens: Array2<f32>,
    masks: Vec<&'a Mask>,
    /// Pixels that count.
    counting: usize,
}

impl<'a> Batch<'a> {
    fn read(tokens: &'a Tokens, tiles: &[usize]) -> Result<Self> {
        let masks: Vec<&Mask> = tiles.iter().filter_map(|tile| tokens.masks.get(*tile)).collect();
        let counting = masks.iter().map(|mask| mask.iter().filter(|label| **label != IGNORED).count()).sum();
        Ok(Batch { tokens: tokens.read(tiles)?, masks, counting })
    }
}

/// A head in training.
struct Head {
    /// Weights, row by row, then biases.
    parameters: Vec<f32>,
    /// The highest of its schedule.
    learning_rate: f64,
    memory: Memory,
    losses: Vec<f32>,
}

impl Head {
    fn step(&mut self, batch: &Batch, pixels: &Pixels, optimizer: Optimizer, rates: Rates) {
        let (outputs, width) = (pixels.outputs(), batch.tokens.ncols());
        let (weight, bias) = views(&self.parameters, outputs, width);
        let mut gradient = vec![0.0; self.parameters.len()];
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(outputs * width);
        let mut loss = 0.0;
        let mut space = pixels.space();
        let rows = TILES_AT_ONCE * pixels.tokens();
        let parts = batch.tokens.axis_chunks_iter(Axis(0), rows).zip(batch.masks.chunks(TILES_AT_ONCE));
        for (tokens, masks) in parts {
            let mut logits = logits(tokens, weight, bias);
            for (mut tile, mask) in logits.axis_chunks_iter_mut(Axis(0), pixels.tokens()).zip(masks) {
                let tile = tile.as_slice_mut().expect("rows lie together");
                loss += pixels.loss_and_gradient(tile, mask, batch.counting, &mut space);
            }
            let (n, to) = (tokens.nrows(), MatrixLayout::new(outputs, width));
            multiply(
                (&mut *weight_gradient, to),
                Into::Add,
                (flat(&logits.view()), MatrixLayout::new(n, outputs).transposed()),
                (flat(&tokens), MatrixLayout::new(n, width)),
            );
            for (sum, part) in bias_gradient.iter_mut().zip(logits.sum_axis(Axis(0))) {
                *sum += part;
            }
        }
        optimizer.step(&mut self.parameters, &gradient, &mut self.memory, rates);
        self.losses.push((loss / batch.counting as f64) as f32);
    }
}

/// The weights [outputs, width] and biases of a head's parameters.
fn views(parameters: &[f32], outputs: usize, width: usize) -> (ArrayView2<'_, f32>, &[f32]) {
    let (weight, bias) = parameters.split_at(outputs * width);
    (ArrayView2::from_shape((outputs, width), weight).expect("as many numbers as weights"), bias)
}

/// [rows, outputs] of tokens [rows, width].
fn logits(tokens: ArrayView2<f32>, weight: ArrayView2<f32>, bias: &[f32]) -> Array2<f32> {
    let mut logits = Array2::zeros((tokens.nrows(), weight.nrows()));
    logits.outer_iter_mut().for_each(|mut row| row.assign(&ndarray::ArrayView1::from(bias)));
    let (n, width, outputs) = (tokens.nrows(), weight.ncols(), weight.nrows());
    multiply(
        (logits.as_slice_mut().expect("newly made"), MatrixLayout::new(n, outputs)),
        Into::Add,
        (flat(&tokens), MatrixLayout::new(n, width)),
        (flat(&weight), MatrixLayout::new(outputs, width).transposed()),
    );
    logits
}

/// The numbers of rows that lie one after the other.
fn flat<'a>(rows: &'a ArrayView2<f32>) -> &'a [f32] {
    rows.as_slice().expect("rows lie together")
}

/// For each head: what it predicts for each tile of `tile` x `tile` pixels, against the tile's mask; none for a head
/// that diverged: one with a logit that is not finite.
///
/// # Errors
/// If tokens cannot be read, or are of another size than the heads'.
pub fn confusions(
    heads: &[Linear],
    classes: usize,
    tile: usize,
    tokens: &Tokens,
) -> Result<Vec<Option<Vec<Confusion>>>> {
    let pixels = Pixels::new(tokens, classes, tile)?;
    let mut confusions = vec![Some(Vec::with_capacity(tokens.len())); heads.len()];
    let tiles: Vec<usize> = (0..tokens.len()).collect();
    // As many at once as a step of training has, give or take.
    for tiles in tiles.chunks(32 * TILES_AT_ONCE) {
        let batch = tokens.read(tiles)?;
        let found: Vec<Option<Vec<Confusion>>> = heads
            .par_iter()
            .map(|head| {
                if head.weight.dim() != (pixels.outputs(), tokens.width) {
                    return Err(Error::mismatch(format!("a head of {:?} weights", head.weight.dim())));
                }
                let bias = head.bias.to_vec();
                let mut space = pixels.space();
                let mut found = Vec::with_capacity(tiles.len());
                for (i, tile) in tiles.iter().enumerate() {
                    let rows = s![i * pixels.tokens()..(i + 1) * pixels.tokens(), ..];
                    let logits = logits(batch.slice(rows), head.weight.view(), &bias);
                    let logits = logits.as_slice().unwrap_or_default();
                    if !logits.iter().all(|logit| logit.is_finite()) {
                        return Ok(None);
                    }
                    let predictions = pixels.predictions(logits, &mut space);
                    let mut confusion = Confusion::new(classes, Some(i32::from(IGNORED)));
                    confusion.add(tokens.masks[*tile].mapv(i32::from).view(), predictions.view())?;
                    found.push(confusion);
                }
                Ok(Some(found))
            })
            .collect::<Result<_>>()?;
        for (all, found) in confusions.iter_mut().zip(found) {
            *all = all.take().zip(found).map(|(mut all, found)| {
                all.extend(found);
                all
            });
        }
    }
    Ok(confusions)
}

/// What a head predicts for the pixels of one image, [h, w]: its tiles put together.
///
/// # Errors
/// Like [`confusions`].
fn mask(head: &Linear, classes: usize, tile: usize, tokens: &Tokens, image: usize) -> Result<Array2<i32>> {
    let pixels = Pixels::new(tokens, classes, tile)?;
    let (count, across) = (tokens.tiles_an_image, tokens.tiles_across.max(1));
    let tiles: Vec<usize> = (image * count..(image + 1) * count).collect();
    let batch = tokens.read(&tiles)?;
    let bias = head.bias.to_vec();
    let mut space = pixels.space();
    let (mut all, mut side) = (Array2::zeros((0, 0)), 0);
    for (i, rows) in batch.axis_chunks_iter(Axis(0), pixels.tokens()).enumerate() {
        let logits = logits(rows, head.weight.view(), &bias);
        let predicted = pixels.predictions(logits.as_slice().unwrap_or_default(), &mut space);
        if i == 0 {
            side = predicted.nrows();
            all = Array2::zeros((count.div_ceil(across) * side, across * side));
        }
        let (y, x) = (i / across * side, i % across * side);
        all.slice_mut(s![y..y + side, x..x + side]).assign(&predicted);
    }
    Ok(all)
}

/// Of all tiles; none if no pixel counts.
fn mean_iou(tiles: &[Confusion]) -> Option<f64> {
    Confusion::sum(tiles)?.mean_iou().ok()
}
