//! The demo's tasks of numbers: what their files hold, and what `bench` makes of them.

use std::process::Command;

use terrabench::data::{self, Split, Target};
use terrabench::demo;
use terrabench::home::Home;
use terrabench::record::Store;
use terrabench::task::{Metric, Suite};

use crate::common;

/// The targets of a split of a task of the suite `demo`.
fn targets(task: &str, split: Split) -> Vec<Target> {
    let suite = Suite::load(&Home::find().unwrap(), "demo").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = demo::provide(&suite, folder.path()).unwrap();
    let dataset = data::open(&suite, suite.task(task).unwrap(), &root, "default").unwrap();
    let bands = &dataset.bands().unwrap()[..1];
    (0..dataset.samples(split).len()).map(|i| dataset.read(split, i, bands).unwrap().target).collect()
}

#[test]
fn tree_cover_is_a_number_per_image_that_varies() {
    let targets = targets("demo-tree-cover", Split::Train);
    let covers: Vec<f32> =
        targets.iter().map(|t| if let Target::Value(v) = t { *v } else { panic!("{t:?}") }).collect();
    assert_eq!(covers.len(), 60);
    assert!(covers.iter().all(|cover| (0.0..=100.0).contains(cover)), "{covers:?}");
    let mean = covers.iter().sum::<f32>() / 60.0;
    let spread = (covers.iter().map(|cover| (cover - mean).powi(2)).sum::<f32>() / 60.0).sqrt();
    assert!((30.0..70.0).contains(&mean) && spread > 15.0, "mean {mean}, standard deviation {spread}");
}

#[test]
fn tree_height_is_a_map_of_metres_with_parts_that_were_not_surveyed() {
    let targets = targets("demo-tree-height", Split::Train);
    let mut heights = Vec::new();
    for target in &targets {
        let Target::ValueMap(map) = target else { panic!("{target:?}") };
        assert_eq!(map.dim(), (48, 48));
        heights.extend(map.iter().copied());
    }
    let measured: Vec<f32> = heights.iter().copied().filter(|height| !height.is_nan()).collect();
    let share = measured.len() as f32 / heights.len() as f32;
    assert!((0.5..0.98).contains(&share), "{share} measured");
    assert!(measured.iter().all(|height| (0.0..=30.0).contains(height)));
    let wooded = measured.iter().filter(|height| **height > 0.0).count() as f32 / measured.len() as f32;
    assert!((0.3..0.9).contains(&wooded), "{wooded} wooded");
}

#[test]
fn bench_scores_numbers_per_image_and_says_that_the_lowest_error_is_best() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(["bench", "demo", "--demo", "--task", "demo-tree-cover", "--no-cache"])
        .args(["--protocol", "knn", "--protocol", "ridge", "--out"])
        .arg(folder.path())
        .env("TERRABENCH_CACHE", common::demo::cache("demo", folder.path().join("cache")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let results = folder.path().join("demo-demo");
    let records = Store::open(&results).unwrap().all().unwrap();
    assert_eq!(records.len(), 2, "{said}");
    for record in &records {
        assert_eq!(record.metric, Metric::Rmse);
        // The mean of the numbers would be off by about 29.
        assert!((1.0..20.0).contains(&record.value), "{} {}", record.cell.protocol, record.value);
        assert!(record.scores.contains_key("mae") && record.scores["r2"] > 0.5, "{:?}", record.scores);
        assert!(record.notes.is_empty(), "{:?}", record.notes);
        let shown = format!("rmse {:.2} [", record.value);
        assert!(said.contains(&shown), "{said}");
    }
    let table = std::fs::read_to_string(results.join("numbers.md")).unwrap();
    assert!(table.contains("RMSE in % of the image") && !table.contains("## Published"), "{table}");
    assert!(table.contains("For RMSE, lower is better."), "{table}");
}

#[test]
fn without_demo_the_suite_says_that_its_data_are_generated() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(["bench", "demo", "--out"])
        .arg(folder.path())
        .env("TERRABENCH_DATA", folder.path())
        .env_remove("TERRABENCH_DEMO_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("cargo xtask bench demo --demo"), "{said}");
    assert!(!said.contains("Hugging Face"), "{said}");
}
