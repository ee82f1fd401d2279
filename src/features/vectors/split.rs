//! A file with the features of a split.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::{DECLARED, listed};
use crate::formats::arrays::{ArrayFile, StoredArray};
use crate::nn::heads::upernet::MapLevel;
use crate::{Error, Result};

/// The features of a split in a file whose header was read and checked.
#[derive(Debug)]
pub struct SplitFile {
    file: ArrayFile,
    /// The row of each sample.
    rows: HashMap<String, usize>,
    /// Rows and columns of patch tokens.
    grid: Option<[usize; 2]>,
    levels: Vec<MapLevel>,
    declared: BTreeMap<String, String>,
}

const FEATURES: &str = "features";
const TOKENS: &str = "tokens";

fn map_name(place: usize) -> String {
    format!("map{place}")
}

impl SplitFile {
    /// Opens the file at `path` and checks names, shapes and types.
    ///
    /// # Errors
    /// If the file cannot be read, a sample has two rows or none, an array has another shape or type, or there is nothing
    /// to use.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = ArrayFile::open(path)?;
        let names = file.texts.get("samples").ok_or_else(|| {
            Error::damaged(path, "expected the samples' names under `samples`, found none").help(
                "safetensors: a JSON list under the metadata key `samples`; .npz: an array of strings; \
                 Parquet: a column of strings",
            )
        })?;
        let mut rows = HashMap::with_capacity(names.len());
        let mut twice = Vec::new();
        let mut told = HashSet::new();
        for (row, name) in names.iter().enumerate() {
            if rows.insert(name.clone(), row).is_some() && told.insert(name) {
                twice.push(name.clone());
            }
        }
        if !twice.is_empty() {
            let problem = format!("expected each sample once, found more rows of {}", listed(&twice));
            return Err(Error::damaged(path, problem).help("write one row per sample"));
        }
        let declared =
            DECLARED.iter().filter_map(|name| Some(((*name).to_owned(), file.texts.get(*name)?.join(", "))));
        let declared = declared.collect();
        let n = names.len();
        let grid = file.arrays.get(TOKENS).map(|tokens| grid(&file, tokens)).transpose()?;
        let levels = levels(&file)?;
        let opened = SplitFile { rows, grid, levels, declared, file };
        opened.check(n)?;
        Ok(opened)
    }

    /// Checks counts, shapes and types of the arrays.
    fn check(&self, n: usize) -> Result<()> {
        let path = self.path();
        let used = self.used();
        if used.is_empty() {
            let found: Vec<&String> = self.file.arrays.keys().collect();
            let found = if found.is_empty() { "no array".to_owned() } else { listed(&found) };
            return Err(Error::damaged(
                path,
                format!("expected `features`, `tokens` or `map0`, found {found}"),
            )
            .help("rename the array to `features`"));
        }
        for (name, array) in used {
            array.check_type()?;
            let (shape, rank) = (array.shape(), rank(&name));
            if !rank.contains(&shape.len()) || shape.iter().skip(1).any(|side| *side == 0) {
                let expected = match name.as_str() {
                    FEATURES => "[n, d]",
                    TOKENS => "[n, rows, columns, d]",
                    _ => "[n, d, rows, columns]",
                };
                let problem = format!("`{name}`: expected {expected}, found {shape:?}");
                return Err(Error::damaged(path, problem).help("docs/vectors.md describes the arrays"));
            }
            if shape.first() != Some(&n) {
                let found = shape.first().copied().unwrap_or_default();
                let problem =
                    format!("`{name}`: expected {n} rows, one per name in `samples`, found {found}");
                return Err(Error::damaged(path, problem).help("write samples and arrays in the same order"));
            }
        }
        Ok(())
    }

    /// Returns the arrays that protocols can use, with their names.
    fn used(&self) -> Vec<(String, &StoredArray)> {
        let names = [FEATURES.to_owned(), TOKENS.to_owned()];
        let names = names.into_iter().chain((0..self.levels.len()).map(map_name));
        names.filter_map(|name| Some((name.clone(), self.file.arrays.get(&name)?))).collect()
    }

    /// Checks that another split's file has features of the same widths, and declares the same.
    pub(super) fn check_alike(&self, other: &SplitFile) -> Result<()> {
        let differ = |what: &str, here: String, there: String| {
            let problem = format!("{what}: expected {here} as in {}, found {there}", self.path().display());
            Err(Error::damaged(other.path(), problem).help("make all splits with the same model"))
        };
        for name in [FEATURES, TOKENS] {
            let shape = |file: &SplitFile| {
                let array = file.file.arrays.get(name);
                array.map(|array| array.shape().get(1..).unwrap_or_default().to_vec())
            };
            match (shape(self), shape(other)) {
                (Some(here), Some(there)) if here != there => {
                    return differ(&format!("shape of `{name}`"), format!("{here:?}"), format!("{there:?}"));
                }
                _ => {}
            }
        }
        if self.levels != other.levels {
            return differ("maps", told(&self.levels), told(&other.levels));
        }
        for (name, here) in &self.declared {
            if let Some(there) = other.declared.get(name)
                && here != there
            {
                return differ(&format!("`{name}`"), format!("`{here}`"), format!("`{there}`"));
            }
        }
        Ok(())
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Returns what the file says about how the features were made.
    pub(super) fn declared(&self) -> &BTreeMap<String, String> {
        &self.declared
    }

    /// Returns whether it has one vector per sample.
    pub fn has_features(&self) -> bool {
        self.file.arrays.contains_key(FEATURES)
    }

    /// Returns whether it has patch tokens.
    pub fn has_tokens(&self) -> bool {
        self.grid.is_some()
    }

    /// Returns width and stride of each map.
    pub fn map_levels(&self) -> &[MapLevel] {
        &self.levels
    }

    /// Returns the row of a sample.
    pub(super) fn row(&self, sample: &str) -> Option<usize> {
        self.rows.get(sample).copied()
    }

    /// Returns the names of the samples, in no order.
    pub(super) fn samples(&self) -> impl Iterator<Item = &String> {
        self.rows.keys()
    }

    /// Returns the vectors [n, d].
    pub(super) fn features(&self) -> Result<&StoredArray> {
        self.array(FEATURES)
    }

    /// Returns the tokens [n, rows * columns * d] and their [rows, columns, d].
    pub(super) fn tokens(&self) -> Result<(&StoredArray, [usize; 3])> {
        let array = self.array(TOKENS)?;
        let [rows, columns] = self.grid.unwrap_or_default();
        Ok((array, [rows, columns, array.shape().last().copied().unwrap_or_default()]))
    }

    /// Returns each map [n, d, rows, columns], with its [d, rows, columns].
    pub(super) fn maps(&self) -> Result<Vec<(&StoredArray, [usize; 3])>> {
        let map = |place| {
            let array = self.array(&map_name(place))?;
            match array.shape() {
                [_, d, rows, columns] => Ok((array, [*d, *rows, *columns])),
                other => Err(Error::damaged(self.path(), format!("map of shape {other:?}"))),
            }
        };
        (0..self.levels.len()).map(map).collect()
    }

    fn array(&self, name: &str) -> Result<&StoredArray> {
        self.file.arrays.get(name).ok_or_else(|| {
            Error::damaged(self.path(), format!("expected an array `{name}`, found none"))
                .help("docs/vectors.md says which protocol needs which array")
        })
    }
}

