//! The command line, one file per command. Each command turns its arguments into a validated request, runs it and lists the
//! files it wrote.

pub(crate) mod args;
mod bench;
mod cache;
mod check;
mod compare;
mod doctor;
mod features;
pub mod fetch;
pub(crate) mod fetch_args;
pub mod inspect;
mod models;
mod prepare;
mod progress;
mod report;
mod rescore;
mod wanted;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::console::{self, Stream};
use crate::data::{self, Split};
use crate::features::InputOptions;
use crate::features::cache::Cache;
use crate::home::Home;
use crate::locations::Environment;
use crate::model::Pooling;
use crate::model::config::{Inputs, ModelConfig};
use crate::model::encoder::no_pooling;
use crate::model::weights::Weights;
use crate::program::Program;
use crate::record::{Unreadable, unreadable};
use crate::task::Sensor;
use crate::task::Suite;
use crate::transform::strategies::Strategies;
use crate::{Error, Result, remedy};

/// Terrabench measures Earth-observation foundation models on the benchmarks their papers report
#[derive(Debug, Parser)]
#[command(name = "terrabench", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: args::GlobalArgs,
    #[command(subcommand)]
    command: args::Command,
}

/// Runs one command and returns the exit code: 0 unless the command reports a problem through another code (see its help).
///
/// # Errors
/// Whatever stopped the command. Everything finished before that is on disk.
pub fn run(cli: Cli, program: &Program) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("terrabench=warn")),
        )
        .with_writer(std::io::stderr)
        // Otherwise it would report a closed standard error on standard error, and panic.
        .log_internal_errors(false)
        .init();
    let home = match &cli.global.home {
        Some(folder) => Home::of(folder)?,
        None => Home::find()?,
    };
    let done = match cli.command {
        args::Command::Bench(args) => return bench::run(&home, args, program),
        args::Command::Inspect(args) => inspect(&home, &args),
        args::Command::Features(args) => features::run(&home, &args),
        args::Command::Check(args) => return Ok(check::run(&home, &args)),
        args::Command::Compare(args) => return compare::run(&home, &args),
        args::Command::Rescore(args) => return rescore::run(&home, &args),
        args::Command::Cache(args) => cache::run(&args),
        args::Command::Models(args) => models::run(&home, &args),
        args::Command::Prepare(args) => prepare::run(&home, &args),
        args::Command::Fetch(args) => fetch::run(&home, &args),
        args::Command::Doctor(args) => doctor::run(&home, &args),
        args::Command::Report(args) => return report::run(&home, args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

impl From<args::SplitArg> for Split {
    fn from(split: args::SplitArg) -> Self {
        match split {
            args::SplitArg::Train => Split::Train,
            args::SplitArg::Valid => Split::Valid,
            args::SplitArg::Test => Split::Test,
        }
    }
}

/// Exit code of a command that succeeded but could not read some files beside the records.
pub const SOME_UNREADABLE: u8 = 3;

/// Lists the files that a command skipped and returns its exit code.
fn used(unreadable: &[Unreadable]) -> ExitCode {
    match unreadable::list(unreadable) {
        None => ExitCode::SUCCESS,
        Some(list) => {
            console::note(format_args!("\nwarning: {list}"));
            ExitCode::from(SOME_UNREADABLE)
        }
    }
}

/// Returns the suite's data folder: the one given on the command line, or else where [`crate::locations`] finds it. If
/// there is none, the error says how to fetch `tasks`.
fn data_folder(suite: &Suite, typed: Option<&PathBuf>, tasks: &[&str]) -> Result<PathBuf> {
    let (environment, variable) = (Environment::here(), &suite.environment);
    let typed = typed.map(PathBuf::as_path);
    // The remedy need not list every task if all are missing.
    let all = suite.tasks.iter().all(|task| tasks.contains(&&*task.name));
    let how = || remedy::get_data(suite, if all { &[] } else { tasks }, typed);
    match environment.find(&suite.name, variable, typed) {
        Ok(Some(place)) => Ok(place.folder),
        Ok(None) => {
            let places = environment.places(&suite.name, variable, typed).into_iter();
            let looked: Vec<String> =
                places.map(|place| format!(", {} does not exist", place.folder.display())).collect();
            Err(Error::request(format!(
                "no {} data found: neither --data nor ${variable} names a folder{}",
                suite.title,
                looked.concat()
            ))
            .help(how()))
        }
        Err(error) => Err(error.help(how())),
    }
}

/// Sets the number of compute threads for every backend that uses rayon.
fn set_threads(threads: Option<usize>) -> Result<usize> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or(all);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Error::request(format!("cannot start {threads} threads: {error}")))?;
    Ok(threads)
}

