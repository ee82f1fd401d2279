//! Weight files as a list of named tensors, each read only when it is asked for.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use pytorch_reader::PytorchReader;
use safetensors::tensor::Metadata;

use crate::error::AtPath;
use crate::{Error, Result};

/// How a file stores the numbers of a tensor. Only real numbers can be weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    /// Integers, booleans and the like.
    NotReal,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F64 => "float64",
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
            Dtype::NotReal => "not a real number",
        })
    }
}

type ReadBytes = Box<dyn Fn() -> io::Result<Vec<u8>>>;

/// A tensor of a weight file.
pub struct Stored {
    /// As the file has it, nested dictionaries joined by dots.
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    bytes: ReadBytes,
}

impl Stored {
    /// The numbers in row-major order, as float32.
    ///
    /// # Errors
    /// Where the file ends too early, is damaged, or the numbers are not real.
    pub fn read(&self) -> io::Result<Vec<f32>> {
        let bytes = (self.bytes)()?;
        let numbers: Vec<f32> = match self.dtype {
            Dtype::F64 => widen(&bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F32 => widen(&bytes, f32::from_le_bytes),
            Dtype::F16 => widen(&bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => widen(&bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::NotReal => Vec::new(),
        };
        if numbers.len() == self.shape.iter().product::<usize>() {
            Ok(numbers)
        } else {
            let problem = format!("{} has {} numbers for shape {:?}", self.name, numbers.len(), self.shape);
            Err(io::Error::new(io::ErrorKind::InvalidData, problem))
        }
    }
}

fn widen<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
}

/// The tensors of a `.safetensors` file or a PyTorch checkpoint (`.pth`, `.pt`), sorted by name.
///
/// Nothing in a checkpoint is executed, and nothing is allocated on its word alone.
///
/// # Errors
/// Where the file is missing, truncated or of another format.
pub fn open(path: &Path) -> Result<Vec<Stored>> {
    let mut tensors = match path.extension().is_some_and(|extension| extension == "safetensors") {
        true => open_safetensors(path),
        false => open_pytorch(path),
    }
    .map_err(|error| error.help("give a PyTorch state dict (.pth, .pt) or a .safetensors file, complete"))?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

fn open_pytorch(path: &Path) -> Result<Vec<Stored>> {
    let tensors = PytorchReader::new(path).at(path)?.into_tensors();
    Ok(tensors.into_values().map(pytorch_tensor).collect())
}

fn pytorch_tensor(tensor: pytorch_reader::Tensor) -> Stored {
    let (name, dtype, shape, read) = tensor.into_parts();
    let dtype = match dtype {
        pytorch_reader::DType::F64 => Dtype::F64,
        pytorch_reader::DType::F32 => Dtype::F32,
        pytorch_reader::DType::F16 => Dtype::F16,
        pytorch_reader::DType::BF16 => Dtype::Bf16,
        _ => Dtype::NotReal,
    };
    Stored { name, dtype, shape, bytes: Box::new(read) }
}

/// Longest header that is read: 100 MB, the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

fn open_safetensors(path: &Path) -> Result<Vec<Stored>> {
    let mut file = File::open(path).at(path)?;
    let size = file.metadata().at(path)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).at(path)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER.min(size.saturating_sub(8)) {
        return Err(Error::file(path, format!("a header of {length} bytes cannot be: no safetensors file")));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).at(path)?;
    // Also checks that the tensors follow each other without gaps and fit their shapes.
    let header: Metadata = serde_json::from_slice(&header).at(path)?;
    let start = 8 + length;
    if start.checked_add(header.data_len() as u64) != Some(size) {
        let problem =
            format!("{size} bytes, where its header promises {start} + {}: truncated", header.data_len());
        return Err(Error::file(path, problem));
    }
    let tensors = header.tensors();
    Ok(tensors.into_iter().map(|(name, info)| safetensors_tensor(path, start, name, info)).collect())
}

fn safetensors_tensor(
    path: &Path,
    start: u64,
    name: String,
    info: &safetensors::tensor::TensorInfo,
) -> Stored {
    let dtype = match info.dtype {
        safetensors::Dtype::F64 => Dtype::F64,
        safetensors::Dtype::F32 => Dtype::F32,
        safetensors::Dtype::F16 => Dtype::F16,
        safetensors::Dtype::BF16 => Dtype::Bf16,
        _ => Dtype::NotReal,
    };
    let path = path.to_owned();
    let (from, to) = info.data_offsets;
    let read = move || {
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(start + from as u64))?;
        let mut bytes = vec![0; to - from];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    Stored { name, dtype, shape: info.shape.clone(), bytes: Box::new(read) }
}

/// The BLAKE3 hash of a file, in hexadecimal.
///
/// # Errors
/// Where the file cannot be read.
pub fn hash(path: &Path) -> Result<String> {
    let file = File::open(path).at(path)?;
    let hash = blake3::Hasher::new().update_reader(file).at(path)?.finalize();
    Ok(hash.to_hex().to_string())
}
