//! The feature cache: it returns what was written, detects damage, and keys features by everything that affects them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::common;
use crate::common::encoding::sizes_mut;
use burn::tensor::Device;
use ndarray::array;
use terrabench::audit::observed::{BandSummary, PixelSummary};
use terrabench::data::{Split, Target};
use terrabench::device;
use terrabench::features::cache::{About, Cache, CachedSample};
use terrabench::features::{CHUNK, Extractor, FeatureBank, Features, Identity, Input, InputOptions};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::{Batch, Encoded, Encoder, Pooling, Want};
use terrabench::progress::{Progress, Silent, Step};
use terrabench::task::Sensor;
use terrabench::task::Suite;
use terrabench::transform::augment::Dihedral;
use terrabench::transform::strategies::Strategies;

fn about() -> About {
    About {
        task: "m-eurosat".to_owned(),
        model: "Model ViT".to_owned(),
        weights: "random:0".to_owned(),
        normalization: "satlas".to_owned(),
        device: "flex".to_owned(),
    }
}

fn row(number: u8, label: Target) -> CachedSample {
    let features = vec![f32::from(number), -0.0, f32::MIN_POSITIVE / 2.0, 1.0 / 3.0];
    let band = BandSummary::from([f32::from(number), 9.0, 4.5, 1.0 / 3.0, 4.0, -0.0]);
    let pixels = PixelSummary { hash: blake3::hash(&[number, 1]), bands: vec![band; 3] };
    CachedSample { content: blake3::hash(&[number]), target: label, pixels, features }
}

/// Returns the chunks of a cache.
fn chunks(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    // Claims of other processes lie beside the folders.
    let files = entries.filter_map(|entry| std::fs::read_dir(entry.unwrap().path()).ok()).flatten();
    let mut chunks: Vec<PathBuf> = files
        .map(|f| f.unwrap().path())
        .filter(|f| f.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    chunks.sort();
    chunks
}

fn read(cache: &Cache, key: &str) -> (Vec<CachedSample>, Vec<String>) {
    let mut notes = Vec::new();
    let rows = cache.entry(key).read(4, &mut |line| notes.push(line.to_owned())).unwrap();
    (rows, notes)
}

#[test]
fn entry_returns_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("features"));
    assert_eq!(read(&cache, "a"), (vec![], vec![]));
    let kinds = [
        ("classes", [Target::Class(3), Target::Class(usize::MAX)]),
        ("labels", [Target::Labels(vec![true, false, true]), Target::Labels(vec![false; 3])]),
        ("masks", [Target::Mask(array![[1, -1], [0, 7]]), Target::Mask(array![[2, 2], [2, 2]])]),
    ];
    for (key, [first, second]) in kinds {
        let rows = [row(1, first), row(2, second)];
        cache.entry(key).append(&about(), &rows).unwrap();
        let (found, notes) = read(&cache, key);
        assert_eq!(found, rows);
        for (found, row) in found.iter().zip(&rows) {
            let bits =
                |row: &CachedSample| row.features.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(found), bits(row));
        }
        assert!(notes.is_empty());
    }
    // Chunks accumulate.
    let third = row(3, Target::Class(0));
    cache.entry("classes").append(&about(), std::slice::from_ref(&third)).unwrap();
    let (found, _) = read(&cache, "classes");
    assert!(found.len() == 3 && found.contains(&third));
    let error =
        cache.entry("x").append(&about(), &[row(1, Target::Class(0)), row(2, Target::Labels(vec![true]))]);
    assert!(error.is_err());
}

