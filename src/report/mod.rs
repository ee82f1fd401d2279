//! Tables, pictures and pages that show records and published numbers side by side. Reads files only; never runs a model.
//!
//! ```text
//! gather.rs     results/ -> Sections: the records of each suite
//! tables/       records + published values -> ResultTable, written as Markdown and CSV
//! ranking/      ResultTable, predictions -> Ranking: average ranks over tasks, and what they can tell apart
//! aggregate.rs  ResultTable -> Scores: the interquartile mean over tasks and seeds
//! pictures/     ResultTable, predictions -> Picture, which ../canvas.rs draws as SVG and PNG
//! latex/        tables and pictures for papers, and the bibliography
//! cost.rs       parameters and arithmetic, counted from an architecture
//! spread.rs     one model on one task, one choice changed at a time
//! views.rs      whether the ranks of models survive a choice
//! checklist.rs  what the measured rows lack
//! mistaken_bands.rs  what the bands cost that published rows feed a model by mistake
//! task_figures.rs  predictions -> pictures and tables of one task: classes.rs, calibration.rs, maps
//! html.rs       tables and pictures on one page
//! whole.rs      the report of all suites, with an index
//! ```

pub mod aggregate;
pub mod calibration;
pub mod capabilities;
mod chapter;
mod checklist;
mod classes;
pub mod cost;
mod gather;
mod html;
pub mod latex;
mod mistaken_bands;
pub mod model_card;
pub mod pictures;
mod plain;
pub mod ranking;
pub mod spread;
pub mod tables;
mod task_figures;
mod views;
mod whole;

use std::path::{Path, PathBuf};

pub use self::gather::{Section, gather};
pub use self::latex::Style;
pub use self::pictures::spider::Choice;
use self::tables::baseline;
pub use self::tables::csv::csv;
pub use self::tables::markdown::markdown;
use self::tables::published;
use self::tables::table::{self, ResultTable};
pub use self::whole::{write_all, write_with};
use crate::files::write_atomically;
use crate::home::Home;
use crate::record::{Reason, Record, Store, Unreadable, Usable};
use crate::task::{Suite, Table};
use crate::{Error, Result};

/// The files of a report, and the inputs that could not be used for it.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Paths of the written files.
    pub files: Vec<PathBuf>,
    /// Unusable records and predictions, which the report leaves out.
    pub unreadable: Vec<Unreadable>,
}

/// Writes `<file>.md` and `<file>.csv` into `folder` for every table of the suite with a measured row, from the usable records
/// in the store. `demo` says whether the tables are of generated data.
///
/// # Errors
/// If the store or a file of published values cannot be read, or a table cannot be written.
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

/// Returns the files' names with the reasons: `x.json (damaged)`.
fn names(unreadable: &[Unreadable]) -> Vec<String> {
    let name = |one: &Unreadable| {
        let name = one.path.file_name().unwrap_or(one.path.as_os_str());
        format!("{} ({})", name.to_string_lossy(), one.reason)
    };
    unreadable.iter().map(name).collect()
}

/// Fills the tables of the suite; returns each with its file name. A table that no run fills is left out unless a record is of a
/// task that no other table has.
fn fill_all<'a>(
    suite: &'a Suite,
    home: &Home,
    records: &'a [Record],
    demo: bool,
) -> Result<Vec<(&'a str, ResultTable<'a>)>> {
    let mut tables = Vec::new();
    for definition in &suite.tables {
        // The name comes from a suite's TOML and must not lead out of the folder.
        if Path::new(&definition.file).file_name() != Some(definition.file.as_ref()) {
            return Err(Error::request(format!("table file `{}` is not a plain file name", definition.file))
                .help(format!("change `file` of that table in benchmarks/{}.toml", suite.name)));
        }
        if !definition.is_run && !has_own_task(suite, definition, records) {
            continue;
        }
        let published = published::of_table(home, definition)?;
        tables.push((definition.file.as_str(), table::fill(definition, suite, &published, records, demo)?));
    }
    Ok(tables)
}

/// Whether a record is of a task that, of the tables that runs fill, none has.
fn has_own_task(suite: &Suite, definition: &Table, records: &[Record]) -> bool {
    let is_elsewhere =
        |task: &String| suite.tables.iter().any(|other| other.is_run && other.tasks.contains(task));
    let own: Vec<&String> = definition.tasks.iter().filter(|task| !is_elsewhere(task)).collect();
    records.iter().any(|record| own.contains(&&record.cell.task))
}

/// Lists predictions that cannot be used, once.
fn add_unreadable(unreadable: &mut Vec<Unreadable>, path: PathBuf, error: Error) {
    if !unreadable.iter().any(|known| known.path == path) {
        unreadable.push(Unreadable { path, reason: Reason::Damaged, error });
    }
}

/// Formats a share as percent with at most three decimals: 0.01 as `1 %`.
fn percent(share: f64) -> String {
    format!("{} %", (share * 1e5).round() / 1e3)
}
