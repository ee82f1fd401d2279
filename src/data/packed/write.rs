//! Packs any data set into the files described in [`super`].

mod split;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{FORMAT, INDEX, Index, Packed as Reader, decoded_otherwise};
use crate::data::decoding::Decoding;
use crate::data::{self, Dataset, Split};
use crate::error::AtPath;
use crate::files::{remove, write_atomically};
use crate::progress::Progress;
use crate::task::images::full_name;
use crate::task::{Suite, Task};
use crate::{Error, Result};

/// File locked by the process that is packing.
const LOCK: &str = ".lock";

/// The result of packing a task.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Folder of the packed task.
    pub folder: PathBuf,
    /// Number of packed samples over all splits.
    pub samples: usize,
    /// Total size of the packed files.
    pub bytes: u64,
    /// The folder was already packed from the same source with the same decoding.
    pub reused: bool,
    /// Why an earlier packed folder was replaced, such as "`ignore` was 255, is null".
    pub replaced: Option<String>,
}

/// Packs all partitions of a task into `<to>/<task>` and reads everything back. `root` is the folder of the suite's data.
/// A folder that was already packed from the same source with the same decoding is verified and kept; so is the file of a
/// split that an interrupted run completed. Waits while another process packs into the same folder.
///
/// Files are written under hidden names and renamed once complete; the index is written last. Only a few samples are in
/// memory at a time.
///
/// # Errors
/// If the source cannot be read, its samples differ in size or type, the disk is full, or the data read back differ from
/// what was written. Splits completed by then are kept.
pub fn pack(suite: &Suite, task: &Task, root: &Path, to: &Path, progress: &dyn Progress) -> Result<Packed> {
    let source = data::task_folder(suite, task, root)
        .ok_or_else(|| Error::not_found(root, format!("no data of {} found", task.name)))
        .map_err(|error| error.help(crate::remedy::get_data(suite, &[&task.name], Some(root))))?;
    let folder = to.join(&task.name);
    if same(&source, &folder) {
        return Err(
            Error::damaged(&folder, "is the source folder itself").help("name another folder with --to")
        );
    }
    let names = data::partitions(suite, &source)?;
    let partitions = names
        .iter()
        .map(|name| Ok((name.clone(), data::open(suite, task, root, name)?)))
        .collect::<Result<Vec<(String, Box<dyn Dataset>)>>>()?;
    let fingerprints = partitions
        .iter()
        .map(|(name, dataset)| Ok((name.clone(), dataset.fingerprint(&Split::ALL)?)))
        .collect::<Result<BTreeMap<String, String>>>()?;
    let decoding = Decoding::of(suite.family, task);
    if let Earlier::Whole(known) = earlier(task, &decoding, &folder, &fingerprints) {
        return Ok(known);
    }
    std::fs::create_dir_all(&folder).at(&folder)?;
    let _lock = lock(&folder, progress)?;
    remove_leftovers(&folder)?;
    // Another process may have packed the task while this one waited.
    let replaced = match earlier(task, &decoding, &folder, &fingerprints) {
        Earlier::Whole(known) => return Ok(known),
        Earlier::Stale(why) => Some(why),
        Earlier::Nothing => None,
    };
    // From here on the earlier contents no longer count.
    let index_path = folder.join(INDEX);
    remove(&index_path)?;

    let mut index = Index {
        format: FORMAT,
        suite: suite.name.clone(),
        task: task.name.clone(),
        fingerprints,
        partitions: names.iter().map(|name| (name.clone(), BTreeMap::new())).collect(),
        statistics: BTreeMap::new(),
        statistics_content: None,
        sizes: BTreeMap::new(),
        decoding: Some(decoding.json()),
        checksum: None,
    };
    let mut samples = 0;
    for split in Split::ALL {
        let places = places(&partitions, split)?;
        for (name, rows) in names.iter().zip(places.rows) {
            index.partitions.entry(name.clone()).or_default().insert(split, rows);
        }
        samples += places.of_rows.len();
        let path = folder.join(format!("{split}.h5"));
        let source = split::Source {
            suite,
            task,
            decoding: &decoding,
            partitions: &partitions,
            places: &places.of_rows,
        };
        let bytes = split::write(&source, &path, &format!("pack {split}"), progress)?;
        index.sizes.insert(split, bytes);
    }
    if let Some((_, first)) = partitions.first()
        && let Some((name, content)) = first.statistics_content()?
    {
        index.statistics_content = Some((name, content.to_hex().to_string()));
        for (image, (bands, label)) in first.bands()?.into_iter().zip(task.image_labels()).enumerate() {
            for band in bands {
                // Official statistics of bands that no model uses may be unusable; leave those out.
                if let Ok(of) = first.statistics(image, std::slice::from_ref(&band)) {
                    let numbers = of.first().map(|of| [format!("{:?}", of.mean), format!("{:?}", of.std)]);
                    let name = full_name(band, label.as_deref());
                    index.statistics.extend(numbers.map(|numbers| (name, numbers)));
                }
            }
        }
    }
    index.checksum = Some(index.hash().at(&index_path)?);
    write_atomically(&index_path, &serde_json::to_vec(&index).at(&index_path)?)?;
    let bytes = index.sizes.values().sum();
    Ok(Packed { folder, samples, bytes, reused: false, replaced })
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Locks the folder. The lock is released when the file is closed, at the latest when the process ends.
fn lock(folder: &Path, progress: &dyn Progress) -> Result<File> {
    let path = folder.join(LOCK);
    let file = File::create(&path).at(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress.note(&format!("waiting for another `prepare` that packs into {}", folder.display()));
            file.lock().at(&path)?;
        }
        // Some cluster file systems do not support locks. A single process needs none.
        Err(TryLockError::Error(error)) => progress.note(&format!(
            "{}: cannot lock ({error}); do not start a second `prepare` into this folder",
            path.display()
        )),
    }
    Ok(file)
}

