//! The only place that writes to standard output and standard error.
//!
//! The reader may leave (`| head`) and the disk behind may be full; neither may end a run, lose its work or
//! change its exit code. std's print macros panic in these cases, so nothing uses them.
//!
//! ```
//! terrabench::console::note("m-eurosat test: 40/40 images");
//! ```
//!
//! This file is also compiled into `xtask`, so it may only use std.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Stdout, Write};

/// Writes a line to standard error, or drops it if that fails.
pub fn note(line: impl Display) {
    let line = format!("{line}\n");
    let mut out = io::stderr().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// Writes a command's result to standard output. Output whose reader has left counts as written.
///
/// # Errors
/// If standard output cannot be written, for example on a full disk.
pub fn print(text: impl Display) -> io::Result<()> {
    let text = text.to_string();
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Like [`print`], for commands whose result is elsewhere (in files, in the exit code): a failure is only a
/// warning.
pub fn tell(text: impl Display) {
    if let Err(error) = print(text) {
        note(format_args!("warning: {error}"));
    }
}

/// Standard output for long results, which may stop early if the reader has left.
pub struct Stream {
    out: BufWriter<Stdout>,
    closed: bool,
}

impl Stream {
    /// Creates a buffered stream; flush it at the end.
    #[must_use]
    pub fn stdout() -> Self {
        Stream { out: BufWriter::new(io::stdout()), closed: false }
    }

    /// Whether writing failed because the reader has left.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn seen<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        self.closed |= done.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        done
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.out.write(bytes);
        self.seen(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.out.flush();
        self.seen(done)
    }
}
