//! DOFA [Xiong et al., arXiv 2403.15356]: a vision transformer whose patch embedding is generated at run time from the
//! wavelengths of the bands.
//!
//! Fields are named as in the official checkpoints, so that a parameter's path is its name in a weight file. d is the
//! width, p the width of the kernel-generating network, c the number of bands, t the number of patches.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Input, Pooling, Want};
use super::network::{Network, Sizes};
use super::requests::{known_input, lacks_pooling};
use super::sensor_input::SensorInput;
use super::spectral::{
    FrozenKernels, GRID, KernelEncoder, MLP_RATIO, PerBand, check_pixels, fresh_norm, kernel_width_problem,
    listed, maps, mean, per_channel, vit_problem,
};
use crate::nn::cubic;
use crate::nn::heads::upernet::MapLevel;
use crate::nn::hypernetwork::{Kernel, KernelMaker, KernelOrder, SIDE};
use crate::nn::tokens;
use crate::nn::vit::Block;
use crate::task::Sensor;
use crate::{Error, Result};

const NAME: &str = "DOFA";

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
    /// Width of the network that generates the kernel, p.
    pub kernel_width: usize,
    /// How the output of that network is arranged into a kernel.
    pub kernel_layout: KernelLayout,
    /// Blocks (0-based) whose tokens are the feature maps.
    pub map_layers: Vec<usize>,
}

/// How the output of the kernel-generating network is arranged into a kernel. Weight files of both kinds have the same
/// names and shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelLayout {
    /// First release: a plain reshape, which mixes the bands' outputs, so that the order of the bands matters.
    Flat,
    /// Weights since August 2024: each band has its own output.
    Permuted,
}

impl Sizes for DofaConfig {
    fn problem(&self) -> Option<String> {
        let DofaConfig { width, depth, heads, kernel_width, ref map_layers, .. } = *self;
        vit_problem(width, depth, heads, map_layers).or_else(|| kernel_width_problem(kernel_width))
    }

    fn poolings(&self) -> &'static [Pooling] {
        POOLINGS
    }

    fn maps(&self) -> Vec<MapLevel> {
        vec![MapLevel { width: self.width, stride: SIDE }; self.map_layers.len()]
    }

    fn reads_wavelengths(&self) -> bool {
        true
    }

    fn takes_any_bands(&self) -> bool {
        self.kernel_layout == KernelLayout::Permuted
    }

    fn blocks(&self) -> Option<usize> {
        Some(self.depth)
    }

    fn keep_blocks(&mut self, count: usize) {
        self.depth = count;
        self.map_layers.retain(|layer| *layer < count);
    }
}

/// The head is a layer norm of the mean of the patch tokens.
const POOLINGS: &[Pooling] = &[Pooling::MeanAll, Pooling::Head, Pooling::Mean];

/// The encoder with all its parameters.
#[derive(Module, Debug)]
pub struct Dofa {
    cls_token: Param<Tensor<3>>,
    /// [1, 1 + 14², d], class token first.
    pos_embed: Param<Tensor<3>>,
    patch_embed: KernelMaker,
    blocks: Vec<Block>,
    #[module(skip)]
    config: DofaConfig,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
}

impl Network for Dofa {
    type Config = DofaConfig;

    fn new(config: &DofaConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
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

    fn frozen(self) -> Box<dyn Encoder> {
        Box::new(FrozenKernels::new(self))
    }
}

impl Dofa {
    /// Embeds patches: [n, c, h, w] to [n, t, d].
    ///
    /// # Errors
    /// If the model does not support the sensor, the bands or the size.
    pub fn embed(&self, batch: &Batch) -> Result<Tensor<3>> {
        let input = self.check(batch, Want::Tokens)?;
        Ok(self.kernel(input)?.embed(input.pixels.clone()))
    }

    /// Returns the position embeddings of side x side patches: [1, 1 + side², d], class token first.
    pub fn positions(&self, side: usize) -> Tensor<3> {
        let positions = self.pos_embed.val();
        if side == GRID {
            return positions;
        }
        cubic::resize_positions(positions, &cubic::corners_aligned(GRID, side))
    }

    /// Returns the input of the first block: embedded patches [n, t, d] to [n, 1 + t, d].
    fn tokens(&self, embedded: Tensor<3>, side: usize) -> Tensor<3> {
        tokens::with_class(self.cls_token.val(), embedded) + self.positions(side)
    }
}

impl Encoder for Dofa {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.width
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let input = self.check(batch, want)?;
        self.encode_with(&self.kernel(input)?, input, want)
    }
}

impl KernelEncoder for Dofa {
    fn check<'b>(&self, batch: &'b Batch, want: Want) -> Result<&'b Input> {
        let input = known_input(NAME, batch, &self.sensors)?;
        if let Want::Pooled(pooling) = want
            && !POOLINGS.contains(&pooling)
        {
            return Err(lacks_pooling(NAME, pooling, POOLINGS));
        }
        check_pixels(NAME, input, SIDE)?;
        let (sensor, known) = (input.sensor, &self.sensors[&input.sensor].bands);
        if self.config.kernel_layout == KernelLayout::Flat && *input.bands != **known {
            let (expected, found) = (listed(known), listed(&input.bands));
            let problem = format!("{NAME}, sensor {sensor}: expected bands {expected}, found {found}");
            return Err(Error::mismatch(problem)
                .help("kernel-layout flat depends on the order of the bands: use exactly these bands"));
        }
        Ok(input)
    }

    fn kernel(&self, input: &Input) -> Result<Kernel> {
        let wavelengths = per_channel(NAME, input, &self.sensors[&input.sensor], PerBand::Wavelengths)?;
        let p = self.config.kernel_width;
        let rows = wavelengths.iter().flat_map(|wavelength| wavelength_row(*wavelength, p)).collect();
        let rows = TensorData::new(rows, [wavelengths.len(), p]); // [c, p]
        let order = match self.config.kernel_layout {
            KernelLayout::Flat => KernelOrder::OutFirst,
            KernelLayout::Permuted => KernelOrder::OutLast,
        };
        Ok(self.patch_embed.kernel(Tensor::from_data(rows, &self.pos_embed.device()), order))
    }

    fn encode_with(&self, kernel: &Kernel, input: &Input, want: Want) -> Result<Encoded> {
        let side = Kernel::patches(SIDE, input.pixels.dims()[2]);
        let tokens = self.tokens(kernel.embed(input.pixels.clone()), side);
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

/// Returns the sines, then the cosines, of a wavelength in nanometres at p / 2 frequencies.
///
/// The angles reach 3750, so the published float32 arithmetic is off by 1e-4; this one is exact.
pub fn wavelength_row(wavelength: f32, p: usize) -> Vec<f32> {
    let half = p / 2;
    let angle = |j: usize| f64::from(wavelength) / 10_000f64.powf(j as f64 / half as f64);
    let sines = (0..half).map(|j| angle(j).sin() as f32);
    sines.chain((0..half).map(|j| angle(j).cos() as f32)).collect()
}
