//! Notes: what a reader of a number must know about it, such as duplicates among the test samples.
//!
//! ```
//! use terrabench::record::Note;
//! let note = Note::new("constant-features", "all 1000 test features are equal");
//! assert_eq!(note.to_string(), "constant-features: all 1000 test features are equal");
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// A note of a record. Tables mark the record's value with a letter and print the note below.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Note {
    /// What it is about, in a few letters, the same for all notes of the kind: `constant-features`.
    pub kind: String,
    /// One sentence without a full stop: what was found, and where. Records with equal texts share a footnote.
    pub text: String,
}

impl Note {
    /// A note of that kind.
    pub fn new(kind: impl Into<String>, text: impl Into<String>) -> Self {
        Note { kind: kind.into(), text: text.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.text)
    }
}
