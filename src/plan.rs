//! From what is asked for to cells: suite + model + protocols + partitions + seeds.

use crate::config::{ModelConfig, Protocol};
use crate::record::Cell;
use crate::suite::{LabelKind, Suite, Task};
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

/// The cells of `choice`, by task in the order of the tables, each once.
///
/// `load` reads a protocol by name.
///
/// # Errors
/// Where a task is unknown, a protocol cannot be read or cannot score the task's labels.
pub fn plan(
    suite: &Suite,
    model: &ModelConfig,
    choice: &Choice,
    load: impl Fn(&str) -> Result<Protocol>,
) -> Result<Vec<TaskPlan>> {
    let named = |asked: &[String], tabled: &mut dyn Iterator<Item = &String>| -> Vec<String> {
        let all: Vec<&String> = if asked.is_empty() { tabled.collect() } else { asked.iter().collect() };
        let mut once: Vec<String> = Vec::new();
        for name in all {
            if !once.contains(name) {
                once.push(name.clone());
            }
        }
        once
    };
    let tasks = named(&choice.tasks, &mut suite.tables.iter().flat_map(|table| &table.tasks));
    let partitions = named(&choice.partitions, &mut suite.tables.iter().flat_map(|table| &table.partitions));
    let protocols = named(&choice.protocols, &mut suite.tables.iter().map(|table| &table.protocol))
        .into_iter()
        .map(|name| load(&name).map(|protocol| (name, protocol)))
        .collect::<Result<Vec<_>>>()?;
    let seeds = if choice.seeds.is_empty() { &[0][..] } else { &choice.seeds };

    let mut plans = Vec::new();
    for name in &tasks {
        let task = suite.task(name)?;
        let mut cells = Vec::new();
        for partition in &partitions {
            for (protocol_name, protocol) in &protocols {
                check(task, protocol_name, protocol)?;
                for &seed in seeds {
                    let cell = Cell {
                        suite: suite.name.clone(),
                        task: task.name.clone(),
                        partition: partition.clone(),
                        protocol: protocol_name.clone(),
                        model: model.name.clone(),
                        backbone: model.backbone.clone(),
                        seed,
                    };
                    cells.push(PlannedCell { cell, protocol: protocol.clone() });
                }
            }
        }
        plans.push(TaskPlan { task: task.clone(), cells });
    }
    Ok(plans)
}

fn check(task: &Task, name: &str, protocol: &Protocol) -> Result<()> {
    match (protocol, task.label) {
        (
            Protocol::Knn(_) | Protocol::LinearProbe(_) | Protocol::Logistic(_),
            LabelKind::Class | LabelKind::MultiLabel,
        ) => Ok(()),
        (Protocol::Knn(_) | Protocol::LinearProbe(_) | Protocol::Logistic(_), LabelKind::Mask) => {
            Err(Error::request(format!("protocol `{name}` scores images, but {} labels pixels", task.name))
                .help("choose a classification task"))
        }
    }
}
