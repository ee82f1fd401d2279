//! What is known about a model besides how it computes: where its weights are, their licence, and how close this
//! implementation is to the original. None of it affects a number.

use serde::{Deserialize, Serialize};

/// A weight file: on the Hugging Face hub, or at a web address of its own (`url`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WeightsSource {
    /// Repository on the hub, as `owner/name`. With `url`: the page that describes the file, without `https://`. Also the
    /// file's folder on this machine.
    pub repository: String,
    /// Path of the file in the repository.
    pub file: String,
    /// Further files of the repository that the model needs beside its weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// A commit of the repository, or a branch if no commit is known. Unused with `url`.
    #[serde(default = "main_branch")]
    pub revision: String,
    /// Web address of a file that is not on the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Size in bytes, if known. Without it, the server is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 hash of the file in lower-case hexadecimal, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// MD5 hash of the file in lower-case hexadecimal, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
    /// Path below `configs/weights/` of a copy that comes with the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipped: Option<String>,
    /// Licence of the weights, as an SPDX identifier or in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Where the licence is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence_source: Option<String>,
}

fn main_branch() -> String {
    "main".to_owned()
}

impl WeightsSource {
    /// Describes an inconsistency, if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        let hex = |digits: usize, hash: &Option<String>| {
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            hash.as_ref().is_none_or(|hash| hash.len() == digits && hash.bytes().all(is_digit))
        };
        match &self.url {
            Some(url) if !url.starts_with("https://") && !url.starts_with("http://") => {
                Some(format!("weights.url: expected an address that begins with https://, found {url:?}"))
            }
            Some(_) if !self.also.is_empty() => {
                Some("weights.also: expected none, as a web address is of one file".to_owned())
            }
            None if self.size.is_some() => {
                Some("weights.size: expected none, as the hub lists the size".to_owned())
            }
            _ if self.size == Some(0) => Some("weights.size: expected a number above 0, found 0".to_owned()),
            _ if !hex(64, &self.sha256) || !hex(32, &self.md5) => Some(
                "weights: expected a sha256 of 64 or an md5 of 32 lower-case hexadecimal digits".to_owned(),
            ),
            _ => None,
        }
    }

    /// Describes where the file is published: `` `w.pth` of owner/name on the Hugging Face hub ``.
    pub fn whereabouts(&self) -> String {
        let WeightsSource { repository, file, url, .. } = self;
        match url {
            None => format!("`{file}` of {repository} on the Hugging Face hub"),
            Some(url) => format!("{url}, listed on https://{repository}"),
        }
    }
}

/// How close this implementation is to the original code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Parity {
    /// Largest absolute difference between an element of our output and of the original's, both float32 on a CPU.
    pub difference: f64,
    /// The outputs that were compared: `pooled features and maps, made-up weights`.
    pub of: String,
    /// The original code.
    pub original: String,
    /// The test that measures it: `tests/zoo_croma.rs`.
    pub test: String,
}

impl Parity {
    /// Describes an inconsistency, if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        let Parity { difference, .. } = self;
        (!difference.is_finite() || *difference < 0.0)
            .then(|| format!("parity.difference: expected a number of at least 0, found {difference}"))
    }
}
