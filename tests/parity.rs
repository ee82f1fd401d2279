//! `parity`: the same features, different features, and what cannot be compared.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::{demo, fixture, python};

/// Runs `parity` on a few samples of generated data.
fn parity(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env("TERRABENCH_CACHE", demo::cache("geobench", folder.join("cache")));
    command.args(["parity", "--demo", "--limit", "6"]).args(args).output().unwrap()
}

fn all(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn path(name: &str) -> String {
    fixture(name).to_string_lossy().into_owned()
}

#[test]
fn a_model_has_parity_with_its_twin_in_pytorch_and_not_with_another() {
    let Some(python) = python::with("import torch, numpy", "parity with PyTorch") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (model, weights, script) =
        (path("model/tiny.toml"), path("model/tiny.pth"), path("process/terrafm_torch.py"));
    let against = format!("{python} {script} {weights}");
    let args =
        ["--model", &model, "--weights", &weights, "--want", "pooled", "--want", "tokens", "--want", "maps"];
    let same = parity(folder.path(), &[&args[..], &["--against", &against]].concat());
    let said = all(&same);
    assert_eq!(same.status.code(), Some(0), "{said}");
    for word in [
        "pooled (class): 48 numbers of 6 test samples",
        "6 of 6 predictions are equal",
        "tokens:",
        "maps:",
        "verdict: the same features",
    ] {
        assert!(said.contains(word), "{word} in {said}");
    }
    // Features 1 % larger are others; k-NN, which looks at directions, does not notice.
    let against = format!("{against} 1.01");
    let other = parity(folder.path(), &[&args[..4], &["--against", &against]].concat());
    let said = all(&other);
    assert_eq!(other.status.code(), Some(1), "{said}");
    assert!(said.contains("6 of 6 predictions are equal") && said.contains("DIFFERENT"), "{said}");
    let loose =
        parity(folder.path(), &[&args[..4], &["--against", &against, "--tolerance", "0.02"]].concat());
    assert_eq!(loose.status.code(), Some(0), "{}", all(&loose));
}

#[test]
fn a_model_that_takes_every_band_as_stored_names_them() {
    let Some(python) = python::plain("parity of a model that ignores the bands' names") else { return };
    let folder = tempfile::tempdir().unwrap();
    let against = format!("{python} {} plain", path("process/encode.py"));
    let output = parity(folder.path(), &["--model", "image-stats", "--against", &against]);
    // Four statistics per band here, one there: the encoder was told of all bands.
    let said = all(&output);
    assert!(said.contains("features per sample: 52 here, 13 there"), "{said}");
}

#[test]
fn two_processes_can_be_compared_and_failures_are_told_from_differences() {
    let Some(python) = python::plain("parity of two processes") else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = path("process/encode.py");
    let ours = format!("{python} {script} plain");
    let against = |mode: &str| {
        let theirs = format!("{python} {script} {mode}");
        let args =
            ["--encoder", &ours, "--against", &theirs, "--input-size", "32", "--input-bands", "B04,B08"];
        let output = parity(folder.path(), &args);
        (output.status.code(), all(&output))
    };
    let (code, said) = against("twin");
    assert!(code == Some(0) && said.contains("largest difference 0.00e0"), "{said}");
    for (mode, expected) in [
        ("constant-by-image", (1, "DIFFERENT features")),
        ("wrong-width", (2, "features per sample: 2 here, 3 there")),
        ("stored", (2, "the same pixels")),
        ("nan", (2, "features there are not finite")),
        ("exit", (2, "exit status: 3")),
    ] {
        let (code, said) = against(mode);
        assert!(code == Some(expected.0) && said.contains(expected.1), "{mode}: {code:?}: {said}");
    }
}
