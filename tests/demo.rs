//! The demo's data: the same bytes everywhere, the official layout, and difficulty that better features overcome.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hdf5_pure::{DType, File, Layout};
use serde_json::Value;
use terrabench::demo::{provide, provide_for};
use terrabench::home::{Home, read_toml};
use terrabench::task::{Suite, TargetKind, Task};

/// GEO-Bench with its tasks of Sentinel-2. Those of Landsat and aerial images: demo_brightness.rs.
fn geobench() -> Suite {
    let mut suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    suite.tasks.retain(|task| task.bands.is_empty());
    suite
}

/// GEO-Bench with some of its tasks, to save time.
fn only(names: &[&str]) -> Suite {
    let mut suite = geobench();
    suite.tasks.retain(|task| names.contains(&task.name.as_str()));
    assert_eq!(suite.tasks.len(), names.len());
    suite
}

/// The whole demo, written anew once a run.
fn demo() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
        _ = fs::remove_dir_all(&cache);
        provide(&geobench(), &cache).unwrap()
    })
}

/// Every file below a folder by its path relative to it.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn names(partition: &Value, split: &str) -> Vec<String> {
    serde_json::from_value(partition[split].clone()).unwrap()
}

/// A sample's pixels by dataset, and the pickle of its attribute.
struct Sample {
    bands: BTreeMap<String, Vec<f64>>,
    pickle: Vec<u8>,
}

fn read(task: &Task, name: &str) -> Sample {
    let file = File::open(demo().join(&task.directory).join(format!("{name}.hdf5"))).unwrap();
    let mut bands = BTreeMap::new();
    for band in file.root().datasets().unwrap() {
        let dataset = file.dataset(&band).unwrap();
        assert_eq!(dataset.shape().unwrap(), [task.image_size as u64; 2], "{name} {band}");
        assert!(matches!(dataset.layout().unwrap(), Layout::Contiguous { .. }), "{name} {band}");
        let pixels = match dataset.dtype().unwrap() {
            DType::U8 => dataset.read_u8().unwrap().into_iter().map(f64::from).collect(),
            DType::I16 => dataset.read_i16().unwrap().into_iter().map(f64::from).collect(),
            DType::F32 => dataset.read_f32().unwrap().into_iter().map(f64::from).collect(),
            other => panic!("{name} {band} is {other}"),
        };
        bands.insert(band, pixels);
    }
    let attributes = file.root().attrs().unwrap();
    Sample { bands, pickle: python_bytes(attributes["pickle"].as_str().unwrap()) }
}

/// The bytes that a Python bytes literal stands for.
fn python_bytes(literal: &str) -> Vec<u8> {
    let mut rest = literal[2..literal.len() - 1].bytes();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b't' => b'\t',
                b'n' => b'\n',
                b'r' => b'\r',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            other => other,
        });
    }
    bytes
}

/// What follows `pattern` in a pickle.
fn after<'a>(pickle: &'a [u8], pattern: &[u8]) -> &'a [u8] {
    let start = pickle.windows(pattern.len()).position(|window| window == pattern);
    &pickle[start.expect("the pattern occurs") + pattern.len()..]
}

/// The class of a sample: the key `label`, then a number of one byte.
fn class(sample: &Sample) -> usize {
    let rest = after(&sample.pickle, b"\x8c\x05label");
    assert_eq!(rest[0], b'K');
    usize::from(rest[1])
}

/// The labels of a sample of `count` labels: the data of an array of 64-bit integers.
fn labels(sample: &Sample, count: usize) -> Vec<bool> {
    let mut header = vec![b'B'];
    header.extend((8 * count as u32).to_le_bytes());
    let data = &after(&sample.pickle, &header)[..8 * count];
    data.chunks(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) == 1).collect()
}

#[test]
fn the_same_bytes_come_out_of_every_run_with_any_number_of_threads() {
    let once = contents(demo());
    for threads in [1, 2] {
        let cache = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let root = pool.install(|| provide(&geobench(), cache.path())).unwrap();
        assert_eq!(root.file_name(), demo().file_name());
        assert!(contents(&root) == once, "another run with {threads} threads gave other files");
    }
}

#[test]
fn the_bytes_are_those_of_every_other_machine() {
    // The manifest holds the hash of every file. If the generator or the HDF5 writer changed, raise VERSION and put the
    // new hash here; otherwise this machine computes differently, and demo numbers of two machines cannot be compared.
    let manifest = fs::read(demo().join("manifest.json")).unwrap();
    assert_eq!(blake3::hash(&manifest).to_hex().as_str(), PINNED);
}
const PINNED: &str = "384a0812402091468733bd8855cb2c643d811d57931f479ffbba19e6d85726db";

