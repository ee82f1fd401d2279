//! Features that another program computed, from files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, TensorView};
use terrabench::features::vectors::VectorFolder;
use terrabench::formats::arrays::{ArrayFile, Number};
use terrabench::home::Home;
use terrabench::record::{Record, Store, collect};
use terrabench::task::{Split, Suite};

use crate::common::{self, changed_protocol, demo, fixture, records};
use crate::parquet_file::{self, Cells};

/// Generated data in GEO-Bench's layout, features of its tasks, and results.
struct Place {
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
        let data = common::demo::provide(&suite, &folder.path().join("demo"));
        Place { folder, data }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.env_remove("GEO_BENCH_DIR").env("TERRABENCH_CACHE", self.path("cache"));
        command
            .args(arguments)
            .arg("--data")
            .arg(&self.data)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// Runs `bench geobench` and returns what it said; it must have succeeded.
    fn bench(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["bench", "geobench"][..], arguments].concat());
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        said
    }

    /// Runs `bench geobench` and returns the error; it must have failed.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["bench", "geobench"][..], arguments].concat());
        let said = said(&output);
        assert!(!output.status.success() && !said.contains("panicked"), "{said}");
        said
    }

    /// Writes the features of a task as the command `features` does.
    fn features(&self, task: &str, more: &[&str]) {
        let first =
            ["features", "--task", task, "--model", "demo", "--weights", "random:0", "--to", "vectors"];
        let output = self.run(&[&first[..], more].concat());
        assert!(output.status.success(), "{}", said(&output));
    }

    fn records(&self, out: &str) -> BTreeMap<String, Record> {
        records(&self.path(out).join("geobench"))
    }

    fn file(&self, task: &str, split: &str, extension: &str) -> PathBuf {
        self.path("vectors").join(task).join(format!("{split}.{extension}"))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Names and vectors of a file of features.
#[derive(Debug, Clone, PartialEq)]
struct Vectors {
    names: Vec<String>,
    rows: Vec<Vec<f32>>,
}

impl Vectors {
    fn read(path: &Path) -> Self {
        let file = ArrayFile::open(path).unwrap();
        let names = file.texts["samples"].clone();
        let numbers = file.arrays["features"].rows(&(0..names.len()).collect::<Vec<_>>()).unwrap();
        let rows = numbers.chunks(file.arrays["features"].width()).map(<[f32]>::to_vec).collect();
        Vectors { names, rows }
    }

    fn shape(&self) -> [usize; 2] {
        [self.rows.len(), self.rows[0].len()]
    }

    fn numbers(&self) -> impl Iterator<Item = f32> {
        self.rows.iter().flatten().copied()
    }

    /// As safetensors, each number as `bytes` gives it.
    fn write<const N: usize>(&self, path: &Path, dtype: Dtype, bytes: impl Fn(f32) -> [u8; N]) {
        let numbers: Vec<u8> = self.numbers().flat_map(bytes).collect();
        let view = TensorView::new(dtype, self.shape().to_vec(), &numbers).unwrap();
        let names = serde_json::to_string(&self.names).unwrap();
        let metadata = HashMap::from([("samples".to_owned(), names)]);
        std::fs::write(path, safetensors::serialize([("features", view)], Some(metadata)).unwrap()).unwrap();
    }

    /// As `.npz`, deflated or not, the array in this type, order and byte order.
    fn write_npz(&self, path: &Path, descr: &str, fortran: bool, packed: bool) {
        let [n, d] = self.shape();
        let number = |value: f32| match descr {
            "<f8" => f64::from(value).to_le_bytes().to_vec(),
            ">f8" => f64::from(value).to_be_bytes().to_vec(),
            ">f4" => value.to_be_bytes().to_vec(),
            "<f4" => value.to_le_bytes().to_vec(),
            other => panic!("{other}"),
        };
        let bytes: Vec<u8> = match fortran {
            false => self.numbers().flat_map(number).collect(),
            true => (0..d)
                .flat_map(|j| (0..n).map(move |i| (i, j)))
                .flat_map(|(i, j)| number(self.rows[i][j]))
                .collect(),
        };
        let order = if fortran { "True" } else { "False" };
        let longest = self.names.iter().map(|name| name.chars().count()).max().unwrap();
        let letters = |name: &String| {
            let mut letters: Vec<u32> = name.chars().map(u32::from).collect();
            letters.resize(longest, 0);
            letters.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        };
        let names: Vec<u8> = self.names.iter().flat_map(letters).collect();
        let entries = [
            ("features.npy", npy(descr, order, &format!("({n}, {d})"), &bytes)),
            ("samples.npy", npy(&format!("<U{longest}"), "False", &format!("({n},)"), &names)),
        ];
        let method = if packed { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
        zip_of(path, method, &entries);
    }

    /// As Parquet: a list column, or one column per dimension.
    fn write_parquet(&self, path: &Path, list: bool) {
        let names = Cells::Texts(self.names.iter().cloned().map(Some).collect());
        let mut columns = vec![("samples".to_owned(), names)];
        match list {
            true => columns.push(("features".to_owned(), Cells::FloatLists(self.rows.clone()))),
            false => columns.extend((0..self.shape()[1]).map(|place| {
                let numbers = self.rows.iter().map(|row| f64::from(row[place])).collect();
                (format!("x{place}"), Cells::Doubles(numbers))
            })),
        }
        std::fs::write(path, parquet_file::encode(&columns)).unwrap();
    }
}

fn npy(descr: &str, fortran: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend(bytes);
    file
}

fn zip_of(path: &Path, method: zip::CompressionMethod, entries: &[(&str, Vec<u8>)]) {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

const EUROSAT: [&str; 4] = ["--task", "m-eurosat", "--partition", "default"];
const FROM_FILES: [&str; 4] = ["--features", "vectors", "--name", "My model"];

/// Checks that both results have the same values, scores, intervals and predictions, cell by cell.
fn assert_same_numbers(place: &Place, native: &str, vectors: &str) -> usize {
    let collected = |out: &str| collect(&place.path(out)).unwrap();
    let (native, vectors) = (collected(native), collected(vectors));
    assert_eq!(native.len(), vectors.len());
    for (a, b) in native.iter().zip(&vectors) {
        let what = format!("{} {} {}", a.record.cell.task, a.record.cell.partition, a.record.cell.protocol);
        let cell = |record: &Record| {
            (record.cell.task.clone(), record.cell.partition.clone(), record.cell.protocol.clone())
        };
        assert_eq!(cell(&a.record), cell(&b.record));
        assert_eq!(
            (a.record.value, a.record.interval, &a.record.scores, &a.record.selected, &a.record.samples),
            (b.record.value, b.record.interval, &b.record.scores, &b.record.selected, &b.record.samples),
            "{what}"
        );
        assert_eq!(
            a.record.provenance.features, b.record.provenance.features,
            "{what}: digest of the features"
        );
        let predictions =
            |kept: &terrabench::record::StoredRecord| kept.store.predictions(&kept.record).unwrap().unwrap();
        assert_eq!(predictions(a), predictions(b), "{what}");
    }
    native.len()
}

#[test]
fn exported_features_give_the_values_and_predictions_of_the_model() {
    let place = Place::new();
    place.features("m-eurosat", &[]);
    place.features("m-bigearthnet", &[]);
    let cells = [
        ["--task", "m-eurosat", "--task", "m-bigearthnet"],
        ["--partition", "default", "--partition", "0.01x_train"],
        ["--protocol", "knn", "--protocol", "logistic"],
    ];
    let cells = cells.concat();
    place.bench(&[&["--model", "demo", "--weights", "random:0", "--out", "native"][..], &cells].concat());
    place.bench(&[&FROM_FILES[..], &["--out", "files"], &cells].concat());
    assert_eq!(assert_same_numbers(&place, "native", "files"), 8);

    let records = place.records("files");
    let record = records.values().find(|record| record.cell.task == "m-eurosat").unwrap();
    let made = &record.provenance;
    assert!(made.weights.starts_with("vectors:blake3:") && made.weights.len() == 15 + 64, "{}", made.weights);
    assert_eq!((record.cell.model.as_str(), record.cell.backbone.as_str()), ("My model", ""));
    assert_eq!((made.normalization.as_str(), made.band_names.as_str()), ("unknown", "unknown"));
    assert_eq!((made.image_size, made.pooling, made.bands.as_slice()), (0, None, &[][..]));
    assert_eq!(made.declared["weights"], "random:0");
    assert_eq!(made.declared["normalization"], "dataset");
    assert_eq!(made.declared["image-size"], "112");
    let note = record.notes.iter().find(|note| note.kind == "vectors").unwrap();
    assert!(
        note.text.contains("does not know its normalisation") && note.text.contains("image-size 112"),
        "{note}"
    );

    let table = std::fs::read_to_string(place.path("files/geobench/knn.md")).unwrap();
    // One row, although each task's files have a hash of their own.
    assert_eq!(table.lines().filter(|line| line.starts_with("| My model")).count() % 2, 1, "{table}");
    assert!(table.contains("My model (measured, features from files)"), "{table}");
    assert!(table.contains("normalisation unknown") && table.contains("input unknown"), "{table}");
    // The settings that columns share are not in footnotes.
    assert!(!table.contains("the rest of the row"), "{table}");

    let again = place.bench(&[&FROM_FILES[..], &["--out", "files"], &cells].concat());
    assert_eq!(again.matches("recorded before").count(), 8, "{again}");
    common::all_scores_follow_from_predictions(&place.path("files/geobench"));
    // The gate compares them as those of any model.
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(["check", "--records", "files", "--reference", "files"])
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_changed_number_changes_identity_and_a_missing_model_is_no_obstacle() {
    let place = Place::new();
    place.features("m-eurosat", &["--partition", "0.01x_train"]);
    let cells = ["--task", "m-eurosat", "--partition", "0.01x_train", "--protocol", "knn"];
    place.bench(&[&FROM_FILES[..], &cells].concat());
    let before = place.records("results");
    let test = place.file("m-eurosat", "test", "safetensors");
    let mut bytes = std::fs::read(&test).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&test, bytes).unwrap();
    let said = place.bench(&[&FROM_FILES[..], &cells].concat());
    assert!(!said.contains("recorded before"), "{said}");
    let after = place.records("results");
    assert_eq!((before.len(), after.len()), (1, 2));
    // The newer one counts, and the table says that there is another.
    let table = std::fs::read_to_string(place.path("results/geobench/knn.md")).unwrap();
    assert!(table.contains("Not shown: superseded by a newer run"), "{table}");
}

#[test]
fn every_format_type_and_order_gives_the_same_predictions() {
    let place = Place::new();
    place.features("m-eurosat", &["--partition", "0.01x_train"]);
    let splits = ["train", "valid", "test"];
    let vectors: Vec<Vectors> =
        splits.map(|split| Vectors::read(&place.file("m-eurosat", split, "safetensors"))).into();
    let cells = ["--task", "m-eurosat", "--partition", "0.01x_train", "--protocol", "knn", "--out"];
    place.bench(&[&FROM_FILES[..], &cells, &["expected"]].concat());
    let write = |form: &str| {
        for (split, vectors) in splits.iter().zip(&vectors) {
            // Rows in another order are found by name.
            let mut turned = vectors.clone();
            turned.names.reverse();
            turned.rows.reverse();
            let at = |extension: &str| place.file("m-eurosat", split, extension);
            for extension in ["safetensors", "npz", "parquet"] {
                let _ = std::fs::remove_file(at(extension));
            }
            match form {
                "double" => turned.write(&at("safetensors"), Dtype::F64, |x| f64::from(x).to_le_bytes()),
                "npz" => turned.write_npz(&at("npz"), "<f4", false, false),
                "npz-packed-turned" => turned.write_npz(&at("npz"), "<f8", true, true),
                "npz-big" => turned.write_npz(&at("npz"), ">f4", false, true),
                "npz-turned-big" => turned.write_npz(&at("npz"), ">f8", true, false),
                "parquet-list" => turned.write_parquet(&at("parquet"), true),
                "parquet-columns" => turned.write_parquet(&at("parquet"), false),
                other => panic!("{other}"),
            }
            let read =
                ["safetensors", "npz", "parquet"].map(at).into_iter().find(|path| path.is_file()).unwrap();
            assert_eq!(Vectors::read(&read), turned, "{form}");
        }
    };
    for form in
        ["double", "npz", "npz-packed-turned", "npz-big", "npz-turned-big", "parquet-list", "parquet-columns"]
    {
        write(form);
        place.bench(&[&FROM_FILES[..], &cells, &[form]].concat());
        assert_same_numbers(&place, "expected", form);
    }
    // Half the digits give other vectors, but a run all the same.
    for (split, vectors) in splits.iter().zip(&vectors) {
        let path = place.file("m-eurosat", split, "safetensors");
        let _ = std::fs::remove_file(place.file("m-eurosat", split, "parquet"));
        vectors.write(&path, Dtype::BF16, |x| half::bf16::from_f32(x).to_le_bytes());
    }
    place.bench(&[&FROM_FILES[..], &cells, &["short"]].concat());
    let value = |out: &str| place.records(out).values().next().unwrap().value;
    assert!((value("short") - value("expected")).abs() < 5.0, "{} {}", value("short"), value("expected"));
}

#[test]
fn numpy_arrays_are_read_as_numpy_means_them() {
    let grid: Vec<f32> = (0..12).map(|i| i as f32 / 8.0 - 0.5).collect();
    for name in ["plain", "packed"] {
        let file = ArrayFile::open(&fixture(&format!("vectors/{name}.npz"))).unwrap();
        for array in ["plain", "half", "double", "big", "turned"] {
            let stored = &file.arrays[array];
            assert_eq!(stored.shape(), [3, 4], "{array}");
            assert_eq!(stored.rows(&[0, 1, 2]).unwrap(), grid, "{name} {array}");
            assert_eq!(stored.rows(&[2, 0]).unwrap(), [&grid[8..], &grid[..4]].concat(), "{name} {array}");
            stored.rows(&[3]).unwrap_err();
        }
        assert_eq!(file.arrays["one"].rows(&[0, 2]).unwrap(), [-0.5, 0.5]);
        let maps: Vec<f32> = (0..24).map(|i| i as f32 / 4.0).collect();
        assert_eq!(file.arrays["turned_big"].rows(&[1, 2]).unwrap(), maps[8..]);
        assert_eq!(*file.arrays["half"].number(), Number::F16);
        for (array, kind) in [("flags", "bool"), ("many", "int64")] {
            let error = file.arrays[array].rows(&[0]).unwrap_err().to_string();
            assert!(
                error.contains(array) && error.contains(kind) && error.contains("expected float16"),
                "{error}"
            );
        }
        let texts = |name: &str| file.texts[name].join("|");
        assert_eq!(texts("samples"), "a|bé|ccccccccc");
        assert_eq!(
            (texts("bytes"), texts("big_texts"), texts("text")),
            ("a|bb".into(), "a|bé".into(), "alone".into())
        );
        assert_eq!((texts("whole"), texts("negative")), ("0|1|2".into(), "-3|300".into()));
    }
    let error = ArrayFile::open(&fixture("vectors/objects.npz")).unwrap_err().to_string();
    assert!(
        error.contains("`samples`") && error.contains("pickled") && error.contains("dtype=str"),
        "{error}"
    );
}

#[test]
fn damaged_arrays_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let refused = |entry: Vec<u8>| {
        zip_of(&path, zip::CompressionMethod::Stored, &[("features.npy", entry)]);
        let error = ArrayFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("x.npz") && error.contains("features"), "{error}");
        error
    };
    let shape = "(2, 2)";
    assert!(refused(npy("<f4", "False", shape, &[0; 15])).contains("[2, 2]"));
    assert!(refused(npy("<f4", "False", "(18446744073709551615, 8)", &[0; 16])).contains("features"));
    assert!(refused(npy("<f4", "False", "(-1, 8)", &[0; 16])).contains("implausible shape"));
    assert!(refused(npy("<f4", "Perhaps", shape, &[0; 16])).contains("fortran_order"));
    assert!(refused(npy("O", "False", shape, &[0; 16])).contains("objects"));
    assert!(refused(b"\x93NUMPY\x09\x00\x00\x00".to_vec()).contains("version 9"));
    assert!(refused(b"hello".to_vec()).contains("incomplete"));
    for bytes in [&b"PK"[..], b"", &[0xff; 40]] {
        for extension in ["npz", "safetensors", "parquet"] {
            let path = folder.path().join(format!("y.{extension}"));
            std::fs::write(&path, bytes).unwrap();
            let error = ArrayFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("y."), "{error}");
        }
    }
    // Cut anywhere, a file is an error.
    let whole = std::fs::read(fixture("vectors/packed.npz")).unwrap();
    for length in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..length]).unwrap();
        ArrayFile::open(&path).unwrap_err();
    }
    // A changed byte in packed numbers fails its checksum.
    let entry = npy("<f4", "False", "(64,)", &[7; 256]);
    zip_of(&path, zip::CompressionMethod::Deflated, &[("features.npy", entry)]);
    assert_eq!(ArrayFile::open(&path).unwrap().arrays["features"].rows(&[3]).unwrap().len(), 1);
}

