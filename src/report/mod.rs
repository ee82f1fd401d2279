//! Tables, pictures and pages: records and published numbers side by side. Reads what is on disk, never runs anything.
//!
//! ```text
//! gather.rs     results/ -> Sections: the records of each suite
//! tables/       records + published values -> ResultTable, written as Markdown and CSV
//! pictures/     ResultTable, predictions -> Picture, which ../canvas.rs draws as SVG and PNG
//! html.rs       all of it as one page
//! whole.rs      all of it for all suites, and what links it
//! ```

mod chapter;
mod gather;
mod html;
pub mod pictures;
pub mod tables;
mod whole;

use std::path::{Path, PathBuf};

pub use self::gather::{Section, gather};
pub use self::pictures::spider::Choice;
use self::tables::baseline;
pub use self::tables::csv::csv;
pub use self::tables::markdown::markdown;
use self::tables::published;
use self::tables::table::{self, ResultTable};
pub use self::whole::write_all;
use crate::files::write_atomically;
use crate::home::Home;
use crate::record::{Record, Store, Unreadable, Usable};
use crate::task::Suite;
use crate::{Error, Result};

/// What a report was written to, and what could not be used for it.
#[derive(Debug, Clone, Default)]
pub struct Written {
    pub files: Vec<PathBuf>,
    /// Records, and predictions of records, that the report goes without.
    pub unreadable: Vec<Unreadable>,
}

/// Writes `<file>.md` and `<file>.csv` into `folder` for every table of the suite that has a row of ours, from
/// the records in the store that can be used. `demo` says whether the tables are of generated data.
///
/// # Errors
/// Where the store or a file of published values cannot be read, or a table cannot be written.
pub fn write(suite: &Suite, home: &Home, store: &Store, folder: &Path, demo: bool) -> Result<Written> {
    let Usable { mut records, unreadable } = store.usable()?;
    baseline::mark(&mut records);
    let mut files = Vec::new();
    for (file, mut table) in fill_all(suite, home, &records, demo)? {
        table.unreadable = names(&unreadable);
        if !table.measured.is_empty() {
            files.push((folder.join(format!("{file}.md")), markdown(&table)));
            files.push((folder.join(format!("{file}.csv")), csv(&table)?));
        }
    }
    for (path, text) in &files {
        write_atomically(path, text.as_bytes())?;
    }
    Ok(Written { files: files.into_iter().map(|(path, _)| path).collect(), unreadable })
}

/// The files' names with the reason: `x.json (damaged)`.
fn names(unreadable: &[Unreadable]) -> Vec<String> {
    let name = |one: &Unreadable| {
        let name = one.path.file_name().unwrap_or(one.path.as_os_str());
        format!("{} ({})", name.to_string_lossy(), one.reason)
    };
    unreadable.iter().map(name).collect()
}

/// All tables of the suite, each with the name of its file.
fn fill_all<'a>(
    suite: &'a Suite,
    home: &Home,
    records: &'a [Record],
    demo: bool,
) -> Result<Vec<(&'a str, ResultTable<'a>)>> {
    let mut tables = Vec::new();
    for definition in &suite.tables {
        // The name comes from a suite's TOML: it must not lead out of the folder.
        if Path::new(&definition.file).file_name() != Some(definition.file.as_ref()) {
            return Err(Error::request(format!("`{}` is not the name of a file", definition.file)).help(
                format!("set `file` of that table in benchmarks/{}.toml to a plain name", suite.name),
            ));
        }
        let published = published::of_table(home, definition)?;
        tables.push((definition.file.as_str(), table::fill(definition, suite, &published, records, demo)?));
    }
    Ok(tables)
}

/// `1 %` of 0.01, to three decimals.
fn percent(share: f64) -> String {
    format!("{} %", (share * 1e5).round() / 1e3)
}