#[test]
fn it_is_small_and_says_what_it_is() {
    let files = contents(demo());
    let size: usize = files.values().map(Vec::len).sum();
    assert!(size < 85_000_000, "{size} bytes");
    let readme = String::from_utf8(files[Path::new("README.txt")].clone()).unwrap();
    assert!(readme.starts_with("Generated data, not a benchmark."));
}

#[test]
fn every_task_has_the_official_layout() {
    let s2: [&str; 13] = [
        "01 - Coastal aerosol",
        "02 - Blue",
        "03 - Green",
        "04 - Red",
        "05 - Vegetation Red Edge",
        "06 - Vegetation Red Edge",
        "07 - Vegetation Red Edge",
        "08 - NIR",
        "08A - Vegetation Red Edge",
        "09 - Water vapour",
        "10 - SWIR - Cirrus",
        "11 - SWIR",
        "12 - SWIR",
    ];
    let s1 = [
        "01 - VH.Real",
        "02 - VH.Imaginary",
        "03 - VV.Real",
        "04 - VV.Imaginary",
        "05 - VH.LEE Filtered",
        "06 - VV.LEE Filtered",
        "07 - VH.LEE Filtered.Real",
        "08 - VV.LEE Filtered.Imaginary",
    ];
    let without = |left_out: &[&str]| -> Vec<&str> {
        s2.into_iter().filter(|name| !left_out.iter().any(|start| name.starts_with(start))).collect()
    };
    let segmentation = [without(&["10"]), vec!["Cloud Probability"]].concat();
    // Task, its bands in order, their type, what the file appends to their names.
    let expected = [
        ("m-eurosat", s2.to_vec(), DType::I16, ""),
        ("m-bigearthnet", without(&["10"]), DType::F32, ""),
        ("m-so2sat", [s1.to_vec(), without(&["01", "09", "10"])].concat(), DType::F32, ""),
        ("m-brick-kiln", s2.to_vec(), DType::I16, ""),
        ("m-cashew-plant", segmentation.clone(), DType::I16, "_2019-11-05"),
        ("m-SA-crop-type", segmentation, DType::U8, ""),
    ];
    let suite = geobench();
    assert_eq!(suite.tasks.len(), expected.len());
    for (name, bands, dtype, date) in expected {
        let task = suite.task(name).unwrap();
        let directory = demo().join(&task.directory);
        assert!(directory.join("task_specs.pkl").is_file());
        let statistics = json(&directory.join("band_stats.json"));
        let listed: BTreeSet<&str> = statistics.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(listed, bands.iter().copied().collect(), "{name}");

        let mut stored: Vec<String> = bands.iter().map(|band| format!("{band}{date}")).collect();
        if task.target == TargetKind::Mask {
            stored.push("label".to_owned());
        }
        let partition = json(&directory.join("default_partition.json"));
        let samples = ["train", "valid", "test"].map(|split| names(&partition, split)).concat();
        for sample in &samples {
            let read = read(task, sample);
            assert_eq!(
                read.bands.keys().collect::<Vec<_>>(),
                stored.iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
            );
            // The attribute names the datasets in order, at its end.
            let mut order = after(&read.pickle, b"\x8c\x0bbands_order](");
            for band in &stored {
                assert_eq!(order[..2], [0x8c, band.len() as u8]);
                assert_eq!(&order[2..2 + band.len()], band.as_bytes());
                order = &order[2 + band.len()..];
            }
            assert_eq!(order, b"eu.");
        }
        let file = File::open(directory.join(format!("{}.hdf5", samples[0]))).unwrap();
        for band in &stored {
            let bytes = band.starts_with("Cloud") || band == "label";
            let expected = if bytes { &DType::U8 } else { &dtype };
            assert_eq!(file.dataset(band).unwrap().dtype().unwrap(), *expected, "{name} {band}");
        }
        let files = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let hdf5 = files.filter(|path| path.extension().is_some_and(|extension| extension == "hdf5"));
        assert_eq!(hdf5.count(), samples.len(), "{name}: no sample is left out of the partitions");
    }
}

