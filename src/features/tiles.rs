//! Patch tokens of a split's tiles, with the tiles' masks.

use std::collections::VecDeque;

use ndarray::{Array2, s};
use rand::seq::index;

use super::feed::Feed;
use super::{Extractor, Scratch, check_finite, in_flight};
use crate::data::{Image, Sample, Split, Target, loader};
use crate::model::Want;
use crate::model::remote::Pending;
use crate::progress::Step;
use crate::random::stream;
use crate::task::Task;
use crate::transform::augment::Dihedral;
use crate::{Error, Result};

/// Value of ignored pixels in a [`Mask`].
pub const IGNORED: i16 = -1;

/// [h, w]: the class of each pixel, or [`IGNORED`].
pub type Mask = Array2<i16>;

/// Patch tokens and masks of tiles, in order.
#[derive(Debug)]
pub struct Tokens {
    /// One row per tile: [grid * grid, width].
    tokens: Scratch,
    /// Tokens per side of a tile.
    pub grid: usize,
    /// Length of a token.
    pub width: usize,
    /// The mask of each tile.
    pub masks: Vec<Mask>,
    /// Tiles per image.
    pub tiles_an_image: usize,
    /// Tiles per row of an image.
    pub tiles_across: usize,
    /// One of so many tokens along each side of a tile was kept: drawn at random for training. Tiles are smaller by this
    /// factor.
    pub thinning: usize,
}

impl Tokens {
    /// Creates an empty list, with one tile per image.
    pub fn new(grid: usize, width: usize) -> Self {
        let tokens = Scratch::new(grid * grid * width);
        Tokens { tokens, grid, width, masks: Vec::new(), tiles_an_image: 1, tiles_across: 1, thinning: 1 }
    }

    /// Adds a tile: its tokens [grid * grid, width], row by row, and its mask.
    ///
    /// # Errors
    /// Like [`Scratch::push`].
    pub fn push(&mut self, tokens: &[f32], mask: Mask) -> Result<()> {
        self.tokens.push(tokens)?;
        self.masks.push(mask);
        Ok(())
    }

    /// Returns the number of tiles.
    pub fn len(&self) -> usize {
        self.masks.len()
    }

    /// Returns whether there are no tiles.
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// Reads the tokens of these tiles: [tiles * grid * grid, width].
    ///
    /// # Errors
    /// Like [`Scratch::read`].
    pub fn read(&self, tiles: &[usize]) -> Result<Array2<f32>> {
        let numbers = self.tokens.read(tiles)?;
        let shape = (tiles.len() * self.grid * self.grid, self.width);
        Array2::from_shape_vec(shape, numbers).map_err(Error::mismatch)
    }
}

/// Returns a sample's mask, with the task's ignored label as [`IGNORED`].
///
/// # Errors
/// If the label is not a mask, differs in size from the image, or contains anything but the task's classes and its ignored
/// label.
pub fn mask_of(sample: &Sample, task: &Task) -> Result<Mask> {
    let name = &sample.name;
    let Target::Mask(mask) = &sample.target else {
        return Err(Error::mismatch(format!("{name}: expected a mask as label"))
            .help("check the task's `target` in benchmarks/"));
    };
    let (h, w) = mask.dim();
    let sizes = sample.images.iter().map(|image| (image.pixels.dim().1, image.pixels.dim().2));
    if let Some((rows, columns)) = sizes.into_iter().find(|size| *size != (h, w)) {
        return Err(Error::mismatch(format!(
            "{name}: the image has {rows} x {columns} pixels, but its mask {h} x {w}"
        ))
        .help("fetch the file again, or leave the sample out of the partition"));
    }
    let class = |label: &i32| {
        let known = usize::try_from(*label).is_ok_and(|class| class < task.classes);
        if !known && task.ignore == Some(*label) {
            return Ok(IGNORED);
        }
        i16::try_from(*label).ok().filter(|_| known).ok_or_else(|| {
            Error::mismatch(format!(
                "{name}: the mask holds {label}; {} has {} classes",
                task.name, task.classes
            ))
            .help("check the task's `classes` in benchmarks/, or fetch the file again")
        })
    };
    let classes = mask.iter().map(class).collect::<Result<Vec<i16>>>()?;
    Array2::from_shape_vec(mask.dim(), classes).map_err(Error::mismatch)
}

