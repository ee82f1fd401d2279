//! GEO-Bench-2: samples against the benchmark's own code, one test per quirk, and runs from files to records. Sets of the release
//! are not here: some tests need the small sets beside the checkout, the others generate containers in the release's layout.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::{Array3, ArrayView3, Axis};
use serde_json::Value;
use terrabench::canvas::{Picture, Text, png};
use terrabench::data::decoding::Decoding;
use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, Sample, Split, Target};
use terrabench::features::{Input, InputOptions};
use terrabench::fetch::catalogue::Catalogue;
use terrabench::home::Home;
use terrabench::model::config::{Inputs, ModelConfig};
use terrabench::progress::Silent;
use terrabench::report::capabilities;
use terrabench::report::pictures::{self, spider};
use terrabench::report::tables::published;
use terrabench::report::tables::table::{ResultTable, fill};
use terrabench::task::bands::Band;
use terrabench::task::{Container, Suite, Task, TaskImage};
use terrabench::transform::strategies::Strategies;

use crate::common::{self, records};
use crate::tortilla::{Contained, Labelled, Written, write_parts, write_tortilla};

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "geobench-2").unwrap()
}

fn model(name: &str) -> ModelConfig {
    let model = ModelConfig::load(&Home::find().unwrap(), name).unwrap();
    model.in_suite("geobench-2", Inputs::AsPublished)
}

fn options(by_content: bool) -> InputOptions {
    InputOptions {
        by_content,
        channels: Default::default(),
        normalization: "default".to_owned(),
        strategies: Strategies::load(&Home::find().unwrap()).unwrap(),
        zeros: false,
    }
}

fn open(root: &Path, task: &str) -> terrabench::Result<Box<dyn Dataset>> {
    let suite = suite();
    data::open(&suite, suite.task(task).unwrap(), root, "default")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap_or(f64::NAN)).collect()
}

/// The small sets, the real ones first.
fn sets() -> Vec<PathBuf> {
    let real = common::real().map(|real| real.join("geobench2"));
    let made = common::made().map(|made| made.join("geobench2"));
    let sets: Vec<PathBuf> = real.into_iter().chain(made).filter(|set| set.is_dir()).collect();
    if sets.is_empty() {
        eprintln!("skipped: no small sets are here");
    }
    sets
}

// Samples against the reference --------------------------------------------------------------------------------------------

/// Compares a stack of bands with the reference's numbers of it. Blank pixels, which are read as their bands' mean, are 0.
fn assert_bands(what: &str, bands: ArrayView3<f32>, golden: &Value, [exact, mean_tolerance]: [f64; 2]) {
    let expected = numbers(&golden["shape"]);
    let (channels, sides) = expected.split_at(expected.len() - 2);
    let count = channels.iter().product::<f64>();
    assert_eq!(
        [count, sides[0], sides[1]].to_vec(),
        bands.shape().iter().map(|n| *n as f64).collect::<Vec<_>>(),
        "{what}"
    );
    for (key, place) in [("p0_0", [0, 0]), ("p5_7", [5, 7])] {
        for (band, expected) in numbers(&golden[key]).into_iter().enumerate() {
            let found = f64::from(bands[[band, place[0], place[1]]]);
            // Written as float32.
            let expected = f64::from(expected as f32);
            assert!((found - expected).abs() <= exact, "{what} {key} {band}: {found}, expected {expected}");
        }
    }
    for (band, expected) in numbers(&golden["mean"]).into_iter().enumerate() {
        let plane = bands.index_axis(Axis(0), band);
        let found = plane.iter().map(|x| f64::from(*x)).sum::<f64>() / plane.len() as f64;
        let tolerance = mean_tolerance * expected.abs().max(1e-9) + exact;
        assert!((found - expected).abs() <= tolerance, "{what} mean {band}: {found}, expected {expected}");
    }
}

/// Channels of one of the reference's image keys, by modality: `s1` or anything else.
fn stack(sample: &Sample, is_s1: bool) -> Array3<f32> {
    let planes: Vec<Array3<f32>> = sample
        .images
        .iter()
        .filter(|image| (image.sensor.name() == "s1") == is_s1)
        .map(|image| image.pixels.clone())
        .collect();
    let views: Vec<_> = planes.iter().map(Array3::view).collect();
    ndarray::concatenate(Axis(0), &views).unwrap()
}

/// Normalises a sample's bands as the suite does by default, with the statistics of the data set.
fn normalised(dataset: &dyn Dataset, bands: &[Vec<String>], sample: &Sample) -> Sample {
    let mut sample = sample.clone();
    for (place, (image, bands)) in sample.images.iter_mut().zip(bands).enumerate() {
        let statistics = dataset.statistics(place, bands).unwrap();
        for (mut plane, of) in image.pixels.outer_iter_mut().zip(statistics) {
            plane.mapv_inplace(|x| (x - of.mean as f32) / of.std as f32);
        }
    }
    sample
}

/// Sets blank pixels to 0, as the reference returns them without a normaliser.
fn blanked(dataset: &dyn Dataset, bands: &[Vec<String>], sample: &Sample) -> Sample {
    let mut raw = sample.clone();
    for (place, (image, bands)) in raw.images.iter_mut().zip(bands).enumerate() {
        let statistics = dataset.statistics(place, bands).unwrap();
        for (mut plane, of) in image.pixels.outer_iter_mut().zip(statistics) {
            plane.mapv_inplace(|x| if x == of.mean as f32 { 0.0 } else { x });
        }
    }
    raw
}

