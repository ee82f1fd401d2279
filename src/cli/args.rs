//! The command line exactly as the user types it. Each command turns its arguments into validated requests.
//!
//! This file is also compiled into `xtask`, so that help and argument errors do not require a build of the harness. It may
//! only use clap and std.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::cluster_args::{MergeArgs, SharingArgs, SlurmArgs, StatusArgs, WorkerArgs};
use super::fetch_args::FetchArgs;

/// Options shared by all commands.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// Folder whose benchmarks/ and configs/ files override the built-in ones [default: $TERRABENCH_HOME, else the checkout
    /// that contains the working directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,

    /// How to report progress on standard error: bars in a terminal and lines elsewhere, or JSON for programs
    #[arg(long, global = true, value_name = "HOW", default_value = "auto", hide = true)]
    pub progress: ProgressArg,
}

/// How to report progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressArg {
    /// Bars if standard error is a terminal, lines otherwise
    Auto,
    /// One JSON object per line, several per second, among the other lines
    Json,
}

/// The commands of the harness.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run a benchmark and write its tables
    ///
    /// Loads the suite's official files, extracts frozen features, scores them with each protocol, and writes one record
    /// per cell (model x task x partition x protocol x seed). Also writes the published tables with our row added. Finished
    /// cells are not computed again.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),

    /// Show what the reader sees in a task's files
    Inspect(InspectArgs),

    /// Export the features of a split as safetensors
    ///
    /// The file contains `features` (float32 [n, d]) and `labels` (int64 [n]; uint8 [n, labels] for multi-label tasks). Its
    /// metadata key `samples` is a JSON list of the sample names in the same order. With --tokens it also contains `tokens`
    /// (float32 [n, rows, columns, d]), with --maps `map0`, `map1`, … (float32 [n, d, rows, columns]). `bench --features`
    /// reads a folder of such files, which --to writes.
    #[command(after_help = FEATURES_EXAMPLES)]
    Features(FeaturesArgs),

    /// Write the images of a split, prepared for a model, to standard output for a loop of your own
    ///
    /// The output is a stream: a line of JSON that describes the split, then per batch a line of JSON with the samples'
    /// names and a safetensors file of `bytes` bytes: `image0` (float32 [n, c, h, w]; image1, … if samples have several
    /// images), `labels` as in the file of `features`, and `days` and `places` if known. The Python package's `encode`
    /// reads it.
    Batches(BatchesArgs),

    /// Compare records with a reference and fail if accuracy fell: the gate for CI
    ///
    /// If both sides kept the test predictions of a cell, the cell is compared sample by sample (paired bootstrap);
    /// otherwise by its values. Thresholds come from check.toml in the reference folder, or else from configs/check.toml.
    /// On both sides, every recorded number is recomputed from its predictions. Records are only compared with records of
    /// the same setting.
    ///
    /// Exits with 1 if a cell fell, is missing, has different test samples, records a value that its predictions do not
    /// give, or has predictions that differ by more than the thresholds allow. Exits with 2 if the input, or one of its
    /// files, cannot be used.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),

    /// Compare two models on the cells they share: paired bootstrap and McNemar's test
    ///
    /// If one side has several records of a cell (with different weights or normalisations), they are listed, and options
    /// select one. Shortened and demo runs are ignored if other records exist.
    ///
    /// Exits with 1 if a record's value differs from what its predictions give, and with 3 if some files cannot be used;
    /// all other cells are still compared.
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),

    /// Recompute scores from the predictions stored beside the records
    ///
    /// Exits with 1 if a record contradicts its predictions, and with 3 if some files cannot be used.
    Rescore(RescoreArgs),

    /// List or prune the cache of extracted features
    ///
    /// The cache key covers everything that affects a feature (weights, preprocessing, pixels, code version), so entries
    /// are shared by protocols, partitions, seeds and later runs. They are stored in $TERRABENCH_CACHE, or else in the
    /// platform's cache folder.
    #[command(after_help = CACHE_EXAMPLES)]
    Cache(CacheArgs),

    /// List the available models: sensors, bands, input size, poolings, where the weights are and under which licence, and
    /// how close each model is to the original code
    Models(ModelsArgs),

    /// Fetch official data and published weights; downloads are verified and can be resumed
    Fetch(FetchArgs),

    /// Pack a suite's many files into one compressed file per split, which is much faster to read
    ///
    /// Packed data are read back and compared with the source. Pass the packed folder as --data; the records are the same
    /// for either. An existing packed file of the same source is kept, unless the suite's file now decodes the source
    /// differently (`stored-bands`, `remap`, `ignore`, …); the command then says what changed and packs it again.
    #[command(after_help = PREPARE_EXAMPLES)]
    Prepare(PrepareArgs),

    /// Diagnose the installation: devices, LibTorch, data, weights, caches and disk, with a remedy for each problem
    ///
    /// Needs no network and changes nothing. Exits with 1 if something is broken; missing items are reported but do not
    /// count as failures.
    ///
    /// With --device it also measures that device in each precision, in about a minute: whether features equal the CPU's,
    /// images per second by batch size, the rate of matrix products and of uploads.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),

    /// Measure one precision of a device; started by the doctor
    #[command(hide = true)]
    MeasureDevice(MeasureDeviceArgs),

    /// Write generated files of official sizes, to measure speed with
    #[command(hide = true)]
    MakeFiles(MakeFilesArgs),

    /// Compare a model's features with those of its original, which another process computes from the same pixels
    ///
    /// Prints the largest difference, how many k-NN predictions agree, and one verdict. examples/parity/ has the originals'
    /// encoders. Exits with 0 if the features are the same, 1 if they differ, and 2 if they cannot be compared.
    #[command(after_help = PARITY_EXAMPLES)]
    Parity(ParityArgs),

    /// Show how much each choice decides: one model on one task under every protocol, normalisation, pooling, depth, …
    ///
    /// Changes one choice at a time and keeps all others as model and suite have them. Choices: protocol (those on frozen
    /// features), normalization, pooling, depth (features after which block), stem (the sensor that the model is told), size,
    /// resize (the resize rule), beside (a second model's features side by side, with --beside), torchgeo (all of
    /// torchgeo-bench's choices, one after the other). Says before it starts how many cells it computes and about how long
    /// that takes. Finished cells are kept as records and not computed again; cells of the same input share their features
    /// through the cache. Writes a table and a picture to DIR/<suite>/spread/; published values of the model are lines in it.
    #[command(after_help = SPREAD_EXAMPLES)]
    Spread(Box<SpreadArgs>),

    /// Write tables, figures and a single-page report from existing records
    ///
    /// Reads DIR/<suite>/records/ of every suite (demos are kept apart) and runs nothing. report.md links the tables
    /// (Markdown, CSV) and figures (SVG, PNG); report.html contains the same in one file that needs no network;
    /// results.parquet contains all records. Files that cannot be used are listed and skipped; the command then exits with
    /// 3.
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),

    /// Compute the number of a record again and say what differs: weights, data, configuration, program, predictions
    ///
    /// Runs the command that the record holds, without the feature cache, into a temporary folder. Exits with 0 if value, scores
    /// and interval are equal to 15 digits, with 1 if not, and with 2 if the command cannot be run.
    #[command(after_help = REPRODUCE_EXAMPLES)]
    Reproduce(ReproduceArgs),

    /// Pack results for others: records, predictions and a model card, with a digest of every file
    ///
    /// Writes one folder or .zip file. `report --with` shows its results beside others, under the contributor's name;
    /// `check --reference` compares others with it. Both refuse a contribution with a file that was changed since. Of
    /// several runs of a cell with one setting only the newest is packed. Shortened runs, and records without predictions,
    /// are left out; a record that contradicts its predictions stops the command.
    #[command(after_help = CONTRIBUTE_EXAMPLES)]
    Contribute(ContributeArgs),

    /// Print the completions of a shell: commands, options and their values
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),

    /// Print the manual page, or write one page per command
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),

    /// Show which cells of a run are done, running (where, since when, how long still), failed, and to do
    ///
    /// Reads the records and claims in DIR and computes nothing. What is to do is known while a `bench` or `worker` runs, or
    /// after one that failed or was stopped.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),

    /// Write, check or submit a SLURM array job for a plan: one array index per worker, then a job that writes the report
    ///
    /// docs/cluster.md describes the plan. Without --submit the scripts are written to <results>/slurm/ and nothing is
    /// submitted. --check runs what every task would need, with the same modules and container, and fails if it is missing.
    #[command(after_help = SLURM_EXAMPLES)]
    Slurm(SlurmArgs),

    /// Work on a plan's cells, beside any number of other workers, until all are recorded
    ///
    /// Exits with 1 if a cell failed.
    #[command(after_help = WORKER_EXAMPLES)]
    Worker(WorkerArgs),

    /// Merge results folders that were made apart: records, predictions, pictures and snapshots
    ///
    /// A cell with the same fingerprint and another value is copied from neither side; both are listed with where they come
    /// from. Exits with 1 if there are such cells, and with 3 if some files cannot be read.
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(MergeArgs),
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples (of the installed program):
  terrabench completions bash > ~/.local/share/bash-completion/completions/terrabench
  terrabench completions zsh > ~/.zfunc/_terrabench
  terrabench completions fish > ~/.config/fish/completions/terrabench.fish";

