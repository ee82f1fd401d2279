//! Collects the records of several stores.

use std::path::Path;

use super::contribution::Contribution;
use super::{Record, Store, Unreadable, Usable};
use crate::error::AtPath;
use crate::{Error, Result};

/// A record and the store that contains it and the files beside it.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// The record.
    pub record: Record,
    /// Its store.
    pub store: Store,
}

/// The records of several stores.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    /// Records sorted by cell.
    pub kept: Vec<StoredRecord>,
    /// Files that cannot be used: a command continues without them, lists them and reports them in its exit code.
    pub unreadable: Vec<Unreadable>,
}

/// Like [`collect_usable`], but fails if a file cannot be used.
///
/// # Errors
/// If there is no store, or a record cannot be read.
pub fn collect(folder: &Path) -> Result<Vec<StoredRecord>> {
    let Collection { kept, unreadable } = collect_usable(folder)?;
    unreadable.into_iter().next().map_or(Ok(kept), |first| Err(first.error))
}

/// Collects the records, and the files that cannot be used, of the store in `folder` or of all stores one level below it.
///
/// # Errors
/// If there is no store, a folder cannot be read, or the folder is a contribution with a file that was changed.
pub fn collect_usable(folder: &Path) -> Result<Collection> {
    if Contribution::is_in(folder) {
        Contribution::open(folder)?;
    }
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
        return Err(Error::not_found(
            folder,
            "no records found: expected `records/` here or one level below",
        )
        .help("name the folder that `bench --out` wrote to, such as results or results/geobench"));
    }
    let mut all = Collection::default();
    for store in stores {
        let Usable { records, unreadable } = store.usable()?;
        all.kept.extend(records.into_iter().map(|record| StoredRecord { record, store: store.clone() }));
        all.unreadable.extend(unreadable);
    }
    let place = |kept: &StoredRecord| (kept.record.cell.clone(), kept.record.fingerprint.clone());
    all.kept.sort_by_cached_key(place);
    Ok(all)
}
