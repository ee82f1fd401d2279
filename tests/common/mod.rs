//! Where test data is.

pub mod demo;
pub mod encoding;
pub mod python;

use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder of real pixels: `$TERRABENCH_REAL`, else `../shared/real` beside the checkout, if there is one.
pub fn real() -> Option<PathBuf> {
    let folder = std::env::var_os("TERRABENCH_REAL").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    folder
        .or_else(|| Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/real")))
        .filter(|folder| folder.is_dir())
}

/// The folder of made-up sets in official layouts: `$TERRABENCH_MADE`, else `../shared/made` beside the checkout, if there is one.
pub fn made() -> Option<PathBuf> {
    let folder = std::env::var_os("TERRABENCH_MADE").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    folder
        .or_else(|| Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/made")))
        .filter(|folder| folder.is_dir())
}

/// A file or folder of `tests/fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The records below a suite's folder of results, by file name, without the times at which they were made and the commands that
/// make them, which may name other files of the same content.
pub fn records(folder: &Path) -> std::collections::BTreeMap<String, terrabench::record::Record> {
    let Ok(entries) = std::fs::read_dir(folder.join("records")) else { return Default::default() };
    let mut records = std::collections::BTreeMap::new();
    for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()) {
        let mut record: terrabench::record::Record =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (record.provenance.finished, record.provenance.wall_seconds) = (0, 0.0);
        record.provenance.speed = None;
        record.provenance.command.clear();
        records.insert(path.file_name().unwrap().to_string_lossy().into_owned(), record);
    }
    records
}

/// Puts all files below `folder` into an archive, below `root` in it.
pub fn zipped(folder: &Path, root: &str, archive: &Path) {
    fn add(zip: &mut zip::ZipWriter<std::fs::File>, folder: &Path, name: &str) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{name}/{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                add(zip, &path, &name);
            } else {
                // One kind as the other: plain and deflated entries are both met.
                let method = match name.len() % 2 {
                    0 => zip::CompressionMethod::Stored,
                    _ => zip::CompressionMethod::Deflated,
                };
                let options = zip::write::SimpleFileOptions::default().compression_method(method);
                zip.start_file(name, options).unwrap();
                zip.write_all(&std::fs::read(path).unwrap()).unwrap();
            }
        }
    }
    let mut zip = zip::ZipWriter::new(std::fs::File::create(archive).unwrap());
    add(&mut zip, folder, root);
    zip.finish().unwrap();
}

/// A copy in `folder` of a protocol's file, with texts replaced that must stand there.
pub fn changed_protocol(name: &str, folder: &Path, changes: &[(&str, &str)]) -> String {
    let path = terrabench::home::Home::find().unwrap().config("protocols", name).unwrap();
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{name} has no `{from}`");
        text = text.replace(from, to);
    }
    let path = folder.join(format!("{name}-changed.toml"));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Computes every score of every record in a suite's folder of results again from its predictions: all of them are known, and none
/// differs from the recorded one.
pub fn all_scores_follow_from_predictions(folder: &Path) {
    use terrabench::gate::rescore::{Again, rescore};

    let records = terrabench::record::collect(folder).unwrap();
    // Without the suites: what it takes stands beside the predictions.
    let (rescored, unreadable) = rescore(&records, &[], &terrabench::gate::Suites::default());
    assert!(unreadable.is_empty(), "{unreadable:?}");
    assert_eq!(rescored.len(), records.len());
    for record in rescored {
        let named = |name: &str| record.scores.iter().flatten().find(|score| score.name == name);
        for name in record.record.scores.keys().filter(|name| !name.starts_with("valid/")) {
            let score = named(name).unwrap_or_else(|| panic!("{name} is not computed again"));
            assert!(matches!(score.again, Again::Value(_)), "{name}: {score:?}");
        }
        assert!(named("interval low").is_some(), "{:?}", record.scores);
        assert_eq!(record.contradictions, Vec::<String>::new(), "{:?}", record.record.cell);
    }
}

/// An image of unnamed bands, taken nobody knows when and where.
pub fn image(sensor: terrabench::task::Sensor, pixels: ndarray::Array3<f32>) -> terrabench::data::Image {
    terrabench::data::Image { sensor, date: None, bands: Vec::new(), pixels, day: None, place: None }
}

/// Copies a folder with all below it; `change` receives the name and text of each file that is text, and returns what is written.
pub fn copied(from: &Path, to: &Path, change: &dyn Fn(&str, String) -> String) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let to = to.join(name);
        match path.is_dir() {
            true => copied(&path, &to, change),
            // Weights are no text.
            false => match String::from_utf8(std::fs::read(&path).unwrap()) {
                Ok(text) => std::fs::write(to, change(name, text)).unwrap(),
                Err(other) => std::fs::write(to, other.into_bytes()).unwrap(),
            },
        }
    }
}