#[test]
fn damage_is_reported_and_costs_only_the_damaged_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let damages: [&dyn Fn(Vec<u8>) -> Vec<u8>; 4] = [
        &|mut bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            bytes
        },
        &|bytes| bytes[..bytes.len() / 2].to_vec(),
        &|_| Vec::new(),
        &|_| b"something else".to_vec(),
    ];
    for (i, damage) in damages.into_iter().enumerate() {
        let cache = Cache::new(folder.path().join(i.to_string()));
        let (first, second) = (row(1, Target::Class(0)), row(2, Target::Class(1)));
        cache.entry("key").append(&about(), std::slice::from_ref(&first)).unwrap();
        let spoiled = chunks(cache.folder()).remove(0);
        cache.entry("key").append(&about(), std::slice::from_ref(&second)).unwrap();
        std::fs::write(&spoiled, damage(std::fs::read(&spoiled).unwrap())).unwrap();
        // Left behind by a killed write.
        std::fs::write(spoiled.with_file_name(".half.tmp"), b"half").unwrap();
        let (rows, notes) = read(&cache, "key");
        assert_eq!(rows, [second], "damage {i}");
        assert!(notes.len() == 1 && notes[0].contains(spoiled.to_str().unwrap()), "{notes:?}");
        assert!(!spoiled.exists());
        assert_eq!(read(&cache, "key").1, Vec::<String>::new(), "reported once");
    }
    // Undamaged, but with a different feature length than the model's.
    let cache = Cache::new(folder.path().join("width"));
    cache.entry("key").append(&about(), &[row(1, Target::Class(0))]).unwrap();
    let mut notes = 0;
    assert!(cache.entry("key").read(5, &mut |_| notes += 1).unwrap().is_empty());
    assert_eq!(notes, 1);
}

#[cfg(unix)]
#[test]
fn unreadable_chunk_is_reported_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("features"));
    cache.entry("key").append(&about(), &[row(1, Target::Class(0))]).unwrap();
    let chunk = chunks(cache.folder()).remove(0);
    let away = folder.path().join("away");
    std::fs::rename(&chunk, &away).unwrap();
    // A link to itself causes a read error even for root, like EIO.
    std::os::unix::fs::symlink(&chunk, &chunk).unwrap();
    let (rows, notes) = read(&cache, "key");
    assert!(rows.is_empty() && notes.len() == 1 && notes[0].contains("cannot be read"), "{notes:?}");
    assert!(chunk.is_symlink(), "the chunk was removed");
    std::fs::rename(&away, &chunk).unwrap();
    assert_eq!(read(&cache, "key"), (vec![row(1, Target::Class(0))], Vec::new()));
}

#[test]
fn pruning_goes_by_age_and_size() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().join("features"));
    assert!(cache.list().unwrap().is_empty());
    let day = Duration::from_secs(24 * 60 * 60);
    let fill = || {
        for (key, age) in [("new", 0), ("middle", 10), ("old", 40)] {
            cache.entry(key).append(&about(), &[row(1, Target::Class(0))]).unwrap();
            for file in std::fs::read_dir(cache.folder().join(key)).unwrap() {
                let file = std::fs::File::options().append(true).open(file.unwrap().path()).unwrap();
                file.set_modified(SystemTime::now() - age * day).unwrap();
            }
        }
    };
    let keys = || cache.list().unwrap().into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    fill();
    assert_eq!(keys(), ["new", "middle", "old"]);
    let listed = cache.list().unwrap();
    assert_eq!(listed[0].about, Some(about()));
    let size = listed[0].size;
    assert!(size > 100 && listed.iter().all(|entry| entry.size == size));

    assert!(cache.prune(Some(50 * day), None).unwrap().is_empty());
    assert_eq!(cache.prune(Some(20 * day), None).unwrap()[0].key, "old");
    fill();
    cache.prune(None, Some(2 * size)).unwrap();
    assert_eq!(keys(), ["new", "middle"]);
    cache.prune(None, Some(size - 1)).unwrap();
    assert!(keys().is_empty());
    // Reading an entry counts as using it.
    fill();
    read(&cache, "old");
    cache.prune(Some(5 * day), None).unwrap();
    assert_eq!(
        keys().into_iter().collect::<std::collections::BTreeSet<_>>(),
        ["new".into(), "old".into()].into()
    );
    cache.prune(None, None).unwrap();
    assert!(keys().is_empty());
}

/// An encoder that returns the mean of each band and counts its images.
#[derive(Default)]
struct Means {
    images: AtomicUsize,
}

impl Encoder for Means {
    fn width(&self, _: Pooling, _: usize) -> usize {
        12
    }

    fn encode(&self, batch: &Batch, _: Want) -> terrabench::Result<Encoded> {
        let images = batch.only()?.pixels.clone();
        let [n, bands, h, w] = images.dims();
        self.images.fetch_add(n, Ordering::Relaxed);
        Ok(Encoded::Pooled(images.reshape([n, bands, h * w]).mean_dim(2).reshape([n, bands])))
    }
}

