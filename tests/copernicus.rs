//! Compares the Copernicus-Bench readers with the benchmark's own wrappers, and reads damaged files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common;
use ndarray::{Array3, s};
use terrabench::data::{self, Dataset, Split, Target};
use terrabench::features::{Input, InputOptions};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::task::Suite;
use terrabench::task::bands::Band;
use terrabench::transform::Preprocess;
use terrabench::transform::strategies::Strategies;

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "copernicus-bench").unwrap()
}

fn open(root: &Path, task: &str) -> terrabench::Result<Box<dyn Dataset>> {
    let suite = suite();
    data::open(&suite, suite.task(task).unwrap(), root, "default")
}

fn real() -> Option<PathBuf> {
    let folder = common::real().map(|real| real.join("copernicus-bench"));
    if folder.is_none() {
        eprintln!("skipped: no real pixels are here");
    }
    folder
}

fn options(normalization: &str) -> InputOptions {
    let strategies = Strategies::load(&Home::find().unwrap()).unwrap();
    InputOptions {
        by_content: false,
        channels: Default::default(),
        normalization: normalization.to_owned(),
        strategies,
        zeros: false,
    }
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn split_of(name: &serde_json::Value) -> Split {
    match name.as_str().unwrap() {
        "train" => Split::Train,
        "val" => Split::Valid,
        "test" => Split::Test,
        other => panic!("split {other}"),
    }
}

/// Compares an image with the band means and some pixels that the reference computed.
fn compare(what: &str, image: &Array3<f32>, golden: &serde_json::Value, pixel_tolerance: f64) {
    for (band, mean) in image.outer_iter().zip(numbers(&golden["band_mean"])) {
        let found = band.iter().map(|x| f64::from(*x)).sum::<f64>() / band.len() as f64;
        assert!(
            (found - mean).abs() <= pixel_tolerance + 1e-9 * mean.abs(),
            "{what}: mean {found}, not {mean}"
        );
    }
    for pixel in golden["pixels"].as_array().unwrap() {
        let place = |key: &str| usize::try_from(pixel[key].as_u64().unwrap()).unwrap();
        let found = image.slice(s![.., place("row"), place("col")]);
        let expected = numbers(&pixel["values"]);
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            let found = f64::from(*found);
            assert!((found - expected).abs() <= pixel_tolerance, "{what}: pixel {found}, not {expected}");
        }
    }
}

