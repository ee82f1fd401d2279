//! Which records stand in one row of a table: those of one setting.
//!
//! Some of a setting follows from the task (missing bands, the size of the input, a sensor per sensor), so a row's columns can
//! differ although nobody chose so. The first row of a model takes a value for every column, and marks what differs from the
//! setting that most of its columns have. Where a column has values of several settings, the others make rows of their own.

use std::collections::BTreeMap;

use super::table::LeftOut;
use crate::record::{Aspect, Record, SettingKey};
use crate::task::Sensor;

/// A task and a partition.
pub(crate) type TaskPartition<'a> = (&'a str, &'a str);

/// Records that stand in one cell: of one setting, one per seed.
#[derive(Debug, Clone)]
pub(crate) struct CellRecords<'a> {
    pub setting: SettingKey,
    /// Sorted by seed.
    pub records: Vec<&'a Record>,
}

impl<'a> CellRecords<'a> {
    /// When its newest record was finished; the fingerprint decides within a second.
    fn age(&self) -> (u64, &'a str) {
        let ages =
            self.records.iter().map(|record| (record.provenance.finished, record.fingerprint.as_str()));
        ages.max().unwrap_or_default()
    }
}

/// A row's setting and the records of its cells.
#[derive(Debug, Clone)]
pub(crate) struct SettingRow<'a> {
    /// That of most columns.
    pub setting: SettingKey,
    pub cells: BTreeMap<TaskPartition<'a>, CellRecords<'a>>,
}

/// What was chosen otherwise than in a model's first row: aspects with their values.
type Change = Vec<(Aspect, String)>;

/// The rows of one model, the most complete first. Records that a newer one of the same setting supersedes go to `left_out`.
pub(crate) fn rows<'a>(records: &[&'a Record], left_out: &mut Vec<LeftOut<'a>>) -> Vec<SettingRow<'a>> {
    let mut places: BTreeMap<TaskPartition<'a>, Vec<&'a Record>> = BTreeMap::new();
    for record in records {
        places.entry((&record.cell.task, &record.cell.partition)).or_default().push(record);
    }
    let mut left: BTreeMap<TaskPartition<'a>, Vec<CellRecords<'a>>> =
        places.into_iter().map(|(place, records)| (place, by_setting(records, left_out))).collect();
    let Some(setting) = most_common(&left) else { return Vec::new() };
    let mut first = SettingRow { setting, cells: BTreeMap::new() };
    for (place, candidates) in &mut left {
        let distance = |cell: &CellRecords<'a>| differing(&first.setting, &cell.setting).len();
        let nearest = (0..candidates.len())
            .min_by_key(|i| (distance(&candidates[*i]), std::cmp::Reverse(candidates[*i].age())));
        if let Some(nearest) = nearest {
            let cell = candidates.remove(nearest);
            first.cells.insert(*place, cell);
        }
    }
    // What is left of a column was made otherwise than its value in the first row: the same change makes one row.
    let mut others: Vec<(Change, SettingRow<'a>)> = Vec::new();
    for (place, candidates) in left {
        for cell in candidates {
            let Some(usual) = first.cells.get(&place) else { continue };
            let change = change(&usual.setting, &cell.setting);
            let same = |(other, row): &&mut (Change, SettingRow<'a>)| {
                policy(other) == policy(&change) && !row.cells.contains_key(&place)
            };
            match others.iter_mut().find(same) {
                Some((_, row)) => drop(row.cells.insert(place, cell)),
                None => {
                    let mut setting = first.setting.clone();
                    change.iter().for_each(|(aspect, value)| setting.set(aspect.clone(), value.clone()));
                    others.push((change, SettingRow { setting, cells: BTreeMap::from([(place, cell)]) }));
                }
            }
        }
    }
    others.sort_by(|(a, row), (b, other)| other.cells.len().cmp(&row.cells.len()).then_with(|| a.cmp(b)));
    std::iter::once(first).chain(others.into_iter().map(|(_, row)| row)).collect()
}

/// What `cell` has otherwise than `usual`.
fn change(usual: &SettingKey, cell: &SettingKey) -> Change {
    let value = |aspect: &Aspect| cell.get(aspect).unwrap_or_default().to_owned();
    differing(usual, cell).into_iter().map(|aspect| (aspect.clone(), value(&aspect))).collect()
}

/// The change as it was asked for: which bands stand in for others, and the size of the input, are the task's answer.
fn policy(change: &Change) -> Change {
    let policy = |(aspect, value): &(Aspect, String)| match aspect {
        Aspect::Imputation => (aspect.clone(), value.contains("zeros").to_string()),
        Aspect::InputSize => (aspect.clone(), String::new()),
        _ => (aspect.clone(), value.clone()),
    };
    change.iter().map(policy).collect()
}

/// The records of one cell by setting. Of a setting the newest record's code, data and configuration count, over all seeds.
fn by_setting<'a>(mut records: Vec<&'a Record>, left_out: &mut Vec<LeftOut<'a>>) -> Vec<CellRecords<'a>> {
    records.sort_by_key(|record| std::cmp::Reverse((record.provenance.finished, &record.fingerprint)));
    let mut cells: Vec<CellRecords<'a>> = Vec::new();
    for record in records {
        let setting = SettingKey::of(record);
        match cells.iter_mut().find(|cell| cell.setting.is_same(&setting)) {
            None => cells.push(CellRecords { setting, records: vec![record] }),
            Some(cell) if cell.records.first().is_some_and(|newest| newest.settings == record.settings) => {
                cell.records.push(record);
            }
            Some(_) => left_out.push(LeftOut {
                record,
                why: "superseded by a newer run with other code, data or configuration",
            }),
        }
    }
    cells.iter_mut().for_each(|cell| cell.records.sort_by_key(|record| record.cell.seed));
    cells
}

/// The setting that most places have; of equally common ones the newest.
fn most_common<'a>(left: &BTreeMap<TaskPartition<'a>, Vec<CellRecords<'a>>>) -> Option<SettingKey> {
    // Of hundreds of cells only a few settings differ.
    let mut distinct: Vec<&CellRecords<'a>> = Vec::new();
    for cell in left.values().flatten() {
        match distinct.iter_mut().find(|other| other.setting == cell.setting) {
            Some(other) if other.age() < cell.age() => *other = cell,
            Some(_) => {}
            None => distinct.push(cell),
        }
    }
    let places = |cell: &CellRecords<'a>| {
        let agrees = |other: &CellRecords<'a>| differing(&cell.setting, &other.setting).is_empty();
        left.values().filter(|cells| cells.iter().any(agrees)).count()
    };
    let most = distinct.into_iter().max_by_key(|cell| (places(cell), cell.age()));
    most.map(|cell| cell.setting.clone())
}

/// What differs between cells of one row: not the sensor where the sensors are others, which decide it.
pub(crate) fn differing(row: &SettingKey, cell: &SettingKey) -> Vec<Aspect> {
    let radar = |key: &SettingKey| key.get(&Aspect::Sensor) == Some(&*Sensor::S1.to_string());
    let sensors_differ = radar(row) != radar(cell);
    let differing = row.differences(cell).into_iter();
    differing.filter(|aspect| !(sensors_differ && *aspect == Aspect::Sensor)).collect()
}
