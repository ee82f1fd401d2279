//! Pairs records with those of the reference.

use std::collections::{BTreeMap, BTreeSet};

use crate::Result;
use crate::gate::choice::{Several, ask, newest_of_each};
use crate::record::{Aspect, Cell, SettingKey, StoredRecord};

/// One setting of a cell, with a record on one side or on both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'k> {
    pub cell: &'k Cell,
    pub now: Option<&'k StoredRecord>,
    pub before: Option<&'k StoredRecord>,
}

impl<'k> Pair<'k> {
    /// The records of both sides that exist.
    pub fn records(&self) -> impl Iterator<Item = &'k StoredRecord> + use<'k> {
        self.now.into_iter().chain(self.before)
    }

    /// Describes how the settings of the two differ; `None` if they agree or only one exists.
    pub fn differences(&self) -> Option<String> {
        let (now, before) = (SettingKey::of(&self.now?.record), SettingKey::of(&self.before?.record));
        let aspects = now.differences(&before);
        let told =
            || format!("{} in the records, {} in the reference", now.tell(&aspects), before.tell(&aspects));
        (!aspects.is_empty()).then(|| format!("settings differ: {}", told()))
    }
}

/// Pairs records of one cell by their settings: first those with equal settings, then those that differ only in weights and
/// settings of the protocol, because comparing these is the purpose of a gate across trainings.
///
/// # Errors
/// If several records match: the message lists them.
pub(crate) fn pairs<'k>(now: &'k [StoredRecord], before: &'k [StoredRecord]) -> Result<Vec<Pair<'k>>> {
    let (now, before) = (by_cell(now), by_cell(before));
    let cells: BTreeSet<&Cell> = now.keys().chain(before.keys()).copied().collect();
    let (mut pairs, mut several) = (Vec::new(), Vec::new());
    for cell in cells {
        let [mut now, mut before] =
            [&now, &before].map(|side| newest_of_each(side.get(cell).into_iter().flatten().copied()));
        for is_same in [equal, same, same_but_for_training] {
            pair_up(cell, &mut now, &mut before, is_same, &mut pairs, &mut several);
        }
        pairs.extend(now.into_iter().map(|kept| Pair { cell, now: Some(kept), before: None }));
        pairs.extend(before.into_iter().map(|kept| Pair { cell, now: None, before: Some(kept) }));
    }
    if several.is_empty() { Ok(pairs) } else { Err(ask(&several)) }
}

fn by_cell(records: &[StoredRecord]) -> BTreeMap<&Cell, Vec<&StoredRecord>> {
    let mut cells: BTreeMap<&Cell, Vec<&StoredRecord>> = BTreeMap::new();
    records.iter().for_each(|kept| cells.entry(&kept.record.cell).or_default().push(kept));
    cells
}

type IsSame = fn(&SettingKey, &SettingKey) -> bool;

fn equal(a: &SettingKey, b: &SettingKey) -> bool {
    a == b
}

/// Whether no setting differs. Records of older schemas do not state every setting.
fn same(a: &SettingKey, b: &SettingKey) -> bool {
    a.is_same(b)
}

fn same_but_for_training(a: &SettingKey, b: &SettingKey) -> bool {
    let of_training =
        |aspect: &Aspect| matches!(aspect, Aspect::Weights | Aspect::Coverage | Aspect::Protocol(_));
    a.differences(b).iter().all(of_training)
}

/// Moves records that match each other and no other into pairs, and those that match several into `several`.
fn pair_up<'k>(
    cell: &'k Cell,
    now: &mut Vec<&'k StoredRecord>,
    before: &mut Vec<&'k StoredRecord>,
    is_same: IsSame,
    pairs: &mut Vec<Pair<'k>>,
    several: &mut Vec<Several<'k>>,
) {
    let key = |kept: &StoredRecord| SettingKey::of(&kept.record);
    let fits = |a: &StoredRecord, b: &StoredRecord| is_same(&key(a), &key(b));
    let (mut taken_now, mut taken_before) = (vec![false; now.len()], vec![false; before.len()]);
    for (i, record) in now.iter().enumerate() {
        let matches: Vec<usize> = (0..before.len()).filter(|j| fits(record, before[*j])).collect();
        // The first of them matches at least as many records of this side.
        let rivals: Vec<usize> = match matches.first() {
            Some(first) => (0..now.len()).filter(|i| fits(now[*i], before[*first])).collect(),
            None => continue,
        };
        if taken_now[i] {
            continue;
        }
        if let ([place], [_]) = (&matches[..], &rivals[..]) {
            pairs.push(Pair { cell, now: Some(*record), before: Some(before[*place]) });
        } else {
            let Cell { suite, task, partition, protocol, seed, .. } = cell;
            let sides = [("the records", &rivals, &*now), ("the reference", &matches, &*before)];
            several.extend(sides.into_iter().filter(|(_, places, _)| places.len() > 1).map(
                |(side, places, records)| Several {
                    of: format!("{suite} {task} {partition} {protocol} seed {seed}, in {side}"),
                    records: places.iter().map(|place| records[*place]).collect(),
                },
            ));
        }
        rivals.iter().for_each(|place| taken_now[*place] = true);
        matches.iter().for_each(|place| taken_before[*place] = true);
    }
    let free = |records: &mut Vec<&'k StoredRecord>, taken: &[bool]| {
        let mut taken = taken.iter();
        records.retain(|_| !taken.next().copied().unwrap_or_default());
    };
    free(now, &taken_now);
    free(before, &taken_before);
}