#[test]
fn samples_match_the_reference() {
    let Some(real) = real() else { return };
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(real.join("reader.json")).unwrap()).unwrap();
    let suite = suite();
    let model = ModelConfig::load(&Home::find().unwrap(), "terrafm-b").unwrap();
    let options = options("default");
    let mut seen = 0;
    for (name, golden) in golden["tasks"].as_object().unwrap() {
        let task = suite.task(&name.replace('_', "-")).unwrap();
        assert_eq!(Some(task.classes as u64), golden["num_classes"].as_u64(), "{name}");
        assert_eq!(task.ignore.map(i64::from), golden["ignore_index"].as_i64(), "{name}");
        let dataset = data::open(&suite, task, &real, "default").unwrap();
        let bands: Vec<String> = golden["bands"]
            .as_array()
            .unwrap()
            .iter()
            .map(|band| band.as_str().unwrap().trim_start_matches("S2_").to_owned())
            .collect();
        for (split, count) in golden["counts"].as_object().unwrap() {
            let split = split_of(&serde_json::Value::from(split.as_str()));
            assert_eq!(Some(dataset.samples(split).len() as u64), count.as_u64(), "{name} {split}");
        }
        // The reference has all bands; the model uses a subset.
        let known: Vec<Band> = bands.iter().map(|band| band.parse().unwrap()).collect();
        let strategy = task.normalization.as_ref().or(suite.normalization.as_ref()).unwrap();
        let strategy = options.strategies.asked(strategy, task.input_sensor, model.normalization).unwrap();
        let normalization =
            options.strategies.resolve(&strategy[0], &known, || panic!("the data set is not asked")).unwrap();
        let side = usize::try_from(golden["image_resolution"].as_u64().unwrap()).unwrap();
        let preprocess =
            Preprocess { normalization, height: side, width: side, align_corners: true, zeroed: Vec::new() };
        let input = Input::open(&suite, task, "default", &real, &model, &options).unwrap();

        for sample in golden["samples"].as_array().unwrap() {
            let (split, index) = (split_of(&sample["split"]), sample["index"].as_u64().unwrap() as usize);
            let what = format!("{name} {split} {index}");
            let read = dataset.read(split, index, std::slice::from_ref(&bands)).unwrap();
            let pixels = &read.images[0].pixels;
            if let Some(file) = sample["file"].as_str() {
                let sensor = Path::new(file).file_name().unwrap().to_str().unwrap();
                let sensor = sensor.trim_end_matches(".tif").trim_end_matches("_allbands");
                assert_eq!(read.name, sensor, "{what}");
            }
            // The reference keeps LCZ pixels as reflectance.
            let tolerance = if task.scale == 1.0 { 0.0 } else { 1e-7 };
            compare(&what, &pixels.mapv(|x| x / task.scale), sample, tolerance);
            match &read.target {
                Target::Class(class) => assert_eq!(Some(*class as u64), sample["label"].as_u64(), "{what}"),
                Target::Labels(labels) => {
                    let found: Vec<f64> = labels.iter().map(|label| f64::from(u8::from(*label))).collect();
                    assert_eq!(found, numbers(&sample["label"]), "{what}");
                }
                Target::Mask(mask) => {
                    let mut histogram: BTreeMap<String, u64> = BTreeMap::new();
                    mask.iter().for_each(|class| *histogram.entry(class.to_string()).or_default() += 1);
                    let expected = sample["mask_histogram"].as_object().unwrap();
                    let expected: BTreeMap<String, u64> =
                        expected.iter().map(|(class, n)| (class.clone(), n.as_u64().unwrap())).collect();
                    assert_eq!(histogram, expected, "{what}");
                    let pixels = sample["pixels"].as_array().unwrap().iter();
                    for (pixel, class) in pixels.zip(numbers(&sample["mask_at_pixels"])) {
                        let place = |key: &str| pixel[key].as_u64().unwrap() as usize;
                        assert_eq!(f64::from(mask[[place("row"), place("col")]]), class, "{what}");
                    }
                }
                other => panic!("{what}: {other:?}"),
            }
            let prepared = preprocess.apply(pixels.clone()).unwrap();
            assert_eq!(prepared.shape(), [bands.len(), side, side], "{what}");
            compare(&what, &prepared, &sample["after_transform"], 2e-5);

            // The model's input is made from the same planes; the masks are unchanged.
            let seen_by_model = input.read(&input.only().unwrap().preprocess, split, index).unwrap();
            let wanted = &model.sensor(task.input_sensor).unwrap().bands;
            for (place, band) in wanted.iter().enumerate() {
                let stored = &input.images[0].selection.stored[place];
                let from = bands.iter().position(|band| band == stored).unwrap();
                let difference = &seen_by_model.images[0].pixels.slice(s![place, .., ..])
                    - &prepared.slice(s![from, .., ..]);
                assert!(difference.iter().all(|d| d.abs() < 1e-6), "{what}: {band}");
            }
            assert_eq!(seen_by_model.target, read.target, "{what}");
            seen += 1;
        }
        assert_eq!(
            input.normalization,
            *task.normalization.as_ref().unwrap_or(suite.normalization.as_ref().unwrap())
        );
    }
    assert_eq!(seen, 4 + 40 + 40 + 20 + 20 + 8 + 8 + 52);
}

