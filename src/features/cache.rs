//! Features on disk, addressed by what affects them, so that protocols, seeds, partitions and later runs share them.
//!
//! ```text
//! <cache>/features/<hash of everything that affects a feature except the sample>/about.json          description for people
//!                                                                               /<hash>.safetensors  samples and features
//! ```
//!
//! An entry grows chunk by chunk during extraction, so a killed run loses less than a chunk. A chunk is named by the hash of
//! its bytes, which reveals damage.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ndarray::Array2;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::audit::observed::{BandSummary, NUMBERS, PixelSummary};
use crate::data::Target;
use crate::error::AtPath;
use crate::files::write_atomically;
use crate::{Error, Result, home};

const ABOUT: &str = "about.json";
const CHUNK: &str = "safetensors";

/// Describes an entry to people; nothing else reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct About {
    /// The task for which the entry was created; other tasks with the same pixels share it.
    pub task: String,
    /// The model's name and backbone.
    pub model: String,
    /// The weights' id.
    pub weights: String,
    /// The normalisation strategy.
    pub normalization: String,
    /// The device, as on the command line.
    pub device: String,
}

/// Version of the chunk format, part of the cache key: chunks of another version are not read.
pub const FORM: u32 = 2;

/// A sample's features with its label and a summary of its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedSample {
    /// Hash of the sample's content.
    pub content: blake3::Hash,
    /// The sample's label.
    pub target: Target,
    /// Summary of its pixels, so that cached features give the same findings as new ones.
    pub pixels: PixelSummary,
    /// [d]: the feature vector.
    pub features: Vec<f32>,
}

/// A folder of entries, one per [`crate::features::Extractor::key`].
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// An entry as `cache --list` shows it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The entry's key, which is its folder's name.
    pub key: String,
    /// The entry's folder.
    pub folder: PathBuf,
    /// `None` if the description is missing or unreadable.
    pub about: Option<About>,
    /// Bytes on disk.
    pub size: u64,
    /// Time since the entry was last read or written.
    pub age: Duration,
}

impl Cache {
    /// Returns the cache in `folder`, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Cache { folder: folder.into() }
    }

    /// Returns the user's cache: `features/` in [`home::cache_folder`].
    ///
    /// # Errors
    /// If the platform has no cache directory.
    pub fn of_user() -> Result<Self> {
        Ok(Cache::new(home::cache_folder()?.join("features")))
    }

    /// Returns the cache's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the entry of a key, a hash of everything that affects a feature except the sample.
    pub fn entry(&self, key: &str) -> Entry {
        Entry { folder: self.folder.join(key) }
    }

    /// Lists all entries, the most recently used first. A missing folder has none.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let now = SystemTime::now();
        let mut listed = Vec::new();
        for entry in std::fs::read_dir(&self.folder).at(&self.folder)? {
            let folder = entry.at(&self.folder)?.path();
            let Some(key) = folder.file_name().and_then(|name| name.to_str()).filter(|_| folder.is_dir())
            else {
                continue;
            };
            let mut size = 0;
            let mut used = SystemTime::UNIX_EPOCH;
            for file in std::fs::read_dir(&folder).at(&folder)? {
                // Another process may remove a file meanwhile.
                let Ok(known) = file.at(&folder)?.metadata() else { continue };
                size += known.len();
                used = used.max(known.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            }
            let about = std::fs::read(folder.join(ABOUT)).ok();
            listed.push(Listed {
                key: key.to_owned(),
                about: about.and_then(|text| serde_json::from_slice(&text).ok()),
                size,
                age: now.duration_since(used).unwrap_or_default(),
                folder,
            });
        }
        listed.sort_by(|a, b| (a.age, &a.key).cmp(&(b.age, &b.key)));
        Ok(listed)
    }

    /// Removes the entries that were not used for `older_than`, then the least recently used ones until the
    /// rest takes at most `to` bytes; with neither limit, all entries. Returns the removed entries.
    ///
    /// # Errors
    /// If an entry cannot be removed.
    pub fn prune(&self, older_than: Option<Duration>, to: Option<u64>) -> Result<Vec<Listed>> {
        let mut kept = 0;
        let mut removed = Vec::new();
        for entry in self.list()? {
            let old = older_than.is_some_and(|limit| entry.age > limit);
            let beyond = to.is_some_and(|limit| kept + entry.size > limit);
            if old || beyond || (older_than.is_none() && to.is_none()) {
                std::fs::remove_dir_all(&entry.folder).at(&entry.folder)?;
                removed.push(entry);
            } else {
                kept += entry.size;
            }
        }
        Ok(removed)
    }
}

/// The cached features of one key.
#[derive(Debug, Clone)]
pub struct Entry {
    folder: PathBuf,
}

