//! `bench`: runs the cells of a suite, writes records and tables, and lists the files it wrote.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use burn::tensor::{DType, Device};

use super::args::BenchArgs;
use super::sharing::{self, End};
use super::{
    data_folder, estimate, feature_cache, input_options, model_named, set_threads, suite, used,
    weights_named, words,
};
use crate::claims::Claims;
use crate::config::Shortening;
use crate::console;
use crate::data::fingerprint;
use crate::demo;
use crate::device::{self, Precision};
use crate::error::AtPath;
use crate::features::stages;
use crate::features::vectors::VectorFolder;
use crate::home::{Home, cache_folder};
use crate::model::config::ModelConfig;
use crate::nn::kernels::autocast;
use crate::program::Program;
use crate::protocol::ProtocolConfig;
use crate::record::{Cell, Store};
use crate::report::{self, Written};
use crate::run::command::{CommandLine, portable};
use crate::run::plan::{self, Choice, PlannedCell, TaskPlan};
use crate::run::sharing::Sharing;
use crate::run::{self, Done, Runner, Setting};
use crate::task::Suite;
use crate::transform::strategies;
use crate::{Error, ErrorKind, Result};

const DEMO_NOTICE: &str = "\
This is the demo: it tries the harness on generated images.
Its numbers say nothing about any model or benchmark.";

const DEMO_WEIGHTS: &str = "random:0";

/// The model of the demo that has learnt something; its weights come with the program.
const LEARNT: &str = "galileo-nano-demo";

const LEARNT_NOTICE: &str = "\nThe same with a small model that has learnt from satellite images (Galileo Nano; Tseng et al., arXiv 2502.09356).";

/// Runs the command. Exits with 0, or with [`super::SOME_UNREADABLE`] if some records could not be read.
pub fn run(home: &Home, args: BenchArgs, program: &Program) -> anyhow::Result<ExitCode> {
    let models = if args.demo && is_default_model(&args) { demo_models(home, &args)? } else { Vec::new() };
    if models.is_empty() {
        return run_model(home, args, program, true);
    }
    let mut code = ExitCode::SUCCESS;
    for (place, (name, tasks)) in models.into_iter().enumerate() {
        let is_first = place == 0;
        if name == LEARNT {
            console::note(format_args!("{LEARNT_NOTICE}\n"));
        }
        let mut args = args.clone();
        (args.model.model, args.tasks) = (Some(name), tasks);
        let of_model = run_model(home, args, program, is_first)?;
        code = if code == ExitCode::SUCCESS { of_model } else { code };
    }
    Ok(code)
}

/// The name of the demo's model in `configs/models/`.
const DEMO_MODEL: &str = "demo";

/// The models of a demo without a choice of model, each with those of the named tasks that it takes: of the suite's models those
/// that can run what was chosen. None if no model takes a named task; the default model then says why. GEO-Bench's demo as a
/// newcomer runs it, without a choice of tasks or protocols, has a learnt model too.
fn demo_models(home: &Home, args: &BenchArgs) -> Result<Vec<(String, Vec<String>)>> {
    let suite = with_demo_protocols(suite(home, &args.suite, &args.data)?);
    let mut models: Vec<(String, Vec<String>)> = Vec::new();
    if suite.name == "geobench" {
        if args.tasks.is_empty() && args.partitions.is_empty() && args.protocols.is_empty() {
            models.extend([DEMO_MODEL, LEARNT].map(|name| (name.to_owned(), Vec::new())));
        }
        return Ok(models);
    }
    for name in &suite.demo_models {
        let model = ModelConfig::load(home, name)?.in_suite(&suite.name, super::inputs(&args.model));
        let can_run = |tasks: &[String]| {
            let choice = Choice { tasks: tasks.to_vec(), ..choice(args) };
            let plans = plan::plan(&suite, &model, &choice, |typed| ProtocolConfig::load_named(home, typed));
            plans.is_ok_and(|plans| !plans.is_empty())
        };
        let taken = |task: &&String| can_run(std::slice::from_ref(*task));
        let tasks: Vec<String> = args.tasks.iter().filter(taken).cloned().collect();
        if !tasks.is_empty() || (args.tasks.is_empty() && can_run(&[])) {
            models.push((name.clone(), tasks));
        }
    }
    let all_taken = args.tasks.iter().all(|task| models.iter().any(|(_, tasks)| tasks.contains(task)));
    Ok(if all_taken { models } else { Vec::new() })
}

