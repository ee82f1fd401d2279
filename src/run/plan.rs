//! Turns the user's choice into cells: suite + model + protocols + partitions + seeds.

use crate::model::config::ModelConfig;
use crate::protocol::{Needs, Protocol, ProtocolConfig};
use crate::record::Cell;
use crate::task::{Suite, Table, TargetKind, Task, TaskImage};
use crate::{Error, Result};

/// The part of a suite to run. See [`plan()`] for the meaning of empty lists.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Names of tasks; empty for those of the tables, `all` for every task of the suite.
    pub tasks: Vec<String>,
    /// Names of partitions; empty for those of the tables.
    pub partitions: Vec<String>,
    /// Names or paths of protocols; empty for the suite's default protocols, or those that its code uses for the model.
    pub protocols: Vec<String>,
    /// Seeds; empty for seed 0.
    pub seeds: Vec<u64>,
}

/// In place of the names of tasks: every task of the suite.
pub(crate) const ALL: &str = "all";

/// Number of feature maps that the protocols on maps need.
pub(crate) const MAPS: usize = 4;

/// The planned cells of a task.
#[derive(Debug, Clone)]
pub struct TaskPlan {
    /// The task.
    pub task: Task,
    /// Its cells; those of the same partition are adjacent.
    pub cells: Vec<PlannedCell>,
}

/// A cell with its protocol's configuration.
#[derive(Debug, Clone)]
pub struct PlannedCell {
    /// The cell.
    pub cell: Cell,
    /// The configuration of its protocol.
    pub protocol: ProtocolConfig,
}

/// Returns the cells of `choice`, each once, by task in the order of the tables.
///
/// Empty lists of tasks and partitions stand for those of the tables that contain a chosen protocol (of all tables if none
/// does). Tasks that were not chosen by name are skipped if a protocol cannot score their labels.
///
/// `load` reads a protocol by name or path, and returns its name and configuration.
///
/// # Errors
/// If a task is unknown, or a protocol cannot be read or cannot score a task that was chosen by name.
pub fn plan(
    suite: &Suite,
    model: &ModelConfig,
    choice: &Choice,
    load: impl Fn(&str) -> Result<(String, ProtocolConfig)>,
) -> Result<Vec<TaskPlan>> {
    let typed = if choice.protocols.is_empty() { &suite.default_protocols } else { &choice.protocols };
    // The suite's own code may measure this model otherwise.
    let replaced = |name: &'_ String| match model.route.protocols.get(name) {
        Some(other) if choice.protocols.is_empty() => other.clone(),
        _ => name.clone(),
    };
    let typed: Vec<String> = typed.iter().map(replaced).collect();
    let mut protocols: Vec<(String, ProtocolConfig)> = Vec::new();
    for name in once(&typed) {
        let protocol = load(name)?;
        // A name and a path may denote the same file.
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    let run = || suite.tables.iter().filter(|table| table.is_run);
    let holds_one = |table: &&Table| protocols.iter().any(|(name, _)| table.protocols.contains(name));
    let mut tables: Vec<&Table> = run().filter(holds_one).collect();
    if tables.is_empty() {
        tables = run().collect();
    }
    let every_task = choice.tasks.iter().any(|name| name == ALL);
    // Tasks that were not chosen one by one are left out if they do not suit the protocol or the model.
    let are_named = !choice.tasks.is_empty() && !every_task;
    let named = |asked: &[String], of: fn(&Table) -> &Vec<String>| -> Vec<String> {
        let names =
            if asked.is_empty() { once(tables.iter().flat_map(|table| of(table))) } else { once(asked) };
        names.into_iter().cloned().collect()
    };
    let tasks = match every_task {
        true => suite.tasks.iter().map(|task| task.name.clone()).collect(),
        false => named(&choice.tasks, |table| &table.tasks),
    };
    let partitions = named(&choice.partitions, |table| &table.partitions);
    let seeds = if choice.seeds.is_empty() { &[0][..] } else { &choice.seeds };

    let mut plans = Vec::new();
    // Why the model does not suit a task that the protocol scores, for a run of which nothing is left.
    let mut refused = None;
    for name in &tasks {
        let task = suite.task(name)?;
        let mut fitting = Vec::new();
        let mut unfit = None;
        // Before a protocol that does not score the task, a sensor that the model lacks.
        let mut of_this_task = None;
        for (name, protocol) in &protocols {
            let fits = check(task, name, &**protocol);
            let of_model = fits.is_ok();
            match fits.and_then(|()| check_model(model, task, name, &**protocol)) {
                Ok(()) => fitting.push((name, protocol)),
                Err(error) => {
                    if of_model {
                        of_this_task = of_this_task.or_else(|| Some(error.clone()));
                        refused = refused.or_else(|| Some(error.clone()));
                    }
                    unfit = unfit.or(Some(error));
                }
            }
        }
        // A suite's default protocols need not score all of its tasks, but explicitly chosen ones must.
        match unfit {
            Some(error) if are_named && (!choice.protocols.is_empty() || fitting.is_empty()) => {
                return Err(of_this_task.unwrap_or(error));
            }
            _ => {}
        }
        let cells: Vec<PlannedCell> = partitions
            .iter()
            .flat_map(|partition| fitting.iter().map(move |(name, protocol)| (partition, name, protocol)))
            .flat_map(|(partition, name, protocol)| {
                seeds.iter().map(move |&seed| PlannedCell {
                    cell: Cell {
                        suite: suite.name.clone(),
                        task: task.name.clone(),
                        partition: partition.clone(),
                        protocol: (*name).clone(),
                        model: model.name.clone(),
                        backbone: model.backbone.clone(),
                        seed,
                    },
                    protocol: protocol.suited_to(&task.name),
                })
            })
            .collect();
        if !cells.is_empty() {
            plans.push(TaskPlan { task: task.clone(), cells });
        }
    }
    match refused {
        Some(error) if plans.is_empty() => Err(error),
        _ => Ok(plans),
    }
}

