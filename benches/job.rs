//! A whole job as a user starts it: files of m-eurosat in the official layout to k-NN's accuracy, random convolutional features (RCF)
//! as the model, which torchgeo-bench has too.
//!
//! `cargo bench --bench job -- [--one-of N] [--rounds N] [--peer PYTHON]`
//!
//! The files are generated: one of N (8) of the official number. With `--peer`, a Python that can import torchgeo_bench, rounds
//! alternate with torchgeo-bench's own program on the same files (benches/peers/job.py); both must report the same accuracy.
//!
//! ```sh
//! git clone https://github.com/torchgeo/torchgeo-bench     # needs Python 3.12
//! pip install ./torchgeo-bench 'torch==2.9.0'
//! ```

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use common::measured::{Comparison, Peer};
use common::{Missing, Script, number};
use terrabench::record::Store;

/// Largest accepted difference of the accuracies, in percentage points: features of float32 decide a few ties differently.
const TOLERANCE: f64 = 0.5;

fn run(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let output = command.output().context("cannot start terrabench")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(start.elapsed().as_secs_f64())
}

/// Computes the job; returns the accuracy and the seconds.
fn ours(data: &Path) -> Result<(f64, f64)> {
    let out = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.args(["bench", "geobench", "--model", "rcf", "--task", "m-eurosat", "--partition", "default"]);
    command
        .args(["--protocol", "torchgeo-knn", "--no-cache", "--data"])
        .arg(data)
        .arg("--out")
        .arg(out.path());
    let seconds = run(&mut command)?;
    let records = Store::open(out.path().join("geobench"))?.all()?;
    let record = records.first().context("the job left no record")?;
    Ok((record.value, seconds))
}

fn main() -> Result<()> {
    let one_of = number("--one-of", 8)?;
    let data = tempfile::tempdir()?;
    let mut make = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    make.args(["make-files", "geobench", "--task", "m-eurosat", "--one-of", &one_of.to_string(), "--to"]);
    run(make.arg(data.path()))?;

    let (accuracy, _) = ours(data.path())?;
    let what = format!("m-eurosat, one of {one_of} of its files, to k-NN's accuracy, RCF");
    let mut comparison = Comparison::new("Whole jobs", what, "s").goal(2.0);
    let mut peer = Script::asked("--peer", "job.py").map(|peer| peer.with("--data", data.path().display()));
    let mut theirs = Vec::new();
    for round in 0..number("--rounds", 3)? {
        comparison.ours.push(ours(data.path())?.1);
        let Some(script) = &peer else { continue };
        match script.columns::<2>(1) {
            Ok([accuracies, seconds]) => {
                let found = 100.0 * accuracies.first().copied().unwrap_or(f64::NAN);
                ensure!(
                    (found - accuracy).abs() <= TOLERANCE,
                    "the accuracy is {accuracy:.2} %, torchgeo-bench's {found:.2} %"
                );
                comparison.note = format!("accuracy {accuracy:.2} %, torchgeo-bench's {found:.2} %");
                theirs.extend(seconds);
            }
            Err(error) if round == 0 => {
                comparison.note = format!("no peer: {}", error.downcast::<Missing>()?);
                peer = None;
            }
            Err(error) => return Err(error),
        }
    }
    if !theirs.is_empty() {
        comparison.peers.push(Peer { name: "torchgeo-bench".into(), values: theirs });
    }
    comparison.tell()
}
