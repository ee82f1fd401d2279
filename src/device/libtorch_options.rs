//! Options of LibTorch that neither Burn nor the crate `tch` pass on.
//!
//! They are methods of `at::Context` in LibTorch's library, called by the names that the C++ compilers of Linux and macOS give
//! them. A LibTorch without these names is refused by the linker.

use std::ffi::c_void;

// `at::Context&` and `const at::Context&` are passed as pointers, `bool` is Rust's.
unsafe extern "C" {
    /// `at::Context& at::globalContext()`
    #[link_name = "_ZN2at13globalContextEv"]
    fn global_context() -> *mut c_void;
    /// `void at::Context::setDeterministicAlgorithms(bool on, bool warn_only)`
    #[link_name = "_ZN2at7Context26setDeterministicAlgorithmsEbb"]
    fn set_deterministic_algorithms(context: *mut c_void, on: bool, warn_only: bool);
    /// `void at::Context::setDeterministicCuDNN(bool on)`
    #[link_name = "_ZN2at7Context21setDeterministicCuDNNEb"]
    fn set_deterministic_cudnn(context: *mut c_void, on: bool);
    /// `void at::Context::setBenchmarkCuDNN(bool on)`
    #[link_name = "_ZN2at7Context17setBenchmarkCuDNNEb"]
    fn set_benchmark_cudnn(context: *mut c_void, on: bool);
    /// `bool at::Context::deterministicAlgorithms() const`
    #[cfg(test)]
    #[link_name = "_ZNK2at7Context23deterministicAlgorithmsEv"]
    fn deterministic_algorithms(context: *const c_void) -> bool;
}

/// Makes LibTorch choose kernels that give the same bits in each run, as `torch.use_deterministic_algorithms(True,
/// warn_only=True)` does, and cuDNN not choose by trial.
pub fn make_deterministic() {
    // SAFETY: the context is a static of LibTorch and lives as long as the program; the methods store a flag in it.
    unsafe {
        let context = global_context();
        set_deterministic_algorithms(context, true, true);
        set_deterministic_cudnn(context, true);
        set_benchmark_cudnn(context, false);
    }
}

/// Whether LibTorch is asked for kernels that give the same bits in each run.
#[cfg(test)]
fn is_deterministic() -> bool {
    // SAFETY: as above; the method reads a flag.
    unsafe { deterministic_algorithms(global_context()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn libtorch_keeps_the_option() {
        super::make_deterministic();
        assert!(super::is_deterministic());
    }
}
