//! Provokes each silent mistake: the cell's record must report it once, even if the features came from the cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common;
use crate::common::encoding::terrafm;
use crate::sample;
use hdf5_pure::{AttrValue, FileBuilder};
use ndarray::Array2;
use serde_json::{Value, json};
use terrabench::data::{Dataset, Split, geobench};
use terrabench::device;
use terrabench::features::{Input, InputOptions};
use terrabench::formats::hdf5;
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::parameters;
use terrabench::record::{Note, Record, Store};
use terrabench::report;
use terrabench::task::Suite;
use terrabench::task::bands::{Band, Imputation};
use terrabench::transform::strategies::Strategies;

/// A small TerraFM that is fast on any number of images.
const MODEL: &str = r#"
name = "Small"
backbone = "ViT-24"
image = 32

[architecture]
kind = "terrafm"
width = 24
depth = 1
heads = 2
mlp-ratio = 2
patch = 16
positions = 2
map-layers = [0]

[sensors.s2-l1c]
bands = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
"#;

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "geobench").unwrap()
}

/// The demo's files of one task, presented as real data, with a model and a folder for results.
struct Case {
    root: tempfile::TempDir,
    task: &'static str,
}

impl Case {
    fn new(task: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut suite = suite();
        suite.tasks.retain(|known| known.name == task);
        let demo = common::demo::provide(&suite, &root.path().join("demo"));
        let case = Case { root, task };
        let from = demo.join("classification_v1.0").join(task);
        std::fs::create_dir_all(case.folder()).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), case.folder().join(file.file_name())).unwrap();
        }
        std::fs::write(case.path("model.toml"), MODEL).unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn folder(&self) -> PathBuf {
        self.path("data/classification_v1.0").join(self.task)
    }

    /// Changes a JSON file of the dataset.
    fn change(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.folder().join(file);
        let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
    }

    fn change_partition(&self, change: impl FnOnce(&mut Value)) {
        self.change("default_partition.json", change);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.args(["bench", "geobench", "--task", self.task, "--partition", "default"]);
        command.arg("--data").arg(self.path("data")).arg("--out").arg(self.path("out"));
        command.args(args).env("TERRABENCH_CACHE", self.path("cache")).env_remove("GEO_BENCH_DIR");
        command
    }

    fn small(&self, args: &[&str]) -> Output {
        let model = self.path("model.toml");
        let model = ["--model", model.to_str().unwrap(), "--weights", "random:0"];
        self.command(&[&model[..], args].concat()).output().unwrap()
    }

    /// Runs k-NN with the small model and returns the notes of the only record, and the output.
    fn notes(&self, args: &[&str]) -> (Vec<Note>, String) {
        let output = self.small(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let records: Vec<Record> = self.records().into_values().collect();
        assert_eq!(records.len(), 1);
        (records[0].notes.clone(), said)
    }

    fn records(&self) -> BTreeMap<String, Record> {
        common::records(&self.path("out/geobench"))
    }
}

/// Returns the only note of this kind.
fn only<'n>(notes: &'n [Note], kind: &str) -> &'n str {
    let of_kind: Vec<&Note> = notes.iter().filter(|note| note.kind == kind).collect();
    assert_eq!(of_kind.len(), 1, "{kind} in {notes:?}");
    &of_kind[0].text
}

fn has(notes: &[Note], kind: &str) -> bool {
    notes.iter().any(|note| note.kind == kind)
}

fn names(partition: &Value, split: &str) -> Vec<Value> {
    partition[split].as_array().unwrap().clone()
}

