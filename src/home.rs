//! Where the data files of Terrabench itself are: `benchmarks/` and `configs/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::AtPath;
use crate::{Error, Result, suggest};

/// The folder that holds `benchmarks/` and `configs/`.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

/// Folders that make a checkout: other projects have `benchmarks/` and `configs/` too.
const PARTS: [&str; 3] = ["benchmarks/published", "configs/models", "configs/protocols"];

/// What `folder` lacks to be a checkout.
fn lacks(folder: &Path) -> Option<&'static str> {
    PARTS.into_iter().find(|part| !folder.join(part).is_dir())
}

impl Home {
    /// The folder that `TERRABENCH_HOME` names; otherwise the working directory or its nearest ancestor that is a
    /// checkout, otherwise the checkout this program was built from.
    ///
    /// # Errors
    /// Where `TERRABENCH_HOME` names something else, or none of the others is a checkout.
    pub fn find() -> Result<Self> {
        if let Some(named) = variable("TERRABENCH_HOME").map(PathBuf::from) {
            return match lacks(&named) {
                None => Ok(Home(named)),
                Some(part) => {
                    let problem =
                        format!("TERRABENCH_HOME names this folder, but it lacks `{part}/`: no checkout");
                    Err(Error::file(&named, problem)
                        .help("set TERRABENCH_HOME to a checkout of Terrabench, or unset it"))
                }
            };
        }
        let here = std::env::current_dir().at(".")?;
        let built = Path::new(env!("CARGO_MANIFEST_DIR"));
        match here.ancestors().chain([built]).find(|folder| lacks(folder).is_none()) {
            Some(home) => Ok(Home(home.to_owned())),
            None => {
                let problem = format!("neither this folder nor one above it has `{}/`", PARTS.join("/`, `"));
                Err(Error::file(&here, problem)
                    .help("run from a checkout of Terrabench, or set TERRABENCH_HOME to one"))
            }
        }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// `benchmarks/<name>.toml`.
    pub fn suite(&self, name: &str) -> PathBuf {
        self.0.join("benchmarks").join(format!("{name}.toml"))
    }

    /// The names of all suites, sorted.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn suites(&self) -> Result<Vec<String>> {
        let mut names = toml_names(&self.0.join("benchmarks"))?;
        names.retain(|name| name != "sensors");
        Ok(names)
    }

    /// `benchmarks/published/<file>`.
    pub fn published(&self, file: &str) -> PathBuf {
        self.0.join("benchmarks/published").join(file)
    }

    /// `configs/<kind>/<name>.toml`; `name` may also be a path to such a file.
    ///
    /// # Errors
    /// Where there is no such file: the message lists the names there are.
    pub fn config(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let folder = self.0.join("configs").join(kind);
        let named = folder.join(format!("{name}.toml"));
        if named.is_file() {
            return Ok(named);
        }
        let path = PathBuf::from(name);
        if path.is_file() {
            return Ok(path);
        }
        let names = format!("names in {}", folder.display());
        let help = suggest::help(name, &toml_names(&folder)?, &names);
        Err(Error::file(&named, "no such file").help(format!("{help}; or give a path to a TOML file")))
    }
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
