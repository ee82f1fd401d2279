//! What a file is, by its bytes. Names lie: safetensors are saved as `.pth`, pages of a hub as `.safetensors`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::HELP;
use crate::error::AtPath;
use crate::{Error, Result};

/// A kind of file that weights come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Safetensors,
    /// What `torch.save` writes since PyTorch 1.6.
    Zip,
    /// What it wrote before, and Python's own pickles.
    Pickle,
    /// An index of several files.
    Json,
}

/// Longest header of a safetensors file: 100 MB, the format's own limit.
pub const MAX_HEADER: u64 = 100_000_000;

/// How many bytes are looked at: a tar archive says what it is at byte 257.
const HEAD: u64 = 512;

const AGAIN: &str = "fetch it again";
const CONVERT: &str =
    "convert it: load it with the library that wrote it, and save the model's state dict with torch.save";

/// How kinds of file begin that are taken for weights, what they are, and what to do.
const FOREIGN: [(&[u8], &str, &str); 13] = [
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras saves weights", CONVERT),
    (b"GGUF", "is a GGUF file", CONVERT),
    (b"\x93NUMPY", "is a NumPy array", CONVERT),
    (b"\x1f\x8b", "is compressed with gzip", "unpack it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unpack it with zstd -d"),
    (b"BZh", "is compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ", "is compressed with xz", "unpack it with unxz"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it with 7z x"),
    (b"Rar!", "is a RAR archive", "unpack it with unrar x"),
    (b"PK\x05\x06", "is an empty zip archive", AGAIN),
    (b"\x7fELF", "is a program or library, as torch.export compiles models", CONVERT),
    (b"%PDF", "is a PDF document", AGAIN),
    (b"\x89PNG", "is a picture", AGAIN),
];

/// The kind of the file at `path`.
///
/// # Errors
/// Where it cannot be read, or is of no kind that holds weights; the error says what it is, where that is known.
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
    // zstd begins as pickles may.
    if FOREIGN.iter().any(|(magic, ..)| head.starts_with(magic)) {
        return None;
    }
    match head {
        [b'P', b'K', 3, 4, ..] => Some(Kind::Zip),
        [0x80, 0..=5, ..] => Some(Kind::Pickle),
        // Protocols 0 and 1, which say no number: a dictionary, a list, a class.
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
        let problem = format!("is a Git LFS pointer{size}: the file itself was not fetched");
        return error(&problem, "run `git lfs pull` in its repository, or download the file itself");
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins =
        |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    if begins("<!doctype") || begins("<html") || begins("<head") {
        return error(
            "is an HTML page, not the file: that of a hub, of a log-in or of an error",
            "download the file itself; on the Hugging Face hub its address has /resolve/ where the page's has /blob/",
        );
    }
    if begins("<?xml") || begins("<error") {
        return error("is XML, as servers answer with errors; not the file", AGAIN);
    }
    if let Some((_, what, help)) = FOREIGN.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return error(what, help);
    }
    if head.get(257..262) == Some(b"ustar") {
        return error(
            "is a tar archive",
            "unpack it with tar -xf and pass the weights in it; a checkpoint of PyTorch before 0.1.10 is one as it is: \
             load and save it with PyTorch",
        );
    }
    let holds = |word: &[u8]| head.windows(word.len()).any(|part| part == word);
    if head[0] == 8 && (holds(b"pytorch") || holds(b"onnx") || holds(b"tf2onnx")) {
        return error("is an ONNX model", CONVERT);
    }
    if head.iter().all(|byte| *byte == 0) {
        return error("begins with zeros only: its download was interrupted", AGAIN);
    }
    let first: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    error(&format!("is no file of weights ({size} bytes, the first are {})", first.join(" ")), HELP)
}
