//! What can be fetched, read from `benchmarks/fetch/*.toml` and from the `[weights]` of `configs/models/*.toml`.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::checksum::{Checksums, is_hex};
use super::hub::{Kind, Repository};
use crate::home::{Home, read_toml};
use crate::model::config::ModelConfig;
use crate::{Error, Result};

/// Where the official files of a suite are (`benchmarks/fetch/<suite>.toml`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Catalogue {
    /// As on the command line: `geobench`.
    pub name: String,
    /// As in prose: `GEO-Bench`.
    pub title: String,
    /// The environment variable that names the folder of the data.
    pub environment: String,
    /// The data set on the hub.
    pub repository: String,
    /// A commit of it, or a branch where no commit is known.
    pub revision: String,
    /// How many bytes a byte of an archive unpacks to, about.
    #[serde(default = "one")]
    pub expansion: f64,
    /// Where licences are told that are not here.
    pub licences: Option<String>,
    pub tasks: Vec<TaskFiles>,
}

fn one() -> f64 {
    1.0
}

/// The files of one task.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskFiles {
    /// As on the command line: `m-eurosat`.
    pub name: String,
    /// The licence of its data, by its SPDX name.
    pub licence: Option<String>,
    /// Fetched only when named.
    #[serde(default)]
    pub on_request: bool,
    pub files: Vec<Source>,
}

/// A file of the repository, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Source {
    /// In the repository. A `*` stands for any characters but `/`, and then names several files.
    pub path: String,
    /// In the data folder, where it is not the same path.
    pub to: Option<String>,
    /// An archive: the folder it unpacks to, relative to the data folder; its last part is the one folder
    /// that the archive holds.
    pub unpack: Option<String>,
    pub sha256: Option<String>,
    pub md5: Option<String>,
}

impl Source {
    /// The hashes that are pinned.
    pub fn checksums(&self) -> Checksums {
        Checksums { sha256: self.sha256.clone(), md5: self.md5.clone(), git: None }
    }

    /// Whether a file that lies at `to` in the data folder comes from it.
    pub fn brings(&self, to: &str) -> bool {
        matches(self.to.as_ref().unwrap_or(&self.path), to)
    }

    /// Whether the repository's file `path` is meant.
    pub fn names(&self, path: &str) -> bool {
        matches(&self.path, path)
    }
}

/// What shall be fetched from one repository.
#[derive(Debug, Clone)]
pub struct Order {
    pub title: String,
    pub repository: Repository,
    /// Tasks (or the model) with their licences, where these are known, and files.
    pub parts: Vec<Part>,
    /// How many bytes a byte of an archive unpacks to, about.
    pub expansion: f64,
    /// Where licences are told that are not in `parts`.
    pub licences: Option<String>,
}

/// One task's share of an order.
#[derive(Debug, Clone)]
pub struct Part {
    pub name: String,
    pub licence: Option<String>,
    pub sources: Vec<Source>,
}

impl Catalogue {
    /// Reads `benchmarks/fetch/<name>.toml`.
    ///
    /// # Errors
    /// Where there is no such file, it has unknown keys, or says what cannot be.
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
            return Some(format!("expansion {} is not between 1 and 100", self.expansion));
        }
        let mut names = BTreeSet::new();
        for task in &self.tasks {
            if !names.insert(&task.name) {
                return Some(format!("task `{}` stands there twice", task.name));
            }
            if task.files.is_empty() {
                return Some(format!("task `{}` has no files", task.name));
            }
            for file in &task.files {
                let hex =
                    |hash: &Option<String>, digits| hash.as_ref().is_none_or(|hash| is_hex(hash, digits));
                if !hex(&file.sha256, 64) || !hex(&file.md5, 32) {
                    return Some(format!("a hash of `{}` has the wrong form", file.path));
                }
                let several = file.path.contains('*');
                if several && (file.to.is_some() || file.unpack.is_some() || file.sha256.is_some()) {
                    return Some(format!(
                        "`{}` may name several files: no `to`, `unpack` or hash",
                        file.path
                    ));
                }
            }
        }
        None
    }

    /// The files of `tasks`, or of all that are not on request where none is named.
    ///
    /// # Errors
    /// Where the suite has no such task: the message lists the names.
    pub fn order(&self, tasks: &[String]) -> Result<Order> {
        for name in tasks {
            if !self.tasks.iter().any(|task| task.name == *name) {
                let known: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
                return Err(Error::request(format!("{} has no task `{name}` to fetch", self.title))
                    .help(format!("its tasks are {}", known.join(", "))));
            }
        }
        let chosen = self
            .tasks
            .iter()
            .filter(|task| if tasks.is_empty() { !task.on_request } else { tasks.contains(&task.name) });
        // Two tasks may share an archive (the S1 and S2 tasks of one data set): it is the first one's.
        let mut seen: Vec<&Source> = Vec::new();
        let mut parts = Vec::new();
        for task in chosen {
            let own: Vec<&Source> = task.files.iter().filter(|file| !seen.contains(file)).collect();
            seen.extend(&own);
            parts.push(Part {
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

/// The weights of `model`, to lie at [`crate::locations::weights_path`].
///
/// # Errors
/// Where the model's TOML names no weights.
pub fn weights(name: &str, model: &ModelConfig) -> Result<Order> {
    let Some(source) = &model.weights else {
        return Err(Error::request(format!("no weights are published for `{name}`")).help(
            "those of a model whose TOML has [weights] can be fetched; --weights random:0 needs none",
        ));
    };
    let to = crate::locations::weights_path(Path::new(""), source);
    let file = Source {
        path: source.file.clone(),
        to: Some(to.to_string_lossy().replace('\\', "/")),
        unpack: None,
        sha256: None,
        md5: None,
    };
    Ok(Order {
        title: format!("{} {}", model.name, model.backbone),
        repository: Repository {
            kind: Kind::Model,
            name: source.repository.clone(),
            revision: source.revision.clone(),
        },
        parts: vec![Part { name: source.file.clone(), licence: None, sources: vec![file] }],
        expansion: 1.0,
        licences: None,
    })
}

/// Whether `path` fits `pattern`, where `*` stands for any characters but `/`.
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
