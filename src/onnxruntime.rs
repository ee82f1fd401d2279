//! Finds the ONNX Runtime library on this machine, which runs models of `kind = "onnx"`.
//!
//! This file is also compiled into `xtask`, so it may only use anyhow and std.
//!
//! The library is taken from the first of
//!
//! 1. the file in `ORT_DYLIB_PATH`,
//! 2. `target/onnxruntime`, where an earlier `cargo xtask onnxruntime` put it,
//! 3. the Python on the `PATH`, if it has the package onnxruntime or onnxruntime-gpu.
//!
//! No Python code of the package is run to find out. The library is loaded when a model needs it, not when the program is
//! built: a build neither needs nor looks for it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// The version that `cargo xtask onnxruntime` installs and the tests were written with. Any from 1.17 works.
pub const VERSION: &str = "1.32.0";
/// The version that `cargo xtask onnxruntime --cuda` installs.
pub const VERSION_WITH_CUDA: &str = "1.31.1";
/// Names the library's file; the crate `ort` knows it too.
pub const NAMED: &str = "ORT_DYLIB_PATH";

/// An ONNX Runtime on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxRuntime {
    /// The library's file.
    pub library: PathBuf,
    /// What named it.
    pub said_by: String,
}

impl fmt::Display for OnnxRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = if self.has_cuda() { "CPU and CUDA" } else { "CPU only" };
        write!(f, "ONNX Runtime ({devices}) in {}, found through {}", self.library.display(), self.said_by)
    }
}

impl OnnxRuntime {
    /// Whether the library that runs models on NVIDIA GPUs lies beside it.
    pub fn has_cuda(&self) -> bool {
        let names = ["libonnxruntime_providers_cuda.so", "onnxruntime_providers_cuda.dll"];
        names.iter().any(|name| self.library.with_file_name(name).is_file())
    }

    /// Lists the CUDA libraries in Python's packages `nvidia-*` beside the package that contains the library, in the order
    /// in which they depend on each other.
    pub fn cuda_libraries(&self) -> Vec<PathBuf> {
        let Some(packages) = self.library.ancestors().nth(3) else { return Vec::new() };
        let mut found = Vec::new();
        for package in entries(&packages.join("nvidia")) {
            found.extend(entries(&package.join("lib")));
            found.extend(entries(&package.join("bin")));
        }
        let place = |path: &Path| {
            let name = path.file_name()?.to_str()?;
            ORDER.iter().position(|part| name.strip_prefix("lib").unwrap_or(name).starts_with(part))
        };
        let mut placed: Vec<(usize, PathBuf)> =
            found.into_iter().filter_map(|path| Some((place(&path)?, path))).collect();
        placed.sort();
        placed.into_iter().map(|(_, path)| path).collect()
    }
}

/// The starts of the names of the CUDA libraries that ONNX Runtime needs, each after those that it depends on.
const ORDER: [&str; 16] = [
    "cudart",
    "nvJitLink",
    "cublasLt",
    "cublas",
    "nvrtc.",
    "nvrtc64",
    "curand",
    "cufft",
    "cudnn.",
    "cudnn64",
    "cudnn_graph",
    "cudnn_ops",
    "cudnn_heuristic",
    "cudnn_adv",
    "cudnn_cnn",
    "cudnn_engines",
];

/// The parts of the environment that determine the choice.
pub struct Surroundings {
    /// Value of [`NAMED`].
    pub named: Option<PathBuf>,
    /// Folders where `cargo xtask onnxruntime` may have installed it.
    pub own: Vec<PathBuf>,
    /// The Python to ask and to install with.
    pub python: PathBuf,
}

impl Surroundings {
    /// Returns the environment of this process, which runs from a folder of builds such as `target/release`.
    pub fn here() -> Self {
        let program = std::env::current_exe().unwrap_or_default();
        Self::beside(program.ancestors().skip(1).take(3).map(Path::to_owned).collect())
    }

    /// Returns the environment of this process; `folders` may contain a folder `onnxruntime`.
    pub fn beside(folders: Vec<PathBuf>) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let python = if cfg!(windows) || set("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
        Surroundings {
            named: set(NAMED).map(PathBuf::from),
            own: folders.into_iter().map(|folder| folder.join("onnxruntime")).collect(),
            python: python.into(),
        }
    }

    /// Finds the library; `None` if there is none.
    ///
    /// # Errors
    /// If [`NAMED`] names a file that does not exist.
    pub fn find(&self) -> Result<Option<OnnxRuntime>> {
        if let Some(library) = &self.named {
            let library = if library.is_dir() { in_folder(library) } else { Some(library.clone()) };
            return match library.filter(|file| file.is_file()) {
                Some(library) => Ok(Some(OnnxRuntime { library, said_by: NAMED.to_owned() })),
                None => bail!(
                    "{NAMED} names {}, where there is no ONNX Runtime library\n  help: set it to the library's file \
                     ({EXAMPLE}), or unset it",
                    self.named.clone().unwrap_or_default().display()
                ),
            };
        }
        Ok(self.provisioned().or_else(|| self.of_python()))
    }

