//! `cargo xtask`: the entry point to Terrabench. Builds the harness with the features a command needs and
//! passes the command on; runs the tests.

#[path = "../../src/cli/args.rs"]
mod args;
#[path = "../../src/cli/cluster_args.rs"]
mod cluster_args;
#[allow(dead_code, reason = "the harness uses all of it")]
#[path = "../../src/console.rs"]
mod console;
mod deny;
mod faults;
#[path = "../../src/cli/fetch_args.rs"]
mod fetch_args;
mod fuzz;
#[path = "../../src/libtorch.rs"]
mod libtorch;
mod lints;
#[path = "../../src/onnxruntime.rs"]
#[allow(dead_code, reason = "the harness uses all of it")]
mod onnxruntime;
mod perf;
mod provision;
mod provision_onnx;
mod test;
mod wheel;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

/// Terrabench measures Earth-observation foundation models on the benchmarks their papers report
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
struct Cli {
    // Read by the harness, which receives the arguments as typed.
    #[command(flatten)]
    _global: args::GlobalArgs,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    #[command(flatten)]
    Harness(Box<args::Command>),

    /// Check formatting and lints, run all tests, then the demo benchmark and its accuracy check
    Test(test::TestArgs),

    /// Feed mutated files to every reader, on a stable compiler, and keep those that fail
    Fuzz(fuzz::FuzzArgs),

    /// Kill, starve and disturb runs, resume them, and compare the results with an undisturbed run's
    Faults(faults::FaultArgs),

    /// Time every part beside its peers and write results/perf.md with pictures
    Perf(perf::PerfArgs),

    /// Run a test binary and report each test's time; started by cargo
    #[command(hide = true)]
    Timed(test::TimedArgs),

    /// Build the Python wheel: the program and the package `terrabench` in one file for pip
    Wheel(wheel::WheelArgs),

    /// Find or install the LibTorch that the device libtorch needs
    Libtorch(provision::LibtorchArgs),

    /// Find or install the ONNX Runtime that models of kind onnx need
    Onnxruntime(provision_onnx::OnnxruntimeArgs),
}

fn main() -> ExitCode {
    if let Some(status) = lints::compile_if_asked() {
        return status;
    }
    let task = Cli::parse().task;
    // For `check`, `parity` and `reproduce`, exit code 1 means that numbers differ, so a harness that fails to build needs another code.
    let failure = match &task {
        Task::Harness(command)
            if matches!(
                **command,
                args::Command::Check(_) | args::Command::Parity(_) | args::Command::Reproduce(_)
            ) =>
        {
            ExitCode::from(2)
        }
        _ => ExitCode::FAILURE,
    };
    work(task).unwrap_or_else(|error| {
        console::note(format_args!("error: {error:#}"));
        failure
    })
}

fn work(task: Task) -> Result<ExitCode> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask must be inside the workspace")?;
    match task {
        Task::Harness(command) => {
            let feature = feature_of(&command);
            let mut environment = environment(root, feature)?;
            let harness = build(root, feature, &environment)?;
            if takes_tf32(&command) {
                environment.push((TF32_VARIABLE, "1".into()));
            }
            if is_deterministic(&command) && std::env::var_os(CUBLAS_VARIABLE).is_none() {
                environment.push((CUBLAS_VARIABLE, CUBLAS_VALUE.into()));
            }
            let arguments = std::env::args_os().skip(1);
            let mut run = Command::new(harness);
            run.envs(environment).args(arguments);
            become_or_run(&mut run)
        }
        Task::Test(options) => test::command(root, &options).map(|()| ExitCode::SUCCESS),
        Task::Wheel(options) => wheel::command(root, &options).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(options) => fuzz::command(root, &options).map(|()| ExitCode::SUCCESS),
        Task::Perf(options) => perf::command(root, &options).map(|()| ExitCode::SUCCESS),
        Task::Faults(options) => {
            let tell = |text: &str| console::tell(format_args!("{}\n", text.trim_end()));
            // A build meanwhile replaces the harness, which starts some thousand times.
            let folder = tempfile::tempdir_in(root.join("target")).context("cannot write to target/")?;
            let harness = folder.path().join("terrabench").with_extension(std::env::consts::EXE_EXTENSION);
            std::fs::copy(build(root, None, &[])?, &harness).context("cannot copy the harness")?;
            faults::command(&harness, &root.join("target/faults"), &options, tell).map(|()| ExitCode::SUCCESS)
        }
        Task::Timed(options) => test::timed(&options),
        Task::Libtorch(options) => provision::command(root, &options).map(|()| ExitCode::SUCCESS),
        Task::Onnxruntime(options) => provision_onnx::command(root, &options).map(|()| ExitCode::SUCCESS),
    }
}