/// Replaces the file of a split, and returns the error of a run.
fn spoilt(place: &Place, split: &str, change: impl FnOnce(&mut Vectors)) -> String {
    let path = place.file("m-eurosat", split, "safetensors");
    let whole = std::fs::read(&path).unwrap();
    let mut vectors = Vectors::read(&path);
    change(&mut vectors);
    vectors.write(&path, Dtype::F32, f32::to_le_bytes);
    let error = place.refused(&[&FROM_FILES[..], &EUROSAT, &["--protocol", "knn"]].concat());
    std::fs::write(path, whole).unwrap();
    error
}

#[test]
fn columns_of_parquet_are_ordered_by_number_and_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.parquet");
    let read = |columns: &[(&str, f64)]| {
        let mut all = vec![("samples", Cells::Texts(vec![Some("a".to_owned()), Some("b".to_owned())]))];
        all.extend(columns.iter().map(|(name, number)| (*name, Cells::Doubles(vec![*number; 2]))));
        std::fs::write(&path, parquet_file::encode(&all)).unwrap();
        let file = ArrayFile::open(&path).map_err(|error| error.to_string())?;
        file.arrays["features"].rows(&[1]).map_err(|error| error.to_string())
    };
    let mut turned: Vec<(String, f64)> = (0..11).rev().map(|i| (format!("x{i}"), f64::from(i))).collect();
    let names = |columns: &[(String, f64)]| -> Result<Vec<f32>, String> {
        read(&columns.iter().map(|(name, number)| (name.as_str(), *number)).collect::<Vec<_>>())
    };
    assert_eq!(names(&turned), Ok((0..11_u8).map(f32::from).collect()));
    assert_eq!(read(&[("2", 2.0), ("1", 1.0)]), Ok(vec![1.0, 2.0]));
    assert_eq!(read(&[("x0", 0.0), ("label", 7.0)]), Ok(vec![0.0]));
    turned.push(("class".to_owned(), 3.0));
    let problem = names(&turned).unwrap_err();
    assert!(problem.contains("column `class` has no number"), "{problem}");
    for (columns, word) in [
        ([("x0", 0.0), ("y1", 1.0)], "found `x…` and `y…`"),
        ([("x0", 0.0), ("x2", 1.0)], "without a gap, found [0, 2]"),
        ([("x2", 0.0), ("x3", 1.0)], "without a gap, found [2, 3]"),
    ] {
        let problem = read(&columns).unwrap_err();
        assert!(problem.contains(word), "{problem}");
    }
}

