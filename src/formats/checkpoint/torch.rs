//! PyTorch checkpoints: a pickle of the saved object, and the storages that its tensors refer to.
//!
//! Since PyTorch 1.6 they are a zip archive of a folder: `data.pkl`, `byteorder`, `data/<key>`. Before, they
//! were a sequence of five pickles (magic number, protocol, system, object, keys) followed by each key's
//! storage, prefixed with its length. A plain pickle is read too; its arrays are numpy arrays.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::storage::{Archive, Storage};
use super::tensors::{self, Reference};
use super::{HELP, Stored};
use crate::error::AtPath;
use crate::formats::pickle::{self, Limits, Refusal};
use crate::{Error, Result};

const LIMITS: Limits = Limits::CHECKPOINT;

/// Maximum size of a text entry, in bytes.
const MAX_TEXT: u64 = 1 << 10;

/// Lists the tensors of the zip archive at `path`.
///
/// # Errors
/// If the archive is damaged or not a checkpoint; the error says what else it is, if that is known.
pub fn open_zip(path: &Path) -> Result<Vec<Stored>> {
    let damaged = |error: Error| error.help("the file is incomplete or damaged: download it again");
    let archive = Archive::open(path).at(path).map_err(damaged)?;
    let names = archive.names().at(path).map_err(damaged)?;
    let roots = names.iter().filter_map(|name| name.strip_suffix("data.pkl"));
    let root = roots.filter(|root| root.is_empty() || root.ends_with('/')).min_by_key(|root| root.len());
    let Some(root) = root else { return Err(other_archive(path, &names)) };
    let has = |name: &str| archive.index(&format!("{root}{name}")).is_some();
    if has("constants.pkl") {
        return Err(Error::unsupported(path, "is a TorchScript program, not a state dict").help(
            "save its weights in Python: torch.save(torch.jit.load(FILE).state_dict(), \"weights.pth\")",
        ));
    }
    let pickle = archive.entry(&format!("{root}data.pkl"), LIMITS.bytes as u64).at(path).map_err(damaged)?;
    let big_endian = has("byteorder")
        && archive.entry(&format!("{root}byteorder"), MAX_TEXT).at(path).map_err(damaged)?.trim_ascii()
            == b"big";
    let (pickle, _) = pickle::read_first(&pickle, &LIMITS).at(path).map_err(damaged)?;
    let archive = Arc::new(archive);
    let storage = |reference: &Reference| {
        let index = archive.index(&format!("{root}data/{}", reference.key));
        let index = index.ok_or_else(|| format!("storage {} is missing", reference.key))?;
        Ok(Arc::new(Storage::Entry { archive: Arc::clone(&archive), index }))
    };
    tensors::named(&pickle, &storage, big_endian).map_err(|problem| Error::damaged(path, problem))
}

/// Explains what a zip archive is that is not a checkpoint.
fn other_archive(path: &Path, names: &[String]) -> Error {
    let ends = |endings: &[&str]| {
        names.iter().find(|name| endings.iter().any(|end| name.to_ascii_lowercase().ends_with(end)))
    };
    if let Some(weights) = ends(&[".safetensors", ".pth", ".pt", ".bin", ".ckpt"]) {
        return Error::unsupported(path, format!("is a zip archive that contains {weights}"))
            .help("unpack it and pass the weights in it");
    }
    let problem = if ends(&[".npy"]).is_some() {
        "is an archive of NumPy arrays (.npz)"
    } else if ends(&["archive_format", "serialized_exported_program.json"]).is_some() {
        "is a torch.export program, not a state dict"
    } else {
        "is a zip archive without data.pkl, not a PyTorch checkpoint"
    };
    Error::damaged(path, problem).help(HELP)
}

