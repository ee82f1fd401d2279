//! Snapshots of a training on disk, so that an interrupted training resumes after its last epoch and ends with the same
//! numbers.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::module::Module;
use ndarray::ArrayD;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, View};
use serde::{Deserialize, Serialize};

use super::optim::Optimizer;
use super::state::{self, LazyArray, State};
use crate::error::AtPath;
use crate::files::{remove, replace_with};
use crate::{Error, Result};

/// Progress of a search over learning rates.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standing {
    /// Index of the learning rate being trained.
    pub rate: usize,
    /// Number of its finished epochs.
    pub epochs: usize,
    /// Validation scores of the earlier learning rates, or of the epochs so far; none if the training diverged.
    pub valid: Vec<Option<f64>>,
}

/// A search over learning rates after an epoch of one of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Progress of the search.
    pub standing: Standing,
    /// Data of the best candidate so far besides its score, such as its test logits.
    pub best: State,
    /// Parameters of the network being trained.
    pub network: State,
    /// State of its optimiser.
    pub optimizer: State,
}

/// The metadata stored beside the tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StandingBits {
    rate: usize,
    epochs: usize,
    /// The bits of each score, because JSON's decimals would round.
    valid: Vec<Option<u64>>,
}

const STANDING: &str = "place";
const HASH: &str = "blake3";
const NETWORK: &str = "network.";
const OPTIMIZER: &str = "optimizer.";
const BEST: &str = "best.";

/// Writes a snapshot to the safetensors file at `path`. The write is atomic and replaces an earlier snapshot. Arrays are
/// copied off their device one at a time, so the memory needed is that of the largest.
///
/// # Errors
/// If the file cannot be written.
pub fn save<M: Module>(
    path: &Path,
    standing: &Standing,
    best: &State,
    network: &M,
    optimizer: &Optimizer,
) -> Result<()> {
    let valid = standing.valid.iter().map(|score| score.map(f64::to_bits)).collect();
    let bits = StandingBits { rate: standing.rate, epochs: standing.epochs, valid };
    let best = best.iter().map(|(name, array)| (format!("{BEST}{name}"), LazyArray::of(array.clone())));
    let network =
        state::lazy_state(network).into_iter().map(|(name, lazy)| (format!("{NETWORK}{name}"), lazy));
    let optimizer =
        optimizer.lazy_state().into_iter().map(|(name, lazy)| (format!("{OPTIMIZER}{name}"), lazy));
    write(path, &serde_json::to_string(&bits).at(path)?, best.chain(network).chain(optimizer).collect())
}

/// Writes a network's parameters to the safetensors file at `path`, like [`save`].
///
/// # Errors
/// If the file cannot be written.
pub fn save_network<M: Module>(path: &Path, network: &M) -> Result<()> {
    write(path, "{}", state::lazy_state(network))
}

/// Returns the path of the best network of the search whose snapshot is at `path`: the network after the epoch at index
/// `place`.
pub fn best_path(path: &Path, place: usize) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".best{place}"));
    path.with_file_name(name)
}

/// Removes a snapshot and the networks stored beside it.
///
/// # Errors
/// If a file exists and cannot be removed.
pub fn remove_all(path: &Path) -> Result<()> {
    remove(path)?;
    let Some(folder) = path.parent().filter(|folder| folder.is_dir()) else { return Ok(()) };
    let prefix = best_path(path, 0).to_string_lossy().trim_end_matches('0').to_owned();
    for entry in std::fs::read_dir(folder).at(folder)? {
        let beside = entry.at(folder)?.path();
        if beside.to_string_lossy().starts_with(&prefix) {
            remove(&beside)?;
        }
    }
    Ok(())
}

/// Reads the parameters written by [`save_network`].
///
/// # Errors
/// If the file cannot be read or is not exactly what was written.
pub fn load_network(path: &Path) -> Result<State> {
    let bytes = std::fs::read(path).at(path)?;
    read(path, &bytes).map(|(_, arrays)| arrays)
}