impl Entry {
    /// Reads all rows; a missing folder has none. Skips a chunk that cannot be used and reports it to `note`. Removes a chunk
    /// only if its bytes do not match its name: an unreadable one may be readable later.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn read(&self, width: usize, note: &mut dyn FnMut(&str)) -> Result<Vec<CachedSample>> {
        self.read_new(width, &mut HashSet::new(), note)
    }

    /// Like [`Entry::read`], only the chunks that are not in `known`, to which they are added: others may have written them since.
    ///
    /// # Errors
    /// Like [`Entry::read`].
    pub fn read_new(
        &self,
        width: usize,
        known: &mut HashSet<PathBuf>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<CachedSample>> {
        let mut rows = Vec::new();
        if !self.folder.exists() {
            return Ok(rows);
        }
        // Marks the entry as used; if that fails, it only looks older than it is.
        if let Ok(about) = std::fs::File::options().append(true).open(self.folder.join(ABOUT)) {
            let _ = about.set_modified(SystemTime::now());
        }
        let mut chunks = Vec::new();
        for file in std::fs::read_dir(&self.folder).at(&self.folder)? {
            let path = file.at(&self.folder)?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let is_chunk = !hidden && path.extension().is_some_and(|extension| extension == CHUNK);
            if is_chunk && known.insert(path.clone()) {
                chunks.push(path);
            }
        }
        chunks.sort();
        for path in chunks {
            let mut passed_over = |problem: &dyn std::fmt::Display| {
                note(&format!("{}: {problem}; computing its features again", path.display()));
            };
            match std::fs::read(&path) {
                Err(problem) => passed_over(&format!("cannot be read: {problem}")),
                Ok(bytes) if path.file_name().is_none_or(|name| name != file_name(&bytes).as_str()) => {
                    passed_over(&"the chunk is damaged");
                    let _ = std::fs::remove_file(&path);
                }
                Ok(bytes) => match decode(&bytes, width) {
                    Ok(chunk) => rows.extend(chunk),
                    Err(problem) => passed_over(&problem),
                },
            }
        }
        Ok(rows)
    }

    /// Adds rows, all of them or none. Returns the path of their chunk.
    ///
    /// # Errors
    /// If they cannot be written, or labels or features differ in length.
    pub fn append(&self, about: &About, rows: &[CachedSample]) -> Result<PathBuf> {
        let described = self.folder.join(ABOUT);
        if !described.exists() {
            write_atomically(&described, &serde_json::to_vec_pretty(about).at(&described)?)?;
        }
        let bytes = encode(rows).map_err(|problem| Error::damaged(&self.folder, problem))?;
        let path = self.folder.join(file_name(&bytes));
        write_atomically(&path, &bytes).map(|()| path)
    }
}

/// Returns a chunk's file name: the hash of its bytes, so that damage shows when it is read.
fn file_name(bytes: &[u8]) -> String {
    format!("{}.{CHUNK}", blake3::hash(bytes).to_hex())
}

