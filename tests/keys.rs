//! Everything that decides a number is in its keys; mere labels are not. The tests find fields by walking the serialised
//! configurations, so that no new field is forgotten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::Device;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use terrabench::Result;
use terrabench::data::decoding::Decoding;
use terrabench::data::{Dataset, RawSample, Sample, Split};
use terrabench::device;
use terrabench::features::{Extractor, FEATURES_VERSION, Identity, Input, InputOptions};
use terrabench::home::Home;
use terrabench::model::architecture::ArchitectureConfig;
use terrabench::model::config::{
    ImageSize, ModelConfig, Parity, PublishedRow, SensorInput, SuiteRoute, WeightsSource,
};
use terrabench::model::terrafm::TerraFmConfig;
use terrabench::model::{Batch, Encoded, Encoder, Pooling, Want};
use terrabench::protocol::ProtocolConfig;
use terrabench::record::{Cell, Deciding, PROTOCOL_VERSION, Store};
use terrabench::task::Sensor;
use terrabench::task::bands::{Band, Imputation};
use terrabench::task::{
    Combine, DatasetLayout, Family, MaskResize, Metric, QuickLook, Resample, SampleCounts, Suite,
    TargetInterpolation, TargetKind, TargetStatistics, Task, TaskImage, ValueResampling,
};
use terrabench::transform::augment::Dihedral;
use terrabench::transform::normalize::{BandStatistics, NormalizationKind};
use terrabench::transform::strategies::Strategies;

use crate::common;
use crate::sample::record;

/// A task with every field set: written without `..`, so that a new field must be set here too.
fn task() -> Task {
    Task {
        name: "m-eurosat".into(),
        title: "m-EuroSat".into(),
        directory: "classification_v1.0/m-eurosat".into(),
        target: TargetKind::Class,
        classes: 2,
        class_names: vec!["Forest".into(), "River".into()],
        metric: Metric::Accuracy,
        unit: Some("Mg/ha".into()),
        target_statistics: Some(TargetStatistics { mean: 2.0, std: 0.5 }),
        target_interpolation: TargetInterpolation::Nearest,
        sensor: Sensor::S2_L1C,
        input_sensor: Sensor::S2_L1C,
        image_size: 64,
        gsd_m: Some(10.0),
        samples: SampleCounts { train: 2000, valid: 1000, test: 1000 },
        scale: 2.0,
        impute: vec![Imputation { source: Band::B11, target: Band::B10 }],
        bands: BTreeMap::from([(Band::B11, "12 - SWIR".into())]),
        by_content: BTreeMap::from([(Band::B12, "11 - SWIR".into())]),
        absent_by_content: vec![Band::B09],
        quick_look: Some(QuickLook { bands: vec!["12 - SWIR".into()], maximum: 255.0 }),
        layout: Some(DatasetLayout::Cloud),
        archive: Some("m-eurosat.zip".into()),
        stored_bands: vec!["B02".into(), "B03".into()],
        images: Vec::new(),
        combine: None,
        clip: Some([0.5, 1.5]),
        nan_pixels: Some(0.5),
        band_scales: vec![2.5, 3.5],
        resample: Some(Resample { side: 64, values: ValueResampling::Nearest }),
        resample_bands: true,
        largest_value: Some(1.5),
        remap: vec![(3, 255)],
        remap_others: Some(1),
        ignore: Some(255),
        normalization: Some("dataset".into()),
        input_size: Some(112),
        mask_resize: Some(MaskResize::Floor),
        // Of another family: see `a_container_decides_and_its_known_defects_do_not`.
        container: None,
    }
}

/// The same task with two images per sample.
fn of_two_dates(task: &Task) -> Task {
    let image = |date: &str| TaskImage {
        sensor: Sensor::S2_L1C,
        input_sensor: Sensor::S2_L1C,
        date: Some(date.into()),
        stored_bands: vec!["B02".into(), "B03".into()],
    };
    let images = ["before", "after"].map(image).to_vec();
    Task { images, combine: Some(Combine::Difference), stored_bands: Vec::new(), ..task.clone() }
}

