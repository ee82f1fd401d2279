//! What is here and what is amiss, as plain data: nothing is changed, no network is asked, and what is broken is a
//! finding, not a failure.
//!
//! ```text
//! machine.rs   backends and devices, LibTorch
//! data.rs      each suite's data: tasks, partitions, samples against the official counts
//! weights.rs   the fetched weights: whole, and of which hash
//! storage.rs   caches and free disk
//! ```

mod data;
mod machine;
mod storage;
mod weights;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::home::Home;
use crate::locations::Environment;
use crate::task::Split;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub area: Area,
    /// What was looked at: `GEO-Bench` (a suite's folder), `m-eurosat`, `terrafm-b`, `flex`.
    pub subject: String,
    pub standing: Standing,
    /// What was found, in a sentence.
    pub found: String,
    /// What to type, or to do, where it is to be mended or brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "told")]
    pub path: Option<PathBuf>,
    #[serde(flatten)]
    pub measured: Option<Measured>,
}

/// Where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    Devices,
    Libtorch,
    Data,
    Weights,
    Caches,
    Disk,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Here and whole.
    Good,
    /// Not here.
    Absent,
    /// Here and whole, but to be known: other data than the official ones, little disk.
    Doubtful,
    /// Here, but incomplete, damaged or of the wrong version.
    Broken,
}

/// Numbers of a finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Measured {
    /// Of a task's data.
    Task {
        /// Of the `default` partition.
        samples: BTreeMap<Split, Samples>,
        partitions: Vec<String>,
        /// Files of samples, of any partition, that are not there.
        missing: usize,
    },
    /// Of a file of weights.
    Weights {
        bytes: u64,
        /// Its hash as records name it.
        blake3: String,
        /// The hash that it was fetched by, as `sha256:…`; none where it came another way.
        fetched: Option<String>,
    },
    /// On disk, or free.
    Bytes { bytes: u64 },
}

/// Samples of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Samples {
    /// That the partition lists.
    pub listed: usize,
    /// Of the official release.
    pub official: usize,
}

/// Looks at everything; `device` is tried, too.
pub fn examine(home: &Home, environment: &Environment, device: Option<&str>) -> Vec<Finding> {
    let mut findings = machine::devices(device);
    findings.push(machine::libtorch(home.folder()));
    findings.extend(data::examine(home, environment));
    findings.extend(weights::examine(home, environment));
    findings.extend(storage::examine(environment));
    findings
}

impl Finding {
    fn new(area: Area, subject: &str, standing: Standing, found: impl ToString) -> Self {
        Finding {
            area,
            subject: subject.to_owned(),
            standing,
            found: found.to_string(),
            remedy: None,
            path: None,
            measured: None,
        }
    }

    /// About an error, which brings its own remedy.
    fn of_error(area: Area, subject: &str, standing: Standing, error: &dyn Display) -> Self {
        let text = error.to_string();
        let (found, remedy) = match text.split_once("\n  help: ") {
            Some((found, remedy)) => (found, Some(remedy.to_owned())),
            None => (text.as_str(), None),
        };
        Finding { remedy, ..Finding::new(area, subject, standing, found) }
    }

    fn remedy(self, what_to_type: impl ToString) -> Self {
        Finding { remedy: Some(what_to_type.to_string()), ..self }
    }

    fn at(self, path: &Path) -> Self {
        Finding { path: Some(path.to_owned()), ..self }
    }

    fn measured(self, measured: Measured) -> Self {
        Finding { measured: Some(measured), ..self }
    }
}

/// JSON has no bytes that are no text.
fn told<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}
