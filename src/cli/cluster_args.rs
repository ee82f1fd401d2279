//! The command lines of commands for many machines exactly as the user types them.
//!
//! This file is also compiled into `xtask`, so it may only use clap and std.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How one process shares a results folder with others that run the same command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Several processes on one results folder (docs/cluster.md)")]
pub struct SharingArgs {
    /// Take over a cell of this process after so many seconds without a sign of life from it
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = seconds)]
    pub stale_after: f64,

    /// Number of this worker; each begins with another task
    #[arg(long, value_name = "N", hide = true)]
    pub worker: Option<usize>,

    /// End when only cells are left that other processes hold
    #[arg(long, hide = true)]
    pub no_wait: bool,

    /// Leave the tables to the job that comes after all workers
    #[arg(long, hide = true)]
    pub no_tables: bool,

    /// Only check that files, weights and encoder are there
    #[arg(long, hide = true)]
    pub check_only: bool,
}

/// Arguments of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Show only this suite, or the demo of one (geobench-demo) [default: every suite with results]
    #[arg(value_name = "SUITE")]
    pub suite: Option<String>,

    /// Results folder, as written by `bench`
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub results: PathBuf,

    /// Show it again every SECONDS until everything is recorded
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "10", value_parser = seconds)]
    pub watch: Option<f64>,

    /// Print one JSON object per suite and line
    #[arg(long)]
    pub json: bool,

    /// List every cell that is to do, instead of a few
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `worker`.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// The plan, a TOML file
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,

    /// Number of this worker, from 0; each begins at another place of the plan
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub index: usize,

    /// Fetch what the plan fetches, then only check that everything can run
    #[arg(long)]
    pub check: bool,
}

/// Arguments of `slurm`.
#[derive(Debug, Clone, Args)]
pub struct SlurmArgs {
    /// The plan, a TOML file
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,

    /// Number of workers [default: `workers` of the plan]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,

    /// Fetch what the plan fetches and check, as a job would, that everything can run
    #[arg(long)]
    pub check: bool,

    /// Check, then submit the jobs with sbatch
    #[arg(long)]
    pub submit: bool,

    /// Submit without the check
    #[arg(long, requires = "submit")]
    pub no_check: bool,

    /// What to write: job scripts for SLURM, or one command per worker on standard output
    #[arg(long, value_name = "WHAT", default_value = "slurm", conflicts_with = "submit")]
    pub emit: EmitArg,
}

/// What `slurm` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmitArg {
    /// Job scripts for SLURM, in <results>/slurm/
    Slurm,
    /// One command per worker, for GNU parallel, Kubernetes or a queue of your own
    Commands,
}

/// Arguments of `merge`.
#[derive(Debug, Clone, Args)]
pub struct MergeArgs {
    /// Results folders, as written by `bench`; what is in --into already stays
    #[arg(value_name = "DIR", required = true)]
    pub from: Vec<PathBuf>,

    /// Results folder to merge into; created if needed
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,

    /// Only list what would be copied and what differs
    #[arg(long)]
    pub dry_run: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.5..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, from 0.5 to 1000000".to_owned()),
    }
}
