//! Recognises a file's format by its first bytes. Names are unreliable: safetensors files are saved as `.pth`,
//! and web pages of a hub as `.safetensors`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::HELP;
use crate::error::AtPath;
use crate::{Error, Result};

/// A format in which weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A safetensors file.
    Safetensors,
    /// The zip archive that `torch.save` has written since PyTorch 1.6.
    Zip,
    /// What `torch.save` wrote before, and plain Python pickles.
    Pickle,
    /// The index of a sharded checkpoint.
    Json,
}

/// Maximum header size of a safetensors file: 100 MB, the format's own limit.
pub const MAX_HEADER: u64 = 100_000_000;

/// How many bytes are inspected: a tar archive has its signature at byte 257.
const HEAD: u64 = 512;

const AGAIN: &str = "download it again";
const CONVERT: &str =
    "convert it: load it with the library that wrote it, and save the model's state dict with torch.save";

/// Formats that are mistaken for weights: signature, description, and what to do.
const FOREIGN: [(&[u8], &str, &str); 13] = [
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, such as Keras uses for weights", CONVERT),
    (b"GGUF", "is a GGUF file", CONVERT),
    (b"\x93NUMPY", "is a NumPy array", CONVERT),
    (b"\x1f\x8b", "is compressed with gzip", "unpack it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unpack it with zstd -d"),
    (b"BZh", "is compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ", "is compressed with xz", "unpack it with unxz"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it with 7z x"),
    (b"Rar!", "is a RAR archive", "unpack it with unrar x"),
    (b"PK\x05\x06", "is an empty zip archive", AGAIN),
    (b"\x7fELF", "is an executable or library, such as torch.export compiles from a model", CONVERT),
    (b"%PDF", "is a PDF document", AGAIN),
    (b"\x89PNG", "is a PNG image", AGAIN),
];

/// Recognises the format of the file at `path`.
///
/// # Errors
/// If the file cannot be read, or is not in a format that holds weights; the error names the format if it is
/// known.
pub fn of_file(path: &Path) -> Result<Kind> {
    let mut head = Vec::new();
    let file = File::open(path).at(path)?;
    let size = file.metadata().at(path)?.len();
    file.take(HEAD).read_to_end(&mut head).at(path)?;
    known(&head).map_or_else(|| Err(foreign(path, &head, size)), Ok)
}

fn known(head: &[u8]) -> Option<Kind> {
    if let Some((length, [b'{', ..])) = head.split_first_chunk()
        && (2..=MAX_HEADER).contains(&u64::from_le_bytes(*length))
    {
        return Some(Kind::Safetensors);
    }
    // zstd's signature could also start a pickle.
    if FOREIGN.iter().any(|(magic, ..)| head.starts_with(magic)) {
        return None;
    }
    match head {
        [b'P', b'K', 3, 4, ..] => Some(Kind::Zip),
        [0x80, 0..=5, ..] => Some(Kind::Pickle),
        // Protocols 0 and 1, which do not start with a version: a dictionary, a list, a class.
        [b'(' | b'c' | b'}' | b']', ..] => Some(Kind::Pickle),
        _ => {
            let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
            matches!(text, [b'{', ..]).then_some(Kind::Json)
        }
    }
}

fn foreign(path: &Path, head: &[u8], size: u64) -> Error {
    let error = |problem: &str, help: &str| Error::damaged(path, problem).help(help);
    if head.is_empty() {
        return error("is empty", AGAIN);
    }
    if head.starts_with(b"version https://git-lfs.github.com/spec/") {
        let text = String::from_utf8_lossy(head);
        let size = text.lines().find_map(|line| line.strip_prefix("size "));
        let size = size.map_or(String::new(), |size| format!(" for a file of {} bytes", size.trim()));
        let problem = format!("is a Git LFS pointer{size}: the file itself was not downloaded");
        return error(&problem, "run `git lfs pull` in its repository, or download the file itself");
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins =
        |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    if begins("<!doctype") || begins("<html") || begins("<head") {
        return error(
            "is an HTML page (of a hub, a login or an error), not a weight file",
            "download the file itself; on the Hugging Face hub, replace /blob/ in the page's address by /resolve/",
        );
    }
    if begins("<?xml") || begins("<error") {
        return error("is XML, probably a server's error message, not a weight file", AGAIN);
    }
    if let Some((_, what, help)) = FOREIGN.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return error(what, help);
    }
    if head.get(257..262) == Some(b"ustar") {
        return error(
            "is a tar archive",
            "unpack it with tar -xf and pass the weights in it; if it is a checkpoint of PyTorch before 0.1.10, \
             load and save it with PyTorch instead",
        );
    }
    let holds = |word: &[u8]| head.windows(word.len()).any(|part| part == word);
    if head[0] == 8 && (holds(b"pytorch") || holds(b"onnx") || holds(b"tf2onnx")) {
        return error("is an ONNX model", CONVERT);
    }
    if head.iter().all(|byte| *byte == 0) {
        return error("starts with zeros only: its download was probably interrupted", AGAIN);
    }
    let first: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    error(&format!("is not a known weight format ({size} bytes, starting with {})", first.join(" ")), HELP)
}
