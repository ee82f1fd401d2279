//! `terrabench`: parses arguments and prints errors; the rest is the library.

use std::process::ExitCode;

use clap::Parser;
use terrabench::cli::Cli;

fn main() -> ExitCode {
    match terrabench::cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
