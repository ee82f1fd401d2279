//! Where data and weights are stored on this machine.
//!
//! A suite's data are searched for, and fetched to, in this order:
//!
//! 1. the folder on the command line (`--data DIR`),
//! 2. the folder in the suite's environment variable (`GEO_BENCH_DIR`),
//! 3. `$TERRABENCH_DATA/<suite>`,
//! 4. `terrabench/<suite>` in the platform's data directory (`~/.local/share` on Linux).
//!
//! A folder named explicitly (1, 2) is the only one considered. Of the last two, data are read from the first
//! that exists and written to the first that is configured. Weights are stored in `$TERRABENCH_DATA/weights`,
//! else in the platform's directory, by repository and file name.

use std::path::{Path, PathBuf};

use crate::home::variable;
use crate::model::config::WeightsSource;
use crate::{Error, Result};

/// A folder where data or weights may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The folder.
    pub folder: PathBuf,
    /// What named it: `--data`, `$GEO_BENCH_DIR`.
    pub said_by: String,
    /// Whether it was named explicitly; if so, no other place is searched.
    pub named: bool,
}

/// The parts of the environment that determine the locations.
pub struct Environment<'a> {
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<PathBuf>,
    /// The platform's data directory.
    pub platform: Option<PathBuf>,
}

impl Environment<'static> {
    /// Returns the environment of this process.
    pub fn here() -> Self {
        Environment { variable: &|name| variable(name).map(PathBuf::from), platform: dirs::data_dir() }
    }
}

impl Environment<'_> {
    /// Lists the places for `suite`, whose environment variable is `variable`, in the order given in the module
    /// documentation.
    pub fn places(&self, suite: &str, variable: &str, typed: Option<&Path>) -> Vec<Location> {
        let named = |folder, said_by| Location { folder, said_by, named: true };
        let typed = typed.map(|folder| named(folder.to_owned(), "--data".to_owned()));
        let own = (self.variable)(variable).map(|folder| named(folder, format!("${variable}")));
        typed.into_iter().chain(own).chain(self.shared(suite)).collect()
    }

    fn shared(&self, what: &str) -> impl Iterator<Item = Location> {
        let of = |base: PathBuf, said_by: &str| Location {
            folder: base.join(what),
            said_by: said_by.to_owned(),
            named: false,
        };
        let data = (self.variable)("TERRABENCH_DATA").map(|base| of(base, "$TERRABENCH_DATA"));
        let platform =
            self.platform.clone().map(|base| of(base.join("terrabench"), "the platform's data directory"));
        data.into_iter().chain(platform)
    }

    /// Finds the folder to read `suite`'s data from; `None` if there is none.
    ///
    /// # Errors
    /// If a folder is named explicitly but does not exist.
    pub fn find(&self, suite: &str, variable: &str, typed: Option<&Path>) -> Result<Option<Location>> {
        let mut places = self.places(suite, variable, typed).into_iter();
        match places.next() {
            Some(first) if first.named && !first.folder.is_dir() => {
                let problem = format!("{} names this folder, but it does not exist", first.said_by);
                Err(Error::damaged(first.folder, problem))
            }
            first => Ok(first.into_iter().chain(places).find(|place| place.folder.is_dir())),
        }
    }

    /// Returns the folder that `suite`'s data are fetched to. It need not exist.
    ///
    /// # Errors
    /// If no variable is set and the platform has no data directory.
    pub fn destination(&self, suite: &str, variable: &str, typed: Option<&Path>) -> Result<Location> {
        let first = self.places(suite, variable, typed).into_iter().next();
        first.ok_or_else(|| nowhere().help(format!("pass --data DIR, or set {variable} or TERRABENCH_DATA")))
    }

    /// Returns the folder that weights are fetched to. It need not exist.
    ///
    /// # Errors
    /// If no variable is set and the platform has no data directory.
    pub fn weights(&self) -> Result<Location> {
        self.shared("weights").next().ok_or_else(|| nowhere().help("pass --to DIR, or set TERRABENCH_DATA"))
    }

    /// Returns the first weights folder that contains the weights of `source`.
    pub fn place_of_weights(&self, source: &WeightsSource) -> Option<Location> {
        self.shared("weights").find(|place| weights_path(&place.folder, source).is_file())
    }

    /// Returns the path of the fetched weights of `source`, if they exist.
    pub fn find_weights(&self, source: &WeightsSource) -> Option<PathBuf> {
        self.place_of_weights(source).map(|place| weights_path(&place.folder, source))
    }
}

