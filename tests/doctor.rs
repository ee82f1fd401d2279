//! `doctor` on machines with nothing, with everything, and with damaged files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common;
use serde_json::Value;

/// An isolated machine: the data, weights, caches and LibTorch of the real one are not visible.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Machine(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn doctor(&self, data: Option<&Path>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        for name in [
            "GEO_BENCH_DIR",
            "COPERNICUS_BENCH_DIR",
            "LANDSLIDE4SENSE_DIR",
            "LIBTORCH",
            "VIRTUAL_ENV",
            "ORT_DYLIB_PATH",
        ] {
            command.env_remove(name);
        }
        command.env_remove("LIBTORCH_USE_PYTORCH").arg("doctor");
        command.env("TERRABENCH_CACHE", self.path("cache")).env("TERRABENCH_DATA", self.path("data"));
        command.env("XDG_DATA_HOME", self.path("platform"));
        // No Python, and no way to the network.
        command.env("PATH", self.path("bin")).env("HTTPS_PROXY", "http://127.0.0.1:1");
        if let Some(data) = data {
            command.env("GEO_BENCH_DIR", data);
        }
        command
    }

    /// Creates demo data in a folder that tests may damage.
    fn demo(&self) -> PathBuf {
        let home = terrabench::home::Home::find().unwrap();
        let suite = terrabench::task::Suite::load(&home, "geobench").unwrap();
        common::demo::provide(&suite, &self.path("cache"))
    }

    fn weights(&self) -> PathBuf {
        let path = self.path("data/weights/MBZUAI/TerraFM/TerraFM-B.pth");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Records a file as fetched, like `fetch` does.
    fn note(&self, folder: &Path, line: &Value) {
        std::fs::create_dir_all(folder.join(".terrabench")).unwrap();
        std::fs::write(folder.join(".terrabench/fetched.jsonl"), format!("{line}\n")).unwrap();
    }
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    output
}

/// Returns the findings as JSON, and whether none is broken.
fn findings(mut command: Command) -> (Vec<Value>, bool) {
    let output = output(command.arg("--json"));
    let text = String::from_utf8(output.stdout).unwrap();
    let findings: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sound = findings.iter().all(|finding| finding["standing"] != "broken");
    assert_eq!(output.status.code(), Some(i32::from(!sound)), "{text}");
    (findings, sound)
}

#[track_caller]
fn about<'f>(findings: &'f [Value], area: &str, subject: &str) -> &'f Value {
    let found = findings.iter().find(|finding| finding["area"] == area && finding["subject"] == subject);
    found.unwrap_or_else(|| panic!("no finding about {area} {subject} in {findings:#?}"))
}

#[test]
fn an_empty_machine_gets_commands_to_fetch() {
    let machine = Machine::new();
    let (findings, sound) = findings(machine.doctor(None));
    assert!(sound);
    let is = |area: &str, subject: &str, standing: &str, remedy: &str| {
        let finding = about(&findings, area, subject);
        assert_eq!(finding["standing"], standing, "{finding}");
        assert_eq!(finding["remedy"], remedy, "{finding}");
    };
    is("data", "GEO-Bench", "absent", "cargo xtask fetch geobench");
    is("data", "Copernicus-Bench", "absent", "cargo xtask fetch copernicus-bench");
    is("data", "Landslide4Sense", "absent", "cargo xtask fetch landslide4sense");
    is("weights", "terrafm-b", "absent", "cargo xtask fetch weights terrafm-b");
    is("weights", "terrafm-l", "absent", "cargo xtask fetch weights terrafm-l");
    assert_eq!(about(&findings, "devices", "flex")["standing"], "good");
    assert!(about(&findings, "disk", "cache")["bytes"].as_u64().unwrap() > 0);
    assert!(!findings.iter().any(|finding| finding["subject"] == "demo" && finding["area"] == "weights"));
    assert!(!machine.path("cache").exists() && !machine.path("data").exists(), "the doctor changes nothing");
}

#[test]
fn a_named_folder_that_does_not_exist_is_absent() {
    let machine = Machine::new();
    let (findings, sound) = findings(machine.doctor(Some(&machine.path("nowhere"))));
    let finding = about(&findings, "data", "GEO-Bench");
    assert!(sound && finding["standing"] == "absent", "{finding}");
    assert!(finding["remedy"].as_str().unwrap().contains("unset GEO_BENCH_DIR"), "{finding}");
}

