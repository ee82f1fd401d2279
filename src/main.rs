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
            console::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