/// Runs `inspect`.
fn inspect(home: &Home, args: &args::InspectArgs) -> anyhow::Result<()> {
    let suite = Suite::load(home, &args.suite)?;
    let task = suite.task(&args.task)?;
    let folder = data_folder(&suite, args.data.as_ref(), &[&task.name])?;
    let dataset = data::open(&suite, task, &folder, &args.partition)?;
    let splits: Vec<Split> = match args.splits.as_slice() {
        [] => Split::ALL.to_vec(),
        some => some.iter().copied().map(Split::from).collect(),
    };
    let mut out = Stream::stdout();
    let done = inspect::print(dataset.as_ref(), task, &splits, args.json, &mut out);
    let done = done.map_err(anyhow::Error::from).and_then(|()| Ok(out.flush()?));
    // The reader of a closed pipe, such as `head`, has seen enough: not an error.
    if out.is_closed() { Ok(()) } else { done }
}

/// Loads a suite, with the sensor given on the command line.
fn suite(home: &Home, name: &str, data: &args::DataArgs) -> Result<Suite> {
    let suite = Suite::load(home, name)?;
    Ok(match data.sensor {
        None => suite,
        Some(args::SensorArg::S2L1c) => suite.with_input_sensor(Sensor::S2_L1C),
        Some(args::SensorArg::S2L2a) => suite.with_input_sensor(Sensor::S2_L2A),
    })
}

fn inputs(args: &args::ModelArgs) -> Inputs {
    match args.inputs {
        args::InputsArg::AsPublished => Inputs::AsPublished,
        args::InputsArg::Corrected => Inputs::Corrected,
    }
}

/// Returns the model as the suite's own code uses it, with the requested pooling.
///
/// # Errors
/// If the model's file cannot be read, or the model lacks the pooling.
fn model_named(home: &Home, name: &str, suite: &Suite, args: &args::ModelArgs) -> Result<ModelConfig> {
    let mut model = ModelConfig::load(home, name)?.in_suite(&suite.name, inputs(args));
    if let Some(pooling) = args.pooling {
        let pooling = match pooling {
            args::PoolingArg::Class => Pooling::Class,
            args::PoolingArg::Mean => Pooling::Mean,
            args::PoolingArg::MeanAll => Pooling::MeanAll,
            args::PoolingArg::Head => Pooling::Head,
        };
        if !model.architecture.poolings().contains(&pooling) {
            return Err(no_pooling(pooling, model.architecture.poolings()));
        }
        model.pooling = Some(pooling);
    }
    Ok(model)
}

/// Returns the weights given on the command line, or else the fetched weights of `model`, whose name on the command line is
/// `name`.
fn weights_named(name: &str, model: &ModelConfig, typed: Option<&str>) -> Result<Weights> {
    if !model.architecture.has_parameters() {
        return match typed {
            None => Ok(Weights::None),
            Some(_) => {
                Err(Error::request(format!("{} has no parameters", model.name)).help("remove --weights"))
            }
        };
    }
    match (typed, &model.weights) {
        (Some(typed), published) => match typed.parse()? {
            Weights::File(path) if !path.exists() => {
                let takes =
                    "--weights takes a PyTorch state dict (.pth, .pt), a .safetensors file, or random:SEED";
                let fetch = published.as_ref().map_or(String::new(), |_| {
                    format!("; `{}` fetches the published weights", remedy::fetch_weights(name))
                });
                Err(Error::not_found(path, "no such file").help(format!("{takes}{fetch}")))
            }
            weights => Ok(weights),
        },
        (None, Some(source)) => {
            if let Some(fetched) = Environment::here().find_weights(source) {
                return Ok(Weights::File(fetched));
            }
            Err(Error::request(format!("{} {} needs --weights", model.name, model.backbone)).help(format!(
                "`{}` fetches the published weights ({}); or pass --weights FILE, or --weights random:0 for the \
                 untrained architecture",
                remedy::fetch_weights(name),
                source.whereabouts()
            )))
        }
        (None, None) => Err(Error::request(format!("{} {} needs --weights", model.name, model.backbone))
            .help("pass --weights FILE, or --weights random:0 for the untrained architecture")),
    }
}

/// Converts the options for pixels.
fn input_options(home: &Home, data: &args::DataArgs, model: &args::ModelArgs) -> Result<InputOptions> {
    Ok(InputOptions {
        by_content: data.bands == args::BandNames::ByContent,
        normalization: model.normalization.clone(),
        strategies: Strategies::load(home)?,
        channels: data.channels.parse()?,
        zeros: data.missing_bands == args::MissingBands::Zeros,
    })
}

/// Opens the feature cache. It is off with `--no-cache`, or if the user has no cache folder.
fn feature_cache(model: &args::ModelArgs) -> Option<Cache> {
    if model.no_cache { None } else { Cache::of_user().ok() }
}