/// Collects the notes.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, what: &str, total: usize) -> Box<dyn Step> {
        Silent.begin(what, total)
    }

    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

/// The demo's data and model.
struct Setting {
    suite: Suite,
    strategies: Strategies,
    data: PathBuf,
    model: ModelConfig,
    device: Device,
}

impl Setting {
    fn new(folder: &Path) -> Self {
        let home = Home::find().unwrap();
        let suite = Suite::load(&home, "geobench").unwrap();
        Setting {
            data: common::demo::provide(&suite, folder),
            suite,
            strategies: Strategies::load(&home).unwrap(),
            model: ModelConfig::load(&home, "demo").unwrap(),
            device: device::by_name("flex").unwrap(),
        }
    }

    fn input(&self, task: &str, partition: &str, normalization: &str, by_content: bool) -> Input {
        let task = self.suite.task(task).unwrap();
        let options = InputOptions {
            by_content,
            channels: Default::default(),
            normalization: normalization.to_owned(),
            strategies: self.strategies.clone(),
            zeros: false,
        };
        Input::open(&self.suite, task, partition, &self.data, &self.model, &options).unwrap()
    }

    fn identity(&self) -> Identity<'_> {
        Identity { model: &self.model, weights: "random:0", device: "flex", precision: Default::default() }
    }

    fn extractor<'a>(&'a self, backbone: &'a Means, input: &'a Input) -> Extractor<'a> {
        Extractor {
            encoder: backbone,
            device: &self.device,
            further: &[],
            input,
            strategy: input.only().unwrap(),
            turn: Dihedral::Identity,
            batch_size: 7.into(),
            readers: 2,
        }
    }
}

fn assert_same(a: &Features, b: &Features) {
    assert_eq!((&a.samples, &a.labels), (&b.samples, &b.labels));
    assert_eq!(a.matrix.mapv(f32::to_bits), b.matrix.mapv(f32::to_bits));
}

#[test]
fn cached_features_are_bitwise_equal_and_damage_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    let cache = Cache::new(folder.path().join("features"));
    for task in ["m-eurosat", "m-bigearthnet"] {
        let input = setting.input(task, "default", "dataset", false);
        let features = |cache: Option<&Cache>, progress: &dyn Progress| {
            let backbone = Means::default();
            let extractor = setting.extractor(&backbone, &input);
            let features = FeatureBank::new(cache.cloned())
                .features(&extractor, setting.identity(), Split::Test, progress)
                .unwrap();
            (features, backbone.images.into_inner())
        };
        let before = chunks(cache.folder());
        let (without, images) = features(None, &Silent);
        assert_eq!(images, input.dataset.samples(Split::Test).len());
        let (first, _) = features(Some(&cache), &Silent);
        let (second, images) = features(Some(&cache), &Silent);
        assert_eq!(images, 0, "the cache is hit");
        assert_same(&without, &first);
        assert_same(&without, &second);

        let chunk = chunks(cache.folder()).into_iter().find(|chunk| !before.contains(chunk)).unwrap();
        let mut bytes = std::fs::read(&chunk).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        std::fs::write(&chunk, bytes).unwrap();
        let notes = Notes::default();
        let (again, images) = features(Some(&cache), &notes);
        assert_same(&without, &again);
        assert!(images > 0);
        let notes = notes.0.into_inner().unwrap();
        assert!(notes.len() == 1 && notes[0].contains(chunk.to_str().unwrap()), "{notes:?}");
        assert_eq!(features(Some(&cache), &Silent).1, 0);
    }
}

#[test]
fn partitions_share_their_samples_with_and_without_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    let small = setting.input("m-eurosat", "0.01x_train", "dataset", false);
    let whole = setting.input("m-eurosat", "default", "dataset", false);
    let of = |input: &Input| input.dataset.samples(Split::Train).len();
    assert!(of(&small) < of(&whole));
    for cache in [None, Some(Cache::new(folder.path().join("features")))] {
        let backbone = Means::default();
        let mut bank = FeatureBank::new(cache.clone());
        for input in [&small, &whole, &small] {
            if cache.is_some() {
                bank = FeatureBank::new(cache.clone()); // Like a later run.
            }
            let extractor = setting.extractor(&backbone, input);
            let features = bank.features(&extractor, setting.identity(), Split::Train, &Silent).unwrap();
            assert_eq!(features.samples, input.dataset.samples(Split::Train));
            assert_eq!(features.matrix.nrows(), of(input));
        }
        assert_eq!(backbone.images.into_inner(), of(&whole));
    }
}

