//! The features of a task from files, for protocols.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use burn::tensor::Device;
use ndarray::Array2;

use super::{VectorTask, listed};
use crate::audit::observed::{Observed, PixelSummary};
use crate::data::{self, Sample, Target, loader};
use crate::features::maps::{ImageKey, MapShape, MapSource, StoredMaps};
use crate::features::source::{FeatureSource, FeatureView, KnownFeatures};
use crate::features::tiles::{Tokens, mask_of};
use crate::features::{Features, Input};
use crate::formats::arrays::StoredArray;
use crate::progress::Progress;
use crate::score::subset::subset;
use crate::task::{Split, Suite};
use crate::transform::augment::Dihedral;
use crate::{Error, Result};

/// The partition with all samples of a task.
const WHOLE: &str = "default";

/// Reads features from files and labels from the suite's data.
pub struct VectorSource<'a> {
    /// The files.
    pub vectors: &'a VectorTask,
    /// The task's samples.
    pub input: &'a Input,
    /// The suite, which knows the other partitions.
    pub suite: &'a Suite,
    /// The folder of the suite's data.
    pub root: &'a Path,
    /// The input's partition.
    pub partition: &'a str,
    /// The device for feature maps, without autodiff.
    pub device: &'a Device,
    /// Number of threads that read labels.
    pub readers: usize,
    /// The labels read so far.
    pub known: &'a mut KnownFeatures,
    /// Receives progress and notes.
    pub progress: &'a dyn Progress,
}

impl VectorSource<'_> {
    /// Returns the row of each sample of a split, in the partition's order.
    fn rows(&self, split: Split) -> Result<Vec<usize>> {
        let file = self.vectors.split(split)?;
        let names = self.input.dataset.samples(split);
        let rows: Vec<Option<usize>> = names.iter().map(|name| file.row(name)).collect();
        let missing: Vec<&String> =
            names.iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(name, _)| name).collect();
        if !missing.is_empty() {
            let problem = format!(
                "expected a row for each of the {} samples of {split} ({}), {} are missing: {}",
                names.len(),
                self.partition,
                missing.len(),
                listed(&missing)
            );
            return Err(Error::damaged(file.path(), problem)
                .help("`samples` must hold the names that `cargo xtask inspect --task … --json` prints"));
        }
        let here: HashSet<&String> = names.iter().collect();
        let mut surplus: Vec<&String> = file.samples().filter(|name| !here.contains(name)).collect();
        if !surplus.is_empty() && self.partition != WHOLE {
            // A file of the whole split serves its smaller partitions too.
            let whole = data::open(self.suite, &self.input.task, self.root, WHOLE)?;
            let all: HashSet<&String> = whole.samples(split).iter().collect();
            surplus.retain(|name| !all.contains(name));
        }
        if !surplus.is_empty() {
            surplus.sort();
            let problem = format!(
                "expected only samples of {split}; other samples found: {} ({})",
                surplus.len(),
                listed(&surplus)
            );
            return Err(Error::damaged(file.path(), problem)
                .help("leave them out; a sample of another split here would spoil the score"));
        }
        Ok(rows.into_iter().flatten().collect())
    }

    /// Reads each sample of a split for its label and its summary, unless that was done before. `keeps_labels` says whether
    /// to keep the labels, which masks are too large for.
    fn observe(&mut self, split: Split, keeps_labels: bool) -> Result<()> {
        let contents = self.input.dataset.contents(split)?;
        let input = self.input;
        let known = &mut self.known.labels;
        let is_known = |i: usize| match keeps_labels {
            true => known.contains_key(&contents[i]),
            false => input.seen.holds(split, i),
        };
        let missing: Vec<usize> = (0..contents.len()).filter(|i| !is_known(*i)).collect();
        if !missing.is_empty() {
            let step = self.progress.begin(&format!("{split}, labels"), missing.len());
            let read = |i: usize| {
                let sample = input.stored(split, missing[i])?;
                let pixels = PixelSummary::of(sample.images.iter().map(|image| image.pixels.view()));
                Ok((sample.target, pixels))
            };
            loader::ordered(missing.len(), self.readers, 4 * self.readers, read, |read| {
                for (i, read) in missing.iter().zip(read) {
                    let read = read?;
                    if keeps_labels {
                        known.insert(contents[*i], read);
                    }
                    step.advance(1);
                }
                Ok::<(), Error>(())
            })?;
        }
        for (i, content) in contents.iter().enumerate() {
            if let Some((target, pixels)) = known.get(content)
                && !input.seen.holds(split, i)
            {
                input.seen.note(split, i, Observed::new(pixels.clone(), target));
            }
        }
        Ok(())
    }

    /// Returns the label of each sample of a split, in the partition's order.
    fn labels(&mut self, split: Split) -> Result<Vec<Target>> {
        self.observe(split, true)?;
        let names = self.input.dataset.samples(split);
        let contents = self.input.dataset.contents(split)?;
        let label = |(name, content): (&String, &blake3::Hash)| {
            let known = self.known.labels.get(content).map(|(target, _)| target.clone());
            known.ok_or_else(|| Error::mismatch(format!("{split} {name}: the label was not read")))
        };
        names.iter().zip(&contents).map(label).collect()
    }
}

