//! What can go wrong, told so that the reader knows where, what was expected and found, and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: its kind, the file it is about (if any), the problem and a remedy.
///
/// ```
/// use terrabench::{Error, ErrorKind};
///
/// let error = Error::not_found("m-eurosat/band_stats.json", "no such file").help("fetch the data set again");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(
///     error.to_string(),
///     "m-eurosat/band_stats.json: no such file\n  help: fetch the data set again"
/// );
/// ```
#[derive(Debug, Clone)]
pub struct Error(Box<Failure>);

#[derive(Debug, Clone)]
struct Failure {
    kind: ErrorKind,
    path: Option<PathBuf>,
    problem: String,
    remedy: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What kind of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A file, a folder or an entry is not where it is looked for.
    NotFound,
    /// A file holds something else than it should.
    Damaged,
    /// A file is whole, but of a form that is not read.
    Unsupported,
    /// Two things do not fit together: shapes, kinds of targets, numbers of samples.
    Mismatch,
    /// The operating system or a server refused to read or write.
    Io,
    /// A device is missing or failed.
    Device,
    /// A request that cannot be met: an unknown name, options that contradict each other.
    Request,
    /// A number that must be finite is not: features overflowed, or a training diverged. A candidate that fails so is
    /// passed over if there are others.
    NotFinite,
}

impl Error {
    fn new(kind: ErrorKind, path: Option<PathBuf>, problem: impl ToString) -> Self {
        Error(Box::new(Failure {
            kind,
            path,
            problem: problem.to_string(),
            remedy: String::new(),
            source: None,
        }))
    }

    /// The file or folder at `path` holds something else than it should.
    pub fn damaged(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::new(ErrorKind::Damaged, Some(path.as_ref().to_owned()), problem)
    }

    /// The file, the folder or the entry that is needed is not there.
    pub fn not_found(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::new(ErrorKind::NotFound, Some(path.as_ref().to_owned()), problem)
    }

    /// The file at `path` is of a form that is not read.
    pub fn unsupported(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::new(ErrorKind::Unsupported, Some(path.as_ref().to_owned()), problem)
    }

    /// Reading or writing `path` failed.
    pub fn io(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::new(ErrorKind::Io, Some(path.as_ref().to_owned()), problem)
    }

    /// A connection or a server failed.
    pub fn network(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Io, None, problem)
    }

    /// Two things do not fit together.
    pub fn mismatch(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Mismatch, None, problem)
    }

    /// A device is missing or failed.
    pub fn device(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Device, None, problem)
    }

    /// A request that cannot be met.
    pub fn request(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Request, None, problem)
    }

    /// A number that must be finite is not.
    pub fn not_finite(problem: impl ToString) -> Self {
        Self::new(ErrorKind::NotFinite, None, problem)
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file or folder that it is about.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// What was expected and what was found, without path and remedy.
    pub fn problem(&self) -> &str {
        &self.0.problem
    }

    /// What the user can do about it; empty if nothing is known.
    pub fn remedy(&self) -> &str {
        &self.0.remedy
    }

    /// The same error with what the user can do about it.
    #[must_use]
    pub fn help(mut self, what_to_do: impl ToString) -> Self {
        self.0.remedy = what_to_do.to_string();
        self
    }

    /// The same error about the file at `path`.
    #[must_use]
    pub fn in_file(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path = Some(path.as_ref().to_owned());
        self
    }

    /// The same error with another description of the problem.
    #[must_use]
    pub fn reworded(mut self, problem: impl FnOnce(&str) -> String) -> Self {
        self.0.problem = problem(&self.0.problem);
        self
    }

    /// The same error with the one that it comes from.
    #[must_use]
    pub fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { path, problem, remedy, .. } = &*self.0;
        if let Some(path) = path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(problem)?;
        if remedy.is_empty() { Ok(()) } else { write!(f, "\n  help: {remedy}") }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Attaches the file's name to the error of an operation on it.
pub trait AtPath<T> {
    /// Turns the error into one about `path`, of a kind that follows from it: what the operating system says, else a
    /// damaged file. It keeps the error as its source.
    fn at(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> AtPath<T> for std::result::Result<T, E> {
    fn at(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| {
            let source: Box<dyn StdError + Send + Sync> = error.into();
            let kind = match source.downcast_ref::<std::io::Error>() {
                Some(io) if io.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                Some(_) => ErrorKind::Io,
                None => ErrorKind::Damaged,
            };
            let mut error = Error::new(kind, Some(path.as_ref().to_owned()), &source);
            error.0.source = Some(Arc::from(source));
            error
        })
    }
}
