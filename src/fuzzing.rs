//! Every reader of foreign bytes as a function of bytes, for fuzzing: `fuzz/` (cargo-fuzz) and `cargo xtask fuzz` call them.
//!
//! No target may panic, take longer than a second, or allocate more than [`MOST_BYTES`] at once. Errors are fine: they are what
//! damaged files deserve.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::data::{self, Dataset, Split};
use crate::fetch::archive;
use crate::formats::arrays::ArrayFile;
use crate::formats::checkpoint;
use crate::formats::geotiff::Image;
use crate::formats::hdf5::{Chunked, Rows, with_file};
use crate::formats::onnx::OnnxFile;
use crate::formats::parquet::Table;
use crate::formats::pickle::{self, Limits};
use crate::formats::tortilla::Tortilla;
use crate::home::Home;
use crate::model::config::ModelConfig;
use crate::model::process;
use crate::protocol::ProtocolConfig;
use crate::record::{predictions, read_record};
use crate::task::Suite;

/// The most bytes that reading one input may hold at the same time.
pub const MOST_BYTES: usize = 1 << 30;

/// Tensors and arrays with more numbers than this are opened but not read: their readers allocate what the shape says, and their
/// callers compare the shape before.
const MOST_NUMBERS: usize = 1 << 22;

/// A target: its name, which is that of its corpus too, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("pickle", pickle),
    ("hdf5", hdf5),
    ("sample", sample),
    ("packed", packed),
    ("geotiff", geotiff),
    ("lists", lists),
    ("partition", partition),
    ("checkpoint", checkpoint),
    ("safetensors", safetensors),
    ("arrays", arrays),
    ("parquet", parquet),
    ("tortilla", tortilla),
    ("onnx_model", onnx_model),
    ("onnx_file", onnx_file),
    ("frames", frames),
    ("protocol", protocol),
    ("archive", zip_archive),
    ("record", record),
    ("predictions", read_predictions),
];

thread_local! {
    /// A folder of this thread for the inputs of targets that read files.
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// The folder of this thread.
fn folder() -> Option<PathBuf> {
    FOLDER.with_borrow_mut(|folder| {
        if folder.is_none() {
            *folder = tempfile::tempdir().ok();
        }
        Some(folder.as_ref()?.path().to_owned())
    })
}

/// Writes the input to a file and passes its path on.
fn in_file(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    let Some(folder) = folder() else { return };
    let path = folder.join(name);
    let ready = path.parent().is_some_and(|parent| std::fs::create_dir_all(parent).is_ok());
    if ready && std::fs::write(&path, bytes).is_ok() {
        read(&path);
    }
}

/// Unpickles a sample's metadata and a checkpoint's.
pub fn pickle(bytes: &[u8]) {
    let _ = pickle::read(bytes);
    let _ = pickle::read_first(bytes, &Limits::CHECKPOINT);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = pickle::bytes_literal(text);
    }
}

/// Reads every dataset of an HDF5 file.
pub fn hdf5(bytes: &[u8]) {
    in_file("any.hdf5", bytes, |path| {
        let _ = with_file(path, |file| {
            for dataset in file.datasets()? {
                let _ = dataset.dtype();
                let count = dataset.dimensions()?.into_iter().try_fold(1_usize, usize::checked_mul);
                if count.is_some_and(|count| count <= MOST_NUMBERS) {
                    let _ = dataset.elements::<f32>();
                }
            }
            let _ = file.string_attribute("pickle");
            Ok(())
        });
        for name in ["images", "labels", "names"] {
            let _ = Chunked::open(path, name).and_then(|column| column.read(0, 1, <[u8]>::len));
            let _ = Rows::open(path, name).and_then(|rows| rows.read::<f32>(0));
        }
    });
}

