//! The program as a user sees it: errors that say what to do, exit codes, finished records kept.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common;
fn terrabench(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env_remove("GEO_BENCH_DIR").env("TERRABENCH_CACHE", cache);
    // Keep the tests independent of this machine's data and weights.
    command.env("TERRABENCH_DATA", cache.join("data")).env("XDG_DATA_HOME", cache.join("platform"));
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the error output of a run, which must have failed.
fn failed(output: &Output) -> String {
    let said = stderr(output);
    assert!(!output.status.success() && !said.contains("panicked"), "{said}");
    said
}

fn failure(cache: &Path, args: &[&str]) -> String {
    failed(&terrabench(cache).args(args).output().unwrap())
}

#[test]
fn without_data_the_message_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let said = failure(folder.path(), &["bench", "geobench", "--weights", "random:0"]);
    for word in ["recursix/geo-bench-1.0", "GEO_BENCH_DIR", "--data", "--demo"] {
        assert!(said.contains(word), "{word} in {said}");
    }
    let said = failure(folder.path(), &["bench", "geobench", "--data", "/nowhere", "--weights", "random:0"]);
    assert!(said.contains("/nowhere"), "{said}");
}

#[test]
fn missing_data_name_the_command_that_fetches_them() {
    let folder = tempfile::tempdir().unwrap();
    let says = |args: &[&str], command: &str| {
        let said = failure(folder.path(), args);
        assert!(said.contains(&format!("`{command}`")), "{command} in {said}");
        assert!(said.contains("cargo xtask bench geobench --demo"), "{said}");
    };
    let random = ["--weights", "random:0"];
    let asked = ["bench", "geobench", "--task", "m-eurosat", "--task", "m-so2sat"];
    let both = "cargo xtask fetch geobench --task m-eurosat --task m-so2sat";
    says(&[&asked[..], &random].concat(), both);
    // Without --task, the tasks of the tables that the protocol fills: for k-NN, those of classification.
    let knn = "cargo xtask fetch geobench --task m-eurosat --task m-bigearthnet --task m-so2sat --task m-brick-kiln";
    says(&[&["bench", "geobench"][..], &random].concat(), knn);
    says(&["inspect", "--task", "m-cashew-plant"], "cargo xtask fetch geobench --task m-cashew-plant");
    let out = folder.path().join("features.safetensors");
    let features = ["features", "--task", "m-eurosat", "--split", "test", "--out", &*out.to_string_lossy()];
    says(&[&features[..], &random].concat(), "cargo xtask fetch geobench --task m-eurosat");

    // Data are fetched into the folder given with --data, whether it does not exist or lacks the task.
    let nowhere = folder.path().join("nowhere");
    let inspect = ["inspect", "--task", "m-eurosat", "--data", &*nowhere.to_string_lossy()];
    let command = format!("cargo xtask fetch geobench --task m-eurosat --data {}", nowhere.display());
    says(&inspect, &command);
    std::fs::create_dir(&nowhere).unwrap();
    says(&inspect, &command);
}