/// Encodes a chunk: `contents` u8 [n, 32], `features` f32 [n, d], `pixel-hashes` u8 [n, 32], `pixels` f32 [n, bands, 6], and the labels:
/// `classes` u64 [n], `labels` u8 [n, l], `masks` i32 [n, h, w], `values` f32 [n] or `value-maps` f32 [n, h, w].
fn encode(rows: &[CachedSample]) -> Result<Vec<u8>, String> {
    let n = rows.len();
    let width = rows.first().map_or(0, |row| row.features.len());
    let contents: Vec<u8> = rows.iter().flat_map(|row| *row.content.as_bytes()).collect();
    let features: Vec<u8> =
        rows.iter().flat_map(|row| &row.features).flat_map(|value| value.to_le_bytes()).collect();
    let pixel_hashes: Vec<u8> = rows.iter().flat_map(|row| *row.pixels.hash.as_bytes()).collect();
    let bands = rows.first().map_or(0, |row| row.pixels.bands.len());
    let numbers = |row: &CachedSample| {
        row.pixels
            .bands
            .iter()
            .flat_map(|band| <[f32; NUMBERS]>::from(*band))
            .flat_map(f32::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let pixels: Vec<u8> = rows.iter().flat_map(numbers).collect();
    let mut labels = Vec::new();
    let mut form = None;
    for row in rows {
        let this = match &row.target {
            Target::Class(class) => {
                labels.extend((*class as u64).to_le_bytes());
                ("classes", Dtype::U64, vec![n])
            }
            Target::Labels(flags) => {
                labels.extend(flags.iter().map(|flag| u8::from(*flag)));
                ("labels", Dtype::U8, vec![n, flags.len()])
            }
            Target::Mask(mask) => {
                labels.extend(mask.iter().flat_map(|class| class.to_le_bytes()));
                ("masks", Dtype::I32, vec![n, mask.nrows(), mask.ncols()])
            }
            Target::Value(value) => {
                labels.extend(value.to_le_bytes());
                ("values", Dtype::F32, vec![n])
            }
            Target::ValueMap(map) => {
                labels.extend(map.iter().flat_map(|value| value.to_le_bytes()));
                ("value-maps", Dtype::F32, vec![n, map.nrows(), map.ncols()])
            }
        };
        if form.get_or_insert_with(|| this.clone()) != &this {
            return Err("the samples' labels differ in kind or size".to_owned());
        }
    }
    let Some((name, dtype, shape)) = form else { return Err("no samples to write".to_owned()) };
    let view = |dtype, shape, data| TensorView::new(dtype, shape, data).map_err(|e| e.to_string());
    let tensors = [
        ("contents", view(Dtype::U8, vec![n, blake3::OUT_LEN], &contents)?),
        ("features", view(Dtype::F32, vec![n, width], &features)?),
        ("pixel-hashes", view(Dtype::U8, vec![n, blake3::OUT_LEN], &pixel_hashes)?),
        ("pixels", view(Dtype::F32, vec![n, bands, NUMBERS], &pixels)?),
        (name, view(dtype, shape, &labels)?),
    ];
    safetensors::serialize(tensors, None).map_err(|e| e.to_string())
}

/// Decodes the rows of a chunk; each feature vector has the length `width`.
fn decode(bytes: &[u8], width: usize) -> Result<Vec<CachedSample>, String> {
    let foreign = || "not a feature chunk of this version".to_owned();
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let tensor = |name: &str| file.tensor(name).ok();
    let (contents, features) = tensor("contents").zip(tensor("features")).ok_or_else(foreign)?;
    let n = *contents.shape().first().ok_or_else(foreign)?;
    let fits = contents.shape() == [n, blake3::OUT_LEN]
        && contents.dtype() == Dtype::U8
        && features.shape() == [n, width]
        && features.dtype() == Dtype::F32
        && width > 0;
    if !fits {
        return Err(foreign());
    }
    let labels = labels(&file).filter(|labels| labels.len() == n).ok_or_else(foreign)?;
    let pixels = pixels(&file).filter(|pixels| pixels.len() == n).ok_or_else(foreign)?;
    let contents = contents.data().as_chunks::<{ blake3::OUT_LEN }>().0;
    let features = features.data().chunks_exact(4 * width);
    Ok(contents
        .iter()
        .zip(features)
        .zip(labels)
        .zip(pixels)
        .map(|(((content, features), target), pixels)| CachedSample {
            content: blake3::Hash::from_bytes(*content),
            target,
            pixels,
            features: features.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        })
        .collect())
}

/// Decodes the pixel summaries of a chunk.
fn pixels(file: &SafeTensors) -> Option<Vec<PixelSummary>> {
    let (hashes, numbers) = (file.tensor("pixel-hashes").ok()?, file.tensor("pixels").ok()?);
    let [n, bands, NUMBERS] = *numbers.shape() else { return None };
    if hashes.shape() != [n, blake3::OUT_LEN] || hashes.dtype() != Dtype::U8 || numbers.dtype() != Dtype::F32
    {
        return None;
    }
    let numbers: Vec<f32> =
        numbers.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let summaries = numbers.as_chunks::<NUMBERS>().0;
    let hashes = hashes.data().as_chunks().0.iter().enumerate();
    let summary = |(i, hash): (usize, &[u8; blake3::OUT_LEN])| PixelSummary {
        hash: blake3::Hash::from_bytes(*hash),
        bands: summaries[i * bands..][..bands].iter().copied().map(BandSummary::from).collect(),
    };
    Some(hashes.map(summary).collect())
}

/// Decodes the labels of a chunk, whatever their kind.
fn labels(file: &SafeTensors) -> Option<Vec<Target>> {
    let tensor = |name: &str, dtype| file.tensor(name).ok().filter(|tensor| tensor.dtype() == dtype);
    if let Some(classes) = tensor("classes", Dtype::U64) {
        let class = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).ok().map(Target::Class);
        return classes.data().as_chunks().0.iter().map(class).collect();
    }
    if let Some(labels) = tensor("labels", Dtype::U8) {
        let [_, length] = *labels.shape() else { return None };
        let flags = |row: &[u8]| Target::Labels(row.iter().map(|flag| *flag != 0).collect());
        return Some(labels.data().chunks_exact(length.max(1)).map(flags).collect());
    }
    if let Some(values) = tensor("values", Dtype::F32) {
        let value = |bytes: &[u8; 4]| Target::Value(f32::from_le_bytes(*bytes));
        return Some(values.data().as_chunks().0.iter().map(value).collect());
    }
    if let Some(masks) = tensor("masks", Dtype::I32) {
        return maps(&masks, i32::from_le_bytes, Target::Mask);
    }
    maps(&tensor("value-maps", Dtype::F32)?, f32::from_le_bytes, Target::ValueMap)
}

/// Splits a tensor [n, h, w] of four-byte numbers into maps [h, w].
fn maps<T>(
    tensor: &TensorView,
    number: impl Fn([u8; 4]) -> T,
    target: impl Fn(Array2<T>) -> Target,
) -> Option<Vec<Target>> {
    let [_, h, w] = *tensor.shape() else { return None };
    let map = |bytes: &[u8]| {
        let numbers = bytes.as_chunks().0.iter().map(|bytes| number(*bytes)).collect();
        Array2::from_shape_vec((h, w), numbers).ok().map(&target)
    };
    tensor.data().chunks_exact((4 * h * w).max(1)).map(map).collect()
}
