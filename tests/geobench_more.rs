//! The six GEO-Bench tasks of Landsat and aerial images: every sample of small sets against the official package, one test per
//! quirk, models for Sentinel-2 that take the bands by wavelength, and runs from files to records.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::{Array2, Axis};
use serde_json::Value;
use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, RawSample, Split, Target};
use terrabench::features::{Input, InputOptions};
use terrabench::fetch::catalogue::Catalogue;
use terrabench::home::Home;
use terrabench::model::config::{ImageSize, Inputs, ModelConfig};
use terrabench::progress::Silent;
use terrabench::protocol::ProtocolConfig;
use terrabench::run::plan::{Choice, plan, without_sensor};
use terrabench::task::bands::{Band, Channels};
use terrabench::task::{Sensor, Suite, Task};
use terrabench::transform::strategies::Strategies;

use crate::common::{self, records};

const TASKS: [&str; 6] =
    ["m-forestnet", "m-pv4ger", "m-pv4ger-seg", "m-chesapeake", "m-NeonTree", "m-nz-cattle"];

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "geobench").unwrap()
}

fn model(name: &str) -> ModelConfig {
    ModelConfig::load(&Home::find().unwrap(), name).unwrap().in_suite("geobench", Inputs::AsPublished)
}

fn options(channels: Channels) -> InputOptions {
    InputOptions {
        by_content: false,
        channels,
        normalization: "default".to_owned(),
        strategies: Strategies::load(&Home::find().unwrap()).unwrap(),
        zeros: false,
    }
}

/// The folder with the small set of a task, and its expected values.
fn small_set(task: &str) -> Option<(PathBuf, Value)> {
    let folder = match task {
        "m-nz-cattle" => common::real()?.join("geobench-more"),
        _ => common::made()?.join("geobench-more"),
    };
    let text = std::fs::read_to_string(folder.join("reader.json"));
    let Ok(text) = text else {
        eprintln!("skipped: no small set of {task} is here");
        return None;
    };
    let golden: Value = serde_json::from_str(&text).unwrap();
    Some((folder, golden[task].clone()))
}

