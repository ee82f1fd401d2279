//! The only place that writes to standard output and standard error.
//!
//! Whoever reads them may leave (`| head`), and the disk behind them may be full: neither ends a run, loses its work or
//! changes its exit code. The print macros of std panic there, so nothing uses them.
//!
//! ```
//! terrabench::console::note("m-eurosat test: 40/40 images");
//! ```
//!
//! This file is compiled into `xtask` too: it may use std only.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Stdout, Write};

/// Writes a line to standard error; where that is impossible, drops it.
pub fn note(line: impl Display) {
    let line = format!("{line}\n");
    let mut out = io::stderr().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// Writes a command's result to standard output. Output that nobody reads any more counts as written.
///
/// # Errors
/// Where standard output cannot be written, for instance on a full disk.
pub fn print(text: impl Display) -> io::Result<()> {
    let text = text.to_string();
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(io::Error::new(error.kind(), format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Like [`print`], for commands whose result lies elsewhere (in files, in the exit code): a failure is only noted.
pub fn tell(text: impl Display) {
    if let Err(error) = print(text) {
        note(format_args!("warning: {error}"));
    }
}

/// Standard output for long results, which can end early where nobody reads any more.
pub struct Stream {
    out: BufWriter<Stdout>,
    closed: bool,
}

impl Stream {
    /// Buffers what is written; flush it at the end.
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
