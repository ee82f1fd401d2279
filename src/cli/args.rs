//! The command line exactly as it is typed, turned into validated requests by the commands themselves.
//!
//! This file is compiled into `xtask` too, so that help and mistakes in arguments need no build of the
//! harness: it may use clap and std only.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::fetch_args::FetchArgs;

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// Folder with benchmarks/ and configs/ whose files override the built-in ones [default: $TERRABENCH_HOME, else the
    /// checkout around the working directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
}

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

    /// Compare records with a reference and fail where accuracy fell: the gate for CI
    ///
    /// Cells whose predictions of the test split are kept on both sides are compared sample by sample (paired bootstrap),
    /// others by their values, with the thresholds of the reference's check.toml, else of configs/check.toml. Every recorded
    /// number is computed again from its predictions, on both sides. Ends with 1 where a cell fell, records what its
    /// predictions do not give, predicts otherwise than the thresholds allow, has other test samples or is missing; with 2
    /// where the input, or a file of it, cannot be used. A cell's records compare with those of the same setting.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),

    /// Compare two models on the cells that both have: paired bootstrap and McNemar's test
    ///
    /// Where a side has several records of a cell, of other weights or normalisations, they are listed, and options choose.
    /// Shortened and demo runs are left out where there are others. Ends with 1 where a record's value is not what its
    /// predictions give, with 3 where files cannot be used; the others are compared.
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),

    /// Compute scores again from the predictions that are kept beside the records
    ///
    /// Ends with 1 where a record says what its predictions do not give, with 3 where files cannot be used.
    Rescore(RescoreArgs),

    /// List or empty the cache of extracted features
    ///
    /// Features are kept by all that decides them (weights, preprocessing, pixels, the code's version) and shared by
    /// protocols, partitions, seeds and later runs. They lie under TERRABENCH_CACHE, or the platform's cache folder.
    #[command(after_help = CACHE_EXAMPLES)]
    Cache(CacheArgs),

    /// List the models that can be run: sensors, bands, size, poolings, weights here or the command that fetches them
    Models(ModelsArgs),

    /// Fetch official data and published weights, verified and resumable
    Fetch(FetchArgs),

    /// Pack a suite's many files into one compressed file a split, which is read much faster
    ///
    /// What is packed is read back and compared. The packed folder takes the place of the data's with --data; records
    /// made from either are the same. What is there already of the same source is left alone, unless the suite's file
    /// decodes it otherwise by now (`stored-bands`, `remap`, `ignore`, …): then it says what changed and packs anew.
    #[command(after_help = PREPARE_EXAMPLES)]
    Prepare(PrepareArgs),

    /// Tell what is here: devices, LibTorch, data, weights, caches and disk, and how to mend what is amiss
    ///
    /// Needs no network and changes nothing. Ends with 1 where something that is here is broken; what is only missing
    /// is told and no failure.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),

    /// Write tables, pictures and one page from the records that are there
    ///
    /// Reads DIR/<suite>/records/ of every suite (and of the demos, kept apart) and runs nothing. report.md links the tables
    /// (Markdown, CSV) and the pictures (SVG, PNG); report.html is the same in one file that needs no network;
    /// results.parquet holds all records. Files that cannot be used are listed and left out; the command then ends with 3.
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
}

const PREPARE_EXAMPLES: &str = "\
Examples:
  cargo xtask prepare copernicus-bench --data ~/copernicus-bench --to ~/packed
  cargo xtask prepare geobench --task m-eurosat --to ~/packed
  cargo xtask bench copernicus-bench --data ~/packed";

const REPORT_EXAMPLES: &str = "\
Examples:
  cargo xtask report
  cargo xtask report --models TerraFM,Galileo --axes knn
  cargo xtask report --axes finetune/m-cashew-plant,m-eurosat,m-so2sat --out report";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  cargo xtask doctor
  cargo xtask doctor --device libtorch:cuda:0
  cargo xtask doctor --json";

const CHECK_EXAMPLES: &str = "\
Examples:
  cargo xtask check --records results/geobench --reference results/reference/geobench
  cargo xtask check --records results --reference reference --junit check.xml --summary \"$GITHUB_STEP_SUMMARY\"
  cargo xtask check --records results/geobench --reference results/reference/geobench --update";

