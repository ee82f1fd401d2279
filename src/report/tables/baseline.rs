//! Marks records worse than plain pixel statistics. This happens whenever tables are made, because the baseline may be recorded
//! later than the records.

use std::collections::BTreeMap;

use crate::audit::baseline;
use crate::model::weights::NO_WEIGHTS;
use crate::record::{Note, Record};

/// Adds a note to each record whose value is worse than that of image statistics on the same task, partition and protocol (the
/// mean over seeds). Records of partial weights are not compared.
pub(crate) fn mark(records: &mut [Record]) {
    let mut baselines: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for record in records.iter().filter(|record| is_baseline(record)) {
        baselines.entry(key(record)).or_default().push(record.value);
    }
    for record in records.iter_mut().filter(|r| !is_baseline(r) && !r.provenance.partial_weights()) {
        let Some(values) = baselines.get(&key(record)) else { continue };
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        if let Some(finding) = baseline::check(record.value, mean, record.metric.about().scale) {
            let note = Note::new(finding.check.to_string(), format!("{}; {}", finding.found, finding.remedy));
            // A record may have been written with the note.
            if !record.notes.contains(&note) {
                record.notes.push(note);
            }
        }
    }
}

fn is_baseline(record: &Record) -> bool {
    record.provenance.weights == NO_WEIGHTS
}

/// Returns what a record and its baseline must have in common.
fn key(record: &Record) -> (String, String, String, String, bool, bool) {
    let cell = &record.cell;
    let names = [&cell.suite, &cell.task, &cell.partition, &cell.protocol].map(String::clone);
    let [suite, task, partition, protocol] = names;
    (suite, task, partition, protocol, record.demo, record.short)
}