fn compare(set: &Path, golden: &Value, task: &Task, way: &str) -> usize {
    let suite = suite();
    let dataset = data::open(&suite, task, set, "default").unwrap();
    let bands = dataset.bands().unwrap();
    let mut places = [0; 3];
    let golden = &golden[task.directory.to_str().unwrap()];
    for (place, key) in ["train", "validation", "test"].into_iter().enumerate() {
        let expected = golden["sizes"][key].as_u64().unwrap() as usize;
        assert_eq!(dataset.samples(Split::ALL[place]).len(), expected, "{key}");
    }
    let samples = golden["ways"][way]["samples"].as_array().unwrap();
    for expected in samples {
        let split = expected["split"].as_str().unwrap();
        let place = ["train", "validation", "test"].iter().position(|name| *name == split).unwrap();
        let sample = dataset.read(Split::ALL[place], places[place], &bands).unwrap();
        places[place] += 1;
        let what = format!("{} {way} {}", task.name, sample.name);
        assert_eq!(Some(sample.name.as_str()), expected["id"].as_str(), "{what}");
        let (raw, after) =
            (blanked(dataset.as_ref(), &bands, &sample), normalised(dataset.as_ref(), &bands, &sample));
        for (key, is_s1) in [("image_s1", true), ("image_s2", false), ("image", false)] {
            let Some(golden) = expected.get(key) else { continue };
            if !sample.images.iter().any(|image| (image.sensor.name() == "s1") == is_s1) {
                continue;
            }
            assert_bands(
                &format!("{what} {key} raw"),
                stack(&raw, is_s1).view(),
                &golden["raw"],
                [0.0, 1e-9],
            );
            let after = if task.normalization.is_some() { &raw } else { &after };
            assert_bands(
                &format!("{what} {key}"),
                stack(after, is_s1).view(),
                &golden["normalised"],
                [1e-6, 1e-9],
            );
        }
        match &sample.target {
            Target::Labels(labels) => {
                let found: Vec<f64> = labels.iter().map(|label| f64::from(u8::from(*label))).collect();
                assert_eq!(found, numbers(&expected["label"]), "{what}");
            }
            Target::Mask(mask) => {
                let golden = &expected["mask"];
                let count = |class: i32| mask.iter().filter(|found| **found == class).count() as f64;
                let histogram = numbers(&golden["histogram"]);
                let found: Vec<f64> = (0..histogram.len() as i32).map(count).collect();
                assert_eq!(found, histogram, "{what}");
                assert_eq!(Some(i64::from(mask[[0, 0]])), golden["p0_0"].as_i64(), "{what}");
                assert_eq!(Some(i64::from(mask[[5, 7]])), golden["p5_7"].as_i64(), "{what}");
            }
            Target::ValueMap(map) => {
                let statistics = task.target_statistics();
                let map = map.mapv(|value| statistics.normalize(value)).insert_axis(Axis(0));
                let mut golden = expected["mask"].clone();
                let shape = numbers(&golden["shape"]);
                golden["shape"] = serde_json::json!([1.0, shape[0], shape[1]]);
                assert_bands(&format!("{what} mask"), map.view(), &golden, [1e-7, 1e-7]);
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    samples.len()
}

#[test]
fn samples_of_geobench2_match_the_reference() {
    let (suite, mut seen) = (suite(), 0);
    for set in sets() {
        let golden = std::fs::read_to_string(set.join("reader.json")).unwrap();
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let ways: &[(&str, &str)] = match golden.get("benv2") {
            Some(_) => &[
                ("benv2", "s2 and s1"),
                ("benv2-s1", "s2 and s1"),
                ("benv2-s1-s2", "s2 and s1"),
                ("biomassters", "one step"),
                ("biomassters-s1", "one step"),
                ("biomassters-s1-s2", "one step"),
            ],
            None => &[("cloudsen12", "all bands")],
        };
        for (name, way) in ways {
            seen += compare(&set, &golden, suite.task(name).unwrap(), way);
        }
        if golden.get("biomassters").is_some() {
            seen += compare(&set, &golden, &two_bands_of_twelve_months(&suite), "twelve steps");
        }
    }
    assert!(seen == 0 || [10, 55, 65].contains(&seen), "{seen}");
}

/// The reference's choice of two bands of each sensor in twelve months, which lists them band by band.
fn two_bands_of_twelve_months(suite: &Suite) -> Task {
    let mut task = suite.task("biomassters-s1-s2").unwrap().clone();
    let mut container = task.container.clone().unwrap();
    let of = |image: &TaskImage, band: &str, month: usize| TaskImage {
        stored_bands: vec![band.to_owned()],
        date: Some(format!("{band} {month}")),
        ..image.clone()
    };
    let (mut images, mut files) = (Vec::new(), Vec::new());
    for (place, bands) in [(0, ["VV", "VH"]), (2, ["B04", "B08"])] {
        for band in bands {
            for month in 0..12 {
                images.push(of(&task.images[place], band, month));
                let mut file = container.images[place].clone();
                file.step = Some([month, 12]);
                file.first_band =
                    task.images[place].stored_bands.iter().position(|name| name == band).unwrap();
                files.push(file);
            }
        }
    }
    for band in ["VV", "VH"] {
        let of_band = container.statistics[&format!("{band} s1 ascending")];
        container.statistics.insert(band.to_owned(), of_band);
    }
    container.images = files;
    task.images = images;
    task.container = Some(container);
    task
}

#[test]
fn packed_samples_of_geobench2_are_those_of_the_containers() {
    let suite = suite();
    for set in sets() {
        for name in ["benv2", "benv2-s1-s2", "biomassters", "biomassters-months", "cloudsen12"] {
            let task = suite.task(name).unwrap();
            let Some(_) = data::task_folder(&suite, task, &set) else { continue };
            let to = tempfile::tempdir().unwrap();
            let done = pack(&suite, task, &set, to.path(), &Silent).unwrap();
            assert!(!done.reused && pack(&suite, task, &set, to.path(), &Silent).unwrap().reused, "{name}");
            let (packed, plain) = (open(to.path(), name).unwrap(), open(&set, name).unwrap());
            let bands = plain.bands().unwrap();
            assert_eq!(packed.bands().unwrap(), bands, "{name}");
            assert_eq!(
                packed.fingerprint(&Split::ALL).unwrap(),
                plain.fingerprint(&Split::ALL).unwrap(),
                "{name}"
            );
            for (image, names) in bands.iter().enumerate() {
                let statistics = |dataset: &dyn Dataset| dataset.statistics(image, names).unwrap();
                assert_eq!(statistics(packed.as_ref()), statistics(plain.as_ref()), "{name}");
            }
            for split in Split::ALL {
                assert_eq!(packed.samples(split), plain.samples(split), "{name}");
                for index in 0..plain.samples(split).len() {
                    let read = |dataset: &dyn Dataset| dataset.read(split, index, &bands).unwrap();
                    assert_eq!(read(packed.as_ref()), read(plain.as_ref()), "{name} {split} {index}");
                }
            }
        }
    }
}

// Quirks, on generated containers ------------------------------------------------------------------------------------------

/// An image whose band `b` is `numbers[b]` everywhere, but for a little that depends on the place.
fn flat(numbers: &[f32], [rows, columns]: [usize; 2]) -> Array3<f32> {
    Array3::from_shape_fn((numbers.len(), rows, columns), |(band, row, column)| {
        numbers[band] * (1.0 + 0.01 * ((row * 7 + column * 3 + band) % 11) as f32)
    })
}

/// Six samples per split, each made by `files` from its number, with classes or names by turns.
fn written(root: &Path, task: &str, files: impl Fn(usize) -> Vec<Contained>) {
    let suite = suite();
    let task = suite.task(task).unwrap();
    let container = task.container.as_ref().unwrap();
    let column = container.label_column.clone().unwrap_or_default();
    let label = |place: usize| match (&container.label_column, task.target) {
        (None, _) => Labelled::Nothing,
        (_, terrabench::task::TargetKind::Labels) => Labelled::Names(vec![
            task.class_names[place % 2].clone().leak() as &str,
            task.class_names[3].clone().leak(),
        ]),
        _ => Labelled::Class((place % 2) as i64),
    };
    let mut samples: Vec<Written> = Vec::new();
    for split in ["train", "validation", "test"] {
        for place in 0..6 {
            samples.push((format!("{split}_{place}"), split, label(place), files(samples.len())));
        }
    }
    let path = root.join(&task.directory).join(format!("{}.tortilla", container.name));
    write_tortilla(&path, &column, &samples);
}

/// The model's pixels of a band of the first train sample, before and after normalisation: their means.
fn channel(root: &Path, task: &str, model_name: &str, band: Band, by_content: bool) -> [f32; 2] {
    let suite = suite();
    let input = Input::open(
        &suite,
        suite.task(task).unwrap(),
        "default",
        root,
        &model(model_name),
        &options(by_content),
    )
    .unwrap();
    let place = input.images[0].bands.iter().position(|known| *known == band).unwrap();
    let stored = input.stored(Split::Train, 0).unwrap();
    let after = input.read(&input.strategies[0].preprocess, Split::Train, 0).unwrap();
    [stored, after].map(|sample| sample.images[0].pixels.index_axis(Axis(0), place).mean().unwrap())
}

fn near(found: f32, expected: f32) -> bool {
    (found - expected).abs() < 1e-3 * expected.abs().max(0.1)
}

#[test]
fn radar_is_stored_vh_vv_under_the_names_vv_vh() {
    let folder = tempfile::tempdir().unwrap();
    let image = |numbers: [f32; 2]| Array3::from_shape_fn((2, 16, 16), |(band, _, _)| numbers[band]);
    let s2 = flat(&[0.1; 12], [16, 16]);
    written(folder.path(), "benv2-s1", |_| {
        vec![Contained::tiff("s1", &image([-18.0, -11.0])), Contained::tiff("s2", &s2)]
    });
    written(folder.path(), "so2sat-s1", |_| {
        vec![Contained::tiff("s1", &image([0.2, 0.5])), Contained::tiff("s2", &s2)]
    });
    // Asked for VV, the code gives VH. The constants of benv2 belong to the stored bands.
    let [raw, after] = channel(folder.path(), "benv2-s1", "dofa-b", Band::VV, false);
    assert!(raw == -18.0 && near(after, (-18.0 + 18.963_339) / 5.396_074), "{raw} {after}");
    let [raw, after] = channel(folder.path(), "benv2-s1", "dofa-b", Band::VV, true);
    assert!(raw == -11.0 && near(after, (-11.0 + 12.091_923) / 4.574_889), "{raw} {after}");
    // Those of so2sat belong to the names.
    let [raw, after] = channel(folder.path(), "so2sat-s1", "dofa-b", Band::VV, false);
    assert!(near(raw, 0.2) && near(after, 0.2 / 0.544_301), "{raw} {after}");
    let [raw, after] = channel(folder.path(), "so2sat-s1", "dofa-b", Band::VV, true);
    assert!(near(raw, 0.5) && near(after, 0.5 / 0.544_301), "{raw} {after}");
}

#[test]
fn red_of_treesatai_is_near_infrared() {
    let folder = tempfile::tempdir().unwrap();
    let image = Array3::from_shape_fn((4, 16, 16), |(band, _, _)| [154_u8, 92, 85, 79][band]);
    written(folder.path(), "treesatai", |_| vec![Contained::tiff("aerial", &image)]);
    let [raw, after] = channel(folder.path(), "treesatai", "dofa-b", Band::B04, false);
    assert!(raw == 154.0 && near(after, (154.0 - 79.307_91) / 33.363_92), "{raw} {after}");
    let [raw, after] = channel(folder.path(), "treesatai", "dofa-b", Band::B04, true);
    assert!(raw == 79.0 && near(after, (79.0 - 79.307_91) / 33.363_92), "{raw} {after}");
    let [raw, _] = channel(folder.path(), "treesatai", "dofa-b", Band::B08, true);
    assert_eq!(raw, 154.0);
}

#[test]
fn sentinel_2_of_dynamic_earthnet_is_stored_in_another_order_and_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    // 100 times the number of the band as stored: B02 B03 B04 B08 B05 B06 B07 B8A B11 B12 B01 B09.
    let s2 = Array3::from_shape_fn((12, 16, 16), |(band, _, _)| 100 * (band as i16 + 1));
    let planet = Array3::from_shape_fn((4, 16, 16), |(band, _, _)| 10 * (band as i16 + 1));
    let label = Array3::from_elem((1, 16, 16), 2_u8);
    written(folder.path(), "dynamic_earthnet-s2", |place| {
        let mut files = vec![Contained::tiff("planet_0", &planet), Contained::tiff("planet_1", &planet)];
        if place != 1 {
            files.push(Contained::tiff("s2", &s2));
        }
        files.push(Contained::tiff("label", &label));
        files
    });
    let of = |band, by_content| channel(folder.path(), "dynamic_earthnet-s2", "dofa-b", band, by_content)[0];
    assert_eq!([of(Band::B04, false), of(Band::B04, true)], [400.0, 300.0]);
    assert_eq!([of(Band::B08, true), of(Band::B11, true)], [400.0, 900.0]);
    let dataset = open(folder.path(), "dynamic_earthnet-s2").unwrap();
    let bands = dataset.bands().unwrap();
    let [there, missing] = [0, 1].map(|index| dataset.read(Split::Train, index, &bands).unwrap());
    assert_eq!(there.images[0].pixels[[11, 3, 3]], 1200.0);
    assert!(missing.images[0].pixels.iter().all(|pixel| *pixel == 0.0));
    assert_eq!(there.target, missing.target);
    let planet = open(folder.path(), "dynamic_earthnet").unwrap();
    let read = planet.read(Split::Train, 1, &planet.bands().unwrap()).unwrap();
    assert_eq!(read.images[0].pixels[[3, 0, 0]], 40.0);
    // Six weeks need 25 days.
    let error = open(folder.path(), "dynamic_earthnet-weeks").unwrap();
    let error = error.read(Split::Train, 0, &error.bands().unwrap()).unwrap_err().to_string();
    assert!(error.contains("no file 4; found 4"), "{error}");
}

#[test]
fn a_pixel_without_one_orbit_is_blank_in_every_image() {
    let folder = tempfile::tempdir().unwrap();
    let map = Array3::from_elem((1, 8, 8), 58.0_f32);
    written(folder.path(), "biomassters-s1-s2", |place| {
        let mut s1 = flat(&[-10.0, -16.0, -10.0, -16.0], [8, 8]);
        if place == 0 {
            s1[[3, 2, 5]] = -9999.0;
        }
        let s2 = flat(&[1000.0; 11], [8, 8]).mapv(|pixel| pixel as u16);
        vec![
            Contained::of("S1", &s1),
            Contained::of("S1", &s1),
            Contained::of("S2", &s2),
            Contained::of("AGBM", &map),
        ]
    });
    let suite = suite();
    let task = suite.task("biomassters-s1-s2").unwrap();
    let dataset = open(folder.path(), "biomassters-s1-s2").unwrap();
    let bands = dataset.bands().unwrap();
    let sample = dataset.read(Split::Train, 0, &bands).unwrap();
    let after = normalised(dataset.as_ref(), &bands, &sample);
    for image in &after.images {
        let blank = image.pixels.indexed_iter().filter(|(_, pixel)| **pixel == 0.0);
        let places: Vec<_> = blank.map(|((_, row, column), _)| (row, column)).collect();
        assert_eq!(places, vec![(2, 5); image.bands.len()], "{:?}", image.date);
    }
    // The other images are whole, and so is what `inspect` shows.
    let other = normalised(dataset.as_ref(), &bands, &dataset.read(Split::Train, 1, &bands).unwrap());
    assert!(other.images.iter().all(|image| image.pixels.iter().all(|pixel| *pixel != 0.0)));
    let raw = dataset.read_raw(Split::Train, 0).unwrap();
    assert_eq!(raw.images[1].bands[1].pixels[[2, 5]], -9999.0);
    let Target::ValueMap(map) = &sample.target else { panic!("{:?}", sample.target) };
    assert_eq!(task.target_statistics().normalize(map[[0, 0]]), 58.0 / 289.89);
    // Missing months are zeros in front of the others.
    let months = open(folder.path(), "biomassters-months").unwrap();
    let sample = months.read(Split::Test, 0, &months.bands().unwrap()).unwrap();
    let is_zero = |image: &data::Image| image.pixels.iter().all(|pixel| *pixel == 0.0);
    assert_eq!(sample.images.iter().map(is_zero).collect::<Vec<_>>(), [vec![true; 11], vec![false]].concat());
}

#[test]
fn images_of_cloudsen12_are_not_normalised() {
    let folder = tempfile::tempdir().unwrap();
    let image = Array3::from_elem((14, 16, 16), 3000_u16);
    let mask = Array3::from_elem((1, 16, 16), 1_u8);
    written(folder.path(), "cloudsen12", |_| {
        vec![Contained::tiff("image", &image), Contained::tiff("target", &mask)]
    });
    let [raw, after] = channel(folder.path(), "cloudsen12", "dofa-b", Band::B04, false);
    assert!(near(raw, 3000.0) && near(after, 3000.0), "{raw} {after}");
    let suite = suite();
    let task = suite.task("cloudsen12").unwrap();
    let mended = InputOptions { normalization: "dataset".to_owned(), ..options(false) };
    let input = Input::open(&suite, task, "default", folder.path(), &model("dofa-b"), &mended).unwrap();
    let place = input.images[0].bands.iter().position(|band| *band == Band::B04).unwrap();
    let pixel =
        input.read(&input.strategies[0].preprocess, Split::Train, 0).unwrap().images[0].pixels[[place, 0, 0]];
    assert!(near(pixel, (3000.0 - 2_247.927_5) / 2_538.520_8), "{pixel}");
}

#[test]
fn rows_and_columns_of_forestnet_are_swapped_against_v1() {
    let folder = tempfile::tempdir().unwrap();
    let image =
        Array3::from_shape_fn((6, 8, 8), |(band, row, column)| (40 * band + 8 * row / 2 + column) as u8);
    written(folder.path(), "forestnet", |_| vec![Contained::tiff("image", &image)]);
    let read = |task| {
        let dataset = open(folder.path(), task).unwrap();
        dataset.read(Split::Train, 0, &dataset.bands().unwrap()).unwrap()
    };
    let (stored, mended) = (read("forestnet"), read("forestnet-as-v1"));
    assert_eq!(stored.images[0].pixels[[2, 5, 1]], f32::from(image[[2, 5, 1]]));
    assert_eq!(mended.images[0].pixels[[2, 1, 5]], f32::from(image[[2, 5, 1]]));
    assert_eq!(stored.target, mended.target);
}

#[test]
fn masks_are_mapped_as_the_code_maps_them() {
    let folder = tempfile::tempdir().unwrap();
    let mask = |codes: [i16; 4]| Array3::from_shape_fn((1, 2, 2), |(_, row, column)| codes[2 * row + column]);
    let classes = |task: &str| {
        let dataset = open(folder.path(), task).unwrap();
        let sample = dataset.read(Split::Train, 0, &dataset.bands().unwrap()).unwrap();
        let Target::Mask(mask) = sample.target else { panic!("{task}") };
        mask.iter().copied().collect::<Vec<i32>>()
    };
    let image = |bands: usize| Contained::tiff("image", &Array3::from_elem((bands, 2, 2), 0.1_f32));
    let pair = |task: &str, bands: usize, codes: [i16; 4]| {
        written(folder.path(), task, |_| vec![image(bands), Contained::tiff("mask", &mask(codes))]);
    };
    // No data is not scored; with the code it is class 2 of 2.
    pair("burn_scars", 6, [-1, 0, 1, 0]);
    assert_eq!(classes("burn_scars"), [2, 0, 1, 0]);
    assert_eq!(suite().task("burn_scars").unwrap().ignore, Some(2));
    pair("flair2", 5, [1, 13, 14, 19]);
    assert_eq!(classes("flair2"), [0, 12, 12, 12]);
    pair("spacenet7", 4, [0, 1, 1, 0]);
    assert_eq!(classes("spacenet7"), [1, 2, 2, 1]);
    pair("caffe", 1, [0, 1, 2, 3]);
    assert_eq!(classes("caffe"), [0, 1, 2, 3]);
    written(folder.path(), "spacenet2", |_| {
        vec![image(8), image(1), Contained::tiff("semantic", &mask([0, 1, 0, 1])), image(1)]
    });
    assert_eq!(classes("spacenet2"), [1, 2, 1, 2]);
    written(folder.path(), "fotw", |_| {
        vec![image(4), image(4), image(1), Contained::tiff("semantic", &mask([0, 1, 2, 3]))]
    });
    assert_eq!(classes("fotw"), [0, 1, 2, 3]);
    // Kuro Siwo: classes in another order; pixels that are not valid, or NaN, are blank.
    written(folder.path(), "kuro_siwo", |_| {
        let mut after = Array3::from_elem((2, 2, 2), 0.2_f32);
        after[[1, 0, 0]] = f32::NAN;
        let before = Contained::tiff("before", &Array3::from_elem((2, 2, 2), 0.1_f32));
        let valid = Contained::tiff("invalid_data", &mask([1, 1, 1, 0]));
        let label = Contained::tiff("mask", &mask([0, 1, 2, 3]));
        vec![before.clone(), before, Contained::tiff("after", &after), image(1), label, valid]
    });
    assert_eq!(classes("kuro_siwo"), [1, 2, 3, 0]);
    let dataset = open(folder.path(), "kuro_siwo").unwrap();
    let bands = dataset.bands().unwrap();
    let sample = normalised(dataset.as_ref(), &bands, &dataset.read(Split::Train, 0, &bands).unwrap());
    let zeros = |image: usize, band: usize| {
        let plane = sample.images[image].pixels.index_axis(Axis(0), band);
        plane.iter().map(|pixel| *pixel == 0.0).collect::<Vec<_>>()
    };
    assert_eq!(zeros(0, 0), [false, false, false, true]);
    assert_eq!(zeros(2, 0), [false, false, false, true]);
    assert_eq!(zeros(2, 1), [true, false, false, true]);
    // Any other code is an error.
    pair("caffe", 1, [0, 1, 2, 4]);
    let dataset = open(folder.path(), "caffe").unwrap();
    let error = dataset.read(Split::Train, 0, &dataset.bands().unwrap()).unwrap_err().to_string();
    assert!(error.contains("the mask contains 4; expected one of 0 to 3"), "{error}");
}

#[test]
fn dates_of_pastis_are_evenly_spaced_and_zeros_stand_in_front_of_few() {
    let folder = tempfile::tempdir().unwrap();
    let hdf5 = |shape: &[u64], numbers: Vec<i16>| {
        let mut file = hdf5_pure::FileBuilder::new();
        file.create_dataset("data").with_i16_data(&numbers).with_shape(shape);
        Contained { id: "data", format: "HDF5", modality: None, bytes: file.finish().unwrap() }
    };
    // Each pixel is the number of its step, 1 the first.
    let series = |steps: u64, bands: u64| {
        let numbers = (1..=steps as i16).flat_map(|step| vec![step; (bands * 4) as usize]).collect();
        hdf5(&[steps, bands, 2, 2], numbers)
    };
    written(folder.path(), "pastis", |place| {
        let steps = if place == 0 { 33 } else { 3 };
        let label = hdf5(&[3, 2, 2], (0..12).collect());
        vec![series(steps, 10), series(steps, 3), series(steps, 3), label.clone(), label]
    });
    let dataset = open(folder.path(), "pastis-dates").unwrap();
    let bands = dataset.bands().unwrap();
    let steps = |index: usize| {
        let sample = dataset.read(Split::Train, index, &bands).unwrap();
        sample.images.iter().map(|image| image.pixels[[9, 1, 1]]).collect::<Vec<_>>()
    };
    // Python: `[int(i * (33 / 7)) for i in range(7)]`.
    assert_eq!(steps(0), [0, 4, 9, 14, 18, 23, 28].map(|step| step as f32 + 1.0));
    assert_eq!(steps(1), [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
    let sample = dataset.read(Split::Train, 0, &bands).unwrap();
    assert_eq!(sample.target, Target::Mask(ndarray::arr2(&[[0, 1], [2, 3]])));
    let single = open(folder.path(), "pastis").unwrap();
    assert_eq!(
        single.read(Split::Train, 0, &single.bands().unwrap()).unwrap().images[0].pixels[[0, 0, 0]],
        1.0
    );
    let radar = open(folder.path(), "pastis-s1").unwrap();
    assert_eq!(radar.read(Split::Train, 1, &radar.bands().unwrap()).unwrap().images.len(), 2);
}

#[test]
fn a_container_decides_and_its_known_defects_do_not() {
    let suite = suite();
    let task = suite.task("biomassters-s1-s2").unwrap();
    let hash = |task: &Task| Decoding::of(suite.family, task).hash();
    let changed = |change: &dyn Fn(&mut Container)| {
        let mut task = task.clone();
        change(task.container.as_mut().unwrap());
        hash(&task)
    };
    assert_eq!(changed(&|container| container.quirks.clear()), hash(task));
    let changes: [&dyn Fn(&mut Container); 6] = [
        &|container| container.images[1].first_band = 1,
        &|container| container.images[2].step = Some([1, 2]),
        &|container| container.images[2].transposed = true,
        &|container| container.blank = None,
        &|container| container.label.as_mut().unwrap().row = 0,
        &|container| {
            container.statistics.insert("B02".to_owned(), task.target_statistics());
        },
    ];
    for (place, change) in changes.iter().enumerate() {
        assert_ne!(changed(change), hash(task), "{place}");
    }
}

// What goes wrong ----------------------------------------------------------------------------------------------------------

#[test]
fn damaged_containers_are_errors_that_name_sample_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = Array3::from_elem((6, 4, 4), 7_u8);
    let opened = |class: i64, files: Vec<Contained>| {
        let sample: Written = ("a".to_owned(), "train", Labelled::Class(class), files);
        let path = folder.path().join("forestnet/geobench_forestnet.tortilla");
        write_tortilla(&path, "labels", &[sample]);
        let dataset = open(folder.path(), "forestnet")?;
        dataset.read(Split::Train, 0, &dataset.bands()?)
    };
    assert!(opened(11, vec![Contained::tiff("image", &good)]).is_ok());
    let error = |class, files| opened(class, files).map(|_| ()).unwrap_err().to_string();
    let text = error(12, vec![Contained::tiff("image", &good)]);
    assert!(text.contains("column `labels`: expected a class from 0 to 11"), "{text}");
    let text = error(0, vec![Contained::tiff("image", &good.slice_move(ndarray::s![..3, .., ..]))]);
    assert!(text.contains("a/image") && text.contains("expected 6 bands, found 3"), "{text}");
    let text = error(0, Vec::new());
    assert!(text.contains("no file 0; found 0"), "{text}");
    let broken = Contained {
        bytes: b"II*\0".to_vec(),
        ..Contained::tiff("image", &Array3::from_elem((1, 1, 1), 0_u8))
    };
    let text = error(0, vec![broken]);
    assert!(text.contains("invalid TIFF image"), "{text}");
    // A part is missing, or another release's parts lie there too.
    let part = |id: &str, split| -> Written {
        let image = Contained::tiff("image", &Array3::from_elem((6, 4, 4), 7_u8));
        (id.to_owned(), split, Labelled::Class(1), vec![image])
    };
    std::fs::remove_dir_all(folder.path().join("forestnet")).unwrap();
    let (a, b) = ([part("a", "train")], [part("b", "test")]);
    write_parts(&folder.path().join("forestnet"), "geobench_forestnet", &[&a, &b, &a]);
    let text = open(folder.path(), "forestnet").map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("two samples of a split are called `a`"), "{text}");
    std::fs::remove_file(folder.path().join("forestnet/geobench_forestnet.0002.part.tortilla")).unwrap();
    assert_eq!(open(folder.path(), "forestnet").unwrap().samples(Split::Test), ["b"]);
    std::fs::rename(
        folder.path().join("forestnet/geobench_forestnet.0001.part.tortilla"),
        folder.path().join("forestnet/geobench_forestnet.0002.part.tortilla"),
    )
    .unwrap();
    let text = open(folder.path(), "forestnet").map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("0001.part.tortilla: no such file, but later parts are there"), "{text}");
}

#[test]
fn detection_is_named_as_not_supported() {
    let suite = suite();
    for (name, kind) in [
        ("pastis_r", "instance segmentation"),
        ("substation", "instance segmentation"),
        ("everwatch", "detection"),
        ("nzcattle", "detection"),
    ] {
        let error = suite.task(name).unwrap_err().to_string();
        let expected = format!("GEO-Bench-2: `{name}` is not supported: {kind} is not measured here");
        assert!(error.contains(&expected), "{error}");
    }
    assert_eq!(suite.tables[0].tasks.len() + suite.unsupported.len(), 19);
}

// From files to records ----------------------------------------------------------------------------------------------------

/// Small models of each kind, and protocols that suit a handful of samples.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let change = |name: &str, text: String| match name {
        "linear-probe.toml" => {
            text.replace("epochs = 50", "epochs = 2").replace("batch-size = 128", "batch-size = 5")
        }
        "segmentation-probe.toml" => text.replace("epochs = 50", "epochs = 2"),
        "geobench2-finetune.toml" => text.replace("epochs = 50", "epochs = 1"),
        name if name.contains("upernet") => text
            .replace("channels = 512", "channels = 8")
            .replace("channels = 256", "channels = 4")
            .replace("batch-size = 16", "batch-size = 2"),
        name if name.starts_with("dofa") => text
            .replace("width = 768", "width = 24")
            .replace("kernel-width = 128", "kernel-width = 24")
            .replace("depth = 12", "depth = 4")
            .replace("heads = 12", "heads = 3")
            .replace("map-layers = [3, 5, 7, 11]", "map-layers = [0, 1, 2, 3]"),
        _ => text,
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["benchmarks", "configs"] {
        common::copied(&here.join(folder), &home.path().join(folder), &change);
    }
    home
}