/// Lists the tasks of the tables that contain a chosen protocol whose sensor the model has no way to take, such as `cloud-s3
/// (s3-olci)`. Runs skip them unless they are chosen by name, which is an error.
pub fn without_sensor(suite: &Suite, model: &ModelConfig, choice: &Choice) -> Vec<String> {
    let every_task = choice.tasks.iter().any(|name| name == ALL);
    if (!choice.tasks.is_empty() && !every_task) || model.architecture.takes_every_stored_band() {
        return Vec::new();
    }
    let protocols = if choice.protocols.is_empty() { &suite.default_protocols } else { &choice.protocols };
    let is_chosen =
        |table: &&Table| table.is_run && table.protocols.iter().any(|name| protocols.contains(name));
    let tables = suite.tables.iter().filter(is_chosen);
    let named = match every_task {
        true => suite.tasks.iter().map(|task| &task.name).collect(),
        false => once(tables.flat_map(|table| &table.tasks)),
    };
    let lacking = |task: &Task| {
        let lacks = |image: &TaskImage| model.taken(task, image).is_err();
        let image = task.sources().into_iter().find(lacks)?;
        Some(format!("{} ({})", task.name, image.input_sensor))
    };
    named.into_iter().filter_map(|name| lacking(suite.task(name).ok()?)).collect()
}

/// Removes repeated names and keeps the order.
fn once<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
    let mut once: Vec<&String> = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

/// Checks that the model provides what the protocol needs.
fn check_model(model: &ModelConfig, task: &Task, name: &str, protocol: &dyn Protocol) -> Result<()> {
    // What files hold differs from task to task: see `vectors::narrow`.
    if model.architecture.is_vectors() {
        return Ok(());
    }
    if !model.architecture.takes_every_stored_band() {
        for image in task.sources() {
            model.taken(task, &image)?;
        }
    }
    let (needs, maps) = (protocol.needs(), model.architecture.maps().len());
    if let (true, Some(_)) = (needs.trains_encoder(), model.architecture.outside()) {
        let problem = format!(
            "protocol `{name}` trains the model with gradients, but a model of kind `{}` gives only features",
            model.architecture.kind()
        );
        return Err(Error::request(problem).help(
            "choose a protocol on frozen features: knn, linear-probe, logistic, segmentation-probe or upernet",
        ));
    }
    let is_outside = model.architecture.outside().is_some();
    if needs != Needs::Pooled && !is_outside && !model.architecture.has_parameters() {
        let problem = format!("protocol `{name}` needs an encoder, but {} has no parameters", model.name);
        return Err(Error::request(problem).help("choose knn, linear-probe or logistic"));
    }
    // Only the opened encoder knows what it gives.
    if !model.architecture.states_maps() {
        return Ok(());
    }
    // A model without maps has one vector per image and no tokens.
    let lacks = match needs {
        Needs::Maps | Needs::TrainableMaps if maps != MAPS => {
            format!("needs {MAPS} feature maps, got {maps}")
        }
        Needs::Tokens if !model.architecture.gives_tokens() => "needs patch tokens, got none".to_owned(),
        _ => return Ok(()),
    };
    let problem = format!("{} {}: protocol `{name}` {lacks}", model.name, model.backbone);
    Err(Error::request(problem).help("choose another model, or a task with one label per image"))
}

/// Checks that the protocol can score the task.
fn check(task: &Task, name: &str, protocol: &dyn Protocol) -> Result<()> {
    if let Some(problem) = protocol.misfit(task) {
        let problem = format!("protocol `{name}` cannot score {}: it {problem}", task.name);
        return Err(Error::request(problem).help("choose a protocol that trains a head, or retrieval"));
    }
    if protocol.targets().contains(&task.target) {
        return Ok(());
    }
    let scored: Vec<String> = protocol.targets().iter().map(TargetKind::to_string).collect();
    let problem =
        format!("protocol `{name}` scores {}, but {} has {}", scored.join(" or "), task.name, task.target);
    Err(Error::request(problem).help(match task.target {
        TargetKind::Class | TargetKind::Labels => "choose --protocol knn, linear-probe, logistic or finetune",
        TargetKind::Mask => "choose --protocol segmentation-probe, upernet or upernet-finetune",
        TargetKind::Value => "choose --protocol knn or ridge",
        TargetKind::ValueMap => "choose --protocol upernet or upernet-finetune",
    }))
}
