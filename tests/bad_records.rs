//! One bad file stops nothing: the others are used, the bad one is named with its reason, the exit code says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::sample::{identify, record};
use terrabench::home::Home;
use terrabench::model::Coverage;
use terrabench::record::{Reason, Record, SCHEMA, Store, collect, collect_usable};
use terrabench::report::{Choice, Style, write_all};

use crate::common::demo;

fn terrabench(cache: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command
        .env_remove("GEO_BENCH_DIR")
        .env("TERRABENCH_CACHE", demo::cache("geobench", cache))
        .args(args)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn of_task(task: &str) -> Record {
    let mut record = record();
    record.cell.task = task.into();
    identify(&mut record);
    record
}

/// A store of records of these tasks.
fn store(folder: &Path, tasks: &[&str]) -> Store {
    let store = Store::open(folder.join("geobench")).unwrap();
    tasks.iter().for_each(|task| drop(store.put(&of_task(task)).unwrap()));
    store
}

/// A record of schema 1 as this repository's reference held it.
const SCHEMA_1: &str = include_str!("fixtures/record/schema-1.json");

#[test]
fn a_record_of_schema_1_is_read_as_one_of_today() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), &[]);
    let name = "m-eurosat.default.knn.demo-vit-192-untrained.seed0.96bb86298f1476b2.json";
    let path = folder.path().join("geobench/records").join(name);
    std::fs::write(&path, SCHEMA_1).unwrap();
    let records = store.all().unwrap();
    let record = store.get("96bb86298f1476b2b43e661c301983c9").unwrap().unwrap();
    assert_eq!(records, std::slice::from_ref(&record));
    assert_eq!((record.schema, record.value), (SCHEMA, 65.0));
    let made = &record.provenance;
    assert_eq!((made.coverage, made.git_revision.as_ref()), (Coverage::Random, None));
    assert!(made.configs["checkout"].starts_with("f25ee5220541651a"), "{:?}", made.configs);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), SCHEMA_1, "reading changes no file");
    // Written again, it is of today's schema, under the same name.
    assert_eq!(store.put(&record).unwrap(), path);
    assert_eq!(store.all().unwrap(), [record]);

    for (weights, coverage) in [
        ("blake3:5f3c9a1b", Coverage::Whole),
        ("blake3:5f3c9a1b+random:0", Coverage::Partial { loaded: None, parameters: None }),
    ] {
        std::fs::write(&path, SCHEMA_1.replace("random:0", weights)).unwrap();
        assert_eq!(store.all().unwrap()[0].provenance.coverage(), coverage);
    }
}

