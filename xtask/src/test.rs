//! `cargo xtask test`: everything a change must pass, and `--only` for the edit-test loop.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{build, cargo, console, deny, environment, libtorch, lints, run, shown, wheel};

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

/// Compiles our own crate without optimisation and incrementally, and its dependencies as usual.
const UNOPTIMISED: [&str; 4] = [
    "--config",
    "profile.release.package.terrabench.opt-level=0",
    "--config",
    "profile.release.incremental=true",
];

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
        tests.args(UNOPTIMISED);
        // The name of a file in tests/ needs no unit tests, for which the library would be compiled once more.
        let file = name.split("::").next().unwrap_or(name);
        if !root.join("tests").join(file).with_extension("rs").exists() {
            tests.arg("--lib");
        }
        return run(tests.args(["--", name]));
    }
    run(&mut cargo(root, ["fmt", "--all", "--check"]))?;
    deny::check(root)?;
    // Tests come before lints: they share the harness's build, so a failure shows early.
    let mut times = integration_tests(&workspace)?;
    let driver = lints::Driver::new(root)?;
    let mut lint = workspace.cargo(["build", "--release", "--workspace", "--all-targets", "--quiet"]);
    run(driver.compile(lint.args(UNOPTIMISED)))?;
    times.extend(unit_tests(&workspace, &driver)?);
    tell_slowest(times);
    run(&mut workspace.cargo(["test", "--release", "--workspace", "--quiet", "--doc"]))?;
    let harness = build(root, None, &[])?;
    demo(root, &harness)?;
    python(root, &harness)?;
    wheel::test_if_possible(root)
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

/// How long each test took, by its path.
type Times = BTreeMap<String, Duration>;

/// Lists the slowest tests.
fn tell_slowest(times: Times) {
    let mut slowest: Vec<_> = times.into_iter().collect();
    slowest.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    console::tell(format_args!("The {SLOWEST} slowest tests:\n"));
    for (test, time) in slowest.iter().take(SLOWEST) {
        console::tell(format_args!("{:>8.1} s  {test}\n", time.as_secs_f64()));
    }
}

/// Builds the tests of `tests/` without further features and returns their binary.
///
/// # Errors
/// If they do not compile.
pub fn build_tests(root: &Path) -> Result<PathBuf> {
    integration_binary(&Workspace::new(root, &[])?)
}

/// Builds the tests of `tests/` for the optimised program. The code of the tests is compiled without optimisation, which takes a
/// third of the time; a profile cannot say this for one target, but `cargo rustc` can.
fn integration_binary(workspace: &Workspace) -> Result<PathBuf> {
    let mut build = workspace.cargo(["rustc", "--release", "--package", "terrabench", "--test", "all"]);
    build.args(["--message-format", "json-render-diagnostics", "--", "-C", "opt-level=0"]);
    console::note(format_args!("$ {}", shown(&build)));
    let output =
        build.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{} failed: {}", shown(&build), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    messages.lines().find_map(test_binary).context("cargo named no test binary")
}

/// Runs the tests of `tests/`.
fn integration_tests(workspace: &Workspace) -> Result<Times> {
    let binary = integration_binary(workspace)?;
    let mut times = Times::new();
    let mut tests = Command::new(binary);
    report_times(&mut tests);
    // Tests find the repository in the folder in which cargo would run them.
    run_timed(tests.current_dir(workspace.root).envs(workspace.environment.iter().cloned()), &mut times)?;
    Ok(times)
}

/// The path of the binary of the tests `all` in one of cargo's messages in JSON. A library that reads JSON would be compiled
/// once for this program and, with other features, again for the harness.
fn test_binary(message: &str) -> Option<PathBuf> {
    let (target, executable) = message.split_once(r#""executable":""#)?;
    let is_test = target.contains(r#""kind":["test"]"#) && target.contains(r#""name":"all""#);
    let path = executable.split('"').next()?;
    // On Windows, separators are escaped.
    is_test.then(|| path.replace(r"\\", r"\").into())
}

/// Runs the unit tests, which lints have compiled.
fn unit_tests(workspace: &Workspace, driver: &lints::Driver) -> Result<Times> {
    let mut times = Times::new();
    let mut units = workspace.cargo(["test", "--release", "--workspace", "--lib", "--bin", "xtask"]);
    // libtest reports times only as an unstable option, so each binary runs through `timed`, which allows it.
    let runner =
        format!("target.'cfg(all())'.runner = [{:?}, \"timed\"]", driver.path().display().to_string());
    run_timed(driver.compile(units.args(UNOPTIMISED)).args(["--config", &runner]), &mut times)?;
    Ok(times)
}

/// Runs test binaries and adds each test's time to `times`.
fn run_timed(command: &mut Command, times: &mut Times) -> Result<()> {
    console::note(format_args!("$ {}", shown(command)));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
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
    report_times(command.args(arguments));
    let status = command.status().with_context(|| format!("cannot start {}", shown(&command)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lets a test binary print the time of each test, which is an unstable option.
fn report_times(tests: &mut Command) {
    tests.args(["-Z", "unstable-options", "--report-time"]).env("RUSTC_BOOTSTRAP", "1");
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

    #[test]
    fn the_test_binary_is_found_in_cargos_messages() {
        let of = |kind: &str, name: &str| {
            let target = format!(r#""target":{{"kind":["{kind}"],"name":"{name}"}}"#);
            format!(r#"{{"reason":"compiler-artifact",{target},"executable":"/t/{name}-1"}}"#)
        };
        assert_eq!(test_binary(&of("test", "all")), Some(PathBuf::from("/t/all-1")));
        assert_eq!(test_binary(&of("bin", "all")), None);
        assert_eq!(test_binary(&of("test", "other")), None);
        assert_eq!(test_binary(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
