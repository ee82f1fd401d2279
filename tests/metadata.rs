//! What a model is given about an image besides its pixels: where and when it was taken, and how large a patch is. The
//! expected places, dates and areas are those that the reference's own wrappers read from the same files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use burn::tensor::{Device, Tensor};
use serde_json::Value;
use terrabench::data::{self, Split};
use terrabench::features::{Extractor, Identity, Input, InputOptions};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::encoder::Context;
use terrabench::model::{Batch, Encoded, Encoder, Pooling, Want};
use terrabench::progress::Silent;
use terrabench::record::{Record, Store};
use terrabench::task::{Metadata, MetadataKind, Suite};
use terrabench::transform::augment::Dihedral;
use terrabench::transform::strategies::Strategies;

use crate::common::{demo, real};

const TASKS: [&str; 8] = [
    "cloud-s2",
    "eurosat-s1",
    "eurosat-s2",
    "bigearthnet-s1",
    "bigearthnet-s2",
    "dfc2020-s1",
    "dfc2020-s2",
    "lcz-s2",
];

/// Real pixels in Copernicus-Bench's layout, if they are there.
fn copernicus_bench() -> Option<PathBuf> {
    let folder = real().map(|real| real.join("copernicus-bench")).filter(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("skipped: no real pixels (TERRABENCH_REAL)");
    }
    folder
}

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "copernicus-bench").unwrap()
}

fn model(name: &str) -> ModelConfig {
    ModelConfig::load(&Home::find().unwrap(), name).unwrap()
}

fn options() -> InputOptions {
    InputOptions {
        by_content: false,
        channels: Default::default(),
        normalization: "default".to_owned(),
        strategies: Strategies::load(&Home::find().unwrap()).unwrap(),
        zeros: false,
    }
}

fn open(model: &ModelConfig, task: &str, root: &Path) -> Input {
    let suite = suite();
    Input::open(&suite, suite.task(task).unwrap(), "default", root, model, &options()).unwrap()
}

/// Keeps the context of each batch that it is given.
#[derive(Default)]
struct Recorder(Mutex<Vec<Context>>);

impl Encoder for Recorder {
    fn width(&self, _: Pooling, _: usize) -> usize {
        1
    }
    fn encode(&self, batch: &Batch, _: Want) -> terrabench::Result<Encoded> {
        self.0.lock().unwrap().push(batch.only()?.context.clone());
        Ok(Encoded::Pooled(Tensor::zeros([batch.len(), 1], &Device::flex())))
    }
}

fn extractor<'a>(input: &'a Input, encoder: &'a Recorder, device: &'a Device) -> Extractor<'a> {
    let strategy = input.only().unwrap();
    Extractor {
        encoder,
        device,
        further: &[],
        input,
        strategy,
        turn: Dihedral::Identity,
        batch_size: 1.into(),
        readers: 1,
    }
}

/// What an encoder is told of one sample.
fn context(input: &Input, split: Split, index: usize) -> Context {
    let recorder = Recorder::default();
    let device = Device::flex();
    extractor(input, &recorder, &device).extract(split, &[index], &mut |_| Ok(())).unwrap();
    recorder.0.into_inner().unwrap().remove(0)
}

