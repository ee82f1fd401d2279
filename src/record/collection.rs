//! The records of several stores.

use std::path::Path;

use super::{Record, Store, Unreadable, Usable};
use crate::error::AtPath;
use crate::{Error, Result};

/// A record and the store that it lies in, where the files beside it are too.
#[derive(Debug, Clone)]
pub struct Kept {
    pub record: Record,
    pub store: Store,
}

/// The records of several stores.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    /// Sorted by cell.
    pub kept: Vec<Kept>,
    /// Files that cannot be used: a command goes on without them, lists them and ends with a code that says so.
    pub unreadable: Vec<Unreadable>,
}

/// Like [`collect_usable`], with an error in place of a file that cannot be used.
///
/// # Errors
/// Where there is no store, or a record cannot be read.
pub fn collect(folder: &Path) -> Result<Vec<Kept>> {
    let Collection { kept, unreadable } = collect_usable(folder)?;
    unreadable.into_iter().next().map_or(Ok(kept), |first| Err(first.error))
}

/// The records of the store in `folder`, or of all stores one folder below it, and the files that cannot be used.
///
/// # Errors
/// Where there is no store, or a folder cannot be read.
pub fn collect_usable(folder: &Path) -> Result<Collection> {
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
        return Err(Error::not_found(folder, "holds no records: neither `records/` nor a folder with it")
            .help("give the folder that `bench --out` wrote to, as results or results/geobench"));
    }
    let mut all = Collection::default();
    for store in stores {
        let Usable { records, unreadable } = store.usable()?;
        all.kept.extend(records.into_iter().map(|record| Kept { record, store: store.clone() }));
        all.unreadable.extend(unreadable);
    }
    let place = |kept: &Kept| (kept.record.cell.clone(), kept.record.fingerprint.clone());
    all.kept.sort_by_cached_key(place);
    Ok(all)
}
