//! Intersection over union of pixel classes.

use super::check_shapes;
use crate::{Error, Result};

/// What predictions and labels share of one class, in pixels. Overlaps of parts add up to those of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Pixels that are of the class in both.
    pub intersection: u64,
    /// Pixels that are of the class in either.
    pub union: u64,
}

impl Overlap {
    /// Intersection over union in percent; `None` where the class is in neither.
    pub fn iou(self) -> Option<f64> {
        (self.union > 0).then(|| 100.0 * self.intersection as f64 / self.union as f64)
    }
}

/// The overlap of each class. Pixels labelled `ignore` do not count, whatever is predicted there; labels that
/// are no class and not `ignore` do, and enlarge the union of what is predicted there [Galileo].
///
/// # Errors
/// Where there are no pixels, the lengths differ or a prediction is no class.
pub fn overlaps(
    predictions: &[usize],
    labels: &[i32],
    classes: usize,
    ignore: Option<i32>,
) -> Result<Vec<Overlap>> {
    check_shapes(&[predictions.len()], &[labels.len()])?;
    let mut overlaps = vec![Overlap::default(); classes];
    for (pixel, (&prediction, &label)) in predictions.iter().zip(labels).enumerate() {
        if Some(label) == ignore {
            continue;
        }
        let Some(predicted) = overlaps.get_mut(prediction) else {
            return Err(Error::request(format!(
                "pixel {pixel} is predicted as class {prediction} of {classes}"
            )));
        };
        predicted.union += 1;
        let label = usize::try_from(label).ok();
        if label == Some(prediction) {
            predicted.intersection += 1;
        } else if let Some(labelled) = label.and_then(|label| overlaps.get_mut(label)) {
            labelled.union += 1;
        }
    }
    Ok(overlaps)
}

/// The mean IoU over classes that are in predictions or labels, in percent. A class that is `ignore` is left out
/// as well, as torchmetrics does.
///
/// # Errors
/// Where no class is left: every pixel is ignored. (The references give NaN there.)
pub fn mean_iou(overlaps: &[Overlap], ignore: Option<i32>) -> Result<f64> {
    let ignored = ignore.and_then(|label| usize::try_from(label).ok());
    let counted = overlaps.iter().enumerate().filter(|(class, _)| Some(*class) != ignored);
    let scores: Vec<f64> = counted.filter_map(|(_, overlap)| overlap.iou()).collect();
    if scores.is_empty() {
        return Err(Error::request("every pixel is ignored, so there is no mean IoU"));
    }
    Ok(scores.iter().sum::<f64>() / scores.len() as f64)
}
