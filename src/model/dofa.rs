//! DOFA [Xiong et al., arXiv 2403.15356]: a vision transformer whose patch embedding is made at run time from the
//! wavelengths of the bands.
//!
//! Fields are named as in the official checkpoints, so that a parameter's path is its name in a weight file. d is the
//! width, p the width of the kernel-making network, c the number of bands, t the number of patches.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::config::SensorInput;
use super::encoder::{Batch, Encoded, Encoder, Input, Map, Pooling, Want};
use super::requests::{known_input, lacks_pooling, layer_beyond};
use crate::nn::cubic;
use crate::nn::hypernetwork::{self, Kernel, KernelMaker, KernelOrder, SIDE};
use crate::nn::tokens;
use crate::nn::vit::{self, Block};
use crate::task::Sensor;
use crate::task::bands::Band;
use crate::{Error, Result};

const NAME: &str = "DOFA";

/// Side of the stored grid of positions: 224 pixels in patches of 16.
pub(super) const GRID: usize = 14;

/// Hidden width of a block's MLP, in multiples of the width.
pub(super) const MLP_RATIO: usize = 4;

/// The sizes of a [`Dofa`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DofaConfig {
    /// Length of a token, d.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Width of the network that makes the kernel, p.
    pub kernel_width: usize,
    /// How the numbers of that network become a kernel.
    pub kernel_layout: KernelLayout,
    /// Blocks (0-based) whose tokens are the feature maps.
    pub map_layers: Vec<usize>,
}

/// How the kernel-making network's numbers become a kernel. The weight files of both kinds have the same names and
/// shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelLayout {
    /// Of the first release: a plain reshape, which mixes the numbers of the bands, so that their order matters.
    Flat,
    /// Of the weights since August 2024: each band has its own numbers.
    Permuted,
}

impl DofaConfig {
    /// What contradicts itself, if anything.
    pub fn problem(&self) -> Option<String> {
        let DofaConfig { width, depth, heads, kernel_width, ref map_layers, .. } = *self;
        vit_problem(width, depth, heads, map_layers).or_else(|| kernel_width_problem(kernel_width))
    }

    /// The poolings that it has, its usual one first.
    pub fn poolings(&self) -> &'static [Pooling] {
        &[Pooling::MeanAll, Pooling::Head, Pooling::Mean]
    }

    /// The number of feature maps for dense tasks.
    pub fn maps(&self) -> usize {
        self.map_layers.len()
    }
}

/// What contradicts itself in the sizes of a vision transformer, if anything.
pub(super) fn vit_problem(width: usize, depth: usize, heads: usize, map_layers: &[usize]) -> Option<String> {
    if [width, depth, heads].contains(&0) {
        Some("width, depth and heads must be above 0".to_owned())
    } else if !width.is_multiple_of(heads) {
        Some(format!("width {width} is no multiple of heads {heads}"))
    } else {
        layer_beyond("map-layers", map_layers, depth)
    }
}

/// What is wrong with the width of the kernel-making network, if anything.
pub(super) fn kernel_width_problem(width: usize) -> Option<String> {
    let heads = hypernetwork::HEADS;
    (width == 0 || !width.is_multiple_of(heads))
        .then(|| format!("kernel-width {width} is no multiple of the {heads} heads of its network"))
}

/// The encoder with all its parameters.
#[derive(Module, Debug)]
pub struct Dofa {
    cls_token: Param<Tensor<3>>,
    /// [1, 1 + 14², d], the class token's first.
    pos_embed: Param<Tensor<3>>,
    patch_embed: KernelMaker,
    blocks: Vec<Block>,
    #[module(skip)]
    config: DofaConfig,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
}

impl Dofa {
    /// A network for these sensors; its weights are still to be filled in.
    pub fn new(config: &DofaConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let DofaConfig { width, depth, heads, kernel_width, .. } = *config;
        Dofa {
            cls_token: Initializer::Zeros.init([1, 1, width], device),
            pos_embed: Initializer::Zeros.init([1, 1 + GRID * GRID, width], device),
            patch_embed: KernelMaker::new(kernel_width, width, device),
            blocks: (0..depth).map(|_| Block::new(width, heads, MLP_RATIO, device)).collect(),
            config: config.clone(),
            sensors: sensors.clone(),
        }
    }

