//! Contributions: results that one group hands to another, with a digest of every file.
//!
//! ```text
//! contribution.json               who, with which program, and the digest of every other file
//! model-card.md                   what was measured, for readers
//! <suite>/records/*.json          as in a folder of results
//! <suite>/predictions/*.safetensors
//! <suite>/sheets/*.png
//! ```
//!
//! The digests show that a file was changed after it was packed. They do not prove who packed it: the contribution's
//! [`Contribution::id`] changes with any byte, so that whoever publishes it can be checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Store, Usable};
use crate::error::AtPath;
use crate::files::inside;
use crate::program::Program;
use crate::{Error, Result};

/// Name of the file that lists the others.
pub const MANIFEST: &str = "contribution.json";

/// Name of the file for readers.
pub const MODEL_CARD: &str = "model-card.md";

/// Version of the layout.
const FORMAT: u32 = 1;

/// Largest manifest that is read: half a million files.
const LARGEST: u64 = 64 << 20;

/// Characters that the name of a contributor may have.
const LONGEST_NAME: usize = 60;

/// The contents of `contribution.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Name of the person or group, as tables show it.
    pub contributor: String,
    /// How to reach them, or where the results are described.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Version of the program that packed the files.
    pub terrabench: String,
    /// Its git revision, if it was built in a checkout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_revision: Option<String>,
    /// Number of records per folder: `<suite>` or `<suite>-demo`.
    pub records: BTreeMap<String, usize>,
    /// blake3 of every other file, by its path.
    pub files: BTreeMap<String, String>,
}

impl Manifest {
    /// Makes the manifest of these files.
    ///
    /// # Errors
    /// If the name is empty, too long or not on one line.
    pub fn new(
        contributor: &str,
        contact: Option<&str>,
        program: &Program,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self> {
        let contributor = contributor.trim();
        check_name(contributor).map_err(|problem| Error::request(problem).help("pass --name \"Lab X\""))?;
        let mut records = BTreeMap::new();
        for path in files.keys() {
            if let Some((folder, rest)) = path.split_once('/')
                && rest.starts_with("records/")
            {
                *records.entry(folder.to_owned()).or_insert(0) += 1;
            }
        }
        let digest =
            |(path, bytes): (&String, &Vec<u8>)| (path.clone(), blake3::hash(bytes).to_hex().to_string());
        Ok(Manifest {
            format: FORMAT,
            contributor: contributor.to_owned(),
            contact: contact.map(str::to_owned),
            terrabench: program.version.clone(),
            git_revision: program.revision.clone(),
            records,
            files: files.iter().map(digest).collect(),
        })
    }

    /// Returns the bytes of `contribution.json`.
    ///
    /// # Errors
    /// If it has no JSON form.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_string_pretty(self).map_err(Error::mismatch)?;
        json.push('\n');
        Ok(json.into_bytes())
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(format!(
            "expected a contributor's name of one line with 1 to {LONGEST_NAME} characters, found {name:?}"
        ));
    }
    Ok(())
}

/// A contribution whose files were all checked.
#[derive(Debug, Clone)]
pub struct Contribution {
    /// Its folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// blake3 of the manifest: changes with any byte of any file.
    pub id: String,
}

impl Contribution {
    /// Whether a folder says that it is one.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(MANIFEST).is_file()
    }

    /// Opens the contribution in a folder and checks the digest of every file.
    ///
    /// # Errors
    /// If a file was changed, added or removed after it was packed, the manifest is faulty, or a file cannot be read. The
    /// error names the file.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            return Err(Error::not_found(&path, "no such file, so this is no contribution")
                .help("`cargo xtask contribute` makes one"));
        }
        let size = std::fs::metadata(&path).at(&path)?.len();
        if size > LARGEST {
            return Err(Error::damaged(&path, format!("{size} bytes; at most {LARGEST} are read")));
        }
        let bytes = std::fs::read(&path).at(&path)?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|problem| {
            Error::damaged(&path, format!("not a list of a contribution's files: {problem}"))
        })?;
        if manifest.format != FORMAT {
            let problem = format!("expected format {FORMAT}, found {}", manifest.format);
            return Err(
                Error::unsupported(&path, problem).help("use the version of Terrabench that packed it")
            );
        }
        check_name(&manifest.contributor).map_err(|problem| Error::damaged(&path, problem))?;
        let again = format!("get the contribution from {} again", manifest.contributor);
        for (name, expected) in &manifest.files {
            let file = inside(folder, name).map_err(|error| error.in_file(&path))?;
            if !file.is_file() {
                return Err(Error::not_found(&file, format!("listed in {MANIFEST}, but missing")).help(again));
            }
            let found = blake3::hash(&std::fs::read(&file).at(&file)?).to_hex().to_string();
            if found != *expected {
                let problem =
                    format!("changed after it was packed: expected blake3 {expected}, found {found}");
                return Err(Error::damaged(&file, problem).help(again));
            }
        }
        let mut found = Vec::new();
        list(folder, "", &mut found)?;
        let is_extra = |name: &&String| name.as_str() != MANIFEST && !manifest.files.contains_key(*name);
        if let Some(extra) = found.iter().find(is_extra) {
            return Err(Error::damaged(
                folder.join(extra),
                format!("not listed in {MANIFEST}: added after it was packed"),
            )
            .help(again));
        }
        Ok(Contribution {
            folder: folder.to_owned(),
            id: blake3::hash(&bytes).to_hex().to_string(),
            manifest,
        })
    }

    /// Returns the first digits of the id.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Reads the records in one of its folders, each marked with the contributor's name; `None` if it has none.
    ///
    /// # Errors
    /// If the folder cannot be read, or a record is damaged.
    pub fn records(&self, folder: &str) -> Result<Option<(Store, Usable)>> {
        let Some(store) = Store::existing(self.folder.join(folder)) else { return Ok(None) };
        let mut usable = store.usable()?;
        for record in &mut usable.records {
            record.provenance.origin = Some(self.manifest.contributor.clone());
        }
        Ok(Some((store, usable)))
    }
}

/// Lists the files below a folder by their paths with `/`. Hidden files, which systems add, are left out.
fn list(folder: &Path, prefix: &str, found: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{prefix}{name}");
        let kind = entry.file_type().at(&path)?;
        if kind.is_symlink() {
            return Err(Error::damaged(path, "expected files and folders, found a link").help("remove it"));
        }
        if kind.is_dir() {
            list(&path, &format!("{name}/"), found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}
