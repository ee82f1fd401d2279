//! Identifies the program in records: its version and the revision of its sources.
//!
//! The binary knows the revision (see `revision/`) and passes it down. The library does not know it, so that a
//! commit only requires recompiling the binary.

/// Version and revision of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Version, such as `0.1.0`.
    pub version: String,
    /// Git's name of the revision it was built from; `None` outside a checkout.
    pub revision: Option<String>,
    /// Whether the sources differed from that revision.
    pub is_dirty: bool,
}

impl Program {
    /// Describes this version, built from `revision`: its name, and whether the sources differed from it.
    pub fn new(revision: Option<(&str, bool)>) -> Self {
        Program {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: revision.map(|(revision, _)| revision.to_owned()),
            is_dirty: revision.is_some_and(|(_, is_dirty)| is_dirty),
        }
    }
}
