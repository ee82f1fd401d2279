//! Zip archives, unpacked so that a hostile one can do no harm.
//!
//! Every entry is looked at before the first byte is written: its name must lie inside the one folder the
//! archive is known to hold, it must be a plain file or a folder, and all entries together may not declare
//! more than [`LARGEST_EXPANSION`] times the archive's size. While unpacking, no entry may give more bytes
//! than it declared, and its CRC must hold.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::Path;

use zip::ZipArchive;

use crate::error::AtPath;
use crate::files::{inside, relative_name};
use crate::{Error, Result};

/// Bytes a byte of an archive may unpack to. Pixels reach 2 or 3, empty masks some ten; deflate can do 1,032.
pub const LARGEST_EXPANSION: u64 = 100;

/// Kinds of files as Unix modes write them.
const KIND: u32 = 0o170_000;
const PLAIN: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// What an archive declares to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Paths relative to its folder, and sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// Of all files.
    pub bytes: u64,
}

/// Looks at every entry of the archive at `path`, which must all lie in the folder `root`.
///
/// # Errors
/// Where the archive is damaged, or unpacking it would be unsafe.
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
            return refuse(format!(
                "`{name}` does not lie in `{root}/`, the folder that the archive should hold"
            ));
        };
        match entry.unix_mode().map(|mode| mode & KIND) {
            None | Some(0 | PLAIN | DIRECTORY) => {}
            Some(_) => return refuse(format!("`{name}` is a link or a device, neither file nor folder")),
        }
        if entry.encrypted() {
            return refuse(format!("`{name}` is encrypted"));
        }
        if entry.is_dir() || name.ends_with('/') {
            continue;
        }
        if below.is_empty() {
            return refuse(format!("`{name}` is a file where a folder should be"));
        }
        contents.bytes = contents.bytes.saturating_add(entry.size());
        contents.files.push((below, entry.size()));
    }
    if contents.bytes > size.saturating_mul(LARGEST_EXPANSION) {
        return refuse(format!(
            "{size} bytes would unpack to {}, more than {LARGEST_EXPANSION} times as many",
            contents.bytes
        ));
    }
    if contents.files.is_empty() {
        return refuse("it holds no files".to_owned());
    }
    Ok(contents)
}

/// Unpacks what [`inspect`] saw into `into`, without the folder `root` itself. `seen` is told the bytes
/// written so far.
///
/// # Errors
/// Where the archive is damaged or gives more than it declared, or the disk is full.
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
        // Two entries of one name are an error here.
        let mut file = OpenOptions::new().create_new(true).write(true).open(&target).at(&target)?;
        let declared = entry.size();
        let mut limited = entry.take(declared.saturating_add(1));
        let mut length = 0;
        loop {
            // The CRC is compared when the entry ends.
            let n = limited.read(&mut buffer).map_err(|error| {
                Error::damaged(path, format!("`{name}` is damaged: {error}")).help("it was not unpacked")
            })?;
            if n == 0 {
                break;
            }
            length += n as u64;
            if length > declared {
                let problem = format!("`{name}` holds more than the {declared} bytes it declares");
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
    let archive = ZipArchive::new(BufReader::new(file)).at(path)?;
    Ok((archive, size))
}

/// The path of an entry below the folder `root`, with no slash at its end; none where it lies elsewhere.
fn below(name: &str, root: &str) -> Result<Option<String>> {
    let name = name.strip_suffix('/').unwrap_or(name);
    inside(Path::new(""), name)?;
    if name == root {
        return Ok(Some(String::new()));
    }
    Ok(name.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned))
}

/// What macOS adds to archives.
fn is_litter(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name.rsplit('/').next() == Some(".DS_Store")
}
