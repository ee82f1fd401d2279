//! Copernicus-FM [Wang et al., arXiv 2503.11849]: a vision transformer whose patch embedding is generated at run time, from
//! wavelength and bandwidth of each band or from one language embedding. Encodings of location, date and patch area are
//! added to every token.
//!
//! Fields are named as in the official checkpoint, so that a parameter's path is its name in a weight file. d is the width,
//! p the width of the kernel-generating network, c the number of bands, t the number of patches.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Context, Encoded, Encoder, Input, Pooling, Want};
use super::network::{Network, Sizes};
use super::requests::{known_input, lacks_pooling};
use super::sensor_input::SensorInput;
use super::spectral::{
    FrozenKernels, GRID, KernelEncoder, MLP_RATIO, PerBand, check_pixels, fresh_norm, kernel_width_problem,
    maps, mean, per_channel, vit_problem,
};
use crate::nn::cubic;
use crate::nn::heads::upernet::MapLevel;
use crate::nn::hypernetwork::{Kernel, KernelMaker, KernelOrder, LanguageKernelMaker};
use crate::nn::tokens;
use crate::nn::vit::{self, Block};
use crate::task::{Metadata, MetadataKind, Sensor};
use crate::{Error, Result};

const NAME: &str = "Copernicus-FM";

/// Length of a language embedding.
pub const LANGUAGE_WIDTH: usize = 2048;

/// The sizes of a [`CopernicusFm`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CopernicusFmConfig {
    /// Length of a token, d.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; divides `width`.
    pub heads: usize,
    /// Width of the networks that generate the kernels, p.
    pub kernel_width: usize,
    /// Side of a patch in pixels. The stored kernels have side 16 and are resized.
    pub patch: usize,
    /// The metadata of an image that the model uses; the rest counts as unknown.
    #[serde(default = "all_metadata")]
    pub metadata: Vec<MetadataKind>,
    /// Blocks (0-based) whose tokens are the feature maps.
    pub map_layers: Vec<usize>,
    /// File of the language vectors of variables, below the folder of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_vectors: Option<String>,
}

fn all_metadata() -> Vec<MetadataKind> {
    MetadataKind::ALL.to_vec()
}

impl Sizes for CopernicusFmConfig {
    fn problem(&self) -> Option<String> {
        let CopernicusFmConfig { width, depth, heads, kernel_width, patch, ref map_layers, .. } = *self;
        let sizes = || {
            if !width.is_multiple_of(4) || width < 8 {
                // Sines and cosines of two coordinates need a multiple of 4.
                Some(format!("width: expected a multiple of 4 that is at least 8, found {width}"))
            } else {
                (patch == 0).then(|| "patch: expected a number above 0, found 0".to_owned())
            }
        };
        vit_problem(width, depth, heads, map_layers)
            .or_else(|| kernel_width_problem(kernel_width))
            .or_else(sizes)
    }