fn bench(home: &Path, data: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.current_dir(home).env("TERRABENCH_CACHE", home.join("cache"));
    command.args(["bench", "geobench-2"]);
    if !more.contains(&"image-stats") {
        command.args(["--weights", "random:0"]);
    }
    command.arg("--data").arg(data).arg("--out").arg(out).args(more);
    command.output().unwrap()
}

#[track_caller]
fn finished(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const UPERNET: [&str; 4] = ["--epochs", "3", "--learning-rates", "1e-3"];

#[test]
fn tasks_run_from_containers_and_packed_form_to_equal_records() {
    let (home, out) = (home(), tempfile::tempdir().unwrap());
    let suite = suite();
    for (place, set) in sets().into_iter().enumerate() {
        let runs: Vec<(&str, &str, &str)> = match set.join("benv2").is_dir() {
            true => vec![
                ("dofa-b-permuted", "linear-probe", "benv2"),
                ("dofa-b-permuted", "knn", "benv2-s1-s2"),
                ("dofa-b-permuted", "geobench2-finetune", "benv2-s1"),
                ("image-stats", "knn", "benv2"),
                ("dofa-b-permuted", "upernet", "biomassters-months"),
                ("dofa-b-permuted", "geobench2-upernet-finetune", "biomassters"),
            ],
            false => vec![
                ("dofa-b-permuted", "segmentation-probe", "cloudsen12"),
                ("dofa-b-permuted", "geobench2-upernet-frozen", "cloudsen12"),
            ],
        };
        let packed = tempfile::tempdir().unwrap();
        for (_, _, task) in &runs {
            pack(&suite, suite.task(task).unwrap(), &set, packed.path(), &Silent).unwrap();
        }
        let by_form = [set.as_path(), packed.path()].map(|data| {
            let out = out.path().join(format!("{place}-{}", data == set));
            for (model, protocol, task) in &runs {
                let mut words = vec!["--model", model, "--protocol", protocol, "--task", task];
                if protocol.contains("upernet") {
                    words.extend(UPERNET);
                } else if protocol.contains("finetune") {
                    words.extend(&UPERNET[2..]);
                }
                finished(&bench(home.path(), data, &out, &words));
            }
            let folder = out.join("geobench-2");
            common::all_scores_follow_from_predictions(&folder);
            records(&folder)
        });
        let [folder, packed] = by_form;
        assert_eq!(folder.len(), runs.len());
        assert_eq!(folder, packed);
        for record in folder.values() {
            let what = format!("{:?}", record.cell);
            assert!(record.value.is_finite(), "{what}");
            let notes: String =
                record.notes.iter().map(|note| format!("{} {}\n", note.kind, note.text)).collect();
            let known = match record.cell.task.as_str() {
                "benv2-s1" | "benv2-s1-s2" => "store VH, VV under the names VV, VH",
                "biomassters" => "is blank in all images",
                "cloudsen12" => "returns it as it was",
                _ => continue,
            };
            assert!(notes.contains(known), "{what}: {notes}");
        }
    }
}

#[test]
fn guards_notice_known_defects_and_are_silent_once_they_are_mended() {
    let (home, data, out) = (home(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let size = [16, 16];
    let varied = |place: usize, numbers: &[f32]| {
        let numbers: Vec<f32> = numbers.iter().map(|number| number * (1.0 + 0.02 * place as f32)).collect();
        flat(&numbers, size)
    };
    let bytes = |image: Array3<f32>| image.mapv(|pixel| pixel as u8);
    written(data.path(), "treesatai", |place| {
        let wrapped = varied(place, &[65_000.0, 64_000.0, 1.0]).mapv(|pixel| pixel.min(65_535.0) as u16);
        let s2 = varied(place, &[500.0; 12]).mapv(|pixel| pixel as u16);
        vec![
            Contained::tiff("aerial", &bytes(varied(place, &[130.0, 92.0, 85.0, 79.0]))),
            Contained::tiff("s1", &wrapped),
            Contained::tiff("s2", &s2),
        ]
    });
    written(data.path(), "so2sat", |place| {
        let amplitude =
            |spread: f32| move |at: usize| if (at + place).is_multiple_of(3) { spread } else { -spread };
        let image = Array3::from_shape_fn((2, 16, 16), |(band, row, column)| {
            amplitude([0.2, 0.5][band])(row * 16 + column)
        });
        vec![Contained::tiff("s1", &image), Contained::tiff("s2", &varied(place, &[0.1; 10]))]
    });
    written(data.path(), "forestnet", |place| {
        vec![Contained::tiff("image", &bytes(varied(place, &[70.0, 80.0, 75.0, 120.0, 90.0, 74.0])))]
    });
    written(data.path(), "dynamic_earthnet", |place| {
        let s2: Vec<f32> = vec![
            1300.0, 1380.0, 1400.0, 2780.0, 1730.0, 2370.0, 2630.0, 2700.0, 2300.0, 1700.0, 1000.0, 3000.0,
        ];
        let label = Array3::from_shape_fn((1, 16, 16), |(_, row, _)| (row / 8) as u8);
        vec![
            Contained::tiff("planet_0", &varied(place, &[600.0, 800.0, 900.0, 2600.0])),
            Contained::tiff("s2", &varied(place, &s2)),
            Contained::tiff("label", &label),
        ]
    });
    let notes = |task: &str, protocol: &str, more: &[&str]| {
        let out = out.path().join(format!("{task}{}", more.len()));
        let mut words = vec!["--model", "dofa-b-permuted", "--protocol", protocol, "--task", task];
        if protocol == "upernet" {
            words.extend(UPERNET);
        }
        words.extend(more);
        finished(&bench(home.path(), data.path(), &out, &words));
        let records = records(&out.join("geobench-2"));
        let record = records.values().next().unwrap().clone();
        record.notes.iter().map(|note| format!("{} {}\n", note.kind, note.text)).collect::<String>()
    };
    for (task, protocol, expected) in [
        ("treesatai", "knn", "band-names treesatai: the aerial images are stored near infrared, green"),
        ("so2sat-s1", "knn", "band-names so2sat-s1: the files store VH, VV under the names VV, VH"),
        (
            "dynamic_earthnet-s2",
            "upernet",
            "band-names dynamic_earthnet-s2: the Sentinel-2 bands are stored B02 B03",
        ),
    ] {
        let found = notes(task, protocol, &[]);
        assert!(found.contains(expected) && found.contains("--bands by-content"), "{task}: {found}");
        let mended = notes(task, protocol, &["--bands", "by-content"]);
        assert!(!mended.contains("band-names"), "{task}: {mended}");
    }
    let found = notes("treesatai-s1", "knn", &[]);
    assert!(
        found.contains("known-defect treesatai-s1: Sentinel-1 was written as unsigned 16-bit"),
        "{found}"
    );
    let found = notes("forestnet", "knn", &[]);
    assert!(found.contains("known-defect forestnet: rows and columns of the images are swapped"), "{found}");
    let mended = notes("forestnet-as-v1", "knn", &[]);
    assert!(!mended.contains("known-defect"), "{mended}");
}

// The leaderboard ----------------------------------------------------------------------------------------------------------

fn filled<'a>(suite: &'a Suite, file: &str) -> ResultTable<'a> {
    let table = suite.tables.iter().find(|table| table.file == file).unwrap();
    let published = published::of_table(&Home::find().unwrap(), table).unwrap();
    fill(table, suite, &published, &[], false).unwrap()
}

/// Value of a published row on a task.
fn published_value(table: &ResultTable, model: &str, backbone: &str, task: &str) -> f64 {
    let row = table.published.iter().find(|row| row.model == model && row.backbone == backbone).unwrap();
    let column = table.columns.iter().position(|column| column.task == task).unwrap();
    row.cells[column].as_ref().unwrap().value
}

#[test]
fn rows_of_the_leaderboard_stand_in_two_tables() {
    let suite = suite();
    let (tuned, frozen) = (filled(&suite, "fine-tuning"), filled(&suite, "frozen"));
    assert_eq!([tuned.published.len(), frozen.published.len()], [21, 10]);
    for row in tuned.published.iter().chain(&frozen.published) {
        assert!(row.cells.iter().all(Option::is_some), "{} {}", row.model, row.backbone);
    }
    assert_eq!(published_value(&tuned, "Clay 1", "ViT-Base", "benv2"), 73.6561);
    assert_eq!(published_value(&frozen, "Clay 1", "ViT-Base", "benv2"), 67.15);
    // 1 - 0.2537951171398163 RMSE = 0.956635, in units of 289.89 t/ha.
    let rmse = published_value(&tuned, "Clay 1", "ViT-Base", "biomassters");
    assert!((rmse - (1.0 - 0.956_635) / 0.253_795_117_139_816_3 * 289.89).abs() < 1e-3, "{rmse}");
    let origins = published::read(&Home::find().unwrap().published("geobench2-frozen.csv")).unwrap();
    assert_eq!(origins.values.len(), 150);
    assert!(origins.values.iter().all(|value| value.origin.word() == "rerun"));
}

/// Computed apart, from the published files: the mean of the middle half of (value - end) / (other end - end).
#[test]
fn scores_are_scaled_by_the_ends_of_fine_tuned_runs() {
    let suite = suite();
    let definition = suite.capabilities.as_ref().unwrap();
    for (file, expected) in [
        ("fine-tuning", [("Clay 1 ViT-Base", 0.6747, 0.4366), ("DINOv3 ConvNeXt-Large", 0.7514, 0.7935)]),
        ("frozen", [("Clay 1 ViT-Base", 0.4918, 0.0510), ("Satlas Swin-Base", -0.0711, -0.6503)]),
    ] {
        let table = filled(&suite, file);
        let found = capabilities::scores(definition, &table).unwrap();
        assert_eq!(found.models.len(), table.published.len());
        assert_eq!(found.groups.len(), 9);
        assert_eq!(found.groups[0], "All tasks");
        let classes = found.groups.iter().position(|group| group == "Classification").unwrap();
        for (name, all, of_classes) in expected {
            let model = found
                .models
                .iter()
                .find(|model| model.name.starts_with(name) && !model.name.contains("radar"))
                .unwrap();
            let scores = [model.scores[0].unwrap(), model.scores[classes].unwrap()];
            assert!(
                (scores[0] - all).abs() < 1e-4 && (scores[1] - of_classes).abs() < 1e-4,
                "{name}: {scores:?}"
            );
        }
        let best = found.models[0].scores[0].unwrap();
        assert!(found.models.iter().all(|model| model.scores[0].unwrap() <= best), "sorted");
        assert!(
            found.notes.iter().any(|note| note.contains("without substation, everwatch")),
            "{:?}",
            found.notes
        );
        let table = found.table();
        assert_eq!((table.header.len(), table.rows.len()), (10, found.models.len()));
        let picture = pictures::capabilities::draw(&found);
        keep(&format!("capabilities-{file}"), &picture);
        assert_readable(&picture);
    }
}

/// Writes a picture where somebody asks to see it.
fn keep(name: &str, picture: &Picture) {
    if let Some(folder) = std::env::var_os("TERRABENCH_PICTURES") {
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), png(picture, 1.0).unwrap()).unwrap();
    }
}

