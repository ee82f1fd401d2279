//! Groups the records of a model into table rows, one row per setting.
//!
//! Parts of a setting follow from the task (missing bands, the size of the input, the sensor), so the columns of a row can
//! differ without a choice of the user. The first row of a model has a value in every column, and marks values that differ from
//! its most common setting. If a column has values of several settings, the others form rows of their own.

use std::collections::BTreeMap;

use crate::record::{Aspect, Record, SettingKey};
use crate::task::Sensor;

/// A record that no cell shows, and why.
#[derive(Debug, Clone)]
pub struct LeftOut<'a> {
    /// The record.
    pub record: &'a Record,
    /// The reason, such as `of another metric`.
    pub why: &'static str,
}

/// A task and a partition, which identify a column.
pub(crate) type TaskPartition<'a> = (&'a str, &'a str);

/// The records of one table cell: the same setting, one record per seed.
#[derive(Debug, Clone)]
pub(crate) struct CellRecords<'a> {
    pub setting: SettingKey,
    /// Sorted by seed.
    pub records: Vec<&'a Record>,
}

impl<'a> CellRecords<'a> {
    /// Returns when its newest record was finished; the fingerprint breaks ties within a second.
    fn age(&self) -> (u64, &'a str) {
        let ages =
            self.records.iter().map(|record| (record.provenance.finished, record.fingerprint.as_str()));
        ages.max().unwrap_or_default()
    }
}

/// A row's setting and the records of its cells.
#[derive(Debug, Clone)]
pub(crate) struct SettingRow<'a> {
    /// The setting of most columns.
    pub setting: SettingKey,
    pub cells: BTreeMap<TaskPartition<'a>, CellRecords<'a>>,
}

/// The aspects, with their values, that differ from a model's first row.
type Change = Vec<(Aspect, String)>;

/// Groups the records of one model into rows, the most complete first. Adds records superseded by a newer one of the same
/// setting to `left_out`.
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
    // The remaining values differ from the first row in some setting; those with the same change share a row.
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

/// Returns the aspects in which `cell` differs from `usual`, with the values of `cell`.
fn change(usual: &SettingKey, cell: &SettingKey) -> Change {
    let value = |aspect: &Aspect| cell.get(aspect).unwrap_or_default().to_owned();
    differing(usual, cell).into_iter().map(|aspect| (aspect.clone(), value(&aspect))).collect()
}

/// Reduces a change to the user's choice: the imputed and matched bands, the size of the input and the metadata follow from it and the
/// task.
fn policy(change: &Change) -> Change {
    let policy = |(aspect, value): &(Aspect, String)| match aspect {
        Aspect::Imputation => (aspect.clone(), value.contains("zeros").to_string()),
        Aspect::InputSize | Aspect::Metadata | Aspect::Matching => (aspect.clone(), String::new()),
        _ => (aspect.clone(), value.clone()),
    };
    change.iter().map(policy).collect()
}

/// Groups the records of one cell by setting. Keeps, over all seeds, only records with the same code, data and configuration as
/// the newest one.
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
                why: "superseded by a newer run with different code, data or configuration",
            }),
        }
    }
    cells.iter_mut().for_each(|cell| cell.records.sort_by_key(|record| record.cell.seed));
    cells
}

/// Returns the setting that most columns have; of equally common ones, the newest.
fn most_common<'a>(left: &BTreeMap<TaskPartition<'a>, Vec<CellRecords<'a>>>) -> Option<SettingKey> {
    // Hundreds of cells share a few settings.
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

/// Returns the aspects in which a cell differs from its row. The sensor is none where the task decides it: radar against optical,
/// or one satellite against another.
pub(crate) fn differing(row: &SettingKey, cell: &SettingKey) -> Vec<Aspect> {
    let is_chosen = |key: &SettingKey| {
        let sensor: Option<Sensor> = key.get(&Aspect::Sensor).and_then(|name| name.parse().ok());
        sensor.is_none_or(Sensor::has_alternatives)
    };
    let is_chosen = is_chosen(row) && is_chosen(cell);
    let differing = row.differences(cell).into_iter();
    differing.filter(|aspect| is_chosen || *aspect != Aspect::Sensor).collect()
}