    fn poolings(&self) -> &'static [Pooling] {
        POOLINGS
    }

    fn maps(&self) -> Vec<MapLevel> {
        vec![MapLevel { width: self.width, stride: self.patch }; self.map_layers.len()]
    }

    fn reads_wavelengths(&self) -> bool {
        true
    }

    fn takes_any_bands(&self) -> bool {
        true
    }

    fn metadata(&self) -> &[MetadataKind] {
        &self.metadata
    }

    fn stand_ins(&self, given: Metadata, _: &[Sensor]) -> Vec<String> {
        let unknown = MetadataKind::ALL.into_iter().filter(|kind| !given.has(*kind));
        unknown.map(|kind| format!("{kind} (learned token)")).collect()
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
const POOLINGS: &[Pooling] = &[Pooling::Head, Pooling::Class, Pooling::Mean];

/// The encoder with all its parameters.
///
/// A sensor without wavelengths is a variable with a single channel, such as elevation; it needs
/// [`CopernicusFm::set_language_vector`].
#[derive(Module, Debug)]
pub struct CopernicusFm {
    cls_token: Param<Tensor<3>>,
    /// [1, 1 + 14², d], class token first.
    pos_embed: Param<Tensor<3>>,
    /// Learned tokens that replace an unknown location, area or date: [1, 1, d] each.
    coord_token: Param<Tensor<3>>,
    scale_token: Param<Tensor<3>>,
    time_token: Param<Tensor<3>>,
    norm: LayerNorm,
    patch_embed_spectral: Option<KernelMaker>,
    patch_embed_variable: Option<LanguageKernelMaker>,
    coord_fc: Linear,
    scale_fc: Linear,
    time_fc: Linear,
    blocks: Vec<Block>,
    #[module(skip)]
    config: CopernicusFmConfig,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
    #[module(skip)]
    language: BTreeMap<Sensor, Vec<f32>>,
}

impl Network for CopernicusFm {
    type Config = CopernicusFmConfig;

    fn new(config: &CopernicusFmConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let CopernicusFmConfig { width, depth, heads, kernel_width, .. } = *config;
        let token = || Initializer::Zeros.init([1, 1, width], device);
        let linear = || LinearConfig::new(width, width).init(device);
        let (variables, spectral): (Vec<_>, Vec<_>) =
            sensors.values().partition(|sensor| is_variable(sensor));
        CopernicusFm {
            cls_token: token(),
            pos_embed: Initializer::Zeros.init([1, 1 + GRID * GRID, width], device),
            coord_token: token(),
            scale_token: token(),
            time_token: token(),
            norm: vit::norm(width, device),
            patch_embed_spectral: (!spectral.is_empty())
                .then(|| KernelMaker::new(kernel_width, width, device)),
            patch_embed_variable: (!variables.is_empty())
                .then(|| LanguageKernelMaker::new(LANGUAGE_WIDTH, kernel_width, width, device)),
            coord_fc: linear(),
            scale_fc: linear(),
            time_fc: linear(),
            blocks: (0..depth).map(|_| Block::new(width, heads, MLP_RATIO, device)).collect(),
            config: config.clone(),
            sensors: sensors.clone(),
            language: BTreeMap::new(),
        }
    }

    fn frozen(self) -> Box<dyn Encoder> {
        Box::new(FrozenKernels::new(self))
    }
}

impl CopernicusFm {
    /// Sets the language embedding of a variable, [`LANGUAGE_WIDTH`] numbers.
    ///
    /// # Errors
    /// If the model has no such variable, or the vector has a different length.
    pub fn set_language_vector(&mut self, sensor: Sensor, vector: Vec<f32>) -> Result<()> {
        if !self.sensors.get(&sensor).is_some_and(is_variable) {
            let problem = format!("{NAME}: expected a sensor without wavelengths, found {sensor}");
            return Err(Error::mismatch(problem).help("set language vectors for variables only"));
        }
        if vector.len() != LANGUAGE_WIDTH {
            let found = vector.len();
            let problem = format!(
                "{NAME}, {sensor}: expected a language vector of length {LANGUAGE_WIDTH}, found {found}"
            );
            return Err(
                Error::mismatch(problem).help("load it from the file of language vectors beside the weights")
            );
        }
        self.language.insert(sensor, vector);
        Ok(())
    }

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
        cubic::resize_positions(positions, &cubic::antialiased(GRID, side))
    }

    /// Returns the sum of the encodings of location, area and date for each of n images: [n, 1, d].
    ///
    /// An unknown value of an image is replaced by its learned token. Upstream replaces it for the whole batch as soon as
    /// one image lacks the value; here the other images keep theirs.
    fn metadata(&self, context: &Context, n: usize) -> Result<Tensor<3>> {
        let d = self.config.width;
        let sees = |what: MetadataKind| self.config.metadata.contains(&what);
        let places = known_values(&context.places, n, sees(MetadataKind::Place));
        let days = known_values(&context.days, n, sees(MetadataKind::Date));
        let gsd = context.gsd_m.filter(|_| sees(MetadataKind::Area));

        let place = |place: &Option<[f32; 2]>| place.map(|place| place_row(place, d)).transpose();
        let places = places.iter().map(place).collect::<Result<_>>()?;
        let date = |days: &Option<f64>| days.map(|days| date_row(days as f32, d));
        let days = days.iter().map(date).collect();
        let area = gsd.map(|gsd| area_row(patch_area(self.config.patch, gsd), d)).transpose()?;
        let areas = vec![area; n];

        let add = |rows, token: &Param<Tensor<3>>, linear: &Linear| {
            linear.forward(rows_or_token(rows, token.val())).unsqueeze_dim::<3>(1)
        };
        let places = add(places, &self.coord_token, &self.coord_fc);
        let areas = add(areas, &self.scale_token, &self.scale_fc);
        let days = add(days, &self.time_token, &self.time_fc);
        Ok(places + areas + days)
    }

    /// Returns the input of the first block: embedded patches [n, t, d] to [n, 1 + t, d].
    fn tokens(&self, embedded: Tensor<3>, context: &Context, side: usize) -> Result<Tensor<3>> {
        let metadata = self.metadata(context, embedded.dims()[0])?; // [n, 1, d]
        Ok(tokens::with_class(self.cls_token.val(), embedded) + (self.positions(side) + metadata))
    }
}

impl Encoder for CopernicusFm {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.width
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let input = self.check(batch, want)?;
        self.encode_with(&self.kernel(input)?, input, want)
    }
}

