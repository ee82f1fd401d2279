//! What can go wrong, told so that the reader knows which file, what was wrong with it and what to do.

use std::path::{Path, PathBuf};

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure names its subject (a file, an option), the problem (expected and found) and a remedy.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A file is missing, damaged or holds something else than expected.
    #[error("{}: {problem}{}", path.display(), remedy_line(remedy))]
    File { path: PathBuf, problem: String, remedy: String },
    /// A request that cannot be met: an unknown name, options that contradict each other.
    #[error("{problem}{}", remedy_line(remedy))]
    Request { problem: String, remedy: String },
    /// A number that must be finite is not: features overflowed, or a training diverged. A candidate that fails so is
    /// passed over where there are others.
    #[error("{problem}{}", remedy_line(remedy))]
    NotFinite { problem: String, remedy: String },
}

fn remedy_line(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("\n  help: {remedy}") }
}

impl Error {
    /// A problem with the file or folder at `path`.
    pub fn file(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Error::File { path: path.as_ref().to_owned(), problem: problem.to_string(), remedy: String::new() }
    }

    /// A request that cannot be met.
    pub fn request(problem: impl ToString) -> Self {
        Error::Request { problem: problem.to_string(), remedy: String::new() }
    }

    /// A number that must be finite is not.
    pub fn not_finite(problem: impl ToString) -> Self {
        Error::NotFinite { problem: problem.to_string(), remedy: String::new() }
    }

    /// What the user can do about it; empty where nothing is known.
    pub fn remedy(&self) -> &str {
        let (Error::File { remedy, .. } | Error::Request { remedy, .. } | Error::NotFinite { remedy, .. }) =
            self;
        remedy
    }

    /// The same error with what the user can do about it.
    #[must_use]
    pub fn help(mut self, what_to_do: impl ToString) -> Self {
        let (Error::File { remedy, .. } | Error::Request { remedy, .. } | Error::NotFinite { remedy, .. }) =
            &mut self;
        *remedy = what_to_do.to_string();
        self
    }
}

/// Attaches the file's name to the error of an operation on it.
pub trait AtPath<T> {
    /// Turns the error into [`Error::File`] about `path`.
    fn at(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: std::fmt::Display> AtPath<T> for std::result::Result<T, E> {
    fn at(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|problem| Error::file(path, problem))
    }
}
