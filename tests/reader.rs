//! The GEO-Bench reader: golden values on real pixels, and its messages about damaged data.

use std::path::{Path, PathBuf};

use crate::common;
use hdf5_pure::{AttrValue, DatatypeByteOrder, FileBuilder, FixedPointLayout};
use serde_json::Value;
use terrabench::cli::inspect;
use terrabench::data::fingerprint::{self, Source};
use terrabench::data::geobench::Geobench;
use terrabench::data::{self, Dataset, Split, Target};
use terrabench::home::Home;
use terrabench::task::{Suite, TargetKind, Task};

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "geobench").unwrap()
}

/// What the official package read, one entry per dataset, and the folder of the files if it exists.
fn golden() -> Option<(serde_json::Map<String, Value>, PathBuf)> {
    let Some(real) = common::real() else {
        eprintln!("skipped: no real pixels (set TERRABENCH_REAL)");
        return None;
    };
    let text = std::fs::read_to_string(common::fixture("e2e/reader.json")).unwrap();
    let golden: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(golden.len(), 6);
    Some((golden, real.join("geobench")))
}

/// Asserts equality except for the last bits of `mean`.
fn assert_same(found: &Value, expected: &Value, key: &str, context: &str) {
    if key != "mean" {
        assert_eq!(found, expected, "{context}: {key}");
        return;
    }
    let (found, expected) = (found.as_array().unwrap(), expected.as_array().unwrap());
    assert_eq!(found.len(), expected.len(), "{context}");
    for (found, expected) in found.iter().zip(expected) {
        let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{context}: mean {found}, not {expected}");
    }
}

#[test]
fn every_value_equals_the_official_packages() {
    let Some((golden, root)) = golden() else { return };
    let suite = suite();
    for (name, expected) in &golden {
        let task = suite.task(name).unwrap();
        assert_eq!(task.directory, Path::new(expected["benchmark"].as_str().unwrap()).join(name));
        assert_eq!(task.classes as u64, expected["n_classes"].as_u64().unwrap());
        assert_eq!(task.image_size as u64, expected["patch_size"][0].as_u64().unwrap());
        let dataset = data::open(&suite, task, &root, "default").unwrap();
        let mut out = Vec::new();
        inspect::print(&*dataset, task, &Split::ALL, true, &mut out).unwrap();
        let samples = expected["samples"].as_array().unwrap();
        let lines: Vec<&str> = std::str::from_utf8(&out).unwrap().lines().collect();
        assert_eq!(lines.len(), samples.len(), "{name}");
        for (line, expected_sample) in lines.iter().zip(samples) {
            let found: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
            let context = format!("{name}, {}", expected_sample["name"]);
            let expected_sample = expected_sample.as_object().unwrap();
            for (key, value) in expected_sample {
                assert_same(&found[key], value, key, &context);
            }
            assert_eq!(found["bands"], expected["bands"], "{context}");
            let known = |key: &&String| *key != "bands" && !expected_sample.contains_key(*key);
            assert_eq!(found.keys().find(known), None, "{context}");
        }
    }
}

#[test]
fn every_partition_has_its_samples() {
    let Some((golden, root)) = golden() else { return };
    let suite = suite();
    for (name, expected) in &golden {
        let partitions = expected["partition_sizes"].as_object().unwrap();
        assert_eq!(partitions.len(), 9);
        for (partition, sizes) in partitions {
            let dataset = data::open(&suite, suite.task(name).unwrap(), &root, partition).unwrap();
            let found = Split::ALL.map(|split| dataset.samples(split).len());
            assert_eq!(serde_json::to_value(found).unwrap(), *sizes, "{name}, {partition}");
        }
    }
}

