//! Devices by name. Nothing else names a backend.

use burn::tensor::Device;

use crate::{Error, Result};

/// The device that `--device` names: `flex` (the CPU, in pure Rust), `libtorch` (the CPU through LibTorch),
/// `libtorch:cuda[:i]` (the i-th NVIDIA GPU) or `vulkan[:i]` (the best GPU, or the i-th discrete one).
///
/// # Errors
/// Where the name is none of these, or this build lacks the backend.
pub fn by_name(name: &str) -> Result<Device> {
    match name.split(':').collect::<Vec<_>>()[..] {
        ["flex"] => Ok(Device::flex()),
        ["libtorch"] => libtorch(None),
        ["libtorch", "cuda"] => libtorch(Some(0)),
        ["libtorch", "cuda", index] => libtorch(Some(number(name, index)?)),
        ["vulkan"] => vulkan(None),
        ["vulkan", index] => vulkan(Some(number(name, index)?)),
        _ => Err(Error::request(format!("no device `{name}`"))
            .help("devices are flex, libtorch, libtorch:cuda:INDEX, vulkan and vulkan:INDEX")),
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
#[expect(deprecated, reason = "Burn's own CUDA backend does not build from the registry alone")]
fn libtorch(cuda: Option<usize>) -> Result<Device> {
    Ok(match cuda {
        Some(index) => Device::libtorch_cuda(index),
        None => Device::libtorch(),
    })
}

#[cfg(not(feature = "libtorch"))]
fn libtorch(_: Option<usize>) -> Result<Device> {
    Err(not_built(
        "libtorch",
        "needs LibTorch 2.9: set LIBTORCH, or LIBTORCH_USE_PYTORCH=1 beside a torch 2.9",
    ))
}

#[cfg(feature = "vulkan")]
fn vulkan(discrete: Option<usize>) -> Result<Device> {
    use burn::tensor::DeviceKind;
    Ok(Device::vulkan(discrete.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu)))
}

#[cfg(not(feature = "vulkan"))]
fn vulkan(_: Option<usize>) -> Result<Device> {
    Err(not_built("vulkan", "needs a Vulkan driver"))
}

#[cfg(not(all(feature = "libtorch", feature = "vulkan")))]
fn not_built(feature: &str, needs: &str) -> Error {
    Error::request(format!("this terrabench was built without the cargo feature `{feature}`"))
        .help(format!("cargo build --release --features {feature} ({needs})"))
}
