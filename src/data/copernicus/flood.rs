//! Flood-S1's samples: one JSON object per split maps each sample to a folder, which has one file per band and date
//! [zhu-xlab/Copernicus-FM, Copernicus-Bench/src/datasets/cobench_floods1_wrapper.py].
//!
//! ```text
//! grid_dict_{train,val,test}.json        { "<name>": { "path": "<folder>", … }, … }
//! data/<folder>/SL1_IVV_…_20190405.tif   before the flood, with its date; SL1_IVH_…
//! data/<folder>/MS1_IVV_…_20190417.tif   after it; MS1_IVH_…
//! data/<folder>/MK0_MLU_….tif            the mask
//! ```
//!
//! The other files of a folder (a second date before the flood, SL2; elevations; areas) are not read.

use indexmap::IndexMap;
use serde::Deserialize;

use super::files::Files;
use super::item::{ListedSample, TargetPlace, day};
use crate::files::{inside, relative_name};
use crate::formats::text;
use crate::{Error, Result};

/// Prefixes of a sample's file names, in the order of the task's images and their bands.
const IMAGES: [&str; 4] = ["SL1_IVV_", "SL1_IVH_", "MS1_IVV_", "MS1_IVH_"];
const MASK: &str = "MK0_MLU_";

/// A sample as it appears in the list.
#[derive(Debug, Deserialize)]
struct Grid {
    path: String,
}

/// Reads the samples listed in `text`, in the list's order, choosing the same files as the reference.
///
/// # Errors
/// If `text` does not have the expected layout, or a file is missing or ambiguous.
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
                "`{name}`: expected one file {start}<…>.tif, found {} in {}",
                several.len(),
                files.path(&folder).display()
            )),
        }
    };
    let images: Vec<String> = IMAGES.into_iter().map(only).collect::<Result<_, _>>()?;
    let mask = only(MASK)?;
    let date = |file: &String| day(file.rsplit('_').next().unwrap_or_default());
    let days = [0, IMAGES.len() / 2].map(|place| images.get(place).and_then(date)).to_vec();
    Ok(ListedSample { name, images, days, target: TargetPlace::File(mask) })
}
