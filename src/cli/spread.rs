//! `spread`: one model on one task, one choice changed at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;

use super::args::{DataArgs, MissingBands, ModelArgs, SpreadArgs};
use super::bench::{configs, note_config};
use super::progress::Shown;
use super::{
    data_folder, feature_cache, input_options, model_named, set_threads, suite, weights_named, words,
};
use crate::canvas::{pdf, png, svg};
use crate::console;
use crate::demo;
use crate::device::{self, Precision};
use crate::error::AtPath;
use crate::features::InputOptions;
use crate::files::write_atomically;
use crate::home::{Home, cache_folder};
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;
use crate::program::Program;
use crate::progress::Progress;
use crate::protocol::ProtocolConfig;
use crate::record::Store;
use crate::report::pictures::spread as picture;
use crate::report::spread::{Measured, Spread, SpreadStrip, SpreadValue, published_lines};
use crate::run::command::CommandLine;
use crate::run::plan::{self, Choice, TaskPlan};
use crate::run::spread::{Aspect, Strip, View, Wanted, fitting_protocols, strips};
use crate::run::{Done, Runner, Setting};
use crate::task::{Suite, Task};
use crate::{Error, Result};

/// Images that are encoded to estimate how long a run takes.
const TIMED_IMAGES: usize = 16;
/// PNG pixels per unit of the picture, as in the report.
const SCALE: f64 = 1.5;

