//! Files that should contain a record but cannot be used. Commands list them and continue with the others.

use std::fmt;
use std::path::PathBuf;

use crate::Error;

/// A file that cannot be used, and why.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Path of the file.
    pub path: PathBuf,
    /// The kind of problem.
    pub reason: Reason,
    /// Names the file, what was expected, what was found, and what to do.
    pub error: Error,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not a complete record, or not the predictions of one.
    Damaged,
    /// The operating system refuses to read it.
    Refused,
    /// Has a schema that this program no longer reads.
    OlderSchema,
    /// Has a schema that only a newer program reads.
    NewerSchema,
    /// A copy beside the record, such as file managers and sync clients make: `x (1).json`.
    ConflictCopy,
    /// A record stored under another record's name.
    WrongName,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Damaged => "damaged",
            Reason::Refused => "cannot be opened",
            Reason::OlderSchema => "older schema",
            Reason::NewerSchema => "newer schema",
            Reason::ConflictCopy => "conflict copy",
            Reason::WrongName => "wrong name",
        })
    }
}

impl fmt::Display for Unreadable {
    /// Formats as `damaged: results/…/x.json: not a record: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.error)
    }
}

/// Lists the files for the end of a command's output; `None` if there are none.
pub fn list(unreadable: &[Unreadable]) -> Option<String> {
    if unreadable.is_empty() {
        return None;
    }
    let mut text = match unreadable.len() {
        1 => "skipped 1 file that cannot be used:".to_owned(),
        n => format!("skipped {n} files that cannot be used:"),
    };
    for one in unreadable {
        text += &format!("\n{one}");
    }
    Some(text)
}
