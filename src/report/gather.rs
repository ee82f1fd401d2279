//! All records below a folder of results, by suite.

use std::path::{Path, PathBuf};

use super::tables::baseline;
use crate::error::AtPath;
use crate::home::Home;
use crate::record::{Record, Store, Unreadable, Usable};
use crate::task::Suite;
use crate::{Error, Result, remedy};

/// What ends the name of a folder whose records are of generated data.
const DEMO: &str = "-demo";

/// The records of one suite, or of its demo.
pub struct Section {
    pub suite: Suite,
    pub demo: bool,
    /// `<suite>` or `<suite>-demo`, below the folder of results.
    pub folder: String,
    pub store: Store,
    /// Sorted by cell.
    pub records: Vec<Record>,
    /// Files that cannot be used.
    pub unreadable: Vec<Unreadable>,
}

impl Section {
    /// As a heading: `GEO-Bench`, `GEO-Bench (demo)`.
    pub fn title(&self) -> String {
        format!("{}{}", self.suite.title, if self.demo { " (demo)" } else { "" })
    }
}

/// Reads `<results>/<suite>/records/` of every suite and `<results>/<suite>-demo/records/` of every demo: the suites
/// by name, the demos behind them.
///
/// # Errors
/// Where there is none, where a folder with records has the name of no suite, or where a folder cannot be read.
pub fn gather(home: &Home, results: &Path) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for folder in folders(results)? {
        let (name, demo) = match folder.strip_suffix(DEMO) {
            Some(name) => (name, true),
            None => (folder.as_str(), false),
        };
        let path = results.join(&folder);
        if !home.suite(name).is_file() {
            return Err(Error::damaged(&path, format!("holds records, but there is no suite `{name}`"))
                .help("results lie in `<suite>/records/` and `<suite>-demo/records/`"));
        }
        let Some(store) = Store::existing(&path) else { continue };
        let Usable { mut records, unreadable } = store.usable()?;
        baseline::mark(&mut records);
        sections.push(Section { suite: Suite::load(home, name)?, demo, records, unreadable, store, folder });
    }
    if sections.is_empty() {
        return Err(Error::not_found(results, "no folder below it holds records")
            .help(format!("`{}` makes some; or name another folder with --results", remedy::DEMO)));
    }
    sections.sort_by(|a, b| (a.demo, &a.suite.name).cmp(&(b.demo, &b.suite.name)));
    Ok(sections)
}

/// The names of the folders that hold records.
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