#[test]
fn the_demo_is_complete_but_doubtful() {
    let machine = Machine::new();
    let demo = machine.demo();
    let (findings, sound) = findings(machine.doctor(Some(&demo)));
    assert!(sound, "{findings:#?}");
    assert_eq!(about(&findings, "data", "GEO-Bench")["standing"], "doubtful");
    let task = about(&findings, "data", "m-eurosat");
    assert_eq!(task["standing"], "doubtful", "{task}");
    assert_eq!(task["samples"]["train"]["official"], 2000, "{task}");
    assert_eq!(task["missing"], 0, "{task}");
    let partitions: Vec<&str> =
        task["partitions"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(partitions.contains(&"default") && partitions.contains(&"0.01x_train"), "{partitions:?}");
    // The count is the number of samples that the partition file lists.
    let listed = std::fs::read(demo.join("classification_v1.0/m-eurosat/default_partition.json")).unwrap();
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(task["samples"]["train"]["listed"], listed["train"].as_array().unwrap().len());
    assert!(about(&findings, "caches", "demo")["bytes"].as_u64().unwrap() > 100_000);

    let text = output(&mut machine.doctor(Some(&demo)));
    let text = String::from_utf8(text.stdout).unwrap();
    for heading in ["Devices", "LibTorch", "Data", "Weights", "Caches", "Free disk"] {
        assert!(text.lines().any(|line| line == heading), "{heading} in {text}");
    }
    assert!(text.contains("-> cargo xtask fetch weights terrafm-b"), "{text}");
}

#[test]
fn a_missing_sample_breaks_only_its_task() {
    let machine = Machine::new();
    let demo = machine.demo();
    let eurosat = demo.join("classification_v1.0/m-eurosat");
    let listed: Value =
        serde_json::from_slice(&std::fs::read(eurosat.join("default_partition.json")).unwrap()).unwrap();
    let name = listed["test"][0].as_str().unwrap();
    std::fs::remove_file(eurosat.join(format!("{name}.hdf5"))).unwrap();
    // Not fetched: fetching would leave the folder unchanged.
    let (found, sound) = findings(machine.doctor(Some(&demo)));
    assert!(!sound);
    let task = about(&found, "data", "m-eurosat");
    assert_eq!((&task["standing"], &task["missing"]), (&"broken".into(), &1.into()), "{task}");
    assert!(task["found"].as_str().unwrap().contains(&format!("{name}.hdf5")), "{task}");
    let remedy = task["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("mv ") && remedy.ends_with("cargo xtask fetch geobench --task m-eurosat"));
    assert_eq!(about(&found, "data", "m-so2sat")["standing"], "doubtful");

    // Fetched: fetching repairs it.
    let line = serde_json::json!({
        "to": "classification_v1.0/m-eurosat.zip", "size": 1, "checksum": "sha256:00", "repository": "a/b",
        "commit": "c", "unpacked": { "folder": "classification_v1.0/m-eurosat", "files": [] }
    });
    machine.note(&demo, &line);
    let (found, _) = findings(machine.doctor(Some(&demo)));
    assert_eq!(about(&found, "data", "m-eurosat")["remedy"], "cargo xtask fetch geobench --task m-eurosat");
}

#[test]
fn damaged_files_are_reported() {
    let machine = Machine::new();
    let demo = machine.demo();
    let root = demo.join("classification_v1.0");
    std::fs::write(root.join("m-eurosat/default_partition.json"), "{\"train\": [").unwrap();
    std::fs::remove_file(root.join("m-so2sat/0.01x_train_partition.json")).unwrap();
    std::fs::write(root.join("m-brick-kiln/band_stats.json"), "{}").unwrap();
    std::fs::remove_dir_all(root.join("m-bigearthnet")).unwrap();
    // Recorded with one byte more than there is.
    let task = "segmentation_v1.0/m-cashew-plant";
    let line = serde_json::json!({
        "to": format!("{task}.zip"), "size": 1, "checksum": "sha256:00", "repository": "a/b", "commit": "c",
        "unpacked": { "folder": task, "files": [["band_stats.json", 1]] }
    });
    machine.note(&demo, &line);
    let (findings, sound) = findings(machine.doctor(Some(&demo)));
    assert!(!sound);
    for (task, word) in [
        ("m-eurosat", "default_partition.json"),
        ("m-so2sat", "0.01x_train"),
        ("m-brick-kiln", "band_stats.json"),
        ("m-cashew-plant", "band_stats.json"),
    ] {
        let finding = about(&findings, "data", task);
        assert_eq!(finding["standing"], "broken", "{finding}");
        assert!(finding["found"].as_str().unwrap().contains(word), "{finding}");
        assert!(finding["remedy"].as_str().unwrap().contains(&format!("--task {task}")), "{finding}");
    }
    let absent = about(&findings, "data", "m-bigearthnet");
    assert_eq!(absent["remedy"], "cargo xtask fetch geobench --task m-bigearthnet", "{absent}");
}

#[test]
fn fetched_weights_are_hashed() {
    let machine = Machine::new();
    let path = machine.weights();
    // Any weights will do: whether they fit a model is checked when they are loaded.
    let good = std::fs::read(common::fixture("model/tiny.safetensors")).unwrap();
    let to = "MBZUAI/TerraFM/TerraFM-B.pth";
    let sha256 = |bytes: &[u8]| {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let fetched = |bytes: &[u8]| {
        let line = serde_json::json!({
            "to": to, "size": bytes.len(), "checksum": format!("sha256:{}", sha256(bytes)),
            "repository": "MBZUAI/TerraFM", "commit": "c"
        });
        machine.note(&machine.path("data/weights"), &line);
    };
    let broken = |word: &str| {
        let (findings, sound) = findings(machine.doctor(None));
        let finding = about(&findings, "weights", "terrafm-b");
        assert!(!sound && finding["standing"] == "broken", "{finding}");
        assert!(finding["found"].as_str().unwrap().contains(word), "{word} in {finding}");
        let remedy = format!("rm {} && cargo xtask fetch weights terrafm-b", path.display());
        assert_eq!(finding["remedy"], remedy);
    };

    // Not fetched by us, and not a weight file.
    std::fs::write(&path, "<!doctype html>").unwrap();
    broken("HTML page");
    // Truncated.
    fetched(&good);
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    broken("bytes");
    // One byte differs.
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &other).unwrap();
    broken("SHA-256");
}

#[test]
fn intact_weights_are_reported_with_their_hashes() {
    let machine = Machine::new();
    let path = machine.weights();
    let Some(checkpoint) = checkpoint() else { panic!("tests/fixtures/model has no PyTorch checkpoint") };
    std::fs::copy(checkpoint, &path).unwrap();
    let (findings, sound) = findings(machine.doctor(None));
    let finding = about(&findings, "weights", "terrafm-b");
    assert!(sound && finding["standing"] == "good", "{finding}");
    let hash = blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string();
    assert_eq!(finding["blake3"], hash);
    assert_eq!(finding["fetched"], Value::Null);
}

fn checkpoint() -> Option<PathBuf> {
    let entries = std::fs::read_dir(common::fixture("model")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "pth"))
}

#[test]
fn an_unknown_device_and_a_wrong_libtorch_are_broken() {
    let machine = Machine::new();
    let mut command = machine.doctor(None);
    command.args(["--device", "abacus"]).env("LIBTORCH", machine.path("nowhere"));
    let (findings, sound) = findings(command);
    assert!(!sound);
    let device = about(&findings, "devices", "abacus");
    assert!(
        device["standing"] == "broken" && device["remedy"].as_str().unwrap().contains("flex"),
        "{device}"
    );
    let libtorch = about(&findings, "libtorch", "libtorch");
    assert_eq!(libtorch["standing"], "broken");
    let remedy = libtorch["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("unset LIBTORCH") && !remedy.contains("help"), "{libtorch}");
}

#[test]
fn a_wrong_onnx_runtime_is_broken() {
    let machine = Machine::new();
    let mut command = machine.doctor(None);
    command.args(["--device", "onnx:cuda"]).env("ORT_DYLIB_PATH", machine.path("nowhere"));
    let (found, sound) = findings(command);
    assert!(!sound);
    let runtime = about(&found, "onnxruntime", "onnxruntime");
    assert_eq!(runtime["standing"], "broken", "{runtime}");
    assert!(
        runtime["found"].as_str().unwrap().contains("where there is no ONNX Runtime library"),
        "{runtime}"
    );
    assert!(runtime["remedy"].as_str().unwrap().starts_with("set it to the library's file"), "{runtime}");
    let device = about(&found, "devices", "onnx:cuda");
    assert_eq!(device["remedy"], "cargo xtask onnxruntime --cuda", "{device}");
}

#[test]
fn real_files_can_be_read() {
    let Some(real) = common::real() else {
        eprintln!("skipped: no real pixels (TERRABENCH_REAL)");
        return;
    };
    let machine = Machine::new();
    let (findings, _) = findings(machine.doctor(Some(&real.join("geobench"))));
    for task in ["m-eurosat", "m-bigearthnet", "m-so2sat", "m-brick-kiln", "m-cashew-plant", "m-SA-crop-type"]
    {
        let finding = about(&findings, "data", task);
        assert_eq!(finding["standing"], "doubtful", "a few of the official samples: {finding}");
        assert_eq!(finding["missing"], 0, "{finding}");
    }
}
