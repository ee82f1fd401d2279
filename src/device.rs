//! Devices by name. No other file names a backend.

#[cfg(all(feature = "libtorch", not(windows)))]
mod libtorch_options;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{DType, Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The number format in which a frozen model computes. Features are stored in float32 in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// float32 throughout.
    #[default]
    F32,
    /// float32, whose matrix products round their factors to TensorFloat-32 (10 bits); NVIDIA GPUs from Ampere on.
    Tf32,
    /// bfloat16 (8 bits) for weights and everything between input and features; on `flex` for the factors of products with weights.
    Bf16,
}

impl Precision {
    /// Whether this is float32, the default, which records and cache keys do not name.
    pub fn is_f32(&self) -> bool {
        *self == Precision::F32
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        })
    }
}

/// Makes LibTorch's matrix products use TensorFloat-32. LibTorch reads it when it is first used, so it must be set before the
/// program starts.
pub const TF32_VARIABLE: &str = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE";

/// Whether matrix products in float32 may round their factors to TensorFloat-32 in this program.
pub fn multiplies_in_tf32() -> bool {
    std::env::var_os(TF32_VARIABLE).is_some_and(|value| value == "1")
}

/// Lets cuBLAS give the same bits in each run: it keeps memory of a fixed size for each stream. It is read when CUDA starts.
/// Source: cuBLAS's documentation, section "Results reproducibility".
pub const CUBLAS_VARIABLE: &str = "CUBLAS_WORKSPACE_CONFIG";

/// The values of [`CUBLAS_VARIABLE`] with which products are the same in each run; the first one is faster.
pub const CUBLAS_VALUES: [&str; 2] = [":4096:8", ":16:8"];

/// Makes the devices of the list `names` (see [`several`]) compute the same bits in each run, for the whole program, where their
/// backend can. `flex` always does. LibTorch warns of operations for which it has no such kernel, and goes on.
///
/// # Errors
/// If the backend has no such option, this build lacks the backend, or an NVIDIA GPU needs [`CUBLAS_VARIABLE`] in the environment.
pub fn make_deterministic(names: &str) -> Result<()> {
    let kind = kind(names);
    let is_cuda = kind == "libtorch:cuda";
    match kind {
        "flex" => Ok(()),
        "libtorch" | "libtorch:cuda" => {
            let value = std::env::var(CUBLAS_VARIABLE).unwrap_or_default();
            if is_cuda && !CUBLAS_VALUES.contains(&value.as_str()) {
                let needs = format!("{CUBLAS_VARIABLE}={}", CUBLAS_VALUES[0]);
                return Err(Error::device(
                    "--deterministic on an NVIDIA GPU must be set before the program starts",
                )
                .help(format!("run it with {needs} in the environment; `cargo xtask` sets it")));
            }
            libtorch_deterministic()
        }
        _ => {
            Err(Error::device(format!("device `{names}` has no option to compute the same bits in each run"))
                .help("use --device flex or libtorch:cuda:INDEX, or run it without --deterministic"))
        }
    }
}

static ROUNDS_PRODUCTS: AtomicBool = AtomicBool::new(false);

/// Whether products with weights round their factors to bfloat16 on the CPU in this program.
pub(crate) fn rounds_products() -> bool {
    ROUNDS_PRODUCTS.load(Ordering::Relaxed)
}

/// Returns the device called `name` (see [`by_name`]), set to compute in `precision`. For bfloat16 this holds for the whole
/// program, so it comes before anything else is created on the device.
///
/// # Errors
/// Like [`by_name`], or if the device does not support the precision.
pub fn with_precision(name: &str, precision: Precision) -> Result<Device> {
    let mut device = by_name(name)?;
    match precision {
        Precision::F32 => {}
        Precision::Tf32 if kind(name) != "libtorch:cuda" => {
            return Err(Error::device(format!(
                "precision tf32: expected an NVIDIA GPU, found device `{name}`"
            ))
            .help("use --device libtorch:cuda:0, or --precision f32"));
        }
        Precision::Tf32 if !multiplies_in_tf32() => {
            return Err(Error::device("precision tf32 must be set before the program starts")
                .help(format!("run it with {TF32_VARIABLE}=1 in the environment; `cargo xtask` sets it")));
        }
        Precision::Tf32 => {}
        Precision::Bf16 if is_host(&device) => ROUNDS_PRODUCTS.store(true, Ordering::Relaxed),
        Precision::Bf16 => {
            let problem = |problem: String| {
                Error::device(format!("precision bf16 on device `{name}`: {problem}"))
                    .help("use --precision f32")
            };
            if !device.supports_dtype(DType::BF16) {
                return Err(problem("the device does not support bfloat16".to_owned()));
            }
            device.configure(FloatDType::BF16).map_err(|error| problem(error.to_string()))?;
        }
    }
    Ok(device)
}

