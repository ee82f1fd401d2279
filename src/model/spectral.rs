//! Shared code of the models whose patch embedding is generated from the wavelengths of the bands: checks, the kernels that
//! a frozen model keeps, and the computation before and after the blocks. n is the number of images, d the width.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;

use super::encoder::{Batch, Encoded, Encoder, Input, Map, Pooling, Want};
use super::in_parts::in_parts;
use super::requests::layer_beyond;
use super::sensor_input::SensorInput;
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

/// A model whose patch embedding depends only on an input's sensor and bands.
pub(super) trait KernelEncoder: Encoder {
    /// Returns the only input of the batch, if the model can fulfil the request for it.
    fn check<'b>(&self, batch: &'b Batch, want: Want) -> Result<&'b Input>;

    /// Returns the patch embedding of a checked input.
    fn kernel(&self, input: &Input) -> Result<Kernel>;

    /// Encodes a checked input with its kernel.
    fn encode_with(&self, kernel: &Kernel, input: &Input, want: Want) -> Result<Encoded>;
}

/// Kernels by sensor and bands.
type Kernels = BTreeMap<(Sensor, Arc<[Band]>), Kernel>;

/// A model whose weights no longer change: it generates each kernel once.
pub(super) struct FrozenKernels<M> {
    model: M,
    kernels: Mutex<Kernels>,
}

impl<M: KernelEncoder> FrozenKernels<M> {
    /// Wraps a model, without kernels so far.
    pub(super) fn new(model: M) -> Self {
        FrozenKernels { model, kernels: Mutex::default() }
    }

    fn kernel(&self, input: &Input) -> Result<Kernel> {
        let key = (input.sensor, Arc::clone(&input.bands));
        // The lock is not held while a kernel is generated: the thread may pick up other work that comes here.
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

/// Describes an inconsistency in the sizes of a vision transformer, if there is one.
pub(super) fn vit_problem(width: usize, depth: usize, heads: usize, map_layers: &[usize]) -> Option<String> {
    if [width, depth, heads].contains(&0) {
        Some("expected width, depth and heads above 0, found a 0".to_owned())
    } else if !width.is_multiple_of(heads) {
        Some(format!("width: expected a multiple of the {heads} heads, found {width}"))
    } else {
        layer_beyond("map-layers", map_layers, depth)
    }
}

/// Describes what is wrong with the width of the kernel-generating network, if anything.
pub(super) fn kernel_width_problem(width: usize) -> Option<String> {
    let heads = hypernetwork::HEADS;
    (width == 0 || !width.is_multiple_of(heads))
        .then(|| format!("kernel-width: expected a multiple of the network's {heads} heads, found {width}"))
}

/// A value that a model's TOML gives per band, in micrometres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PerBand {
    Wavelengths,
    Bandwidths,
}

/// Returns the wavelength or bandwidth in nanometres of each channel of `input`, looked up by the channel's band.
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

/// Checks that the pixels of `input` can be cut into patches.
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
    // The padding of one pixel counts towards a patch.
    let least = patch.saturating_sub(2).max(1);
    if h != w || h < least {
        let problem =
            format!("{model}: expected square images of at least {least} x {least} pixels, found {h} x {w}");
        return Err(Error::mismatch(problem).help("resize the images to the size in the model's TOML"));
    }
    Ok(())
}

/// Formats bands for error messages.
pub(super) fn listed(bands: &[Band]) -> String {
    let names: Vec<String> = bands.iter().map(Band::to_string).collect();
    names.join(" ")
}

/// Averages the tokens: [n, t, d] to [n, d].
pub(super) fn mean(tokens: Tensor<3>) -> Tensor<2> {
    tokens.mean_dim(1).squeeze_dim(1)
}

/// Turns the patch tokens [n, 1 + side², d] after each of `layers` into maps of patches of `stride` pixels. No norm is
/// applied.
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

/// A layer norm that is not in any checkpoint: weight 1, bias 0.
pub(super) fn fresh_norm(x: Tensor<2>) -> Tensor<2> {
    vit::norm(x.dims()[1], &x.device()).forward(x)
}