/// The reference's [longitude, latitude, days, square kilometres of a patch of 16 pixels] of each sample.
fn expected(root: &Path, task: &str) -> Vec<(Split, usize, [Option<f64>; 4])> {
    let text = std::fs::read_to_string(root.join("reader.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let samples = all["tasks"][task.replace('-', "_")]["samples"].as_array().unwrap();
    let split = |name: &str| match name {
        "train" => Split::Train,
        "val" => Split::Valid,
        _ => Split::Test,
    };
    let of = |sample: &Value| {
        let meta: [Option<f64>; 4] = std::array::from_fn(|place| sample["meta"][place].as_f64());
        let index = usize::try_from(sample["index"].as_u64().unwrap()).unwrap();
        (split(sample["split"].as_str().unwrap()), index, meta)
    };
    samples.iter().map(of).collect()
}

#[test]
fn places_dates_and_areas_are_those_of_the_reference() {
    let Some(root) = copernicus_bench() else { return };
    let model = model("copernicus-fm-b");
    let mut kinds = std::collections::BTreeSet::new();
    for task in TASKS {
        let input = open(&model, task, &root);
        kinds.insert(input.metadata.to_string());
        let samples = expected(&root, task);
        assert!(samples.len() >= 4, "{task}");
        for (split, index, [longitude, latitude, days, area]) in samples {
            let what = format!("{task} {split} {index}");
            let context = context(&input, split, index);
            let place = context.places.first().copied().flatten();
            match (place, longitude.zip(latitude)) {
                (Some([x, y]), Some((longitude, latitude))) => {
                    // The last digit of float32.
                    let off = (f64::from(x) - longitude).abs().max((f64::from(y) - latitude).abs());
                    assert!(off < 8e-6, "{what}: {x} {y}, expected {longitude} {latitude}");
                }
                (found, expected) => {
                    assert!(found.is_none() && expected.is_none(), "{what}: {found:?} {expected:?}")
                }
            }
            assert_eq!(context.days.first().copied().flatten(), days, "{what}");
            let patch = f64::from(context.gsd_m.unwrap()) * 16.0 / 1000.0;
            assert!((patch * patch - area.unwrap()).abs() < 1e-8, "{what}: {patch}");
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["area", "place, area", "place, date, area"]);
}

#[test]
fn other_models_are_given_nothing() {
    let Some(root) = copernicus_bench() else { return };
    for name in ["terrafm-b", "dofa-b-permuted"] {
        let input = open(&model(name), "bigearthnet-s2", &root);
        assert!(input.metadata.is_empty(), "{name}");
        let context = context(&input, Split::Train, 0);
        assert!(context.days.is_empty() && context.places.is_empty() && context.gsd_m.is_none(), "{name}");
    }
}

#[test]
fn models_that_encode_the_month_are_given_the_date_alone() {
    let Some(root) = copernicus_bench() else { return };
    for name in ["galileo-nano", "presto", "anysat-base"] {
        let input = open(&model(name), "bigearthnet-s2", &root);
        assert_eq!(input.metadata.to_string(), "date", "{name}");
        let context = context(&input, Split::Train, 0);
        assert!(context.days[0].is_some(), "{name}");
        assert!(context.places.iter().all(Option::is_none) && context.gsd_m.is_none(), "{name}: {context:?}");
    }
}

#[test]
fn what_a_task_does_not_give_has_a_named_stand_in() {
    let copernicus = suite();
    let geobench = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let of = |name: &str, suite: &Suite, task: &str| {
        let (model, task) = (model(name), suite.task(task).unwrap());
        let given = Metadata::of(task, model.architecture.metadata());
        model.architecture.stand_ins(given, &[task.input_sensor]).join("; ")
    };
    for (name, month) in [("galileo-nano", "July"), ("presto", "July"), ("anysat-base", "1 June")] {
        let found = of(name, &geobench, "m-eurosat");
        assert!(
            found.starts_with(&format!("date ({month} assumed); Sentinel-1 (masked)")),
            "{name}: {found}"
        );
        assert_eq!(found.contains("place (masked)"), name != "anysat-base", "{name}: {found}");
        let found = of(name, &copernicus, "bigearthnet-s1");
        assert!(found.starts_with("Sentinel-2 (masked)"), "{name}: {found}");
    }
    assert_eq!(of("copernicus-fm-b", &copernicus, "eurosat-s2"), "date (learned token)");
    assert_eq!(of("terrafm-b", &geobench, "m-eurosat"), "");
}

#[test]
fn records_name_the_stand_ins() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(["bench", "geobench", "--demo", "--task", "m-brick-kiln", "--partition", "default"])
        .args(["--model", "presto", "--weights", "random:0", "--out"])
        .arg(folder.path().join("results"))
        .env("TERRABENCH_CACHE", demo::cache("geobench", folder.path().join("cache")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records = Store::open(folder.path().join("results/geobench-demo")).unwrap().all().unwrap();
    let [record] = records.as_slice() else { panic!("{} records", records.len()) };
    assert_eq!(
        record.provenance.stand_ins[..3],
        ["date (July assumed)", "Sentinel-1 (masked)", "place (masked)"]
    );
    // Records of earlier versions do not say.
    let mut json = serde_json::to_value(record).unwrap();
    json["provenance"].as_object_mut().unwrap().remove("stand-ins").unwrap();
    let old: Record = serde_json::from_value(json).unwrap();
    assert!(old.provenance.stand_ins.is_empty());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn key(input: &Input, model: &ModelConfig) -> String {
    let (recorder, device) = (Recorder::default(), Device::flex());
    let identity = Identity { model, weights: "random:0", device: "flex", precision: Default::default() };
    extractor(input, &recorder, &device).key(identity).unwrap()
}

#[test]
fn metadata_is_part_of_the_keys_where_it_is_used() {
    let Some(root) = copernicus_bench() else { return };
    let (user, other) = (model("copernicus-fm-b"), model("terrafm-b"));
    let suite = suite();
    let opened = |model: &ModelConfig, gsd: f32| {
        let mut task = suite.task("eurosat-s2").unwrap().clone();
        task.gsd_m = Some(gsd);
        let input = Input::open(&suite, &task, "default", &root, model, &options()).unwrap();
        key(&input, model)
    };
    assert_ne!(opened(&user, 10.0), opened(&user, 20.0));
    assert_eq!(opened(&other, 10.0), opened(&other, 20.0));
    let mut input = open(&user, "eurosat-s2", &root);
    let with_place = key(&input, &user);
    input.metadata.place = false;
    assert_ne!(key(&input, &user), with_place);
}

/// A date is only in the file's name, so the same file under another name has the same content.
#[test]
fn another_date_changes_a_samples_key_and_the_datas_fingerprint() {
    let Some(root) = copernicus_bench() else { return };
    let folder = tempfile::tempdir().unwrap();
    copy(&root.join("cloud_s2"), &folder.path().join("cloud_s2"));
    let (user, other) = (model("copernicus-fm-b"), model("terrafm-b"));
    let keys = |model: &ModelConfig| {
        let input = open(model, "cloud-s2", folder.path());
        (input.contents(Split::Train).unwrap(), input.fingerprint(&[Split::Train]).unwrap())
    };
    let before = (keys(&user), keys(&other));
    let list = folder.path().join("cloud_s2/train.csv");
    let text = std::fs::read_to_string(&list).unwrap();
    let name = text.lines().next().unwrap().trim();
    let (_, date) = name.split_once("__").unwrap();
    let later = name.replacen(&date[..8], "20200112", 1);
    assert_ne!(name, later);
    std::fs::write(&list, text.replace(name, &later)).unwrap();
    for part in ["s2_toa", "cloud"] {
        let of = |name: &str| folder.path().join("cloud_s2").join(part).join(format!("{name}.tif"));
        std::fs::rename(of(name), of(&later)).unwrap();
    }
    let after = (keys(&user), keys(&other));
    assert_ne!(before.0.0[0], after.0.0[0], "features depend on the date");
    assert_eq!(before.0.0[1..], after.0.0[1..]);
    assert_eq!(before.1.0, after.1.0, "features of this model do not");
    assert_ne!(before.0.1, after.0.1);
}

#[test]
fn packed_files_keep_places_and_dates() {
    let Some(root) = copernicus_bench() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (suite, user) = (suite(), model("copernicus-fm-b"));
    for name in ["bigearthnet-s2", "eurosat-s1", "cloud-s2"] {
        let task = suite.task(name).unwrap();
        data::packed::pack(&suite, task, &root, folder.path(), &Silent).unwrap();
        let (plain, packed) = (open(&user, name, &root), open(&user, name, folder.path()));
        for split in Split::ALL {
            assert_eq!(plain.contents(split).unwrap(), packed.contents(split).unwrap(), "{name}");
            for index in 0..plain.dataset.samples(split).len() {
                let told = |input: &Input| {
                    let context = context(input, split, index);
                    (context.days, context.places, context.gsd_m)
                };
                assert_eq!(told(&plain), told(&packed), "{name} {split} {index}");
            }
        }
        assert_eq!(key(&plain, &user), key(&packed, &user), "{name}");
        assert_eq!(
            plain.fingerprint(&Split::ALL).unwrap(),
            packed.fingerprint(&Split::ALL).unwrap(),
            "{name}"
        );
        assert!(data::packed::pack(&suite, task, &root, folder.path(), &Silent).unwrap().reused, "{name}");
    }
}

/// Writes a TIFF's GeoKey directory tag over with a number that no reader knows.
fn without_georeference(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let tag = 34735u16.to_le_bytes();
    let place = bytes.windows(4).position(|four| four[..2] == tag && four[2..] == [3, 0]).unwrap();
    bytes[place..place + 2].copy_from_slice(&65_000u16.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_file_without_a_place_is_an_error_only_for_models_that_use_it() {
    let Some(root) = copernicus_bench() else { return };
    let folder = tempfile::tempdir().unwrap();
    copy(&root.join("eurosat_s2"), &folder.path().join("eurosat_s2"));
    let list = std::fs::read_to_string(folder.path().join("eurosat_s2/eurosat-test.txt")).unwrap();
    let name = list.lines().next().unwrap().trim().replace(".jpg", "");
    let class = name.split('_').next().unwrap();
    without_georeference(&folder.path().join(format!("eurosat_s2/all_imgs/{class}/{name}.tif")));
    let user = open(&model("copernicus-fm-b"), "eurosat-s2", folder.path());
    let error = user.stored(Split::Test, 0).unwrap_err().to_string();
    let expected = format!("eurosat-s2 {name}: the model uses the place; expected a georeference");
    assert!(error.contains(&expected) && error.contains("found none"), "{error}");
    assert!(user.stored(Split::Test, 1).is_ok());
    open(&model("terrafm-b"), "eurosat-s2", folder.path()).stored(Split::Test, 0).unwrap();
}

#[test]
fn area_alone_is_known_of_tasks_without_georeference() {
    let suite = suite();
    for (task, known) in [
        ("dfc2020-s1", vec![MetadataKind::Area]),
        ("lcz-s2", vec![MetadataKind::Area]),
        ("eurosat-s1", vec![MetadataKind::Place, MetadataKind::Area]),
        ("flood-s1", MetadataKind::ALL.to_vec()),
    ] {
        assert_eq!(suite.task(task).unwrap().known_metadata(), known, "{task}");
    }
}

#[test]
fn the_record_says_what_was_given() {
    let Some(root) = copernicus_bench() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/models/copernicus-fm-b.toml");
    let mut text = std::fs::read_to_string(path).unwrap();
    for (published, small) in [
        ("width = 768", "width = 48"),
        ("depth = 12", "depth = 1"),
        ("heads = 12", "heads = 3"),
        ("kernel-width = 128", "kernel-width = 24"),
        ("map-layers = [3, 5, 7, 11]", "map-layers = [0]"),
    ] {
        assert!(text.contains(published), "{published}");
        text = text.replace(published, small);
    }
    let record = |name: &str, text: &str| -> Value {
        let (model, out) = (folder.path().join(format!("{name}.toml")), folder.path().join(name));
        std::fs::write(&model, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.args([
            "bench",
            "copernicus-bench",
            "--task",
            "eurosat-s1",
            "--protocol",
            "knn",
            "--no-cache",
        ]);
        command.args(["--weights", "random:0", "--model"]).arg(model);
        command.arg("--data").arg(&root).arg("--out").arg(&out);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut records = std::fs::read_dir(out.join("copernicus-bench/records")).unwrap();
        let path = records.next().unwrap().unwrap().path();
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let given = record("given", &text);
    assert_eq!(given["provenance"]["metadata"], serde_json::json!(["place", "area"]));
    let list = r#"metadata = ["place", "date", "area"]"#;
    assert!(text.contains(list));
    let blind = record("blind", &text.replace(list, "metadata = []"));
    assert_eq!(blind["provenance"]["metadata"], Value::Null);
    // The place changes the features.
    assert_ne!(given["provenance"]["features"], blind["provenance"]["features"]);
}
