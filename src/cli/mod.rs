//! The command line, one file per command. Each command turns its arguments into a validated request, runs it and lists the
//! files it wrote.

pub(crate) mod args;
mod batches;
mod bench;
mod cache;
mod check;
pub(crate) mod cluster_args;
mod compare;
mod contribute;
mod doctor;
mod estimate;
mod features;
pub mod fetch;
pub(crate) mod fetch_args;
pub mod inspect;
mod merge;
mod models;
mod parity;
mod prepare;
mod progress;
mod report;
mod reproduce;
mod rescore;
mod sharing;
mod shell;
mod slurm;
mod spread;
mod status;
pub mod stopping;
mod wanted;
mod words;
mod worker;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::console::{self, Stream};
use crate::data::{self, Split};
use crate::device::{self, Precision};
use crate::features::InputOptions;
use crate::features::batch_size::BatchSizes;
use crate::features::cache::Cache;
use crate::home::{Home, cache_folder};
use crate::locations::Environment;
use crate::model::Pooling;
use crate::model::config::{Inputs, ModelConfig};
use crate::model::encoder::no_pooling;
use crate::model::process::{OwnEncoder, TIME_LIMIT, TakenBands};
use crate::model::weights::Weights;
use crate::program::Program;
use crate::record::{Unreadable, unreadable};
use crate::task::bands::Imputation;
use crate::task::{Sensor, Sensors, Suite};
use crate::transform::strategies::Strategies;
use crate::{Error, Result, remedy};

/// What `--version --verbose` prints: the version with the credit that the licence of the shipped weights asks for.
const LONG_VERSION: &str = concat!(
    "terrabench ",
    env!("CARGO_PKG_VERSION"),
    "\n\nContains the weights of Galileo Nano (Tseng et al., arXiv 2502.09356; nasaharvest/galileo), unchanged, under the MIT \
     licence:\n\n",
    include_str!("../../configs/weights/galileo-nano/LICENSE")
);

/// Terrabench measures Earth-observation foundation models on the benchmarks their papers report
#[derive(Debug, Parser)]
#[command(name = "terrabench", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: args::GlobalArgs,
    #[command(subcommand)]
    command: args::Command,
}

impl Cli {
    /// Parses the command line. Prints help or the error and exits if that is all there is to do.
    pub fn of_command_line() -> Self {
        let words: Vec<String> =
            std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        let asks_for_version = words.iter().any(|word| word == "--version" || word == "-V");
        if words.len() == 2 && asks_for_version && words.iter().any(|word| word == "--verbose") {
            console::tell(LONG_VERSION);
            std::process::exit(0);
        }
        let matches = command().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command()).exit())
    }

    /// Parses a command line, the program's name first.
    ///
    /// # Errors
    /// If it cannot be parsed, or asks for help or the version.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&command().try_get_matches_from(words)?)
    }
}

