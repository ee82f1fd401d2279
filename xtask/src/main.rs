//! `cargo xtask`: the one door to Terrabench's commands.

mod libtorch;

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Terrabench measures Earth-observation foundation models on the benchmarks their papers report
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install the LibTorch that the device libtorch needs
    Libtorch(libtorch::LibtorchArgs),
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match Cli::parse().task {
        Task::Libtorch(args) => libtorch::command(root, &args),
    }
}
