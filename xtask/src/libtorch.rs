//! The LibTorch that the feature `libtorch` is built with: found, or provisioned into `target/libtorch`.
//!
//! It is taken from the first of
//!
//! 1. the folder that `LIBTORCH` names,
//! 2. `target/libtorch`, where an earlier `cargo xtask libtorch` put it,
//! 3. the Python on the `PATH`, if it has torch (with `LIBTORCH_USE_PYTORCH`: before 2).
//!
//! Nothing of torch is run to find out: version, CUDA and ABI stand in its files. The build is then always
//! told by `LIBTORCH`, also where a Python has it: `tch`'s own way through Python imports torch, which takes
//! seconds and needs more packages.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The version that `tch` 0.22 is generated from.
const VERSION: &str = "2.9.0";
/// Makes the build ask a Python instead of taking what `LIBTORCH` names: beside a [`LibTorch::environment`] it
/// must not be set.
pub const USE_PYTORCH: &str = "LIBTORCH_USE_PYTORCH";
/// Where the user vouches for another version; `tch` knows it too.
const BYPASS: &str = "LIBTORCH_BYPASS_VERSION_CHECK";

/// Arguments of `libtorch`.
#[derive(Debug, Clone, clap::Args)]
pub struct LibtorchArgs {
    /// Do not ask before installing
    #[arg(long, short)]
    pub yes: bool,

    /// Another package index for the installation, e.g. PyTorch's own of CPU builds
    #[arg(long, value_name = "URL")]
    pub index: Option<String>,
}

/// A LibTorch on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibTorch {
    /// Holds `include/` and `lib/`.
    pub folder: PathBuf,
    /// `2.9.0`.
    pub version: String,
    /// Of the build: `cu128`, `cpu`, or nothing where it is not told.
    pub build: String,
    pub cuda: bool,
    /// Whether it is compiled with the C++11 ABI of the standard library.
    cxx11_abi: bool,
    /// Who named it.
    said_by: String,
}

impl fmt::Display for LibTorch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LibTorch { folder, version, build, cuda, said_by, .. } = self;
        let build = if build.is_empty() { String::new() } else { format!("+{build}") };
        let devices = if *cuda { "CPU and CUDA" } else { "CPU only" };
        write!(f, "LibTorch {version}{build} ({devices}) in {}, by {said_by}", folder.display())
    }
}

impl LibTorch {
    /// Reads what lies in `folder`.
    fn read(folder: &Path, said_by: &str) -> Result<Self> {
        let problem = || format!("{} (named by {said_by}) is no LibTorch", folder.display());
        ensure!(folder.join("include/torch").is_dir(), "{}: it has no include/torch", problem());
        let library = |name: &str| {
            ["lib/lib{}.so", "lib/lib{}.dylib", "lib/{}.lib"]
                .iter()
                .any(|form| folder.join(form.replace("{}", name)).is_file())
        };
        ensure!(library("torch"), "{}: it has no torch library in lib/", problem());
        let full =
            version(folder).with_context(|| format!("{}: no file in it tells a version", problem()))?;
        let (version, build) = full.split_once('+').unwrap_or((&full, ""));
        let flags =
            std::fs::read_to_string(folder.join("share/cmake/Torch/TorchConfig.cmake")).unwrap_or_default();
        Ok(LibTorch {
            folder: folder.to_owned(),
            version: version.to_owned(),
            build: build.to_owned(),
            cuda: library("torch_cuda"),
            cxx11_abi: !flags.contains("_GLIBCXX_USE_CXX11_ABI=0"),
            said_by: said_by.to_owned(),
        })
    }

    /// Whether the harness can be built with it.
    fn suits(&self, bypass: bool) -> Result<()> {
        ensure!(
            self.version == VERSION || bypass,
            "{self}: the harness needs LibTorch {VERSION}\n  \
             help: unset or correct what names it and run `cargo xtask libtorch`, which provides {VERSION}; \
             or set {BYPASS}=1 to try it all the same"
        );
        Ok(())
    }