    /// The kernel for bands of these wavelengths in nanometres.
    fn kernel(&self, wavelengths: &[f32]) -> Kernel {
        let p = self.config.kernel_width;
        let rows = wavelengths.iter().flat_map(|wavelength| wavelength_row(*wavelength, p)).collect();
        // [c, p].
        let rows = TensorData::new(rows, [wavelengths.len(), p]);
        let order = match self.config.kernel_layout {
            KernelLayout::Flat => KernelOrder::OutFirst,
            KernelLayout::Permuted => KernelOrder::OutLast,
        };
        self.patch_embed.kernel(Tensor::from_data(rows, &self.pos_embed.device()), order)
    }

    /// The kernel for the bands of `input`, which must suit the model.
    fn kernel_for(&self, input: &Input) -> Result<Kernel> {
        let known = &self.sensors[&input.sensor];
        if self.config.kernel_layout == KernelLayout::Flat && *input.bands != *known.bands {
            let problem = format!(
                "{NAME}, sensor {}: expected bands {}, found {}",
                input.sensor,
                listed(&known.bands),
                listed(&input.bands)
            );
            return Err(Error::request(problem)
                .help("kernel-layout flat depends on the order of the bands: give exactly these"));
        }
        Ok(self.kernel(&per_channel(NAME, input, known, Spectral::Wavelengths)?))
    }

    /// The patch embedding: [n, c, h, w] to [n, t, d].
    ///
    /// # Errors
    /// If the sensor, the bands or the size do not suit the model.
    pub fn embed(&self, batch: &Batch) -> Result<Tensor<3>> {
        self.embed_input(known_input(NAME, batch, &self.sensors)?)
    }

    fn embed_input(&self, input: &Input) -> Result<Tensor<3>> {
        check_pixels(NAME, input, SIDE)?;
        Ok(self.kernel_for(input)?.embed(input.pixels.clone()))
    }

    /// The position embeddings of side x side patches: [1, 1 + side², d], the class token's first.
    pub fn positions(&self, side: usize) -> Tensor<3> {
        let positions = self.pos_embed.val();
        if side == GRID {
            return positions;
        }
        cubic::resize_positions(positions, &cubic::corners_aligned(GRID, side))
    }

    /// What goes into the first block: [n, t, d] embedded patches to [n, 1 + t, d].
    fn tokens(&self, embedded: Tensor<3>, side: usize) -> Tensor<3> {
        tokens::with_class(self.cls_token.val(), embedded) + self.positions(side)
    }
}

impl Encoder for Dofa {
    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let input = known_input(NAME, batch, &self.sensors)?;
        let poolings = self.config.poolings();
        if let Want::Pooled(pooling) = want
            && !poolings.contains(&pooling)
        {
            return Err(lacks_pooling(NAME, pooling, poolings));
        }
        let embedded = self.embed_input(input)?;
        let side = Kernel::patches(SIDE, input.pixels.dims()[2]);
        let tokens = self.tokens(embedded, side);
        if want == Want::Maps {
            return Ok(maps(&self.blocks, tokens, &self.config.map_layers, side, SIDE));
        }
        let tokens = tokens::after_all(&self.blocks, tokens);
        let patches = tokens.clone().slice_dim(1, 1..);
        Ok(match want {
            Want::Pooled(Pooling::MeanAll) => Encoded::Pooled(mean(tokens)),
            Want::Pooled(Pooling::Head) => Encoded::Pooled(fresh_norm(mean(patches))),
            Want::Pooled(_) => Encoded::Pooled(mean(patches)),
            Want::Tokens | Want::Maps => Encoded::Tokens { tokens: patches, grid: [side, side] },
        })
    }
}

