//! What the suites state about records: names of classes, and the scores that tables show.

use std::collections::BTreeMap;

use crate::home::Home;
use crate::record::Record;
use crate::task::Suite;

/// The suites of some records. Records of an unknown suite have no class names.
#[derive(Debug, Default)]
pub struct Suites(BTreeMap<String, Suite>);

impl Suites {
    /// Loads the suites of `records`, skipping those that no longer exist.
    pub fn load<'a>(home: &Home, records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut suites: BTreeMap<&str, Option<Suite>> = BTreeMap::new();
        for record in records {
            let name = record.cell.suite.as_str();
            suites.entry(name).or_insert_with(|| Suite::load(home, name).ok());
        }
        Suites(suites.into_iter().filter_map(|(name, suite)| Some((name.to_owned(), suite?))).collect())
    }

    /// Names of the record's classes, in order; empty if unknown.
    pub fn class_names(&self, record: &Record) -> &[String] {
        let suite = self.0.get(&record.cell.suite);
        let task = suite.and_then(|suite| suite.task(&record.cell.task).ok());
        task.map_or(&[], |task| &task.class_names)
    }

    /// Names of the record's further scores that tables show: the mean over batches, and the `scores` listed in
    /// one of the suite's tables.
    pub fn shown_scores(&self, record: &Record) -> Vec<String> {
        let mut names = vec![reported(record)];
        let tables = self.0.get(&record.cell.suite).map(|suite| suite.tables.iter()).into_iter().flatten();
        for table in tables.filter(|table| table.tasks.contains(&record.cell.task)) {
            names.extend(table.scores.iter().cloned());
        }
        names.sort();
        names.dedup();
        names.retain(|name| record.scores.contains_key(name));
        names
    }
}

/// Name of the mean over batches of the record's metric: `reported_miou`.
pub(crate) fn reported(record: &Record) -> String {
    format!("reported_{}", record.metric)
}