    /// The environment for building and running the harness with it, without [`USE_PYTORCH`].
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = self.variables();
        let own = self.folder.join("lib");
        let before = std::env::var_os(SEARCH).unwrap_or_default();
        let others = std::env::split_paths(&before).filter(|path| *path != own);
        // A path that holds the separator cannot stand in the variable; then the loader must know it.
        let paths = std::env::join_paths([own.clone()].into_iter().chain(others)).unwrap_or(before.clone());
        variables.push((SEARCH, paths));
        variables
    }

    /// The environment for building.
    fn variables(&self) -> Vec<(&'static str, OsString)> {
        let abi = if self.cxx11_abi { "1" } else { "0" };
        vec![("LIBTORCH", self.folder.clone().into_os_string()), ("LIBTORCH_CXX11_ABI", abi.into())]
    }

    /// The same for a shell.
    fn exports(&self) -> String {
        let quoted =
            |value: &std::ffi::OsStr| format!("'{}'", value.to_string_lossy().replace('\'', r"'\''"));
        let mut lines = vec![format!("unset {USE_PYTORCH}")];
        lines.extend(self.variables().iter().map(|(name, value)| format!("export {name}={}", quoted(value))));
        let own = quoted(self.folder.join("lib").as_os_str());
        lines.push(format!("export {SEARCH}={own}\"${{{SEARCH}:+:${SEARCH}}}\""));
        lines.join("\n")
    }
}

/// Where the platform's loader looks for libraries.
const SEARCH: &str = if cfg!(target_os = "macos") {
    "DYLD_LIBRARY_PATH"
} else if cfg!(windows) {
    "PATH"
} else {
    "LD_LIBRARY_PATH"
};

/// The version that the files of a LibTorch tell: `2.9.0+cu128`.
fn version(folder: &Path) -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let quoted = |text: &str, before: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(before))?;
        line.split(['"', '\'']).nth(1).map(str::to_owned)
    };
    read("build-version")
        .map(|text| text.trim().to_owned())
        .or_else(|| quoted(&read("version.py")?, "__version__ ="))
        .or_else(|| quoted(&read("share/cmake/Torch/TorchConfigVersion.cmake")?, "set(PACKAGE_VERSION"))
        .filter(|version| !version.is_empty())
}

/// What of the environment decides.
struct Surroundings {
    libtorch: Option<PathBuf>,
    use_pytorch: bool,
    bypass: bool,
    /// The Python to ask and to install with.
    python: PathBuf,
    /// `target/libtorch`.
    own: PathBuf,
}

impl Surroundings {
    fn here(root: &Path) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        // In an activated environment `python` is its own; elsewhere it may be missing, or version 2.
        let python = if cfg!(windows) || set("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
        Surroundings {
            libtorch: set("LIBTORCH").map(PathBuf::from),
            use_pytorch: set(USE_PYTORCH).is_some(),
            bypass: set(BYPASS).is_some(),
            python: python.into(),
            own: root.join("target/libtorch"),
        }
    }

