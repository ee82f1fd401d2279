//! Files found in practice: HDF5 from other writers (`fixtures/hdf5/make.py`), lists with a byte-order mark, archives from
//! other tools, JSON with NaN.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{self, demo};
use hdf5_pure::{Datatype, DatatypeByteOrder, FileBuilder, FixedPointLayout, FloatingPointLayout};
use terrabench::data::{self, Dataset, RawSample, Split, Target};
use terrabench::home::Home;
use terrabench::task::Suite;
use tiff::encoder::TiffEncoder;
use tiff::encoder::colortype::Gray16;

const A: [f32; 6] = [1.0, -2.0, 3.0, 4.0, 5.0, 6.0];
const B: [f32; 6] = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5];

fn open(suite: &str, task: &str, root: &Path) -> terrabench::Result<Box<dyn Dataset>> {
    let suite = Suite::load(&Home::find().unwrap(), suite)?;
    data::open(&suite, suite.task(task)?, root, "default")
}

/// A folder in which a file of `fixtures/hdf5` is the only sample of m-eurosat.
struct Sample(tempfile::TempDir);

impl Sample {
    fn of(fixture: &str) -> Self {
        let sample = Sample(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(sample.folder()).unwrap();
        let partition = r#"{"train": ["one"], "valid": [], "test": []}"#;
        std::fs::write(sample.folder().join("default_partition.json"), partition).unwrap();
        let file = common::fixture("hdf5").join(format!("{fixture}.h5"));
        std::fs::copy(file, sample.folder().join("one.hdf5")).unwrap();
        sample
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("classification_v1.0/m-eurosat")
    }

    fn open(&self) -> Box<dyn Dataset> {
        open("geobench", "m-eurosat", self.0.path()).unwrap()
    }

    fn read(&self, band: &str) -> terrabench::Result<data::Sample> {
        self.open().read(Split::Train, 0, &[vec![band.to_owned()]])
    }

    fn raw(&self) -> RawSample {
        self.open().read_raw(Split::Train, 0).unwrap()
    }
}

fn pixels(sample: &data::Sample) -> Vec<f32> {
    sample.images[0].pixels.iter().copied().collect()
}

#[test]
fn hdf5_that_h5py_reads_is_read() {
    let files = [
        "plain",
        "soft-links",
        "soft-links-latest",
        "soft-link-beside-latest",
        "jammed",
        "user-block",
        "user-block-jammed",
        "scalars",
    ];
    for file in files {
        let sample = Sample::of(file);
        for (band, expected) in [("01 - A", A), ("02 - B", B)] {
            let found = sample.read(band).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(pixels(&found), expected, "{file}, {band}");
            assert_eq!(found.target, Target::Class(2), "{file}");
        }
        let raw = sample.raw();
        let types: Vec<&str> = raw.images[0].bands.iter().map(|band| band.dtype.as_str()).collect();
        assert_eq!(types[..2], ["int16", "float32"], "{file}");
    }
}

#[test]
fn soft_links_to_bands_are_bands() {
    let expected: [(&str, &[&str]); 3] = [
        ("soft-links", &["01 - A", "02 - B", "again"]),
        ("soft-links-latest", &["01 - A", "02 - B", "again"]),
        ("soft-link-beside-latest", &["01 - A", "02 - B", "alias"]),
    ];
    for (file, expected) in expected {
        let mut bands = Sample::of(file).open().bands().unwrap().remove(0);
        bands.sort();
        assert_eq!(bands, expected, "{file}");
    }
}

#[test]
fn datasets_that_are_not_images_are_not_bands() {
    assert_eq!(Sample::of("scalars").open().bands().unwrap(), [["01 - A", "02 - B"]]);
    assert_eq!(Sample::of("scalars").raw().images[0].bands.len(), 2);
}

#[test]
fn numbers_of_every_form_are_read() {
    let sample = Sample::of("numbers");
    let half = [0.099_975_586, -65504.0, f64::INFINITY, 2_f64.powi(-24), -0.0, 1.0];
    let (a, b) = (A.map(f64::from), B.map(f64::from));
    let expected = [
        ("half", "float16", half),
        ("half chunked", "float16", half),
        ("half big", "float16", half),
        ("int big", "int16", a),
        ("float big", "float32", b),
        ("double big", "float64", b),
        ("truth", "int8", [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
        ("int 12", "int16", a),
        ("uint 20", "uint32", a.map(f64::abs)),
        ("brain", "float32", b),
    ];
    let raw = sample.raw();
    assert_eq!(raw.images[0].bands.len(), expected.len());
    for (name, dtype, numbers) in expected {
        let band = raw.images[0].bands.iter().find(|band| band.name == name).unwrap();
        assert_eq!(band.dtype, dtype, "{name}");
        for (found, expected) in band.pixels.iter().zip(numbers) {
            assert!((found - expected).abs() < 1e-8 || *found == expected, "{name}: {found}, not {expected}");
        }
        if numbers.iter().all(|number| number.is_finite()) {
            assert_eq!(pixels(&sample.read(name).unwrap()), numbers.map(|number| number as f32), "{name}");
        }
    }
}

/// libhdf5 reads the first and the last of these.
#[cfg(not(feature = "libhdf5"))]
#[test]
fn unsupported_hdf5_features_are_named_and_not_called_damaged() {
    let files = [
        ("chunks-by-btree-2", "version-2 B-tree", "`libhdf5`"),
        ("layout-5", "layout version 5", "h5repack"),
        ("virtual", "virtual dataset", "`libhdf5`"),
    ];
    for (file, feature, remedy) in files {
        let error = Sample::of(file).read("01 - A").unwrap_err().to_string();
        for word in [feature, remedy, "one.hdf5", "h5repack"] {
            assert!(error.contains(word), "{file}: no {word} in {error}");
        }
        assert!(!error.contains("damaged"), "{file}: {error}");
    }
}

#[cfg(feature = "libhdf5")]
#[test]
fn libhdf5_reads_what_the_other_reader_does_not() {
    use terrabench::formats::hdf5::Rows;

    let sample = Sample::of("chunks-by-btree-2");
    assert_eq!(pixels(&sample.read("01 - A").unwrap()), A);
    assert_eq!(pixels(&sample.read("02 - B").unwrap()), B);
    let file = |name: &str| common::fixture("hdf5").join(format!("{name}.h5"));
    for name in ["chunks-by-btree-2", "soft-links"] {
        let rows = Rows::open(&file(name), "02 - B").unwrap();
        assert_eq!(rows.shape(), [2, 3], "{name}");
        assert_eq!(rows.read::<f32>(1).unwrap(), B[3..], "{name}");
    }
}

#[test]
fn damaging_any_byte_of_hdf5_never_panics() {
    for file in ["soft-links", "soft-links-latest", "jammed", "numbers"] {
        let sample = Sample::of(file);
        let path = sample.folder().join("one.hdf5");
        let whole = std::fs::read(&path).unwrap();
        let read = || {
            let dataset = sample.open();
            let _ = dataset.read_raw(Split::Train, 0);
            let _ = dataset.read(Split::Train, 0, &[vec!["02 - B".to_owned()]]);
        };
        for place in (0..whole.len()).step_by(13) {
            let mut spoilt = whole.clone();
            spoilt[place] ^= 0xff;
            std::fs::write(&path, spoilt).unwrap();
            read();
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        read();
    }
}

/// One split's LCZ-S2 file with two samples of 2 x 3 pixels, big-endian, after `front` extra bytes.
fn lcz(folder: &Path, front: usize) {
    std::fs::create_dir_all(folder).unwrap();
    let numbers: Vec<f32> = (0..2 * 2 * 3 * 10).map(|number| number as f32 / 100.0).collect();
    let labels: Vec<u16> = (0..34).map(|place| u16::from(place == 3 || place == 17 + 5)).collect();
    let float = Datatype::FloatingPoint {
        size: 4,
        byte_order: DatatypeByteOrder::BigEndian,
        layout: FloatingPointLayout::IEEE754_BINARY32,
    };
    let short = Datatype::FixedPoint {
        size: 2,
        byte_order: DatatypeByteOrder::BigEndian,
        layout: FixedPointLayout { signed: false, bit_offset: 0, bit_precision: 16 },
    };
    let mut file = FileBuilder::new();
    let bytes = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    file.create_dataset("sen2").with_raw_data(float, bytes, 120).with_shape(&[2, 2, 3, 10]);
    let bytes = labels.iter().flat_map(|number| number.to_be_bytes()).collect();
    file.create_dataset("label").with_raw_data(short, bytes, 34).with_shape(&[2, 17]);
    let whole = [vec![b' '; front], file.finish().unwrap()].concat();
    for split in ["train", "val", "test"] {
        std::fs::write(folder.join(format!("lcz_{split}.h5")), &whole).unwrap();
    }
}

#[test]
fn big_endian_rows_are_read_also_behind_a_user_block() {
    for front in [0, 512, 4096] {
        let folder = tempfile::tempdir().unwrap();
        lcz(&folder.path().join("lcz_s2"), front);
        let dataset = open("copernicus-bench", "lcz-s2", folder.path()).unwrap();
        let sample = dataset.read_raw(Split::Test, 1).unwrap();
        assert_eq!(sample.target, Target::Class(5));
        for (band, found) in sample.images[0].bands.iter().enumerate() {
            assert_eq!(found.dtype, "float32");
            let expected = |place: usize| f64::from((60 + 10 * place + band) as f32 / 100.0);
            assert!(
                found.pixels.iter().enumerate().all(|(place, pixel)| *pixel == expected(place)),
                "band {band}"
            );
        }
    }
}

/// A EuroSAT-S2 task with one image per split in `folder`; `line` writes the image's name into its list.
fn eurosat(folder: &Path, line: impl Fn(&str) -> Vec<u8>) {
    std::fs::create_dir_all(folder.join("all_imgs/River")).unwrap();
    for (number, split) in ["train", "val", "test"].into_iter().enumerate() {
        std::fs::write(folder.join(format!("eurosat-{split}.txt")), line(&format!("River_{number}.jpg")))
            .unwrap();
        // Without a tag, thirteen bands side by side are one gray image thirteen times as wide.
        let pixels: Vec<u16> = (0..2 * 3 * 13).map(|place| place as u16 + 100 * number as u16).collect();
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
        let mut image = encoder.new_image::<Gray16>(3 * 13, 2).unwrap();
        image.encoder().write_tag(tiff::tags::Tag::SamplesPerPixel, 13_u16).unwrap();
        image.encoder().write_tag(tiff::tags::Tag::ImageWidth, 3_u32).unwrap();
        image.write_data(&pixels).unwrap();
        std::fs::write(folder.join(format!("all_imgs/River/River_{number}.tif")), bytes.into_inner())
            .unwrap();
    }
}

fn assert_eurosat(root: &Path) {
    let dataset = open("copernicus-bench", "eurosat-s2", root).unwrap();
    assert_eq!(dataset.samples(Split::Valid), ["River_1"]);
    let sample = dataset.read(Split::Valid, 0, &dataset.bands().unwrap()).unwrap();
    assert_eq!((sample.images[0].pixels[[0, 0, 0]], sample.images[0].pixels[[12, 1, 2]]), (100.0, 177.0));
}

#[test]
fn lists_of_other_tools_are_read() {
    let lines: [fn(&str) -> Vec<u8>; 4] = [
        |name| format!("{name}\n").into_bytes(),
        |name| format!("\u{feff}{name}\r\n").into_bytes(),
        |name| format!("./{name}\n").into_bytes(),
        |name| format!("\u{feff}.\\{name}\r\n\r\n").into_bytes(),
    ];
    for line in lines {
        let folder = tempfile::tempdir().unwrap();
        eurosat(&folder.path().join("eurosat_s2"), line);
        assert_eurosat(folder.path());
    }
    let folder = tempfile::tempdir().unwrap();
    eurosat(&folder.path().join("eurosat_s2"), |_| b"./../River_0.jpg\n".to_vec());
    assert!(open("copernicus-bench", "eurosat-s2", folder.path()).is_err());
}

/// Packs a folder's files into an archive, each under the name that `name` returns for it.
fn archived(folder: &Path, archive: &Path, name: impl Fn(&str) -> String) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(archive).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    let mut add = |below: &str| {
        for entry in std::fs::read_dir(folder.join(below)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let below = path.strip_prefix(folder).unwrap().to_str().unwrap();
                zip.start_file(name(&format!("eurosat_s2/{below}")), options).unwrap();
                zip.write_all(&std::fs::read(&path).unwrap()).unwrap();
            }
        }
    };
    ["", "all_imgs/River"].into_iter().for_each(&mut add);
    zip.finish().unwrap();
}

#[test]
fn archives_of_other_tools_are_read() {
    let names: [fn(&str) -> String; 4] = [
        str::to_owned,
        |name| format!("./{name}"),
        |name| name.replace('/', "\\"),
        |name| format!(".\\{name}"),
    ];
    for name in names {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("made");
        eurosat(&made, |name| name.as_bytes().to_vec());
        let root = folder.path().join("data");
        std::fs::create_dir(&root).unwrap();
        archived(&made, &root.join("eurosat_s2.zip"), name);
        assert_eurosat(&root);

        // Unpacked, the files read the same.
        let into = folder.path().join("unpacked/eurosat_s2");
        std::fs::create_dir_all(&into).unwrap();
        let archive = root.join("eurosat_s2.zip");
        let seen = terrabench::fetch::archive::inspect(&archive, "eurosat_s2").unwrap();
        assert_eq!(seen.files.len(), 6);
        terrabench::fetch::archive::unpack(&archive, "eurosat_s2", &into, &|_| {}).unwrap();
        assert_eurosat(into.parent().unwrap());
    }
}

#[test]
fn nan_in_unused_statistics_is_harmless() {
    let sample = Sample::of("plain");
    let statistics = "\u{feff}{\"01 - A\": {\"mean\": 2.5, \"std\": 2.0, \"median\": NaN, \"max\": Infinity}, \
                      \"02 - B\": {\"mean\": NaN, \"std\": 1.0}}";
    std::fs::write(sample.folder().join("band_stats.json"), statistics).unwrap();
    let partition = "\u{feff}{\"train\": [\"one\"], \"valid\": [], \"test\": [], \"share\": NaN}";
    std::fs::write(sample.folder().join("default_partition.json"), partition).unwrap();
    let of = |band: &str| sample.open().statistics(0, &[band.to_owned()]);
    let found = of("01 - A").unwrap();
    assert_eq!((found[0].mean, found[0].std), (2.5, 2.0));
    let error = of("02 - B").unwrap_err().to_string();
    assert!(error.contains("`02 - B`: mean NaN"), "{error}");
}

/// A sample of m-cashew-plant of this size with a single class.
fn cashew(path: &Path, [rows, columns]: [u64; 2]) {
    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let mut file = FileBuilder::new();
    let pixels: Vec<i16> = (0..rows * columns).map(|place| 100 + (place % 50) as i16).collect();
    for name in suite.bands.values().filter(|name| !name.starts_with("10")) {
        file.create_dataset(name).with_i16_data(&pixels).with_shape(&[rows, columns]);
    }
    let mask = vec![3_u8; pixels.len()];
    file.create_dataset("label").with_u8_data(&mask).with_shape(&[rows, columns]);
    file.set_attr("pickle", hdf5_pure::AttrValue::VarLenString("b'\\x80\\x04}.'".to_owned()));
    std::fs::write(path, file.finish().unwrap()).unwrap();
}

/// 128 x 128 and 64 x 256 pixels both give four tiles of 64, but in grids of different shape.
#[test]
fn images_of_different_sizes_with_equal_tile_counts_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("segmentation_v1.0/m-cashew-plant");
    std::fs::create_dir_all(&folder).unwrap();
    let partition = r#"{"train": ["one", "two"], "valid": ["one"], "test": ["one"]}"#;
    std::fs::write(folder.join("default_partition.json"), partition).unwrap();
    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let bands: Vec<String> =
        suite.bands.values().map(|name| format!(r#""{name}": {{"mean": 120.0, "std": 10.0}}"#)).collect();
    std::fs::write(folder.join("band_stats.json"), format!("{{{}}}", bands.join(", "))).unwrap();
    cashew(&folder.join("one.hdf5"), [128, 128]);
    cashew(&folder.join("two.hdf5"), [64, 256]);
    let data = root.path().to_str().unwrap();
    let out = root.path().join("results");
    let said = failure(&[
        "bench",
        "geobench",
        "--task",
        "m-cashew-plant",
        "--partition",
        "default",
        "--protocol",
        "segmentation-probe",
        "--model",
        "demo",
        "--weights",
        "random:0",
        "--no-cache",
        "--data",
        data,
        "--out",
        out.to_str().unwrap(),
    ]);
    assert!(
        said.contains("differ in size: two has 64 x 256 pixels, the first image 128 x 128 pixels"),
        "{said}"
    );
}

fn failure(args: &[&str]) -> String {
    let cache = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(args)
        .env_remove("GEO_BENCH_DIR")
        .env("TERRABENCH_CACHE", demo::cache("geobench", cache.path()))
        .env("TERRABENCH_DATA", cache.path())
        .env("XDG_DATA_HOME", cache.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_misspelt_suite_lists_the_suites() {
    for command in [&["bench", "geobnch"][..], &["inspect", "--suite", "geobnch", "--task", "m-eurosat"]] {
        let said = failure(command);
        for word in ["no suite `geobnch`", "did you mean `geobench`?", "copernicus-bench", "landslide4sense"]
        {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
    assert!(!failure(&["bench", "imagenet"]).contains("did you mean"));
}

#[test]
fn a_task_of_another_suite_names_that_suite() {
    let said = failure(&["bench", "geobench", "--demo", "--task", "eurosat-s2"]);
    assert!(said.contains("the task belongs to suite `copernicus-bench`"), "{said}");
    let said = failure(&["bench", "geobench", "--demo", "--task", "m-euorsat"]);
    assert!(said.contains("did you mean `m-eurosat`?") && said.contains("m-so2sat"), "{said}");
}

#[test]
fn missing_weights_say_what_the_option_takes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let bench = |weights| failure(&["bench", "geobench", "--data", data, "--weights", weights]);
    let said = bench("nowhere.pth");
    for word in ["nowhere.pth", "--weights takes", ".safetensors", "random:SEED"] {
        assert!(said.contains(word), "{word} in {said}");
    }
    let said = bench("random");
    assert!(said.contains("cargo xtask fetch weights terrafm-b"), "{said}");
}
