//! Finds the LibTorch on this machine that the feature `libtorch` is built with.
//!
//! This file is also compiled into `xtask`, which calls it before it builds, so it may only use anyhow and std.
//!
//! LibTorch is taken from the first of
//!
//! 1. the folder in `LIBTORCH`,
//! 2. `target/libtorch`, where an earlier `cargo xtask libtorch` put it,
//! 3. the Python on the `PATH`, if it has torch (with `LIBTORCH_USE_PYTORCH`: before 2).
//!
//! No torch code is run to find out: version, CUDA support and ABI are read from its files. The build is always
//! pointed to it by `LIBTORCH`, even if it belongs to a Python: `tch`'s own route through Python imports torch,
//! which takes seconds and needs more packages.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};

/// The version that `tch` 0.22 was generated from.
pub const VERSION: &str = "2.9.0";
/// Makes the build ask Python instead of using `LIBTORCH`; must not be set together with a
/// [`LibTorch::environment`].
pub const USE_PYTORCH: &str = "LIBTORCH_USE_PYTORCH";
/// Set by users who accept the risk of another version; `tch` knows it too.
const BYPASS: &str = "LIBTORCH_BYPASS_VERSION_CHECK";

/// A LibTorch on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibTorch {
    /// Folder with `include/` and `lib/`.
    pub folder: PathBuf,
    /// Version, such as `2.9.0`.
    pub version: String,
    /// Build variant: `cu128`, `cpu`, or empty if unknown.
    pub build: String,
    /// Whether it supports CUDA.
    pub cuda: bool,
    /// Whether it was compiled with the C++11 ABI of the standard library.
    cxx11_abi: bool,
    /// What named it.
    said_by: String,
}

impl fmt::Display for LibTorch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LibTorch { folder, version, build, cuda, said_by, .. } = self;
        let build = if build.is_empty() { String::new() } else { format!("+{build}") };
        let devices = if *cuda { "CPU and CUDA" } else { "CPU only" };
        write!(f, "LibTorch {version}{build} ({devices}) in {}, found through {said_by}", folder.display())
    }
}

impl LibTorch {
    /// Reads the version and build of the LibTorch in `folder`; `said_by` tells what named the folder.
    ///
    /// # Errors
    /// If the folder does not contain a LibTorch.
    pub fn read(folder: &Path, said_by: &str) -> Result<Self> {
        let problem = || format!("{} (named by {said_by}) is not a LibTorch", folder.display());
        ensure!(folder.join("include/torch").is_dir(), "{}: include/torch is missing", problem());
        let library = |name: &str| {
            ["lib/lib{}.so", "lib/lib{}.dylib", "lib/{}.lib"]
                .iter()
                .any(|form| folder.join(form.replace("{}", name)).is_file())
        };
        ensure!(library("torch"), "{}: no torch library in lib/", problem());
        let full = version(folder).with_context(|| format!("{}: no file gives its version", problem()))?;
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

    /// Checks that the harness can be built with it; `bypass` accepts any version.
    ///
    /// # Errors
    /// If it has another version.
    pub fn suits(&self, bypass: bool) -> Result<()> {
        ensure!(
            self.version == VERSION || bypass,
            "{self}: the harness needs LibTorch {VERSION}\n  \
             help: unset or correct what names it and run `cargo xtask libtorch`, which provides {VERSION}; \
             or set {BYPASS}=1 to try it anyway"
        );
        Ok(())
    }

    /// Returns the environment for building and running the harness with it, assuming [`USE_PYTORCH`] is unset.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = self.variables();
        let own = self.folder.join("lib");
        let before = std::env::var_os(SEARCH).unwrap_or_default();
        let others = std::env::split_paths(&before).filter(|path| *path != own);
        // A path that contains the separator cannot be added to the variable; the loader must then find it in
        // another way.
        let paths = std::env::join_paths([own.clone()].into_iter().chain(others)).unwrap_or(before.clone());
        variables.push((SEARCH, paths));
        variables
    }

