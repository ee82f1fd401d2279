//! Where a training stands, on disk: so that one that was killed goes on from its last epoch and ends with the
//! same numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use ndarray::ArrayD;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, View};
use serde::{Deserialize, Serialize};

use super::state::State;
use crate::error::AtPath;
use crate::files::write_atomically;
use crate::formats::tensors;
use crate::{Error, Result};

/// A search over learning rates after some epoch of one of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Place of the learning rate that is being trained.
    pub rate: usize,
    /// Its finished epochs.
    pub epochs: usize,
    /// Validation scores of the learning rates before it, or of the epochs so far; none where the training diverged.
    pub valid: Vec<Option<f64>>,
    /// What is kept of the best of these: its test logits, or its network.
    pub best: State,
    pub network: State,
    pub optimizer: State,
}

/// What stands beside the tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    rate: usize,
    epochs: usize,
    /// The bits of each score: JSON's decimals would round.
    valid: Vec<Option<u64>>,
}

const PLACE: &str = "place";
const HASH: &str = "blake3";
const NETWORK: &str = "network.";
const OPTIMIZER: &str = "optimizer.";
const BEST: &str = "best.";

impl Snapshot {
    /// Writes it to the safetensors file at `path`, in place of an earlier one, whole or not at all.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let valid = self.valid.iter().map(|score| score.map(f64::to_bits)).collect();
        let place = Place { rate: self.rate, epochs: self.epochs, valid };
        let place = serde_json::to_string(&place).at(path)?;
        let named = |prefix: &'static str, state: &State| -> Vec<(String, Floats)> {
            state.iter().map(|(name, array)| (format!("{prefix}{name}"), Floats::new(array))).collect()
        };
        let mut tensors = named(NETWORK, &self.network);
        tensors.extend(named(OPTIMIZER, &self.optimizer));
        tensors.extend(named(BEST, &self.best));
        let hash = hash(&place, tensors.iter().map(|(name, floats)| (name.as_str(), &floats.bytes[..])));
        let metadata = BTreeMap::from([(PLACE.to_owned(), place), (HASH.to_owned(), hash)]);
        let bytes = tensors::serialize(tensors, metadata).at(path)?;
        write_atomically(path, &bytes)
    }

    /// The snapshot at `path`, if there is one.
    ///
    /// # Errors
    /// Where the file cannot be read or is not exactly what was written.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.at(path)?,
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).at(path)?;
        let beside = header.metadata().clone().unwrap_or_default();
        let of = |key: &str| beside.get(key).ok_or_else(|| Error::not_found(path, format!("lacks `{key}`")));
        let (place, stated) = (of(PLACE)?, of(HASH)?);
        let tensors: BTreeMap<String, _> =
            SafeTensors::deserialize(&bytes).at(path)?.tensors().into_iter().collect();
        if hash(place, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.data()))) != *stated {
            return Err(Error::damaged(path, "its hash is not that of what it holds"));
        }
        let Place { rate, epochs, valid } = serde_json::from_str(place).at(path)?;
        let valid = valid.into_iter().map(|score| score.map(f64::from_bits)).collect();
        let mut snapshot = Snapshot {
            rate,
            epochs,
            valid,
            best: State::new(),
            network: State::new(),
            optimizer: State::new(),
        };
        for (name, tensor) in &tensors {
            let numbers =
                tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let array = ArrayD::from_shape_vec(tensor.shape().to_vec(), numbers).at(path)?;
            if let Some(name) = name.strip_prefix(NETWORK) {
                snapshot.network.insert(name.to_owned(), array);
            } else if let Some(name) = name.strip_prefix(OPTIMIZER) {
                snapshot.optimizer.insert(name.to_owned(), array);
            } else if let Some(name) = name.strip_prefix(BEST) {
                snapshot.best.insert(name.to_owned(), array);
            } else {
                return Err(Error::damaged(path, format!("holds the unknown `{name}`")));
            }
        }
        Ok(Some(snapshot))
    }
}

/// Of all that the file says: a flipped bit among the numbers would otherwise go unseen.
fn hash<'a>(place: &str, tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut sorted: Vec<(&str, &[u8])> = tensors.collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut hasher = blake3::Hasher::new();
    hasher.update(place.as_bytes());
    for (name, bytes) in sorted {
        hasher.update(name.as_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().to_hex().to_string()
}

/// An array as safetensors stores it.
struct Floats {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Floats {
    fn new(array: &ArrayD<f32>) -> Self {
        Floats {
            shape: array.shape().to_vec(),
            bytes: array.iter().flat_map(|number| number.to_le_bytes()).collect(),
        }
    }
}

impl View for Floats {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
