//! GEO-Bench's score over tasks: its own baselines against scipy's arithmetic, its ranges against their runs, and a report of all
//! twelve tasks.

use std::path::PathBuf;

use terrabench::home::Home;
use terrabench::record::{Record, Store};
use terrabench::report::aggregate::{self, Scores, scores};
use terrabench::report::tables::published;
use terrabench::report::tables::table::fill;
use terrabench::task::{Aggregate, Suite};

use crate::sample::{identify, record};

fn suite() -> (Home, Suite) {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    (home, suite)
}

fn definition(suite: &Suite, file: &str) -> Aggregate {
    suite.aggregates.iter().find(|aggregate| aggregate.file == file).unwrap().clone()
}

/// The scores of the published models and of these records.
fn scored(file: &str, records: &[Record], demo: bool) -> Option<Scores> {
    let (home, suite) = suite();
    let definition = definition(&suite, file);
    let table = suite.tables.iter().find(|table| table.file == definition.table).unwrap();
    let published = published::of_table(&home, table).unwrap();
    let filled = fill(table, &suite, &published, records, demo).unwrap();
    let ranges = aggregate::ranges(&home, &definition.ranges).unwrap();
    let runs = aggregate::runs(&home, &definition.runs).unwrap();
    scores(&definition, &filled, &ranges, &runs).unwrap()
}

/// Records of one model on each task of an aggregate; `value` gives the value by task and seed.
fn measured(file: &str, seeds: u64, value: impl Fn(usize, u64) -> f64) -> Vec<Record> {
    let (_, suite) = suite();
    let mut records = Vec::new();
    for (place, name) in definition(&suite, file).tasks.iter().enumerate() {
        let task = suite.task(name).unwrap();
        for seed in 0..seeds {
            let mut record = record();
            record.cell.task = name.clone();
            record.cell.protocol =
                if task.metric.to_string() == "miou" { "upernet" } else { "finetune" }.into();
            (record.cell.seed, record.metric, record.value) = (seed, task.metric, value(place, seed));
            (record.interval, record.scores) = (None, Default::default());
            identify(&mut record);
            records.push(record);
        }
    }
    records
}

/// scipy 1.17.1: `trim_mean` of the 411 runs, each scaled by the ranges.
#[test]
fn baselines_have_the_scores_of_the_reference() {
    let scores = scored("aggregate-masks", &[], false).unwrap();
    let expected = [
        ("U-Net ResNet50", 0.8808015415411738, 12),
        ("U-Net ResNet101", 0.8589227032276645, 12),
        ("U-Net ResNet18", 0.7388141982037546, 12),
        ("DeepLabV3 ResNet50", 0.5840967524404472, 12),
        ("DeepLabV3 ResNet101", 0.5471207220809289, 12),
        ("DeepLabV3 ResNet18", 0.06644953532740405, 12),
    ];
    assert_eq!(scores.models.len(), expected.len());
    for (model, (name, score, most)) in scores.models.iter().zip(expected) {
        assert!(model.name.starts_with(name), "{}, expected {name}", model.name);
        assert!((model.score - score).abs() < 1e-9, "{name}: {}, expected {score}", model.score);
        assert_eq!(model.seeds[1], most, "{name}");
        let interval = model.interval.unwrap();
        assert!(interval.low <= model.score && model.score <= interval.high, "{name}: {interval:?}");
        assert!(interval.high - interval.low < 0.2, "{name}: {interval:?}");
    }
    // The same draws every time.
    let again = scored("aggregate-masks", &[], false).unwrap();
    assert_eq!(again.models[0].interval, scores.models[0].interval);
    // Nobody has published a value on each task of classes in this table.
    assert!(scored("aggregate-classes", &[], false).is_none());
}

#[test]
fn ranges_are_those_of_the_runs_and_the_published_values() {
    let (home, suite) = suite();
    let masks = definition(&suite, "aggregate-masks");
    let ranges = aggregate::ranges(&home, &masks.ranges).unwrap();
    let runs = aggregate::runs(&home, &masks.runs).unwrap();
    assert_eq!((ranges.len(), runs.len()), (12, 411));
    for range in &ranges {
        let values: Vec<f64> = match range.source.as_str() {
            "geobench-runs.csv" => {
                runs.iter().filter(|run| run.dataset == range.dataset).map(|run| run.value).collect()
            }
            file => {
                let published = published::read(&home.published(file)).unwrap();
                let is_of = |value: &&published::PublishedValue| {
                    value.dataset == range.dataset
                        && value.partition == "default"
                        && value.metric == range.metric
                };
                published.values.iter().filter(is_of).map(|value| value.value).collect()
            }
        };
        let found = [f64::min, f64::max].map(|end| values.iter().copied().reduce(end).unwrap());
        assert_eq!(found, [range.low, range.high], "{}", range.dataset);
    }
    for task in definition(&suite, "aggregate-classes").tasks.iter().chain(&masks.tasks) {
        assert!(ranges.iter().any(|range| range.dataset == *task), "{task}");
    }
}

