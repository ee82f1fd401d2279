//! What UPerNet predicts of a pixel, a class or a number: all that differs between the two.

use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::{Array2, Array3, ArrayView2, Axis};

use crate::config::IntervalConfig;
use crate::features::maps::MapItem;
use crate::features::tiles::IGNORED;
use crate::features::truth::PixelTruth;
use crate::metrics::regression::{self, ErrorSums};
use crate::metrics::segmentation::{Confusion, mean_iou_over_batches};
use crate::nn::heads::predictions;
use crate::nn::heads::upernet::{Logits, UperNet};
use crate::nn::loss::{PixelLabels, PixelValues};
use crate::nn::resample::{Corners, resize};
use crate::score::{Outcome, outcome};
use crate::task::{Metric, TargetInterpolation, TargetKind, Task};
use crate::transform::augment::Turn;
use crate::transform::turn_on_device::{turn_images, turn_masks};
use crate::{Error, Result};

/// What is known of the pixels of a batch, on the device.
pub(crate) enum BatchTruth {
    Classes(PixelLabels),
    Values(PixelValues),
}

impl BatchTruth {
    /// That of the items, which must be of one size.
    ///
    /// # Errors
    /// If they are not.
    pub(crate) fn new(items: &[MapItem], task: &Task, device: &Device) -> Result<Self> {
        let (h, w) = items.first().map_or((0, 0), |item| item.truth.dim());
        if let Some(item) = items.iter().find(|item| item.truth.dim() != (h, w)) {
            let found = item.truth.dim();
            return Err(Error::mismatch(format!("masks of {h} x {w} and of {found:?} pixels in one batch"))
                .help("UPerNet trains on images of one size"));
        }
        let shape = (items.len(), h, w);
        if task.target == TargetKind::ValueMap {
            let of = |item: &MapItem| match &item.truth {
                PixelTruth::Values(map) => map.iter().copied().collect(),
                PixelTruth::Classes(_) => Vec::new(),
            };
            let values = Array3::from_shape_vec(shape, items.iter().flat_map(of).collect());
            let values = values.map_err(Error::mismatch)?;
            return Ok(BatchTruth::Values(PixelValues::new(values.view(), device)));
        }
        let of = |item: &MapItem| match &item.truth {
            PixelTruth::Classes(mask) => mask.iter().map(|label| i32::from(*label)).collect(),
            PixelTruth::Values(_) => Vec::new(),
        };
        let labels = Array3::from_shape_vec(shape, items.iter().flat_map(of).collect());
        let labels = labels.map_err(Error::mismatch)?;
        let ignore = Some(i32::from(IGNORED));
        PixelLabels::new(labels.view(), task.classes, ignore, device).map(BatchTruth::Classes)
    }

    /// Like [`BatchTruth::new`], of truths that are turned on the device.
    ///
    /// # Errors
    /// If the items differ in size, also once turned.
    pub(crate) fn turned_on_device(items: &[MapItem], task: &Task, device: &Device) -> Result<Self> {
        let is_map = task.target == TargetKind::ValueMap;
        let (h, w) = items.first().map_or((0, 0), |item| item.truth.dim());
        if let Some(item) = items.iter().find(|item| item.truth.dim() != (h, w)) {
            let found = item.truth.dim();
            return Err(Error::mismatch(format!("masks of {h} x {w} and of {found:?} pixels in one batch"))
                .help("UPerNet trains on images of one size"));
        }
        let mut numbers = Vec::with_capacity(items.len() * h * w);
        for item in items {
            match &item.truth {
                PixelTruth::Classes(mask) => numbers.extend(mask.iter().map(|label| f32::from(*label))),
                PixelTruth::Values(map) => numbers.extend(map.iter()),
            }
        }
        let inner = device.clone().inner();
        let data = TensorData::new(numbers, [items.len(), 1, h, w]);
        let stored = Tensor::<4>::from_data(data, (&inner, DType::F32));
        let turns: Vec<Turn> = items.iter().map(|item| item.truth_turn).collect();
        let interpolates = is_map && task.target_interpolation == TargetInterpolation::Bilinear;
        // Corners are class 0, or 0.
        let turned =
            if interpolates { turn_images(stored, &turns)? } else { turn_masks(stored, &turns, 0.0)? };
        let turned = Tensor::from_inner(turned);
        let counting = counting(items, task);
        Ok(match is_map {
            true => BatchTruth::Values(PixelValues::on_device(turned, counting)),
            false => BatchTruth::Classes(PixelLabels::on_device(turned, counting)),
        })
    }

