//! Weights into modules: from a file, which must hold what the module expects, or random ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use burn::module::Module;

use super::checkpoint::{self, Dtype, Stored};
use super::{init, parameters};
use crate::{Error, Result};

/// Where a model's weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// Initial values drawn with this seed; see [`init::random`].
    Random(u64),
    /// A PyTorch checkpoint or a `.safetensors` file.
    File(PathBuf),
    /// The model has no parameters.
    None,
}

/// The identity of [`Weights::None`].
pub const NO_WEIGHTS: &str = "none";

impl FromStr for Weights {
    type Err = Error;

    /// `random:SEED`, or else a path.
    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("random:") {
            None => Ok(Weights::File(text.into())),
            Some(seed) => seed.parse().map(Weights::Random).map_err(|_| {
                Error::request(format!("`{seed}` in `{text}` is no seed"))
                    .help("give a whole number from 0, as in random:0; a file of such a name as ./random:…")
            }),
        }
    }
}

impl Weights {
    /// What the weights are, for records: `blake3:<hash of the file>`, `random:<seed>` or `none`.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn id(&self) -> Result<String> {
        match self {
            Weights::Random(seed) => Ok(format!("random:{seed}")),
            Weights::File(path) => checkpoint::hash(path).map(|hash| format!("blake3:{hash}")),
            Weights::None => Ok(NO_WEIGHTS.to_owned()),
        }
    }
}

/// What a weight file held of what a model expects. Names are the model's, without prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub loaded: Vec<String>,
    /// Expected, with the shape, but not in the file.
    pub missing: Vec<String>,
    /// In the file, but nothing that the model has.
    pub unexpected: Vec<String>,
    /// In the file with another shape, or not as real numbers; says what was expected and found.
    pub mismatched: Vec<String>,
}

impl Report {
    /// Whether every expected parameter was found. A file may hold more, as upstream's does.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parameters fit", self.loaded.len())?;
        let lists =
            [("missing", &self.missing), ("mismatched", &self.mismatched), ("unexpected", &self.unexpected)];
        for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "\n  {} {what}:", names.len())?;
            names.iter().try_for_each(|name| write!(f, "\n    {name}"))?;
        }
        Ok(())
    }
}

/// Fills `module` with `weights`. Returns it with the weights' identity for records, `blake3:<hash of the
/// file>` or `random:<seed>`, and what was found.
///
/// With `allow_partial`, parameters that the file lacks or has in another shape keep the values of `random:0`,
/// and the identity says so (`blake3:<hash>+random:0`).
///
/// # Errors
/// Where the file cannot be read, holds a number that is not finite, fits nowhere, or does not fit everywhere
/// and `allow_partial` is off.
pub fn load<M: Module>(module: M, weights: &Weights, allow_partial: bool) -> Result<(M, String, Report)> {
    match weights {
        Weights::File(path) => load_file(module, path, allow_partial),
        Weights::None => Err(Error::request("the model has parameters, but no weights were given")
            .help("pass --weights FILE, or --weights random:0 for the untrained architecture")),
        Weights::Random(seed) => {
            let loaded = parameters::list(&module).into_iter().map(|(name, _)| name).collect();
            let module = parameters::fill(module, |name, shape| Ok(init::random(*seed, name, shape)))?;
            Ok((module, format!("random:{seed}"), Report { loaded, ..Report::default() }))
        }
    }
}

fn load_file<M: Module>(module: M, path: &Path, allow_partial: bool) -> Result<(M, String, Report)> {
    let stored = checkpoint::open(path)?;
    let found = by_name(&stored).map_err(|problem| Error::file(path, problem))?;
    let report = compare(&parameters::list(&module), &found);
    if report.loaded.is_empty() {
        return Err(Error::file(path, format!("holds nothing of this model: {report}"))
            .help("are these the weights of another model?"));
    }
    if !report.is_complete() && !allow_partial {
        return Err(Error::file(path, format!("does not fit this model: {report}"))
            .help("are these the weights of another model? --allow-partial loads what fits"));
    }
    let module = parameters::fill(module, |name, shape| match found.get(name) {
        Some(stored) if fits(stored, shape) => read(stored).map_err(|problem| Error::file(path, problem)),
        _ => Ok(init::random(0, name, shape)),
    })?;
    let rest = if report.is_complete() { "" } else { "+random:0" };
    Ok((module, format!("blake3:{}{rest}", checkpoint::hash(path)?), report))
}

fn read(stored: &Stored) -> Result<Vec<f32>, String> {
    let values = stored.read().map_err(|error| error.to_string())?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => Err(format!("{} holds {} at index {at}: no trained weights", stored.name, values[at])),
    }
}

/// What wrappers put before a parameter's name: keys of a checkpoint (`model`, `state_dict`, and `teacher` of
/// self-distillation) and modules around the model (`module` of data-parallel training, `backbone`).
pub const PREFIXES: [&str; 5] = ["model", "state_dict", "teacher", "module", "backbone"];

fn without_prefixes(mut name: &str) -> &str {
    while let Some((first, rest)) = name.split_once('.')
        && PREFIXES.contains(&first)
    {
        name = rest;
    }
    name
}

fn by_name(stored: &[Stored]) -> Result<BTreeMap<&str, &Stored>, String> {
    let mut found = BTreeMap::new();
    for tensor in stored {
        let name = without_prefixes(&tensor.name);
        if let Some(other) = found.insert(name, tensor) {
            return Err(format!(
                "both `{}` and `{}` are `{name}`; keep one of them",
                other.name, tensor.name
            ));
        }
    }
    Ok(found)
}

fn fits(stored: &Stored, shape: &[usize]) -> bool {
    stored.shape == shape && stored.dtype != Dtype::NotReal
}

fn compare(expected: &[(String, Vec<usize>)], found: &BTreeMap<&str, &Stored>) -> Report {
    let mut report = Report::default();
    for (name, shape) in expected {
        match found.get(name.as_str()) {
            None => report.missing.push(format!("{name} {shape:?}")),
            Some(stored) if fits(stored, shape) => report.loaded.push(name.clone()),
            Some(Stored { dtype, shape: other, .. }) => {
                report.mismatched.push(format!("{name} is {other:?} ({dtype}), expected {shape:?}"));
            }
        }
    }
    let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let extra = found.iter().filter(|(name, _)| !known.contains(*name));
    report.unexpected = extra.map(|(name, stored)| format!("{name} {:?}", stored.shape)).collect();
    report
}
