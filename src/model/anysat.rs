//! AnySat [Astruc et al., arXiv 2412.14123; gastruc/AnySat], as Galileo's evaluation runs it [nasaharvest/galileo,
//! src/eval/baseline_models/anysat].
//!
//! Three networks, one after the other. A projector makes a token of each pixel from its dates. An inner transformer reads
//! the pixels of a patch and gives one token per patch. An outer transformer reads the patches of the image. The side of a
//! patch is given in metres; a pixel counts as 10 m whatever its real size, as upstream's sensors do.
//!
//! Fields are named as in the published file, so that a parameter's path is its name there, except for numbered layers
//! ([`AnySat::checkpoint_name`](Network::checkpoint_name)). d is the width, s the side of a patch in pixels, t the number
//! of patches, p = t * s * s the number of pixels in patches.

mod blocks;
mod check;
mod places;
mod projector;

use std::collections::BTreeMap;
use std::slice;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use self::blocks::{InnerBlock, OuterBlock, inner_norm};
use self::places::Square;
use self::projector::{GROUPS, HEADS, Projector, day_codes};
use super::encoder::{Batch, Encoded, Encoder, Input, Map, Pooling, Want};
use super::network::{Network, Sizes};
use super::sensor_input::SensorInput;
use super::{requests, stand_ins};
use crate::nn::heads::upernet::MapLevel;
use crate::nn::patch::patches;
use crate::nn::tokens::{as_map, with_class};
use crate::task::{Metadata, MetadataKind, Sensor};
use crate::{Error, Result};

const NAME: &str = "AnySat";

/// Supported poolings.
const POOLINGS: &[Pooling] = &[Pooling::Class];

/// Side of a pixel in metres.
const PIXEL_METRES: usize = 10;

/// Steps between neighbouring pixels of a patch in the inner transformer's position code.
const PIXEL_STEP: usize = 10;

/// Patches that go through projector and inner transformer together: more would only need more memory.
const PATCHES_AT_ONCE: usize = 1024;

/// The sizes of an AnySat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AnySatConfig {
    /// Length of a token, d. A multiple of 64.
    pub width: usize,
    /// Outputs of the first layer that reads a pixel; a multiple of 4.
    pub stem_width: usize,
    /// Number of blocks of the inner transformer. The outer one has one more.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Side of a patch in metres, a multiple of 10. The side of a smaller image is used instead.
    pub patch_metres: usize,
    /// Blocks (0-based) of the outer transformer whose tokens are the feature maps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub map_layers: Vec<usize>,
    /// The segmentation probe is trained on one of so many tokens along each side of a tile: 1 for all of them.
    #[serde(default = "every_token", skip_serializing_if = "is_every_token")]
    pub probe_thinning: usize,
}

fn every_token() -> usize {
    1
}

fn is_every_token(thinning: &usize) -> bool {
    *thinning == every_token()
}

impl AnySatConfig {
    /// Side of a patch in pixels, in images that are large enough.
    fn patch(&self) -> usize {
        self.patch_metres / PIXEL_METRES
    }

    /// Number of blocks of the outer transformer.
    fn outer_depth(&self) -> usize {
        self.depth + 1
    }
}

impl Sizes for AnySatConfig {
    fn problem(&self) -> Option<String> {
        let AnySatConfig { width, stem_width, depth, heads, patch_metres, ref map_layers, probe_thinning } =
            *self;
        if [width, stem_width, depth, heads, patch_metres, probe_thinning].contains(&0) {
            let all = "width, stem-width, depth, heads, patch-metres and probe-thinning";
            Some(format!("expected {all} above 0, found a 0"))
        } else if !width.is_multiple_of(heads) {
            Some(format!("expected a width that is a multiple of heads {heads}, found {width}"))
        } else if !width.is_multiple_of(4 * HEADS) {
            Some(format!("expected a width that is a multiple of {}, found {width}", 4 * HEADS))
        } else if !stem_width.is_multiple_of(GROUPS) {
            Some(format!("stem-width: expected a multiple of {GROUPS}, found {stem_width}"))
        } else if !patch_metres.is_multiple_of(PIXEL_METRES) {
            Some(format!("patch-metres: expected a multiple of {PIXEL_METRES}, found {patch_metres}"))
        } else {
            requests::layer_beyond("map-layers", map_layers, self.outer_depth())
        }
    }

