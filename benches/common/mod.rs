//! Rounds of ours in turn with rounds of a script of benches/peers, so that both meet the same machine.

#![allow(dead_code, reason = "not every bench uses every helper")]

use std::process::{Command, Output};

/// The value behind `name` on the command line.
pub fn option(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).cloned()
}

/// Prints under `title` how many images a second ours and, with `--peer PYTHON`, the peer's `script` do: medians and
/// ranges over `--rounds` (else `rounds`) of so many `repetitions` each, after one of ours to warm up.
pub fn in_turn(
    title: &str,
    script: &str,
    batch: usize,
    rounds: usize,
    repetitions: usize,
    mut ours: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<()> {
    let rounds: usize = option("--rounds").map_or(Ok(rounds), |n| n.parse())?;
    ours()?;
    let (mut rates, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..repetitions {
            rates.push(ours()?);
        }
        if let Some(python) = option("--peer") {
            peer.extend(run_peer(&python, script, batch, repetitions)?);
        }
    }
    println!("{title}, {} threads", rayon::current_num_threads());
    report("terrabench", &mut rates);
    if !peer.is_empty() {
        report("eager PyTorch", &mut peer);
        println!("{:>14}: {:.2}", "ratio", median(&rates) / median(&peer));
    }
    Ok(())
}

fn run_peer(python: &str, script: &str, batch: usize, repetitions: usize) -> anyhow::Result<Vec<f64>> {
    rates(&peer(python, script, batch, repetitions, &[])?)
}

/// Runs a script of benches/peers with as many threads as ours, and with `further` arguments.
pub fn peer(
    python: &str,
    script: &str,
    batch: usize,
    repetitions: usize,
    further: &[String],
) -> anyhow::Result<Output> {
    let number = |option: &str, n: usize| [option.to_owned(), n.to_string()];
    let mut command = Command::new(python);
    command
        .arg(format!("{}/benches/peers/{script}", env!("CARGO_MANIFEST_DIR")))
        .args(number("--batch", batch))
        .args(number("--repetitions", repetitions))
        .args(number("--threads", rayon::current_num_threads()))
        .args(further);
    Ok(command.output()?)
}

/// Parses a peer's output: images per second, one line per repetition.
pub fn rates(output: &Output) -> anyhow::Result<Vec<f64>> {
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout)?;
    Ok(text.lines().map(str::parse).collect::<Result<_, _>>()?)
}

/// Sorts `rates`, of which there is at least one, and prints their median and range.
pub fn report(name: &str, rates: &mut [f64]) {
    rates.sort_by(f64::total_cmp);
    let (least, most) = (rates[0], rates[rates.len() - 1]);
    println!(
        "{name:>14}: {:.2} images/s (median of {}, {least:.2} to {most:.2})",
        median(rates),
        rates.len()
    );
}

pub fn median(sorted: &[f64]) -> f64 {
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}
