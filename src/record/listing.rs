//! The names of a folder's records by the digits of their fingerprints, read once while the folder does not change.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::Result;
use crate::error::AtPath;

/// A folder changed this recently may change again under the same time stamp: file systems count in steps of up to two seconds.
const SETTLED: Duration = Duration::from_secs(3);

/// What a listing of the folder found.
#[derive(Debug)]
pub(super) struct Names {
    /// Names of the files that should contain records, in the folder's order.
    pub all: Vec<String>,
    by_digits: HashMap<String, Vec<usize>>,
}

impl Names {
    fn read(folder: &Path) -> Result<Self> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder).at(folder)? {
            let name = entry.at(folder)?.file_name();
            // Names that are not UTF-8 were not written by this program.
            if let Some(name) = name.to_str()
                && name.ends_with(".json")
                && !name.starts_with('.')
            {
                all.push(name.to_owned());
            }
        }
        let mut by_digits: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, name) in all.iter().enumerate() {
            if let Some(digits) =
                name.strip_suffix(".json").and_then(|stem| stem.rsplit_once('.')).map(|(_, digits)| digits)
            {
                by_digits.entry(digits.to_owned()).or_default().push(place);
            }
        }
        Ok(Names { all, by_digits })
    }

    /// The names that end in these digits.
    pub fn of<'a>(&'a self, digits: &str) -> impl Iterator<Item = &'a String> + use<'a> {
        let places = self.by_digits.get(digits).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|place| self.all.get(*place))
    }
}

/// The last listing, shared by all copies of a store.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    last: Option<(SystemTime, Arc<Names>)>,
    /// How often the folder was read.
    reads: usize,
}

impl Listing {
    /// Returns the names in `folder`. Reads it unless it is as it was at the last call, by its time stamp: other processes may add
    /// records at any time.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn names(&self, folder: &Path) -> Result<Arc<Names>> {
        let changed = std::fs::metadata(folder).and_then(|metadata| metadata.modified()).ok();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((time, names)), Some(changed)) = (&state.last, changed)
            && *time == changed
        {
            return Ok(Arc::clone(names));
        }
        // The time is read before the names: a file that comes meanwhile changes it again.
        let names = Arc::new(Names::read(folder)?);
        state.reads += 1;
        let settled = changed.filter(|time| time.elapsed().is_ok_and(|age| age >= SETTLED));
        state.last = settled.map(|time| (time, Arc::clone(&names)));
        Ok(names)
    }

    /// How often the folder was read.
    #[cfg(test)]
    pub fn reads(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reads
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// Sets the folder's time stamp to some seconds ago.
    fn age(folder: &Path, seconds: u64) {
        File::open(folder).unwrap().set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    fn found(listing: &Listing, folder: &Path, digits: &str) -> Vec<String> {
        listing.names(folder).unwrap().of(digits).cloned().collect()
    }

    #[test]
    fn ten_thousand_look_ups_read_the_folder_once() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..2_000 {
            File::create(folder.path().join(format!("task.default.knn.model.seed0.{number:016x}.json")))
                .unwrap();
        }
        age(folder.path(), 60);
        let listing = Listing::default();
        for number in 0..10_000 {
            let names = found(&listing, folder.path(), &format!("{number:016x}"));
            assert_eq!(names.len(), usize::from(number < 2_000), "{number}");
        }
        assert_eq!(listing.reads(), 1);
    }

    #[test]
    fn a_record_of_another_process_is_seen_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let listing = Listing::default();
        age(folder.path(), 60);
        assert_eq!(found(&listing, folder.path(), "00ff"), Vec::<String>::new());
        let name = "task.default.knn.model.seed0.00ff.json";
        File::create(folder.path().join(name)).unwrap();
        assert_eq!(found(&listing, folder.path(), "00ff"), [name]);
        // Within the same tick of the clock another one may come: nothing is taken from memory yet.
        let second = "other.default.knn.model.seed0.00ff.json";
        let stamp = std::fs::metadata(folder.path()).unwrap().modified().unwrap();
        File::create(folder.path().join(second)).unwrap();
        File::open(folder.path()).unwrap().set_modified(stamp).unwrap();
        assert_eq!(found(&listing, folder.path(), "00ff").len(), 2);
        std::fs::remove_file(folder.path().join(name)).unwrap();
        assert_eq!(found(&listing, folder.path(), "00ff"), [second]);
    }

    #[test]
    fn hidden_and_other_files_are_no_records() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".a.00ff.json", "a.00ff.txt", "a.00ff.json.tmp"] {
            File::create(folder.path().join(name)).unwrap();
        }
        assert!(Listing::default().names(folder.path()).unwrap().all.is_empty());
    }
}