#[test]
fn a_changed_byte_of_stored_numpy_arrays_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.npz");
    let mut bytes = std::fs::read(fixture("vectors/plain.npz")).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let file = ArrayFile::open(&path).unwrap();
    let number = file.arrays.values().next().unwrap().rows(&[0]).unwrap()[0];
    // The bytes of one of its numbers.
    let at = bytes.windows(4).position(|window| window == number.to_le_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let problem = ArrayFile::open(&path).err().unwrap().to_string();
    assert!(problem.contains("hecksum"), "{problem}");
}

#[test]
fn samples_are_matched_by_name_and_faults_name_them() {
    let place = Place::new();
    place.features("m-eurosat", &[]);
    let mut gone = String::new();
    let error = spoilt(&place, "test", |vectors| {
        gone = vectors.names.remove(3);
        vectors.rows.remove(3);
    });
    assert!(
        error.contains(&gone) && error.contains("1 are missing") && error.contains("test.safetensors"),
        "{error}"
    );

    let error = spoilt(&place, "test", |vectors| {
        for i in 0..9 {
            vectors.names.push(format!("stranger {i}"));
            vectors.rows.push(vectors.rows[0].clone());
        }
    });
    // A bounded number of names.
    assert!(error.contains("found: 9 (stranger 0") && error.contains("and 4 more"), "{error}");
    assert!(!error.contains("stranger 5"), "{error}");

    let error = spoilt(&place, "train", |vectors| {
        vectors.names.push(vectors.names[1].clone());
        vectors.rows.push(vectors.rows[0].clone());
        gone = vectors.names[1].clone();
    });
    assert!(error.contains(&gone) && error.contains("more rows of"), "{error}");

    let error = spoilt(&place, "train", |vectors| {
        vectors.rows[2][0] = f32::NAN;
        gone = vectors.names[2].clone();
    });
    assert!(
        error.contains(&gone) && error.contains("found NaN") && error.contains("train.safetensors"),
        "{error}"
    );

    let error = spoilt(&place, "train", |vectors| drop(vectors.names.pop()));
    assert!(error.contains("rows, one per name"), "{error}");
    let error = spoilt(&place, "train", |vectors| vectors.rows.iter_mut().for_each(|row| row.truncate(191)));
    assert!(error.contains("shape of `features`") && error.contains("[192]"), "{error}");
}