fn write(path: &Path, standing: &str, arrays: BTreeMap<String, LazyArray>) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(standing.as_bytes());
    for (name, lazy) in &arrays {
        hasher.update(name.as_bytes()).update(&lazy.data());
    }
    let hash = hasher.finalize().to_hex().to_string();
    let metadata = HashMap::from([(STANDING.to_owned(), standing.to_owned()), (HASH.to_owned(), hash)]);
    replace_with(path, |temporary| {
        safetensors::serialize_to_file(arrays, Some(metadata), temporary.path()).at(path)
    })
}

/// Returns the JSON text and the arrays of a file written by [`write`].
fn read(path: &Path, bytes: &[u8]) -> Result<(String, State)> {
    let (_, header) = SafeTensors::read_metadata(bytes).at(path)?;
    let beside = header.metadata().clone().unwrap_or_default();
    let of = |key: &str| beside.get(key).ok_or_else(|| Error::damaged(path, format!("lacks `{key}`")));
    let (standing, stated) = (of(STANDING)?, of(HASH)?);
    let tensors: BTreeMap<String, _> =
        SafeTensors::deserialize(bytes).at(path)?.tensors().into_iter().collect();
    // The hash covers everything in the file; otherwise a flipped bit among the numbers would go unnoticed.
    let mut hasher = blake3::Hasher::new();
    hasher.update(standing.as_bytes());
    for (name, tensor) in &tensors {
        hasher.update(name.as_bytes()).update(tensor.data());
    }
    if hasher.finalize().to_hex().as_str() != stated {
        return Err(Error::damaged(path, "its hash does not match its contents"));
    }
    let array = |(name, tensor): (String, safetensors::tensor::TensorView)| {
        let numbers = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok((name, ArrayD::from_shape_vec(tensor.shape().to_vec(), numbers).at(path)?))
    };
    Ok((standing.clone(), tensors.into_iter().map(array).collect::<Result<_>>()?))
}

impl Snapshot {
    /// Reads the snapshot at `path`, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read or is not exactly what was written.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.at(path)?,
        };
        let (standing, arrays) = read(path, &bytes)?;
        let StandingBits { rate, epochs, valid } = serde_json::from_str(&standing).at(path)?;
        let valid = valid.into_iter().map(|score| score.map(f64::from_bits)).collect();
        let mut snapshot = Snapshot {
            standing: Standing { rate, epochs, valid },
            best: State::new(),
            network: State::new(),
            optimizer: State::new(),
        };
        for (name, array) in arrays {
            if let Some(name) = name.strip_prefix(NETWORK) {
                snapshot.network.insert(name.to_owned(), array);
            } else if let Some(name) = name.strip_prefix(OPTIMIZER) {
                snapshot.optimizer.insert(name.to_owned(), array);
            } else if let Some(name) = name.strip_prefix(BEST) {
                snapshot.best.insert(name.to_owned(), array);
            } else {
                return Err(Error::damaged(path, format!("contains an unknown tensor `{name}`")));
            }
        }
        Ok(Some(snapshot))
    }
}

/// Serialised as safetensors stores it.
impl View for LazyArray {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        LazyArray::shape(self)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.to_array().iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        size_of::<f32>() * LazyArray::shape(self).iter().product::<usize>()
    }
}

/// Decides when to write the next snapshot. Writing takes at most a twentieth of the time.
#[derive(Debug, Default)]
pub struct SnapshotPace {
    last: Option<(Instant, Duration)>,
}

impl SnapshotPace {
    /// Training between two snapshots takes at least this many times longer than writing one.
    const SPARE: u32 = 19;

    /// Whether a snapshot is due.
    pub fn is_due(&self) -> bool {
        self.last.is_none_or(|(end, took)| end.elapsed() >= took * Self::SPARE)
    }

    /// Writes a snapshot and notes how long that took.
    ///
    /// # Errors
    /// As for `write`.
    pub fn write(&mut self, write: impl FnOnce() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        write()?;
        self.last = Some((Instant::now(), start.elapsed()));
        Ok(())
    }
}
