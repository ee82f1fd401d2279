//! safetensors: a JSON header with metadata, followed by the numbers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use super::{ArrayFile, Number, Place, StoredArray};
use crate::error::AtPath;
use crate::{Error, Result};

/// Largest header: 100 MB, the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// Reads the header of the file at `path`.
///
/// # Errors
/// If the file is truncated or its header is malformed.
pub(super) fn open(path: &Path) -> Result<ArrayFile> {
    let again = "the file is incomplete: write it again";
    let mut file = File::open(path).at(path)?;
    let size = file.metadata().at(path)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|problem| Error::damaged(path, problem).help(again))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER.min(size.saturating_sub(8)) {
        let problem = format!("expected a header of {length} bytes, found a file of {size} bytes");
        return Err(Error::damaged(path, problem).help(again));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).at(path)?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|problem| {
        Error::damaged(path, format!("malformed safetensors header: {problem}")).help(again)
    })?;
    let start = 8 + length;
    if start.checked_add(header.data_len() as u64) != Some(size) {
        let problem = format!("expected {start} + {} bytes, found {size}", header.data_len());
        return Err(Error::damaged(path, problem).help(again));
    }
    let array = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let number = match info.dtype {
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::Bf16,
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            other => Number::Other(format!("{other:?}").to_lowercase()),
        };
        let array = StoredArray {
            name: name.clone(),
            path: path.to_owned(),
            shape: info.shape.clone(),
            number,
            big_endian: false,
            place: Place::File { start: start + info.data_offsets.0 as u64 },
        };
        (name, array)
    };
    let texts: BTreeMap<String, Vec<String>> =
        header.metadata().iter().flatten().map(|(name, text)| (name.clone(), list(text))).collect();
    Ok(ArrayFile { path: path.to_owned(), arrays: header.tensors().into_iter().map(array).collect(), texts })
}

/// Returns the items of a JSON list of texts and numbers; any other text is the only item.
fn list(text: &str) -> Vec<String> {
    let item = |item: Value| match item {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(items)) => {
            items.into_iter().map(item).collect::<Option<_>>().unwrap_or_else(|| vec![text.to_owned()])
        }
        _ => vec![text.to_owned()],
    }
}
