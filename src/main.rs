//! `terrabench`: parses arguments and prints errors; the rest is the library.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use terrabench::cli::Cli;
use terrabench::program::Program;

fn main() -> ExitCode {
    let program = Program::new(revision::revision!());
    match terrabench::cli::run(Cli::parse(), &program) {
        Ok(code) => code,
        // Whoever read the output, `head` for instance, has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
