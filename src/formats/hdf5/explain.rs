//! Explains the library's errors: distinguishes damage from unsupported features.

use std::path::Path;

use hdf5_pure::{Error as Library, FormatError};

use super::DAMAGED;
use crate::Error;

const WITH_LIBHDF5: &str =
    "build with the cargo feature `libhdf5`, or rewrite the file: h5repack -l CONTI -f NONE";
const REWRITE: &str = "rewrite the file: h5repack -l CONTI -f NONE --high=2";
const FILTER: &str = "rewrite the file: h5repack -f GZIP=4";

/// Describes an error of the library about the file at `path` or one of its datasets, and adds what to do.
pub fn error(path: &Path, dataset: Option<&str>, error: &Library) -> Error {
    let (problem, remedy) = unread(error).unwrap_or_else(|| (error.to_string(), DAMAGED));
    let problem = match dataset {
        Some(name) => format!("dataset `{name}`: {problem}"),
        None => problem,
    };
    Error::damaged(path, problem).help(remedy)
}

/// Names the unsupported HDF5 feature and what to do; `None` if the file is damaged.
fn unread(error: &Library) -> Option<(String, &'static str)> {
    let Library::Format(error) = error else { return None };
    let feature = match error {
        // Also newer than the libhdf5 that the cargo feature builds in.
        FormatError::InvalidLayoutVersion(version @ 5..) => {
            return Some((format!("data layout version {version} (HDF5 2.0) is not supported"), REWRITE));
        }
        FormatError::UnsupportedFilter(5) => "filter 5 (n-bit)".to_owned(),
        FormatError::UnsupportedFilter(number) => {
            let name = filter(*number).map_or(String::new(), |name| format!(" ({name})"));
            return Some((format!("filter {number}{name} is not supported"), FILTER));
        }
        FormatError::InvalidLayoutVersion(version) => format!("data layout version {version}"),
        FormatError::ChunkedReadError(problem) if problem.contains("version 2 B-tree") => {
            "a chunk index that is a version-2 B-tree (two unlimited dimensions)".to_owned()
        }
        FormatError::UnsupportedVersion(version) => format!("superblock version {version}"),
        FormatError::UnsupportedVirtualLayout => "a virtual dataset".to_owned(),
        FormatError::UnsupportedExternalStorage => "a dataset in external files".to_owned(),
        FormatError::UnsupportedMessage(number) => format!("header message {number:#06x}"),
        FormatError::UnsupportedSohmReference => "a shared header message".to_owned(),
        FormatError::UnsupportedFilteredHeapObject => "a filtered heap".to_owned(),
        FormatError::InvalidDatatypeClass(class @ 11..) => format!("datatype class {class}"),
        FormatError::InvalidDatatypeVersion { class, version } => {
            format!("version {version} of datatype class {class}")
        }
        FormatError::NumericElementTooWide { size } => format!("numbers of {size} bytes"),
        _ => return None,
    };
    Some((format!("{feature} is not supported"), WITH_LIBHDF5))
}

/// Filters found in this field's files [HDF5's registered filters].
fn filter(number: u16) -> Option<&'static str> {
    Some(match number {
        4 => "szip",
        307 => "bzip2",
        32001 => "Blosc",
        32004 => "LZ4",
        32008 => "bitshuffle",
        32013 => "ZFP",
        32015 => "Zstandard",
        32026 => "Blosc2",
        _ => return None,
    })
}
