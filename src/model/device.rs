//! Devices by name. Nothing else names a backend.

use burn::tensor::Device;

use crate::{Error, Result};

/// The device that `--device` names: `flex` (the CPU, in pure Rust), `libtorch` (the CPU through LibTorch),
/// `libtorch:cuda[:INDEX]` (an NVIDIA GPU through LibTorch) or `vulkan[:INDEX]` (a GPU through Vulkan).
/// Indices count from 0, which is also the default; Vulkan's discrete GPUs come first.
///
/// # Errors
/// Where the name is none of these, this build lacks the backend, or the machine the device.
pub fn by_name(name: &str) -> Result<Device> {
    match name.split(':').collect::<Vec<_>>()[..] {
        ["flex"] => Ok(Device::flex()),
        ["libtorch"] => libtorch(),
        ["libtorch", "cuda"] => libtorch_cuda(name, 0),
        ["libtorch", "cuda", index] => libtorch_cuda(name, number(name, index)?),
        ["vulkan"] => vulkan(name, 0),
        ["vulkan", index] => vulkan(name, number(name, index)?),
        _ => Err(Error::request(format!("no device `{name}`"))
            .help("devices are flex, libtorch, libtorch:cuda:INDEX and vulkan:INDEX")),
    }
}

/// Whether tensors of `device` lie in the program's own memory.
pub fn is_host(device: &Device) -> bool {
    *device == Device::flex()
}

/// Whether `device` is faster with one image a thread than with a batch at once: `flex` spreads matrix
/// products over the threads, but not what is between them.
pub fn prefers_single_images(device: &Device) -> bool {
    *device == Device::flex()
}

fn number(name: &str, index: &str) -> Result<usize> {
    index.parse().map_err(|_| {
        Error::request(format!("`{index}` in device `{name}` is no index"))
            .help("devices count from 0, as in libtorch:cuda:0")
    })
}

#[cfg(feature = "libtorch")]
#[expect(deprecated, reason = "burn's own CUDA backend does not build from the registry alone")]
fn libtorch() -> Result<Device> {
    Ok(Device::libtorch())
}

#[cfg(feature = "libtorch")]
fn libtorch_cuda(name: &str, index: usize) -> Result<Device> {
    // Burn lists LibTorch's GPUs, not its CPU.
    nth(name, Device::enumerate(burn::tensor::DeviceType::LibTorch), index)
}

#[cfg(not(feature = "libtorch"))]
fn libtorch() -> Result<Device> {
    let needs =
        "LibTorch 2.9: set LIBTORCH to its folder, or LIBTORCH_USE_PYTORCH=1 with torch 2.9 installed";
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
        Error::request(format!("no device `{name}`: this machine has {} of the kind", devices.len()))
            .help("`--device flex` runs on the CPU")
    })
}

#[cfg(not(all(feature = "libtorch", feature = "vulkan")))]
fn not_built(feature: &str, needs: &str) -> Error {
    Error::request(format!("this terrabench was built without the cargo feature `{feature}`"))
        .help(format!("cargo build --release --features {feature}; it needs {needs}"))
}
