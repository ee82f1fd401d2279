//! F1 of each class with its support, from the predictions stored with a record.

use super::plain::PlainTable;
use crate::metrics::f1::Counts;
use crate::score::Predictions;
use crate::task::{TargetKind, Task};

/// Fills the table of a task's classes; `None` if the predictions decide on no class or do not suit the task.
pub fn table(task: &Task, predictions: &Predictions) -> Option<PlainTable> {
    let counts = predictions.class_counts().ok().flatten().filter(|counts| counts.len() == task.classes)?;
    let unit = if task.target == TargetKind::Mask { "pixels" } else { "images" };
    let header = ["Class", "F1", "Precision", "Recall", "Support"].map(String::from).to_vec();
    let rows = counts.iter().zip(task.class_labels()).map(|(counts, name)| row(name, counts)).collect();
    let note = format!(
        "F1, precision and recall in percent; support: {unit} of the test split with this label. A dash: nothing to divide by."
    );
    Some(PlainTable { header, rows, notes: vec![note] })
}

fn row(name: String, counts: &Counts) -> Vec<String> {
    let Counts { true_positives: right, false_positives, false_negatives } = *counts;
    let (predicted, support) = (right + false_positives, right + false_negatives);
    let percent = |part: u64, whole: u64| match whole {
        0 => "-".to_owned(),
        whole => format!("{:.1}", 100.0 * part as f64 / whole as f64),
    };
    let f1 = percent(2 * right, predicted + support);
    vec![name, f1, percent(right, predicted), percent(right, support), support.to_string()]
}