/// A task of GEO-Bench whose files lie in this thread's folder, with one partition of one sample.
fn geobench() -> Option<(Suite, PathBuf, PathBuf)> {
    let suite = Suite::load(&Home::find().ok()?, "geobench").ok()?;
    let root = folder()?.join("geobench");
    let directory = root.join(&suite.task("m-eurosat").ok()?.directory);
    std::fs::create_dir_all(&directory).ok()?;
    let partition = directory.join("default_partition.json");
    if !partition.exists() {
        std::fs::write(partition, r#"{"train":["one"],"valid":["one"],"test":["one"]}"#).ok()?;
    }
    Some((suite, root, directory))
}

/// Reads every sample of an opened data set in every way that the program does.
fn read_all(dataset: &dyn Dataset) {
    let bands = dataset.bands().unwrap_or_default();
    for split in Split::ALL {
        for index in 0..dataset.samples(split).len().min(4) {
            let _ = dataset.read_raw(split, index);
            let _ = dataset.read(split, index, &bands);
        }
    }
}

/// Reads a sample of GEO-Bench.
pub fn sample(bytes: &[u8]) {
    let Some((suite, root, directory)) = geobench() else { return };
    let written = std::fs::write(directory.join("one.hdf5"), bytes);
    let Some(task) = suite.task("m-eurosat").ok().filter(|_| written.is_ok()) else { return };
    if let Ok(dataset) = data::open(&suite, task, &root, "default") {
        read_all(dataset.as_ref());
    }
}

/// Reads a partition of GEO-Bench.
pub fn partition(bytes: &[u8]) {
    let Some((suite, root, directory)) = geobench() else { return };
    let written = std::fs::write(directory.join("fuzzed_partition.json"), bytes);
    let Some(task) = suite.task("m-eurosat").ok().filter(|_| written.is_ok()) else { return };
    if let Ok(dataset) = data::open(&suite, task, &root, "fuzzed") {
        let _ = dataset.read_raw(Split::Test, 0);
    }
}

/// Reads a packed split, which stands for all three.
pub fn packed(bytes: &[u8]) {
    let Ok(suite) = Home::find().and_then(|home| Suite::load(&home, "geobench")) else { return };
    let Ok(task) = suite.task("m-eurosat") else { return };
    let Some(root) = folder().map(|folder| folder.join("packed")) else { return };
    let directory = root.join(&task.name);
    // The index is part of the input: its length, then it, then the file.
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return };
    let Some((index, file)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { return };
    let names = ["train.h5", "valid.h5", "test.h5"];
    let written = std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::write(directory.join("index.json"), index))
        .and_then(|()| names.iter().try_for_each(|name| std::fs::write(directory.join(name), file)));
    if written.is_ok()
        && let Ok(dataset) = data::open(&suite, task, &root, "default")
    {
        read_all(dataset.as_ref());
    }
}

/// Decodes a GeoTIFF.
pub fn geotiff(bytes: &[u8]) {
    if let Ok(image) = Image::decode(Path::new("any.tif"), bytes.to_vec()) {
        let _ = image.dtype();
        let _ = image.band(0);
    }
}

/// Opens a data set of Copernicus-Bench whose lists are the input; its first byte chooses the task.
pub fn lists(bytes: &[u8]) {
    let Ok(suite) = Home::find().and_then(|home| Suite::load(&home, "copernicus-bench")) else { return };
    let Some((first, text)) = bytes.split_first() else { return };
    let task = &suite.tasks[usize::from(*first) % suite.tasks.len()];
    let Some(root) = folder().map(|folder| folder.join("copernicus")) else { return };
    let directory = root.join(&task.directory);
    if std::fs::create_dir_all(&directory).is_err() {
        return;
    }
    for split in ["train", "val", "test"] {
        for name in [
            format!("{split}.csv"),
            format!("eurosat-{split}.txt"),
            format!("multilabel-{split}.csv"),
            format!("static_fnames-{split}.csv"),
            format!("dfc-{split}-new.csv"),
            format!("grid_dict_{split}.json"),
        ] {
            if std::fs::write(directory.join(name), text).is_err() {
                return;
            }
        }
    }
    if let Ok(dataset) = data::open(&suite, task, &root, "default") {
        let _ = dataset.read_raw(Split::Test, 0);
    }
}

