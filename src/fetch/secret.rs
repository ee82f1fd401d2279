//! Text that must not be printed.

use std::fmt;

/// A token or password. `{:?}` does not reveal it; it is only sent in headers.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text` so that it is not printed.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Returns the text itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Puts a foreign text on one line of at most 300 characters, with `***` in place of each of `secrets`.
pub(crate) fn cleaned<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = text.to_owned();
    // A very short secret occurs in many words; replacing it would leave nothing readable.
    for secret in secrets.into_iter().filter(|secret| secret.len() >= 3) {
        text = text.replace(secret, "***");
    }
    let words: Vec<&str> = text.split(|c: char| c.is_control() || c.is_whitespace()).collect();
    words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(300)
        .collect()
}

/// Removes the part before an `@` from an address that could not be parsed.
pub(crate) fn without_login(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let Some((_, shown)) = rest.rsplit_once('@') else { return address.to_owned() };
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    format!("{scheme}***@{shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Some(Secret::new("hf_secret"))), "Some(***)");
        assert_eq!(cleaned("no\r\n hf_secret\u{1b}[2J here", ["hf_secret", ""]), "no *** [2J here");
        assert_eq!(without_login("http://user:word@hub"), "http://***@hub");
        assert_eq!(without_login("user:word@hub"), "***@hub");
        assert_eq!(without_login("hub/a"), "hub/a");
    }
}
