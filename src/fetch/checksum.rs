//! The hashes a file must have, and computing them while its bytes pass through.

use std::path::Path;

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

use crate::Result;
use crate::error::AtPath;

/// The known hashes of a file, in lower-case hexadecimal. All that are present must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checksums {
    /// SHA-256 of the bytes; the hub identifies large files by it.
    pub sha256: Option<String>,
    /// MD5 of the bytes, as published by torchgeo.
    pub md5: Option<String>,
    /// SHA-1 of the git blob, for files that the hub stores in git itself.
    pub git: Option<String>,
}

/// A hash that differs from the expected one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {kind} {expected}, got {found}")]
pub struct Mismatch {
    /// Which hash: `SHA-256`, `MD5` or `git hash`.
    pub kind: &'static str,
    /// The expected hash.
    pub expected: String,
    /// The hash that was found.
    pub found: String,
}

impl Checksums {
    /// Merges these hashes with `more` of the same file.
    ///
    /// # Errors
    /// If both contain a hash of the same kind and they differ; that of `self` is the expected one.
    pub fn and(&self, more: &Checksums) -> std::result::Result<Checksums, Mismatch> {
        let both = |kind, ours: &Option<String>, theirs: &Option<String>| match (ours, theirs) {
            (Some(expected), Some(found)) if expected != found => {
                Err(Mismatch { kind, expected: expected.clone(), found: found.clone() })
            }
            _ => Ok(ours.clone().or_else(|| theirs.clone())),
        };
        Ok(Checksums {
            sha256: both("SHA-256", &self.sha256, &more.sha256)?,
            md5: both("MD5", &self.md5, &more.md5)?,
            git: both("git hash", &self.git, &more.git)?,
        })
    }

    /// Returns the strongest hash with its kind, which identifies the content: `sha256:ab…`.
    pub fn identity(&self) -> Option<String> {
        let named = |kind: &str, hash: &Option<String>| hash.as_ref().map(|hash| format!("{kind}:{hash}"));
        named("sha256", &self.sha256).or_else(|| named("git", &self.git)).or_else(|| named("md5", &self.md5))
    }

    /// Parses what [`Checksums::identity`] returned; `None` if the kind is unknown.
    pub fn of_identity(identity: &str) -> Option<Self> {
        let (kind, hash) = identity.split_once(':')?;
        let mut checksums = Checksums::default();
        let place = match kind {
            "sha256" => &mut checksums.sha256,
            "git" => &mut checksums.git,
            "md5" => &mut checksums.md5,
            _ => return None,
        };
        *place = Some(hash.to_owned());
        Some(checksums)
    }

    /// Checks whether the file at `path`, of `size` bytes, has these hashes. Reports the bytes read so far to
    /// `seen`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn hold(
        &self,
        path: &Path,
        size: u64,
        seen: &dyn Fn(u64),
    ) -> Result<std::result::Result<(), Mismatch>> {
        let mut checking = Checking::new(self, size);
        let mut file = std::fs::File::open(path).at(path)?;
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            let n = std::io::Read::read(&mut file, &mut buffer).at(path)?;
            if n == 0 {
                return Ok(checking.finish());
            }
            checking.update(&buffer[..n]);
            done += n as u64;
            seen(done);
        }
    }
}

/// Hashes being computed.
pub struct Checking {
    sha256: Option<(String, Sha256)>,
    md5: Option<(String, Md5)>,
    git: Option<(String, Sha1)>,
}

impl Checking {
    /// Starts hashing a file of `size` bytes.
    pub fn new(expected: &Checksums, size: u64) -> Self {
        // git hashes a header before the bytes.
        let blob = || Sha1::new_with_prefix(format!("blob {size}\0"));
        Checking {
            sha256: expected.sha256.clone().map(|hash| (hash, Sha256::new())),
            md5: expected.md5.clone().map(|hash| (hash, Md5::new())),
            git: expected.git.clone().map(|hash| (hash, blob())),
        }
    }

    /// Hashes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some((_, state)) = &mut self.sha256 {
            state.update(bytes);
        }
        if let Some((_, state)) = &mut self.md5 {
            state.update(bytes);
        }
        if let Some((_, state)) = &mut self.git {
            state.update(bytes);
        }
    }

    /// Compares the hashes at the end of the file.
    ///
    /// # Errors
    /// If a hash differs from the expected one.
    pub fn finish(self) -> std::result::Result<(), Mismatch> {
        self.sha256.map_or(Ok(()), |(expected, state)| same("SHA-256", expected, &state.finalize()))?;
        self.md5.map_or(Ok(()), |(expected, state)| same("MD5", expected, &state.finalize()))?;
        self.git.map_or(Ok(()), |(expected, state)| same("git hash", expected, &state.finalize()))
    }
}

fn same(kind: &'static str, expected: String, digest: &[u8]) -> std::result::Result<(), Mismatch> {
    let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected { Ok(()) } else { Err(Mismatch { kind, expected, found }) }
}

/// Returns the SHA-256 hash of the file at `path` with its kind: `sha256:ab…`.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn of_file(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path).at(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = std::io::Read::read(&mut file, &mut buffer).at(path)?;
        if n == 0 {
            let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(format!("sha256:{digits}"));
        }
        hash.update(&buffer[..n]);
    }
}

/// Whether `hash` consists of the given number of lower-case hexadecimal digits.
pub(crate) fn is_hex(hash: &str, digits: usize) -> bool {
    hash.len() == digits && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(expected: &Checksums, text: &[u8]) -> std::result::Result<(), Mismatch> {
        let mut checking = Checking::new(expected, text.len() as u64);
        text.chunks(2).for_each(|part| checking.update(part));
        checking.finish()
    }

    /// RFC 1321 and FIPS 180-2 give the hashes of "abc"; the git hash is what `git hash-object` prints.
    #[test]
    fn hashes_are_the_published_ones() {
        let abc = Checksums {
            sha256: Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into()),
            md5: Some("900150983cd24fb0d6963f7d28e17f72".into()),
            git: Some("f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f".into()),
        };
        assert_eq!(finish(&abc, b"abc"), Ok(()));
        let identity = Checksums::of_identity(&abc.identity().unwrap()).unwrap();
        assert_eq!((&identity.sha256, &identity.md5), (&abc.sha256, &None));
        assert_eq!(finish(&abc, b"abd").map_err(|wrong| wrong.kind), Err("SHA-256"));
        let md5 = Checksums { sha256: None, git: None, ..abc.clone() };
        assert_eq!(finish(&md5, b"abd").map_err(|wrong| wrong.kind), Err("MD5"));
        let git = Checksums { git: abc.git, ..Checksums::default() };
        assert_eq!(finish(&git, b"abd").map_err(|wrong| wrong.kind), Err("git hash"));
    }

    #[test]
    fn hashes_of_two_sources_must_agree() {
        let ours = Checksums { sha256: Some("aa".into()), ..Checksums::default() };
        let theirs = Checksums { md5: Some("bb".into()), ..Checksums::default() };
        let both = Checksums { sha256: Some("aa".into()), md5: Some("bb".into()), git: None };
        assert_eq!(ours.and(&theirs), Ok(both));
        let other = Checksums { sha256: Some("cc".into()), ..Checksums::default() };
        let wrong = ours.and(&other).unwrap_err();
        assert_eq!((wrong.expected.as_str(), wrong.found.as_str()), ("aa", "cc"));
    }
}