fn read_weights(path: &Path) {
    for tensor in checkpoint::open(path).unwrap_or_default() {
        let count = tensor.shape.iter().copied().try_fold(1_usize, usize::checked_mul);
        if count.is_some_and(|count| count <= MOST_NUMBERS) {
            let _ = tensor.read();
        }
    }
}

/// Reads the tensors of a PyTorch checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    in_file("any.pth", bytes, read_weights);
}

/// Reads the tensors of a safetensors file.
pub fn safetensors(bytes: &[u8]) {
    in_file("any.safetensors", bytes, read_weights);
    in_file("any.safetensors", bytes, read_arrays);
}

fn read_arrays(path: &Path) {
    let Ok(file) = ArrayFile::open(path) else { return };
    for array in file.arrays.values() {
        let _ = array.rows(&[0]);
    }
}

/// Reads features from an `.npz` file.
pub fn arrays(bytes: &[u8]) {
    in_file("any.npz", bytes, read_arrays);
}

/// Reads features from a Parquet file, and every column of it.
pub fn parquet(bytes: &[u8]) {
    in_file("any.parquet", bytes, read_arrays);
    // Whoever opens a table keeps panics of the library away from the program, as here.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let Ok(table) = Table::open(Bytes::copy_from_slice(bytes)) else { return };
        for column in &table.columns {
            let _ = table.values(column);
            let _ = table.numbers(column);
        }
    }));
}

/// Reads the index of a container, and those in it.
pub fn tortilla(bytes: &[u8]) {
    in_file("any.tortilla", bytes, |path| {
        let Ok(tortilla) = Tortilla::open(path, &["labels", "modality"]) else { return };
        for entry in tortilla.entries.iter().take(8) {
            let _ = entry.bytes(path);
            let _ = Tortilla::nested(path, entry, &["modality"]);
        }
    });
}

fn load_model(path: &Path) {
    if let Ok(home) = Home::find() {
        let _ = ModelConfig::load(&home, &path.to_string_lossy());
    }
}

/// Reads a model's TOML: those of ONNX files, processes and own networks.
pub fn onnx_model(bytes: &[u8]) {
    in_file("model.toml", bytes, load_model);
}

/// Reads the header of an ONNX file.
pub fn onnx_file(bytes: &[u8]) {
    in_file("any.onnx", bytes, |path| drop(OnnxFile::read(path)));
}

/// Reads what an encoder process writes.
pub fn frames(bytes: &[u8]) {
    process::read_everything(bytes);
}

/// Reads a protocol's TOML.
pub fn protocol(bytes: &[u8]) {
    in_file("protocol.toml", bytes, |path| {
        if let Ok(home) = Home::find() {
            let _ = ProtocolConfig::load(&home, &path.to_string_lossy());
        }
    });
}

/// Checks and unpacks a zip archive of the folder `set`.
pub fn zip_archive(bytes: &[u8]) {
    in_file("set.zip", bytes, |path| {
        let Ok(into) = tempfile::tempdir() else { return };
        if archive::inspect(path, "set").is_ok() {
            let _ = archive::unpack(path, "set", &into.path().join("set"), &|_| ());
        }
    });
}

/// Reads a record.
pub fn record(bytes: &[u8]) {
    in_file("any.json", bytes, |path| drop(read_record(path)));
}

/// Reads the predictions of a record.
pub fn read_predictions(bytes: &[u8]) {
    in_file("predictions.safetensors", bytes, |path| drop(predictions::read(path, PREDICTED)));
}

/// The record whose predictions the target reads.
pub const PREDICTED: &str = "00112233445566778899aabbccddeeff";
