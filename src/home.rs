//! Finds Terrabench's own data files: `benchmarks/` and `configs/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::error::AtPath;
use crate::files::write_atomically;
use crate::{Error, Result, suggest};

/// The files embedded in this program.
static BENCHMARKS: Dir = include_dir!("$CARGO_MANIFEST_DIR/benchmarks");
static CONFIGS: Dir = include_dir!("$CARGO_MANIFEST_DIR/configs");

/// Locates `benchmarks/` and `configs/`: in a checkout or the folder in `TERRABENCH_HOME`, and for missing
/// files among those embedded in the program.
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
    /// The first folder that contains a file takes precedence.
    folders: Vec<PathBuf>,
}

/// Folders that identify a checkout: other projects have `benchmarks/` and `configs/` too.
const PARTS: [&str; 3] = ["benchmarks/published", "configs/models", "configs/protocols"];

fn is_checkout(folder: &Path) -> bool {
    PARTS.iter().all(|part| folder.join(part).is_dir())
}

impl Home {
    /// Finds the files: in the folder in `TERRABENCH_HOME`; otherwise in the working directory or its nearest
    /// ancestor that is a checkout; otherwise only the embedded ones.
    ///
    /// # Errors
    /// If `TERRABENCH_HOME` names a folder with neither `benchmarks/` nor `configs/`, or the embedded files
    /// cannot be written to the cache folder.
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

    /// Uses the files in `folder`, and the embedded ones for those it lacks.
    ///
    /// # Errors
    /// Like [`Home::find`].
    pub fn of(folder: &Path) -> Result<Self> {
        if is_checkout(folder) {
            return Ok(Home { folders: vec![folder.to_owned()] });
        }
        if !folder.join("benchmarks").is_dir() && !folder.join("configs").is_dir() {
            let problem = "expected a folder with `benchmarks/` or `configs/`, found neither";
            return Err(Error::not_found(folder, problem).help(
                "set --home (or TERRABENCH_HOME) to a folder laid out like a checkout of Terrabench, or omit it",
            ));
        }
        Ok(Home { folders: vec![folder.to_owned(), built_in()?] })
    }

    /// Returns the path of a file or folder, such as `configs/normalization.toml`; if it does not exist, its
    /// path in the first folder.
    pub fn path(&self, place: impl AsRef<Path>) -> PathBuf {
        let paths = || self.folders.iter().map(|folder| folder.join(&place));
        paths().find(|path| path.exists()).or_else(|| paths().next()).unwrap_or_default()
    }

    /// Returns the folder that takes precedence.
    pub fn folder(&self) -> &Path {
        self.folders.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Returns the path of `benchmarks/<name>.toml`.
    pub fn suite(&self, name: &str) -> PathBuf {
        self.path(Path::new("benchmarks").join(format!("{name}.toml")))
    }

    /// Lists the names of all suites, sorted.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn suites(&self) -> Result<Vec<String>> {
        let mut names = self.names("benchmarks")?;
        names.retain(|name| name != "sensors");
        Ok(names)
    }

    /// Lists the names of all TOML files in a folder such as `configs/models`, sorted.
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

    /// Returns the path of `benchmarks/published/<file>`.
    pub fn published(&self, file: &str) -> PathBuf {
        self.path(Path::new("benchmarks/published").join(file))
    }

    /// Returns the path of `configs/<kind>/<name>.toml`; `name` may also be a path to such a file.
    ///
    /// # Errors
    /// If there is no such file; the help text lists the available names.
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
        if path.extension().is_some_and(|extension| extension == "toml") || path.components().count() > 1 {
            let help = format!("pass the path of a TOML file, or a name in {}", self.path(&place).display());
            return Err(Error::not_found(&path, "no such file").help(help));
        }
        let names = format!("names in {}", self.path(&place).display());
        let help = suggest::help(name, &self.names(&place)?, &names);
        Err(Error::not_found(&named, "no such file").help(format!("{help}; or pass the path of a TOML file")))
    }
}

/// Writes the embedded files once to a cache folder named after their content, and returns that folder.
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
        // A cached file may have been edited or removed.
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

/// Lists the names of the TOML files in a folder, without extension, sorted.
fn toml_names(folder: &Path) -> Result<Vec<String>> {
    let paths = std::fs::read_dir(folder).at(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let tomls = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut names: Vec<String> =
        tomls.filter_map(|path| path.file_stem()?.to_str().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// Returns the name of a configuration file: `knn` for both `configs/protocols/knn.toml` and
/// `elsewhere/knn.toml`. The path as typed does not matter.
pub fn config_name(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Reads a TOML file into `T`. Unknown keys are errors that name the file and the line.
///
/// # Errors
/// If the file cannot be read or does not fit `T`.
pub fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).at(path)?;
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(Error::damaged(path, "expected a TOML file, found bytes that are no text")
            .help("write a TOML that names this file; docs/onnx.md has an example for ONNX models"));
    };
    toml::from_str(&text).map_err(|problem| {
        let help = suggest::of_complaint(problem.message());
        let error = Error::damaged(path, &problem).caused_by(problem);
        help.into_iter().fold(error, Error::help)
    })
}

/// Reads an environment variable. An empty one counts as unset, because CI systems set unassigned variables to
/// nothing.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the folder for data that can be recomputed: `$TERRABENCH_CACHE`, else `terrabench` in the platform's
/// cache directory. It need not exist yet.
///
/// # Errors
/// If the platform has no cache directory and `TERRABENCH_CACHE` is not set.
pub fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = variable("TERRABENCH_CACHE") {
        return Ok(folder.into());
    }
    dirs::cache_dir().map(|dir| dir.join("terrabench")).ok_or_else(|| {
        Error::request("this platform has no default cache directory")
            .help("set TERRABENCH_CACHE to a folder")
    })
}
