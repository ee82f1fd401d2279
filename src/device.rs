//! Devices by name. No other file names a backend.

use burn::tensor::{Device, Tensor};

use crate::{Error, Result};

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

/// Returns the device name without its index: `libtorch:cuda` for `libtorch:cuda:1`. Features are rounded
/// differently between kinds of devices, but not between the GPUs of one machine.
pub fn kind(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((kind, index)) if index.parse::<usize>().is_ok() => kind,
        _ => name,
    }
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
pub fn names(backend: Backend) -> Vec<String> {
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
