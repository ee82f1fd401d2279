//! `terrabench`: parses arguments and prints errors; the rest is the library.

use std::process::ExitCode;

use clap::Parser;
use terrabench::cli::Cli;
use terrabench::console;

fn main() -> ExitCode {
    match terrabench::cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            console::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