#[test]
fn partitions_are_nested_subsets_of_the_training_samples() {
    for task in &geobench().tasks {
        let directory = demo().join(&task.directory);
        let read = |name: &str| json(&directory.join(format!("{name}_partition.json")));
        let default = read("default");
        let splits = ["train", "valid", "test"].map(|split| names(&default, split));
        let all: BTreeSet<&String> = splits.iter().flatten().collect();
        assert_eq!(all.len(), splits.iter().map(Vec::len).sum::<usize>(), "splits do not overlap");
        let [train, valid, test] = &splits;

        let mut smaller: Vec<String> = Vec::new();
        for share in ["0.01", "0.02", "0.05", "0.10", "0.20", "0.50", "1.00"] {
            let partition = read(&format!("{share}x_train"));
            let subset = names(&partition, "train");
            assert!(smaller.iter().all(|name| subset.contains(name)), "{} {share}", task.name);
            assert!(subset.iter().all(|name| train.contains(name)), "{} {share}", task.name);
            let wanted = share.parse::<f64>().unwrap() * train.len() as f64;
            assert!(subset.len() as f64 >= wanted && subset.len() >= train.len().min(4));
            assert_eq!(&names(&partition, "valid"), valid);
            assert_eq!(&names(&partition, "test"), test);
            smaller = subset;
        }
        assert_eq!(&smaller, train);
        if task.target != TargetKind::Mask {
            let few = names(&read("0.01x_train"), "train").len();
            assert!(3 * few < 2 * train.len(), "{}: {few} of {} are few", task.name, train.len());
        }
    }
}

#[test]
fn labels_are_in_range_and_every_class_occurs() {
    for task in &geobench().tasks {
        let partition = json(&demo().join(&task.directory).join("default_partition.json"));
        for split in ["train", "valid", "test"] {
            let mut seen = BTreeSet::new();
            for name in names(&partition, split) {
                let sample = read(task, &name);
                match task.target {
                    TargetKind::Class => {
                        seen.insert(class(&sample));
                    }
                    TargetKind::Labels => {
                        let labels = labels(&sample, task.classes);
                        assert!(labels.contains(&true), "{name} has no label");
                        seen.extend((0..labels.len()).filter(|label| labels[*label]));
                    }
                    TargetKind::Mask => {
                        seen.extend(sample.bands["label"].iter().map(|class| *class as usize));
                    }
                    TargetKind::Value | TargetKind::ValueMap => {
                        panic!("{}: GEO-Bench has no numbers", task.name)
                    }
                }
            }
            assert!(seen.iter().all(|class| *class < task.classes), "{} {split}", task.name);
            match task.target {
                TargetKind::Labels => assert!(seen.len() >= 6, "{split}: {seen:?}"),
                _ => assert_eq!(seen.len(), task.classes, "{} {split}: {seen:?}", task.name),
            }
        }
    }
}

#[test]
fn pixels_are_digital_numbers_that_a_sensor_gives() {
    for task in &geobench().tasks {
        let partition = json(&demo().join(&task.directory).join("default_partition.json"));
        for name in names(&partition, "train") {
            for (band, pixels) in read(task, &name).bands {
                let (low, high) = match band.as_str() {
                    "label" => (0.0, task.classes as f64 - 1.0),
                    // Backscatter in linear units.
                    _ if band.contains(".Real") || band.contains(".Imag") || band.contains("LEE") => {
                        (-8.0, 8.0)
                    }
                    _ if band.starts_with("Cloud") => (0.0, 100.0),
                    _ if task.name == "m-SA-crop-type" => (0.0, 255.0),
                    _ => (1.0 / f64::from(task.scale), 16_000.0 / f64::from(task.scale)),
                };
                let fits = |value: &f64| (low * 0.999..=high * 1.001).contains(value) || *value == low;
                assert!(pixels.iter().all(fits), "{} {name} {band}", task.name);
                let first = pixels[0];
                if band != "label" && !band.starts_with("Cloud") {
                    assert!(pixels.iter().any(|value| *value != first), "{name} {band} is constant");
                }
            }
        }
    }
}

#[test]
fn land_covers_have_their_spectra() {
    // Mean digital numbers a class of m-eurosat, under the official names, which the first eight bands deserve.
    let samples = load("m-eurosat");
    let mean = |class: usize, band: usize| {
        let of_class: Vec<f64> = samples
            .iter()
            .flatten()
            .filter(|sample| sample.class == class)
            .map(|sample| sample.means[band])
            .collect();
        of_class.iter().sum::<f64>() / of_class.len() as f64
    };
    let (blue, red, nir) = (1, 3, 7);
    let (forest, industry, lake) = (1, 4, 9);
    assert!(mean(forest, nir) > 2.5 * mean(forest, red), "leaves reflect the near infrared");
    assert!(mean(lake, nir) < mean(lake, blue), "water swallows it");
    assert!(mean(industry, red) > 2.0 * mean(forest, red), "roofs are bright");
    // Stored under `09 - Water vapour`, as in the official files: the cirrus band, which sees no ground.
    assert!(mean(forest, 9) < 50.0);
}

