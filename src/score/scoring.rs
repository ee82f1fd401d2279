//! Settings needed to recompute a record's scores from its predictions.

use crate::metrics::Resampling;

/// Everything besides the predictions that is needed to recompute every score of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scoring {
    /// Names of the classes of masks, in order, as in `iou_<name>`. Empty for other targets.
    pub class_names: Vec<String>,
    /// Samples per batch for the score `reported_<metric>`, if the protocol reports it.
    pub report_batch: Option<usize>,
    /// Number of resamples for the metric's interval, drawn with the cell's seed.
    pub resamples: Option<usize>,
    /// How resamples are drawn.
    pub resampling: Resampling,
}
