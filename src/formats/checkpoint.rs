//! Weight files as a list of named tensors, each read only when it is asked for.
//!
//! ```text
//! files.rs                   a path -> the files that hold its weights
//! kind.rs                    a file's first bytes -> what it is
//! safetensors.rs, torch.rs   a file -> its tensors
//! tensors.rs                 the values of a pickle -> named tensors
//! storage.rs                 where numbers lie, and reading them
//! ```

mod files;
mod kind;
mod safetensors;
mod storage;
mod tensors;
mod torch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use half::{bf16, f16};

use self::files::WeightFiles;
use self::kind::Kind;
use self::storage::Numbers;
use crate::error::AtPath;
use crate::{Error, Result};

/// What to pass as weights.
pub const HELP: &str = "pass a PyTorch state dict (.pth, .pt, .bin, .ckpt), a .safetensors file, the .index.json of \
                        several, or a folder that holds one of these";

/// How a file stores the numbers of a tensor. Only real floating-point numbers can be weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    /// A tensor of another type: `int64`, `sparse`.
    Other(Cow<'static, str>),
    /// No tensor: what it is instead.
    NoTensor(String),
}

impl Dtype {
    /// By PyTorch's name for it, as in `float32`.
    fn named(name: &str) -> Self {
        match name {
            "float64" | "double" => Dtype::F64,
            "float32" | "float" => Dtype::F32,
            "float16" | "half" => Dtype::F16,
            "bfloat16" => Dtype::Bf16,
            other => Dtype::Other(Cow::Owned(other.to_owned())),
        }
    }

    /// Bytes per number; 0 where it is not read.
    fn size(&self) -> usize {
        match self {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::Other(_) | Dtype::NoTensor(_) => 0,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F64 => "float64",
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
            Dtype::Other(name) => name,
            Dtype::NoTensor(what) => what,
        })
    }
}

/// A tensor of a weight file, or what stands there instead of one.
pub struct Stored {
    /// As the file has it, nested dictionaries joined by dots.
    pub name: String,
    pub dtype: Dtype,
    /// Empty for what is no tensor.
    pub shape: Vec<usize>,
    numbers: Result<Numbers, String>,
}

/// Shape and type: `[1, 2] (float32)`.
impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.dtype {
            Dtype::NoTensor(what) => f.write_str(what),
            dtype => write!(f, "{:?} ({dtype})", self.shape),
        }
    }
}

impl Stored {
    /// What is no tensor.
    fn no_tensor(name: String, what: String) -> Self {
        let numbers = Err(what.clone());
        Stored { name, dtype: Dtype::NoTensor(what), shape: Vec::new(), numbers }
    }

    /// Whether it is a tensor, of whatever type.
    pub fn is_tensor(&self) -> bool {
        !matches!(self.dtype, Dtype::NoTensor(_))
    }

    /// Whether its numbers are of a type that weights have.
    pub fn is_real(&self) -> bool {
        self.dtype.size() > 0
    }

    /// The numbers in row-major order, as float32.
    ///
    /// As many are allocated as the shape says: compare it with the expected one first.
    ///
    /// # Errors
    /// Where the file ends too early or is damaged, or the numbers are not real.
    pub fn read(&self) -> io::Result<Vec<f32>> {
        let invalid = |problem: &dyn fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidData, format!("`{}`: {problem}", self.name))
        };
        let numbers = self.numbers.as_ref().map_err(|problem| invalid(problem))?;
        let bytes = numbers.read(&self.shape, self.dtype.size()).map_err(|error| invalid(&error))?;
        let mut values = match self.dtype {
            Dtype::F64 => widen(&bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F32 => widen(&bytes, f32::from_le_bytes),
            Dtype::F16 => widen(&bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => widen(&bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::Other(_) | Dtype::NoTensor(_) => return Err(invalid(&self.dtype)),
        };
        if numbers.negative {
            values.iter_mut().for_each(|value| *value = -*value);
        }
        Ok(values)
    }
}

fn widen<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
}

/// The tensors of a weight file, sorted by name. `path` is a PyTorch checkpoint, a safetensors file, the index of
/// several, or a folder that holds one of these. What a file is, its bytes say, not its name.
///
/// Nothing in a checkpoint is executed, and nothing is allocated on its word alone.
///
/// # Errors
/// Where a file is missing, truncated or of another format.
pub fn open(path: &Path) -> Result<Vec<Stored>> {
    let mut tensors = match files::locate(path)? {
        WeightFiles::One(file) => open_file(&file)?,
        WeightFiles::Shards { index, parts } => {
            let mut all = BTreeMap::new();
            for (part, names) in &parts {
                let tensors = open_file(part)?;
                if let Some(lacking) = names.iter().find(|name| !tensors.iter().any(|has| has.name == **name))
                {
                    let problem = format!("lacks `{lacking}`, which {} says it holds", index.display());
                    return Err(Error::damaged(part, problem).help("fetch the parts and their index again"));
                }
                for tensor in tensors {
                    if let Some(twice) = all.insert(tensor.name.clone(), tensor) {
                        let problem = format!("`{}` is in another part too", twice.name);
                        return Err(
                            Error::damaged(part, problem).help("fetch the parts and their index again")
                        );
                    }
                }
            }
            all.into_values().collect()
        }
    };
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

fn open_file(path: &Path) -> Result<Vec<Stored>> {
    match kind::of_file(path)? {
        Kind::Safetensors => safetensors::open(path),
        Kind::Zip => torch::open_zip(path),
        Kind::Pickle => torch::open_pickle(path),
        Kind::Json => Err(Error::unsupported(path, "is JSON text, no weights").help(HELP)),
    }
}

/// The hash of the weights at `path`, in hexadecimal.
///
/// Of a single file: its BLAKE3 hash, wherever it lies; so a folder has the hash of the file that [`open`] takes from
/// it. Of several parts: the BLAKE3 hash of their hashes (32 bytes each), sorted; names of parts and the index do not
/// count.
///
/// # Errors
/// Where a file cannot be read.
pub fn hash(path: &Path) -> Result<String> {
    let hash = match files::locate(path)? {
        WeightFiles::One(file) => hash_file(&file)?,
        WeightFiles::Shards { parts, .. } => {
            let hashes: Result<Vec<blake3::Hash>> = parts.keys().map(|part| hash_file(part)).collect();
            let mut hashes: Vec<[u8; 32]> = hashes?.into_iter().map(blake3::Hash::into).collect();
            hashes.sort_unstable();
            match hashes.as_slice() {
                [one] => blake3::Hash::from_bytes(*one),
                several => blake3::hash(&several.concat()),
            }
        }
    };
    Ok(hash.to_hex().to_string())
}

fn hash_file(path: &Path) -> Result<blake3::Hash> {
    let file = File::open(path).at(path)?;
    Ok(blake3::Hasher::new().update_reader(file).at(path)?.finalize())
}
