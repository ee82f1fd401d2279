//! What sharing one results folder costs: see `benches/scale.md`.
//!
//! ```sh
//! cargo bench --bench scale -- claims [--workers 64] [--cells 6400] [--seconds 1] [--in DIR]
//! cargo bench --bench scale -- records [--records 100000] [--in DIR]
//! ```

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use terrabench::claims::{Claims, Pause, STALE_AFTER, Taken};
use terrabench::home::Home;
use terrabench::record::{Record, Store};
use terrabench::report;
use terrabench::run::status::Status;
use terrabench::task::Metric;

#[path = "common/mod.rs"]
mod common;
#[path = "../tests/sample/mod.rs"]
mod sample;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    match (has("worker"), has("claims"), has("records")) {
        (true, _, _) => worker(),
        (_, true, _) => claims(),
        (_, _, true) => records(),
        _ => {
            println!("choose what to measure: claims or records");
            Ok(())
        }
    }
}

fn number(name: &str, default: f64) -> Result<f64> {
    common::option(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name} {text}")))
}

/// A folder for the results: a new one in `--in`, or where temporary files go.
fn place() -> Result<tempfile::TempDir> {
    let parent = common::option("--in").map_or_else(std::env::temp_dir, PathBuf::from);
    Ok(tempfile::tempdir_in(parent)?)
}

/// The records of a plan: models x tasks x partitions x protocols x seeds.
fn plan(count: usize) -> Vec<Record> {
    let tasks = ["m-eurosat", "m-brick-kiln", "m-forestnet", "m-pv4ger", "m-so2sat", "m-bigearthnet"];
    let protocols = ["knn", "linear-probe", "logistic", "retrieval"];
    let partitions = [
        "0.01x_train",
        "0.02x_train",
        "0.05x_train",
        "0.10x_train",
        "0.20x_train",
        "0.50x_train",
        "1.00x_train",
        "default",
    ];
    let one = sample::record();
    let of = |place: usize| {
        let mut record = one.clone();
        let mut rest = place;
        let mut next = |many: usize| {
            let this = rest % many;
            rest /= many;
            this
        };
        record.cell.task = tasks[next(tasks.len())].to_owned();
        record.cell.protocol = protocols[next(protocols.len())].to_owned();
        record.cell.partition = partitions[next(partitions.len())].to_owned();
        let model = next(13);
        record.cell.model = format!("Model {model}");
        record.provenance.weights = format!("{model:02}{}", one.provenance.weights);
        record.cell.seed = rest as u64;
        if record.cell.task == "m-bigearthnet" {
            record.metric = Metric::MicroF1;
        }
        record.value = 50.0 + (place * 7919 % 4001) as f64 / 100.0;
        record.interval = None;
        record.scores.clear();
        sample::identify(&mut record);
        record
    };
    (0..count).into_par_iter().map(of).collect()
}

/// Many processes take the cells of one folder. A cell sleeps, as an encoder on a device of its own would let the host do.
fn claims() -> Result<()> {
    let folder = place()?;
    let (workers, cells) = (number("--workers", 64.0)? as usize, number("--cells", 6400.0)? as usize);
    let seconds = number("--seconds", 1.0)?;
    let start = Instant::now();
    let child = |index: usize| -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        let text = |number: f64| number.to_string();
        command.arg("worker").arg("--folder").arg(folder.path());
        command.args(["--cells", &text(cells as f64), "--seconds", &text(seconds)]);
        command.args(["--index", &text(index as f64), "--workers", &text(workers as f64)]);
        Ok(command.stdout(std::process::Stdio::piped()).spawn()?)
    };
    let children = (0..workers).map(child).collect::<Result<Vec<_>>>()?;
    let (mut computed, mut asleep, mut sharing, mut writing) = (0, 0.0, 0.0, 0.0);
    for child in children {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "a worker failed");
        let text = String::from_utf8(output.stdout)?;
        let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let &[done, slept, shared, wrote] = numbers.as_slice() else { anyhow::bail!("unexpected: {text}") };
        (computed, asleep) = (computed + done as usize, asleep + slept);
        (sharing, writing) = (sharing + shared, writing + wrote);
    }
    let wall = start.elapsed().as_secs_f64();
    ensure!(computed == cells, "{computed} cells computed, expected each of {cells} once");
    ensure!(Store::open(folder.path())?.all()?.len() == cells, "not every cell has a record");
    let worker_time = asleep + sharing + writing;
    println!("{workers} workers, {cells} cells of {seconds} s, each computed once");
    println!("wall-clock time           {wall:.2} s, ideal {:.2} s", cells as f64 * seconds / workers as f64);
    println!("claims taken per second   {:.1}", cells as f64 / wall);
    println!("time per cell in claiming {:.3} ms", 1e3 * sharing / cells as f64);
    println!("share of time in claiming {:.3} %", 100.0 * sharing / worker_time);
    println!("share of time in writing records {:.3} %", 100.0 * writing / worker_time);
    Ok(())
}