/// Runs the harness in the place of this process, so that signals reach it and its exit code is the caller's.
#[cfg(unix)]
fn become_or_run(harness: &mut Command) -> Result<ExitCode> {
    Err(std::os::unix::process::CommandExt::exec(harness)).context("cannot start the harness")
}

/// Runs the harness and returns its exit code.
#[cfg(not(unix))]
fn become_or_run(harness: &mut Command) -> Result<ExitCode> {
    let status = harness.status().context("cannot start the harness")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Returns the cargo feature for the device that a command uses.
fn feature_of(command: &args::Command) -> Option<&str> {
    let device: std::borrow::Cow<'_, str> = match command {
        args::Command::Reproduce(reproduce) => reproduced_device(reproduce)?.into(),
        args::Command::Bench(bench) => bench.model.device.as_str().into(),
        args::Command::Features(features) => features.model.device.as_str().into(),
        args::Command::Spread(spread) => spread.model.device.as_str().into(),
        args::Command::Parity(parity) => parity.model.device.as_str().into(),
        args::Command::Doctor(doctor) => doctor.device.as_ref()?.into(),
        args::Command::MeasureDevice(measure) => measure.device.as_str().into(),
        args::Command::Slurm(slurm) => return feature_of_plan(&slurm.plan),
        args::Command::Worker(worker) => return feature_of_plan(&worker.plan),
        args::Command::Inspect(_)
        | args::Command::MakeFiles(_)
        | args::Command::Batches(_)
        | args::Command::Check(_)
        | args::Command::Compare(_)
        | args::Command::Rescore(_)
        | args::Command::Prepare(_)
        | args::Command::Cache(_)
        | args::Command::Models(_)
        | args::Command::Fetch(_)
        | args::Command::Report(_)
        | args::Command::Status(_)
        | args::Command::Merge(_)
        | args::Command::Contribute(_)
        | args::Command::Completions(_)
        | args::Command::Man(_) => return None,
    };
    let device = device.as_ref();
    let backend = device.split(':').next()?;
    ["libtorch", "vulkan"].into_iter().find(|feature| *feature == backend)
}

/// Returns the cargo feature for the device that a plan's runs name.
fn feature_of_plan(plan: &Path) -> Option<&'static str> {
    // The harness says what is wrong with a plan that cannot be read.
    let text = std::fs::read_to_string(plan).unwrap_or_default();
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == '=' || c == '"').collect();
    let device = words.windows(2).find(|pair| pair[0] == "--device").map(|pair| pair[1])?;
    ["libtorch", "vulkan"].into_iter().find(|feature| device.split(':').next() == Some(*feature))
}

/// The device on which a record is computed again: the one typed, else the record's.
fn reproduced_device(reproduce: &args::ReproduceArgs) -> Option<String> {
    if let Some(device) = &reproduce.device {
        return Some(device.clone());
    }
    // The record's JSON is checked by the harness; here a line of it is enough.
    let text = std::fs::read_to_string(&reproduce.record).ok()?;
    let (_, from) = text.split_once("\"device\": \"")?;
    Some(from.split('"').next()?.to_owned())
}

