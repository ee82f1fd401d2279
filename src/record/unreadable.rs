//! Files that should hold a record and cannot be used: they are listed, and the others go on.

use std::fmt;
use std::path::PathBuf;

use crate::Error;

/// A file that cannot be used, and why.
#[derive(Debug, Clone)]
pub struct Unreadable {
    pub path: PathBuf,
    pub reason: Reason,
    /// Names the file, what was expected and found, and what to do.
    pub error: Error,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not a whole record, or not the predictions of one.
    Damaged,
    /// The file system refuses to read it.
    Refused,
    /// Of a schema that this program no longer reads.
    OlderSchema,
    /// Of a schema that only a newer program reads.
    NewerSchema,
    /// A copy beside the record, as file managers and sync clients make them: `x (1).json`.
    ConflictCopy,
    /// A record under another record's name.
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
    /// `damaged: results/…/x.json: not a record: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.error)
    }
}

/// What a command says of them at its end, one after the other; nothing where there are none.
pub fn list(unreadable: &[Unreadable]) -> Option<String> {
    if unreadable.is_empty() {
        return None;
    }
    let mut text = match unreadable.len() {
        1 => "1 file cannot be used; the others are used:".to_owned(),
        n => format!("{n} files cannot be used; the others are used:"),
    };
    for one in unreadable {
        text += &format!("\n{one}");
    }
    Some(text)
}
