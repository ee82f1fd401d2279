//! How well the probabilities of records are calibrated, from the predictions stored with them.
//!
//! Probabilities are stored by the protocols that train a head with cross-entropy (`logistic`, `torchgeo-linear`, `linear-probe`,
//! `copernicus-linear-probe`, `finetune`: softmax, or a sigmoid per label) and by `knn` and `torchgeo-knn` (shares of the votes).

use super::plain::PlainTable;
use crate::metrics::calibration::{CalibrationBin, calibration_bins, expected_calibration_error};
use crate::record::Record;
use crate::record::predictions::Named;
use crate::score::Predictions;
use crate::score::supplement::confidences;
use crate::task::{TargetKind, Task};

/// Bins of equal width [Guo et al. 2017].
pub const BINS: usize = 15;

/// Said where there is nothing to show.
pub const NO_PROBABILITIES: &str = "no probabilities";

/// How sure a record's model is, and how often it is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Predictions by their confidence.
    pub bins: Vec<CalibrationBin>,
    /// Number of decisions: images, or images times labels.
    pub decisions: usize,
    /// Expected calibration error in percentage points.
    pub error: f64,
    /// Mean confidence, 0 to 1.
    pub confidence: f64,
    /// Share of right predictions, 0 to 1; for several labels per image the share of labels that apply.
    pub accuracy: f64,
}

impl Calibration {
    /// Computes it from a record's predictions; `None` if they have no probabilities.
    pub fn of(named: &Named) -> Option<Self> {
        let probabilities = named.supplement.probabilities.as_ref()?;
        let truth = named.predictions.truth()?;
        let predicted = match &named.predictions {
            Predictions::Targets { predicted, .. } => Some(predicted),
            _ => None,
        };
        let (sure, right) = confidences(probabilities.view(), predicted, &truth)?;
        let bins = calibration_bins(&sure, &right, BINS);
        let decisions = sure.len();
        Some(Calibration {
            error: expected_calibration_error(&bins),
            confidence: sure.iter().copied().map(f64::from).sum::<f64>() / decisions as f64,
            accuracy: right.iter().filter(|right| **right).count() as f64 / decisions as f64,
            bins,
            decisions,
        })
    }
}

/// Fills the table of a task's records, each with its calibration if its predictions have probabilities.
pub fn table(task: &Task, records: &[(&Record, Option<Calibration>)]) -> PlainTable {
    let (right, what) = match task.target {
        TargetKind::Labels => {
            ("Labels that apply", "the probability of each label, against whether it applies")
        }
        _ => ("Accuracy", "the probability of the predicted class, against whether it is the true one"),
    };
    let header = ["Model", "Protocol", "Training data", "Decisions", right, "Mean confidence", "ECE"];
    let row = |(record, calibration): &(&Record, Option<Calibration>)| {
        let cell = &record.cell;
        let numbers = match calibration {
            Some(Calibration { decisions, error, confidence, accuracy, .. }) => [
                decisions.to_string(),
                format!("{:.1}", 100.0 * accuracy),
                format!("{:.1}", 100.0 * confidence),
                format!("{error:.1}"),
            ],
            None => ["-", "-", "-", NO_PROBABILITIES].map(String::from),
        };
        let partition = super::tables::table::partition_title(&cell.partition);
        let names = [format!("{} {}", cell.model, cell.backbone), cell.protocol.clone(), partition];
        names.into_iter().chain(numbers).collect()
    };
    let notes = vec![
        format!(
            "ECE: expected calibration error in percentage points over {BINS} bins of equal width of {what}. Accuracy and \
             confidence in percent."
        ),
        "Probabilities are the softmax or sigmoids of heads trained with cross-entropy (linear probes, logistic regression, \
         fine-tuning) and the shares of the votes of k-NN. Other protocols, and records of earlier versions, store none."
            .to_owned(),
    ];
    PlainTable { header: header.map(String::from).to_vec(), rows: records.iter().map(row).collect(), notes }
}