struct Features {
    class: usize,
    /// A number a band.
    means: Vec<f64>,
    /// A number a band each: the spread of pixels, and the mean step from one pixel to the next.
    texture: Vec<f64>,
}

/// The features of train and test.
fn load(name: &str) -> [Vec<Features>; 2] {
    let suite = geobench();
    let task = suite.task(name).unwrap();
    let partition = json(&demo().join(&task.directory).join("default_partition.json"));
    ["train", "test"].map(|split| {
        let samples = names(&partition, split).into_iter().map(|name| {
            let sample = read(task, &name);
            let (mut means, mut spreads, mut steps) = (Vec::new(), Vec::new(), Vec::new());
            for pixels in sample.bands.values() {
                let count = pixels.len() as f64;
                let mean = pixels.iter().sum::<f64>() / count;
                means.push(mean);
                spreads.push((pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / count).sqrt());
                steps.push(pixels.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum::<f64>() / count);
            }
            Features { class: class(&sample), means, texture: [spreads, steps].concat() }
        });
        samples.collect()
    })
}

/// Share of test samples whose nearest class centroid, in standardised features, is that of their class.
fn accuracy(samples: &[Vec<Features>; 2], features: impl Fn(&Features) -> Vec<f64>) -> f64 {
    let [train, test] = samples;
    let rows: Vec<Vec<f64>> = train.iter().map(&features).collect();
    let count = rows.len() as f64;
    let scale: Vec<(f64, f64)> = (0..rows[0].len())
        .map(|i| {
            let mean = rows.iter().map(|row| row[i]).sum::<f64>() / count;
            let variance = rows.iter().map(|row| (row[i] - mean).powi(2)).sum::<f64>() / count;
            (mean, variance.sqrt())
        })
        .collect();
    let standard = |sample: &Features| -> Vec<f64> {
        features(sample).iter().zip(&scale).map(|(value, (mean, std))| (value - mean) / std).collect()
    };
    let mut centroids: BTreeMap<usize, (Vec<f64>, f64)> = BTreeMap::new();
    for sample in train {
        let row = standard(sample);
        let (sum, size) = centroids.entry(sample.class).or_insert_with(|| (vec![0.0; row.len()], 0.0));
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        *size += 1.0;
    }
    let right = test.iter().filter(|sample| {
        let row = standard(sample);
        let distance = |(sum, size): &(Vec<f64>, f64)| -> f64 {
            row.iter().zip(sum).map(|(value, sum)| (value - sum / size).powi(2)).sum()
        };
        let nearest = centroids.iter().min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
        nearest.is_some_and(|(class, _)| *class == sample.class)
    });
    right.count() as f64 / test.len() as f64
}

#[test]
fn better_features_score_better_and_nothing_saturates() {
    for name in ["m-eurosat", "m-so2sat", "m-brick-kiln"] {
        let samples = load(name);
        let classes: BTreeSet<usize> = samples[0].iter().map(|sample| sample.class).collect();
        let chance = 1.0 / classes.len() as f64;
        let spectrum = accuracy(&samples, |sample| sample.means.clone());
        let both = accuracy(&samples, |sample| [&sample.means[..], &sample.texture].concat());
        eprintln!("{name}: chance {chance:.3}, mean spectrum {spectrum:.3}, with texture {both:.3}");
        assert!(spectrum.max(both) < 0.97, "{name}: too easy: {spectrum} and {both}");
        // A kiln is told by its shape: bare ground without one misleads those who see only colours and their spread.
        if name != "m-brick-kiln" {
            assert!(spectrum > chance + 0.1, "{name}: spectra tell nothing: {spectrum}");
            assert!(both > spectrum + 0.05, "{name}: texture adds nothing: {spectrum} and {both}");
        }
    }
}