fn nowhere() -> Error {
    Error::request("this platform has no default data directory")
}

/// Returns the path of `source`'s file in a folder of weights.
pub fn weights_path(folder: &Path, source: &WeightsSource) -> PathBuf {
    folder.join(&source.repository).join(&source.file)
}

/// Returns the number of bytes that can still be written below `folder`, which need not exist yet.
///
/// # Errors
/// If the file system does not report it.
pub fn free_space(folder: &Path) -> Result<u64> {
    let there = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let existing = there.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    fs4::available_space(existing)
        .map_err(|error| Error::io(existing, format!("cannot determine the free space: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIABLE: &str = "GEO_BENCH_DIR";

    fn folders(variables: &[(&str, &Path)], typed: Option<&Path>, platform: &Path) -> Vec<Location> {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let environment = Environment { variable: &get, platform: Some(platform.to_owned()) };
        environment.places("geobench", VARIABLE, typed)
    }

    #[test]
    fn the_order_is_command_line_variable_data_platform() {
        let (a, b, c, d) = (Path::new("/a"), Path::new("/b"), Path::new("/c"), Path::new("/d"));
        let places = folders(&[("TERRABENCH_DATA", c), (VARIABLE, b)], Some(a), d);
        let told: Vec<_> = places.iter().map(|place| (place.folder.as_path(), place.named)).collect();
        let data = (Path::new("/c/geobench"), false);
        let platform = (Path::new("/d/terrabench/geobench"), false);
        assert_eq!(told, [(a, true), (b, true), data, platform]);
    }

    #[test]
    fn a_named_folder_must_exist_and_others_may() {
        let here = tempfile::tempdir().unwrap();
        let data = here.path().join("data");
        let platform = here.path().join("platform");
        std::fs::create_dir_all(platform.join("terrabench/geobench")).unwrap();
        let get = |name: &str| (name == "TERRABENCH_DATA").then(|| data.clone());
        let environment = Environment { variable: &get, platform: Some(platform.clone()) };

        let found = environment.find("geobench", VARIABLE, None).unwrap().unwrap();
        assert_eq!(found.folder, platform.join("terrabench/geobench"));
        let destination = environment.destination("geobench", VARIABLE, None).unwrap();
        assert_eq!(destination.folder, data.join("geobench"));
        assert_eq!(environment.find("landslide4sense", "LANDSLIDE4SENSE_DIR", None).unwrap(), None);

        let missing = here.path().join("missing");
        let error = environment.find("geobench", VARIABLE, Some(&missing)).unwrap_err().to_string();
        assert!(error.contains("--data names this folder, but it does not exist"), "{error}");
    }

    #[test]
    fn weights_are_stored_by_repository() {
        let here = tempfile::tempdir().unwrap();
        let get = |name: &str| (name == "TERRABENCH_DATA").then(|| here.path().to_owned());
        let environment = Environment { variable: &get, platform: None };
        let source = WeightsSource { repository: "a/b".into(), file: "w.pth".into(), ..Default::default() };
        assert_eq!(environment.find_weights(&source), None);
        let path = here.path().join("weights/a/b/w.pth");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(environment.find_weights(&source), Some(path));
    }

    #[test]
    fn free_space_is_known_for_folders_yet_to_be_created() {
        let here = tempfile::tempdir().unwrap();
        assert!(free_space(&here.path().join("not/yet")).unwrap() > 0);
    }
}
