//! The records of several stores.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Record, Store};
use crate::error::AtPath;
use crate::{Error, Result};

/// A record and the store that it lies in, where the files beside it are too.
#[derive(Debug, Clone)]
pub struct Kept {
    pub record: Record,
    pub store: Store,
}

/// The records of the store in `folder`, or of all stores one folder below it, sorted by cell.
///
/// # Errors
/// Where there is no store, or a record cannot be read.
pub fn collect(folder: &Path) -> Result<Vec<Kept>> {
    let mut stores: Vec<Store> = Store::existing(folder).into_iter().collect();
    if stores.is_empty() {
        let mut below = Vec::new();
        for entry in std::fs::read_dir(folder).at(folder)? {
            below.push(entry.at(folder)?.path());
        }
        below.sort();
        stores = below.iter().filter_map(Store::existing).collect();
    }
    if stores.is_empty() {
        return Err(Error::file(folder, "holds no records: neither `records/` nor a folder with it")
            .help("give the folder that `bench --out` wrote to, as results or results/geobench"));
    }
    let mut all = Vec::new();
    for store in stores {
        let records = store.all()?;
        all.extend(records.into_iter().map(|record| Kept { record, store: store.clone() }));
    }
    all.sort_by(|a, b| (&a.record.cell, &a.record.fingerprint).cmp(&(&b.record.cell, &b.record.fingerprint)));
    Ok(all)
}

/// Of the records that share a key the one that was finished last.
pub fn latest<K: Ord>(all: &[Kept], key: impl Fn(&Record) -> K) -> BTreeMap<K, &Kept> {
    // Two may be finished within a second: the fingerprint then decides, the same on every run.
    let finished = |kept: &Kept| (kept.record.provenance.finished, kept.record.fingerprint.clone());
    let mut latest: BTreeMap<K, &Kept> = BTreeMap::new();
    for kept in all {
        let key = key(&kept.record);
        if latest.get(&key).is_none_or(|other| finished(other) < finished(kept)) {
            latest.insert(key, kept);
        }
    }
    latest
}