#[test]
fn test_images_in_train_are_reported_once_also_with_cached_features() {
    let case = Case::new("m-eurosat");
    let mut leaked = Vec::new();
    case.change_partition(|partition| {
        leaked = names(partition, "train")[3..6].to_vec();
        partition["test"] = [leaked.clone(), names(partition, "test")].concat().into();
    });
    let (notes, said) = case.notes(&[]);
    let text = only(&notes, "shared-images");
    assert!(text.starts_with("3 images of test have the pixels of an image of train: "), "{text}");
    assert!(leaked.iter().all(|name| text.contains(name.as_str().unwrap())), "{text}");
    assert_eq!(said.matches("warning: shared-images").count(), 1, "{said}");
    assert!(!has(&notes, "duplicate-images"));

    // Now every feature comes from the cache.
    std::fs::remove_dir_all(case.path("out")).unwrap();
    let (again, said) = case.notes(&[]);
    assert!(!said.contains("images/s"), "nothing is extracted: {said}");
    assert_eq!(again, notes);
    // And now none does.
    std::fs::remove_dir_all(case.path("out")).unwrap();
    assert_eq!(case.notes(&["--no-cache"]).0, notes);
}

#[test]
fn duplicates_within_test_are_reported_even_under_other_names() {
    let case = Case::new("m-eurosat");
    let mut twin = String::new();
    case.change_partition(|partition| {
        let mut test = names(partition, "test");
        twin = test[0].as_str().unwrap().to_owned();
        test.push(test[1].clone());
        test.push("other_file".into());
        partition["test"] = test.into();
    });
    // The same pixels in a different file.
    rewrite(&case.folder(), &twin, "other_file", |band, pixels| Some((band.to_owned(), pixels.clone())));
    let bytes = |name: &str| std::fs::read(case.folder().join(format!("{name}.hdf5"))).unwrap();
    assert_ne!(bytes(&twin), bytes("other_file"));
    let (notes, _) = case.notes(&[]);
    let text = only(&notes, "duplicate-images");
    assert!(text.starts_with("2 images of test repeat the pixels of an earlier one: "), "{text}");
    assert!(text.contains("other_file"), "{text}");
    let text = only(&notes, "equal-features");
    assert!(text.starts_with("4 of 42 test features (10 %) equal those of another image"), "{text}");
}

#[test]
fn sound_data_give_no_finding_except_for_their_size() {
    let case = Case::new("m-eurosat");
    let (notes, said) = case.notes(&[]);
    assert_eq!(notes.len(), 1, "{notes:?}");
    let text = only(&notes, "partition-size");
    assert!(
        text.contains("train 70 instead of 2000, valid 10 instead of 1000, test 40 instead of 1000"),
        "{text}"
    );
    assert_eq!(said.matches("warning: ").count(), 1, "{said}");
}

#[test]
fn the_demo_gives_no_finding() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(["bench", "geobench", "--demo", "--task", "m-eurosat", "--task", "m-so2sat", "--out"])
        .arg(folder.path().join("out"))
        .args(["--partition", "0.01x_train"])
        .env("TERRABENCH_CACHE", common::demo::cache("geobench", folder.path().join("cache")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("warning"), "{said}");
}

#[test]
fn statistics_in_another_unit_are_reported() {
    let case = Case::new("m-eurosat");
    case.change("band_stats.json", |bands| {
        for band in bands.as_object_mut().unwrap().values_mut() {
            for number in ["mean", "std"] {
                band[number] = json!(band[number].as_f64().unwrap() / 10_000.0);
            }
        }
    });
    let (notes, _) = case.notes(&[]);
    let text = only(&notes, "pixel-unit");
    assert!(text.contains("pixels of train look like digital numbers"), "{text}");
    assert!(text.contains("`dataset` like reflectance") && text.contains("`01 - Coastal aerosol`"), "{text}");
    // Statistics in the unit of the pixels, although the files' own are not.
    std::fs::remove_dir_all(case.path("out")).unwrap();
    let (notes, _) = case.notes(&["--normalization", "S2C"]);
    assert!(!has(&notes, "pixel-unit"), "{notes:?}");
}

#[test]
fn a_band_order_that_contradicts_the_statistics_is_reported() {
    let case = Case::new("m-eurosat");
    case.change("band_stats.json", |bands| {
        let (red, nir) = (bands["04 - Red"].take(), bands["08 - NIR"].take());
        (bands["04 - Red"], bands["08 - NIR"]) = (nir, red);
    });
    let text = only(&case.notes(&[]).0, "band-order").to_owned();
    assert!(text.contains("a different order") && text.contains("`04 - Red` has a mean of"), "{text}");
    assert!(text.contains("expected for `08 - NIR`"), "{text}");
}

