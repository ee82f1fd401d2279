//! What models share whose patch embedding is made from the wavelengths of the bands: checks, the kernels that a frozen
//! model keeps, and what surrounds the blocks. n is the number of images, d the width.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;

use super::config::SensorInput;
use super::encoder::{Batch, Encoded, Encoder, Input, Map, Pooling, Want};
use super::frozen::in_parts;
use super::requests::layer_beyond;
use crate::nn::hypernetwork::{self, Kernel};
use crate::nn::tokens;
use crate::nn::vit::{self, Block};
use crate::task::Sensor;
use crate::task::bands::Band;
use crate::{Error, Result};

/// Side of the stored grid of positions: 224 pixels in patches of 16.
pub(super) const GRID: usize = 14;

/// Hidden width of a block's MLP, in multiples of the width.
pub(super) const MLP_RATIO: usize = 4;

/// A model whose patch embedding depends on an input's sensor and bands alone.
pub(super) trait KernelEncoder: Encoder {
    /// The only input of the batch, if the model can give what is wanted of it.
    fn check<'b>(&self, batch: &'b Batch, want: Want) -> Result<&'b Input>;

    /// The patch embedding of an input that was checked.
    fn kernel(&self, input: &Input) -> Result<Kernel>;

    /// Encodes an input that was checked, with its kernel.
    fn encode_with(&self, kernel: &Kernel, input: &Input, want: Want) -> Result<Encoded>;
}

/// Kernels by sensor and bands.
type Kernels = BTreeMap<(Sensor, Arc<[Band]>), Kernel>;

/// A model whose weights no longer change: it makes a kernel once.
pub(super) struct FrozenKernels<M> {
    model: M,
    kernels: Mutex<Kernels>,
}

impl<M: KernelEncoder> FrozenKernels<M> {
    /// Without kernels yet.
    pub(super) fn new(model: M) -> Self {
        FrozenKernels { model, kernels: Mutex::default() }
    }

    fn kernel(&self, input: &Input) -> Result<Kernel> {
        let key = (input.sensor, Arc::clone(&input.bands));
        // Not locked while a kernel is made: its thread may take up other work that comes here.
        let kernels = || self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels().get(&key) {
            return Ok(kernel.clone());
        }
        let kernel = self.model.kernel(input)?;
        kernels().insert(key, kernel.clone());
        Ok(kernel)
    }
}

impl<M: KernelEncoder> Encoder for FrozenKernels<M> {
    fn width(&self, pooling: Pooling, bands: usize) -> usize {
        self.model.width(pooling, bands)
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let kernel = self.kernel(self.model.check(batch, want)?)?;
        in_parts(batch, |part| self.model.encode_with(&kernel, part.only()?, want))
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

/// A number that a model's TOML gives per band, in micrometres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PerBand {
    Wavelengths,
    Bandwidths,
}

/// The wavelength or bandwidth of each channel of `input` in nanometres, found by the channel's band.
pub(super) fn per_channel(
    model: &str,
    input: &Input,
    known: &SensorInput,
    what: PerBand,
) -> Result<Vec<f32>> {
    let (sensor, count) = (input.sensor, known.bands.len());
    let (what, micrometres) = match what {
        PerBand::Wavelengths => ("wavelengths", &known.wavelengths),
        PerBand::Bandwidths => ("bandwidths", &known.bandwidths),
    };
    if micrometres.len() != count {
        let found = micrometres.len();
        return Err(Error::mismatch(format!(
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
            Error::mismatch(format!("{model}, sensor {sensor}: expected bands {expected}, found {band}"))
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
        return Err(Error::mismatch(format!("{model}, sensor {sensor}: expected {bands} bands, found {c}"))
            .help("list the bands in the order of the channels"));
    }
    if n == 0 {
        return Err(Error::mismatch(format!("{model}: expected images, found none")));
    }
    // The border of one pixel counts.
    let least = patch.saturating_sub(2).max(1);
    if h != w || h < least {
        let problem =
            format!("{model}: expected square images from {least} x {least} pixels, found {h} x {w}");
        return Err(Error::mismatch(problem).help("resize to the image size of the model's TOML"));
    }
    Ok(())
}

/// Bands as in messages.
pub(super) fn listed(bands: &[Band]) -> String {
    let names: Vec<String> = bands.iter().map(Band::to_string).collect();
    names.join(" ")
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