impl FeatureSource for VectorSource<'_> {
    fn strategies(&self) -> Vec<String> {
        vec![super::UNKNOWN.to_owned()]
    }

    fn pooled(&mut self, FeatureView { split, turn, .. }: FeatureView) -> Result<Features> {
        if turn != Dihedral::Identity {
            return Err(Error::mismatch("files hold no features of flipped or rotated images")
                .help("use a protocol with `augmentation = \"none\"`"));
        }
        let file = self.vectors.split(split)?;
        let array = file.features()?;
        let samples = self.input.dataset.samples(split).to_vec();
        let numbers = read(file.path(), array, &self.rows(split)?, |place| &samples[place])?;
        let matrix =
            Array2::from_shape_vec((samples.len(), array.width()), numbers).map_err(Error::mismatch)?;
        Ok(Features { labels: self.labels(split)?, samples, matrix })
    }

    fn tokens(&mut self, _: usize, split: Split, tile: usize, limit: Option<usize>) -> Result<Tokens> {
        let file = self.vectors.split(split)?;
        let (array, sides) = file.tokens()?;
        let (rows, images) = (self.rows(split)?, subset(self.input.dataset.samples(split).len(), limit));
        let step = self.progress.begin(&split.to_string(), images.len());
        let read_sample = |i: usize| self.input.stored(split, images[i]);
        let mut cut: Option<Cut> = None;
        let mut tokens: Option<Tokens> = None;
        loader::ordered(images.len(), self.readers, self.readers + 1, read_sample, |samples| {
            for (image, sample) in images.iter().zip(samples) {
                let sample = sample?;
                let mask = mask_of(&sample, &self.input.task)?;
                let found =
                    Cut::new(&sample, mask.dim(), tile, sides).map_err(|error| error.in_file(file.path()))?;
                let cut = *cut.get_or_insert(found);
                if cut != found {
                    let problem = format!("{}: the images of {split} differ in size", sample.name);
                    return Err(
                        Error::mismatch(problem).help("the segmentation probe needs images of equal size")
                    );
                }
                let numbers = read(file.path(), array, &[rows[*image]], |_| &sample.name)?;
                let tokens = tokens.get_or_insert_with(|| {
                    let mut new = Tokens::new(cut.grid, cut.width);
                    (new.tiles_an_image, new.tiles_across) = (cut.down * cut.across, cut.across);
                    new
                });
                for y in 0..cut.down {
                    for x in 0..cut.across {
                        let mask =
                            mask.slice(ndarray::s![y * tile..(y + 1) * tile, x * tile..(x + 1) * tile]);
                        tokens.push(&cut.tile(&numbers, y, x), mask.to_owned())?;
                    }
                }
                step.advance(1);
            }
            Ok(())
        })?;
        tokens.ok_or_else(|| Error::mismatch(format!("{split} has no samples")))
    }

    fn maps(&mut self, _: usize) -> Result<MapSource<'_>> {
        let mut splits = BTreeMap::new();
        for split in Split::ALL {
            let file = self.vectors.split(split)?;
            let arrays = file.maps()?;
            let shape =
                |((_, dims), level): (&(&StoredArray, [usize; 3]), &crate::nn::heads::upernet::MapLevel)| {
                    MapShape { dims: *dims, stride: level.stride }
                };
            let shapes = arrays.iter().zip(file.map_levels()).map(shape).collect();
            let maps = SplitMaps {
                path: file.path(),
                arrays: arrays.iter().map(|(array, _)| *array).collect(),
                shapes,
                rows: self.rows(split)?,
                names: self.input.dataset.samples(split),
            };
            splits.insert(split, maps);
        }
        for split in Split::ALL {
            self.observe(split, false)?;
        }
        Ok(MapSource::stored(Box::new(FileMaps(splits)), self.device.clone()))
    }
}

