//! The demo: generated data in a suite's own layout, to try Terrabench and to test it without a download.
//!
//! It is not a benchmark: the land is drawn by rules and the sensor is modelled roughly, so a score shows that the
//! program works and says nothing about a model. It is hard in the same way as real data: classes differ in
//! spectrum, in texture or in both, and light, haze, season, clouds, noise and mixed pixels blur them.
//!
//! ```text
//! tasks.rs     number of samples per task and the contents of their files
//! scenes.rs    what a sample shows, and its label
//! values.rs    the same for regression tasks
//! brightness.rs   tasks of Landsat and aerial images: contents, scenes, camera
//! covers.rs    land covers: how materials lie on the ground
//! ground.rs    materials: how they look to the sensors
//! sensor.rs    weather, atmosphere, optics, noise: from a scene to digital numbers
//! random.rs    random numbers and fields that are the same on every machine
//! files.rs     GEO-Bench: HDF5 samples, partitions and the files beside them
//! copernicus.rs, geobench2.rs, landslide4sense.rs   the files of the other suites; land.rs: their scenes; tiff.rs: GeoTIFF
//! describe.rs  the official package's descriptions of bands, labels and tasks
//! statistics.rs, pickle.rs   two of the formats in the files
//! ```

mod brightness;
mod copernicus;
mod covers;
mod describe;
mod files;
mod geobench2;
mod ground;
mod land;
mod landslide4sense;
mod pickle;
mod random;
mod scenes;
mod sensor;
mod statistics;
mod tasks;
mod tiff;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::AtPath;
use crate::task::{Family, Split, Suite, Task};
use crate::{Error, Result};

use random::Random;
use tasks::Content;

/// Version of the generator. Raise it with every change of what it writes.
const VERSION: u32 = 2;

/// Maximum side of an image that the generator draws, in pixels.
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

/// Returns the folder of the demo data for `suite` below `cache`, writing it first if it is missing or damaged: the data
/// of seed 0.
///
/// # Errors
/// Like [`provide_for`].
pub fn provide(suite: &Suite, cache: &Path) -> Result<PathBuf> {
    provide_for(suite, &[], cache, 0)
}

/// Returns the folder of the demo data of any seed for a run of `tasks`. Another seed draws the same kinds of scenes anew.
///
/// GEO-Bench's tasks of Landsat and aerial images are large. They are only written, beside all others, if `tasks` contains one of them.
///
/// The files are identical, byte for byte, on every machine. The folder's name contains the generator's version and a
/// hash of the suite's tasks. The folder is written under a temporary name and then renamed, and every call compares each
/// file with its hash, so neither an interrupted run nor a damaged file goes unnoticed. Processes that need the demo at
/// the same time wait for each other.
///
/// # Errors
/// If no task of the suite has a demo, or one has classes or an image size that the demo does not support, or `cache` cannot
/// be written.
pub fn provide_for(suite: &Suite, tasks: &[&str], cache: &Path, seed: u64) -> Result<PathBuf> {
    let narrowed;
    let suite = match tasks.iter().any(|task| brightness::NAMES.contains(task)) {
        true => suite,
        false => {
            let mut usual = suite.clone();
            usual.tasks.retain(|task| !brightness::NAMES.contains(&task.name.as_str()));
            narrowed = usual;
            &narrowed
        }
    };
    fs::create_dir_all(cache).at(cache)?;
    let name = folder_name(suite, seed)?;
    let root = cache.join(&name);
    let lock_path = cache.join(format!("{name}.lock"));
    let lock = fs::File::create(&lock_path).at(&lock_path)?;
    lock.lock().map_err(|problem| {
        Error::io(&lock_path, format!("cannot be locked: {problem}"))
            .help("set TERRABENCH_CACHE to a folder on a local disk")
    })?;
    if !is_whole(&root) {
        let partial = cache.join(format!("{name}.partial"));
        tracing::info!("writing generated data (not a benchmark) into {}", root.display());
        remove(&partial)?;
        write(suite, seed, &partial)?;
        remove(&root)?;
        fs::rename(&partial, &root).at(&root)?;
    }
    Ok(root)
}

/// Writes the files of a task with one of `one_of` of its official samples below `root`, at least 40 per split, to measure speed
/// with: forty are drawn per split, the others are copies whose pixels are shifted. Returns how many there are.
///
/// # Errors
/// As for [`provide`].
pub fn write_many(suite: &Suite, task: &Task, one_of: usize, root: &Path) -> Result<usize> {
    let readme = root.join(README_NAME);
    fs::create_dir_all(root).at(root)?;
    fs::write(&readme, README).at(&readme)?;
    let official = [task.samples.train, task.samples.valid, task.samples.test];
    let counts = official.map(|count| (count / one_of.max(1)).max(files::DRAWN));
    files::write_many(suite, task, &content(suite, task)?, counts, root)?;
    Ok(counts.iter().sum())
}