/// The command line's description. The examples of an installed program name it instead of `cargo xtask`.
fn command() -> clap::Command {
    let command = Cli::command();
    if !console::is_installed() {
        return command;
    }
    command.mut_subcommands(|command| match command.get_after_help().map(ToString::to_string) {
        Some(examples) => command.after_help(console::addressed(examples)),
        None => command,
    })
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
        .with_writer(|| console::NotesWriter)
        // Otherwise it would report a closed standard error on standard error, and panic.
        .log_internal_errors(false)
        .init();
    progress::set(cli.global.progress);
    let home = match &cli.global.home {
        Some(folder) => Home::of(folder)?,
        None => Home::find()?,
    };
    stopping::listen(&cli.command);
    let done = match cli.command {
        args::Command::Bench(args) => return bench::run(&home, args, program),
        args::Command::Inspect(args) => inspect(&home, &args),
        args::Command::Features(args) => features::run(&home, &args),
        args::Command::Batches(args) => batches::run(&home, &args),
        args::Command::Check(args) => return Ok(check::run(&home, &args)),
        args::Command::Parity(args) => return Ok(parity::run(&home, &args)),
        args::Command::Compare(args) => return compare::run(&home, &args),
        args::Command::Rescore(args) => return rescore::run(&home, &args),
        args::Command::Cache(args) => cache::run(&args),
        args::Command::Models(args) => models::run(&home, &args),
        args::Command::Prepare(args) => prepare::run(&home, &args),
        args::Command::Fetch(args) => fetch::run(&home, &args),
        args::Command::Doctor(args) => doctor::run(&home, &args),
        args::Command::MeasureDevice(args) => doctor::measure(&home, &args),
        args::Command::MakeFiles(args) => doctor::make_files(&home, &args),
        args::Command::Spread(args) => return spread::run(&home, args, program),
        args::Command::Report(args) => return report::run(&home, args),
        args::Command::Reproduce(args) => return Ok(reproduce::run(&home, &args, program)),
        args::Command::Contribute(args) => return contribute::run(&home, &args, program),
        args::Command::Completions(args) => shell::completions(args.shell),
        args::Command::Man(args) => shell::man(&args),
        args::Command::Status(args) => status::run(&args),
        args::Command::Slurm(args) => slurm::run(&args),
        args::Command::Worker(args) => return worker::run(&home, &args, program),
        args::Command::Merge(args) => return merge::run(&args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

impl From<args::PrecisionArg> for Precision {
    fn from(precision: args::PrecisionArg) -> Self {
        match precision {
            args::PrecisionArg::F32 => Precision::F32,
            args::PrecisionArg::Tf32 => Precision::Tf32,
            args::PrecisionArg::Bf16 => Precision::Bf16,
        }
    }
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
    // The remedy need not list every task if all are missing, unless some are only fetched if they are named.
    let all = suite.tables.iter().all(|table| table.is_run)
        && suite.tasks.iter().all(|task| tasks.contains(&&*task.name));
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

/// Sets the number of compute threads for every backend that uses rayon. A second call changes nothing.
fn set_threads(threads: Option<usize>) -> Result<usize> {
    static SET: OnceLock<usize> = OnceLock::new();
    if let Some(threads) = SET.get() {
        return Ok(*threads);
    }
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or(all);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Error::request(format!("cannot start {threads} threads: {error}")))?;
    Ok(*SET.get_or_init(|| threads))
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
    let is_named = args.own.name.is_some() || args.own.backbone.is_some();
    if args.own.encoder.is_none() && is_named {
        return Err(Error::request("--name and --backbone name a model that this program does not know")
            .help("pass --encoder or --features too, or leave them out"));
    }
    if let Some(command) = &args.own.encoder {
        return own_encoder(home, command, &args.own);
    }
    let mut model = ModelConfig::load(home, name)?.in_suite(&suite.name, inputs(args));
    match model.architecture.outside_mut() {
        Some(outside) => outside.run_on(&args.device),
        None => device::check_network(&args.device)?,
    }
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

/// Describes the encoder process given on the command line.
///
/// # Errors
/// If the command, a band or the size cannot be parsed, or no sensor has all of the bands.
fn own_encoder(home: &Home, command: &str, args: &args::OwnEncoderArgs) -> Result<ModelConfig> {
    let taken = args.input_bands.iter().map(|text| text.parse()).collect::<Result<Vec<TakenBands>>>()?;
    let (mut any, mut of_sensors) = (None, BTreeMap::new());
    for TakenBands { sensor, bands } in taken {
        let before = match sensor {
            Some(sensor) => of_sensors.insert(sensor, bands),
            None => any.replace(bands),
        };
        if before.is_some() {
            let which = sensor.map_or("without a sensor".to_owned(), |sensor| format!("for {sensor}"));
            return Err(Error::request(format!("--input-bands is given twice {which}"))
                .help("name all bands in one list: B04,B03,B02, or s1:VV,VH for one sensor"));
        }
    }
    let impute = args.input_impute.iter().map(|text| imputation(text)).collect::<Result<_>>()?;
    let own = OwnEncoder {
        command: command.parse()?,
        name: args.name.clone(),
        backbone: args.backbone.clone(),
        bands: any,
        size: args.input_size.as_deref().map_or(Ok(OwnEncoder::SIZE), str::parse)?,
        time_limit: args.encoder_timeout.unwrap_or(TIME_LIMIT),
    };
    own.config_with(of_sensors, impute, &Sensors::load(home)?)
}

/// Parses `zeros:B10`.
fn imputation(text: &str) -> Result<Imputation> {
    let (source, target) = text.split_once(':').ok_or_else(|| {
        Error::request(format!("--input-impute: expected two bands, found `{text}`"))
            .help("the band that is read, then the missing one: zeros:B10")
    })?;
    Ok(Imputation { source: source.trim().parse()?, target: target.trim().parse()? })
}

/// Returns the weights given on the command line, or else the fetched weights of `model`, whose name on the command line is
/// `name`.
fn weights_named(home: &Home, name: &str, model: &ModelConfig, typed: Option<&str>) -> Result<Weights> {
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
            if let Some(shipped) = &source.shipped {
                return Ok(Weights::File(home.path(Path::new("configs/weights").join(shipped))));
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
///
/// # Errors
/// If `configs/normalization.toml` cannot be read, or the normalisation or the channels are unknown.
fn input_options(home: &Home, data: &args::DataArgs, model: &args::ModelArgs) -> Result<InputOptions> {
    let strategies = Strategies::load(home)?;
    strategies.check(&model.normalization)?;
    Ok(InputOptions {
        by_content: data.bands == args::BandNames::ByContent,
        normalization: model.normalization.clone(),
        strategies,
        channels: data.channels.parse()?,
        zeros: data.missing_bands == args::MissingBands::Zeros,
    })
}

/// The number of images per batch, as given or as found on this machine before. Products of another size may round otherwise, so
/// `--deterministic` looks for none.
fn batch_sizes(model: &args::ModelArgs) -> BatchSizes {
    let fixed = (model.deterministic && model.device != "flex").then_some(DETERMINISTIC_BATCH);
    BatchSizes::new(model.batch_size.or(fixed), cache_folder().ok().as_deref())
}

/// Makes the devices compute the same bits in each run, if that is asked for.
fn make_deterministic(model: &args::ModelArgs) -> crate::Result<()> {
    if model.deterministic { device::make_deterministic(&model.device) } else { Ok(()) }
}

/// Images per batch with `--deterministic` on a GPU: enough to keep it busy with a ViT-B, and few enough for small cards.
const DETERMINISTIC_BATCH: usize = 64;

/// Opens the feature cache. It is off with `--no-cache`, or if the user has no cache folder.
fn feature_cache(model: &args::ModelArgs) -> Option<Cache> {
    if model.no_cache { None } else { Cache::of_user().ok() }
}
