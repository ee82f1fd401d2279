//! What was compiled: the program's version and the revision of its sources, for records.
//!
//! The binary knows the revision (see `revision/`) and hands it down; the library does not, so that a commit makes the
//! binary alone be compiled again.

/// What was compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// `0.1.0`.
    pub version: String,
    /// Git's name of the revision that the program was built from; nothing outside a checkout.
    pub revision: Option<String>,
    /// Whether the program's sources differed from it.
    pub is_dirty: bool,
}

impl Program {
    /// This version, built from `revision`: its name, and whether the sources differed from it.
    pub fn new(revision: Option<(&str, bool)>) -> Self {
        Program {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: revision.map(|(revision, _)| revision.to_owned()),
            is_dirty: revision.is_some_and(|(_, is_dirty)| is_dirty),
        }
    }
}
