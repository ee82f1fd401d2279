//! `worker`: works on a plan beside other workers. A plan is a TOML file with the arguments of several `bench` commands.
//!
//! ```toml
//! workers = 8
//! run = ["geobench --model terrafm-b --data /data/geobench", "geobench --model croma-b --data /data/geobench"]
//! fetch = ["weights terrafm-b", "weights croma-b"]
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Parser;
use serde::Deserialize;

use super::args::{BenchArgs, Command};
use super::bench::{self, CELLS_LEFT};
use super::cluster_args::WorkerArgs;
use super::fetch_args::{FetchArgs, FetchWhat};
use super::stopping::was_stopped;
use super::{Cli, fetch};
use crate::claims::{Claims, STALE_AFTER};
use crate::console;
use crate::error::AtPath;
use crate::files::write_atomically;
use crate::home::Home;
use crate::program::Program;
use crate::run::sharing::CLAIMS;
use crate::{Error, Result};

/// A plan's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Plan {
    /// Number of workers.
    #[serde(default = "one")]
    pub workers: usize,
    /// The results folder that all workers share.
    #[serde(default = "results")]
    pub results: PathBuf,
    /// Seconds without a sign of life after which a worker's cells are taken over.
    #[serde(default = "stale_after")]
    pub stale_after: f64,
    /// Arguments of `fetch` commands, run once before any worker computes.
    #[serde(default)]
    pub fetch: Vec<String>,
    /// Arguments of `bench` commands.
    pub run: Vec<String>,
    /// The job, for `slurm`.
    #[serde(default)]
    pub slurm: SlurmJob,
}

/// How SLURM runs the workers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct SlurmJob {
    /// Name of the jobs.
    pub name: String,
    /// Partition; the cluster's default if empty.
    pub partition: String,
    /// GPUs per worker.
    pub gpus: usize,
    /// CPU cores per worker.
    pub cpus: usize,
    /// Memory per worker, as sbatch takes it: 64G.
    pub memory: String,
    /// Time limit of a worker, as sbatch takes it: 12:00:00. A worker that reaches it is requeued.
    pub time: String,
    /// Seconds before the time limit at which a worker is told to stop.
    pub grace: u32,
    /// How often a worker is requeued at most.
    pub requeues: u32,
    /// Further options of sbatch, such as `--account=eo`.
    pub options: Vec<String>,
    /// Lines of shell before the program, such as `module load cuda/12.4`.
    pub lines: Vec<String>,
    /// What stands before the program on its command line, such as `apptainer exec --nv terrabench.sif`.
    pub container: String,
    /// The program on the nodes, if it is not this one.
    pub program: Option<PathBuf>,
}

impl Default for SlurmJob {
    fn default() -> Self {
        SlurmJob {
            name: "terrabench".to_owned(),
            partition: String::new(),
            gpus: 0,
            cpus: 0,
            memory: String::new(),
            time: String::new(),
            grace: 120,
            requeues: 100,
            options: Vec::new(),
            lines: Vec::new(),
            container: String::new(),
            program: None,
        }
    }
}

fn one() -> usize {
    1
}

fn results() -> PathBuf {
    PathBuf::from("results")
}

fn stale_after() -> f64 {
    STALE_AFTER.as_secs_f64()
}

impl Plan {
    /// Reads a plan and checks that its commands can be parsed.
    ///
    /// # Errors
    /// If the file cannot be read, or a value cannot be used.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).at(path)?;
        let plan: Plan = toml::from_str(&text).map_err(|problem| {
            Error::damaged(path, format!("not a plan: {problem}")).help("docs/cluster.md shows one")
        })?;
        let wrong = |problem: String, help: &str| Err(Error::damaged(path, problem).help(help));
        if plan.run.is_empty() {
            return wrong(
                "expected at least one command in `run`, found none".to_owned(),
                "docs/cluster.md shows a plan",
            );
        }
        if plan.workers == 0 {
            return wrong("workers: expected at least 1, found 0".to_owned(), "set `workers`");
        }
        if !(0.5..=1e6).contains(&plan.stale_after) {
            let problem =
                format!("stale-after: expected seconds from 0.5 to 1000000, found {}", plan.stale_after);
            return wrong(problem, "leave it out for 120");
        }
        plan.benches().map_err(|error| error.in_file(path))?;
        plan.fetches().map_err(|error| error.in_file(path))?;
        Ok(plan)
    }

    /// Returns the `bench` commands.
    ///
    /// # Errors
    /// If one cannot be parsed, or says what the plan says.
    pub fn benches(&self) -> Result<Vec<BenchArgs>> {
        self.run.iter().map(|line| self.bench(line)).collect()
    }

    fn bench(&self, line: &str) -> Result<BenchArgs> {
        let Command::Bench(mut args) = command("bench", line)? else {
            return Err(Error::request(format!("run: `{line}` is no `bench` command")));
        };
        if words("run", line)?.iter().any(|word| word == "--out" || word.starts_with("--out=")) {
            return Err(Error::request(format!("run: `{line}` names a results folder of its own"))
                .help("set `results` in the plan"));
        }
        if args.fresh {
            return Err(Error::request(format!(
                "run: `{line}` has --fresh, with which no worker knows what others did"
            ))
            .help("remove the old records, or run it without a plan"));
        }
        args.out.clone_from(&self.results);
        args.sharing.stale_after = self.stale_after;
        Ok(args)
    }

    fn fetches(&self) -> Result<Vec<(String, FetchArgs)>> {
        let parsed = |line: &String| match command("fetch", line)? {
            Command::Fetch(mut args) => {
                // Nobody is there to ask.
                match &mut args.what {
                    FetchWhat::Weights(weights) => weights.consent.yes = true,
                    FetchWhat::Geobench(suite)
                    | FetchWhat::Geobench2(suite)
                    | FetchWhat::CopernicusBench(suite)
                    | FetchWhat::Landslide4sense(suite) => suite.consent.yes = true,
                }
                Ok((line.clone(), args))
            }
            _ => Err(Error::request(format!("fetch: `{line}` is no `fetch` command"))),
        };
        self.fetch.iter().map(parsed).collect()
    }

    /// Fetches what no worker has fetched yet, one worker at a time.
    fn fetch_once(&self, home: &Home) -> anyhow::Result<()> {
        let claims = Claims::new(self.results.join(CLAIMS), Duration::from_secs_f64(self.stale_after));
        for (line, args) in self.fetches()? {
            let digits = blake3::hash(line.as_bytes()).to_hex();
            let key = format!("fetch-{}", &digits.as_str()[..16]);
            let fetched = claims.folder().join(format!("{key}.fetched"));
            if fetched.is_file() {
                continue;
            }
            let mut waits = |holder: &crate::claims::Holder| {
                console::note(format_args!("waiting for {}, which fetches {line}", holder.place()));
            };
            let claim = claims.wait(&key, &format!("fetch {line}"), &mut waits)?;
            if !fetched.is_file() {
                fetch::run(home, &args)?;
                write_atomically(&fetched, format!("{line}\n").as_bytes())?;
            }
            claim.finish();
        }
        Ok(())
    }
}