    /// Whether no pixel counts.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            BatchTruth::Classes(labels) => labels.counting() == 0,
            BatchTruth::Values(values) => values.measured() == 0,
        }
    }

    /// The training loss of what the heads say.
    pub(crate) fn loss(&self, head: &UperNet, logits: Logits) -> Tensor<1> {
        match self {
            BatchTruth::Classes(labels) => head.loss(logits, labels),
            BatchTruth::Values(values) => head.value_loss(logits, values),
        }
    }
}

/// A number above 0 if a pixel of these items counts once they are turned, without waiting for the device.
fn counting(items: &[MapItem], task: &Task) -> usize {
    let count = |truth: &PixelTruth| match truth {
        PixelTruth::Classes(mask) => mask.iter().filter(|label| **label != IGNORED).count(),
        PixelTruth::Values(map) => map.iter().filter(|value| !value.is_nan()).count(),
    };
    // Flips keep the number of pixels.
    let kept: usize =
        items.iter().filter(|item| item.truth_turn.degrees.is_none()).map(|item| count(&item.truth)).sum();
    if kept > 0 {
        return kept;
    }
    // Rotations may turn the last ones out of the image, and corners in: these few are turned here too.
    items.iter().map(|item| count(&item.truth.clone().turned(item.truth_turn, task))).sum()
}

/// What predictions of images are scored from, image by image.
pub(crate) enum PixelScores {
    Classes(Vec<Confusion>),
    /// In the task's unit.
    Values(Vec<ErrorSums>),
}

impl PixelScores {
    /// Of no images yet.
    pub(crate) fn new(target: TargetKind) -> Self {
        match target {
            TargetKind::ValueMap => PixelScores::Values(Vec::new()),
            _ => PixelScores::Classes(Vec::new()),
        }
    }

    /// The number of images.
    pub(crate) fn len(&self) -> usize {
        match self {
            PixelScores::Classes(images) => images.len(),
            PixelScores::Values(images) => images.len(),
        }
    }

    /// Adds an image by its logits [1, rows, columns, classes], which are resized to the truth; returns the predicted mask,
    /// if classes are predicted.
    ///
    /// # Errors
    /// If the truth is of another kind, or a predicted number is not finite.
    pub(crate) fn add(
        &mut self,
        logits: Tensor<4>,
        truth: &PixelTruth,
        task: &Task,
    ) -> Result<Option<Array2<i32>>> {
        let (h, w) = truth.dim();
        let logits = resize(logits, [h, w], Corners::HalfPixel);
        match (self, truth) {
            (PixelScores::Classes(images), PixelTruth::Classes(mask)) => {
                let mut confusion = Confusion::new(task.classes, Some(i32::from(IGNORED)));
                let mask = mask.mapv(i32::from).insert_axis(Axis(0));
                let prediction = predictions(logits);
                confusion.add(mask.view(), prediction.view())?;
                images.push(confusion);
                Ok(Some(prediction.remove_axis(Axis(0))))
            }
            (PixelScores::Values(images), PixelTruth::Values(map)) => {
                let numbers = logits.into_data().convert::<f32>().try_into_vec::<f32>();
                let numbers = numbers.expect("converted to float32");
                let predicted = ArrayView2::from_shape((h, w), &numbers).map_err(Error::mismatch)?;
                let statistics = task.target_statistics();
                let in_unit = |value| statistics.denormalize(value);
                images.push(ErrorSums::of_arrays(predicted, map.view(), in_unit)?);
                Ok(None)
            }
            _ => Err(Error::mismatch("pixels of classes and of numbers in one split")),
        }
    }

    /// The mean over batches of the metric, as the reference logs it.
    ///
    /// # Errors
    /// If no pixel counts.
    pub(crate) fn over_batches(&self, metric: Metric, batch_size: usize) -> Result<f64> {
        match self {
            PixelScores::Classes(images) => mean_iou_over_batches(images, batch_size),
            PixelScores::Values(images) => regression::mean_over_batches(metric, images, batch_size),
        }
    }

    /// What a record holds of these images as the test split.
    ///
    /// # Errors
    /// Like [`outcome::of_masks`] and [`outcome::of_value_maps`].
    pub(crate) fn outcome(&self, task: &Task, config: &IntervalConfig, seed: u64) -> Result<Outcome> {
        match self {
            PixelScores::Classes(images) => outcome::of_masks(task, images, config, seed),
            PixelScores::Values(images) => outcome::of_value_maps(task, images, config, seed),
        }
    }
}
