//! A plain vision transformer: patch embedding, class token, learned positions, blocks, final norm [Dosovitskiy et al.,
//! arXiv 2010.11929]. With layer scale it is DINOv2's [Oquab et al., arXiv 2304.07193].
//!
//! Fields are named as in the state dicts of timm and DINOv2. d is the width, t = rows * columns the number of
//! patches.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, Tensor};

use super::patch::PatchConv;
use super::vit::{self, Block, resize_positions};

/// The sizes of a [`PlainVit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainVitConfig {
    /// Length of a token, d.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Rows and columns of the stored position embedding.
    pub positions: usize,
    /// Whether each residual branch has a learned factor per channel.
    pub layer_scale: bool,
}

/// Hidden width of a block's MLP, in multiples of the width.
const MLP_RATIO: usize = 4;

impl PlainVitConfig {
    /// Describes an inconsistency in the sizes, if there is one.
    pub fn problem(&self) -> Option<String> {
        let PlainVitConfig { width, depth, heads, patch, positions, .. } = *self;
        if [width, depth, heads, patch, positions].contains(&0) {
            Some("expected width, depth, heads and positions above 0, found a 0".to_owned())
        } else if !width.is_multiple_of(heads) {
            Some(format!("width: expected a multiple of the {heads} heads, found {width}"))
        } else {
            None
        }
    }
}

/// The patch embedding; its convolution is named as in state dicts.
#[derive(Module, Debug)]
struct PatchEmbed {
    proj: PatchConv,
}

/// A plain vision transformer without a head.
#[derive(Module, Debug)]
pub struct PlainVit {
    /// [1, 1, d].
    cls_token: Param<Tensor<3>>,
    /// [1, 1 + positions², d], class token first.
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    patch: usize,
    #[module(skip)]
    positions: usize,
}

impl PlainVit {
    /// Builds a network for images with `bands` bands, whose weights must still be filled in.
    pub fn new(config: &PlainVitConfig, bands: usize, device: &Device) -> Self {
        let PlainVitConfig { width, depth, heads, patch, positions, layer_scale } = *config;
        let block = || match layer_scale {
            true => Block::new(width, heads, MLP_RATIO, device).with_layer_scale(width, device),
            false => Block::new(width, heads, MLP_RATIO, device),
        };
        PlainVit {
            cls_token: Initializer::Zeros.init([1, 1, width], device),
            pos_embed: Initializer::Zeros.init([1, 1 + positions * positions, width], device),
            patch_embed: PatchEmbed { proj: PatchConv::new(bands, width, patch, device) },
            blocks: (0..depth).map(|_| block()).collect(),
            norm: vit::norm(width, device),
            patch,
            positions,
        }
    }

    /// Returns the number of bands that an image must have.
    pub fn bands(&self) -> usize {
        self.patch_embed.proj.bands()
    }

    /// Returns the length of a token, d.
    pub fn width(&self) -> usize {
        self.cls_token.dims()[2]
    }

    /// Returns the side of a patch in pixels.
    pub fn patch(&self) -> usize {
        self.patch
    }

    /// Returns the number of rows and columns of patches of h x w images.
    pub fn grid(&self, [h, w]: [usize; 2]) -> [usize; 2] {
        [h / self.patch, w / self.patch]
    }

    /// Embeds patches: [n, bands, h, w] to [n, t, d].
    pub fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        self.patch_embed.proj.forward(images)
    }

    /// Position embeddings of a grid of patches: [1, 1 + t, d], class token first.
    pub fn positions(&self, [rows, columns]: [usize; 2]) -> Tensor<3> {
        if [rows, columns] == [self.positions; 2] {
            return self.pos_embed.val();
        }
        resize_positions(self.pos_embed.val(), self.positions, rows, columns)
    }

    /// Returns the class token and all patch tokens after the final norm: [n, bands, h, w] to [n, 1 + t, d].
    pub fn tokens(&self, images: Tensor<4>) -> Tensor<3> {
        let tokens = self.first_tokens(images);
        let tokens = self.blocks.iter().fold(tokens, |tokens, block| block.forward(tokens));
        self.norm.forward(tokens)
    }

    /// Returns the patch tokens after each block (0-based) of `layers` and the final norm, from the first block to the
    /// last: [n, bands, h, w] to [n, d, rows, columns] each.
    pub fn maps(&self, images: Tensor<4>, layers: &[usize]) -> Vec<Tensor<4>> {
        let [n, _, h, w] = images.dims();
        let [rows, columns] = self.grid([h, w]);
        let needed = layers.iter().max().map_or(0, |last| last + 1);
        let mut tokens = self.first_tokens(images);
        let mut maps = Vec::with_capacity(layers.len());
        for (layer, block) in self.blocks.iter().enumerate().take(needed) {
            tokens = block.forward(tokens); // [n, 1 + t, d]
            if layers.contains(&layer) {
                let patches = self.norm.forward(tokens.clone().slice_dim(1, 1..)); // [n, t, d]
                let d = patches.dims()[2];
                maps.push(patches.swap_dims(1, 2).reshape([n, d, rows, columns]));
            }
        }
        maps
    }

    /// Returns the input of the first block: [n, bands, h, w] to [n, 1 + t, d].
    fn first_tokens(&self, images: Tensor<4>) -> Tensor<3> {
        let [n, _, h, w] = images.dims();
        let patches = self.embed(images); // [n, t, d]
        let d = patches.dims()[2];
        let class = self.cls_token.val().expand([n, 1, d]);
        Tensor::cat(vec![class, patches], 1) + self.positions(self.grid([h, w]))
    }
}
