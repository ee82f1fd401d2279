//! Hashes of everything that a dataset is read from, remembered between runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::loader;
use crate::error::AtPath;
use crate::{Result, home};

/// A file to hash, with a name that is the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name that goes into the hash, the same on every machine.
    pub name: String,
    /// Path of the file on this machine.
    pub path: PathBuf,
}

/// Two changes of a file closer than this may get the same time stamp: the clock tick of file systems, with a margin.
const TICK: Duration = Duration::from_millis(20);

/// Set by [`verify`].
static VERIFYING: AtomicBool = AtomicBool::new(false);

/// Hashes computed by this process while verifying, by the path that a memo would have.
static HASHED: Mutex<BTreeMap<PathBuf, Vec<blake3::Hash>>> = Mutex::new(BTreeMap::new());

/// Sets whether this process hashes every file once instead of trusting hashes remembered from earlier runs.
pub fn verify(every_file: bool) {
    VERIFYING.store(every_file, Ordering::Relaxed);
}

/// Whether this process ignores remembered hashes: see [`verify`].
pub fn is_verifying() -> bool {
    VERIFYING.load(Ordering::Relaxed)
}

/// Folder in which hashes are kept between runs; `None` if there is no cache folder.
pub fn memo() -> Option<PathBuf> {
    home::cache_folder().ok().map(|folder| folder.join("fingerprints"))
}

/// Returns the blake3 hash over the names and contents of these files, in this order, in hexadecimal.
///
/// # Errors
/// If a file cannot be read.
pub fn of_files(sources: &[Source], memo: Option<&Path>) -> Result<String> {
    Ok(combine(sources.iter().map(|source| &source.name), &contents(sources, memo)?))
}

/// Returns the blake3 hash over names and their contents' hashes, in this order, in hexadecimal.
pub fn combine(names: impl IntoIterator<Item = impl AsRef<str>>, contents: &[blake3::Hash]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, content) in names.into_iter().zip(contents) {
        update(&mut hasher, name.as_ref().as_bytes());
        hasher.update(content.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Returns the blake3 hash of each file's content.
///
/// The folder `memo`, created if needed, remembers them under a hash of the files' names, paths, lengths and
/// modification times, on Unix also their inodes and change times (which no program can set back), so unchanged
/// files are not read again. A memo that is damaged or cannot be read or written costs only time. After
/// [`verify`], remembered hashes are not used.
///
/// # Errors
/// If a file cannot be read.
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

/// Returns `count` hashes that depend only on these files, computed in parallel by `hash` and remembered as in [`contents`].
///
/// # Errors
/// If `hash` fails or a file does not exist.
pub fn contents_of(
    sources: &[Source],
    count: usize,
    memo: Option<&Path>,
    hash: impl Fn(usize) -> Result<blake3::Hash> + Sync,
) -> Result<Vec<blake3::Hash>> {
    let memo = match memo {
        Some(folder) => {
            let (identity, changed) = identity(sources)?;
            // A file that changed within the last tick could change again with the same time stamp.
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
            tracing::warn!("{}: cannot store the files' hashes: {problem}", memo.display());
        }
        if is_verifying() {
            let first = sources.first().map_or(Path::new(""), |source| source.path.as_path());
            if known.is_some_and(|known| known != contents) {
                let problem =
                    "the contents differ from the remembered hash although the files look unchanged";
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

/// Returns a hash of the files' metadata, which changes when a file does, and the time of the latest change.
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
        // Times before 1970 count backwards.
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

/// Hashes bytes together with their length, so that no two lists of names give the same hash.
fn update(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Reads a memo: one line per file, and a last line with the hash of the others.
fn recall(memo: &Path, count: usize) -> Option<Vec<blake3::Hash>> {
    let text = std::fs::read_to_string(memo).ok()?;
    let (lines, check) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    if blake3::Hash::from_hex(check).ok()? != blake3::hash(lines.as_bytes()) {
        return None;
    }
    let known: Option<Vec<_>> = lines.lines().map(|line| blake3::Hash::from_hex(line).ok()).collect();
    known.filter(|known| known.len() == count)
}

/// Writes a memo atomically: other processes see all of it or none.
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
