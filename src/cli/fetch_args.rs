//! The command line of `fetch` exactly as it is typed.
//!
//! This file is compiled into `xtask` too: it may use clap and std only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `fetch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct FetchArgs {
    #[command(subcommand)]
    pub what: FetchWhat,
}

const EXAMPLES: &str = "\
Environment:
  HF_TOKEN                  access token, for gated repositories; goes to the hub's own address only
  HF_ENDPOINT               another hub, e.g. a mirror
  HF_HUB_OFFLINE            1: ask nobody
  HF_HOME                   where the hub's own cache and token are; cached files are not fetched again
  HTTPS_PROXY, NO_PROXY     the way through a proxy; hosts, host:port and ranges (10.0.0.0/8) that need none
  SSL_CERT_FILE             certificates to trust, where the proxy opens connections

Examples:
  cargo xtask fetch weights terrafm-b
  cargo xtask fetch geobench --task m-eurosat --task m-so2sat
  cargo xtask fetch copernicus-bench --dry-run";

/// What is fetched.
#[derive(Debug, Clone, Subcommand)]
pub enum FetchWhat {
    /// The published weights of a model
    Weights(FetchWeightsArgs),
    /// The official files of GEO-Bench
    Geobench(FetchSuiteArgs),
    /// The official files of Copernicus-Bench
    CopernicusBench(FetchSuiteArgs),
    /// The official files of Landslide4Sense
    Landslide4sense(FetchSuiteArgs),
}

/// Arguments of `fetch weights`.
#[derive(Debug, Clone, Args)]
pub struct FetchWeightsArgs {
    /// A file of configs/models/ (terrafm-b, terrafm-l) or a path to such a TOML
    #[arg(value_name = "MODEL")]
    pub model: String,

    /// Folder of weights [default: $TERRABENCH_DATA/weights, else terrabench/weights in the platform's data
    /// directory]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,

    #[command(flatten)]
    pub consent: ConsentArgs,
}

/// Arguments of `fetch` with a suite.
#[derive(Debug, Clone, Args)]
pub struct FetchSuiteArgs {
    /// Only this task (repeatable) [default: all tasks of the suite's tables]
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,

    /// Folder of the suite's files [default: the suite's environment variable (e.g. GEO_BENCH_DIR), else
    /// $TERRABENCH_DATA/<suite>, else terrabench/<suite> in the platform's data directory]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Keep archives that were unpacked
    #[arg(long)]
    pub keep: bool,

    #[command(flatten)]
    pub consent: ConsentArgs,
}

/// Whether to go on.
#[derive(Debug, Clone, Args)]
pub struct ConsentArgs {
    /// Do not ask before fetching more than 5 GB
    #[arg(long, short)]
    pub yes: bool,

    /// Only show what would be fetched, with sizes and licences
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}
