//! Safetensors files of which the same content gives the same bytes.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{SafeTensorError, View};

/// Length of the number of a header's bytes, at the start of a file.
const LENGTH: usize = 8;

/// A safetensors file with its header's keys sorted: the crate's own writer has the metadata in an order that is random.
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
/// Where the tensors cannot be written, as when two share a name.
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
        // The same keys and values take the same room; spaces fill up to a multiple of 8, as before.
        if let Some(room) = header.get_mut(..sorted.len()) {
            room.copy_from_slice(sorted.as_bytes());
        }
    }
    Ok(bytes)
}
