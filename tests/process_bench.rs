//! `bench` with an encoder in another process: records, resuming, and cells that fail alone.

use std::path::Path;
use std::process::{Command, Output};

use terrabench::record::Record;

use crate::common::{changed_protocol, demo, fixture, python, records};

fn script() -> String {
    fixture("process/encode.py").to_string_lossy().into_owned()
}

/// Runs `bench geobench --demo`.
fn bench(folder: &Path, args: &[&str]) -> Output {
    command(env!("CARGO_BIN_EXE_terrabench"), &[], folder, args).output().unwrap()
}

fn command(program: &str, before: &[&str], folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env("TERRABENCH_CACHE", demo::cache("geobench", folder.join("cache"))).args(before);
    command.args(["bench", "geobench", "--demo", "--out"]).arg(folder.join("out")).args(args);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn recorded(folder: &Path) -> Vec<Record> {
    records(&folder.join("out/geobench-demo")).into_values().collect()
}

const KNN: [&str; 6] = ["--task", "m-eurosat", "--partition", "default", "--protocol", "knn"];

#[test]
fn an_encoder_process_has_records_and_finished_cells_are_not_computed_again() {
    let Some(python) = python::plain("a bench with an encoder process") else { return };
    let folder = tempfile::tempdir().unwrap();
    let encoder = format!("{python} {} plain", script());
    let own =
        ["--encoder", &encoder, "--name", "My model", "--input-bands", "B04,B03,B02", "--input-size", "32"];
    let args = [&KNN[..], &own].concat();
    let first = bench(folder.path(), &args);
    assert!(first.status.success(), "{}", said(&first));
    let all = recorded(folder.path());
    let [record] = all.as_slice() else { panic!("{} records", all.len()) };
    let made = &record.provenance;
    assert_eq!((&*record.cell.model, &*record.cell.backbone), ("My model", "own encoder"));
    assert!(made.weights.starts_with("process:"), "{}", made.weights);
    assert_eq!(made.bands, ["04 - Red", "03 - Green", "02 - Blue"]);
    assert_eq!((made.image_size, &*made.normalization), (32, "dataset"));
    assert!(!made.configs.contains_key("model") && record.value > 0.0);

    let second = bench(folder.path(), &args);
    assert!(second.status.success() && said(&second).contains("recorded before"), "{}", said(&second));
    // Another identity is another model.
    let other = format!("{python} {} other", script());
    let args = [&KNN[..], &["--encoder", &other]].concat();
    assert!(bench(folder.path(), &args).status.success());
    assert_eq!(recorded(folder.path()).len(), 2);
}

#[test]
fn a_cell_that_fails_costs_no_other_cell() {
    let Some(python) = python::plain("a bench with an encoder that fails") else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = |mode: &str, task: &str| {
        let encoder = format!("{python} {} {mode}", script());
        let args = ["--task", task, "--no-cache", "--encoder", &encoder, "--input-size", "32"];
        let output = bench(folder.path(), &[&KNN[..], &args].concat());
        assert!(!output.status.success(), "{mode}");
        said(&output)
    };
    let refused = run("refuse", "m-brick-kiln");
    for word in ["refuses m-brick-kiln: no bricks here", "in encode.py", "1 failed; all others are recorded"]
    {
        assert!(refused.contains(word), "{word} in {refused}");
    }
    assert_eq!(
        recorded(folder.path()).iter().map(|record| &*record.cell.task).collect::<Vec<_>>(),
        ["m-eurosat"]
    );
    let spoilt = run("nan", "m-brick-kiln");
    assert!(spoilt.contains("the model's features are not finite"), "{spoilt}");
    let wide = run("wrong-width", "m-brick-kiln");
    assert!(wide.contains("expected features [8, 13] from the model"), "{wide}");
    // Each mode is another model: only the one that refuses bricks has encoded EuroSAT without a fault.
    let tasks = recorded(folder.path()).into_iter().map(|record| record.cell.task);
    assert_eq!(tasks.filter(|task| task == "m-eurosat").count(), 1);
}

#[test]
fn an_encoder_that_takes_stored_pixels_gets_them_at_their_own_size() {
    let Some(python) = python::plain("an encoder of stored pixels") else { return };
    let folder = tempfile::tempdir().unwrap();
    let encoder = format!("{python} {} stored", script());
    let output = bench(folder.path(), &[&KNN[..], &["--encoder", &encoder]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let record = recorded(folder.path()).remove(0);
    assert_eq!((record.provenance.image_size, &*record.provenance.normalization), (64, "none"));
    assert_eq!(record.provenance.bands.len(), 13);

    let args = [&KNN[..], &["--encoder", &encoder, "--normalization", "dataset"]].concat();
    let refused = said(&bench(folder.path(), &args));
    assert!(refused.contains("takes pixels as stored") && refused.contains("help:"), "{refused}");
}

#[test]
fn protocols_with_gradients_say_that_a_process_has_none() {
    let folder = tempfile::tempdir().unwrap();
    for (task, protocol) in [("m-eurosat", "finetune"), ("m-cashew-plant", "upernet-finetune")] {
        let args = ["--task", task, "--protocol", protocol, "--encoder", "anything"];
        let refused = said(&bench(folder.path(), &args));
        for word in ["trains the model with gradients", "kind `process`", "linear-probe"] {
            assert!(refused.contains(word), "{word} in {refused}");
        }
    }
    let refused = said(&bench(folder.path(), &["--encoder", "x", "--weights", "random:0"]));
    assert!(refused.contains("cannot be used with"), "{refused}");
}

#[test]
fn a_model_file_may_name_a_command_and_a_script_beside_it() {
    let Some(python) = python::plain("a model of the kind process") else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(script(), folder.path().join("beside.py")).unwrap();
    let model = folder.path().join("mine.toml");
    let text = format!(
        "name = \"Mine\"\nbackbone = \"Cells\"\nimage = 32\n[architecture]\nkind = \"process\"\n\
         command = [{python:?}, \"beside.py\", \"plain\"]\ntime-limit = 60\n[sensors.s2-l1c]\nbands = [\"B04\", \"B08\"]\n"
    );
    std::fs::write(&model, &text).unwrap();
    let model = model.to_string_lossy().into_owned();
    let output = bench(folder.path(), &[&KNN[..], &["--model", &model]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let record = recorded(folder.path()).remove(0);
    assert_eq!((&*record.cell.model, record.provenance.bands.len()), ("Mine", 2));
    // A longer limit is no other setting.
    std::fs::write(&model, text.replace("time-limit = 60", "time-limit = 61")).unwrap();
    let again = bench(folder.path(), &[&KNN[..], &["--model", &model]].concat());
    assert!(said(&again).contains("recorded before"), "{}", said(&again));
    std::fs::write(&model, text.replace(&format!("[{python:?}, \"beside.py\", \"plain\"]"), "[]")).unwrap();
    let refused = said(&bench(folder.path(), &[&KNN[..], &["--model", &model]].concat()));
    assert!(refused.contains("command: expected a program"), "{refused}");
}

#[test]
fn the_images_of_a_sample_come_alone_or_together() {
    let Some(python) = python::plain("samples of two images") else { return };
    let folder = tempfile::tempdir().unwrap();
    for mode in ["plain", "fuses"] {
        let encoder = format!("{python} {} {mode}", script());
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.env("TERRABENCH_CACHE", demo::cache("demo", folder.path().join("cache")));
        command.args(["bench", "demo", "--demo", "--task", "two-sensors", "--protocol", "knn"]);
        let output =
            command.args(["--encoder", &encoder, "--out"]).arg(folder.path().join(mode)).output().unwrap();
        assert!(output.status.success(), "{mode}: {}", said(&output));
        let found: Vec<Record> = records(&folder.path().join(mode).join("demo-demo")).into_values().collect();
        assert_eq!(found[0].provenance.bands.len(), 12, "{mode}");
    }
}

#[test]
fn tokens_and_maps_feed_the_protocols_on_pixels() {
    let Some(python) = python::plain("tokens and maps of a process") else { return };
    let folder = tempfile::tempdir().unwrap();
    let short = [
        &["--task", "m-cashew-plant", "--partition", "default"][..],
        &["--limit", "2", "--epochs", "1", "--learning-rates", "0.001"],
    ]
    .concat();
    let run = |mode: &str, protocol: &str| {
        let encoder = format!("{python} {} {mode}", script());
        let own =
            ["--protocol", protocol, "--encoder", &encoder, "--input-size", "64", "--input-bands", "B04,B03"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command
            .env("TERRABENCH_CACHE", demo::cache("geobench", folder.path().join("cache")))
            .args(["bench", "geobench", "--demo"]);
        command.args(&short).args(own).arg("--out").arg(folder.path().join("out")).output().unwrap()
    };
    let smaller = [("channels = 512", "channels = 16"), ("channels = 256", "channels = 8")];
    let small = changed_protocol("upernet", folder.path(), &smaller);
    for protocol in ["segmentation-probe", &small] {
        let output = run("plain", protocol);
        assert!(output.status.success(), "{protocol}: {}", said(&output));
    }
    assert_eq!(recorded(folder.path()).len(), 2);
    let refused = said(&run("three-maps", "upernet"));
    assert!(refused.contains("needs 4 feature maps, the encoder gives 3"), "{refused}");
    let refused = said(&run("pooled-only", "upernet"));
    assert!(refused.contains("needs maps, the encoder gives pooled"), "{refused}");
}

#[cfg(unix)]
#[test]
fn an_encoder_may_start_the_program_and_speak_through_pipes() {
    let Some(python) = python::plain("an encoder that starts the program") else { return };
    let folder = tempfile::tempdir().unwrap();
    let start = fixture("process/start.py").to_string_lossy().into_owned();
    let program = env!("CARGO_BIN_EXE_terrabench");
    let args = [&KNN[..], &["--input-size", "32"]].concat();
    let output = command(&python, &[&start, program], folder.path(), &args).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("the end"), "{}", said(&output));
    let record = recorded(folder.path()).remove(0);
    assert_eq!(record.cell.model, "encoder");
    let closed = said(&bench(folder.path(), &[&KNN[..], &["--encoder", "fd:90,91"]].concat()));
    assert!(closed.contains("descriptor 90 cannot be opened") && closed.contains("pass_fds"), "{closed}");
}

#[test]
fn the_example_runs_and_says_what_it_cannot_do() {
    let Some(python) = python::plain("examples/encode.py") else { return };
    let folder = tempfile::tempdir().unwrap();
    let encoder = format!("{python} {}/examples/encode.py", env!("CARGO_MANIFEST_DIR"));
    let output =
        bench(folder.path(), &[&KNN[..], &["--encoder", &encoder, "--input-size", "native"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let tokens = [
        "--task",
        "m-cashew-plant",
        "--protocol",
        "segmentation-probe",
        "--limit",
        "2",
        "--encoder",
        &encoder,
    ];
    let refused = said(&bench(folder.path(), &tokens));
    assert!(refused.contains("there are no tokens here, only pooled features"), "{refused}");
}
