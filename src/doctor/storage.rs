//! Caches and free disk.

use std::path::{Path, PathBuf};

use super::{Area, Finding, Measured, Standing};
use crate::demo;
use crate::error::AtPath;
use crate::fetch::gigabytes;
use crate::home::cache_folder;
use crate::locations::{Environment, free_space};
use crate::{Error, Result};

/// With fewer bytes free, a run may end for want of disk: about the features of one large task.
const LITTLE: u64 = 2_000_000_000;

/// What the caches take, and what is free.
pub fn examine(environment: &Environment) -> Vec<Finding> {
    let mut findings = Vec::new();
    match cache_folder() {
        Ok(folder) => {
            findings.extend(caches(&folder));
            findings.push(free("cache", &folder));
        }
        Err(error) => {
            findings.push(Finding::of_error(Area::Caches, "cache", Standing::Broken, &error));
        }
    }
    match environment.weights() {
        Ok(place) => findings.push(free("data", place.folder.parent().unwrap_or(&place.folder))),
        Err(error) => findings.push(
            Finding::of_error(Area::Disk, "data", Standing::Absent, &error)
                .remedy("export TERRABENCH_DATA=DIR"),
        ),
    }
    findings
}

/// The demo's data, features, and what else lies in the cache folder.
fn caches(folder: &Path) -> Vec<Finding> {
    if !folder.exists() {
        return vec![Finding::new(Area::Caches, "cache", Standing::Absent, "empty").at(folder)];
    }
    let (mut demo, mut features, mut others) = (Vec::new(), Vec::new(), Vec::new());
    match entries(folder) {
        Ok(paths) => {
            for path in paths {
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let kind = match name.as_str() {
                    "features" => &mut features,
                    name if demo::is_demo_name(name) => &mut demo,
                    _ => &mut others,
                };
                kind.push(path);
            }
        }
        Err(error) => {
            let broken = Finding::of_error(Area::Caches, "cache", Standing::Broken, &error).at(folder);
            return vec![broken.remedy("name another folder: export TERRABENCH_CACHE=DIR")];
        }
    }
    let kinds = [
        ("features", features, "cargo xtask cache --list shows them, cargo xtask cache --prune makes room"),
        ("demo", demo, "written anew by --demo when it is gone"),
        ("other", others, "hashes of files, and the like"),
    ];
    kinds.into_iter().map(|(name, paths, about)| cache(name, &paths, about).at(folder)).collect()
}

fn cache(name: &str, paths: &[PathBuf], about: &str) -> Finding {
    if paths.is_empty() {
        return Finding::new(Area::Caches, name, Standing::Absent, "empty");
    }
    match paths.iter().map(|path| size(path)).sum::<Result<u64>>() {
        Ok(bytes) => {
            let found = format!("{} ({about})", gigabytes(bytes));
            Finding::new(Area::Caches, name, Standing::Good, found).measured(Measured::Bytes { bytes })
        }
        Err(error) => Finding::of_error(Area::Caches, name, Standing::Broken, &error)
            .remedy("let yourself read it, or name another folder: export TERRABENCH_CACHE=DIR"),
    }
}

/// Bytes of all files in it; links are not followed, and what goes while it is read does not count.
fn size(path: &Path) -> Result<u64> {
    match path.symlink_metadata() {
        Ok(known) if known.is_dir() => entries(path)?.iter().map(|path| size(path)).sum(),
        Ok(known) => Ok(known.len()),
        Err(_) => Ok(0),
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.at(folder)?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::damaged(folder, error)),
    }
}

fn free(name: &str, folder: &Path) -> Finding {
    let finding = |standing, found| Finding::new(Area::Disk, name, standing, found).at(folder);
    match free_space(folder) {
        Ok(bytes) => {
            let text = format!("{} free", gigabytes(bytes));
            let measured = Measured::Bytes { bytes };
            if bytes >= LITTLE {
                return finding(Standing::Good, text).measured(measured);
            }
            let remedy = match name {
                "cache" => "cargo xtask cache --prune, or name another folder: export TERRABENCH_CACHE=DIR",
                _ => "free some, or name another folder: export TERRABENCH_DATA=DIR",
            };
            finding(Standing::Doubtful, format!("only {text}")).measured(measured).remedy(remedy)
        }
        Err(error) => Finding::of_error(Area::Disk, name, Standing::Doubtful, &error).at(folder),
    }
}
