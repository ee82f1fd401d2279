//! The command line exactly as it is typed, turned into validated requests by the commands themselves.
//!
//! This file is compiled into `xtask` too, so that help and mistakes in arguments need no build of the
//! harness: it may use clap and std only.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::fetch_args::FetchArgs;

/// What the harness can do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run a benchmark and write its tables
    ///
    /// Loads the suite's official files, extracts frozen features, scores them with each protocol and writes
    /// one record a cell (model x task x partition x protocol x seed) and the published tables with our row
    /// beside them. Finished cells are not computed again.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),

    /// Print what the reader sees in a task's files
    Inspect(InspectArgs),

    /// Export the features of a split as safetensors
    ///
    /// The file holds `features` [n, d] float32 and `labels` (int64 [n], or uint8 [n, labels] for multi-label
    /// tasks); its metadata key `samples` is the JSON list of the samples' names in the same order.
    Features(FeaturesArgs),

    /// Fetch official data and published weights, verified and resumable
    Fetch(FetchArgs),
}

const BENCH_EXAMPLES: &str = "\
Examples:
  cargo xtask bench geobench --demo
  cargo xtask bench geobench --data ~/geobench --weights TerraFM-B.pth
  cargo xtask bench geobench --task m-eurosat --partition 0.01x_train --weights random:0";

/// Which data are read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Folder of the suite's official files [default: the suite's environment variable, e.g. GEO_BENCH_DIR]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Whether bands are taken by the names in the files, as published numbers do, or by what they hold
    #[arg(long, value_name = "HOW", default_value = "as-named")]
    pub bands: BandNames,
}

/// How the bands of a task whose files name them wrongly are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BandNames {
    /// By the names in the files, as published numbers do
    AsNamed,
    /// By what the pixels hold (m-eurosat)
    ByContent,
}

/// Which model runs, and where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A file of configs/models/ (terrafm-b, terrafm-l, demo) or a path to such a TOML
    /// [default: terrafm-b; with --demo: demo]
    #[arg(long, value_name = "NAME|FILE")]
    pub model: Option<String>,

    /// A .pth or .safetensors file, or random:SEED [with --demo: random:0]
    #[arg(long, value_name = "FILE|random:SEED")]
    pub weights: Option<String>,

    /// Accept weights that lack parameters of the model, which then stay random
    #[arg(long)]
    pub allow_partial: bool,

    /// Where tensors live: flex (CPU), libtorch[:cuda:N], vulkan[:N]
    #[arg(long, value_name = "DEVICE", default_value = "flex")]
    pub device: String,

    /// Images a batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    pub batch_size: usize,

    /// Threads for reading and computing [default: all cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,

    /// How pixels are normalised: dataset (the dataset's own mean and standard deviation)
    #[arg(long, value_name = "NAME", default_value = "dataset")]
    pub normalization: String,
}

/// Arguments of `bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// A file of benchmarks/: geobench
    #[arg(value_name = "SUITE")]
    pub suite: String,

    /// Run on small generated data with a small random model, to try the harness; never benchmark numbers
    #[arg(long, conflicts_with = "data")]
    pub demo: bool,

    /// Only this task (repeatable) [default: all tasks of the suite's tables]
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,

    /// Only this training partition (repeatable) [default: those of the suite's tables]
    #[arg(long = "partition", value_name = "PARTITION")]
    pub partitions: Vec<String>,

    /// A file of configs/protocols/ (repeatable) [default: those of the suite's tables]
    #[arg(long = "protocol", value_name = "PROTOCOL")]
    pub protocols: Vec<String>,

    /// Seed of what is random in a protocol and of the intervals' resampling (repeatable)
    #[arg(long = "seed", value_name = "N", default_values_t = [0])]
    pub seeds: Vec<u64>,

    /// Folder for records and tables: they go to DIR/<suite>/, with --demo to DIR/<suite>-demo/
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub out: PathBuf,

    /// Compute finished cells again
    #[arg(long)]
    pub fresh: bool,

    #[command(flatten)]
    pub data: DataArgs,

    #[command(flatten)]
    pub model: ModelArgs,
}

/// Arguments of `inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// A file of benchmarks/
    #[arg(long, value_name = "SUITE", default_value = "geobench")]
    pub suite: String,

    /// The task to look at
    #[arg(long, value_name = "TASK")]
    pub task: String,

    /// The training partition
    #[arg(long, value_name = "PARTITION", default_value = "default")]
    pub partition: String,

    /// Only this split (repeatable): train, valid, test [default: all]
    #[arg(long = "split", value_name = "SPLIT")]
    pub splits: Vec<SplitArg>,

    /// One JSON object a line, one line a sample
    #[arg(long)]
    pub json: bool,

    /// Folder of the suite's official files [default: the suite's environment variable, e.g. GEO_BENCH_DIR]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Arguments of `features`.
#[derive(Debug, Clone, Args)]
pub struct FeaturesArgs {
    /// A file of benchmarks/
    #[arg(long, value_name = "SUITE", default_value = "geobench")]
    pub suite: String,

    /// The task whose images are encoded
    #[arg(long, value_name = "TASK")]
    pub task: String,

    /// The training partition
    #[arg(long, value_name = "PARTITION", default_value = "default")]
    pub partition: String,

    /// The split whose images are encoded
    #[arg(long, value_name = "SPLIT")]
    pub split: SplitArg,

    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    #[command(flatten)]
    pub data: DataArgs,

    #[command(flatten)]
    pub model: ModelArgs,
}

/// A split by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitArg {
    Train,
    Valid,
    Test,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}
