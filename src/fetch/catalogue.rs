//! What can be fetched: read from `benchmarks/fetch/*.toml` and from the `[weights]` section of
//! `configs/models/*.toml`.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::checksum::{Checksums, is_hex};
use super::hub::{Kind, Repository};
use crate::home::{Home, read_toml};
use crate::model::config::ModelConfig;
use crate::{Error, Result};

/// Where the official files of a suite are published (`benchmarks/fetch/<suite>.toml`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Catalogue {
    /// Name on the command line, such as `geobench`.
    pub name: String,
    /// Name in prose, such as `GEO-Bench`.
    pub title: String,
    /// Environment variable that names the data folder.
    pub environment: String,
    /// The data set repository on the hub, `owner/name`.
    pub repository: String,
    /// Its commit, or a branch if no commit is known.
    pub revision: String,
    /// Approximate ratio of unpacked to packed bytes of its archives, 1 to 100.
    #[serde(default = "one")]
    pub expansion: f64,
    /// Where to find licences that are not listed here.
    pub licences: Option<String>,
    /// The tasks, each with its files.
    pub tasks: Vec<TaskFiles>,
}

fn one() -> f64 {
    1.0
}

/// The files of one task.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskFiles {
    /// Name on the command line, such as `m-eurosat`.
    pub name: String,
    /// Licence of the task's data, as an SPDX identifier.
    pub licence: Option<String>,
    /// Whether the task is fetched only when named.
    #[serde(default)]
    pub on_request: bool,
    /// The task's files in the suite's repository.
    #[serde(default)]
    pub files: Vec<Source>,
    /// Files of other repositories.
    #[serde(default)]
    pub others: Vec<OtherFiles>,
}

/// Files that a task needs from another repository than the suite's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OtherFiles {
    /// The data set repository on the hub, `owner/name`.
    pub repository: String,
    /// Its commit.
    pub revision: String,
    /// Licence of the files, as an SPDX identifier.
    pub licence: Option<String>,
    /// The files.
    pub files: Vec<Source>,
}

/// One file of the repository, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Source {
    /// Path in the repository. A `*` matches any characters except `/`; the source then stands for several
    /// files.
    pub path: String,
    /// Path in the data folder, if it differs.
    pub to: Option<String>,
    /// For an archive, the folder it unpacks to, relative to the data folder. Its last component is the one
    /// folder that the archive contains.
    pub unpack: Option<String>,
    /// Pinned SHA-256 hash, in lower-case hexadecimal.
    pub sha256: Option<String>,
    /// Pinned MD5 hash, in lower-case hexadecimal.
    pub md5: Option<String>,
    /// Size in bytes of a file of [`Kind::Web`], if known.
    #[serde(skip)]
    pub size: Option<u64>,
}

impl Source {
    /// Returns the pinned hashes.
    pub fn checksums(&self) -> Checksums {
        Checksums { sha256: self.sha256.clone(), md5: self.md5.clone(), git: None }
    }

    /// Whether the file at `to` in the data folder comes from this source.
    pub fn brings(&self, to: &str) -> bool {
        matches(self.to.as_ref().unwrap_or(&self.path), to)
    }

    /// Whether this source stands for the repository's file `path`.
    pub fn names(&self, path: &str) -> bool {
        matches(&self.path, path)
    }
}

/// What to fetch from one repository.
#[derive(Debug, Clone)]
pub struct Order {
    /// Name in prose.
    pub title: String,
    /// The repository and its revision.
    pub repository: Repository,
    /// Tasks (or the model), each with its files and its licence if known.
    pub parts: Vec<CataloguePart>,
    /// Approximate ratio of unpacked to packed bytes of its archives, 1 to 100.
    pub expansion: f64,
    /// Where to find licences that are not in `parts`.
    pub licences: Option<String>,
}

/// The share of one task in an order.
#[derive(Debug, Clone)]
pub struct CataloguePart {
    /// Name of the task, or of the model's file.
    pub name: String,
    /// Licence of its data, as an SPDX identifier, if known.
    pub licence: Option<String>,
    /// Its files.
    pub sources: Vec<Source>,
}

impl Catalogue {
    /// Reads `benchmarks/fetch/<name>.toml`.
    ///
    /// # Errors
    /// If the file does not exist, has unknown keys or contains invalid values.
    pub fn load(home: &Home, name: &str) -> Result<Self> {
        let path = home.suite(&format!("fetch/{name}"));
        if !path.is_file() {
            let help = crate::suggest::help(name, &home.suites()?, "suites");
            return Err(Error::request(format!("no suite `{name}` to fetch")).help(help));
        }
        let catalogue: Catalogue = read_toml(&path)?;
        match catalogue.problem() {
            Some(problem) => Err(Error::damaged(path, problem)),
            None => Ok(catalogue),
        }
    }

    fn problem(&self) -> Option<String> {
        if !(1.0..=100.0).contains(&self.expansion) {
            return Some(format!("expected an expansion between 1 and 100, got {}", self.expansion));
        }
        let mut names = BTreeSet::new();
        for task in &self.tasks {
            if !names.insert(&task.name) {
                return Some(format!("task `{}` is listed twice", task.name));
            }
            if task.files.is_empty() && task.others.is_empty() {
                return Some(format!("task `{}` has no files", task.name));
            }
            for file in task.files.iter().chain(task.others.iter().flat_map(|other| &other.files)) {
                let hex =
                    |hash: &Option<String>, digits| hash.as_ref().is_none_or(|hash| is_hex(hash, digits));
                if !hex(&file.sha256, 64) || !hex(&file.md5, 32) {
                    return Some(format!(
                        "a hash of `{}` is not lower-case hexadecimal of the right length",
                        file.path
                    ));
                }
                let several = file.path.contains('*');
                if several && (file.to.is_some() || file.unpack.is_some() || file.sha256.is_some()) {
                    return Some(format!(
                        "`{}` may match several files, so it must not have `to`, `unpack` or `sha256`",
                        file.path
                    ));
                }
            }
        }
        None
    }

