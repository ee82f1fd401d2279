//! Lists and JSON the way other tools write them: with a byte-order mark, with NaN.

use serde::de::DeserializeOwned;

/// Strips the leading byte-order mark that Excel and pandas' `utf-8-sig` encoding write.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Parses JSON. NaN and infinities, which Python writes although JSON does not allow them, are read as null.
///
/// # Errors
/// If the JSON is malformed or does not fit `T`.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(bytes).or_else(|error| match nulls(bytes) {
        Some(strict) => serde_json::from_slice(&strict),
        None => Err(error),
    })
}

/// Replaces NaN and infinities by null. Returns `None` if there are none.
fn nulls(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut strict = Vec::with_capacity(bytes.len());
    let (mut at, mut quoted, mut found) = (0, false, false);
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let word =
            ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word.as_bytes()));
        if let Some(word) = word.filter(|_| !quoted) {
            strict.extend(b"null");
            (at, found) = (at + word.len(), true);
            continue;
        }
        // An escaped quote does not end the string.
        let escaped = quoted && *byte == b'\\';
        quoted ^= *byte == b'"';
        let taken = &rest[..rest.len().min(if escaped { 2 } else { 1 })];
        strict.extend(taken);
        at += taken.len();
    }
    found.then_some(strict)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json as value};

    use super::*;

    #[test]
    fn nan_is_null_but_not_in_text() {
        let read = |text: &str| json::<Value>(text.as_bytes()).unwrap();
        assert_eq!(read(r#"{"a": NaN, "b": [-Infinity, 1]}"#), value!({"a": null, "b": [null, 1]}));
        assert_eq!(read(r#"{"NaN \" NaN \\": "-Infinity", "c": Infinity}"#)["c"], value!(null));
        assert_eq!(read(r#"{"NaN \" NaN \\": "-Infinity", "c": NaN}"#)["NaN \" NaN \\"], value!("-Infinity"));
        assert_eq!(read("\u{feff}[2]"), value!([2]));
        for damaged in ["", "[NaN", "{NaN: 1}", "\"NaN", "[\"\\"] {
            assert!(json::<Value>(damaged.as_bytes()).is_err(), "{damaged}");
        }
        assert_eq!(without_mark("\u{feff}a\u{feff}"), "a\u{feff}");
    }
}
