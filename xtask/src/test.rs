//! `cargo xtask test`: everything a change must pass, and `--only` for the edit-test loop.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{build, cargo, console, environment, libtorch, run, shown};

/// Arguments of `test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Additional cargo features to test with: libhdf5 (needs cmake), libtorch (needs LibTorch), vulkan
    #[arg(long = "feature", value_name = "FEATURE")]
    features: Vec<String>,

    /// Run only the tests whose path contains NAME (`reader`, `report::csv`), without lints and demo. Compiles
    /// our own crate without optimisation, so tests start sooner but training takes longer. `python`: only the tests
    /// of the Python package
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// Arguments of the hidden command `timed`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct TimedArgs {
    /// The test binary and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Compiles our own crate without optimisation, and its dependencies as usual.
const UNOPTIMISED: [&str; 2] = ["--config", "profile.release.package.terrabench.opt-level=0"];

/// How many of the slowest tests are listed.
const SLOWEST: usize = 10;

/// Features and environment, shared by the cargo commands of one run.
struct Workspace<'a> {
    root: &'a Path,
    features: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    libtorch: bool,
}

impl<'a> Workspace<'a> {
    fn new(root: &'a Path, features: &[String]) -> Result<Self> {
        let libtorch = features.iter().any(|feature| feature == "libtorch");
        let environment = environment(root, libtorch.then_some("libtorch"))?;
        let features = match features {
            [] => Vec::new(),
            some => vec!["--features".into(), some.join(",").into()],
        };
        Ok(Self { root, features, environment, libtorch })
    }

    fn cargo<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = cargo(self.root, args);
        command.args(&self.features).envs(self.environment.iter().cloned());
        if self.libtorch {
            command.env_remove(libtorch::USE_PYTORCH);
        }
        command
    }
}

/// Runs all steps of the README's test command, each of which must pass, or only the tests that `--only` names.
///
/// # Errors
/// If a step fails.
pub fn command(root: &Path, options: &TestArgs) -> Result<()> {
    let workspace = Workspace::new(root, &options.features)?;
    if options.only.as_deref() == Some("python") {
        return python(root, &build(root, None, &[])?);
    }
    if let Some(name) = &options.only {
        let mut tests = workspace.cargo(["test", "--release", "--package", "terrabench", "--test", "all"]);
        tests.args(UNOPTIMISED).args(["--config", "profile.release.incremental=true"]);
        // The name of a file in tests/ needs no unit tests, for which the library would be compiled once more.
        let file = name.split("::").next().unwrap_or(name);
        if !root.join("tests").join(file).with_extension("rs").exists() {
            tests.args(["--lib", "--bins"]);
        }
        return run(tests.args(["--", name]));
    }
    run(&mut cargo(root, ["fmt", "--all", "--check"]))?;
    // Tests come before lints: they share the harness's build, so a failure shows early. Lints leave an unoptimised
    // program in the tests' place, so the two cannot run at once.
    run_tests(&workspace)?;
    run(&mut workspace.cargo(["test", "--release", "--workspace", "--quiet", "--doc"]))?;
    lint(&workspace)?;
    let harness = build(root, None, &[])?;
    demo(root, &harness)?;
    python(root, &harness)
}

/// Names a Python for the tests.
const PYTHON: &str = "TERRABENCH_PYTHON";

