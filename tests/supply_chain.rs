//! What the program is made of: where dependencies come from, and where `unsafe` may stand.

use std::path::{Path, PathBuf};

/// The only files with `unsafe`, each with its reason.
const UNSAFE: [(&str, &str); 6] = [
    ("src/device/libtorch_options.rs", "sets options of LibTorch that no crate passes on"),
    ("src/model/onnx/runtime.rs", "asks a library that is loaded at run time for its version"),
    ("src/nn/kernels/flex/matrix.rs", "passes strides of slices to gemm, after checking them"),
    ("src/nn/kernels/flex/tiles.rs", "uses vector instructions that the processor was asked for"),
    ("src/nn/kernels/libtorch.rs", "looks at a tensor's memory on the CPU without a copy"),
    ("tests/fuzz.rs", "counts what is allocated, in an allocator of the tests"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether code, not a comment or a text, has the word.
fn has_unsafe(source: &str) -> bool {
    source.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        let code: String = code.split('"').step_by(2).collect();
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    })
}

#[test]
fn unsafe_stands_only_in_the_listed_files() {
    let mut files = Vec::new();
    for folder in ["src", "xtask/src", "revision/src", "tests", "benches", "fuzz"] {
        sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 200, "{} files", files.len());
    let mut found: Vec<String> = files
        .iter()
        .filter(|path| has_unsafe(&std::fs::read_to_string(path).unwrap()))
        .map(|path| path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/"))
        .collect();
    found.sort();
    let listed: Vec<&str> = UNSAFE.iter().map(|(file, _)| *file).collect();
    assert_eq!(found, listed, "list a new file here with its reason, or do without `unsafe`");
}

#[test]
fn the_word_in_comments_and_texts_is_not_code() {
    assert!(has_unsafe("    unsafe { f() }"));
    assert!(has_unsafe("unsafe impl Send for X {}"));
    assert!(!has_unsafe("// unsafe\nlet x = \"unsafe\"; // unsafe { }\nlet unsafe_code = 1;"));
}

#[test]
fn every_dependency_comes_from_the_registry_with_a_checksum() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let own = ["golden-formula", "terrabench", "revision", "xtask"];
    let mut foreign = 0;
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find(|line| line.starts_with(&format!("{name} = ")))?;
            Some(line.split_once('"')?.1.trim_end_matches('"').to_owned())
        };
        let name = field("name").unwrap();
        if own.contains(&name.as_str()) {
            assert_eq!(field("source"), None, "{name}");
            continue;
        }
        let source = field("source").unwrap_or_default();
        assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{name}");
        assert_eq!(field("checksum").unwrap_or_default().len(), 64, "{name}");
        foreign += 1;
    }
    assert!(foreign > 300, "{foreign} packages");
}
