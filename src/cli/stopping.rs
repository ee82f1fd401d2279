//! What Ctrl-C, SIGTERM and a closed terminal do to a command, and what the user is told.

use std::path::Path;
use std::process::ExitCode;

use super::args::Command;
use crate::run::command::without_tokens;
use crate::stop::{self, Heard};
use crate::{Error, ErrorKind, console, remedy};

/// Takes over the signals for a command.
pub(super) fn listen(command: &Command) {
    // It only reads and has nothing to go on with: `--watch` ends as programs do.
    if matches!(command, Command::Status(_)) {
        return;
    }
    // The others take seconds, or keep what they did anyway (downloads): they end at the first signal.
    let is_asking = matches!(
        command,
        Command::Bench(_)
            | Command::Spread(_)
            | Command::Features(_)
            | Command::Batches(_)
            | Command::Prepare(_)
            | Command::Inspect(_)
            | Command::Reproduce(_)
            | Command::Worker(_)
    );
    if let Err(problem) = stop::listen(is_asking, tell) {
        tracing::warn!("Ctrl-C ends this program at once: {problem}");
    }
}

fn tell(heard: Heard) {
    match heard {
        Heard::Stopping(request) => console::note(format_args!(
            "{request}: stopping after the current step; a second one stops at once"
        )),
        Heard::AtOnce(request) => {
            console::note(format_args!("{request}: stopped; nothing is half-written\n{}", how_to_go_on()));
        }
        Heard::HungUp => console::note("the terminal was closed; the run goes on"),
    }
}

/// The command that started this program, as a shell takes it, without tokens.
pub(super) fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| remedy::path(Path::new(&word)));
    without_tokens(&format!("cargo xtask {}", words.collect::<Vec<_>>().join(" ")))
}

fn how_to_go_on() -> String {
    format!("To go on, run the same command again: {}", command())
}

/// Whether a request to stop ended a command.
pub(super) fn was_stopped(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::Stopped)
}

/// Tells how to go on, and returns the exit code, if a request to stop ended a command.
pub fn ended(error: &anyhow::Error) -> Option<ExitCode> {
    let request = stop::asked().filter(|_| was_stopped(error))?;
    console::note(format_args!(
        "stopped by {request}; everything finished before is kept\n{}",
        how_to_go_on()
    ));
    Some(ExitCode::from(request.exit_code()))
}
