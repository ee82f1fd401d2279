//! `terrabench`: parses arguments and prints errors; the rest is the library.

use std::process::ExitCode;

use clap::Parser;
use terrabench::cli::Cli;
use terrabench::console;
use terrabench::program::Program;

fn main() -> ExitCode {
    let program = Program::new(revision::revision!());
    match terrabench::cli::run(Cli::parse(), &program) {
        Ok(code) => code,
        Err(error) => {
            if let Some(code) = terrabench::cli::stopping::ended(&error) {
                return code;
            }
            console::note(format_args!("error: {}", told(&error)));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes down to the first of the library's, whose message holds its own causes.
fn told(error: &anyhow::Error) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain() {
        told.push(cause.to_string());
        if cause.is::<terrabench::Error>() {
            break;
        }
    }
    told.join(": ")
}