#[test]
fn a_train_split_of_one_class_lacks_classes_and_neighbours() {
    let case = Case::new("m-eurosat");
    let dataset = geobench_of(&case);
    // Those of one class in train.
    let class = |index| dataset.read(Split::Train, index, &[vec!["02 - Blue".to_owned()]]).unwrap().target;
    let first = class(0);
    let kept: Vec<String> = (0..dataset.samples(Split::Train).len())
        .filter(|index| class(*index) == first)
        .map(|index| dataset.samples(Split::Train)[index].clone())
        .collect();
    case.change_partition(|partition| partition["train"] = kept.clone().into());
    let (notes, _) = case.notes(&[]);
    let text = only(&notes, "single-class");
    assert!(text.starts_with(&format!("all {} samples of train are labelled `class ", kept.len())), "{text}");
    assert!(only(&notes, "absent-class").starts_with("9 of the 10 classes of test are not in train: class "));
    let text = only(&notes, "neighbours");
    assert!(text.starts_with(&format!("k is 20, but train has {} samples", kept.len())), "{text}");
}

fn geobench_of(case: &Case) -> geobench::Geobench {
    let suite = suite();
    geobench::Geobench::open(&suite, suite.task(case.task).unwrap(), &case.path("data"), "default").unwrap()
}

/// Weights in which every number is `value`.
fn weights_of(case: &Case, value: f32) -> PathBuf {
    let config: ModelConfig = toml::from_str(MODEL).unwrap();
    let module = terrafm(&config, &device::by_name("flex").unwrap());
    let list = parameters::list(&module);
    let bytes = value.to_le_bytes();
    let data: Vec<Vec<u8>> =
        list.iter().map(|(_, shape)| bytes.repeat(shape.iter().product::<usize>())).collect();
    let views = list.iter().zip(&data).map(|((name, shape), data)| {
        (
            name.clone(),
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap(),
        )
    });
    let path = case.path("weights.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

#[test]
fn constant_features_are_reported_and_nan_features_are_an_error() {
    let case = Case::new("m-eurosat");
    let model = case.path("model.toml");
    let run = |value| {
        let weights = weights_of(&case, value);
        let args = ["--model", model.to_str().unwrap(), "--weights", weights.to_str().unwrap()];
        case.command(&args).output().unwrap()
    };
    assert!(run(0.0).status.success());
    let records: Vec<Record> = case.records().into_values().collect();
    let constant: Vec<&str> = records[0]
        .notes
        .iter()
        .filter(|note| note.kind == "constant-features")
        .map(|note| &*note.text)
        .collect();
    assert_eq!(constant.len(), 2, "{:?}", records[0].notes);
    assert!(constant[0].starts_with("features of train are the same for all 70 samples"), "{constant:?}");
    assert!(!has(&records[0].notes, "equal-features"));

    let output = run(1e30);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("train demo_0000: the model's features are not finite"), "{said}");
    assert!(said.contains("normalisation matches the pixels"), "{said}");
}

#[test]
fn a_setting_without_effect_names_the_other_record() {
    let case = Case::new("m-eurosat");
    case.notes(&[]);
    let first: Vec<String> = case.records().into_keys().collect();
    // The same arithmetic under another name.
    assert!(case.small(&["--normalization", "dataset-1.0-standardize"]).status.success());
    let records = case.records();
    let (_, second) = records.iter().find(|(name, _)| !first.contains(name)).unwrap();
    let text = only(&second.notes, "setting-without-effect");
    let expected =
        format!("test features are identical to those of `{}`, although normalisation differs", first[0]);
    assert!(text.starts_with(&expected), "{text}");
    // A setting with an effect.
    assert!(case.small(&["--normalization", "satlas"]).status.success());
    let told =
        case.records().into_values().filter(|record| has(&record.notes, "setting-without-effect")).count();
    assert_eq!(told, 1);
}

// Image statistics ------------------------------------------------------------------------------------------------------

#[test]
fn image_statistics_run_without_weights_with_every_protocol_on_frozen_features() {
    let case = Case::new("m-eurosat");
    let protocols = ["--protocol", "knn", "--protocol", "linear-probe", "--protocol", "logistic"];
    let output = case.command(&[&["--model", "image-stats"][..], &protocols].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records = case.records();
    assert_eq!(records.len(), 3);
    for record in records.values() {
        let made = &record.provenance;
        assert_eq!(
            (made.weights.as_str(), made.normalization.as_str(), made.image_size),
            ("none", "none", 224)
        );
        assert_eq!(made.bands.len(), 13);
        assert!(!made.random_weights() && !made.partial_weights());
        assert!(record.value > 20.0, "better than chance: {}", record.value);
    }
    let table = std::fs::read_to_string(case.path("out/geobench/knn.md")).unwrap();
    assert!(table.contains("Image statistics (measured)"), "{table}");

    let fails = |args: &[&str], word: &str| {
        let output = case.command(&[&["--model", "image-stats"][..], args].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(word) && !said.contains("panicked"), "{said}");
    };
    fails(&["--weights", "random:0"], "remove --weights");
    fails(&["--normalization", "satlas"], "leave out --normalization");
    fails(&["--protocol", "finetune"], "choose knn, linear-probe or logistic");
}

#[test]
fn a_value_below_image_statistics_is_marked_in_either_order_of_recording() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("geobench")).unwrap();
    let put = |model: &str, weights: &str, value: f64, task: &str| {
        let mut record = sample::record();
        record.cell.model = model.to_owned();
        record.cell.task = task.to_owned();
        record.provenance.weights = weights.to_owned();
        if weights == "none" {
            // Pixels as stored; random convolutional features, which have no weights either, normalise them.
            record.provenance.normalization = "none".to_owned();
        }
        record.value = value;
        sample::identify(&mut record);
        store.put(&record).unwrap();
    };
    put("TerraFM", "5f3c9a1be20476d8a1c2", 77.0, "m-eurosat");
    put("TerraFM", "5f3c9a1be20476d8a1c2", 96.0, "m-brick-kiln");
    put("TerraFM", "5f3c9a1be20476d8a1c2", 10.0, "m-so2sat");
    put("Image statistics", "none", 78.3, "m-eurosat");
    put("Image statistics", "none", 94.9, "m-brick-kiln");
    let sections = report::gather(&Home::find().unwrap(), folder.path(), &[]).unwrap();
    let marked: Vec<(&str, &str)> = sections[0]
        .records
        .iter()
        .flat_map(|record| record.notes.iter().map(|note| (record.cell.task.as_str(), note.text.as_str())))
        .collect();
    assert_eq!(marked.len(), 1, "{marked:?}");
    assert_eq!(marked[0].0, "m-eurosat");
    assert!(marked[0].1.starts_with("77.0 is below plain pixel statistics, which reach 78.3"), "{marked:?}");
}

