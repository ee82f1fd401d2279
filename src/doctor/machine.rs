//! Checks backends with their devices, LibTorch and ONNX Runtime.

use std::path::Path;

use super::{Area, Finding, Standing};
use crate::device::{self, BACKENDS, Backend};
use crate::libtorch::{Surroundings, VERSION};
use crate::model::onnx;
use crate::onnxruntime;

/// Checks every backend's devices, and the one named on the command line.
pub fn devices(typed: Option<&str>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = BACKENDS.into_iter().flat_map(of_backend).collect();
    if let Some(name) = typed.filter(|name| findings.iter().all(|finding| finding.subject != *name)) {
        findings.push(tried(name, "requested"));
    }
    findings
}

fn of_backend(backend: Backend) -> Vec<Finding> {
    let Backend { name, about, built } = backend;
    let finding = |standing, found| Finding::new(Area::Devices, name, standing, found);
    if !built {
        let absent = finding(Standing::Absent, format!("{about}: not in this build"));
        return vec![absent.remedy(format!("cargo xtask doctor --device {name}"))];
    }
    match device::quietly(|| device::names_of(backend)) {
        Ok(names) if names.is_empty() => {
            vec![finding(Standing::Absent, format!("{about}: no device found"))]
        }
        Ok(names) => names.iter().map(|name| tried(name, about)).collect(),
        Err(problem) => {
            let broken = finding(Standing::Broken, format!("{about}: the driver failed: {problem}"));
            vec![broken.remedy("use --device flex, or repair the driver")]
        }
    }
}

fn tried(name: &str, about: &str) -> Finding {
    if name.starts_with("onnx") {
        return onnx_gpu(name);
    }
    match device::try_out(name) {
        Ok(()) => Finding::new(Area::Devices, name, Standing::Good, format!("{about}: works")),
        Err(error) => Finding::of_error(Area::Devices, name, Standing::Broken, &error),
    }
}

/// Checks the LibTorch that a build for `--device libtorch` would use.
pub fn libtorch(root: &Path) -> Finding {
    let finding = |standing, found| Finding::new(Area::Libtorch, "libtorch", standing, found);
    let mut passed_over = Vec::new();
    match Surroundings::here(root).find(&mut |line| passed_over.push(line)) {
        Ok(Some(found)) => finding(Standing::Good, found.to_string()).at(&found.folder),
        Ok(None) => {
            let mut text = format!("no LibTorch {VERSION} found; only --device libtorch needs it");
            passed_over.iter().for_each(|line| text.push_str(&format!("; {line}")));
            finding(Standing::Absent, text).remedy("cargo xtask libtorch")
        }
        Err(error) => {
            let broken =
                Finding::of_error(Area::Libtorch, "libtorch", Standing::Broken, &format!("{error:#}"));
            match broken.remedy {
                Some(_) => broken,
                None => broken.remedy("unset LIBTORCH LIBTORCH_USE_PYTORCH; cargo xtask libtorch"),
            }
        }
    }
}

/// Loads the ONNX Runtime that models of kind `onnx` would use.
pub fn onnxruntime() -> Finding {
    let finding = |standing, found| Finding::new(Area::Onnxruntime, "onnxruntime", standing, found);
    match onnxruntime::Surroundings::here().find() {
        Ok(None) => {
            let text = "no ONNX Runtime found; only models of kind `onnx` need it".to_owned();
            finding(Standing::Absent, text).remedy("cargo xtask onnxruntime")
        }
        Ok(Some(found)) => match onnx::runtime_version() {
            Ok(version) => finding(Standing::Good, format!("version {version}: {found}")).at(&found.library),
            Err(error) => Finding::of_error(Area::Onnxruntime, "onnxruntime", Standing::Broken, &error),
        },
        Err(error) => {
            Finding::of_error(Area::Onnxruntime, "onnxruntime", Standing::Broken, &format!("{error:#}"))
        }
    }
}

/// Checks that the ONNX Runtime supports the device `onnx:cuda`.
fn onnx_gpu(name: &str) -> Finding {
    if let Err(error) = device::by_name(name) {
        return Finding::of_error(Area::Devices, name, Standing::Broken, &error);
    }
    match onnxruntime::Surroundings::here().find() {
        Ok(Some(found)) if found.has_cuda() => Finding::new(
            Area::Devices,
            name,
            Standing::Good,
            format!("{found}: the GPU itself was not tried"),
        ),
        _ => Finding::new(Area::Devices, name, Standing::Absent, "no ONNX Runtime with CUDA found")
            .remedy("cargo xtask onnxruntime --cuda"),
    }
}