/// The small sets of all tasks in one folder.
fn together() -> Option<tempfile::TempDir> {
    let all = tempfile::tempdir().unwrap();
    for task in TASKS {
        let (folder, _) = small_set(task)?;
        let directory = &suite().task(task).unwrap().directory.clone();
        copy(&folder.join(directory), &all.path().join(directory));
    }
    Some(all)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn open(root: &Path, task: &Task) -> Box<dyn Dataset> {
    data::open(&suite(), task, root, "default").unwrap()
}

fn split_of(name: &str) -> Split {
    Split::ALL.into_iter().find(|split| split.to_string() == name).unwrap()
}

// Against the official package ------------------------------------------------------------------------------------------------

/// The numbers of one band of the expected values: of a dataset with several channels the first, the middle and the last.
fn expected_of(band: &Value, numbers: &Value) -> Vec<f64> {
    match band[2].as_array().unwrap().len() {
        3 => numbers.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect(),
        _ => vec![numbers.as_f64().unwrap()],
    }
}

fn assert_sample(what: &str, golden: &Value, sample: &Value, raw: &RawSample) {
    assert_eq!(Some(raw.name.as_str()), sample["name"].as_str(), "{what}");
    let stored = &raw.images[0].bands;
    let mut first = 0;
    for (place, band) in golden["bands"].as_array().unwrap().iter().enumerate() {
        let name = band[0].as_str().unwrap();
        let shape: Vec<usize> =
            band[2].as_array().unwrap().iter().map(|side| side.as_u64().unwrap() as usize).collect();
        let count = shape.get(2).copied().unwrap_or(1);
        let planes = &stored[first..first + count];
        first += count;
        for (number, plane) in planes.iter().enumerate() {
            let expected = if count > 1 { format!("{name}_{:03}", number + 1) } else { name.to_owned() };
            assert_eq!(plane.name, expected, "{what}");
            assert_eq!(Some(plane.dtype.as_str()), band[1].as_str(), "{what} {name}");
            assert_eq!(plane.pixels.dim(), (shape[0], shape[1]), "{what} {name}");
        }
        let all: f64 = planes.iter().flat_map(|plane| plane.pixels.iter()).sum();
        let mean = all / shape.iter().product::<usize>() as f64;
        let expected = sample["mean"][place].as_f64().unwrap();
        assert!(
            (mean - expected).abs() <= 1e-9 * expected.abs(),
            "{what} {name}: {mean}, expected {expected}"
        );
        for (key, [row, column]) in [("p0_0", [0, 0]), ("p5_7", [5, 7])] {
            let at = [row.min(shape[0] - 1), column.min(shape[1] - 1)];
            let shown = if shape.len() == 3 { vec![0, count / 2, count - 1] } else { vec![0] };
            let found: Vec<f64> = shown.iter().map(|channel| planes[*channel].pixels[at]).collect();
            let expected = expected_of(band, &sample[key][place]);
            // Floats are the shortest decimals that read back to the same float32.
            let same = found.iter().zip(&expected).all(|(a, b)| *a as f32 == *b as f32);
            assert!(
                found.len() == expected.len() && same,
                "{what} {name} {key}: {found:?}, expected {expected:?}"
            );
        }
    }
    assert_eq!(first, stored.len(), "{what}: bands beyond the expected ones");
    match &raw.target {
        Target::Class(class) => assert_eq!(Some(*class as u64), sample["label"].as_u64(), "{what}"),
        Target::Mask(mask) => assert_mask(what, mask, raw.label_dtype.as_deref(), sample),
        other => panic!("{what}: {other:?}"),
    }
}

fn assert_mask(what: &str, mask: &Array2<i32>, dtype: Option<&str>, sample: &Value) {
    let expected: Vec<u64> =
        sample["label"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    let mut counts = vec![0; expected.len()];
    mask.iter().for_each(|class| counts[*class as usize] += 1);
    assert_eq!(counts, expected, "{what}");
    let found = serde_json::json!([dtype, [mask.nrows(), mask.ncols()], mask[[0, 0]], mask[[5, 7]]]);
    assert_eq!(found, sample["mask"], "{what}");
}

#[test]
fn every_sample_equals_the_official_packages() {
    let mut seen = 0;
    for name in TASKS {
        let Some((root, golden)) = small_set(name) else { return };
        let suite = suite();
        let task = suite.task(name).unwrap();
        assert_eq!(Some(task.classes as u64), golden["n_classes"].as_u64(), "{name}");
        for (partition, sizes) in golden["partition_sizes"].as_object().unwrap() {
            let dataset = data::open(&suite, task, &root, partition).unwrap();
            let found = Split::ALL.map(|split| dataset.samples(split).len());
            assert_eq!(serde_json::json!(found), *sizes, "{name} {partition}");
        }
        let dataset = open(&root, task);
        let samples = golden["samples"].as_array().unwrap();
        for split in Split::ALL {
            let of_split: Vec<&Value> = samples
                .iter()
                .filter(|sample| split_of(sample["split"].as_str().unwrap()) == split)
                .collect();
            assert_eq!(of_split.len(), dataset.samples(split).len(), "{name} {split}");
            for (index, sample) in of_split.into_iter().enumerate() {
                let what = format!("{name} {split} {index}");
                let raw = dataset.read_raw(split, index).unwrap();
                assert_sample(&what, &golden, sample, &raw);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 48 + 24 + 12 + 12 + 8 + 12);
}

/// (x - mean) / std per band by the set's own statistics, the bands in the model's order, the others zero: PANGAEA's rule.
#[test]
fn samples_are_standardised_and_lie_in_the_bands_of_the_model() {
    for name in TASKS {
        let Some((root, _)) = small_set(name) else { return };
        let suite = suite();
        let task = suite.task(name).unwrap();
        let statistics: Value = serde_json::from_str(
            &std::fs::read_to_string(root.join(&task.directory).join("band_stats.json")).unwrap(),
        )
        .unwrap();
        let mut model = model("terrafm-b");
        let raw = open(&root, task).read_raw(Split::Test, 0).unwrap();
        let (rows, columns) = raw.images[0].bands[0].pixels.dim();
        model.image = ImageSize::Side(rows);
        let input = Input::open(&suite, task, "default", &root, &model, &options(Channels::All)).unwrap();
        let prepared = input.read(&input.only().unwrap().preprocess, Split::Test, 0).unwrap();
        let pixels = &prepared.images[0].pixels;
        assert_eq!(pixels.dim(), (12, rows, columns), "{name}");
        let expected: &[(&str, &str)] = match name {
            "m-forestnet" => &[
                ("B02", "02 - Blue"),
                ("B03", "03 - Green"),
                ("B04", "04 - Red"),
                ("B8A", "05 - NIR"),
                ("B11", "06 - SWIR1"),
                ("B12", "07 - SWIR2"),
            ],
            "m-chesapeake" => &[("B02", "Blue"), ("B03", "Green"), ("B04", "Red"), ("B8A", "NearInfrared")],
            _ => &[("B02", "Blue"), ("B03", "Green"), ("B04", "Red")],
        };
        for (place, band) in input.images[0].bands.iter().enumerate() {
            let plane = pixels.index_axis(Axis(0), place);
            let Some((_, stored)) = expected.iter().find(|(target, _)| *target == band.name()) else {
                assert!(plane.iter().all(|pixel| *pixel == 0.0), "{name} {band} is zero");
                continue;
            };
            let of_band = raw.images[0].bands.iter().find(|raw| raw.name == *stored).unwrap();
            let (mean, std) =
                (statistics[*stored]["mean"].as_f64().unwrap(), statistics[*stored]["std"].as_f64().unwrap());
            for (found, raw) in plane.iter().zip(&of_band.pixels) {
                let expected = (raw - mean) / std;
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-4,
                    "{name} {band}: {found}, expected {expected}"
                );
            }
        }
        assert_eq!(input.matches().len(), expected.len(), "{name}");
        assert_eq!(input.imputed().len(), 12 - expected.len(), "{name}");
        assert_eq!(input.images[0].sensor, Sensor::S2_L1C, "{name}");
    }
}

#[test]
fn packed_samples_are_those_of_the_folder() {
    for name in TASKS {
        let Some((root, _)) = small_set(name) else { return };
        let (suite, to) = (suite(), tempfile::tempdir().unwrap());
        let task = suite.task(name).unwrap();
        assert!(!pack(&suite, task, &root, to.path(), &Silent).unwrap().reused, "{name}");
        let (packed, plain) = (open(to.path(), task), open(&root, task));
        let bands = plain.bands().unwrap();
        assert_eq!(packed.bands().unwrap(), bands, "{name}");
        assert_eq!(
            packed.fingerprint(&Split::ALL).unwrap(),
            plain.fingerprint(&Split::ALL).unwrap(),
            "{name}"
        );
        for split in Split::ALL {
            assert_eq!(packed.samples(split), plain.samples(split), "{name}");
            for index in 0..plain.samples(split).len() {
                let read = |dataset: &dyn Dataset| dataset.read(split, index, &bands).unwrap();
                assert_eq!(read(packed.as_ref()), read(plain.as_ref()), "{name} {split} {index}");
            }
        }
        for (image, bands) in bands.iter().enumerate() {
            let of = |dataset: &dyn Dataset| dataset.statistics(image, bands).unwrap();
            assert_eq!(of(packed.as_ref()), of(plain.as_ref()), "{name}");
        }
    }
}

// Quirks ----------------------------------------------------------------------------------------------------------------------

/// Each sample has its own date, and in m-nz-cattle the mask has one too.
#[test]
fn dates_follow_the_names_of_bands_and_masks() {
    let Some((_, golden)) = small_set("m-forestnet") else { return };
    let dated: BTreeSet<String> = golden["samples"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|sample| Some(sample.get("hdf5_names")?[0].as_str()?.to_owned()))
        .collect();
    assert!(dated.len() > 20 && dated.iter().all(|name| name.starts_with("04 - Red_20")), "{dated:?}");
    let Some((_, golden)) = small_set("m-nz-cattle") else { return };
    assert!(golden["samples"].as_array().unwrap().iter().all(|sample| sample["label_hdf5_name"].is_string()));
    // That they are read: `every_sample_equals_the_official_packages`.
}

/// Commas, brackets, dots, a minus sign first: the suffix `.hdf5` is added to the whole name.
#[test]
fn names_of_samples_have_commas_brackets_and_dots() {
    let named = |task: &str, fits: &dyn Fn(&str) -> bool| {
        let Some((root, _)) = small_set(task) else { return };
        let suite = suite();
        let dataset = open(&root, suite.task(task).unwrap());
        assert!(dataset.samples(Split::Train).iter().any(|name| fits(name)), "{task}");
        for path in dataset.files(Split::Train) {
            assert!(path.is_file(), "{}", path.display());
        }
    };
    named("m-forestnet", &|name| name.starts_with('-') && name.matches('.').count() == 2);
    named("m-pv4ger", &|name| name.contains(',') && name.matches('.').count() == 2);
    named("m-nz-cattle", &|name| name.contains("_(2015-2016)_") && name.contains(','));
    named("m-chesapeake", &|name| name.starts_with("id_0"));
}

/// The numbers of m-chesapeake's masks begin with no data at 0, which counts as a class.
#[test]
fn classes_of_chesapeake_begin_with_no_data() {
    let suite = suite();
    let task = suite.task("m-chesapeake").unwrap();
    assert_eq!(task.class_names[0], "no data");
    assert_eq!(task.class_names[1], "water");
    assert_eq!((task.classes, task.ignore), (7, None));
    let Some((root, _)) = small_set("m-chesapeake") else { return };
    let dataset = open(&root, task);
    let mut seen = BTreeSet::new();
    for index in 0..dataset.samples(Split::Train).len() {
        let Target::Mask(mask) = dataset.read_raw(Split::Train, index).unwrap().target else { panic!() };
        seen.extend(mask);
    }
    // One of the samples is padded with 0, which stays a class like the others: nothing is ignored, nothing moved.
    assert_eq!(seen, (0..=6).collect());
}

/// Canopy height and the hyperspectral cube of m-NeonTree are smaller; read with the others, they are resampled by splines.
#[test]
fn smaller_bands_of_neon_tree_are_resampled_if_they_are_listed() {
    let Some((root, _)) = small_set("m-NeonTree") else { return };
    let suite = suite();
    let task = suite.task("m-NeonTree").unwrap();
    // Models that take every stored band take the three that everybody uses.
    assert_eq!(open(&root, task).bands().unwrap(), [["Red", "Green", "Blue"]]);
    let all = Task { stored_bands: Vec::new(), ..task.clone() };
    let dataset = open(&root, &all);
    let stored = dataset.bands().unwrap();
    assert_eq!(stored[0].len(), 3 + 1 + 369);
    assert!(stored[0].contains(&"Neon_369".to_owned()));

    let wanted = vec![["Red", "Canopy Height Model", "Neon_001", "Neon_369"].map(str::to_owned).to_vec()];
    let sample = dataset.read(Split::Train, 0, &wanted).unwrap();
    let pixels = &sample.images[0].pixels;
    assert_eq!(pixels.dim(), (4, 40, 40));
    let raw = dataset.read_raw(Split::Train, 0).unwrap();
    let plane = |name: &str| &raw.images[0].bands.iter().find(|band| band.name == name).unwrap().pixels;
    // The corners of a spline through the corners are those of the small band, and integers stay integers.
    for (place, name) in wanted[0].iter().enumerate().skip(1) {
        let small = plane(name);
        assert_eq!(small.dim(), (4, 4), "{name}");
        for ([row, column], [small_row, small_column]) in
            [([0, 0], [0, 0]), ([39, 0], [3, 0]), ([39, 39], [3, 3])]
        {
            let (found, expected) =
                (f64::from(pixels[[place, row, column]]), small[[small_row, small_column]]);
            assert!((found - expected).abs() < 1e-3, "{name}: {found}, expected {expected}");
        }
    }
    assert!(pixels.index_axis(Axis(0), 2).iter().all(|pixel| pixel.fract() == 0.0));
    // geobench 1.0.0 with scipy 1.17.1: `sample.pack_to_3d(band_names=["Red", "Canopy Height Model", "Neon"], resample=True)`.
    let middle = [vec!["Red", "Canopy Height Model", "Neon_001", "Neon_185", "Neon_369"]];
    let middle = middle.map(|names| names.into_iter().map(str::to_owned).collect());
    let sample = dataset.read(Split::Train, 0, &middle).unwrap();
    assert_eq!(sample.name, "2019_YELL_2_541000_4977000_image_crop_15_100");
    for ([row, column], expected) in [
        ([5, 7], [63.0, 2.395073890686035, 132.0, 884.0, 521.0]),
        ([20, 33], [204.0, 9.394998550415039, 259.0, 1682.0, 945.0]),
        ([39, 12], [200.0, 4.150776386260986, 172.0, 1092.0, 620.0]),
    ] {
        for (place, expected) in expected.into_iter().enumerate() {
            let found = f64::from(sample.images[0].pixels[[place, row, column]]);
            assert!((found - expected).abs() < 1e-5, "{row} {column} {place}: {found}, expected {expected}");
        }
    }
    let statistics = dataset.statistics(0, &wanted[0]).unwrap();
    assert_eq!(statistics[2], statistics[3], "one entry for all channels");

    // The official package refuses unless it is asked to resample; so does a task that does not ask.
    let plain = Task { resample_bands: false, ..all.clone() };
    let error = open(&root, &plain).read(Split::Train, 0, &wanted).unwrap_err().to_string();
    assert!(error.contains("is 4 x 4 pixels, but `Red` is 40 x 40"), "{error}");
    let cube = [vec!["Neon".to_owned()]];
    let error = dataset.read(Split::Train, 0, &cube).unwrap_err().to_string();
    assert!(error.contains("has 369 bands") && error.contains("Neon_001 to Neon_369"), "{error}");
    let beyond = [vec!["Neon_370".to_owned()]];
    assert!(dataset.read(Split::Train, 0, &beyond).unwrap_err().to_string().contains("no band `Neon_370`"));
}

// Models ------------------------------------------------------------------------------------------------------------------------

#[test]
fn bands_are_matched_by_wavelength_with_those_that_the_model_was_trained_on() {
    let suite = suite();
    let matched = |name: &str, task: &str| -> String {
        let task = suite.task(task).unwrap();
        let model = model(name);
        let taken = model.taken(task, &task.sources()[0]).unwrap();
        let pairs: Vec<String> = taken.matches.iter().map(ToString::to_string).collect();
        format!("{}: {}", taken.sensor, pairs.join(", "))
    };
    let landsat = "m-forestnet";
    assert_eq!(
        matched("terrafm-b", landsat),
        "s2-l1c: blue as B02, green as B03, red as B04, nir as B8A, swir1 as B11, swir2 as B12"
    );
    // Its own six bands, not those that Galileo's evaluation passes it on the Sentinel-2 tasks.
    assert_eq!(
        matched("prithvi2-300m", landsat),
        "s2-l1c: blue as B02, green as B03, red as B04, nir as B8A, swir1 as B11, swir2 as B12"
    );
    // Without B8A, the broad near infrared.
    assert_eq!(
        matched("satlas-swin-b", landsat),
        "s2-l1c: red as B04, green as B03, blue as B02, nir as B08, swir1 as B11, swir2 as B12"
    );
    assert_eq!(matched("galileo-base", "m-pv4ger"), "s2-l1c: blue as B02, green as B03, red as B04");
    assert_eq!(
        matched("terrafm-b", "m-chesapeake"),
        "s2-l1c: blue as B02, green as B03, red as B04, nir as B8A"
    );

    let other = suite.clone().with_input_sensor(Sensor::S2_L2A);
    let task = other.task(landsat).unwrap();
    assert_eq!(model("terrafm-b").taken(task, &task.sources()[0]).unwrap().sensor, Sensor::S2_L2A);
    // A model that has the sensor takes its bands as they are, whatever the command line says of Sentinel-2.
    let mut own = model("terrafm-b");
    let sensor: Sensor = "landsat-8".parse().unwrap();
    let bands: Vec<Band> = ["red", "nir"].map(|name| name.parse().unwrap()).to_vec();
    own.sensors.insert(
        sensor,
        terrabench::model::config::SensorInput { bands: bands.clone(), ..Default::default() },
    );
    own.matched.remove(&sensor);
    for suite in [&suite, &other] {
        let task = suite.task(landsat).unwrap();
        let taken = own.taken(task, &task.sources()[0]).unwrap();
        assert_eq!((taken.sensor, &taken.input.bands), (sensor, &bands));
        assert!(taken.matches.is_empty());
    }
}

#[test]
fn red_green_and_blue_alone_are_taken_if_asked() {
    let Some((root, _)) = small_set("m-forestnet") else { return };
    let suite = suite();
    let task = suite.task("m-forestnet").unwrap();
    let input = |name: &str, channels| {
        Input::open(&suite, task, "default", &root, &model(name), &options(channels)).unwrap()
    };
    let rgb = input("terrafm-b", Channels::Rgb);
    assert_eq!(rgb.images[0].selection.zeroed.len(), 9);
    let told: Vec<String> = rgb.matches().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["blue as B02", "green as B03", "red as B04"]);
    // Models that take any set of bands have no zeros.
    let any = input("dofa-b-permuted", Channels::All);
    assert_eq!(any.channel_names().len(), 6);
    assert!(any.images[0].selection.zeroed.is_empty());
    // Every stored band, in the order of the files or, of three, red first.
    assert_eq!(input("image-stats", Channels::All).channel_names().len(), 6);
    assert_eq!(input("image-stats", Channels::Rgb).channel_names(), ["04 - Red", "03 - Green", "02 - Blue"]);
    let named = Channels::Named(vec!["B05".parse().unwrap()]);
    let error = Input::open(&suite, task, "default", &root, &model("satlas-swin-b"), &options(named));
    // B05 is a band of the model, but nothing stands there.
    let input = error.unwrap();
    assert_eq!(input.images[0].selection.zeroed.len(), 9);
}

#[test]
fn a_default_run_has_the_tasks_that_it_had() {
    let (home, suite) = (Home::find().unwrap(), suite());
    let load = |name: &str| ProtocolConfig::load_named(&home, name);
    let planned = |name: &str, choice: Choice| -> Vec<String> {
        plan(&suite, &model(name), &choice, load).unwrap().into_iter().map(|plan| plan.task.name).collect()
    };
    let with = |protocol: &str| Choice { protocols: vec![protocol.to_owned()], ..Choice::default() };
    assert_eq!(planned("terrafm-b", Choice::default()).len(), 4);
    assert_eq!(planned("terrafm-b", with("finetune")).len(), 4);
    assert_eq!(planned("terrafm-b", with("upernet")), ["m-cashew-plant", "m-SA-crop-type"]);
    assert_eq!(planned("image-stats", with("torchgeo-knn")).len(), 4);
    assert!(without_sensor(&suite, &model("croma-b"), &Choice::default()).is_empty());

    let all = |protocols: &[&str]| Choice {
        tasks: vec!["all".to_owned()],
        protocols: protocols.iter().map(ToString::to_string).collect(),
        ..Choice::default()
    };
    assert_eq!(planned("terrafm-b", all(&["knn"])).len(), 6, "of classes");
    assert_eq!(planned("terrafm-b", all(&["upernet"])).len(), 6, "of masks");
    assert_eq!(planned("terrafm-b", all(&["logistic", "segmentation-probe"])).len(), 12);
    // A suite's tasks in its order, the six of Sentinel-2 first.
    let twelve = planned("terrafm-b", all(&["linear-probe", "upernet"]));
    assert_eq!(twelve[6..], TASKS);
}

#[test]
fn a_model_without_optical_bands_says_so_before_anything_is_read() {
    let (home, suite) = (Home::find().unwrap(), suite());
    let load = |name: &str| ProtocolConfig::load_named(&home, name);
    let named = Choice { tasks: vec!["m-forestnet".to_owned()], ..Choice::default() };
    let error = plan(&suite, &model("softcon-b-s1"), &named, load).unwrap_err().to_string();
    assert!(error.contains("has no such sensor: landsat-8"), "{error}");
    let all = Choice { tasks: vec!["all".to_owned()], ..Choice::default() };
    let lacking = without_sensor(&suite, &model("softcon-b-s1"), &all);
    assert_eq!(lacking.len(), 12, "{lacking:?}");
    assert!(lacking.contains(&"m-chesapeake (aerial-rgbn)".to_owned()), "{lacking:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args([
            "bench",
            "geobench",
            "--task",
            "m-pv4ger",
            "--model",
            "softcon-b-s1",
            "--data",
            "/no/such/folder",
        ])
        .args(["--weights", "/no/such/file", "--out"])
        .arg(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("has no such sensor: aerial-rgb"), "{said}");
}

// From files to records -----------------------------------------------------------------------------------------------------------

/// Protocols that suit a handful of small images.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let change = |name: &str, text: String| match name {
        "linear-probe.toml" => {
            let rates = text.lines().find(|line| line.starts_with("learning-rates")).unwrap().to_owned();
            text.replace(&rates, "learning-rates = [1e-3, 1e-2]").replace("epochs = 50", "epochs = 2")
        }
        "logistic.toml" => text.replace("count = 40", "count = 3"),
        "segmentation-probe.toml" => text
            .replace("tile = 64", "tile = 32")
            .replace("m-NeonTree = 80", "m-NeonTree = 40")
            .replace("m-nz-cattle = 100", "m-nz-cattle = 32"),
        "upernet.toml" | "upernet-finetune.toml" => text
            .replace("channels = 512", "channels = 8")
            .replace("channels = 256", "channels = 4")
            .replace("batch-size = 16", "batch-size = 2"),
        _ => text,
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["benchmarks", "configs"] {
        common::copied(&here.join(folder), &home.path().join(folder), &change);
    }
    // A side of 64 pixels is enough, and quick.
    let tiny = std::fs::read_to_string(common::fixture("model/tiny.toml")).unwrap();
    assert!(tiny.contains("image = 224"));
    std::fs::write(home.path().join("tiny.toml"), tiny.replace("image = 224", "image = 64")).unwrap();
    home
}