const COMPARE_EXAMPLES: &str = "\
Examples:
  cargo xtask compare \"TerraFM ViT-B\" \"TerraFM ViT-L\"
  cargo xtask compare ours/geobench theirs/geobench";

const CACHE_EXAMPLES: &str = "\
Examples:
  cargo xtask cache --list
  cargo xtask cache --prune --older-than 30
  cargo xtask cache --prune --to 20GB";

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

    /// What stands in for bands that the model takes and the files lack
    #[arg(long, value_name = "HOW", default_value = "as-task")]
    pub missing_bands: MissingBands,

    /// Which of the model's bands it is given: all, rgb, or names (B02,B03,B04). The others are zeros after normalisation, or
    /// left out where the model takes any bands
    #[arg(long, value_name = "all|rgb|BANDS", default_value = "all")]
    pub channels: String,

    /// The sensor that the model is told for Sentinel-2 tasks: s2-l1c, s2-l2a [default: the task's]
    #[arg(long, value_name = "SENSOR")]
    pub sensor: Option<SensorArg>,

    /// Read and hash every file of the data anew, also those that look unchanged since an earlier run
    #[arg(long)]
    pub verify: bool,
}

/// What stands in for missing bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MissingBands {
    /// The bands that the task names for them (`impute` in benchmarks/)
    AsTask,
    /// Zeros, after normalisation
    Zeros,
}

/// A sensor that a model may be told for images of Sentinel-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SensorArg {
    #[value(name = "s2-l1c")]
    S2L1c,
    #[value(name = "s2-l2a")]
    S2L2a,
}

/// How the bands of a task whose files name them wrongly are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BandNames {
    /// By the names in the files, as published numbers do
    AsNamed,
    /// By what the pixels hold (m-eurosat, m-brick-kiln)
    ByContent,
}

/// Which bands a model is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputsArg {
    /// As the published numbers were made
    AsPublished,
    /// As the model was trained
    Corrected,
}

/// How tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PoolingArg {
    /// The class token
    Class,
    /// Mean of the patch tokens
    Mean,
    /// Mean of all tokens, the class token included
    MeanAll,
    /// The model's own pooling head
    Head,
}

/// Which model runs, and where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A file of configs/models/ (`models` lists them) or a path to such a TOML
    /// [default: terrafm-b; with --demo: demo]
    #[arg(long, value_name = "NAME|FILE")]
    pub model: Option<String>,

    /// A PyTorch checkpoint, a .safetensors file, the .index.json of several, a folder with one of these, or
    /// random:SEED [with --demo: random:0]
    #[arg(long, value_name = "FILE|random:SEED")]
    pub weights: Option<String>,

    /// Accept weights that lack parameters of the model, which then stay random
    #[arg(long)]
    pub allow_partial: bool,

    /// Where tensors live: flex (CPU), libtorch[:cuda:N], vulkan[:N]
    #[arg(long, value_name = "DEVICE", default_value = "flex")]
    pub device: String,

    /// Images a batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = batch_size)]
    pub batch_size: usize,

    /// Threads for reading and computing [default: all cores]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,

    /// How pixels are normalised: default (as the suite's reference does, else as dataset), dataset (standardised by the
    /// dataset's own statistics), sweep (Galileo's strategies, the best on validation is reported on test; bench only)
    /// or one strategy, as OURS-2.0-norm_no_clip or satlas
    #[arg(long, value_name = "dataset|sweep|NAME", default_value = "default")]
    pub normalization: String,

    /// Which bands a model is fed where the code behind published numbers feeds it others than it was trained on
    #[arg(long, value_name = "HOW", default_value = "as-published")]
    pub inputs: InputsArg,

    /// How the model's tokens become one vector per image: class, mean, mean-all, head [default: the model's]
    #[arg(long, value_name = "NAME")]
    pub pooling: Option<PoolingArg>,

    /// Neither read nor write the feature cache
    #[arg(long)]
    pub no_cache: bool,
}

const SHORT: &str = "Short runs (protocols that train with epochs)";