/// A model with every field set.
fn model() -> ModelConfig {
    ModelConfig {
        name: "TerraFM".into(),
        backbone: "ViT-Base".into(),
        image: ImageSize::Side(112),
        images: BTreeMap::from([("m-other".to_owned(), ImageSize::Side(96))]),
        pooling: Some(Pooling::Class),
        architecture: ArchitectureConfig::TerraFm(TerraFmConfig {
            width: 192,
            depth: 4,
            heads: 3,
            mlp_ratio: 4,
            patch: 16,
            positions: 7,
            map_layers: vec![0, 1],
        }),
        impute: vec![Imputation { source: Band::B03, target: Band::B10 }],
        suites: BTreeMap::from([(
            "copernicus-bench".to_owned(),
            SuiteRoute {
                image: Some(ImageSize::Side(224)),
                images: BTreeMap::new(),
                pooling: Some(Pooling::Mean),
                sensors: BTreeMap::new(),
                impute: Vec::new(),
                task_sensors: BTreeMap::new(),
                normalization: Some("S2A".to_owned()),
                normalizations: BTreeMap::from([("m-other".to_owned(), "S2C".to_owned())]),
                protocols: BTreeMap::from([("knn".to_owned(), "knn-5".to_owned())]),
            },
        )]),
        route: Default::default(),
        matched: BTreeMap::new(),
        depth: None,
        sensors: BTreeMap::from([
            (Sensor::S2_L1C, SensorInput { bands: vec![Band::B02, Band::B03], ..Default::default() }),
            (Sensor::S1, SensorInput { bands: vec![Band::VV], ..Default::default() }),
        ]),
        normalization: NormalizationKind::NormNoClip,
        weights: Some(WeightsSource {
            repository: "MBZUAI/TerraFM".into(),
            file: "TerraFM-B.pth".into(),
            also: vec!["vectors.pt".into()],
            revision: "main".into(),
            url: Some("https://example.org/TerraFM-B.pth".into()),
            size: Some(7),
            sha256: Some("a".repeat(64)),
            md5: Some("a".repeat(32)),
            licence: Some("MIT".into()),
            shipped: Some("x/y.pt".to_owned()),
            licence_source: Some("LICENSE".into()),
        }),
        published: Some(PublishedRow { model: "TerraFM".into(), backbone: "ViT-B".into() }),
        parity: Some(Parity {
            difference: 1e-6,
            of: "features".into(),
            original: "terrafm.py".into(),
            test: "tests/model.rs".into(),
        }),
    }
}

/// Paths of the scalars in a value: `/architecture/depth`, `/sensors/s1/bands/0`.
fn leaves(value: &Value) -> Vec<String> {
    let below = |key: &str, value: &Value| -> Vec<String> {
        leaves(value).into_iter().map(|rest| format!("/{key}{rest}")).collect()
    };
    match value {
        Value::Object(fields) => fields.iter().flat_map(|(key, value)| below(key, value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(i, value)| below(&i.to_string(), value)).collect()
        }
        _ => vec![String::new()],
    }
}