impl KernelEncoder for CopernicusFm {
    fn check<'b>(&self, batch: &'b Batch, want: Want) -> Result<&'b Input> {
        let input = known_input(NAME, batch, &self.sensors)?;
        if let Want::Pooled(pooling) = want
            && !POOLINGS.contains(&pooling)
        {
            return Err(lacks_pooling(NAME, pooling, POOLINGS));
        }
        check_pixels(NAME, input, self.config.patch)?;
        check_context(&input.context, batch.len())?;
        Ok(input)
    }

    fn kernel(&self, input: &Input) -> Result<Kernel> {
        let (sensor, known) = (input.sensor, &self.sensors[&input.sensor]);
        let device = self.pos_embed.device();
        let kernel = match (&self.patch_embed_spectral, &self.patch_embed_variable) {
            (_, Some(maker)) if is_variable(known) => {
                let vector = self.language.get(&sensor).ok_or_else(|| {
                    Error::mismatch(format!("{NAME}, {sensor}: expected a language vector, found none"))
                        .help("load it from the file of language vectors beside the weights")
                })?;
                let bands = input.bands.len();
                if bands != 1 {
                    let problem = format!("{NAME}, {sensor}: expected 1 band, found {bands}");
                    return Err(Error::mismatch(problem).help("pass one variable at a time"));
                }
                let vector = TensorData::new(vector.clone(), [1, LANGUAGE_WIDTH]);
                maker.kernel(Tensor::from_data(vector, &device), KernelOrder::OutLast)
            }
            (Some(maker), _) => {
                let p = self.config.kernel_width;
                let wavelengths = per_channel(NAME, input, known, PerBand::Wavelengths)?;
                let bandwidths = per_channel(NAME, input, known, PerBand::Bandwidths)?;
                let rows = spectral_rows(&wavelengths, &bandwidths, p)?;
                let rows = TensorData::new(rows, [wavelengths.len(), p]); // [c, p]
                maker.kernel(Tensor::from_data(rows, &device), KernelOrder::OutLast)
            }
            (None, _) => {
                return Err(Error::mismatch(format!("{NAME}: no patch embedding for sensor {sensor} found")));
            }
        };
        Ok(kernel.resize(self.config.patch))
    }

    fn encode_with(&self, kernel: &Kernel, input: &Input, want: Want) -> Result<Encoded> {
        let patch = self.config.patch;
        let side = Kernel::patches(patch, input.pixels.dims()[2]);
        let tokens = self.tokens(kernel.embed(input.pixels.clone()), &input.context, side)?;
        Ok(match want {
            Want::Maps => maps(&self.blocks, tokens, &self.config.map_layers, side, patch),
            Want::Pooled(Pooling::Class) => {
                let class = self.norm.forward(tokens::first_after_all(&self.blocks, tokens));
                Encoded::Pooled(class.squeeze_dim(1))
            }
            Want::Pooled(pooling) => {
                let mean = mean(tokens::after_all(&self.blocks, tokens).slice_dim(1, 1..));
                Encoded::Pooled(if pooling == Pooling::Head { fresh_norm(mean) } else { mean })
            }
            Want::Tokens => {
                let tokens = tokens::after_all(&self.blocks, tokens).slice_dim(1, 1..);
                Encoded::Tokens { tokens, grid: [side, side] }
            }
        })
    }
}

/// Whether a sensor is a variable with a single channel instead of bands with wavelengths.
fn is_variable(sensor: &SensorInput) -> bool {
    sensor.wavelengths.is_empty()
}

/// Returns one value per image; all are unknown if the context has none or the model does not use them.
fn known_values<T: Copy>(values: &[Option<T>], n: usize, sees: bool) -> Vec<Option<T>> {
    if sees && !values.is_empty() { values.to_vec() } else { vec![None; n] }
}

/// Checks that the context belongs to n images.
fn check_context(context: &Context, n: usize) -> Result<()> {
    for (what, count) in [("places", context.places.len()), ("days", context.days.len())] {
        if count != 0 && count != n {
            return Err(Error::mismatch(format!(
                "{NAME}: expected {n} {what}, one per image, found {count}"
            ))
            .help("leave the list empty if nothing is known"));
        }
    }
    Ok(())
}

/// Stacks rows of d numbers, with `token` [1, 1, d] for missing rows: [n, d].
fn rows_or_token(rows: Vec<Option<Vec<f32>>>, token: Tensor<3>) -> Tensor<2> {
    let (n, d) = (rows.len(), token.dims()[2]);
    let device = token.device();
    let unknown: Vec<f32> = rows.iter().map(|row| if row.is_none() { 1.0 } else { 0.0 }).collect();
    let values: Vec<f32> = rows.into_iter().flat_map(|row| row.unwrap_or_else(|| vec![0.0; d])).collect();
    let unknown = Tensor::<2>::from_data(TensorData::new(unknown, [n, 1]), &device);
    let values = Tensor::<2>::from_data(TensorData::new(values, [n, d]), &device);
    values + unknown * token.squeeze_dim::<2>(0)
}

