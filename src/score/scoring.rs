//! How a record's scores follow from its predictions: what the predictions themselves do not tell.

/// What it takes, beside the predictions, to compute every score of a record again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scoring {
    /// Names of the classes of masks, in order, as in `iou_<name>`. Empty for other labels.
    pub class_names: Vec<String>,
    /// Samples per batch of the score `reported_<metric>`, where the protocol reports it.
    pub report_batch: Option<usize>,
    /// Resamples of the metric's interval, drawn with the cell's seed.
    pub resamples: Option<usize>,
}
