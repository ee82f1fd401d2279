//! Progress reports: a bar with rate and time left on a terminal, plain lines otherwise, or JSON for programs.

use std::cell::Cell;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::args::ProgressArg;
use crate::console;
use crate::progress::{Progress, Silent, Step};

/// Minimum time between two plain lines about one step.
const QUIET: Duration = Duration::from_secs(10);

/// Minimum time between two JSON objects about one step.
const LIVELY: Duration = Duration::from_millis(200);

/// Whether progress is reported as JSON. One setting per process: every command reports in the same way.
static JSON: AtomicBool = AtomicBool::new(false);

/// Chooses how progress is reported.
pub fn set(how: ProgressArg) {
    JSON.store(how == ProgressArg::Json, Ordering::Relaxed);
}

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
        if total == 0 {
            return Box::new(Silent);
        }
        let what = format!("{} {what}", self.subject);
        let json = JSON.load(Ordering::Relaxed);
        if self.terminal && !json {
            return Box::new(Bar::new(what, total));
        }
        let lines = Lines {
            what,
            total,
            json,
            done: Cell::new(0),
            start: Instant::now(),
            last: Cell::new(Instant::now()),
        };
        if json {
            lines.report(total);
        }
        Box::new(lines)
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
        // A step that failed on its first image has nothing to report.
        if done > 0 {
            console::note(line(&self.0.message(), done as usize, done as usize, elapsed));
        }
    }
}

struct Lines {
    what: String,
    total: usize,
    json: bool,
    done: Cell<usize>,
    start: Instant,
    last: Cell<Instant>,
}

impl Lines {
    /// Reports how much of `total` is done.
    fn report(&self, total: usize) {
        let (done, elapsed) = (self.done.get(), self.start.elapsed());
        if self.json {
            console::note(json_line(&self.what, done, total, elapsed));
        } else {
            console::note(line(&self.what, done, total, elapsed));
        }
    }
}

impl Step for Lines {
    fn advance(&self, units: usize) {
        self.done.set(self.done.get() + units);
        // The last line comes when the step is dropped; in JSON no other may have equal numbers.
        let ends = self.done.get() >= self.total;
        if !ends && self.last.get().elapsed() >= if self.json { LIVELY } else { QUIET } {
            self.last.set(Instant::now());
            self.report(self.total);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // A step that failed on its first image has nothing to report.
        if self.json || self.done.get() > 0 {
            self.report(if self.json { self.done.get() } else { self.total });
        }
    }
}

/// Formats progress as `{"progress":"m-eurosat test","done":40,"total":80,"seconds":2.0}`. The last line about a step has
/// equal numbers, also if the step ended early.
fn json_line(what: &str, done: usize, total: usize, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let what = serde_json::Value::from(what);
    format!(r#"{{"progress":{what},"done":{done},"total":{total},"seconds":{seconds:.3}}}"#)
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

    #[test]
    fn a_json_line_escapes_the_name_of_the_step() {
        let text = json_line("a \"b\"", 40, 80, Duration::from_secs(2));
        assert_eq!(text, r#"{"progress":"a \"b\"","done":40,"total":80,"seconds":2.000}"#);
    }
}