/// The configuration with another value at `leaf` that its type accepts.
fn with_another<T: Serialize + DeserializeOwned + PartialEq>(config: &T, leaf: &str) -> T {
    let whole = serde_json::to_value(config).unwrap();
    let old = whole.pointer(leaf).unwrap().clone();
    let words = [
        "mask",
        "concatenate",
        "micro_f1",
        "s2-l2a",
        "B8A",
        "flood",
        "standardize",
        "bf16",
        "flips",
        "none",
        "best",
        "last",
        "finetune",
        "frozen",
        "torch",
        "adamw",
        "sgd",
        "shuffled",
        "as-listed",
        "mean",
        "class",
        "bilinear",
        "image-stats",
        "cosine",
        "streams",
        "cubic",
        "exact",
    ];
    let candidates: Vec<Value> = match &old {
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(number) => match number.as_i64() {
            Some(whole) => vec![json!(whole + 1)],
            None => [0.5, 0.25].map(|less| json!(number.as_f64().unwrap() * less + 0.01 * less)).to_vec(),
        },
        Value::String(text) => {
            let longer = std::iter::once(json!(format!("{text} (other)")));
            longer.chain(words.map(|word| json!(word))).collect()
        }
        _ => panic!("{leaf} is {old}"),
    };
    for candidate in candidates.into_iter().filter(|candidate| *candidate != old) {
        let mut changed = whole.clone();
        *changed.pointer_mut(leaf).unwrap() = candidate;
        if let Ok(changed) = serde_json::from_value::<T>(changed)
            && changed != *config
        {
            return changed;
        }
    }
    panic!("no other value of {leaf} = {old} is taken: add one to the list")
}

/// A data set that reports the given decoding.
struct Redecoded(Box<dyn Dataset>, Decoding);

impl Dataset for Redecoded {
    fn decoding(&self) -> &Decoding {
        &self.1
    }
    fn samples(&self, split: Split) -> &[String] {
        self.0.samples(split)
    }
    fn files(&self, split: Split) -> Vec<PathBuf> {
        self.0.files(split)
    }
    fn bands(&self) -> Result<Vec<Vec<String>>> {
        self.0.bands()
    }
    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample> {
        self.0.read(split, index, bands)
    }
    fn read_raw(&self, split: Split, index: usize) -> Result<RawSample> {
        self.0.read_raw(split, index)
    }
    fn statistics(&self, image: usize, bands: &[String]) -> Result<Vec<BandStatistics>> {
        self.0.statistics(image, bands)
    }
    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        self.0.contents(split)
    }
}

struct NoEncoder;

impl Encoder for NoEncoder {
    fn width(&self, _: Pooling, _: usize) -> usize {
        1
    }
    fn encode(&self, batch: &Batch, _: Want) -> Result<Encoded> {
        Ok(Encoded::Pooled(batch.only()?.pixels.clone().flatten(1, 3)))
    }
}

/// Keys of a cell: of its features, of its record, of its request.
#[derive(Debug, Clone, PartialEq)]
struct Keys {
    features: String,
    fingerprint: String,
    request: String,
}

/// The opened demo data, and everything that all keys share.
struct Setting {
    suite: Suite,
    data: PathBuf,
    strategies: Strategies,
    device: Device,
    protocol: ProtocolConfig,
}

impl Setting {
    fn new(folder: &Path) -> Self {
        let home = Home::find().unwrap();
        let suite = Suite::load(&home, "geobench").unwrap();
        Setting {
            data: common::demo::provide(&suite, folder),
            suite,
            strategies: Strategies::load(&home).unwrap(),
            device: device::by_name("flex").unwrap(),
            protocol: ProtocolConfig::load(&home, "knn").unwrap(),
        }
    }

    fn options(&self, by_content: bool, zeros: bool) -> InputOptions {
        InputOptions {
            by_content,
            channels: Default::default(),
            normalization: "default".to_owned(),
            strategies: self.strategies.clone(),
            zeros,
        }
    }