#[test]
fn the_plan_says_what_the_files_lack() {
    let place = Place::new();
    place.features("m-eurosat", &[]);
    // Tasks without features are left out; only those chosen by name stop the run.
    let said = place.bench(&[&FROM_FILES[..], &["--partition", "default", "--protocol", "knn"]].concat());
    assert!(said.contains("m-so2sat: left out, the folder has no features of it"), "{said}");
    assert!(said.contains("m-eurosat default knn seed 0: accuracy"), "{said}");
    let said = place.refused(&[&FROM_FILES[..], &["--task", "m-so2sat"]].concat());
    assert!(said.contains("no features of this task"), "{said}");
    let chosen =
        |protocol: &str| place.refused(&[&FROM_FILES[..], &EUROSAT, &["--protocol", protocol]].concat());
    assert!(chosen("finetune").contains("trains the model"));
    assert!(chosen("copernicus-linear-probe").contains("augmentation"));
    std::fs::rename(place.path("vectors/m-eurosat"), place.path("vectors/m-cashew-plant")).unwrap();
    let cashew = |protocol: &str| {
        place.refused(&[&FROM_FILES[..], &["--task", "m-cashew-plant", "--protocol", protocol]].concat())
    };
    assert!(cashew("segmentation-probe").contains("`tokens`"));
    assert!(cashew("upernet-plain").contains("4 feature maps"));
    assert!(cashew("upernet").contains("augmentation"));
    // Nothing else was read: no data are needed to say so.
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args([
            "bench",
            "geobench",
            "--features",
            "vectors",
            "--task",
            "m-cashew-plant",
            "--protocol",
            "upernet",
        ])
        .env("TERRABENCH_CACHE", demo::cache("geobench", place.path("cache")))
        .env_remove("GEO_BENCH_DIR")
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    let error = self::said(&output);
    assert!(error.contains("augmentation") && !error.contains("GEO_BENCH_DIR"), "{error}");

    let nowhere = place.refused(&["--features", "nowhere"]);
    assert!(nowhere.contains("no such folder") && nowhere.contains("<task>/<split>"), "{nowhere}");
    std::fs::create_dir_all(place.path("empty/mars")).unwrap();
    let empty = place.refused(&["--features", "empty"]);
    assert!(empty.contains("found no features") && empty.contains("mars"), "{empty}");
    for option in [["--weights", "x.pth"], ["--normalization", "dataset"], ["--model", "demo"]] {
        let error = place.refused(&[&FROM_FILES[..], &option].concat());
        assert!(error.contains("cannot be used with"), "{error}");
    }
}