/// No text leaves the picture, is smaller than 11 units, or lies on another one.
#[track_caller]
fn assert_readable(picture: &Picture) {
    let texts: Vec<&Text> = picture.texts().collect();
    for (place, text) in texts.iter().enumerate() {
        let bounds = text.bounds();
        assert!(text.size >= 11.0, "{text:?}");
        assert!(bounds.left >= 0.0 && bounds.right <= picture.width, "{text:?} {bounds:?}");
        let other = texts[..place].iter().find(|other| other.bounds().overlaps(&bounds));
        assert!(other.is_none(), "{text:?} lies on {other:?}");
    }
}

#[test]
fn a_spider_plot_of_nineteen_axes_is_readable() {
    let suite = suite();
    let spider = suite.spider.as_ref().unwrap();
    let files: Vec<&str> = suite.tables.iter().map(|table| table.file.as_str()).collect();
    let tables: Vec<ResultTable> = files.iter().map(|file| filled(&suite, file)).collect();
    let tables: Vec<(&str, &ResultTable)> = files.iter().copied().zip(&tables).collect();
    let chart = spider::chart(spider, &tables, &spider::Choice::default()).unwrap().unwrap();
    assert_eq!(chart.axes.len(), 19);
    assert_eq!(chart.series.len(), 6);
    let picture = spider::draw(&chart);
    keep("spider-19", &picture);
    assert_eq!(picture.width, 900.0);
    assert_readable(&picture);
}

