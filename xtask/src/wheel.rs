//! `cargo xtask wheel`: the program and the Python package `terrabench` in one wheel, built by maturin, and a test of it in an
//! empty environment outside the checkout.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{console, run};

/// Arguments of `wheel`.
#[derive(Debug, clap::Args)]
pub struct WheelArgs {
    /// Folder for the wheel [default: target/wheels]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Cargo's profile: `dist` is half as large as `release` and takes longer to build
    #[arg(long, value_name = "NAME", default_value = "dist")]
    profile: String,

    /// Also install the wheel into an empty environment and try the program and the package there
    #[arg(long)]
    test: bool,
}

/// Names a maturin other than the one on PATH.
const MATURIN: &str = "MATURIN";

/// The versions of maturin that this was written for.
const VERSIONS: &str = "maturin>=1.9,<2";

/// What a reader of the documentation types into a notebook. `means` stands for their model.
const CELL: &str = "\
import terrabench

def means(images):
    n, c, h, w = images.shape
    flat = images.cast('B').cast('f')
    size = h * w
    return [[sum(flat[(i * c + k) * size:(i * c + k + 1) * size]) / size for k in range(c)] for i in range(n)]

results = terrabench.evaluate(
    means, tasks=['m-eurosat'], partitions=['default'], demo=True, bands=['B02', 'B03', 'B04', 'B08'], size=8,
    arrays='memoryview', progress=False,
)
assert len(results) == 1, results
assert 0 <= results[0].value <= 100, results[0].value
assert len(terrabench.load()) >= 1
print('m-eurosat', results[0].metric, results[0].value)
";

/// Builds the wheel, and with `--test` tries it.
///
/// # Errors
/// If there is no maturin and none can be installed, or a step fails.
pub fn command(root: &Path, options: &WheelArgs) -> Result<()> {
    let python = python().context(NO_PYTHON)?;
    let maturin = match found(root) {
        Some(maturin) => maturin,
        None => install(root, &python)?,
    };
    let out = options.out.clone().unwrap_or_else(|| root.join("target/wheels"));
    let out = std::path::absolute(out)?;
    let wheel = build(root, &maturin, &options.profile, &out)?;
    if options.test {
        test(&python, &wheel)?;
    }
    console::tell(format_args!("{}\n", wheel.display()));
    Ok(())
}

/// Builds and tries a wheel if Python and maturin are there; says that it was skipped if not.
///
/// # Errors
/// If a step fails.
pub fn test_if_possible(root: &Path) -> Result<()> {
    match (python(), found(root)) {
        (Some(python), Some(maturin)) => {
            let out = root.join("target/wheels");
            // The program is already built in this profile.
            test(&python, &build(root, &maturin, "release", &out)?)
        }
        _ => {
            console::note(
                "skipped: the test of the wheel needs Python 3.10 or newer and maturin; `cargo xtask wheel --test` \
                 installs maturin into target/maturin and runs it",
            );
            Ok(())
        }
    }
}

pub const NO_PYTHON: &str =
    "no Python 3.10 or newer found\nhelp: install one, or name it in TERRABENCH_PYTHON";

/// The Python that the tests use.
pub fn python() -> Option<OsString> {
    let named = std::env::var_os("TERRABENCH_PYTHON").filter(|name| !name.is_empty());
    let candidates = named.into_iter().chain(["python3".into(), "python".into()]);
    candidates.into_iter().find(|name| {
        succeeds(Command::new(name).args(["-c", "import sys, venv; sys.exit(sys.version_info < (3, 10))"]))
    })
}

fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A program in an environment of Python.
pub fn in_environment(folder: &Path, program: &str) -> PathBuf {
    let scripts = if cfg!(windows) { "Scripts" } else { "bin" };
    folder.join(scripts).join(program).with_extension(std::env::consts::EXE_EXTENSION)
}

/// Finds maturin: named in the environment, on PATH, or installed here before.
fn found(root: &Path) -> Option<PathBuf> {
    let named = std::env::var_os(MATURIN).filter(|name| !name.is_empty()).map(PathBuf::from);
    let own = in_environment(&root.join("target/maturin"), "maturin");
    let mut candidates = named.into_iter().chain(["maturin".into(), own]);
    candidates.find(|maturin| succeeds(Command::new(maturin).arg("--version")))
}

/// Installs maturin into `target/maturin`.
fn install(root: &Path, python: &OsString) -> Result<PathBuf> {
    let folder = root.join("target/maturin");
    run(Command::new(python).args(["-m", "venv"]).arg(&folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", VERSIONS];
    run(Command::new(in_environment(&folder, "python")).args(pip))?;
    found(root).with_context(|| format!("{}: expected maturin here after pip installed it", folder.display()))
}

/// Builds the wheel as `pyproject.toml` says and returns its path.
fn build(root: &Path, maturin: &Path, profile: &str, out: &Path) -> Result<PathBuf> {
    if out.is_dir() {
        for old in wheels(out)? {
            std::fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    let mut build = Command::new(maturin);
    build.current_dir(root).args(["build", "--profile", profile, "--locked", "--out"]).arg(out);
    // `cargo xtask` describes itself in these variables, which would make cargo compile dependencies again.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            build.env_remove(name);
        }
    }
    run(&mut build)?;
    let mut wheels = wheels(out)?;
    match (wheels.pop(), wheels.pop()) {
        (Some(wheel), None) => Ok(wheel),
        _ => bail!("{}: expected exactly one wheel after maturin finished", out.display()),
    }
}

/// The wheels of this package in a folder.
fn wheels(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(paths
        .into_iter()
        .filter(|path| name(path).starts_with("terrabench-") && name(path).ends_with(".whl"))
        .collect())
}

/// Installs the wheel into an empty environment outside the checkout, then runs the demo and a notebook's cell in an empty folder.
fn test(python: &OsString, wheel: &Path) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("terrabench-wheel-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let done = test_in(&folder, python, wheel);
    let removed = std::fs::remove_dir_all(&folder);
    done?;
    removed.with_context(|| format!("cannot remove {}", folder.display()))
}

fn test_in(folder: &Path, python: &OsString, wheel: &Path) -> Result<()> {
    let (environment, work) = (folder.join("environment"), folder.join("work"));
    std::fs::create_dir_all(&work)?;
    run(Command::new(python).args(["-m", "venv"]).arg(&environment))?;
    let own = in_environment(&environment, "python");
    // The package needs nothing else, and nothing is fetched.
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"];
    run(Command::new(&own).args(pip).arg(wheel))?;
    let clean = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir(&work).env("TERRABENCH_CACHE", folder.join("cache"));
        ["TERRABENCH", "TERRABENCH_HOME", "PYTHONPATH"].iter().for_each(|name| {
            command.env_remove(name);
        });
        command
    };
    let terrabench = in_environment(&environment, "terrabench");
    run(clean(&terrabench).args(["bench", "geobench", "--demo"]))?;
    let table = work.join("results/geobench-demo/knn.md");
    ensure!(table.is_file(), "{}: expected the demo's table, found no such file", table.display());
    run(clean(&own).args(["-c", CELL]))
}