    /// The LibTorch to build with; none where there is none at all.
    fn find(&self) -> Result<Option<LibTorch>> {
        if self.use_pytorch {
            let Some(found) = self.of_python()? else {
                bail!("{USE_PYTORCH} is set, but {} has no torch\n  help: unset it", self.python.display());
            };
            found.suits(self.bypass)?;
            return Ok(Some(found));
        }
        if let Some(folder) = &self.libtorch {
            let found = LibTorch::read(folder, "LIBTORCH")?;
            found.suits(self.bypass)?;
            return Ok(Some(found));
        }
        if let Some(found) = self.provisioned()? {
            return Ok(Some(found));
        }
        match self.of_python()? {
            Some(found) if found.suits(self.bypass).is_ok() => Ok(Some(found)),
            Some(found) => {
                eprintln!("{found}: not {VERSION}, so it is not taken");
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// What an earlier run provided.
    fn provisioned(&self) -> Result<Option<LibTorch>> {
        let Some(folder) = package(&self.own) else { return Ok(None) };
        LibTorch::read(&folder, "cargo xtask libtorch").map(Some)
    }

    /// The torch package of the Python. It is looked up, not imported.
    fn of_python(&self) -> Result<Option<LibTorch>> {
        let script = "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s else '')";
        let Ok(output) = Command::new(&self.python).args(["-c", script]).output() else { return Ok(None) };
        let origin = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match Path::new(&origin).parent() {
            Some(folder) if output.status.success() && !origin.is_empty() => {
                LibTorch::read(folder, &self.python.display().to_string()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Installs torch from the package index into `target/libtorch`, whole or not at all.
    fn install(&self, index: Option<&str>) -> Result<LibTorch> {
        let partial = self.own.with_extension("partial");
        run(Command::new(&self.python).args(["-m", "venv", "--clear"]).arg(&partial)).context(
            "help: the Python needs its module venv (Debian: python3-venv); or set LIBTORCH to an unpacked LibTorch",
        )?;
        let pip = partial.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
        let mut install = Command::new(pip);
        install.args(["-m", "pip", "install", &format!("torch=={VERSION}")]);
        if let Some(index) = index {
            install.args(["--index-url", index]);
        }
        run(&mut install).context("help: run the same command again once the package index answers")?;
        let folder =
            package(&partial).with_context(|| format!("{}: pip left no torch there", partial.display()))?;
        LibTorch::read(&folder, "pip")?.suits(false)?;
        // Only now has it the name by which it is found.
        if self.own.exists() {
            std::fs::remove_dir_all(&self.own)
                .with_context(|| format!("cannot remove {}", self.own.display()))?;
        }
        std::fs::rename(&partial, &self.own)
            .with_context(|| format!("cannot rename {}", partial.display()))?;
        self.provisioned()?.with_context(|| format!("{} is gone", self.own.display()))
    }
}

/// The torch package in the virtual environment `folder`.
fn package(folder: &Path) -> Option<PathBuf> {
    let versions =
        std::fs::read_dir(folder.join("lib")).into_iter().flatten().flatten().map(|entry| entry.path());
    versions
        .map(|version| version.join("site-packages/torch"))
        .chain([folder.join("Lib/site-packages/torch")])
        .find(|package| package.is_dir())
}

/// The environment for building and running the harness with the feature `libtorch`.
///
/// # Errors
/// Where there is no LibTorch, or one of another version: before anything is compiled.
pub fn environment(root: &Path) -> Result<Vec<(&'static str, OsString)>> {
    let found = Surroundings::here(root).find()?.context(
        "the device libtorch needs LibTorch, and none was found\n  help: cargo xtask libtorch finds or installs it",
    )?;
    eprintln!("{found}");
    Ok(found.environment())
}

/// The command: tells which LibTorch will be used, and installs one where there is none.
///
/// # Errors
/// Where what is there has another version, or the installation is refused or fails.
pub fn command(root: &Path, args: &LibtorchArgs) -> Result<()> {
    let surroundings = Surroundings::here(root);
    let found = match surroundings.find()? {
        Some(found) => found,
        None => {
            let sizes = match (&args.index, cfg!(all(target_os = "linux", target_arch = "x86_64"))) {
                (Some(index), _) => format!("from {index}"),
                (None, true) => {
                    "from PyPI: about 4 GB to download and 8 GB on disk, with CUDA's libraries".to_owned()
                }
                (None, false) => "from PyPI: about 0.2 GB to download and 1 GB on disk".to_owned(),
            };
            println!(
                "No LibTorch {VERSION} here. It would be installed into {}, {sizes}.",
                surroundings.own.display()
            );
            if !args.yes {
                let stdin = std::io::stdin();
                ensure!(
                    stdin.is_terminal(),
                    "nobody can be asked, since there is no terminal\n  help: pass --yes"
                );
                agree(&mut stdin.lock())?;
            }
            surroundings.install(args.index.as_deref())?
        }
    };
    println!("{found}\n\n`cargo xtask` sets this itself; for cargo alone:\n{}", found.exports());
    Ok(())
}

fn agree(terminal: &mut dyn BufRead) -> Result<()> {
    print!("Go on? [y/N] ");
    std::io::stdout().flush().ok();
    let mut answer = String::new();
    terminal.read_line(&mut answer).context("no answer could be read")?;
    ensure!(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"), "nothing was installed");
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {command:?}");
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with what of LibTorch is looked at.
    fn libtorch(folder: &Path, files: &[(&str, &str)]) {
        create_dir_all(folder.join("include/torch")).unwrap();
        create_dir_all(folder.join("lib")).unwrap();
        create_dir_all(folder.join("share/cmake/Torch")).unwrap();
        write(folder.join("lib/libtorch.so"), "").unwrap();
        files.iter().for_each(|(name, text)| write(folder.join(name), text).unwrap());
    }

    /// Nothing is set, and the Python is a script.
    fn surroundings(folder: &Path, python: &str) -> Surroundings {
        let path = folder.join("python");
        write(&path, format!("#!/bin/sh\n{python}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let own = folder.join("target/libtorch");
        Surroundings { libtorch: None, use_pytorch: false, bypass: false, python: path, own }
    }

    #[test]
    fn files_tell_version_and_build() {
        let here = tempfile::tempdir().unwrap();
        let wheel = here.path().join("a wheel's");
        let flags = "set(TORCH_CXX_FLAGS \"-D_GLIBCXX_USE_CXX11_ABI=0\")";
        let told = "__all__ = ['__version__']\n__version__ = '2.9.0+cu128'\ncuda: Optional[str] = '12.8'\n";
        let cmake = "share/cmake/Torch/TorchConfig.cmake";
        libtorch(&wheel, &[("version.py", told), ("lib/libtorch_cuda.so", ""), (cmake, flags)]);
        let found = LibTorch::read(&wheel, "LIBTORCH").unwrap();
        assert_eq!((found.version.as_str(), found.build.as_str(), found.cuda), ("2.9.0", "cu128", true));
        let environment = found.environment();
        assert!(environment.contains(&("LIBTORCH", wheel.clone().into())));
        assert!(environment.contains(&("LIBTORCH_CXX11_ABI", "0".into())));
        let libraries = environment[2].1.to_string_lossy().into_owned();
        assert!(libraries.starts_with(&*wheel.join("lib").to_string_lossy()), "{libraries}");
        let shell = Command::new("sh").args(["-c", &format!("{}\nenv", found.exports())]).output().unwrap();
        let shell = String::from_utf8_lossy(&shell.stdout).into_owned();
        assert!(shell.contains(&format!("LIBTORCH={}\n", wheel.display())), "{shell}");

        let unpacked = here.path().join("unpacked");
        libtorch(&unpacked, &[("build-version", "2.9.0+cpu\n")]);
        let found = LibTorch::read(&unpacked, "LIBTORCH").unwrap();
        assert_eq!((found.version.as_str(), found.cuda, found.cxx11_abi), ("2.9.0", false, true));

        let config = here.path().join("config");
        libtorch(
            &config,
            &[("share/cmake/Torch/TorchConfigVersion.cmake", "set(PACKAGE_VERSION \"2.9.0\")\n")],
        );
        assert_eq!(LibTorch::read(&config, "LIBTORCH").unwrap().version, "2.9.0");

        let error = LibTorch::read(here.path(), "LIBTORCH").unwrap_err().to_string();
        assert!(error.contains("named by LIBTORCH") && error.contains("include/torch"), "{error}");
    }

    #[test]
    fn a_wrong_version_is_told_before_anything_compiles() {
        let here = tempfile::tempdir().unwrap();
        let folder = here.path().join("torch");
        libtorch(&folder, &[("build-version", "2.11.0+cpu")]);
        let mut around = surroundings(here.path(), "exit 1");
        around.libtorch = Some(folder);
        let error = around.find().unwrap_err().to_string();
        assert!(error.contains("LibTorch 2.11.0+cpu") && error.contains("needs LibTorch 2.9.0"), "{error}");
        around.bypass = true;
        assert_eq!(around.find().unwrap().unwrap().version, "2.11.0");
    }

    #[test]
    fn a_python_with_the_right_torch_is_taken() {
        let here = tempfile::tempdir().unwrap();
        let folder = here.path().join("site-packages/torch");
        libtorch(&folder, &[("version.py", "__version__ = '2.9.0'\n")]);
        let mut around = surroundings(here.path(), &format!("echo {}/__init__.py", folder.display()));
        assert_eq!(around.find().unwrap().unwrap().folder, folder);

        write(folder.join("version.py"), "__version__ = '2.4.1'\n").unwrap();
        assert_eq!(around.find().unwrap(), None);
        around.use_pytorch = true;
        assert!(around.find().unwrap_err().to_string().contains("2.4.1"));

        let mut without = surroundings(here.path(), "echo");
        assert_eq!(without.find().unwrap(), None);
        without.use_pytorch = true;
        assert!(without.find().unwrap_err().to_string().contains("has no torch"));
        without.use_pytorch = false;
        without.python = here.path().join("no-such-python");
        assert_eq!(without.find().unwrap(), None);
    }

    /// The Python makes an environment whose own Python installs what `pip` says.
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
    fn an_installation_is_whole_or_not_there() {
        let here = tempfile::tempdir().unwrap();
        let broken = surroundings(here.path(), &installing("exit 1"));
        assert!(broken.install(None).is_err());
        assert_eq!(broken.find().unwrap(), None);

        let good = installing("echo \"__version__ = '2.9.0+cu128'\" > \"$torch/version.py\"");
        let around = surroundings(here.path(), &good);
        let installed = around.install(Some("https://index.example/cpu")).unwrap();
        assert_eq!(installed.version, "2.9.0");
        let arguments = std::fs::read_to_string(installed.folder.join("arguments")).unwrap();
        assert_eq!(arguments.trim(), "-m pip install torch==2.9.0 --index-url https://index.example/cpu");
        assert_eq!(around.find().unwrap(), Some(installed));
        assert!(!here.path().join("target/libtorch.partial").exists());
    }

    #[test]
    fn installing_is_agreed_to() {
        agree(&mut "y\n".as_bytes()).unwrap();
        assert!(agree(&mut "\n".as_bytes()).is_err());
    }
}