// ---- Fourier rows ----

/// The shortest and the longest wavelength of sines and cosines.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    shortest: f64,
    longest: f64,
}

const WAVELENGTH_RANGE: Range = Range { shortest: 100.0, longest: 1e9 };
const BANDWIDTH_RANGE: Range = Range { shortest: 1.0, longest: 1e9 };
const PLACE_RANGE: Range = Range { shortest: 1e-4, longest: 720.0 };
const AREA_RANGE: Range = Range { shortest: 1e-3, longest: 5.1e8 };
const DATE_RANGE: Range = Range { shortest: 1.0, longest: 365.25 };

impl Range {
    /// Values outside the range are errors, as upstream; 0 means none.
    fn check(self, what: &str, x: f32) -> Result<f32> {
        let size = f64::from(x).abs();
        if x == 0.0 || (self.shortest..=self.longest).contains(&size) {
            return Ok(x);
        }
        let problem = format!("{what}: expected {} to {}, found {x}", self.shortest, self.longest);
        Err(Error::mismatch(problem).help("check the unit"))
    }
}

/// Returns n numbers: the sines, then the cosines, of x at n / 2 wavelengths, which are evenly spaced on a logarithmic
/// scale.
///
/// Angles reach 6e9, so this needs float64.
fn fourier(x: f32, n: usize, range: Range) -> Vec<f32> {
    let half = n / 2;
    let (first, last) = (range.shortest.log10(), range.longest.log10());
    let angle = |j: usize| {
        let wavelength = 10f64.powf(first + j as f64 * (last - first) / (half - 1) as f64);
        TAU * f64::from(x) / wavelength
    };
    let sines = (0..half).map(|j| angle(j).sin() as f32);
    sines.chain((0..half).map(|j| angle(j).cos() as f32)).collect()
}

/// Encodes a wavelength in nanometres as p numbers.
///
/// # Errors
/// If it is neither 0 nor between 100 and 1e9.
pub fn wavelength_row(wavelength: f32, p: usize) -> Result<Vec<f32>> {
    Ok(fourier(WAVELENGTH_RANGE.check("wavelength in nanometres", wavelength)?, p, WAVELENGTH_RANGE))
}

/// Encodes a bandwidth in nanometres as p numbers.
///
/// # Errors
/// If it is neither 0 nor between 1 and 1e9.
pub fn bandwidth_row(bandwidth: f32, p: usize) -> Result<Vec<f32>> {
    Ok(fourier(BANDWIDTH_RANGE.check("bandwidth in nanometres", bandwidth)?, p, BANDWIDTH_RANGE))
}

/// Concatenates the encodings of bands, p numbers each.
fn spectral_rows(wavelengths: &[f32], bandwidths: &[f32], p: usize) -> Result<Vec<f32>> {
    let mut rows = Vec::with_capacity(wavelengths.len() * p);
    for (wavelength, bandwidth) in wavelengths.iter().zip(bandwidths) {
        let bandwidth = bandwidth_row(*bandwidth, p)?;
        rows.extend(wavelength_row(*wavelength, p)?.into_iter().zip(bandwidth).map(|(w, b)| w + b));
    }
    Ok(rows)
}

/// Encodes a location, longitude and latitude in degrees, as d numbers.
///
/// # Errors
/// If a coordinate is far outside the globe.
pub fn place_row([longitude, latitude]: [f32; 2], d: usize) -> Result<Vec<f32>> {
    // Sums are in float32, as upstream: their rounding error is half a radian at the shortest wavelength.
    let longitude = PLACE_RANGE.check("longitude + 180", longitude + 180.0)?;
    let latitude = PLACE_RANGE.check("latitude + 90", latitude + 90.0)?;
    let mut row = fourier(longitude, d / 2, PLACE_RANGE);
    row.extend(fourier(latitude, d / 2, PLACE_RANGE));
    Ok(row)
}

/// Encodes a date in whole days since 1970-01-01 as d numbers.
pub fn date_row(days: f32, d: usize) -> Vec<f32> {
    fourier(days, d, DATE_RANGE)
}

/// Encodes a patch's area in square kilometres as d numbers.
///
/// # Errors
/// If it is neither 0 nor between 0.001 and 5.1e8.
pub fn area_row(area: f32, d: usize) -> Result<Vec<f32>> {
    Ok(fourier(AREA_RANGE.check("patch area in square kilometres", area)?, d, AREA_RANGE))
}

/// Returns the area in square kilometres of a patch of pixels of `gsd` metres.
fn patch_area(patch: usize, gsd: f32) -> f32 {
    let side = patch as f64 * f64::from(gsd) / 1000.0;
    (side * side) as f32
}
