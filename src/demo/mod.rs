//! The demo: generated data in a suite's own layout, to try Terrabench and to test it without a download.
//!
//! It is no benchmark: the land is drawn by rules and the sensor is modelled roughly, so a score says that the
//! programs work and nothing about a model. What it shares with the real thing is the difficulty: classes differ in
//! spectrum, in texture or in both, and light, haze, season, clouds, noise and mixed pixels blur them.
//!
//! ```text
//! tasks.rs     how many samples each task has and what its files hold
//! scenes.rs    what a sample shows, and its label
//! values.rs    the same of tasks of numbers
//! covers.rs    land covers: how materials lie on the ground
//! ground.rs    materials: how they look to the sensors
//! sensor.rs    weather, atmosphere, optics, noise: from a scene to digital numbers
//! random.rs    random numbers and fields that are the same on every machine
//! files.rs     HDF5 samples, partitions and what goes with them
//! describe.rs  what the official package says of bands, labels and tasks
//! statistics.rs, pickle.rs   two of the formats in the files
//! ```

mod covers;
mod describe;
mod files;
mod ground;
mod pickle;
mod random;
mod scenes;
mod sensor;
mod statistics;
mod tasks;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::AtPath;
use crate::task::{Suite, Task};
use crate::{Error, Result};

use tasks::Content;

/// Of the generator: to be raised with every change of what it writes.
const VERSION: u32 = 1;

/// Side of the largest image that the generator draws, in pixels.
const LARGEST: usize = 1024;

/// The file that lists all others with their hashes; written last.
const MANIFEST: &str = "manifest.json";

const README_NAME: &str = "README.txt";
const README: &str = "\
Generated data, not a benchmark.

Terrabench wrote these files for `--demo`: invented landscapes in the layout of the
official data set, so that every command can be tried without a download. Scores on
them are not benchmark numbers and say nothing about a model.

Partitions are nested as the official ones are, but the smallest have more samples than
their names say: at least 4, and at least one a class.

The folder can be deleted at any time; it is written again when it is needed.
";

/// The folder of the demo's data for `suite` below `cache`, written first if it is not there whole.
///
/// The files are the same, byte for byte, on every machine. Their folder is named by the generator's version and by
/// the suite's tasks. It is written under another name and then renamed, and each of its files is compared with its
/// hash on every call, so neither an interrupted run nor a damaged file is taken for the whole. Processes that need
/// the demo at once wait for each other.
///
/// # Errors
/// Where the suite has a task that there is no demo of, or one with other classes than the demo's, or `cache` cannot be written.
pub fn provide(suite: &Suite, cache: &Path) -> Result<PathBuf> {
    fs::create_dir_all(cache).at(cache)?;
    let name = folder_name(suite)?;
    let root = cache.join(&name);
    let lock_path = cache.join(format!("{name}.lock"));
    let lock = fs::File::create(&lock_path).at(&lock_path)?;
    lock.lock().map_err(|problem| {
        Error::io(&lock_path, format!("cannot be locked: {problem}"))
            .help("set TERRABENCH_CACHE to a folder on a local disk")
    })?;
    if !is_whole(&root) {
        let partial = cache.join(format!("{name}.partial"));
        tracing::info!("writing generated data (no benchmark) into {}", root.display());
        remove(&partial)?;
        write(suite, &partial)?;
        remove(&root)?;
        fs::rename(&partial, &root).at(&root)?;
    }
    Ok(root)
}

/// Whether the data below `root` are the demo's.
pub fn is_demo(root: &Path) -> bool {
    fs::read(root.join(README_NAME)).is_ok_and(|text| text == README.as_bytes())
}

/// Whether a folder or file of that name in the cache is one that [`provide`] writes.
pub fn is_demo_name(name: &str) -> bool {
    name.contains("-demo-v")
}

/// Names the generator's version and everything of the suite that decides the files.
fn folder_name(suite: &Suite) -> Result<String> {
    let decisive = serde_json::to_string(&(&suite.bands, &suite.tasks)).map_err(Error::mismatch)?;
    let hash = blake3::hash(decisive.as_bytes()).to_hex();
    Ok(format!("{}-demo-v{VERSION}-{}", suite.name, &hash[..8]))
}

fn write(suite: &Suite, root: &Path) -> Result<()> {
    for task in &suite.tasks {
        files::write_task(suite, task, &content(suite, task)?, root)?;
    }
    let readme = root.join(README_NAME);
    fs::write(&readme, README).at(&readme)?;
    let manifest = root.join(MANIFEST);
    fs::write(&manifest, serde_json::to_string_pretty(&hashes(root)?).at(&manifest)?).at(&manifest)
}

/// What the demo of a task holds.
fn content(suite: &Suite, task: &Task) -> Result<Content> {
    let content = tasks::content(&task.name).ok_or_else(|| {
        Error::mismatch(format!("there is no demo of the task `{}` of {}", task.name, suite.title))
            .help(format!("there is one of {}", tasks::NAMES.join(", ")))
    })?;
    let classes = content.class_names.len();
    let problem = if !task.target.is_numeric() && task.classes != classes {
        format!("its demo has {classes} classes, not {}", task.classes)
    } else if !(1..=LARGEST).contains(&task.image_size) {
        format!("its demo cannot have images of {} pixels; at most {LARGEST}", task.image_size)
    } else {
        return Ok(content);
    };
    Err(Error::mismatch(format!("task `{}` of {}: {problem}", task.name, suite.title)))
}

/// Whether the folder holds the files that its manifest lists and no others, each as it was written.
fn is_whole(root: &Path) -> bool {
    let listed = fs::read(root.join(MANIFEST)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    listed.is_some_and(|listed: BTreeMap<String, String>| hashes(root).is_ok_and(|found| found == listed))
}

/// The blake3 hash of each file below `root` but the manifest, by its path relative to `root`.
fn hashes(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut paths = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).at(&folder)? {
            let path = entry.at(&folder)?.path();
            if path.is_dir() { folders.push(path) } else { paths.push(path) }
        }
    }
    paths.retain(|path| *path != root.join(MANIFEST));
    paths
        .into_par_iter()
        .map(|path| {
            let hash = blake3::hash(&fs::read(&path).at(&path)?).to_hex().to_string();
            let parts = path.strip_prefix(root).at(&path)?.components();
            let names: Vec<_> = parts.map(|part| part.as_os_str().to_string_lossy()).collect();
            Ok((names.join("/"), hash))
        })
        .collect()
}

/// Removes a folder if it is there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(problem) if problem.kind() != std::io::ErrorKind::NotFound => Err(problem).at(folder),
        _ => Ok(()),
    }
}