const MAN_EXAMPLES: &str = "\
Examples (of the installed program):
  terrabench man | man -l -
  terrabench man --out ~/.local/share/man/man1";

const STATUS_EXAMPLES: &str = "\
Examples:
  cargo xtask status
  cargo xtask status geobench --watch 30";

const SLURM_EXAMPLES: &str = "\
Examples:
  cargo xtask slurm plan.toml --check
  cargo xtask slurm plan.toml --submit
  cargo xtask slurm plan.toml --emit commands | parallel";

const WORKER_EXAMPLES: &str = "\
Examples:
  cargo xtask worker plan.toml
  cargo xtask worker plan.toml --index 3";

const MERGE_EXAMPLES: &str = "\
Examples:
  cargo xtask merge here/results there/results --into results
  cargo xtask merge there/results --into results --dry-run";

const REPRODUCE_EXAMPLES: &str = "\
Examples:
  cargo xtask reproduce results/geobench/records/m-eurosat.default.knn.TerraFM.ViT-Base.seed0.0123456789abcdef.json
  cargo xtask reproduce RECORD --data ~/geobench --weights TerraFM-B.pth
  cargo xtask reproduce RECORD --print";

const PARITY_EXAMPLES: &str = "\
Examples:
  cargo xtask parity --model terrafm-b --weights TerraFM-B.pth --demo \\
    --against \"python examples/parity/encode_terrafm.py --repository TerraFM --weights TerraFM-B.pth\"
  cargo xtask parity --model galileo-nano --task m-so2sat --data ~/geobench --against \"python encode_upstream.py\"";