/// Numbers of dimensions that an array may have.
fn rank(name: &str) -> &'static [usize] {
    match name {
        FEATURES => &[2],
        TOKENS => &[3, 4],
        _ => &[4],
    }
}

fn told(levels: &[MapLevel]) -> String {
    let one = |level: &MapLevel| format!("{} channels at stride {}", level.width, level.stride);
    match levels.is_empty() {
        true => "none".to_owned(),
        false => levels.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

/// Returns rows and columns of the tokens: the shape's, those of `grid`, or those of a square.
fn grid(file: &ArrayFile, tokens: &StoredArray) -> Result<[usize; 2]> {
    let damaged = |problem: String| {
        Error::damaged(&file.path, problem)
            .help("write tokens as [n, rows, columns, d], or state `grid` = [rows, columns]")
    };
    match *tokens.shape() {
        [_, rows, columns, _] => Ok([rows, columns]),
        [_, count, _] => {
            let stated: Option<Vec<usize>> =
                match file.texts.get("grid") {
                    None => None,
                    Some(texts) => {
                        let sides: Option<Vec<usize>> =
                            texts.iter().map(|text| text.trim().parse().ok()).collect();
                        Some(sides.ok_or_else(|| {
                            damaged(format!("`grid`: expected two numbers, found {texts:?}"))
                        })?)
                    }
                };
            let side = count.isqrt();
            match stated.as_deref() {
                Some([rows, columns]) if rows.checked_mul(*columns) == Some(count) => Ok([*rows, *columns]),
                Some(other) => {
                    Err(damaged(format!("`grid`: expected two sides of {count} tokens, found {other:?}")))
                }
                None if side * side == count => Ok([side, side]),
                None => Err(damaged(format!(
                    "`tokens`: {count} tokens per image form no square, and `grid` is missing"
                ))),
            }
        }
        ref other => Err(damaged(format!("`tokens`: expected [n, rows, columns, d], found {other:?}"))),
    }
}

/// Returns width and stride of each map. Without `strides`, the largest map has stride 1: only their ratios matter.
fn levels(file: &ArrayFile) -> Result<Vec<MapLevel>> {
    let damaged = |problem: String| {
        Error::damaged(&file.path, problem).help(
            "write map0, map1, … as [n, d, rows, columns], and `strides` as a list of one number per map",
        )
    };
    let mut sizes = Vec::new();
    while let Some(map) = file.arrays.get(&map_name(sizes.len())) {
        match *map.shape() {
            [_, d, rows, columns] => sizes.push((d, rows, columns)),
            ref other => {
                return Err(damaged(format!(
                    "`map{}`: expected [n, d, rows, columns], found {other:?}",
                    sizes.len()
                )));
            }
        }
    }
    let strides = match file.texts.get("strides") {
        Some(texts) => {
            let strides: Option<Vec<usize>> =
                texts.iter().map(|text| text.trim().parse().ok().filter(|stride| *stride > 0)).collect();
            strides.filter(|strides| strides.len() == sizes.len()).ok_or_else(|| {
                damaged(format!("`strides`: expected {} numbers, found {texts:?}", sizes.len()))
            })?
        }
        None => {
            let largest = sizes.iter().map(|(_, rows, _)| *rows).max().unwrap_or(0);
            let stride = |(_, rows, _): &(usize, usize, usize)| {
                Some(largest / rows.max(&1)).filter(|stride| stride * rows == largest)
            };
            let strides: Option<Vec<usize>> = sizes.iter().map(stride).collect();
            strides.ok_or_else(|| {
                damaged("the maps' sizes are no multiples of each other, and `strides` is missing".to_owned())
            })?
        }
    };
    Ok(sizes.iter().zip(strides).map(|((width, ..), stride)| MapLevel { width: *width, stride }).collect())
}