/// The suite with the protocols of its demo in the place of the default ones.
fn with_demo_protocols(mut suite: Suite) -> Suite {
    if !suite.demo_protocols.is_empty() {
        suite.default_protocols.clone_from(&suite.demo_protocols);
    }
    suite
}

/// Exit code of a run that did not wait for the cells that other processes hold.
pub(super) const CELLS_LEFT: u8 = 75;

/// Name of the log in the results folder of a suite.
pub(super) const LOG: &str = "bench.log";

/// Keeps a log beside the results: what the command says, with times.
pub(super) fn begin_log(folder: &Path, program: &Program) {
    let path = folder.join(LOG);
    if let Err(problem) = console::log_to(&path) {
        console::note(format_args!("warning: {}: no log is kept: {problem}", path.display()));
        return;
    }
    let revision = program.revision.as_deref().unwrap_or("unknown");
    console::log(format_args!(
        "terrabench {}, revision {revision}: {}",
        program.version,
        super::stopping::command()
    ));
}

/// Whether neither a model nor anything about it was chosen.
fn is_default_model(args: &BenchArgs) -> bool {
    let model = &args.model;
    model.model.is_none()
        && model.weights.is_none()
        && model.own.encoder.is_none()
        && args.features.is_none()
        && model.pooling.is_none()
        && model.normalization == strategies::DEFAULT
}

fn choice(args: &BenchArgs) -> Choice {
    Choice {
        tasks: args.tasks.clone(),
        partitions: args.partitions.clone(),
        protocols: args.protocols.clone(),
        seeds: args.seeds.clone(),
    }
}

