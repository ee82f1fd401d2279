//! The reader of Landslide4Sense against what terratorch reads from the same files, and damaged files.

use std::path::Path;

use crate::common;
use ndarray::Axis;
use terrabench::data::landslide4sense::PLANES;
use terrabench::data::{self, Dataset, Split, Target};
use terrabench::home::Home;
use terrabench::task::Sensor;
use terrabench::task::Suite;
use terrabench::transform::normalize::NormalizationKind;
use terrabench::transform::strategies::Strategies;

fn open(root: &Path) -> terrabench::Result<Box<dyn Dataset>> {
    let suite = Suite::load(&Home::find().unwrap(), "landslide4sense").unwrap();
    data::open(&suite, suite.task("landslide4sense").unwrap(), root, "default")
}

fn real() -> Option<std::path::PathBuf> {
    let folder = common::real().map(|real| real.join("landslide4sense"));
    if folder.is_none() {
        eprintln!("skipped: no real pixels are here");
    }
    folder
}

/// A copy that a test may spoil.
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

fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn samples_are_those_that_terratorch_reads() {
    let Some(real) = real() else { return };
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(real.join("reader.json")).unwrap()).unwrap();
    let dataset = open(&real).unwrap();
    assert_eq!(dataset.bands().unwrap(), [PLANES]);
    let strategies = Strategies::load(&Home::find().unwrap()).unwrap();
    let strategy = strategies.asked("terratorch", Sensor::S2_L1C, NormalizationKind::NormNoClip).unwrap();
    let used: Vec<terrabench::task::bands::Band> =
        PLANES[..12].iter().map(|plane| plane.parse().unwrap()).collect();
    let normalization =
        strategies.resolve(&strategy[0], &used, || panic!("the data set is not asked")).unwrap();
    let samples = golden["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 10);
    let planes: Vec<String> = PLANES.map(str::to_owned).to_vec();
    for expected in samples {
        let split = match expected["split"].as_str().unwrap() {
            "train" => Split::Train,
            "val" => Split::Valid,
            _ => Split::Test,
        };
        let index = usize::try_from(expected["index"].as_u64().unwrap()).unwrap();
        let sample = dataset.read(split, index, std::slice::from_ref(&planes)).unwrap();
        let pixels = &sample.images[0].pixels;
        assert!(expected["image"].as_str().unwrap().ends_with(&format!("/{}.h5", sample.name)));
        let Target::Mask(mask) = &sample.target else { panic!("no mask") };
        for class in 0..2 {
            let count = mask.iter().filter(|label| **label == class).count() as u64;
            assert_eq!(count, expected["mask_histogram"][class.to_string()].as_u64().unwrap_or(0));
        }
        let mut normalized = pixels.slice(ndarray::s![..12, .., ..]).to_owned();
        normalization.apply(&mut normalized).unwrap();
        for (image, expected, bands) in
            [(pixels, expected, 14), (&normalized, &expected["after_normalise"], 12)]
        {
            for band in 0..bands {
                let plane = image.index_axis(Axis(0), band);
                let mean = plane.iter().map(|x| f64::from(*x)).sum::<f64>() / plane.len() as f64;
                let wanted = number(&expected["band_mean"][band]);
                assert!((mean - wanted).abs() < 1e-6, "{} {band}: {mean}, expected {wanted}", sample.name);
            }
            for pixel in expected["pixels"].as_array().unwrap() {
                let place = ["row", "col"].map(|key| usize::try_from(pixel[key].as_u64().unwrap()).unwrap());
                for band in 0..bands {
                    let found = image[[band, place[0], place[1]]];
                    let wanted = number(&pixel["values"][band]) as f32;
                    assert!((found - wanted).abs() <= 1e-6 * wanted.abs(), "{found}, expected {wanted}");
                }
                if let Some(class) = pixel["mask"].as_i64() {
                    assert_eq!(i64::from(mask[place]), class);
                }
            }
        }
    }
}

#[test]
fn statistics_are_those_of_the_train_pixels() {
    let Some(real) = real() else { return };
    let dataset = open(&real).unwrap();
    let bands = ["B02".to_owned(), "B12".to_owned()];
    let statistics = dataset.statistics(0, &bands).unwrap();
    let mut values = [Vec::new(), Vec::new()];
    for index in 0..dataset.samples(Split::Train).len() {
        let sample = dataset.read(Split::Train, index, &[bands.to_vec()]).unwrap();
        for (values, plane) in values.iter_mut().zip(sample.images[0].pixels.outer_iter()) {
            values.extend(plane.iter().map(|x| f64::from(*x)));
        }
    }
    for (values, found) in values.iter().zip(&statistics) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!((found.mean - mean).abs() < 1e-6 && (found.std - std).abs() < 1e-6, "{found:?} {mean} {std}");
    }
    // A second time, now remembered.
    assert_eq!(dataset.statistics(0, &bands).unwrap(), statistics);
}

#[test]
fn what_is_missing_or_does_not_fit_is_told() {
    let Some(real) = real() else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let failure = |found: terrabench::Result<Box<dyn Dataset>>| found.map(|_| ()).unwrap_err().to_string();
    let error = failure(open(root));
    assert!(error.contains("images") && error.contains("fetch landslide4sense"), "{error}");
    copied(&real, root);

    let suite = Suite::load(&Home::find().unwrap(), "landslide4sense").unwrap();
    let error = failure(data::open(&suite, &suite.tasks[0], root, "0.01x_train"));
    assert!(error.contains("0.01x_train") && error.contains("`default`"), "{error}");

    let mask = root.join("annotations/train/mask_10.h5");
    let bytes = std::fs::read(&mask).unwrap();
    std::fs::remove_file(&mask).unwrap();
    let error = failure(open(root));
    assert!(error.contains("mask_10.h5") && error.contains("image_10.h5"), "{error}");

    // An image in the mask's place, half a file, a mask of another task's classes.
    let read = |split, index| {
        open(root).unwrap().read(split, index, &[vec!["B02".to_owned()]]).unwrap_err().to_string()
    };
    std::fs::copy(root.join("images/train/image_10.h5"), &mask).unwrap();
    let error = read(Split::Train, 1);
    assert!(error.contains("no dataset `mask`") && error.contains("img"), "{error}");
    std::fs::write(&mask, &bytes[..bytes.len() / 2]).unwrap();
    assert!(read(Split::Train, 1).contains("mask_10.h5"));
    std::fs::write(&mask, &bytes).unwrap();

    let mut task = suite.tasks[0].clone();
    task.classes = 1;
    let dataset = data::open(&suite, &task, root, "default").unwrap();
    let error = dataset.read(Split::Train, 0, &[vec!["B02".to_owned()]]).unwrap_err().to_string();
    assert!(error.contains("contains 1") && error.contains("mask_1.h5"), "{error}");

    write_mask(&root.join("annotations/test/mask_1.h5"), 64);
    let error = read(Split::Test, 0);
    assert!(error.contains("[64, 64]") && error.contains("128 x 128"), "{error}");
    let error = open(root).unwrap().read(Split::Test, 1, &[vec!["B8A".to_owned()]]).unwrap_err().to_string();
    assert!(error.contains("B8A"), "{error}");
}

/// A mask of zeros with this side.
fn write_mask(path: &Path, side: usize) {
    let mut file = hdf5_pure::FileBuilder::new();
    file.create_dataset("mask").with_u8_data(&vec![0; side * side]).with_shape(&[side as u64, side as u64]);
    std::fs::write(path, file.finish().unwrap()).unwrap();
}
