//! Generated data for tests, written once for all of them: writing them anew takes longer than most tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use terrabench::demo;
use terrabench::home::Home;
use terrabench::task::Suite;

/// Puts a suite's generated data into a cache folder, as the first `--demo` would, and returns the folder.
pub fn cache(suite: &str, folder: impl AsRef<Path>) -> PathBuf {
    let suite = Suite::load(&Home::find().unwrap(), suite).unwrap();
    provide(&suite, folder.as_ref());
    folder.as_ref().to_owned()
}

/// Like [`demo::provide`], but copies the files if any test wrote them before.
pub fn provide(suite: &Suite, cache: &Path) -> PathBuf {
    static WRITTEN: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let key = serde_json::to_string(&(&suite.name, &suite.bands, &suite.tasks)).unwrap();
    let written = {
        let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
        written.entry(key).or_insert_with(|| demo::provide(suite, &shared).unwrap()).clone()
    };
    let there = cache.join(written.file_name().unwrap());
    if !there.exists() {
        let partial = cache.join("copied.partial");
        copy(&written, &partial);
        std::fs::rename(&partial, &there).unwrap();
    }
    there
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}
