//! Weight files as found in practice (tests/fixtures/checkpoints, written by PyTorch), and the errors for other
//! files.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype as StoredDtype, TensorView};
use terrabench::formats::checkpoint::{self, Stored};

use crate::common::fixture;

/// Shapes and numbers by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn plain() -> Tensors {
    let weight = (vec![2, 3], vec![-0.5, -0.25, 0.0, 0.25, 0.5, 0.75]);
    let bias = (vec![2], vec![1.0, -2.0]);
    BTreeMap::from([("a.weight".to_owned(), weight), ("a.bias".to_owned(), bias)])
}

fn below(prefix: &str) -> Tensors {
    plain().into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
}

/// Lists the files of a fixtures folder.
fn fixtures(folder: &str) -> Vec<(String, PathBuf)> {
    let folder = fixture("checkpoints").join(folder);
    let mut files: Vec<(String, PathBuf)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    files
}

fn open(path: &Path) -> Vec<Stored> {
    checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// Reads the tensors whose names start with `prefix`.
#[track_caller]
fn read(tensors: &[Stored], prefix: &str) -> Tensors {
    let tensors = tensors.iter().filter(|tensor| tensor.is_tensor() && tensor.name.starts_with(prefix));
    tensors
        .map(|tensor| {
            let numbers = tensor.read().unwrap_or_else(|error| panic!("{error}"));
            (tensor.name.clone(), (tensor.shape.clone(), numbers))
        })
        .collect()
}

/// Returns the error, problem and help, of a file that cannot be opened.
#[track_caller]
fn error(path: &Path) -> String {
    match checkpoint::open(path) {
        Ok(tensors) => panic!("{}: read as {} tensors", path.display(), tensors.len()),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_says(message: &str, path: &Path, words: &[&str]) {
    assert!(message.contains(path.to_str().unwrap()), "no file in: {message}");
    assert!(message.contains("\n  help: "), "no help in: {message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

// ---- Objects beside the weights ----

#[test]
fn objects_beside_the_weights_do_not_matter() {
    let files = fixtures("beside");
    assert!(files.len() >= 40, "{} files", files.len());
    for (name, path) in files {
        let tensors = checkpoint::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read(&tensors, "model."), below("model."), "{name}");
    }
}

/// Tensors beside the weights are listed too, with their types.
#[test]
fn tensors_beside_the_weights_are_listed_with_their_types() {
    let types = |file: &str| -> Vec<String> {
        let tensors = open(&fixture("checkpoints/beside").join(file));
        let beside = tensors.iter().filter(|tensor| tensor.name.starts_with("beside"));
        beside.map(|tensor| format!("{} {tensor}", tensor.name)).collect()
    };
    assert_eq!(types("complex.pth"), ["beside [2] (complex64)"]);
    assert_eq!(types("sparse.pth"), ["beside [2, 2] (sparse, coo)"]);
    assert_eq!(types("sparse-csr.pth"), ["beside [2, 2] (sparse, csr)"]);
    assert_eq!(types("quantised.pth"), ["beside [2] (quantised, qint8)"]);
    assert_eq!(types("float8.pth"), ["beside.0 [2] (float8_e4m3fn)", "beside.1 [2] (float8_e5m2)"]);
    assert_eq!(types("meta.pth"), ["beside [2] (on the device `meta`, without data)"]);
    assert_eq!(
        types("object-with-tensor.pth"),
        [
            "beside an object of trainer.meters.Meter",
            "beside.all.0 [1] (float32)",
            "beside.value [] (float32)"
        ]
    );
}

// ---- How the weights are stored ----

#[test]
fn weights_are_the_same_however_they_are_stored() {
    let files = fixtures("weights");
    assert!(files.len() >= 28, "{} files", files.len());
    for (name, path) in files {
        let tensors = checkpoint::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let prefix = if name.starts_with("numpy") { "model." } else { "" };
        assert_eq!(read(&tensors, prefix), below(prefix), "{name}");
    }
}

/// `torch._neg_view` and the imaginary part of a conjugate share another tensor's numbers with the sign
/// flipped.
#[test]
fn a_lazily_negated_view_is_read_negated() {
    for file in ["negative.pth", "negative-twice.pth"] {
        let tensors = open(&fixture("checkpoints/weights").join(file));
        assert_eq!(read(&tensors, "")["a.bias"].1, [1.0, -2.0], "{file}");
    }
}

#[test]
fn a_tensor_of_unsupported_type_is_listed_with_it() {
    let expected = [
        ("bool", "[2, 3] (bool)"),
        ("complex64", "[2, 3] (complex64)"),
        ("float8_e4m3fn", "[2, 3] (float8_e4m3fn)"),
        ("int64", "[2, 3] (int64)"),
        ("meta", "[2, 3] (on the device `meta`, without data)"),
        ("object", "an object of trainer.meters.Meter"),
        ("pickled", "[2, 3] (a tensor whose storage is an object of torch.storage._load_from_bytes)"),
        ("qint8", "[2, 3] (quantised, qint8)"),
        ("sparse", "[2, 3] (sparse, coo)"),
        ("sparse-csr", "[2, 3] (sparse, csr)"),
    ];
    let files = fixtures("unreadable");
    assert_eq!(files.len(), expected.len());
    for ((name, path), (file, what)) in files.iter().zip(expected) {
        assert_eq!(name, file);
        let tensors = open(path);
        let tensor = tensors.iter().find(|tensor| tensor.name == "a.weight").unwrap();
        assert_eq!(tensor.to_string(), what, "{name}");
        assert!(!tensor.is_real(), "{name}");
        assert!(tensor.read().unwrap_err().to_string().contains("a.weight"), "{name}");
    }
}

// ---- Containers ----

/// The plain weights as a safetensors file.
fn safetensors(names: &[&str]) -> Vec<u8> {
    let tensors = plain();
    let bytes: BTreeMap<&str, Vec<u8>> = names
        .iter()
        .map(|name| (*name, tensors[*name].1.iter().flat_map(|number| number.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        (*name, TensorView::new(StoredDtype::F32, tensors[*name].0.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn whole() -> Vec<u8> {
    safetensors(&["a.weight", "a.bias"])
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn pth() -> Vec<u8> {
    std::fs::read(fixture("checkpoints/weights/plain.pth")).unwrap()
}

#[test]
fn the_format_is_detected_by_content() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("weights.pth", whole()),
        ("WEIGHTS.SAFETENSORS", whole()),
        ("weights", whole()),
        ("weights.safetensors", pth()),
        ("weights.PTH", pth()),
        ("weights.json", pth()),
        ("weights.html", std::fs::read(fixture("checkpoints/weights/legacy.pth")).unwrap()),
    ] {
        let path = write(folder.path(), name, &bytes);
        assert_eq!(read(&open(&path), ""), plain(), "{name}");
    }
}

/// The index of two shards, as Hugging Face's libraries write it.
fn index() -> String {
    serde_json::json!({
        "metadata": {"total_size": 32},
        "weight_map": {"a.weight": "model-00001-of-00002.safetensors", "a.bias": "model-00002-of-00002.safetensors"}
    })
    .to_string()
}

/// Writes two shards and their index to a folder; returns the index's path.
fn sharded(folder: &Path) -> PathBuf {
    write(folder, "model-00001-of-00002.safetensors", &safetensors(&["a.weight"]));
    write(folder, "model-00002-of-00002.safetensors", &safetensors(&["a.bias"]));
    write(folder, "model.safetensors.index.json", index().as_bytes())
}

#[test]
fn shards_are_read_through_their_index_or_folder() {
    let folder = tempfile::tempdir().unwrap();
    let index = sharded(folder.path());
    assert_eq!(read(&open(&index), ""), plain());
    assert_eq!(read(&open(folder.path()), ""), plain());
    assert_eq!(checkpoint::hash(&index).unwrap(), checkpoint::hash(folder.path()).unwrap());

    // PyTorch files can have an index too.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "pytorch_model-1.bin", &pth());
    let index = r#"{"weight_map": {"a.weight": "pytorch_model-1.bin", "a.bias": "pytorch_model-1.bin"}}"#;
    write(folder.path(), "pytorch_model.bin.index.json", index.as_bytes());
    assert_eq!(read(&open(folder.path()), ""), plain());
}

#[test]
fn the_hash_of_shards_depends_on_their_contents_only() {
    let hash = |path: &Path| checkpoint::hash(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let whole_index = sharded(folder.path());
    let sharded_hash = hash(&whole_index);
    let mut parts: Vec<[u8; 32]> = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        .map(|part| *blake3::hash(&std::fs::read(folder.path().join(part)).unwrap()).as_bytes())
        .to_vec();
    parts.sort();
    assert_eq!(sharded_hash, blake3::hash(&parts.concat()).to_hex().to_string());

    // Other names and another index.
    let renamed = tempfile::tempdir().unwrap();
    for (from, to) in [("model-00001-of-00002", "z"), ("model-00002-of-00002", "b")] {
        let bytes = std::fs::read(folder.path().join(format!("{from}.safetensors"))).unwrap();
        write(renamed.path(), &format!("{to}.safetensors"), &bytes);
    }
    let index = r#"{"weight_map": {"a.weight": "z.safetensors", "a.bias": "b.safetensors"}}"#;
    let index = write(renamed.path(), "other.index.json", index.as_bytes());
    assert_eq!(hash(&index), sharded_hash);

    // One number differs.
    let mut part = std::fs::read(renamed.path().join("b.safetensors")).unwrap();
    *part.last_mut().unwrap() ^= 1;
    write(renamed.path(), "b.safetensors", &part);
    assert_ne!(hash(&index), sharded_hash);

    // A single shard hashes like the file itself, in any folder.
    let single = tempfile::tempdir().unwrap();
    let file = write(single.path(), "model.safetensors", &whole());
    let index = r#"{"weight_map": {"a.weight": "model.safetensors"}}"#;
    let index = write(single.path(), "one.index.json", index.as_bytes());
    let expected = blake3::hash(&whole()).to_hex().to_string();
    assert_eq!([hash(&file), hash(single.path()), hash(&index)], [(); 3].map(|()| expected.clone()));
}

#[test]
fn shards_that_contradict_their_index_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let index = sharded(folder.path());
    let part = folder.path().join("model-00002-of-00002.safetensors");
    write(folder.path(), "model-00002-of-00002.safetensors", &safetensors(&["a.weight"]));
    assert_says(&error(&index), &part, &["tensor `a.bias`"]);
    write(folder.path(), "model-00002-of-00002.safetensors", &whole());
    assert_says(&error(&index), &part, &["`a.weight` is also in another shard"]);
    std::fs::remove_file(&part).unwrap();
    assert_says(&error(&index), &index, &["1 of 2 shards are missing"]);
    assert!(checkpoint::hash(&index).is_err());

    for (text, word) in [
        (r#"{"weight_map": {"a": "../outside.safetensors"}}"#, "points outside its folder"),
        (r#"{"weight_map": {}}"#, "no tensors"),
        (r#"{"hidden_size": 768}"#, "weight_map"),
        ("{", "JSON"),
    ] {
        let path = write(folder.path(), "bad.json", text.as_bytes());
        assert!(error(&path).contains(word), "{text}: {}", error(&path));
    }
    // An index that lists an index as a shard.
    write(folder.path(), "bad.json", r#"{"weight_map": {"a": "bad.json"}}"#.as_bytes());
    assert_says(&error(&folder.path().join("bad.json")), &folder.path().join("bad.json"), &["JSON"]);
}

#[test]
fn a_folder_stands_for_the_weights_in_it() {
    let files = |names: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            write(folder.path(), name, if name.ends_with("safetensors") { &[] } else { b"{}" });
        }
        folder
    };
    for name in ["model.safetensors", "pytorch_model.bin", "Model.SafeTensors", "best.pth", "last.CKPT"] {
        let folder = files(&["config.json", "README.md", "events.txt"]);
        write(folder.path(), name, &whole());
        assert_eq!(read(&open(folder.path()), ""), plain(), "{name}");
    }
    // The usual name takes precedence.
    let folder = files(&["training_args.bin"]);
    write(folder.path(), "model.safetensors", &whole());
    assert_eq!(read(&open(folder.path()), ""), plain());

    let folder = files(&["a.pth", "b.pth", "config.json"]);
    assert_says(&error(folder.path()), folder.path(), &["found 2: a.pth, b.pth"]);
    let folder = files(&["config.json"]);
    assert_says(&error(folder.path()), folder.path(), &["no weight file found"]);
    let folder = files(&[".metadata", "__0_0.distcp"]);
    assert_says(&error(folder.path()), folder.path(), &["distributed PyTorch checkpoint", "dcp_to_torch"]);
    let folder = files(&["latest", "zero_to_fp32.py"]);
    assert_says(&error(folder.path()), folder.path(), &["DeepSpeed", "zero_to_fp32.py"]);
    let folder = files(&["data.pkl", "version"]);
    assert_says(&error(folder.path()), folder.path(), &["unpacked PyTorch checkpoint"]);
    let absent = folder.path().join("absent.pth");
    assert_says(&error(&absent), &absent, &["no such file", ".safetensors"]);
}

// ---- Files that are not weights ----

#[test]
fn errors_name_the_format_of_files_that_are_not_weights() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 491520\n";
    let mut tar = vec![0; 1024];
    tar[..5].copy_from_slice(b"a.pth");
    tar[257..262].copy_from_slice(b"ustar");
    let cases: &[(&[u8], &[&str])] = &[
        (pointer, &["Git LFS pointer for a file of 491520 bytes", "git lfs pull"]),
        (b"\n<!DOCTYPE html><html>", &["HTML page", "/resolve/"]),
        (b"\xef\xbb\xbf<HTML>", &["HTML page"]),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", &["XML"]),
        (b"", &["is empty", "download it again"]),
        (&[0; 4096], &["zeros only"]),
        (b"\x89HDF\r\n\x1a\n\0\0", &["HDF5", "torch.save"]),
        (b"\x1f\x8b\x08\0", &["gzip", "gunzip"]),
        (b"\x28\xb5\x2f\xfd\0", &["zstd"]),
        (b"GGUF\x03\0\0\0", &["GGUF"]),
        (b"\x93NUMPY\x01\0", &["NumPy"]),
        (b"\x08\x08\x12\x07pytorch\x1a\x051.0", &["ONNX"]),
        (&tar, &["tar archive", "before 0.1.10"]),
        (b"no weights at all", &["not a known weight format", "6e 6f 20 77"]),
        (b"{\"a\": 1}", &["JSON"]),
    ];
    for (bytes, words) in cases {
        for name in ["weights.pth", "model.safetensors"] {
            let path = write(folder.path(), name, bytes);
            assert_says(&error(&path), &path, words);
        }
    }
    let script = fixture("checkpoints/other/torchscript.pt");
    assert_says(&error(&script), &script, &["TorchScript", "torch.jit.load(FILE).state_dict()"]);
    let arrays = fixture("checkpoints/other/arrays.npz");
    assert_says(&error(&arrays), &arrays, &["NumPy arrays"]);
}

/// Writes a zip archive of these entries.
fn zipped(path: &Path, entries: &[(&str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, bytes) in entries {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn the_error_for_zipped_weights_says_to_unpack_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.zip");
    zipped(&path, &[("README.md", b"read"), ("deep/weights.pth", &pth())]);
    assert_says(&error(&path), &path, &["contains deep/weights.pth", "unpack"]);
    zipped(&path, &[("README.md", b"read")]);
    assert_says(&error(&path), &path, &["without data.pkl"]);
}

// ---- Damaged and malicious files ----

/// A pickle of `{"a": tensor}` whose storage has the key 0; `offset`, `shape` and `strides` are given as
/// pickles.
fn tensor_pickle(offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06tQ";
    [
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n(",
        &storage[..],
        offset,
        shape,
        strides,
        b"\x89}tRs.",
    ]
    .concat()
}

#[test]
fn views_beyond_their_storage_are_errors_without_allocating() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.pth");
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    type Case<'a> = (&'a [u8], Vec<u8>, Vec<u8>, &'a str);
    let cases: [Case; 8] = [
        (b"K\x01", b"K\x06\x85".to_vec(), b"K\x01\x85".to_vec(), "28 bytes of a storage of 24 bytes"),
        (b"K\x00", b"J\xff\xff\xff\x7f\x85".to_vec(), b"K\x01\x85".to_vec(), "bytes of a storage"),
        (huge, b"K\x06\x85".to_vec(), b"K\x01\x85".to_vec(), "implausible shape"),
        (b"K\x00", [huge, &huge[..], b"\x86"].concat(), b"K\x01K\x01\x86".to_vec(), "implausible shape"),
        (b"K\x00", b"K\x06\x85".to_vec(), [&huge[..], b"\x85"].concat(), "implausible shape"),
        (b"K\x00", b"K\x06\x85".to_vec(), b"J\xff\xff\xff\xff\x85".to_vec(), "strides"),
        (b"J\xff\xff\xff\xff", b"K\x06\x85".to_vec(), b"K\x01\x85".to_vec(), "offset"),
        (b"K\x00", b"K\x06\x85".to_vec(), b"K\x01K\x01\x86".to_vec(), "implausible shape"),
    ];
    for (offset, shape, strides, word) in cases {
        zipped(&path, &[("x/data.pkl", &tensor_pickle(offset, &shape, &strides)), ("x/data/0", &[0; 24])]);
        let problem = open(&path)[0].read().unwrap_err().to_string();
        assert!(problem.contains(word), "{word:?} is not in: {problem}");
    }
    let good = tensor_pickle(b"K\x00", b"K\x06\x85", b"K\x01\x85");
    zipped(&path, &[("x/data.pkl", &good), ("x/data/0", &[0; 24])]);
    assert_eq!(open(&path)[0].read().unwrap(), [0.0; 6]);
    zipped(&path, &[("x/data.pkl", &good)]);
    assert!(open(&path)[0].read().unwrap_err().to_string().contains("storage 0 is missing"));
    // Two numbers at both ends of a compressed gigabyte would require unpacking all of it.
    let spread = tensor_pickle(b"K\x00", b"K\x02\x85", b"J\x00\x00\x00\x01\x85");
    zipped(&path, &[("x/data.pkl", &spread), ("x/data/0", &vec![0; (1 << 26) + 4])]);
    assert!(open(&path)[0].read().unwrap_err().to_string().contains("spread"));
}

#[test]
fn damaged_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.pth");
    let visit = || {
        if let Ok(tensors) = checkpoint::open(&path) {
            for tensor in tensors {
                // Like a model, which knows the expected shapes.
                if tensor.shape.iter().product::<usize>() <= 64 {
                    let _ = tensor.read();
                }
            }
        }
    };
    for file in [
        "weights/plain.pth",
        "weights/legacy.pth",
        "weights/legacy-view.pth",
        "weights/numpy-2.pkl",
        "beside/sparse.pth",
    ] {
        let whole = std::fs::read(fixture("checkpoints").join(file)).unwrap();
        for length in (0..whole.len()).step_by(5) {
            std::fs::write(&path, &whole[..length]).unwrap();
            visit();
        }
        for place in (0..whole.len()).step_by(3) {
            for flip in [0x01, 0x80] {
                let mut damaged = whole.clone();
                damaged[place] ^= flip;
                std::fs::write(&path, &damaged).unwrap();
                visit();
            }
        }
    }
}

/// The archive's checksum detects a flipped bit in the numbers.
#[test]
fn damaged_numbers_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = pth();
    let number = 0.75_f32.to_le_bytes();
    let at = bytes.windows(4).position(|part| part == number).unwrap();
    bytes[at] ^= 1;
    let path = write(folder.path(), "damaged.pth", &bytes);
    let tensors = open(&path);
    let weight = tensors.iter().find(|tensor| tensor.name == "a.weight").unwrap();
    assert!(weight.read().unwrap_err().to_string().contains("checksum"));
}

#[test]
fn exploding_names_and_references_are_refused_early() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.pkl");
    // A tensor whose name would take gigabytes: nested dictionaries with long keys.
    let key = [&b"X\x00\x00\x10\x00"[..], &[b'k'; 1 << 20]].concat();
    let mut bytes = b"\x80\x02}".to_vec();
    bytes.extend(&key);
    bytes.extend(b"q\x00");
    bytes.extend(b"}h\x00".repeat(500));
    bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))\x89}tR");
    bytes.extend(b"s".repeat(501));
    bytes.push(b'.');
    std::fs::write(&path, &bytes).unwrap();
    assert!(error(&path).contains("name is longer than the limit"), "{}", error(&path));
    // Ten levels, each with ten references to the level below.
    let mut bytes = b"\x80\x02]q\x00".to_vec();
    for level in 1..=10 {
        bytes.extend(b"](");
        bytes.extend([b'h', level - 1].repeat(10));
        bytes.extend([b'e', b'q', level]);
    }
    bytes.push(b'.');
    std::fs::write(&path, &bytes).unwrap();
    assert!(open(&path).is_empty());
    // More tensors than any model has.
    let mut bytes = b"\x80\x02](ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))\x89}tRq\x00".to_vec();
    bytes.extend(b"h\x00".repeat(1 << 18));
    bytes.extend(b"e.");
    std::fs::write(&path, &bytes).unwrap();
    assert!(error(&path).contains("limit of 131072 tensors"), "{}", error(&path));
}