/// Returns the device with the name given to `--device`: `flex` (the CPU, in pure Rust), `libtorch` (the CPU
/// through LibTorch), `libtorch:cuda[:INDEX]` (an NVIDIA GPU through LibTorch) or `vulkan[:INDEX]` (a GPU
/// through Vulkan). Indices start at 0, the default; Vulkan's discrete GPUs come first.
///
/// `onnx:cuda[:INDEX]` is the CPU too: models of kind `onnx` compute on the GPU of this index, and what follows is computed here.
///
/// # Errors
/// If the name is none of these, this build lacks the backend, or the machine lacks the device.
pub fn by_name(name: &str) -> Result<Device> {
    match name.split(':').collect::<Vec<_>>()[..] {
        ["flex"] => Ok(Device::flex()),
        ["onnx", "cuda"] => Ok(Device::flex()),
        ["onnx", "cuda", index] => number(name, index).map(|_| Device::flex()),
        ["libtorch"] => libtorch(),
        ["libtorch", "cuda"] => libtorch_cuda(name, 0),
        ["libtorch", "cuda", index] => libtorch_cuda(name, number(name, index)?),
        ["vulkan"] => vulkan(name, 0),
        ["vulkan", index] => vulkan(name, number(name, index)?),
        _ => Err(Error::device(format!("no device `{name}`"))
            .help("available devices: flex, libtorch, libtorch:cuda:INDEX, vulkan:INDEX and, for ONNX models, onnx:cuda:INDEX")),
    }
}

/// Checks that a network of this program can be computed on the device with this name.
///
/// # Errors
/// If the device is for models of kind `onnx` only.
pub fn check_network(name: &str) -> Result<()> {
    if name.split(':').next() != Some("onnx") {
        return Ok(());
    }
    Err(Error::request(format!("device `{name}` computes models of kind `onnx` only"))
        .help("use --device flex or libtorch:cuda:INDEX for this model"))
}

/// Returns the device name without its index: `libtorch:cuda` for `libtorch:cuda:1`, `libtorch:cuda:all` and for lists of such
/// devices. Features are rounded differently between kinds of devices, but not between the GPUs of one machine.
pub fn kind(name: &str) -> &str {
    let first = name.split(',').next().unwrap_or(name);
    match first.rsplit_once(':') {
        Some((kind, index)) if index == ALL || index.parse::<usize>().is_ok() => kind,
        _ => first,
    }
}

/// In place of an index: every device of the kind.
const ALL: &str = "all";

/// Returns the devices of a list such as `libtorch:cuda:0,libtorch:cuda:1`, or of `libtorch:cuda:all`, at least one, each set to
/// compute in `precision`. They must be of one kind, so that all of them give the same features.
///
/// # Errors
/// Like [`with_precision`], if the list is empty, or names several kinds.
pub fn several(names: &str, precision: Precision) -> Result<Vec<Device>> {
    let kind_of_all = kind(names);
    let mut listed: Vec<String> = Vec::new();
    for name in names.split(',').map(str::trim) {
        if kind(name) != kind_of_all {
            return Err(Error::device(format!(
                "devices `{names}`: expected devices of one kind, found {kind_of_all} and {}",
                kind(name)
            ))
            .help("name devices of one kind, such as libtorch:cuda:0,libtorch:cuda:1"));
        }
        match name.strip_suffix(ALL).and_then(|start| start.strip_suffix(':')) {
            None => listed.push(name.to_owned()),
            Some(start) => {
                let backend =
                    BACKENDS.into_iter().find(|backend| start.split(':').next() == Some(backend.name));
                let known = backend.map_or(Vec::new(), names_of);
                listed.extend(known.into_iter().filter(|known| kind(known) == start && known != start));
            }
        }
    }
    if listed.is_empty() {
        return Err(Error::device(format!("no device `{names}` found"))
            .help("`cargo xtask doctor` lists the devices of this machine"));
    }
    listed.iter().map(|name| with_precision(name, precision)).collect()
}

/// Whether the name is a device of LibTorch or Vulkan, which replace the default backend.
pub fn is_alternative(name: &str) -> bool {
    ["libtorch", "vulkan"].contains(&name.split(':').next().unwrap_or_default())
}

/// Whether the device with this name is a GPU.
pub fn is_gpu(name: &str) -> bool {
    name.starts_with("libtorch:cuda") || name.starts_with("vulkan")
}

/// A backend and its purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Name for `--device`.
    pub name: &'static str,
    /// Which hardware it uses.
    pub about: &'static str,
    /// Whether this build includes it.
    pub built: bool,
}

/// All backends.
pub const BACKENDS: [Backend; 3] = [
    Backend { name: "flex", about: "the CPU, in pure Rust", built: true },
    Backend {
        name: "libtorch",
        about: "NVIDIA GPUs and the CPU, through LibTorch",
        built: cfg!(feature = "libtorch"),
    },
    Backend { name: "vulkan", about: "GPUs with a Vulkan driver", built: cfg!(feature = "vulkan") },
];