/// One worker, in the order of `Runner`: record, claim, record again, work, record, end of the claim. Prints the cells it computed
/// and the seconds it slept, spent on records and claims of others and its own, and wrote records.
fn worker() -> Result<()> {
    let folder = common::option("--folder").context("--folder")?;
    let cells = plan(number("--cells", 0.0)? as usize);
    let seconds = Duration::from_secs_f64(number("--seconds", 1.0)?);
    let (index, workers) = (number("--index", 0.0)? as usize, number("--workers", 1.0)? as usize);
    let store = Store::open(&folder)?;
    let claims = Claims::new(Path::new(&folder).join("claims"), STALE_AFTER);
    let (mut done, mut asleep, mut sharing, mut writing) =
        (0, Duration::ZERO, Duration::ZERO, Duration::ZERO);
    // Workers begin at different tasks of a plan, as `worker --index` does.
    let first = index * cells.len() / workers;
    let mut left: Vec<&Record> = cells.iter().cycle().skip(first).take(cells.len()).collect();
    let mut pause = Pause::default();
    while !left.is_empty() {
        let before = left.len();
        let mut held = Vec::new();
        for record in left {
            let start = Instant::now();
            let is_recorded = || store.named(&record.fingerprint, &record.cell).map(|found| found.is_some());
            if is_recorded()? {
                sharing += start.elapsed();
                continue;
            }
            let claim = match claims.take(&record.fingerprint, &record.file_name())? {
                Taken::Held(_) => {
                    sharing += start.elapsed();
                    held.push(record);
                    continue;
                }
                Taken::Mine(claim) => claim,
            };
            if is_recorded()? {
                claim.finish();
                sharing += start.elapsed();
                continue;
            }
            sharing += start.elapsed();
            let start = Instant::now();
            std::thread::sleep(seconds);
            asleep += start.elapsed();
            let start = Instant::now();
            store.put(record)?;
            writing += start.elapsed();
            let start = Instant::now();
            claim.finish();
            sharing += start.elapsed();
            done += 1;
        }
        left = held;
        if left.len() == before {
            // Waiting for the last cells of others is the plan's end, not the claims' cost.
            pause.sleep()?;
        } else {
            pause = Pause::default();
        }
    }
    let seconds = [asleep, sharing, writing].map(|time| time.as_secs_f64().to_string());
    println!("{done} {}", seconds.join(" "));
    Ok(())
}

/// How long status and report take on many records.
fn records() -> Result<()> {
    let folder = place()?;
    let count = number("--records", 100_000.0)? as usize;
    let suite = folder.path().join("geobench");
    let store = Store::open(&suite)?;
    plan(count).par_iter().try_for_each(|record| -> Result<()> {
        std::fs::write(store.path(record), serde_json::to_string_pretty(record)? + "\n")?;
        Ok(())
    })?;
    for round in 0..3 {
        let start = Instant::now();
        let status = Status::of(&suite)?;
        ensure!(status.records == count, "{} records", status.records);
        println!("status of {count} records, round {round}: {:.2} s", start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    let home = Home::find()?;
    let choice = report::Choice { models: Vec::new(), axes: Vec::new() };
    let style = report::Style { intervals: false };
    report::write_with(&home, folder.path(), &[], folder.path(), &choice, style)?;
    println!("report of {count} records: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