#[test]
fn unwritable_cache_costs_only_time() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let input = setting.input("m-eurosat", "default", "dataset", false);
    let backbone = Means::default();
    let extractor = setting.extractor(&backbone, &input);
    let notes = Notes::default();
    let mut bank = FeatureBank::new(Some(Cache::new(&file)));
    let first = bank.features(&extractor, setting.identity(), Split::Test, &notes).unwrap();
    let second = bank.features(&extractor, setting.identity(), Split::Test, &notes).unwrap();
    assert_same(&first, &second);
    assert_eq!(backbone.images.into_inner(), first.samples.len(), "memory still serves");
    assert_eq!(notes.0.into_inner().unwrap().len(), 1);
}

#[test]
fn key_depends_on_everything_that_affects_features() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting::new(folder.path());
    let backbone = Means::default();
    let input = setting.input("m-eurosat", "default", "dataset", false);
    let base = setting.extractor(&backbone, &input);
    let key = base.key(setting.identity()).unwrap();

    // Partition, batch size and readers do not affect features.
    let partition = setting.input("m-eurosat", "0.01x_train", "dataset", false);
    assert_eq!(setting.extractor(&backbone, &partition).key(setting.identity()).unwrap(), key);
    let batches = Extractor { batch_size: 1.into(), readers: 1, ..setting.extractor(&backbone, &input) };
    assert_eq!(batches.key(setting.identity()).unwrap(), key);

    let mut keys = vec![key];
    let mut deeper = setting.model.clone();
    sizes_mut(&mut deeper).depth += 1;
    for identity in [
        Identity { weights: "random:1", ..setting.identity() },
        Identity { device: "vulkan", ..setting.identity() },
        Identity { model: &deeper, ..setting.identity() },
    ] {
        keys.push(base.key(identity).unwrap());
    }
    for (task, normalization, by_content) in [
        ("m-eurosat", "satlas", false),
        ("m-eurosat", "OURS-2.0-norm_no_clip", false),
        ("m-eurosat", "OURS-1.8-norm_no_clip", false),
        ("m-eurosat", "OURS-1.8-norm_yes_clip", false),
        ("m-eurosat", "dataset", true),
        // Other statistics, other classes.
        ("m-brick-kiln", "dataset", false),
        ("m-brick-kiln", "satlas", false),
    ] {
        let input = setting.input(task, "default", normalization, by_content);
        keys.push(setting.extractor(&backbone, &input).key(setting.identity()).unwrap());
    }
    for change in [
        &|input: &mut Input| input.images[0].sensor = Sensor::S2_L2A,
        &|input: &mut Input| input.images[0].selection.stored.swap(0, 1),
        &|input: &mut Input| input.strategies[0].preprocess.height += 16,
        &|input: &mut Input| input.strategies[0].preprocess.align_corners = true,
    ] as [&dyn Fn(&mut Input); 4]
    {
        let mut input = setting.input("m-eurosat", "default", "dataset", false);
        change(&mut input);
        keys.push(setting.extractor(&backbone, &input).key(setting.identity()).unwrap());
    }
    let distinct: std::collections::BTreeSet<&String> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len(), "{keys:?}");
}

fn terrabench(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env("TERRABENCH_CACHE", cache).env_remove("GEO_BENCH_DIR");
    command
}