/// `read` returns the requested bands in the requested order, in digital numbers.
#[test]
fn images_contain_the_requested_bands_scaled() {
    let Some((golden, root)) = golden() else { return };
    let suite = suite();
    for (name, expected) in &golden {
        let task = suite.task(name).unwrap();
        let dataset = data::open(&suite, task, &root, "default").unwrap();
        let stored: Vec<&str> =
            expected["bands"].as_array().unwrap().iter().map(|band| band[0].as_str().unwrap()).collect();
        let mut present = dataset.bands().unwrap().remove(0);
        present.sort();
        let mut sorted = stored.clone();
        sorted.sort_unstable();
        assert_eq!(present, sorted, "{name}");

        // In reverse order, and one band twice, as imputation requests it.
        let order: Vec<usize> = (0..stored.len()).rev().chain([0]).collect();
        let wanted: Vec<String> = order.iter().map(|band| stored[*band].to_owned()).collect();
        let mut samples = expected["samples"].as_array().unwrap().iter();
        for split in Split::ALL {
            for index in 0..dataset.samples(split).len() {
                let expected = samples.next().unwrap();
                let sample = dataset.read(split, index, std::slice::from_ref(&wanted)).unwrap();
                let pixels = &sample.images[0].pixels;
                assert_eq!(sample.name, expected["name"].as_str().unwrap());
                assert_eq!(pixels.dim(), (wanted.len(), task.image_size, task.image_size));
                for (place, band) in order.iter().enumerate() {
                    for (key, row, column) in [("p0_0", 0, 0), ("p5_7", 5, 7)] {
                        let stored = expected[key][*band].as_f64().unwrap() as f32;
                        assert_eq!(pixels[[place, row, column]], stored * task.scale, "{name}, {key}");
                    }
                    let mean = pixels.index_axis(ndarray::Axis(0), place).mapv(f64::from).mean().unwrap();
                    let stored = expected["mean"][*band].as_f64().unwrap() * f64::from(task.scale);
                    assert!(
                        (mean - stored).abs() <= 1e-6 * stored.abs(),
                        "{name}: mean {mean}, not {stored}"
                    );
                }
                match (&sample.target, task.target) {
                    (Target::Class(class), TargetKind::Class) => assert_eq!(expected["label"], *class),
                    (Target::Labels(applies), TargetKind::Labels) => {
                        let ones: Vec<u8> = applies.iter().map(|applies| u8::from(*applies)).collect();
                        assert_eq!(expected["label"], serde_json::to_value(ones).unwrap());
                    }
                    (Target::Mask(mask), TargetKind::Mask) => {
                        assert_eq!(expected["mask"][3], mask[[5, 7]]);
                    }
                    (label, kind) => panic!("{name}: {label:?} for {kind:?}"),
                }
            }
        }
    }
}

