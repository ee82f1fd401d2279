//! The command line of `fetch` exactly as the user types it.
//!
//! This file is also compiled into `xtask`, so it may only use clap and std.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `fetch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct FetchArgs {
    /// What to fetch
    #[command(subcommand)]
    pub what: FetchWhat,
}

const EXAMPLES: &str = "\
Environment:
  HF_TOKEN                  access token for gated repositories; only sent to the hub's own address
  HF_ENDPOINT               address of another hub, e.g. a mirror
  HF_HUB_OFFLINE            1: make no network requests
  HF_HOME                   folder of the hub's own cache and token; cached files are not fetched again
  HTTPS_PROXY, NO_PROXY     proxy to use; hosts, host:port and ranges (10.0.0.0/8) to reach directly
  SSL_CERT_FILE             certificates to trust, if the proxy inspects TLS connections

Examples:
  cargo xtask fetch weights terrafm-b
  cargo xtask fetch geobench --task m-eurosat --task m-so2sat
  cargo xtask fetch copernicus-bench --dry-run";

/// What to fetch.
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
    /// The official GEO-Bench-2 containers
    #[command(name = "geobench-2")]
    Geobench2(FetchSuiteArgs),
}

/// Arguments of `fetch weights`.
#[derive(Debug, Clone, Args)]
pub struct FetchWeightsArgs {
    /// A file in configs/models/ (terrafm-b, terrafm-l) or a path to such a TOML file
    #[arg(value_name = "MODEL")]
    pub model: String,

    /// Folder for weights [default: $TERRABENCH_DATA/weights, else terrabench/weights in the platform's data directory]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,

    /// Whether to ask before fetching
    #[command(flatten)]
    pub consent: ConsentArgs,
}

/// Arguments of `fetch <suite>`.
#[derive(Debug, Clone, Args)]
pub struct FetchSuiteArgs {
    /// Fetch only this task (repeatable) [default: all tasks in the suite's tables]
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,

    /// Folder for the suite's files [default: the suite's environment variable (e.g. GEO_BENCH_DIR), else
    /// $TERRABENCH_DATA/<suite>, else terrabench/<suite> in the platform's data directory]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Keep archives after unpacking them
    #[arg(long)]
    pub keep: bool,

    /// Whether to ask before fetching
    #[command(flatten)]
    pub consent: ConsentArgs,
}

/// Whether to proceed, ask or only show what would be fetched.
#[derive(Debug, Clone, Args)]
pub struct ConsentArgs {
    /// Fetch more than 5 GB without asking
    #[arg(long, short)]
    pub yes: bool,

    /// Only show what would be fetched, with sizes and licences
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}