    fn poolings(&self) -> &'static [Pooling] {
        POOLINGS
    }

    fn maps(&self) -> Vec<MapLevel> {
        vec![MapLevel { width: self.width, stride: self.patch() }; self.map_layers.len()]
    }

    fn metadata(&self) -> &[MetadataKind] {
        &[MetadataKind::Date]
    }

    /// Galileo's evaluation gives images of one sensor and the month, of which the model is told the first day.
    fn stand_ins(&self, given: Metadata, sensors: &[Sensor]) -> Vec<String> {
        stand_ins::date(given, "1 June").into_iter().chain(stand_ins::sensors(sensors)).collect()
    }

    fn probe_thinning(&self) -> usize {
        self.probe_thinning
    }
}

/// The inner transformer.
#[derive(Module, Debug)]
pub struct SpatialEncoder {
    /// [1, 1, d].
    cls_token: Param<Tensor<3>>,
    predictor_blocks: Vec<InnerBlock>,
    predictor_norm: LayerNorm,
}

impl SpatialEncoder {
    fn new(width: usize, depth: usize, heads: usize, device: &Device) -> Self {
        SpatialEncoder {
            cls_token: Initializer::Zeros.init([1, 1, width], device),
            predictor_blocks: (0..depth).map(|_| InnerBlock::new(width, heads, device)).collect(),
            predictor_norm: inner_norm(width, device),
        }
    }

    /// The first `count` tokens of each patch, the class token first: [patches, s * s, d] to [patches, count, d].
    fn forward(&self, pixels: Tensor<3>, square: &Square, count: usize) -> Tensor<3> {
        let all = 1 + pixels.dims()[1];
        let buckets = square.buckets(0..all, &pixels.device());
        let tokens = with_class(self.cls_token.val(), pixels);
        let codes = square.codes(tokens.dims()[2], &tokens.device());
        let mut tokens = tokens + codes;
        for (layer, block) in self.predictor_blocks.iter().enumerate() {
            let is_last = layer + 1 == self.predictor_blocks.len();
            tokens = block.forward(tokens, &buckets, if is_last { count } else { all });
        }
        self.predictor_norm.forward(tokens)
    }
}

/// The encoder.
#[derive(Module, Debug)]
pub struct AnySat {
    /// [1, 1, d].
    cls_token: Param<Tensor<3>>,
    projector_s2: Option<Projector>,
    projector_s1: Option<Projector>,
    spatial_encoder: SpatialEncoder,
    blocks: Vec<OuterBlock>,
    #[module(skip)]
    config: AnySatConfig,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
}

impl Network for AnySat {
    type Config = AnySatConfig;

    /// Builds the projectors that `sensors` needs: for Sentinel-1, for Sentinel-2 at either level, or both.
    fn new(config: &AnySatConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let AnySatConfig { width, stem_width, depth, heads, .. } = *config;
        let bands = |is_of: fn(Sensor) -> bool| {
            sensors.iter().find(|(sensor, _)| is_of(**sensor)).map(|(_, input)| input.bands.len())
        };
        let (s1, s2) = (bands(|sensor| sensor == Sensor::S1), bands(Sensor::is_sentinel2));
        let plain = (0..depth).map(|_| OuterBlock::plain(width, heads, device));
        AnySat {
            cls_token: Initializer::Zeros.init([1, 1, width], device),
            projector_s2: s2.map(|bands| Projector::new(bands, [stem_width, width], true, device)),
            // The ratio of the two polarisations is a third band.
            projector_s1: s1.map(|bands| Projector::new(bands + 1, [stem_width, width], false, device)),
            spatial_encoder: SpatialEncoder::new(width, depth, heads, device),
            blocks: plain.chain([OuterBlock::cross(width, heads, device)]).collect(),
            config: config.clone(),
            sensors: sensors.clone(),
        }
    }

    /// Maps `projector_s2.patch_embed.inconv.1.norm.bias` to `projector_s2.patch_embed.inconv.5.bias`.
    fn checkpoint_name(name: &str) -> String {
        projector::checkpoint_name(name)
    }
}