/// LibTorch reads this when it starts: `terrabench::device::TF32_VARIABLE`.
const TF32_VARIABLE: &str = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE";

/// Whether a command asks for TensorFloat-32.
fn takes_tf32(command: &args::Command) -> bool {
    model_of(command).is_some_and(|model| model.precision == args::PrecisionArg::Tf32)
        || recorded_words(command).contains(" --precision tf32")
}

/// cuBLAS reads this when CUDA starts: `terrabench::device::CUBLAS_VARIABLE`.
const CUBLAS_VARIABLE: &str = "CUBLAS_WORKSPACE_CONFIG";

/// Memory with which cuBLAS gives the same bits in each run: the first of `terrabench::device::CUBLAS_VALUES`.
const CUBLAS_VALUE: &str = ":4096:8";

/// Whether a command asks for the same bits in each run.
fn is_deterministic(command: &args::Command) -> bool {
    model_of(command).is_some_and(|model| model.deterministic)
        || recorded_words(command).contains(" --deterministic")
}

/// The text of the record that is computed again, with its command. The harness checks it; here a search is enough.
fn recorded_words(command: &args::Command) -> String {
    match command {
        args::Command::Reproduce(reproduce) => std::fs::read_to_string(&reproduce.record).unwrap_or_default(),
        _ => String::new(),
    }
}

/// The options of the model that a command encodes with.
fn model_of(command: &args::Command) -> Option<&args::ModelArgs> {
    match command {
        args::Command::Bench(bench) => Some(&bench.model),
        args::Command::Features(features) => Some(&features.model),
        args::Command::Spread(spread) => Some(&spread.model),
        args::Command::Parity(parity) => Some(&parity.model),
        _ => None,
    }
}

/// Returns the environment variables that a feature needs, for building and running.
fn environment(root: &Path, feature: Option<&str>) -> Result<Vec<(&'static str, OsString)>> {
    if feature == Some("libtorch") { provision::environment(root) } else { Ok(Vec::new()) }
}

/// Builds the harness and returns the path of its binary, which is next to this one.
fn build(root: &Path, feature: Option<&str>, environment: &[(&'static str, OsString)]) -> Result<PathBuf> {
    let mut build = cargo(root, ["build", "--release", "--package", "terrabench", "--bin", "terrabench"]);
    if let Some(feature) = feature {
        build.args(["--features", feature]).envs(environment.iter().cloned());
        build.env_remove(libtorch::USE_PYTORCH);
    }
    let here = std::env::current_exe()?;
    let harness = here.with_file_name("terrabench").with_extension(std::env::consts::EXE_EXTENSION);
    // Show a build that compiles dependencies; an up-to-date one prints nothing.
    if is_newer(&harness, &root.join("Cargo.lock")) {
        build.arg("--quiet");
    } else {
        console::note(format_args!(
            "Compiling the harness and its dependencies for the first time: {FIRST_BUILD} on two cores."
        ));
    }
    run(&mut build)?;
    ensure!(harness.exists(), "{}: cargo did not build this file", harness.display());
    Ok(harness)
}

/// Duration of the first build, measured as described in benches/NOTES.md.
const FIRST_BUILD: &str = "8 to 14 minutes";

/// Whether `file` exists and was written after `other`.
fn is_newer(file: &Path, other: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    modified(file).is_some_and(|time| modified(other).is_none_or(|other| time > other))
}

fn cargo<const N: usize>(root: &Path, args: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(args);
    // `cargo run` describes xtask in these variables. Build scripts that watch them (ring's) would see a
    // changed environment when cargo is run directly, and compile again.
    for (name, _) in std::env::vars_os() {
        let is_of_package =
            |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix));
        if name.to_str().is_some_and(is_of_package) {
            command.env_remove(name);
        }
    }
    command
}

fn run(command: &mut Command) -> Result<()> {
    console::note(format_args!("$ {}", shown(command)));
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