const CONTRIBUTE_EXAMPLES: &str = "\
Examples:
  cargo xtask contribute --name \"Lab X\"
  cargo xtask contribute geobench --name \"Lab X\" --model \"My model\" --out lab-x.zip
  cargo xtask report --with lab-x.zip
  cargo xtask check --records results --reference lab-x.zip";

const FEATURES_EXAMPLES: &str = "\
Examples:
  cargo xtask features --task m-eurosat --split test --out test.safetensors
  cargo xtask features --task m-eurosat --to my-features
  cargo xtask features --suite landslide4sense --task landslide4sense --to my-features --tokens 128 --maps";

const SPREAD_EXAMPLES: &str = "\
Examples:
  cargo xtask spread --demo --model galileo-nano --task m-eurosat
  cargo xtask spread --model terrafm-b --task m-eurosat --data ~/geobench
  cargo xtask spread --model terrafm-b --task m-eurosat --channels
  cargo xtask spread --model terrafm-b --task m-eurosat --vary depth --cross pooling,normalization --dry-run
  cargo xtask spread --model terrafm-b --task m-eurosat --beside image-stats";

const PREPARE_EXAMPLES: &str = "\
Examples:
  cargo xtask prepare copernicus-bench --data ~/copernicus-bench --to ~/packed
  cargo xtask prepare geobench --task m-eurosat --to ~/packed
  cargo xtask bench copernicus-bench --data ~/packed";

const REPORT_EXAMPLES: &str = "\
Examples:
  cargo xtask report
  cargo xtask report --with lab-x.zip --with lab-y
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
  cargo xtask bench copernicus-bench --demo
  cargo xtask bench geobench --data ~/geobench --weights TerraFM-B.pth
  cargo xtask bench geobench --task m-eurosat --partition 0.01x_train --weights random:0
  cargo xtask bench geobench --task m-eurosat --encoder \"python encode.py\" --name \"My model\"
  cargo xtask bench geobench --data ~/geobench --features my-features --name \"My model\"";

/// Which data to read and how to interpret them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Folder of the suite's official files [default: the suite's environment variable, e.g. GEO_BENCH_DIR]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// How to select bands: by the names in the files, as the published numbers do, or by content
    #[arg(long, value_name = "HOW", default_value = "as-named")]
    pub bands: BandNames,

    /// What replaces bands that the model takes but the files lack
    #[arg(long, value_name = "HOW", default_value = "as-task")]
    pub missing_bands: MissingBands,

    /// Which of the model's bands it receives: all, rgb, or a list of names (B02,B03,B04). The others become zeros after
    /// normalisation, or are left out if the model takes any set of bands
    #[arg(long, value_name = "all|rgb|BANDS", default_value = "all")]
    pub channels: String,

    /// Sensor to report to the model for Sentinel-2 tasks, and for others whose bands it takes as Sentinel-2: s2-l1c, s2-l2a [default: the task's sensor]
    #[arg(long, value_name = "SENSOR")]
    pub sensor: Option<SensorArg>,

    /// Read and hash every data file again, including those that look unchanged since an earlier run
    #[arg(long)]
    pub verify: bool,
}

/// What replaces missing bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MissingBands {
    /// The replacement bands named by the task (`impute` in benchmarks/)
    AsTask,
    /// Zeros, after normalisation
    Zeros,
}

/// A sensor that can be reported to the model for Sentinel-2 images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SensorArg {
    /// Sentinel-2 Level-1C: top-of-atmosphere reflectance
    #[value(name = "s2-l1c")]
    S2L1c,
    /// Sentinel-2 Level-2A: surface reflectance
    #[value(name = "s2-l2a")]
    S2L2a,
}

/// How to select the bands of a task whose files name them wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BandNames {
    /// By the names in the files, as the published numbers do
    AsNamed,
    /// By pixel content (m-eurosat, m-brick-kiln)
    ByContent,
}

/// Which bands a model receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputsArg {
    /// The bands used for the published numbers
    AsPublished,
    /// The bands the model was trained on
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

/// Number format of a frozen model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// float32
    F32,
    /// float32, with products of TensorFloat-32
    Tf32,
    /// bfloat16
    Bf16,
}

