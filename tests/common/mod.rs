//! Where test data is.

#![allow(dead_code, reason = "not every test binary uses every helper")]

use std::path::{Path, PathBuf};

/// The folder of real pixels: `$TERRABENCH_REAL`, else `../shared/real` beside the checkout, if there is one.
pub fn real() -> Option<PathBuf> {
    let folder = std::env::var_os("TERRABENCH_REAL").map(PathBuf::from);
    folder
        .or_else(|| Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/real")))
        .filter(|folder| folder.is_dir())
}

/// A file or folder of `tests/fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The records below a suite's folder of results, by file name, without the times at which they were made.
pub fn records(folder: &Path) -> std::collections::BTreeMap<String, terrabench::record::Record> {
    let Ok(entries) = std::fs::read_dir(folder.join("records")) else { return Default::default() };
    let mut records = std::collections::BTreeMap::new();
    for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()) {
        let mut record: terrabench::record::Record =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (record.provenance.finished, record.provenance.wall_seconds) = (0, 0.0);
        records.insert(path.file_name().unwrap().to_string_lossy().into_owned(), record);
    }
    records
}