// m-brick-kiln ----------------------------------------------------------------------------------------------------------

/// Rewrites a sample's file as `to`. `change` returns each band's new name and pixels, or nothing to drop the band.
fn rewrite(
    folder: &Path,
    from: &str,
    to: &str,
    change: impl Fn(&str, &Array2<i16>) -> Option<(String, Array2<i16>)>,
) {
    let path = folder.join(format!("{from}.hdf5"));
    let (pickle, bands) = hdf5::with_file(&path, |file| {
        let mut bands = Vec::new();
        for dataset in file.datasets()? {
            let mut pixels: Vec<f32> = Vec::new();
            let (_, [rows, columns]) = dataset.append_to(&mut pixels)?;
            let pixels = pixels.iter().map(|pixel| *pixel as i16).collect();
            bands.push((dataset.name().to_owned(), Array2::from_shape_vec((rows, columns), pixels).unwrap()));
        }
        Ok((file.string_attribute("pickle")?, bands))
    })
    .unwrap();
    let mut file = FileBuilder::new();
    for (name, pixels) in bands.iter().filter_map(|(name, pixels)| change(name, pixels)) {
        let shape = [pixels.nrows() as u64, pixels.ncols() as u64];
        let values: Vec<i16> = pixels.iter().copied().collect();
        file.create_dataset(&name).with_i16_data(&values).with_shape(&shape);
    }
    file.set_attr("pickle", AttrValue::VarLenString(pickle));
    file.set_attr("rewritten", AttrValue::VarLenString("yes".to_owned()));
    std::fs::write(folder.join(format!("{to}.hdf5")), file.finish().unwrap()).unwrap();
}

