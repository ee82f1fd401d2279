//! Pictures and tables of one task, from the predictions stored with its records.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::calibration::{self, Calibration};
use super::chapter::Figure;
use super::pictures::{confusion, map, reliability};
use super::whole::plain;
use super::{add_unreadable, classes};
use crate::record::predictions::Named;
use crate::record::{Record, Store, Unreadable};
use crate::task::Task;

/// How many records of a protocol are tried for a picture: those of earlier versions lack what later ones have.
const TRIES: usize = 8;

/// The predictions of a task's records, each read at most once.
pub(super) struct TaskPredictions<'a> {
    store: &'a Store,
    /// From the one shown first to the last.
    records: Vec<(&'a Record, Option<Option<Named>>)>,
    /// Predictions that cannot be used.
    pub(super) unreadable: Vec<Unreadable>,
}

impl<'a> TaskPredictions<'a> {
    /// Own records come before contributed ones, whole weights before partial ones, all training data before a part, later
    /// records before earlier ones.
    pub(super) fn new(store: &'a Store, mut records: Vec<&'a Record>) -> Self {
        records.sort_by_key(|r| {
            let made = &r.provenance;
            (
                made.origin.is_some(),
                made.partial_weights(),
                r.cell.partition != "default",
                Reverse(made.finished),
            )
        });
        let records = records.into_iter().map(|record| (record, None)).collect();
        TaskPredictions { store, records, unreadable: Vec::new() }
    }

    /// Returns a record and its predictions, if it has any that can be used.
    fn get(&mut self, place: usize) -> Option<(&'a Record, &Named)> {
        let (record, read) = &mut self.records[place];
        let named = read.get_or_insert_with(|| match self.store.predictions(record) {
            Ok(named) => named,
            Err(error) => {
                add_unreadable(&mut self.unreadable, self.store.predictions_path(record), error);
                None
            }
        });
        named.as_ref().map(|named| (*record, named))
    }

    /// Returns the first result of `draw`.
    fn first<T>(&mut self, draw: impl Fn(&Record, &Named) -> Option<T>) -> Option<T> {
        let mut tried: Vec<&str> = Vec::new();
        for place in 0..self.records.len() {
            let record: &'a Record = self.records[place].0;
            let protocol = record.cell.protocol.as_str();
            if tried.iter().filter(|other| **other == protocol).count() == TRIES {
                continue;
            }
            tried.push(protocol);
            if let Some(found) = self.get(place).and_then(|(record, named)| draw(record, named)) {
                return Some(found);
            }
        }
        None
    }

    /// Draws the task's confusion matrix with its classes, its reliability diagram with the calibration of all records, and its map.
    pub(super) fn figures(&mut self, task: &Task) -> Vec<Figure> {
        let name = plain(&task.name);
        let mut figures = Vec::new();
        let confusion = self.first(|record, named| {
            let picture = confusion::draw(task, record, &named.predictions)?;
            Some((picture, classes::table(task, &named.predictions)))
        });
        let calibrated = self.calibrations();
        let reliability = self.first(|record, named| {
            let calibration = Calibration::of(named)?;
            Some(reliability::draw(task, record, &calibration))
        });
        if let Some((picture, mut table)) = confusion {
            let caption = format!("{}: predictions compared with labels", task.title);
            if reliability.is_none()
                && let Some(table) = &mut table
            {
                let none = calibration::NO_PROBABILITIES;
                table.notes.push(format!("Calibration: the records of this task have {none}."));
            }
            figures.push(Figure { table, ..Figure::new(format!("{name}-confusion"), caption, picture) });
        }
        if let Some(picture) = reliability {
            let caption = format!("{}: calibration of the probabilities", task.title);
            let table = Some(calibration::table(task, &calibrated));
            figures.push(Figure { table, ..Figure::new(format!("{name}-reliability"), caption, picture) });
        }
        if let Some(picture) = self.first(|record, named| map::draw(task, record, named)) {
            let caption = format!("{}: map of the test images by their features", task.title);
            figures.push(Figure::new(format!("{name}-map"), caption, picture));
        }
        figures
    }

    /// Returns the calibration of the first record of each model, protocol and training set whose predictions decide on classes.
    fn calibrations(&mut self) -> Vec<(&'a Record, Option<Calibration>)> {
        // Further records are not tried once one is found.
        let mut tried: BTreeMap<_, usize> = BTreeMap::new();
        let mut found = Vec::new();
        for place in 0..self.records.len() {
            let record: &'a Record = self.records[place].0;
            let cell = &record.cell;
            let key = (&cell.model, &cell.backbone, &cell.protocol, &cell.partition);
            let tries = tried.entry(key).or_default();
            if *tries >= TRIES {
                continue;
            }
            *tries += 1;
            let Some((_, named)) = self.get(place) else { continue };
            *tries = TRIES;
            if matches!(named.predictions.class_counts(), Ok(Some(_))) {
                found.push((record, Calibration::of(named)));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cell.cmp(&b.cell));
        found
    }
}