    /// Keys of the demo's m-eurosat; `task` affects only the keys.
    fn keys(&self, task: &Task, model: &ModelConfig, protocol: &ProtocolConfig, cell: &Cell) -> Keys {
        let read = self.suite.task("m-eurosat").unwrap();
        let demo = ModelConfig::load(&Home::find().unwrap(), "demo").unwrap();
        let options = self.options(false, false);
        let opened = Input::open(&self.suite, read, "default", &self.data, &demo, &options).unwrap();
        let decoding = Decoding::of(Family::CopernicusBench, task);
        let hash = decoding.hash();
        let dataset = Box::new(Redecoded(opened.dataset, decoding));
        let input = Input { dataset, task: task.clone(), ..opened };
        let asked = Deciding {
            protocol_version: PROTOCOL_VERSION,
            features_version: FEATURES_VERSION,
            demo: false,
            cell,
            task: task.deciding(),
            protocol: &protocol.deciding(&task.name),
            model: model.deciding(),
            decoding: &hash,
            weights: "random:0",
            data: "0f1e",
            sensor: task.input_sensor,
            pooling: Some(terrabench::model::Pooling::Class),
            channels: &terrabench::task::bands::Channels::All,
            bands: &input.channel_names(),
            band_names: options.band_names(task),
            imputed: &input.imputed(),
            normalization: options.normalization_of(&self.suite, task, model),
            strategies: &input.strategies,
            image_size: model.side(task),
            resize: None,
            beside: "",
            precision: Default::default(),
            metadata: input.metadata,
        };
        let extractor = Extractor {
            encoder: &NoEncoder,
            device: &self.device,
            further: &[],
            input: &input,
            strategy: input.only().unwrap(),
            turn: Dihedral::Identity,
            batch_size: 1.into(),
            readers: 1,
        };
        let identity = Identity { model, weights: "random:0", device: "flex", precision: Default::default() };
        Keys {
            features: extractor.key(identity).unwrap(),
            fingerprint: asked.fingerprint().unwrap(),
            request: asked.request(&options.impute(task)).unwrap(),
        }
    }
}

/// The role of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Label,
    /// Decides through bands and statistics, which are in the keys: see the tests below.
    Resolved,
    /// Decides numbers, but not features.
    Number,
    Feature,
}

fn assert_side(what: &str, side: Side, before: &Keys, after: &Keys) {
    match side {
        Side::Label => assert_eq!(before, after, "{what} labels only"),
        Side::Resolved => {
            assert_eq!(before.features, after.features, "{what}");
            assert_eq!(before.fingerprint, after.fingerprint, "{what}");
        }
        Side::Number => {
            assert_eq!(before.features, after.features, "{what} decides no feature");
            assert_ne!(before.fingerprint, after.fingerprint, "{what} decides");
            assert_ne!(before.request, after.request, "{what} decides");
        }
        Side::Feature => {
            assert_ne!(before.features, after.features, "{what} decides features");
            assert_ne!(before.fingerprint, after.fingerprint, "{what} decides");
            assert_ne!(before.request, after.request, "{what} decides");
        }
    }
}

#[test]
fn every_field_of_a_task_decides_or_is_named_as_a_label() {
    let folder = tempfile::tempdir().unwrap();
    let (setting, task, model, cell) = (Setting::new(folder.path()), task(), model(), record().cell);
    let keys = |task: &Task| setting.keys(task, &model, &setting.protocol, &cell);
    let (one, several) = (keys(&task), of_two_dates(&task));
    let all = leaves(&serde_json::to_value(&task).unwrap());
    assert!(all.len() > 25, "{all:?}");
    let of_images = leaves(&serde_json::to_value(&several).unwrap());
    let of_images = of_images.into_iter().filter(|leaf| !all.contains(leaf)).collect::<Vec<_>>();
    assert_eq!(of_images.len(), 11, "{of_images:?}");
    let of_one = all.into_iter().map(|leaf| (&task, &one, leaf));
    let base_of_several = keys(&several);
    for (task, base, leaf) in
        of_one.chain(of_images.into_iter().map(|leaf| (&several, &base_of_several, leaf)))
    {
        let field = leaf.split('/').nth(1).unwrap();
        let side = match field {
            "images" if leaf.ends_with("/input-sensor") => Side::Number,
            "title" | "directory" | "archive" | "class-names" | "sensor" | "image-size" | "samples" => {
                Side::Label
            }
            "quick-look" | "unit" => Side::Label,
            // Decides where the model uses it, which this one does not: see tests/metadata.rs.
            "gsd-m" => Side::Label,
            "target-statistics" | "target-interpolation" | "mask-resize" => Side::Number,
            "impute" | "bands" | "by-content" | "absent-by-content" => Side::Resolved,
            // The extractor takes sensor, statistics and size from its input, which this test does not change.
            "name" | "metric" | "input-sensor" | "normalization" | "input-size" => Side::Number,
            _ => Side::Feature,
        };
        assert_side(&format!("task {leaf}"), side, base, &keys(&with_another(task, &leaf)));
    }
    // If lists identify classes by name, the order of the names decides.
    let listed = Task { layout: Some(DatasetLayout::Eurosat), ..task.clone() };
    let mut swapped = listed.clone();
    swapped.class_names.swap(0, 1);
    assert_side("order of listed classes", Side::Feature, &keys(&listed), &keys(&swapped));
}

