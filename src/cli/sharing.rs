//! The order in which one of several processes goes through a plan: first what nobody holds, then what others leave.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::cluster_args::SharingArgs;
use super::progress::Shown;
use crate::claims::Pause;
use crate::console;
use crate::record::Cell;
use crate::run::plan::{PlannedCell, TaskPlan};
use crate::run::sharing::{Elsewhere, described};
use crate::run::{Attempt, Done, Runner};
use crate::{ErrorKind, Result};

/// A cell that another process held when this one came to it.
struct Waiting {
    /// Index of its task's plan.
    plan: usize,
    planned: PlannedCell,
    elsewhere: Elsewhere,
}

/// How a run ended.
pub(super) struct End {
    /// The file that announces the plan, if it could be written.
    pub(super) plan_file: Option<PathBuf>,
    /// Whether cells are left that other processes hold.
    pub(super) is_left: bool,
}

/// Runs the cells of `plans`, with whoever else runs them. Returns when all are recorded or failed, or with `no_wait` when only
/// cells are left that others hold. `tell` hears what became of each cell.
///
/// # Errors
/// If somebody asked to stop, or this program is at fault.
pub(super) fn run(
    runner: &Runner,
    plans: &[TaskPlan],
    args: &SharingArgs,
    tell: &mut dyn FnMut(&Cell, Result<Done>),
) -> Result<End> {
    let announced = || runner.sharing()?.announce(&runner.wanted(plans).ok()?);
    let plan_file = announced();
    let mut waiting = Vec::new();
    // Workers begin with different tasks, so that few meet at the same features.
    let first = args.worker.unwrap_or(0) % plans.len().max(1);
    for plan in (first..plans.len()).chain(0..first) {
        attempt(runner, &plans[plan], plan, tell, &mut waiting)?;
    }
    if args.no_wait {
        return Ok(End { plan_file, is_left: !waiting.is_empty() });
    }
    let mut pause = Pause::default();
    let mut told = false;
    while !waiting.is_empty() {
        let mut is_new = false;
        let mut open: BTreeMap<usize, Vec<PlannedCell>> = BTreeMap::new();
        let mut still = Vec::new();
        for Waiting { plan, planned, elsewhere } in waiting {
            match runner.from_elsewhere(&plans[plan].task, &planned, &elsewhere) {
                Ok(None) if elsewhere.is_open() => open.entry(plan).or_default().push(planned),
                Ok(None) => still.push(Waiting { plan, planned, elsewhere }),
                Ok(Some(done)) => {
                    is_new = true;
                    tell(&planned.cell, Ok(done));
                }
                Err(error) => {
                    is_new = true;
                    tell(&planned.cell, Err(error));
                }
            }
        }
        for (plan, cells) in open {
            let before = still.len();
            let part = TaskPlan { task: plans[plan].task.clone(), cells };
            attempt(runner, &part, plan, tell, &mut still)?;
            is_new |= still.len() - before < part.cells.len();
        }
        waiting = still;
        match (is_new, waiting.first()) {
            (true, _) | (_, None) => pause = Pause::default(),
            (false, Some(first)) => {
                if !told {
                    told = true;
                    console::note(waits(first, waiting.len()));
                }
                pause.sleep()?;
            }
        }
    }
    Ok(End { plan_file, is_left: false })
}

/// Runs the cells of one task that nobody holds; the others are added to `waiting`.
fn attempt(
    runner: &Runner,
    part: &TaskPlan,
    plan: usize,
    tell: &mut dyn FnMut(&Cell, Result<Done>),
    waiting: &mut Vec<Waiting>,
) -> Result<()> {
    for (planned, attempt) in runner.attempt_task(part, &Shown::new(&part.task.name)) {
        match attempt {
            Attempt::Finished(Err(error)) if error.kind() == ErrorKind::Stopped => return Err(error),
            Attempt::Finished(Err(error)) if error.kind().ends_the_run() => {
                tell(&planned.cell, Err(error.clone()));
                return Err(error);
            }
            Attempt::Finished(outcome) => tell(&planned.cell, outcome.map(|done| *done)),
            Attempt::Elsewhere(elsewhere) => {
                waiting.push(Waiting { plan, planned: planned.clone(), elsewhere });
            }
        }
    }
    Ok(())
}

fn waits(first: &Waiting, count: usize) -> String {
    let place = first.elsewhere.holder.as_ref().map_or("another process".to_owned(), |holder| holder.place());
    format!(
        "waiting for {count} cells of other processes, first {} on {place}",
        described(&first.planned.cell)
    )
}
