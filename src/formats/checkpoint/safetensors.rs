//! safetensors files: a JSON header followed by the numbers.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Metadata, TensorInfo};

use super::kind::MAX_HEADER;
use super::storage::{Numbers, Storage};
use super::{Dtype, Stored};
use crate::error::AtPath;
use crate::{Error, Result};

/// Lists the tensors of the file at `path`.
///
/// # Errors
/// If the file is truncated or its header is malformed.
pub fn open(path: &Path) -> Result<Vec<Stored>> {
    let truncated =
        |problem: String| Error::damaged(path, problem).help("the file is incomplete: download it again");
    let mut file = File::open(path).at(path)?;
    let size = file.metadata().at(path)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).at(path)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER.min(size.saturating_sub(8)) {
        return Err(truncated(format!("the header should have {length} bytes, but the file has {size}")));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).at(path)?;
    // This also checks that the tensors follow each other without gaps and match their shapes.
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| {
        Error::damaged(path, format!("malformed safetensors header: {error}")).help("download it again")
    })?;
    let start = 8 + length;
    if start.checked_add(header.data_len() as u64) != Some(size) {
        return Err(truncated(format!(
            "expected {start} + {} bytes from the header, found {size}: truncated",
            header.data_len()
        )));
    }
    let tensors = header.tensors();
    Ok(tensors.into_iter().map(|(name, info)| stored(path, start, name, info)).collect())
}

fn stored(path: &Path, start: u64, name: String, info: &TensorInfo) -> Stored {
    let (from, to) = info.data_offsets;
    let length = (to - from) as u64;
    let storage = Arc::new(Storage::File { path: path.to_owned(), start: start + from as u64, length });
    Stored { name, dtype: dtype(info.dtype), shape: info.shape.clone(), numbers: Ok(Numbers::all(storage)) }
}

fn dtype(stored: safetensors::Dtype) -> Dtype {
    match stored {
        safetensors::Dtype::F64 => Dtype::F64,
        safetensors::Dtype::F32 => Dtype::F32,
        safetensors::Dtype::F16 => Dtype::F16,
        safetensors::Dtype::BF16 => Dtype::Bf16,
        other => Dtype::Other(match format!("{other:?}").as_str() {
            "BOOL" => Cow::Borrowed("bool"),
            "U8" => Cow::Borrowed("uint8"),
            "I8" => Cow::Borrowed("int8"),
            "U16" => Cow::Borrowed("uint16"),
            "I16" => Cow::Borrowed("int16"),
            "U32" => Cow::Borrowed("uint32"),
            "I32" => Cow::Borrowed("int32"),
            "U64" => Cow::Borrowed("uint64"),
            "I64" => Cow::Borrowed("int64"),
            "C64" => Cow::Borrowed("complex64"),
            "F8_E4M3" => Cow::Borrowed("float8_e4m3fn"),
            "F8_E5M2" => Cow::Borrowed("float8_e5m2"),
            other => Cow::Owned(other.to_owned()),
        }),
    }
}