#[test]
fn every_field_of_a_model_decides_or_is_named_as_a_label() {
    let folder = tempfile::tempdir().unwrap();
    let (setting, task, model, cell) = (Setting::new(folder.path()), task(), model(), record().cell);
    let keys = |model: &ModelConfig| setting.keys(&task, model, &setting.protocol, &cell);
    let base = keys(&model);
    for leaf in leaves(&serde_json::to_value(&model).unwrap()) {
        let side = match leaf.split('/').nth(1).unwrap() {
            "name" | "backbone" | "weights" | "published" | "parity" => Side::Label,
            // These decide what the input is, which this test does not change.
            "normalization" | "image" | "images" | "pooling" | "impute" | "suites" => Side::Resolved,
            _ => Side::Feature,
        };
        assert_side(&format!("model {leaf}"), side, &base, &keys(&with_another(&model, &leaf)));
    }
}

#[test]
fn every_field_of_a_protocol_decides() {
    let folder = tempfile::tempdir().unwrap();
    let (setting, task, model, cell) = (Setting::new(folder.path()), task(), model(), record().cell);
    let home = Home::find().unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(home.folder().join("configs/protocols")).unwrap() {
        let path = file.unwrap().path();
        let protocol = ProtocolConfig::load(&home, path.to_str().unwrap()).unwrap();
        let mut whole = serde_json::to_value(&protocol).unwrap();
        kinds.insert(whole["kind"].to_string());
        // Optional settings that are omitted when unset.
        for (key, value) in [("limit", json!(5)), ("short", json!(true)), ("report-batches", json!(true))] {
            let mut with = whole.clone();
            with[key] = value;
            if serde_json::from_value::<ProtocolConfig>(with.clone()).is_ok() {
                whole = with;
            }
        }
        if whole.get("task-learning-rates").is_some() {
            whole["task-learning-rates"] = json!({ "another-task": [0.5] });
        }
        let protocol: ProtocolConfig = serde_json::from_value(whole.clone()).unwrap();
        let keys = |protocol: &ProtocolConfig| setting.keys(&task, &model, protocol, &cell);
        let base = keys(&protocol);
        for leaf in leaves(&whole) {
            let side = match leaf.split('/').nth(1).unwrap() {
                "task-learning-rates" | "task-tiles" => Side::Label,
                // Another kind has other fields, which the files of the other protocols contain.
                _ if leaf.ends_with("/kind") => continue,
                _ => Side::Number,
            };
            let changed = with_another(&protocol, &leaf);
            assert_side(&format!("{} {leaf}", path.display()), side, &base, &keys(&changed));
        }
        // The task's own learning rates do decide.
        if whole.get("task-learning-rates").is_some() {
            whole["task-learning-rates"] = json!({ (task.name.clone()): [0.5] });
            let own: ProtocolConfig = serde_json::from_value(whole).unwrap();
            assert_side("own learning rates", Side::Number, &base, &keys(&own));
        }
    }
    assert_eq!(kinds.len(), 9, "{kinds:?}");
}

