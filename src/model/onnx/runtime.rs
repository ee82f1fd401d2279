//! ONNX Runtime as an engine, through the crate `ort`. The library is loaded when the first model needs it; one library
//! serves the whole process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use half::{bf16, f16};
use ort::environment::Environment;
use ort::ep;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType};

use super::arrays::{HostArray, Numbers};
use super::engine::{Engine, Provider, caught, refused};
use crate::formats::onnx::OnnxFile;
use crate::onnxruntime::{OnnxRuntime, Surroundings};
use crate::{Error, Result};

/// The oldest version whose interface suits the crate `ort` as it is built here: 1.17.
const OLDEST: u32 = ort::MINOR_VERSION;

/// A loaded library.
struct Library {
    found: OnnxRuntime,
    environment: Environment,
    version: String,
}

/// Finds the library once: the search may ask Python.
fn find() -> Result<Option<&'static OnnxRuntime>> {
    static FOUND: OnceLock<Result<Option<OnnxRuntime>>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        Surroundings::here().find().map_err(|error| {
            let text = error.to_string();
            let (problem, help) = text.split_once("\n  help: ").unwrap_or((&text, ""));
            Error::device(problem).help(help)
        })
    });
    found.as_ref().map(Option::as_ref).map_err(Error::clone)
}

/// Whether there is an ONNX Runtime on this machine.
///
/// # Errors
/// If the environment names one that does not exist.
#[cfg_attr(not(feature = "tract"), allow(dead_code, reason = "without tract there is no choice"))]
pub fn is_found() -> Result<bool> {
    find().map(|found| found.is_some())
}

/// Returns the version of the library, such as `1.32.0`.
///
/// # Errors
/// If there is none, or it cannot be loaded.
pub fn version() -> Result<&'static str> {
    library().map(|library| library.version.as_str())
}

/// Loads the library when it is called first.
fn library() -> Result<&'static Library> {
    static LIBRARY: OnceLock<Result<Library>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref().map_err(Error::clone)
}

fn load() -> Result<Library> {
    let Some(found) = find()?.cloned() else {
        return Err(Error::device("models of kind `onnx` need ONNX Runtime, and none was found").help(
            "run `cargo xtask onnxruntime` or `pip install onnxruntime`, or set ORT_DYLIB_PATH to the library's file",
        ));
    };
    let version = version_of(&found.library)?;
    let begin = || -> Result<Environment, String> {
        let environment = ort::init_from(&found.library).map_err(|error| error.to_string())?;
        let environment = environment.with_name("terrabench").with_telemetry(false);
        // Without a logger of ours, the library writes to standard error.
        let environment =
            environment.with_logger(Arc::new(|level, _: &str, _: &str, at: &str, text: &str| {
                tracing::debug!("onnxruntime, {level:?}: {text} ({at})");
            }));
        environment.build().map_err(|error| error.to_string())
    };
    let environment = caught(begin).and_then(|environment| environment).map_err(|problem| {
        Error::device(format!("{found} cannot be started: {problem}"))
            .help("install another version: `cargo xtask onnxruntime` provides one in target/onnxruntime")
    })?;
    environment.set_log_level(LogLevel::Warning);
    Ok(Library { found, environment, version })
}

/// Returns the version that a library states, which must be recent enough.
fn version_of(path: &Path) -> Result<String> {
    let refuse = |problem: String| {
        Error::device(format!("{}: expected an ONNX Runtime library, {problem}", path.display())).help(
            "set ORT_DYLIB_PATH to the file of another one, or run `cargo xtask onnxruntime`, which installs one",
        )
    };
    // SAFETY: the file was named by the user or found in the package onnxruntime. Loading a library runs its initialisers,
    // and the function has had this signature since the first version of ONNX Runtime.
    let version = unsafe {
        let library = libloading::Library::new(path)
            .map_err(|error| refuse(format!("but it cannot be loaded: {error}")))?;
        let base: libloading::Symbol<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase> = library
            .get(b"OrtGetApiBase")
            .map_err(|_| refuse("found a library without the function OrtGetApiBase".to_owned()))?;
        let base = base().as_ref().ok_or_else(|| refuse("found one without an interface".to_owned()))?;
        let version = std::ffi::CStr::from_ptr((base.GetVersionString)());
        version.to_string_lossy().into_owned()
    };
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= OLDEST => Ok(version),
        _ => Err(refuse(format!("version 1.{OLDEST} or newer, but found version {version}"))),
    }
}

