//! Safetensors files that are byte-identical for identical content.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{SafeTensorError, View};

/// Size in bytes of the header's length field at the start of a file.
const LENGTH: usize = 8;

/// Serializes tensors to safetensors with sorted header keys; the crate's own writer leaves the metadata in
/// random order.
///
/// ```
/// # use std::collections::BTreeMap;
/// use safetensors::tensor::{Dtype, TensorView};
/// let metadata = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
/// let tensor = TensorView::new(Dtype::U8, vec![1], &[7]).unwrap();
/// let bytes = terrabench::formats::tensors::serialize([("x", tensor)], metadata).unwrap();
/// assert!(bytes[8..].starts_with(br#"{"__metadata__":{"a":"1","b":"2"},"x":"#));
/// ```
///
/// # Errors
/// If the tensors cannot be serialized, for example because two share a name.
pub fn serialize<S: AsRef<str> + Ord + std::fmt::Display, V: View>(
    tensors: impl IntoIterator<Item = (S, V)>,
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>, SafeTensorError> {
    let metadata: HashMap<String, String> = metadata.into_iter().collect();
    let mut bytes = safetensors::serialize(tensors, Some(metadata))?;
    if let Some((length, rest)) = bytes.split_first_chunk_mut::<LENGTH>()
        && let Ok(length) = usize::try_from(u64::from_le_bytes(*length))
        && let Some(header) = rest.get_mut(..length)
        && let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(header)
    {
        value.sort_all_objects();
        let sorted = value.to_string();
        // The sorted header has the same length as before; trailing spaces keep it a multiple of 8 bytes.
        if let Some(room) = header.get_mut(..sorted.len()) {
            room.copy_from_slice(sorted.as_bytes());
        }
    }
    Ok(bytes)
}