/// What the inner transformer gives for a batch of n images.
struct Patches {
    /// Tokens of each patch, [n * t, count, d]: its class token first, then those of its pixels, if they were asked for.
    tokens: Tensor<3>,
    /// Number of images.
    n: usize,
    /// Patches per side of an image.
    side: usize,
    /// Side of a patch in pixels, s.
    patch: usize,
}

impl Patches {
    /// The places of the patches. They count in pixels, so neighbours are s apart.
    fn square(&self) -> Square {
        Square { side: self.side, step: self.patch }
    }
}

impl AnySat {
    /// Embeds the pixels of images of one sensor, one input per date, patch by patch: [n * t, s * s, d].
    ///
    /// # Errors
    /// If the model was built without the sensor, or the images' bands or sizes do not suit it.
    pub fn patch_embed(&self, dates: &[Input]) -> Result<Tensor<3>> {
        let projector = self.check(dates)?;
        Ok(projector.forward(self.patch_pixels(dates), self.patch_days(dates)))
    }

    /// Cuts images into patches: [n * t, s * s, dates, bands].
    fn patch_pixels(&self, dates: &[Input]) -> Tensor<4> {
        let (side, patch) = self.grid(dates);
        let date = |date: &Input| {
            // Rows and columns beyond the last whole patch are dropped.
            let inside = 0..side * patch;
            let whole = date.pixels.clone().slice_dim(2, inside.clone()).slice_dim(3, inside);
            let whole = if date.sensor == Sensor::S1 { with_ratio(whole) } else { whole };
            let [n, bands, ..] = whole.dims();
            patches(whole, patch).reshape([n * side * side, bands, patch * patch]).swap_dims(1, 2)
        };
        Tensor::stack(dates.iter().map(date).collect(), 2)
    }

    /// The codes of the dates of each patch: [n * t, dates, d].
    fn patch_days(&self, dates: &[Input]) -> Tensor<3> {
        let (side, d) = (self.grid(dates).0, self.config.width);
        let [n, ..] = dates[0].pixels.dims();
        let codes = day_codes(dates, d).unsqueeze_dim::<4>(1); // [n, 1, dates, d]
        codes.expand([n, side * side, dates.len(), d]).reshape([n * side * side, dates.len(), d])
    }

    /// The first `count` tokens of each patch; a few patches at a time.
    fn patches(&self, dates: &[Input], count: impl Fn(usize) -> usize) -> Result<Patches> {
        let projector = self.check(dates)?;
        let (side, patch) = self.grid(dates);
        let [n, ..] = dates[0].pixels.dims();
        let (pixels, days) = (self.patch_pixels(dates), self.patch_days(dates));
        let square = Square { side: patch, step: PIXEL_STEP };
        let part = |start: usize| {
            let part = start..(start + PATCHES_AT_ONCE).min(n * side * side);
            let pixels = pixels.clone().slice_dim(0, part.clone());
            let days = days.clone().slice_dim(0, part);
            self.spatial_encoder.forward(projector.forward(pixels, days), &square, count(patch))
        };
        let tokens = Tensor::cat((0..n * side * side).step_by(PATCHES_AT_ONCE).map(part).collect(), 0);
        Ok(Patches { tokens, n, side, patch })
    }

    /// The class tokens of all patches.
    fn class_tokens(&self, dates: &[Input]) -> Result<Patches> {
        self.patches(dates, |_| 1)
    }

    /// Input of the outer transformer's first block: the class token, then the patches', with their places. [n, 1 + t, d].
    fn first_tokens(&self, patches: &Patches) -> Tensor<3> {
        let d = self.config.width;
        let tokens = patches.tokens.clone().slice_dim(1, 0..1).reshape([patches.n, patches.side.pow(2), d]);
        let tokens = with_class(self.cls_token.val(), tokens);
        let codes = patches.square().codes(d, &tokens.device());
        tokens + codes
    }

    /// The first `count` tokens after the last block: [n, count, d].
    fn last_tokens(&self, patches: &Patches, count: usize) -> Tensor<3> {
        let square = patches.square();
        let first = self.first_tokens(patches);
        self.blocks.iter().fold(first, |tokens, block| block.forward(tokens, &square, count))
    }