/// Arguments of `bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// A file of benchmarks/: geobench, copernicus-bench, landslide4sense; with --demo also demo
    #[arg(value_name = "SUITE")]
    pub suite: String,

    /// Run on small generated data with a small random model, to try the harness; never benchmark numbers
    #[arg(long, conflicts_with = "data")]
    pub demo: bool,

    /// Only this task (repeatable) [default: those of the tables that the protocols fill]
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,

    /// Only this training partition (repeatable) [default: those of the tables that the protocols fill]
    #[arg(long = "partition", value_name = "PARTITION")]
    pub partitions: Vec<String>,

    /// A file of configs/protocols/: knn, linear-probe, logistic, finetune, segmentation-probe, upernet,
    /// upernet-finetune, copernicus-linear-probe, ridge (repeatable)
    /// [default: the suite's, `default-protocols` in its file of benchmarks/]
    #[arg(long = "protocol", value_name = "PROTOCOL")]
    pub protocols: Vec<String>,

    /// Seed of what is random in a protocol and of the intervals' resampling (repeatable)
    #[arg(long = "seed", value_name = "N", default_values_t = [0])]
    pub seeds: Vec<u64>,

    /// Train only so many epochs; a shortened run's record says so and enters no table
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = SHORT)]
    pub epochs: Option<usize>,

    /// Train only these learning rates
    #[arg(long, value_name = "RATE,RATE", value_delimiter = ',', help_heading = SHORT)]
    pub learning_rates: Vec<f64>,

    /// Use only so many samples of each split
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = SHORT)]
    pub limit: Option<usize>,

    /// Folder for records and tables: they go to DIR/<suite>/, with --demo to DIR/<suite>-demo/
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub out: PathBuf,

    /// Memory for the feature maps of a frozen encoder (upernet): bytes, or with kB, MB, GB, TB; what is more goes
    /// to a file in the cache's folder
    #[arg(long, value_name = "SIZE", default_value = "4GB", value_parser = size)]
    pub cache_limit: u64,

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

/// Arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// What `bench` wrote: a folder with records/, or one above such folders
    #[arg(long, value_name = "DIR")]
    pub records: PathBuf,

    /// The committed records to compare with, in the same layout
    #[arg(long, value_name = "DIR")]
    pub reference: PathBuf,

    /// A TOML of thresholds [default: check.toml in the reference's folder, else configs/check.toml]
    #[arg(long, value_name = "FILE")]
    pub thresholds: Option<PathBuf>,

    /// Do not fail where a cell of the reference is missing
    #[arg(long)]
    pub allow_missing: bool,

    /// Write the result as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Append the table, in GitHub's Markdown, to this file
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,

    /// Make the records the new reference, after showing the difference
    #[arg(long)]
    pub update: bool,

    #[command(flatten)]
    pub wanted: WantedArgs,
}

/// Which records are meant, where a cell has several.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which records (each repeatable: any of its values will do)")]
pub struct WantedArgs {
    /// Only records of this model, as in the records: TerraFM or "TerraFM ViT-Base"
    #[arg(long = "model", value_name = "MODEL")]
    pub models: Vec<String>,

    /// Only records of these weights: the beginning of their hash, or random:SEED
    #[arg(long, value_name = "HASH|random:SEED")]
    pub weights: Vec<String>,

    /// Only records of this normalisation: dataset, sweep, OURS-2.0-norm_no_clip, …
    #[arg(long, value_name = "NAME")]
    pub normalization: Vec<String>,

    /// Only records whose model was told this sensor: s1, s2-l1c, s2-l2a
    #[arg(long, value_name = "SENSOR")]
    pub sensor: Vec<String>,

    /// Only records whose bands were taken so: as-named, by-content
    #[arg(long, value_name = "HOW")]
    pub bands: Vec<String>,

    /// Only records with this setting, by the name that lists of settings show: k=20, imputed=nothing, length=shortened
    #[arg(long = "setting", value_name = "NAME=VALUE")]
    pub settings: Vec<String>,
}

/// Arguments of `compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// A model's name as in the records, the beginning of its weights' hash, or a folder of records
    #[arg(value_name = "A")]
    pub a: String,

    /// The other one
    #[arg(value_name = "B")]
    pub b: String,

    /// Where the records of models given by name are
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub results: PathBuf,

    #[command(flatten)]
    pub wanted: WantedArgs,
}