/// An ONNX file opened with ONNX Runtime.
pub struct Runtime {
    /// Sessions are not safe to use from several threads at once; one uses all threads by itself.
    session: Mutex<Session>,
    path: PathBuf,
}

/// What an engine is called in messages.
fn called(version: &str) -> String {
    format!("ONNX Runtime {version}")
}

impl Runtime {
    /// Opens the ONNX file at `path`, whose header is `header`.
    ///
    /// # Errors
    /// If there is no library, it lacks the GPU's support, or it refuses the file.
    pub fn open(path: &Path, header: &OnnxFile, provider: Provider) -> Result<Self> {
        let library = library()?;
        let open = || -> Result<Session> {
            let said = |error: String| {
                refused(path, &called(&library.version), header, &lacking(&error), &plain(&error))
            };
            let mut builder = builder(library).map_err(|error| said(error.to_string()))?;
            if let Provider::Cuda(index) = provider {
                builder = on_gpu(builder, library, index)?;
            }
            builder.commit_from_file(path).map_err(|error| said(error.to_string()))
        };
        let session = caught(open)
            .unwrap_or_else(|panic| Err(refused(path, &called(&library.version), header, &[], &panic)))?;
        Ok(Runtime { session: Mutex::new(session), path: path.to_owned() })
    }
}

/// Prepares a session on the CPU.
fn builder(library: &Library) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(&library.environment)?;
    let builder = builder.with_intra_threads(rayon::current_num_threads())?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All)?;
    Ok(builder.with_deterministic_compute(true)?)
}

/// Adds the GPU with this index.
fn on_gpu(builder: SessionBuilder, library: &Library, index: u32) -> Result<SessionBuilder> {
    let found = &library.found;
    if !found.has_cuda() {
        return Err(Error::device(format!("{found}: it cannot use a GPU")).help(
            "run `cargo xtask onnxruntime --cuda` or `pip install onnxruntime-gpu[cuda,cudnn]`, or use --device flex",
        ));
    }
    // Libraries that are loaded already need not be on the loader's path. Those that fail are searched there.
    for path in found.cuda_libraries() {
        if let Err(error) = ort::util::preload_dylib(&path) {
            tracing::debug!("{}: {error}", path.display());
        }
    }
    let index = i32::try_from(index).unwrap_or(i32::MAX);
    // Full float32, and the same convolution on every run: the library's own choice is faster, but neither.
    let gpu = ep::CUDA::default()
        .with_device_id(index)
        .with_tf32(false)
        .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Default);
    let gpu = gpu.build().error_on_failure();
    builder.with_execution_providers([gpu]).map_err(|error| {
        Error::device(format!("ONNX Runtime {} cannot use the GPU {index}: {}", library.version, plain(&error.to_string())))
            .help("check `nvidia-smi`, and that CUDA and cuDNN of the versions that this onnxruntime-gpu needs are installed; or use --device flex")
    })
}

