//! Resolves a path to the weight files it stands for.

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
    /// A single file.
    One(PathBuf),
    /// Several shards, the form in which large models are published.
    Shards {
        /// The index file.
        index: PathBuf,
        /// For each shard, the tensors that the index lists for it.
        parts: BTreeMap<PathBuf, BTreeSet<String>>,
    },
}

/// Finds the weight files at `path`: a single file, the index of a sharded checkpoint, or a folder with either.
///
/// # Errors
/// If the path does not exist, or a folder contains no weight file or several.
pub fn locate(path: &Path) -> Result<WeightFiles> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(path, "no such file or folder").help(HELP),
        _ => Error::damaged(path, error),
    })?;
    let file = if metadata.is_dir() { in_folder(path)? } else { path.to_owned() };
    match kind::of_file(&file)? {
        Kind::Json => shards(file),
        _ => Ok(WeightFiles::One(file)),
    }
}

/// File names that Hugging Face's libraries use, in their order of preference.
const USUAL: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// File name endings of weight files.
const ENDINGS: [&str; 7] = [".safetensors", ".index.json", ".pth", ".pt", ".bin", ".ckpt", ".th"];

/// Selects the weight file in a folder.
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
            "is a distributed PyTorch checkpoint (.distcp), not a single weight file",
        )
        .help(
            "convert it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth",
        ));
    }
    if has("data.pkl").is_some() {
        return Err(Error::unsupported(folder, "is an unpacked PyTorch checkpoint")
            .help("repack it: run zip -0 -r weights.pth FOLDER in the parent folder"));
    }
    if lower.iter().any(|name| name == "zero_to_fp32.py" || name.starts_with("zero_pp_rank")) {
        return Err(Error::unsupported(
            folder,
            "is a DeepSpeed checkpoint, which splits the weights over several files",
        )
        .help("merge them: python zero_to_fp32.py FOLDER weights.pth"));
    }
    let weights =
        lower.iter().zip(&names).filter(|(lower, _)| ENDINGS.iter().any(|end| lower.ends_with(end)));
    let weights: Vec<&String> = weights.map(|(_, name)| name).collect();
    let is_index = |name: &&&String| name.to_ascii_lowercase().ends_with(".index.json");
    let indices: Vec<&String> = weights.iter().filter(is_index).copied().collect();
    match (weights.as_slice(), indices.as_slice()) {
        ([], _) => Err(Error::not_found(folder, "no weight file found in this folder").help(HELP)),
        ([one], _) | (_, [one]) => Ok(folder.join(one)),
        (several, _) => {
            let shown: Vec<&str> = several.iter().take(8).map(|name| name.as_str()).collect();
            let more = if several.len() > shown.len() { ", …" } else { "" };
            let problem = format!(
                "expected one weight file in this folder, found {}: {}{more}",
                several.len(),
                shown.join(", ")
            );
            Err(Error::damaged(folder, problem).help("pass one of them"))
        }
    }
}

/// Maximum size of an index, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// The contents of `model.safetensors.index.json` and similar files.
#[derive(Deserialize)]
struct Index {
    /// Maps tensor names to file names.
    weight_map: BTreeMap<String, String>,
}

fn shards(index: PathBuf) -> Result<WeightFiles> {
    let mut text = Vec::new();
    File::open(&index).at(&index)?.take(MAX_INDEX).read_to_end(&mut text).at(&index)?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let parsed: Index = serde_json::from_slice(text).map_err(|error| {
        Error::unsupported(
            &index,
            format!("is JSON text, but not a weight index with a `weight_map`: {error}"),
        )
        .help(HELP)
    })?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let mut parts: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (tensor, part) in parsed.weight_map {
        let part = inside(folder, &part).map_err(|error| Error::damaged(&index, error))?;
        parts.entry(part).or_default().insert(tensor);
    }
    if parts.is_empty() {
        return Err(Error::damaged(&index, "this index lists no tensors").help(HELP));
    }
    let lacking: Vec<String> =
        parts.keys().filter(|part| !part.is_file()).map(|part| part.display().to_string()).collect();
    if let Some(first) = lacking.first() {
        let problem =
            format!("{} of {} shards are missing, the first is {first}", lacking.len(), parts.len());
        return Err(Error::damaged(&index, problem).help("put all shards into the folder of the index"));
    }
    Ok(WeightFiles::Shards { index, parts })
}