    /// Returns the input of the outer transformer's first block: [n, 1 + t, d], class token first.
    ///
    /// # Errors
    /// As for [`AnySat::patch_embed`].
    pub fn tokens(&self, dates: &[Input]) -> Result<Tensor<3>> {
        Ok(self.first_tokens(&self.class_tokens(dates)?))
    }

    /// Encodes images of one sensor, one input per date.
    ///
    /// # Errors
    /// As for [`AnySat::patch_embed`], and if the model cannot fulfil the request.
    pub fn encode_dates(&self, dates: &[Input], want: Want) -> Result<Encoded> {
        match want {
            Want::Pooled(Pooling::Class) => {
                let class = self.last_tokens(&self.class_tokens(dates)?, 1); // [n, 1, d]
                Ok(Encoded::Pooled(class.squeeze_dim(1)))
            }
            Want::Pooled(other) => Err(requests::lacks_pooling(NAME, other, POOLINGS)),
            Want::Tokens => self.pixel_tokens(dates),
            Want::Maps => self.maps(dates).map(Encoded::Maps),
        }
    }

    /// A token per pixel: the patch's from the outer transformer and the pixel's from the inner one, side by side.
    fn pixel_tokens(&self, dates: &[Input]) -> Result<Encoded> {
        let patches = self.patches(dates, |patch| 1 + patch * patch)?;
        let Patches { n, side, patch, .. } = patches;
        let d = self.config.width;
        let outer = self.last_tokens(&patches, 1 + side * side).slice_dim(1, 1..); // [n, t, d]
        let outer = outer.reshape([n, side, 1, side, 1, d]).expand([n, side, patch, side, patch, d]);
        // [n * t, s * s, d] to [n, side, s, side, s, d]
        let inner =
            patches.tokens.slice_dim(1, 1..).reshape([n, side, side, patch, patch, d]).swap_dims(2, 3);
        let pixels = side * patch;
        let tokens = Tensor::cat(vec![outer, inner], 5).reshape([n, pixels * pixels, 2 * d]);
        Ok(Encoded::Tokens { tokens, grid: [pixels; 2] })
    }

    fn maps(&self, dates: &[Input]) -> Result<Vec<Map>> {
        let layers = &self.config.map_layers;
        let Some(last) = layers.iter().max() else {
            let problem = format!("{NAME}: expected blocks whose tokens are the feature maps, found none");
            return Err(Error::mismatch(problem).help("list some as `map-layers` in the model's file"));
        };
        self.check(dates)?;
        let stride = self.config.patch();
        requests::check_patches(NAME, &dates[0], stride)?;
        let patches = self.class_tokens(dates)?;
        let (square, side) = (patches.square(), patches.side);
        let mut tokens = self.first_tokens(&patches);
        let mut maps = Vec::with_capacity(layers.len());
        for (layer, block) in self.blocks.iter().enumerate().take(last + 1) {
            tokens = block.forward(tokens, &square, 1 + side * side);
            if layers.contains(&layer) {
                let values = as_map(tokens.clone().slice_dim(1, 1..), [side; 2]);
                maps.push(Map { values, stride });
            }
        }
        Ok(maps)
    }

    /// Patches per side of the image, and pixels per side of a patch.
    fn grid(&self, dates: &[Input]) -> (usize, usize) {
        let side = dates[0].pixels.dims()[2];
        let patch = self.config.patch().min(side);
        (side / patch, patch)
    }
}

impl Encoder for AnySat {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.width
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        self.encode_dates(slice::from_ref(batch.only()?), want)
    }
}

/// Adds the ratio of the two bands, VV / VH, as a third: [n, 2, h, w] to [n, 3, h, w].
///
/// Upstream divides the values after their normalisation, so the ratio is large where VH is near its mean.
fn with_ratio(images: Tensor<4>) -> Tensor<4> {
    let band = |band: usize| images.clone().slice_dim(1, band..=band);
    let ratio = band(0) / (band(1) + 1e-6);
    Tensor::cat(vec![images, ratio], 1)
}