/// The start of files that `torch.save` wrote before PyTorch 1.6: a pickle of the magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Lists the tensors of a file that starts with a pickle.
///
/// # Errors
/// If the file is damaged.
pub fn open_pickle(path: &Path) -> Result<Vec<Stored>> {
    let mut file = File::open(path).at(path)?;
    let size = file.metadata().at(path)?.len();
    let limit = size.min(LIMITS.bytes as u64);
    // Most of the file are the storages after the pickles, so read only its start at first.
    let mut length = 1_u64 << 20;
    loop {
        let mut start = Vec::new();
        file.seek(SeekFrom::Start(0)).at(path)?;
        (&mut file).take(length.min(limit)).read_to_end(&mut start).at(path)?;
        match read_pickles(path, &start, &mut file, size) {
            Err(Problem::Pickle(_)) if length < limit => length *= 8,
            Err(Problem::Pickle(refusal)) => {
                return Err(Error::damaged(path, refusal)
                    .help("the file is incomplete or damaged: download it again"));
            }
            Err(Problem::File(error)) => return Err(error),
            Ok(tensors) => return Ok(tensors),
        }
    }
}

enum Problem {
    /// The pickles may be longer than the part of the file that was read.
    Pickle(Refusal),
    File(Error),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Problem::Pickle(refusal)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::File(error)
    }
}

/// Reads the tensors of `file`, which has `size` bytes; `start` are its first bytes.
fn read_pickles(path: &Path, start: &[u8], file: &mut File, size: u64) -> Result<Vec<Stored>, Problem> {
    let error = |problem: String| Error::damaged(path, problem);
    if !start.starts_with(LEGACY) {
        let (pickle, _) = pickle::read_first(start, &LIMITS)?;
        let outside = |_: &Reference| Err("its storage is outside the pickle".to_owned());
        return Ok(tensors::named(&pickle, &outside, false).map_err(error)?);
    }
    let mut rest = &start[LEGACY.len()..];
    let mut next = || {
        let (pickle, length) = pickle::read_first(rest, &LIMITS)?;
        rest = &rest[length..];
        Ok::<_, Refusal>(pickle)
    };
    let (_protocol, _system, object, keys) = (next()?, next()?, next()?, next()?);
    let at = (start.len() - rest.len()) as u64;

    let mut sizes = HashMap::new();
    for reference in tensors::references(&object) {
        sizes.insert(reference.key, reference.bytes_per_number);
    }
    let mut storages = HashMap::new();
    let mut place = at;
    let keys =
        keys.root().items().ok_or_else(|| error("its list of storage keys is not a list".to_owned()))?;
    for key in keys {
        let key = tensors::key(key);
        let incomplete =
            |problem: String| error(problem).help("the file is incomplete or damaged: download it again");
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(place)).at(path)?;
        file.read_exact(&mut count).map_err(|problem| incomplete(format!("storage {key}: {problem}")))?;
        let size_of_one = sizes.get(&key).copied().filter(|size| *size > 0);
        let size_of_one =
            size_of_one.ok_or_else(|| incomplete(format!("storage {key} has an unknown type")))?;
        let length = u64::from_le_bytes(count).checked_mul(size_of_one);
        let range = length.and_then(|length| Some((length, (place + 8).checked_add(length)?)));
        let Some((length, end)) = range.filter(|(_, end)| *end <= size) else {
            return Err(incomplete(format!("storage {key} extends past the end of the file")).into());
        };
        storages.insert(key, (place + 8, length));
        place = end;
    }
    let storage = |reference: &Reference| {
        let &(start, length) =
            storages.get(&reference.key).ok_or_else(|| format!("storage {} is missing", reference.key))?;
        // A view of a storage; PyTorch saved the storage as a whole.
        let (skipped, length) = match reference.view {
            None => (0, length),
            Some((offset, count)) => {
                let bytes = |numbers: u64| numbers.checked_mul(reference.bytes_per_number);
                let end = offset.checked_add(count).and_then(bytes).filter(|end| *end <= length);
                match (bytes(offset), bytes(count), end) {
                    (Some(skipped), Some(viewed), Some(_)) => (skipped, viewed),
                    _ => return Err(format!("a view extends past the end of storage {}", reference.key)),
                }
            }
        };
        Ok(Arc::new(Storage::File { path: path.to_owned(), start: start + skipped, length }))
    };
    Ok(tensors::named(&object, &storage, false).map_err(error)?)
}