#[test]
fn what_is_whole_stays_and_what_is_damaged_is_replaced() {
    let suite = only(&["m-brick-kiln"]);
    let cache = tempfile::tempdir().unwrap();
    // An earlier run was killed while it wrote.
    let root = provide(&suite, cache.path()).unwrap();
    let partial = PathBuf::from(format!("{}.partial", root.display()));
    let whole = contents(&root);
    fs::rename(&root, &partial).unwrap();
    fs::remove_file(partial.join("manifest.json")).unwrap();
    assert_eq!(provide(&suite, cache.path()).unwrap(), root);
    assert!(contents(&root) == whole);
    assert!(!partial.exists());

    // Nothing is written where nothing is wrong.
    let manifest = root.join("manifest.json");
    let written = fs::metadata(&manifest).unwrap().modified().unwrap();
    provide(&suite, cache.path()).unwrap();
    assert_eq!(fs::metadata(&manifest).unwrap().modified().unwrap(), written);

    let directory = root.join(&suite.tasks[0].directory);
    let sample = directory.join("demo_0003.hdf5");
    let bytes = fs::read(&sample).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let damages: [&dyn Fn(); 6] = [
        &|| fs::write(&sample, &bytes[..bytes.len() / 2]).unwrap(),
        &|| fs::write(&sample, &flipped).unwrap(),
        &|| fs::remove_file(&sample).unwrap(),
        &|| fs::remove_file(&manifest).unwrap(),
        &|| fs::write(&manifest, "{}").unwrap(),
        &|| fs::write(directory.join("demo_9999.hdf5"), "").unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        assert_eq!(provide(&suite, cache.path()).unwrap(), root);
        assert!(contents(&root) == whole, "damage {number} was not mended");
    }
}

#[test]
fn processes_at_once_get_the_same_whole_folder() {
    let suite = only(&["m-brick-kiln"]);
    let cache = tempfile::tempdir().unwrap();
    let roots: Vec<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| provide(&suite, cache.path()).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
    let (found, expected) = (contents(&roots[0]), contents(demo()));
    let samples = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "hdf5");
    assert_eq!(found.keys().filter(samples).count(), 56);
    // A task's files depend on no other task.
    assert!(found.iter().filter(|(path, _)| samples(path)).all(|(path, bytes)| expected[path] == *bytes));
    // Only the folder and its lock are left.
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 2);
}

#[test]
fn another_seed_draws_other_scenes_in_the_same_layout() {
    let suite = only(&["m-brick-kiln"]);
    let cache = tempfile::tempdir().unwrap();
    let roots = [0, 1, 2].map(|seed| provide_for(&suite, &[], cache.path(), seed).unwrap());
    assert_eq!(roots[0], provide(&suite, cache.path()).unwrap(), "seed 0 is the demo");
    let files = roots.each_ref().map(|root| contents(root));
    let samples = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "hdf5");
    for [a, b] in [[0, 1], [0, 2], [1, 2]] {
        assert_eq!(files[a].keys().collect::<Vec<_>>(), files[b].keys().collect::<Vec<_>>());
        let same = files[a].keys().filter(samples).filter(|path| files[a][*path] == files[b][*path]).count();
        assert_eq!(same, 0, "seeds {a} and {b}");
    }
    assert!(roots.iter().all(|root| terrabench::demo::is_demo(root)));
}

#[test]
fn a_suite_the_demo_cannot_imitate_is_refused_by_name() {
    let cache = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut Task)| {
        let mut suite = only(&["m-brick-kiln"]);
        change(&mut suite.tasks[0]);
        provide(&suite, cache.path()).unwrap_err().to_string()
    };
    let unknown = refused(&|task| task.name = "m-unknown".to_owned());
    assert!(unknown.contains("m-unknown") && unknown.contains("m-so2sat"), "{unknown}");
    assert!(refused(&|task| task.classes = 3).contains("has 2 classes; the suite expects 3"));
    assert!(refused(&|task| task.image_size = 0).contains("images of 0 pixels"));
}

#[test]
fn the_demo_model_is_small_and_claims_no_published_row() {
    use terrabench::model::config::ModelConfig;
    let home = Home::find().unwrap();
    let config = ModelConfig::load(&home, "demo").unwrap();
    assert!(config.published.is_none() && config.weights.is_none());
    let base: ModelConfig = read_toml(&home.config("models", "terrafm-b").unwrap()).unwrap();
    assert_eq!(config.sensors, base.sensors);
    let shape = crate::common::encoding::sizes(&config);
    let sensor = 3 * shape.width;
    let bands: usize = config.sensors.values().map(|sensor| sensor.bands.len()).sum();
    let blocks = shape.depth * (4 + 2 * shape.mlp_ratio) * shape.width * shape.width;
    let weights =
        sensor * bands * shape.patch * shape.patch + 2 * sensor * sensor + sensor * shape.width + blocks;
    assert!((1_000_000..10_000_000).contains(&weights), "{weights} weights");
}
