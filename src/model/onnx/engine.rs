//! What an engine does: it opens an ONNX file and computes outputs from inputs.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::arrays::HostArray;
use super::runtime;
#[cfg(feature = "tract")]
use super::tract;
use crate::formats::onnx::OnnxFile;
use crate::{Error, Result};

/// An opened ONNX file, ready to compute.
pub trait Engine: Send + Sync {
    /// Computes `outputs` from all `inputs`, in the order in which they are named.
    ///
    /// # Errors
    /// If the inputs do not suit the file, or the computation fails.
    fn run(&self, inputs: Vec<(&str, HostArray)>, outputs: &[&str]) -> Result<Vec<HostArray>>;

    /// Whether it computes on one thread and prepares itself for each batch size, so that images are best passed one by one
    /// on all threads.
    fn prefers_single_images(&self) -> bool {
        false
    }
}

/// Runs `work`; on panic returns its message. An engine's panic must not end the program.
pub fn caught<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
    })
}

/// An engine by its name in TOML files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// ONNX Runtime, a library that is loaded when it is needed.
    Onnxruntime,
    /// tract, an engine in Rust, in programs built with the cargo feature `tract`.
    Tract,
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineName::Onnxruntime => "onnxruntime",
            EngineName::Tract => "tract",
        })
    }
}

/// Where a model is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU with this index.
    Cuda(u32),
}

impl Provider {
    /// Returns the place for a device named on the command line: `onnx:cuda[:INDEX]` and `libtorch:cuda[:INDEX]` are
    /// GPUs, all others the CPU.
    pub fn of_device(name: &str) -> Self {
        match name.split(':').collect::<Vec<_>>()[..] {
            ["onnx" | "libtorch", "cuda"] => Provider::Cuda(0),
            ["onnx" | "libtorch", "cuda", index] => index.parse().map_or(Provider::Cpu, Provider::Cuda),
            _ => Provider::Cpu,
        }
    }
}

/// Chooses the engine: the requested one, else ONNX Runtime if it is found on this machine, else tract if it is built in.
fn choose(requested: Option<EngineName>) -> Result<EngineName> {
    match requested {
        Some(EngineName::Tract) if cfg!(not(feature = "tract")) => {
            let problem = "this terrabench was built without the engine tract";
            Err(Error::request(problem).help(
                "remove `engine` from the model's TOML, or build with: cargo build --release --features tract",
            ))
        }
        Some(engine) => Ok(engine),
        None if cfg!(feature = "tract") && !runtime::is_found()? => Ok(EngineName::Tract),
        None => Ok(EngineName::Onnxruntime),
    }
}

/// Returns name and version of the engine, for the identity of a model.
///
/// # Errors
/// If no engine is found, or it cannot be loaded.
pub fn identity(requested: Option<EngineName>) -> Result<String> {
    let version = match choose(requested)? {
        EngineName::Onnxruntime => return Ok(format!("onnxruntime-{}", runtime::version()?)),
        #[cfg(feature = "tract")]
        EngineName::Tract => tract::VERSION,
        #[cfg(not(feature = "tract"))]
        EngineName::Tract => "",
    };
    Ok(format!("tract-{version}"))
}

/// Opens the ONNX file at `path`, whose header is `header`.
///
/// # Errors
/// If no engine is found, or it cannot run the file.
pub fn open(
    requested: Option<EngineName>,
    path: &Path,
    header: &OnnxFile,
    provider: Provider,
) -> Result<Box<dyn Engine>> {
    match choose(requested)? {
        EngineName::Onnxruntime => Ok(Box::new(runtime::Runtime::open(path, header, provider)?)),
        #[cfg(feature = "tract")]
        EngineName::Tract => Ok(Box::new(tract::Tract::open(path, header, provider)?)),
        #[cfg(not(feature = "tract"))]
        EngineName::Tract => Err(Error::request("this terrabench was built without the engine tract")),
    }
}

/// Creates the error for a file that an engine does not run. `operators` names what it lacks, if that is known.
pub fn refused(path: &Path, engine: &str, header: &OnnxFile, operators: &[String], said: &str) -> Error {
    let opsets: Vec<String> = header
        .opsets
        .iter()
        .map(|(domain, version)| match domain.as_str() {
            "" => format!("opset {version}"),
            domain => format!("{domain} {version}"),
        })
        .collect();
    let opsets = opsets.join(", ");
    match operators {
        [] => Error::unsupported(path, format!("{engine} cannot run this file ({opsets}): {said}"))
            .help("docs/onnx.md lists what to do: check the file with `onnx.checker.check_model(FILE)` in Python, export it again, or use a newer engine"),
        operators => {
            let (noun, names) = (if operators.len() == 1 { "operator" } else { "operators" }, operators.join(", "));
            Error::unsupported(path, format!("{engine} lacks the {noun} {names} that this file uses ({opsets})"))
                .help("export the model with another opset or without this operator, or use a newer engine; docs/onnx.md shows how")
        }
    }
}
