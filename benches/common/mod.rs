//! What benches share: options, rounds in turn with a script of `benches/peers`, so that both meet the same machine, and what was
//! measured.

#![allow(dead_code, reason = "not every bench uses every helper")]

pub mod measured;
pub mod tensors;

use std::process::{Command, Output};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

/// Exit code of a peer that is not there, with the reason on standard error.
const NO_PEER: i32 = 3;

/// The value behind `name` on the command line.
pub fn option(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).cloned()
}

/// The number behind `name` on the command line, or the usual one.
pub fn number<N: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str, usual: N) -> Result<N> {
    match option(name) {
        None => Ok(usual),
        Some(text) => text.parse().with_context(|| format!("{name} {text}")),
    }
}

/// The most memory of a process so far, in MiB, where the system tells it. `process` is its number, or `self`.
pub fn peak_memory(process: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// A script of `benches/peers` and the Python that runs it.
#[derive(Debug, Clone)]
pub struct Script {
    python: String,
    name: &'static str,
    arguments: Vec<String>,
}

impl Script {
    /// The script, if `option` on the command line names a Python for it.
    pub fn asked(option_name: &str, name: &'static str) -> Option<Self> {
        option(option_name).map(|python| Script { python, name, arguments: Vec::new() })
    }

    /// Adds an argument of every run.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.arguments.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Runs `repetitions` of what the script measures, after one to warm up, with as many threads as this program.
    ///
    /// # Errors
    /// If the script fails. If what it needs is not there, the error is [`Missing`].
    pub fn run(&self, repetitions: usize) -> Result<Output> {
        let number = |option: &str, n: usize| [option.to_owned(), n.to_string()];
        let mut command = Command::new(&self.python);
        command
            .arg(format!("{}/benches/peers/{}", env!("CARGO_MANIFEST_DIR"), self.name))
            .args(number("--repetitions", repetitions))
            .args(number("--threads", rayon::current_num_threads()))
            .args(&self.arguments);
        let output = command.output().with_context(|| format!("cannot start {}", self.python))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.code() == Some(NO_PEER) {
            return Err(Missing(said).into());
        }
        ensure!(output.status.success(), "{} failed: {said}", self.name);
        Ok(output)
    }

    /// The numbers that the script prints: one line per repetition, one column per way of working.
    pub fn columns<const N: usize>(&self, repetitions: usize) -> Result<[Vec<f64>; N]> {
        let mut columns = [const { Vec::new() }; N];
        for line in std::str::from_utf8(&self.run(repetitions)?.stdout)?.lines() {
            let numbers = line.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>();
            let numbers = numbers.with_context(|| format!("{} printed {line:?}", self.name))?;
            ensure!(numbers.len() == N, "{} printed {line:?}, expected {N} numbers", self.name);
            columns.iter_mut().zip(numbers).for_each(|(column, number)| column.push(number));
        }
        Ok(columns)
    }
}

/// What a peer needs and does not find.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Takes `rounds` rounds of `repetitions` each: ours, which must be warm, then the peer's. Returns our values and, per column, the
/// peer's.
pub fn in_turn<const N: usize>(
    rounds: usize,
    repetitions: usize,
    mut ours: impl FnMut() -> Result<f64>,
    peer: Option<&Script>,
) -> Result<(Vec<f64>, [Vec<f64>; N])> {
    let (mut values, mut columns) = (Vec::new(), [const { Vec::new() }; N]);
    for _ in 0..rounds {
        for _ in 0..repetitions {
            values.push(ours()?);
        }
        if let Some(peer) = peer {
            let round = peer.columns::<N>(repetitions)?;
            columns.iter_mut().zip(round).for_each(|(column, values)| column.extend(values));
        }
    }
    Ok((values, columns))
}