/// Whether a task has a demo.
pub fn has(suite: &Suite, task: &Task) -> bool {
    match suite.family {
        Family::Geobench => tasks::content(&task.name).is_some(),
        Family::CopernicusBench | Family::Landslide4sense => true,
        Family::Geobench2 => geobench2::NAMES.contains(&task.name.as_str()),
    }
}

/// Checks that a task has a demo.
///
/// # Errors
/// If it has none; the message lists those that do.
pub fn check(suite: &Suite, task: &Task) -> Result<()> {
    match suite.family {
        Family::CopernicusBench | Family::Landslide4sense => Ok(()),
        Family::Geobench => content(suite, task).map(drop),
        Family::Geobench2 if has(suite, task) => Ok(()),
        Family::Geobench2 => Err(none(suite, task, &geobench2::NAMES)),
    }
}

/// Whether the data below `root` are demo data.
pub fn is_demo(root: &Path) -> bool {
    fs::read(root.join(README_NAME)).is_ok_and(|text| text == README.as_bytes())
}

/// Whether [`provide`] writes cache entries with such a name.
pub fn is_demo_name(name: &str) -> bool {
    name.contains("-demo-v")
}

/// Name of the data folder: the generator's version, a hash of everything in the suite that affects the files, and the
/// seed unless it is 0.
fn folder_name(suite: &Suite, seed: u64) -> Result<String> {
    let tasks: Vec<&Task> = suite.tasks.iter().filter(|task| has(suite, task)).collect();
    let decisive = serde_json::to_string(&(&suite.bands, &tasks)).map_err(Error::mismatch)?;
    let hash = blake3::hash(decisive.as_bytes()).to_hex();
    let drawn = if seed == 0 { String::new() } else { format!("-seed{seed}") };
    Ok(format!("{}-demo-v{VERSION}-{}{drawn}", suite.name, &hash[..8]))
}

/// The random stream of a sample: suite, `what` (a task or folder), split, index and seed name it, so it depends on nothing else.
fn named(suite: &Suite, what: &str, split: Split, index: usize, seed: u64) -> Random {
    let drawn = if seed == 0 { String::new() } else { format!(" seed {seed}") };
    Random::named(&format!("{} {what} {split} {index}{drawn}", suite.name))
}

fn write(suite: &Suite, seed: u64, root: &Path) -> Result<()> {
    let tasks = || suite.tasks.iter().filter(|task| has(suite, task));
    if tasks().next().is_none() {
        // The error says which tasks there are.
        suite.tasks.iter().try_for_each(|task| check(suite, task))?;
    }
    // A new family of layouts gets its writer here.
    match suite.family {
        Family::Geobench => {
            tasks()
                .try_for_each(|task| files::write_task(suite, task, &content(suite, task)?, seed, root))?;
        }
        Family::CopernicusBench => copernicus::write(suite, seed, root)?,
        Family::Landslide4sense => landslide4sense::write(suite, seed, root)?,
        Family::Geobench2 => geobench2::write(suite, seed, root)?,
    }
    let readme = root.join(README_NAME);
    fs::write(&readme, README).at(&readme)?;
    let manifest = root.join(MANIFEST);
    fs::write(&manifest, serde_json::to_string_pretty(&hashes(root)?).at(&manifest)?).at(&manifest)
}

/// Makes an error: the task has no demo.
fn none(suite: &Suite, task: &Task, known: &[&str]) -> Error {
    Error::mismatch(format!("no demo for the task `{}` of {}", task.name, suite.title))
        .help(format!("tasks with a demo: {}", known.join(", ")))
}

/// Returns the contents of a task's demo, or an error if there is none that fits.
fn content(suite: &Suite, task: &Task) -> Result<Content> {
    let content = tasks::content(&task.name)
        .ok_or_else(|| none(suite, task, &[&tasks::NAMES[..], &brightness::NAMES].concat()))?;
    let classes = content.class_names.len();
    let problem = if !task.target.is_numeric() && task.classes != classes {
        format!("the demo has {classes} classes; the suite expects {}", task.classes)
    } else if !(1..=LARGEST).contains(&task.image_size) {
        format!("the demo cannot draw images of {} pixels (limit {LARGEST})", task.image_size)
    } else {
        return Ok(content);
    };
    Err(Error::mismatch(format!("task `{}` of {}: {problem}", task.name, suite.title)))
}

/// Whether the folder contains exactly the files in its manifest, each with its recorded hash.
fn is_whole(root: &Path) -> bool {
    let listed = fs::read(root.join(MANIFEST)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    listed.is_some_and(|listed: BTreeMap<String, String>| hashes(root).is_ok_and(|found| found == listed))
}

/// Returns the blake3 hash of each file below `root` except the manifest, by path relative to `root`.
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

/// Removes a folder if it exists.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(problem) if problem.kind() != std::io::ErrorKind::NotFound => Err(problem).at(folder),
        _ => Ok(()),
    }
}