#[test]
fn measured_models_are_scored_beside_them_and_not_cut_off() {
    let (home, suite) = suite();
    let ranges = aggregate::ranges(&home, "geobench-ranges.csv").unwrap();
    let tasks = definition(&suite, "aggregate-masks").tasks;
    // 1.1 of the range on every task, with a little more per seed.
    let at = |place: usize, seed: u64| {
        let range = ranges.iter().find(|range| range.dataset == tasks[place]).unwrap();
        range.low + (1.1 + 0.01 * seed as f64) * (range.high - range.low)
    };
    let scores = scored("aggregate-masks", &measured("aggregate-masks", 3, at), false).unwrap();
    let best = &scores.models[0];
    assert!(best.name.contains("measured"), "{}", best.name);
    assert!((best.score - 1.11).abs() < 1e-9, "{}", best.score);
    assert_eq!(best.seeds, [3, 3]);
    let interval = best.interval.unwrap();
    assert!(interval.low >= 1.1 && interval.high <= 1.12, "{interval:?}");
    assert!(best.of_tasks.iter().all(|value| (value - 1.11).abs() < 1e-9));

    // One seed has no interval; a model that lacks a task has no score.
    let one = scored("aggregate-masks", &measured("aggregate-masks", 1, at), false).unwrap();
    assert_eq!(one.models[0].interval, None);
    let mut lacking = measured("aggregate-masks", 1, at);
    lacking.remove(0);
    let scores = scored("aggregate-masks", &lacking, false).unwrap();
    assert_eq!(scores.models.len(), 6);
    assert!(scores.incomplete.iter().any(|name| name.contains("measured")), "{:?}", scores.incomplete);
    let text = scores.text_table().markdown();
    assert!(text.contains("as they lack a task") && text.contains("geobench-runs.csv"), "{text}");
}

#[test]
fn ranges_without_width_and_damaged_runs_are_refused() {
    let (home, folder) = (Home::find().unwrap(), tempfile::tempdir().unwrap());
    crate::common::copied(
        &home.folder().join("benchmarks"),
        &folder.path().join("benchmarks"),
        &|_, text| text,
    );
    let home = Home::of(folder.path()).unwrap();
    let write = |file: &str, lines: &str| {
        std::fs::write(folder.path().join("benchmarks/published").join(file), lines).unwrap();
    };
    write("geobench-ranges.csv", "# Source: x\ndataset,metric,low,high,source\nm-nz-cattle,miou,5,5,x\n");
    let error = aggregate::ranges(&home, "geobench-ranges.csv").unwrap_err().to_string();
    assert!(error.contains("m-nz-cattle: expected `low` below `high`"), "{error}");
    write("geobench-runs.csv", "# Source: x\nmodel,backbone,dataset,seed,metric,value\na,b,c,0,miou,high\n");
    let error = aggregate::runs(&home, "geobench-runs.csv").unwrap_err().to_string();
    assert!(error.contains("geobench-runs.csv"), "{error}");
    assert!(aggregate::runs(&home, "").unwrap().is_empty());
}

/// A report of all twelve tasks has the table, both scores and the plot with twelve axes. The pictures are kept for a look.
#[test]
fn a_report_of_all_tasks_has_both_scores_and_a_plot_of_twelve_axes() {
    let results = tempfile::tempdir().unwrap();
    let store = Store::open(results.path().join("geobench")).unwrap();
    let value = |place: usize, seed: u64| [97.0, 70.0, 60.0, 98.6, 48.0, 94.0][place] + 0.3 * seed as f64;
    let of_masks = |place: usize, seed: u64| [45.0, 29.0, 93.6, 64.0, 55.0, 74.0][place] + 0.3 * seed as f64;
    let mut records = measured("aggregate-classes", 2, value);
    records.extend(measured("aggregate-masks", 2, of_masks));
    for record in &records {
        store.put(record).unwrap();
    }
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("all-tasks-report");
    _ = std::fs::remove_dir_all(&out);
    let home = Home::find().unwrap();
    terrabench::report::write_all(&home, results.path(), &out, &Default::default(), Default::default())
        .unwrap();
    for file in ["spider", "spider-all", "aggregate-classes", "aggregate-masks"] {
        assert!(out.join(format!("geobench/{file}.png")).is_file(), "{file}");
    }
    let index = std::fs::read_to_string(out.join("report.md")).unwrap();
    for part in ["All twelve tasks of GEO-Bench", "GEO-Bench's aggregate, segmentation", "m-NZ-Cattle"] {
        assert!(index.contains(part), "no {part:?}");
    }
    let plot = std::fs::read_to_string(out.join("geobench/spider-all.svg")).unwrap();
    let (_, suite) = suite();
    for task in &suite.tasks {
        assert!(plot.contains(&task.title), "{}", task.title);
    }
    assert!(plot.contains("width=\"900\""), "{}", &plot[..300]);
    // Without a record of the six further tasks, everything is as it was.
    let old: Vec<&Record> = records.iter().filter(|record| record.cell.task == "m-eurosat").collect();
    let few = tempfile::tempdir().unwrap();
    let store = Store::open(few.path().join("geobench")).unwrap();
    old.iter().for_each(|record| drop(store.put(record).unwrap()));
    let out = few.path().join("report");
    terrabench::report::write_all(&home, few.path(), &out, &Default::default(), Default::default()).unwrap();
    assert!(!out.join("geobench/all-tasks.md").exists() && !out.join("geobench/spider-all.png").exists());
}