/// Which model to run and where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A file in configs/models/ (see the command `models`) or a path to such a TOML file [default: terrafm-b; with --demo:
    /// small models that together take all of the suite's sensors]
    #[arg(long, value_name = "NAME|FILE")]
    pub model: Option<String>,

    /// A PyTorch checkpoint, a .safetensors file, the .index.json of a sharded checkpoint, a folder that contains one of
    /// these, or random:SEED [with --demo: random:0]
    #[arg(long, value_name = "FILE|random:SEED")]
    pub weights: Option<String>,

    /// Accept weights that lack some of the model's parameters; those parameters keep random values
    #[arg(long)]
    pub allow_partial: bool,

    /// Device for tensors: flex (CPU), libtorch[:cuda:N], vulkan[:N]. Several of one kind share the extraction of features:
    /// libtorch:cuda:0,libtorch:cuda:1 or libtorch:cuda:all
    #[arg(long, value_name = "DEVICE", default_value = "flex")]
    pub device: String,

    /// Number format of a frozen model's weights and activations: f32, tf32 (NVIDIA GPUs; products only), bf16 (on flex: the
    /// factors of products only). Protocols that train with gradients take f32 or bf16, which then rounds the factors of
    /// products only
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    pub precision: PrecisionArg,

    /// Compute the same bits in each run also on an NVIDIA GPU, which is slower. The CPU (flex) always does
    #[arg(long)]
    pub deterministic: bool,

    /// Print where the time of extraction went, by stage
    #[arg(long)]
    pub profile: bool,

    /// Images per batch [default: 8 on the CPU; on other devices as many as make it faster]
    #[arg(long, value_name = "N", value_parser = batch_size)]
    pub batch_size: Option<usize>,

    /// Threads for reading and computing [default: number of cores]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,

    /// How to normalise pixels: default (as the suite's reference does, else dataset), dataset (standardise with the
    /// dataset's statistics), none (leave pixels as they are), sweep (try Galileo's strategies, select on validation, report on
    /// test; bench only), or one strategy such as OURS-2.0-norm_no_clip, satlas or bandspec_zscore (torchgeo-bench's)
    #[arg(long, value_name = "dataset|sweep|NAME", default_value = "default")]
    pub normalization: String,

    /// Which bands a model receives if the code behind its published numbers uses other bands than it was trained on
    #[arg(long, value_name = "HOW", default_value = "as-published")]
    pub inputs: InputsArg,

    /// How the model's tokens become one vector per image: class, mean, mean-all, head [default: set by the model]
    #[arg(long, value_name = "NAME")]
    pub pooling: Option<PoolingArg>,

    /// Neither read nor write the feature cache
    #[arg(long)]
    pub no_cache: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it as the help of the first option")]
    pub own: OwnEncoderArgs,
}

const OWN: &str = "Your own model (docs/your-model.md)";

/// An encoder in another process, instead of a model of `configs/models/`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = OWN)]
pub struct OwnEncoderArgs {
    /// Encode images with this program instead of --model: its standard input and output speak docs/wire-protocol.md. Words are
    /// split as in a shell. fd:R,W reads and writes two inherited pipes instead
    #[arg(long, value_name = "COMMAND|fd:R,W", conflicts_with_all = ["model", "weights", "allow_partial", "pooling"])]
    pub encoder: Option<String>,

    /// Name of the model in records and tables [default: name of the script without extension; with --features: `name` in
    /// DIR/features.toml, else the folder's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Second part of the name, as ViT-Base [default: own encoder; with --features: `backbone` in DIR/features.toml, else
    /// none]
    #[arg(long, value_name = "NAME")]
    pub backbone: Option<String>,

    /// The bands that the encoder takes, in its order, such as B04,B03,B02; for one sensor alone s1:VV,VH (repeatable)
    /// [default: every band of the task's sensor that the files have, in the order of benchmarks/sensors.toml]
    #[arg(long, value_name = "BANDS|SENSOR:BANDS", requires = "encoder")]
    pub input_bands: Vec<String>,

    /// The band that replaces one that the files lack, such as zeros:B10 (repeatable)
    #[arg(long, value_name = "SOURCE:BAND", requires = "input_bands")]
    pub input_impute: Vec<String>,

    /// Side in pixels to which images are resized, or native [default: 224; the task's own size where its suite sets one]
    #[arg(long, value_name = "N|native", requires = "encoder")]
    pub input_size: Option<String>,

    /// Seconds without an answer after which the encoder counts as hanging [default: 600]
    #[arg(long, value_name = "SECONDS", requires = "encoder", value_parser = clap::value_parser!(u64).range(1..))]
    pub encoder_timeout: Option<u64>,
}

const FROM_FILES: &str = "Features from files";

/// Options about a model's input, which is unknown if features come from files.
const NOT_FROM_FILES: [&str; 10] = [
    "encoder",
    "model",
    "weights",
    "allow_partial",
    "normalization",
    "inputs",
    "pooling",
    "bands",
    "missing_bands",
    "channels",
];

const SHORT: &str = "Short runs (protocols that train with epochs)";