/// What the official m-brick-kiln stores under each name: the band with that content, or a colour of the quick-look, made
/// from a band.
const STORED: [(&str, &str); 13] = [
    ("01 - Coastal aerosol", "01 - Coastal aerosol"),
    ("02 - Blue", "02 - Blue"),
    ("03 - Green", "03 - Green"),
    ("04 - Red", "04 - Red"),
    ("05 - Vegetation Red Edge", "05 - Vegetation Red Edge"),
    ("06 - Vegetation Red Edge", "07 - Vegetation Red Edge"),
    ("07 - Vegetation Red Edge", "08A - Vegetation Red Edge"),
    ("08 - NIR", "08 - NIR"),
    ("08A - Vegetation Red Edge", "11 - SWIR"),
    ("09 - Water vapour", "12 - SWIR"),
    ("10 - SWIR - Cirrus", "quick-look of 04 - Red"),
    ("11 - SWIR", "quick-look of 03 - Green"),
    ("12 - SWIR", "quick-look of 02 - Blue"),
];

/// Converts the demo's m-brick-kiln, whose bands are named correctly, to the official layout.
fn as_released(case: &Case) {
    let folder = case.folder();
    let names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(".hdf5")?.to_owned()))
        .collect();
    for name in names {
        let mut bands: BTreeMap<String, Array2<i16>> = BTreeMap::new();
        hdf5::with_file(&folder.join(format!("{name}.hdf5")), |file| {
            let mut all = BTreeMap::new();
            for dataset in file.datasets()? {
                let mut pixels: Vec<f32> = Vec::new();
                let (_, [rows, columns]) = dataset.append_to(&mut pixels)?;
                let pixels = pixels.iter().map(|pixel| *pixel as i16).collect();
                all.insert(
                    dataset.name().to_owned(),
                    Array2::from_shape_vec((rows, columns), pixels).unwrap(),
                );
            }
            Ok(all)
        })
        .unwrap()
        .into_iter()
        .for_each(|(name, pixels)| drop(bands.insert(name, pixels)));
        rewrite(&folder, &name, &name, |stored, _| {
            let (_, holds) = STORED.iter().find(|(name, _)| *name == stored)?;
            let pixels = match holds.strip_prefix("quick-look of ") {
                Some(band) => bands[band].mapv(|pixel| (pixel / 12).clamp(0, 255)),
                None => bands[*holds].clone(),
            };
            Some((stored.to_owned(), pixels))
        });
    }
    case.change("band_stats.json", |bands| {
        let before = bands.clone();
        for (stored, holds) in STORED {
            bands[stored] = match holds.strip_prefix("quick-look of ") {
                Some(_) => json!({ "mean": 90.0, "std": 40.0, "min": 0.0, "max": 255.0 }),
                None => before[holds].clone(),
            };
        }
    });
}

fn brick_kiln(case: &Case, by_content: bool) -> Input {
    let home = Home::find().unwrap();
    let options = InputOptions {
        by_content,
        channels: Default::default(),
        normalization: "dataset".to_owned(),
        strategies: Strategies::load(&home).unwrap(),
        zeros: false,
    };
    let (suite, model) = (suite(), toml::from_str(MODEL).unwrap());
    let task = suite.task("m-brick-kiln").unwrap();
    Input::open(&suite, task, "default", &case.path("data"), &model, &options).unwrap()
}