/// The sines, then the cosines, of a wavelength in nanometres at p / 2 frequencies.
///
/// The angles reach 3750, so that the published float32 arithmetic is off by 1e-4; this is exact.
pub fn wavelength_row(wavelength: f32, p: usize) -> Vec<f32> {
    let half = p / 2;
    let angle = |j: usize| f64::from(wavelength) / 10_000f64.powf(j as f64 / half as f64);
    let sines = (0..half).map(|j| angle(j).sin() as f32);
    sines.chain((0..half).map(|j| angle(j).cos() as f32)).collect()
}

/// The mean of the tokens: [n, t, d] to [n, d].
pub(super) fn mean(tokens: Tensor<3>) -> Tensor<2> {
    tokens.mean_dim(1).squeeze_dim(1)
}

/// The patch tokens [n, 1 + side², d] after each of `layers` as maps of patches of `stride` pixels. Not normalised.
pub(super) fn maps(
    blocks: &[Block],
    tokens: Tensor<3>,
    layers: &[usize],
    side: usize,
    stride: usize,
) -> Encoded {
    let map = |tokens: Tensor<3>| {
        let values = tokens::as_map(tokens.slice_dim(1, 1..), [side, side]); // [n, d, side, side]
        Map { values, stride }
    };
    Encoded::Maps(tokens::after_layers(blocks, tokens, layers).into_iter().map(map).collect())
}

/// A layer norm that is in no checkpoint: weight 1, bias 0.
pub(super) fn fresh_norm(x: Tensor<2>) -> Tensor<2> {
    vit::norm(x.dims()[1], &x.device()).forward(x)
}

/// A number that a model's TOML gives per band, in micrometres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spectral {
    Wavelengths,
    Bandwidths,
}

/// The wavelength or bandwidth of each channel of `input` in nanometres, found by the channel's band.
pub(super) fn per_channel(
    model: &str,
    input: &Input,
    known: &SensorInput,
    what: Spectral,
) -> Result<Vec<f32>> {
    let (sensor, count) = (input.sensor, known.bands.len());
    let (what, micrometres) = match what {
        Spectral::Wavelengths => ("wavelengths", &known.wavelengths),
        Spectral::Bandwidths => ("bandwidths", &known.bandwidths),
    };
    if micrometres.len() != count {
        let found = micrometres.len();
        return Err(Error::request(format!(
            "{model}, sensor {sensor}: expected {count} {what}, found {found}"
        ))
        .help(format!("add `{what}` in micrometres to [sensors.{sensor}] of the model's TOML")));
    }
    let nanometres = |place: usize| (micrometres[place] * 1000.0) as f32;
    if *input.bands == *known.bands {
        return Ok((0..count).map(nanometres).collect());
    }
    let of_band = |band: &Band| {
        let place = known.bands.iter().position(|other| other == band).ok_or_else(|| {
            let expected = listed(&known.bands);
            Error::request(format!("{model}, sensor {sensor}: expected bands {expected}, found {band}"))
                .help(format!("add {band} to [sensors.{sensor}] of the model's TOML"))
        })?;
        Ok(nanometres(place))
    };
    input.bands.iter().map(of_band).collect()
}

/// Whether the pixels of `input` can be cut into patches.
pub(super) fn check_pixels(model: &str, input: &Input, patch: usize) -> Result<()> {
    let [n, c, h, w] = input.pixels.dims();
    let (sensor, bands) = (input.sensor, input.bands.len());
    if c != bands || c == 0 {
        return Err(Error::request(format!("{model}, sensor {sensor}: expected {bands} bands, found {c}"))
            .help("list the bands in the order of the channels"));
    }
    if n == 0 {
        return Err(Error::request(format!("{model}: expected images, found none")));
    }
    // The border of one pixel counts.
    let least = patch.saturating_sub(2).max(1);
    if h != w || h < least {
        let problem =
            format!("{model}: expected square images from {least} x {least} pixels, found {h} x {w}");
        return Err(Error::request(problem).help("resize to the image size of the model's TOML"));
    }
    Ok(())
}

fn listed(bands: &[Band]) -> String {
    let names: Vec<String> = bands.iter().map(Band::to_string).collect();
    names.join(" ")
}
