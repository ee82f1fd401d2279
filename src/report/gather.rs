//! Reads all records below a results folder, by suite.

use std::path::{Path, PathBuf};

use super::tables::baseline;
use crate::error::AtPath;
use crate::home::Home;
use crate::record::contribution::Contribution;
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

/// Reads `<results>/<suite>/records/` of every suite and `<results>/<suite>-demo/records/` of every demo, and adds those of
/// the contributions. The suites come first, by name, then the demos.
///
/// # Errors
/// If there are no records, a folder with records is not named after a suite, or a folder cannot be read.
pub fn gather(home: &Home, results: &Path, contributions: &[Contribution]) -> Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    // Someone who only received contributions has no results.
    let own = if contributions.is_empty() || results.is_dir() { folders(results)? } else { Vec::new() };
    for folder in own {
        if let Some(store) = Store::existing(results.join(&folder)) {
            let usable = store.usable()?;
            sections.push(section(home, results, &folder, store, usable)?);
        }
    }
    for contribution in contributions {
        for folder in contribution.manifest.records.keys() {
            let Some((store, usable)) = contribution.records(folder)? else { continue };
            let new = section(home, &contribution.folder, folder, store, usable)?;
            match sections.iter_mut().find(|section| section.folder == *folder) {
                None => sections.push(new),
                Some(known) => {
                    known.records.extend(new.records);
                    known.records.sort_by(|a, b| (&a.cell, &a.fingerprint).cmp(&(&b.cell, &b.fingerprint)));
                    known.unreadable.extend(new.unreadable);
                }
            }
        }
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

/// Makes the section of the records in `<parent>/<folder>/`.
fn section(home: &Home, parent: &Path, folder: &str, store: Store, usable: Usable) -> Result<Section> {
    let (name, demo) = match folder.strip_suffix(DEMO) {
        Some(name) => (name, true),
        None => (folder, false),
    };
    if !home.suite(name).is_file() {
        let problem = format!("contains records, but there is no suite `{name}`");
        return Err(Error::damaged(parent.join(folder), problem)
            .help("keep records in `<suite>/records/` or `<suite>-demo/records/`"));
    }
    let Usable { mut records, unreadable } = usable;
    baseline::mark(&mut records);
    Ok(Section {
        suite: Suite::load(home, name)?,
        demo,
        records,
        unreadable,
        store,
        folder: folder.to_owned(),
    })
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
