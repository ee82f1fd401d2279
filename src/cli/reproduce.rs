//! `reproduce`: computes a record's number again with the command that the record holds.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use super::args::{self, BenchArgs, DataArgs, ModelArgs, ReproduceArgs, SpreadArgs};
use super::{Cli, bench, spread};
use crate::console;
use crate::gate::reproduce::{Reproduction, verdict};
use crate::home::Home;
use crate::program::Program;
use crate::record::{Record, StoredRecord, collect_usable, read_record};
use crate::run::command::words;
use crate::{Error, Result};

/// Runs the command. Exits with 0 if the number is the same, 1 if it differs and 2 if it cannot be computed again.
pub fn run(home: &Home, args: &ReproduceArgs, program: &Program) -> ExitCode {
    match again(home, args, program) {
        Ok(code) => code,
        Err(error) => super::stopping::ended(&error).unwrap_or_else(|| {
            console::note(format_args!("error: {error}"));
            ExitCode::from(2)
        }),
    }
}

fn again(home: &Home, args: &ReproduceArgs, program: &Program) -> anyhow::Result<ExitCode> {
    let recorded = read_record(&args.record)?;
    let command = &recorded.provenance.command;
    if command.is_empty() {
        let problem = "the record holds no command: it was made by an older version of this program";
        return Err(Error::unsupported(&args.record, problem)
            .help("run the cell again with `bench --fresh`; its new record holds one")
            .into());
    }
    console::tell(format_args!("{command}\n"));
    if command.contains("--encoder fd:") && !args.print {
        let problem = "its model was a Python object, which only the Python program that made the record has";
        return Err(Error::unsupported(&args.record, problem)
            .help("call terrabench.evaluate again with the same model, and compare the two records")
            .into());
    }
    if args.print {
        return Ok(ExitCode::SUCCESS);
    }
    let temporary;
    let out = match &args.out {
        Some(folder) => folder.clone(),
        None => {
            temporary = tempfile::Builder::new().prefix("terrabench-").tempdir()?;
            temporary.path().to_owned()
        }
    };
    let refused =
        |problem: String| Error::damaged(&args.record, format!("its command cannot be run: {problem}"));
    let typed = words(command).ok_or_else(|| refused(format!("`{command}`")))?;
    let cli = Cli::try_parse_from(std::iter::once("terrabench".to_owned()).chain(typed))
        .map_err(|problem| refused(problem.to_string()))?;
    // What a failing cell says goes to standard error; whether the number was computed shows in its record.
    let ran = match cli.command {
        args::Command::Bench(bench) => bench::run(home, moved_bench(bench, args, &out), program),
        args::Command::Spread(spread) => {
            spread::run(home, Box::new(moved_spread(*spread, args, &out)), program)
        }
        _ => return Err(refused(format!("`{command}` makes no records")).into()),
    };
    let made = match ran {
        Err(error) if super::stopping::was_stopped(&error) => return Err(error),
        Err(error) => match new_record(&recorded, &out) {
            Ok(made) => made,
            Err(_) => return Err(error),
        },
        Ok(_) => new_record(&recorded, &out)?,
    };
    let reproduction = Reproduction::of(&recorded, &made);
    let lines = reproduction.causes.iter().chain(&reproduction.numbers).chain(&reproduction.predictions);
    let lines: Vec<String> = lines.map(|compared| format!("  {compared}\n")).collect();
    let verdict = verdict(&recorded, &made, &reproduction);
    console::print(format_args!("\n{}\n{verdict}\n", lines.concat()))?;
    Ok(if reproduction.is_same() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Finds the record of the same cell, and among several that with the same settings.
fn new_record(recorded: &Record, out: &Path) -> Result<Record> {
    let kept = collect_usable(out)?.kept;
    let mut of_cell: Vec<Record> = kept
        .into_iter()
        .map(|StoredRecord { record, .. }| record)
        .filter(|record| {
            let (new, old) = (&record.cell, &recorded.cell);
            (&new.task, &new.partition, &new.protocol, new.seed)
                == (&old.task, &old.partition, &old.protocol, old.seed)
        })
        .collect();
    let same =
        |record: &Record| record.fingerprint == recorded.fingerprint || record.request == recorded.request;
    if let Some(place) = of_cell.iter().position(same) {
        return Ok(of_cell.swap_remove(place));
    }
    match of_cell.pop() {
        Some(only) if of_cell.is_empty() => Ok(only),
        _ => Err(Error::mismatch("the command made no record of this cell with these settings")
            .help("the suite, the model or the protocol changed since; the lines above may say how")),
    }
}

/// Takes what does not affect numbers, and where files are here, from the command line of `reproduce`.
fn moved_model(model: ModelArgs, args: &ReproduceArgs) -> ModelArgs {
    ModelArgs {
        weights: args.weights.clone().or(model.weights),
        model: args.model.clone().or(model.model),
        device: args.device.clone().unwrap_or(model.device),
        threads: args.threads,
        // Features from the cache would not show that they can be computed again.
        no_cache: true,
        ..model
    }
}

fn moved_bench(bench: BenchArgs, args: &ReproduceArgs, out: &Path) -> BenchArgs {
    BenchArgs {
        out: out.to_owned(),
        fresh: true,
        features: args.features.clone().or(bench.features),
        protocols: args.protocol.as_ref().map_or(bench.protocols, |typed| vec![typed.clone()]),
        data: DataArgs { data: args.data.clone(), ..bench.data },
        model: moved_model(bench.model, args),
        ..bench
    }
}

fn moved_spread(spread: SpreadArgs, args: &ReproduceArgs, out: &Path) -> SpreadArgs {
    SpreadArgs {
        out: out.to_owned(),
        fresh: true,
        data: args.data.clone(),
        protocol: args.protocol.clone().or(spread.protocol),
        model: moved_model(spread.model, args),
        ..spread
    }
}
