//! Lints of the workspace that reuse its built dependencies, where `cargo clippy` would compile each of them once more.
//!
//! Clippy's driver takes the compiler's place for our own crates in a `cargo build`. Nothing but the unit tests is run from that
//! build, so this program stands between cargo and the driver and asks it for metadata only where that is enough: it saves the
//! machine code of the library, the benches and the integration tests, and the link of a program for each.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::console;

/// A copy of this program that stands between cargo and clippy's driver. A build of the workspace may replace this program itself.
pub struct Driver {
    path: PathBuf,
}

impl Driver {
    /// Copies this program into the target folder, always to the same path: a new path would make cargo compile everything again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(root: &Path) -> Result<Self> {
        let path = root.join("target/lints").join(format!("xtask{}", std::env::consts::EXE_SUFFIX));
        let here = std::env::current_exe()?;
        let copy = || -> std::io::Result<()> {
            std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
            if path.exists() {
                // The bytes of a program that runs cannot be replaced, its name can.
                std::fs::remove_file(&path)?;
            }
            std::fs::copy(&here, &path).map(|_| ())
        };
        copy().with_context(|| format!("cannot copy {} to {}", here.display(), path.display()))?;
        Ok(Self { path })
    }

    /// Where the copy is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets a cargo command compile the workspace's crates through the copy, with warnings as errors.
    pub fn compile<'a>(&self, cargo: &'a mut Command) -> &'a mut Command {
        // The format in which `cargo clippy -- -D warnings` passes arguments to its driver.
        cargo
            .env("RUSTC_WORKSPACE_WRAPPER", &self.path)
            .env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__")
    }
}

/// Compiles one crate if cargo started this program in the compiler's place, with the compiler's path as first argument.
pub fn compile_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let compiler =
        arguments.next().filter(|first| Path::new(first).file_stem().is_some_and(|stem| stem == "rustc"))?;
    let mut driver = Command::new("clippy-driver");
    driver.arg(compiler).args(reduced(arguments.collect()));
    let status =
        driver.status().context("cannot start clippy-driver; `rustup component add clippy` installs it");
    Some(match status {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into(),
        Err(error) => {
            console::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    })
}

/// The compiler's arguments without what nobody runs. Unit tests, build scripts, macros and the small libraries of tests stay as they
/// are, and so do questions about the compiler itself.
fn reduced(arguments: Vec<OsString>) -> Vec<OsString> {
    let text: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let value = |name: &str| text.iter().position(|word| word == name).and_then(|place| text.get(place + 1));
    let Some(name) = value("--crate-name") else { return arguments };
    let is_unit_test = text.iter().any(|word| word == "--test") && name != "all";
    let runs_in_the_compiler =
        name == "build_script_build" || value("--crate-type").is_some_and(|kind| kind == "proc-macro");
    let is_helper = value("--crate-type").is_some_and(|kind| kind == "lib") && name != "terrabench";
    if is_unit_test || runs_in_the_compiler || is_helper {
        return arguments;
    }
    let reduced = text.iter().map(|word| {
        if word.starts_with("--emit=") {
            "--emit=dep-info,metadata".into()
        } else if word.starts_with("terrabench=") {
            word.replace(".rlib", ".rmeta").into()
        } else {
            word.to_string().into()
        }
    });
    reduced.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> String {
        let words = reduced(line.split(' ').map(Into::into).collect());
        words.join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn a_bench_is_only_read() {
        assert_eq!(
            of(
                "--crate-name knn --crate-type bin --emit=dep-info,link --extern terrabench=/t/libterrabench-1.rlib -L x"
            ),
            "--crate-name knn --crate-type bin --emit=dep-info,metadata --extern terrabench=/t/libterrabench-1.rmeta -L x"
        );
    }

    #[test]
    fn integration_tests_are_only_read_and_unit_tests_compiled() {
        assert!(of("--crate-name all --emit=dep-info,link --test").contains("metadata"));
        for whole in [
            "--crate-name terrabench --emit=dep-info,link --test",
            "--crate-name golden_formula --crate-type lib --emit=dep-info,metadata,link",
            "--crate-name revision --crate-type proc-macro --emit=dep-info,link",
            "--crate-name build_script_build --crate-type bin --emit=dep-info,link",
            "-vV",
        ] {
            assert_eq!(of(whole), whole);
        }
    }
}
