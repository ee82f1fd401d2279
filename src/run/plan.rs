//! From what is asked for to cells: suite + model + protocols + partitions + seeds.

use crate::config::Protocol;
use crate::model::config::ModelConfig;
use crate::record::Cell;
use crate::task::{Metric, Suite, Table, TargetKind, Task};
use crate::{Error, Result};

/// Which part of a suite to run; an empty list means what the suite's tables hold.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    pub tasks: Vec<String>,
    pub partitions: Vec<String>,
    pub protocols: Vec<String>,
    pub seeds: Vec<u64>,
}

/// A task and its cells to come.
#[derive(Debug, Clone)]
pub struct TaskPlan {
    pub task: Task,
    /// Cells that share a partition are neighbours.
    pub cells: Vec<PlannedCell>,
}

/// A cell and how its protocol is set.
#[derive(Debug, Clone)]
pub struct PlannedCell {
    pub cell: Cell,
    pub protocol: Protocol,
}

/// The cells of `choice`, by task in the order of the tables, each once. What is not chosen is what the
/// tables of the chosen protocols hold (all tables, where none holds them); there a task is passed over whose
/// labels a protocol cannot score.
///
/// `load` reads a protocol by name or path, and tells its name.
///
/// # Errors
/// Where a task is unknown, a protocol cannot be read or cannot score a task that was asked for by name.
pub fn plan(
    suite: &Suite,
    model: &ModelConfig,
    choice: &Choice,
    load: impl Fn(&str) -> Result<(String, Protocol)>,
) -> Result<Vec<TaskPlan>> {
    let typed = if choice.protocols.is_empty() { &suite.default_protocols } else { &choice.protocols };
    let mut protocols: Vec<(String, Protocol)> = Vec::new();
    for name in once(typed) {
        let protocol = load(name)?;
        // A name and a path may be of one file.
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    let holds_one = |table: &&Table| protocols.iter().any(|(name, _)| table.protocols.contains(name));
    let mut tables: Vec<&Table> = suite.tables.iter().filter(holds_one).collect();
    if tables.is_empty() {
        tables = suite.tables.iter().collect();
    }
    let named = |asked: &[String], of: fn(&Table) -> &Vec<String>| -> Vec<String> {
        let names =
            if asked.is_empty() { once(tables.iter().flat_map(|table| of(table))) } else { once(asked) };
        names.into_iter().cloned().collect()
    };
    let tasks = named(&choice.tasks, |table| &table.tasks);
    let partitions = named(&choice.partitions, |table| &table.partitions);
    let seeds = if choice.seeds.is_empty() { &[0][..] } else { &choice.seeds };

    let mut plans = Vec::new();
    for name in &tasks {
        let task = suite.task(name)?;
        let mut fitting = Vec::new();
        let mut unfit = None;
        for (name, protocol) in &protocols {
            match check(task, name, protocol).and_then(|()| check_model(model, task, name, protocol)) {
                Ok(()) => fitting.push((name, protocol)),
                Err(error) => unfit = unfit.or(Some(error)),
            }
        }
        // A suite's own protocols are for its different kinds of tasks; what is asked for by name must fit.
        match unfit {
            Some(error)
                if !choice.tasks.is_empty() && (!choice.protocols.is_empty() || fitting.is_empty()) =>
            {
                return Err(error);
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
                    protocol: (*protocol).clone(),
                })
            })
            .collect();
        if !cells.is_empty() {
            plans.push(TaskPlan { task: task.clone(), cells });
        }
    }
    Ok(plans)
}

/// Names in their order, each once.
fn once<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
    let mut once: Vec<&String> = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

/// Whether the protocol needs of the model what it has.
fn check_model(model: &ModelConfig, task: &Task, name: &str, protocol: &Protocol) -> Result<()> {
    if !model.architecture.takes_stored_pixels() {
        model.sensor(task.input_sensor)?;
    }
    let maps = model.architecture.maps().len();
    // A model without maps has one vector per image and no tokens.
    let lacks = match protocol {
        Protocol::Upernet(_) if maps != 4 => Some(format!("needs 4 feature maps, got {maps}")),
        Protocol::SegmentationProbe(_) if maps == 0 => Some("needs patch tokens, got none".to_owned()),
        _ => None,
    };
    if let Some(lacks) = lacks.filter(|_| model.architecture.has_parameters()) {
        let problem = format!("{} {}: protocol `{name}` {lacks}", model.name, model.backbone);
        return Err(Error::request(problem).help("choose another model, or a task that labels images"));
    }
    match protocol {
        Protocol::Knn(_) | Protocol::LinearProbe(_) | Protocol::Logistic(_) | Protocol::Ridge(_) => Ok(()),
        Protocol::Finetune(_) | Protocol::SegmentationProbe(_) | Protocol::Upernet(_) => {
            if model.architecture.has_parameters() {
                return Ok(());
            }
            let problem = format!("protocol `{name}` needs an encoder, and {} is none", model.name);
            Err(Error::request(problem).help("choose knn, linear-probe or logistic"))
        }
    }
}

fn check(task: &Task, name: &str, protocol: &Protocol) -> Result<()> {
    if task.metric == Metric::MicroMap && matches!(protocol, Protocol::Knn(_)) {
        let problem =
            format!("protocol `{name}` gives no scores, which {} of {} needs", task.metric, task.name);
        return Err(Error::request(problem).help("choose a protocol that trains a head"));
    }
    if task.dates.is_some() && !matches!(protocol, Protocol::Upernet(_)) {
        let problem =
            format!("protocol `{name}` looks at single images, but {} compares two dates", task.name);
        return Err(Error::request(problem).help("choose --protocol upernet or upernet-finetune"));
    }
    let of_pixels = !protocol.scores_images();
    let predicts_numbers = matches!(protocol, Protocol::Knn(_) | Protocol::Ridge(_) | Protocol::Upernet(_));
    let predicts_classes = !matches!(protocol, Protocol::Ridge(_));
    match (of_pixels, task.target) {
        (_, TargetKind::Class | TargetKind::Labels | TargetKind::Mask) if !predicts_classes => {
            Err(Error::request(format!(
                "protocol `{name}` predicts numbers, but {} has {}",
                task.name,
                task.target.words()
            ))
            .help("choose --protocol knn, linear-probe or logistic"))
        }
        (_, TargetKind::Value | TargetKind::ValueMap) if !predicts_numbers => Err(Error::request(format!(
            "protocol `{name}` predicts no numbers, which {} asks for",
            task.name
        ))
        .help("choose --protocol knn or ridge for numbers per image, upernet for maps")),
        (false, TargetKind::Class | TargetKind::Labels | TargetKind::Value)
        | (true, TargetKind::Mask | TargetKind::ValueMap) => Ok(()),
        (false, TargetKind::ValueMap) => Err(Error::request(format!(
            "protocol `{name}` predicts one number per image, but {} has one per pixel",
            task.name
        ))
        .help("choose --protocol upernet")),
        (true, TargetKind::Value) => Err(Error::request(format!(
            "protocol `{name}` predicts one number per pixel, but {} has one per image",
            task.name
        ))
        .help("choose --protocol knn or ridge")),
        (false, TargetKind::Mask) => {
            Err(Error::request(format!("protocol `{name}` scores images, but {} labels pixels", task.name))
                .help("choose a classification task, or --protocol segmentation-probe or upernet"))
        }
        (true, TargetKind::Class | TargetKind::Labels) => {
            Err(Error::request(format!("protocol `{name}` scores pixels, but {} labels images", task.name))
                .help("choose a segmentation task"))
        }
    }
}
