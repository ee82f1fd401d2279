//! Features that another program computed, from files: no model runs.
//!
//! ```text
//! DIR/features.toml              optional: what the user says about the model ([`About`])
//! DIR/<task>/<split>.<format>    split: train, valid, test; format: safetensors, npz, parquet
//! ```
//!
//! | in a file | shape | what for |
//! |---|---|---|
//! | `samples` | n names | required: which row belongs to which sample |
//! | `features` | [n, d] | protocols on one vector per image |
//! | `tokens` | [n, rows, columns, d], or [n, rows * columns, d] with `grid` = [rows, columns] | segmentation probe |
//! | `map0`, `map1`, … | [n, d, rows, columns] each | UPerNet with a frozen encoder |
//! | `strides` | one per map, in pixels | optional: derived from the maps' sizes |
//!
//! A file may hold more samples than a partition uses, if the partition `default` has them. Labels come from the suite's
//! data. `docs/vectors.md` explains this to users.

mod source;
mod split;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

pub use self::source::VectorSource;
pub use self::split::SplitFile;
use crate::data::fingerprint::{self, Source};
use crate::error::AtPath;
use crate::formats::arrays::EXTENSIONS;
use crate::home::read_toml;
use crate::nn::heads::upernet::MapLevel;
use crate::task::Split;
use crate::{Error, Result};

/// Beginning of the weights' identity in records of features from files.
pub const PREFIX: &str = "vectors:";

/// Stands in records for what the program cannot know.
pub const UNKNOWN: &str = "unknown";

/// File in the folder with what the user says about the model.
const ABOUT: &str = "features.toml";

/// What a file of features can say about how they were made: the names of texts in it, and of keys in `features.toml`.
pub const DECLARED: [&str; 6] = ["model", "weights", "normalization", "bands", "image-size", "pooling"];

/// What the user says about the model, in `features.toml`. Nothing of it is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct About {
    /// Name for the tables.
    pub name: Option<String>,
    /// Name of the backbone for the tables.
    pub backbone: Option<String>,
    /// Which weights: a text that changes when they do.
    pub weights: Option<String>,
    /// How pixels were normalised.
    pub normalization: Option<String>,
    /// The bands that the model received.
    pub bands: Option<Vec<String>>,
    /// Height and width of the model's input in pixels.
    pub image_size: Option<usize>,
    /// How tokens became one vector.
    pub pooling: Option<String>,
}

impl About {
    /// Returns the stated facts by their names in [`DECLARED`].
    fn declared(&self) -> BTreeMap<String, String> {
        let facts = [
            ("weights", self.weights.clone()),
            ("normalization", self.normalization.clone()),
            ("bands", self.bands.as_ref().map(|bands| bands.join(", "))),
            ("image-size", self.image_size.map(|size| size.to_string())),
            ("pooling", self.pooling.clone()),
        ];
        facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect()
    }
}

/// A folder of features.
#[derive(Debug)]
pub struct VectorFolder {
    path: PathBuf,
    about: About,
    /// The files of each task, by split.
    files: BTreeMap<String, BTreeMap<Split, PathBuf>>,
    /// The tasks opened so far.
    opened: Mutex<BTreeMap<String, Arc<VectorTask>>>,
}