#[test]
fn names_of_models_and_protocols_label_a_cell_and_the_others_decide() {
    let folder = tempfile::tempdir().unwrap();
    let (setting, task, model, cell) = (Setting::new(folder.path()), task(), model(), record().cell);
    let keys = |cell: &Cell| setting.keys(&task, &model, &setting.protocol, cell);
    let base = keys(&cell);
    for leaf in leaves(&serde_json::to_value(&cell).unwrap()) {
        let side = match leaf.as_str() {
            "/protocol" | "/model" | "/backbone" => Side::Label,
            _ => Side::Number,
        };
        assert_side(&format!("cell {leaf}"), side, &base, &keys(&with_another(&cell, &leaf)));
    }
}

#[test]
fn imputed_and_renamed_bands_decide_where_they_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    let demo = ModelConfig::load(&Home::find().unwrap(), "demo").unwrap();
    let key = |task: &Task, by_content: bool, zeros: bool| {
        let options = setting.options(by_content, zeros);
        let input = Input::open(&setting.suite, task, "default", &setting.data, &demo, &options).unwrap();
        let extractor = Extractor {
            encoder: &NoEncoder,
            device: &setting.device,
            further: &[],
            input: &input,
            strategy: input.only().unwrap(),
            turn: Dihedral::Identity,
            batch_size: 1.into(),
            readers: 1,
        };
        extractor
            .key(Identity {
                model: &demo,
                weights: "random:0",
                device: "flex",
                precision: Default::default(),
            })
            .unwrap()
    };
    // m-so2sat has no B01 and B09.
    let so2sat = setting.suite.task("m-so2sat").unwrap();
    let mut other = so2sat.clone();
    other.impute.iter_mut().for_each(|pair| pair.source = Band::B03);
    assert_ne!(key(so2sat, false, false), key(&other, false, false));
    assert_ne!(key(so2sat, false, false), key(so2sat, false, true), "zeros");
    let eurosat = setting.suite.task("m-eurosat").unwrap();
    let mut renamed = eurosat.clone();
    renamed.by_content.remove(&Band::B12);
    assert_eq!(key(eurosat, false, false), key(&renamed, false, false), "taken by their names");
    assert_ne!(key(eurosat, true, false), key(&renamed, true, false), "taken by what they hold");
    // Size and normalisation.
    let sized = Task { input_size: Some(128), ..eurosat.clone() };
    let satlas = Task { normalization: Some("satlas".into()), ..eurosat.clone() };
    assert_ne!(key(eurosat, false, false), key(&sized, false, false));
    assert_ne!(key(eurosat, false, false), key(&satlas, false, false));
}

#[test]
fn the_index_of_a_gpu_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    let demo = ModelConfig::load(&Home::find().unwrap(), "demo").unwrap();
    let task = setting.suite.task("m-eurosat").unwrap();
    let options = setting.options(false, false);
    let input = Input::open(&setting.suite, task, "default", &setting.data, &demo, &options).unwrap();
    let extractor = Extractor {
        encoder: &NoEncoder,
        device: &setting.device,
        further: &[],
        input: &input,
        strategy: input.only().unwrap(),
        turn: Dihedral::Identity,
        batch_size: 1.into(),
        readers: 1,
    };
    let key = |device| {
        extractor
            .key(Identity { model: &demo, weights: "random:0", device, precision: Default::default() })
            .unwrap()
    };
    assert_eq!(key("libtorch:cuda:0"), key("libtorch:cuda:1"));
    assert_eq!(key("libtorch:cuda"), key("libtorch:cuda:0"));
    assert_eq!(key("vulkan"), key("vulkan:3"));
    let kinds = ["flex", "libtorch", "libtorch:cuda", "vulkan"];
    let distinct: std::collections::BTreeSet<String> = kinds.into_iter().map(key).collect();
    assert_eq!(distinct.len(), kinds.len());
}