    /// Orders the files of `tasks`, or of all tasks that are not on request if `tasks` is empty.
    ///
    /// # Errors
    /// If the suite has no such task; the help text lists its tasks.
    pub fn order(&self, tasks: &[String]) -> Result<Order> {
        for name in tasks {
            if !self.tasks.iter().any(|task| task.name == *name) {
                let known: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
                return Err(Error::request(format!("{} has no task `{name}` to fetch", self.title))
                    .help(format!("available tasks: {}", known.join(", "))));
            }
        }
        let chosen = self
            .tasks
            .iter()
            .filter(|task| if tasks.is_empty() { !task.on_request } else { tasks.contains(&task.name) });
        // Two tasks may share an archive (the S1 and S2 tasks of one data set); it counts towards the first.
        let mut seen: Vec<&Source> = Vec::new();
        let mut parts = Vec::new();
        for task in chosen.filter(|task| !task.files.is_empty()) {
            let own: Vec<&Source> = task.files.iter().filter(|file| !seen.contains(file)).collect();
            seen.extend(&own);
            parts.push(CataloguePart {
                name: task.name.clone(),
                licence: task.licence.clone(),
                sources: own.into_iter().cloned().collect(),
            });
        }
        Ok(Order {
            title: self.title.clone(),
            repository: Repository {
                kind: Kind::Dataset,
                name: self.repository.clone(),
                revision: self.revision.clone(),
            },
            parts,
            expansion: self.expansion,
            licences: self.licences.clone(),
        })
    }
}

impl Catalogue {
    /// Orders the files of `tasks` that are in other repositories, one order per repository; none if `tasks` is empty and all
    /// such tasks are on request.
    pub fn other_orders(&self, tasks: &[String]) -> Vec<Order> {
        let chosen = self
            .tasks
            .iter()
            .filter(|task| if tasks.is_empty() { !task.on_request } else { tasks.contains(&task.name) });
        let others = chosen.flat_map(|task| task.others.iter().map(move |other| (task, other)));
        let order = |(task, other): (&TaskFiles, &OtherFiles)| Order {
            title: format!("{}, {}", self.title, task.name),
            repository: Repository {
                kind: Kind::Dataset,
                name: other.repository.clone(),
                revision: other.revision.clone(),
            },
            parts: vec![CataloguePart {
                name: task.name.clone(),
                licence: other.licence.clone(),
                sources: other.files.clone(),
            }],
            expansion: self.expansion,
            licences: None,
        };
        others.map(order).collect()
    }
}

/// Orders the weights of `model`, to be stored at [`crate::locations::weights_path`].
///
/// # Errors
/// If the model's TOML names no weights.
pub fn weights(name: &str, model: &ModelConfig) -> Result<Order> {
    let Some(source) = &model.weights else {
        return Err(Error::request(format!("no weights are published for `{name}`")).help(
            "only models whose TOML has a [weights] section can be fetched; use --weights random:0 to run without weights",
        ));
    };
    let to = crate::locations::weights_path(Path::new(""), source);
    let file = Source {
        path: source.url.as_ref().unwrap_or(&source.file).clone(),
        to: Some(to.to_string_lossy().replace('\\', "/")),
        unpack: None,
        sha256: source.sha256.clone(),
        md5: source.md5.clone(),
        size: source.size,
    };
    let beside = |file: &String| Source {
        path: file.clone(),
        to: Some(format!("{}/{file}", source.repository)),
        unpack: None,
        sha256: None,
        md5: None,
        size: None,
    };
    let sources = std::iter::once(file).chain(source.also.iter().map(beside)).collect();
    let licence = source.licence.clone();
    Ok(Order {
        title: format!("{} {}", model.name, model.backbone),
        repository: Repository {
            kind: if source.url.is_some() { Kind::Web } else { Kind::Model },
            name: source.repository.clone(),
            revision: source.revision.clone(),
        },
        parts: vec![CataloguePart { name: source.file.clone(), licence, sources }],
        expansion: 1.0,
        licences: None,
    })
}

/// Whether `path` matches `pattern`, where `*` stands for any characters except `/`.
fn matches(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == path };
    let Some(rest) = path.strip_prefix(before) else { return false };
    let end = rest.find('/').unwrap_or(rest.len());
    (0..=end).any(|n| rest.is_char_boundary(n) && matches(after, &rest[n..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_inside_a_folder() {
        assert!(matches("images/*/image_*.h5", "images/train/image_12.h5"));
        assert!(!matches("images/*/image_*.h5", "images/train/deep/image_12.h5"));
        assert!(!matches("annotations/*/mask_*.h5", "annotations/train/image_1.h5"));
        assert!(matches("a.zip", "a.zip"));
        assert!(!matches("a.zip", "b/a.zip"));
        assert!(matches("é*", "éà"));
    }
}