/// Lists the devices of a backend on this machine, by the names that [`by_name`] accepts. Asking a driver may
/// panic.
pub fn names_of(backend: Backend) -> Vec<String> {
    match backend.name {
        "flex" => vec!["flex".to_owned()],
        #[cfg(feature = "libtorch")]
        "libtorch" => {
            let gpus = Device::enumerate(burn::tensor::DeviceType::LibTorch).into_iter();
            let gpus = gpus.enumerate().map(|(index, _)| format!("libtorch:cuda:{index}"));
            ["libtorch".to_owned()].into_iter().chain(gpus).collect()
        }
        #[cfg(feature = "vulkan")]
        "vulkan" => {
            let gpus = Device::enumerate(burn::tensor::DeviceType::Vulkan).into_iter();
            gpus.enumerate().map(|(index, _)| format!("vulkan:{index}")).collect()
        }
        _ => Vec::new(),
    }
}

/// Multiplies two small matrices on the device with this name. A panic of the driver becomes an error.
///
/// # Errors
/// If there is no such device, or it does not compute correctly.
pub fn try_out(name: &str) -> Result<()> {
    const SIDE: usize = 16;
    let compute = || -> Result<Vec<f32>> {
        let ones = Tensor::<2>::ones([SIDE, SIDE], &by_name(name)?);
        let product = ones.clone().matmul(ones).into_data();
        product.try_to_vec().map_err(|problem| Error::device(format!("device `{name}`: {problem:?}")))
    };
    let problem = match quietly(compute) {
        Ok(product) => {
            if product?.iter().all(|sum| *sum == SIDE as f32) {
                return Ok(());
            }
            "it computes wrong results".to_owned()
        }
        Err(problem) => problem,
    };
    Err(Error::device(format!("device `{name}` does not work: {problem}"))
        .help("use --device flex, or repair the driver"))
}

/// Whether a driver's message says that the device's memory is full.
pub fn is_out_of_memory(problem: &str) -> bool {
    problem.to_lowercase().contains("out of memory")
}

/// Runs `work`; on panic returns its message instead of printing it.
pub fn quietly<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    done.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
    })
}

/// Returns the device whose tensors are stored in the program's own memory.
pub fn host() -> Device {
    Device::flex()
}

/// Whether tensors of `device` are stored in the program's own memory.
pub fn is_host(device: &Device) -> bool {
    *device == Device::flex()
}

/// Whether `device` is faster with one image per thread than with one batch: `flex` parallelizes matrix
/// products, but not the operations between them.
pub fn prefers_single_images(device: &Device) -> bool {
    *device == Device::flex()
}

fn number(name: &str, index: &str) -> Result<usize> {
    index.parse().map_err(|_| {
        Error::device(format!("`{index}` in device `{name}` is not an index"))
            .help("indices start at 0, such as in libtorch:cuda:0")
    })
}

#[cfg(feature = "libtorch")]
#[expect(deprecated, reason = "burn's own CUDA backend does not build from the registry alone")]
fn libtorch() -> Result<Device> {
    Ok(Device::libtorch())
}

#[cfg(feature = "libtorch")]
fn libtorch_cuda(name: &str, index: usize) -> Result<Device> {
    // Burn lists LibTorch's GPUs, but not its CPU.
    nth(name, Device::enumerate(burn::tensor::DeviceType::LibTorch), index)
}

#[cfg(all(feature = "libtorch", not(windows)))]
fn libtorch_deterministic() -> Result<()> {
    libtorch_options::make_deterministic();
    Ok(())
}

#[cfg(all(feature = "libtorch", windows))]
fn libtorch_deterministic() -> Result<()> {
    Err(Error::device("--deterministic: LibTorch's option cannot be reached on Windows")
        .help("use --device flex"))
}

#[cfg(not(feature = "libtorch"))]
fn libtorch_deterministic() -> Result<()> {
    libtorch().map(|_| ())
}

#[cfg(not(feature = "libtorch"))]
fn libtorch() -> Result<Device> {
    let needs = "LibTorch 2.9, which `cargo xtask libtorch` finds or installs";
    Err(not_built("libtorch", needs))
}

#[cfg(not(feature = "libtorch"))]
fn libtorch_cuda(_: &str, _: usize) -> Result<Device> {
    libtorch()
}

#[cfg(feature = "vulkan")]
fn vulkan(name: &str, index: usize) -> Result<Device> {
    nth(name, Device::enumerate(burn::tensor::DeviceType::Vulkan), index)
}

#[cfg(not(feature = "vulkan"))]
fn vulkan(_: &str, _: usize) -> Result<Device> {
    Err(not_built("vulkan", "a Vulkan driver"))
}

#[cfg(any(feature = "libtorch", feature = "vulkan"))]
fn nth(name: &str, devices: impl IntoIterator<Item = Device>, index: usize) -> Result<Device> {
    let devices: Vec<Device> = devices.into_iter().collect();
    devices.get(index).cloned().ok_or_else(|| {
        Error::device(format!("no device `{name}`: found {} devices of this kind", devices.len()))
            .help("use --device flex to run on the CPU")
    })
}

#[cfg(not(all(feature = "libtorch", feature = "vulkan")))]
fn not_built(feature: &str, needs: &str) -> Error {
    Error::device(format!("this terrabench was built without the cargo feature `{feature}`"))
        .help(format!("run `cargo xtask` with --device {feature} to include it (without xtask: cargo build --release --features {feature}); it needs {needs}"))
}