/// Arguments of `bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// A file in benchmarks/: geobench, geobench-2, copernicus-bench, landslide4sense; with --demo also demo
    #[arg(value_name = "SUITE")]
    pub suite: String,

    /// Try the harness on small generated data with small models; the results are not benchmark numbers
    #[arg(long, conflicts_with = "data")]
    pub demo: bool,

    /// Draw other generated data with this seed: shows how far the demo's numbers depend on the draw
    #[arg(long, value_name = "N", requires = "demo", default_value_t = 0)]
    pub demo_seed: u64,

    /// Run only this task (repeatable), or all: every task of the suite [default: the tasks in the tables that the protocols fill]
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,

    /// Use only this training partition (repeatable) [default: the partitions in the tables that the protocols fill]
    #[arg(long = "partition", value_name = "PARTITION")]
    pub partitions: Vec<String>,

    /// A file in configs/protocols/: knn, linear-probe, logistic, ridge, finetune, segmentation-probe, upernet,
    /// upernet-plain, upernet-finetune, copernicus-linear-probe, torchgeo-knn, torchgeo-linear, retrieval, clustering (repeatable) [default: `default-protocols` in the suite's file, or with --demo `demo-protocols`]
    #[arg(long = "protocol", value_name = "PROTOCOL")]
    pub protocols: Vec<String>,

    /// Seed for a protocol's random choices and for the resampling of intervals (repeatable)
    #[arg(long = "seed", value_name = "N", default_values_t = [0])]
    pub seeds: Vec<u64>,

    /// Train for only N epochs; the record of a shortened run says so and is not entered in any table
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = SHORT)]
    pub epochs: Option<usize>,

    /// Train with only these learning rates
    #[arg(long, value_name = "RATE,RATE", value_delimiter = ',', help_heading = SHORT)]
    pub learning_rates: Vec<f64>,

    /// Use only N samples per split
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = SHORT)]
    pub limit: Option<usize>,

    /// Output folder: records and tables go to DIR/<suite>/, or with --demo to DIR/<suite>-demo/
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub out: PathBuf,

    /// Memory limit for the feature maps of a frozen encoder (upernet), in bytes or with kB, MB, GB, TB; the rest goes to a
    /// file in the cache folder
    #[arg(long, value_name = "SIZE", default_value = "4GB", value_parser = size)]
    pub cache_limit: u64,

    /// Recompute finished cells
    #[arg(long)]
    pub fresh: bool,

    /// Only say which cells are left, and how many hours and gigabytes they may take
    #[arg(long)]
    pub dry_run: bool,

    /// Score features that another program computed, instead of running a model: a folder with
    /// <task>/<split>.safetensors, .npz or .parquet. docs/vectors.md describes the files
    #[arg(long, value_name = "DIR", help_heading = FROM_FILES, conflicts_with_all = NOT_FROM_FILES)]
    pub features: Option<PathBuf>,

    /// The options for data

    #[command(flatten)]
    pub data: DataArgs,
    /// How several processes share the results

    #[command(flatten)]
    pub sharing: SharingArgs,
    /// The options for the model

    #[command(flatten)]
    pub model: ModelArgs,
}

const SPREAD: &str = "Choices";

/// Arguments of `spread`.
#[derive(Debug, Clone, Args)]
pub struct SpreadArgs {
    /// A file in benchmarks/
    #[arg(long, value_name = "SUITE", default_value = "geobench")]
    pub suite: String,

    /// Use small generated data; the results are not benchmark numbers
    #[arg(long, conflicts_with = "data")]
    pub demo: bool,

    /// The task
    #[arg(long, value_name = "TASK")]
    pub task: String,

    /// The training partition
    #[arg(long, value_name = "PARTITION", default_value = "default")]
    pub partition: String,

    /// The protocol with which the other choices are varied [default: the suite's first one that scores the task]
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,

    /// Vary only this choice (repeatable) [default: all but channels]
    #[arg(long = "vary", value_name = "CHOICE", help_heading = SPREAD)]
    pub vary: Vec<String>,

    /// Vary two choices together: every value of one with every value of the other (repeatable)
    #[arg(long = "cross", value_name = "CHOICE,CHOICE", help_heading = SPREAD)]
    pub cross: Vec<String>,

    /// Show what each band adds instead: red, green and blue, all bands, and all but one
    #[arg(long, help_heading = SPREAD, conflicts_with = "vary")]
    pub channels: bool,

    /// Take features after this block too (repeatable) [default: a quarter, half, three quarters and all but one of the blocks]
    #[arg(long = "depth", value_name = "N", value_parser = at_least_one, help_heading = SPREAD)]
    pub depths: Vec<usize>,

    /// Resize images to this side too (repeatable) [default: half of the model's, the stored one, 224]
    #[arg(long = "size", value_name = "PIXELS", value_parser = at_least_one, help_heading = SPREAD)]
    pub sizes: Vec<usize>,

    /// Try each of Galileo's normalisations instead of one per source
    #[arg(long, help_heading = SPREAD)]
    pub all_normalizations: bool,

    /// A second model, whose features stand beside each of the first one's
    #[arg(long, value_name = "NAME|FILE", help_heading = SPREAD)]
    pub beside: Option<String>,

    /// The second model's weights, as for --weights
    #[arg(long, value_name = "FILE|random:SEED", requires = "beside", help_heading = SPREAD)]
    pub beside_weights: Option<String>,

    /// Only say which cells there are and about how long they take
    #[arg(long)]
    pub dry_run: bool,

    /// Seed for a protocol's random choices and for the resampling of intervals
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Output folder: records go to DIR/<suite>/ or, with --demo, to DIR/<suite>-demo/
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub out: PathBuf,

    /// Recompute finished cells
    #[arg(long)]
    pub fresh: bool,

