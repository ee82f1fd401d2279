//! `reproduce`: each protocol's number comes out again by the command in its record, and what differs is said.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use terrabench::record::Record;

use crate::common::{changed_protocol, demo};

fn terrabench(cache: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env_remove("GEO_BENCH_DIR").env("TERRABENCH_CACHE", cache).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs a small cell, whose data are generated; returns the path of its record.
fn recorded(cache: &Path, out: &Path, suite: &str, args: &[&str]) -> PathBuf {
    let folder = out.to_str().unwrap();
    let output = terrabench(cache, &[&["bench", suite, "--demo", "--out", folder], args].concat());
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    let records = std::fs::read_dir(out.join(format!("{suite}-demo/records"))).unwrap();
    let paths: Vec<PathBuf> = records.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(paths.len(), 1, "{args:?}: {paths:?}");
    paths[0].clone()
}

fn read(path: &Path) -> Record {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

const SHORT: [&str; 6] = ["--epochs", "1", "--learning-rates", "1e-3", "--limit", "6"];

/// How a protocol is run: its name, suite, task, whether it is shortened, and which sizes of its heads are made smaller.
type Case = (&'static str, &'static str, &'static str, bool, &'static [(&'static str, &'static str)]);

const PROTOCOLS: [Case; 20] = [
    ("knn", "geobench", "m-eurosat", false, &[]),
    ("linear-probe", "geobench", "m-eurosat", false, &[]),
    ("logistic", "geobench", "m-eurosat", false, &[]),
    ("ridge", "demo", "demo-tree-cover", false, &[]),
    ("finetune", "geobench", "m-eurosat", true, &[]),
    ("segmentation-probe", "geobench", "m-cashew-plant", true, &[]),
    ("upernet", "demo", "demo-tree-height", true, &SMALL),
    ("upernet-plain", "demo", "demo-tree-height", true, &SMALL),
    ("upernet-finetune", "demo", "demo-tree-height", true, &SMALL_AND_COLD),
    ("copernicus-linear-probe", "geobench", "m-eurosat", false, &[]),
    ("copernicus-linear-probe-plain", "geobench", "m-eurosat", false, &[]),
    ("torchgeo-knn", "geobench", "m-eurosat", false, &[]),
    ("torchgeo-linear", "geobench", "m-eurosat", false, &[]),
    ("torchgeo-linear-converged", "geobench", "m-eurosat", false, &[]),
    ("retrieval", "geobench", "m-eurosat", false, &[]),
    ("clustering", "geobench", "m-eurosat", false, &[]),
    ("geobench2-finetune", "geobench", "m-eurosat", true, &[]),
    ("geobench2-upernet-finetune", "demo", "demo-tree-height", true, &SMALL_AND_COLD),
    ("geobench2-upernet-frozen", "demo", "demo-tree-height", true, &SMALL_AND_COLD),
    ("demo-upernet", "demo", "demo-tree-height", true, &[]),
];
const SMALL: [(&str, &str); 2] = [("channels = 512", "channels = 16"), ("channels = 256", "channels = 8")];

/// The same for trainings that warm up longer than the one epoch lasts.
const SMALL_AND_COLD: [(&str, &str); 3] = [SMALL[0], SMALL[1], ("warmup-epochs = 2", "warmup-epochs = 0")];

#[test]
fn every_protocols_number_comes_out_again() {
    let home = terrabench::home::Home::find().unwrap();
    let mut listed: Vec<&str> = PROTOCOLS.iter().map(|(name, ..)| *name).collect();
    listed.sort_unstable();
    assert_eq!(listed, home.names("configs/protocols").unwrap(), "a protocol is not reproduced here");
    let folder = tempfile::tempdir().unwrap();
    let cache = demo::cache("geobench", folder.path().join("cache"));
    for (name, suite, task, is_short, sizes) in PROTOCOLS {
        let changed = (!sizes.is_empty()).then(|| changed_protocol(name, folder.path(), sizes));
        let protocol = changed.as_deref().unwrap_or(name);
        let mut args =
            vec!["--task", task, "--partition", "default", "--protocol", protocol, "--threads", "3"];
        // The encoder matters where it is trained, and once where it is not.
        let encodes = is_short || name == "knn";
        args.extend(if encodes { &[][..] } else { &["--model", "image-stats"] });
        args.extend(if is_short { &SHORT[..] } else { &[] });
        let record = recorded(&cache, &folder.path().join(name), suite, &args);
        // On one thread, without a cache, in another folder: the same bits.
        let mut again = vec!["reproduce", record.to_str().unwrap(), "--threads", "1"];
        if let Some(path) = &changed {
            assert!(!read(&record).provenance.command.contains(folder.path().to_str().unwrap()));
            again.extend(["--protocol", path]);
        }
        let output = terrabench(&cache, &again);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(0), "{name}: {text}");
        let of_model: &[&str] = if encodes { &["reproduced: Demo", "weights: same (random:0)"] } else { &[] };
        for words in ["with the same predictions", "data: same ("].iter().chain(of_model) {
            assert!(text.contains(words), "{name}: {words} in {text}");
        }
        assert!(!text.contains("DIFFERS"), "{name}: {text}");
    }
}

#[test]
fn what_differs_is_said_and_a_changed_number_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let args = ["--task", "m-eurosat", "--partition", "default", "--protocol", "knn"];
    let path = recorded(&cache, &folder.path().join("out"), "geobench", &args);
    let text = path.to_str().unwrap();
    let output = terrabench(&cache, &["reproduce", text, "--print"]);
    let command = String::from_utf8(output.stdout).unwrap();
    let expected =
        "cargo xtask bench geobench --demo --task m-eurosat --partition default --protocol knn --seed 0\n";
    assert_eq!(command, expected);

    // A value that nobody computed, from data and a configuration that nobody has.
    let mut forged = read(&path);
    forged.value += 1.0;
    forged.provenance.data = "0".repeat(64);
    forged.provenance.configs.insert("protocol".into(), "1".repeat(64));
    forged.provenance.terrabench = "0.0.9".into();
    let changed = folder.path().join("forged.json");
    std::fs::write(&changed, serde_json::to_string(&forged).unwrap()).unwrap();
    let output = terrabench(&cache, &["reproduce", changed.to_str().unwrap()]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for words in [
        "data: DIFFERS: recorded 0000",
        "config file of the protocol: DIFFERS: recorded 1111",
        "program: DIFFERS: recorded 0.0.9",
        "value: DIFFERS",
        "NOT reproduced",
        "weights: same",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    // Other weights are other numbers.
    let output = terrabench(&cache, &["reproduce", path.to_str().unwrap(), "--weights", "random:1"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("weights: DIFFERS: recorded random:0, found random:1"), "{text}");
}

#[test]
fn records_without_a_command_and_files_that_are_none_end_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let (old, none) = (folder.path().join("old.json"), folder.path().join("none.json"));
    std::fs::write(&old, serde_json::to_string(&crate::sample::record()).unwrap()).unwrap();
    std::fs::write(&none, "{}").unwrap();
    let mut evil = crate::sample::record();
    evil.provenance.command = "cargo xtask cache --prune".into();
    let evil_path = folder.path().join("evil.json");
    std::fs::write(&evil_path, serde_json::to_string(&evil).unwrap()).unwrap();
    for (path, words) in [(old, "holds no command"), (none, "not a record"), (evil_path, "makes no records")]
    {
        let output = terrabench(folder.path(), &["reproduce", path.to_str().unwrap()]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words) && text.contains("error: "), "{text}");
    }
}

#[test]
fn a_dry_run_says_cells_hours_and_gigabytes_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, out) = (folder.path().join("cache"), folder.path().join("out"));
    let out_text = out.to_str().unwrap();
    let args =
        ["bench", "geobench", "--demo", "--task", "m-eurosat", "--partition", "default", "--out", out_text];
    let dry = |more: &[&str]| {
        let output = terrabench(&cache, &[&args[..], more, &["--dry-run"]].concat());
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = dry(&["--seed", "0", "--seed", "1"]);
    for words in [
        "m-eurosat default knn seed 0: ",
        "m-eurosat default knn seed 1: ",
        "cells: 2, of which 2 are left",
        "time: unknown; no earlier record",
        "records and predictions: up to 2.",
        "feature cache: up to ",
        "free for results (",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(!out.join("geobench-demo/bench.log").exists());
    assert!(std::fs::read_dir(out.join("geobench-demo/records")).unwrap().next().is_none());
    assert!(terrabench(&cache, &args).status.success());
    let text = dry(&["--seed", "0", "--seed", "1"]);
    for words in ["cells: 2, of which 1 are left", "hours for 1 cells, as long as in earlier records"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    // Fine-tuning keeps the model and the optimiser's moments.
    assert!(!dry(&["--protocol", "finetune"]).contains("snapshots of a training: up to 0 B"));
}

/// The memory of a long run does not grow with its cells: each takes the same again.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_number_of_cells() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let peak = |cells: usize| {
        let out = folder.path().join(cells.to_string());
        let seeds: Vec<String> = (0..cells).map(|seed| seed.to_string()).collect();
        let mut command = Command::new("sh");
        // The peak is asked for by the program's own parent, once it has ended.
        command.args(["-c", "\"$@\" 2>/dev/null >/dev/null & p=$!; m=0; while [ -r /proc/$p/status ]; do \
            n=$(sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$p/status 2>/dev/null); \
            [ -n \"$n\" ] && m=$n; [ \"$(cut -d' ' -f3 /proc/$p/stat 2>/dev/null)\" = Z ] && break; sleep 0.01; done; \
            wait $p || exit 1; echo $m", "sh", env!("CARGO_BIN_EXE_terrabench")]);
        command.env("TERRABENCH_CACHE", &cache);
        command.args(["bench", "geobench", "--demo", "--task", "m-eurosat", "--partition", "default"]);
        command.args(["--protocol", "knn", "--threads", "1", "--out"]).arg(out);
        for seed in &seeds {
            command.args(["--seed", seed]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap().trim().parse::<f64>().unwrap()
    };
    peak(1);
    // A cell that kept its features and predictions would add 100 kB or more. What remains of each is its record: of 10,000 cells
    // tens of megabytes. Two megabytes are the allocator's. Beside other tests single peaks scatter, so the best of three counts.
    let growth = |_| (peak(88) - peak(8) - 2000.0) / 80.0;
    let growths: Vec<f64> = (0..3).map(growth).take_while(|kilobytes| *kilobytes >= 25.0).collect();
    assert!(growths.len() < 3, "kB per cell, measured three times: {growths:?}");
}