#[test]
fn what_the_user_declares_is_recorded() {
    let place = Place::new();
    place.features("m-eurosat", &[]);
    let about = "name = \"Ours\"\nbackbone = \"ResNet-50\"\nweights = \"epoch 20\"\nnormalization = \"z-score\"\n\
                 bands = [\"B04\", \"B03\"]\nimage-size = 64\n";
    std::fs::write(place.path("vectors/features.toml"), about).unwrap();
    let run = [&["--features", "vectors", "--protocol", "knn"][..], &EUROSAT].concat();
    place.bench(&run);
    let records = place.records("results");
    let record = records.values().next().unwrap();
    assert_eq!((record.cell.model.as_str(), record.cell.backbone.as_str()), ("Ours", "ResNet-50"));
    let declared = &record.provenance.declared;
    assert_eq!((declared["normalization"].as_str(), declared["bands"].as_str()), ("z-score", "B04, B03"));
    assert_eq!(record.provenance.weights_setting(), "vectors:epoch 20");
    // Declarations are labels: the number and the fingerprint stay, and a change needs no computing.
    std::fs::write(place.path("vectors/features.toml"), about.replace("z-score", "min-max")).unwrap();
    assert!(place.bench(&run).contains("recorded before"));
    let relabelled = place.records("results").into_values().next().unwrap();
    assert_eq!(relabelled.provenance.declared["normalization"], "min-max");
    assert!(relabelled.notes.iter().any(|note| note.text.contains("min-max")), "{:?}", relabelled.notes);
    assert_ne!(relabelled.provenance.configs["model"], record.provenance.configs["model"]);
    assert_eq!((relabelled.value, &relabelled.fingerprint), (record.value, &record.fingerprint));
    std::fs::write(place.path("vectors/features.toml"), "nmae = \"Ours\"\n").unwrap();
    let error = place.refused(&run);
    assert!(error.contains("features.toml") && error.contains("nmae"), "{error}");
}