// Fetching -----------------------------------------------------------------------------------------------------------------

#[test]
fn every_task_says_where_its_files_are() {
    let home = Home::find().unwrap();
    let catalogue = Catalogue::load(&home, "geobench-2").unwrap();
    let suite = suite();
    let names: Vec<&str> = catalogue.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, suite.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>());
    // Nothing is in a repository of the whole benchmark.
    assert!(catalogue.order(&[]).unwrap().parts.is_empty());
    let orders = catalogue.other_orders(&[]);
    assert_eq!(orders.len(), 14, "all but biomassters, which has 138 GB");
    let [order] = &catalogue.other_orders(&["benv2-s1".to_owned()])[..] else { panic!() };
    assert_eq!(order.repository.name, "aialliance/benv2");
    let source = &order.parts[0].sources[0];
    assert_eq!(source.to.as_deref(), Some("benv2/geobench_benv2.tortilla"));
    assert_eq!(
        source.sha256.as_deref(),
        Some("821c2f429c3e85c158c758bbb215bf61170a2451a11284efaf0f89cef97e468a")
    );
    assert_eq!(order.parts[0].licence.as_deref(), Some("CDLA-Permissive-1.0"));
    let [order] = &catalogue.other_orders(&["biomassters".to_owned()])[..] else { panic!() };
    assert_eq!(order.parts[0].sources.len(), 7);
}
