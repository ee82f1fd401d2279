//! Progress reports: a bar with rate and time left on a terminal, plain lines otherwise.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::console;
use crate::progress::{Progress, Step};

/// Minimum time between two plain lines about one step.
const QUIET: Duration = Duration::from_secs(10);

/// Shows progress on standard error.
pub struct Shown {
    terminal: bool,
    /// Name of the task, printed before each step.
    subject: String,
}

impl Shown {
    /// Shows bars if standard error is a terminal, plain lines otherwise. The names of steps are prefixed with `subject`.
    pub fn new(subject: &str) -> Self {
        Shown { terminal: std::io::stderr().is_terminal(), subject: subject.to_owned() }
    }
}

impl Progress for Shown {
    fn begin(&self, what: &str, total: usize) -> Box<dyn Step> {
        let what = format!("{} {what}", self.subject);
        if self.terminal {
            Box::new(Bar::new(what, total))
        } else {
            Box::new(Lines {
                what,
                total,
                done: Cell::new(0),
                start: Instant::now(),
                last: Cell::new(Instant::now()),
            })
        }
    }

    fn note(&self, line: &str) {
        console::note(format_args!("{} {line}", self.subject));
    }
}

struct Bar(ProgressBar);

impl Bar {
    fn new(what: String, total: usize) -> Self {
        let style =
            ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} images, {per_sec}, {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total as u64).with_style(style).with_message(what);
        bar.enable_steady_tick(Duration::from_millis(500));
        Bar(bar)
    }
}

impl Step for Bar {
    fn advance(&self, units: usize) {
        self.0.inc(units as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        let (done, elapsed) = (self.0.position(), self.0.elapsed());
        self.0.finish_and_clear();
        console::note(line(&self.0.message(), done as usize, done as usize, elapsed));
    }
}

struct Lines {
    what: String,
    total: usize,
    done: Cell<usize>,
    start: Instant,
    last: Cell<Instant>,
}

impl Step for Lines {
    fn advance(&self, units: usize) {
        self.done.set(self.done.get() + units);
        if self.last.get().elapsed() >= QUIET {
            self.last.set(Instant::now());
            console::note(line(&self.what, self.done.get(), self.total, self.start.elapsed()));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        console::note(line(&self.what, self.done.get(), self.total, self.start.elapsed()));
    }
}

/// Formats progress as `m-eurosat test: 40/80 images, 20.1/s, 2 seconds left`.
fn line(what: &str, done: usize, total: usize, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
    let rest = if done < total && rate > 0.0 {
        format!(", {} left", HumanDuration(Duration::from_secs_f64((total - done) as f64 / rate)))
    } else {
        String::new()
    };
    format!("{what}: {done}/{total} images, {rate:.1}/s{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_and_time_left() {
        let text = line("m-eurosat test", 40, 80, Duration::from_secs(2));
        assert_eq!(text, "m-eurosat test: 40/80 images, 20.0/s, 2 seconds left");
        assert_eq!(line("x", 0, 80, Duration::ZERO), "x: 0/80 images, 0.0/s");
    }
}