    /// Returns the environment for building.
    fn variables(&self) -> Vec<(&'static str, OsString)> {
        let abi = if self.cxx11_abi { "1" } else { "0" };
        vec![("LIBTORCH", self.folder.clone().into_os_string()), ("LIBTORCH_CXX11_ABI", abi.into())]
    }

    /// Returns the environment as shell commands.
    pub fn exports(&self) -> String {
        let quoted =
            |value: &std::ffi::OsStr| format!("'{}'", value.to_string_lossy().replace('\'', r"'\''"));
        let mut lines = vec![format!("unset {USE_PYTORCH}")];
        lines.extend(self.variables().iter().map(|(name, value)| format!("export {name}={}", quoted(value))));
        let own = quoted(self.folder.join("lib").as_os_str());
        lines.push(format!("export {SEARCH}={own}\"${{{SEARCH}:+:${SEARCH}}}\""));
        lines.join("\n")
    }
}

/// The variable in which the platform's loader looks for libraries.
const SEARCH: &str = if cfg!(target_os = "macos") {
    "DYLD_LIBRARY_PATH"
} else if cfg!(windows) {
    "PATH"
} else {
    "LD_LIBRARY_PATH"
};

/// Reads the version from the files of a LibTorch, such as `2.9.0+cu128`.
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

/// The parts of the environment that determine the choice.
pub struct Surroundings {
    /// Value of `LIBTORCH`.
    pub libtorch: Option<PathBuf>,
    /// Whether [`USE_PYTORCH`] is set.
    pub use_pytorch: bool,
    /// Whether the user accepts another version.
    pub bypass: bool,
    /// The Python to ask and to install with.
    pub python: PathBuf,
    /// The folder `target/libtorch`.
    pub own: PathBuf,
}

impl Surroundings {
    /// Returns the environment of this process, for the checkout `root`.
    pub fn here(root: &Path) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        // In an activated virtual environment `python` is its own; elsewhere it may be missing or be version 2.
        let python = if cfg!(windows) || set("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
        Surroundings {
            libtorch: set("LIBTORCH").map(PathBuf::from),
            use_pytorch: set(USE_PYTORCH).is_some(),
            bypass: set(BYPASS).is_some(),
            python: python.into(),
            own: root.join("target/libtorch"),
        }
    }

    /// Finds the LibTorch to build with; `None` if none is suitable. Reports to `note` what was skipped and
    /// why.
    ///
    /// # Errors
    /// If a LibTorch that was named or provided earlier is invalid or has another version.
    pub fn find(&self, note: &mut dyn FnMut(String)) -> Result<Option<LibTorch>> {
        if self.use_pytorch {
            let Some(found) = self.of_python()? else {
                bail!("{USE_PYTORCH} is set, but {} has no torch\n  help: unset it", self.python.display());
            };
            found.suits(self.bypass)?;
            return Ok(Some(found));
        }
        if let Some(folder) = &self.libtorch {
            let what = format!("unset LIBTORCH, or set it to an unpacked LibTorch {VERSION}");
            let found = helped(LibTorch::read(folder, "LIBTORCH"), &what)?;
            found.suits(self.bypass)?;
            return Ok(Some(found));
        }
        if let Some(found) = self.provisioned()? {
            return Ok(Some(found));
        }
        match self.of_python() {
            Ok(Some(found)) if found.suits(self.bypass).is_ok() => return Ok(Some(found)),
            Ok(Some(found)) => note(format!("skipping {found}: not version {VERSION}")),
            // Nobody asked for it, and some torch packages lack what a build needs.
            Err(problem) => note(format!("skipping the torch of Python: {problem:#}")),
            Ok(None) => {}
        }
        Ok(None)
    }

