//! Opens weight files as a list of named tensors, each read only on request.
//!
//! ```text
//! files.rs                   a path -> the weight files it stands for
//! kind.rs                    a file's first bytes -> its format
//! safetensors.rs, torch.rs   a file -> its tensors
//! tensors.rs                 the values of a pickle -> named tensors
//! storage.rs                 where a tensor's numbers are stored, and reading them
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

/// Help text: what may be passed as weights.
pub const HELP: &str = "pass a PyTorch state dict (.pth, .pt, .bin, .ckpt), a .safetensors file, the .index.json of a \
                        sharded checkpoint, or a folder that contains one of these";

/// How a file stores a tensor's numbers. Only real floating-point numbers can be weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float of IEEE 754.
    F16,
    /// 16-bit bfloat.
    Bf16,
    /// A tensor of another type, such as `int64` or `sparse`.
    Other(Cow<'static, str>),
    /// Not a tensor; describes the value found instead.
    NoTensor(String),
}

impl Dtype {
    /// Parses PyTorch's name of a type, such as `float32`.
    fn named(name: &str) -> Self {
        match name {
            "float64" | "double" => Dtype::F64,
            "float32" | "float" => Dtype::F32,
            "float16" | "half" => Dtype::F16,
            "bfloat16" => Dtype::Bf16,
            other => Dtype::Other(Cow::Owned(other.to_owned())),
        }
    }

    /// Bytes per number; 0 for types that are not read.
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

/// One entry of a weight file: a tensor, or whatever is stored in its place.
pub struct Stored {
    /// Name in the file, with nested dictionary keys joined by dots.
    pub name: String,
    /// Type of the numbers.
    pub dtype: Dtype,
    /// Size of each dimension; empty if the entry is not a tensor.
    pub shape: Vec<usize>,
    numbers: Result<Numbers, String>,
}

/// Shape and type, such as `[1, 2] (float32)`.
impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.dtype {
            Dtype::NoTensor(what) => f.write_str(what),
            dtype => write!(f, "{:?} ({dtype})", self.shape),
        }
    }
}

impl Stored {
    /// Creates an entry that is not a tensor.
    fn no_tensor(name: String, what: String) -> Self {
        let numbers = Err(what.clone());
        Stored { name, dtype: Dtype::NoTensor(what), shape: Vec::new(), numbers }
    }

    /// Whether the entry is a tensor, of any type.
    pub fn is_tensor(&self) -> bool {
        !matches!(self.dtype, Dtype::NoTensor(_))
    }

    /// Whether the numbers have a type that weights can have.
    pub fn is_real(&self) -> bool {
        self.dtype.size() > 0
    }

    /// Reads the numbers as float32, in row-major order.
    ///
    /// Allocates as many numbers as the shape says, so compare the shape with the expected one first.
    ///
    /// # Errors
    /// If the file is truncated or damaged, or the numbers are not real floating-point numbers.
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

/// Opens the tensors of a weight file, sorted by name. `path` is a PyTorch checkpoint, a safetensors file, the
/// index of a sharded checkpoint, or a folder that contains one of these. The format is recognised by the
/// file's first bytes, not by its name.
///
/// Nothing in a checkpoint is executed, and no memory is allocated solely because a file's header claims a
/// size.
///
/// # Errors
/// If a file is missing, truncated or of another format.
pub fn open(path: &Path) -> Result<Vec<Stored>> {
    let mut tensors = match files::locate(path)? {
        WeightFiles::One(file) => open_file(&file)?,
        WeightFiles::Shards { index, parts } => {
            let mut all = BTreeMap::new();
            for (part, names) in &parts {
                let tensors = open_file(part)?;
                if let Some(lacking) = names.iter().find(|name| !tensors.iter().any(|has| has.name == **name))
                {
                    let problem = format!(
                        "tensor `{lacking}`, listed for this file in {}, is missing",
                        index.display()
                    );
                    return Err(
                        Error::damaged(part, problem).help("download all shards and their index again")
                    );
                }
                for tensor in tensors {
                    if let Some(twice) = all.insert(tensor.name.clone(), tensor) {
                        let problem = format!("tensor `{}` is also in another shard", twice.name);
                        return Err(
                            Error::damaged(part, problem).help("download all shards and their index again")
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
        Kind::Json => Err(Error::unsupported(path, "is JSON text, not a weight file").help(HELP)),
    }
}

/// Hashes the weights at `path`; returns hexadecimal.
///
/// The hash of a single file is its BLAKE3 hash, wherever it is stored, so a folder has the hash of the file
/// that [`open`] selects from it. The hash of a sharded checkpoint is the BLAKE3 hash of the sorted hashes of
/// its shards (32 bytes each); the names of the shards and the index do not matter.
/// # Errors
/// If a file cannot be read.
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