impl Engine for Runtime {
    fn run(&self, inputs: Vec<(&str, HostArray)>, outputs: &[&str]) -> Result<Vec<HostArray>> {
        let failed = |error: String| {
            Error::unsupported(
                &self.path,
                format!("ONNX Runtime cannot compute this model: {}", plain(&error)),
            )
            .help("check that the TOML describes the file's inputs; docs/onnx.md explains each key")
        };
        let work = || -> ort::Result<Vec<HostArray>> {
            let inputs = inputs
                .into_iter()
                .map(|(name, array)| Ok((name, tensor(array)?)))
                .collect::<ort::Result<Vec<(&str, SessionInputValue)>>>()?;
            let wanted = outputs.iter().fold(OutputSelector::no_default(), |wanted, name| wanted.with(*name));
            let options = RunOptions::new()?.with_outputs(wanted);
            let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            let found = session.run_with_options(inputs, &options)?;
            let output = |name: &&str| match found.get(name) {
                Some(value) => array(name, value),
                None => Err(ort::Error::new(format!("it gave no output `{name}`"))),
            };
            outputs.iter().map(output).collect()
        };
        caught(work).and_then(|found| found.map_err(|error| error.to_string())).map_err(failed)
    }
}

/// Hands an array over to the library without copying it.
fn tensor(HostArray { shape, numbers }: HostArray) -> ort::Result<SessionInputValue<'static>> {
    Ok(match numbers {
        Numbers::F32(values) => Tensor::from_array((shape, values))?.into(),
        Numbers::F16(values) => Tensor::from_array((shape, values))?.into(),
        Numbers::Bf16(values) => Tensor::from_array((shape, values))?.into(),
        Numbers::F64(values) => Tensor::from_array((shape, values))?.into(),
        Numbers::I32(values) => Tensor::from_array((shape, values))?.into(),
        Numbers::I64(values) => Tensor::from_array((shape, values))?.into(),
    })
}

/// Copies an output.
fn array(name: &str, value: &DynValue) -> ort::Result<HostArray> {
    fn copied<T: ort::value::PrimitiveTensorElementType + Copy>(
        value: &DynValue,
        numbers: fn(Vec<T>) -> Numbers,
    ) -> ort::Result<HostArray> {
        let (shape, values) = value.try_extract_tensor::<T>()?;
        let shape = shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        Ok(HostArray { shape, numbers: numbers(values.to_vec()) })
    }
    match value.dtype().tensor_type() {
        Some(TensorElementType::Float32) => copied(value, Numbers::F32),
        Some(TensorElementType::Float16) => copied::<f16>(value, Numbers::F16),
        Some(TensorElementType::Bfloat16) => copied::<bf16>(value, Numbers::Bf16),
        Some(TensorElementType::Float64) => copied(value, Numbers::F64),
        other => {
            Err(ort::Error::new(format!("output `{name}` is not made of floating-point numbers: {other:?}")))
        }
    }
}

/// Returns the names of operators that the library says it lacks.
///
/// Its three ways to say so: `com.example:Wavelet(-1) is not a registered function/op`, `No Op registered for Wavelet with
/// domain_version of 17`, `Could not find an implementation for Wavelet(17) node with name 'first'`.
fn lacking(said: &str) -> Vec<String> {
    let word_after = |start: &str| said.split(start).nth(1)?.split_whitespace().next();
    let word_before = |end: &str| said.split_once(end)?.0.split_whitespace().last();
    let name = word_after("No Op registered for ")
        .or_else(|| word_after("Could not find an implementation for "))
        .or_else(|| word_before(" is not a registered function/op"));
    let without_version = |word: &str| word.split('(').next().unwrap_or(word).replace(':', ".");
    name.map(without_version).into_iter().collect()
}

/// Shortens what the library says to one line without its source files.
fn plain(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lacking_operators_are_named() {
        let said = [
            (
                "Load model from unknown.onnx failed:Fatal error: com.example:Wavelet(-1) is not a registered function/op",
                "com.example.Wavelet",
            ),
            (
                "This is an invalid model. In Node, (\"first\", Wavelet, \"\", -1), Error No Op registered for Wavelet with domain_version of 17",
                "Wavelet",
            ),
            ("Could not find an implementation for Wavelet(17) node with name 'first'", "Wavelet"),
        ];
        for (said, operator) in said {
            assert_eq!(lacking(said), [operator]);
        }
        assert!(lacking("Protobuf parsing failed.").is_empty());
    }
}
