//! `cargo xtask libtorch`: finds LibTorch or installs it into `target/libtorch`, and determines the environment
//! that a build with it needs.

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::console;
use crate::libtorch::{LibTorch, Surroundings, VERSION, helped, package};

/// Arguments of `libtorch`.
#[derive(Debug, Clone, clap::Args)]
pub struct LibtorchArgs {
    /// Do not ask before installing
    #[arg(long, short)]
    pub yes: bool,

    /// Package index to install from instead of PyPI, such as PyTorch's index of CPU builds
    #[arg(long, value_name = "URL")]
    pub index: Option<String>,
}

/// Installs torch from the package index into `target/libtorch`, completely or not at all.
fn install(surroundings: &Surroundings, index: Option<&str>) -> Result<LibTorch> {
    let partial = surroundings.own.with_extension("partial");
    helped(
        run(Command::new(&surroundings.python).args(["-m", "venv", "--clear"]).arg(&partial)),
        "install Python's module venv (Debian: python3-venv), or set LIBTORCH to an unpacked LibTorch",
    )?;
    let pip = partial.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let mut install = Command::new(pip);
    install.args(["-m", "pip", "install", &format!("torch=={VERSION}")]);
    if let Some(index) = index {
        install.args(["--index-url", index]);
    }
    helped(run(&mut install), "run the same command again once the package index answers")?;
    let folder = package(&partial)
        .with_context(|| format!("{}: pip installed no torch package there", partial.display()))?;
    LibTorch::read(&folder, "pip")?.suits(false)?;
    // Only a complete installation gets the name under which it is found.
    if surroundings.own.exists() {
        std::fs::remove_dir_all(&surroundings.own)
            .with_context(|| format!("cannot remove {}", surroundings.own.display()))?;
    }
    std::fs::rename(&partial, &surroundings.own)
        .with_context(|| format!("cannot rename {}", partial.display()))?;
    surroundings.provisioned()?.with_context(|| format!("{} is gone", surroundings.own.display()))
}

/// Returns the environment for building and running the harness with the feature `libtorch`.
///
/// # Errors
/// If there is no LibTorch or it has another version; nothing has been compiled by then.
pub fn environment(root: &Path) -> Result<Vec<(&'static str, OsString)>> {
    let found = Surroundings::here(root).find(&mut tell)?.context(
        "the device libtorch needs LibTorch, and none was found\n  help: run cargo xtask libtorch to find or install it",
    )?;
    console::note(&found);
    Ok(found.environment())
}

/// Runs the command: shows which LibTorch will be used, and installs one if there is none.
///
/// # Errors
/// If the existing one has another version, or the installation is declined or fails.
pub fn command(root: &Path, args: &LibtorchArgs) -> Result<()> {
    let surroundings = Surroundings::here(root);
    let found = match surroundings.find(&mut tell)? {
        Some(found) => found,
        None => {
            let sizes = match (&args.index, cfg!(all(target_os = "linux", target_arch = "x86_64"))) {
                (Some(index), _) => format!("from {index}"),
                (None, true) => {
                    "from PyPI: about 4 GB to download and 8 GB on disk, with CUDA's libraries".to_owned()
                }
                (None, false) => "from PyPI: about 0.2 GB to download and 1 GB on disk".to_owned(),
            };
            console::tell(format_args!(
                "No LibTorch {VERSION} found. It would be installed into {}, {sizes}.\n",
                surroundings.own.display()
            ));
            confirm(args.yes)?;
            install(&surroundings, args.index.as_deref())?
        }
    };
    let exports = found.exports();
    Ok(console::print(format_args!(
        "{found}\n\n`cargo xtask` sets this itself; to use cargo directly:\n{exports}\n"
    ))?)
}

/// Asks in the terminal whether to install, unless `yes` answers that.
///
/// # Errors
/// If the answer is no, or there is nobody to ask.
pub fn confirm(yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    ensure!(stdin.is_terminal(), "cannot ask for confirmation without a terminal\n  help: pass --yes");
    agree(&mut stdin.lock())
}

fn agree(terminal: &mut dyn BufRead) -> Result<()> {
    console::tell("Continue? [y/N] ");
    let mut answer = String::new();
    terminal.read_line(&mut answer).context("cannot read the answer")?;
    ensure!(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"), "nothing was installed");
    Ok(())
}

/// Runs a command, which is shown first.
///
/// # Errors
/// If it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    console::note(format_args!("$ {command:?}"));
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

fn tell(line: String) {
    console::note(line);
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::libtorch::tests::surroundings;

    /// Returns the script of a stand-in Python that creates an environment whose own Python runs `pip` as given.
    fn installing(pip: &str) -> String {
        format!(
            r#"if [ "$1" != -m ]; then echo; exit 0; fi
mkdir -p "$4/bin" "$4/lib/python3.12/site-packages"
cat > "$4/bin/python" <<'END'
#!/bin/sh
torch="$(dirname "$0")/../lib/python3.12/site-packages/torch"
mkdir -p "$torch/include/torch" "$torch/lib"
echo "$@" > "$torch/arguments"
touch "$torch/lib/libtorch.so"
{pip}
END
chmod +x "$4/bin/python""#
        )
    }

    #[test]
    fn an_installation_is_complete_or_absent() {
        let here = tempfile::tempdir().unwrap();
        let broken = surroundings(here.path(), &installing("exit 1"));
        assert!(install(&broken, None).is_err());
        assert_eq!(broken.find(&mut |_| ()).unwrap(), None);

        let good = installing("echo \"__version__ = '2.9.0+cu128'\" > \"$torch/version.py\"");
        let around = surroundings(here.path(), &good);
        let installed = install(&around, Some("https://index.example/cpu")).unwrap();
        assert_eq!(installed.version, "2.9.0");
        let arguments = std::fs::read_to_string(installed.folder.join("arguments")).unwrap();
        assert_eq!(arguments.trim(), "-m pip install torch==2.9.0 --index-url https://index.example/cpu");
        assert_eq!(around.find(&mut |_| ()).unwrap(), Some(installed));
        assert!(!here.path().join("target/libtorch.partial").exists());
    }

    #[test]
    fn installing_needs_confirmation() {
        agree(&mut "y\n".as_bytes()).unwrap();
        assert!(agree(&mut "\n".as_bytes()).is_err());
    }
}