#[test]
fn every_kind_of_bad_file_has_its_reason_and_the_others_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), &["m-eurosat", "m-so2sat", "m-brick-kiln", "m-bigearthnet", "renamed"]);
    let records = folder.path().join("geobench/records");
    let path = |task: &str| store.path(&of_task(task));
    let text = |task: &str| std::fs::read_to_string(path(task)).unwrap();
    let beside = |task: &str, end: &str| {
        let name = path(task).file_stem().unwrap().to_string_lossy().into_owned();
        records.join(format!("{name}{end}.json"))
    };
    std::fs::write(path("m-brick-kiln"), &text("m-brick-kiln")[..300]).unwrap();
    let newer = format!("\"schema\": {}, \"unheard-of\": 1", SCHEMA + 1);
    std::fs::write(
        path("m-bigearthnet"),
        text("m-bigearthnet").replace(&format!("\"schema\": {SCHEMA}"), &newer),
    )
    .unwrap();
    std::fs::write(records.join("old.json"), "{\"schema\": 0}").unwrap();
    std::fs::write(beside("m-eurosat", " (1)"), text("m-eurosat")).unwrap();
    std::fs::write(
        beside("m-so2sat", " copy"),
        text("m-so2sat").replace("\"value\": 94.5", "\"value\": 10.0"),
    )
    .unwrap();
    std::fs::rename(path("renamed"), records.join("a.json")).unwrap();
    std::fs::create_dir(records.join("folder.json")).unwrap();
    // Neither records nor bad ones.
    for name in [".DS_Store", "._a.json", "x.json.bak"] {
        std::fs::write(records.join(name), "x").unwrap();
    }

    let found = collect_usable(folder.path()).unwrap();
    let tasks: Vec<&str> = found.kept.iter().map(|kept| kept.record.cell.task.as_str()).collect();
    assert_eq!(tasks, ["m-eurosat", "m-so2sat"]);
    let reason = |file: PathBuf| {
        let one = found.unreadable.iter().find(|one| one.path == file);
        let one = one.unwrap_or_else(|| panic!("{} is not listed", file.display()));
        assert!(one.to_string().contains(&*file.to_string_lossy()), "{one}");
        (one.reason, one.error.to_string())
    };
    assert_eq!(found.unreadable.len(), 7);
    let told = |file: PathBuf, expected: Reason, words: &[&str]| {
        let (reason, error) = reason(file);
        assert_eq!(reason, expected, "{error}");
        words.iter().for_each(|word| assert!(error.contains(word), "{word} in {error}"));
    };
    told(path("m-brick-kiln"), Reason::Damaged, &["if a run left this file there, delete it"]);
    told(path("m-bigearthnet"), Reason::NewerSchema, &["schema 3", "version of Terrabench"]);
    told(records.join("old.json"), Reason::OlderSchema, &["schema 0"]);
    told(beside("m-eurosat", " (1)"), Reason::ConflictCopy, &["identical copy", "delete the copy"]);
    told(beside("m-so2sat", " copy"), Reason::ConflictCopy, &["differing copy", "keep one"]);
    told(records.join("a.json"), Reason::WrongName, &["renamed.default.knn"]);
    told(records.join("folder.json"), Reason::Refused, &["cannot be read"]);
    collect(folder.path()).unwrap_err();
}

#[test]
fn a_report_goes_without_a_bad_record_and_bad_predictions_and_ends_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let store = store(&results, &["m-eurosat", "m-so2sat", "m-brick-kiln"]);
    let bad = store.path(&of_task("m-brick-kiln"));
    std::fs::write(&bad, "{").unwrap();
    let predictions = store.predictions_path(&of_task("m-so2sat"));
    std::fs::create_dir_all(predictions.parent().unwrap()).unwrap();
    std::fs::write(&predictions, "none").unwrap();

    let output = terrabench(folder.path(), &["report", "--results", results.to_str().unwrap()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for file in [&bad, &predictions] {
        assert!(said.contains(&format!("damaged: {}", file.display())), "{said}");
    }
    let table = std::fs::read_to_string(results.join("geobench/knn.md")).unwrap();
    assert!(table.contains("| TerraFM (measured)") && table.contains("94.5_ [93.0, 95.9]"), "{table}");
    let name = bad.file_name().unwrap().to_string_lossy().replace('_', "\\_");
    assert!(table.contains(&format!("cannot be used: {name} (damaged)")), "{table}");
    for file in ["report.md", "report.html"] {
        assert!(std::fs::read_to_string(results.join(file)).unwrap().contains("(damaged)"), "{file}");
    }

    std::fs::remove_file(&bad).unwrap();
    std::fs::remove_file(&predictions).unwrap();
    let written =
        write_all(&Home::find().unwrap(), &results, &results, &Choice::default(), Style::default()).unwrap();
    assert!(written.unreadable.is_empty());
    assert!(!std::fs::read_to_string(results.join("report.md")).unwrap().contains("cannot be used"));
}

/// Of the demo, one task.
fn bench(folder: &Path, more: &[&str]) -> Output {
    let out = folder.join("results");
    let args = ["bench", "geobench", "--demo", "--task", "m-eurosat", "--out", out.to_str().unwrap()];
    terrabench(&folder.join("cache"), &[&args[..], more].concat())
}

#[test]
fn a_run_records_and_writes_tables_beside_a_bad_record() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("results/geobench-demo/records");
    std::fs::create_dir_all(&records).unwrap();
    std::fs::write(records.join("m-so2sat.broken.json"), "{").unwrap();
    for told in ["accuracy", "recorded before"] {
        let output = bench(folder.path(), &[]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(told) && said.contains("damaged: ") && said.contains("broken.json"), "{said}");
        assert!(records.with_file_name("knn.md").is_file());
    }
}

