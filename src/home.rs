//! Where the data files of Terrabench itself are: `benchmarks/` and `configs/`.

use std::path::{Path, PathBuf};

use crate::error::AtPath;
use crate::{Error, Result};

/// The folder that holds `benchmarks/` and `configs/`.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// The working directory or its nearest ancestor that has both folders, otherwise the checkout
    /// this program was built from.
    ///
    /// # Errors
    /// Where neither is there.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().at(".")?;
        let built = Path::new(env!("CARGO_MANIFEST_DIR"));
        let is_home = |dir: &&Path| dir.join("benchmarks").is_dir() && dir.join("configs").is_dir();
        match here.ancestors().chain([built]).find(is_home) {
            Some(home) => Ok(Home(home.to_owned())),
            None => Err(Error::file(
                &here,
                "neither this folder nor one above it has `benchmarks/` and `configs/`",
            )
            .help("run from a checkout of Terrabench")),
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
        let mut known: Vec<String> = std::fs::read_dir(&folder)
            .at(&folder)?
            .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
            .collect();
        known.sort();
        Err(Error::file(&named, "no such file").help(format!(
            "names in {}: {}; or give a path to a TOML file",
            folder.display(),
            known.join(", ")
        )))
    }
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

/// The folder for what can be computed again: `$TERRABENCH_CACHE`, else `terrabench` in the platform's
/// cache directory. It need not exist yet.
///
/// # Errors
/// Where the platform names no cache directory and `TERRABENCH_CACHE` is not set.
pub fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("TERRABENCH_CACHE") {
        return Ok(folder.into());
    }
    dirs::cache_dir()
        .map(|dir| dir.join("terrabench"))
        .ok_or_else(|| Error::request("there is no cache directory").help("set TERRABENCH_CACHE to a folder"))
}
