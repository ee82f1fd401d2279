//! A hash of everything that a dataset is read from, remembered between runs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::loader;
use crate::Result;
use crate::error::AtPath;

/// A file that counts, by a name that is the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub path: PathBuf,
}

/// blake3 over the names and contents of these files, in this order, in hexadecimal.
///
/// In `memo`, a folder that need not exist yet, the result is kept under a hash of the files' names, paths,
/// lengths and times of modification, so that files that have not changed are not read again. A memo that
/// cannot be read or written, or is damaged, only costs the time.
///
/// # Errors
/// Where a file cannot be read.
pub fn of_files(sources: &[Source], memo: Option<&Path>) -> Result<String> {
    let memo = match memo {
        Some(folder) => Some(folder.join(identity(sources)?)),
        None => None,
    };
    if let Some(known) = memo.as_deref().and_then(recall) {
        return Ok(known);
    }
    let fingerprint = hash(sources)?;
    if let Some(memo) = memo
        && let Err(problem) = remember(&memo, &fingerprint)
    {
        tracing::warn!("{}: cannot remember a fingerprint: {problem}", memo.display());
    }
    Ok(fingerprint)
}

/// Reads the files in parallel.
fn hash(sources: &[Source]) -> Result<String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |index: usize| {
        let path = &sources[index].path;
        let mut hasher = blake3::Hasher::new();
        let file = std::fs::File::open(path).at(path)?;
        hasher.update_reader(file).at(path)?;
        Ok(hasher.finalize())
    };
    let contents: Result<Vec<blake3::Hash>> =
        loader::ordered(sources.len(), threads, 2 * threads, read, |contents| contents.collect());
    let mut hasher = blake3::Hasher::new();
    for (source, content) in sources.iter().zip(contents?) {
        update(&mut hasher, source.name.as_bytes());
        hasher.update(content.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A hash that changes when one of the files does, from what the file system knows of them.
fn identity(sources: &[Source]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for Source { name, path } in sources {
        let path = std::path::absolute(path).at(path)?;
        let known = std::fs::metadata(&path).at(&path)?;
        let modified = known.modified().at(&path)?;
        // Before 1970 counts down.
        let (sign, since) = match modified.duration_since(UNIX_EPOCH) {
            Ok(since) => (0, since),
            Err(before) => (1, before.duration()),
        };
        update(&mut hasher, name.as_bytes());
        update(&mut hasher, path.as_os_str().as_encoded_bytes());
        hasher.update(&known.len().to_le_bytes());
        hasher.update(&[sign]);
        hasher.update(&since.as_nanos().to_le_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Hashes bytes with their length, so that no two lists of names hash alike.
fn update(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

fn recall(memo: &Path) -> Option<String> {
    let text = std::fs::read_to_string(memo).ok()?;
    let known = text.strip_suffix('\n')?;
    blake3::Hash::from_hex(known).ok()?;
    Some(known.to_owned())
}

/// Other processes see the whole memo or none.
fn remember(memo: &Path, fingerprint: &str) -> std::io::Result<()> {
    let folder = memo.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{fingerprint}")?;
    file.persist(memo)?;
    Ok(())
}