/// Runs a command that must succeed; returns its standard output and standard error.
fn said(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn cache_command_lists_and_prunes_entries() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let bench = |out: &str, more: &[&str]| {
        let mut command = terrabench(&cache);
        command.args(["bench", "geobench", "--demo", "--task", "m-eurosat", "--out"]);
        said(command.arg(folder.path().join(out)).args(more)).1
    };
    bench("none", &["--no-cache"]);
    assert!(chunks(&cache.join("features")).is_empty());
    let first = bench("first", &["--seed", "0", "--seed", "1", "--seed", "2"]);
    let extractions = |stderr: &str| stderr.lines().filter(|line| line.contains(" images, ")).count();
    assert!(extractions(&first) > 0);
    assert_eq!(extractions(&bench("second", &[])), 0, "another folder of results finds the features");

    // The seeds decide nothing in k-NN: the interval says more than a standard deviation of 0.
    let table = std::fs::read_to_string(folder.path().join("first/geobench-demo/knn.md")).unwrap();
    assert!(!table.contains("± 0.0") && table.contains("65.0 [50.0, 80.0]"), "{table}");

    let (listed, _) = said(terrabench(&cache).args(["cache", "--list"]));
    assert!(listed.contains("m-eurosat  Demo") && listed.contains(" in 1 entries"), "{listed}");
    said(terrabench(&cache).args(["cache", "--prune", "--older-than", "1", "--to", "1GB"]));
    assert!(!chunks(&cache.join("features")).is_empty());
    let (pruned, _) = said(terrabench(&cache).args(["cache", "--prune", "--to", "0"]));
    assert!(pruned.contains("removed") && pruned.contains(" in 0 entries of"), "{pruned}");
    assert!(chunks(&cache.join("features")).is_empty());
    for wrong in
        [&["cache"][..], &["cache", "--list", "--to", "1GB"], &["cache", "--prune", "--to", "1 apple"]]
    {
        assert!(!terrabench(&cache).args(wrong).output().unwrap().status.success(), "{wrong:?}");
    }
}

#[cfg(unix)]
#[test]
fn killed_extraction_resumes_from_its_last_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let made = common::demo::provide(&suite, folder.path()).join("classification_v1.0/m-eurosat");
    let data = folder.path().join("data/classification_v1.0/m-eurosat");
    std::fs::create_dir_all(&data).unwrap();

    // More samples than fit into a chunk: copies of the demo's, made distinct by appended bytes.
    let train = 2 * CHUNK + 100;
    let text = std::fs::read_to_string(made.join("default_partition.json")).unwrap();
    let names: std::collections::BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap();
    let copy = |from: &str, to: &str, more: &[u8]| {
        let mut bytes = std::fs::read(made.join(format!("{from}.hdf5"))).unwrap();
        bytes.extend(more);
        std::fs::write(data.join(format!("{to}.hdf5")), bytes).unwrap();
    };
    let mut partition = names.clone();
    let many: Vec<String> = (0..train).map(|i| format!("sample_{i}")).collect();
    for (i, name) in many.iter().enumerate() {
        copy(&names["train"][i % names["train"].len()], name, &(i as u64).to_le_bytes());
    }
    for name in names["valid"].iter().chain(&names["test"]) {
        copy(name, name, &[]);
    }
    partition.insert("train".to_owned(), many);
    std::fs::write(data.join("default_partition.json"), serde_json::to_string(&partition).unwrap()).unwrap();
    std::fs::copy(made.join("band_stats.json"), data.join("band_stats.json")).unwrap();

    let bench = |name: &str| {
        let mut command = terrabench(&folder.path().join(name));
        command
            .args(["bench", "geobench", "--model", "demo", "--weights", "random:0", "--task", "m-eurosat"])
            .args(["--partition", "default", "--data"])
            .arg(folder.path().join("data"))
            .arg("--out")
            .arg(folder.path().join(name).join("results"));
        command
    };
    let features = folder.path().join("killed/features");
    let mut killed = bench("killed").stderr(std::process::Stdio::null()).spawn().unwrap();
    while chunks(&features).is_empty() {
        assert!(killed.try_wait().unwrap().is_none(), "it ended before its first chunk");
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(common::records(&folder.path().join("killed/results/geobench")).is_empty());
    let done = chunks(&features).len();
    assert!(done <= 2, "the train split was not through: {done} chunks");

    let (_, resumed) = said(&mut bench("killed"));
    let rest = train - done * CHUNK;
    assert!(resumed.contains(&format!("m-eurosat train: {rest}/{rest} images")), "{rest} in {resumed}");
    said(&mut bench("whole"));
    let records = |name: &str| common::records(&folder.path().join(name).join("results/geobench"));
    assert_eq!(records("killed"), records("whole"));
    assert_eq!(records("whole").len(), 1);
}
