//! A hash of everything that a dataset is read from, remembered between runs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::loader;
use crate::error::AtPath;
use crate::{Result, home};

/// A file that counts, by a name that is the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub path: PathBuf,
}

/// Where hashes of files are kept between runs, if anywhere.
pub fn memo() -> Option<PathBuf> {
    home::cache_folder().ok().map(|folder| folder.join("fingerprints"))
}

/// blake3 over the names and contents of these files, in this order, in hexadecimal.
///
/// # Errors
/// Where a file cannot be read.
pub fn of_files(sources: &[Source], memo: Option<&Path>) -> Result<String> {
    Ok(combine(sources.iter().map(|source| &source.name), &contents(sources, memo)?))
}

/// blake3 over names and the hashes of what they name, in this order, in hexadecimal.
pub fn combine(names: impl IntoIterator<Item = impl AsRef<str>>, contents: &[blake3::Hash]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, content) in names.into_iter().zip(contents) {
        update(&mut hasher, name.as_ref().as_bytes());
        hasher.update(content.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The blake3 hash of each file's content.
///
/// In `memo`, a folder that need not exist yet, they are kept under a hash of the files' names, paths,
/// lengths and times of modification, so that files that have not changed are not read again. A memo that
/// cannot be read or written, or is damaged, only costs the time.
///
/// # Errors
/// Where a file cannot be read.
pub fn contents(sources: &[Source], memo: Option<&Path>) -> Result<Vec<blake3::Hash>> {
    let of_file = |index: usize| {
        let path = &sources[index].path;
        let mut hasher = blake3::Hasher::new();
        let file = std::fs::File::open(path).at(path)?;
        hasher.update_reader(file).at(path)?;
        Ok(hasher.finalize())
    };
    contents_of(sources, sources.len(), memo, of_file)
}

/// `count` hashes that depend on these files alone, computed in parallel by `hash` and remembered as in [`contents`].
///
/// # Errors
/// As `hash`, or where a file is not there.
pub fn contents_of(
    sources: &[Source],
    count: usize,
    memo: Option<&Path>,
    hash: impl Fn(usize) -> Result<blake3::Hash> + Sync,
) -> Result<Vec<blake3::Hash>> {
    let memo = match memo {
        Some(folder) => Some(folder.join(identity(sources)?)),
        None => None,
    };
    if let Some(known) = memo.as_deref().and_then(|memo| recall(memo, count)) {
        return Ok(known);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let contents: Vec<blake3::Hash> =
        loader::ordered(count, threads, 2 * threads, hash, |contents| contents.collect::<Result<_>>())?;
    if let Some(memo) = memo
        && let Err(problem) = remember(&memo, &contents)
    {
        tracing::warn!("{}: cannot remember the files' hashes: {problem}", memo.display());
    }
    Ok(contents)
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

/// A memo is a line a file, and a last one that vouches for the others.
fn recall(memo: &Path, count: usize) -> Option<Vec<blake3::Hash>> {
    let text = std::fs::read_to_string(memo).ok()?;
    let (lines, check) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    if blake3::Hash::from_hex(check).ok()? != blake3::hash(lines.as_bytes()) {
        return None;
    }
    let known: Option<Vec<_>> = lines.lines().map(|line| blake3::Hash::from_hex(line).ok()).collect();
    known.filter(|known| known.len() == count)
}

/// Other processes see the whole memo or none.
fn remember(memo: &Path, contents: &[blake3::Hash]) -> std::io::Result<()> {
    let folder = memo.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let lines: Vec<_> = contents.iter().map(|hash| hash.to_hex().to_string()).collect();
    let lines = lines.join("\n");
    writeln!(file, "{lines}\n{}", blake3::hash(lines.as_bytes()))?;
    file.persist(memo)?;
    Ok(())
}