#[test]
fn statistics_are_scaled_like_the_pixels() {
    let Some((golden, root)) = golden() else { return };
    let suite = suite();
    for name in golden.keys() {
        let task = suite.task(name).unwrap();
        let text = std::fs::read_to_string(root.join(&task.directory).join("band_stats.json")).unwrap();
        let stored: Value = serde_json::from_str(&text).unwrap();
        let dataset = data::open(&suite, task, &root, "default").unwrap();
        let bands = ["04 - Red", "02 - Blue"].map(str::to_owned);
        let statistics = dataset.statistics(0, &bands).unwrap();
        for (band, found) in bands.iter().zip(statistics) {
            let scaled = |key: &str| stored[band][key].as_f64().unwrap() * f64::from(task.scale);
            assert_eq!((found.mean, found.std), (scaled("mean"), scaled("std")), "{name}, {band}");
        }
        let error = dataset.statistics(0, &["13 - None".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("band_stats.json") && error.contains("02 - Blue"), "{error}");
    }
}

/// The summary that `inspect` prints for people.
#[test]
fn the_summary_adds_up() {
    let Some((golden, root)) = golden() else { return };
    let suite = suite();
    let task = suite.task("m-eurosat").unwrap();
    let dataset = data::open(&suite, task, &root, "default").unwrap();
    let mut out = Vec::new();
    inspect::print(&*dataset, task, &Split::ALL, false, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let row = |start: &str| -> Vec<&str> {
        let line =
            text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
        line[start.len()..].split_whitespace().collect()
    };
    assert_eq!(row("train"), ["72", "2000"]);
    let samples = golden["m-eurosat"]["samples"].as_array().unwrap();
    let count = |class: usize, split: &str| {
        samples
            .iter()
            .filter(|sample| sample["label"] == class && sample["split"] == split)
            .count()
            .to_string()
    };
    for class in 0..10 {
        let expected = ["train", "valid", "test"].map(|split| count(class, split));
        assert_eq!(row(&format!("{class}   ")), expected, "class {class}");
    }
    // The mean over all images of the same size is the mean of their means.
    let mean: f64 =
        samples.iter().map(|sample| sample["mean"][1].as_f64().unwrap()).sum::<f64>() / samples.len() as f64;
    let blue = row("02 - Blue");
    assert_eq!(blue[..4], ["int16", "64", "x", "64"]);
    assert!((blue[4].parse::<f64>().unwrap() - mean).abs() < 1e-3, "{blue:?}");
    // band_stats.json covers only the train split; here are all splits, so only the order of magnitude agrees.
    let std: f64 = blue[5].parse().unwrap();
    assert!(std > 500.0 && std < 5000.0, "{std}");
}

// The tests below create their own files.

/// A GEO-Bench folder with one task.
struct Made {
    root: tempfile::TempDir,
    task: Task,
}

/// A pickled dictionary with the already pickled `label`, in the form of the files' attribute.
fn pickled(label: &[u8]) -> String {
    let mut bytes = b"\x80\x04}\x8c\x05label".to_vec();
    bytes.extend(label);
    bytes.extend(b"s.");
    let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("b'{escaped}'")
}

/// A file with two bands of 2 x 3 pixels and class 2.
fn good() -> FileBuilder {
    with_pickle(&pickled(b"K\x02"))
}

/// The same file with this text as its attribute.
fn with_pickle(text: &str) -> FileBuilder {
    with_attribute(AttrValue::VarLenString(text.to_owned()))
}

fn with_attribute(pickle: AttrValue) -> FileBuilder {
    let mut file = FileBuilder::new();
    file.create_dataset("01 - A").with_i16_data(&[1, -2, 3, 4, 5, 6]).with_shape(&[2, 3]);
    file.create_dataset("02 - B_2019-11-05")
        .with_f32_data(&[0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
        .with_shape(&[2, 3]);
    file.set_attr("pickle", pickle);
    file
}

impl Made {
    /// The classification task m-eurosat with the single sample `one` in train.
    fn new(file: FileBuilder) -> Self {
        Made::of("m-eurosat", file)
    }

    fn of(task: &str, file: FileBuilder) -> Self {
        let made = Made { root: tempfile::tempdir().unwrap(), task: suite().task(task).unwrap().clone() };
        std::fs::create_dir_all(made.folder()).unwrap();
        made.partition(r#"{"train": ["one"], "valid": [], "test": []}"#);
        std::fs::write(made.sample("one"), file.finish().unwrap()).unwrap();
        made
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join(&self.task.directory)
    }

    fn sample(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.hdf5"))
    }

    fn partition(&self, text: &str) {
        std::fs::write(self.folder().join("default_partition.json"), text).unwrap();
    }

    fn open(&self) -> terrabench::Result<Geobench> {
        Geobench::open(&suite(), &self.task, self.root.path(), "default")
    }

    fn read(&self, bands: &[&str]) -> terrabench::Result<data::Sample> {
        let bands: Vec<String> = bands.iter().map(|band| (*band).to_owned()).collect();
        self.open()?.read(Split::Train, 0, &[bands])
    }

    /// The error message of reading band 01, which must name the sample's file.
    fn error(&self) -> String {
        let error = self.read(&["01 - A"]).expect_err("this should not be read").to_string();
        assert!(error.contains("one.hdf5"), "{error}");
        error
    }
}

#[test]
fn dates_are_stripped_from_band_names() {
    let made = Made::new(good());
    let dataset = made.open().unwrap();
    assert_eq!(dataset.bands().unwrap(), [["01 - A", "02 - B"]]);
    let sample = made.read(&["02 - B", "01 - A"]).unwrap();
    assert_eq!(sample.name, "one");
    assert_eq!(sample.target, Target::Class(2));
    let pixels: Vec<f32> = sample.images[0].pixels.iter().copied().collect();
    assert_eq!(pixels, [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 1.0, -2.0, 3.0, 4.0, 5.0, 6.0]);

    let mut two_dates = good();
    two_dates.create_dataset("02 - B_2019-12-05").with_f32_data(&[0.0; 6]).with_shape(&[2, 3]);
    let error = Made::new(two_dates).read(&["02 - B"]).unwrap_err().to_string();
    assert!(error.contains("2019-11-05") && error.contains("2019-12-05"), "{error}");
}

#[test]
fn every_dtype_and_storage_is_read() {
    let mut file = good();
    file.create_dataset("i1").with_i8_data(&[-128, 127]).with_shape(&[1, 2]);
    file.create_dataset("i2").with_i16_data(&[-32768, 32767]).with_shape(&[1, 2]);
    file.create_dataset("i4").with_i32_data(&[-70000, 70000]).with_shape(&[1, 2]);
    file.create_dataset("i8").with_i64_data(&[-1, 1 << 40]).with_shape(&[1, 2]);
    file.create_dataset("u1").with_u8_data(&[0, 255]).with_shape(&[1, 2]);
    file.create_dataset("u2").with_u16_data(&[0, 65535]).with_shape(&[1, 2]);
    file.create_dataset("u4").with_u32_data(&[0, 1 << 31]).with_shape(&[1, 2]);
    file.create_dataset("u8").with_u64_data(&[0, 1 << 63]).with_shape(&[1, 2]);
    file.create_dataset("f4").with_f32_data(&[0.1, -1e30]).with_shape(&[1, 2]);
    file.create_dataset("f8").with_f64_data(&[0.1, -1e30]).with_shape(&[1, 2]);
    let big_endian = hdf5_pure::Datatype::FixedPoint {
        size: 2,
        byte_order: DatatypeByteOrder::BigEndian,
        layout: FixedPointLayout { signed: true, bit_offset: 0, bit_precision: 16 },
    };
    file.create_dataset("swapped")
        .with_raw_data(big_endian, vec![0x01, 0x02, 0xff, 0xfe], 2)
        .with_shape(&[1, 2]);
    file.create_dataset("packed")
        .with_i16_data(&[300, -300])
        .with_shape(&[1, 2])
        .with_chunks(&[1, 1])
        .with_shuffle()
        .with_deflate(6);
    let made = Made::new(file);
    let sample = made.open().unwrap().read_raw(Split::Train, 0).unwrap();
    let expected = [
        ("i1", "int8", [-128.0, 127.0]),
        ("i2", "int16", [-32768.0, 32767.0]),
        ("i4", "int32", [-70000.0, 70000.0]),
        ("i8", "int64", [-1.0, 1_099_511_627_776.0]),
        ("u1", "uint8", [0.0, 255.0]),
        ("u2", "uint16", [0.0, 65535.0]),
        ("u4", "uint32", [0.0, 2_147_483_648.0]),
        ("u8", "uint64", [0.0, 9_223_372_036_854_775_808.0]),
        ("f4", "float32", [f64::from(0.1_f32), f64::from(-1e30_f32)]),
        ("f8", "float64", [0.1, -1e30]),
        ("swapped", "int16", [258.0, -2.0]),
        ("packed", "int16", [300.0, -300.0]),
    ];
    for (name, dtype, pixels) in expected {
        let band = sample.images[0].bands.iter().find(|band| band.name == name).unwrap();
        assert_eq!(band.dtype, dtype);
        assert_eq!(band.pixels.iter().copied().collect::<Vec<_>>(), pixels, "{name}");
        let image = made.read(&[name]).unwrap().images.remove(0).pixels;
        assert_eq!(image.iter().copied().collect::<Vec<_>>(), pixels.map(|pixel| pixel as f32), "{name}");
    }
}

#[test]
fn labels_of_every_form_are_read_and_checked() {
    let read = |task: &str, label: &[u8]| {
        let made = Made::of(task, with_pickle(&pickled(label)));
        made.read(&["01 - A"]).map(|sample| sample.target).map_err(|error| error.to_string())
    };
    // A list of 43 numbers, of which the second is `one`.
    let list = |one: &[u8], length: usize| {
        let mut label = b"(K\x00".to_vec();
        label.extend(one);
        label.extend(b"K\x00".repeat(length - 2));
        label.push(b'l');
        label
    };

    assert_eq!(read("m-eurosat", b"K\x09"), Ok(Target::Class(9)));
    assert_eq!(read("m-eurosat", b"M\x09\x00\x85"), Ok(Target::Class(9)));
    for (label, found) in [
        (&b"K\x0a"[..], "class 10"),
        (b"J\xff\xff\xff\xff", "class -1"),
        (b"N", "None"),
        (b"\x8c\x01x", "string"),
        (b"K\x01K\x02\x86", "tuple of 2"),
        (b"G\x3f\xf8\x00\x00\x00\x00\x00\x00", "float 1.5"),
        (b"cos\nsystem\n\x8c\x02ls\x85R", "os.system"),
    ] {
        let error = read("m-eurosat", label).unwrap_err();
        assert!(error.contains(found) && error.contains("a class from 0 to 9"), "{error}");
        assert!(error.contains("one.hdf5") && error.contains("help:"), "{error}");
    }

    let Ok(Target::Labels(applies)) = read("m-bigearthnet", &list(b"K\x01", 43)) else { panic!("no list") };
    assert_eq!(applies.iter().filter(|applies| **applies).count(), 1);
    assert!(applies[1] && applies.len() == 43);
    assert!(read("m-bigearthnet", &list(b"\x88", 43)).is_ok());
    for label in [list(b"K\x01", 42), list(b"K\x02", 43), b"K\x01".to_vec()] {
        let error = read("m-bigearthnet", &label).unwrap_err();
        assert!(error.contains("a list of 43 zeros and ones"), "{error}");
    }
    let error = read("m-cashew-plant", b"K\x01").unwrap_err();
    assert!(error.contains("a mask of classes from 0 to 6"), "{error}");

    assert!(Made::new(with_pickle(r"b'\x80\x04}.'")).error().contains("no `label`"));
    for (text, message) in [("b'\\x80\\x04}", "bytes literal"), ("b'\\x80\\x04'", "pickle at byte 2")] {
        assert!(Made::new(with_pickle(text)).error().contains(message));
    }
    let mut bare = FileBuilder::new();
    bare.create_dataset("01 - A").with_i16_data(&[1, 2]).with_shape(&[1, 2]);
    assert!(Made::new(bare).error().contains("no string attribute `pickle`"));
}

#[test]
fn masks_are_checked_pixel_by_pixel() {
    let with_mask = |name: &str, classes: &[i16]| {
        let mut file = good();
        file.create_dataset(name).with_i16_data(classes).with_shape(&[2, 3]);
        Made::of("m-cashew-plant", file)
    };
    for name in ["label", "label_2019-11-05"] {
        let made = with_mask(name, &[0, 6, -1, -1, 3, 3]);
        let Target::Mask(mask) = made.read(&["01 - A"]).unwrap().target else { panic!("no mask") };
        assert_eq!(mask, ndarray::array![[0, 6, -1], [-1, 3, 3]]);
        assert_eq!(made.open().unwrap().bands().unwrap(), [["01 - A", "02 - B"]]);
        // Ignored pixels belong to no class.
        let mut out = Vec::new();
        inspect::print(&made.open().unwrap(), &made.task, &[Split::Train], true, &mut out).unwrap();
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["label"], serde_json::json!([1, 0, 0, 2, 0, 0, 1]));
        assert_eq!(line["mask"], serde_json::json!(["int16", [2, 3], 0, null]));
        assert_eq!(line["p5_7"], serde_json::json!([null, null]));
    }
    // 255 marks ignored pixels in another suite.
    for wrong in [7, -2, 254, 255, 256] {
        let error = with_mask("label", &[0, 0, 0, 0, 0, wrong]).error();
        assert!(error.contains(&format!("a mask that contains {wrong}")), "{error}");
    }
    let mut fractional = good();
    fractional.create_dataset("label").with_f32_data(&[0.0, 0.5]).with_shape(&[1, 2]);
    assert!(Made::of("m-cashew-plant", fractional).error().contains("a mask that contains 0.5"));
}

#[test]
fn pixels_that_are_not_finite_are_refused() {
    for (pixel, written) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut file = FileBuilder::new();
        file.create_dataset("01 - A").with_f32_data(&[0.0, 1.0, 2.0, 3.0, 4.0, pixel]).with_shape(&[2, 3]);
        file.set_attr("pickle", AttrValue::VarLenString(pickled(b"K\x02")));
        let made = Made::new(file);
        let error = made.error();
        assert!(error.contains(&format!("`01 - A`: the pixel at row 1, column 2 is {written}")), "{error}");
        // `inspect` shows the file as it is.
        let raw = made.open().unwrap().read_raw(Split::Train, 0).unwrap();
        assert!(!raw.images[0].bands[0].pixels[[1, 2]].is_finite());
        let mut out = Vec::new();
        inspect::print(&made.open().unwrap(), &made.task, &[Split::Train], false, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("1 pixels are not finite"));
    }
}

#[test]
fn missing_and_mismatched_bands_are_named() {
    let error = Made::new(good()).read(&["01 - A", "03 - C"]).unwrap_err().to_string();
    assert!(error.contains("no band `03 - C`") && error.contains("01 - A, 02 - B"), "{error}");

    let mut uneven = good();
    uneven.create_dataset("03 - C").with_i16_data(&[1, 2, 3, 4]).with_shape(&[2, 2]);
    let error = Made::new(uneven).read(&["01 - A", "03 - C"]).unwrap_err().to_string();
    assert!(error.contains("`03 - C`") && error.contains("2 x 2") && error.contains("2 x 3"), "{error}");

    let mut flat = good();
    flat.create_dataset("03 - C").with_i16_data(&[1, 2, 3, 4]);
    let error = Made::new(flat).read(&["03 - C"]).unwrap_err().to_string();
    assert!(error.contains("rows and columns"), "{error}");

    let mut words = good();
    words.create_dataset("03 - C").with_strings(&["a", "b"]).unwrap().with_shape(&[1, 2]);
    let error = Made::new(words).read(&["03 - C"]).unwrap_err().to_string();
    assert!(error.contains("`03 - C`"), "{error}");

    let error = Made::new(good()).read(&[]).unwrap_err().to_string();
    assert!(error.contains("no band"), "{error}");
}

#[test]
fn damaged_files_are_named() {
    let made = Made::new(good());
    let whole = std::fs::read(made.sample("one")).unwrap();
    for end in [0, 1, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(made.sample("one"), &whole[..end]).unwrap();
        made.error();
    }
    assert!(made.error().contains("truncated"));
    std::fs::write(made.sample("one"), b"this is no HDF5 file, but long enough to look for a signature")
        .unwrap();
    made.error();
    std::fs::remove_file(made.sample("one")).unwrap();
    let error = made.error();
    assert!(error.contains("default_partition.json") && error.contains("train"), "{error}");
    std::fs::create_dir(made.sample("one")).unwrap();
    made.error();
}

/// A file with some bytes changed gives an error or a sample, never a panic.
#[test]
fn damaged_bytes_never_panic() {
    let made = Made::new(good());
    let whole = std::fs::read(made.sample("one")).unwrap();
    let dataset = made.open().unwrap();
    for place in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[place] ^= if place % 2 == 0 { 0x01 } else { 0xff };
        std::fs::write(made.sample("one"), &damaged).unwrap();
        let _ = dataset.read(Split::Train, 0, &[vec!["01 - A".to_owned(), "02 - B".to_owned()]]);
        let _ = dataset.read_raw(Split::Train, 0);
    }
}

#[test]
fn damaged_partitions_are_named() {
    let made = Made::new(good());
    for name in ["../one", "a/one", "/etc/passwd", "..", ".", "", "a\\\\b", "one/"] {
        made.partition(&format!(r#"{{"train": ["{name}"], "valid": [], "test": []}}"#));
        let error = made.open().unwrap_err().to_string();
        assert!(error.contains("default_partition.json"), "{name}: {error}");
        assert!(error.contains("not a plain file name"), "{name}: {error}");
    }
    for text in ["", "{", r#"{"train": []}"#, r#"{"train": [1], "valid": [], "test": []}"#, "[]"] {
        made.partition(text);
        let error = made.open().unwrap_err().to_string();
        assert!(error.contains("default_partition.json"), "{text}: {error}");
    }
    made.partition(r#"{"train": ["one"], "valid": [], "test": []}"#);
    let dataset = made.open().unwrap();
    let error = dataset.read(Split::Test, 0, &[vec!["01 - A".to_owned()]]).unwrap_err().to_string();
    assert!(error.contains("test has 0 samples"), "{error}");
    made.partition(r#"{"train": [], "valid": [], "test": []}"#);
    assert!(made.open().unwrap().bands().unwrap_err().to_string().contains("no sample"));
}

#[test]
fn missing_data_is_reported_with_a_remedy() {
    let made = Made::new(good());
    let suite = suite();
    std::fs::write(made.folder().join("0.01x_train_partition.json"), "{}").unwrap();
    for partition in ["0.33x_train", "../default", ""] {
        let error = Geobench::open(&suite, &made.task, made.root.path(), partition).unwrap_err().to_string();
        assert!(error.contains("available partitions: 0.01x_train, default"), "{error}");
    }
    let other = suite.task("m-so2sat").unwrap();
    let error = Geobench::open(&suite, other, made.root.path(), "default").unwrap_err().to_string();
    for part in [
        "m-so2sat",
        "recursix/geo-bench-1.0",
        "geobench",
        "GEO_BENCH_DIR",
        "cargo xtask bench geobench --demo",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = made.open().unwrap().statistics(0, &["01 - A".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("band_stats.json"), "{error}");
    let constant = r#"{"01 - A": {"mean": 1.0, "std": 0.0}}"#;
    std::fs::write(made.folder().join("band_stats.json"), constant).unwrap();
    let error = made.open().unwrap().statistics(0, &["01 - A".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("standard deviation 0"), "{error}");
}

#[test]
fn the_data_folder_may_be_named_in_several_ways() {
    let made = Made::new(good());
    let (suite, task, root) = (suite(), &made.task, made.root.path());
    assert!(Geobench::open(&suite, task, &root.join("classification_v1.0"), "default").is_ok());
    for usual in ["geobench", "geo-bench-1.0"] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(usual).join(&task.directory);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(made.folder().join("default_partition.json"), folder.join("default_partition.json"))
            .unwrap();
        assert!(Geobench::open(&suite, task, parent.path(), "default").is_ok());
    }
}

#[test]
fn a_fingerprint_follows_names_and_contents() {
    let folder = tempfile::tempdir().unwrap();
    let memo = folder.path().join("memo");
    let source = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Source { name: name.to_owned(), path }
    };
    let sources = vec![source("a", "first"), source("b", "second")];
    let of = |sources: &[Source]| fingerprint::of_files(sources, Some(&memo)).unwrap();
    let first = of(&sources);
    assert_eq!(first.len(), 64);
    assert_eq!(of(&sources), first);
    assert_eq!(fingerprint::of_files(&sources, None).unwrap(), first);
    // Files with unchanged metadata are not read again: that is the purpose of the memo.
    let memos: Vec<_> = std::fs::read_dir(&memo).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [known] = &memos[..] else { panic!("{memos:?}") };
    let remembered = std::fs::read_to_string(known).unwrap();
    let others =
        [blake3::hash(b"x").to_hex().to_string(), blake3::hash(b"y").to_hex().to_string()].join("\n");
    std::fs::write(known, format!("{others}\n{}\n", blake3::hash(others.as_bytes()).to_hex())).unwrap();
    assert_ne!(of(&sources), first);
    std::fs::write(known, remembered).unwrap();
    assert_eq!(of(&sources), first);

    // Order and names matter, the location of the files does not.
    let swapped = [sources[1].clone(), sources[0].clone()];
    assert_ne!(of(&swapped), first);
    let renamed = [Source { name: "c".to_owned(), ..sources[0].clone() }, sources[1].clone()];
    assert_ne!(of(&renamed), first);
    let moved = folder.path().join("moved");
    std::fs::copy(&sources[0].path, &moved).unwrap();
    assert_eq!(of(&[Source { path: moved, ..sources[0].clone() }, sources[1].clone()]), first);

    let modified = std::fs::metadata(&sources[0].path).unwrap().modified().unwrap();
    let rewrite = |text: &str, at: std::time::SystemTime| {
        std::fs::write(&sources[0].path, text).unwrap();
        std::fs::File::options().write(true).open(&sources[0].path).unwrap().set_modified(at).unwrap();
    };
    // Changed in place, with the same length and its modification time set back.
    rewrite("FIRST", modified);
    if cfg!(unix) {
        assert_ne!(of(&sources), first);
    }
    assert_ne!(fingerprint::of_files(&sources, None).unwrap(), first);
    // Any other time, even before 1970, or another length reveals the change.
    rewrite("First", std::time::UNIX_EPOCH - std::time::Duration::from_secs(5));
    let second = of(&sources);
    assert_ne!(second, first);
    rewrite("longer", modified);
    assert!(![first.as_str(), &second].contains(&of(&sources).as_str()));

    // A damaged memo is detected and rewritten.
    for damage in ["", "zz", "abc\n"] {
        let good = of(&sources);
        for entry in std::fs::read_dir(&memo).unwrap() {
            std::fs::write(entry.unwrap().path(), damage).unwrap();
        }
        assert_eq!(of(&sources), good);
    }
    // A memo that cannot be stored costs only time.
    assert_eq!(fingerprint::of_files(&sources, Some(&sources[1].path)).unwrap(), of(&sources));

    std::fs::remove_file(&sources[0].path).unwrap();
    let error = fingerprint::of_files(&sources, None).unwrap_err().to_string();
    assert!(error.contains(sources[0].path.to_str().unwrap()), "{error}");
}

/// A fingerprint covers the samples of the requested splits, in order, and the statistics.
#[test]
fn a_dataset_has_a_fingerprint() {
    const NAME: &str = "reader::a_dataset_has_a_fingerprint";
    // The memos go to the cache folder, which only the environment can set, so this test runs itself again.
    if std::env::var_os("TERRABENCH_CACHE").is_none() {
        let cache = tempfile::tempdir().unwrap();
        let again = std::env::current_exe().unwrap();
        let status = std::process::Command::new(again)
            .args(["--exact", NAME])
            .env("TERRABENCH_CACHE", cache.path())
            .status()
            .unwrap();
        assert!(status.success());
        assert!(std::fs::read_dir(cache.path().join("fingerprints")).unwrap().count() > 0);
        return;
    }
    let made = Made::new(good());
    std::fs::copy(made.sample("one"), made.sample("two")).unwrap();
    let error = made.open().unwrap().fingerprint(&[Split::Train]).unwrap_err().to_string();
    assert!(error.contains("band_stats.json"), "{error}");
    std::fs::write(made.folder().join("band_stats.json"), "{}").unwrap();
    let of = |partition: &str, splits: &[Split]| {
        made.partition(partition);
        made.open().unwrap().fingerprint(splits).unwrap()
    };
    let both = r#"{"train": ["one", "two"], "valid": [], "test": ["one"]}"#;
    let first = of(both, &[Split::Train, Split::Test]);
    assert_eq!(of(both, &[Split::Train, Split::Test]), first);
    assert_ne!(of(both, &[Split::Train]), first);
    assert_ne!(
        of(r#"{"train": ["two", "one"], "valid": [], "test": ["one"]}"#, &[Split::Train, Split::Test]),
        first
    );
    assert_ne!(
        of(r#"{"train": ["one"], "valid": [], "test": ["two", "one"]}"#, &[Split::Train, Split::Test]),
        first
    );
    std::fs::write(made.folder().join("band_stats.json"), "{ }").unwrap();
    assert_ne!(of(both, &[Split::Train, Split::Test]), first);
}

/// Both libraries read the same names, types, shapes, numbers and attributes from every real file.
#[cfg(feature = "libhdf5")]
#[test]
fn libhdf5_reads_the_same() {
    use terrabench::formats::hdf5::{File, Library};

    let Some((golden, root)) = golden() else { return };
    let suite = suite();
    let mut files = 0;
    for name in golden.keys() {
        let task = suite.task(name).unwrap();
        for entry in std::fs::read_dir(root.join(&task.directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "hdf5") {
                continue;
            }
            files += 1;
            let pure = File::open(&path, Library::Pure).unwrap();
            let original = File::open(&path, Library::Libhdf5).unwrap();
            assert_eq!(
                pure.string_attribute("pickle").unwrap(),
                original.string_attribute("pickle").unwrap()
            );
            let (pure, original) = (pure.datasets().unwrap(), original.datasets().unwrap());
            assert_eq!(pure.len(), original.len(), "{}", path.display());
            for pure in &pure {
                let original = original.iter().find(|other| other.name() == pure.name()).unwrap();
                assert_eq!(pure.dtype().unwrap(), original.dtype().unwrap());
                assert_eq!(pure.shape().unwrap(), original.shape().unwrap());
                let (mut ours, mut theirs) = (Vec::<f64>::new(), Vec::<f64>::new());
                pure.append_to(&mut ours).unwrap();
                original.append_to(&mut theirs).unwrap();
                assert_eq!(ours, theirs, "{}: {}", path.display(), pure.name());
                let (mut ours, mut theirs) = (Vec::<f32>::new(), Vec::<f32>::new());
                pure.append_to(&mut ours).unwrap();
                original.append_to(&mut theirs).unwrap();
                assert_eq!(ours, theirs, "{}: {}", path.display(), pure.name());
            }
        }
    }
    assert!(files > 300, "{files} files");
}

/// Both libraries read every kind of string that may contain the pickle in the same way.
#[cfg(feature = "libhdf5")]
#[test]
fn libhdf5_reads_every_kind_of_string() {
    use terrabench::formats::hdf5::{File, Library};

    for (attribute, text) in [
        (AttrValue::VarLenString("text é".to_owned()), "text é"),
        (AttrValue::VarLenAsciiString("text".to_owned()), "text"),
        (AttrValue::String("text é".to_owned()), "text é"),
        (AttrValue::AsciiString("text".to_owned()), "text"),
    ] {
        let made = Made::new(with_attribute(attribute));
        for library in [Library::Pure, Library::Libhdf5] {
            let file = File::open(&made.sample("one"), library).unwrap();
            assert_eq!(file.string_attribute("pickle").unwrap(), text, "{library:?}");
        }
    }
}
