//! Notes: facts that a reader of a number must know, such as duplicates among the test samples.
//!
//! ```
//! use terrabench::record::Note;
//! let note = Note::new("constant-features", "all 1000 test features are equal");
//! assert_eq!(note.to_string(), "constant-features: all 1000 test features are equal");
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// A note on a record. Tables mark the record's value with a letter and print the note below.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Note {
    /// Short name that all notes of the same kind share: `constant-features`.
    pub kind: String,
    /// One sentence without a full stop: what was found, and where. Records with equal texts share a footnote.
    pub text: String,
}

impl Note {
    /// Makes a note of that kind.
    pub fn new(kind: impl Into<String>, text: impl Into<String>) -> Self {
        Note { kind: kind.into(), text: text.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.text)
    }
}