#[test]
fn features_under_another_name_have_one_row() {
    let place = Place::new();
    place.features("m-eurosat", &[]);
    let run = [&["--features", "vectors", "--protocol", "knn"][..], &EUROSAT].concat();
    place.bench(&[&run[..], &["--name", "First"]].concat());
    let said = place.bench(&[&run[..], &["--name", "Second"]].concat());
    assert!(said.contains("scored before as First") && said.contains("recorded before"), "{said}");
    let records = place.records("results");
    let names: Vec<&str> = records.values().map(|record| record.cell.model.as_str()).collect();
    assert_eq!(names, ["Second"]);
    let store = Store::open(place.path("results/geobench")).unwrap();
    assert!(store.predictions(records.values().next().unwrap()).unwrap().is_some());
}

#[test]
fn features_of_a_model_beside_the_model_itself_raise_no_alarm() {
    let place = Place::new();
    place.features("m-eurosat", &[]);
    let task = [&["--protocol", "knn"][..], &EUROSAT].concat();
    place.bench(&[&["--model", "demo", "--weights", "random:0"][..], &task].concat());
    let model = place.records("results").into_values().next().unwrap();
    let cell = &model.cell;
    let from_files = ["--features", "vectors", "--name", &cell.model, "--backbone", &cell.backbone];
    let said = place.bench(&[&from_files[..], &task].concat());
    let files = place.records("results").into_values().find(|record| record.provenance.is_vectors()).unwrap();
    assert_eq!(files.provenance.features, model.provenance.features);
    assert!(!said.contains("no effect"), "{said}");
}

