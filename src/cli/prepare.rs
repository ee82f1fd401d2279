//! `prepare`: packs a suite's tasks into one file per split.

use super::args::PrepareArgs;
use super::data_folder;
use super::progress::Shown;
use crate::console;
use crate::data::{self, fingerprint, packed};
use crate::home::Home;
use crate::task::{Suite, Task};
use crate::{Error, Result};

/// Runs the command.
pub fn run(home: &Home, args: &PrepareArgs) -> anyhow::Result<()> {
    fingerprint::verify(args.verify);
    let suite = Suite::load(home, &args.suite)?;
    let named: Vec<&str> = args.tasks.iter().map(String::as_str).collect();
    let root = data_folder(&suite, args.data.as_ref(), &named)?;
    let here = |task: &&Task| data::task_folder(&suite, task, &root).is_some();
    let tasks: Vec<&Task> = match args.tasks.as_slice() {
        // By default, pack every task whose data are present.
        [] => suite.tasks.iter().filter(here).collect(),
        some => some.iter().map(|task| suite.task(task)).collect::<Result<_>>()?,
    };
    if tasks.is_empty() {
        let names: Vec<&str> = suite.tasks.iter().map(|task| task.name.as_str()).collect();
        let problem = format!("{} contains none of {}", root.display(), names.join(", "));
        return Err(Error::request(problem).help(crate::remedy::get_data(&suite, &[], Some(&root))).into());
    }
    for task in tasks {
        let packed = packed::pack(&suite, task, &root, &args.to, &Shown::new(&task.name))?;
        let (folder, megabytes) = (packed.folder.display(), packed.bytes as f64 / 1e6);
        let how = if packed.reused { "was there already" } else { "packed and read back" };
        let why = packed.replaced.map_or(String::new(), |why| format!("; packed anew because {why}"));
        console::tell(format_args!("{folder}: {} samples, {megabytes:.1} MB, {how}{why}\n", packed.samples));
    }
    let folder = crate::remedy::path(&args.to);
    console::tell(format_args!("\nbench, inspect and features read it with --data {folder}\n"));
    Ok(())
}
