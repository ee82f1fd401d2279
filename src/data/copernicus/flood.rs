//! Flood-S1's samples: a JSON object a split, each of whose values names a folder of files of one band
//! [zhu-xlab/Copernicus-FM, Copernicus-Bench/src/datasets/cobench_floods1_wrapper.py].
//!
//! ```text
//! grid_dict_{train,val,test}.json   { "<name>": { "path": "<folder>", … }, … }
//! data/<folder>/SL1_IVV_….tif       before the flood; SL1_IVH_…
//! data/<folder>/MS1_IVV_….tif       after it; MS1_IVH_…
//! data/<folder>/MK0_MLU_….tif       the mask
//! ```
//!
//! What else lies there (a second date before, SL2; elevations; areas) is not read.

use indexmap::IndexMap;
use serde::Deserialize;

use super::files::Files;
use super::item::{ListedSample, TargetPlace};
use crate::files::{inside, relative_name};
use crate::formats::text;
use crate::{Error, Result};

/// What the names of a sample's files begin with, in the order of the task's images and their bands.
const IMAGES: [&str; 4] = ["SL1_IVV_", "SL1_IVH_", "MS1_IVV_", "MS1_IVH_"];
const MASK: &str = "MK0_MLU_";

/// A sample as the list has it.
#[derive(Debug, Deserialize)]
struct Grid {
    path: String,
}

/// The samples that `text` lists, in its order, as the reference takes them.
///
/// # Errors
/// Where it is not of the layout, or a file is not there or may be any of several.
pub fn samples(text: &str, files: &Files) -> Result<Vec<ListedSample>, String> {
    let grids: IndexMap<String, Grid> = text::json(text.as_bytes()).map_err(|error| error.to_string())?;
    grids.into_iter().map(|(name, grid)| sample(name, &grid.path, files)).collect()
}

fn sample(name: String, path: &str, files: &Files) -> Result<ListedSample, String> {
    let folder = format!("data/{}", relative_name(path));
    let told = |error: Error| format!("`{name}`: {error}");
    inside(std::path::Path::new(""), &folder).map_err(told)?;
    let there = files.below(&folder).map_err(told)?;
    let only = |start: &str| {
        let fits = |file: &&String| file.starts_with(start) && file.ends_with(".tif");
        match there.iter().filter(fits).collect::<Vec<_>>().as_slice() {
            [one] => Ok(format!("{folder}/{one}")),
            several => Err(format!(
                "`{name}`: {} files in {} are called {start}<…>.tif; expected one",
                several.len(),
                files.path(&folder).display()
            )),
        }
    };
    let images = IMAGES.into_iter().map(only).collect::<Result<_, _>>()?;
    let mask = only(MASK)?;
    Ok(ListedSample { name, images, target: TargetPlace::File(mask) })
}
