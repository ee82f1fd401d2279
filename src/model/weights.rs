//! Loads weights into modules: from a file, which must contain what the module expects, or random ones.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::architecture::Architecture;
use super::init;
use super::subtree::{self, Subtree, fits};
use crate::formats::checkpoint::{self, Stored};
use crate::{Error, Result};

/// Source of a model's weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// Initial values drawn with this seed; see [`init::random`].
    Random(u64),
    /// A PyTorch checkpoint, a safetensors file, the index of a sharded checkpoint, or a folder that contains one of these.
    File(PathBuf),
    /// The model has no parameters.
    None,
}

/// The identity of [`Weights::None`].
pub const NO_WEIGHTS: &str = "none";

impl FromStr for Weights {
    type Err = Error;

    /// Parses `random:SEED`; anything else is a path.
    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("random:") {
            None => Ok(Weights::File(text.into())),
            Some(seed) => seed.parse().map(Weights::Random).map_err(|_| {
                Error::request(format!("expected a seed after `random:` in `{text}`, found `{seed}`")).help(
                    "pass a non-negative integer, such as random:0; write a file of this name as ./random:…",
                )
            }),
        }
    }
}

impl Weights {
    /// Returns the identity of the weights for records: `blake3:<hash of the file>`, `random:<seed>` or `none`. For folders
    /// and sharded checkpoints see [`checkpoint::hash`].
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn id(&self) -> Result<String> {
        match self {
            Weights::Random(seed) => Ok(format!("random:{seed}")),
            Weights::File(path) => checkpoint::hash(path).map(|hash| format!("blake3:{hash}")),
            Weights::None => Ok(NO_WEIGHTS.to_owned()),
        }
    }
}

/// Result of matching a weight file with a model's parameters. Names are the model's, without prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Parameters that were found with the expected shape.
    pub loaded: Vec<String>,
    /// Parameters that the file lacks, with their expected shapes.
    pub missing: Vec<String>,
    /// Tensors in the file that the model does not have.
    pub unexpected: Vec<String>,
    /// Parameters in the file with a different shape, or not as real numbers, with what was expected and found.
    pub mismatched: Vec<String>,
    /// Which of the file's weights were used, if it contains several or they are below an unusual prefix.
    pub taken: Option<String>,
}

impl Report {
    /// Whether every expected parameter was found. A file may contain more, as upstream's does.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.mismatched.is_empty()
    }
}

/// Maximum number of names shown per list. Optimisers keep two tensors per parameter.
const SHOWN: usize = 100;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parameters fit", self.loaded.len())?;
        let lists =
            [("missing", &self.missing), ("mismatched", &self.mismatched), ("unexpected", &self.unexpected)];
        for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "\n  {} {what}:", names.len())?;
            names.iter().take(SHOWN).try_for_each(|name| write!(f, "\n    {name}"))?;
            if names.len() > SHOWN {
                write!(f, "\n    … and {} more", names.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}

/// Loads `weights` into `network`. Returns it with the identity of the weights for records (`blake3:<hash of the file>` or
/// `random:<seed>`) and the report of what was found.
///
/// With `allow_partial`, parameters that the file lacks or has in a different shape keep the values of `random:0`, and the
/// identity says so (`blake3:<hash>+random:0`).
///
/// # Errors
/// If the file cannot be read, contains a number that is not finite, contains no parameter of the model, or lacks some of
/// them and `allow_partial` is off.
pub fn load(
    network: Architecture,
    weights: &Weights,
    allow_partial: bool,
) -> Result<(Architecture, String, Report)> {
    match weights {
        Weights::File(path) => load_file(network, path, allow_partial),
        Weights::None => Err(Error::request("the model has parameters, but no weights were given")
            .help("pass --weights FILE, or --weights random:0 for the untrained architecture")),
        Weights::Random(seed) => {
            let loaded = network.parameters().into_iter().map(|(name, _)| name).collect();
            let network = network.fill(|name, shape| Ok(init::random(*seed, name, shape)))?;
            Ok((network, format!("random:{seed}"), Report { loaded, ..Report::default() }))
        }
    }
}

fn load_file(
    network: Architecture,
    path: &Path,
    allow_partial: bool,
) -> Result<(Architecture, String, Report)> {
    let stored = checkpoint::open(path)?;
    let expected = network.parameters();
    let subtree = subtree::find(&stored, &expected).map_err(|problem| Error::damaged(path, problem))?;
    let report = compare(&expected, &subtree);
    if report.loaded.is_empty() {
        return Err(Error::damaged(path, format!("contains no parameter of this model: {report}"))
            .help("check that the weights belong to this model"));
    }
    if !report.is_complete() && !allow_partial {
        let help = if is_part(path) {
            "this file is one shard of several: pass their .index.json or the folder"
        } else {
            "check that the weights belong to this model; --allow-partial loads what fits"
        };
        return Err(Error::damaged(path, format!("does not match this model: {report}")).help(help));
    }
    if let Some(taken) = &report.taken {
        tracing::warn!("{}: {taken}", path.display());
    }
    let network = network.fill(|name, shape| match subtree.found.get(name) {
        Some(stored) if fits(stored, shape) => read(stored).map_err(|problem| Error::damaged(path, problem)),
        _ => Ok(init::random(0, name, shape)),
    })?;
    let rest = if report.is_complete() { "" } else { "+random:0" };
    Ok((network, format!("blake3:{}{rest}", checkpoint::hash(path)?), report))
}

/// Whether a file's name marks it as one of several shards: `model-00001-of-00002.safetensors`.
fn is_part(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.rsplit_once("-of-").is_some_and(|(before, count)| {
        count.parse::<u32>().is_ok() && before.ends_with(|last: char| last.is_ascii_digit())
    })
}

/// Reads the numbers of a tensor, which must be finite.
fn read(stored: &Stored) -> Result<Vec<f32>, String> {
    let values = stored.read().map_err(|error| error.to_string())?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => {
            Err(format!("{}: expected finite numbers, found {} at index {at}", stored.name, values[at]))
        }
    }
}

fn compare(expected: &[(String, Vec<usize>)], subtree: &Subtree) -> Report {
    let mut report = Report { taken: subtree.taken.clone(), ..Report::default() };
    for (name, shape) in expected {
        match subtree.found.get(name) {
            None => report.missing.push(format!("{name} {shape:?}")),
            Some(stored) if fits(stored, shape) => report.loaded.push(name.clone()),
            Some(stored) => report.mismatched.push(format!("{name} is {stored}, expected {shape:?}")),
        }
    }
    let extra = subtree.rest.iter().filter(|(_, stored)| stored.is_tensor());
    report.unexpected = extra.map(|(name, stored)| format!("{name} {:?}", stored.shape)).collect();
    report.unexpected.sort();
    report
}
