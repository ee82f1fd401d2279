//! Names of sensors and bands that are kept once.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::{Error, Result};

/// Returns a copy of the name that lives as long as the process. Names come from TOML files, so there are few of them.
pub(super) fn intern(name: &str) -> Result<&'static str> {
    const MOST: usize = 4096;
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return Ok(known);
    }
    if names.len() == MOST {
        return Err(Error::request(format!(
            "`{name}`: too many different names of sensors and bands (limit {MOST})"
        )));
    }
    let kept: &'static str = name.to_owned().leak();
    names.insert(kept);
    Ok(kept)
}
