//! A hash of everything that a dataset is read from, remembered between runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::loader;
use crate::error::AtPath;
use crate::{Result, home};

/// A file that counts, by a name that is the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub path: PathBuf,
}

/// How far apart two changes of a file may be and still have the same time: the clock's tick of file systems, with room.
const TICK: Duration = Duration::from_millis(20);

/// Set by [`verify`].
static VERIFYING: AtomicBool = AtomicBool::new(false);

/// What this process hashed itself while it verifies, by what the memo of an earlier run would be called.
static HASHED: Mutex<BTreeMap<PathBuf, Vec<blake3::Hash>>> = Mutex::new(BTreeMap::new());

/// Sets whether this process hashes every file itself, once, in place of trusting hashes remembered from earlier runs.
pub fn verify(every_file: bool) {
    VERIFYING.store(every_file, Ordering::Relaxed);
}

/// Whether this process trusts nothing that was remembered: see [`verify`].
pub fn is_verifying() -> bool {
    VERIFYING.load(Ordering::Relaxed)
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
/// In `memo`, a folder that need not exist yet, they are kept under a hash of the files' names, paths, lengths and
/// times of modification, on Unix also of their inodes and times of change (which no program can set back), so that
/// files that have not changed are not read again. A memo that cannot be read or written, or is damaged, only costs
/// the time. [`verify`] does without what earlier runs remembered.
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
        Some(folder) => {
            let (identity, changed) = identity(sources)?;
            // A file that changed within the last tick could change again and look the same.
            if SystemTime::now().duration_since(changed).is_ok_and(|age| age < TICK) {
                std::thread::sleep(TICK);
            }
            Some(folder.join(identity))
        }
        None => None,
    };
    let known = memo.as_deref().and_then(|memo| recall(memo, count));
    let trusted = match is_verifying() {
        true => memo.as_ref().and_then(|memo| hashed().get(memo).cloned()),
        false => known.clone(),
    };
    if let Some(trusted) = trusted.filter(|trusted| trusted.len() == count) {
        return Ok(trusted);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let contents: Vec<blake3::Hash> =
        loader::ordered(count, threads, 2 * threads, hash, |contents| contents.collect::<Result<_>>())?;
    if let Some(memo) = memo {
        if let Err(problem) = remember(&memo, &contents) {
            tracing::warn!("{}: cannot remember the files' hashes: {problem}", memo.display());
        }
        if is_verifying() {
            let first = sources.first().map_or(Path::new(""), |source| source.path.as_path());
            if known.is_some_and(|known| known != contents) {
                let problem = "what these files hold is not what was remembered, though they look unchanged";
                tracing::warn!("{} and {} more: {problem}", first.display(), sources.len() - 1);
            }
            hashed().insert(memo, contents.clone());
        }
    }
    Ok(contents)
}

fn hashed() -> std::sync::MutexGuard<'static, BTreeMap<PathBuf, Vec<blake3::Hash>>> {
    HASHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A hash that changes when one of the files does, from what the file system knows of them, and the latest time at
/// which one changed.
fn identity(sources: &[Source]) -> Result<(String, SystemTime)> {
    let mut hasher = blake3::Hasher::new();
    let mut latest = UNIX_EPOCH;
    for Source { name, path } in sources {
        let path = std::path::absolute(path).at(path)?;
        let known = std::fs::metadata(&path).at(&path)?;
        let modified = known.modified().at(&path)?;
        update(&mut hasher, name.as_bytes());
        update(&mut hasher, path.as_os_str().as_encoded_bytes());
        hasher.update(&known.len().to_le_bytes());
        // Before 1970 counts down.
        let (sign, since) = match modified.duration_since(UNIX_EPOCH) {
            Ok(since) => (0, since),
            Err(before) => (1, before.duration()),
        };
        hasher.update(&[sign]);
        hasher.update(&since.as_nanos().to_le_bytes());
        latest = latest.max(modified);
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let (seconds, nanoseconds) = (known.ctime(), known.ctime_nsec());
            for number in [known.ino().to_le_bytes(), seconds.to_le_bytes(), nanoseconds.to_le_bytes()] {
                hasher.update(&number);
            }
            let since = u64::try_from(seconds).ok().zip(u32::try_from(nanoseconds).ok());
            latest = latest.max(since.map_or(UNIX_EPOCH, |(s, ns)| UNIX_EPOCH + Duration::new(s, ns)));
        }
    }
    Ok((hasher.finalize().to_hex().to_string(), latest))
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