    /// Returns the LibTorch that an earlier run provided.
    ///
    /// # Errors
    /// If it is invalid.
    pub fn provisioned(&self) -> Result<Option<LibTorch>> {
        let Some(folder) = package(&self.own) else { return Ok(None) };
        let what = format!("rm -r '{}' && cargo xtask libtorch", self.own.display());
        helped(LibTorch::read(&folder, "cargo xtask libtorch"), &what).map(Some)
    }

    /// Finds Python's torch package without importing it.
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
}

/// Adds advice to the error of a result.
///
/// # Errors
/// The error of `result`.
pub fn helped<T>(result: Result<T>, what_to_do: &str) -> Result<T> {
    result.map_err(|error| anyhow!("{error:#}\n  help: {what_to_do}"))
}

/// Returns the torch package in the virtual environment `folder`.
pub fn package(folder: &Path) -> Option<PathBuf> {
    let versions =
        std::fs::read_dir(folder.join("lib")).into_iter().flatten().flatten().map(|entry| entry.path());
    versions
        .map(|version| version.join("site-packages/torch"))
        .chain([folder.join("Lib/site-packages/torch")])
        .find(|package| package.is_dir())
}

#[cfg(all(test, unix))]
#[allow(missing_docs, reason = "tests")]
pub mod tests {
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Creates a folder with those parts of LibTorch that are inspected.
    fn libtorch(folder: &Path, files: &[(&str, &str)]) {
        create_dir_all(folder.join("include/torch")).unwrap();
        create_dir_all(folder.join("lib")).unwrap();
        create_dir_all(folder.join("share/cmake/Torch")).unwrap();
        write(folder.join("lib/libtorch.so"), "").unwrap();
        files.iter().for_each(|(name, text)| write(folder.join(name), text).unwrap());
    }

    /// Returns surroundings in which nothing is set and Python is a script.
    pub fn surroundings(folder: &Path, python: &str) -> Surroundings {
        let path = folder.join("python");
        write(&path, format!("#!/bin/sh\n{python}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let own = folder.join("target/libtorch");
        Surroundings { libtorch: None, use_pytorch: false, bypass: false, python: path, own }
    }

    #[test]
    fn version_and_build_are_read_from_files() {
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
    fn a_wrong_version_is_an_error_before_compiling() {
        let here = tempfile::tempdir().unwrap();
        let folder = here.path().join("torch");
        libtorch(&folder, &[("build-version", "2.11.0+cpu")]);
        let mut around = surroundings(here.path(), "exit 1");
        around.libtorch = Some(folder);
        let error = around.find(&mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("LibTorch 2.11.0+cpu") && error.contains("needs LibTorch 2.9.0"), "{error}");
        around.bypass = true;
        assert_eq!(around.find(&mut |_| ()).unwrap().unwrap().version, "2.11.0");
    }

    #[test]
    fn the_torch_of_python_is_used_if_the_version_matches() {
        let here = tempfile::tempdir().unwrap();
        let folder = here.path().join("site-packages/torch");
        libtorch(&folder, &[("version.py", "__version__ = '2.9.0'\n")]);
        let mut around = surroundings(here.path(), &format!("echo {}/__init__.py", folder.display()));
        assert_eq!(around.find(&mut |_| ()).unwrap().unwrap().folder, folder);

        write(folder.join("version.py"), "__version__ = '2.4.1'\n").unwrap();
        assert_eq!(around.find(&mut |_| ()).unwrap(), None);
        around.use_pytorch = true;
        assert!(around.find(&mut |_| ()).unwrap_err().to_string().contains("2.4.1"));

        let mut without = surroundings(here.path(), "echo");
        assert_eq!(without.find(&mut |_| ()).unwrap(), None);
        without.use_pytorch = true;
        assert!(without.find(&mut |_| ()).unwrap_err().to_string().contains("has no torch"));
        without.use_pytorch = false;
        without.python = here.path().join("no-such-python");
        assert_eq!(without.find(&mut |_| ()).unwrap(), None);
    }
}