/// Runs all cells of one model. `is_first`: no other model of this command ran before.
fn run_model(home: &Home, args: BenchArgs, program: &Program, is_first: bool) -> anyhow::Result<ExitCode> {
    let words = words::words_of_bench(&args);
    fingerprint::verify(args.data.verify);
    let mut suite = suite(home, &args.suite, &args.data)?;
    if args.demo {
        suite = with_demo_protocols(suite);
    }
    let model_name = args.model.model.as_deref().unwrap_or(if args.demo { DEMO_MODEL } else { "terrafm-b" });
    // An encoder on the command line has no file.
    let model_file = args.model.own.encoder.is_none().then_some(model_name);
    let tasks = suite.tasks.iter().map(|task| task.name.as_str());
    let vectors = args.features.as_deref().map(|folder| VectorFolder::open(folder, tasks)).transpose()?;
    let model = match &vectors {
        None => model_named(home, model_name, &suite, &args.model)?,
        Some(folder) => vector_model(folder, args.model.own.name.clone(), args.model.own.backbone.clone())?,
    };
    let choice = choice(&args);
    let shortening =
        Shortening { epochs: args.epochs, learning_rates: args.learning_rates, limit: args.limit };
    let protocol_configs = RefCell::new(BTreeMap::new());
    let typed_protocols = RefCell::new(BTreeMap::new());
    let load = |typed: &str| {
        let (name, protocol) = ProtocolConfig::load_named(home, typed)?;
        note_config(&mut protocol_configs.borrow_mut(), &name, &home.config("protocols", typed)?)?;
        if typed != name {
            typed_protocols.borrow_mut().insert(name.clone(), portable(typed));
        }
        let protocol = protocol.shortened(&name, &shortening)?;
        Ok::<_, crate::Error>((name, protocol))
    };
    let mut plans = plan::plan(&suite, &model, &choice, load)?;
    if let lacking @ [_, ..] = plan::without_sensor(&suite, &model, &choice).as_slice() {
        let model = format!("{} {}", model.name, model.backbone);
        console::note(format_args!("{model} has no such sensor, skipped: {}", lacking.join(", ")));
    }
    if let Some(folder) = &vectors {
        let (left, lacks) = run::vectors::narrow(folder, &choice, plans)?;
        lacks.iter().for_each(|lack| console::note(format_args!("{lack}")));
        plans = left;
    }
    let precision: Precision = args.model.precision.into();
    super::make_deterministic(&args.model)?;
    let mut devices = devices(&args.model.device, precision, &plans)?;
    let device = devices.remove(0);
    let threads = set_threads(args.model.threads)?;

    let data = if args.demo {
        // Only a task that was named must have a demo.
        let is_named = !choice.tasks.is_empty() && choice.tasks.iter().all(|name| name != plan::ALL);
        let has_demo = |plan: &TaskPlan| demo::has(&suite, &plan.task);
        if !is_named && plans.iter().any(has_demo) {
            plans.retain(has_demo);
        }
        plans.iter().try_for_each(|plan| demo::check(&suite, &plan.task))?;
        if is_first && model_name != LEARNT {
            console::note(format_args!("{DEMO_NOTICE}\n"));
        }
        Ok(demo::provide_for(&suite, &task_names(&plans), &cache_folder()?, args.demo_seed)?)
    } else {
        data_folder(&suite, args.data.data.as_ref(), &task_names(&plans))
    };
    let folder = args.out.join(if args.demo { format!("{}-demo", suite.name) } else { suite.name.clone() });
    let store = Store::open(&folder)?;
    if !args.dry_run {
        begin_log(&folder, program);
    }
    let command = CommandLine { words, chooses_cell: true, protocols: typed_protocols.into_inner() };
    let is_shipped = model.weights.as_ref().is_some_and(|weights| weights.shipped.is_some());
    let random = args.demo && model.architecture.has_parameters() && !is_shipped;
    let typed = args.model.weights.as_deref().or(random.then_some(DEMO_WEIGHTS));
    let weights = weights_named(home, model_name, &model, typed);
    let setting = Setting {
        suite: &suite,
        model: &model,
        weights: match weights {
            // Invalid --weights stop the run. A missing file only matters for cells that are not recorded yet.
            Err(error) if error.kind() == ErrorKind::Request && typed.is_some() => return Err(error.into()),
            weights => weights,
        },
        configs: configs(home, &suite.name, model_file, vectors.as_ref())?,
        vectors,
        allow_partial: args.model.allow_partial,
        data,
        demo: args.demo,
        input: input_options(home, &args.data, &args.model)?,
        inputs: super::inputs(&args.model),
        cache: feature_cache(&args.model),
        device,
        further_devices: devices,
        batch_sizes: super::batch_sizes(&args.model),
        device_name: args.model.device,
        precision,
        cache_limit: args.cache_limit,
        threads,
        fresh: args.fresh,
        program: program.clone(),
        command,
        protocol_configs: protocol_configs.into_inner(),
        beside: None,
    };
    let stale_after = Duration::from_secs_f64(args.sharing.stale_after);
    let shared = Sharing::new(&folder, |claims| Claims::new(claims, stale_after));
    let runner = Runner::new(&setting, &store)?.shared(shared);
    if args.dry_run {
        console::print(estimate::of(&runner, &setting, &plans, &store, &folder, true)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(missing) = runner.missing() {
        let mut cells = plans.iter().flat_map(|plan| plan.cells.iter().map(|cell| (&plan.task, cell)));
        if !cells.any(|(task, cell)| runner.recorded(task, cell).is_ok_and(|done| done.is_some())) {
            return Err(missing.clone().into());
        }
        console::note(format_args!("{missing}\nRecorded cells are listed without it.\n"));
    }
    if args.sharing.check_only {
        return check_only(&runner, &plans);
    }
    estimate::of(&runner, &setting, &plans, &store, &folder, false)?.check_space()?;
    let start = Instant::now();
    let mut written: Vec<PathBuf> = Vec::new();
    let mut failures: Vec<String> = Vec::new();
    let mut recorded: Vec<String> = Vec::new();
    // Several protocols say the same of a partition's samples.
    let mut warned = BTreeSet::new();
    let mut tell = |cell: &Cell, outcome: Result<Done>| {
        let name = format!("{} {} {} seed {}", cell.task, cell.partition, cell.protocol, cell.seed);
        match outcome {
            Ok(done) => {
                console::note(format_args!("{name}: {}", told(&done)));
                for note in &done.record.notes {
                    if warned.insert((cell.task.clone(), cell.partition.clone(), note.clone())) {
                        console::note(format_args!("  warning: {note}"));
                    }
                }
                recorded.push(done.record.fingerprint);
                written.push(done.path);
            }
            Err(error) if error.kind() == ErrorKind::Stopped => {
                console::note(format_args!("{name}: stopped before its end"));
            }
            Err(error) => {
                // Reported immediately, so that it is known even if a later cell aborts the run.
                console::note(format_args!("{name}: failed: {error}"));
                failures.push(format!("{name}: {error}"));
            }
        }
    };
    let shared = sharing::run(&runner, &plans, &args.sharing, &mut tell);
    let finished = recorded.len();
    let is_left = matches!(&shared, Ok(End { is_left: true, .. }));
    let plan_file = match shared {
        Err(error) if error.kind() == ErrorKind::Stopped => {
            let cells: usize = plans.iter().map(|plan| plan.cells.len()).sum();
            console::note(format_args!("{finished} of {cells} cells are recorded in {}", folder.display()));
            return Err(error.into());
        }
        // It was told with its cell.
        Err(_) => None,
        Ok(end) => end.plan_file,
    };
    let is_all = failures.is_empty() && !is_left;
    if let (Some(plan_file), Some(shared), true) = (plan_file, runner.sharing(), is_all) {
        shared.end(&plan_file, &recorded);
    }
    if args.model.profile {
        console::note(format_args!("\nTime of extraction by stage:\n{}", stages::describe(start.elapsed())));
    }
    let tables = match args.sharing.no_tables {
        true => Ok(Written::default()),
        false => report::write(&suite, home, &store, &folder, args.demo),
    };
    let Written { files, unreadable } = tables.unwrap_or_else(|error| {
        console::note(format_args!("tables: failed: {error}"));
        failures.push(format!("tables: {error}"));
        Written::default()
    });
    written.extend(files);

    let lines: Vec<String> = written.iter().map(|path| format!("  {}\n", path.display())).collect();
    console::tell(format_args!("\nRecords and tables:\n{}", lines.concat()));
    let code = used(&unreadable);
    if !failures.is_empty() {
        // Each was told in full when it happened.
        let first_lines: Vec<&str> = failures.iter().filter_map(|failure| failure.lines().next()).collect();
        let others = if finished > 0 { "; all others are recorded" } else { "" };
        bail!("{} failed{others}\n{}", failures.len(), first_lines.join("\n"));
    }
    Ok(if is_left { ExitCode::from(CELLS_LEFT) } else { code })
}

/// Says of each task whether its files, the weights and the encoder are there. Computes nothing.
fn check_only(runner: &Runner, plans: &[TaskPlan]) -> anyhow::Result<ExitCode> {
    let mut failures = Vec::new();
    for plan in plans {
        let (name, cells) = (&plan.task.name, plan.cells.len());
        match runner.check_task(plan) {
            Ok(()) => console::note(format_args!("{name}: {cells} cells can run")),
            Err(error) => {
                console::note(format_args!("{name}: {error}"));
                failures.push(format!("{name}: {error}"));
            }
        }
    }
    if !failures.is_empty() {
        let first_lines: Vec<&str> = failures.iter().filter_map(|failure| failure.lines().next()).collect();
        bail!("tasks that cannot run: {} of {}\n{}", failures.len(), plans.len(), first_lines.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Describes the model behind features from files, by the names on the command line, in the folder, or of the folder.
fn vector_model(
    folder: &VectorFolder,
    name: Option<String>,
    backbone: Option<String>,
) -> Result<ModelConfig> {
    let about = folder.about();
    let path = std::path::absolute(folder.path()).at(folder.path())?;
    let own = || path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.or_else(|| about.name.clone()).or_else(own).unwrap_or_default();
    let backbone = backbone.or_else(|| about.backbone.clone()).unwrap_or_default();
    let is_plain = |text: &str| text.chars().count() <= LONGEST_NAME && !text.chars().any(char::is_control);
    if name.trim().is_empty() || !is_plain(&name) || !is_plain(&backbone) {
        return Err(Error::request(format!(
            "expected a name of one line with up to {LONGEST_NAME} characters"
        ))
        .help("pass --name \"My model\""));
    }
    Ok(ModelConfig::of_vectors(name.trim(), backbone.trim()))
}

/// Characters that the name of a model may have.
const LONGEST_NAME: usize = 80;

/// blake3 hashes of the configuration files of suite, model (if it has one) and normalisation.
pub(super) fn configs(
    home: &Home,
    suite: &str,
    model: Option<&str>,
    vectors: Option<&VectorFolder>,
) -> Result<BTreeMap<String, String>> {
    let mut files = vec![("suite", home.suite(suite))];
    match vectors {
        Some(folder) => files.extend(folder.about_path().map(|path| ("model", path))),
        None => {
            if let Some(model) = model {
                files.push(("model", home.config("models", model)?));
            }
            files.push(("normalization", home.path("configs/normalization.toml")));
        }
    }
    files.into_iter().map(|(name, path)| Ok((name.to_owned(), hash(&path)?))).collect()
}

/// Stores the blake3 hash of a protocol's file under the protocol's name.
///
/// # Errors
/// If the file cannot be read, or another protocol of this run has the same name, so that their cells would be
/// indistinguishable.
pub(super) fn note_config(hashes: &mut BTreeMap<String, String>, name: &str, path: &Path) -> Result<()> {
    let hash = hash(path)?;
    match hashes.insert(name.to_owned(), hash.clone()) {
        Some(other) if other != hash => {
            Err(Error::request(format!("two different protocols are called `{name}`"))
                .help("rename one of the files"))
        }
        _ => Ok(()),
    }
}

fn hash(path: &Path) -> Result<String> {
    Ok(blake3::hash(&std::fs::read(path).at(path)?).to_hex().to_string())
}

fn task_names(plans: &[TaskPlan]) -> Vec<&str> {
    plans.iter().map(|plan| plan.task.name.as_str()).collect()
}

/// Formats a result as `accuracy 70.8 [65.1, 76.0]`.
fn told(done: &Done) -> String {
    let record = &done.record;
    let scale = record.metric.about().scale;
    let interval = record.interval;
    let interval =
        interval.map_or(String::new(), |i| format!(" [{}, {}]", scale.shown(i.low), scale.shown(i.high)));
    let reused = match (done.reused, done.unchecked) {
        (false, _) => "",
        (true, false) => ", recorded before",
        (true, true) => ", recorded before; data or weights are missing, so it was not verified",
    };
    let made = &record.provenance;
    let partial = if made.partial_weights() { format!(", {}", made.coverage()) } else { String::new() };
    format!("{} {}{interval}{partial}{reused}", record.metric, scale.shown(record.value))
}

/// Returns the devices, set to compute in `precision`. Protocols that train with gradients keep float32 weights and round the
/// factors of products to bfloat16; those on frozen features have the model itself in bfloat16, so that the two need runs of their
/// own.
fn devices(names: &str, precision: Precision, plans: &[TaskPlan]) -> crate::Result<Vec<Device>> {
    let cells = || plans.iter().flat_map(|plan| &plan.cells);
    let trains = |planned: &&PlannedCell| planned.protocol.needs().takes_setup();
    let Some(trained) = cells().find(trains).filter(|_| precision != Precision::F32) else {
        return device::several(names, precision);
    };
    let protocol = &trained.cell.protocol;
    let other = cells().find(|planned| !trains(planned));
    if precision == Precision::Tf32 {
        return Err(Error::request(format!("{protocol}: trains in float32 or bf16, found --precision tf32"))
            .help("use --precision bf16, or run it without --precision"));
    }
    if let Some(other) = other {
        return Err(Error::request(format!(
            "{protocol} trains with float32 weights, {} needs the model in bf16",
            other.cell.protocol
        ))
        .help("run them one after the other, each with its own --protocol"));
    }
    let devices = device::several(names, Precision::F32)?;
    if devices.iter().any(|device| device::is_host(device) || !device.supports_dtype(DType::BF16)) {
        return Err(Error::device(format!(
            "{protocol}: expected a device that trains in bf16, found device `{names}`"
        ))
        .help("use --device libtorch:cuda:INDEX or libtorch, or run it without --precision"));
    }
    autocast::switch(true);
    Ok(devices)
}
