//! Pythons for tests that start encoders.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn runs(python: &Path, code: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", code]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A Python that can run `code`: `$TERRABENCH_PYTHON`, else `python3` or `python`. None, with a note on standard error, if there
/// is none.
pub fn with(code: &str, test: &str) -> Option<String> {
    let chosen = std::env::var_os("TERRABENCH_PYTHON").filter(|path| !path.is_empty()).map(PathBuf::from);
    let known = ["python3", "python"].map(PathBuf::from);
    let found = chosen.into_iter().chain(known).find(|python| runs(python, code));
    if found.is_none() {
        eprintln!("skipped: {test} needs a Python in which `{code}` runs; TERRABENCH_PYTHON may name one");
    }
    found.map(|path| path.to_string_lossy().into_owned())
}

/// A Python with its standard library.
pub fn plain(test: &str) -> Option<String> {
    with("import array, json, struct", test)
}
