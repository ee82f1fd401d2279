//! Where the data files of Terrabench itself are: `benchmarks/` and `configs/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::error::AtPath;
use crate::files::write_atomically;
use crate::{Error, Result, suggest};

/// The files that this program was built with.
static BENCHMARKS: Dir = include_dir!("$CARGO_MANIFEST_DIR/benchmarks");
static CONFIGS: Dir = include_dir!("$CARGO_MANIFEST_DIR/configs");

/// Where `benchmarks/` and `configs/` are: in the folder of a checkout or of `TERRABENCH_HOME`, and, for what it lacks, the
/// files that the program was built with.
///
/// ```
/// use terrabench::home::Home;
///
/// let home = Home::find()?;
/// assert!(home.suites()?.contains(&"geobench".to_owned()));
/// # Ok::<(), terrabench::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Home {
    /// The first that has a file counts.
    folders: Vec<PathBuf>,
}

/// Folders that make a checkout: other projects have `benchmarks/` and `configs/` too.
const PARTS: [&str; 3] = ["benchmarks/published", "configs/models", "configs/protocols"];

fn is_checkout(folder: &Path) -> bool {
    PARTS.iter().all(|part| folder.join(part).is_dir())
}

impl Home {
    /// The folder that `TERRABENCH_HOME` names; otherwise the working directory or its nearest ancestor that is a
    /// checkout; otherwise only the files that the program was built with.
    ///
    /// # Errors
    /// If `TERRABENCH_HOME` names a folder with neither `benchmarks/` nor `configs/`, or the built-in files cannot be
    /// written to the cache folder.
    pub fn find() -> Result<Self> {
        if let Some(named) = variable("TERRABENCH_HOME").map(PathBuf::from) {
            return Home::of(&named);
        }
        let here = std::env::current_dir().at(".")?;
        match here.ancestors().find(|folder| is_checkout(folder)) {
            Some(checkout) => Ok(Home { folders: vec![checkout.to_owned()] }),
            None => Ok(Home { folders: vec![built_in()?] }),
        }
    }

    /// The files of `folder`, and the built-in ones that it lacks.
    ///
    /// # Errors
    /// As [`Home::find`].
    pub fn of(folder: &Path) -> Result<Self> {
        if is_checkout(folder) {
            return Ok(Home { folders: vec![folder.to_owned()] });
        }
        if !folder.join("benchmarks").is_dir() && !folder.join("configs").is_dir() {
            let problem = "expected a folder with `benchmarks/` or `configs/`, found neither";
            return Err(Error::not_found(folder, problem).help(
                "set --home (or TERRABENCH_HOME) to a folder laid out as a checkout of Terrabench, or leave it out",
            ));
        }
        Ok(Home { folders: vec![folder.to_owned(), built_in()?] })
    }

    /// The file or folder at that place, such as `configs/normalization.toml`; if there is none, the path it would have in
    /// the first folder.
    pub fn path(&self, place: impl AsRef<Path>) -> PathBuf {
        let paths = || self.folders.iter().map(|folder| folder.join(&place));
        paths().find(|path| path.exists()).or_else(|| paths().next()).unwrap_or_default()
    }

    /// The folder whose files come first.
    pub fn folder(&self) -> &Path {
        self.folders.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// `benchmarks/<name>.toml`.
    pub fn suite(&self, name: &str) -> PathBuf {
        self.path(Path::new("benchmarks").join(format!("{name}.toml")))
    }

    /// The names of all suites, sorted.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn suites(&self) -> Result<Vec<String>> {
        let mut names = self.names("benchmarks")?;
        names.retain(|name| name != "sensors");
        Ok(names)
    }

    /// The names of all TOML files at that place, such as `configs/models`, sorted.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn names(&self, place: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for folder in self.folders.iter().map(|folder| folder.join(place)).filter(|folder| folder.is_dir()) {
            names.extend(toml_names(&folder)?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// `benchmarks/published/<file>`.
    pub fn published(&self, file: &str) -> PathBuf {
        self.path(Path::new("benchmarks/published").join(file))
    }

    /// `configs/<kind>/<name>.toml`; `name` may also be a path to such a file.
    ///
    /// # Errors
    /// Where there is no such file: the message lists the names there are.
    pub fn config(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let place = format!("configs/{kind}");
        let named = self.path(Path::new(&place).join(format!("{name}.toml")));
        if named.is_file() {
            return Ok(named);
        }
        let path = PathBuf::from(name);
        if path.is_file() {
            return Ok(path);
        }
        let names = format!("names in {}", self.path(&place).display());
        let help = suggest::help(name, &self.names(&place)?, &names);
        Err(Error::not_found(&named, "no such file").help(format!("{help}; or give a path to a TOML file")))
    }
}

/// Writes the built-in files to a folder of the cache that their content names, once, and returns it.
fn built_in() -> Result<PathBuf> {
    let mut files: Vec<(PathBuf, &[u8])> = Vec::new();
    for (name, dir) in [("benchmarks", &BENCHMARKS), ("configs", &CONFIGS)] {
        collect(Path::new(name), dir, &mut files);
    }
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for (path, bytes) in &files {
        hasher.update(path.to_string_lossy().as_bytes()).update(&[0]);
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    let name = format!("home-{}", &hasher.finalize().to_hex()[..16]);
    let cache = cache_folder().unwrap_or_else(|_| std::env::temp_dir().join("terrabench"));
    let folder = cache.join(name);
    for (path, bytes) in files {
        let path = folder.join(path);
        // Someone may have edited or removed a file of the cache.
        if std::fs::read(&path).ok().as_deref() != Some(bytes) {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).at(parent)?;
            }
            write_atomically(&path, bytes)?;
        }
    }
    Ok(folder)
}

fn collect(at: &Path, dir: &Dir<'static>, files: &mut Vec<(PathBuf, &'static [u8])>) {
    files.extend(dir.files().map(|file| (at.join(file.path()), file.contents())));
    dir.dirs().for_each(|inner| collect(at, inner, files));
}

/// The names of the TOML files in a folder, without their ending, sorted.
fn toml_names(folder: &Path) -> Result<Vec<String>> {
    let paths = std::fs::read_dir(folder).at(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let tomls = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut names: Vec<String> =
        tomls.filter_map(|path| path.file_stem()?.to_str().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// What a configuration's file is called: `knn` for `configs/protocols/knn.toml` and for `elsewhere/knn.toml`. The path by
/// which it was typed is no part of it.
pub fn config_name(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Reads a TOML file into `T`. Unknown keys are errors that name the file and the line.
///
/// # Errors
/// Where the file cannot be read or does not fit `T`.
pub fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).at(path)?;
    toml::from_str(&text).at(path)
}

/// An environment variable. An empty one counts as unset, as CI systems leave those that nobody gave a value.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The folder for what can be computed again: `$TERRABENCH_CACHE`, else `terrabench` in the platform's
/// cache directory. It need not exist yet.
///
/// # Errors
/// Where the platform names no cache directory and `TERRABENCH_CACHE` is not set.
pub fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = variable("TERRABENCH_CACHE") {
        return Ok(folder.into());
    }
    dirs::cache_dir()
        .map(|dir| dir.join("terrabench"))
        .ok_or_else(|| Error::request("there is no cache directory").help("set TERRABENCH_CACHE to a folder"))
}