/// A tile of a sample, preprocessed for the model.
struct Tile {
    name: String,
    /// Its top row in the sample.
    y: usize,
    images: Vec<Image>,
    mask: Mask,
}

/// Cuts a sample into tiles of `side` x `side` pixels, row by row, and prepares each for `feed`.
fn cut(feed: &Feed, sample: &Sample, task: &Task, side: usize) -> Result<Vec<Tile>> {
    let mask = mask_of(sample, task)?;
    let (rows, columns) = mask.dim();
    let fits = |length: usize| length > 0 && length.is_multiple_of(side);
    if side == 0 || !fits(rows) || !fits(columns) {
        let problem =
            format!("{}: {rows} x {columns} pixels cannot be cut into tiles of {side}", sample.name);
        return Err(Error::mismatch(problem)
            .help("set `tile` in the protocol's TOML to a divisor of the images' height and width"));
    }
    let mut tiles = Vec::new();
    for y in (0..rows).step_by(side) {
        for x in (0..columns).step_by(side) {
            let cut = |image: &Image| {
                image.with_pixels(image.pixels.slice(s![.., y..y + side, x..x + side]).to_owned())
            };
            let tile = sample.images.iter().map(cut).collect();
            tiles.push(Tile {
                name: sample.name.clone(),
                y,
                images: feed.prepared(tile)?,
                mask: mask.slice(s![y..y + side, x..x + side]).to_owned(),
            });
        }
    }
    Ok(tiles)
}

/// Computes the patch tokens of the samples at `indices`. Each sample is cut into tiles of `side` x `side` pixels, row by
/// row; each tile is resized to the model's input unless the model takes native sizes.
///
/// Memory: a batch of tiles and a few samples; the tokens are on disk.
///
/// # Errors
/// If a sample cannot be read or cut, its mask does not fit, a token is not finite, or the disk is full.
pub fn tile_tokens(
    extractor: &Extractor,
    split: Split,
    indices: &[usize],
    side: usize,
    step: &dyn Step,
) -> Result<Tokens> {
    thinned_tile_tokens(extractor, split, indices, side, 1, step)
}

/// Like [`tile_tokens`], but keeps only one of `thinning` tokens along each side of a tile, drawn at random: see [`Thinning`].
///
/// # Errors
/// As for [`tile_tokens`], or if the tokens of a tile cannot be thinned.
pub(crate) fn thinned_tile_tokens(
    extractor: &Extractor,
    split: Split,
    indices: &[usize],
    side: usize,
    thinning: usize,
    step: &dyn Step,
) -> Result<Tokens> {
    let input = extractor.input;
    let mut preprocess = extractor.strategy.preprocess.clone();
    if input.keeps_size {
        (preprocess.height, preprocess.width) = (side, side);
    }
    let feed = Feed::new(extractor, &preprocess, Dihedral::Identity);
    let read = |i: usize| cut(&feed, &input.stored(split, indices[i])?, &input.task, side);
    let mut tokens = None;
    // Tiles per row and per column of an image.
    let mut grid: Option<[usize; 2]> = None;
    loader::ordered(indices.len(), extractor.readers, extractor.readers + 1, read, |samples| {
        let mut waiting: Vec<Tile> = Vec::new();
        let mut flying = VecDeque::new();
        let in_flight = in_flight(extractor.encoder, extractor.device);
        for tiles in samples {
            let tiles = tiles?;
            let across = tiles.iter().take_while(|tile| tile.y == 0).count();
            let found = [across, tiles.len() / across.max(1)];
            let [across, down] = *grid.get_or_insert(found);
            if found != [across, down] {
                let name = tiles.first().map_or("", |tile| tile.name.as_str());
                let size = |[across, down]: [usize; 2]| format!("{} x {} pixels", down * side, across * side);
                return Err(Error::mismatch(format!(
                    "the images of {split} differ in size: {name} has {}, the first image {}",
                    size(found),
                    size([across, down])
                ))
                .help("the segmentation probe needs images of equal size"));
            }
            waiting.extend(tiles);
            while waiting.len() >= extractor.batch_size.images() {
                let rest = waiting.split_off(extractor.batch_size.images());
                flying.push_back(begin(extractor, &feed, std::mem::replace(&mut waiting, rest))?);
                if flying.len() >= in_flight {
                    finish(&mut flying, thinning, &mut tokens)?;
                }
            }
            step.advance(1);
        }
        if !waiting.is_empty() {
            flying.push_back(begin(extractor, &feed, waiting)?);
        }
        while !flying.is_empty() {
            finish(&mut flying, thinning, &mut tokens)?;
        }
        Ok(())
    })?;
    let mut tokens: Tokens = tokens.ok_or_else(|| Error::mismatch(format!("{split} has no samples")))?;
    let [across, down] = grid.unwrap_or([1, 1]);
    tokens.tiles_an_image = across * down;
    tokens.tiles_across = across;
    Ok(tokens)
}