fn bench(home: &Path, data: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.current_dir(home).env("TERRABENCH_CACHE", home.join("cache"));
    command.args(["bench", "geobench", "--data"]).arg(data).arg("--out").arg(out);
    if !more.contains(&"--model") {
        command.arg("--model").arg(home.join("tiny.toml"));
        command.arg("--weights").arg(common::fixture("model/tiny.safetensors"));
    }
    command.args(more).output().unwrap()
}

#[track_caller]
fn finished(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_task_runs_from_folder_and_packed_form_to_equal_records() {
    let Some(data) = together() else { return };
    let (home, out, packed) = (home(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let suite = suite();
    for name in TASKS {
        pack(&suite, suite.task(name).unwrap(), data.path(), packed.path(), &Silent).unwrap();
    }
    const CLASSES: [&str; 4] = ["--task", "m-forestnet", "--task", "m-pv4ger"];
    const MASKS: [&str; 8] =
        ["--task", "m-pv4ger-seg", "--task", "m-chesapeake", "--task", "m-NeonTree", "--task", "m-nz-cattle"];
    const SHORT: [&str; 4] = ["--epochs", "1", "--learning-rates", "1e-3"];
    let runs: [(&[&str], &[&str], bool); 9] = [
        (&CLASSES, &["--protocol", "knn", "--partition", "default"], false),
        (&CLASSES, &["--protocol", "knn", "--partition", "default", "--channels", "rgb"], false),
        (&CLASSES, &["--protocol", "linear-probe"], false),
        (&CLASSES, &["--protocol", "logistic"], false),
        (&CLASSES, &["--protocol", "knn", "--partition", "default", "--model", "image-stats"], false),
        (&CLASSES, &["--protocol", "finetune"], true),
        (&MASKS, &["--protocol", "segmentation-probe"], true),
        (&MASKS, &["--protocol", "upernet"], true),
        // It warms up for two epochs.
        (&MASKS, &["--protocol", "upernet-finetune", "--epochs", "3", "--learning-rates", "1e-3"], false),
    ];
    let [folder, packed] = [data.path(), packed.path()].map(|place| {
        let out = out.path().join(if place == data.path() { "folder" } else { "packed" });
        for (tasks, protocol, is_short) in runs {
            let short: &[&str] = if is_short { &SHORT } else { &[] };
            finished(&bench(home.path(), place, &out, &[tasks, protocol, short].concat()));
        }
        common::all_scores_follow_from_predictions(&out.join("geobench"));
        records(&out.join("geobench"))
    });
    assert_eq!(folder.len(), 6 * 2 + 3 * 4);
    assert_eq!(folder, packed);
    for record in folder.values() {
        let what = format!("{:?}", record.cell);
        let made = &record.provenance;
        assert!((0.0..=100.0).contains(&record.value), "{what}");
        if record.cell.model == "Image statistics" {
            assert!(made.matched.is_empty(), "{what}");
            assert_eq!(made.bands.len(), if record.cell.task == "m-forestnet" { 6 } else { 3 }, "{what}");
            continue;
        }
        let bands = match record.cell.task.as_str() {
            "m-forestnet" if made.channels == "all" => 6,
            "m-chesapeake" => 4,
            _ => 3,
        };
        assert_eq!((made.matched.len(), made.imputed.len()), (bands, 12 - bands), "{what}");
        assert_eq!((made.sensor, made.bands.len()), (Sensor::S2_L1C, 12), "{what}");
        assert_eq!(made.normalization, "dataset", "{what}");
        if record.cell.protocol == "segmentation-probe" {
            let expected = if record.cell.task == "m-NeonTree" { "40" } else { "32" };
            assert_eq!(record.protocol_settings["tile"], expected, "{what}");
            assert!(!record.protocol_settings.keys().any(|name| name.starts_with("task-tiles")), "{what}");
        }
    }
    // What was matched stands below the table.
    let table = std::fs::read_to_string(out.path().join("folder/geobench/all-tasks.md")).unwrap();
    assert!(table.contains("bands by wavelength") && table.contains("nir as B8A"), "{table}");
}

/// Statistics of Sentinel-2's digital numbers do not suit bytes: the record says so.
#[test]
fn statistics_of_digital_numbers_are_noticed_on_bytes() {
    let Some((data, _)) = small_set("m-pv4ger") else { return };
    let (home, out) = (home(), tempfile::tempdir().unwrap());
    let run = ["--task", "m-pv4ger", "--protocol", "knn", "--normalization", "OURS-2.0-norm_no_clip"];
    finished(&bench(home.path(), &data, out.path(), &run));
    let records = records(&out.path().join("geobench"));
    let notes: Vec<&str> =
        records.values().flat_map(|record| &record.notes).map(|note| note.kind.as_str()).collect();
    assert!(notes.contains(&"pixel-unit"), "{notes:?}");
    assert!(notes.contains(&"partition-size"), "{notes:?}");
}

/// A pinned commit, an archive and a licence per task; a fetch without names stays what it was.
#[test]
fn further_tasks_are_fetched_if_they_are_named() {
    let catalogue = Catalogue::load(&Home::find().unwrap(), "geobench").unwrap();
    assert_eq!(catalogue.tasks.len(), 12);
    for task in &catalogue.tasks {
        let is_further = TASKS.contains(&task.name.as_str());
        assert_eq!(task.on_request, is_further, "{}", task.name);
        assert_eq!(task.licence.is_some(), is_further, "{}", task.name);
        let suite = suite();
        let directory = suite.task(&task.name).unwrap().directory.display().to_string();
        assert_eq!(task.files.len(), 1, "{}", task.name);
        assert_eq!(task.files[0].path, format!("{directory}.zip"), "{}", task.name);
    }
}
