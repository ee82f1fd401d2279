//! Tables: records and published numbers side by side. Reads what is on disk, never runs anything.

pub mod check;
pub mod compare;
mod csv;
mod markdown;
mod paired;
pub mod published;
pub mod rescore;
pub mod table;
mod transposed;

use std::path::{Path, PathBuf};

pub use self::csv::csv;
pub use self::markdown::markdown;
use crate::files::write_atomically;
use crate::home::Home;
use crate::record::Store;
use crate::suite::Suite;
use crate::{Error, Result};

/// Writes `<file>.md` and `<file>.csv` into `folder` for every table of the suite that has a row of ours, from
/// the records in the store, and returns the files. `demo` says whether the tables are of generated data.
///
/// # Errors
/// Where a record or a file of published values cannot be read, or a table cannot be written.
pub fn write(suite: &Suite, home: &Home, store: &Store, folder: &Path, demo: bool) -> Result<Vec<PathBuf>> {
    let records = store.all()?;
    let mut files = Vec::new();
    for definition in &suite.tables {
        // The name comes from a suite's TOML: it must not lead out of the folder.
        if Path::new(&definition.file).file_name() != Some(definition.file.as_ref()) {
            return Err(Error::request(format!("`{}` is not the name of a file", definition.file)).help(
                format!("set `file` of that table in benchmarks/{}.toml to a plain name", suite.name),
            ));
        }
        let published = published::read(&home.published(&definition.published))?;
        let filled = table::fill(definition, suite, &published, &records, demo)?;
        if filled.measured.is_empty() {
            continue;
        }
        files.push((folder.join(format!("{}.md", definition.file)), markdown(&filled)));
        files.push((folder.join(format!("{}.csv", definition.file)), csv(&filled)?));
    }
    for (path, text) in &files {
        write_atomically(path, text.as_bytes())?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}