/// A batch of tiles in the encoder's hands.
type TilesInFlight<'a> = (Vec<Tile>, Pending<'a>);

/// Starts to encode a batch of tiles.
fn begin<'a>(extractor: &Extractor<'a>, feed: &Feed, mut tiles: Vec<Tile>) -> Result<TilesInFlight<'a>> {
    let batch = feed.batch(tiles.iter().map(|tile| tile.images.as_slice()))?;
    tiles.iter_mut().for_each(|tile| tile.images.clear());
    Ok((tiles, feed.spec().begin(extractor.encoder, batch, Want::Tokens)?))
}

/// Waits for the first of these batches and appends its tokens.
fn finish(flying: &mut VecDeque<TilesInFlight>, thinning: usize, tokens: &mut Option<Tokens>) -> Result<()> {
    let Some((tiles, pending)) = flying.pop_front() else { return Ok(()) };
    let (vectors, [rows, columns]) = pending()?.tokens()?;
    let width = vectors.dims()[2];
    if rows != columns {
        return Err(Error::mismatch(format!(
            "expected a square grid of patches from the model, got {rows} x {columns}"
        )));
    }
    let numbers = vectors.into_data();
    let numbers = numbers.convert::<f32>().try_into_vec::<f32>().map_err(|error| {
        Error::mismatch(format!("the device returned features that are not float32: {error:?}"))
    })?;
    let tokens = match tokens {
        Some(tokens) => tokens,
        None => tokens.insert(Tokens { thinning, ..Tokens::new(rows / thinning, width) }),
    };
    for (tile, row) in tiles.into_iter().zip(numbers.chunks_exact((width * rows * columns).max(1))) {
        check_finite(&tile.name, row)?;
        if thinning == 1 {
            tokens.push(row, tile.mask)?;
        } else {
            let (row, mask) = Thinning::new(rows, thinning, tokens.len())?.apply(row, &tile)?;
            tokens.push(&row, mask)?;
        }
    }
    Ok(())
}

/// Number of tiles that keep the tokens at the same places: a batch of Galileo's evaluation.
const TILES_ALIKE: usize = 128;

/// Tokens of a tile that are kept for training: 1 of `factor` x `factor`, as in Galileo's evaluation of models with a token
/// per pixel [nasaharvest/galileo, src/eval/eval.py, `get_embeddings`].
///
/// What is kept becomes a smaller tile, each token with the labels of its pixels. Neighbours there are no neighbours in the
/// image, which a linear layer on single tokens does not see.
///
/// The original draws the places anew for each batch of tiles, but not for each seed of the probe, which shares the tokens.
#[derive(Debug)]
struct Thinning {
    /// Tokens per side of a whole tile.
    grid: usize,
    /// Tokens per side of what is kept.
    kept: usize,
    /// Which tokens are kept, `kept` x `kept` of them.
    places: Vec<usize>,
}

