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
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Stdout, Write};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The entry point to the commands in a checkout.
const CHECKOUT: &str = "cargo xtask ";

/// Commands that only a checkout has.
const OF_CHECKOUT: [&str; 6] = ["faults", "fuzz", "libtorch", "onnxruntime", "test", "wheel"];

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

/// The log file, if the command keeps one.
static LOG: Mutex<Option<File>> = Mutex::new(None);

/// From now on also appends what is written to standard error to a file, each line with the time in UTC. The file survives a closed
/// terminal; a full disk only ends the log.
///
/// # Errors
/// If the file cannot be opened.
pub fn log_to(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    *LOG.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// Appends lines to the log alone.
pub fn log(text: impl Display) {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(file) = log.as_mut() else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = utc(now);
    let lines: String = text.to_string().lines().map(|line| format!("{time} {line}\n")).collect();
    // One write per text, so that the lines of several processes do not mix.
    let _ = file.write_all(lines.as_bytes());
}

/// Formats a Unix time in seconds as `2026-01-31T13:45:00Z`.
fn utc(seconds: u64) -> String {
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let length = |year: u64| {
        let is_leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
        365 + u64::from(is_leap)
    };
    let mut year = 1970;
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let february = length(year) - 337;
    let mut month = 0;
    for days_of_month in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < days_of_month {
            break;
        }
        days -= days_of_month;
        month += 1;
    }
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, days + 1)
}

/// Standard error and the log, for a library that writes lines: see [`log_to`].
pub struct NotesWriter;

impl Write for NotesWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        log(plain(&String::from_utf8_lossy(bytes)));
        io::stderr().lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Removes the colours of a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => drop(rest.by_ref().find(char::is_ascii_alphabetic)),
            c => plain.push(c),
        }
    }
    plain
}

/// Writes a line to standard error and to the log, or drops it if that fails.
pub fn note(line: impl Display) {
    let line = addressed(format!("{line}\n"));
    log(&line);
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
    use super::*;

    #[test]
    fn an_installed_program_recommends_its_own_commands() {
        let told = as_installed("run `cargo xtask fetch geobench`, then cargo xtask bench geobench");
        assert_eq!(told, "run `terrabench fetch geobench`, then terrabench bench geobench");
        let told = as_installed("run `cargo xtask onnxruntime --cuda`");
        assert_eq!(told, "run `cargo xtask onnxruntime --cuda`", "only a checkout has this command");
    }

    #[test]
    fn times_of_the_log_are_utc() {
        // Compared with `date -u -d @SECONDS`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }

    #[test]
    fn colours_are_not_logged() {
        assert_eq!(plain("\u{1b}[33m WARN\u{1b}[0m odd"), " WARN odd");
    }
}