    /// Folder of the suite's official files [default: the suite's environment variable, e.g. GEO_BENCH_DIR]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// How to select bands: by the names in the files, as the published numbers do, or by content
    #[arg(long, value_name = "HOW", default_value = "as-named")]
    pub bands: BandNames,
    /// The options for the model

    #[command(flatten)]
    pub model: ModelArgs,
}

/// Arguments of `inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// A file in benchmarks/
    #[arg(long, value_name = "SUITE", default_value = "geobench")]
    pub suite: String,

    /// The task to inspect
    #[arg(long, value_name = "TASK")]
    pub task: String,

    /// The training partition
    #[arg(long, value_name = "PARTITION", default_value = "default")]
    pub partition: String,

    /// Show only this split (repeatable): train, valid, test [default: all]
    #[arg(long = "split", value_name = "SPLIT")]
    pub splits: Vec<SplitArg>,

    /// Print one JSON object per sample, one per line
    #[arg(long)]
    pub json: bool,

    /// Folder of the suite's official files [default: the suite's environment variable, e.g. GEO_BENCH_DIR]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Arguments of `features`.
#[derive(Debug, Clone, Args)]
pub struct FeaturesArgs {
    /// A file in benchmarks/
    #[arg(long, value_name = "SUITE", default_value = "geobench")]
    pub suite: String,

    /// The task whose images to encode
    #[arg(long, value_name = "TASK")]
    pub task: String,

    /// The training partition
    #[arg(long, value_name = "PARTITION", default_value = "default")]
    pub partition: String,

    /// The split whose images to encode [default with --to: all three]
    #[arg(long, value_name = "SPLIT", required_unless_present = "to")]
    pub split: Option<SplitArg>,

    /// The safetensors file to write
    #[arg(long, value_name = "FILE", required_unless_present = "to", conflicts_with = "to")]
    pub out: Option<PathBuf>,

    /// Write DIR/<task>/<split>.safetensors, as `bench --features DIR` reads them
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,

    /// Also write the patch tokens of tiles of this many pixels a side, joined to one grid per image
    #[arg(long, value_name = "PIXELS", value_parser = at_least_one)]
    pub tokens: Option<usize>,

    /// Also write the feature maps
    #[arg(long)]
    pub maps: bool,
    /// The options for data

    #[command(flatten)]
    pub data: DataArgs,
    /// The options for the model

    #[command(flatten)]
    pub model: ModelArgs,
}

/// Arguments of `batches`.
#[derive(Debug, Clone, Args)]
pub struct BatchesArgs {
    /// A file in benchmarks/
    #[arg(long, value_name = "SUITE", default_value = "geobench")]
    pub suite: String,

    /// Use small generated data
    #[arg(long, conflicts_with = "data")]
    pub demo: bool,

    /// The task whose images to write
    #[arg(long, value_name = "TASK")]
    pub task: String,

    /// The training partition
    #[arg(long, value_name = "PARTITION", default_value = "default")]
    pub partition: String,

    /// The split whose images to write
    #[arg(long, value_name = "SPLIT")]
    pub split: SplitArg,
    /// The options for data

    #[command(flatten)]
    pub data: DataArgs,
    /// The options for the model

    #[command(flatten)]
    pub model: ModelArgs,
}

/// Arguments of `parity`.
#[derive(Debug, Clone, Args)]
pub struct ParityArgs {
    /// The program that encodes as the original does: it speaks docs/wire-protocol.md, as with --encoder
    #[arg(long, value_name = "COMMAND")]
    pub against: String,

    /// A file in benchmarks/
    #[arg(long, value_name = "SUITE", default_value = "geobench")]
    pub suite: String,

    /// The task whose images to encode
    #[arg(long, value_name = "TASK", default_value = "m-eurosat")]
    pub task: String,

    /// The training partition
    #[arg(long, value_name = "PARTITION", default_value = "default")]
    pub partition: String,

    /// Use generated data instead of the suite's
    #[arg(long, conflicts_with = "data")]
    pub demo: bool,

    /// What to compare (repeatable)
    #[arg(long = "want", value_name = "pooled|tokens|maps", default_values_t = [WantArg::Pooled])]
    pub wants: Vec<WantArg>,

    /// Use at most N samples per split
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub limit: usize,

    /// The largest difference that counts as none, as a share of the largest feature
    #[arg(long, value_name = "SHARE", default_value_t = 1e-3)]
    pub tolerance: f64,
    /// The options for data

    #[command(flatten)]
    pub data: DataArgs,
    /// The options for the model

    #[command(flatten)]
    pub model: ModelArgs,
}

/// What an encoder gives of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WantArg {
    /// One vector
    Pooled,
    /// One vector per patch
    Tokens,
    /// Feature maps of several layers
    Maps,
}

impl std::fmt::Display for WantArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            WantArg::Pooled => "pooled",
            WantArg::Tokens => "tokens",
            WantArg::Maps => "maps",
        })
    }
}

/// Arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Output folder of `bench`: a folder that contains records/, or a parent of such folders
    #[arg(long, value_name = "DIR")]
    pub records: PathBuf,

    /// The reference records, in the same layout, or a contribution: a folder or .zip file from `contribute`
    #[arg(long, value_name = "DIR")]
    pub reference: PathBuf,

    /// A TOML file of thresholds [default: check.toml in the reference folder, else configs/check.toml]
    #[arg(long, value_name = "FILE")]
    pub thresholds: Option<PathBuf>,

    /// Do not fail if a cell of the reference is missing
    #[arg(long)]
    pub allow_missing: bool,

    /// Write the result as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Append the results as a GitHub Markdown table to this file
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,

    /// Show the differences, then make these records the new reference
    #[arg(long)]
    pub update: bool,
    /// Which records to compare

    #[command(flatten)]
    pub wanted: WantedArgs,
}

/// Which records to use if a cell has several.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which records (each repeatable: any of its values will do)")]
pub struct WantedArgs {
    /// Only records of this model, named as in the records: TerraFM or "TerraFM ViT-Base"
    #[arg(long = "model", value_name = "MODEL")]
    pub models: Vec<String>,

    /// Only records with these weights: the first characters of their hash, or random:SEED
    #[arg(long, value_name = "HASH|random:SEED")]
    pub weights: Vec<String>,

    /// Only records with this normalisation: dataset, sweep, OURS-2.0-norm_no_clip, …
    #[arg(long, value_name = "NAME")]
    pub normalization: Vec<String>,

    /// Only records with this sensor reported to the model: s1, s2-l1c, s2-l2a
    #[arg(long, value_name = "SENSOR")]
    pub sensor: Vec<String>,

    /// Only records with bands selected this way: as-named, by-content
    #[arg(long, value_name = "HOW")]
    pub bands: Vec<String>,

    /// Only records with this setting, named as in the listings of settings: k=20, imputed=nothing, length=shortened
    #[arg(long = "setting", value_name = "NAME=VALUE")]
    pub settings: Vec<String>,
}

/// Arguments of `compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// A model's name as in the records, the first characters of its weights' hash, or a folder of records
    #[arg(value_name = "A")]
    pub a: String,

    /// The second model, in the same form
    #[arg(value_name = "B")]
    pub b: String,

    /// Folder in which to look up models given by name or hash
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub results: PathBuf,
    /// Which records to compare

    #[command(flatten)]
    pub wanted: WantedArgs,
}

/// Arguments of `rescore`.
#[derive(Debug, Clone, Args)]
pub struct RescoreArgs {
    /// Output folder of `bench`: a folder that contains records/, or a parent of such folders
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub results: PathBuf,

    /// Also compute this metric if it fits the targets (repeatable): accuracy, micro_f1, micro_map, miou, rmse, mae, r2,
    /// retrieval_map, adjusted_mutual_information
    #[arg(long = "metric", value_name = "METRIC")]
    pub metrics: Vec<String>,
    /// Which records to rescore

    #[command(flatten)]
    pub wanted: WantedArgs,
}

/// Arguments of `prepare`.
#[derive(Debug, Clone, Args)]
pub struct PrepareArgs {
    /// A file in benchmarks/: geobench, geobench-2, copernicus-bench, landslide4sense
    #[arg(value_name = "SUITE")]
    pub suite: String,

    /// Pack only this task (repeatable) [default: all tasks whose data are present]
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,

    /// Folder of the suite's official files [default: the suite's environment variable, e.g. GEO_BENCH_DIR]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Output folder; packed files go to DIR/<task>/<split>.h5
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,

    /// Read and hash every data file again, including those that look unchanged since an earlier run
    #[arg(long)]
    pub verify: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Also try this device: libtorch[:cuda:N], vulkan[:N]; its backend is added to the build if missing
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// Print one JSON object per finding, one per line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of the hidden command `measure-device`.
#[derive(Debug, Clone, Args)]
pub struct MeasureDeviceArgs {
    /// The device
    #[arg(long, value_name = "DEVICE")]
    pub device: String,

    /// The precision
    #[arg(long, value_name = "FORMAT")]
    pub precision: PrecisionArg,

    /// What is measured
    #[arg(long, value_name = "WORK", default_value = "encoder")]
    pub work: WorkArg,

    /// Train samples of neighbours, or images per batch
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub size: usize,
}

/// What `measure-device` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkArg {
    /// Features, uploads and products, for the doctor
    Encoder,
    /// Nearest neighbours of 1,000 queries
    Neighbours,
    /// Training steps of UPerNet
    Upernet,
    /// Training steps of fine-tuning
    Finetune,
}

/// Arguments of the hidden command `make-files`.
#[derive(Debug, Clone, Args)]
pub struct MakeFilesArgs {
    /// The suite: geobench
    pub suite: String,

    /// Folder for the files, as the official package lays them out
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,

    /// Write only this task; repeatable
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,

    /// Write one of so many of the official samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub one_of: usize,
}

/// Arguments of `models`.
#[derive(Debug, Clone, Args)]
pub struct ModelsArgs {
    /// Print one JSON object per model, one per line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cache`.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["list", "prune"])))]
pub struct CacheArgs {
    /// Show the size, age, task and model of each entry, most recently used first
    #[arg(long)]
    pub list: bool,

    /// Remove all entries, or those selected by the limits below
    #[arg(long)]
    pub prune: bool,

    /// Remove entries not used for this many days
    #[arg(long, value_name = "DAYS", requires = "prune", conflicts_with = "list")]
    pub older_than: Option<u32>,

