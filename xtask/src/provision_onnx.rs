//! `cargo xtask onnxruntime`: finds ONNX Runtime or installs it into `target/onnxruntime`, where the harness looks for it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::console;
use crate::libtorch::helped;
use crate::onnxruntime::{NAMED, OnnxRuntime, Surroundings, VERSION, VERSION_WITH_CUDA};
use crate::provision::{confirm, run};

/// Arguments of `onnxruntime`.
#[derive(Debug, Clone, clap::Args)]
pub struct OnnxruntimeArgs {
    /// Do not ask before installing
    #[arg(long, short)]
    pub yes: bool,

    /// Install the package that also runs on NVIDIA GPUs, with CUDA's libraries
    #[arg(long)]
    pub cuda: bool,

    /// Package index to install from instead of PyPI
    #[arg(long, value_name = "URL")]
    pub index: Option<String>,
}

/// Runs the command: shows which ONNX Runtime will be used, and installs one if there is none that suits.
///
/// # Errors
/// If the named one does not exist, or the installation is declined or fails.
pub fn command(root: &Path, args: &OnnxruntimeArgs) -> Result<()> {
    let surroundings = Surroundings::beside(vec![root.join("target")]);
    let found = match surroundings.find()? {
        Some(found) if found.has_cuda() || !args.cuda => found,
        other => {
            if let Some(other) = &other {
                console::note(format_args!("skipping {other}: it cannot use a GPU"));
            }
            ensure!(
                surroundings.named.is_none(),
                "{NAMED} names an ONNX Runtime that cannot use a GPU\n  help: unset it"
            );
            let folder = own(&surroundings)?;
            let size = if args.cuda {
                "2 GB to download and 4 GB on disk"
            } else {
                "30 MB to download and 100 MB on disk"
            };
            let from = args.index.as_deref().unwrap_or("PyPI");
            console::tell(format_args!(
                "ONNX Runtime would be installed into {}, from {from}: about {size}.\n",
                folder.display()
            ));
            confirm(args.yes)?;
            install(&surroundings, args)?
        }
    };
    Ok(console::print(format_args!(
        "{found}\n\nThe harness of this checkout finds it by itself; for one elsewhere:\nexport {NAMED}='{}'\n",
        found.library.display().to_string().replace('\'', r"'\''")
    ))?)
}

/// The folder to install into.
fn own(surroundings: &Surroundings) -> Result<&Path> {
    surroundings.own.first().map(std::path::PathBuf::as_path).context("no folder to install into")
}

/// Installs the package from the index into `target/onnxruntime`, completely or not at all.
fn install(surroundings: &Surroundings, args: &OnnxruntimeArgs) -> Result<OnnxRuntime> {
    let folder = own(surroundings)?;
    let partial = folder.with_extension("partial");
    helped(
        run(Command::new(&surroundings.python).args(["-m", "venv", "--clear"]).arg(&partial)),
        "install Python's module venv (Debian: python3-venv), or set ORT_DYLIB_PATH to a library's file",
    )?;
    let python = partial.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install"]);
    if args.cuda {
        pip.arg(format!("onnxruntime-gpu[cuda,cudnn]=={VERSION_WITH_CUDA}"));
    } else {
        // Only the library is needed, none of what the package's Python code imports.
        pip.arg("--no-deps").arg(format!("onnxruntime=={VERSION}"));
    }
    if let Some(index) = &args.index {
        pip.args(["--index-url", index]);
    }
    helped(run(&mut pip), "run the same command again once the package index answers")?;
    let installed =
        Surroundings { named: None, own: vec![partial.clone()], python: surroundings.python.clone() };
    installed
        .provisioned()
        .with_context(|| format!("{}: pip installed no ONNX Runtime library there", partial.display()))?;
    // Only a complete installation gets the name under which it is found.
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    std::fs::rename(&partial, folder).with_context(|| format!("cannot rename {}", partial.display()))?;
    surroundings.provisioned().with_context(|| format!("{} is gone", folder.display()))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::onnxruntime::tests::surroundings;

    /// Returns the script of a stand-in Python that creates an environment whose own Python runs `pip` as given.
    fn installing(pip: &str) -> String {
        format!(
            r#"if [ "$1" != -m ]; then echo; exit 0; fi
mkdir -p "$4/bin" "$4/lib/python3.12/site-packages"
cat > "$4/bin/python" <<'END'
#!/bin/sh
capi="$(dirname "$0")/../lib/python3.12/site-packages/onnxruntime/capi"
mkdir -p "$capi"
echo "$@" > "$capi/arguments"
{pip}
END
chmod +x "$4/bin/python""#
        )
    }

    #[test]
    fn an_installation_is_complete_or_absent() {
        let here = tempfile::tempdir().unwrap();
        let args =
            OnnxruntimeArgs { yes: true, cuda: false, index: Some("https://index.example/cpu".to_owned()) };
        for broken in ["exit 1", "exit 0"] {
            let around = surroundings(here.path(), &installing(broken));
            assert!(install(&around, &args).is_err(), "{broken}");
            assert_eq!(around.find().unwrap(), None, "{broken}");
        }
        let around = surroundings(here.path(), &installing("touch \"$capi/libonnxruntime.so.1.32.0\""));
        let installed = install(&around, &args).unwrap();
        let arguments = std::fs::read_to_string(installed.library.with_file_name("arguments")).unwrap();
        assert_eq!(
            arguments.trim(),
            format!("-m pip install --no-deps onnxruntime=={VERSION} --index-url https://index.example/cpu")
        );
        assert_eq!(around.find().unwrap(), Some(installed));
        assert!(!here.path().join("target/onnxruntime.partial").exists());
        let cuda = install(&around, &OnnxruntimeArgs { yes: true, cuda: true, index: None }).unwrap();
        let arguments = std::fs::read_to_string(cuda.library.with_file_name("arguments")).unwrap();
        assert_eq!(
            arguments.trim(),
            format!("-m pip install onnxruntime-gpu[cuda,cudnn]=={VERSION_WITH_CUDA}")
        );
    }
}