/// A copy of `benchmarks/` and `configs/` to edit, and a way to run from it.
struct EditableHome {
    folder: tempfile::TempDir,
}

impl EditableHome {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["benchmarks", "configs"] {
            copy(&Home::find().unwrap().folder().join(name), &folder.path().join(name));
        }
        EditableHome { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.path(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no `{from}`");
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.current_dir(self.folder.path()).env("TERRABENCH_CACHE", self.path("cache"));
        for variable in ["GEO_BENCH_DIR", "TERRABENCH_DATA", "TERRABENCH_HOME"] {
            command.env_remove(variable);
        }
        command.env("XDG_DATA_HOME", self.path("nothing")).args(arguments).output().unwrap()
    }

    /// Runs the demo's m-eurosat with the arguments `more` and returns the output.
    fn demo(&self, more: &[&str]) -> String {
        let first = ["bench", "geobench", "--demo", "--task", "m-eurosat", "--partition", "default"];
        let output = self.run(&[&first, more].concat());
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        said
    }

    fn records(&self) -> BTreeMap<String, terrabench::record::Record> {
        crate::common::records(&self.path("results/geobench-demo"))
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => assert!(std::fs::copy(&path, &target).is_ok()),
        }
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn reused(said: &str) -> bool {
    said.contains("recorded before") && !said.contains(" images, ")
}

#[test]
fn with_other_labels_everything_is_reused() {
    let home = EditableHome::new();
    assert!(!reused(&home.demo(&[])));
    for (file, from, to) in [
        ("benchmarks/geobench.toml", "title = \"m-EuroSat\"", "title = \"m-EuroSAT\""),
        ("benchmarks/geobench.toml", "title = \"GEO-Bench\"", "title = \"GEO-Bench v1\""),
        ("benchmarks/geobench.toml", "train = 2000", "train = 12000"),
        ("benchmarks/geobench.toml", "recursix/geo-bench-1.0", "someone/else"),
        ("benchmarks/geobench.toml", "# GEO-Bench v1", "# A comment"),
        ("configs/protocols/knn.toml", "# k-NN as", "# A comment, as"),
        (
            "configs/models/demo.toml",
            "[architecture]",
            "published = { model = \"A\", backbone = \"B\" }\n[architecture]",
        ),
    ] {
        home.edit(file, from, to);
        assert!(reused(&home.demo(&[])), "{file}: {to}");
    }
    assert!(reused(&home.demo(&["--threads", "1", "--batch-size", "3"])));
    // A protocol's path as typed.
    let absolute = home.path("configs/protocols/knn.toml").to_str().unwrap().to_owned();
    for path in ["configs/protocols/knn.toml", "./configs/../configs/protocols/knn.toml", &absolute] {
        assert!(reused(&home.demo(&["--protocol", path])), "{path}");
    }
    assert_eq!(home.records().len(), 1);

    // A renamed model has a row under its new name and is not run again.
    home.edit("configs/models/demo.toml", "name = \"Demo\"", "name = \"Renamed\"");
    assert!(reused(&home.demo(&[])));
    let records = home.records();
    let models: Vec<&str> = records.values().map(|record| record.cell.model.as_str()).collect();
    assert_eq!(models, ["Demo", "Renamed"]);
    let table = std::fs::read_to_string(home.path("results/geobench-demo/knn.md")).unwrap();
    assert!(table.contains("Renamed"), "{table}");
    let store = Store::existing(home.path("results/geobench-demo")).unwrap();
    for record in records.values() {
        assert!(store.predictions(record).unwrap().is_some());
    }
}

#[test]
fn a_protocol_given_by_its_path_is_called_by_its_name() {
    let home = EditableHome::new();
    home.demo(&[]);
    std::fs::create_dir(home.path("mine")).unwrap();
    std::fs::copy(home.path("configs/protocols/knn.toml"), home.path("mine/knn.toml")).unwrap();
    home.edit("mine/knn.toml", "k = 20", "k = 5");
    assert!(!reused(&home.demo(&["--protocol", "mine/knn.toml"])));
    assert!(reused(&home.demo(&["--protocol", "./mine/knn.toml"])));
    let both = home.run(&["bench", "geobench", "--demo", "--protocol", "knn", "--protocol", "mine/knn.toml"]);
    assert!(!both.status.success() && stderr(&both).contains("two different protocols are called `knn`"));
    let records = home.records();
    assert_eq!(records.len(), 2);
    assert!(records.values().all(|record| record.cell.protocol == "knn"));
    let table = std::fs::read_to_string(home.path("results/geobench-demo/knn.md")).unwrap();
    assert!(table.contains("k 5)") && table.contains("k 20)"), "each setting is a row: {table}");
}

#[test]
fn finished_cells_are_listed_without_data_and_weights() {
    let home = EditableHome::new();
    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let made = common::demo::provide(&suite, &home.path("made"));
    copy(&made.join("classification_v1.0/m-eurosat"), &home.path("data/classification_v1.0/m-eurosat"));
    let weights = crate::common::fixture("model/tiny.safetensors");
    std::fs::copy(weights, home.path("tiny.safetensors")).unwrap();
    std::fs::copy(crate::common::fixture("model/tiny.toml"), home.path("tiny.toml")).unwrap();
    let bench = |more: &[&str]| {
        let first = ["bench", "geobench", "--task", "m-eurosat", "--partition", "default", "--data", "data"];
        let model = ["--model", "tiny.toml", "--weights", "tiny.safetensors"];
        home.run(&[&first[..], &model, more].concat())
    };
    assert!(bench(&[]).status.success());
    let tables = || std::fs::read_to_string(home.path("results/geobench/knn.md")).unwrap();
    let before = tables();

    for gone in [&["data"][..], &["tiny.safetensors"], &[]] {
        gone.iter()
            .for_each(|name| std::fs::rename(home.path(name), home.path(&format!("{name}.gone"))).unwrap());
        std::fs::remove_file(home.path("results/geobench/knn.md")).unwrap();
        let output = bench(&[]);
        let said = stderr(&output);
        assert!(
            output.status.success() && said.contains("recorded before; data or weights"),
            "{gone:?}: {said}"
        );
        assert!(
            ["does not exist", "no such f"].iter().any(|words| said.contains(words)),
            "what is missing: {said}"
        );
        assert_eq!(tables(), before, "{gone:?}");
    }
    // Cells that are not recorded need data and weights, and the message says which.
    for more in [&["--seed", "1"][..], &["--fresh"], &["--bands", "by-content"]] {
        let output = bench(more);
        assert!(!output.status.success(), "{more:?}");
        assert!(stderr(&output).contains("data"), "{more:?}: {}", stderr(&output));
    }
    std::fs::write(home.path("tiny.safetensors"), "other weights").unwrap();
    assert!(!bench(&[]).status.success(), "weights that are here must be those of the record");
}

/// Alters every remembered hash, as if the files had changed unnoticed.
fn forge(memos: &Path) {
    for entry in std::fs::read_dir(memos).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let forged = blake3::hash(b"other").to_hex().to_string();
        let lines = vec![forged; text.lines().count() - 1].join("\n");
        std::fs::write(&path, format!("{lines}\n{}\n", blake3::hash(lines.as_bytes()).to_hex())).unwrap();
    }
}

#[test]
fn verify_trusts_no_remembered_hash() {
    let home = EditableHome::new();
    home.demo(&[]);
    forge(&home.path("cache/fingerprints"));
    assert!(reused(&home.demo(&["--verify"])));
    // It remembers the hashes that it computed.
    assert!(reused(&home.demo(&[])));
    forge(&home.path("cache/fingerprints"));
    assert!(!home.demo(&[]).contains("recorded before"), "else remembered hashes are used");
}
