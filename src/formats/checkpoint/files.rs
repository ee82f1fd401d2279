//! From a path to the files that hold its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::HELP;
use super::kind::{self, Kind};
use crate::error::AtPath;
use crate::files::inside;
use crate::{Error, Result};

/// The files of one set of weights.
pub enum WeightFiles {
    One(PathBuf),
    /// Several files, as large models are published.
    Shards {
        index: PathBuf,
        /// Which tensors the index says that each part holds.
        parts: BTreeMap<PathBuf, BTreeSet<String>>,
    },
}

/// The files at `path`: a file of weights, the index of several, or a folder of either.
///
/// # Errors
/// Where there is no such file, or a folder holds none or several.
pub fn locate(path: &Path) -> Result<WeightFiles> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(path, "there is no such file or folder").help(HELP),
        _ => Error::damaged(path, error),
    })?;
    let file = if metadata.is_dir() { in_folder(path)? } else { path.to_owned() };
    match kind::of_file(&file)? {
        Kind::Json => shards(file),
        _ => Ok(WeightFiles::One(file)),
    }
}

/// What Hugging Face's libraries call them, in the order in which they look.
const USUAL: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// How files of weights end.
const ENDINGS: [&str; 7] = [".safetensors", ".index.json", ".pth", ".pt", ".bin", ".ckpt", ".th"];

/// The file of weights in a folder.
fn in_folder(folder: &Path) -> Result<PathBuf> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).at(folder)? {
        names.extend(entry.at(folder)?.file_name().into_string());
    }
    names.sort();
    let lower: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let has = |wanted: &str| lower.iter().position(|name| name == wanted).map(|at| folder.join(&names[at]));
    if let Some(usual) = USUAL.iter().find_map(|usual| has(usual)) {
        return Ok(usual);
    }
    if lower.iter().any(|name| name.ends_with(".distcp")) {
        return Err(Error::not_found(
            folder,
            "is a distributed checkpoint of PyTorch (.distcp), no file of weights",
        )
        .help(
            "convert it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth",
        ));
    }
    if has("data.pkl").is_some() {
        return Err(Error::unsupported(folder, "is an unpacked PyTorch checkpoint")
            .help("pack it again: in the folder above, zip -0 -r weights.pth FOLDER"));
    }
    if lower.iter().any(|name| name == "zero_to_fp32.py" || name.starts_with("zero_pp_rank")) {
        return Err(Error::unsupported(
            folder,
            "is a checkpoint of DeepSpeed, which spreads weights over files",
        )
        .help("merge them: python zero_to_fp32.py FOLDER weights.pth"));
    }
    let weights =
        lower.iter().zip(&names).filter(|(lower, _)| ENDINGS.iter().any(|end| lower.ends_with(end)));
    let weights: Vec<&String> = weights.map(|(_, name)| name).collect();
    let is_index = |name: &&&String| name.to_ascii_lowercase().ends_with(".index.json");
    let indices: Vec<&String> = weights.iter().filter(is_index).copied().collect();
    match (weights.as_slice(), indices.as_slice()) {
        ([], _) => Err(Error::not_found(folder, "this folder holds no file of weights").help(HELP)),
        ([one], _) | (_, [one]) => Ok(folder.join(one)),
        (several, _) => {
            let shown: Vec<&str> = several.iter().take(8).map(|name| name.as_str()).collect();
            let more = if several.len() > shown.len() { ", …" } else { "" };
            let problem =
                format!("this folder holds {} files of weights: {}{more}", several.len(), shown.join(", "));
            Err(Error::damaged(folder, problem).help("pass one of them"))
        }
    }
}

/// The longest index that is read, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// `model.safetensors.index.json` and its like.
#[derive(Deserialize)]
struct Index {
    /// Names of tensors to names of files.
    weight_map: BTreeMap<String, String>,
}

fn shards(index: PathBuf) -> Result<WeightFiles> {
    let mut text = Vec::new();
    File::open(&index).at(&index)?.take(MAX_INDEX).read_to_end(&mut text).at(&index)?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let parsed: Index = serde_json::from_slice(text).map_err(|error| {
        Error::unsupported(&index, format!("is JSON text, but no index of weights (`weight_map`): {error}"))
            .help(HELP)
    })?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let mut parts: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (tensor, part) in parsed.weight_map {
        let part = inside(folder, &part).map_err(|error| Error::damaged(&index, error))?;
        parts.entry(part).or_default().insert(tensor);
    }
    if parts.is_empty() {
        return Err(Error::damaged(&index, "this index names no tensors").help(HELP));
    }
    let lacking: Vec<String> =
        parts.keys().filter(|part| !part.is_file()).map(|part| part.display().to_string()).collect();
    if let Some(first) = lacking.first() {
        let problem = format!("{} of its {} parts are missing: {first}", lacking.len(), parts.len());
        return Err(Error::damaged(&index, problem).help("put all parts beside the index"));
    }
    Ok(WeightFiles::Shards { index, parts })
}
