//! Ctrl-C, SIGTERM and a closed terminal, sent to the real program in the middle of its work.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::{fixture, python, records};

/// How long a step of the program may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn terrabench(cache: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env_remove("GEO_BENCH_DIR").env("TERRABENCH_CACHE", cache).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A fine-tuning of the demo that takes long enough to be stopped.
fn training(cache: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = terrabench(cache, &["bench", "geobench", "--demo", "--task", "m-eurosat"]);
    command.args(["--partition", "default", "--protocol", "finetune", "--limit", "12", "--threads", "2"]);
    command.args(more).arg("--out").arg(out);
    command
}

const SHORT: [&str; 4] = ["--epochs", "3", "--learning-rates", "1e-4,1e-3"];
const LONG: [&str; 4] = ["--epochs", "5000", "--learning-rates", "1e-4,1e-3"];

fn send(signal: &str, child: &Child) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
    assert!(sent.success(), "{signal} was not sent");
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for the end; returns the status and what was written to standard error.
fn ended(mut child: Child) -> (ExitStatus, String) {
    let mut status = None;
    wait_until("the end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    (status.unwrap(), lines.map(|line| line.unwrap() + "\n").collect())
}

/// All files below a folder, hidden ones too.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> =
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    all.sort();
    all
}

/// Nothing below the folder is half-written: no temporary file is left.
fn is_clean(folder: &Path) {
    let left: Vec<PathBuf> = files(folder)
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn snapshots(out: &Path) -> Vec<PathBuf> {
    let all = files(&out.join("geobench-demo/checkpoints")).into_iter();
    all.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).collect()
}

#[test]
fn signals_stop_a_training_which_goes_on_to_the_same_record() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let undisturbed = folder.path().join("undisturbed");
    assert!(ended(training(&cache, &undisturbed, &SHORT).spawn().unwrap()).0.success());
    for (signal, name, code) in [("INT", "Ctrl-C", 130), ("TERM", "SIGTERM", 143)] {
        let out = folder.path().join(signal);
        // Long enough not to end before the signal.
        let child = training(&cache, &out, &LONG).spawn().unwrap();
        wait_until("a snapshot", || !snapshots(&out).is_empty());
        send(signal, &child);
        let (status, said) = ended(child);
        assert_eq!(status.code(), Some(code), "{said}");
        for words in [
            &*format!("{name}: stopping after the current step"),
            "0 of 1 cells are recorded",
            "To go on, run the same command again: cargo xtask bench geobench --demo --task m-eurosat",
        ] {
            assert!(said.contains(words), "{words} in {said}");
        }
        assert!(!said.contains("panicked") && records(&out.join("geobench-demo")).is_empty(), "{said}");
        is_clean(folder.path());

        // The training that is compared: stopped at once after its first snapshot, or finished before.
        let out = folder.path().join(format!("{signal}-short"));
        let child = training(&cache, &out, &SHORT).spawn().unwrap();
        wait_until("a snapshot", || !snapshots(&out).is_empty());
        send(signal, &child);
        let (status, said) = ended(child);
        assert!(status.code() == Some(code) || status.success(), "{said}");
        assert!(ended(training(&cache, &out, &SHORT).spawn().unwrap()).0.success());
        assert_eq!(records(&out.join("geobench-demo")), records(&undisturbed.join("geobench-demo")));
        is_clean(folder.path());
    }
}

#[test]
fn a_second_signal_stops_at_once_and_ends_the_encoder() {
    let Some(python) = python::plain("stopping an encoder process") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("pid");
    // It answers nothing, and ends by itself only after minutes.
    let script = folder.path().join("deaf.py");
    let text = format!(
        "import os, time\nopen({:?} + '.new', 'w').write(str(os.getpid()))\nos.rename({0:?} + '.new', {0:?})\n\
         time.sleep(600)\n",
        mark.display().to_string()
    );
    std::fs::write(&script, text).unwrap();
    let encoder = format!("{python} {}", script.display());
    for signals in [1, 2] {
        std::fs::remove_file(&mark).ok();
        let out = folder.path().join(signals.to_string());
        let mut command = terrabench(&folder.path().join("cache"), &["bench", "geobench", "--demo"]);
        command.args(["--task", "m-eurosat", "--protocol", "knn", "--encoder", &encoder, "--out"]).arg(&out);
        let child = command.spawn().unwrap();
        wait_until("the encoder", || mark.exists());
        for _ in 0..signals {
            send("TERM", &child);
        }
        let (status, said) = ended(child);
        assert_eq!(status.code(), Some(143), "{said}");
        assert!(said.contains("To go on"), "{said}");
        let process: u32 = std::fs::read_to_string(&mark).unwrap().parse().unwrap();
        // A zombie whose parent is gone disappears soon.
        wait_until("the encoder's end", || {
            let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            !state.contains("deaf") && !state.contains("python") || state.contains(") Z ")
        });
        is_clean(&out);
    }
}

#[test]
fn a_closed_terminal_stops_nothing_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, out) = (folder.path().join("cache"), folder.path().join("out"));
    let mut child = training(&cache, &out, &SHORT).spawn().unwrap();
    let log = out.join("geobench-demo/bench.log");
    wait_until("a snapshot", || !snapshots(&out).is_empty());
    // The terminal's end, and nobody reads any more.
    drop(child.stderr.take());
    send("HUP", &child);
    let mut status = None;
    wait_until("the end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
    assert_eq!(records(&out.join("geobench-demo")).len(), 1);
    let text = std::fs::read_to_string(log).unwrap();
    for words in ["cargo xtask bench geobench --demo", "the terminal was closed", "finetune seed 0: accuracy"]
    {
        assert!(text.contains(words), "{words} in {text}");
    }
    for line in text.lines() {
        let time = line.split(' ').next().unwrap();
        let is_time = time.len() == 20 && time.starts_with("20") && time.ends_with('Z');
        assert!(is_time, "{line}");
    }
}

#[test]
fn prepare_and_commands_that_do_not_ask_stop_with_the_same_codes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    // `batches` blocks on a reader that does not read: the first signal is heard, the second ends it.
    let mut command = terrabench(&cache, &["batches", "--demo", "--task", "m-eurosat", "--split", "test"]);
    command.args(["--model", "demo", "--weights", "random:0", "--batch-size", "1"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0];
    let mut pipe = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut pipe, &mut first).unwrap();
    send("INT", &child);
    std::thread::sleep(Duration::from_millis(200));
    send("INT", &child);
    let (status, said) = ended(child);
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(fixture("process/encode.py").exists());
}
