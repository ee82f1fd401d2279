//! What a run can do with features from files: the plan leaves out what they lack, before any data are read.

use std::fmt;

use super::plan::{Choice, TaskPlan};
use crate::features::vectors::{VectorFolder, VectorTask};
use crate::protocol::{Needs, Protocol};
use crate::task::Split;
use crate::{Error, Result};

/// Number of feature maps that UPerNet takes.
const MAPS: usize = 4;

/// A part of the plan that the files cannot serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// The task, and the protocol if it is one of several.
    pub of: String,
    /// What the files lack.
    pub what: String,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: left out, {}", self.of, self.what)
    }
}

/// Removes the cells that the files cannot serve. Returns the others, and what was removed.
///
/// # Errors
/// If a file is faulty, a task or protocol lacks something that was chosen by name, or no cell is left.
pub fn narrow(
    folder: &VectorFolder,
    choice: &Choice,
    plans: Vec<TaskPlan>,
) -> Result<(Vec<TaskPlan>, Vec<Lack>)> {
    let (mut left, mut lacks) = (Vec::new(), Vec::new());
    for mut plan in plans {
        let name = plan.task.name.clone();
        if !folder.has(&name) {
            if choice.tasks.contains(&name) {
                return folder.task(&name).map(|_| (Vec::new(), Vec::new()));
            }
            lacks.push(Lack { of: name, what: "the folder has no features of it".to_owned() });
            continue;
        }
        let files = folder.task(&name)?;
        let mut of_task: Vec<Lack> = Vec::new();
        plan.cells.retain(|planned| match lacking(&*planned.protocol, &files) {
            None => true,
            Some(what) => {
                let lack = Lack { of: format!("{name} {}", planned.cell.protocol), what };
                if !of_task.contains(&lack) {
                    of_task.push(lack);
                }
                false
            }
        });
        if let Some(lack) = of_task.first()
            && !choice.tasks.is_empty()
            && !choice.protocols.is_empty()
        {
            return Err(refused(folder, lack));
        }
        lacks.extend(of_task);
        if !plan.cells.is_empty() {
            left.push(plan);
        }
    }
    match lacks.first() {
        Some(lack) if left.is_empty() => Err(refused(folder, lack)),
        _ => Ok((left, lacks)),
    }
}

fn refused(folder: &VectorFolder, lack: &Lack) -> Error {
    Error::request(format!("{}: {}", lack.of, lack.what))
        .in_file(folder.path())
        .help("docs/vectors.md says which protocol needs which array; choose another with --protocol")
}

/// Says what a protocol needs that the files lack.
fn lacking(protocol: &dyn Protocol, files: &VectorTask) -> Option<String> {
    let needs = protocol.needs();
    if needs.trains_encoder() {
        return Some("it trains the model, and files hold only its features".to_owned());
    }
    if protocol.turns_images() {
        return Some(
            "it flips or rotates the training images, and files hold no features of those; use a protocol with \
             `augmentation = \"none\"` (linear-probe, upernet-plain)"
                .to_owned(),
        );
    }
    let splits = match needs {
        Needs::Pooled => protocol.splits(),
        _ => &Split::ALL,
    };
    splits.iter().find_map(|split| {
        let Ok(file) = files.split(*split) else {
            return Some(format!("there is no file of the split {split}"));
        };
        let has = match needs {
            Needs::Pooled | Needs::TrainablePooled => file.has_features(),
            Needs::Tokens => file.has_tokens(),
            Needs::Maps | Needs::TrainableMaps => file.map_levels().len() == MAPS,
        };
        let wanted = match needs {
            Needs::Pooled | Needs::TrainablePooled => "one vector per image (`features`)".to_owned(),
            Needs::Tokens => "patch tokens (`tokens`)".to_owned(),
            Needs::Maps | Needs::TrainableMaps => {
                format!(
                    "{MAPS} feature maps (`map0` to `map{}`), found {}",
                    MAPS - 1,
                    file.map_levels().len()
                )
            }
        };
        (!has).then(|| format!("it needs {wanted} in {}", file.path().display()))
    })
}