#[test]
fn brick_kiln_by_content_gives_each_band_its_own_pixels_and_imputes_what_is_missing() {
    let (named, released) = (Case::new("m-brick-kiln"), Case::new("m-brick-kiln"));
    as_released(&released);
    let (truth, found) = (brick_kiln(&named, false), brick_kiln(&released, true));
    let impute = |source, target| Imputation { source, target };
    assert_eq!(found.imputed(), [impute(Band::B07, Band::B06), impute(Band::B8A, Band::B09)]);
    assert_eq!(truth.imputed(), [], "as named all are there");
    for index in 0..3 {
        let truth =
            truth.dataset.read(Split::Test, index, &truth.stored_bands()).unwrap().images.remove(0).pixels;
        let found =
            found.dataset.read(Split::Test, index, &found.stored_bands()).unwrap().images.remove(0).pixels;
        // B01 to B12 without B10: B06 is the sixth, B09 the tenth.
        for (channel, source) in [0, 1, 2, 3, 4, 6, 6, 7, 8, 8, 10, 11].into_iter().enumerate() {
            assert_eq!(
                found.index_axis(ndarray::Axis(0), channel),
                truth.index_axis(ndarray::Axis(0), source),
                "channel {channel}"
            );
        }
    }
    // A model with thirteen bands also needs B10, which the files lack as well.
    let mut model: ModelConfig = toml::from_str(MODEL).unwrap();
    model.sensors.values_mut().for_each(|sensor| sensor.bands.insert(10, Band::B10));
    let home = Home::find().unwrap();
    let options = InputOptions {
        by_content: true,
        channels: Default::default(),
        normalization: "dataset".to_owned(),
        strategies: Strategies::load(&home).unwrap(),
        zeros: false,
    };
    let suite = suite();
    let task = suite.task("m-brick-kiln").unwrap();
    let input = Input::open(&suite, task, "default", &released.path("data"), &model, &options).unwrap();
    assert_eq!(input.stored_bands()[0][10], "08A - Vegetation Red Edge", "B11 stands in");
}

#[test]
fn records_of_the_released_brick_kiln_as_named_carry_the_note() {
    let case = Case::new("m-brick-kiln");
    let (notes, _) = case.notes(&[]);
    assert!(!has(&notes, "band-names"), "the demo's bands are named correctly: {notes:?}");
    std::fs::remove_dir_all(case.path("out")).unwrap();

    as_released(&case);
    let (notes, said) = case.notes(&[]);
    let text = only(&notes, "band-names");
    for word in [
        "m-brick-kiln",
        "`06 - Vegetation Red Edge` holds B07",
        "at most 255",
        "B06, B09, B10 do not exist",
        "--bands by-content",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert_eq!(said.matches("warning: band-names").count(), 1, "{said}");
    std::fs::remove_dir_all(case.path("out")).unwrap();

    let (notes, _) = case.notes(&["--bands", "by-content"]);
    assert!(!has(&notes, "band-names") && !has(&notes, "band-order"), "{notes:?}");
    let record = case.records().into_values().next().unwrap();
    assert_eq!(record.provenance.band_names, "by-content");
    assert_eq!(record.provenance.imputed.len(), 2, "{:?}", record.provenance.imputed);
}

#[test]
fn selecting_by_content_from_correctly_named_files_is_reported() {
    let case = Case::new("m-brick-kiln");
    let (notes, _) = case.notes(&["--bands", "by-content"]);
    let text = only(&notes, "band-names");
    assert!(text.starts_with("bands are selected by content, but `1"), "{text}");
}

#[test]
fn inspect_and_doctor_recognise_the_released_brick_kiln() {
    let case = Case::new("m-brick-kiln");
    let say = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
            .args(args)
            .env("GEO_BENCH_DIR", case.path("data"))
            .env("TERRABENCH_CACHE", case.path("cache"))
            .env("TERRABENCH_DATA", case.path("none"))
            .env("XDG_DATA_HOME", case.path("none"))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let inspect = ["inspect", "--task", "m-brick-kiln"];
    let sentence = "the band names of m-brick-kiln are wrong";
    assert!(!say(&inspect).0.contains(sentence));
    assert!(!say(&["doctor"]).0.contains(sentence));
    as_released(&case);
    let (out, _) = say(&inspect);
    assert!(out.contains(sentence) && out.contains("--bands by-content"), "{out}");
    let (out, err) = say(&[&inspect[..], &["--json"]].concat());
    assert!(err.contains(sentence), "{err}");
    assert!(out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{out}");
    let (out, _) = say(&["doctor"]);
    assert!(out.contains(sentence), "{out}");
}