#[test]
fn a_partition_is_warned_of_once_for_all_protocols() {
    let place = Place::new();
    place.features("m-eurosat", &[]);
    let protocols = ["--protocol", "knn", "--protocol", "logistic"];
    let said = place.bench(&[&FROM_FILES[..], &protocols, &EUROSAT].concat());
    assert_eq!(said.matches("partition default differs in size").count(), 1, "{said}");
    assert!(!said.contains("0/0"), "{said}");
}

#[test]
fn the_guards_see_features_from_files() {
    let place = Place::new();
    place.features("m-eurosat", &[]);
    for split in ["train", "valid", "test"] {
        let path = place.file("m-eurosat", split, "safetensors");
        let mut vectors = Vectors::read(&path);
        vectors.rows.iter_mut().for_each(|row| row.fill(0.5));
        vectors.write(&path, Dtype::F32, f32::to_le_bytes);
    }
    let said = place.bench(&[&FROM_FILES[..], &EUROSAT, &["--protocol", "knn"]].concat());
    assert!(said.contains("warning: constant-features"), "{said}");
    // Warnings about pixels would be about pixels that the model never saw.
    assert!(!said.contains("band-names") && !said.contains("pixel-unit"), "{said}");
}

#[test]
fn tokens_and_maps_from_files_give_the_numbers_of_the_model() {
    let place = Place::new();
    place.features("m-cashew-plant", &["--tokens", "64", "--maps"]);
    let opened = VectorFolder::open(&place.path("vectors"), ["m-cashew-plant"]).unwrap();
    let task = opened.task("m-cashew-plant").unwrap();
    let test = task.split(Split::Test).unwrap();
    assert!(test.has_tokens() && test.has_features());
    assert_eq!(task.map_levels().iter().map(|level| level.stride).collect::<Vec<_>>(), [16; 4]);

    let folder = place.folder.path();
    let upernet = changed_protocol(
        "upernet-plain",
        folder,
        &[
            ("epochs = 50 ", "epochs = 1 "),
            ("batch-size = 16 ", "batch-size = 2 "),
            ("channels = 512", "channels = 8"),
            ("auxiliary-channels = 256", "auxiliary-channels = 4"),
        ],
    );
    let protocols = ["--protocol", "segmentation-probe", "--protocol", &upernet];
    let short = ["--epochs", "1", "--learning-rates", "1e-2", "--limit", "6", "--task", "m-cashew-plant"];
    let cells = [&protocols[..], &short, &["--partition", "default", "--out"]].concat();
    place.bench(&[&["--model", "demo", "--weights", "random:0"][..], &cells, &["native"]].concat());
    place.bench(&[&FROM_FILES[..], &cells, &["files"]].concat());
    assert_eq!(assert_same_numbers(&place, "native", "files"), 2);
    // Predicted masks are shown beside images, although no model names the bands.
    let store = Store::open(place.path("files/geobench")).unwrap();
    for record in place.records("files").values() {
        assert!(std::fs::read(store.sheet(record)).unwrap().starts_with(b"\x89PNG"), "{:?}", record.cell);
    }
}
