//! The demos of Copernicus-Bench, GEO-Bench-2 and Landslide4Sense: every task's files are in the official layout, as the readers see it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use terrabench::data::{self, Dataset, Split, Target};
use terrabench::demo::{has, provide};
use terrabench::home::Home;
use terrabench::task::{Suite, TargetKind, Task};

fn suite(name: &str) -> Suite {
    Suite::load(&Home::find().unwrap(), name).unwrap()
}

const SUITES: [&str; 3] = ["copernicus-bench", "geobench-2", "landslide4sense"];

/// The cache folder of this file's tests.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-suites")
}

/// The demo of a suite in the cache folder, written anew once a run.
fn root(name: &str) -> &'static Path {
    static ROOTS: OnceLock<[PathBuf; 3]> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        _ = std::fs::remove_dir_all(cache());
        SUITES.map(|name| provide(&suite(name), &cache()).unwrap())
    });
    let place = SUITES.iter().position(|known| *known == name);
    &roots[place.expect("one of SUITES")]
}

fn open(suite: &Suite, task: &Task) -> Box<dyn Dataset> {
    let opened = data::open(suite, task, root(&suite.name), "default");
    opened.unwrap_or_else(|error| panic!("{}: {error}", task.name))
}

#[test]
fn every_task_can_be_read_and_has_the_targets_of_its_suite() {
    for suite in SUITES.map(suite) {
        for task in suite.tasks.iter().filter(|task| has(&suite, task)) {
            let (dataset, name) = (open(&suite, task), &task.name);
            let bands = dataset.bands().unwrap();
            let mut classes = BTreeSet::new();
            for split in Split::ALL {
                let samples = dataset.samples(split);
                assert!(samples.len() >= 2, "{name} {split}: {} samples", samples.len());
                for index in [0, samples.len() - 1] {
                    let sample =
                        dataset.read(split, index, &bands).unwrap_or_else(|e| panic!("{name} {split}: {e}"));
                    let fits = match (&sample.target, task.target) {
                        (Target::Class(class), TargetKind::Class) => {
                            classes.insert(*class as i32) || *class < task.classes
                        }
                        (Target::Labels(labels), TargetKind::Labels) => {
                            assert!(labels.iter().any(|label| *label), "{name} {split} {index} has no label");
                            labels.len() == task.classes
                        }
                        (Target::Mask(mask), TargetKind::Mask) => {
                            classes.extend(mask.iter().copied().filter(|class| Some(*class) != task.ignore));
                            true
                        }
                        (Target::ValueMap(map), TargetKind::ValueMap) => {
                            map.iter().any(|value| value.is_finite())
                        }
                        _ => false,
                    };
                    assert!(fits, "{name} {split} {index}: {:?} is no target of the task", task.target);
                    for image in &sample.images {
                        let (low, high) =
                            image.pixels.iter().fold((f32::MAX, f32::MIN), |(low, high), pixel| {
                                (low.min(*pixel), high.max(*pixel))
                            });
                        assert!(high - low > 1e-6, "{name} {split} {index}: all pixels are {low}");
                    }
                }
            }
            let is_mask = task.target == TargetKind::Mask;
            assert!(!is_mask || classes.len() >= 2, "{name}: masks have only the classes {classes:?}");
        }
    }
}

#[test]
fn the_classes_of_a_task_are_in_every_split() {
    for (suite, name) in [
        ("copernicus-bench", "eurosat-s1"),
        ("copernicus-bench", "eurosat-s2"),
        ("copernicus-bench", "eurosat-spatial"),
        ("copernicus-bench", "lcz-s2"),
        ("geobench-2", "so2sat"),
    ] {
        let suite = self::suite(suite);
        let task = suite.task(name).unwrap();
        let dataset = open(&suite, task);
        let bands = dataset.bands().unwrap();
        for split in Split::ALL {
            let class = |index| match dataset.read(split, index, &bands).unwrap().target {
                Target::Class(class) => class,
                other => panic!("{name}: {other:?}"),
            };
            let classes: BTreeSet<usize> = (0..dataset.samples(split).len()).map(class).collect();
            assert_eq!(classes.len(), task.classes, "{name} {split}");
        }
    }
}

#[test]
fn another_number_of_threads_and_another_run_give_the_same_bytes() {
    let mut suite = suite("copernicus-bench");
    suite.tasks.retain(|task| ["lcz-s2", "aq-no2-s5p", "eurosat-s1"].contains(&task.name.as_str()));
    let manifest = |threads| {
        let cache = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let root = pool.install(|| provide(&suite, cache.path())).unwrap();
        std::fs::read_to_string(root.join("manifest.json")).unwrap()
    };
    let once = manifest(1);
    assert!(once.contains("lcz_train.h5") && once.contains("label_annual/"), "{once}");
    assert!(once == manifest(2), "two threads wrote other files");
}

/// Runs `bench SUITE --demo` and returns what it said.
fn bench(out: &Path, args: &[&str]) -> String {
    root(args[0]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command
        .env("TERRABENCH_CACHE", cache())
        .current_dir(out)
        .arg("bench")
        .args(args)
        .args(["--demo", "--no-cache"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn a_demo_runs_the_model_that_takes_the_sensor() {
    let out = tempfile::tempdir().unwrap();
    let said = bench(out.path(), &["copernicus-bench", "--task", "aq-no2-s5p"]);
    assert!(said.contains("aq-no2-s5p default demo-upernet seed 0: rmse"), "{said}");
    let said = bench(out.path(), &["copernicus-bench", "--task", "lc100cls-s3", "--protocol", "retrieval"]);
    assert!(said.contains("lc100cls-s3 default retrieval seed 0: retrieval_map"), "{said}");
    // Demo records stay apart.
    assert!(out.path().join("results/copernicus-bench-demo/records").is_dir());
    assert!(!out.path().join("results/copernicus-bench").exists());
}

#[test]
fn the_demo_of_geobench_2_fills_its_tables() {
    let out = tempfile::tempdir().unwrap();
    let said = bench(out.path(), &["geobench-2"]);
    for (task, protocol, metric) in [
        ("so2sat", "linear-probe", "accuracy"),
        ("so2sat-s1", "linear-probe", "accuracy"),
        ("cloudsen12", "demo-upernet", "miou"),
        ("biomassters", "demo-upernet", "rmse"),
    ] {
        assert!(said.contains(&format!("{task} default {protocol} seed 0: {metric}")), "{task}: {said}");
    }
    // Sentinel-1's two polarisations are exchanged, as in the release.
    assert!(said.contains("the files store VH, VV under the names VV, VH"), "{said}");
    let table = std::fs::read_to_string(out.path().join("results/geobench-2-demo/frozen.md")).unwrap();
    assert!(table.contains("demo-upernet") && table.contains("So2Sat"), "{table}");
}

#[test]
fn a_task_without_a_demo_is_refused_with_those_that_have_one() {
    let suite = suite("geobench-2");
    let error = terrabench::demo::check(&suite, suite.task("caffe").unwrap()).unwrap_err().to_string();
    assert!(error.contains("no demo for the task `caffe`") && error.contains("cloudsen12"), "{error}");
}

#[test]
fn the_demo_of_landslide4sense_fills_its_table() {
    let out = tempfile::tempdir().unwrap();
    let said = bench(out.path(), &["landslide4sense"]);
    assert!(said.contains("landslide4sense default demo-upernet seed 0: miou"), "{said}");
    let table =
        std::fs::read_to_string(out.path().join("results/landslide4sense-demo/landslide4sense.md")).unwrap();
    assert!(table.contains("demo-upernet"), "{table}");
}
