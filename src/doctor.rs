//! Reports what is installed and what is wrong, as plain data. The doctor changes nothing and uses no network,
//! and a problem is a finding, not a failure.
//!
//! ```text
//! machine.rs   backends and devices, LibTorch, ONNX Runtime
//! self_test.rs what a device computes, and how fast
//! data.rs      data of each suite: tasks, partitions, sample counts compared with the official ones
//! weights.rs   fetched weights: whether they are complete, and their hash
//! storage.rs   caches and free disk space
//! ```

mod data;
mod machine;
pub mod rates;
pub mod self_test;
mod storage;
mod weights;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::home::Home;
use crate::locations::Environment;
use crate::task::Split;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What kind of thing was checked.
    pub area: Area,
    /// What was checked: `GEO-Bench` (a suite's folder), `m-eurosat`, `terrafm-b`, `flex`.
    pub subject: String,
    /// Its condition.
    pub standing: Standing,
    /// What was found, as a sentence.
    pub found: String,
    /// What to type or do to repair or obtain it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The file or folder, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "told")]
    pub path: Option<PathBuf>,
    /// Numbers, if there are any.
    #[serde(flatten)]
    pub measured: Option<Measured>,
}

/// What kind of thing a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Compute devices.
    Devices,
    /// What a device computes, and how fast.
    SelfTest,
    /// The LibTorch library.
    Libtorch,
    /// The ONNX Runtime library.
    Onnxruntime,
    /// Data of the suites.
    Data,
    /// Weights of the models.
    Weights,
    /// Caches.
    Caches,
    /// Free disk space.
    Disk,
}

/// The condition of what was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Present and complete.
    Good,
    /// Not present.
    Absent,
    /// Present and complete, but noteworthy: data other than the official ones, little disk space.
    Doubtful,
    /// Present, but incomplete, damaged or of the wrong version.
    Broken,
}

/// Numbers of a finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Measured {
    /// About a task's data.
    Task {
        /// Sample counts of the `default` partition, per split.
        samples: BTreeMap<Split, Samples>,
        /// Names of all partitions.
        partitions: Vec<String>,
        /// Number of missing sample files, over all partitions.
        missing: usize,
    },
    /// About a weight file.
    Weights {
        /// Size in bytes.
        bytes: u64,
        /// BLAKE3 hash, as in records.
        blake3: String,
        /// The hash that was verified when fetching, such as `sha256:…`; `None` if it was not fetched.
        fetched: Option<String>,
    },
    /// Used or free disk space.
    Bytes {
        /// Number of bytes.
        bytes: u64,
    },
}

/// Sample counts of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Samples {
    /// Number of samples that the partition lists.
    pub listed: usize,
    /// Number of samples in the official release.
    pub official: usize,
}

/// Runs all checks; also tries out `device`, if given, and measures it if it is of another backend than the default's.
pub fn examine(home: &Home, environment: &Environment, device: Option<&str>) -> Vec<Finding> {
    let mut findings = machine::devices(device);
    let works = |name: &&str| {
        findings.iter().any(|finding| finding.subject == **name && finding.standing == Standing::Good)
    };
    if let Some(name) = device.filter(|name| crate::device::is_alternative(name)).filter(works) {
        findings.extend(self_test::examine(home, name));
    }
    findings.push(machine::libtorch(home.folder()));
    findings.push(machine::onnxruntime());
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

    /// Creates a finding from an error, including its advice.
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

/// Serializes a path lossily, because JSON cannot hold bytes that are not text.
fn told<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}