impl Thinning {
    /// Draws the places in the tile number `tile` of a split.
    ///
    /// # Errors
    /// If the tokens of a side are no multiple of `factor`.
    fn new(grid: usize, factor: usize, tile: usize) -> Result<Self> {
        if factor == 0 || grid == 0 || !grid.is_multiple_of(factor) {
            return Err(Error::mismatch(format!(
                "expected tiles with a multiple of {factor} tokens per side, of which one is kept, got {grid}"
            ))
            .help("set `tile` in the protocol's TOML accordingly, or `probe-thinning` in the model's"));
        }
        let kept = grid / factor;
        let mut random = stream(0, (tile / TILES_ALIKE) as u64);
        let places = index::sample(&mut random, grid * grid, kept * kept).into_vec();
        Ok(Thinning { grid, kept, places })
    }

    /// The kept tokens of a tile, [kept * kept, width], with the mask of their pixels.
    fn apply(&self, tokens: &[f32], tile: &Tile) -> Result<(Vec<f32>, Mask)> {
        let (rows, columns) = tile.mask.dim();
        if rows != columns || !rows.is_multiple_of(self.grid) {
            let grid = self.grid;
            return Err(Error::mismatch(format!(
                "{}: expected tiles of a multiple of {grid} pixels for {grid} x {grid} tokens, got {rows} x {columns}",
                tile.name
            ))
            .help("set `tile` in the protocol's TOML accordingly"));
        }
        let width = tokens.len() / (self.grid * self.grid);
        let kept = self.places.iter().flat_map(|place| &tokens[place * width..][..width]).copied().collect();
        let side = rows / self.grid;
        let mask = Mask::from_shape_fn((self.kept * side, self.kept * side), |(y, x)| {
            let place = self.places[y / side * self.kept + x / side];
            tile.mask[[place / self.grid * side + y % side, place % self.grid * side + x % side]]
        });
        Ok((kept, mask))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kept_tokens_stay_with_the_labels_of_their_pixels() {
        // 8 x 8 tokens of two numbers, each of 2 x 2 pixels: number, label and place agree.
        let tokens: Vec<f32> = (0..64).flat_map(|token| [token as f32, -(token as f32)]).collect();
        let mask =
            Mask::from_shape_fn((16, 16), |(y, x)| (4 * (y / 2 * 8 + x / 2) + y % 2 * 2 + x % 2) as i16);
        let tile = Tile { name: "a".to_owned(), y: 0, images: Vec::new(), mask };
        let thinning = Thinning::new(8, 4, 0).unwrap();
        let (kept, mask) = thinning.apply(&tokens, &tile).unwrap();
        assert_eq!((kept.len(), mask.dim()), (2 * 4, (4, 4)));
        for (i, token) in kept.chunks_exact(2).enumerate() {
            assert_eq!(token[1], -token[0]);
            let labels = mask.slice(s![i / 2 * 2..i / 2 * 2 + 2, i % 2 * 2..i % 2 * 2 + 2]);
            let expected: Vec<i16> = (0..4).map(|pixel| 4 * token[0] as i16 + pixel).collect();
            assert_eq!(labels.iter().copied().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn places_change_from_batch_to_batch_of_tiles() {
        let places = |tile| Thinning::new(64, 4, tile).unwrap().places;
        assert_eq!(places(0), places(127));
        assert_ne!(places(0), places(128));
        assert_eq!(places(0).iter().collect::<BTreeSet<_>>().len(), 256);
        let problem = Thinning::new(10, 4, 0).unwrap_err().to_string();
        assert!(
            problem.contains("a multiple of 4 tokens per side") && problem.contains("got 10"),
            "{problem}"
        );
    }
}