fn words(what: &str, line: &str) -> Result<Vec<String>> {
    shlex::split(line).ok_or_else(|| {
        Error::request(format!("{what}: `{line}` has an open quotation mark")).help("close it, as in a shell")
    })
}

/// Parses the arguments of a command as typed in a shell.
fn command(name: &str, line: &str) -> Result<Command> {
    let words = ["terrabench".to_owned(), name.to_owned()].into_iter().chain(words(name, line)?);
    let parsed = Cli::try_parse_from(words).map_err(|problem| {
        let problem = problem.to_string();
        let first = problem.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        Error::request(format!("`{name} {line}`: {}", first.trim()))
            .help(format!("`terrabench {name} --help` lists what can stand there"))
    })?;
    Ok(parsed.command)
}

/// Runs the command. Exits with 1 if a cell failed.
pub fn run(home: &Home, args: &WorkerArgs, program: &Program) -> anyhow::Result<ExitCode> {
    let plan = Plan::load(&args.plan)?;
    plan.fetch_once(home)?;
    let benches = plan.benches()?;
    let count = benches.len();
    let mut failures = Vec::new();
    // Returns whether no cell is left to others.
    let go = |number: usize, change: &dyn Fn(&mut BenchArgs)| -> anyhow::Result<Result<bool, String>> {
        let mut bench = benches[number].clone();
        change(&mut bench);
        console::note(format_args!("\n{}", plan.run[number]));
        match bench::run(home, bench, program) {
            Ok(code) => Ok(Ok(code != ExitCode::from(CELLS_LEFT))),
            Err(error) if was_stopped(&error) => Err(error),
            Err(error) => {
                console::note(format_args!("error: {error:#}"));
                let error = error.to_string();
                let first = error.lines().next().unwrap_or_default();
                Ok(Err(format!("{}: {first}", plan.run[number])))
            }
        }
    };
    if args.check {
        let check = |bench: &mut BenchArgs| {
            bench.sharing.check_only = true;
            // Where jobs are submitted there often is no GPU.
            bench.model.device = "flex".to_owned();
            bench.model.precision = super::args::PrecisionArg::F32;
        };
        for number in 0..count {
            failures.extend(go(number, &check)?.err());
        }
        if !failures.is_empty() {
            bail!("{} of {count} runs cannot start\n{}", failures.len(), failures.join("\n"));
        }
        console::note(format_args!("\nchecked {count} runs: all can start"));
        return Ok(ExitCode::SUCCESS);
    }
    let worker = |bench: &mut BenchArgs| {
        bench.sharing.worker = Some(args.index / count);
        bench.sharing.no_tables = true;
    };
    // First what nobody holds of any run; only then is there reason to wait for others.
    let first = args.index % count;
    let take = |bench: &mut BenchArgs| {
        worker(bench);
        bench.sharing.no_wait = true;
    };
    let mut left = Vec::new();
    for number in (first..count).chain(0..first) {
        // A run with failures may have left cells to others as well.
        if go(number, &take)? != Ok(true) {
            left.push(number);
        }
    }
    for number in left {
        failures.extend(go(number, &worker)?.err());
    }
    if !failures.is_empty() {
        bail!("{} of {count} runs failed\n{}", failures.len(), failures.join("\n"));
    }
    console::note("\nall cells of the plan are recorded");
    Ok(ExitCode::SUCCESS)
}
