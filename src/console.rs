//! The only place that writes to standard output and standard error.
//!
//! The reader may leave (`| head`) and the disk behind may be full; neither may end a run, lose its work or
//! change its exit code. std's print macros panic in these cases, so nothing uses them.
//!
//! ```
//! terrabench::console::note("m-eurosat test: 40/40 images");
//! ```
//!
//! Messages recommend commands of a checkout (`cargo xtask fetch …`). An installed program has no checkout around it, so here
//! they become commands of the program (`terrabench fetch …`).
//!
//! This file is also compiled into `xtask`, so it may only use std.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Stdout, Write};
use std::sync::OnceLock;

/// The entry point to the commands in a checkout.
const CHECKOUT: &str = "cargo xtask ";

/// Commands that only a checkout has.
const OF_CHECKOUT: [&str; 4] = ["libtorch", "onnxruntime", "test", "wheel"];

/// Whether this program was installed, and not built in place. Cargo keeps a lock file beside the programs that it builds.
pub fn is_installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let program = std::env::current_exe().ok();
        // Test binaries are one folder deeper.
        let mut folders = program.iter().flat_map(|program| program.ancestors().skip(1).take(2));
        !folders.any(|folder| folder.join(".cargo-lock").exists())
    })
}

/// Returns `text` with the commands that it recommends as they are called here.
pub fn addressed(text: String) -> String {
    if !text.contains(CHECKOUT) || !is_installed() {
        return text;
    }
    as_installed(&text)
}

fn as_installed(text: &str) -> String {
    let mut parts = text.split(CHECKOUT);
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let of_checkout = OF_CHECKOUT.iter().any(|command| part.starts_with(command));
        told += if of_checkout { CHECKOUT } else { "terrabench " };
        told += part;
    }
    told
}

/// Writes a line to standard error, or drops it if that fails.
pub fn note(line: impl Display) {
    let line = addressed(format!("{line}\n"));
    let mut out = io::stderr().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// Writes a command's result to standard output. Output whose reader has left counts as written.
///
/// # Errors
/// If standard output cannot be written, for example on a full disk.
pub fn print(text: impl Display) -> io::Result<()> {
    let text = addressed(text.to_string());
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

#[cfg(test)]
mod tests {
    use super::as_installed;

    #[test]
    fn an_installed_program_recommends_its_own_commands() {
        let told = as_installed("run `cargo xtask fetch geobench`, then cargo xtask bench geobench");
        assert_eq!(told, "run `terrabench fetch geobench`, then terrabench bench geobench");
        let told = as_installed("run `cargo xtask onnxruntime --cuda`");
        assert_eq!(told, "run `cargo xtask onnxruntime --cuda`", "only a checkout has this command");
    }
}
