//! Compares scores other than the metric by the units they average over: batches for `reported_<metric>`, images for a class.

use super::Thresholds;
use crate::Result;
use crate::gate::recompute::Recomputed;
use crate::metrics::paired::Paired;
use crate::record::Record;
use crate::score::Predictions;
use crate::score::predictions::BatchScore;

/// Bootstraps the difference `a` - `b` of the named score, in its unit; `None` if the predictions are not sufficient. Both
/// sides have the same samples in the same order. `record` belongs to `a`.
///
/// # Errors
/// If the predictions cannot be scored, or like [`Paired::new`].
pub(crate) fn paired(
    name: &str,
    record: &Record,
    a: &Recomputed,
    b: &Recomputed,
    thresholds: &Thresholds,
) -> Result<Option<Paired>> {
    let (Some(of_a), Some(of_b)) = (&a.named.scoring, &b.named.scoring) else { return Ok(None) };
    let Thresholds { level, resamples, .. } = *thresholds;
    let (seed, metric) = (record.cell.seed, record.metric);
    let (a, b) = (&a.named.predictions, &b.named.predictions);
    if name == format!("reported_{metric}") {
        let (Some(size), true) = (of_a.report_batch, of_a.report_batch == of_b.report_batch) else {
            return Ok(None);
        };
        let (a, b) = (a.batch_scores(metric, size)?, b.batch_scores(metric, size)?);
        if a.len() != b.len() {
            return Ok(None);
        }
        let mean = |batches: &[BatchScore], places: &[usize]| {
            BatchScore::mean(places.iter().map(|place| batches[*place]))
        };
        let each: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a.score - b.score).collect();
        let difference = |places: &[usize]| mean(&a, places) - mean(&b, places);
        return Paired::new(&each, level, resamples, seed, difference).map(Some);
    }
    let class = name.strip_prefix("iou_").filter(|_| of_a.class_names == of_b.class_names);
    let Some(class) = class.and_then(|class| of_a.class_names.iter().position(|name| name == class)) else {
        return Ok(None);
    };
    // Images without the class do not contribute to the score.
    let with_class: Vec<usize> = (0..a.len().min(b.len()))
        .filter(|image| [a, b].iter().any(|side| side.class_iou(class, &[*image]).is_some()))
        .collect();
    if with_class.is_empty() {
        return Ok(None);
    }
    let alone = |side: &Predictions, image: usize| side.class_iou(class, &[image]).unwrap_or_default();
    let each: Vec<f64> = with_class.iter().map(|image| alone(a, *image) - alone(b, *image)).collect();
    let difference = |places: &[usize]| {
        let images: Vec<usize> = places.iter().map(|place| with_class[*place]).collect();
        match (a.class_iou(class, &images), b.class_iou(class, &images)) {
            (Some(a), Some(b)) => a - b,
            // A resample in which one side lacks the class carries no information.
            _ => 0.0,
        }
    };
    Paired::new(&each, level, resamples, seed, difference).map(Some)
}