/// Runs the command.
pub fn run(home: &Home, args: Box<SpreadArgs>, program: &Program) -> anyhow::Result<ExitCode> {
    let data_args = data_args(&args);
    let suite = suite(home, &args.suite, &data_args)?;
    let task = suite.task(&args.task)?.clone();
    let model_name = args.model.model.clone().unwrap_or_else(|| "terrafm-b".to_owned());
    let model = model_named(home, &model_name, &suite, &args.model)?;
    if args.model.own.encoder.is_some() {
        bail!("spread varies models of configs/models/\nhelp: leave out --encoder");
    }
    let precision: Precision = args.model.precision.into();
    let options = input_options(home, &data_args, &args.model)?;

    let (mut protocols, training) = fitting_protocols(home, &suite, &task, &model)?;
    let mut training_left_out = training;
    if precision != Precision::F32 {
        // Protocols on maps train with gradients, in float32.
        let is_frozen =
            |name: &String| Ok::<_, Error>(!ProtocolConfig::load(home, name)?.needs().takes_setup());
        for name in std::mem::take(&mut protocols) {
            if is_frozen(&name)? { protocols.push(name) } else { training_left_out.push(name) }
        }
    }
    let base = View::of(&base_protocol(&args, &suite, &task, &protocols)?);
    let second = args.beside.as_ref().map(|name| second(home, &args, name, &suite)).transpose()?;
    let vary = varied(&args)?;
    let cross = crossed(&args)?;
    let beside_name = second.as_ref().map(|(model, _, _)| format!("{} {}", model.name, model.backbone));
    let normalization = options.normalization_of(&suite, &task, &model).to_owned();
    let wanted = Wanted {
        suite: &suite,
        task: &task,
        model: &model,
        base: &base,
        normalization: &normalization,
        strategies: &options.strategies,
        protocols: &protocols,
        all_normalizations: args.all_normalizations,
        depths: &args.depths,
        sizes: &args.sizes,
        beside: beside_name.as_deref(),
        vary: &vary,
        cross: &cross,
    };
    let (strips, mut notes) = strips(&wanted);
    if !training_left_out.is_empty() {
        notes.push(format!(
            "Left out, as they train with gradients{}: {}.",
            if precision == Precision::F32 { " and take long" } else { " in float32" },
            training_left_out.join(", ")
        ));
    }
    if strips.is_empty() {
        return Err(Error::request(format!("nothing to vary: {}", notes.join("; "))).into());
    }

    super::make_deterministic(&args.model)?;
    let mut devices = device::several(&args.model.device, precision)?;
    let device = devices.remove(0);
    let threads = set_threads(args.model.threads)?;
    let data: Result<PathBuf> = match args.demo {
        true => Ok(demo::provide_for(&suite, &[&task.name], &cache_folder()?, 0)?),
        false => data_folder(&suite, args.data.as_ref(), &[&task.name]),
    };
    let folder = args.out.join(if args.demo { format!("{}-demo", suite.name) } else { suite.name.clone() });
    let store = Store::open(&folder)?;
    if !args.dry_run {
        super::bench::begin_log(&folder, program);
    }
    let weights = weights(home, &model_name, &model, args.model.weights.as_deref(), args.demo);
    let command = CommandLine { words: words::words_of_spread(&args), ..CommandLine::default() };
    let run = Prepared { home, args: &args, task: &task.name };
    let own_configs = configs(home, &suite.name, Some(&model_name), None)?;
    let views = distinct(&strips);
    console::note(format_args!(
        "to be compared: {} values; choices: {}; cells: {}; inputs: {}",
        strips.iter().map(|strip| strip.cells.len()).sum::<usize>(),
        strips.len(),
        views.iter().map(|(_, protocols)| protocols.len()).sum::<usize>(),
        views.len()
    ));
    notes.iter().for_each(|note| console::note(format_args!("{note}")));

    let mut outcomes: Vec<(View, Result<Done, Error>)> = Vec::new();
    let mut estimated = false;
    for (place, (view, names)) in views.iter().enumerate() {
        let here = (|| -> Result<Vec<(View, Result<Done>)>> {
            let suite_here = view.suite(&suite);
            let model_here = view.model(&model, &task)?;
            let task_here = suite_here.task(&task.name)?.clone();
            let input = InputOptions {
                normalization: view.normalization.clone().unwrap_or_else(|| options.normalization.clone()),
                channels: view.channels.clone(),
                ..options.clone()
            };
            let (plans, protocol_configs) = run.plan(&suite_here, &model_here, names)?;
            let of = |model, weights: Result<Weights>, input, configs, beside| Setting {
                suite: &suite_here,
                model,
                weights,
                vectors: None,
                allow_partial: args.model.allow_partial,
                data: data.clone(),
                demo: args.demo,
                input,
                inputs: super::inputs(&args.model),
                device: device.clone(),
                further_devices: devices.clone(),
                device_name: args.model.device.clone(),
                precision,
                batch_sizes: super::batch_sizes(&args.model),
                cache_limit: 4_000_000_000,
                threads,
                fresh: args.fresh,
                cache: feature_cache(&args.model),
                program: program.clone(),
                command: command.clone(),
                configs,
                protocol_configs: protocol_configs.clone(),
                beside,
            };
            let other = match &second {
                Some((model, weights, name)) if view.beside => {
                    let configs = configs(home, &suite.name, Some(name), None)?;
                    let input = InputOptions { normalization: "default".to_owned(), ..options.clone() };
                    Some(of(model, weights.clone(), input, configs, None))
                }
                _ => None,
            };
            let setting = of(&model_here, weights.clone(), input, own_configs.clone(), other.as_ref());
            let runner = Runner::new(&setting, &store)?;
            let Some(plan) = plans.first() else {
                return Err(Error::request(format!("no protocol of {} fits", names.join(", "))));
            };
            let is_new = |cell| runner.recorded(&task_here, cell).map(|done| done.is_none());
            let new =
                plan.cells.iter().map(is_new).collect::<Result<Vec<_>>>()?.into_iter().filter(|new| *new);
            if new.count() > 0 && !estimated {
                estimated = true;
                run.estimate(&runner, &task_here, &model_here, &views[place..])?;
            }
            if args.dry_run {
                return Ok(Vec::new());
            }
            let progress: &dyn Progress = &Shown::new(&format!("{} {view}", task.name));
            let done = runner.run_task(plan, progress).into_iter();
            Ok(done.map(|(cell, done)| (View { protocol: cell.protocol, ..view.clone() }, done)).collect())
        })();
        match here {
            Ok(done) => {
                for (view, done) in done {
                    match &done {
                        Ok(done) => console::note(format_args!(
                            "{} {}, {view}: {}{}",
                            task.name,
                            view.protocol,
                            shown(done),
                            if done.reused { ", recorded before" } else { "" }
                        )),
                        Err(error) => console::note(format_args!(
                            "{} {}, {view}: failed: {error}",
                            task.name, view.protocol
                        )),
                    }
                    if let Some(error) = done.as_ref().err().filter(|error| error.kind().ends_the_run()) {
                        return Err(error.clone().into());
                    }
                    outcomes.push((view, done));
                }
            }
            Err(error) if error.kind().ends_the_run() => return Err(error.into()),
            Err(error) => {
                console::note(format_args!("{}, {view}: failed: {error}", task.name));
                outcomes.extend(
                    names
                        .iter()
                        .map(|name| (View { protocol: name.clone(), ..view.clone() }, Err(error.clone()))),
                );
            }
        }
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some((_, Err(error))) = outcomes.iter().find(|(_, done)| done.is_err())
        && outcomes.iter().all(|(_, done)| done.is_err())
    {
        return Err(error.clone().into());
    }
    let mut spread = Spread {
        model: format!("{} {}", model.name, model.backbone),
        task: task.title.clone(),
        partition: args.partition.clone(),
        demo: args.demo,
        strips: strips.iter().map(|strip| filled(strip, &outcomes)).collect(),
        published: Vec::new(),
        notes,
    };
    let has_published_weights = weights.as_ref().is_ok_and(|weights| matches!(weights, Weights::File(_)));
    if let (false, true, Some(metric)) = (args.demo, has_published_weights, spread.metric()) {
        spread.published = published_lines(home, &suite, &model, &task.name, &args.partition, metric)?;
    }
    let written = write(&spread, &folder, &file_name(&model_name, &task.name, &args))?;
    let lines: Vec<String> = written.iter().map(|path| format!("  {path}\n")).collect();
    console::tell(format_args!("\nTable and picture:\n{}", lines.concat()));
    let failed = outcomes.iter().filter(|(_, done)| done.is_err()).count();
    if failed > 0 {
        console::note(format_args!("{failed} cells have no value; the table says why"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What all inputs of a run share.
struct Prepared<'a> {
    home: &'a Home,
    args: &'a SpreadArgs,
    task: &'a str,
}

impl Prepared<'_> {
    /// Plans the cells of one input; also returns the hashes of the protocols' files.
    fn plan(
        &self,
        suite: &Suite,
        model: &ModelConfig,
        protocols: &[String],
    ) -> Result<(Vec<TaskPlan>, BTreeMap<String, String>)> {
        let mut hashes = BTreeMap::new();
        for typed in protocols {
            let (name, _) = ProtocolConfig::load_named(self.home, typed)?;
            note_config(&mut hashes, &name, &self.home.config("protocols", typed)?)?;
        }
        let choice = Choice {
            tasks: vec![self.task.to_owned()],
            partitions: vec![self.args.partition.clone()],
            protocols: protocols.to_vec(),
            seeds: vec![self.args.seed],
        };
        let plans = plan::plan(suite, model, &choice, |typed| ProtocolConfig::load_named(self.home, typed))?;
        Ok((plans, hashes))
    }

    /// Says how many inputs are left and about how long their features take, from the first images.
    fn estimate(
        &self,
        runner: &Runner,
        task: &Task,
        model: &ModelConfig,
        left: &[(View, Vec<String>)],
    ) -> Result<()> {
        let (seconds, images) = runner.seconds_per_image(task, &self.args.partition, TIMED_IMAGES)?;
        let side = model.side(task) as f64;
        let blocks = model.architecture.blocks().unwrap_or(1) as f64;
        // The arithmetic grows at least with the number of pixels and of blocks.
        let share = |view: &View| {
            let pixels = view.size.map_or(1.0, |other| (other as f64 / side).powi(2));
            let depth = view.depth.map_or(1.0, |other| other as f64 / blocks);
            let sweep = if view.normalization.as_deref() == Some("sweep") { 20.0 } else { 1.0 };
            pixels * depth * sweep
        };
        let shares: f64 = left.iter().map(|(view, _)| share(view)).sum();
        let all = seconds * images as f64 * shares;
        console::note(format_args!(
            "{:.2} images per second, measured with {TIMED_IMAGES} images of the first input; at that rate the features of the {} \
             inputs that may be left ({images} images each) take about {}, if none are in the cache. Scoring comes on top: \
             seconds per cell for knn, minutes for probes and regressions.",
            1.0 / seconds.max(1e-9),
            left.len(),
            duration(all)
        ));
        Ok(())
    }
}

/// Formats seconds as `40 seconds`, `12 minutes` or `3.5 hours`.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{:.0} seconds", s.max(1.0)),
        s if s < 5400.0 => format!("{:.0} minutes", s / 60.0),
        s => format!("{:.1} hours", s / 3600.0),
    }
}

fn data_args(args: &SpreadArgs) -> DataArgs {
    DataArgs {
        data: args.data.clone(),
        bands: args.bands,
        missing_bands: MissingBands::AsTask,
        channels: "all".to_owned(),
        sensor: None,
        verify: false,
    }
}

/// Chooses the protocol with which the other choices are varied.
fn base_protocol(args: &SpreadArgs, suite: &Suite, task: &Task, fitting: &[String]) -> Result<String> {
    let listed = fitting.join(", ");
    match &args.protocol {
        Some(name) if fitting.contains(name) => Ok(name.clone()),
        Some(name) => Err(Error::request(format!(
            "protocol `{name}` does not score {} with frozen features of this model",
            task.name
        ))
        .help(format!("choose one of {listed}"))),
        None => {
            let first = suite.default_protocols.iter().chain(fitting).find(|name| fitting.contains(name));
            first.cloned().ok_or_else(|| {
                Error::request(format!("no protocol scores {} with frozen features of this model", task.name))
                    .help("choose another task or model")
            })
        }
    }
}

/// Returns the choices to vary.
fn varied(args: &SpreadArgs) -> Result<Vec<Aspect>> {
    if args.channels {
        return Ok(vec![Aspect::Channels]);
    }
    if args.vary.is_empty() {
        if !args.cross.is_empty() {
            return Ok(Vec::new());
        }
        let is_usual = |aspect: &Aspect| {
            *aspect != Aspect::Channels && (*aspect != Aspect::Beside || args.beside.is_some())
        };
        return Ok(Aspect::ALL.into_iter().filter(is_usual).collect());
    }
    let mut aspects = Vec::new();
    for text in &args.vary {
        let aspect = text.parse()?;
        if !aspects.contains(&aspect) {
            aspects.push(aspect);
        }
    }
    Ok(aspects)
}

fn crossed(args: &SpreadArgs) -> Result<Vec<(Aspect, Aspect)>> {
    let pair = |text: &String| {
        let problem = || {
            Error::request(format!("--cross: expected two choices, found `{text}`"))
                .help("such as --cross pooling,normalization")
        };
        let (a, b) = text.split_once(',').ok_or_else(problem)?;
        let (a, b): (Aspect, Aspect) = (a.trim().parse()?, b.trim().parse()?);
        if a == b { Err(problem()) } else { Ok((a, b)) }
    };
    args.cross.iter().map(pair).collect()
}

/// Loads the second model's file and finds its weights.
fn second(
    home: &Home,
    args: &SpreadArgs,
    name: &str,
    suite: &Suite,
) -> Result<(ModelConfig, Result<Weights>, String)> {
    let own = ModelArgs { model: Some(name.to_owned()), pooling: None, ..args.model.clone() };
    let model = model_named(home, name, suite, &own)?;
    let weights = weights(home, name, &model, args.beside_weights.as_deref(), args.demo);
    Ok((model, weights, name.to_owned()))
}

/// Finds weights, random ones for demos of models without any.
fn weights(
    home: &Home,
    name: &str,
    model: &ModelConfig,
    typed: Option<&str>,
    is_demo: bool,
) -> Result<Weights> {
    let is_shipped = model.weights.as_ref().is_some_and(|weights| weights.shipped.is_some());
    let random = is_demo && model.architecture.has_parameters() && !is_shipped;
    weights_named(home, name, model, typed.or(random.then_some("random:0")))
}

/// Returns the distinct inputs with the protocols that score each, in the order of the strips.
fn distinct(strips: &[Strip]) -> Vec<(View, Vec<String>)> {
    let mut views: Vec<(View, Vec<String>)> = Vec::new();
    for cell in strips.iter().flat_map(|strip| &strip.cells) {
        let (input, protocol) = (cell.view.of_any_protocol(), &cell.view.protocol);
        match views.iter_mut().find(|(view, _)| *view == input) {
            Some((_, protocols)) if protocols.contains(protocol) => {}
            Some((_, protocols)) => protocols.push(protocol.clone()),
            None => views.push((input, vec![protocol.clone()])),
        }
    }
    views
}

/// Fills a strip with the outcomes of its cells.
fn filled(strip: &Strip, outcomes: &[(View, Result<Done>)]) -> SpreadStrip {
    let value = |cell: &crate::run::spread::StripCell| {
        let found = outcomes.iter().find(|(view, _)| *view == cell.view);
        let outcome = match found {
            Some((_, Ok(done))) => {
                let file = done.path.file_name().map(|name| name.to_string_lossy().into_owned());
                Ok(Measured::of(&done.record, file.unwrap_or_default()))
            }
            Some((_, Err(error))) => Err(error.to_string().lines().next().unwrap_or_default().to_owned()),
            None => Err("not run".to_owned()),
        };
        SpreadValue { label: cell.label.clone(), is_default: cell.is_default, outcome }
    };
    SpreadStrip { title: strip.title.clone(), values: strip.cells.iter().map(value).collect() }
}

fn shown(done: &Done) -> String {
    let record = &done.record;
    format!("{} {}", record.metric, record.metric.about().scale.shown(record.value))
}

/// Names the files of a spread: model, task, partition and what was varied.
fn file_name(model: &str, task: &str, args: &SpreadArgs) -> String {
    let model =
        Path::new(model).file_stem().map_or(model.to_owned(), |stem| stem.to_string_lossy().into_owned());
    let mut parts = vec![model, task.to_owned()];
    if args.partition != "default" {
        parts.push(args.partition.clone());
    }
    if args.channels {
        parts.push("channels".to_owned());
    }
    parts.extend(args.vary.iter().cloned());
    parts.extend(args.cross.iter().map(|pair| pair.replace(',', "-x-")));
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    parts.join(".").chars().map(plain).collect()
}

/// Writes table and picture; returns the paths.
fn write(spread: &Spread, folder: &Path, name: &str) -> Result<Vec<String>> {
    let folder = folder.join("spread");
    std::fs::create_dir_all(&folder).at(&folder)?;
    let mut files = vec![
        (format!("{name}.md"), spread.markdown(&format!("{name}.svg")).into_bytes()),
        (format!("{name}.csv"), spread.csv()?),
    ];
    if let Some(picture) = picture::draw(spread) {
        files.push((format!("{name}.svg"), svg(&picture).into_bytes()));
        files.push((format!("{name}.png"), png(&picture, SCALE)?));
        files.push((format!("{name}.pdf"), pdf(&picture)?));
    }
    let mut paths = Vec::new();
    for (file, bytes) in files {
        let path = folder.join(file);
        write_atomically(&path, &bytes)?;
        paths.push(path.display().to_string());
    }
    Ok(paths)
}
