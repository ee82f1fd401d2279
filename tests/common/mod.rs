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