    /// Remove the least recently used entries until at most SIZE remains: bytes, or with kB, MB, GB, TB
    #[arg(long, value_name = "SIZE", requires = "prune", conflicts_with = "list", value_parser = size)]
    pub to: Option<u64>,
}

/// Parses a size such as `20GB`, `1.5 MB` or `4096` into bytes.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err("expected a unit of B, kB, MB, GB or TB".to_owned()),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if (0.0..1e6).contains(&number) || (unit == 1.0 && (0.0..1e18).contains(&number)) => {
            Ok((number * unit) as u64)
        }
        _ => Err("expected a size such as 20GB".to_owned()),
    }
}

/// A split, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitArg {
    /// Training samples
    Train,
    /// Validation samples
    Valid,
    /// Test samples
    Test,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}

/// Up to this many threads per core help to hide the time spent on reading; more only cost memory.
const THREADS_PER_CORE: usize = 4;
/// A number of threads accepted on every machine, so that command lines are portable.
const THREADS_ANYWHERE: usize = 64;

fn threads(text: &str) -> Result<usize, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = THREADS_ANYWHERE.max(THREADS_PER_CORE * cores);
    at_most(text, most, &format!("{most} on this machine ({cores} cores)"))
}

/// Larger batches are not faster on any device, and the images of one batch already fill gigabytes.
const LARGEST_BATCH: usize = 4096;

fn batch_size(text: &str) -> Result<usize, String> {
    at_most(text, LARGEST_BATCH, &LARGEST_BATCH.to_string())
}

fn at_most(text: &str, most: usize, told: &str) -> Result<usize, String> {
    let too_many = || Err(format!("must be at most {told}"));
    match at_least_one(text) {
        Ok(n) if n > most => too_many(),
        // A number with too many digits to parse is also too large.
        Err(_) if text.len() > 9 && text.bytes().all(|byte| byte.is_ascii_digit()) => too_many(),
        done => done,
    }
}

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: ShellArg,
}

/// A shell with completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShellArg {
    /// bash 4 or newer
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Arguments of `man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Write terrabench.1 and a page per command to this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Arguments of `reproduce`.
#[derive(Debug, Clone, Args)]
pub struct ReproduceArgs {
    /// A file in records/
    #[arg(value_name = "RECORD")]
    pub record: PathBuf,

    /// Only print the record's command
    #[arg(long)]
    pub print: bool,

    /// Folder of the suite's official files [default: the suite's environment variable, e.g. GEO_BENCH_DIR]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Where the weights are, if the record's command names a file that is elsewhere
    #[arg(long, value_name = "FILE")]
    pub weights: Option<String>,

    /// Where the model's TOML file is, if the record's command names a file that is elsewhere
    #[arg(long, value_name = "NAME|FILE")]
    pub model: Option<String>,

    /// Where the protocol's TOML file is, if the record's command names a file that is elsewhere
    #[arg(long, value_name = "NAME|FILE")]
    pub protocol: Option<String>,

    /// Where the files of features are, if the record was made from files
    #[arg(long, value_name = "DIR")]
    pub features: Option<PathBuf>,

    /// Compute on another device than the record's
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// Threads for reading and computing [default: number of cores]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,

    /// Keep the new records and tables in this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Arguments of `contribute`.
#[derive(Debug, Clone, Args)]
pub struct ContributeArgs {
    /// A folder of the results: a suite, or the demo of one (geobench-demo) [default: every suite with records]
    #[arg(value_name = "SUITE")]
    pub suite: Option<String>,

    /// Name of the person or group, as tables will show it
    #[arg(long, value_name = "NAME")]
    pub name: String,

    /// How to reach you, or where the results are described: a mail address or a link
    #[arg(long, value_name = "TEXT")]
    pub contact: Option<String>,

    /// Results folder, as written by `bench`
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub results: PathBuf,

    /// The folder to write, or a file that ends in .zip; an earlier contribution there is replaced
    #[arg(long, value_name = "DIR|FILE.zip", default_value = "contribution")]
    pub out: PathBuf,
    /// Which records to pack

    #[command(flatten)]
    pub wanted: WantedArgs,
}

/// Arguments of `report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Results folder, as written by `bench`
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub results: PathBuf,

    /// Also show the results of a contribution: a folder or .zip file from `contribute` (repeatable)
    #[arg(long = "with", value_name = "DIR|FILE.zip")]
    pub contributions: Vec<PathBuf>,

    /// Output folder of the report [default: the results folder]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Show only these models in the spider plot, published or measured, named as in the tables: TerraFM or "TerraFM
    /// ViT-Base" [default: the models of the published plot and all measured ones]
    #[arg(long, value_name = "MODEL,MODEL", value_delimiter = ',')]
    pub models: Vec<String>,

    /// Show only these axes in the spider plot: a table (knn), a task (m-eurosat) or both (knn/m-eurosat); at least three
    /// in total
    #[arg(long, value_name = "AXIS,AXIS", value_delimiter = ',')]
    pub axes: Vec<String>,

    /// Add the interval to each value of the LaTeX tables, as a subscript
    #[arg(long)]
    pub latex_intervals: bool,
}
