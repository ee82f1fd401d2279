//! Reads all records below a results folder, by suite.

use std::path::{Path, PathBuf};

use super::tables::baseline;
use crate::error::AtPath;
use crate::home::Home;
use crate::record::{Record, Store, Unreadable, Usable};
use crate::task::Suite;
use crate::{Error, Result, remedy};

/// Suffix of folders whose records are of generated data.
const DEMO: &str = "-demo";

/// The records of one suite, or of its demo.
pub struct Section {
    /// The suite.
    pub suite: Suite,
    /// Whether the records are of generated data.
    pub demo: bool,
    /// Folder below the results folder: `<suite>` or `<suite>-demo`.
    pub folder: String,
    /// The store that the records come from.
    pub store: Store,
    /// Records, sorted by cell.
    pub records: Vec<Record>,
    /// Files that cannot be used, with the reasons.
    pub unreadable: Vec<Unreadable>,
}

impl Section {
    /// Returns the section's heading: `GEO-Bench`, or `GEO-Bench (demo)`.
    pub fn title(&self) -> String {
        format!("{}{}", self.suite.title, if self.demo { " (demo)" } else { "" })
    }
}

/// Reads `<results>/<suite>/records/` of every suite and `<results>/<suite>-demo/records/` of every demo. The suites come
/// first, by name, then the demos.
///
/// # Errors
/// If there are no records, a folder with records is not named after a suite, or a folder cannot be read.
pub fn gather(home: &Home, results: &Path) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for folder in folders(results)? {
        let (name, demo) = match folder.strip_suffix(DEMO) {
            Some(name) => (name, true),
            None => (folder.as_str(), false),
        };
        let path = results.join(&folder);
        if !home.suite(name).is_file() {
            return Err(Error::damaged(&path, format!("contains records, but there is no suite `{name}`"))
                .help("keep records in `<suite>/records/` or `<suite>-demo/records/`"));
        }
        let Some(store) = Store::existing(&path) else { continue };
        let Usable { mut records, unreadable } = store.usable()?;
        baseline::mark(&mut records);
        sections.push(Section { suite: Suite::load(home, name)?, demo, records, unreadable, store, folder });
    }
    if sections.is_empty() {
        return Err(Error::not_found(results, "no records found below this folder").help(format!(
            "run `{}` to create some, or choose another folder with --results",
            remedy::DEMO
        )));
    }
    sections.sort_by(|a, b| (a.demo, &a.suite.name).cmp(&(b.demo, &b.suite.name)));
    Ok(sections)
}

/// Returns the names of the folders with records.
fn folders(results: &Path) -> Result<Vec<String>> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(results).at(results)? {
        let path: PathBuf = entry.at(results)?.path();
        if path.join("records").is_dir()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            folders.push(name.to_owned());
        }
    }
    Ok(folders)
}