/// Removes the unfinished files of a run that was killed.
fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(split::UNFINISHED) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The result of an earlier run in this folder.
enum Earlier {
    Nothing,
    /// Complete, from the same source with the same decoding.
    Whole(Packed),
    /// Something else, with a description of the difference.
    Stale(String),
}

fn earlier(
    task: &Task,
    decoding: &Decoding,
    folder: &Path,
    fingerprints: &BTreeMap<String, String>,
) -> Earlier {
    if !folder.join(INDEX).is_file() {
        return Earlier::Nothing;
    }
    match whole(task, decoding, folder, fingerprints) {
        Ok(known) => Earlier::Whole(known),
        Err(problem) => Earlier::Stale(problem),
    }
}

/// Checks what an earlier run left; the error says why it cannot be reused.
fn whole(
    task: &Task,
    decoding: &Decoding,
    folder: &Path,
    fingerprints: &BTreeMap<String, String>,
) -> Result<Packed, String> {
    let told = |error: Error| match error.path() {
        Some(path) => {
            format!("{}: {}", path.file_name().unwrap_or(path.as_os_str()).display(), error.problem())
        }
        None => error.problem().to_owned(),
    };
    let index = super::index(folder).map_err(told)?;
    if let Some(changes) = decoded_otherwise(&index, decoding) {
        return Err(changes);
    }
    if index.fingerprints != *fingerprints {
        return Err("the source files changed".to_owned());
    }
    let mut samples = 0;
    for name in index.partitions.keys() {
        samples = Reader::open(task, decoding.clone(), folder, name).map_err(told)?.rows();
    }
    for split in Split::ALL {
        let path = folder.join(format!("{split}.h5"));
        split::read_through(&path).map_err(told)?;
        if split::dated_images(&path).map_err(told)? != super::dated_images(task) {
            return Err("it was packed without the dates and places of its images".to_owned());
        }
    }
    let bytes = index.sizes.values().sum();
    Ok(Packed { folder: folder.to_owned(), samples, bytes, reused: true, replaced: None })
}

/// Reads all samples of a split's file to test their checksums, at most once per process.
pub(crate) fn read_once(path: &Path) -> Result<()> {
    static READ: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let read = || READ.lock().unwrap_or_else(PoisonError::into_inner);
    if !read().contains(path) {
        split::read_through(path)?;
        read().insert(path.to_owned());
    }
    Ok(())
}

/// The distinct samples of a split over all partitions.
struct Places {
    /// Source of each row of the file.
    of_rows: Vec<split::SamplePlace>,
    /// Rows in each partition's order, per partition.
    rows: Vec<Vec<usize>>,
}

fn places(partitions: &[(String, Box<dyn Dataset>)], split: Split) -> Result<Places> {
    let mut known: HashMap<(String, blake3::Hash), usize> = HashMap::new();
    let mut places = Places { of_rows: Vec::new(), rows: Vec::new() };
    for (partition, (_, dataset)) in partitions.iter().enumerate() {
        let contents = dataset.contents(split)?;
        let mut rows = Vec::with_capacity(contents.len());
        for (place, (name, content)) in dataset.samples(split).iter().zip(contents).enumerate() {
            let row = *known.entry((name.clone(), content)).or_insert_with(|| {
                places.of_rows.push((partition, split, place));
                places.of_rows.len() - 1
            });
            rows.push(row);
        }
        places.rows.push(rows);
    }
    Ok(places)
}
