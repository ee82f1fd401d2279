//! `cargo xtask`: the one door to Terrabench. Builds the harness with the features a command needs and
//! hands the command over; runs the tests.

#[path = "../../src/cli/args.rs"]
mod args;
#[allow(dead_code, reason = "the harness uses all of it")]
#[path = "../../src/console.rs"]
mod console;
#[path = "../../src/cli/fetch_args.rs"]
mod fetch_args;
#[path = "../../src/libtorch.rs"]
mod libtorch;
mod provision;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
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
    #[command(flatten)]
    Harness(Box<args::Command>),

    /// Check formatting and lints, run all tests, then the demo benchmark and its accuracy check
    Test(TestArgs),

    /// Find or install the LibTorch that the device libtorch needs
    Libtorch(provision::LibtorchArgs),
}

#[derive(Debug, clap::Args)]
struct TestArgs {
    /// Cargo features to test with as well: libhdf5 (needs cmake), libtorch (needs LibTorch), vulkan
    #[arg(long = "feature", value_name = "FEATURE")]
    features: Vec<String>,
}

fn main() -> ExitCode {
    let task = Cli::parse().task;
    // For `check`, 1 says that accuracy fell; a harness that cannot be built is no such finding.
    let failure = match &task {
        Task::Harness(command) if matches!(**command, args::Command::Check(_)) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    };
    work(task).unwrap_or_else(|error| {
        console::note(format_args!("error: {error:#}"));
        failure
    })
}

fn work(task: Task) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match task {
        Task::Harness(command) => {
            let feature = feature_of(&command);
            let environment = environment(root, feature)?;
            let harness = build(root, feature, &environment)?;
            let arguments = std::env::args_os().skip(1);
            let status = Command::new(harness).envs(environment).args(arguments).status()?;
            // A signal leaves no code; shells report such an end as a failure too.
            Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
        }
        Task::Test(options) => test(root, &options).map(|()| ExitCode::SUCCESS),
        Task::Libtorch(options) => provision::command(root, &options).map(|()| ExitCode::SUCCESS),
    }
}

/// The cargo feature that brings the device a command asks for.
fn feature_of(command: &args::Command) -> Option<&str> {
    let device = match command {
        args::Command::Bench(bench) => &bench.model.device,
        args::Command::Features(features) => &features.model.device,
        args::Command::Doctor(doctor) => doctor.device.as_ref()?,
        args::Command::Inspect(_)
        | args::Command::Check(_)
        | args::Command::Compare(_)
        | args::Command::Rescore(_)
        | args::Command::Prepare(_)
        | args::Command::Cache(_)
        | args::Command::Fetch(_)
        | args::Command::Report(_) => return None,
    };
    let backend = device.split(':').next()?;
    ["libtorch", "vulkan"].into_iter().find(|feature| *feature == backend)
}

/// What a feature needs in the environment, for the build and for the run.
fn environment(root: &Path, feature: Option<&str>) -> Result<Vec<(&'static str, OsString)>> {
    if feature == Some("libtorch") { provision::environment(root) } else { Ok(Vec::new()) }
}

/// Builds the harness and says where its binary is: beside this one.
fn build(root: &Path, feature: Option<&str>, environment: &[(&'static str, OsString)]) -> Result<PathBuf> {
    let mut build = cargo(root, ["build", "--release", "--package", "terrabench", "--bin", "terrabench"]);
    if let Some(feature) = feature {
        build.args(["--features", feature]).envs(environment.iter().cloned());
        build.env_remove(libtorch::USE_PYTORCH);
    }
    let here = std::env::current_exe()?;
    let harness = here.with_file_name("terrabench").with_extension(std::env::consts::EXE_EXTENSION);
    // A finished build has nothing to say; the first one compiles for minutes and should be seen.
    if harness.exists() {
        build.arg("--quiet");
    } else {
        console::note("Building the harness; the first time this takes some 10 minutes.");
    }
    run(&mut build)?;
    ensure!(harness.exists(), "{}: cargo built no such file", harness.display());
    Ok(harness)
}

/// The steps of the README's test command, each of which must pass.
fn test(root: &Path, options: &TestArgs) -> Result<()> {
    let features: Vec<OsString> = match options.features.as_slice() {
        [] => Vec::new(),
        some => vec!["--features".into(), some.join(",").into()],
    };
    let libtorch = options.features.iter().any(|feature| feature == "libtorch");
    let environment = environment(root, libtorch.then_some("libtorch"))?;
    let with_features = |command: &mut Command| {
        command.args(&features).envs(environment.iter().cloned());
        if libtorch {
            command.env_remove(libtorch::USE_PYTORCH);
        }
    };
    run(&mut cargo(root, ["fmt", "--all", "--check"]))?;
    // Tests come before lints: they share the harness's build, so a failure shows early.
    let mut tests = cargo(root, ["test", "--release", "--workspace"]);
    with_features(&mut tests);
    run(&mut tests)?;
    let mut lints = cargo(root, ["clippy", "--release", "--workspace", "--all-targets"]);
    with_features(&mut lints);
    run(lints.args(["--", "-D", "warnings"]))?;
    let harness = build(root, None, &[])?;
    let out = root.join("target/demo-results");
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    let terrabench = || {
        let mut terrabench = Command::new(&harness);
        terrabench.current_dir(root);
        terrabench
    };
    run(terrabench().args(["bench", "geobench", "--demo", "--out"]).arg(&out))?;
    let check = ["check", "--reference", "results/reference/demo", "--records"];
    run(terrabench().args(check).arg(&out))
}

fn cargo<const N: usize>(root: &Path, args: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(args);
    command
}

fn run(command: &mut Command) -> Result<()> {
    console::note(format_args!("$ {}", shown(command)));
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
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