impl VectorFolder {
    /// Lists the files of these tasks in the folder at `path`. Opens none of them but `features.toml`.
    ///
    /// # Errors
    /// If there is no such folder, it has features of none of the tasks, two files for one split, or a faulty
    /// `features.toml`.
    pub fn open<'t>(path: &Path, tasks: impl IntoIterator<Item = &'t str>) -> Result<Self> {
        let layout =
            "expected <task>/<split>.safetensors, .npz or .parquet, with train, valid and test as splits";
        if !path.is_dir() {
            return Err(
                Error::not_found(path, "no such folder").help(format!("--features takes a folder: {layout}"))
            );
        }
        let about = path.join(ABOUT);
        let about = if about.is_file() { read_toml(&about)? } else { About::default() };
        let mut files = BTreeMap::new();
        for task in tasks {
            let splits = splits(&path.join(task))?;
            if !splits.is_empty() {
                files.insert(task.to_owned(), splits);
            }
        }
        if files.is_empty() {
            let found = folders(path)?;
            let found = if found.is_empty() { "no folder".to_owned() } else { listed(&found) };
            return Err(Error::not_found(
                path,
                format!("found no features of the suite's tasks; found: {found}"),
            )
            .help(format!("{layout}; `cargo xtask features --to DIR` writes this layout")));
        }
        Ok(VectorFolder { path: path.to_owned(), about, files, opened: Mutex::default() })
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the user says about the model.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Returns the path of `features.toml`, if there is one.
    pub fn about_path(&self) -> Option<PathBuf> {
        Some(self.path.join(ABOUT)).filter(|path| path.is_file())
    }

    /// Returns whether there are files of this task.
    pub fn has(&self, task: &str) -> bool {
        self.files.contains_key(task)
    }

    /// Reads the headers of a task's files, once, and checks that they fit each other.
    ///
    /// # Errors
    /// If there are none, a file cannot be read or is faulty, or two splits differ in their widths or in what they
    /// declare.
    pub fn task(&self, task: &str) -> Result<Arc<VectorTask>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = opened.get(task) {
            return Ok(Arc::clone(known));
        }
        let new = Arc::new(self.open_task(task)?);
        opened.insert(task.to_owned(), Arc::clone(&new));
        Ok(new)
    }

    fn open_task(&self, task: &str) -> Result<VectorTask> {
        let files = self.files.get(task).ok_or_else(|| {
            Error::not_found(self.path.join(task), "no features of this task")
                .help("write <split>.safetensors, .npz or .parquet into this folder, or leave the task out")
        })?;
        let mut splits = BTreeMap::new();
        for (split, path) in files {
            splits.insert(*split, SplitFile::open(path)?);
        }
        let mut declared: BTreeMap<String, String> = BTreeMap::new();
        let mut first: Option<&SplitFile> = None;
        for file in splits.values() {
            let before = first.get_or_insert(file);
            before.check_alike(file)?;
            declared.extend(file.declared().clone());
        }
        declared.extend(self.about.declared());
        Ok(VectorTask { task: task.to_owned(), folder: self.path.join(task), splits, declared })
    }
}

/// The files of one task.
#[derive(Debug)]
pub struct VectorTask {
    task: String,
    folder: PathBuf,
    splits: BTreeMap<Split, SplitFile>,
    declared: BTreeMap<String, String>,
}

impl VectorTask {
    /// Returns the file of a split.
    ///
    /// # Errors
    /// If there is none.
    pub fn split(&self, split: Split) -> Result<&SplitFile> {
        self.splits.get(&split).ok_or_else(|| {
            Error::not_found(&self.folder, format!("no features of the split {split}"))
                .help(format!("write {split}.safetensors, .npz or .parquet into this folder"))
        })
    }

    /// Returns whether there is a file of that split.
    pub fn has(&self, split: Split) -> bool {
        self.splits.contains_key(&split)
    }

    /// Returns what files and user say about how the features were made, by name.
    pub fn declared(&self) -> &BTreeMap<String, String> {
        &self.declared
    }

    /// Returns the feature maps that every split has; empty if there are none.
    pub fn map_levels(&self) -> Vec<MapLevel> {
        self.splits.values().next().map(|file| file.map_levels().to_vec()).unwrap_or_default()
    }

    /// Says in a sentence for the record that the features came from files, and what is known of them.
    pub fn described(&self) -> String {
        let known: Vec<String> = self.declared.iter().map(|(name, text)| format!("{name} {text}")).collect();
        let unknown = "the program ran no model and does not know its normalisation, bands and input size";
        match known.is_empty() {
            true => format!("features from files: {unknown}"),
            false => format!("features from files: {unknown}; declared, not checked: {}", known.join("; ")),
        }
    }

    /// Returns the identity of the features for records: `vectors:blake3:<hash of the task's files>`.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn id(&self) -> Result<String> {
        let source = |file: &SplitFile| {
            let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
            Source { name: format!("{}/{name}", self.task), path: file.path().to_owned() }
        };
        let sources: Vec<Source> = self.splits.values().map(source).collect();
        Ok(format!("{PREFIX}blake3:{}", fingerprint::of_files(&sources, fingerprint::memo().as_deref())?))
    }
}

/// Returns the files of each split in a task's folder; empty if there is no such folder.
fn splits(folder: &Path) -> Result<BTreeMap<Split, PathBuf>> {
    let mut splits = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(splits);
    }
    for split in Split::ALL {
        let files = EXTENSIONS.map(|extension| folder.join(format!("{split}.{extension}")));
        let mut files = files.into_iter().filter(|file| file.is_file());
        let Some(file) = files.next() else { continue };
        if let Some(other) = files.next() {
            let problem = format!("expected one file for {split}, found {} too", other.display());
            return Err(Error::damaged(file, problem).help("remove one of them"));
        }
        splits.insert(split, file);
    }
    Ok(splits)
}

/// Returns the names of the folders in a folder, sorted.
fn folders(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).at(path)? {
        let entry = entry.at(path)?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Names that an error lists before it only counts the rest.
const LISTED: usize = 5;

/// Formats names as `a, b and 4 more`.
pub(crate) fn listed(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(LISTED).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