/// Arguments of `rescore`.
#[derive(Debug, Clone, Args)]
pub struct RescoreArgs {
    /// What `bench` wrote: a folder with records/, or one above such folders
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub results: PathBuf,

    /// Compute this metric too, where it fits the labels (repeatable): accuracy, micro_f1, micro_map, miou, rmse, mae, r2
    #[arg(long = "metric", value_name = "METRIC")]
    pub metrics: Vec<String>,

    #[command(flatten)]
    pub wanted: WantedArgs,
}

/// Arguments of `prepare`.
#[derive(Debug, Clone, Args)]
pub struct PrepareArgs {
    /// A file of benchmarks/: geobench, copernicus-bench, landslide4sense
    #[arg(value_name = "SUITE")]
    pub suite: String,

    /// Only this task (repeatable) [default: all that are here]
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,

    /// Folder of the suite's official files [default: the suite's environment variable, e.g. GEO_BENCH_DIR]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Folder for the packed files, DIR/<task>/<split>.h5
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,

    /// Read and hash every file of the data anew, also those that look unchanged since an earlier run
    #[arg(long)]
    pub verify: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Try this device, too: libtorch[:cuda:N], vulkan[:N]; its backend is built in where it is not
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// One JSON object a line, one line a finding
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `models`.
#[derive(Debug, Clone, Args)]
pub struct ModelsArgs {
    /// One JSON object per model
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cache`.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["list", "prune"])))]
pub struct CacheArgs {
    /// Show each entry's size, age, task and model, the most recently used first
    #[arg(long)]
    pub list: bool,

    /// Remove entries: all, or those that the limits below leave out
    #[arg(long)]
    pub prune: bool,

    /// Remove what was not used for this many days
    #[arg(long, value_name = "DAYS", requires = "prune", conflicts_with = "list")]
    pub older_than: Option<u32>,

    /// Remove the least recently used entries until the rest is no larger: bytes, or with kB, MB, GB, TB
    #[arg(long, value_name = "SIZE", requires = "prune", conflicts_with = "list", value_parser = size)]
    pub to: Option<u64>,
}

/// Bytes of `20GB`, `1.5 MB`, `4096`.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err("units are B, kB, MB, GB, TB".to_owned()),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if (0.0..1e6).contains(&number) || (unit == 1.0 && (0.0..1e18).contains(&number)) => {
            Ok((number * unit) as u64)
        }
        _ => Err("expected a size as 20GB".to_owned()),
    }
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

/// Threads per core that still hide the time that reading files takes; more only cost memory.
const THREADS_PER_CORE: usize = 4;
/// As many threads are fine on any machine, so that a command line does not depend on it.
const THREADS_ANYWHERE: usize = 64;

fn threads(text: &str) -> Result<usize, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = THREADS_ANYWHERE.max(THREADS_PER_CORE * cores);
    at_most(text, most, &format!("{most} with the {cores} cores of this machine"))
}

/// Beyond this no device computes faster, and the images of one batch fill gigabytes.
const LARGEST_BATCH: usize = 4096;

fn batch_size(text: &str) -> Result<usize, String> {
    at_most(text, LARGEST_BATCH, &LARGEST_BATCH.to_string())
}

fn at_most(text: &str, most: usize, told: &str) -> Result<usize, String> {
    let too_many = || Err(format!("must be at most {told}"));
    match at_least_one(text) {
        Ok(n) if n > most => too_many(),
        // Too long for a number is too many, too.
        Err(_) if text.len() > 9 && text.bytes().all(|byte| byte.is_ascii_digit()) => too_many(),
        done => done,
    }
}

/// Arguments of `report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Folder of the results, as `bench` writes it
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub results: PathBuf,

    /// Where the report goes [default: the folder of the results]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Only these models in the spider plot: as in the tables, TerraFM or "TerraFM ViT-Base", published and measured
    /// [default: those of the source's plot and what is measured]
    #[arg(long, value_name = "MODEL,MODEL", value_delimiter = ',')]
    pub models: Vec<String>,

    /// Only these axes in the spider plot: a table (knn), a task (m-eurosat) or both (knn/m-eurosat), at least three in all
    #[arg(long, value_name = "AXIS,AXIS", value_delimiter = ',')]
    pub axes: Vec<String>,
}
