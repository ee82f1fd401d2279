//! Unpacks zip archives such that a malicious one can do no harm.
//!
//! Every entry is checked before the first byte is written: its name must be inside the one folder that the
//! archive is known to contain, it must be a regular file or a folder, and all entries together may declare at
//! most [`LARGEST_EXPANSION`] times the archive's size. While unpacking, no entry may yield more bytes than it
//! declared, and its CRC must match.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::Path;

use zip::ZipArchive;

use crate::error::AtPath;
use crate::files::{inside, relative_name};
use crate::{Error, Result};

/// Maximum ratio of unpacked to packed bytes. Pixels reach 2 or 3, empty masks about ten; deflate can reach
/// 1,032.
pub const LARGEST_EXPANSION: u64 = 100;

/// File types in Unix modes.
const KIND: u32 = 0o170_000;
const PLAIN: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// What an archive declares to contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Paths relative to the archive's folder, and sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// Size of all files together, in bytes.
    pub bytes: u64,
}

/// Checks every entry of the archive at `path`; all must be inside the folder `root`.
///
/// # Errors
/// If the archive is damaged or unsafe to unpack.
pub fn inspect(path: &Path, root: &str) -> Result<Contents> {
    let (mut archive, size) = open(path)?;
    let refuse = |problem: String| Err(Error::damaged(path, problem).help("it was not unpacked"));
    let mut contents = Contents { files: Vec::new(), bytes: 0 };
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).at(path)?;
        let name = relative_name(&entry.name().at(path)?);
        if name.is_empty() {
            continue;
        }
        let Some(below) =
            below(&name, root).map_err(|error| Error::damaged(path, error).help("it was not unpacked"))?
        else {
            if is_litter(&name) {
                continue;
            }
            return refuse(format!("expected all files in `{root}/`, found `{name}`"));
        };
        match entry.unix_mode().map(|mode| mode & KIND) {
            None | Some(0 | PLAIN | DIRECTORY) => {}
            Some(_) => return refuse(format!("`{name}` is a link or a device, not a file or folder")),
        }
        if entry.encrypted() {
            return refuse(format!("`{name}` is encrypted"));
        }
        if entry.is_dir() || name.ends_with('/') {
            continue;
        }
        if below.is_empty() {
            return refuse(format!("expected `{name}` to be a folder, found a file"));
        }
        contents.bytes = contents.bytes.saturating_add(entry.size());
        contents.files.push((below, entry.size()));
    }
    if contents.bytes > size.saturating_mul(LARGEST_EXPANSION) {
        return refuse(format!(
            "{size} bytes would unpack to {}; the limit is {LARGEST_EXPANSION} times the archive's size",
            contents.bytes
        ));
    }
    if contents.files.is_empty() {
        return refuse("the archive contains no files".to_owned());
    }
    Ok(contents)
}

/// Unpacks what [`inspect`] checked into `into`, without the folder `root` itself. Reports the bytes written so
/// far to `seen`.
///
/// # Errors
/// If the archive is damaged or yields more than it declared, or a file cannot be written.
pub fn unpack(path: &Path, root: &str, into: &Path, seen: &dyn Fn(u64)) -> Result<()> {
    let (mut archive, _) = open(path)?;
    let mut buffer = vec![0; 1 << 18];
    let mut done = 0;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).at(path)?;
        let name = relative_name(&entry.name().at(path)?);
        if name.is_empty() {
            continue;
        }
        let Some(below) = below(&name, root)? else { continue };
        let target = if below.is_empty() { into.to_owned() } else { inside(into, &below)? };
        if entry.is_dir() || name.ends_with('/') {
            std::fs::create_dir_all(&target).at(&target)?;
            continue;
        }
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).at(parent)?;
        }
        // Fails if two entries have the same name.
        let mut file = OpenOptions::new().create_new(true).write(true).open(&target).at(&target)?;
        let declared = entry.size();
        let mut limited = entry.take(declared.saturating_add(1));
        let mut length = 0;
        loop {
            // The CRC is verified when the entry ends.
            let n = limited.read(&mut buffer).map_err(|error| {
                Error::damaged(path, format!("`{name}` is damaged: {error}")).help("it was not unpacked")
            })?;
            if n == 0 {
                break;
            }
            length += n as u64;
            if length > declared {
                let problem = format!("`{name}` has more than the {declared} bytes it declares");
                return Err(Error::damaged(path, problem).help("it was not unpacked"));
            }
            file.write_all(&buffer[..n]).at(&target)?;
            seen(done + length);
        }
        if length < declared {
            let problem = format!("`{name}` ends after {length} of the {declared} bytes it declares");
            return Err(Error::damaged(path, problem).help("it was not unpacked"));
        }
        done += length;
    }
    Ok(())
}

fn open(path: &Path) -> Result<(ZipArchive<BufReader<File>>, u64)> {
    let file = File::open(path).at(path)?;
    let size = file.metadata().at(path)?.len();
    let archive = crate::formats::zip::open(BufReader::new(file)).at(path)?;
    Ok((archive, size))
}

/// Returns an entry's path below the folder `root` without a trailing slash; `None` if it is elsewhere.
fn below(name: &str, root: &str) -> Result<Option<String>> {
    let name = name.strip_suffix('/').unwrap_or(name);
    inside(Path::new(""), name)?;
    if name == root {
        return Ok(Some(String::new()));
    }
    Ok(name.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned))
}

/// Whether an entry is one of those that macOS adds to archives.
fn is_litter(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name.rsplit('/').next() == Some(".DS_Store")
}