/// Runs the tests of the Python package, or says that they were skipped because no Python for them was found.
fn python(root: &Path, harness: &Path) -> Result<()> {
    let named = std::env::var_os(PYTHON).filter(|name| !name.is_empty());
    let candidates: Vec<OsString> = named.into_iter().chain(["python3".into(), "python".into()]).collect();
    let fits = |name: &&OsString| {
        let check = "import sys, pytest; sys.exit(sys.version_info < (3, 10))";
        let mut probe = Command::new(name);
        probe.args(["-c", check]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let Some(python) = candidates.iter().find(fits) else {
        console::note(format_args!(
            "skipped: the tests of python/ need Python 3.10 or newer with pytest; {PYTHON} may name one"
        ));
        return Ok(());
    };
    let mut tests = Command::new(python);
    // -rs lists the tests that were skipped, such as those that need torch.
    tests.current_dir(root.join("python")).args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]);
    run(tests.env("TERRABENCH_TEST_PROGRAM", harness).env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// Runs all tests and lists the slowest.
fn run_tests(workspace: &Workspace) -> Result<()> {
    let mut times = BTreeMap::new();
    let mut whole = workspace.cargo(["test", "--release", "--workspace", "--bins", "--test", "all"]);
    run_timed(&mut whole, &mut times)?;
    // The library's own tests would compile all of it once more; they are small enough to run unoptimised.
    let mut units = workspace.cargo(["test", "--release", "--workspace", "--lib"]);
    run_timed(units.args(UNOPTIMISED), &mut times)?;
    let mut slowest: Vec<_> = times.into_iter().collect();
    slowest.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    console::tell(format_args!("The {SLOWEST} slowest tests:\n"));
    for (test, time) in slowest.iter().take(SLOWEST) {
        console::tell(format_args!("{:>8.1} s  {test}\n", time.as_secs_f64()));
    }
    Ok(())
}

/// Runs test binaries and adds each test's time to `times`.
fn run_timed(command: &mut Command, times: &mut BTreeMap<String, Duration>) -> Result<()> {
    // libtest reports times only as an unstable option, so each binary runs through `timed`, which allows it.
    let here = std::env::current_exe()?;
    let runner = format!("target.'cfg(all())'.runner = [{:?}, \"timed\"]", here.display().to_string());
    command.arg("--config").arg(runner);
    console::note(format_args!("$ {}", shown(command)));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo's output is piped")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read the tests' output")?;
        console::tell(format_args!("{line}\n"));
        if let Some((test, time)) = timed_test(&line) {
            times.insert(test.to_owned(), time);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Parses the name and time of a finished test from a line such as `test reader::of_eurosat ... ok <0.012s>`.
fn timed_test(line: &str) -> Option<(&str, Duration)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds = rest.rsplit_once('<')?.1.strip_suffix("s>")?.parse().ok()?;
    Some((name, Duration::try_from_secs_f64(seconds).ok()?))
}

/// Runs a test binary with the option that reports times.
///
/// # Errors
/// If it cannot be started.
pub fn timed(options: &TimedArgs) -> Result<ExitCode> {
    let (program, arguments) = options.command.split_first().context("no test binary given")?;
    let mut command = Command::new(program);
    command.args(arguments).args(["-Z", "unstable-options", "--report-time"]).env("RUSTC_BOOTSTRAP", "1");
    let status = command.status().with_context(|| format!("cannot start {}", shown(&command)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lints the workspace with a build instead of a check, which would compile every dependency a second time.
/// Clippy's driver takes the compiler's place for the workspace's own crates, which are compiled without
/// optimisation because nothing runs them.
fn lint(workspace: &Workspace) -> Result<()> {
    let mut lints = workspace.cargo(["build", "--release", "--workspace", "--all-targets", "--quiet"]);
    lints.args(UNOPTIMISED);
    lints.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
    // The format in which `cargo clippy -- -D warnings` passes arguments to its driver.
    lints.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    run(&mut lints)
}

/// Runs the demo with an empty results folder and compares the results with the reference.
fn demo(root: &Path, harness: &Path) -> Result<()> {
    let out = root.join("target/demo-results");
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    let terrabench = || {
        let mut terrabench = Command::new(harness);
        terrabench.current_dir(root);
        terrabench
    };
    run(terrabench().args(["bench", "geobench", "--demo", "--out"]).arg(&out))?;
    let check = ["check", "--reference", "results/reference/demo", "--records"];
    run(terrabench().args(check).arg(&out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_from_lines_of_finished_tests() {
        let line = "test reader::of_eurosat ... ok <1.012s>";
        assert_eq!(timed_test(line), Some(("reader::of_eurosat", Duration::from_millis(1012))));
        assert_eq!(timed_test("test reader::of_eurosat ... ignored"), None);
        assert_eq!(timed_test("test result: ok. 3 passed; 0 failed; finished in 0.10s"), None);
    }
}