#[test]
fn sentinel_2_goes_in_without_cirrus_and_lcz_with_stand_ins() {
    let Some(real) = real() else { return };
    let suite = suite();
    let model = ModelConfig::load(&Home::find().unwrap(), "terrafm-b").unwrap();
    let stored = |task: &str| {
        let task = suite.task(task).unwrap();
        Input::open(&suite, task, "default", &real, &model, &options("default"))
            .unwrap()
            .images
            .remove(0)
            .selection
    };
    let twelve = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"];
    assert_eq!(stored("eurosat-s2").stored, twelve);
    assert_eq!(stored("dfc2020-s1").stored, ["VV", "VH"]);
    let lcz = stored("lcz-s2");
    assert_eq!((lcz.stored[0].as_str(), lcz.stored[9].as_str()), ("B02", "B8A"));
    assert_eq!(lcz.imputed.len(), 2);
}

/// A copy that a test may damage.
fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied(&entry.path(), &to);
        } else {
            std::fs::write(to, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

#[test]
fn an_archive_reads_as_its_folder() {
    let Some(real) = real() else { return };
    let suite = suite();
    let folder = tempfile::tempdir().unwrap();
    for name in ["eurosat-s2", "dfc2020-s1", "bigearthnet-s2"] {
        let task = suite.task(name).unwrap();
        let archive = folder.path().join(task.archive.as_ref().unwrap());
        common::zipped(&real.join(&task.directory), task.directory.to_str().unwrap(), &archive);
        let (packed, plain) = (open(folder.path(), name).unwrap(), open(&real, name).unwrap());
        assert_eq!(packed.fingerprint(&Split::ALL).unwrap(), plain.fingerprint(&Split::ALL).unwrap());
        let bands = plain.bands().unwrap();
        for split in Split::ALL {
            assert_eq!(packed.samples(split), plain.samples(split));
            assert_eq!(packed.files(split), std::slice::from_ref(&archive));
            for index in 0..plain.samples(split).len() {
                let samples = [&packed, &plain].map(|dataset| dataset.read(split, index, &bands).unwrap());
                assert_eq!(samples[0], samples[1]);
            }
        }
        // A truncated archive has no list of entries.
        let bytes = std::fs::read(&archive).unwrap();
        std::fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
        assert!(open(folder.path(), name).is_err());
    }
}

#[test]
fn damaged_images_are_errors() {
    let Some(real) = real() else { return };
    let folder = tempfile::tempdir().unwrap();
    copied(&real.join("eurosat_s2"), &folder.path().join("eurosat_s2"));
    let dataset = open(folder.path(), "eurosat-s2").unwrap();
    let bands = dataset.bands().unwrap();
    let path = dataset.files(Split::Train)[0].clone();
    let whole = std::fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        dataset.read(Split::Train, 0, &bands).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(read(&whole), Ok(()));
    // Truncated anywhere, or with any byte of the header and the directory changed, a file never causes a panic.
    for length in (0..whole.len()).step_by(997) {
        let error = read(&whole[..length]).unwrap_err();
        assert!(error.contains("invalid TIFF image") && error.contains("help:"), "{length}: {error}");
    }
    for place in 0..1000.min(whole.len()) {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut spoilt = whole.clone();
            spoilt[place] = byte;
            let _ = read(&spoilt);
        }
    }
    // ImageWidth and ImageLength (tags 256 and 257) far too large.
    let mut absurd = whole.clone();
    let directory = u32::from_le_bytes(whole[4..8].try_into().unwrap()) as usize;
    let entries = usize::from(u16::from_le_bytes(whole[directory..directory + 2].try_into().unwrap()));
    for entry in 0..entries {
        let at = directory + 2 + 12 * entry;
        if [256_u16, 257].contains(&u16::from_le_bytes(whole[at..at + 2].try_into().unwrap())) {
            absurd[at + 2..at + 4].copy_from_slice(&4_u16.to_le_bytes());
            absurd[at + 8..at + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        }
    }
    let error = read(&absurd).unwrap_err();
    assert!(error.contains("invalid TIFF image"), "{error}");

    // A file with too few bands, and a listed file that does not exist.
    let two = std::fs::read(open(&real, "eurosat-s1").unwrap().files(Split::Train)[0].clone()).unwrap();
    let error = read(&two).unwrap_err();
    assert!(error.contains("expected 13 bands for eurosat-s2, found 2"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = dataset.read(Split::Train, 0, &bands).unwrap_err().to_string();
    assert!(error.contains("no such file, but the list of split train names it"), "{error}");
    let error = dataset.read(Split::Train, 1, &[vec!["B99".to_owned()]]).unwrap_err().to_string();
    assert!(error.contains("no band `B99`"), "{error}");
}

#[test]
fn damaged_lists_and_masks_are_errors() {
    let Some(real) = real() else { return };
    let folder = tempfile::tempdir().unwrap();
    let problem = |task: &str| open(folder.path(), task).map(|_| ()).unwrap_err().to_string();

    let error = problem("eurosat-s2");
    assert!(error.contains("eurosat_s2") && error.contains("cargo xtask fetch copernicus-bench"), "{error}");
    assert!(
        error.contains("cargo xtask bench geobench --demo"),
        "only GEO-Bench has generated data: {error}"
    );
    let eurosat = folder.path().join("eurosat_s2");
    copied(&real.join("eurosat_s2"), &eurosat);
    std::fs::write(eurosat.join("eurosat-val.txt"), "Forest_1.jpg\nDesert_2.jpg\n").unwrap();
    assert!(problem("eurosat-s2").contains("line 2: unknown class `Desert` in `Desert_2.jpg`"));
    std::fs::write(eurosat.join("eurosat-val.txt"), "Forest_../../x.jpg\n").unwrap();
    assert!(problem("eurosat-s2").contains("points outside its folder"));
    std::fs::remove_file(eurosat.join("eurosat-val.txt")).unwrap();
    assert!(problem("eurosat-s2").contains("eurosat-val.txt"));

    let bigearthnet = folder.path().join("bigearthnet_s1s2");
    copied(&real.join("bigearthnet_s1s2"), &bigearthnet);
    let list = bigearthnet.join("multilabel-test.csv");
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, text.replace("Marine waters", "Marine water")).unwrap();
    assert!(problem("bigearthnet-s1").contains("no column `Marine waters`"));
    std::fs::write(&list, text.replace(",0,", ",7,")).unwrap();
    assert!(problem("bigearthnet-s1").contains("expected the label 0 or 1, found `7`"));
    std::fs::write(&list, text.replace(",0,", ",")).unwrap();
    assert!(problem("bigearthnet-s1").contains("cells; expected 21"));

    // A mask of another size, and mask codes without a meaning.
    let dfc = folder.path().join("dfc2020_s1s2");
    copied(&real.join("dfc2020_s1s2"), &dfc);
    copied(&real.join("cloud_s2"), &folder.path().join("cloud_s2"));
    let dataset = open(folder.path(), "dfc2020-s2").unwrap();
    let mask = dfc.join("dfc").join(format!("{}.tif", dataset.samples(Split::Train)[0]));
    let cloud = folder.path().join("cloud_s2/cloud");
    let cloud = std::fs::read_dir(cloud).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(&cloud, &mask).unwrap();
    let error = dataset.read(Split::Train, 0, &[vec!["B02".to_owned()]]).unwrap_err().to_string();
    assert!(
        error.contains("the mask has 1 bands of 512 x 512 pixels; the image needs 1 band of 256 x 256"),
        "{error}"
    );

    // LCZ: without its labels, and truncated.
    let lcz = folder.path().join("lcz_s2");
    copied(&real.join("lcz_s1s2"), &lcz);
    assert_eq!(open(folder.path(), "lcz-s2").unwrap().samples(Split::Train).len(), 24);
    let bytes = std::fs::read(lcz.join("lcz_val.h5")).unwrap();
    std::fs::write(lcz.join("lcz_val.h5"), &bytes[..bytes.len() - 100]).unwrap();
    assert!(problem("lcz-s2").contains("truncated"));
}
