//! From the logits of a tile's tokens to its pixels, and back with gradients.

use ndarray::Array2;

use crate::features::tiles::{IGNORED, Mask, Tokens};
use crate::nn::heads::pixel_linear::patch_side;
use crate::transform::resize::{Tap, taps};
use crate::{Error, Result};

/// Which number of which token belongs to which pixel.
///
/// A token's numbers are [class, row, column] of its patch, the class slowest. If the patches together have another
/// side than the mask, the logits are resized bilinearly with aligned corners.
pub(crate) struct Pixels {
    grid: usize,
    classes: usize,
    patch: usize,
    /// Of the mask.
    side: usize,
    /// None if nothing is resized.
    taps: Option<Vec<Tap>>,
}

/// Room for one tile's logits, so that it is not asked for again and again.
pub(crate) struct Space {
    /// [classes, grid * patch, grid * patch].
    patched: Vec<f32>,
    /// [classes, side, side].
    resized: Vec<f32>,
}

impl Pixels {
    /// A token stands for a part of `tile` pixels a side.
    ///
    /// # Errors
    /// If there are no tiles or classes, or the masks are not square or differ in size.
    pub(crate) fn new(tokens: &Tokens, classes: usize, tile: usize) -> Result<Self> {
        let side = tokens.masks.first().map_or(0, |mask| mask.nrows());
        if [side, tile, classes, tokens.grid].contains(&0) {
            return Err(Error::mismatch("there are no tiles, classes or tokens").help("the split is empty"));
        }
        if let Some(mask) = tokens.masks.iter().find(|mask| mask.dim() != (side, side)) {
            return Err(Error::mismatch(format!(
                "a tile's mask has {:?} pixels, expected {side} x {side}",
                mask.dim()
            )));
        }
        let wrong = |label: &&i16| **label != IGNORED && !usize::try_from(**label).is_ok_and(|c| c < classes);
        if let Some(label) = tokens.masks.iter().flat_map(|mask| mask.iter()).find(wrong) {
            return Err(Error::mismatch(format!("a mask holds class {label} of {classes}")));
        }
        let patch = patch_side(tile, tokens.grid);
        let patched = tokens.grid * patch;
        Ok(Pixels {
            grid: tokens.grid,
            classes,
            patch,
            side,
            taps: (patched != side).then(|| taps(patched, side, true)),
        })
    }

    /// Numbers a token.
    pub(crate) fn outputs(&self) -> usize {
        self.classes * self.patch * self.patch
    }

    /// Tokens per tile.
    pub(crate) fn tokens(&self) -> usize {
        self.grid * self.grid
    }

    pub(crate) fn space(&self) -> Space {
        let patched = self.classes * (self.grid * self.patch).pow(2);
        let resized = if self.taps.is_some() { self.classes * self.side * self.side } else { 0 };
        Space { patched: vec![0.0; patched], resized: vec![0.0; resized] }
    }

    /// Calls `visit` with the place of each run of a patch's row among the tokens' numbers and among the pixels'.
    fn rows(&self, mut visit: impl FnMut(usize, usize)) {
        let (patch, side) = (self.patch, self.grid * self.patch);
        for token in 0..self.tokens() {
            let (top, left) = (token / self.grid * patch, token % self.grid * patch);
            for class in 0..self.classes {
                for row in 0..patch {
                    let from = (token * self.classes + class) * patch * patch + row * patch;
                    visit(from, (class * side + top + row) * side + left);
                }
            }
        }
    }

    /// Logits of a tile's tokens [grid * grid, outputs] to those of its pixels [classes, side, side].
    fn spread<'s>(&self, tokens: &[f32], space: &'s mut Space) -> &'s mut [f32] {
        let patched = &mut space.patched;
        self.rows(|from, to| {
            patched[to..to + self.patch].copy_from_slice(&tokens[from..from + self.patch]);
        });
        let Some(taps) = &self.taps else { return patched };
        let (old, new) = (self.grid * self.patch, self.side);
        let planes = patched.chunks_exact(old * old).zip(space.resized.chunks_exact_mut(new * new));
        for (plane, resized) in planes {
            for (y, row) in taps.iter().zip(resized.chunks_exact_mut(new)) {
                let (before, after) = (&plane[y.before * old..][..old], &plane[y.after * old..][..old]);
                for (x, pixel) in taps.iter().zip(row) {
                    let blend = |row: &[f32]| row[x.before] * x.weight_before + row[x.after] * x.weight_after;
                    *pixel = blend(before) * y.weight_before + blend(after) * y.weight_after;
                }
            }
        }
        &mut space.resized
    }

    /// Gradients of the pixels' logits, which are in `space`, to those of the tokens'.
    fn gather(&self, space: &mut Space, tokens: &mut [f32]) {
        if let Some(taps) = &self.taps {
            let (old, new) = (self.grid * self.patch, self.side);
            space.patched.fill(0.0);
            let planes = space.patched.chunks_exact_mut(old * old).zip(space.resized.chunks_exact(new * new));
            for (plane, resized) in planes {
                for (y, row) in taps.iter().zip(resized.chunks_exact(new)) {
                    for (x, gradient) in taps.iter().zip(row) {
                        for (place, weight) in [(y.before, y.weight_before), (y.after, y.weight_after)] {
                            plane[place * old + x.before] += gradient * weight * x.weight_before;
                            plane[place * old + x.after] += gradient * weight * x.weight_after;
                        }
                    }
                }
            }
        }
        self.rows(|to, from| {
            tokens[to..to + self.patch].copy_from_slice(&space.patched[from..from + self.patch]);
        });
    }

    /// Replaces a tile's logits [grid * grid, outputs] by the gradient of the batch's mean cross-entropy over its
    /// `counting` pixels; returns the tile's summed loss.
    pub(crate) fn loss_and_gradient(
        &self,
        tokens: &mut [f32],
        mask: &Mask,
        counting: usize,
        space: &mut Space,
    ) -> f64 {
        let (area, weight) = (self.side * self.side, (counting as f32).recip());
        let pixels = self.spread(tokens, space);
        let mut loss = 0.0;
        for (pixel, label) in mask.iter().enumerate() {
            let Ok(right) = usize::try_from(*label) else {
                (0..self.classes).for_each(|class| pixels[class * area + pixel] = 0.0);
                continue;
            };
            let logit = |class: usize| pixels[class * area + pixel];
            let largest = (0..self.classes).map(logit).fold(f32::NEG_INFINITY, f32::max);
            let lead = logit(right) - largest;
            let mut sum = 0.0;
            for class in 0..self.classes {
                let z = &mut pixels[class * area + pixel];
                *z = (*z - largest).exp();
                sum += *z;
            }
            for class in 0..self.classes {
                pixels[class * area + pixel] *= weight / sum;
            }
            pixels[right * area + pixel] -= weight;
            loss += f64::from(sum.ln() - lead);
        }
        self.gather(space, tokens);
        loss
    }

    /// The class of the highest logit of each pixel, the first of equal ones, for a tile's logits
    /// [grid * grid, outputs].
    pub(crate) fn predictions(&self, tokens: &[f32], space: &mut Space) -> Array2<i32> {
        let area = self.side * self.side;
        let pixels = self.spread(tokens, space);
        Array2::from_shape_fn((self.side, self.side), |(y, x)| {
            let logit = |class: usize| pixels[class * area + y * self.side + x];
            (1..self.classes).fold(0, |best, class| if logit(class) > logit(best) { class } else { best })
                as i32
        })
    }
}