#[test]
fn failed_cells_are_told_though_tables_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("results/geobench-demo/knn.md");
    // No file can take the place of a folder.
    std::fs::create_dir_all(table.join("x")).unwrap();
    let failing = ["--protocol", "finetune", "--epochs", "1", "--learning-rates", "1e30", "--limit", "6"];
    let output = bench(folder.path(), &failing);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("m-eurosat default finetune seed 0: failed: ") && said.contains("diverged"),
        "{said}"
    );

    std::fs::remove_dir_all(&table).unwrap();
    std::fs::write(table.with_file_name("records").join("broken.json"), "{").unwrap();
    let output = bench(folder.path(), &failing);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "a failed cell is worse than a bad record: {said}");
    assert!(said.contains("seed 0: failed: ") && said.contains("damaged: "), "both are told: {said}");

    std::fs::create_dir_all(table.join("x")).unwrap();
    let output = bench(folder.path(), &[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("m-eurosat default knn seed 0: accuracy") && said.contains("knn.md"), "{said}");
    // What was finished is listed, too.
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(listed.contains("m-eurosat.default.knn"), "{listed}");
}

/// Nobody, root included, can write into /proc.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_takes_no_record_is_named_before_anything_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let suite = folder.path().join("results/geobench-demo");
    std::fs::create_dir_all(&suite).unwrap();
    std::os::unix::fs::symlink("/proc/self", suite.join("records")).unwrap();
    let output = bench(folder.path(), &[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("records cannot be written here") && said.contains("--out"), "{said}");
    assert!(!folder.path().join("cache/features").exists(), "features were extracted for nothing");
}

/// Whatever scores them would fail without naming the file.
#[test]
fn predictions_that_cannot_be_scored_name_their_file() {
    use terrabench::metrics::segmentation::Confusion;
    use terrabench::record::predictions::{Named, read, write};
    use terrabench::score::Predictions;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let ranked = |logit: f32| Named {
        samples: vec!["a".into(), "b".into()],
        predictions: Predictions::Scores {
            logits: ndarray::array![[0.5, 1.0], [logit, 0.0]],
            truth: ndarray::array![[true, false], [false, true]],
        },
        scoring: None,
        supplement: Default::default(),
    };
    let error = write(&path, "0a", &ranked(f32::NAN)).unwrap_err().to_string();
    assert!(error.contains("x.safetensors") && error.contains("sample `b` is not a number"), "{error}");
    write(&path, "0a", &ranked(7.5)).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let spoilt = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        let mut spoilt = bytes.clone();
        spoilt[at..at + to.len()].copy_from_slice(to);
        std::fs::write(&path, spoilt).unwrap();
        read(&path, "0a").unwrap_err().to_string()
    };
    let error = spoilt(&7.5f32.to_le_bytes(), &f32::NAN.to_le_bytes());
    assert!(error.contains("x.safetensors") && error.contains("sample `b` is not a number"), "{error}");

    let image = Confusion::new(2, None);
    let named = |samples, masks| Named {
        samples,
        predictions: Predictions::Masks(masks),
        scoring: None,
        supplement: Default::default(),
    };
    write(&path, "0a", &named(vec!["a".into()], vec![image])).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let classes = br#""classes":"2""#;
    let at = bytes.windows(classes.len()).position(|window| window == classes).unwrap();
    let mut spoilt = bytes.clone();
    spoilt[at..at + classes.len()].copy_from_slice(br#""classes":"9""#);
    std::fs::write(&path, spoilt).unwrap();
    let error = read(&path, "0a").unwrap_err().to_string();
    assert!(error.contains("2 classes, expected 9"), "{error}");
    write(&path, "0a", &named(vec![], vec![])).unwrap();
    assert!(read(&path, "0a").unwrap_err().to_string().contains("no samples"));
}