    /// Returns the library that an earlier `cargo xtask onnxruntime` installed.
    pub fn provisioned(&self) -> Option<OnnxRuntime> {
        let library = self.own.iter().find_map(|folder| in_folder(&package(folder)?.join("capi")))?;
        Some(OnnxRuntime { library, said_by: "cargo xtask onnxruntime".to_owned() })
    }

    /// Finds the library in Python's package without importing it.
    fn of_python(&self) -> Option<OnnxRuntime> {
        let script =
            "import importlib.util as u; s = u.find_spec('onnxruntime'); print(s.origin if s else '')";
        let output = Command::new(&self.python).args(["-c", script]).output().ok()?;
        let origin = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let package = Path::new(&origin).parent().filter(|_| output.status.success())?;
        let library = in_folder(&package.join("capi"))?;
        Some(OnnxRuntime { library, said_by: self.python.display().to_string() })
    }
}

/// A library's file name, for messages.
const EXAMPLE: &str = if cfg!(windows) {
    "onnxruntime.dll"
} else if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so"
};

/// Returns the library in `folder`, whose file name may end in a version.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let is_library = |name: &str| match name.strip_prefix("libonnxruntime.") {
        Some(rest) => rest == "so" || rest.starts_with("so.") || rest.ends_with("dylib"),
        None => name == "onnxruntime.dll",
    };
    let mut found = entries(folder);
    found.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_library));
    found.into_iter().next()
}

/// Returns the package onnxruntime in the virtual environment `folder`.
pub fn package(folder: &Path) -> Option<PathBuf> {
    let versions = entries(&folder.join("lib")).into_iter();
    let packages =
        versions.map(|version| version.join("site-packages")).chain([folder.join("Lib/site-packages")]);
    packages.map(|packages| packages.join("onnxruntime")).find(|package| package.is_dir())
}

/// Lists the paths in a folder, sorted; empty if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(all(test, unix))]
#[allow(missing_docs, reason = "tests")]
pub mod tests {
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Writes a stand-in Python, and returns surroundings that use it.
    pub fn surroundings(root: &Path, script: &str) -> Surroundings {
        let python = root.join("python");
        write(&python, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        Surroundings { named: None, own: vec![root.join("target/onnxruntime")], python }
    }

    fn library(package: &Path) -> PathBuf {
        let library = package.join("capi/libonnxruntime.so.1.32.0");
        create_dir_all(library.parent().unwrap()).unwrap();
        write(&library, "").unwrap();
        library
    }

    #[test]
    fn the_named_library_comes_first_then_the_installed_one_then_pythons() {
        let here = tempfile::tempdir().unwrap();
        let of_python = library(&here.path().join("site/onnxruntime"));
        let mut around = surroundings(
            here.path(),
            &format!("echo {}/site/onnxruntime/__init__.py", here.path().display()),
        );
        assert_eq!(around.find().unwrap().unwrap().library, of_python);

        let own = library(&around.own[0].join("lib/python3.12/site-packages/onnxruntime"));
        assert_eq!(around.find().unwrap().unwrap().library, own);

        let named = here.path().join("libonnxruntime.so");
        around.named = Some(named.clone());
        let error = around.find().unwrap_err().to_string();
        assert!(error.contains("where there is no ONNX Runtime library\n  help: set it to"), "{error}");
        write(&named, "").unwrap();
        assert_eq!(around.find().unwrap().unwrap().library, named);
        // A folder stands for the library in it.
        around.named = Some(of_python.parent().unwrap().to_owned());
        assert_eq!(around.find().unwrap().unwrap().library, of_python);
    }

    #[test]
    fn a_machine_without_one_has_none() {
        let here = tempfile::tempdir().unwrap();
        assert_eq!(surroundings(here.path(), "echo").find().unwrap(), None);
        assert_eq!(surroundings(here.path(), "exit 1").find().unwrap(), None);
        let mut around = surroundings(here.path(), "echo");
        around.python = here.path().join("no-such-python");
        assert_eq!(around.find().unwrap(), None);
    }

    #[test]
    fn cuda_libraries_come_after_those_that_they_need() {
        let here = tempfile::tempdir().unwrap();
        let library = library(&here.path().join("onnxruntime"));
        let found = OnnxRuntime { library, said_by: String::new() };
        assert!(found.cuda_libraries().is_empty() && !found.has_cuda());
        for path in [
            "cudnn/lib/libcudnn.so.9",
            "cublas/lib/libcublas.so.13",
            "cublas/lib/libcublasLt.so.13",
            "x/lib/libx.so",
        ] {
            let path = here.path().join("nvidia").join(path);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, "").unwrap();
        }
        let names: Vec<String> = found
            .cuda_libraries()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9"]);
        write(found.library.with_file_name("libonnxruntime_providers_cuda.so"), "").unwrap();
        assert!(found.has_cuda());
    }
}
