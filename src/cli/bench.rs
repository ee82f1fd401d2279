//! `bench`: runs a suite's cells, writes records and tables, tells what was written.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;

use super::args::BenchArgs;
use super::progress::Shown;
use super::{data_folder, feature_cache, input_options, set_threads, suite, weights_named};
use crate::config::{ModelConfig, Protocol, Shortening};
use crate::data::{demo, fingerprint};
use crate::home::{Home, cache_folder};
use crate::model::device;
use crate::plan::{self, Choice};
use crate::record::Store;
use crate::report;
use crate::run::{Done, Runner, Setting, git_revision};

const DEMO_NOTICE: &str = "\
This is the demo: generated images and a small random model, to try the harness.
Its numbers say nothing about any model or benchmark.";

const DEMO_WEIGHTS: &str = "random:0";

/// Runs the command.
pub fn run(home: &Home, args: BenchArgs) -> anyhow::Result<()> {
    fingerprint::verify(args.data.verify);
    let suite = suite(home, &args.suite, &args.data)?;
    let model_name = args.model.model.as_deref().unwrap_or(if args.demo { "demo" } else { "terrafm-b" });
    let model = ModelConfig::load(home, model_name)?;
    let choice = Choice {
        tasks: args.tasks,
        partitions: args.partitions,
        protocols: args.protocols,
        seeds: args.seeds,
    };
    let shortening =
        Shortening { epochs: args.epochs, learning_rates: args.learning_rates, limit: args.limit };
    let load = |name: &str| {
        let (name, protocol) = Protocol::load_named(home, name)?;
        let protocol = protocol.shortened(&name, &shortening)?;
        Ok::<_, crate::Error>((name, protocol))
    };
    let plans = plan::plan(&suite, &model, &choice, load)?;
    let device = device::by_name(&args.model.device)?;
    let threads = set_threads(args.model.threads)?;

    let data = if args.demo {
        eprintln!("{DEMO_NOTICE}\n");
        Ok(demo::provide(&suite, &cache_folder()?)?)
    } else {
        let tasks: Vec<&str> = plans.iter().map(|plan| plan.task.name.as_str()).collect();
        data_folder(&suite, args.data.data.as_ref(), &tasks)
    };
    let folder = args.out.join(if args.demo { format!("{}-demo", suite.name) } else { suite.name.clone() });
    let store = Store::open(&folder)?;
    let typed = args.model.weights.as_deref().or(args.demo.then_some(DEMO_WEIGHTS));
    let weights = weights_named(model_name, &model, typed);
    let setting = Setting {
        suite: &suite,
        model: &model,
        // What was typed must be understood; what is not here may not be needed.
        weights: if typed.is_some() { Ok(weights?) } else { weights },
        allow_partial: args.model.allow_partial,
        data,
        demo: args.demo,
        input: input_options(home, &args.data, &args.model)?,
        cache: feature_cache(&args.model),
        device,
        device_name: args.model.device,
        batch_size: args.model.batch_size,
        cache_limit: args.cache_limit,
        threads,
        fresh: args.fresh,
        git_revision: git_revision(home.folder()),
    };
    let runner = Runner::new(&setting, &store)?;
    if let Some(missing) = runner.missing() {
        let mut cells = plans.iter().flat_map(|plan| plan.cells.iter().map(|cell| (&plan.task, cell)));
        if !cells.any(|(task, cell)| runner.recorded(task, cell).is_ok_and(|done| done.is_some())) {
            return Err(missing.clone().into());
        }
        eprintln!("{missing}\nCells that are recorded are listed without it.\n");
    }
    let mut written: Vec<PathBuf> = Vec::new();
    let mut failures: Vec<String> = Vec::new();
    for plan in &plans {
        for (cell, outcome) in runner.run_task(plan, &Shown::new(&plan.task.name)) {
            let name = format!("{} {} {} seed {}", cell.task, cell.partition, cell.protocol, cell.seed);
            match outcome {
                Ok(done) => {
                    eprintln!("{name}: {}", told(&done));
                    written.push(done.path);
                }
                Err(error) => {
                    eprintln!("{name}: failed");
                    failures.push(format!("{name}: {error}"));
                }
            }
        }
    }
    written.extend(report::write(&suite, home, &store, &folder, args.demo)?);

    let mut out = std::io::stdout().lock();
    writeln!(out, "\nRecords and tables:")?;
    for path in &written {
        writeln!(out, "  {}", path.display())?;
    }
    if !failures.is_empty() {
        bail!("{} of the cells failed; the others are recorded\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

/// `accuracy 70.8 [65.1, 76.0]`.
fn told(done: &Done) -> String {
    let record = &done.record;
    let interval = record.interval.map_or(String::new(), |i| format!(" [{:.1}, {:.1}]", i.low, i.high));
    let reused = match (done.reused, done.unchecked) {
        (false, _) => "",
        (true, false) => ", recorded before",
        (true, true) => ", recorded before; data or weights are not here to compare with",
    };
    format!("{} {:.1}{interval}{reused}", record.metric, record.value)
}
