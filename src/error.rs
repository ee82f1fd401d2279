//! Errors that say where the problem is, what was expected, what was found, and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Result type of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: its kind, the file it concerns (if any), the problem and a remedy.
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

/// The kind of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A file, a folder or an entry does not exist.
    NotFound,
    /// The contents of a file are not what they should be.
    Damaged,
    /// A file is intact, but has a format that is not supported.
    Unsupported,
    /// Two things do not match: shapes, kinds of targets, numbers of samples.
    Mismatch,
    /// The operating system or a server refused to read or write.
    Io,
    /// A device is missing or failed.
    Device,
    /// A request that cannot be fulfilled: an unknown name, contradictory options.
    Request,
    /// A number that must be finite is not: features overflowed, or a training diverged. A candidate that fails this way is
    /// skipped if there are others.
    NotFinite,
    /// Somebody asked the program to stop: see [`crate::stop`].
    Stopped,
    /// A mistake in this program, such as a worker's panic.
    Defect,
}

impl ErrorKind {
    /// Whether no other work should be begun after such an error.
    pub fn ends_the_run(self) -> bool {
        matches!(self, ErrorKind::Stopped | ErrorKind::Defect)
    }
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

    /// Makes an error: the contents of the file or folder at `path` are not what they should be.
    pub fn damaged(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::new(ErrorKind::Damaged, Some(path.as_ref().to_owned()), problem)
    }

    /// Makes an error: a required file, folder or entry does not exist.
    pub fn not_found(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::new(ErrorKind::NotFound, Some(path.as_ref().to_owned()), problem)
    }

    /// Makes an error: the file at `path` has a format that is not supported.
    pub fn unsupported(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::new(ErrorKind::Unsupported, Some(path.as_ref().to_owned()), problem)
    }

    /// Makes an error: reading or writing `path` failed.
    pub fn io(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::new(ErrorKind::Io, Some(path.as_ref().to_owned()), problem)
    }

    /// Makes an error: a connection or a server failed.
    pub fn network(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Io, None, problem)
    }

    /// Makes an error: two things do not match.
    pub fn mismatch(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Mismatch, None, problem)
    }

    /// Makes an error: a device is missing or failed.
    pub fn device(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Device, None, problem)
    }

    /// Makes an error: a request cannot be fulfilled.
    pub fn request(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Request, None, problem)
    }

    /// Makes an error: a number that must be finite is not.
    pub fn not_finite(problem: impl ToString) -> Self {
        Self::new(ErrorKind::NotFinite, None, problem)
    }

    /// Makes an error: somebody asked to stop.
    pub fn stopped(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Stopped, None, problem)
    }

    /// Makes an error: a mistake in this program.
    pub fn defect(problem: impl ToString) -> Self {
        Self::new(ErrorKind::Defect, None, problem)
            .help("this is a mistake in Terrabench, not yours; please report it with this text")
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the file or folder that the error concerns.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Returns what was expected and what was found, without path and remedy.
    pub fn problem(&self) -> &str {
        &self.0.problem
    }

    /// Returns what the user can do about it; empty if unknown.
    pub fn remedy(&self) -> &str {
        &self.0.remedy
    }

    /// Adds what the user can do about the error.
    #[must_use]
    pub fn help(mut self, what_to_do: impl ToString) -> Self {
        self.0.remedy = what_to_do.to_string();
        self
    }

    /// Sets the file that the error concerns.
    #[must_use]
    pub fn in_file(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path = Some(path.as_ref().to_owned());
        self
    }

    /// Rewrites the description of the problem.
    #[must_use]
    pub fn reworded(mut self, problem: impl FnOnce(&str) -> String) -> Self {
        self.0.problem = problem(&self.0.problem);
        self
    }

    /// Attaches the underlying error.
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

/// Adds a file's path to the error of an operation on it.
pub trait AtPath<T> {
    /// Converts the error to one about `path`. Its kind follows from the operating system's error; any other error means a
    /// damaged file. The original error is kept as the source.
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
