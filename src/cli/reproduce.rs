//! `reproduce`: computes a record's number again with the command that the record holds.

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use super::args::{self, BenchArgs, DataArgs, ModelArgs, OwnEncoderArgs, ReproduceArgs, SpreadArgs};
use super::{Cli, bench, spread};
use crate::console;
use crate::gate::reproduce::{Reproduction, verdict};
use crate::home::Home;
use crate::program::Program;
use crate::record::{Record, StoredRecord, collect_usable, read_record};
use crate::run::command::{portable, words};
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

/// Words of a command line.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn flag(&mut self, option: &str, is_set: bool) {
        if is_set {
            self.0.push(option.to_owned());
        }
    }

    fn option(&mut self, option: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.extend([option.to_owned(), value.to_string()]);
        }
    }

    fn each(&mut self, option: &str, values: &[impl ToString]) {
        values.iter().for_each(|value| self.option(option, Some(value.to_string())));
    }

    /// An option that is left out if it has its default.
    fn choice<V: ValueEnum + PartialEq>(&mut self, option: &str, value: V, default: V) {
        if value != default {
            let name = value.to_possible_value().map(|value| value.get_name().to_owned());
            self.option(option, name);
        }
    }

    fn data(&mut self, data: &DataArgs) {
        // A new field must be assigned to one side here: those that affect numbers are recorded.
        let DataArgs { data: _, bands, missing_bands, channels, sensor, verify: _ } = data;
        self.choice("--bands", *bands, args::BandNames::AsNamed);
        self.choice("--missing-bands", *missing_bands, args::MissingBands::AsTask);
        self.option("--channels", Some(channels).filter(|channels| *channels != "all"));
        let sensor = sensor.and_then(|sensor| sensor.to_possible_value());
        self.option("--sensor", sensor.map(|sensor| sensor.get_name().to_owned()));
    }

    fn model(&mut self, model: &ModelArgs) {
        let ModelArgs {
            model,
            weights,
            allow_partial,
            device,
            precision,
            profile: _,
            batch_size: _,
            threads: _,
            normalization,
            inputs,
            pooling,
            no_cache: _,
            own,
            ..
        } = model;
        self.option("--model", model.as_deref().map(portable));
        self.option("--weights", weights.as_deref().map(portable));
        self.flag("--allow-partial", *allow_partial);
        self.option("--device", Some(device).filter(|device| *device != "flex"));
        self.choice("--precision", *precision, args::PrecisionArg::F32);
        self.option("--normalization", Some(normalization).filter(|name| *name != "default"));
        self.choice("--inputs", *inputs, args::InputsArg::AsPublished);
        let pooling = pooling.and_then(|pooling| pooling.to_possible_value());
        self.option("--pooling", pooling.map(|pooling| pooling.get_name().to_owned()));
        let OwnEncoderArgs {
            encoder,
            name,
            backbone,
            input_bands,
            input_impute,
            input_size,
            encoder_timeout: _,
        } = own;
        self.option("--encoder", encoder.as_ref());
        self.option("--name", name.as_ref());
        self.option("--backbone", backbone.as_ref());
        self.each("--input-bands", input_bands);
        self.each("--input-impute", input_impute);
        self.option("--input-size", input_size.as_ref());
    }
}

fn path(path: &Path) -> String {
    portable(&path.to_string_lossy())
}

/// The words of `bench` that affect numbers, without those that choose a cell.
pub(super) fn words_of_bench(args: &BenchArgs) -> Vec<String> {
    // A new field must be assigned to one side here.
    let BenchArgs {
        suite,
        demo,
        demo_seed,
        tasks: _,
        partitions: _,
        protocols: _,
        seeds: _,
        epochs,
        learning_rates,
        limit,
        out: _,
        cache_limit: _,
        fresh: _,
        dry_run: _,
        features,
        sharing: _,
        data,
        model,
    } = args;
    let mut words = Words(vec!["bench".to_owned(), suite.clone()]);
    words.flag("--demo", *demo);
    words.option("--demo-seed", Some(demo_seed).filter(|seed| **seed != 0));
    words.option("--epochs", *epochs);
    if !learning_rates.is_empty() {
        let rates: Vec<String> = learning_rates.iter().map(f64::to_string).collect();
        words.option("--learning-rates", Some(rates.join(",")));
    }
    words.option("--limit", *limit);
    words.option("--features", features.as_deref().map(path));
    words.data(data);
    words.model(model);
    words.0
}

/// The words of `spread` that affect numbers.
pub(super) fn words_of_spread(args: &SpreadArgs) -> Vec<String> {
    // A new field must be assigned to one side here.
    let SpreadArgs {
        suite,
        demo,
        task,
        partition,
        protocol,
        vary,
        cross,
        channels,
        depths,
        sizes,
        all_normalizations,
        beside,
        beside_weights,
        dry_run: _,
        seed,
        out: _,
        fresh: _,
        data: _,
        bands,
        model,
    } = args;
    let mut words = Words(vec!["spread".to_owned()]);
    words.option("--suite", Some(suite));
    words.flag("--demo", *demo);
    words.option("--task", Some(task));
    words.option("--partition", Some(partition));
    words.option("--protocol", protocol.as_deref().map(portable));
    words.each("--vary", vary);
    words.each("--cross", cross);
    words.flag("--channels", *channels);
    words.each("--depth", depths);
    words.each("--size", sizes);
    words.flag("--all-normalizations", *all_normalizations);
    words.option("--beside", beside.as_deref().map(portable));
    words.option("--beside-weights", beside_weights.as_deref().map(portable));
    words.option("--seed", Some(seed));
    words.choice("--bands", *bands, args::BandNames::AsNamed);
    words.model(model);
    words.0
}