/// Reads rows of an array, whose samples `name` names by their place among the rows.
fn read<'n>(
    path: &Path,
    array: &StoredArray,
    rows: &[usize],
    name: impl Fn(usize) -> &'n String,
) -> Result<Vec<f32>> {
    let numbers = array.rows(rows)?;
    if let Some(at) = numbers.iter().position(|number| !number.is_finite()) {
        let sample = name(at / array.width().max(1));
        let problem = format!("{sample}: expected finite numbers, found {}", numbers[at]);
        return Err(Error::not_finite(problem).in_file(path).help(
            "check the model that made the features; float64 beyond float32's range is infinite here",
        ));
    }
    Ok(numbers)
}

/// How the tokens of an image are divided among its tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// Tiles per column and per row of an image.
    down: usize,
    across: usize,
    /// Tokens per side of a tile.
    grid: usize,
    /// Tokens per row of an image.
    columns: usize,
    /// Length of a token.
    width: usize,
}

impl Cut {
    /// Divides tokens [rows, columns, width] of an image of `size` = (h, w) pixels among tiles of `tile` pixels.
    fn new(sample: &Sample, size: (usize, usize), tile: usize, sides: [usize; 3]) -> Result<Self> {
        let [rows, columns, width] = sides;
        let (h, w) = size;
        let fits = |length: usize| tile > 0 && length > 0 && length.is_multiple_of(tile);
        if !fits(h) || !fits(w) {
            let problem = format!("{}: {h} x {w} pixels cannot be cut into tiles of {tile}", sample.name);
            return Err(Error::mismatch(problem)
                .help("set `tile` in the protocol's TOML to a divisor of the images' height and width"));
        }
        let (down, across) = (h / tile, w / tile);
        let grid = rows / down;
        if grid == 0 || grid * down != rows || grid * across != columns {
            let problem = format!(
                "{}: expected tokens that {down} x {across} tiles of {tile} pixels share evenly, found {rows} x {columns}",
                sample.name
            );
            return Err(Error::mismatch(problem).help(
                "encode tiles of that size and join their tokens, or set `tile` in a copy of the protocol's TOML to \
                 the size of the image",
            ));
        }
        Ok(Cut { down, across, grid, columns, width })
    }

    /// Returns the tokens [grid * grid, width] of the tile in row `y` and column `x` of tiles.
    fn tile(&self, tokens: &[f32], y: usize, x: usize) -> Vec<f32> {
        let mut tile = Vec::with_capacity(self.grid * self.grid * self.width);
        for row in 0..self.grid {
            let first = ((y * self.grid + row) * self.columns + x * self.grid) * self.width;
            tile.extend_from_slice(tokens.get(first..first + self.grid * self.width).unwrap_or_default());
        }
        tile
    }
}

/// Feature maps in files, by split.
struct FileMaps<'a>(BTreeMap<Split, SplitMaps<'a>>);

struct SplitMaps<'a> {
    path: &'a Path,
    arrays: Vec<&'a StoredArray>,
    shapes: Vec<MapShape>,
    /// The row of each sample.
    rows: Vec<usize>,
    names: &'a [String],
}

impl StoredMaps for FileMaps<'_> {
    fn holds(&self, place: ImageKey) -> bool {
        let has = |maps: &SplitMaps| place.sample < maps.rows.len();
        place.turn == Dihedral::Identity && self.0.get(&place.split).is_some_and(has)
    }

    fn read(&self, places: &[ImageKey]) -> Result<(Vec<MapShape>, Vec<f32>)> {
        let mut shapes = Vec::new();
        let mut numbers = Vec::new();
        for place in places {
            let maps = self.0.get(&place.split).filter(|_| place.turn == Dihedral::Identity);
            let found = maps
                .and_then(|maps| Some((maps, *maps.rows.get(place.sample)?, maps.names.get(place.sample)?)));
            let (maps, row, name) = found.ok_or_else(|| {
                Error::mismatch("files hold no maps of flipped or rotated images")
                    .help("use a protocol with `augmentation = \"none\"`, such as upernet-plain")
            })?;
            shapes.clone_from(&maps.shapes);
            for array in &maps.arrays {
                numbers.extend(read(maps.path, array, &[row], |_| name)?);
            }
        }
        Ok((shapes, numbers))
    }
}