#[test]
fn missing_weights_name_the_command_that_fetches_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data/geobench");
    std::fs::create_dir_all(&data).unwrap();
    for (model, args) in [("terrafm-b", &[][..]), ("terrafm-l", &["--model", "terrafm-l"])] {
        let said = failure(folder.path(), &[&["bench", "geobench"], args].concat());
        for word in [&*format!("`cargo xtask fetch weights {model}`"), "--weights", "random:0"] {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let said = failure(folder.path(), &["bench", "geobench", "--demo", "--task", "m-mars"]);
    assert!(said.contains("m-mars") && said.contains("m-eurosat"), "{said}");
    let said = failure(folder.path(), &["bench", "geobench", "--demo", "--model", "resnet"]);
    assert!(said.contains("resnet") && said.contains("terrafm-b"), "{said}");
    let said = failure(folder.path(), &["bench", "geobench", "--demo", "--protocol", "psychic"]);
    assert!(said.contains("psychic") && said.contains("knn"), "{said}");
    let said = failure(folder.path(), &["bench", "geobench", "--demo", "--task", "m-cashew-plant"]);
    assert!(said.contains("m-cashew-plant"), "{said}");
    let said = failure(folder.path(), &["bench", "geobench", "--demo", "--device", "abacus"]);
    assert!(said.contains("abacus") && said.contains("flex"), "{said}");
    // Before the first cell: once, with the list.
    let said = failure(folder.path(), &["bench", "geobench", "--demo", "--normalization", "foo"]);
    assert_eq!(said.matches("unknown normalisation `foo`").count(), 1, "{said}");
    assert!(said.contains("bandspec_zscore"), "{said}");
}

#[test]
fn the_version_is_one_line_and_credits_the_shipped_weights_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| {
        let output = terrabench(folder.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let version = format!("terrabench {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(said(&["--version"]), version);
    let more = said(&["--version", "--verbose"]);
    assert!(
        more.starts_with(&version) && more.contains("Galileo Nano") && more.contains("MIT License"),
        "{more}"
    );
}

#[test]
fn tokens_of_a_task_without_masks_are_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let said = failure(
        folder.path(),
        &["features", "--task", "m-eurosat", "--data", none.to_str().unwrap(), "--to", "f", "--tokens", "64"],
    );
    assert!(said.contains("--tokens cuts images by their masks, but m-eurosat has none"), "{said}");
}

#[test]
fn the_demo_runs_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, out) = (folder.path().join("cache"), folder.path().join("results"));
    let demo = |args: &[&str]| {
        terrabench(&cache)
            .args(["bench", "geobench", "--demo", "--out"])
            .arg(&out)
            .args(args)
            .output()
            .unwrap()
    };
    let output = demo(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("generated"), "{}", stderr(&output));
    let results = out.join("geobench-demo");
    let table = std::fs::read_to_string(results.join("knn.md")).unwrap();
    assert!(table.contains("not benchmark numbers"), "{table}");
    assert!(results.join("knn.csv").is_file());
    let records = || {
        let mut files: Vec<(std::path::PathBuf, String)> = std::fs::read_dir(results.join("records"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let first = records();
    assert_eq!(first.len(), 16, "four tasks at two partitions, of two models");
    let mut accuracies = std::collections::BTreeMap::new();
    for (path, text) in &first {
        let record: terrabench::record::Record = serde_json::from_str(text).unwrap();
        if record.cell.partition == "default" {
            accuracies.insert((record.cell.task.clone(), record.provenance.random_weights()), record.value);
        }
        assert!(
            record.demo && record.value > 0.0 && record.value < 100.0,
            "{}: {}",
            path.display(),
            record.value
        );
    }
    for task in ["m-eurosat", "m-so2sat", "m-brick-kiln"] {
        let of = |is_random| accuracies[&(task.to_owned(), is_random)];
        assert!(of(false) > of(true), "{task}: the learnt model {}, the random one {}", of(false), of(true));
    }

    let output = demo(&[]);
    assert!(output.status.success() && stderr(&output).contains("recorded before"), "{}", stderr(&output));
    assert_eq!(records(), first, "a second run computes nothing");
}

/// A folder in GEO-Bench's layout that the test may damage: a copy of one or more of the demo's tasks.
fn spoilable(folder: &Path, tasks: &[&str]) -> PathBuf {
    let home = terrabench::home::Home::find().unwrap();
    let suite = terrabench::task::Suite::load(&home, "geobench").unwrap();
    let demo = common::demo::provide(&suite, &folder.join("cache"));
    let data = folder.join("data");
    for task in tasks {
        let directory = Path::new("classification_v1.0").join(task);
        std::fs::create_dir_all(data.join(&directory)).unwrap();
        for entry in std::fs::read_dir(demo.join(&directory)).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, data.join(&directory).join(from.file_name().unwrap())).unwrap();
        }
    }
    data
}

#[test]
fn a_broken_task_is_named_and_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = spoilable(folder.path(), &["m-eurosat", "m-brick-kiln"]);
    let out = folder.path().join("results");
    let bench = || {
        terrabench(&folder.path().join("cache"))
            .args(["bench", "geobench", "--model", "demo", "--weights", "random:0"])
            .args(["--task", "m-eurosat", "--task", "m-brick-kiln", "--partition", "default", "--data"])
            .arg(&data)
            .arg("--out")
            .arg(&out)
            .output()
            .unwrap()
    };
    let eurosat = data.join("classification_v1.0/m-eurosat");
    let partition = std::fs::read_to_string(eurosat.join("default_partition.json")).unwrap();
    let partition: serde_json::Value = serde_json::from_str(&partition).unwrap();
    let name = partition["test"][3].as_str().unwrap();
    let sample = eurosat.join(format!("{name}.hdf5"));
    let whole = std::fs::read(&sample).unwrap();

    std::fs::write(&sample, &whole[..whole.len() / 2]).unwrap();
    let said = failed(&bench());
    assert!(said.contains(&format!("{name}.hdf5")), "{said}");
    assert!(said.contains("m-brick-kiln default knn seed 0: accuracy"), "{said}");
    std::fs::remove_file(&sample).unwrap();
    let said = failed(&bench());
    assert!(said.contains(&format!("{name}.hdf5")) && said.contains("recorded before"), "{said}");
    std::fs::write(&sample, &whole).unwrap();
    let output = bench();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(out.join("geobench/records")).unwrap().count(), 2);
}

#[test]
fn features_are_exported_with_labels_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let Some(real) = common::real() else {
        eprintln!("skipped: no real pixels (TERRABENCH_REAL)");
        return;
    };
    let out = folder.path().join("features.safetensors");
    let output = terrabench(folder.path())
        .args(["features", "--task", "m-bigearthnet", "--split", "test", "--data"])
        .arg(real.join("geobench"))
        .arg("--model")
        .arg(common::fixture("model/tiny.toml"))
        .arg("--weights")
        .arg(common::fixture("model/tiny.safetensors"))
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let bytes = std::fs::read(&out).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let samples: Vec<String> =
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["samples"]).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("features").unwrap().shape(), [8, 48]);
    assert_eq!(tensors.tensor("labels").unwrap().shape(), [8, 43]);
    assert_eq!(samples.len(), 8);
}

#[test]
fn inspect_prints_one_json_object_per_sample() {
    let Some(real) = common::real() else {
        eprintln!("skipped: no real pixels (TERRABENCH_REAL)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let output = terrabench(folder.path())
        .args(["inspect", "--task", "m-so2sat", "--split", "test", "--json", "--data"])
        .arg(real.join("geobench"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 30);
    for key in ["name", "split", "label", "mean", "p0_0", "p5_7", "bands"] {
        assert!(lines[0].get(key).is_some(), "{key} in {}", lines[0]);
    }
}
